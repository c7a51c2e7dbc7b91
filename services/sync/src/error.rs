//! What can go wrong in sync. No message bears personal data: of a database error only its class, code and, where the
//! class cannot quote a value, its text are kept.

use liaison_records::names::PartnerName;

/// Which of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The hub.
    Hub,
    /// A replica store.
    Store,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Store => "replica store",
        }
    }
}

/// Why a batch, a Job or the process stopped.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No connection, or it was lost.
    #[error("the {} cannot be reached: {detail}; check its address, certificate and network policy", side.name())]
    Unreachable {
        /// Which database.
        side: Side,
        /// What the driver said.
        detail: String,
    },
    /// The database refused a statement.
    #[error("the {} refused a statement: {detail}", side.name())]
    Refused {
        /// Which database.
        side: Side,
        /// SQLSTATE, and the text where it cannot quote a value.
        detail: String,
    },
    /// No room on its disk.
    #[error("the {} has no space left on its disk: nothing was written, and it goes on when there is room", side.name())]
    Full {
        /// Which database.
        side: Side,
    },
    /// Somebody on the hub holds a lock that excludes readers: an extract that truncates and loads.
    #[error("the hub's tables are locked by an extract that truncates and loads; trying again")]
    HubBusy,
    /// The slot that the hub's changes are read from was gone, or had been moved.
    #[error(
        "the log of the hub's changes was lost (its slot was dropped, overtaken by max_slot_wal_keep_size, or is ahead of what was \
             committed): every replica is compared"
    )]
    CaptureLost,
    /// It was gone, and its successor waits for transactions that are open on the hub's server.
    #[error(
        "the log of the hub's changes was lost, and its new slot waits for the transactions that are open in any database of the hub's \
             server: end the oldest (pg_stat_activity, pg_prepared_xacts) if it does not end by itself; trying again"
    )]
    CaptureWaits,
    /// Another holder has the lease; nothing of this batch was written.
    #[error("the lease of {partner} is held by another worker since; its epoch is no longer {epoch}")]
    Fenced {
        /// Whose lease.
        partner: PartnerName,
        /// The epoch that was lost.
        epoch: i64,
    },
    /// The ledger does not end where it did when we looked, although the lease is ours: the hub was put back meanwhile, and its
    /// lease with it. Nothing of this batch was written.
    #[error(
        "the hub's ledger of {0} no longer ends where it did: the hub was put back to an earlier state; looking again"
    )]
    LedgerPutBack(PartnerName),
    /// The hub's ledger lacks what a signed checkpoint had seen of it.
    #[error(
        "the hub's ledger of {0} lacks batches that a signed checkpoint had seen: the hub was put back to an earlier state, or its \
         ledger was cut; nothing crosses until a person accepts the loss (liaison-sync ledger accept-loss)"
    )]
    LedgerLost(PartnerName),
    /// Another worker holds the lease now.
    #[error("the lease of {0} is held by another worker")]
    LeaseHeld(PartnerName),
    /// There is no replica yet.
    #[error("{0} has no replica in this store yet; its seed Job makes it")]
    NotSeeded(PartnerName),
    /// A schema or role of the right name that Liaison did not make.
    #[error("{what} exists and does not bear the mark '{mark}'; it is not Liaison's, remove or rename it")]
    NotOurs {
        /// The schema or role.
        what: String,
        /// The comment that it ought to have.
        mark: String,
    },
    /// Disposal is refused.
    #[error(
        "{0} is under a legal hold: its replica is closed and kept; remove spec.legalHold, or run `liaison-sync disposal release`"
    )]
    LegalHold(PartnerName),
    /// Something read back makes no sense.
    #[error("{0}")]
    Corrupt(String),
    /// Missing or wrong settings.
    #[error("{0}")]
    Config(String),
    /// The Kubernetes API.
    #[error("the Kubernetes API refused or could not be reached: {0}")]
    Kubernetes(String),
    /// It took longer than it may.
    #[error("the {} did not answer within {seconds} s", side.name())]
    Timeout {
        /// Which database.
        side: Side,
        /// The bound.
        seconds: u64,
    },
    /// What ended a Job: an error that was met in a task.
    #[error("{message}")]
    Job {
        /// Its reason.
        reason: &'static str,
        /// Its text.
        message: String,
    },
    /// A test stopped the batch here.
    #[error("stopped by a test")]
    Stopped,
}

impl Error {
    /// A stable reason for conditions, events, metrics and termination messages.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { side: Side::Hub, .. } | Self::Timeout { side: Side::Hub, .. } => "HubUnreachable",
            Self::Unreachable { side: Side::Store, .. } | Self::Timeout { side: Side::Store, .. } => "StoreUnreachable",
            Self::Refused { side: Side::Hub, .. } => "HubRefused",
            Self::Refused { side: Side::Store, .. } => "StoreRefused",
            Self::Full { side: Side::Hub } => "HubFull",
            Self::Full { side: Side::Store } => "StoreFull",
            Self::HubBusy => "HubBusy",
            Self::CaptureLost => "CaptureLost",
            Self::CaptureWaits => "CaptureWaits",
            Self::Fenced { .. } | Self::LeaseHeld(_) => "LeaseHeld",
            Self::LedgerPutBack(_) => "LedgerPutBack",
            Self::LedgerLost(_) => "LedgerLost",
            Self::NotSeeded(_) => "NotSeeded",
            Self::NotOurs { .. } => "NotOurs",
            Self::LegalHold(_) => "LegalHold",
            Self::Corrupt(_) => "Corrupt",
            Self::Config(_) => "InvalidConfiguration",
            Self::Kubernetes(_) => "KubernetesError",
            Self::Job { reason, .. } => reason,
            Self::Stopped => "Stopped",
        }
    }

    /// Wraps what tokio-postgres said about `side`.
    pub fn postgres(side: Side, error: &tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            let code = db.code().code();
            if side == Side::Hub && code == "55P03" {
                return Self::HubBusy;
            }
            if code == "53100" {
                return Self::Full { side };
            }
            // Classes 22 (data) and 23 (constraints) and P0 (raised) may quote values; the others speak of objects.
            let silent = ["22", "23", "P0", "LA"].iter().any(|class| code.starts_with(class));
            let detail =
                if silent { format!("SQLSTATE {code}") } else { format!("{} (SQLSTATE {code})", db.message()) };
            // 08 connection, 28 authentication, 3D no such database, 53 resources, 57 shut down.
            if ["08", "28", "3D", "53", "57P"].iter().any(|class| code.starts_with(class)) {
                return Self::Unreachable { side, detail };
            }
            return Self::Refused { side, detail };
        }
        let mut detail = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !detail.contains(&text) {
                detail = format!("{detail}: {text}");
            }
            source = cause.source();
        }
        // Failing to convert a value is a mistake of ours, not the network's.
        if detail.starts_with("error serializing") || detail.starts_with("error deserializing") {
            return Self::Refused { side, detail: "a value did not have the expected type".to_owned() };
        }
        Self::Unreachable { side, detail }
    }
}

/// Says of which database a driver's error is.
pub trait Of<T> {
    /// Of the hub.
    fn hub(self) -> Result<T, Error>;
    /// Of a replica store.
    fn store(self) -> Result<T, Error>;
}

impl<T> Of<T> for Result<T, tokio_postgres::Error> {
    fn hub(self) -> Result<T, Error> {
        self.map_err(|e| Error::postgres(Side::Hub, &e))
    }

    fn store(self) -> Result<T, Error> {
        self.map_err(|e| Error::postgres(Side::Store, &e))
    }
}
