//! From the derived schemas to the CustomResourceDefinitions that are installed.
//!
//! Pure. The derive says most; what it cannot say is done here, once: CEL rules, the first value of status, the list
//! type of conditions; and what Kubernetes does not take (`additionalProperties: false`, unsigned formats) goes.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Value, json};

use crate::{PartnerConnection, SharingAgreement, partner_connection::Acknowledgement, rules};

/// Schema of `metav1.Condition`s, merged by type.
pub(crate) fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of the state.",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "minLength": 1, "description": "Which aspect."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The generation of the object that the condition speaks of."
                },
                "lastTransitionTime": {
                    "type": "string", "format": "date-time", "maxLength": 64,
                    "description": "When the status last changed."
                },
                "reason": {
                    "type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, in one CamelCase word."
                },
                "message": {
                    "type": "string", "maxLength": 32768,
                    "description": "Why, in a sentence for people, with what to do where there is something to do."
                }
            }
        }
    })
}

/// Schema of the gateways' acknowledgements, merged by name: each gateway applies its own.
pub(crate) fn acknowledgements_schema(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<Acknowledgement>();
    schemars::json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": item,
    })
}

/// Schema of an instant.
pub(crate) fn time_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "string", "format": "date-time", "maxLength": 64 })
}

/// What cannot go wrong for the types of this crate, and would be a defect of it, found by its tests.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The derived definition has another shape than this crate expects.
    #[error("the derived definition has no `{0}`")]
    Missing(&'static str),
    /// It could not be read back.
    #[error("the finished definition is not a CustomResourceDefinition: {0}")]
    Json(#[from] serde_json::Error),
    /// It could not be written.
    #[error("the definition could not be written as YAML: {0}")]
    Yaml(String),
}

/// The finished definition of `PartnerConnection`.
pub fn partner_connection() -> Result<CustomResourceDefinition, SchemaError> {
    let first_status = json!({
        "observedGeneration": -1,
        "conditions": [first_condition(crate::conditions::CONNECTED), first_condition(crate::conditions::DATA_FRESH)],
    });
    finish(PartnerConnection::crd(), &first_status, rules::PARTNER_CONNECTION)
}

/// The finished definition of `SharingAgreement`.
pub fn sharing_agreement() -> Result<CustomResourceDefinition, SchemaError> {
    finish(SharingAgreement::crd(), &json!({ "observedGeneration": -1 }), rules::SHARING_AGREEMENT)
}

/// All definitions, each with the name of its file in `crds/yaml`, and as YAML.
pub fn all() -> Result<Vec<(String, String)>, SchemaError> {
    [partner_connection()?, sharing_agreement()?]
        .into_iter()
        .map(|crd| {
            let name = format!("{}.yaml", crd.spec.names.plural);
            let body = serde_saphyr::to_string(&crd).map_err(|error| SchemaError::Yaml(error.to_string()))?;
            Ok((
                name,
                format!("# Generated from crds/src by `cargo run -p liaison-crds --bin crdgen -- crds/yaml`.\n{body}"),
            ))
        })
        .collect()
}

fn first_condition(kind: &str) -> Value {
    json!({
        "type": kind,
        "status": "Unknown",
        "reason": "NotObserved",
        "message": "",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    })
}

fn finish(
    crd: CustomResourceDefinition,
    first_status: &Value,
    rules: &[rules::Rule],
) -> Result<CustomResourceDefinition, SchemaError> {
    let mut value = serde_json::to_value(crd)?;
    let schema =
        value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema").ok_or(SchemaError::Missing("openAPIV3Schema"))?;
    tidy(schema);
    for rule in rules {
        let target = rule.path.iter().try_fold(&mut *schema, |node, step| node.get_mut(step));
        let target = target.and_then(Value::as_object_mut).ok_or(SchemaError::Missing("place of a rule"))?;
        let list = target.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
        let mut entry = json!({ "rule": rule.cel, "message": rule.message });
        if let Some(field) = rule.field {
            entry["fieldPath"] = json!(field);
        }
        list.as_array_mut().ok_or(SchemaError::Missing("x-kubernetes-validations"))?.push(entry);
    }
    let status = schema.pointer_mut("/properties/status").ok_or(SchemaError::Missing("status"))?;
    status["default"] = first_status.clone();
    Ok(serde_json::from_value(value)?)
}

/// Removes what Kubernetes refuses or warns of, and schema defaults, which make GitOps tools see a difference.
fn tidy(node: &mut Value) {
    match node {
        Value::Object(map) => {
            if map.get("additionalProperties") == Some(&Value::Bool(false)) {
                map.remove("additionalProperties");
            }
            let is_schema = map.get("type").is_some_and(Value::is_string);
            if is_schema {
                map.remove("nullable");
                map.remove("default");
                map.remove("title");
                if map.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                    map.remove("format");
                }
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
