//! What may be asked, and how it is checked and written down before anything is read. Pure.
//!
//! A request is turned into the JSON object that goes into the access log and, byte for byte the same, to the function
//! that reads: the database compares the two.

use jiff::civil::Date;
use liaison_records::search;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::texts::Text;

/// Longest name that is searched for, in characters.
pub const MAX_NAME: usize = 100;
/// Files a page unless the caller says otherwise.
pub const PAGE_SIZE: u32 = 25;
/// Most files a page.
pub const MAX_PAGE_SIZE: u32 = 100;
/// Last page that may be asked for.
pub const MAX_PAGE: u32 = 100_000;

/// An officer's identifier as the partner declares it: 1 to 64 letters, digits, `.`, `_`, `@` or `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficerId(String);

impl OfficerId {
    /// Checks an identifier; surrounding spaces are ignored.
    pub fn parse(given: &str) -> Result<Self, Text> {
        let id = given.trim();
        let fits = (1..=64).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b'-'));
        if fits { Ok(Self(id.to_owned())) } else { Err(Text::OfficerMissing) }
    }

    /// The identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A search as a form or a JSON body gives it, unchecked. A field that is empty counts as not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawSearch {
    /// Name or alias.
    pub name: Option<String>,
    /// FPS number.
    pub fps: Option<String>,
    /// Date of birth, year-month-day; an alias's date counts too.
    pub birth_date: Option<String>,
    /// Earliest date of birth.
    pub born_from: Option<String>,
    /// Latest date of birth.
    pub born_to: Option<String>,
    /// Only people who are at large.
    pub at_large: Option<bool>,
    /// Page, from 1.
    pub page: Option<u32>,
    /// Files a page.
    pub page_size: Option<u32>,
}

/// A search that may be run. All that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// The name as it was typed, and its search keys; none when no name was given.
    pub name: Option<(String, search::Query)>,
    /// FPS number, upper case without spaces.
    pub fps: Option<String>,
    /// Date of birth.
    pub birth_date: Option<Date>,
    /// Earliest and latest date of birth.
    pub born: (Option<Date>, Option<Date>),
    /// Only people who are at large.
    pub at_large: bool,
    /// Page, from 1.
    pub page: u32,
    /// Files a page.
    pub page_size: u32,
}

impl Search {
    /// Checks a search; the error is the hint to show.
    pub fn parse(raw: &RawSearch) -> Result<Self, Text> {
        let RawSearch { name, fps, birth_date, born_from, born_to, at_large, page, page_size } = raw;
        let name = match given(name.as_ref()) {
            None => None,
            Some(name) if name.chars().count() > MAX_NAME => return Err(Text::NameTooLong),
            Some(name) => {
                let keys = search::query(name);
                // One letter would list everybody; a name in which no letter is left can match nothing.
                if keys.names.iter().all(|word| word.chars().count() < 2) {
                    return Err(Text::SearchEmpty);
                }
                Some((name.to_owned(), keys))
            }
        };
        let search = Self {
            name,
            fps: given(fps.as_ref()).map(parse_fps).transpose()?,
            birth_date: parse_date(birth_date.as_ref())?,
            born: (parse_date(born_from.as_ref())?, parse_date(born_to.as_ref())?),
            at_large: at_large.unwrap_or(false),
            page: within(*page, 1, MAX_PAGE).ok_or(Text::PageInvalid)?,
            page_size: within(*page_size, PAGE_SIZE, MAX_PAGE_SIZE).ok_or(Text::PageSizeInvalid)?,
        };
        let empty = search.name.is_none()
            && search.fps.is_none()
            && search.birth_date.is_none()
            && search.born == (None, None)
            && !search.at_large;
        if empty { Err(Text::SearchEmpty) } else { Ok(search) }
    }

    /// Everybody who is at large, one page.
    pub fn at_large(page: Option<u32>, page_size: Option<u32>) -> Result<Self, Text> {
        Self::parse(&RawSearch { at_large: Some(true), page, page_size, ..RawSearch::default() })
    }

    /// What goes into the access log and to the database: what was typed, and the keys that are compared.
    pub fn to_json(&self) -> Value {
        let Self { name, fps, birth_date, born: (from, to), at_large, page, page_size } = self;
        let mut object = Map::new();
        if let Some((typed, keys)) = name {
            object.insert("name".into(), json!(typed));
            object.insert("names".into(), json!(keys.names));
            object.insert("sounds".into(), json!(keys.sounds));
        }
        if let Some(fps) = fps {
            object.insert("fps".into(), json!(fps));
        }
        for (key, date) in [("birthDate", birth_date), ("bornFrom", from), ("bornTo", to)] {
            if let Some(date) = date {
                object.insert(key.into(), json!(date.to_string()));
            }
        }
        if *at_large {
            object.insert("atLarge".into(), json!(true));
        }
        object.insert("page".into(), json!(page));
        object.insert("size".into(), json!(page_size));
        Value::Object(object)
    }
}

