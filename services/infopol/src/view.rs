//! What a page shows: results and profiles as plain values, made of what the store gave. Pure; `now` is a parameter.
//!
//! Labels come from the catalogue, in the page's language; a record's own text keeps its language and says which.

mod profile;
mod section;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use liaison_records::{
    codes::{AtLarge, Code, Custody, Jurisdiction, Status, WarrantState},
    search,
};
use serde_json::Value;

pub use self::{
    profile::{Call, Group, Picture, Profile, profile},
    section::{Field, Section},
};
use crate::{
    request::Search,
    store::{Page, Subject},
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

fn text<'a>(body: &'a Value, key: &str) -> &'a str {
    body.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
