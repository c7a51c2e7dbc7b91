//! How a replica ends: due dates, certificates, legal holds, sealed files. On a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use liaison_records::{names::PartnerName, statement};
use liaison_sync::{
    compare::Budget,
    dispose::{Policy, dispose},
    error::Error,
    fault::Faults,
    quote::ident,
    retention::{self, Authority, Due, Retention},
    seed,
    terms::Terms,
    verify,
};
use serde_json::{Map, Value, json};
use support::{VERIFIER, World, now, terms};

const GROUPS: &[&str] = &["identity", "aliases", "photograph", "sentence", "supervision"];
const VANCOUVER: &str = r#"{"anyOf":[{"municipalities":["5915022"]}]}"#;

/// A hub with 12 files, 8 of them in the replica of a partner.
async fn seeded(name: &str) -> (World, PartnerName, Terms) {
    let mut world = World::new(name).await;
    let partner = world.partner("a");
    world.adopt(&partner);
    for id in 1..=12 {
        world.file(id, if id % 3 == 0 { "4711066" } else { "5915022" }, 2).await;
    }
    let terms = terms(&partner, GROUPS, VANCOUVER);
    seed_again(&world, &terms).await;
    (world, partner, terms)
}

async fn seed_again(world: &World, terms: &Terms) {
    let (hub, store) = (&world.hub_target, &world.store_target);
    seed::seed(hub, store, terms, VERIFIER, "job", Budget::default(), Faults::default()).await.unwrap();
}

async fn run(world: &World, partner: &PartnerName, policy: &Policy) -> Result<Option<i64>, Error> {
    let disposed = dispose(&world.hub_target, &world.store_target, partner, policy, "job").await?;
    assert_eq!(disposed.gone, !matches!(policy, Policy::Retain { .. }));
    Ok(disposed.certificate)
}

async fn certificates(world: &World) -> Vec<Map<String, Value>> {
    let sql = "SELECT statement FROM liaison.statement WHERE kind = 'disposal' ORDER BY number";
    let rows = world.hub.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| statement::read(row.get(0)).expect("canonical").1).collect()
}

async fn exists(world: &World, partner: &PartnerName) -> bool {
    let name = format!("{}.record", ident(&partner.share_schema()));
    world.store.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await.unwrap().get(0)
}

