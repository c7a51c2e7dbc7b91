//! One partner's replica under our lease: step 1 (lease, settle), and steps 5 and 6 (ledger, then the replica).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use liaison_records::{evidence::Mark, names::PartnerName};
use tokio_postgres::Client;

use crate::{
    connect::Target,
    cursor::{ALL, Cursor, Point, Snapshot},
    delta::Delta,
    error::Error,
    fault::{Fault, Faults, Step},
    hub_ledger::{self as hub, Batch, Claim, Landed},
    ledger::{self, Heading, Outcome},
    mark,
    rebuild::{self, Rebuild},
    record::Hash,
    replica::{self, Advance, Share, Stand, searchable_without},
    subject::scope_json,
    terms::{Grant, Scope, Terms},
    together::Group,
};

/// The hub's ledger, as the tasks of a worker write to it: many partners in one transaction.
#[derive(Debug)]
pub struct Ledger {
    batches: Group<Batch>,
    landed: Group<Landed>,
}

impl Ledger {
    /// On the hub at `target`.
    pub fn new(target: &Target) -> Self {
        Self { batches: Group::new(target), landed: Group::new(target) }
    }
}

/// A batch that the ledger has: it may cross.
#[derive(Debug, Clone, Copy)]
pub struct Recorded {
    batch: i64,
    head: [u8; 32],
}

/// Of a position that is to move without a batch.
#[derive(Debug, Default)]
struct Passage {
    /// Whether changes were passed since the cursor was written, or a mark.
    passed: bool,
    /// A point of this replica for which the hub has a mark.
    marked: Option<(Point, mark::Mark)>,
}

/// A replica whose lease we hold.
#[derive(Debug)]
pub struct Held {
    /// Whose.
    pub partner: PartnerName,
    /// Its schema.
    pub share: Share,
    /// Our lease.
    pub epoch: i64,
    /// The cursor row as it stands.
    pub cursor: Cursor,
    /// The snapshot at which the replica is known to be exact: the cursor's, or a later one since which nothing changed.
    pub exact_at: Option<Point>,
    /// The last batch of the ledger, void ones included: the next one's number and predecessor.
    chain: (i64, Vec<u8>),
    store_identity: String,
    /// The terms that the cursor bears; `None`: not known.
    pub told: Option<Terms>,
    /// This is the replica that is made anew: its batches are called so in the ledger.
    rebuilding: bool,
    /// It is to be made anew, beside.
    pub rebuild: Option<Rebuild>,
    /// What is there beside was found to be the ledger's, when the lease was taken: it goes on from there.
    goes_on: bool,
    /// What a signed checkpoint had seen of its chain, and the hub lacks: nothing crosses.
    pub lost: Option<Mark>,
    /// The hub may not be the one whose snapshot the cursor names: all is compared, whatever the numbers say.
    pub(crate) stranger: bool,
    /// The connection to the hub on which ledger and mark were last found to be what we know; 0: on none.
    pub(crate) recognised: u64,
    /// How far the position is to move without a batch.
    passage: Passage,
    /// Files filled, of files in scope, after the last comparison.
    pub progress: Option<(usize, usize)>,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// The batch, if anything crossed or was withdrawn.
    pub batch: Option<i64>,
    /// Records that crossed.
    pub records: usize,
    /// Records or whole files withdrawn.
    pub withdrawn: usize,
    /// Bytes of bodies and pictures.
    pub bytes: usize,
}

