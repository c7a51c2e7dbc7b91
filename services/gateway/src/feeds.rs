//! What the control loop is fed with, and what it has to say. Types alone.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use liaison_crds::{PartnerConnection, partner_connection::Acknowledgement};
use liaison_records::names::PartnerName;
use tokio::sync::{mpsc, watch};

use crate::{enrolment::Certificates, lead::Standing, secrets::Secrets};

/// A word from the API about PartnerConnections.
#[derive(Debug)]
pub enum Change {
    /// All there are.
    Listed(Vec<(String, Observed)>),
    /// One was made or changed.
    Applied(String, Observed),
    /// One is gone.
    Deleted(String),
    /// Nothing changed.
    Heard,
}

/// An object, or why it cannot be read.
pub type Observed = Result<Box<PartnerConnection>, String>;

/// Something to be written to a partner's status.
#[derive(Debug, Clone)]
pub struct StatusWrite {
    /// Of which partner.
    pub partner: PartnerName,
    /// What.
    pub word: Word,
}

/// What the gateway has to say in status; it may write nothing else there.
#[derive(Debug, Clone)]
pub enum Word {
    /// The condition `Connected`.
    Connected(Condition),
    /// A revocation has taken effect.
    Revoked(Acknowledgement),
    /// Which key is in use.
    InUse(Acknowledgement),
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connected(condition) => write!(f, "Connected: {}", condition.reason),
            Self::Revoked(_) => f.write_str("revocation acknowledged"),
            Self::InUse(_) => f.write_str("key in use"),
        }
    }
}

/// Where words come from and go to.
pub struct Feeds {
    /// Words about PartnerConnections.
    pub changes: mpsc::Receiver<Change>,
    /// The gateway's own keys.
    pub secrets: watch::Receiver<Secrets>,
    /// What is to be written to status; a full queue loses nothing.
    pub words: mpsc::Sender<StatusWrite>,
    /// Where partners' own requests for certificates go.
    pub certificates: Arc<dyn Certificates>,
    /// What this process is in its shard.
    pub standing: watch::Receiver<Standing>,
    /// Told whether it has peers: after it serves, and until it no longer does.
    pub serving: watch::Sender<bool>,
}
