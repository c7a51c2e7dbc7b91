//! `SharingAgreement`: the legal instrument, and what it allows at most.

// Each printcolumn has a name of its own; the lint looks at the word `name` alone.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use liaison_records::{
    codes::{FieldGroup, Purpose},
    population::Population,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::conditions_schema;

/// The legal instrument under which CSC shares records with its parties.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "federation.csc-scc.gc.ca",
    version = "v1alpha1",
    kind = "SharingAgreement",
    plural = "sharingagreements",
    namespaced,
    status = "SharingAgreementStatus",
    category = "liaison",
    derive = "PartialEq",
    printcolumn(name = "Reference", type_ = "string", json_path = ".spec.reference"),
    printcolumn(name = "In-Force", type_ = "string", json_path = ".status.conditions[?(@.type=='InForce')].status"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiryDate"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='InForce')].message",
        priority = 1
    ),
    doc = "The legal instrument under which CSC shares records: who, why, until when, and what at most."
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SharingAgreementSpec {
    /// Reference of the signed instrument, as on paper.
    #[schemars(length(min = 1, max = 128))]
    pub reference: String,
    /// Names of the PartnerConnections that the agreement covers; another is not accepted.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 40)))]
    pub parties: Vec<String>,
    /// Statutory authorities, such as "CCRA s.25(1)".
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 128)))]
    pub legal_basis: Vec<String>,
    /// First day, YYYY-MM-DD, in the partner's time zone.
    #[schemars(length(max = 10), regex(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    pub effective_date: String,
    /// Last day, YYYY-MM-DD, in the partner's time zone.
    #[schemars(length(max = 10), regex(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    pub expiry_date: String,
    /// Purposes for which the parties' people may look at a record.
    #[schemars(length(min = 1, max = 6))]
    pub purposes: Vec<Purpose>,
    /// What may be shared at most.
    pub allows: Allowance,
    /// How long a partner's copy may stay after it leaves the scope or the agreement ends.
    pub retention: Retention,
    /// Security requirements that the parties accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 512)))]
    pub security_requirements: Option<Vec<String>>,
    /// References of the assessments made before the agreement.
    pub assessments: Assessments,
}

/// What an agreement allows at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Allowance {
    /// Field groups; identity must be among them.
    #[schemars(length(min = 1, max = 16))]
    pub field_groups: Vec<FieldGroup>,
    /// Offender files.
    pub population: Population,
}

/// Bounds on a partner's copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// Days within which the replica is disposed of after the agreement ends.
    #[schemars(range(min = 0, max = 3650))]
    pub disposal_days: i32,
}

/// Privacy impact assessment and threat and risk assessment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assessments {
    /// Reference of the privacy impact assessment.
    #[schemars(length(min = 1, max = 128))]
    pub privacy_impact: String,
    /// Reference of the threat and risk assessment.
    #[schemars(length(min = 1, max = 128))]
    pub threat_risk: String,
}

/// What the operator found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SharingAgreementStatus {
    /// The generation that the conditions speak of; -1 until the operator has looked.
    pub observed_generation: i64,
    /// `InForce`: whether today lies between the two dates, in the time zone of the partner farthest behind.
    #[serde(default)]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}
