//! The state machine behind the property test, the seeded faults and the soak: one hub, one store, a few partners, one process
//! that syncs them, and everything that may happen to them.
#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::format_push_string, clippy::format_collect)]

pub mod action;
pub mod oracle;
pub mod run;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use action::{Action, PLACES, Transaction, Want, Whole};
use liaison_records::{
    codes::{Code, FieldGroup},
    statement,
};
use liaison_sync::{
    compare::Budget,
    dispose::{Policy, dispose},
    fault::{Fault, Step},
    quote::ident,
    terms::{Grant, Terms},
    worker::{Context, Worker},
};
use oracle::{Oracle, Range, Violation, violation};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use watch::{Plan, Watch};

use crate::support::{World, file_sql, now, population, terms};

/// What a run has met, and how often.
pub type Coverage = BTreeMap<&'static str, u64>;

/// What a run must meet: none of these may be zero.
pub const MUST_MEET: [&str; 41] = [
    "enter and leave in one transaction",
    "cascade",
    "key reuse",
    "photograph",
    "record moves to another file",
    "unknown code",
    "unknown field group",
    "seal and unseal in one transaction",
    "sealed file left a replica",
    "unsealed file came back to a replica",
    "savepoint rolled back",
    "TRUNCATE and reload",
    "TRUNCATE of one table",
    "late commit",
    "narrowing",
    "widening",
    "narrowing during a batch",
    "suspension",
    "agreement ended",
    "revocation and disposal",
    "killed: lease on the hub, epoch not in the replica",
    "killed: epoch in the replica, last batch not settled",
    "killed: settled",
    "killed after 4",
    "killed before 5",
    "killed between 5 and 6",
    "killed before the replica's commit",
    "killed after 6",
    "killed behind the fence",
    "process gone",
    "lease lost before 5",
    "lease lost between 5 and 6",
    "fill in many batches",
    "change log trimmed",
    "captured from the log",
    "captured by triggers again",
    "slot of the log lost",
    "hub restored, and its ledger behind",
    "hub restored, and its lost numbers used again",
    "replica restored, and behind the ledger",
    "lease taken by another",
];

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

struct Partner {
    terms: Terms,
    /// What it is granted while an agreement is in force.
    grant: Grant,
    /// The snapshot of its cursor when it was last looked at.
    snapshot: Option<String>,
    backup: bool,
    /// The files that it held when it was last exact, and those that it lost since they were sealed.
    held: BTreeSet<i64>,
    sealed: BTreeSet<i64>,
}

/// One hub, one store, and what happens to them.
pub struct Machine {
    world: World,
    partners: Vec<Partner>,
    worker: Option<Worker>,
    small: bool,
    late: Option<(tokio_postgres::Client, &'static str)>,
    backup: bool,
    watch: Watch,
    oracle: Oracle,
    fault: Option<Fault>,
    pub coverage: Coverage,
    /// Cycles that brought everybody up to date and were checked in full.
    pub cycles: u64,
}

impl Machine {
    /// A world of its own on a server, given by the URL of any of its databases, drawn from `rng`.
    pub async fn new(server: &str, name: &str, rng: &mut StdRng, fault: Option<Fault>) -> Self {
        let mut world = World::at(name, server, server, "").await;
        let mut partners = Vec::new();
        for index in 0..rng.random_range(2..=4) {
            let partner = world.partner(&format!("{index}"));
            world.prepare(&partner).await;
            let drawn = Want::draw(rng);
            let mut terms = terms(&partner, &[], &drawn.share);
            let grant = granted(terms.grant.as_ref().unwrap(), &drawn);
            terms.grant = Some(grant.clone());
            partners.push(Partner {
                terms,
                grant,
                snapshot: None,
                backup: false,
                held: BTreeSet::new(),
                sealed: BTreeSet::new(),
            });
        }
        for file in 1..=action::FILES * 2 / 3 {
            world.execute(&file_sql(file, PLACES.choose(rng).unwrap(), "Released", 2)).await;
        }
        let watch = Watch::new(&world).await;
        let oracle = Oracle::new(partners.len());
        Self {
            world,
            partners,
            worker: None,
            small: rng.random_range(0..2) == 0,
            late: None,
            backup: false,
            watch,
            oracle,
            fault,
            coverage: Coverage::new(),
            cycles: 0,
        }
    }

