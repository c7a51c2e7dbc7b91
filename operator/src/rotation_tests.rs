use super::*;

const DAY: i64 = 86_400;

fn at(day: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + day * DAY).unwrap()
}

fn ca(tier: Tier, number: u32, parent: Option<u32>, made: i64) -> Ca {
    let days = if tier == Tier::Root { 5475 } else { 1825 };
    Ca {
        number,
        certificate: format!("{}{number}", tier.as_str()),
        name: format!("name of {}{number}", tier.as_str()),
        parent,
        validity: Validity { not_before: at(made), not_after: at(made + days) },
        active_since: None,
        asked: None,
    }
}

fn active(mut ca: Ca, day: i64) -> Ca {
    ca.active_since = Some(at(day));
    ca
}

fn first() -> State {
    State {
        roots: vec![active(ca(Tier::Root, 1, None, 0), 0)],
        issuing: vec![active(ca(Tier::Issuing, 1, Some(1), 0), 0)],
    }
}

fn ask(root: bool) -> Asked {
    let value = Some("please".to_owned());
    if root { Asked { root: value, ..Asked::default() } } else { Asked { issuing: value, ..Asked::default() } }
}

fn holder(trusts: &[&str], shows: &[&str]) -> Holder {
    let set = trusts.iter().map(|t| (*t).to_owned()).collect();
    Holder { trusts: vec![set], shows: vec![shows.iter().map(|s| (*s).to_owned()).collect()], ..Holder::default() }
}

#[test]
fn nothing_is_done_while_nothing_is_asked_and_nothing_is_old() {
    assert!(next(&first(), &Asked::default(), at(1)).is_empty());
    assert_eq!(next(&first(), &Asked::default(), at(1217)), [Step::Make(Tier::Issuing)], "two thirds of five years");
    let both = next(&first(), &Asked::default(), at(3651));
    assert_eq!(both, [Step::Make(Tier::Root), Step::Make(Tier::Issuing)]);
    assert_eq!(next(&first(), &ask(true), at(1)), [Step::Make(Tier::Root)]);
    assert_eq!(next(&first(), &ask(false), at(1)), [Step::Make(Tier::Issuing)]);
    let mut done = first();
    done.issuing[0].asked = Some("please".to_owned());
    assert!(next(&done, &ask(false), at(1)).is_empty(), "the same value asks once");
}

#[test]
fn an_installation_begins_without_waiting() {
    let mut state = State::default();
    assert_eq!(next(&state, &Asked::default(), at(0)), [Step::Make(Tier::Root)]);
    state.roots.push(ca(Tier::Root, 1, None, 0));
    let steps = next(&state, &Asked::default(), at(0));
    assert_eq!(steps, [Step::Activate(Tier::Root, 1)]);
    assert!(!waits(&state, steps[0], at(0)));
    state.roots[0].active_since = Some(at(0));
    assert_eq!(next(&state, &Asked::default(), at(0)), [Step::Make(Tier::Issuing)]);
}

#[test]
fn a_root_signs_only_when_everybody_is_seen_to_hold_it() {
    let mut state = first();
    state.roots.push(ca(Tier::Root, 2, None, 1));
    let step = Step::Activate(Tier::Root, 2);
    assert_eq!(next(&state, &Asked::default(), at(1)), [step]);
    let mut observed = Observed::default();
    observed.holders.insert("gateway".to_owned(), holder(&["root1", "root2"], &["leaf", "issuing1"]));
    observed.holders.insert("infopol".to_owned(), holder(&["root1"], &["leaf", "issuing1"]));
    let away = Holder { silent: Some("does not answer".to_owned()), ..Holder::default() };
    observed.holders.insert("sync".to_owned(), away);
    let accepts = Holder { accepts: vec![["name of root1".to_owned()].into()], ..Holder::default() };
    observed.holders.insert("hub".to_owned(), accepts);
    let unsaid = Holder { accepts: vec![BTreeSet::new()], ..Holder::default() };
    observed.holders.insert("store".to_owned(), unsaid);
    let who = |asked: &Asked, observed: &Observed| -> Vec<String> {
        laggards(&state, step, asked, observed, at(1)).into_iter().map(|laggard| laggard.who).collect()
    };
    assert_eq!(who(&Asked::default(), &observed), ["hub", "infopol", "store", "sync"]);
    let without = ["store".to_owned(), "sync".to_owned()].into();
    assert_eq!(who(&Asked { without, ..Asked::default() }, &observed), ["hub", "infopol"]);
    for name in ["infopol", "sync"] {
        observed.holders.insert(name.to_owned(), holder(&["root1", "root2"], &[]));
    }
    for name in ["hub", "store"] {
        let both = ["name of root1".to_owned(), "name of root2".to_owned()].into();
        observed.holders.insert(name.to_owned(), Holder { accepts: vec![both], ..Holder::default() });
    }
    assert!(who(&Asked::default(), &observed).is_empty());
    // A second use that lags is a laggard too.
    observed.holders.get_mut("gateway").unwrap().trusts.push(["root1".to_owned()].into());
    assert_eq!(who(&Asked::default(), &observed), ["gateway"]);
}

