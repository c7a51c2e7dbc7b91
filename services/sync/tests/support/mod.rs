//! A hub and a store of one test's own on the real PostgreSQL, a small OMS, and the oracle.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use liaison_oms::capture::Capture;
use liaison_records::{codes::Code, codes::FieldGroup, names::PartnerName, population::Population};
use liaison_sync::{
    compare::Budget,
    connect::Target,
    error::Side,
    fault::Faults,
    ledger::{self, Entry, EntryKind, Heading},
    quote::ident,
    record::Record,
    seed, subject,
    terms::{Grant, Scope, Terms},
    verify::{self, Ended},
    worker::{Context, Worker},
};
use tokio_postgres::{Client, NoTls};

pub mod kubernetes;
pub mod signer;

pub const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$3T/jZdRUOA0mXQjX0oJGlJJ9oZ6LRc0k1fW5qgTn1V0=:NTfPKSXsAu1n9Zs4UbkLWcw0Jb2E8sPfOwGbr7wP7JE=";

pub fn url() -> String {
    std::env::var("TEST_DATABASE_URL").expect(
        "TEST_DATABASE_URL is not set: run `tests/cluster/services up`, then `eval \"$(tests/cluster/services env)\"`",
    )
}

/// A number that the environment may give.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL of TEST_DATABASE_URL");
    tokio::spawn(connection);
    client
}

/// File, group, body and hash of each record, by table and key.
type Records = BTreeMap<(String, i64), (Option<i64>, String, String, Vec<u8>)>;

/// Two databases that are dropped at the end.
pub struct World {
    pub name: String,
    pub hub: Client,
    pub store: Client,
    pub hub_target: Target,
    pub store_target: Target,
    hub_url: String,
    store_url: String,
    partners: Vec<PartnerName>,
}

/// Hub and store of a world of another process.
pub fn targets(world: &str) -> (Target, Target) {
    let of = |side, part: &str| Target::from_url(side, &database(&url(), &format!("{world}_{part}"))).unwrap();
    (of(Side::Hub, "hub"), of(Side::Store, "store"))
}

fn database(server: &str, name: &str) -> String {
    format!("{}/{name}", server.rsplit_once('/').expect("a URL with a database").0)
}

/// The tables of OMS that the tests use, with the catalogue's names, and one of which the catalogue knows nothing.
const OMS: &str = r"
CREATE SCHEMA oms;
CREATE TABLE oms.image (sha256 bytea PRIMARY KEY, jpeg bytea NOT NULL);
CREATE TABLE oms.office (id bigint PRIMARY KEY, name_en text NOT NULL);
CREATE TABLE oms.offender (id bigint PRIMARY KEY, fps text NOT NULL, surname text NOT NULL, given text NOT NULL,
    birth_date date NOT NULL, custody text NOT NULL, status text NOT NULL, release_type text, at_large text NOT NULL,
    warrant text NOT NULL, jurisdiction text NOT NULL, municipality text NOT NULL);
CREATE TABLE oms.alias (id bigint PRIMARY KEY, offender bigint NOT NULL REFERENCES oms.offender (id) ON DELETE CASCADE,
    surname text NOT NULL, given text NOT NULL);
CREATE TABLE oms.photograph (id bigint PRIMARY KEY, offender bigint NOT NULL REFERENCES oms.offender (id) ON DELETE CASCADE,
    sha256 bytea NOT NULL, taken_on date NOT NULL);
CREATE TABLE oms.sentence (id bigint PRIMARY KEY, offender bigint NOT NULL REFERENCES oms.offender (id) ON DELETE CASCADE,
    length_days int);
CREATE TABLE oms.victim (id bigint PRIMARY KEY, offender bigint NOT NULL REFERENCES oms.offender (id) ON DELETE CASCADE,
    note text NOT NULL);
