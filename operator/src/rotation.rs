//! Rotation of the authority's CAs: prepared, active, retiring, removed. Pure: state and observation in, steps out.
//!
//! A new root is in everybody's bundle before anything is signed under it; an old one stays there until nothing in use chains
//! to it. Each step waits for what is *seen* to be in use, never for time alone. The phase is not stored: of the CAs that
//! were made active the last is active and those before it are retiring, so each step is one write.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::{ca::Validity, gateway_keys::Said};

/// Which kind of CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Tier {
    /// What others trust.
    Root,
    /// What signs leaves; its parent is a root.
    Issuing,
}

impl Tier {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Root, Self::Issuing];

    /// As in names of Secrets, labels and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
        }
    }

    /// How many may be there at a time. Those that retire go in the end; until then an emergency may want one more.
    const fn most(self) -> usize {
        match self {
            Self::Root => 3,
            Self::Issuing => 4,
        }
    }
}

/// How far a CA has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Phase {
    /// It is there and has signed nothing.
    Prepared,
    /// It signs.
    Active,
    /// What it signed is trusted still; it signs no more.
    Retiring,
}

/// A CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ca {
    /// Counted up in its tier, from 1.
    pub number: u32,
    /// SHA-256 of its certificate.
    pub certificate: String,
    /// SHA-256 of its subject's name.
    pub name: String,
    /// Of an issuing CA the number of the root that signed it, if that is there.
    pub parent: Option<u32>,
    /// Its life.
    pub validity: Validity,
    /// When it was made active.
    pub active_since: Option<Timestamp>,
    /// The last rotation that had been asked for when it was made.
    pub asked: Option<String>,
}

/// All CAs, in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Roots.
    pub roots: Vec<Ca>,
    /// Issuing CAs.
    pub issuing: Vec<Ca>,
}

/// What people ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// A rotation of the root; any new value asks again.
    pub root: Option<String>,
    /// A rotation of the issuing CA.
    pub issuing: Option<String>,
    /// A rotation of the gateway's own WireGuard keys, of every shard.
    pub gateway: Option<String>,
    /// Who is not waited for: a name, or what it begins with (`hub`, `infopol/infopol-vancouver-police`).
    pub without: BTreeSet<String>,
}

impl Asked {
    /// Whether `who` is waited for.
    pub(crate) fn waits_for(&self, who: &str) -> bool {
        let named = |name: &String| {
            who.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '-']))
        };
        !self.without.iter().any(named)
    }
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the next CA of a tier, prepared.
    Make(Tier),
    /// Let it sign, which retires its predecessor.
    Activate(Tier, u32),
    /// Take it away.
    Remove(Tier, u32),
}

/// Somebody who uses the authority's certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// Why nothing is known of it.
    pub silent: Option<String>,
    /// The roots that it verifies others with, a set a use, by SHA-256 of the certificate.
    pub trusts: Vec<BTreeSet<String>>,
    /// The CAs of which it takes certificates, a set a use, by SHA-256 of the name; of a server that says only that.
    pub accepts: Vec<BTreeSet<String>>,
    /// The chains that it shows, by SHA-256 of each certificate.
    pub shows: Vec<Vec<String>>,
}

/// A certificate that is accepted until it ends, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Whose.
    pub holder: String,
    /// SHA-256 of each certificate of its chain.
    pub chain: Vec<String>,
    /// Its end.
    pub not_after: Timestamp,
}

/// What is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Processes, servers, and what partners are told, by name.
    pub holders: BTreeMap<String, Holder>,
    /// The partners' certificates.
    pub leaves: Vec<Leaf>,
    /// What each process of the gateway says of its listeners, by its shard.
    pub listeners: BTreeMap<String, Said>,
}

/// Who is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Laggard {
    /// Its name.
    pub who: String,
    /// What it lacks, or still has.
    pub why: String,
    /// When the wait for it ends by itself. None: somebody may have to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl State {
    /// The CAs of a tier.
    pub fn of(&self, tier: Tier) -> &[Ca] {
        match tier {
            Tier::Root => &self.roots,
            Tier::Issuing => &self.issuing,
        }
    }

    fn get(&self, tier: Tier, number: u32) -> Option<&Ca> {
        self.of(tier).iter().find(|ca| ca.number == number)
    }

    /// The one that signs. An issuing CA whose root is not there cannot: nobody would trust what it signs.
    pub fn active(&self, tier: Tier) -> Option<&Ca> {
        let can = |ca: &&Ca| ca.active_since.is_some() && (tier == Tier::Root || self.parent(ca).is_some());
        self.of(tier).iter().rev().find(can)
    }

    fn parent(&self, ca: &Ca) -> Option<&Ca> {
        self.get(Tier::Root, ca.parent?)
    }

    /// How far a CA has come.
    pub fn phase(&self, tier: Tier, ca: &Ca) -> Phase {
        let active = self.active(tier).map(|active| active.number);
        if active == Some(ca.number) {
            return Phase::Active;
        }
        let under = self.active(Tier::Root).map(|root| root.number);
        let useful = active.is_none_or(|active| ca.number > active) && (tier == Tier::Root || ca.parent == under);
        if ca.active_since.is_none() && useful { Phase::Prepared } else { Phase::Retiring }
    }

    fn prepared(&self, tier: Tier) -> Option<&Ca> {
        self.of(tier).iter().rev().find(|ca| self.phase(tier, ca) == Phase::Prepared)
    }

    /// The number of the next CA of a tier.
    pub fn next_number(&self, tier: Tier) -> u32 {
        self.of(tier).iter().map(|ca| ca.number).max().unwrap_or(0) + 1
    }

    /// Whether a tier's active CA is to be followed by another: past two thirds of its life, asked for, or of a root that is
    /// active no more.
    fn is_due(&self, tier: Tier, active: &Ca, asked: &Asked, now: Timestamp) -> bool {
        let asked = match tier {
            Tier::Root => &asked.root,
            Tier::Issuing => &asked.issuing,
        };
        let seen = self.of(tier).last().and_then(|newest| newest.asked.as_ref());
        let orphan = tier == Tier::Issuing && active.parent != self.active(Tier::Root).map(|root| root.number);
        orphan || now >= active.validity.renewal() || (asked.is_some() && asked.as_ref() != seen)
    }
}