#[test]
fn an_old_ca_stays_while_anything_in_use_is_of_it() {
    let mut state = first();
    state.roots.push(active(ca(Tier::Root, 2, None, 1), 2));
    assert_eq!(next(&state, &Asked::default(), at(2)), [Step::Make(Tier::Issuing)], "the issuing CA follows its root");
    state.issuing.push(ca(Tier::Issuing, 2, Some(2), 2));
    assert_eq!(next(&state, &Asked::default(), at(2)), [Step::Activate(Tier::Issuing, 2)]);
    state.issuing[1].active_since = Some(at(2));
    let step = Step::Remove(Tier::Issuing, 1);
    assert_eq!(next(&state, &Asked::default(), at(2)), [step], "not the root while a CA is under it");
    let mut observed = Observed::default();
    observed.holders.insert("gateway".to_owned(), holder(&["root1", "root2"], &["leaf", "issuing1"]));
    let leaf = |number: u32| Leaf {
        holder: "partner/p".to_owned(),
        chain: vec!["leaf".to_owned(), format!("issuing{number}")],
        not_after: at(20),
    };
    observed.leaves = vec![leaf(1), leaf(2)];
    let said = laggards(&state, step, &Asked::default(), &observed, at(2));
    let said: Vec<_> = said.iter().map(|laggard| (laggard.who.as_str(), laggard.until)).collect();
    assert_eq!(said, [("gateway", None), ("partner/p", Some(at(20)))]);
    observed.holders.insert("gateway".to_owned(), holder(&["root1", "root2"], &["leaf", "issuing2", "cross"]));
    assert!(laggards(&state, step, &Asked::default(), &observed, at(20)).is_empty(), "it has ended");

    state.issuing.remove(0);
    let step = Step::Remove(Tier::Root, 1);
    assert_eq!(next(&state, &Asked::default(), at(21)), [step]);
    assert!(laggards(&state, step, &Asked::default(), &observed, at(21)).is_empty());
    observed.holders.insert("hub".to_owned(), holder(&[], &["leaf", "of somebody else's"]));
    observed.holders.get_mut("hub").unwrap().trusts.clear();
    let said = laggards(&state, step, &Asked::default(), &observed, at(21));
    assert_eq!(said[0].who, "hub", "nobody knows which root it needs");
    assert!(!waits(&state, step, at(5475)), "a root that has ended is of no use to anybody");
}

#[test]
fn what_never_signed_and_never_will_is_taken_away_at_once() {
    let mut state = first();
    state.roots.push(active(ca(Tier::Root, 2, None, 1), 2));
    // Prepared under the first root when the second became active.
    state.issuing.push(ca(Tier::Issuing, 2, Some(1), 1));
    let steps = next(&state, &Asked::default(), at(2));
    assert_eq!(steps, [Step::Make(Tier::Issuing), Step::Remove(Tier::Issuing, 2)]);
    assert!(!waits(&state, steps[1], at(2)));
}

#[test]
fn an_issuing_ca_whose_root_is_gone_is_replaced_without_waiting() {
    let mut state = first();
    state.roots = vec![active(ca(Tier::Root, 2, None, 1), 1)];
    state.issuing[0].parent = None;
    assert_eq!(next(&state, &Asked::default(), at(1)), [Step::Make(Tier::Issuing)]);
    state.issuing.push(ca(Tier::Issuing, 2, Some(2), 1));
    let steps = next(&state, &Asked::default(), at(1));
    assert_eq!(steps, [Step::Activate(Tier::Issuing, 2)]);
    assert!(!waits(&state, steps[0], at(1)));
}

