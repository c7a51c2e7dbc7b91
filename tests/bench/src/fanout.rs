//! Liaison beside PostgreSQL's native logical replication: the same data, the same loads, the same server settings, one run.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    cluster::{Cluster, SETTINGS},
    error::{Error, Result},
    figures::{self, Figure, Measure},
    liaison::{Liaison, Sync},
    live::{Alone, Follower, hold, live, next_rung, rate},
    load::{Files, Load, flood},
    native::Native,
    oracle::{self, Amiss},
    render, run,
    scopes::{CODES, Set, municipality},
    usage::Usage,
    worker::Order,
};

/// What to run.
#[derive(Debug, Clone, Args)]
pub struct FanoutArgs {
    /// Numbers of partners.
    #[arg(long, env = "N", value_delimiter = ',', default_values_t = [13, 50, 200, 1000])]
    pub n: Vec<usize>,
    /// In how many scopes each file is.
    #[arg(long, env = "FANOUT", value_delimiter = ',', default_values_t = [1, 3])]
    pub fanout: Vec<usize>,
    /// How often each figure is taken; absent: five times up to 50 partners, twice above.
    #[arg(long, env = "REPEATS")]
    pub repeats: Option<usize>,
    /// Which measures.
    #[arg(long, env = "MEASURES", value_delimiter = ',', default_values_t = ['A', 'B', 'C', 'D', 'E', 'F'])]
    pub measures: Vec<char>,
    /// Which sides: liaison, native.
    #[arg(long, env = "SIDES", value_delimiter = ',', default_values_t = ["liaison".to_owned(), "native".to_owned()])]
    pub sides: Vec<String>,
    /// Transactions of measure A.
    #[arg(long, env = "TRANSACTIONS", default_value_t = 100_000)]
    pub transactions: usize,
    /// Offender files, in the published proportions.
    #[arg(long, env = "FILES", default_value_t = 147_000)]
    pub files: u32,
    /// Where the servers' files go meanwhile: about 20 GB at the full size.
    #[arg(long, env = "BENCH_DIR", default_value = "/tmp")]
    pub directory: std::path::PathBuf,
}

/// Natively more partners than this are not run: a database, a slot, a walsender and an apply worker each.
const MOST_NATIVE: usize = 200;
/// Rate and length of measure E.
const STEADY: f64 = 20.0;
const STEADY_SECONDS: f64 = 12.0;
/// Before measure F begins: what was just seeded comes to rest.
const SETTLING: Duration = Duration::from_secs(3);
/// Length of measure F.
const IDLE: Duration = Duration::from_secs(10);
/// Rates that B tries at most for one figure.
const TRIALS: usize = 6;

struct Run<'a> {
    args: &'a FanoutArgs,
    files: Files,
    source: Cluster,
    liaison: Option<Liaison>,
    native: Option<Native>,
    /// CPU-seconds of the load of measure A on the source alone, over all repeats so far.
    alone: Vec<f64>,
    latencies: Alone,
    loads: u64,
    results: Vec<Measure>,
}

impl FanoutArgs {
    fn wants(&self, measure: char) -> bool {
        self.measures.iter().any(|m| m.eq_ignore_ascii_case(&measure))
    }

    fn repeats(&self, n: usize) -> usize {
        self.repeats.unwrap_or(if n <= 50 { 5 } else { 2 }).max(1)
    }

    fn side(&self, side: &str) -> bool {
        self.sides.iter().any(|s| s == side)
    }

    fn sets(&self, n: usize) -> Vec<Set> {
        self.fanout.iter().map(|fanout| Set { n, fanout: *fanout }).collect()
    }

    /// Numbers of partners that are measured as often run together, over the same loads.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for n in &self.n {
            match groups.last_mut() {
                Some(group) if group.iter().all(|m| self.repeats(*m) == self.repeats(*n)) => group.push(*n),
                _ => groups.push(vec![*n]),
            }
        }
        groups
    }

    fn check(&self) -> Result<()> {
        if self.n.iter().any(|n| *n < 2 || *n > CODES) || self.fanout.iter().any(|f| *f == 0 || *f > 3) {
            return Err(Error::said(format!("N must be from 2 to {CODES}, and FANOUT from 1 to 3")));
        }
        Ok(())
    }
}