CREATE INDEX ON oms.alias (offender); CREATE INDEX ON oms.photograph (offender); CREATE INDEX ON oms.sentence (offender);
";
const VIEW: &str = r"
CREATE VIEW liaison.record AS
SELECT id AS offender, 'identity'::text AS grp, 'offender'::text AS tbl, id, jsonb_build_object('fps', fps, 'surname', surname,
    'given', given, 'birthDate', birth_date, 'custody', custody, 'status', status, 'releaseType', release_type,
    'atLarge', at_large, 'warrant', warrant, 'jurisdiction', jurisdiction, 'municipality', municipality) AS body FROM oms.offender
UNION ALL SELECT offender, 'aliases', 'alias', id, jsonb_build_object('surname', surname, 'given', given) FROM oms.alias
UNION ALL SELECT offender, 'photograph', 'photograph', id,
    jsonb_build_object('sha256', encode(sha256, 'hex'), 'takenOn', taken_on) FROM oms.photograph
UNION ALL SELECT offender, 'sentence', 'sentence', id, jsonb_build_object('lengthDays', length_days) FROM oms.sentence
UNION ALL SELECT offender, 'victims', 'victim', id, jsonb_build_object('note', note) FROM oms.victim
UNION ALL SELECT NULL::bigint, 'supervision', 'office', id, jsonb_build_object('nameEn', name_en) FROM oms.office;
SELECT liaison.capture_from('oms.offender', 'offender', 'id'), liaison.capture_from('oms.alias', 'alias', 'offender'),
    liaison.capture_from('oms.photograph', 'photograph', 'offender'), liaison.capture_from('oms.sentence', 'sentence', 'offender'),
    liaison.capture_from('oms.office', 'office', NULL), liaison.capture_from('oms.victim', 'victim', 'offender');
";

impl World {
    /// `name` must be unique among tests: it names databases and roles.
    pub async fn new(name: &str) -> Self {
        Self::at(name, &url(), &url(), "").await
    }

