//! What a page shows: results and profiles as plain values, made of what the store gave. Pure; `now` is a parameter.
//!
//! Labels come from the catalogue, in the page's language; a record's own text keeps its language and says which.

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use liaison_records::{
    catalogue::{self, Column, ColumnType, Table, TableKind},
    codes::{AtLarge, Code, Custody, FieldGroup, Jurisdiction, Status, WarrantState},
    search,
};
use serde_json::Value;

use crate::{
    request::Search,
    store::{File, Page, Record, Subject},
    texts::{Lang, Text},
};

/// Data older than this, in seconds, is said to be old.
pub const STALE_AFTER: i64 = 300;

/// In which language and time zone, and when.
#[derive(Debug, Clone)]
pub struct Context {
    /// Language of the page.
    pub lang: Lang,
    /// The partner's time zone.
    pub zone: TimeZone,
    /// The present.
    pub now: Timestamp,
}

impl Context {
    /// An instant as it is shown: the partner's wall clock, with the zone's abbreviation.
    pub fn instant(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
    }

    /// How old data of `as_of` is, when that must be said.
    pub fn stale(&self, as_of: Option<Timestamp>) -> Option<String> {
        let age = is_stale(as_of, self.now)?;
        let (text, number) = match age {
            0..=7_199 => (Text::Minutes, age / 60),
            7_200..=172_799 => (Text::Hours, age / 3_600),
            _ => (Text::Days, age / 86_400),
        };
        Some(self.lang.fill(Text::Stale, self.lang.fill(text, number)))
    }

    fn today(&self) -> Date {
        self.now.to_zoned(self.zone.clone()).date()
    }
}

/// The age in seconds of data that is too old, or not old at all, to be taken as present.
pub fn is_stale(as_of: Option<Timestamp>, now: Timestamp) -> Option<i64> {
    let age = now.as_second() - as_of?.as_second();
    (age > STALE_AFTER).then_some(age)
}

/// One row of a list of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Number of the file.
    pub file: i64,
    /// Surname, given names.
    pub name: String,
    /// FPS number.
    pub fps: String,
    /// Year-month-day.
    pub birth_date: String,
    /// What the officer must see first.
    pub status: String,
    /// How urgent that is: `danger`, `warning` or `plain`.
    pub level: &'static str,
    /// Municipality and province.
    pub place: String,
    /// Why this file was found.
    pub matched: String,
}

/// A list of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The rows of this page.
    pub rows: Vec<Row>,
    /// How many files in all, in words.
    pub count: String,
    /// This page's number.
    pub page: u32,
    /// The page after, if there is one.
    pub next: Option<u32>,
}

/// What a page of results shows.
pub fn listing(page: &Page, search: &Search, context: &Context) -> Listing {
    let lang = context.lang;
    let total = u64::try_from(page.total).unwrap_or(0);
    Listing {
        rows: page
            .subjects
            .iter()
            .map(|subject| {
                let (level, status) = headline(&subject.custody, &subject.status, &subject.at_large, None, lang);
                Row {
                    file: subject.file,
                    name: format!("{}, {}", subject.surname, subject.given),
                    fps: subject.fps.clone().unwrap_or_default(),
                    birth_date: subject.birth_date.map(|d| d.to_string()).unwrap_or_default(),
                    status,
                    level,
                    place: place(subject.place.as_deref(), &subject.jurisdiction, lang),
                    matched: lang.text(matched(subject, search).text()),
                }
            })
            .collect(),
        count: match total {
            0 => lang.text(Text::FoundNone),
            1 => lang.text(Text::FoundOne),
            many => lang.fill(Text::FoundMany, many),
        },
        page: search.page,
        next: (u64::from(search.page) * u64::from(search.page_size) < total).then_some(search.page + 1),
    }
}

/// Why a file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matched {
    /// Every word begins a word of the name.
    Name,
    /// Every word begins a word of the name or of an alias.
    Alias,
    /// A word sounds like one of the file's.
    Sound,
    /// The FPS number.
    Number,
    /// The date of birth.
    BirthDate,
    /// Only that the person is at large.
    AtLarge,
}

