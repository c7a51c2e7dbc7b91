//! The two resources of `federation.csc-scc.gc.ca/v1alpha1` and their pure validation.
//!
//! Types only, and what can be said of them without a cluster. `crds/yaml` is generated from here and checked for drift.

pub mod partner_connection;
pub mod sharing_agreement;

pub use partner_connection::{PartnerConnection, PartnerConnectionSpec, PartnerConnectionStatus};
pub use sharing_agreement::{SharingAgreement, SharingAgreementSpec, SharingAgreementStatus};

/// The API group.
pub const GROUP: &str = "federation.csc-scc.gc.ca";