    /// The same on other servers, given by the URL of any of their databases. `options` end the statement that makes the store's.
    pub async fn at(name: &str, hub_server: &str, store_server: &str, options: &str) -> Self {
        let name = format!("{name}_{}", std::process::id());
        for (part, server, options) in [("hub", hub_server, ""), ("store", store_server, options)] {
            let admin = connect(server).await;
            admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name}_{part} WITH (FORCE)")).await.unwrap();
            admin.batch_execute(&format!("CREATE DATABASE {name}_{part} {options}")).await.unwrap();
        }
        let (hub_url, store_url) =
            (database(hub_server, &format!("{name}_hub")), database(store_server, &format!("{name}_store")));
        let hub = connect(&hub_url).await;
        hub.batch_execute("CREATE SCHEMA liaison").await.unwrap();
        for migration in [
            include_str!("../../../oms/migrations/0100_liaison_change.sql"),
            include_str!("../../../oms/migrations/0101_liaison_ledger.sql"),
            include_str!("../../../oms/migrations/0110_liaison_statement.sql"),
            include_str!("../../../oms/migrations/0111_liaison_retention.sql"),
            include_str!("../../../oms/migrations/0120_liaison_verification.sql"),
            include_str!("../../../oms/migrations/0130_liaison_capture.sql"),
            include_str!("../../../oms/migrations/0160_liaison_wal_capture.sql"),
            include_str!("../../../oms/migrations/0170_ledger_loss.sql"),
            include_str!("../../../oms/migrations/0171_mark.sql"),
            include_str!("../../../oms/migrations/0184_handover.sql"),
            include_str!("../../../oms/migrations/0185_wal_drain.sql"),
            include_str!("../../../oms/migrations/0186_wal_once.sql"),
            include_str!("../../../oms/migrations/0187_wal_renew.sql"),
        ] {
            hub.batch_execute(migration).await.unwrap();
        }
        hub.batch_execute(OMS).await.unwrap();
        hub.batch_execute(include_str!("../../../oms/migrations/0140_sealed.sql")).await.unwrap();
        hub.batch_execute(VIEW).await.unwrap();
        Self {
            hub,
            store: connect(&store_url).await,
            hub_target: Target::from_url(Side::Hub, &hub_url).unwrap(),
            store_target: Target::from_url(Side::Store, &store_url).unwrap(),
            hub_url,
            store_url,
            partners: Vec::new(),
            name,
        }
    }

    /// From here on changes are read from the hub's write-ahead log, or written by triggers.
    pub async fn capture_from_the_log(&self, log: bool) {
        let by = if log { Capture::Wal } else { Capture::Triggers };
        liaison_oms::capture::capture_url(&self.hub_url, by).await.unwrap();
    }

    /// The hub, for a process.
    pub fn hub_url(&self) -> &str {
        &self.hub_url
    }

    /// The store, for a process.
    pub fn store_url(&self) -> &str {
        &self.store_url
    }

    /// Connects again to servers that were away.
    pub async fn come_back(&mut self) {
        self.hub = connect(&self.hub_url).await;
        self.store = connect(&self.store_url).await;
    }

    /// Another server is the hub from now on.
    pub async fn fail_over_hub(&mut self, server: &str) {
        self.hub_url = database(server, &format!("{}_hub", self.name));
        self.hub_target = Target::from_url(Side::Hub, &self.hub_url).unwrap();
        self.hub = connect(&self.hub_url).await;
    }

    /// The real OMS schema, and a population of `files` in the community and as many elsewhere. sync logs in as its own role,
    /// with the rights that it has in production and no more.
    pub async fn over_oms(name: &str, files: u32) -> Self {
        let base = url();
        let admin = connect(&base).await;
        let name = format!("{name}_{}", std::process::id());
        let (server, _) = base.rsplit_once('/').expect("a URL with a database");
        for part in ["hub", "store"] {
            admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name}_{part} WITH (FORCE)")).await.unwrap();
            admin.batch_execute(&format!("CREATE DATABASE {name}_{part}")).await.unwrap();
        }
        let (hub_url, store_url) = (format!("{server}/{name}_hub"), format!("{server}/{name}_store"));
        let mut oms =
            <sqlx::PgConnection as sqlx::Connection>::connect_with(&liaison_oms::connect::from_url(&hub_url).unwrap())
                .await
                .unwrap();
        liaison_oms::migrate::migrate(&mut oms).await.unwrap();
        let population = liaison_oms::generate::GenerateArgs {
            seed: 7,
            active_incarcerated: files / 2,
            community: files,
            archived: files / 2,
            as_of: "2026-11-01".parse().unwrap(),
            replace: false,
            json: false,
        };
        liaison_oms::generate::generate(&mut oms, &population).await.unwrap();
        admin
            .batch_execute(&format!(
                "ALTER ROLE liaison_sync LOGIN CREATEROLE; ALTER DATABASE {name}_store OWNER TO liaison_sync;
                 REVOKE CONNECT ON DATABASE {name}_store FROM PUBLIC"
            ))
            .await
            .unwrap();
        let as_sync = |url: &str| {
            let (_, rest) = url.split_once('@').expect("a URL with a user");
            format!("postgres://liaison_sync@{rest}")
        };
        Self {
            hub: connect(&hub_url).await,
            store: connect(&store_url).await,
            hub_target: Target::from_url(Side::Hub, &as_sync(&hub_url)).unwrap(),
            store_target: Target::from_url(Side::Store, &as_sync(&store_url)).unwrap(),
            hub_url,
            store_url,
            partners: Vec::new(),
            name,
        }
    }

    /// The connection of OMS's own programs.
    pub async fn oms(&self) -> sqlx::PgConnection {
        let url = url();
        let (server, _) = url.rsplit_once('/').expect("a URL with a database");
        let options = liaison_oms::connect::from_url(&format!("{server}/{}_hub", self.name)).unwrap();
        <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await.unwrap()
    }

    /// A partner whose role is dropped at the end.
    pub fn adopt(&mut self, partner: &PartnerName) {
        self.partners.push(partner.clone());
    }

    pub async fn prepare(&mut self, partner: &PartnerName) {
        let mut client = self.store_target.connect().await.unwrap();
        seed::prepare(&mut client, partner, VERIFIER).await.unwrap();
        self.partners.push(partner.clone());
    }

    /// The same for a partner that was disposed of.
    pub async fn prepare_again(&self, partner: &PartnerName) {
        let mut client = self.store_target.connect().await.unwrap();
        seed::prepare(&mut client, partner, VERIFIER).await.unwrap();
    }

    /// Leaves the hub, so that its database can be copied.
    pub async fn leave_hub(&mut self) {
        self.hub = connect(&database(&self.hub_url, "postgres")).await;
    }

    /// Is there again.
    pub async fn return_to_hub(&mut self) {
        self.hub = connect(&self.hub_url).await;
    }

    /// Makes database `to` a copy of `from`; whoever is connected to either is not any more. `hub` or `backup`.
    pub async fn copy_hub(&self, from: &str, to: &str) {
        let (admin, name) = (connect(&database(&self.hub_url, "postgres")).await, &self.name);
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name}_{to} WITH (FORCE)")).await.unwrap();
        for attempt in 0.. {
            let leave = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
            admin.execute(leave, &[&format!("{name}_{from}")]).await.unwrap();
            match admin.batch_execute(&format!("CREATE DATABASE {name}_{to} TEMPLATE {name}_{from}")).await {
                Ok(()) => return,
                Err(error) if attempt > 100 => panic!("{error:?}"),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }

    /// A partner name that no other test uses.
    pub fn partner(&self, suffix: &str) -> PartnerName {
        format!("{}-{suffix}", self.name.replace('_', "-")).parse().unwrap()
    }

    pub fn worker(&self, holder: &str, budget: Budget, faults: Faults) -> Worker {
        Worker::new(Context::new(&self.hub_target, &self.store_target, holder, budget, faults))
            .with_patience(std::time::Duration::from_millis(1))
    }

    pub async fn drop(self) {
        let Self { name, hub, store, partners, hub_url, store_url, .. } = self;
        drop((hub, store));
        for part in ["hub", "backup"] {
            let admin = connect(&database(&hub_url, "postgres")).await;
            admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name}_{part} WITH (FORCE)")).await.unwrap();
        }
        let admin = connect(&database(&store_url, "postgres")).await;
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name}_store WITH (FORCE)")).await.unwrap();
        for partner in partners {
            admin.batch_execute(&format!("DROP ROLE IF EXISTS {}", ident(&partner.reader_role()))).await.unwrap();
        }
    }

    /// A file in a place, with `children` rows in each table, and a picture.
    pub async fn file(&self, id: i64, municipality: &str, children: i64) {
        self.hub.batch_execute(&file_sql(id, municipality, "Released", children)).await.unwrap();
    }

    pub async fn execute(&self, sql: &str) {
        self.hub.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    pub async fn count(&self, partner: &PartnerName, what: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {}.{what}", ident(&partner.share_schema()));
        self.store.query_one(&sql, &[]).await.unwrap().get(0)
    }

    pub async fn cursor_text(&self, partner: &PartnerName) -> String {
        let sql = format!("SELECT c::text FROM {}.cursor c", ident(&partner.share_schema()));
        self.store.query_one(&sql, &[]).await.unwrap().get(0)
    }

    /// I1: the replica is what one query on the hub says.
    pub async fn check_i1(&self, terms: &Terms) {
        let grant = terms.grant.as_ref().unwrap();
        let share = ident(&terms.partner.share_schema());
        let sql = format!(
            "SELECT offender, grp, tbl, id, body::text FROM liaison.record
             WHERE grp = ANY ($1) AND (offender IS NULL OR offender IN
                (SELECT o.id FROM oms.offender o WHERE o.sealed_on IS NULL AND {}))",
            grant.scope.to_sql("o")
        );
        let mut expected: Records = BTreeMap::new();
        let mut files: BTreeMap<i64, Vec<std::sync::Arc<Record>>> = BTreeMap::new();
        let mut pictures: BTreeSet<String> = BTreeSet::new();
        for row in self.hub.query(&sql, &[&grant.group_names()]).await.unwrap() {
            let (offender, grp, tbl, id, body): (Option<i64>, String, String, i64, String) =
                (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
            let hash = subject::record_hash(&grp, &tbl, id, offender, &body);
            let record = Record {
                offender,
                group: grp.as_str().into(),
                table: tbl.as_str().into(),
                id,
                body: body.clone(),
                hash,
            };
            pictures.extend(record.photograph().map(hex::encode));
            if let Some(file) = offender {
                files.entry(file).or_default().push(record.into());
            }
            expected.insert((tbl, id), (offender, grp, body, hash.to_vec()));
        }
        let rows = self
            .store
            .query(&format!("SELECT offender, grp, tbl, id, body, hash FROM {share}.record"), &[])
            .await
            .unwrap();
        let held: Records = rows
            .iter()
            .map(|row| ((row.get(2), row.get(3)), (row.get(0), row.get(1), row.get(4), row.get(5))))
            .collect();
        for key in expected.keys().chain(held.keys()) {
            assert_eq!(expected.get(key), held.get(key), "I1: {} {key:?} (hub, replica)", terms.partner);
        }
        let columns = "offender, fps, surname, given, names, sounds, birth_date, other_dates, custody, status, at_large, \
                       jurisdiction, municipality, encode(photograph, 'hex') AS photograph";
        let rows = self
            .store
            .query(&format!("SELECT to_jsonb(s) FROM (SELECT {columns} FROM {share}.subject) s"), &[])
            .await
            .unwrap();
        let held: BTreeMap<i64, serde_json::Value> = rows
            .iter()
            .map(|row| row.get::<_, serde_json::Value>(0))
            .map(|json| (json["offender"].as_i64().unwrap(), json))
            .collect();
        let expected: BTreeMap<i64, serde_json::Value> =
            files.iter().map(|(file, records)| (*file, subject::row(*file, records).unwrap())).collect();
        assert_eq!(expected, held, "I1: search rows of {}", terms.partner);
        let rows = self
            .store
            .query(&format!("SELECT encode(sha256, 'hex'), sha256(jpeg) = sha256 FROM {share}.photograph"), &[])
            .await
            .unwrap();
        let held: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(rows.iter().all(|row| row.get::<_, bool>(1)), "I1: bytes of pictures");
        assert_eq!(pictures, held, "I1: pictures of {}", terms.partner);
    }

    /// I2: every batch that a replica row names is in the ledger and not void; and the chain holds.
    pub async fn check_i2(&self, partner: &PartnerName) {
        let share = ident(&partner.share_schema());
        let sql = format!("SELECT DISTINCT batch FROM {share}.record UNION SELECT batch FROM {share}.subject");
        let present: BTreeSet<i64> = self.store.query(&sql, &[]).await.unwrap().iter().map(|r| r.get(0)).collect();
        let rows = self
            .hub
            .query(
                "SELECT batch, agreement, generation, digest, previous, head, state FROM liaison.ledger_batch
                 WHERE partner = $1 ORDER BY batch",
                &[&partner.as_str()],
            )
            .await
            .unwrap();
        let mut known = BTreeSet::new();
        let mut previous: Vec<u8> = Vec::new();
        for row in &rows {
            let (batch, agreement, generation): (i64, String, i64) = (row.get(0), row.get(1), row.get(2));
            let (digest, before, head): (Vec<u8>, Vec<u8>, Vec<u8>) = (row.get(3), row.get(4), row.get(5));
            assert_eq!(before, previous, "the chain of {partner} at {batch}");
            let entries = self.entries(partner, batch).await;
            assert_eq!(digest, ledger::batch_digest(&entries), "digest of {partner} {batch}");
            let digest = digest.try_into().unwrap();
            let heading =
                Heading { partner: partner.as_str(), batch, agreement: &agreement, generation, digest: &digest };
            assert_eq!(head, ledger::head(&previous, &heading), "head of {partner} {batch}");
            previous = head;
            if row.get::<_, &str>(6) != "void" {
                known.insert(batch);
            }
        }
        assert!(present.is_subset(&known), "I2: {partner} {present:?} {known:?}");
    }

    async fn entries(&self, partner: &PartnerName, batch: i64) -> Vec<Entry> {
        let rows = self
            .hub
            .query(
                "SELECT offender, groups, kind, digest FROM liaison.ledger_entry WHERE partner = $1 AND batch = $2 ORDER BY seq",
                &[&partner.as_str(), &batch],
            )
            .await
            .unwrap();
        let kind = |s: &str| {
            [EntryKind::Enter, EntryKind::Stay, EntryKind::Leave, EntryKind::Reference]
                .into_iter()
                .find(|k| k.as_str() == s)
                .unwrap()
        };
        rows.iter()
            .map(|r| Entry {
                offender: r.get(0),
                groups: r.get(1),
                kind: kind(r.get(2)),
                digest: r.get::<_, Vec<u8>>(3).try_into().unwrap(),
            })
            .collect()
    }
}

/// SQL that inserts a file with children and a picture of its own.
pub fn file_sql(id: i64, municipality: &str, status: &str, children: i64) -> String {
    let province = if municipality.starts_with("59") { "CA-BC" } else { "CA-SK" };
    let fps = format!("{:06}A", id % 1_000_000);
    let mut sql = format!(
        "INSERT INTO oms.offender VALUES ({id}, '{fps}', 'Tremblay{id}', 'Marc', '1980-01-02', 'Community', '{status}', \
         'DayParole', 'NotAtLarge', 'NoWarrant', '{province}', '{municipality}');"
    );
    for child in 0..children {
        let key = id * 100 + child;
        write!(
            sql,
            "INSERT INTO oms.alias VALUES ({key}, {id}, 'Alias{key}', 'X') ON CONFLICT DO NOTHING;
             INSERT INTO oms.sentence VALUES ({key}, {id}, {key}) ON CONFLICT DO NOTHING;"
        )
        .unwrap();
    }
    if children > 0 {
        sql += &picture_sql(id * 100, id, &format!("picture {id}"));
    }
    sql
}

/// SQL that gives a photograph record a picture.
pub fn picture_sql(key: i64, file: i64, content: &str) -> String {
    format!(
        "INSERT INTO oms.image SELECT sha256(b), b FROM (SELECT convert_to('{content}', 'UTF8') AS b) x ON CONFLICT DO NOTHING;
         INSERT INTO oms.photograph VALUES ({key}, {file}, sha256(convert_to('{content}', 'UTF8')), '2024-01-01')
         ON CONFLICT (id) DO UPDATE SET sha256 = EXCLUDED.sha256;"
    )
}

pub fn population(json: &str) -> Population {
    serde_json::from_str(json).unwrap()
}

pub fn terms(partner: &PartnerName, groups: &[&str], share: &str) -> Terms {
    let groups = groups.iter().map(|g| FieldGroup::parse(g).unwrap()).collect();
    let everything = r#"{"anyOf":[{"custody":["Community","Incarcerated","Archived"]}]}"#;
    Terms {
        partner: partner.clone(),
        generation: 1,
        name_en: "Partner".into(),
        name_fr: "Partenaire".into(),
        time_zone: "America/Vancouver".into(),
        authorized_until: Some("2090-01-01T00:00:00Z".parse().unwrap()),
        suspended: false,
        grant: Some(Grant {
            agreement: "bc-2003".into(),
            groups,
            scope: Scope { share: population(share), agreement: population(everything) },
            purposes: vec!["Supervision".into()],
        }),
        freshness_seconds: 60,
    }
}

pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Asks for a verification, or with `anew` for a rebuild, and lets the worker work until there is a result.
pub async fn ended(world: &World, worker: &mut Worker, partner: &PartnerName, token: &str, anew: bool) -> Ended {
    verify::request(&world.hub, partner, token, anew).await.unwrap();
    let started = Instant::now();
    loop {
        worker.round(now()).await.unwrap();
        while worker.busy() {
            worker.wait(Duration::from_secs(1)).await;
        }
        if let Some(ended) = verify::ended(&world.hub, partner, token).await.unwrap() {
            return ended;
        }
        assert!(started.elapsed() < Duration::from_secs(90), "it does not end");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