impl Matched {
    /// As in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Alias => "alias",
            Self::Sound => "sound",
            Self::Number => "fps",
            Self::BirthDate => "birthDate",
            Self::AtLarge => "atLarge",
        }
    }

    const fn text(self) -> Text {
        match self {
            Self::Name => Text::MatchedName,
            Self::Alias => Text::MatchedAlias,
            Self::Sound => Text::MatchedSound,
            Self::Number => Text::MatchedNumber,
            Self::BirthDate => Text::MatchedBirthDate,
            Self::AtLarge => Text::MatchedAtLarge,
        }
    }
}

/// Why a file was found, the strongest reason first.
pub fn matched(subject: &Subject, search: &Search) -> Matched {
    if search.fps.is_some() {
        return Matched::Number;
    }
    if let Some((_, keys)) = &search.name {
        let begins = |held: &[String]| keys.names.iter().all(|word| held.iter().any(|h| h.starts_with(word.as_str())));
        let whole = format!("{} {}", subject.given, subject.surname);
        let own: Vec<String> =
            [&subject.surname, &subject.given, &whole].into_iter().flat_map(|name| search::name_keys(name)).collect();
        return if begins(&own) {
            Matched::Name
        } else if begins(&subject.names) {
            Matched::Alias
        } else {
            Matched::Sound
        };
    }
    let dated = search.birth_date.is_some() || search.born != (None, None);
    if dated { Matched::BirthDate } else { Matched::AtLarge }
}

/// One labelled value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Label in the page's language.
    pub label: String,
    /// The value as it is shown.
    pub value: String,
    /// Language of the value, where it is another than the page's: a `lang` attribute.
    pub lang: Option<&'static str>,
}

/// The records of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Label of the table.
    pub label: String,
    /// Labels of the columns, when it is shown as a table; else each record is a list of its own.
    pub columns: Option<Vec<String>>,
    /// The records, latest first. In a table every one has all columns, else those that have a value.
    pub records: Vec<Vec<Field>>,
}

/// A field group of the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// For the anchor.
    pub id: &'static str,
    /// Label in the page's language.
    pub label: String,
    /// Its tables; those with no record are left out.
    pub sections: Vec<Section>,
}

/// Whom to call about the person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// Name of the parole officer.
    pub officer: Option<String>,
    /// The officer's telephone.
    pub telephone: Option<String>,
    /// The officer's email.
    pub email: Option<String>,
    /// Name of the office.
    pub office: Option<String>,
    /// The office's telephone.
    pub office_telephone: Option<String>,
    /// The line that answers day and night.
    pub duty_line: Option<String>,
}

/// A photograph to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// When it was taken, year-month-day.
    pub taken_on: String,
}

/// A file as a page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Number of the file.
    pub file: i64,
    /// Surname, given names.
    pub name: String,
    /// FPS number.
    pub fps: String,
    /// `danger`, `warning` or `plain`.
    pub level: &'static str,
    /// The state, at large before all else.
    pub status: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// Place.
    pub place: String,
    /// Age and date of birth.
    pub born: String,
    /// What an officer must know before an approach.
    pub cautions: Vec<String>,
    /// The latest photograph.
    pub picture: Option<Picture>,
    /// Identity.
    pub identity: Vec<Field>,
    /// Whom to call; `None` when no supervision is recorded.
    pub call: Option<Call>,
    /// All groups, those that matter in the street first.
    pub groups: Vec<Group>,
}

const ORDER: [FieldGroup; 6] = [
    FieldGroup::Aliases,
    FieldGroup::Warrants,
    FieldGroup::Release,
    FieldGroup::Conditions,
    FieldGroup::Supervision,
    FieldGroup::Identity,
];