/// A verification by a worker that stops afterwards.
async fn attested(world: &World, terms: &Terms) -> verify::Ended {
    verify::request(&world.hub, &terms.partner, "before", false).await.unwrap();
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    for _ in 0..2_000 {
        worker.round(now()).await.unwrap();
        while worker.busy() {
            worker.wait(Duration::from_secs(1)).await;
        }
        if let Some(ended) = verify::ended(&world.hub, &terms.partner, "before").await.unwrap() {
            worker.shut_down().await;
            return ended;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the verification does not end");
}

fn authority(ends: Timestamp, days: i32) -> Authority {
    Authority {
        agreement: "bc-2003".into(),
        reference: "BC-2003".into(),
        legal_basis: vec!["CCRA s.25(1)".into()],
        ends,
        days,
    }
}

async fn note(world: &World, partner: &PartnerName, authority: Option<Authority>, hold: bool) {
    let said = Retention { partner: partner.clone(), authority, hold };
    retention::note(&world.hub, "shared", &[said], now()).await.unwrap();
}

fn ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

#[tokio::test]
async fn i7_a_disposal_ends_in_one_certificate_that_says_what_went_and_the_ledger_stays() {
    let (world, partner, terms) = seeded("disp_cert").await;
    let attested = attested(&world, &terms).await;
    assert_eq!((attested.files, attested.records, attested.photographs), (8, 8 * 6, 8));
    note(&world, &partner, Some(authority(ago(-24), 30)), false).await;
    let ledger =
        "SELECT count(*), max(encode(head, 'hex')) FILTER (WHERE batch = (SELECT max(batch) FROM liaison.ledger_batch))
                  FROM liaison.ledger_batch";
    let row = world.hub.query_one(ledger, &[]).await.unwrap();
    let (batches, head): (i64, String) = (row.get(0), row.get(1));
    assert_eq!(run(&world, &partner, &Policy::Delete).await.unwrap(), Some(1));
    assert!(!exists(&world, &partner).await);
    let said = certificates(&world).await.remove(0);
    for (key, value) in [
        ("files", json!(8)),
        ("records", json!(8 * 6)),
        ("photographs", json!(8)),
        ("agreement", json!("bc-2003")),
        ("reference", json!("BC-2003")),
        ("legalBasis", json!(["CCRA s.25(1)"])),
        ("head", json!(head)),
        ("lastBatch", json!(batches)),
        ("method", json!("dropped")),
        ("schemas", json!([partner.share_schema(), partner.journal_schema()])),
        ("accessLogRows", json!(0)),
        // What went is what was attested last.
        ("root", json!(attested.root.unwrap())),
    ] {
        assert_eq!(said[key], value, "{key}");
    }
    // No personal data: digests, counts, and the names of partner and agreement.
    let text = Value::Object(said).to_string();
    assert!(!text.contains("Tremblay") && !text.contains("000001A"), "{text}");
    assert_eq!(run(&world, &partner, &Policy::Delete).await.unwrap(), None, "disposed of once");
    assert_eq!(certificates(&world).await.len(), 1);
    assert_eq!(world.hub.query_one(ledger, &[]).await.unwrap().get::<_, i64>(0), batches, "the ledger outlives it");
    world.drop().await;
}

#[tokio::test]
async fn i8_killed_between_removal_and_certificate_it_certifies_what_went() {
    for (name, policy) in [("disp_killed", Policy::Delete), ("disp_killed_empty", Policy::Empty)] {
        let (world, partner, _) = seeded(name).await;
        world.execute("ALTER TABLE liaison.statement RENAME TO away").await;
        run(&world, &partner, &policy).await.unwrap_err();
        if policy == Policy::Empty {
            assert_eq!(world.count(&partner, "record").await, 0, "it was emptied before");
        } else {
            assert!(!exists(&world, &partner).await, "it was removed before");
        }
        world.execute("ALTER TABLE liaison.away RENAME TO statement").await;
        assert_eq!(run(&world, &partner, &policy).await.unwrap(), Some(1));
        let said = certificates(&world).await.remove(0);
        assert_eq!((&said["files"], &said["records"]), (&json!(8), &json!(48)));
        world.drop().await;
    }
}

#[tokio::test]
async fn a_legal_hold_cuts_access_and_keeps_the_replica_with_or_without_manifest() {
    let (world, partner, _) = seeded("disp_hold").await;
    // What spec.legalHold says, and what a person sets on the hub, each hold by themselves.
    note(&world, &partner, Some(authority(ago(48), 1)), true).await;
    let due = async || retention::due(&world.hub, "shared").await.unwrap();
    assert_eq!(due().await, [], "due, and held");
    retention::set_hold(&world.hub, &partner, true).await.unwrap();
    note(&world, &partner, Some(authority(ago(48), 1)), false).await;
    assert_eq!(due().await, [], "the hub's own hold lasts");
    for policy in [Policy::Delete, Policy::Empty] {
        let error = run(&world, &partner, &policy).await.unwrap_err();
        assert!(matches!(error, Error::LegalHold(_)) && error.reason() == "LegalHold", "{error}");
    }
    assert_eq!(world.count(&partner, "subject").await, 8, "nothing is gone");
    let closed =
        format!("SELECT suspended AND authorized_until IS NULL FROM {}.cursor", ident(&partner.share_schema()));
    assert!(world.store.query_one(&closed, &[]).await.unwrap().get::<_, bool>(0), "access is cut first");
    // Retained for longer than its date, then released with no manifest left.
    let retain = Policy::Retain { due: ago(1), agreement: "bc-2003".into(), store: "shared".into() };
    run(&world, &partner, &retain).await.unwrap();
    assert_eq!(due().await, []);
    let listed = retention::list(&world.hub).await.unwrap().remove(0);
    assert_eq!((listed.hold, listed.cause.as_str()), (vec!["hub".to_owned()], "deletion"));
    retention::set_hold(&world.hub, &partner, false).await.unwrap();
    assert_eq!(due().await, [Due { partner: partner.clone(), deleted: true }]);
    assert_eq!(retention::due(&world.hub, "west").await.unwrap(), [], "another store's sync leaves it alone");
    assert_eq!(run(&world, &partner, &Policy::Delete).await.unwrap(), Some(1));
    assert_eq!(certificates(&world).await[0]["cause"], json!("deletion"));
    let error = retention::set_hold(&world.hub, &"nobody".parse().unwrap(), true).await.unwrap_err();
    assert!(error.to_string().contains("disposal list"), "{error}");
    world.drop().await;
}

#[tokio::test]
async fn an_agreement_that_ends_empties_the_replica_in_its_bound_and_a_renewed_one_fills_it_again() {
    let (mut world, partner, terms) = seeded("disp_ended").await;
    let due = async |world: &World| retention::due(&world.hub, "shared").await.unwrap();
    note(&world, &partner, Some(authority(ago(24), 2)), false).await;
    assert_eq!(due(&world).await, [], "ended, and within its bound");
    // Renewed before the date: lifted. And what stands already is not written again.
    let renewed = ago(-240);
    note(&world, &partner, Some(authority(renewed, 2)), false).await;
    let version = "SELECT xmin::text FROM liaison.disposal";
    let before: String = world.hub.query_one(version, &[]).await.unwrap().get(0);
    note(&world, &partner, Some(authority(renewed, 2)), false).await;
    assert_eq!(before, world.hub.query_one(version, &[]).await.unwrap().get::<_, String>(0), "I9");
    // The agreement is deleted: its bound starts now, and is not put off by looking again.
    note(&world, &partner, None, false).await;
    let date = "SELECT due > now() + interval '47 hours' AND due <= now() + interval '48 hours' FROM liaison.disposal";
    assert!(world.hub.query_one(date, &[]).await.unwrap().get::<_, bool>(0));
    // Ended, and due.
    note(&world, &partner, Some(authority(ago(72), 2)), false).await;
    assert_eq!(due(&world).await, [Due { partner: partner.clone(), deleted: false }]);
    assert_eq!(run(&world, &partner, &Policy::Empty).await.unwrap(), Some(1));
    for table in ["record", "subject", "photograph"] {
        assert_eq!(world.count(&partner, table).await, 0, "{table}");
    }
    let said = certificates(&world).await.remove(0);
    assert_eq!((&said["method"], &said["cause"], &said["files"]), (&json!("emptied"), &json!("agreement"), &json!(8)));
    assert_eq!(due(&world).await, [], "done");
    let login = "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1";
    assert!(
        world.store.query_one(login, &[&partner.reader_role()]).await.unwrap().get::<_, bool>(0),
        "for a renewed one"
    );
    // Renewed afterwards: the same worker fills it, and the next end is due again.
    note(&world, &partner, Some(authority(ago(-240), 2)), false).await;
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    worker.shut_down().await;
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    assert_eq!(world.count(&partner, "subject").await, 8);
    note(&world, &partner, Some(authority(ago(72), 2)), false).await;
    assert_eq!(due(&world).await.len(), 1);
    assert_eq!(run(&world, &partner, &Policy::Empty).await.unwrap(), Some(2));
    world.adopt(&partner);
    world.drop().await;
}

#[tokio::test]
async fn a_replica_that_was_retained_is_compared_when_it_is_wanted_again() {
    let (world, partner, terms) = seeded("disp_adopt").await;
    note(&world, &partner, Some(authority(ago(-240), 2)), false).await;
    let retain = Policy::Retain { due: ago(-1), agreement: "bc-2003".into(), store: "shared".into() };
    run(&world, &partner, &retain).await.unwrap();
    // Watched terms do not put the date off: only seeding it again does.
    note(&world, &partner, Some(authority(ago(-240), 2)), false).await;
    let row = "SELECT due < now() + interval '2 hours', cause FROM liaison.disposal";
    let found = world.hub.query_one(row, &[]).await.unwrap();
    assert_eq!((found.get::<_, bool>(0), found.get::<_, &str>(1)), (true, "deletion"));
    world.execute("DELETE FROM oms.offender WHERE id = 1").await;
    seed_again(&world, &terms).await;
    world.check_i1(&terms).await;
    let cause: String =
        world.hub.query_one("SELECT cause FROM liaison.disposal WHERE due IS NULL", &[]).await.unwrap().get(0);
    assert_eq!(cause, "agreement");
    world.drop().await;
}
