//! How the partners of a worker stand, and what happened to them: what metrics, status and the change log's trimming ask for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use liaison_records::names::PartnerName;

use super::{Context, State, Worker};
use crate::{
    cursor::{ALL, Snapshot},
    partner::{Held, Written},
    verify::News,
};

/// What happened to a partner's replica, for metrics and status.
#[derive(Debug, Clone)]
pub struct Report {
    /// Whose.
    pub partner: PartnerName,
    /// What was written, or why not.
    pub result: Result<Written, &'static str>,
    /// How long it took.
    pub took: Duration,
}

/// How a partner's replica stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each asked for by itself")]
pub struct Standing {
    /// Files held.
    pub files: usize,
    /// Milliseconds since 1970 of the hub's clock up to which the replica is exact.
    pub exact_at_millis: Option<i64>,
    /// Whether it is complete.
    pub complete: bool,
    /// Why the last attempt failed.
    pub trouble: Option<(&'static str, String)>,
    /// Whether records may cross at all.
    pub open: bool,
    /// Whether its lease is ours.
    pub held: bool,
    /// Whether reads are refused for a moment.
    pub fenced: bool,
    /// Batches in its ledger.
    pub ledger: i64,
    /// Whether it is being made anew beside.
    pub rebuilding: bool,
    /// Files filled, of files in scope, while it is being filled.
    pub progress: Option<(usize, usize)>,
}

/// How far a replica is: exact as of these milliseconds, and whether it is complete.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reached {
    exact_at_millis: Option<i64>,
    complete: bool,
    fenced: bool,
    rebuilding: bool,
    ledger: i64,
    progress: Option<(usize, usize)>,
}

impl Reached {
    fn of(held: &Held) -> Self {
        let exact_at = held.exact_at.as_ref().map(|p| p.millis).or(held.cursor.as_of_millis);
        Self {
            exact_at_millis: exact_at.filter(|_| held.cursor.filled == ALL),
            complete: held.cursor.filled == ALL && !held.cursor.fenced,
            fenced: held.cursor.fenced,
            rebuilding: held.rebuild.is_some(),
            ledger: held.ledger(),
            progress: held.progress.filter(|_| held.cursor.filled != ALL || held.rebuild.is_some()),
        }
    }
}

impl Worker {
    /// How each partner stands.
    pub fn standings(&mut self, now: Timestamp) -> BTreeMap<PartnerName, Standing> {
        let members = &self.members;
        let standing = |state: &mut State| {
            match &state.held {
                Some(held) => state.reached = Reached::of(held),
                // A task has it: what it does is no reason to say that the replica is not there.
                None if state.busy() => {}
                None => state.reached = Reached::default(),
            }
            Standing {
                files: members.count(state.slot),
                exact_at_millis: state.reached.exact_at_millis,
                complete: state.reached.complete,
                rebuilding: state.reached.rebuilding,
                trouble: state.trouble.clone(),
                open: state.terms.open(now).is_some(),
                held: state.held.is_some() || state.busy(),
                fenced: state.reached.fenced,
                ledger: state.reached.ledger,
                progress: state.reached.progress,
            }
        };
        self.partners.iter_mut().map(|(partner, state)| (partner.clone(), standing(state))).collect()
    }

    /// The snapshots up to which the replicas are exact that we hold and that may be read.
    pub fn positions(&self, now: Timestamp) -> Vec<(PartnerName, Snapshot)> {
        let open = self.partners.values().filter(|state| state.terms.open(now).is_some());
        let held = open.filter_map(|state| state.held.as_ref());
        held.filter_map(|held| Some((held.partner.clone(), held.position()?.clone()))).collect()
    }

    /// The connections and settings of all tasks.
    pub fn context(&self) -> Arc<Context> {
        self.context.clone()
    }

    /// What happened since this was last asked.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// What came of verifications since this was last asked.
    pub fn take_news(&mut self) -> Vec<News> {
        self.news.append(&mut self.context.desk.news());
        std::mem::take(&mut self.news)
    }
}