/// What a profile shows of a file; `granted` are the partner's field groups.
pub fn profile(number: i64, file: &File, granted: &[String], context: &Context) -> Profile {
    let lang = context.lang;
    let of = |table: &str| file.records.iter().filter(move |r| r.table == table).collect::<Vec<_>>();
    let empty = Value::Null;
    let person = of("offender").first().map_or(&empty, |record| &record.body);
    let (custody, status) = (text(person, "custody"), text(person, "status"));
    let (at_large, warrant) = (text(person, "atLarge"), text(person, "warrant"));
    let (level, headline) = headline(custody, status, at_large, Some(warrant), lang);
    let birth: Option<Date> = text(person, "birthDate").parse().ok();
    let mut cautions = of("caution");
    cautions.sort_by(|a, b| text(&b.body, "notedOn").cmp(text(&a.body, "notedOn")));
    let mut pictures = of("photograph");
    pictures.sort_by_key(|record| (text(&record.body, "takenOn").to_owned(), record.id));
    let ordered = ORDER.iter().chain(FieldGroup::ALL.iter().filter(|group| !ORDER.contains(group)));
    Profile {
        file: number,
        name: format!("{}, {}", text(person, "surname"), text(person, "given")),
        fps: text(person, "fps").to_owned(),
        level,
        status: headline,
        advice: match level {
            "danger" => Some(lang.text(Text::BannerAtLarge)),
            "warning" => Some(lang.text(Text::BannerSuspended)),
            _ => None,
        },
        place: place(Some(text(person, "municipalityName")), text(person, "jurisdiction"), lang),
        born: birth.map_or_else(String::new, |birth| {
            format!("{birth} ({})", lang.fill(Text::Age, age(birth, context.today())))
        }),
        cautions: cautions.iter().map(|record| caution(record, context)).collect(),
        picture: pictures.last().map(|record| Picture {
            sha256: text(&record.body, "sha256").to_owned(),
            taken_on: text(&record.body, "takenOn").to_owned(),
        }),
        identity: identity(person, context),
        call: call(file, lang),
        groups: ordered
            .filter(|group| granted.iter().any(|g| g == group.as_str()))
            .filter(|group| **group != FieldGroup::Photograph)
            .map(|group| Group {
                id: group.as_str(),
                label: lang.of(group.label()),
                sections: catalogue::TABLES
                    .iter()
                    .filter(|table| table.group == *group && table.kind == TableKind::File)
                    .filter(|table| !matches!(table.name, "offender" | "caution"))
                    .filter_map(|table| section(table, &of(table.name), context))
                    .collect(),
            })
            // Identity stands at the top of the page; here it has only what is left of it.
            .filter(|group| group.id != FieldGroup::Identity.as_str() || !group.sections.is_empty())
            .collect(),
    }
}

/// The state in words and how urgent it is: at large, then suspended or a warrant, then the status.
fn headline(custody: &str, status: &str, at_large: &str, warrant: Option<&str>, lang: Lang) -> (&'static str, String) {
    let status_label = Status::parse(status).map_or_else(|| status.to_owned(), |s| lang.of(s.label()));
    let custody_label = Custody::parse(custody).map_or_else(|| custody.to_owned(), |c| lang.of(c.label()));
    match AtLarge::parse(at_large) {
        Some(sought @ (AtLarge::UnlawfullyAtLarge | AtLarge::Escaped)) => {
            ("danger", format!("{} \u{2013} {status_label}", lang.of(sought.label())))
        }
        _ if warrant == Some(WarrantState::Outstanding.as_str()) => {
            ("warning", format!("{status_label} \u{2013} {}", lang.of(WarrantState::Outstanding.label())))
        }
        _ => match Status::parse(status) {
            Some(Status::Suspended | Status::Revoked | Status::LtsSuspended) => ("warning", status_label),
            // "In custody" says it already.
            Some(Status::InCustody) => ("plain", custody_label),
            _ => ("plain", format!("{status_label} \u{2013} {custody_label}")),
        },
    }
}

fn place(municipality: Option<&str>, jurisdiction: &str, lang: Lang) -> String {
    let province = Jurisdiction::parse(jurisdiction).map_or_else(|| jurisdiction.to_owned(), |j| lang.of(j.label()));
    match municipality.filter(|name| !name.is_empty()) {
        Some(municipality) => format!("{municipality}, {province}"),
        None => province,
    }
}

