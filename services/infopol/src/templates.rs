//! The templates of the pages and what they take. Everything is escaped by askama; no text stands in a template.

use std::fmt::Display;

use askama::Template;

use crate::{
    texts::{Lang, Text},
    view::{Listing, Profile},
};

/// How the page is had in the other language: a link, or a form that repeats the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toggle {
    /// Path in the other language.
    pub path: String,
    /// Fields to repeat; `None` for a link.
    pub fields: Option<Vec<(&'static str, String)>>,
}

impl Toggle {
    /// A link.
    pub fn link(path: &str) -> Self {
        Self { path: path.to_owned(), fields: None }
    }

    /// A form.
    pub fn form(path: &str, fields: Vec<(&'static str, String)>) -> Self {
        Self { path: path.to_owned(), fields: Some(fields) }
    }
}

/// A text as a template has it, behind however many references.
#[derive(Debug, Clone, Copy)]
pub struct Said(Text);

impl From<Text> for Said {
    fn from(text: Text) -> Self {
        Self(text)
    }
}

impl From<&Text> for Said {
    fn from(text: &Text) -> Self {
        Self(*text)
    }
}

impl From<&&Text> for Said {
    fn from(text: &&Text) -> Self {
        Self(**text)
    }
}

/// What stands around every page.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Language of the page.
    pub lang: Lang,
    /// Title.
    pub title: Text,
    /// The other language.
    pub toggle: Toggle,
    /// Name of the partner.
    pub partner: String,
    /// Officer, once signed on.
    pub officer: Option<String>,
    /// Label of the purpose, once signed on.
    pub purpose: Option<String>,
    /// The session's token for forms.
    pub csrf: String,
    /// "Data as of".
    pub as_of: Option<String>,
    /// The warning that the data is old.
    pub stale: Option<String>,
    /// Number of the access-log row.
    pub access: Option<i64>,
}

impl Frame {
    /// A frame for somebody of whom nothing is known.
    pub fn bare(lang: Lang, title: Text, toggle: Toggle) -> Self {
        Self {
            lang,
            title,
            toggle,
            partner: String::new(),
            officer: None,
            purpose: None,
            csrf: String::new(),
            as_of: None,
            stale: None,
            access: None,
        }
    }

    /// A text in the page's language.
    pub fn t(&self, text: impl Into<Said>) -> String {
        self.lang.text(text.into().0)
    }

    /// A text with a value in it.
    pub fn fill(&self, text: impl Into<Said>, value: impl Display) -> String {
        self.lang.fill(text.into().0, value)
    }

    /// A text in the other language.
    pub fn other(&self, text: impl Into<Said>) -> String {
        self.lang.other().text(text.into().0)
    }
}

/// The form for officer and purpose.
#[derive(Debug, Template)]
#[template(path = "sign_on.html")]
pub struct SignOn {
    /// Frame.
    pub frame: Frame,
    /// What this is, with the partner's name.
    pub lead: String,
    /// Permitted purposes: code and label.
    pub purposes: Vec<(String, String)>,
    /// What must change.
    pub errors: Vec<Text>,
    /// What has happened.
    pub notice: Option<Text>,
}

/// The form for a search.
#[derive(Debug, Template)]
#[template(path = "search.html")]
pub struct SearchForm {
    /// Frame.
    pub frame: Frame,
    /// What must change.
    pub error: Option<Text>,
    /// As typed.
    pub name: String,
    /// As typed.
    pub fps: String,
    /// As typed.
    pub birth_date: String,
    /// As ticked.
    pub at_large: bool,
}

/// A list of files.
#[derive(Debug, Template)]
#[template(path = "results.html")]
pub struct Results {
    /// Frame.
    pub frame: Frame,
    /// What the list is.
    pub lead: Option<Text>,
    /// Where the next page is asked for.
    pub action: String,
    /// The search, to be repeated for another page.
    pub kept: Vec<(&'static str, String)>,
    /// The same in words: label and value.
    pub asked: Vec<(String, String)>,
    /// The list.
    pub listing: Listing,
}

/// The address by which a telephone dials a number as it is written.
fn tel(written: &str) -> String {
    // An extension follows a word; it is dialled by hand.
    let number = written.chars().take_while(|c| !c.is_alphabetic());
    let dialled: String = number.filter(|c| c.is_ascii_digit() || *c == '+').collect();
    format!("tel:{dialled}")
}

/// One file.
#[derive(Debug, Template)]
#[template(path = "profile.html")]
pub struct ProfilePage {
    /// Frame.
    pub frame: Frame,
    /// The file.
    pub profile: Profile,
    /// The photograph as a `data:` URI.
    pub image: Option<String>,
}

/// A refusal, in both languages.
#[derive(Debug, Template)]
#[template(path = "message.html")]
pub struct Message {
    /// Frame.
    pub frame: Frame,
    /// What it is.
    pub title: Text,
    /// What to do.
    pub detail: Text,
}
