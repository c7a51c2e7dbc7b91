//! Measures A, B, D and E: what is done to servers whose replicas are seeded.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use liaison_sync::{connect::Target, cursor::Snapshot, error::Side, wal::Wal};

use crate::{
    cluster::Cluster,
    error::{Error, Result},
    fanout::{MOST_NATIVE, Run},
    figures::{Figure, Measure},
    liaison::{Liaison, Sync},
    live::{Follower, Search, hold, live, rate},
    load::{Load, flood},
    oracle::{self, Amiss},
    scopes::{CODES, Set, TABLES, municipality},
    usage::Usage,
    worker::Order,
};

/// Rate and length of measure E.
const STEADY: f64 = 20.0;
const STEADY_SECONDS: f64 = 12.0;
/// Rates that B tries at most for one figure.
const TRIALS: usize = 8;

/// What each repeat of A took of each set: CPU-seconds and seconds.
type Taken = Vec<Vec<(Usage, f64)>>;

impl Run<'_> {
    /// A: everybody was down while the load ran, and catches up.
    pub(crate) async fn catch_up(&mut self, sets: &[Set], syncs: &mut [Sync]) -> Result<()> {
        let none = BTreeSet::new();
        let repeats = sets.iter().map(|set| self.args.repeats(set.n)).max().unwrap_or(1);
        let (mut ours, mut theirs): (Taken, Taken) = (vec![Vec::new(); sets.len()], vec![Vec::new(); sets.len()]);
        for repeat in 1..=repeats {
            let seed = self.seed();
            let load = self.files.load(seed, self.args.transactions);
            if repeat == 1 {
                describe(&load);
            }
            println!("A, repeat {repeat} of {repeats}");
            // Taken from both in the same repeat: a machine is not as fast in each minute.
            let alone = load_on(&self.source, &load).await?;
            if let Some(liaison) = &self.liaison {
                let (cpu, wall) = load_on(&liaison.hub, &load).await?;
                eprintln!(
                    "  load alone {:.1} CPU-s in {:.1} s, with capture {cpu:.1} CPU-s in {wall:.1} s",
                    alone.0, alone.1
                );
                // Whoever comes first reads the log for all: each set bears it.
                let read = drain(liaison).await?;
                let mut caught = Vec::new();
                for sync in syncs.iter_mut() {
                    let (before, begun) = (liaison.usage(Some(sync))?, Instant::now());
                    sync.order(&Order::Converge).await?;
                    caught.push((liaison.usage(Some(sync))? - before, begun.elapsed().as_secs_f64()));
                }
                let trim = trim(liaison, syncs).await?;
                for (i, (usage, wall)) in caught.into_iter().enumerate() {
                    eprintln!(
                        "  liaison {}: {usage:.2?} in {wall:.1} s, log {read:.2}, trim {trim:.2}",
                        sets[i].name()
                    );
                    let usage = Usage { source: usage.source + (cpu - alone.0) + read + trim, ..usage };
                    ours[i].push((usage, wall));
                }
            }
            if let Some(native) = &self.native {
                let (cpu, wall) = load_on(&native.publisher, &load).await?;
                eprintln!("  load with scope keys {cpu:.1} CPU-s in {wall:.1} s");
                for (i, set) in sets.iter().enumerate().filter(|(_, set)| set.n <= MOST_NATIVE) {
                    let (before, begun) = (native.usage()?, Instant::now());
                    native.enable(*set, true, &none).await?;
                    native.wait(*set, &none).await?;
                    let usage = native.usage()? - before;
                    eprintln!("  native {}: {usage:.2?} in {:.1} s", set.name(), begun.elapsed().as_secs_f64());
                    let usage = Usage { source: usage.source + (cpu - alone.0), ..usage };
                    theirs[i].push((usage, begun.elapsed().as_secs_f64()));
                    native.enable(*set, false, &none).await?;
                }
            }
        }
        for (i, set) in sets.iter().enumerate() {
            let parts = |of: fn(&Usage) -> f64| {
                let take = |side: &[(Usage, f64)]| side.iter().map(|(u, _)| of(u)).collect::<Vec<_>>();
                (take(&ours[i]), take(&theirs[i]))
            };
            let wall = |side: &[(Usage, f64)]| side.iter().map(|(_, wall)| *wall).collect::<Vec<_>>();
            for (name, (ours, theirs)) in [
                ("A catch-up CPU", parts(Usage::total)),
                ("A catch-up CPU, source", parts(|u| u.source)),
                ("A catch-up CPU, replicas", parts(|u| u.replicas)),
                ("A catch-up CPU, between", parts(|u| u.between)),
            ] {
                self.record(*set, name, "CPU-s", &ours, &theirs)?;
            }
            let (ours, theirs) = (wall(&ours[i]), wall(&theirs[i]));
            self.record(*set, "A catch-up time", "s", &ours, &theirs)?;
        }
        Ok(())
    }

    /// E: one partner is dead throughout; what is kept for it, and how the others fare.
    pub(crate) async fn one_dead(&mut self, set: Set, syncs: &mut [Sync]) -> Result<()> {
        let (none, dead) = (BTreeSet::new(), BTreeSet::from([set.n - 1]));
        let (mut ours, mut theirs) = ([Vec::new(), Vec::new(), Vec::new()], [Vec::new(), Vec::new(), Vec::new()]);
        let (healthy, ill) = (self.seed(), self.seed());
        if let (Some(liaison), Some(sync)) = (&self.liaison, syncs.iter_mut().find(|s| s.set == set)) {
            sync.order(&Order::Converge).await?;
            let follower = Follower::Liaison(sync);
            ours[0]
                .push(live(&liaison.hub, &self.files, healthy, STEADY, STEADY_SECONDS, follower, &none).await?.lag());
            let store = liaison.store.client(&set.name()).await?;
            let share = set.partner(set.n - 1)?.share_schema();
            store.batch_execute(&format!("ALTER SCHEMA \"{share}\" RENAME TO gone")).await?;
            let follower = Follower::Liaison(sync);
            ours[1].push(live(&liaison.hub, &self.files, ill, STEADY, STEADY_SECONDS, follower, &dead).await?.lag());
            let hub = liaison.hub.client("oms").await?;
            // What the log keeps of the second load: two changes a transaction, and their index.
            let sql = "SELECT (count(*) * (pg_total_relation_size('liaison.change')::float8
                           / greatest((SELECT count(*) FROM liaison.change), 1))) FROM (SELECT FROM liaison.change c
                       WHERE c.xid >= (SELECT position FROM liaison.lease WHERE partner = $1)) k";
            let kept: f64 = hub.query_one(sql, &[&set.partner(set.n - 1)?.as_str()]).await?.get(0);
            ours[2].push(kept / 1e6);
            store.batch_execute(&format!("ALTER SCHEMA gone RENAME TO \"{share}\"")).await?;
            sync.order(&Order::Converge).await?;
        }
        if let Some(native) = self.natively(set) {
            native.enable(set, true, &none).await?;
            native.wait(set, &none).await?;
            let follower = Follower::Native(native, set);
            theirs[0].push(
                live(&native.publisher, &self.files, healthy, STEADY, STEADY_SECONDS, follower, &none).await?.lag(),
            );
            native.enable(set, false, &none).await?;
            native.enable(set, true, &dead).await?;
            let follower = Follower::Native(native, set);
            theirs[1]
                .push(live(&native.publisher, &self.files, ill, STEADY, STEADY_SECONDS, follower, &dead).await?.lag());
            theirs[2].push(native.kept(set, set.n - 1).await? / 1e6);
            native.enable(set, true, &none).await?;
            native.wait(set, &none).await?;
            native.enable(set, false, &none).await?;
        }
        self.record(set, "E lag, all well", "s", &ours[0], &theirs[0])?;
        self.record(set, "E lag, one dead", "s", &ours[1], &theirs[1])?;
        self.record(set, "E kept for the dead", "MB", &ours[2], &theirs[2])
    }

    /// B: the highest rate at which the source's p99 stays under twice that of the source alone, and lag under a minute. A native
    /// side that held none is known to hold less than the lowest that was tried.
    pub(crate) async fn highest_rate(&mut self, set: Set, syncs: &mut [Sync]) -> Result<()> {
        let mut ours = Search::default();
        if syncs.iter().any(|s| s.set == set) {
            ours = self.search(set, syncs, false, 22usize.saturating_sub(set.n / 100)).await?;
        }
        let mut theirs = Search::default();
        if let Some(native) = self.natively(set) {
            native.enable(set, true, &BTreeSet::new()).await?;
            theirs = self.search(set, syncs, true, 12usize.saturating_sub(set.n / 25)).await?;
        }
        if let Some(native) = self.natively(set) {
            native.enable(set, false, &BTreeSet::new()).await?;
        }
        let figure = |rung: Option<usize>| rung.and_then(|rung| Figure::of(&[rate(rung)], "tx/s"));
        let measure = |native| Measure::new("B highest rate", set.n, set.fanout, figure(ours.held), native);
        self.put(match (theirs.held, theirs.broke) {
            (None, Some(lowest)) => measure(figure(Some(lowest))).native_held_none(),
            (held, _) => measure(figure(held)),
        })
    }

    /// Tries rates until two neighbours are found of which the lower one holds, or there is none left.
    async fn search(&mut self, set: Set, syncs: &mut [Sync], native: bool, start: usize) -> Result<Search> {
        let mut search = Search::default();
        for _ in 0..TRIALS {
            let Some(rung) = search.next(start) else { break };
            // What two of three trials say.
            let (mut held, mut broke) = (0, 0);
            while held < 2 && broke < 2 {
                if self.holds(set, syncs, native, rung).await? { held += 1 } else { broke += 1 }
            }
            search.note(rung, held > broke);
        }
        Ok(search)
    }

    /// One trial of one side at one rate. Afterwards nothing is left to do.
    async fn holds(&mut self, set: Set, syncs: &mut [Sync], native: bool, rung: usize) -> Result<bool> {
        let none = BTreeSet::new();
        let seeds = [self.seed(), self.seed(), self.seed()];
        let alone = self.latencies.p99(&self.source, &self.files, seeds, rung).await?;
        let seed = self.seed();
        let (server, follower) = match (native, &self.native, &self.liaison, syncs.iter_mut().find(|s| s.set == set)) {
            (true, Some(side), ..) => (&side.publisher, Follower::Native(side, set)),
            (false, _, Some(side), Some(sync)) => (&side.hub, Follower::Liaison(sync)),
            _ => return Err(Error::said("this side is not there")),
        };
        let watched = live(server, &self.files, seed, rate(rung), hold(rung), follower, &none).await?;
        let holds = watched.p99 < 2.0 * alone && watched.sustained();
        eprintln!(
            "  {} {}: {:.1} tx/s: p99 {:.2} ms (alone {:.2} ms), lag {:.1} s: {}",
            if native { "native" } else { "liaison" },
            set.name(),
            rate(rung),
            watched.p99 * 1e3,
            alone * 1e3,
            watched.lags.last().copied().unwrap_or(0.0),
            if holds { "holds" } else { "does not hold" }
        );
        match (native, &self.native, syncs.iter_mut().find(|s| s.set == set)) {
            (true, Some(side), _) => side.wait(set, &none).await?,
            (false, _, Some(sync)) => sync.order(&Order::Converge).await.map(drop)?,
            _ => {}
        }
        Ok(holds)
    }

    /// D: files move between scopes, one partner's scope is narrowed, another's widened; then everything is compared.
    pub(crate) async fn correctness(&mut self, set: Set, syncs: &mut [Sync]) -> Result<()> {
        let none = BTreeSet::new();
        let mut codes: Vec<BTreeSet<usize>> = (0..set.n).map(|p| set.codes(p)).collect();
        // Partner 0 loses every other municipality, and partner 1 gets those; and one that nobody beside it had.
        let lost: BTreeSet<usize> = codes[0].iter().copied().step_by(2).collect();
        let far = CODES / 2;
        codes[0].retain(|code| !lost.contains(code));
        codes[0].insert(far);
        codes[1].extend(&lost);
        let moves = format!(
            "UPDATE oms.offender SET municipality = ({} + (municipality::bigint + {far} + id) % {CODES})::text WHERE id % 200 = 7",
            municipality(0)
        );
        let changed = vec![(0, codes[0].clone()), (1, codes[1].clone())];
        let (mut ours, mut theirs) = (None, None);
        if let (Some(liaison), Some(sync)) = (&self.liaison, syncs.iter_mut().find(|s| s.set == set)) {
            liaison.hub.client("oms").await?.batch_execute(&moves).await?;
            sync.order(&Order::Converge).await?;
            sync.allow(changed.clone()).await?;
            sync.order(&Order::Converge).await?;
            ours = Some(oracle::liaison(liaison, set, &codes).await?);
        }
        if let Some(native) = self.natively(set) {
            native.publisher.client("oms").await?.batch_execute(&moves).await?;
            native.enable(set, true, &none).await?;
            native.wait(set, &none).await?;
            for (p, codes) in &changed {
                native.allow(set, *p, codes).await?;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            native.wait(set, &none).await?;
            theirs = Some(oracle::native(native, set, &codes).await?);
            native.enable(set, false, &none).await?;
        }
        for (name, of) in [
            ("D wrong rows", (|a| a.wrong) as fn(&Amiss) -> usize),
            ("D missing rows", |a| a.missing),
            ("D extra rows", |a| a.extra),
            ("D photographs without bytes", |a| a.blank),
        ] {
            #[expect(clippy::cast_precision_loss, reason = "rows")]
            let value = |amiss: &Option<Amiss>| amiss.as_ref().map(|a| of(a) as f64).into_iter().collect::<Vec<_>>();
            self.record(set, name, "rows", &value(&ours), &value(&theirs))?;
        }
        Ok(())
    }
}

