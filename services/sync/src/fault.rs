//! Named points of a batch at which a test may stop it, or let something else happen. In production nothing does.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use liaison_records::names::PartnerName;

use crate::error::Error;

/// Between which steps of design 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Lease taken on the hub, epoch not yet in the replica.
    Leased,
    /// Epoch in the replica, last batch not yet settled.
    Fenced,
    /// Settled and loaded.
    Settled,
    /// Read and encoded, the snapshot closed.
    Read,
    /// The difference is known, the ledger not written.
    Decided,
    /// Between 5 and 6: the ledger is committed, the replica not written.
    Ledgered,
    /// Everything written to the replica, not committed.
    Written,
    /// The replica is committed, the ledger does not know.
    Landed,
    /// Reads are refused, the narrowed scope not yet applied.
    Narrowing,
}

/// Every point, for tests that want all.
pub const STEPS: [Step; 9] = [
    Step::Leased,
    Step::Fenced,
    Step::Settled,
    Step::Read,
    Step::Decided,
    Step::Ledgered,
    Step::Written,
    Step::Landed,
    Step::Narrowing,
];

type Hook = Arc<dyn Fn(Step, PartnerName) -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

/// What happens at the points.
#[derive(Clone, Default)]
pub struct Faults(Option<Hook>);

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Faults(hooked)" } else { "Faults(none)" })
    }
}

impl Faults {
    /// Calls `hook` at every point; its error ends the batch there, as a crash would.
    pub fn hooked(
        hook: impl Fn(Step, PartnerName) -> BoxFuture<'static, Result<(), Error>> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(hook)))
    }

    /// A point was reached.
    pub async fn at(&self, step: Step, partner: &PartnerName) -> Result<(), Error> {
        match &self.0 {
            Some(hook) => hook(step, partner.clone()).await,
            None => Ok(()),
        }
    }
}
