//! The replica store as this partner's reader role sees it: six functions of its journal schema, nothing else.
//!
//! [`Store::search`], [`Store::file`] and [`Store::photograph`] each commit an access-log row first and read then, in
//! transactions of their own; the functions in the database refuse any other order (`services/sync/sql/journal.sql`).
//! Nothing here is in a URL or a log line: values are bound, and errors carry no value.

use jiff::{Timestamp, civil::Date};
use liaison_records::names::PartnerName;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, Row, postgres::PgRow};

use crate::{
    request::{OfficerId, Search},
    texts::Lang,
};

/// The terms under which the partner reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The partner's name in English and French.
    pub partner: (String, String),
    /// IANA name of the partner's time zone.
    pub time_zone: String,
    /// Codes of the permitted purposes.
    pub purposes: Vec<String>,
    /// Granted field groups.
    pub groups: Vec<String>,
    /// The hub's clock at the replica's snapshot; `None` before the first fill.
    pub as_of: Option<Timestamp>,
    /// When the agreement ends.
    pub authorized_until: Option<Timestamp>,
    /// Suspended by the connection's manifest.
    pub suspended: bool,
    /// Closed for a moment by sync.
    pub fenced: bool,
    /// Generation of the connection that the replica follows.
    pub generation: i64,
}

impl Terms {
    /// Whether anything may be read at `now`; the database decides, this is for saying so in advance.
    pub fn is_open(&self, now: Timestamp) -> bool {
        !self.suspended && self.authorized_until.is_some_and(|until| now < until)
    }
}

/// Who asks, and how.
#[derive(Debug, Clone)]
pub struct Asker {
    /// As declared.
    pub officer: OfficerId,
    /// Code of the purpose, as given.
    pub purpose: String,
    /// Language of the answer.
    pub lang: Lang,
    /// W3C traceparent from the gateway.
    pub trace: Option<String>,
    /// SHA-256 of the partner's client certificate, hexadecimal.
    pub leaf: String,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A search.
    Search,
    /// One file.
    File,
    /// One photograph of a file.
    Photograph,
    /// Everybody who is at large.
    AtLarge,
}

impl Kind {
    /// As in the access log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::File => "file",
            Self::Photograph => "photograph",
            Self::AtLarge => "at_large",
        }
    }
}

/// One page of what a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Number of the access-log row that lists the files shown.
    pub access: i64,
    /// How many files were found in all.
    pub total: i32,
    /// How old the data is.
    pub as_of: Option<Timestamp>,
    /// The files of this page.
    pub subjects: Vec<Subject>,
}

/// The search row of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Number of the file.
    pub file: i64,
    /// FPS number.
    pub fps: Option<String>,
    /// Surname.
    pub surname: String,
    /// Given names.
    pub given: String,
    /// Normalised words of the name and of all aliases.
    pub names: Vec<String>,
    /// Date of birth.
    pub birth_date: Option<Date>,
    /// Codes, as in `liaison_records::codes`.
    pub custody: String,
    /// Code of the status.
    pub status: String,
    /// Code of the at-large axis.
    pub at_large: String,
    /// ISO 3166-2.
    pub jurisdiction: String,
    /// Statistics Canada census subdivision.
    pub municipality: String,
    /// Name of the municipality.
    pub place: Option<String>,
    /// SHA-256 of the latest photograph, hexadecimal.
    pub photograph: Option<String>,
}

/// The records of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// Number of the access-log row.
    pub access: i64,
    /// How old the data is.
    pub as_of: Option<Timestamp>,
    /// Its records, and the reference records that they name; never empty.
    pub records: Vec<Record>,
}

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The file; `None` for a reference record.
    pub offender: Option<i64>,
    /// Field group.
    pub group: String,
    /// Table of the catalogue.
    pub table: String,
    /// Number in its table.
    pub id: i64,
    /// Its columns.
    pub body: Value,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No terms, suspended, or the agreement has ended.
    #[error("the share is closed: no terms, suspended or ended")]
    Closed,
    /// sync has closed the replica for a moment.
    #[error("the replica is fenced while it is being updated")]
    Fenced,
    /// The agreement does not permit the purpose. The denied request is in the access log.
    #[error("the purpose is not permitted")]
    Purpose,
    /// The database saw no access-log row that allows this read.
    #[error("the database found no unused access-log row for this request")]
    NotLogged,
    /// The store can not be reached or failed; the text has no value of a request in it.
    #[error("the replica store failed: {0}")]
    Unavailable(String),
}