/// Runs it and writes the results, as far as they have come, after each number of partners.
pub async fn bench(args: &FanoutArgs) -> Result<()> {
    args.check()?;
    let begun = Instant::now();
    println!("server settings, the same everywhere:");
    for (name, value) in SETTINGS {
        println!("  {name} = {value}");
    }
    println!(
        "N = {:?}, fan-out = {:?}, repeats = {:?}",
        args.n,
        args.fanout,
        args.n.iter().map(|n| args.repeats(*n)).collect::<Vec<_>>()
    );
    let root = tempfile::Builder::new().prefix("liaison-bench-").tempdir_in(&args.directory)?;
    run("chmod", &["755", &root.path().to_string_lossy()])?;
    let template =
        say(&format!("{} files with children and photographs", args.files), template(root.path(), args.files)).await?;
    let mut alone = Vec::new();
    for group in args.groups() {
        let mut run = Run::start(args, &template, root.path(), std::mem::take(&mut alone)).await?;
        run.group(&group).await?;
        alone = run.end()?;
        render::facts(&machine(args)?)?;
        render::page()?;
        println!("{:.1} min so far", begun.elapsed().as_secs_f64() / 60.0);
    }
    Ok(())
}

/// What the figures are made on and with.
fn machine(args: &FanoutArgs) -> Result<Vec<(String, String)>> {
    let postgres = crate::cluster::programs()?.join("postgres");
    let first = |command: &str| run("sh", &["-c", command]).unwrap_or_default().trim().to_owned();
    let mut facts = vec![
        ("files".to_owned(), args.files.to_string()),
        ("transactions of a load".to_owned(), args.transactions.to_string()),
        ("server".to_owned(), run(&postgres.to_string_lossy(), &["--version"])?.trim().to_owned()),
        ("processor".to_owned(), first("sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1")),
        ("cores".to_owned(), first("nproc")),
        ("memory".to_owned(), first("free -g | awk '/^Mem/ {print $2 \" GiB\"}'")),
    ];
    facts.extend(SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Ok(facts)
}

async fn say<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    eprintln!("{what}");
    let begun = Instant::now();
    let done = work.await?;
    eprintln!("  {:.1} s", begun.elapsed().as_secs_f64());
    Ok(done)
}

/// A hub with the published population, each file in one of a thousand municipalities; stopped.
async fn template(root: &Path, files: u32) -> Result<Cluster> {
    let mut template = Cluster::init(root, "template")?;
    template.start().await?;
    template.client("postgres").await?.batch_execute("CREATE DATABASE oms").await?;
    let oms = std::env::current_exe()?.with_file_name("liaison-oms");
    let url = template.url("postgres", "oms");
    run(&oms.to_string_lossy(), &["--hub-url", &url, "migrate"])?;
    let part = |of: u64| (u64::from(files) * of / 147).to_string();
    let (incarcerated, community, archived) = (part(13), part(9), part(125));
    let counts = ["--active-incarcerated", &incarcerated, "--community", &community, "--archived", &archived];
    run(&oms.to_string_lossy(), &[&["--hub-url", &url, "generate"], &counts[..]].concat())?;
    let hub = template.client("oms").await?;
    let first: i64 = municipality(0).parse().unwrap_or(0);
    hub.batch_execute(&format!("UPDATE oms.offender SET municipality = ({first} + id % {CODES})::text")).await?;
    hub.batch_execute("TRUNCATE liaison.change").await?;
    hub.batch_execute("VACUUM FULL oms.offender").await?;
    hub.batch_execute("VACUUM ANALYZE").await?;
    drop(hub);
    template.stop()?;
    Ok(template)
}

impl<'a> Run<'a> {
    async fn start(args: &'a FanoutArgs, template: &Cluster, root: &Path, alone: Vec<f64>) -> Result<Self> {
        let mut source = Cluster::copy_of(template, root, "source")?;
        source.start().await?;
        let client = source.client("oms").await?;
        client.batch_execute("DROP SCHEMA liaison CASCADE").await?;
        let files = Files::read(&client).await?;
        println!("{} files", files.count());
        let liaison = if args.side("liaison") { Some(Liaison::start(template, root).await?) } else { None };
        let native = if args.side("native") {
            Some(say("scope keys and replica identities for the native side", Native::start(template, root)).await?)
        } else {
            None
        };
        let results = figures::load("fanout")?;
        Ok(Self { args, files, source, liaison, native, alone, latencies: Alone::default(), loads: 0, results })
    }

