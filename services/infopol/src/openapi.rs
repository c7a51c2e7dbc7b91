//! The OpenAPI document of the API, made from the catalogue and the code lists; `openapi.json` beside this crate's
//! manifest is the same, and a test holds them together.

use liaison_records::{
    catalogue::{self, Column, ColumnType},
    codes::{AtLarge, Code, Custody, FieldGroup, Jurisdiction, Purpose, Status},
};
use serde_json::{Map, Value, json};

use crate::request::{MAX_NAME, MAX_PAGE, MAX_PAGE_SIZE, PAGE_SIZE};

fn codes<C: Code>() -> Value {
    let spelled: Vec<&str> = C::ALL.iter().map(|code| code.as_str()).collect();
    let labels: Map<String, Value> = C::ALL
        .iter()
        .map(|code| (code.as_str().to_owned(), json!({"en": code.label().en, "fr": code.label().fr})))
        .collect();
    json!({"type": "string", "enum": spelled, "x-labels": labels})
}

fn column(column: &Column) -> Value {
    let mut schema = match column.ty {
        ColumnType::Text => json!({"type": "string"}),
        ColumnType::Integer => json!({"type": "integer", "format": "int32"}),
        ColumnType::Boolean => json!({"type": "boolean"}),
        ColumnType::Date => json!({"type": "string", "format": "date"}),
        ColumnType::Instant => json!({"type": "string", "format": "date-time"}),
        ColumnType::Hash => json!({"type": "string", "pattern": "^[0-9a-f]{64}$"}),
        ColumnType::Reference(table) => {
            json!({"type": "integer", "format": "int64", "description": format!("id of a record of {table}")})
        }
        ColumnType::Code(list) => {
            json!({"type": "string", "enum": list.codes.iter().map(|c| c.code).collect::<Vec<_>>()})
        }
    };
    if let Some(object) = schema.as_object_mut() {
        if column.nullable {
            let ty = object.get("type").cloned().unwrap_or_default();
            object.insert("type".into(), json!([ty, "null"]));
            if let Some(Value::Array(list)) = object.get_mut("enum") {
                list.push(Value::Null);
            }
        }
        object.insert("title".into(), json!(column.label.en));
        object.insert("x-titleFr".into(), json!(column.label.fr));
        object.insert("x-niem".into(), json!(column.niem));
        object.insert("x-sensitivity".into(), json!(column.sensitivity.label().en));
    }
    schema
}

/// The bodies of records, one schema a table: `Record_<table>`.
fn tables() -> Map<String, Value> {
    catalogue::TABLES
        .iter()
        .map(|table| {
            let properties: Map<String, Value> =
                table.columns.iter().map(|c| (c.json_name.to_owned(), column(c))).collect();
            let schema = json!({
                "type": "object",
                "title": table.label.en,
                "x-titleFr": table.label.fr,
                "x-fieldGroup": table.group.as_str(),
                "x-niem": table.niem,
                "properties": properties,
                "required": table.columns.iter().map(|c| c.json_name).collect::<Vec<_>>(),
            });
            (format!("Record_{}", table.name), schema)
        })
        .collect()
}