fn age(birth: Date, today: Date) -> i16 {
    let had_birthday = (today.month(), today.day()) >= (birth.month(), birth.day());
    today.year() - birth.year() - i16::from(!had_birthday)
}

/// What the top of the page does not say already.
fn identity(person: &Value, context: &Context) -> Vec<Field> {
    const SAID: [&str; 6] = ["fps", "surname", "given", "birthDate", "jurisdiction", "municipalityName"];
    let Some(table) = table_of("offender") else { return Vec::new() };
    let mut rest = person.clone();
    if let Some(object) = rest.as_object_mut() {
        object.retain(|key, _| !SAID.contains(&key.as_str()));
    }
    fields(table, &rest, context)
}

fn caution(record: &Record, context: &Context) -> String {
    let fields = table_of("caution").map(|table| fields(table, &record.body, context)).unwrap_or_default();
    fields.iter().map(|field| field.value.as_str()).collect::<Vec<_>>().join(" \u{2013} ")
}

fn call(file: &File, lang: Lang) -> Option<Call> {
    let supervision = file
        .records
        .iter()
        .filter(|record| record.table == "supervision")
        // The present one has no end; else the latest.
        .max_by_key(|r| (text(&r.body, "endedOn").is_empty(), text(&r.body, "startedOn").to_owned(), r.id))?;
    let reference = |table: &str, key: &str| {
        let id = supervision.body.get(key)?.as_i64()?;
        file.records.iter().find(|r| r.table == table && r.offender.is_none() && r.id == id).map(|r| &r.body)
    };
    let (officer, office) = (reference("parole_officer", "officer"), reference("office", "office"));
    let some = |body: Option<&Value>, key: &str| body.map(|b| text(b, key).to_owned()).filter(|t| !t.is_empty());
    let own = Some(&supervision.body);
    let (name, own_name) = match lang {
        Lang::En => ("nameEn", "officeName"),
        Lang::Fr => ("nameFr", "officeNameFr"),
    };
    Some(Call {
        officer: some(officer, "name").or_else(|| some(own, "officerName")),
        telephone: some(officer, "telephone").or_else(|| some(own, "officerTelephone")),
        email: some(officer, "email"),
        office: some(office, name).or_else(|| some(own, own_name)),
        office_telephone: some(office, "telephone"),
        duty_line: some(office, "dutyTelephone"),
    })
}

fn table_of(name: &str) -> Option<&'static Table> {
    catalogue::TABLES.iter().find(|table| table.name == name)
}

fn text<'a>(body: &'a Value, key: &str) -> &'a str {
    body.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Most columns of what is shown as a table.
const WIDEST: usize = 8;
/// Longest value that is shown in a table, in characters.
const LONGEST: usize = 64;

fn section(table: &'static Table, records: &[&Record], context: &Context) -> Option<Section> {
    if records.is_empty() {
        return None;
    }
    let mut records = records.to_vec();
    let dated = table.columns.iter().find(|c| matches!(c.ty, ColumnType::Date | ColumnType::Instant));
    records.sort_by(|a, b| match dated {
        Some(column) => text(&b.body, column.json_name).cmp(text(&a.body, column.json_name)).then(a.id.cmp(&b.id)),
        None => a.id.cmp(&b.id),
    });
    let shown: Vec<Vec<Field>> = records.iter().map(|record| fields(table, &record.body, context)).collect();
    let mut columns: Vec<String> = Vec::new();
    for column in table.columns.iter().filter(|column| is_shown(table, column, context.lang)) {
        let label = label(table, column, context.lang);
        if shown.iter().any(|fields| fields.iter().any(|field| field.label == label)) {
            columns.push(label);
        }
    }
    let fits = columns.len() <= WIDEST
        && shown.iter().flatten().all(|field| field.lang.is_none() && field.value.chars().count() <= LONGEST);
    let records = if fits {
        let blank = |label: &String| Field { label: label.clone(), value: String::new(), lang: None };
        shown
            .iter()
            .map(|fields| {
                columns
                    .iter()
                    .map(|l| fields.iter().find(|f| f.label == *l).cloned().unwrap_or_else(|| blank(l)))
                    .collect()
            })
            .collect()
    } else {
        shown
    };
    Some(Section { label: context.lang.of(table.label), columns: fits.then_some(columns), records })
}

