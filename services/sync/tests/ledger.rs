//! The ledger as evidence: statements, checkpoints, export and verification, the account of disclosures. On a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use liaison_records::{
    evidence::Verifier,
    names::PartnerName,
    statement::{self, Kind, keys},
};
use liaison_sync::{
    account, checkpoint,
    compare::Budget,
    export,
    fault::Faults,
    signing::{self, Round},
    witness::Known,
};
use serde_json::{Map, json};
use support::{World, signer::Signer};

#[tokio::test]
async fn a_statement_is_part_of_its_transaction_and_numbers_have_no_gaps() {
    let mut world = World::new("ledger_statement").await;
    let fields = || Map::from_iter([("files".to_owned(), json!(3))]);
    for (commit, number) in [(true, 1), (false, 2), (true, 2)] {
        let tx = world.hub.transaction().await.unwrap();
        let made = liaison_sync::statement::insert(&tx, Kind::Disposal, "vancouver-police", fields()).await.unwrap();
        assert_eq!(made, number);
        if commit {
            tx.commit().await.unwrap();
        }
    }
    let rows = world
        .hub
        .query("SELECT number, statement, signature IS NULL FROM liaison.statement ORDER BY 1", &[])
        .await
        .unwrap();
    assert_eq!(rows.iter().map(|r| r.get::<_, i64>(0)).collect::<Vec<_>>(), [1, 2]);
    for row in rows {
        let (id, said) = statement::read(row.get(1)).expect("canonical");
        assert_eq!((id.number, id.kind, id.partner.as_str()), (row.get(0), Kind::Disposal, "vancouver-police"));
        assert_eq!(said["files"], json!(3));
        assert!(said["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{}", said["at"]);
        assert!(row.get::<_, bool>(2));
    }
    world.drop().await;
}

#[tokio::test]
async fn sync_adds_statements_and_signatures_and_changes_none() {
    let world = World::over_oms("ledger_rights", 10).await;
    let mut sync = world.hub_target.connect().await.unwrap();
    let tx = sync.transaction().await.unwrap();
    liaison_sync::statement::insert(&tx, Kind::Checkpoint, "", Map::new()).await.unwrap();
    tx.commit().await.unwrap();
    sync.execute("UPDATE liaison.statement SET signature = '\\x00', key_id = 'k', chain = 'c', signed_at = now()", &[])
        .await
        .unwrap();
    for refused in ["UPDATE liaison.statement SET statement = '{}'", "DELETE FROM liaison.statement"] {
        let error = sync.execute(refused, &[]).await.unwrap_err();
        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("42501"), "{refused}");
    }
    world.drop().await;
}

#[tokio::test]
async fn a_pick_up_is_in_the_ledger_once_however_often_it_is_said() {
    let world = World::over_oms("ledger_handover", 10).await;
    let partner: PartnerName = "vancouver-police".parse().unwrap();
    let contents = ["psk-00".to_owned(), "token-11".to_owned()];
    // As sync's own role, from two Jobs at once, and again.
    let (mut one, mut two) = (world.hub_target.connect().await.unwrap(), world.hub_target.connect().await.unwrap());
    let (bundle, other) = ("ab".repeat(32), "cd".repeat(32));
    let (first, second) = tokio::join!(
        liaison_sync::handover::note(&mut one, &partner, &bundle, &contents),
        liaison_sync::handover::note(&mut two, &partner, &bundle, &contents),
    );
    assert_eq!((first.unwrap(), second.unwrap()), (1, 1));
    assert_eq!(liaison_sync::handover::note(&mut one, &partner, &other, &contents[..1]).await.unwrap(), 2);
    assert_eq!(liaison_sync::handover::note(&mut two, &partner, &bundle, &contents).await.unwrap(), 1);
    let rows = world.hub.query("SELECT statement FROM liaison.statement ORDER BY number", &[]).await.unwrap();
    let said: Vec<_> = rows.iter().map(|row| statement::read(row.get(0)).expect("canonical")).collect();
    assert_eq!(
        said.iter().map(|(id, _)| (id.kind, id.number)).collect::<Vec<_>>(),
        [(Kind::Handover, 1), (Kind::Handover, 2)]
    );
    assert_eq!((&said[0].1["bundle"], &said[0].1["contents"]), (&json!(bundle), &json!(contents)));
    world.drop().await;
}

