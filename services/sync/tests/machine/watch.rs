//! The hook of the machine's workers: it watches each batch from outside while it is under way, and stops or holds one where the
//! machine says so.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use futures::FutureExt;
use liaison_records::names::PartnerName;
use liaison_sync::{
    error::Error,
    fault::{Faults, Step},
    quote::ident,
    terms::{Grant, Scope, Terms},
};
use tokio::sync::Notify;
use tokio_postgres::Client;

use super::oracle::{Violation, violation};
use crate::support::World;

/// What is to happen at the next point that fits, once.
#[derive(Debug)]
pub enum Plan {
    /// The batch ends there, as by a crash.
    Stop { partner: PartnerName, step: Step },
    /// The batch waits there.
    Hold { partner: PartnerName, step: Step, reached: Arc<AtomicBool>, go_on: Arc<Notify> },
}

#[derive(Default)]
struct Shared {
    plan: Mutex<Option<Plan>>,
    done: AtomicBool,
    terms: Mutex<Vec<Terms>>,
    found: Mutex<Option<Violation>>,
    hub: Mutex<Option<Arc<Client>>>,
    store: Mutex<Option<Arc<Client>>>,
}

/// The hook, and what it found.
#[derive(Clone)]
pub struct Watch(Arc<Shared>);

/// A batch that waits, or will.
pub struct Held {
    reached: Arc<AtomicBool>,
    go_on: Arc<Notify>,
    shared: Arc<Shared>,
}

impl Held {
    pub fn is_reached(&self) -> bool {
        self.reached.load(Ordering::SeqCst)
    }

    /// Whether it waits; false when `task` ended without having come by.
    pub async fn reached<T>(&self, task: &tokio::task::JoinHandle<T>) -> bool {
        while !self.is_reached() && !task.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        self.is_reached()
    }

    pub fn go_on(&self) {
        *self.shared.plan.lock().unwrap() = None;
        self.go_on.notify_one();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.go_on();
    }
}

impl Watch {
    pub async fn new(world: &World) -> Self {
        let shared = Shared::default();
        *shared.store.lock().unwrap() = Some(Arc::new(world.store_target.connect().await.unwrap()));
        let watch = Self(Arc::new(shared));
        watch.return_to_hub(world).await;
        watch
    }

    pub async fn return_to_hub(&self, world: &World) {
        let client = world.hub_target.connect().await.unwrap();
        *self.0.hub.lock().unwrap() = Some(Arc::new(client));
    }

    pub fn leave_hub(&self) {
        *self.0.hub.lock().unwrap() = None;
    }

    pub fn set_terms(&self, terms: &[Terms]) {
        *self.0.terms.lock().unwrap() = terms.to_vec();
    }

    pub fn plan(&self, plan: Plan) {
        self.0.done.store(false, Ordering::SeqCst);
        *self.0.plan.lock().unwrap() = Some(plan);
    }

    /// Ends the plan, and says whether it was carried out.
    pub fn done(&self) -> bool {
        *self.0.plan.lock().unwrap() = None;
        self.0.done.load(Ordering::SeqCst)
    }

    pub fn hold(&self, partner: PartnerName, step: Step) -> Held {
        let (reached, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        self.plan(Plan::Hold { partner, step, reached: reached.clone(), go_on: go_on.clone() });
        Held { reached, go_on, shared: self.0.clone() }
    }

    /// What the hook has seen that must not be.
    pub fn found(&self) -> Result<(), Violation> {
        self.0.found.lock().unwrap().take().map_or(Ok(()), Err)
    }

    pub fn faults(&self) -> Faults {
        let shared = self.0.clone();
        Faults::hooked(move |step, partner| {
            let shared = shared.clone();
            async move {
                if let Err(violation) = watch(&shared, step, &partner).await {
                    shared.found.lock().unwrap().get_or_insert(violation);
                }
                let fits = |plan: &mut Plan| match plan {
                    Plan::Stop { partner: p, step: s } | Plan::Hold { partner: p, step: s, .. } => {
                        *p == partner && *s == step
                    }
                };
                let plan = shared.plan.lock().unwrap().take_if(|plan| fits(plan));
                match plan {
                    None => {}
                    Some(Plan::Stop { .. }) => {
                        shared.done.store(true, Ordering::SeqCst);
                        return Err(Error::Stopped);
                    }
                    Some(Plan::Hold { reached, go_on, .. }) => {
                        reached.store(true, Ordering::SeqCst);
                        go_on.notified().await;
                    }
                }
                Ok(())
            }
            .boxed()
        })
    }
}

/// What another session sees at this point.
async fn watch(shared: &Shared, step: Step, partner: &PartnerName) -> Result<(), Violation> {
    match step {
        // Access is cut before anything is taken away (I7).
        Step::Ledgered => {
            let store = shared.store.lock().unwrap().clone().unwrap();
            let sql =
                format!("SELECT fenced, generation, groups, population FROM {}.cursor", ident(&partner.share_schema()));
            let row = store.query_one(&sql, &[]).await.unwrap();
            let (fenced, generation): (bool, i64) = (row.get(0), row.get(1));
            let groups: Vec<String> = row.get(2);
            let scope =
                row.get::<_, Option<serde_json::Value>>(3).and_then(|v| serde_json::from_value::<Scope>(v).ok());
            let terms = shared.terms.lock().unwrap().iter().find(|t| t.partner == *partner).cloned();
            let Some(terms) = terms.filter(|t| t.generation == generation) else { return Ok(()) };
            let (Some(grant), Some(scope)) = (&terms.grant, scope) else { return Ok(()) };
            if !fenced && takes_away(&scope, &groups, grant) {
                return violation("I7", format!("{partner} is narrowed, and can be read meanwhile"));
            }
        }
        // The ledger is committed before the replica is (I2).
        Step::Written => {
            let Some(hub) = shared.hub.lock().unwrap().clone() else { return Ok(()) };
            let sql = "SELECT count(*) FROM liaison.ledger_batch WHERE partner = $1 AND state = 'prepared'";
            let prepared: i64 = hub.query_one(sql, &[&partner.as_str()]).await.unwrap().get(0);
            // A replica that was made beside and is swapped in has all of its batches by now.
            let store = shared.store.lock().unwrap().clone().unwrap();
            let beside = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
            let beside: i64 = store.query_one(beside, &[&partner.next_schema()]).await.unwrap().get(0);
            if prepared == 0 && beside == 0 {
                return violation("I2", format!("{partner} is being written, and the ledger has no batch prepared"));
            }
        }
        _ => {}
    }
    Ok(())
}

fn takes_away(scope: &Scope, groups: &[String], grant: &Grant) -> bool {
    let now = grant.group_names();
    !grant.scope.contains(scope) || groups.iter().any(|group| !now.contains(group))
}
