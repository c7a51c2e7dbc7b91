//! Verification: whether a replica is its scope, shown by two hashes computed apart from each other, and mended if not.
//!
//! It is asked for by a row of `liaison.verification` and worked off as one of the partner's tasks by the worker that holds
//! the lease: there is no second process that writes, and no lease to fight for. A turn:
//!
//! 1. With the lease in hand, open snapshot S on the hub and bring the replica to S, as any batch would; what an earlier
//!    turn found to differ crosses again, as a batch of kind `repair` (ledger first). Then open snapshot R on the store. R
//!    bears our epoch, so nobody else has written since: R is what we left, and ought to be the scope at S.
//! 2. Give the replica back to the worker: its batches go on. S and R are both fixed, however long reading them takes.
//! 3. Hash both: the hub from the view, never from the ledger; the replica from its own bytes, never from its hash column.
//! 4. Equal: the result, and its attestation, in one transaction on the hub. Not equal: the units that differ are known
//!    from their buckets, and the next turn repairs them.
//!
//! Killed at any point, the row is still open and whoever holds the lease next begins again; nothing else is left behind.

pub(crate) mod desk;
mod repair;
mod requests;
pub(crate) mod roots;

use std::{collections::HashSet, sync::Arc};

use liaison_records::names::PartnerName;
use tokio::sync::oneshot;
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    cursor::{ALL, Point},
    delta::{Delta, cores, keys},
    error::Error,
    fault::Step,
    gather::{Asker, gather},
    hub::{Reading, View},
    partner::{Held, Written},
    route::{Candidate, Members},
    tasks::{Context, Finished},
    terms::Grant,
};

pub use desk::{Found, News, Verified};
pub use requests::{Ended, Outcome, ended, last, request};

use desk::{Came, Turn};

/// What the worker gets back when the two snapshots stand.
struct Brought {
    written: Written,
    enter: Vec<i64>,
    leave: Vec<i64>,
    files: Option<Vec<i64>>,
}

/// One turn: returns as soon as the two snapshots stand; the rest goes on beside the worker.
pub(crate) async fn turn(
    context: Arc<Context>,
    held: Held,
    grant: Grant,
    generation: i64,
    turn: Turn,
) -> Result<Finished, Error> {
    let (back, opened) = oneshot::channel();
    let partner = held.partner.clone();
    let desk = context.desk.clone();
    // Given up before the snapshots stand, it does not go on with the replica.
    let task = AbortOnDropHandle::new(tokio::spawn({
        let (partner, desk) = (partner.clone(), desk.clone());
        async move {
            let result = compare(&context, held, &grant, generation, &turn, back).await;
            desk.ended(&partner, turn, result);
        }
    }));
    desk.running(&partner, task.abort_handle());
    // A task that was aborted or panicked dropped the sender, and the replica with it: step 1 again.
    let opened = opened.await;
    task.detach();
    opened.unwrap_or_else(|_| Err(Error::Corrupt("a verification ended before it began".to_owned())))
}

async fn compare(
    context: &Context,
    mut held: Held,
    grant: &Grant,
    generation: i64,
    turn: &Turn,
    back: oneshot::Sender<Result<Finished, Error>>,
) -> Came {
    let partner = held.partner.clone();
    let failed = |back: oneshot::Sender<_>, error: Error| {
        let reason = error.reason();
        let _ = back.send(Err(error));
        Came::Failed(reason)
    };
    // Connections of its own: they are held for long, and what they still do after a failure is nobody's.
    let connections = async {
        let reading = context.comparing.target().connect().await?;
        let ledger = context.leases.target().connect().await?;
        Ok((reading, ledger, context.store.target().connect().await?))
    };
    let (mut reading, mut ledger, mut store) = match connections.await {
        Ok(connections) => connections,
        Err(error) => return failed(back, error),
    };
    let mut view = match View::open(Reading { client: &mut reading, wal: &context.wal }).await {
        Ok(view) => view,
        Err(Error::HubBusy) => {
            let _ = back.send(Ok(finished(held, None)));
            return Came::Later;
        }
        Err(error) => return failed(back, error),
    };
    let brought = match bring(context, &mut held, &mut view, &mut store, grant, generation, turn).await {
        Ok(Some(brought)) => brought,
        Ok(None) => {
            let _ = back.send(Ok(finished(held, None)));
            return Came::Later;
        }
        Err(error) => return failed(back, error),
    };
    let (epoch, batch, ledger_head) = (held.epoch, held.cursor.batch, held.cursor.head.clone());
    let replica = async {
        let tx = roots::snapshot(&mut store).await?;
        let bears = roots::epoch(&tx, &partner).await?;
        if bears == epoch { Ok(tx) } else { Err(Error::Fenced { partner: partner.clone(), epoch }) }
    };
    let replica = match replica.await {
        Ok(replica) => replica,
        Err(error) => return failed(back, error),
    };
    if back.send(Ok(finished(held, Some(brought)))).is_err() {
        return Came::Later;
    }
    let (point, identity) = (view.point.clone(), view.identity.clone());
    let hashed = async {
        context.faults.at(Step::Read, &partner).await?;
        let hub = async {
            let hashed = roots::hub(&mut view, grant).await?;
            // However long the replica takes: an open snapshot keeps the hub from clearing up.
            view.close().await?;
            Ok(hashed)
        };
        tokio::try_join!(hub, roots::replica(&replica, &partner))
    };
    let (hub, replica_side) = match hashed.await {
        Ok(hashed) => hashed,
        Err(Error::HubBusy) => return Came::Later,
        Err(error) => return Came::Failed(error.reason()),
    };
    let _ = replica.rollback().await;
    let difference = hub.tree.against(&replica_side.tree);
    if !difference.units.is_empty() {
        return Came::Differs(difference);
    }
    let verified = Verified {
        partner,
        id: turn.id,
        agreement: grant.agreement.clone(),
        generation,
        point,
        hub_identity: identity,
        batch,
        head: ledger_head,
        root: hub.tree.root(),
        files: hub.files,
        records: hub.records,
        photographs: hub.photographs,
        found: turn.found,
        failure: None,
    };
    match requests::finish(&mut ledger, &verified).await {
        Ok(()) => Came::Equal(Box::new(verified)),
        Err(error) => Came::Failed(error.reason()),
    }
}

