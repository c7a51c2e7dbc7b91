//! The operator: from the two resources to Kubernetes objects and certificates.
//!
//! Kubernetes only, no SQL: what must be done in a database is a Job of sync. It is never in a packet's way and never in
//! revocation's. Pure: slots, ca, rotation, scram, validate, plan, status. Edges: the rest.

pub mod apply;
pub mod authorities;
pub mod backoff;
pub mod ca;
pub mod claims;
pub mod context;
pub mod crl;
pub mod gateway_keys;
pub mod health;
pub mod install;
pub mod metrics;
pub mod observe;
pub mod partner_connection;
pub mod pool;
pub mod preshared;
pub mod rotate;
pub mod rotation;
pub mod run;
pub mod scram;
pub mod settings;
pub mod shards;
pub mod sharing_agreement;
pub mod signing;
pub mod slots;