/// Numbers that only programs use are not shown, and of a pair of columns only the one in the page's language.
fn is_shown(table: &Table, column: &Column, lang: Lang) -> bool {
    if matches!(column.ty, ColumnType::Reference(_) | ColumnType::Hash)
        || matches!(column.json_name, "municipality" | "language")
    {
        return false;
    }
    let has = |name: &str| table.columns.iter().any(|c| c.json_name == name);
    if let Some(stem) = column.json_name.strip_suffix("Fr") {
        return lang == Lang::Fr || !(has(stem) || has(&format!("{stem}En")));
    }
    let stem = column.json_name.strip_suffix("En").unwrap_or(column.json_name);
    lang == Lang::En || !has(&format!("{stem}Fr"))
}

/// A column's label; one of a pair does not say its language.
fn label(_table: &Table, column: &Column, lang: Lang) -> String {
    let label = lang.of(column.label);
    match label.split_once(" (") {
        Some((stem, "English)" | "French)" | "anglais)" | "français)")) => stem.to_owned(),
        _ => label,
    }
}

fn fields(table: &'static Table, body: &Value, context: &Context) -> Vec<Field> {
    let written_in = match text(body, "language") {
        // An offender's preferred language says nothing about the language of the record.
        _ if table.name == "offender" => None,
        "eng" => Some(Lang::En),
        "fra" => Some(Lang::Fr),
        _ => None,
    };
    table
        .columns
        .iter()
        .filter(|column| is_shown(table, column, context.lang))
        .filter_map(|column| {
            let value = show(column, body.get(column.json_name)?, context)?;
            let prose = matches!(column.ty, ColumnType::Text) && value.chars().count() > LONGEST;
            let lang = written_in.filter(|lang| prose && *lang != context.lang).map(Lang::code);
            Some(Field { label: label(table, column, context.lang), value, lang })
        })
        .collect()
}