fn finished(held: Held, brought: Option<Brought>) -> Finished {
    let Some(Brought { written, enter, leave, files }) = brought else { return held.into() };
    Finished { written: Some(written), files, enter, leave, ..held.into() }
}

/// Brings the replica to S, and repairs what is known to differ. `None`: not by changes; the worker compares first.
async fn bring(
    context: &Context,
    held: &mut Held,
    view: &mut View<'_>,
    store: &mut Client,
    grant: &Grant,
    generation: i64,
    turn: &Turn,
) -> Result<Option<Brought>, Error> {
    let Some(since) = held.position().cloned() else { return Ok(None) };
    let same_hub = held.cursor.hub_identity.as_deref() == Some(&view.identity);
    let known = since.followed_by(view.horizon, view.point.snapshot.xmax);
    let whole = held.cursor.filled == ALL && held.rebuild.is_none() && !held.stranger;
    if !same_hub || !known || !whole || !held.follows(grant) {
        return Ok(None);
    }
    // Its connection is its own, and may be to a hub that was put back since the worker's was opened.
    if !view.strangers(&[held.claim()]).await?.is_empty() {
        return Err(Error::LedgerPutBack(held.partner.clone()));
    }
    let (point, identity): (Point, String) = (view.point.clone(), view.identity.clone());
    let groups = grant.group_names();
    let names: HashSet<&str> = groups.iter().map(String::as_str).collect();
    let present: HashSet<i64> = held.share.held(store).await?.into_iter().collect();
    let mut members = Members::default();
    members.load(0, present.iter().copied());
    let candidate = Candidate { slot: 0, scope: &grant.scope, filled: ALL };
    let asker = Asker { candidate, groups: &groups, since: &since };
    let gathered = gather(view, &[asker], &members).await?;
    let Some(want) = gathered.wants.get(&0) else { return Ok(None) };
    let mut delta = Delta::default();
    let source = &gathered.source;
    let looked = held.share.look(store, &keys(want, source, &names), &cores(want, source)).await?;
    delta.changes(want, source, &looked, &names, |file| present.contains(&file));
    let images = held.pick(store, &delta, &gathered.source.images).await?;
    let faults = &context.faults;
    let mut written = held
        .deliver(
            &context.ledger_bulk,
            store,
            grant,
            generation,
            &point,
            &identity,
            ALL,
            &delta,
            &images,
            "changes",
            None,
            faults,
        )
        .await?;
    let mut files = None;
    if let Some(suspects) = &turn.suspects {
        let (delta, images) = repair::decide(held, view, store, grant, suspects).await?;
        let repaired = held
            .deliver(
                &context.ledger_bulk,
                store,
                grant,
                generation,
                &point,
                &identity,
                ALL,
                &delta,
                &images,
                "repair",
                None,
                faults,
            )
            .await?;
        written = sum(written, repaired);
        files = Some(held.share.held(store).await?);
    }
    Ok(Some(Brought {
        written,
        enter: delta.enter.into_iter().collect(),
        leave: delta.leave.into_iter().collect(),
        files,
    }))
}

fn sum(one: Written, two: Written) -> Written {
    Written {
        batch: two.batch.or(one.batch),
        records: one.records + two.records,
        withdrawn: one.withdrawn + two.withdrawn,
        bytes: one.bytes + two.bytes,
    }
}

/// The open requests: the oldest of each partner, and whether the replica is to be made anew.
pub(crate) async fn open(hub: &Client) -> Result<Vec<(PartnerName, i64, bool)>, Error> {
    requests::open(hub).await
}

/// Closes a request that was given up.
pub(crate) async fn give_up(hub: &Client, id: i64, reason: &str) -> Result<(), Error> {
    requests::fail(hub, id, reason).await
}

/// What a request wanted made anew needs only be swapped in.
pub(crate) async fn made_anew(hub: &Client, id: i64) -> Result<(), Error> {
    requests::anew(hub, id).await
}

/// How many units are repaired; when more differ, the replica is made anew.
const MOST_REPAIRED: usize = 2_000;