/// Step 1: lease, epoch, cursor, settlement. Returns the replica and the files that it holds.
pub async fn lease(
    hub: &Client,
    store: &mut Client,
    partner: &PartnerName,
    holder: &str,
    claim: Claim,
    faults: &Faults,
) -> Result<(Held, Vec<i64>), Error> {
    let share = Share::new(partner);
    // Nothing to lease before the seed Job has made it.
    share.cursor(store).await?;
    let mut epoch = hub::take_lease(hub, partner, holder, claim).await?;
    faults.at(Step::Leased, partner).await?;
    let cursor = match share.take_epoch(store, epoch).await? {
        Ok(cursor) => cursor,
        Err(beyond) => {
            epoch = hub::raise_epoch(hub, partner, epoch, beyond).await?;
            let taken = share.take_epoch(store, epoch).await?;
            taken.map_err(|_| Error::Fenced { partner: partner.clone(), epoch })?
        }
    };
    faults.at(Step::Fenced, partner).await?;
    let store_identity = replica::identity(store).await?;
    let beside = rebuild::take_epoch(store, partner, epoch).await?;
    let (tail, void) = hub::tail(hub, partner).await?;
    // A replica that is being made beside this one is what the last batches were written to, if it names the last.
    let is_beside = beside.is_some();
    let mut going_on = None;
    if let Some(next) = beside {
        let known = match &next.mark {
            Some(mark) => mark::known(hub, mark).await?,
            None => true,
        };
        let settlement = ledger::settle(&tail, void, &next, &store_identity);
        going_on = Some(settlement).filter(|settlement| known && !settlement.rebuild);
    }
    let settlement = match going_on {
        Some(settlement) => settlement,
        None => faults.settled(ledger::settle(&tail, void, &cursor, &store_identity)),
    };
    let chain = tail.last.as_ref().map_or((0, Vec::new()), |last| (last.batch, last.head.clone()));
    hub::settle(hub, partner, chain.0, settlement.outcome).await?;
    if settlement.outcome == Outcome::Disclosed {
        tracing::warn!(%partner, batch = chain.0, "it cannot be known whether a batch landed: it counts as disclosed");
    }
    let mut held = Held {
        partner: partner.clone(),
        share,
        epoch,
        cursor,
        exact_at: None,
        // A restored hub may have forgotten numbers that the replica has seen: none is used twice.
        chain,
        store_identity,
        told: None,
        rebuilding: false,
        rebuild: going_on.map(|_| Rebuild { hide: false }),
        goes_on: going_on.is_some(),
        lost: None,
        stranger: false,
        recognised: 0,
        passage: Passage::default(),
        progress: None,
    };
    if let Some(mark) = &held.cursor.mark {
        held.stranger = !faults.recognised(mark::known(hub, mark).await?);
    }
    if settlement.rebuild {
        // It may be of an earlier day, with files that have left since: it is not shown.
        tracing::warn!(%partner, "replica and ledger disagree: the replica is made anew");
        held.share.fence(store, held.stand(), true).await?;
        (held.cursor.fenced, held.cursor.seeded) = (true, false);
        held.rebuild = Some(Rebuild { hide: true });
    } else if is_beside && going_on.is_none() {
        rebuild::remove(store, partner, &[&partner.next_schema()]).await?;
    }
    faults.at(Step::Settled, partner).await?;
    let files = faults.held(held.share.held(store).await?);
    Ok((held, files))
}

impl Held {
    /// The batch and head after which the next replica of this partner begins. A restored hub may have forgotten numbers
    /// that the replica has seen: none is used twice.
    pub(crate) fn chain_to_follow(&mut self) -> (i64, Vec<u8>) {
        self.chain.0 = self.chain.0.max(self.cursor.batch);
        self.chain.clone()
    }

    /// Whether what is there beside this one is known to be what the ledger's last batches that crossed were written to.
    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// The replica that is being made beside this one, under the same lease.
    pub(crate) fn beside(&self, cursor: Cursor) -> Self {
        Self {
            partner: self.partner.clone(),
            share: Share::beside(&self.partner),
            epoch: self.epoch,
            cursor,
            exact_at: None,
            chain: self.chain.clone(),
            store_identity: self.store_identity.clone(),
            told: None,
            rebuilding: true,
            rebuild: None,
            goes_on: false,
            lost: None,
            stranger: false,
            recognised: 0,
            passage: Passage::default(),
            progress: None,
        }
    }

    /// The ledger went on with batches for the replica beside.
    pub(crate) fn follow_chain(&mut self, beside: &Self) {
        self.chain.clone_from(&beside.chain);
    }

    /// The replica beside has taken this one's place.
    pub(crate) fn swapped(&mut self, beside: Self) {
        self.exact_at = beside.exact_at;
        self.passage = Passage { passed: beside.passage.passed, marked: None };
        (self.rebuild, self.goes_on, self.stranger) = (None, false, false);
    }