    fn end(self) -> Result<Vec<f64>> {
        let Self { source, liaison, native, alone, .. } = self;
        source.remove()?;
        if let Some(Liaison { hub, store }) = liaison {
            hub.remove()?;
            store.remove()?;
        }
        if let Some(Native { publisher, subscriber }) = native {
            publisher.remove()?;
            subscriber.remove()?;
        }
        Ok(alone)
    }

    /// A load that was not there before.
    fn seed(&mut self) -> u64 {
        self.loads += 1;
        self.loads
    }

    fn record(&mut self, set: Set, name: &str, unit: &str, ours: &[f64], theirs: &[f64]) -> Result<()> {
        let measure = Measure::new(name, set.n, set.fanout, Figure::of(ours, unit), Figure::of(theirs, unit));
        let show = |f: &Option<Figure>| f.as_ref().map_or_else(|| "-".to_owned(), |f| format!("{:.3}", f.median));
        println!(
            "N={:<4} fan-out {}  {name:<28} liaison {:>10}  native {:>10}  {unit}{}",
            set.n,
            set.fanout,
            show(&measure.liaison),
            show(&measure.native),
            measure.ratio.map(|r| format!("  ratio {r:.1}")).unwrap_or_default()
        );
        figures::merge(&mut self.results, measure);
        figures::extrapolate(&mut self.results);
        figures::store("fanout", &self.results)
    }

    async fn group(&mut self, group: &[usize]) -> Result<()> {
        let sets: Vec<Set> = group.iter().flat_map(|n| self.args.sets(*n)).collect();
        let mut syncs = Vec::new();
        for set in &sets {
            if let Some(sync) = self.seed_all(*set).await? {
                syncs.push(sync);
            }
        }
        if self.args.wants('A') {
            self.catch_up(&sets, &mut syncs).await?;
        }
        for set in &sets {
            if self.args.wants('E') {
                self.one_dead(*set, &mut syncs).await?;
            }
            if self.args.wants('B') {
                self.highest_rate(*set, &mut syncs).await?;
            }
            if self.args.wants('D') {
                self.correctness(*set, &mut syncs).await?;
            }
        }
        for sync in syncs {
            sync.end().await?;
        }
        Ok(())
    }

    fn natively(&self, set: Set) -> Option<&Native> {
        self.native.as_ref().filter(|_| set.n <= MOST_NATIVE)
    }

