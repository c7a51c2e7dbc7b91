//! `crds/yaml` is what the types say, and keeps to the conventions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use serde_json::Value;

#[test]
fn yaml_in_git_is_what_the_types_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    for (name, body) in liaison_crds::schema::all().unwrap() {
        let held = std::fs::read_to_string(directory.join(&name)).unwrap_or_default();
        assert!(held == body, "{name} has drifted: cargo run -p liaison-crds --bin crdgen -- crds/yaml");
    }
}

fn walk(path: &str, node: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, node);
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), child, visit);
    }
    if node.get("items").is_some() {
        walk(&format!("{path}[]"), &node["items"], visit);
    }
}

#[test]
fn every_field_is_described_and_bounded_and_has_no_default() {
    for crd in [liaison_crds::schema::partner_connection().unwrap(), liaison_crds::schema::sharing_agreement().unwrap()]
    {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        assert!(schema["description"].as_str().is_some_and(|text| !text.starts_with("Auto-generated")));
        for part in ["spec", "status"] {
            walk(part, &schema["properties"][part], &mut |path, node| {
                let is = |kind: &str| node["type"] == kind;
                assert!(path.ends_with("[]") || node["description"].is_string(), "{path} has no description");
                assert!(
                    !is("string") || node["maxLength"].is_number() || node["enum"].is_array(),
                    "{path} is unbounded"
                );
                assert!(!is("array") || node["maxItems"].is_number(), "{path} is unbounded");
                assert!(!node["format"].as_str().is_some_and(|format| format.starts_with("uint")), "{path}");
                assert!(path == "status" || node.get("default").is_none(), "{path} has a default");
                assert!(node.get("additionalProperties").is_none() && node.get("nullable").is_none(), "{path}");
            });
        }
        assert_eq!(schema["properties"]["status"]["default"]["observedGeneration"], -1);
    }
}

#[test]
fn the_table_fits_a_terminal() {
    let crd = serde_json::to_value(liaison_crds::schema::partner_connection().unwrap()).unwrap();
    let columns = crd.pointer("/spec/versions/0/additionalPrinterColumns").unwrap().as_array().unwrap();
    let shown = |wide: bool| -> Vec<String> {
        let of = columns.iter().filter(|column| column.get("priority").is_some() == wide);
        of.map(|column| column["name"].as_str().unwrap().to_uppercase()).collect()
    };
    assert_eq!(shown(false), ["PARTNER", "READY", "CONNECTED", "FRESH", "AGE"]);
    assert_eq!(
        shown(true),
        ["ORGANIZATION", "AGREEMENT", "TUNNEL", "GATEWAY", "CERTIFICATE-EXPIRES", "VERIFIED", "REASON", "MESSAGE"]
    );
    // kubectl cuts nothing: names of organizations are long, so they stand with -o wide. A name of 29 characters still fits.
    let row = |name: &str| format!("{name}   PARTNER   Unknown   CONNECTED   Unknown   3d12h").len();
    assert!(row("saskatchewan-corrections") < 80 && row(&"n".repeat(29)) < 80);
}