    /// Where its cursor is, if nobody has put the replica back.
    fn stand(&self) -> Stand {
        Stand { epoch: self.epoch, batch: self.cursor.batch }
    }

    /// How many batches its ledger has.
    pub fn ledger(&self) -> i64 {
        self.chain.0
    }

    /// The snapshot from which the next changes count.
    pub fn position(&self) -> Option<&Snapshot> {
        self.exact_at.as_ref().map(|point| &point.snapshot).or(self.cursor.snapshot.as_ref())
    }

    /// Whether the data follow this grant.
    pub fn follows(&self, grant: &Grant) -> bool {
        self.cursor.agreement == grant.agreement
            && self.cursor.groups == grant.group_names()
            && self.scope().is_some_and(|scope| scope == grant.scope)
    }

    /// The scope that the data follow.
    pub fn scope(&self) -> Option<Scope> {
        self.cursor.population.clone().and_then(|json| serde_json::from_value(json).ok())
    }

    /// Whether going over to `grant` takes something away.
    pub fn narrows(&self, grant: &Grant) -> bool {
        let groups = grant.group_names();
        let fewer = self.cursor.groups.iter().any(|group| !groups.contains(group));
        // One that cannot be read may be any.
        let unknown = self.cursor.population.is_some() && self.scope().is_none();
        fewer || unknown || self.scope().is_some_and(|scope| !grant.scope.contains(&scope))
    }

    /// Writes the terms into the cursor, if it does not bear them.
    pub async fn tell(&mut self, store: &mut Client, terms: &Terms) -> Result<(), Error> {
        if self.told.as_ref() == Some(terms) {
            return Ok(());
        }
        self.told = None;
        self.cursor.fenced = self.share.write_terms(store, self.stand(), terms).await?;
        self.told = Some(terms.clone());
        Ok(())
    }

    /// Whether reads must be refused until a batch has followed `grant`, and are not yet: and whether until search rows have
    /// been made anew, too.
    fn unfenced(&self, grant: &Grant) -> Option<bool> {
        let withdrawn = searchable_without(grant);
        let whole = self.cursor.groups.iter().any(|group| withdrawn.contains(&group.as_str()));
        // A fence that an earlier narrowing put up, whose batch was killed, may ask for less than this one.
        let enough = self.cursor.fenced && !(whole && self.cursor.seeded);
        (!enough).then_some(whole)
    }

    /// Whether going over to `grant` takes something away that can still be read.
    pub(crate) fn must_fence(&self, grant: &Grant) -> bool {
        self.narrows(grant) && self.unfenced(grant).is_some()
    }

    /// Fences reads before a scope is narrowed: access first, then the data (I7).
    pub async fn fence(&mut self, store: &mut Client, grant: &Grant, faults: &Faults) -> Result<(), Error> {
        if let Some(whole) = self.unfenced(grant) {
            if !faults.makes(Fault::NarrowedUnfenced) {
                self.share.fence(store, self.stand(), whole).await?;
            }
            self.cursor.fenced = true;
            self.cursor.seeded &= !whole;
            faults.at(Step::Narrowing, &self.partner).await?;
        }
        Ok(())
    }

    /// Nothing crossed: the replica is exact at `point` too. `changes`: some were passed that do not concern it.
    pub(crate) fn exact(&mut self, point: &Point, changes: bool) {
        self.exact_at = Some(point.clone());
        self.passage.passed |= changes;
    }

    /// Whether a mark is wanted: changes were passed, and the position may not be written without.
    pub(crate) fn wants_mark(&self) -> bool {
        self.passage.passed && self.exact_at.is_some()
    }

    /// The hub has this mark since our point's snapshot.
    pub(crate) fn mark(&mut self, mark: mark::Mark) {
        if self.passage.passed {
            self.passage.marked = self.exact_at.clone().map(|point| (point, mark));
            self.passage.passed = false;
        }
    }