    /// C, and what everything else needs: all replicas of a set, seeded; natively then stopped. F, on the way: what they cost
    /// when nothing happens.
    async fn seed_all(&mut self, set: Set) -> Result<Option<Sync>> {
        let times = if self.args.wants('C') && set.n <= 50 { self.args.repeats(set.n).min(2) } else { 1 };
        let (mut ours, mut theirs) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        let (mut our_idle, mut their_idle) = (Vec::new(), Vec::new());
        let mut sync = None;
        for _ in 0..times {
            if let Some(liaison) = &self.liaison {
                if let Some(earlier) = sync.take() {
                    liaison.forget(earlier).await?;
                }
                liaison.store.settle().await?;
                let without = liaison.pss(None)?;
                let mut new = liaison.sync(set).await?;
                let (before, begun) = (liaison.usage(Some(&new))?, Instant::now());
                say(&format!("Liaison seeds {} partners at fan-out {}", set.n, set.fanout), new.order(&Order::Seed))
                    .await?;
                ours.1.push(begun.elapsed().as_secs_f64());
                ours.0.push((liaison.usage(Some(&new))? - before).total());
                // Its leases, and its membership: it is warm from here on.
                new.order(&Order::Converge).await?;
                if self.args.wants('F') {
                    new.order(&Order::Serve).await?;
                    tokio::time::sleep(SETTLING).await;
                    let before = liaison.usage(Some(&new))?;
                    tokio::time::sleep(IDLE).await;
                    let cpu = (liaison.usage(Some(&new))? - before).total();
                    our_idle.push((
                        cpu / IDLE.as_secs_f64() * 60.0,
                        mebibytes(liaison.pss(Some(&new))?.saturating_sub(without)),
                    ));
                    new.order(&Order::Standing).await?;
                }
                sync = Some(new);
            }
        }
        for time in 0..times {
            if let Some(native) = self.natively(set) {
                if time > 0 {
                    native.forget(set).await?;
                }
                native.subscriber.settle().await?;
                let without = native.pss()?;
                let (before, begun) = (native.usage()?, Instant::now());
                say(&format!("native subscriptions: {} partners at fan-out {}", set.n, set.fanout), native.seed(set))
                    .await?;
                theirs.1.push(begun.elapsed().as_secs_f64());
                theirs.0.push((native.usage()? - before).total());
                if self.args.wants('F') {
                    tokio::time::sleep(SETTLING).await;
                    let before = native.usage()?;
                    tokio::time::sleep(IDLE).await;
                    let cpu = (native.usage()? - before).total();
                    their_idle
                        .push((cpu / IDLE.as_secs_f64() * 60.0, mebibytes(native.pss()?.saturating_sub(without))));
                }
                native.enable(set, false, &BTreeSet::new()).await?;
            }
        }
        if self.args.wants('C') {
            self.record(set, "C seed CPU", "CPU-s", &ours.0, &theirs.0)?;
            self.record(set, "C seed time", "s", &ours.1, &theirs.1)?;
        }
        if self.args.wants('F') {
            let part = |side: &[(f64, f64)]| side.iter().copied().unzip::<f64, f64, Vec<f64>, Vec<f64>>();
            let (ours, theirs) = (part(&our_idle), part(&their_idle));
            self.record(set, "F idle CPU", "CPU-s/min", &ours.0, &theirs.0)?;
            self.record(set, "F memory", "MiB", &ours.1, &theirs.1)?;
        }
        Ok(sync)
    }

    /// A: everybody was down while the load ran, and catches up.
    async fn catch_up(&mut self, sets: &[Set], syncs: &mut [Sync]) -> Result<()> {
        let none = BTreeSet::new();
        let repeats = sets.iter().map(|set| self.args.repeats(set.n)).max().unwrap_or(1);
        let (mut ours, mut theirs): (Vec<Vec<(Usage, f64)>>, Vec<Vec<(Usage, f64)>>) =
            (vec![Vec::new(); sets.len()], vec![Vec::new(); sets.len()]);
        for repeat in 1..=repeats {
            let seed = self.seed();
            let load = self.files.load(seed, self.args.transactions);
            if repeat == 1 {
                describe(&load);
            }
            println!("A, repeat {repeat} of {repeats}");
            let alone = load_on(&self.source, &load).await?;
            self.alone.push(alone.0);
            if let Some(liaison) = &self.liaison {
                let (cpu, wall) = load_on(&liaison.hub, &load).await?;
                eprintln!(
                    "  load alone {:.1} CPU-s in {:.1} s, with capture {cpu:.1} CPU-s in {wall:.1} s",
                    alone.0, alone.1
                );
                let mut caught = Vec::new();
                for sync in syncs.iter_mut() {
                    let (before, begun) = (liaison.usage(Some(sync))?, Instant::now());
                    sync.order(&Order::Converge).await?;
                    caught.push((liaison.usage(Some(sync))? - before, begun.elapsed().as_secs_f64()));
                }
                let trim = trim(liaison, syncs).await?;
                for (i, (usage, wall)) in caught.into_iter().enumerate() {
                    eprintln!("  liaison {}: {usage:.2?} in {wall:.1} s, trim {trim:.2}", sets[i].name());
                    let usage = Usage { source: usage.source + cpu + trim, ..usage };
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
                    theirs[i].push((Usage { source: usage.source + cpu, ..usage }, begun.elapsed().as_secs_f64()));
                    native.enable(*set, false, &none).await?;
                }
            }
        }
        // One figure for the load alone: the middle of all that were taken.
        let mut alone = self.alone.clone();
        let alone = figures::quantile(&mut alone, 0.5);
        for (i, set) in sets.iter().enumerate() {
            let parts = |of: fn(&Usage) -> f64, less: f64| {
                let take = |side: &[(Usage, f64)]| side.iter().map(|(u, _)| of(u) - less).collect::<Vec<_>>();
                (take(&ours[i]), take(&theirs[i]))
            };
            let wall = |side: &[(Usage, f64)]| side.iter().map(|(_, wall)| *wall).collect::<Vec<_>>();
            for (name, (ours, theirs)) in [
                ("A catch-up CPU", parts(Usage::total, alone)),
                ("A catch-up CPU, source", parts(|u| u.source, alone)),
                ("A catch-up CPU, replicas", parts(|u| u.replicas, 0.0)),
                ("A catch-up CPU, between", parts(|u| u.between, 0.0)),
            ] {
                self.record(*set, name, "CPU-s", &ours, &theirs)?;
            }
            let (ours, theirs) = (wall(&ours[i]), wall(&theirs[i]));
            self.record(*set, "A catch-up time", "s", &ours, &theirs)?;
        }
        Ok(())
    }