#[tokio::test]
async fn a_statement_goes_out_and_its_signature_comes_back() {
    let mut world = World::new("ledger_signing").await;
    let (client, namespace) = support::kubernetes::namespace(&world.name.replace('_', "-")).await;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let round = async |world: &World| signing::round(&client, &namespace, &world.hub, &Known::default()).await.unwrap();
    assert_eq!(round(&world).await, Round::default());
    let tx = world.hub.transaction().await.unwrap();
    liaison_sync::statement::insert(&tx, Kind::Disposal, "p", Map::new()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(round(&world).await, Round { published: 1, ..Round::default() });
    assert_eq!(round(&world).await, Round { waiting: 1, ..Round::default() }, "published once");
    let text = api.get("statement-disposal-p-1").await.unwrap().data.unwrap()[keys::STATEMENT].clone();
    let patch = async |data: serde_json::Value| {
        let body = Patch::Merge(json!({"data": data}));
        api.patch("statement-disposal-p-1", &PatchParams::default(), &body).await.unwrap();
    };
    // A signature over something else does not count: the statement is published anew.
    let signer = Signer::new();
    patch(signer.data("another text")).await;
    assert_eq!(round(&world).await, Round::default());
    assert_eq!(round(&world).await, Round { published: 1, ..Round::default() });
    patch(signer.data(&text)).await;
    assert_eq!(round(&world).await, Round { stored: 1, ..Round::default() });
    assert!(
        api.list(&kube::api::ListParams::default())
            .await
            .unwrap()
            .iter()
            .all(|o| !o.name_any().starts_with("statement-"))
    );
    let row =
        world.hub.query_one("SELECT statement, signature, key_id, chain FROM liaison.statement", &[]).await.unwrap();
    let stored: (String, Vec<u8>, String, String) = (row.get(0), row.get(1), row.get(2), row.get(3));
    liaison_sync::signature::check(&stored.0, &stored.1, &stored.2, &stored.3).unwrap();
    assert_eq!(stored.0, text);
    // What a process that was killed between storing and removing leaves is removed.
    let left: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "statement-disposal-p-1", "labels": {statement::LABEL: "disposal"}}, "data": {"statement": text},
    }))
    .unwrap();
    api.create(&kube::api::PostParams::default(), &left).await.unwrap();
    assert_eq!(round(&world).await, Round::default());
    assert!(api.get_opt("statement-disposal-p-1").await.unwrap().is_none());
    support::kubernetes::forget(&client, &namespace).await;
    world.drop().await;
}

const GROUPS: &[&str] = &["identity", "aliases", "sentence"];
const VANCOUVER: &str = r#"{"anyOf":[{"municipalities":["5915022"]}]}"#;

/// A hub with files 1 to 6, all but 6 in the replica of a partner.
async fn disclosed(name: &str) -> (World, liaison_sync::worker::Worker, liaison_sync::terms::Terms) {
    let mut world = World::new(name).await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=6 {
        world.file(id, if id == 6 { "4711066" } else { "5915022" }, 1).await;
    }
    let terms = support::terms(&partner, GROUPS, VANCOUVER);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(support::now()).await.unwrap();
    (world, worker, terms)
}

