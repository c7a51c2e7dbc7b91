//! A batch that compares: first fill, changed scope, a table that was reloaded, a cursor of another hub.
//!
//! It goes up the offender numbers, and stops when what must cross is as much as one batch may hold or the snapshot has
//! been open long enough; the cursor then names the range, and the next batch goes on, with the changes for what is filled.
//! Only differences cross: a reload that changes nothing sends nothing.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_postgres::Client;

use crate::{
    cursor::{ALL, Point},
    delta::{Delta, cores, keys},
    error::Error,
    fault::{Faults, Step},
    gather::{Asker, gather},
    hub::{Reading, View},
    mark,
    partner::{Held, Ledger, Written},
    record::Hash,
    route::{Candidate, Members},
    terms::Grant,
};

/// What one batch may hold.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Files read at once.
    pub chunk: usize,
    /// Bytes of bodies and pictures, about.
    pub bytes: usize,
    /// How long the snapshot may stay open.
    pub time: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { chunk: 500, bytes: 48 << 20, time: Duration::from_secs(10) }
    }
}

/// What a comparison did.
#[derive(Debug, Default)]
pub struct Compared {
    /// What was written.
    pub written: Written,
    /// Files that came.
    pub enter: Vec<i64>,
    /// Files that went.
    pub leave: Vec<i64>,
}

struct Found {
    point: Point,
    identity: String,
    delta: Delta,
    images: HashMap<Hash, Arc<Vec<u8>>>,
    filled: i64,
    /// Files filled afterwards, of files in scope.
    progress: (usize, usize),
}

/// Runs one comparing batch. `afresh`: from the first number, whatever the cursor says is filled already.
#[expect(clippy::too_many_arguments, reason = "three connections, the replica, its grant, and three settings")]
pub async fn compare(
    held: &mut Held,
    reading: Reading<'_>,
    ledger: &Ledger,
    store: &mut Client,
    grant: &Grant,
    generation: i64,
    afresh: bool,
    budget: Budget,
    faults: &Faults,
) -> Result<Compared, Error> {
    let Reading { client, wal } = reading;
    let mut view = View::open(Reading { client: &mut *client, wal }).await?;
    let usable = held.cursor.usable(&view.identity, view.horizon, view.point.snapshot.xmax) && held.follows(grant);
    let from = if afresh || !usable || held.cursor.filled == ALL { 0 } else { held.cursor.filled };
    let found = find(held, &mut view, store, grant, from, budget).await?;
    view.close().await?;
    faults.at(Step::Read, &held.partner).await?;
    let Found { point, identity, delta, images, filled, progress } = found;
    let moves = delta.is_empty() && held.must_move(grant, &point, &identity, filled);
    let mark = if moves { Some(mark::leave(client).await?) } else { None };
    let written = held
        .deliver(ledger, store, grant, generation, &point, &identity, filled, &delta, &images, "compare", mark, faults)
        .await?;
    held.progress = Some(progress);
    Ok(Compared { written, enter: delta.enter.into_iter().collect(), leave: delta.leave.into_iter().collect() })
}

async fn find(
    held: &Held,
    view: &mut View<'_>,
    store: &Client,
    grant: &Grant,
    from: i64,
    budget: Budget,
) -> Result<Found, Error> {
    let started = Instant::now();
    let groups = grant.group_names();
    let granted: BTreeSet<String> = groups.iter().cloned().collect();
    let names: HashSet<&str> = groups.iter().map(String::as_str).collect();
    let scope = if groups.is_empty() { Vec::new() } else { view.scope(&grant.scope).await? };
    let inside: HashSet<i64> = scope.iter().copied().collect();
    // From the start also what has no search row; later the search rows say it, and cost less.
    let present =
        if from == 0 { held.share.present(store).await? } else { held.share.held(store).await?.into_iter().collect() };
    let mut found = Found {
        point: view.point.clone(),
        identity: view.identity.clone(),
        delta: Delta::default(),
        images: HashMap::new(),
        filled: ALL,
        progress: (scope.len(), scope.len()),
    };
    let mut from = from;
    if from > 0 && !changes(held, view, store, grant, from, &present, &names, &mut found).await? {
        from = 0;
    }
    if from == 0 {
        found.delta.references(&view.references(&granted).await?, &held.share.seen_references(store).await?);
        if held.cursor.groups.iter().any(|group| !granted.contains(group)) {
            found.delta.only_groups = Some(groups.clone());
        }
    }
    // All that leaves goes at once, also beyond the range.
    found.delta.leave.extend(present.difference(&inside.iter().copied().collect()));
    let anew = !held.cursor.seeded;
    let mut bytes = found.delta.weight() + found.images.values().map(|i| i.len()).sum::<usize>();
    let rest: Vec<i64> = scope.into_iter().filter(|file| *file > from).collect();
    let mut chunks = rest.chunks(budget.chunk.max(1)).peekable();
    while let Some(chunk) = chunks.next() {
        let mut records = view.files(chunk, &granted).await?;
        let (mut seen, searchable) =
            tokio::try_join!(held.share.seen_files(store, chunk), held.share.searchable(store, chunk))?;
        let mut part = Delta::default();
        for file in chunk {
            let records = records.remove(file).unwrap_or_default();
            let seen = seen.remove(file).unwrap_or_default();
            part.compare(*file, &records, &seen, searchable.contains(file), anew);
        }
        let lacking: Vec<Hash> = held.share.lacking(store, &part.photographs()).await?.into_iter().collect();
        let images = view.images(&lacking).await?;
        bytes += part.weight() + images.values().map(|i| i.len()).sum::<usize>();
        found.images.extend(images);
        found.delta.absorb(part);
        if chunks.peek().is_some() && (bytes > budget.bytes || started.elapsed() > budget.time) {
            found.filled = chunk.last().copied().unwrap_or(ALL);
            found.progress.0 -= chunks.map(<[i64]>::len).sum::<usize>();
            break;
        }
    }
    Ok(found)
}

/// The changes for the files that are filled already. False when they cannot be told: all must be compared.
#[expect(clippy::too_many_arguments, reason = "what the comparison knows so far")]
async fn changes(
    held: &Held,
    view: &mut View<'_>,
    store: &Client,
    grant: &Grant,
    filled: i64,
    present: &BTreeSet<i64>,
    names: &HashSet<&str>,
    found: &mut Found,
) -> Result<bool, Error> {
    let Some(since) = held.cursor.snapshot.as_ref() else { return Ok(false) };
    let mut members = Members::default();
    members.load(0, present.iter().copied());
    let groups = grant.group_names();
    let asker = Asker { candidate: Candidate { slot: 0, scope: &grant.scope, filled }, groups: &groups, since };
    let gathered = gather(view, &[asker], &members).await?;
    let Some(want) = gathered.wants.get(&0) else { return Ok(false) };
    let source = &gathered.source;
    let looked = held.share.look(store, &keys(want, source, names), &cores(want, source)).await?;
    found.delta.changes(want, source, &looked, names, |file| file <= filled && present.contains(&file));
    found.images = held.pick(store, &found.delta, &gathered.source.images).await?;
    Ok(true)
}