    /// What the hub must have if it is the one that we know.
    pub(crate) fn claim(&self) -> mark::Claim {
        let Self { partner, chain, cursor, .. } = self;
        mark::Claim { partner: partner.clone(), head: chain.1.clone(), mark: cursor.mark.clone() }
    }

    /// The hub is the one that we know, as far as the cursor goes. What we know of later was another connection's.
    pub(crate) fn recognise(&mut self, connection: u64) {
        self.recognised = connection;
        (self.exact_at, self.passage) = (None, Passage::default());
    }

    /// Writes the as-of row.
    pub async fn touch(&mut self, store: &mut Client) -> Result<(), Error> {
        if let Some(point) = &self.exact_at {
            self.share.touch(store, self.stand(), point, self.passage.marked.as_ref()).await?;
            self.cursor.as_of_millis = Some(point.millis);
            if let Some((point, mark)) = self.passage.marked.take() {
                self.cursor.snapshot = Some(point.snapshot);
                self.cursor.mark = Some(mark.to_vec());
            }
        }
        Ok(())
    }

    /// Step 5: commits the batch to the ledger, if there is a difference. `None`: nothing crosses.
    pub async fn record(
        &mut self,
        ledger: &Ledger,
        grant: &Grant,
        generation: i64,
        delta: &Delta,
        kind: &'static str,
        faults: &Faults,
    ) -> Result<Option<Recorded>, Error> {
        if delta.is_empty() {
            return Ok(None);
        }
        faults.at(Step::Decided, &self.partner).await?;
        let entries = delta.entries(&grant.group_names());
        let digest = ledger::batch_digest(&entries);
        let (previous, batch) = (self.chain.1.clone(), self.chain.0 + 1);
        let partner = self.partner.as_str();
        let heading = Heading { partner, batch, agreement: &grant.agreement, generation, digest: &digest };
        let head = ledger::head(&previous, &heading);
        let recorded = Batch {
            partner: self.partner.clone(),
            batch,
            epoch: self.epoch,
            kind: if self.rebuilding { "rebuild" } else { kind },
            agreement: grant.agreement.clone(),
            generation,
            store_identity: self.store_identity.clone(),
            entries,
            numbers: delta.numbers(),
            digest,
            previous,
            head,
        };
        if !faults.makes(Fault::Unledgered) {
            ledger.batches.submit(recorded).await?;
        }
        self.chain = (batch, head.to_vec());
        faults.at(Step::Ledgered, &self.partner).await?;
        Ok(Some(Recorded { batch, head }))
    }

    /// Whether the cursor must be written also when nothing crosses.
    pub(crate) fn must_move(&self, grant: &Grant, point: &Point, hub_identity: &str, filled: i64) -> bool {
        self.cursor.filled != filled
            || self.cursor.hub_identity.as_deref() != Some(hub_identity)
            || self.cursor.snapshot.as_ref().is_some_and(|s| s.xmax > point.snapshot.xmax)
            || self.cursor.fenced
            || self.stranger
            || !self.follows(grant)
    }

    /// Step 6, after step 5 and only after it. `filled`: how far the replica is exact afterwards. `mark`: if nothing crosses, the
    /// cursor moves all the same, and names it; without one the point is only remembered.
    #[expect(clippy::too_many_arguments, reason = "the replica, and the facts that a batch consists of")]
    pub async fn land(
        &mut self,
        store: &mut Client,
        recorded: Option<&Recorded>,
        mark: Option<mark::Mark>,
        grant: &Grant,
        point: &Point,
        hub_identity: &str,
        filled: i64,
        delta: &Delta,
        images: &HashMap<Hash, Arc<Vec<u8>>>,
        faults: &Faults,
    ) -> Result<Written, Error> {
        if faults.makes(Fault::EpochIgnored) {
            let cursor = self.share.cursor(store).await?;
            (self.epoch, self.cursor.batch) = (cursor.epoch, cursor.batch);
        }
        let exact_at = (filled == ALL).then(|| point.clone());
        let Stand { epoch, batch: after } = self.stand();
        let advance = |batch, head, mark| Advance { epoch, after, point, hub_identity, batch, head, mark, filled };
        let Some(Recorded { batch, head }) = recorded else {
            if let Some(mark) = mark {
                let (batch, head) = (self.cursor.batch, self.cursor.head.clone());
                self.share.apply_nothing(store, &advance(batch, &head, Some(mark)), grant).await?;
                self.moved(grant, point, hub_identity, batch, head, Some(mark), filled)?;
            }
            self.exact_at = exact_at;
            self.passage.passed |= mark.is_none();
            return Ok(Written::default());
        };
        let written = faults.at(Step::Written, &self.partner);
        self.share.apply(store, &advance(*batch, head, None), grant, delta, images, written).await?;
        self.moved(grant, point, hub_identity, *batch, head.to_vec(), None, filled)?;
        self.exact_at = exact_at;
        Ok(Written {
            batch: Some(*batch),
            records: delta.upserts.len(),
            withdrawn: delta.deletes.len() + delta.leave.len(),
            bytes: delta.upserts.values().map(|r| r.body.len()).sum::<usize>()
                + images.values().map(|i| i.len()).sum::<usize>(),
        })
    }