    pub fn partners(&self) -> usize {
        self.partners.len()
    }

    /// Records that were compared with the hub's so far.
    pub fn compared(&self) -> u64 {
        self.oracle.compared
    }

    fn met(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    fn terms(&self) -> Vec<Terms> {
        self.partners.iter().map(|p| p.terms.clone()).collect()
    }

    fn context(&self, small: bool) -> Context {
        let budget = if small { Budget { chunk: 2, bytes: 1, ..Budget::default() } } else { Budget::default() };
        let mut faults = self.watch.faults();
        if let Some(fault) = self.fault {
            faults = faults.seeded(fault);
        }
        Context::new(&self.world.hub_target, &self.world.store_target, "w", budget, faults)
    }

    /// The worker that is there, or another.
    fn take_worker(&mut self) -> Worker {
        let mut worker = self
            .worker
            .take()
            .unwrap_or_else(|| Worker::new(self.context(self.small)).with_patience(Duration::from_millis(1)));
        let terms = self.terms();
        self.watch.set_terms(&terms);
        worker.set_terms(terms);
        worker
    }

    /// Does what `action` says, as far as it can be done now, and checks what must hold afterwards.
    pub async fn step(&mut self, action: &Action) -> Result<(), Violation> {
        match action {
            Action::Transact(transaction) => self.transact(transaction).await,
            Action::OpenLate { file, place } => self.open_late(*file, place).await,
            Action::EndLate { commit } => self.end_late(*commit).await,
            Action::Edit { partner, want } => self.edit(*partner, want),
            Action::Suspend { partner } => {
                let terms = &mut self.partners[*partner].terms;
                terms.suspended = !terms.suspended;
                terms.generation += 1;
                if terms.suspended {
                    self.met("suspension");
                }
                return self.sync().await;
            }
            Action::Agreement { partner } => {
                let partner = &mut self.partners[*partner];
                let ends = partner.terms.grant.is_some();
                partner.terms.grant = (!ends).then(|| partner.grant.clone());
                let until = crate::support::terms(&partner.terms.partner, &[], EVERYBODY).authorized_until;
                partner.terms.authorized_until = until.filter(|_| !ends);
                if ends {
                    self.met("agreement ended");
                }
                return self.sync().await;
            }
            Action::Sync => return self.sync().await,
            Action::Kill { partner, step, before, edit, crash } => {
                return self.kill(*partner, *step, before, edit.as_ref(), *crash).await;
            }
            Action::LoseLease { partner, step, before, meanwhile } => {
                return self.lose_lease(*partner, *step, before, meanwhile).await;
            }
            Action::NarrowDuring { partner, step, before, then } => {
                return self.narrow_during(*partner, *step, before, then).await;
            }
            Action::Restart { small } => {
                if let Some(worker) = self.worker.take() {
                    drop(worker);
                    self.met("lease taken by another");
                }
                self.small = *small;
            }
            Action::Trim => {
                if let Some(worker) = &self.worker {
                    match worker.context().trim().await {
                        Ok(0) => {}
                        Ok(_) => self.met("change log trimmed"),
                        Err(error) => return violation("I8", format!("trimming: {error}")),
                    }
                }
            }
            Action::SwitchCapture => self.switch_capture().await,
            Action::LoseSlot { before, moved } => return self.lose_slot(before, *moved).await,
            Action::BackUpHub => return self.back_up_hub().await,
            Action::RestoreHub => return self.restore_hub().await,
            Action::PutBack { partner, after, lives } => return self.put_back(*partner, after, *lives).await,
            Action::BackUpReplica { partner } => self.copy_replica(*partner, false).await,
            Action::RestoreReplica { partner } => {
                if self.partners[*partner].backup {
                    return self.restore_replica(*partner).await;
                }
            }
            Action::Dispose { partner, want } => return self.dispose(*partner, want).await,
        }
        Ok(())
    }

    async fn transact(&mut self, transaction: &Transaction) {
        let sql = transaction.sql(self.late.is_some());
        self.world.execute(&sql).await;
        if transaction.rollback {
            return;
        }
        for op in &transaction.ops {
            self.met(op.name());
        }
        match transaction.whole {
            Whole::Reload if self.late.is_none() => self.met("TRUNCATE and reload"),
            Whole::Truncate if self.late.is_none() => self.met("TRUNCATE of one table"),
            _ => {}
        }
    }

    /// Not while a slot is missing, of a hub that was restored while nobody was open: its successor waits for it.
    async fn open_late(&mut self, file: i64, place: &str) {
        let slot = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = liaison.wal_slot())";
        let missing = async || !self.world.hub.query_one(slot, &[]).await.unwrap().get::<_, bool>(0);
        if self.late.is_some() || (self.reads_log().await && missing().await) {
            return;
        }
        let client = self.world.hub_target.connect().await.unwrap();
        let sql =
            format!("BEGIN; DELETE FROM oms.offender WHERE id = {file}; {}", file_sql(file, place, "Suspended", 1));
        client.batch_execute(&sql).await.unwrap();
        self.late = Some((client, "opened"));
    }

