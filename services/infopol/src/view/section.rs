//! The records of one table as a table or as lists, labelled from the catalogue.

use jiff::Timestamp;
use liaison_records::catalogue::{self, Column, ColumnType, Table};
use serde_json::Value;

use super::{Context, text};
use crate::{
    store::Record,
    texts::{Lang, Text},
};

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

pub(super) fn table_of(name: &str) -> Option<&'static Table> {
    catalogue::TABLES.iter().find(|table| table.name == name)
}

/// Most columns of what is shown as a table.
const WIDEST: usize = 8;
/// Longest value that is shown in a table, in characters.
const LONGEST: usize = 64;

pub(super) fn section(table: &'static Table, records: &[&Record], context: &Context) -> Option<Section> {
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

pub(super) fn fields(table: &'static Table, body: &Value, context: &Context) -> Vec<Field> {
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
