//! The catalogue as a page of documentation (`docs/catalogue.md`, generated; a test refuses drift).

use std::fmt::Write as _;

use super::{ColumnType, TableKind, tables_of};
use crate::codes::{Code, CodeList, FieldGroup};

/// The whole page.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Catalogue\n\nGenerated from `services/records/src/catalogue`; do not edit. What an agreement can grant, group \
         by group.\nA published group is frozen; `ca:` names are Liaison's extension of NIEM 6.0.\n\
         Each record also has its `id`, and a file's record its `offender`.\n",
    );
    let mut lists: Vec<CodeList> = Vec::new();
    for group in FieldGroup::ALL {
        let label = group.label();
        let _ = write!(out, "\n## `{}`: {} / {}\n", group.as_str(), label.en, label.fr);
        for table in tables_of(*group) {
            let kind = match table.kind {
                TableKind::File => "of an offender's file",
                TableKind::Reference => "reference, nothing about offenders",
            };
            let _ = write!(
                out,
                "\n### {} / {} (`{}`, {kind}, `{}`)\n\n| key | type | English | français | NIEM 6 | |\n|---|---|---|---|---|---|\n",
                table.label.en, table.label.fr, table.name, table.niem
            );
            for column in table.columns {
                let ty = match column.ty {
                    ColumnType::Text => "text".to_owned(),
                    ColumnType::Integer => "integer".to_owned(),
                    ColumnType::Boolean => "boolean".to_owned(),
                    ColumnType::Date => "date".to_owned(),
                    ColumnType::Instant => "instant, UTC".to_owned(),
                    ColumnType::Hash => "SHA-256, hexadecimal".to_owned(),
                    ColumnType::Reference(to) => format!("id of `{to}`"),
                    ColumnType::Code(list) => {
                        if !lists.contains(&list) {
                            lists.push(list);
                        }
                        format!("[{}](#{})", list.name, list.name.to_lowercase())
                    }
                };
                let null = if column.nullable { " or null" } else { "" };
                let _ = writeln!(
                    out,
                    "| `{}` | {ty}{null} | {} | {} | `{}` | {} |",
                    column.json_name,
                    column.label.en,
                    column.label.fr,
                    column.niem,
                    column.sensitivity.label().en
                );
            }
        }
    }
    out.push_str("\n# Code lists\n");
    lists.sort_by_key(|list| list.name);
    for list in lists {
        let _ = write!(out, "\n## {}\n\n| code | English | français |\n|---|---|---|\n", list.name);
        for entry in list.codes {
            let _ = writeln!(out, "| `{}` | {} | {} |", entry.code, entry.label.en, entry.label.fr);
        }
    }
    out
}
