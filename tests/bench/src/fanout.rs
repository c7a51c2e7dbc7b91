//! Liaison beside PostgreSQL's native logical replication: the same data, the same loads, the same server settings, one run.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;
use liaison_oms::capture::Capture;

use crate::{
    cluster::{Cluster, SETTINGS},
    error::{Error, Result},
    figures::{self, Figure, Measure},
    liaison::{Liaison, Sync},
    live::Alone,
    load::Files,
    native::Native,
    render, run,
    scopes::{CODES, Set, municipality},
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
    /// How Liaison's hub captures changes.
    #[arg(long, env = "CAPTURE", value_enum, default_value = "wal")]
    pub capture: Capture,
    /// Where the servers' files go meanwhile: about 20 GB at the full size.
    #[arg(long, env = "BENCH_DIR", default_value = "/tmp")]
    pub directory: std::path::PathBuf,
}

/// Natively more partners than this are not run: a database, a slot, a walsender and an apply worker each.
pub(crate) const MOST_NATIVE: usize = 200;
/// Before measure F begins: what was just seeded comes to rest.
const SETTLING: Duration = Duration::from_secs(3);
/// Length of measure F.
const IDLE: Duration = Duration::from_secs(10);

/// A group of sets that run over the same loads.
pub(crate) struct Run<'a> {
    pub(crate) args: &'a FanoutArgs,
    pub(crate) files: Files,
    pub(crate) source: Cluster,
    pub(crate) liaison: Option<Liaison>,
    pub(crate) native: Option<Native>,
    pub(crate) latencies: Alone,
    loads: u64,
    results: Vec<Measure>,
}

impl FanoutArgs {
    fn wants(&self, measure: char) -> bool {
        self.measures.iter().any(|m| m.eq_ignore_ascii_case(&measure))
    }

    pub(crate) fn repeats(&self, n: usize) -> usize {
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
    render::same(&machine(args)?)?;
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
    let groups = args.groups();
    for (done, group) in (1..).zip(&groups) {
        let mut run = Run::start(args, &template, root.path()).await?;
        run.group(group).await?;
        run.end()?;
        render::facts(&machine(args)?)?;
        render::page()?;
        println!("{:.1} min so far, {done} of {} groups", begun.elapsed().as_secs_f64() / 60.0, groups.len());
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
        ("capture on Liaison's hub".to_owned(), format!("{:?}", args.capture).to_lowercase()),
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
    hub.batch_execute("VACUUM FULL oms.offender").await?;
    hub.batch_execute("VACUUM ANALYZE").await?;
    hub.batch_execute("TRUNCATE liaison.change").await?;
    drop(hub);
    template.stop()?;
    Ok(template)
}

impl<'a> Run<'a> {
    async fn start(args: &'a FanoutArgs, template: &Cluster, root: &Path) -> Result<Self> {
        let mut source = Cluster::copy_of(template, root, "source")?;
        source.start().await?;
        let client = source.client("oms").await?;
        client.batch_execute("DROP SCHEMA liaison CASCADE").await?;
        let files = Files::read(&client).await?;
        println!("{} files", files.count());
        let liaison =
            if args.side("liaison") { Some(Liaison::start(template, root, args.capture).await?) } else { None };
        let native = if args.side("native") {
            Some(say("scope keys and replica identities for the native side", Native::start(template, root)).await?)
        } else {
            None
        };
        let results = figures::load("fanout")?;
        Ok(Self { args, files, source, liaison, native, latencies: Alone::default(), loads: 0, results })
    }

    fn end(self) -> Result<()> {
        let Self { source, liaison, native, .. } = self;
        source.remove()?;
        if let Some(Liaison { hub, store }) = liaison {
            hub.remove()?;
            store.remove()?;
        }
        if let Some(Native { publisher, subscriber }) = native {
            publisher.remove()?;
            subscriber.remove()?;
        }
        Ok(())
    }

    /// A load that was not there before.
    pub(crate) fn seed(&mut self) -> u64 {
        self.loads += 1;
        self.loads
    }

    pub(crate) fn record(&mut self, set: Set, name: &str, unit: &str, ours: &[f64], theirs: &[f64]) -> Result<()> {
        self.put(Measure::new(name, set.n, set.fanout, Figure::of(ours, unit), Figure::of(theirs, unit)))
    }

    /// Says what was measured, and keeps it.
    pub(crate) fn put(&mut self, measure: Measure) -> Result<()> {
        let show = |f: &Option<Figure>| f.as_ref().map_or_else(|| "-".to_owned(), |f| format!("{:.3}", f.median));
        println!(
            "N={:<4} fan-out {}  {:<28} liaison {:>10}  native {:>10}  {}{}",
            measure.n,
            measure.fanout,
            measure.name,
            show(&measure.liaison),
            show(&measure.native),
            measure.liaison.as_ref().or(measure.native.as_ref()).map_or("", |f| f.unit.as_str()),
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

    pub(crate) fn natively(&self, set: Set) -> Option<&Native> {
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
}

fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "memory")]
    let bytes = bytes as f64;
    bytes / 1_048_576.0
}
