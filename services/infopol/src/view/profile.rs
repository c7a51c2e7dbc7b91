//! One file as its page shows it: what matters first, then group by group.

use jiff::civil::Date;
use liaison_records::{
    catalogue::{self, TableKind},
    codes::{Code, FieldGroup},
};
use serde_json::Value;

use super::{
    Context, headline, place,
    section::{Field, Section, fields, section, table_of},
    text,
};
use crate::{
    store::{File, Record},
    texts::{Lang, Text},
};

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

pub(super) fn age(birth: Date, today: Date) -> i16 {
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