    /// E: one partner is dead throughout; what is kept for it, and how the others fare.
    async fn one_dead(&mut self, set: Set, syncs: &mut [Sync]) -> Result<()> {
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

    /// B: the highest rate at which the source's p99 stays under twice that of the source alone, and lag under a minute.
    async fn highest_rate(&mut self, set: Set, syncs: &mut [Sync]) -> Result<()> {
        let none = BTreeSet::new();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for native in [false, true] {
            let present = if native { self.natively(set).is_some() } else { syncs.iter().any(|s| s.set == set) };
            if !present {
                continue;
            }
            if let Some(side) = self.natively(set).filter(|_| native) {
                side.enable(set, true, &none).await?;
            }
            let (mut passed, mut failed) = (None, None);
            let start = if native { 14usize.saturating_sub(set.n / 20) } else { 16usize.saturating_sub(set.n / 100) };
            for _ in 0..TRIALS {
                let Some(rung) = next_rung(passed, failed, start) else { break };
                let (seed, other) = (self.seed(), self.seed());
                let alone = self.latencies.p99(&self.source, &self.files, other, rung).await?;
                let (server, follower) = match (native, &self.native, &self.liaison) {
                    (true, Some(side), _) => (&side.publisher, Follower::Native(side, set)),
                    (false, _, Some(side)) => match syncs.iter_mut().find(|s| s.set == set) {
                        Some(sync) => (&side.hub, Follower::Liaison(sync)),
                        None => break,
                    },
                    _ => break,
                };
                let seen = live(server, &self.files, seed, rate(rung), hold(rung), follower, &none).await?;
                let holds = seen.p99 < 2.0 * alone && seen.sustained();
                eprintln!(
                    "  {} {}: {:.0} tx/s: p99 {:.2} ms (alone {:.2} ms), lag {:.1} s: {}",
                    if native { "native" } else { "liaison" },
                    set.name(),
                    rate(rung),
                    seen.p99 * 1e3,
                    alone * 1e3,
                    seen.lags.last().copied().unwrap_or(0.0),
                    if holds { "holds" } else { "does not hold" }
                );
                if holds {
                    passed = Some(rung)
                } else {
                    failed = Some(rung)
                }
                // The next rate begins with nothing left to do.
                match (native, &self.native, syncs.iter_mut().find(|s| s.set == set)) {
                    (true, Some(side), _) => side.wait(set, &none).await?,
                    (false, _, Some(sync)) => sync.order(&Order::Converge).await.map(drop)?,
                    _ => {}
                }
            }
            if let Some(side) = self.natively(set).filter(|_| native) {
                side.enable(set, false, &none).await?;
            }
            let best = passed.map(rate);
            if native { theirs.extend(best) } else { ours.extend(best) }
        }
        self.record(set, "B highest rate", "tx/s", &ours, &theirs)
    }

    /// D: files move between scopes, one partner's scope is narrowed, another's widened; then everything is compared.
    async fn correctness(&mut self, set: Set, syncs: &mut [Sync]) -> Result<()> {
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

fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "memory")]
    let bytes = bytes as f64;
    bytes / 1_048_576.0
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
    for table in crate::scopes::TABLES {
        client.batch_execute(&format!("VACUUM oms.{table}")).await?;
    }
    Ok((cpu, wall.as_secs_f64()))
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