fn describe(load: &Load) {
    #[expect(clippy::cast_precision_loss, reason = "rows")]
    let share = 100.0 * load.distinct as f64 / load.changes as f64;
    println!(
        "A: {} transactions, {} row changes, {share:.1} % of them of distinct rows",
        load.transactions.len(),
        load.changes
    );
}

/// CPU-seconds of the server, and seconds, that a load takes; afterwards what it left is cleared away, which is not counted.
async fn load_on(server: &Cluster, load: &Load) -> Result<(f64, f64)> {
    server.settle().await?;
    let before = server.cpu()?;
    let wall = flood(&server.url("postgres", "oms"), &load.transactions).await?;
    let cpu = server.cpu()? - before;
    let client = server.client("oms").await?;
    for table in TABLES {
        client.batch_execute(&format!("VACUUM oms.{table}")).await?;
    }
    Ok((cpu, wall.as_secs_f64()))
}

/// The write-ahead log is read into the change log: CPU-seconds.
async fn drain(liaison: &Liaison) -> Result<f64> {
    let hub = liaison.hub.client("oms").await?;
    let before = liaison.hub.cpu()?;
    let upto: String = hub.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?.get(0);
    let said = |e: liaison_sync::error::Error| Error::said(e.to_string());
    let target = Target::from_url(Side::Hub, &liaison.hub.url("postgres", "oms")).map_err(said)?;
    // One that sees everything: nobody follows it.
    let snapshot = Snapshot { xmin: u64::MAX, xmax: u64::MAX, in_progress: Vec::new() };
    Wal::new(&target).ask(&upto, &snapshot, "SELECT", &[]).await.map_err(said)?;
    Ok(liaison.hub.cpu()? - before)
}

/// The change log is trimmed once everybody has it: CPU-seconds, with the vacuum that follows.
async fn trim(liaison: &Liaison, syncs: &mut [Sync]) -> Result<f64> {
    // Leases are renewed, and positions told, every eight seconds.
    tokio::time::sleep(Duration::from_secs(9)).await;
    for sync in syncs.iter_mut() {
        sync.order(&Order::Converge).await?;
    }
    let Some(first) = syncs.first_mut() else { return Ok(0.0) };
    let before = liaison.usage(Some(first))?;
    let answer = first.order(&Order::Trim).await?;
    liaison.hub.client("oms").await?.batch_execute("VACUUM liaison.change").await?;
    let trim = (liaison.usage(Some(first))? - before).total();
    eprintln!("  {} rows of the change log trimmed", answer.trimmed);
    Ok(trim)
}