impl Refusal {
    /// A stable word for metrics and logs.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Fenced => "fenced",
            Self::Purpose => "purpose",
            Self::NotLogged => "not_logged",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        let code =
            error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned);
        match code.as_deref() {
            // Without its schema or its rights there is no share (any more): unknown is closed.
            Some("LA001" | "42P01" | "3F000" | "42883" | "42501") => Self::Closed,
            Some("LA002") => Self::Fenced,
            Some("LA003") => Self::NotLogged,
            Some(code) => Self::Unavailable(format!("SQLSTATE {code}")),
            // Messages of connection errors name the server, not the request.
            None => Self::Unavailable(error.to_string()),
        }
    }
}

/// The partner's journal, through a small pool of connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    journal: String,
}

impl Store {
    /// A store over `pool` for `partner`.
    pub fn new(pool: PgPool, partner: &PartnerName) -> Self {
        Self { pool, journal: format!("\"{}\"", partner.journal_schema()) }
    }

    // The schema's name comes from a PartnerName: letters, digits and underscores.
    fn sql(&self, before: &str, after: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!("{before} {}.{after}", self.journal))
    }

    /// The terms in force; `None` when there are none.
    pub async fn terms(&self) -> Result<Option<Terms>, Refusal> {
        let sql = self.sql(
            "SELECT partner_en, partner_fr, time_zone, purposes, groups, \
             (extract(epoch FROM as_of) * 1000000)::bigint AS as_of, \
             (extract(epoch FROM authorized_until) * 1000000)::bigint AS authorized_until, \
             suspended, fenced, generation FROM",
            "terms()",
        );
        let row = sqlx::query(sql).fetch_optional(&self.pool).await?;
        row.map(|row| {
            Ok(Terms {
                partner: (row.try_get("partner_en")?, row.try_get("partner_fr")?),
                time_zone: row.try_get("time_zone")?,
                purposes: row.try_get("purposes")?,
                groups: row.try_get("groups")?,
                as_of: instant(&row, "as_of")?,
                authorized_until: instant(&row, "authorized_until")?,
                suspended: row.try_get("suspended")?,
                fenced: row.try_get("fenced")?,
                generation: row.try_get("generation")?,
            })
        })
        .transpose()
    }

    /// Commits the access-log row of a request and returns its number; a denied one is committed too, then refused.
    /// `refusal` is why InfoPol itself refuses, if it does.
    pub async fn log(&self, asker: &Asker, kind: Kind, request: &Value, refusal: Option<&str>) -> Result<i64, Refusal> {
        let sql = self.sql("SELECT id, reason FROM", "log_request($1, $2, $3, $4, $5, $6, $7, $8)");
        let row = sqlx::query(sql)
            .bind(asker.officer.as_str())
            .bind(&asker.purpose)
            .bind(kind.as_str())
            .bind(request)
            .bind(asker.lang.code())
            .bind(&asker.trace)
            .bind(&asker.leaf)
            .bind(refusal)
            .fetch_one(&self.pool)
            .await?;
        match row.try_get::<Option<String>, _>("reason")?.as_deref() {
            None => Ok(row.try_get("id")?),
            Some("closed") => Err(Refusal::Closed),
            Some("fenced") => Err(Refusal::Fenced),
            Some(_) => Err(Refusal::Purpose),
        }
    }

    /// Runs a search: logs it, has the list of the page logged, and reads the page.
    pub async fn search(&self, asker: &Asker, kind: Kind, search: &Search) -> Result<Page, Refusal> {
        let request = search.to_json();
        let query = self.log(asker, kind, &request, None).await?;
        let list: i64 = sqlx::query_scalar(self.sql("SELECT", "find($1, $2, $3)"))
            .bind(query)
            .bind(asker.officer.as_str())
            .bind(&request)
            .fetch_one(&self.pool)
            .await?;
        let sql = self.sql(
            "SELECT total, (extract(epoch FROM as_of) * 1000000)::bigint AS as_of, offender, fps, surname, given, names, \
             birth_date::text, custody, status, at_large, jurisdiction, municipality, place, photograph FROM",
            "shown($1, $2)",
        );
        let rows = sqlx::query(sql).bind(list).bind(asker.officer.as_str()).fetch_all(&self.pool).await?;
        // One row comes at least; none means that the share was closed between two statements.
        let first = rows.first().ok_or(Refusal::Closed)?;
        let subjects = rows.iter().map(subject).collect::<Result<Vec<_>, _>>()?;
        Ok(Page {
            access: list,
            total: first.try_get("total")?,
            as_of: instant(first, "as_of")?,
            subjects: subjects.into_iter().flatten().collect(),
        })
    }

    /// Reads a file; `None` when the replica does not hold it.
    pub async fn file(&self, asker: &Asker, file: i64) -> Result<Option<File>, Refusal> {
        let request = json!({ "file": file });
        let access = self.log(asker, Kind::File, &request, None).await?;
        let sql = self.sql(
            "SELECT offender, grp, tbl, id, body, (extract(epoch FROM as_of) * 1000000)::bigint AS as_of FROM",
            "read_file($1, $2, $3)",
        );
        let rows =
            sqlx::query(sql).bind(access).bind(asker.officer.as_str()).bind(&request).fetch_all(&self.pool).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let as_of = instant(first, "as_of")?;
        let records = rows
            .iter()
            .map(|row| {
                Ok(Record {
                    offender: row.try_get("offender")?,
                    group: row.try_get("grp")?,
                    table: row.try_get("tbl")?,
                    id: row.try_get("id")?,
                    body: row.try_get("body")?,
                })
            })
            .collect::<Result<_, sqlx::Error>>()?;
        Ok(Some(File { access, as_of, records }))
    }

    /// Reads one photograph of a file, as JPEG; `None` when that file has no such photograph here.
    pub async fn photograph(&self, asker: &Asker, file: i64, sha256: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let request = json!({ "file": file, "sha256": sha256 });
        let access = self.log(asker, Kind::Photograph, &request, None).await?;
        Ok(sqlx::query_scalar(self.sql("SELECT", "read_photograph($1, $2, $3)"))
            .bind(access)
            .bind(asker.officer.as_str())
            .bind(&request)
            .fetch_one(&self.pool)
            .await?)
    }
}

fn instant(row: &PgRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    let micros: Option<i64> = row.try_get(column)?;
    // 'infinity' and what jiff can not hold is as good as unknown.
    Ok(micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()))
}

fn subject(row: &PgRow) -> Result<Option<Subject>, sqlx::Error> {
    let Some(file) = row.try_get::<Option<i64>, _>("offender")? else { return Ok(None) };
    let birth_date: Option<String> = row.try_get("birth_date")?;
    let photograph: Option<Vec<u8>> = row.try_get("photograph")?;
    Ok(Some(Subject {
        file,
        fps: row.try_get("fps")?,
        surname: row.try_get("surname")?,
        given: row.try_get("given")?,
        names: row.try_get("names")?,
        birth_date: birth_date.and_then(|date| date.parse().ok()),
        custody: row.try_get("custody")?,
        status: row.try_get("status")?,
        at_large: row.try_get("at_large")?,
        jurisdiction: row.try_get("jurisdiction")?,
        municipality: row.try_get("municipality")?,
        place: row.try_get("place")?,
        photograph: photograph.map(hex::encode),
    }))
}