fn show(column: &Column, value: &Value, context: &Context) -> Option<String> {
    let lang = context.lang;
    let shown = match (&column.ty, value) {
        (_, Value::Null) => return None,
        (ColumnType::Code(list), Value::String(code)) => list.label(code).map_or_else(|| code.clone(), |l| lang.of(l)),
        (ColumnType::Instant, Value::String(at)) => {
            at.parse::<Timestamp>().map_or_else(|_| at.clone(), |at| context.instant(at))
        }
        (_, Value::Bool(yes)) => lang.text(if *yes { Text::Yes } else { Text::No }),
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    };
    Some(shown).filter(|shown| !shown.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn context(lang: Lang) -> Context {
        let zone = TimeZone::get("America/Vancouver").unwrap();
        Context { lang, zone, now: "2026-11-22T04:00:00Z".parse().unwrap() }
    }

    fn record(table: &str, id: i64, body: Value) -> Record {
        let group = catalogue::table(table).unwrap().group.as_str().to_owned();
        let reference = catalogue::table(table).unwrap().kind == TableKind::Reference;
        Record { offender: (!reference).then_some(7), group, table: table.to_owned(), id, body }
    }

    fn profile_of(records: Vec<Record>, lang: Lang) -> Profile {
        let granted: Vec<String> = FieldGroup::ALL.iter().map(|g| g.as_str().to_owned()).collect();
        profile(7, &File { access: 1, as_of: None, records }, &granted, &context(lang))
    }

    #[test]
    fn at_large_comes_before_a_warrant_and_a_warrant_before_the_status() {
        let level = |status, at_large, warrant| headline("Community", status, at_large, Some(warrant), Lang::En).0;
        assert_eq!(level("Released", "Escaped", "Outstanding"), "danger");
        assert_eq!(level("Released", "Apprehended", "Outstanding"), "warning");
        assert_eq!(level("Revoked", "NotAtLarge", "Executed"), "warning");
        assert_eq!(level("Released", "NotAtLarge", "NoWarrant"), "plain");
        // A code that this version does not know is shown as it is.
        assert_eq!(headline("Community", "Novel", "NotAtLarge", None, Lang::Fr).1, "Novel – Dans la collectivité");
    }

    #[test]
    fn times_are_the_partners_and_old_data_is_said_to_be_old() {
        let context = context(Lang::Fr);
        assert_eq!(context.instant("2026-07-01T06:30:00Z".parse().unwrap()), "2026-06-30 23:30 PDT");
        let ago = |seconds: i64| Some(Timestamp::from_second(context.now.as_second() - seconds).unwrap());
        assert_eq!(context.stale(ago(STALE_AFTER)), None);
        assert!(context.stale(ago(301)).unwrap().contains("5 minutes"));
        assert!(context.stale(ago(7_300)).unwrap().contains("2 heures"));
        assert!(context.stale(ago(200_000)).unwrap().contains("2 jours"));
    }

    #[test]
    fn age_turns_on_the_birthday() {
        let birth = "1980-02-29".parse().unwrap();
        assert_eq!(age(birth, "2026-02-28".parse().unwrap()), 45);
        assert_eq!(age(birth, "2026-03-01".parse().unwrap()), 46);
    }

    #[test]
    fn a_file_with_almost_nothing_in_it_is_still_shown() {
        let profile = profile_of(vec![record("offender", 7, json!({"surname": "Roy", "given": "Al"}))], Lang::En);
        assert_eq!((profile.name.as_str(), profile.call, profile.picture), ("Roy, Al", None, None));
    }

    #[test]
    fn of_a_pair_of_columns_only_the_pages_language_is_shown() {
        let body =
            json!({"kind": "Standard", "textEn": "No alcohol.", "textFr": "Pas d'alcool.", "imposedOn": "2025-01-02"});
        let texts = |lang| -> Vec<String> {
            let profile = profile_of(vec![record("condition", 1, body.clone())], lang);
            let group = profile.groups.iter().find(|g| g.id == "conditions").unwrap().clone();
            group.sections[0].records[0].iter().map(|field| format!("{}={}", field.label, field.value)).collect()
        };
        assert!(texts(Lang::En).contains(&"Text=No alcohol.".to_owned()), "{:?}", texts(Lang::En));
        assert!(texts(Lang::Fr).contains(&"Texte=Pas d'alcool.".to_owned()), "{:?}", texts(Lang::Fr));
        assert_eq!(texts(Lang::Fr).len(), 3);
    }

    #[test]
    fn the_present_supervision_says_whom_to_call() {
        let past = json!({"startedOn": "2026-01-01", "endedOn": "2026-05-01", "officerName": "Past", "officer": 1});
        let present = json!({"startedOn": "2025-01-01", "endedOn": null, "officerName": "Old copy", "officer": 2,
            "officeName": "Office", "officeNameFr": "Bureau"});
        let officer = json!({"name": "Now", "telephone": "604-555-0100"});
        let records = vec![
            record("supervision", 1, past),
            record("supervision", 2, present),
            record("parole_officer", 2, officer),
        ];
        let call = profile_of(records, Lang::Fr).call.unwrap();
        assert_eq!(call.officer.as_deref(), Some("Now"));
        assert_eq!((call.telephone.as_deref(), call.office.as_deref()), (Some("604-555-0100"), Some("Bureau")));
    }

    #[test]
    fn long_text_is_shown_as_a_list_with_its_language() {
        let body = json!({"writtenOn": "2025-01-02", "language": "fra", "summary": "x".repeat(80)});
        let profile = profile_of(vec![record("progress_report", 1, body)], Lang::En);
        let group = profile.groups.iter().find(|g| g.id == "progressReports").unwrap();
        assert_eq!(group.sections[0].columns, None);
        assert!(group.sections[0].records[0].iter().any(|field| field.lang == Some("fr")));
    }
}