/// A photograph's name: 64 hexadecimal digits, in lower case.
pub fn parse_sha256(given: &str) -> Result<String, Text> {
    let name = given.trim().to_ascii_lowercase();
    if name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(name)
    } else {
        Err(Text::PhotographInvalid)
    }
}

/// A file's number from a form.
pub fn parse_file(given: &str) -> Result<i64, Text> {
    given.trim().parse().ok().filter(|file| *file > 0).ok_or(Text::FileInvalid)
}

fn given(field: Option<&String>) -> Option<&str> {
    field.map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn within(asked: Option<u32>, default: u32, most: u32) -> Option<u32> {
    let asked = asked.unwrap_or(default);
    (1..=most).contains(&asked).then_some(asked)
}

/// Digits and then a letter; spaces and hyphens between them are ignored.
fn parse_fps(typed: &str) -> Result<String, Text> {
    let number: String =
        typed.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase()).collect();
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    let fits =
        (1..=9).contains(&digits) && number.len() == digits + 1 && number.as_bytes()[digits].is_ascii_uppercase();
    if fits { Ok(number) } else { Err(Text::FpsInvalid) }
}

fn parse_date(typed: Option<&String>) -> Result<Option<Date>, Text> {
    let Some(typed) = given(typed) else { return Ok(None) };
    // Only the written form year-month-day: jiff alone would take others too.
    let fits = typed.len() == 10
        && typed.bytes().enumerate().all(|(i, b)| if matches!(i, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
    let date: Option<Date> = if fits { typed.parse().ok() } else { None };
    date.filter(|date| (1850..=2199).contains(&date.year())).map(Some).ok_or(Text::BirthDateInvalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: Value) -> Result<Search, Text> {
        Search::parse(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn an_empty_search_is_refused_with_a_hint() {
        for empty in
            [json!({}), json!({"name": "  "}), json!({"name": "a"}), json!({"name": "--"}), json!({"atLarge": false})]
        {
            assert_eq!(raw(empty.clone()), Err(Text::SearchEmpty), "{empty}");
        }
    }

    #[test]
    fn what_is_malformed_says_what_must_change() {
        assert_eq!(raw(json!({"name": "x".repeat(101)})), Err(Text::NameTooLong));
        assert_eq!(raw(json!({"fps": "ABC"})), Err(Text::FpsInvalid));
        assert_eq!(raw(json!({"fps": "123456"})), Err(Text::FpsInvalid));
        for date in ["31/05/1980", "1980-5-31", "1980-02-30", "0001-01-01", "1980-05-31T00:00"] {
            assert_eq!(raw(json!({"birthDate": date})), Err(Text::BirthDateInvalid), "{date}");
        }
        assert_eq!(raw(json!({"name": "roy", "page": 0})), Err(Text::PageInvalid));
        assert_eq!(raw(json!({"name": "roy", "pageSize": 101})), Err(Text::PageSizeInvalid));
        assert!(serde_json::from_value::<RawSearch>(json!({"surname": "Roy"})).is_err(), "an unknown key is refused");
    }

    #[test]
    fn numbers_are_normalised() {
        assert_eq!(raw(json!({"fps": " 123 456-a "})).unwrap().fps.as_deref(), Some("123456A"));
    }

    #[test]
    fn the_logged_request_has_what_was_typed_and_what_is_compared() {
        let json = raw(json!({"name": "O'Brien, Zoé", "birthDate": "1980-05-31"})).unwrap().to_json();
        assert_eq!(json["name"], "O'Brien, Zoé");
        assert_eq!(json["names"], json!(["obrien", "zoe"]));
        assert!(!json["sounds"].as_array().unwrap().is_empty());
        assert_eq!((&json["birthDate"], &json["page"], &json["size"]), (&json!("1980-05-31"), &json!(1), &json!(25)));
        assert!(json.get("atLarge").is_none() && json.get("fps").is_none());
    }

    #[test]
    fn an_officer_identifier_is_bounded() {
        assert_eq!(OfficerId::parse(" VPD-1234 ").unwrap().as_str(), "VPD-1234");
        for bad in ["", "a b", "é", "<b>", &"x".repeat(65)] {
            assert!(OfficerId::parse(bad).is_err(), "{bad}");
        }
    }
}