/// A walk of a whole world: processes that take what is published when they like, partners that come once in a while, people
/// who ask for rotations, and steps taken only as the machine says.
struct World {
    random: u64,
    hour: i64,
    state: State,
    asked: Asked,
    /// Root numbers trusted, and the issuing CA of what is shown.
    processes: Vec<(BTreeSet<u32>, u32, bool)>,
    /// The same, and when the certificate ends.
    partners: Vec<(BTreeSet<u32>, u32, i64)>,
    /// Accepted: whose, of which issuing CA, until when.
    accepted: Vec<(usize, u32, i64)>,
    /// Of issuing CAs that are gone as well.
    parents: BTreeMap<u32, u32>,
    removed: usize,
}

impl World {
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + self.hour * 3600).unwrap()
    }

    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: seed,
            hour: 0,
            state: first(),
            asked: Asked::default(),
            processes: vec![([1].into(), 1, true); 5],
            partners: vec![([1].into(), 1, 30 * 24); 3],
            accepted: vec![(0, 1, 30 * 24), (1, 1, 30 * 24), (2, 1, 30 * 24)],
            parents: [(1, 1)].into(),
            removed: 0,
        };
        for _ in 0..seed % 7 {
            world.below(2);
        }
        world
    }

    fn bundle(&self) -> BTreeSet<u32> {
        self.state.roots.iter().map(|root| root.number).collect()
    }

    fn issuer(&self) -> u32 {
        self.state.active(Tier::Issuing).unwrap().number
    }

    fn observe(&self) -> Observed {
        let digests = |roots: &BTreeSet<u32>| roots.iter().map(|n| format!("root{n}")).collect();
        let mut observed = Observed::default();
        for (index, (roots, issuer, answers)) in self.processes.iter().enumerate() {
            let holder = Holder {
                silent: (!answers).then(|| "does not answer".to_owned()),
                trusts: vec![digests(roots)],
                shows: vec![vec!["leaf".to_owned(), format!("issuing{issuer}")]],
                ..Holder::default()
            };
            observed.holders.insert(index.to_string(), holder);
        }
        for (whose, issuer, until) in &self.accepted {
            observed.leaves.push(Leaf {
                holder: format!("partner {whose}"),
                chain: vec!["leaf".to_owned(), format!("issuing{issuer}")],
                not_after: Timestamp::from_second(1_800_000_000 + until * 3600).unwrap(),
            });
        }
        observed
    }

    fn take(&mut self, step: Step) {
        let now = self.now();
        match step {
            Step::Make(tier) => {
                let number = self.state.next_number(tier);
                let parent = self.state.active(Tier::Root).map(|root| root.number).filter(|_| tier == Tier::Issuing);
                let mut made = ca(tier, number, parent, self.hour / 24);
                let asked = if tier == Tier::Root { &self.asked.root } else { &self.asked.issuing };
                made.asked.clone_from(asked);
                match tier {
                    Tier::Root => self.state.roots.push(made),
                    Tier::Issuing => {
                        self.parents.insert(number, parent.unwrap());
                        self.state.issuing.push(made);
                    }
                }
            }
            Step::Activate(tier, number) => {
                let all = if tier == Tier::Root { &mut self.state.roots } else { &mut self.state.issuing };
                all.iter_mut().find(|ca| ca.number == number).unwrap().active_since = Some(now);
            }
            Step::Remove(tier, number) => {
                self.removed += 1;
                let all = if tier == Tier::Root { &mut self.state.roots } else { &mut self.state.issuing };
                all.retain(|ca| ca.number != number);
            }
        }
    }

    /// One visit of the operator, which may be killed between two steps.
    fn visit(&mut self) {
        for _ in 0..=self.below(4) {
            let (now, observed) = (self.now(), self.observe());
            let steps = next(&self.state, &self.asked, now);
            let Some(step) =
                steps.into_iter().find(|step| laggards(&self.state, *step, &self.asked, &observed, now).is_empty())
            else {
                return;
            };
            self.take(step);
            self.check();
        }
    }

    fn move_somebody(&mut self) {
        match self.below(10) {
            0..=3 => {
                let who = usize::try_from(self.below(5)).unwrap();
                let (bundle, issuer) = (self.bundle(), self.issuer());
                // What is published reaches a process whole, but late.
                self.processes[who] = (bundle, issuer, self.processes[who].2);
            }
            4 => {
                let who = usize::try_from(self.below(5)).unwrap();
                self.processes[who].2 = self.below(3) > 0;
            }
            5 | 6 => {
                let who = usize::try_from(self.below(3)).unwrap();
                self.fetch(who);
            }
            7 => {
                let hours = i64::try_from(self.below(200)).unwrap();
                self.hour += hours;
                let hour = self.hour;
                self.accepted.retain(|(.., until)| *until > hour);
            }
            8 if self.below(6) == 0 => self.asked.root = Some(self.random.to_string()),
            9 if self.below(4) == 0 => self.asked.issuing = Some(self.random.to_string()),
            _ => {}
        }
    }

    /// A partner takes what status has for it; one is issued when the last is of another CA or old.
    fn fetch(&mut self, who: usize) {
        let (issuer, hour) = (self.issuer(), self.hour);
        let good =
            self.accepted.iter().find(|(whose, of, until)| *whose == who && *of == issuer && *until > hour + 240);
        let leaf = good.copied().unwrap_or((who, issuer, hour + 30 * 24));
        if good.is_none() {
            self.accepted.push(leaf);
        }
        self.partners[who] = (self.bundle(), issuer, leaf.2);
    }

    fn check(&self) {
        let root_of = |issuer: &u32| self.parents[issuer];
        // Every process verifies every other, by the root itself, at any moment.
        for (shower, (_, issuer, _)) in self.processes.iter().enumerate() {
            for (verifier, (trusts, ..)) in self.processes.iter().enumerate() {
                assert!(
                    trusts.contains(&root_of(issuer)),
                    "hour {}: {verifier} trusts {trusts:?}, {shower} shows issuing {issuer}",
                    self.hour
                );
            }
        }
        for (trusts, issuer, until) in &self.partners {
            if *until <= self.hour {
                continue;
            }
            // A partner is verified by every process, and verifies each of them, if need be by a cross certificate.
            for (process, shown, _) in &self.processes {
                assert!(process.contains(&root_of(issuer)), "hour {}: a partner is refused", self.hour);
                let root = root_of(shown);
                let bundle = self.bundle();
                let reached = trusts.contains(&root)
                    || trusts.iter().any(|old| *old < root && (*old..root).all(|n| bundle.contains(&n)));
                assert!(reached, "hour {}: a partner holds {trusts:?} and is shown one of root {root}", self.hour);
            }
        }
        // What signs is always there, and its root is published.
        let issuer = self.state.active(Tier::Issuing).unwrap();
        assert!(self.bundle().contains(&issuer.parent.unwrap()));
        for tier in Tier::ALL {
            let active = self.state.of(tier).iter().filter(|ca| self.state.phase(tier, ca) == Phase::Active);
            assert_eq!(active.count(), 1);
            assert!(self.state.of(tier).len() <= tier.most());
        }
    }
}

#[test]
fn whatever_happens_everybody_verifies_everybody_and_in_the_end_one_of_each_is_left() {
    let mut removed = 0;
    for seed in 1..300 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.move_somebody();
            world.check();
            if world.below(3) == 0 {
                world.visit();
            }
        }
        // Then all go on, and nobody asks for more.
        for _ in 0..60 {
            let (bundle, issuer) = (world.bundle(), world.issuer());
            world.processes.iter_mut().for_each(|process| *process = (bundle.clone(), issuer, true));
            (0..3).for_each(|who| world.fetch(who));
            world.hour += 24;
            let hour = world.hour;
            world.accepted.retain(|(.., until)| *until > hour);
            world.visit();
            world.check();
        }
        assert_eq!((world.state.roots.len(), world.state.issuing.len()), (1, 1), "seed {seed}: {:?}", world.state);
        removed += world.removed;
    }
    assert!(removed > 1000, "the walks went through {removed} removals");
}