    async fn end_late(&mut self, commit: bool) {
        if let Some((client, state)) = self.late.take() {
            client.batch_execute(if commit { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
            if commit && state == "synced over" {
                self.met("late commit");
            }
        }
    }

    /// Not while a transaction is open: a slot's beginning waits for it.
    async fn switch_capture(&mut self) {
        if self.late.is_some() {
            return;
        }
        let to_log = !self.reads_log().await;
        self.world.capture_from_the_log(to_log).await;
        self.met(if to_log { "captured from the log" } else { "captured by triggers again" });
    }

    async fn reads_log(&self) -> bool {
        self.world.hub.query_one("SELECT EXISTS (SELECT FROM liaison.wal_position)", &[]).await.unwrap().get(0)
    }

    async fn lose_slot(&mut self, before: &Transaction, moved: bool) -> Result<(), Violation> {
        if self.late.is_some() || !self.reads_log().await {
            return Ok(());
        }
        self.transact(before).await;
        self.world
            .execute(if moved {
                "SELECT pg_replication_slot_advance(liaison.wal_slot(), pg_current_wal_flush_lsn())"
            } else {
                "SELECT pg_drop_replication_slot(liaison.wal_slot())"
            })
            .await;
        self.sync().await
    }

    fn edit(&mut self, partner: usize, want: &Want) {
        let partner = &mut self.partners[partner];
        let after = granted(&partner.grant, want);
        let narrower = narrows(&partner.grant, &after);
        partner.grant = after.clone();
        partner.terms.grant = partner.terms.grant.as_ref().map(|_| after);
        partner.terms.generation += 1;
        self.met(if narrower { "narrowing" } else { "widening" });
    }

    /// Brings everybody up to date, and checks everything.
    async fn sync(&mut self) -> Result<(), Violation> {
        let mut worker = self.take_worker();
        let mut result = tokio::time::timeout(PATIENCE, worker.converge(now())).await;
        if matches!(result, Ok(Err((_, "CaptureLost", _)))) {
            self.met("slot of the log lost");
            result = tokio::time::timeout(PATIENCE, worker.converge(now())).await;
        }
        match result {
            Err(_) => return violation("I8", "it did not converge within a minute"),
            Ok(Err((partner, reason, message))) => return violation("I8", format!("{partner}: {reason}: {message}")),
            Ok(Ok(())) => {}
        }
        if worker.take_reports().iter().filter(|r| r.result.is_ok_and(|w| w.batch.is_some())).count() > 8 {
            self.met("fill in many batches");
        }
        self.worker = Some(worker);
        if let Some((_, state)) = &mut self.late {
            *state = "synced over";
        }
        self.cycles += 1;
        self.check(true).await
    }

    /// `whole`: everybody has just been brought up to date. Else a batch may have landed or not, and what landed is checked.
    async fn check(&mut self, whole: bool) -> Result<(), Violation> {
        self.watch.found()?;
        let terms = self.terms();
        let open = |terms: &Terms| terms.open(now()).is_some();
        let ranges: Vec<Range> = if whole {
            terms.iter().map(|t| if open(t) { Range::All } else { Range::Nothing }).collect()
        } else {
            let there = oracle::replicas(&self.world.store, &terms).await;
            let landed = |index: usize| {
                let (cursor, partner) = (&there[index].cursor, &self.partners[index]);
                let grant = partner.terms.grant.as_ref().filter(|_| open(&partner.terms));
                let follows = grant.is_some_and(|grant| {
                    cursor.groups == grant.group_names()
                        && cursor.population == serde_json::to_value(&grant.scope).ok()
                        && cursor.snapshot.is_some()
                });
                follows && cursor.snapshot != partner.snapshot
            };
            (0..terms.len()).map(|i| if landed(i) { Range::Filled } else { Range::Nothing }).collect()
        };
        let replicas = self.oracle.check(&self.world.hub, &self.world.store, &terms, &ranges).await?;
        for (index, replica) in replicas.iter().enumerate() {
            if whole {
                self.oracle.closed(index, &terms[index], open(&terms[index]), replica)?;
            }
            self.partners[index].snapshot.clone_from(&replica.cursor.snapshot);
        }
        if whole {
            self.sealed(&terms, &replicas).await?;
        }
        Ok(())
    }

    /// No replica that may be read has a sealed file; and how often one was lost for that, and came back.
    async fn sealed(&mut self, terms: &[Terms], replicas: &[oracle::Replica]) -> Result<(), Violation> {
        let sql = "SELECT id FROM oms.offender WHERE sealed_on IS NOT NULL";
        let rows = self.world.hub.query(sql, &[]).await.unwrap();
        let sealed: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        let (mut left, mut back) = (0, 0);
        for (index, replica) in replicas.iter().enumerate() {
            if terms[index].open(now()).is_none() {
                continue;
            }
            let (partner, files) = (&mut self.partners[index], replica.files());
            if let Some(file) = files.intersection(&sealed).next() {
                return violation("I1", format!("{} has file {file}, which is sealed", partner.terms.partner));
            }
            back += partner.sealed.intersection(&files).count();
            partner.sealed.retain(|file| !files.contains(file));
            left += partner.held.intersection(&sealed).count();
            partner.sealed.extend(partner.held.intersection(&sealed));
            partner.held = files;
        }
        for _ in 0..left {
            self.met("sealed file left a replica");
        }
        for _ in 0..back {
            self.met("unsealed file came back to a replica");
        }
        Ok(())
    }

    async fn kill(
        &mut self,
        partner: usize,
        step: Step,
        before: &Transaction,
        edit: Option<&Want>,
        crash: bool,
    ) -> Result<(), Violation> {
        self.transact(before).await;
        if let Some(want) = edit {
            self.edit(partner, want);
        }
        if crash || matches!(step, Step::Leased | Step::Fenced | Step::Settled) {
            self.worker = None;
        }
        let victim = self.partners[partner].terms.partner.clone();
        let mut worker = self.take_worker();
        self.watch.plan(Plan::Stop { partner: victim, step });
        let result = tokio::time::timeout(PATIENCE, worker.converge(now())).await;
        let stopped = self.watch.done();
        match result {
            Err(_) => return violation("I8", "it did not end within a minute"),
            Ok(Ok(())) if stopped => return violation("I8", format!("stopped at {step:?}, it says that all is well")),
            // A hub that was restored has no slot yet: said once, by whoever asks first.
            Ok(Err((_, "CaptureLost", _))) => self.met("slot of the log lost"),
            Ok(Err((partner, reason, message))) if !stopped || reason != "Stopped" => {
                return violation("I8", format!("{partner}: {reason}: {message}"));
            }
            Ok(_) => {}
        }
        if stopped {
            self.met(match step {
                Step::Leased => "killed: lease on the hub, epoch not in the replica",
                Step::Fenced => "killed: epoch in the replica, last batch not settled",
                Step::Settled => "killed: settled",
                Step::Read => "killed after 4",
                Step::Decided => "killed before 5",
                Step::Ledgered => "killed between 5 and 6",
                Step::Written => "killed before the replica's commit",
                Step::Landed => "killed after 6",
                Step::Narrowing => "killed behind the fence",
            });
        }
        if crash {
            drop(worker);
            self.met("process gone");
        } else {
            self.worker = Some(worker);
        }
        self.check(false).await
    }

    async fn lose_lease(
        &mut self,
        partner: usize,
        step: Step,
        before: &Transaction,
        meanwhile: &Transaction,
    ) -> Result<(), Violation> {
        self.sync().await?;
        self.transact(before).await;
        let victim = self.partners[partner].terms.partner.clone();
        let mut old = self.take_worker();
        let held = self.watch.hold(victim.clone(), step);
        let old = tokio::spawn(async move {
            let result = tokio::time::timeout(PATIENCE, old.converge(now())).await;
            (old, result)
        });
        let reached = held.reached(&old).await;
        if reached {
            self.met(if step == Step::Ledgered { "lease lost between 5 and 6" } else { "lease lost before 5" });
            self.transact(meanwhile).await;
            // The same holder's name: the lease is taken at once, as if it had run out.
            self.small = !self.small;
            let second = self.sync().await;
            held.go_on();
            second?;
        } else {
            held.go_on();
        }
        let (old, result) = old.await.unwrap();
        drop(old);
        match result {
            Err(_) => return violation("I8", "the worker that lost its lease did not end within a minute"),
            Ok(Err((_, "LeaseHeld", _))) if reached => {}
            Ok(Err((_, "CaptureLost", _))) => self.met("slot of the log lost"),
            Ok(Err((partner, reason, message))) => return violation("I8", format!("{partner}: {reason}: {message}")),
            // At Read it does not know yet what it would write: nothing, perhaps, when it compares with what the other wrote.
            Ok(Ok(())) if reached && step != Step::Read => {
                return violation("I8", format!("{victim} was written without its lease at {step:?}"));
            }
            Ok(Ok(())) => {}
        }
        if reached { self.check(true).await } else { self.sync().await }
    }

    async fn narrow_during(
        &mut self,
        partner: usize,
        step: Step,
        before: &Transaction,
        then: &Want,
    ) -> Result<(), Violation> {
        self.transact(before).await;
        let everything = Want {
            groups: vec!["identity", "aliases", "photograph", "sentence", "supervision"],
            share: EVERYBODY.to_owned(),
            agreement: EVERYBODY.to_owned(),
        };
        self.edit(partner, &everything);
        let victim = self.partners[partner].terms.partner.clone();
        let mut worker = self.take_worker();
        let held = self.watch.hold(victim, step);
        let mut reached = false;
        loop {
            let started = match worker.round(now()).await {
                Ok(started) => started,
                Err(error) => return violation("I8", format!("a round failed: {error}")),
            };
            while worker.busy() && !held.is_reached() {
                worker.wait(Duration::from_millis(1)).await;
            }
            reached |= held.is_reached();
            if reached || !started {
                break;
            }
        }
        self.edit(partner, then);
        let terms = self.terms();
        self.watch.set_terms(&terms);
        worker.set_terms(terms);
        held.go_on();
        if reached {
            self.met("narrowing during a batch");
        }
        self.worker = Some(worker);
        self.sync().await
    }

    /// Nobody is connected to the hub any more.
    async fn leave_hub(&mut self) {
        self.worker = None;
        self.late = None;
        self.world.leave_hub().await;
        self.watch.leave_hub();
    }

    async fn return_to_hub(&mut self) {
        self.world.return_to_hub().await;
        self.watch.return_to_hub(&self.world).await;
    }

    /// A backup of the hub: another database with its contents. What the replicas have is as of then, too.
    async fn back_up_hub(&mut self) -> Result<(), Violation> {
        self.end_late(true).await;
        self.sync().await?;
        self.leave_hub().await;
        self.world.copy_hub("hub", "backup").await;
        self.return_to_hub().await;
        self.backup = true;
        Ok(())
    }

    /// The same server, so its identity is what it was: the ledger's head must tell.
    async fn restore_hub(&mut self) -> Result<(), Violation> {
        if !self.backup {
            return Ok(());
        }
        let heads = "SELECT coalesce(max(batch), 0) FROM liaison.ledger_batch";
        let before: i64 = self.world.hub.query_one(heads, &[]).await.unwrap().get(0);
        self.leave_hub().await;
        self.world.copy_hub("backup", "hub").await;
        self.return_to_hub().await;
        let after: i64 = self.world.hub.query_one(heads, &[]).await.unwrap().get(0);
        if after < before {
            self.met("hub restored, and its ledger behind");
        }
        self.oracle.forget();
        self.sync().await
    }

    /// Neither the hub's identity nor a number nor the ledger tells: what is passed by is passed by for good, unless a mark does.
    async fn put_back(&mut self, index: usize, after: &Transaction, lives: bool) -> Result<(), Violation> {
        // A log that is read from a slot is lost with it, which says enough.
        if self.reads_log().await {
            return Ok(());
        }
        self.back_up_hub().await?;
        let partner = self.partners[index].terms.partner.clone();
        // Touches every file, and changes none.
        self.world.execute("UPDATE oms.offender SET given = given").await;
        let lost = "SELECT max(xid)::text FROM (SELECT xid::text::bigint AS xid FROM liaison.change) c";
        let Some(lost): Option<String> = self.world.hub.query_one(lost, &[]).await.unwrap().get(0) else {
            return Ok(());
        };
        let mut terms = self.terms();
        terms[index].freshness_seconds = 1;
        self.watch.set_terms(&terms);
        let mut worker =
            Worker::new(self.context(self.small)).with_patience(Duration::from_millis(1)).with_renewal(Duration::ZERO);
        worker.set_terms(terms.clone());
        let position =
            async |machine: &Self| oracle::replicas(&machine.world.store, &terms).await[index].cursor.snapshot.clone();
        let before = position(self).await;
        let open = terms[index].open(now()).is_some();
        let mut moved = false;
        for _ in 0..if open { 400 } else { 0 } {
            if let Err(error) = worker.round(now()).await {
                return violation("I8", format!("a round failed: {error}"));
            }
            worker.wait(Duration::from_millis(5)).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            moved = position(self).await != before;
            if moved {
                break;
            }
        }
        while worker.busy() {
            worker.wait(Duration::from_secs(1)).await;
        }
        self.leave_hub().await;
        self.world.copy_hub("backup", "hub").await;
        self.return_to_hub().await;
        let first: String = self.world.hub.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0);
        self.transact(after).await;
        let again = format!("UPDATE liaison.change SET xid = '{lost}' WHERE xid > '{first}'::xid8");
        self.world.execute(&again).await;
        if moved {
            self.met("hub restored, and its lost numbers used again");
        }
        self.oracle.forget();
        if lives {
            worker.set_terms(self.terms());
            // It finds that its connections are gone, which is no violation.
            let found = tokio::time::timeout(PATIENCE, worker.converge(now())).await;
            if let Ok(Err((_, "CaptureLost" | "Stopped", _))) = &found {
                return violation("I8", format!("{partner}: {found:?}"));
            }
            self.worker = Some(worker);
        }
        self.sync().await
    }

    /// Copies the four tables of a replica away, or back.
    async fn copy_replica(&mut self, partner: usize, back: bool) {
        let partner = &mut self.partners[partner];
        let share = partner.terms.partner.share_schema();
        let (share, copy) = (ident(&share), ident(&format!("copy_{share}")));
        let mut sql = format!("BEGIN; CREATE SCHEMA IF NOT EXISTS {copy};");
        for table in ["record", "subject", "photograph", "cursor"] {
            sql += &if back {
                // A generated column is not put back, but made.
                let columns = if table == "record" { "offender, grp, tbl, id, body, hash, batch" } else { "*" };
                let into = if table == "record" { format!("{table} ({columns})") } else { table.to_owned() };
                format!("DELETE FROM {share}.{table}; INSERT INTO {share}.{into} SELECT {columns} FROM {copy}.{table};")
            } else {
                format!("DROP TABLE IF EXISTS {copy}.{table}; CREATE TABLE {copy}.{table} AS TABLE {share}.{table};")
            };
        }
        partner.backup = true;
        let sql = format!("SET client_min_messages = error; {sql} COMMIT");
        self.world.store.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    async fn restore_replica(&mut self, partner: usize) -> Result<(), Violation> {
        // Whoever was connected is not any more.
        self.worker = None;
        let terms = self.terms();
        let before = oracle::replicas(&self.world.store, &terms).await[partner].cursor.batch;
        self.copy_replica(partner, true).await;
        if oracle::replicas(&self.world.store, &terms).await[partner].cursor.batch < before {
            self.met("replica restored, and behind the ledger");
        }
        self.sync().await
    }

    /// The connection is revoked and deleted, the replica disposed of; then somebody makes one of this name again.
    async fn dispose(&mut self, index: usize, want: &Want) -> Result<(), Violation> {
        let partner = self.partners[index].terms.partner.clone();
        let (hub, store) = (self.world.hub_target.clone(), self.world.store_target.clone());
        let before = oracle::replicas(&self.world.store, &self.terms()).await.remove(index);
        for _ in 0..2 {
            let done = dispose(&hub, &store, &partner, &Policy::Delete, "job").await;
            match done {
                Ok(done) if done.gone => {}
                Ok(_) => return violation("I7", format!("{partner} was disposed of, and is not gone")),
                Err(error) => return violation("I8", format!("disposal of {partner}: {error}")),
            }
        }
        let there = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = ANY ($1)) + (SELECT count(*) FROM pg_roles WHERE rolname = $2)";
        let schemas = [partner.share_schema(), partner.journal_schema(), partner.next_schema(), partner.old_schema()];
        let left: i64 =
            self.world.store.query_one(there, &[&&schemas[..], &partner.reader_role()]).await.unwrap().get(0);
        if left > 0 {
            return violation("I7", format!("{partner} was disposed of, and {left} of its objects are left"));
        }
        let last = "SELECT statement FROM liaison.statement WHERE kind = 'disposal' AND partner = $1 ORDER BY number DESC LIMIT 1";
        let row = self.world.hub.query_opt(last, &[&partner.as_str()]).await.unwrap();
        let said = row.and_then(|row| statement::read(row.get(0))).map(|(_, fields)| fields).unwrap_or_default();
        let gone = before.certified();
        if gone.iter().any(|(key, value)| said.get(*key) != Some(value)) {
            return violation(
                "I7",
                format!("{partner} was disposed of: {gone:?} went, and its certificate says {said:?}"),
            );
        }
        self.met("revocation and disposal");
        self.world.prepare_again(&partner).await;
        let partner = &mut self.partners[index];
        partner.grant = granted(&partner.grant, want);
        partner.terms = Terms {
            generation: 1,
            suspended: false,
            grant: Some(partner.grant.clone()),
            ..terms(&partner.terms.partner, &[], EVERYBODY)
        };
        // Whoever syncs it finds out that its lease was taken, and takes one again.
        let mut worker = self.take_worker();
        let found = worker.converge(now()).await;
        self.worker = Some(worker);
        match found {
            Ok(()) | Err((_, "LeaseHeld" | "CaptureLost", _)) => self.sync().await,
            Err((partner, reason, message)) => violation("I8", format!("{partner}: {reason}: {message}")),
        }
    }

    /// Removes its databases and roles.
    pub async fn drop(self) {
        let Self { world, worker, late, watch, .. } = self;
        drop((worker, late, watch));
        world.drop().await;
    }
}

const EVERYBODY: &str = r#"{"anyOf":[{"custody":["Community","Incarcerated","Archived"]}]}"#;

fn granted(before: &Grant, want: &Want) -> Grant {
    let mut grant = before.clone();
    grant.groups = want.groups.iter().map(|g| FieldGroup::parse(g).unwrap()).collect();
    grant.scope.share = population(&want.share);
    grant.scope.agreement = population(&want.agreement);
    grant
}

fn narrows(before: &Grant, after: &Grant) -> bool {
    !after.scope.contains(&before.scope) || !before.groups.is_subset(&after.groups)
}
