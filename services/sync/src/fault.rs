//! Named points of a batch at which a test may stop it, or let something else happen, and mistakes that a test may seed to show
//! that it would find them. In production nothing does: neither a setting nor the environment reaches this.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use liaison_records::names::PartnerName;

use crate::{cursor::Snapshot, delta::Delta, error::Error, ledger::Settlement, record::PHOTOGRAPH};

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

/// A mistake that sync could make. Each is one that a replica fed by simpler means does make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Changes are counted from a number alone: who commits late is passed over.
    LateCommitPassedOver,
    /// What leaves is told from the present scope, not from what the replica was found to hold.
    HoldingsForgotten,
    /// The replica is written without the ledger.
    Unledgered,
    /// The replica takes what the holder of an older lease writes.
    EpochIgnored,
    /// A file enters as the changed row alone: what did not change with it, its photograph, is missing.
    EntersWithoutPhotograph,
    /// A scope is narrowed while it can be read.
    NarrowedUnfenced,
    /// Who loses a record keeps the search row that was made of it.
    SearchRowKept,
    /// The ledger's head is not compared with the cursor's: a restored hub or replica goes unnoticed.
    HeadNotCompared,
    /// Marks are not looked for: a hub that was put back, and has used its numbers again, passes for the one that the replica knows.
    MarkNotCompared,
}

/// All of them.
pub const FAULTS: [Fault; 9] = [
    Fault::LateCommitPassedOver,
    Fault::HoldingsForgotten,
    Fault::Unledgered,
    Fault::EpochIgnored,
    Fault::EntersWithoutPhotograph,
    Fault::NarrowedUnfenced,
    Fault::SearchRowKept,
    Fault::HeadNotCompared,
    Fault::MarkNotCompared,
];

type Hook = Arc<dyn Fn(Step, PartnerName) -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

/// What happens at the points, and which mistake is made.
#[derive(Clone, Default)]
pub struct Faults {
    hook: Option<Hook>,
    seeded: Option<Fault>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faults(hooked: {}, seeded: {:?})", self.hook.is_some(), self.seeded)
    }
}

impl Faults {
    /// Calls `hook` at every point; its error ends the batch there, as a crash would.
    pub fn hooked(
        hook: impl Fn(Step, PartnerName) -> BoxFuture<'static, Result<(), Error>> + Send + Sync + 'static,
    ) -> Self {
        Self { hook: Some(Arc::new(hook)), seeded: None }
    }

    /// The same, with a mistake.
    #[must_use]
    pub fn seeded(self, fault: Fault) -> Self {
        Self { seeded: Some(fault), ..self }
    }

    /// A point was reached.
    pub async fn at(&self, step: Step, partner: &PartnerName) -> Result<(), Error> {
        match &self.hook {
            Some(hook) => hook(step, partner.clone()).await,
            None => Ok(()),
        }
    }

    /// Whether this mistake is made.
    pub(crate) fn makes(&self, fault: Fault) -> bool {
        self.seeded == Some(fault)
    }

    /// The snapshot from which changes count.
    pub(crate) fn since(&self, mut snapshot: Snapshot) -> Snapshot {
        if self.makes(Fault::LateCommitPassedOver) {
            snapshot.in_progress.clear();
        }
        snapshot
    }

    /// The files that a replica was found to hold.
    pub(crate) fn held(&self, mut files: Vec<i64>) -> Vec<i64> {
        if self.makes(Fault::HoldingsForgotten) {
            files.clear();
        }
        files
    }

    /// What step 1 found.
    pub(crate) fn settled(&self, mut settlement: Settlement) -> Settlement {
        if self.makes(Fault::HeadNotCompared) {
            settlement.rebuild = false;
        }
        settlement
    }

    /// Whether the hub has the mark that a cursor names.
    pub(crate) fn recognised(&self, known: bool) -> bool {
        known || self.makes(Fault::MarkNotCompared)
    }

    /// What is to be written of routed changes.
    pub(crate) fn found(&self, delta: &mut Delta) {
        if self.makes(Fault::EntersWithoutPhotograph) {
            let Delta { upserts, enter, .. } = delta;
            upserts
                .retain(|(table, _), r| &**table != PHOTOGRAPH || r.offender.is_none_or(|file| !enter.contains(&file)));
        }
        if self.makes(Fault::SearchRowKept) {
            let Delta { upserts, subjects, remake, .. } = delta;
            let gains = |file: i64| upserts.values().any(|record| record.offender == Some(file));
            subjects.retain(|file, _| gains(*file));
            remake.retain(|file| gains(*file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_no_mistake_is_made_and_no_process_asks_for_one() {
        assert!(FAULTS.iter().all(|fault| !Faults::default().makes(*fault)));
        assert!(FAULTS.iter().all(|fault| Faults::default().seeded(*fault).makes(*fault)));
        for source in [include_str!("cli.rs"), include_str!("main.rs"), include_str!("serve.rs")] {
            assert!(!source.contains("seeded(") && !source.contains("hooked("), "faults are for tests alone");
        }
    }
}