/// The steps to take, in this order, each when nobody is waited for.
pub fn next(state: &State, asked: &Asked, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    for tier in Tier::ALL {
        let room = state.of(tier).len() < tier.most();
        let possible = tier == Tier::Root || state.active(Tier::Root).is_some();
        match (state.prepared(tier), state.active(tier)) {
            (Some(prepared), _) => steps.push(Step::Activate(tier, prepared.number)),
            (None, None) if possible => steps.push(Step::Make(tier)),
            (None, Some(active)) if possible && room && state.is_due(tier, active, asked, now) => {
                steps.push(Step::Make(tier));
            }
            (None, _) => {}
        }
    }
    for tier in [Tier::Issuing, Tier::Root] {
        for ca in state.of(tier).iter().filter(|ca| state.phase(tier, ca) == Phase::Retiring) {
            // Roots go in their order: cross certificates lead from one to the next.
            let busy = tier == Tier::Root
                && (state.issuing.iter().any(|issuing| issuing.parent == Some(ca.number))
                    || state.roots.iter().any(|root| root.number < ca.number));
            // Without a successor nothing is taken away.
            if !busy && state.active(tier).is_some() && state.active(Tier::Issuing).is_some() {
                steps.push(Step::Remove(tier, ca.number));
            }
        }
    }
    steps
}

/// Whether a step waits for anybody at all, so that it is worth looking.
pub fn waits(state: &State, step: Step, now: Timestamp) -> bool {
    match step {
        Step::Make(_) => false,
        // The first of its tier: nothing works before it signs.
        Step::Activate(tier, _) => state.active(tier).is_some(),
        Step::Remove(tier, number) => {
            // What never signed is in no chain; what has ended is accepted by nobody.
            state.get(tier, number).is_some_and(|ca| ca.active_since.is_some() && now < ca.validity.not_after)
        }
    }
}

/// For whom a step waits; nobody: it may be taken.
pub fn laggards(state: &State, step: Step, asked: &Asked, observed: &Observed, now: Timestamp) -> Vec<Laggard> {
    if !waits(state, step, now) {
        return Vec::new();
    }
    let mut all = Vec::new();
    let needed = match step {
        Step::Activate(Tier::Root, number) => state.get(Tier::Root, number),
        Step::Activate(Tier::Issuing, number) => state.get(Tier::Issuing, number).and_then(|ca| state.parent(ca)),
        Step::Remove(..) | Step::Make(_) => state.active(Tier::Root),
    };
    let going = match step {
        Step::Remove(tier, number) => state.get(tier, number).map(|ca| (tier, ca)),
        Step::Make(_) | Step::Activate(..) => None,
    };
    for (who, holder) in &observed.holders {
        let why = holder.silent.clone().or_else(|| lacks(holder, needed)).or_else(|| {
            let (tier, ca) = going?;
            let mut shown = holder.shows.iter().filter(|chain| !chain.is_empty());
            shown.find_map(|chain| state.holds_back(tier, ca, chain))
        });
        all.extend(why.map(|why| Laggard { who: who.clone(), why, until: None }));
    }
    if let Some((tier, ca)) = going {
        for leaf in observed.leaves.iter().filter(|leaf| leaf.not_after > now) {
            let why = state.holds_back(tier, ca, &leaf.chain);
            all.extend(why.map(|why| Laggard { who: leaf.holder.clone(), why, until: Some(leaf.not_after) }));
        }
    }
    all.retain(|laggard| asked.waits_for(&laggard.who));
    all
}

/// What a holder lacks of a root that it must trust.
fn lacks(holder: &Holder, needed: Option<&Ca>) -> Option<String> {
    let root = needed?;
    if holder.trusts.iter().any(|trusted| !trusted.contains(&root.certificate)) {
        return Some(format!("does not hold root {} yet", root.number));
    }
    let unsaid = holder.accepts.iter().any(BTreeSet::is_empty);
    if unsaid {
        return Some("does not say from which CAs it takes certificates".to_owned());
    }
    let refuses = holder.accepts.iter().any(|accepted| !accepted.contains(&root.name));
    refuses.then(|| format!("does not accept certificates under root {} yet", root.number))
}

impl State {
    /// Why a chain that is in use keeps a CA from going.
    fn holds_back(&self, tier: Tier, ca: &Ca, chain: &[String]) -> Option<String> {
        match tier {
            Tier::Issuing => {
                chain.contains(&ca.certificate).then(|| format!("has a certificate of issuing CA {}", ca.number))
            }
            // Whose chain is of no issuing CA that is there may well be of this root.
            Tier::Root => {
                let known = self.issuing.iter().any(|issuing| chain.contains(&issuing.certificate));
                (!known).then(|| "has a certificate of no issuing CA that is there".to_owned())
            }
        }
    }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
