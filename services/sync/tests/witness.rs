//! A hub that was put back behind a signed checkpoint: noticed though it has forgotten the checkpoint itself, said, and nothing
//! crosses or is signed until a person has accepted it. On a real PostgreSQL and API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{process::Command, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client as Kubernetes, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use liaison_records::{
    evidence::Verifier,
    names::PartnerName,
    statement::{self, Kind, keys},
};
use liaison_sync::{
    checkpoint,
    compare::Budget,
    export,
    fault::Faults,
    quote::ident,
    signing::{self, Round},
    terms::Terms,
    witness::{self, Known},
    worker::{Context, Worker},
};
use serde_json::{Map, json};
use support::{World, now, signer::Signer, terms};

const GROUPS: &[&str] = &["identity", "aliases", "sentence"];
const VANCOUVER: &str = r#"{"anyOf":[{"municipalities":["5915022"]}]}"#;
const SASKATOON: &str = r#"{"anyOf":[{"municipalities":["4711066"]}]}"#;
const TABLES: [&str; 4] = ["record", "subject", "photograph", "cursor"];

/// A hub, three partners, and where its statements are signed.
struct Stage {
    world: World,
    kubernetes: Kubernetes,
    namespace: String,
    signer: Signer,
    known: Known,
}

impl Stage {
    async fn round(&self) -> Round {
        signing::round(&self.kubernetes, &self.namespace, &self.world.hub, &self.known).await.unwrap()
    }

    fn statements(&self) -> Api<ConfigMap> {
        Api::namespaced(self.kubernetes.clone(), &self.namespace)
    }

    async fn out(&self) -> Vec<String> {
        let list = self.statements().list(&ListParams::default().labels(statement::LABEL)).await.unwrap();
        list.iter().map(ResourceExt::name_any).collect()
    }

    /// The operator's part, for what is out and not signed.
    async fn sign(&self) {
        for name in self.out().await {
            let data = self.statements().get(&name).await.unwrap().data.unwrap();
            if !data.contains_key(keys::SIGNATURE) {
                let body = Patch::Merge(json!({"data": self.signer.data(&data[keys::STATEMENT])}));
                self.statements().patch(&name, &PatchParams::default(), &body).await.unwrap();
            }
        }
    }

    /// A checkpoint, if one is due, until its signature is on the hub.
    async fn checkpoint(&self, seconds: i32) -> Option<i64> {
        let mut hub = self.world.hub_target.connect().await.unwrap();
        let number = checkpoint::if_due(&mut hub, seconds, 1).await.unwrap()?;
        assert_eq!(self.round().await, Round { published: 1, ..Round::default() });
        self.sign().await;
        assert_eq!(self.round().await, Round { stored: 1, ..Round::default() });
        Some(number)
    }

    /// A process that has just been started.
    async fn worker(&self, terms: &[Terms]) -> Worker {
        self.known.set(witness::load(&self.kubernetes, &self.namespace).await.unwrap());
        let (hub, store) = (&self.world.hub_target, &self.world.store_target);
        let context = Context::new(hub, store, "w", Budget::default(), Faults::default()).witnessed(&self.known);
        let mut worker = Worker::new(context).with_patience(Duration::from_millis(1));
        worker.set_terms(terms.to_vec());
        worker
    }

    async fn batches(&self, partner: &PartnerName) -> i64 {
        let sql = "SELECT count(*) FROM liaison.ledger_batch WHERE partner = $1";
        self.world.hub.query_one(sql, &[&partner.as_str()]).await.unwrap().get(0)
    }

    async fn cursor(&self, partner: &PartnerName, column: &str) -> bool {
        let sql = format!("SELECT {column} FROM {}.cursor", ident(&partner.share_schema()));
        self.world.store.query_one(&sql, &[]).await.unwrap().get(0)
    }

    async fn copy_hub(&mut self, from: &str, to: &str) {
        self.world.leave_hub().await;
        self.world.copy_hub(from, to).await;
        self.world.return_to_hub().await;
    }