    /// Notes in the ledger that the batch landed.
    pub async fn note(&self, ledger: &Ledger, written: &Written, point: &Point, faults: &Faults) -> Result<(), Error> {
        let Some(batch) = written.batch else { return Ok(()) };
        faults.at(Step::Landed, &self.partner).await?;
        let (partner, position) = (self.partner.clone(), point.snapshot.clone());
        ledger.landed.submit(Landed { partner, epoch: self.epoch, batch, position }).await
    }

    /// Steps 5 and 6 at once, for a batch of one partner.
    #[expect(clippy::too_many_arguments, reason = "the two databases, and the facts that a batch consists of")]
    pub async fn deliver(
        &mut self,
        ledger: &Ledger,
        store: &mut Client,
        grant: &Grant,
        generation: i64,
        point: &Point,
        hub_identity: &str,
        filled: i64,
        delta: &Delta,
        images: &HashMap<Hash, Arc<Vec<u8>>>,
        kind: &'static str,
        mark: Option<mark::Mark>,
        faults: &Faults,
    ) -> Result<Written, Error> {
        let recorded = self.record(ledger, grant, generation, delta, kind, faults).await?;
        let recorded = recorded.as_ref();
        let written =
            self.land(store, recorded, mark, grant, point, hub_identity, filled, delta, images, faults).await?;
        self.note(ledger, &written, point, faults).await?;
        Ok(written)
    }

    /// The cursor as a transaction of ours has just left it.
    #[expect(clippy::too_many_arguments, reason = "what a cursor consists of")]
    fn moved(
        &mut self,
        grant: &Grant,
        point: &Point,
        hub_identity: &str,
        batch: i64,
        head: Vec<u8>,
        mark: Option<mark::Mark>,
        filled: i64,
    ) -> Result<(), Error> {
        (self.stranger, self.passage) = (false, Passage::default());
        let cursor = &mut self.cursor;
        cursor.mark = mark.map(|mark| mark.to_vec());
        cursor.hub_identity = Some(hub_identity.to_owned());
        cursor.snapshot = Some(point.snapshot.clone());
        if filled == ALL {
            cursor.as_of_millis = Some(point.millis);
        }
        (cursor.batch, cursor.head, cursor.filled) = (batch, head, filled);
        cursor.seeded |= filled == ALL;
        cursor.fenced = !cursor.seeded;
        cursor.groups = grant.group_names();
        cursor.agreement.clone_from(&grant.agreement);
        cursor.population = Some(scope_json(grant)?);
        Ok(())
    }

    /// The pictures that a delta needs and the replica lacks, out of those that were read.
    pub async fn pick(
        &self,
        store: &Client,
        delta: &Delta,
        read: &HashMap<Hash, Arc<Vec<u8>>>,
    ) -> Result<HashMap<Hash, Arc<Vec<u8>>>, Error> {
        let wanted: BTreeSet<Hash> = delta.photographs();
        let lacking = self.share.lacking(store, &wanted).await?;
        Ok(lacking.into_iter().filter_map(|hash| read.get(&hash).map(|bytes| (hash, bytes.clone()))).collect())
    }
}