async fn exported(world: &World, partner: Option<&PartnerName>) -> String {
    let mut out = Vec::new();
    let mut hub = world.hub_target.connect().await.unwrap();
    export::export(&mut hub, partner, &mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn an_export_verifies_and_a_ledger_that_was_touched_does_not() {
    let (world, mut worker, terms) = disclosed("ledger_export").await;
    let verify = |text: &str| export::verify(text.as_bytes(), None, None, Verifier::default()).unwrap();
    let mut hub = world.hub_target.connect().await.unwrap();
    assert_eq!(checkpoint::if_due(&mut hub, 3600, 1000).await.unwrap(), Some(1), "the first at once");
    for id in 1..=3 {
        world.execute(&format!("UPDATE oms.offender SET surname = 'X{id}' WHERE id = {id}")).await;
        worker.converge(support::now()).await.unwrap();
    }
    assert_eq!(checkpoint::if_due(&mut hub, 3600, 1000).await.unwrap(), None, "not yet");
    assert_eq!(checkpoint::if_due(&mut hub, 3600, 3).await.unwrap(), Some(2), "by count");
    assert_eq!(checkpoint::if_due(&mut hub, 0, 1).await.unwrap(), None, "nothing was written since");
    let whole = exported(&world, None).await;
    let verdict = verify(&whole);
    assert_eq!((verdict.findings.as_slice(), verdict.unsigned, verdict.partners), (&[][..], 2, 1));
    assert!(verdict.counted.batches >= 4);
    let one = exported(&world, Some(&terms.partner)).await;
    assert_eq!(verify(&one).findings, []);
    let sql = "SELECT statement FROM liaison.statement WHERE number = 2";
    let last: String = world.hub.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(checkpoint::lost(&hub, &last).await.unwrap(), []);
    // Whoever may write the hub's tables is found out: a changed state, a changed entry, a batch cut off the end.
    for (touch, says) in [
        ("UPDATE liaison.ledger_batch SET state = 'void' WHERE batch = 2", "state, time"),
        ("UPDATE liaison.ledger_entry SET groups = '{identity}' WHERE batch = 1 AND seq = 0", "entries are not those"),
        ("DELETE FROM liaison.ledger_entry WHERE batch = 1 AND seq = 0", "removed"),
        (
            "DELETE FROM liaison.ledger_entry WHERE batch = (SELECT max(batch) FROM liaison.ledger_batch);
             DELETE FROM liaison.ledger_batch WHERE batch = (SELECT max(batch) FROM liaison.ledger_batch)",
            "cut off",
        ),
    ] {
        world.execute(touch).await;
        let found = verify(&exported(&world, None).await).findings;
        assert!(found.iter().any(|f| f.what.contains(says)), "{touch}: {found:?}");
    }
    assert_eq!(checkpoint::lost(&hub, &last).await.unwrap().len(), 1);
    worker.shut_down().await;
    world.drop().await;
}

#[tokio::test]
async fn the_account_names_everyone_also_of_a_file_that_is_gone() {
    let (world, mut worker, terms) = disclosed("ledger_account").await;
    let hub = world.hub_target.connect().await.unwrap();
    let account = async |fps: &str| account::account(&hub, fps, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    let first = account("000002A").await;
    assert_eq!((first.files.as_slice(), first.disclosures.len()), (&[2][..], 1));
    let one = &first.disclosures[0];
    assert_eq!(
        (one.partner.as_str(), one.agreement.as_str(), one.kind.as_str()),
        (terms.partner.as_str(), "bc-2003", "enter")
    );
    assert_eq!(
        (one.state.as_str(), one.groups.as_slice()),
        ("landed", &["aliases", "identity", "sentence"].map(String::from)[..])
    );
    assert_eq!(account("000006A").await.disclosures, [], "never in scope");
    // The file is gone, and then its number was another's: the account is still given.
    world.execute("DELETE FROM oms.offender WHERE id = 2; UPDATE oms.offender SET fps = '999999Z' WHERE id = 3").await;
    worker.converge(support::now()).await.unwrap();
    let gone = account("000002A").await;
    assert_eq!(gone.files, [2]);
    assert_eq!(gone.disclosures.iter().map(|d| d.kind.as_str()).collect::<Vec<_>>(), ["enter", "leave"]);
    assert_eq!(account("000003A").await.files, [3], "the number that it had when it crossed");
    assert_eq!(account("999999Z").await.files, [3]);
    // What never crossed is not in it; what is not known is.
    for (state, count) in [("void", 0), ("disclosed", 1), ("prepared", 1)] {
        world.execute(&format!("UPDATE liaison.ledger_batch SET state = '{state}' WHERE batch = 1")).await;
        assert_eq!(account("000001A").await.disclosures.len(), count, "{state}");
    }
    let later = account::account(&hub, "000001A", support::now()).await.unwrap();
    assert_eq!(later.disclosures, []);
    // Who looked, as far as the hub has it: by file, and in the list of what a query showed.
    world
        .execute(
            r#"INSERT INTO liaison.access_log VALUES
            ('p', now(), 1, '{"at": "2026-11-22T00:00:00Z", "officer": "o", "purpose": "Supervision", "kind": "file", "outcome": "allowed", "request": {"file": 1}}'),
            ('p', now(), 2, '{"at": "2026-11-22T00:00:01Z", "officer": "o", "purpose": "Supervision", "kind": "shown", "outcome": "allowed", "request": {}, "files": [7, 1]}'),
            ('p', now(), 3, '{"at": "2026-11-22T00:00:02Z", "officer": "o", "purpose": "Supervision", "kind": "shown", "outcome": "allowed", "request": {}, "files": [7]}')"#,
        )
        .await;
    let looked = account("000001A").await.accesses;
    assert_eq!(looked.iter().map(|a| a.kind.as_str()).collect::<Vec<_>>(), ["file", "shown"]);
    worker.shut_down().await;
    world.drop().await;
}

#[tokio::test]
async fn a_correction_says_who_must_be_told_and_whether_they_have_it() {
    let (world, mut worker, terms) = disclosed("ledger_correct").await;
    let (hub, store) = (world.hub_target.connect().await.unwrap(), world.store_target.connect().await.unwrap());
    let since = jiff::Timestamp::UNIX_EPOCH;
    let asked = async |fps: &str, record: Option<account::Record>| {
        account::corrections(&hub, &store, fps, record.as_ref(), since).await.unwrap()
    };
    let record = |table: &str, id| Some(account::Record { table: table.into(), id });
    assert_eq!(asked("000006A", None).await, [], "nobody received it");
    assert_eq!(asked("000001A", None).await[0].replica, account::Standing::Current);
    world.execute("UPDATE oms.sentence SET length_days = 7 WHERE id = 100").await;
    let behind = asked("000001A", None).await.remove(0);
    assert_eq!((behind.partner.as_str(), behind.replica), (terms.partner.as_str(), account::Standing::Behind));
    assert_eq!(behind.differing, [("sentence".to_owned(), 100)]);
    assert_eq!(asked("000001A", record("alias", 100)).await[0].replica, account::Standing::Current);
    worker.converge(support::now()).await.unwrap();
    let told = asked("000001A", record("sentence", 100)).await.remove(0);
    assert_eq!((told.replica, told.differing.as_slice()), (account::Standing::Current, &[][..]));
    assert!(told.batch > Some(1) && told.at.is_some());
    assert_eq!(asked("000001A", record("photograph", 100)).await, [], "its group never crossed");
    let error = account::corrections(&hub, &store, "000001A", record("gifts", 1).as_ref(), since).await.unwrap_err();
    assert!(error.to_string().contains("must be one of"), "{error}");
    world.execute("UPDATE oms.offender SET municipality = '4711066' WHERE id = 1").await;
    worker.converge(support::now()).await.unwrap();
    assert_eq!(asked("000001A", None).await[0].replica, account::Standing::Withdrawn, "to be told all the same");
    worker.shut_down().await;
    world.drop().await;
}