    fn accept(&self) -> String {
        let out = Command::new(env!("CARGO_BIN_EXE_liaison-sync"))
            .args(["ledger", "accept-loss", "--by", "J. Roy, departmental security officer", "--reason", "INC-17"])
            .env("HUB_URL", self.world.hub_url())
            .env("STORE_URL", self.world.store_url())
            .env("SYSTEM_NAMESPACE", &self.namespace)
            .env("KUBECONFIG", std::env::var("TEST_KUBECONFIG").unwrap())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

/// Works until nothing is left to be done.
async fn settle(worker: &mut Worker) {
    for _ in 0..40 {
        worker.round(now()).await.unwrap();
        while worker.busy() {
            worker.wait(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn trouble(worker: &mut Worker, partner: &PartnerName) -> Option<&'static str> {
    worker.standings(now())[partner].trouble.as_ref().map(|(reason, _)| *reason)
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn a_hub_put_back_behind_a_checkpoint_waits_for_a_person() {
    let mut world = World::new("syncwitness").await;
    let (ahead, other, back) = (world.partner("ahead"), world.partner("other"), world.partner("back"));
    for partner in [&ahead, &other, &back] {
        world.prepare(partner).await;
    }
    for id in 1..=6 {
        world.file(id, if id > 4 { "4711066" } else { "5915022" }, 1).await;
    }
    let mut wanted =
        vec![terms(&ahead, GROUPS, VANCOUVER), terms(&other, GROUPS, SASKATOON), terms(&back, GROUPS, VANCOUVER)];
    let (kubernetes, namespace) = support::kubernetes::namespace(&world.name.replace('_', "-")).await;
    let mut stage = Stage { world, kubernetes, namespace, signer: Signer::new(), known: Known::default() };
    let mut worker = stage.worker(&wanted).await;
    worker.converge(now()).await.unwrap();
    assert_eq!(stage.checkpoint(3_600).await, Some(1));
    assert_eq!(stage.out().await, ["statement-checkpoint-1"], "kept where it was signed");
    assert_eq!(stage.round().await, Round::default());
    worker.shut_down().await;

    // A backup of the hub, and of one replica; then life goes on.
    stage.copy_hub("hub", "backup").await;
    let share = ident(&back.share_schema());
    let copy: String = TABLES.map(|t| format!("CREATE TABLE copy_{t} AS TABLE {share}.{t};")).concat();
    stage.world.store.batch_execute(&copy).await.unwrap();
    let mut worker = stage.worker(&wanted).await;
    worker.converge(now()).await.unwrap();
    stage.world.execute("UPDATE oms.offender SET surname = 'Lost' WHERE id = 1").await;
    worker.converge(now()).await.unwrap();
    assert_eq!(stage.checkpoint(0).await, Some(2));
    assert_eq!(stage.out().await, ["statement-checkpoint-2"], "one only");
    worker.shut_down().await;

    // The hub is put back, and with it what it knew of the second checkpoint; so is one of the replicas.
    stage.copy_hub("backup", "hub").await;
    let restore: String = TABLES
        .map(|t| {
            // A generated column is not put back, but made.
            let columns = if t == "record" { "offender, grp, tbl, id, body, hash, batch" } else { "*" };
            let into = if t == "record" { format!("{t} ({columns})") } else { t.to_owned() };
            format!("DELETE FROM {share}.{t}; INSERT INTO {share}.{into} SELECT {columns} FROM copy_{t};")
        })
        .concat();
    stage.world.store.batch_execute(&restore).await.unwrap();
    let mut worker = stage.worker(&wanted).await;
    stage.world.execute("UPDATE oms.offender SET surname = 'Since' WHERE id IN (1, 5)").await;
    stage.world.execute("UPDATE oms.offender SET sealed_on = '2026-11-02' WHERE id = 2").await;
    let before = (stage.batches(&ahead).await, stage.batches(&other).await, stage.batches(&back).await);
    settle(&mut worker).await;
    assert_eq!((trouble(&mut worker, &ahead), trouble(&mut worker, &back)), (Some("LedgerLost"), Some("LedgerLost")));
    assert_eq!(trouble(&mut worker, &other), None);
    let after = (stage.batches(&ahead).await, stage.batches(&other).await, stage.batches(&back).await);
    assert_eq!(after, (before.0, before.1 + 1, before.2), "nothing crosses but to whom nothing was lost");
    assert!(stage.cursor(&ahead, "fenced").await, "of a later day than the hub: not shown");
    assert!(!stage.cursor(&back, "fenced").await, "of the hub's own day: serves, and ages");
    assert_eq!(stage.world.count(&back, "subject").await, 3, "but for what was sealed since");
    // Nothing is signed, not even under the number that the hub gives a second time.
    let mut hub = stage.world.hub_target.connect().await.unwrap();
    assert_eq!(checkpoint::if_due(&mut hub, 0, 1).await.unwrap(), Some(2));
    let tx = hub.transaction().await.unwrap();
    liaison_sync::statement::insert(&tx, Kind::Disposal, "p", Map::new()).await.unwrap();
    tx.commit().await.unwrap();
    let round = stage.round().await;
    let lost: Vec<&str> = round.lost.iter().map(|mark| mark.partner.as_str()).collect();
    assert_eq!(lost, [ahead.as_str(), back.as_str()]);
    assert_eq!((round.published, round.stored), (0, 0));
    assert_eq!(stage.out().await, ["statement-checkpoint-2"]);
    // What cuts access still does.
    wanted[2] = Terms { generation: 2, ..terms(&back, &["identity"], VANCOUVER) };
    wanted[0].suspended = true;
    worker.set_terms(wanted.clone());
    settle(&mut worker).await;
    assert!(stage.cursor(&back, "fenced").await, "narrowed: what must go cannot be read");
    assert!(stage.cursor(&ahead, "suspended").await);
    wanted[0].suspended = false;
    worker.set_terms(wanted.clone());
    settle(&mut worker).await;
    assert_eq!((stage.batches(&ahead).await, stage.batches(&back).await), (before.0, before.2));

    // A person decides, and it goes on.
    let said = stage.accept();
    assert!(said.contains("2 chains that checkpoint 2 had seen") && said.contains(ahead.as_str()), "{said}");
    assert!(stage.accept().starts_with("nothing is lost"));
    let sql = "SELECT accepted_by, reason, statement, jsonb_array_length(lost), encode(checkpoint, 'hex') FROM liaison.ledger_loss";
    let row = stage.world.hub.query_one(sql, &[]).await.unwrap();
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, i32>(3)),
        ("J. Roy, departmental security officer", "INC-17", 2)
    );
    assert_eq!(statement::read(row.get(2)).unwrap().0.number, 2, "with the checkpoint that saw it");
    let digest: String = row.get(4);
    assert_eq!(stage.out().await, Vec::<String>::new());
    assert_eq!(stage.round().await, Round { published: 2, ..Round::default() });
    stage.sign().await;
    assert_eq!(stage.round().await, Round { stored: 2, ..Round::default() });
    worker.converge(now()).await.unwrap();
    for terms in &wanted {
        assert_eq!(trouble(&mut worker, &terms.partner), None);
        assert!(!stage.cursor(&terms.partner, "fenced").await);
        stage.world.check_i1(terms).await;
        stage.world.check_i2(&terms.partner).await;
    }
    // The next checkpoint is made at once, and says what was accepted.
    assert_eq!(checkpoint::if_due(&mut hub, 3_600, 1_000_000).await.unwrap(), Some(3));
    assert_eq!(checkpoint::if_due(&mut hub, 3_600, 1_000_000).await.unwrap(), None);
    let sql = "SELECT statement FROM liaison.statement WHERE kind = 'checkpoint' AND number = 3";
    let (_, fields) = statement::read(stage.world.hub.query_one(sql, &[]).await.unwrap().get(0)).unwrap();
    assert_eq!(fields["acceptedLosses"], json!([digest]));
    assert_eq!(stage.round().await, Round { published: 1, ..Round::default() });
    stage.sign().await;
    assert_eq!(stage.round().await, Round { stored: 1, ..Round::default() });
    assert_eq!(stage.out().await, ["statement-checkpoint-3"]);
    let mut file = Vec::new();
    export::export(&mut hub, None, &mut file).await.unwrap();
    let verdict = export::verify(file.as_slice(), None, None, Verifier::default()).unwrap();
    assert_eq!(verdict.findings, []);

    worker.shut_down().await;
    drop(hub);
    support::kubernetes::forget(&stage.kubernetes, &stage.namespace).await;
    stage.world.drop().await;
}