fn schemas() -> Map<String, Value> {
    let page = json!({"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 1});
    let size = json!({"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": PAGE_SIZE});
    let date = json!({"type": "string", "format": "date"});
    let file = json!({"type": "integer", "format": "int64", "description": "number of the file"});
    let hash = json!({"type": "string", "pattern": "^[0-9a-f]{64}$"});
    let as_of = json!({"type": ["string", "null"], "format": "date-time",
        "description": "the hub's clock when the data shown was current"});
    let stale = json!({"type": "boolean", "description": "whether the data is older than five minutes"});
    let access = json!({"type": "integer", "format": "int64", "description": "number of the row in the access log"});
    let label = json!({"type": "object", "properties": {
        "code": {"type": "string"}, "en": {"type": "string"}, "fr": {"type": "string"}}});
    let records = json!({"type": "array", "items": {"$ref": "#/components/schemas/Record"}});
    let fixed = json!({
        "Search": {"type": "object", "additionalProperties": false,
            "description": "All that is given must hold; at least one of name, fps, a date or atLarge.",
            "properties": {
                "name": {"type": "string", "maxLength": MAX_NAME,
                    "description": "name or alias: whole words or their beginnings in any order, or names that sound alike"},
                "fps": {"type": "string", "description": "FPS number: digits and a letter"},
                "birthDate": date, "bornFrom": date, "bornTo": date,
                "atLarge": {"type": "boolean"}, "page": page, "pageSize": size}},
        "Page": {"type": "object", "additionalProperties": false, "properties": {"page": page, "pageSize": size}},
        "File": {"type": "object", "additionalProperties": false, "required": ["file"], "properties": {"file": file}},
        "Photograph": {"type": "object", "additionalProperties": false, "required": ["file", "sha256"],
            "properties": {"file": file, "sha256": hash}},
        "Results": {"type": "object", "required": ["dataAsOf", "stale", "accessRecord", "total", "page", "pageSize", "results"],
            "properties": {"dataAsOf": as_of, "stale": stale, "accessRecord": access,
                "total": {"type": "integer"}, "page": page, "pageSize": size,
                "results": {"type": "array", "items": {"$ref": "#/components/schemas/Subject"}}}},
        "Subject": {"type": "object", "properties": {
            "file": file, "fps": {"type": ["string", "null"]}, "surname": {"type": "string"}, "given": {"type": "string"},
            "birthDate": {"type": ["string", "null"], "format": "date"},
            "custody": codes::<Custody>(), "status": codes::<Status>(), "atLarge": codes::<AtLarge>(),
            "jurisdiction": codes::<Jurisdiction>(), "municipality": {"type": "string"},
            "municipalityName": {"type": ["string", "null"]},
            "photograph": {"type": ["string", "null"], "description": "SHA-256 of the latest photograph"},
            "matchedBy": {"type": "string", "enum": ["name", "alias", "sound", "fps", "birthDate", "atLarge"]}}},
        "Profile": {"type": "object", "required": ["dataAsOf", "stale", "accessRecord", "file", "records", "references"],
            "properties": {"dataAsOf": as_of, "stale": stale, "accessRecord": access, "file": file,
                "records": records, "references": records}},
        "Record": {"type": "object", "required": ["group", "table", "id", "body"], "properties": {
            "group": codes::<FieldGroup>(),
            "table": {"type": "string", "enum": catalogue::TABLES.iter().map(|t| t.name).collect::<Vec<_>>()},
            "id": {"type": "integer", "format": "int64"},
            "body": {"type": "object", "description": "as Record_<table>"}}},
        "Terms": {"type": "object", "properties": {
            "dataAsOf": as_of, "stale": stale,
            "partner": {"type": "object", "properties": {"en": {"type": "string"}, "fr": {"type": "string"}}},
            "timeZone": {"type": "string"}, "purposes": {"type": "array", "items": label},
            "fieldGroups": {"type": "array", "items": label},
            "authorizedUntil": {"type": ["string", "null"], "format": "date-time"},
            "open": {"type": "boolean"}, "generation": {"type": "integer", "format": "int64"}}},
        "Problem": {"type": "object", "description": "RFC 9457, with French beside the English",
            "required": ["type", "status", "title", "titleFr", "detail", "detailFr"],
            "properties": {"type": {"type": "string"}, "status": {"type": "integer"}, "title": {"type": "string"},
                "titleFr": {"type": "string"}, "detail": {"type": "string"}, "detailFr": {"type": "string"}}}
    });
    let mut all = tables();
    if let Value::Object(fixed) = fixed {
        all.extend(fixed);
    }
    all
}

fn operation(id: &str, summary: &str, body: &str, ok: &Value) -> Value {
    let problem = |text: &str| {
        json!({"description": text,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}})
    };
    json!({"post": {
        "operationId": id,
        "summary": summary,
        "parameters": [
            {"$ref": "#/components/parameters/OfficerId"},
            {"$ref": "#/components/parameters/Purpose"},
            {"$ref": "#/components/parameters/AcceptLanguage"},
        ],
        "requestBody": {"required": true,
            "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{body}")}}}},
        "responses": {
            "200": ok,
            "400": problem("Something in the request must change; `detail` says what."),
            "403": problem("The purpose is not permitted, the share is closed, or the certificate is another party's."),
            "404": problem("Not held here: the same whether the file left or never was."),
            "503": problem("Being updated, or the store can not be reached: try again."),
        },
    }})
}

fn json_of(schema: &str, text: &str) -> Value {
    json!({"description": text,
        "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}}})
}

/// The OpenAPI 3.1 document.
pub fn document() -> Value {
    let purposes: Vec<&str> = Purpose::ALL.iter().map(|p| p.as_str()).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "InfoPol",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Federal offender information that the Correctional Service of Canada shares with a partner. \
                Every read is recorded in the access log, with the officer and the purpose, before it is answered. \
                The caller's client certificate says which partner asks. Officer-Id is asserted by the partner.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "paths": {
            "/api/terms": {"get": {"operationId": "terms", "summary": "The terms in force: purposes, field groups, age of the data",
                "responses": {"200": json_of("Terms", "The terms; no record is in them.")}}},
            "/api/openapi.json": {"get": {"operationId": "openapi", "summary": "This document",
                "responses": {"200": {"description": "OpenAPI 3.1", "content": {"application/json": {}}}}}},
            "/api/search": operation("search", "Search by name, alias, FPS number or date of birth", "Search",
                &json_of("Results", "One page; the files shown are listed in the access log.")),
            "/api/at-large": operation("atLarge", "Who is at large", "Page",
                &json_of("Results", "One page; the files shown are listed in the access log.")),
            "/api/files/read": operation("readFile", "Every record of a file that the agreement grants", "File",
                &json_of("Profile", "The file, and the offices and officers that its records name.")),
            "/api/files/photograph": operation("readPhotograph", "One photograph of a file", "Photograph",
                &json!({"description": "JPEG", "headers": {"Data-As-Of": {"schema": {"type": "string", "format": "date-time"}}},
                    "content": {"image/jpeg": {}}})),
        },
        "components": {
            "parameters": {
                "OfficerId": {"name": "Officer-Id", "in": "header", "required": true,
                    "description": "who asks, as the partner asserts: badge or employee number",
                    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._@-]{1,64}$"}},
                "Purpose": {"name": "Purpose", "in": "header", "required": true,
                    "description": "why; the agreement permits some of these (GET /api/terms)",
                    "schema": {"type": "string", "enum": purposes}},
                "AcceptLanguage": {"name": "Accept-Language", "in": "header", "required": false,
                    "description": "en or fr, noted in the access log", "schema": {"type": "string"}},
            },
            "schemas": schemas(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_in_git_is_this_document() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let made = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let held = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            held == made,
            "openapi.json is not what the code makes; run the test with UPDATE_OPENAPI=1 and commit it"
        );
    }

    #[test]
    fn every_reference_has_its_target() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(object) => {
                    found.extend(object.get("$ref").and_then(Value::as_str));
                    object.values().for_each(|v| references(v, found));
                }
                Value::Array(list) => list.iter().for_each(|v| references(v, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}
