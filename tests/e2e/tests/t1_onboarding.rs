//! After `make up`: what each of the seven partners is served, listed by paging searches over its tunnel, is exactly what
//! plain SQL computes on the hub (I1); and it stays so through a nightly reload and a move between provinces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use liaison_e2e::{PARTNERS, Partner, get, hub, kubectl, store, wait, wait_ready};
use liaison_records::population::Population;
use serde_json::{Value, json};

fn connection(partner: &str) -> Value {
    get("liaison-partners", "partnerconnection", partner).unwrap()
}

fn agreement(connection: &Value) -> Value {
    get("liaison-partners", "sharingagreement", connection["spec"]["agreementRef"]["name"].as_str().unwrap()).unwrap()
}

fn population(value: &Value) -> Population {
    serde_json::from_value(value.clone()).unwrap()
}

/// The oracle: the files of share AND agreement that are not sealed, by one query on the hub.
fn in_scope(partner: &str) -> BTreeSet<i64> {
    let connection = connection(partner);
    let agreement = agreement(&connection);
    hub(&format!(
        "SELECT o.id FROM oms.offender o WHERE o.sealed_on IS NULL AND {} AND {}",
        population(&connection["spec"]["share"]["population"]).to_sql("o"),
        population(&agreement["spec"]["allows"]["population"]).to_sql("o")
    ))
    .iter()
    .map(|id| id.parse().unwrap())
    .collect()
}

/// A purpose that the partner's agreement permits.
fn purpose(partner: &str) -> String {
    agreement(&connection(partner))["spec"]["purposes"][0].as_str().unwrap().to_owned()
}

/// Every file that the partner can find: searches by decade of birth, all pages of each.
fn served(partner: &Partner, purpose: &str) -> BTreeSet<i64> {
    let mut files = BTreeSet::new();
    for decade in (1900..2030).step_by(10) {
        for page in 1.. {
            let query = json!({
                "bornFrom": format!("{decade}-01-01"), "bornTo": format!("{}-12-31", decade + 9), "page": page, "pageSize": 100
            });
            let (status, body) = partner.post("/api/search", purpose, &query);
            assert_eq!(status, 200, "{body}");
            assert!(body["dataAsOf"].is_string(), "an answer without \"data as of\": {body}");
            let rows = body["results"].as_array().unwrap();
            files.extend(rows.iter().map(|row| row["file"].as_i64().unwrap()));
            if rows.len() < 100 {
                break;
            }
        }
    }
    files
}

fn as_of(partner: &str) -> String {
    store(&format!("SELECT batch || ' ' || encode(head, 'hex') FROM share_{}.cursor", partner.replace('-', "_")))
        .join("")
}

/// Waits until a cycle that began after this call has reached every partner's replica.
fn wait_for_a_cycle() {
    let now = hub("SELECT now()").join("");
    for partner in PARTNERS {
        let schema = partner.replace('-', "_");
        wait(&format!("a cycle for {partner}"), Duration::from_secs(180), || {
            store(&format!("SELECT as_of > '{now}'::timestamptz FROM share_{schema}.cursor")) == ["t"]
        });
    }
}

#[test]
fn t10_all_seven_are_ready() {
    for partner in PARTNERS {
        wait_ready(partner);
    }
    let table = kubectl(&["-n", "liaison-partners", "get", "pconn"]);
    println!("{table}");
    assert!(table.lines().all(|line| line.len() <= 80), "wider than a terminal:\n{table}");
}

#[test]
fn t11_served_over_the_tunnel_equals_the_scope() {
    wait_for_a_cycle();
    for name in PARTNERS {
        let started = Instant::now();
        let partner = Partner::up(name);
        let (served, expected) = (served(&partner, &purpose(name)), in_scope(name));
        assert!(!expected.is_empty(), "{name} has an empty scope: the example shows nothing");
        let missing: Vec<_> = expected.difference(&served).take(5).collect();
        let extra: Vec<_> = served.difference(&expected).take(5).collect();
        assert!(missing.is_empty() && extra.is_empty(), "{name}: missing {missing:?}, extra {extra:?}");
        println!("{name}: {} files, exactly the scope, listed in {:?}", served.len(), started.elapsed());
    }
}

#[test]
fn t12_a_nightly_reload_changes_nothing_for_anybody() {
    let before: Vec<String> = PARTNERS.iter().map(|p| as_of(p)).collect();
    let rows = |partner: &str| {
        store(&format!(
            "SELECT count(*) || ' ' || coalesce(max(batch), 0) FROM share_{}.record",
            partner.replace('-', "_")
        ))
        .join("")
    };
    let rows_before: Vec<String> = PARTNERS.iter().map(|p| rows(p)).collect();
    liaison_e2e::oms(&["reload"]);
    wait_for_a_cycle();
    let after: Vec<String> = PARTNERS.iter().map(|p| as_of(p)).collect();
    let rows_after: Vec<String> = PARTNERS.iter().map(|p| rows(p)).collect();
    assert_eq!(rows_before, rows_after, "a record crossed though none changed");
    println!("before {before:?}\nafter {after:?}");
}

#[test]
fn t13_a_move_between_provinces_is_seen_by_the_one_and_gone_from_the_other() {
    let (from, to) = ("saskatchewan-corrections", "quebec-corrections");
    let file: i64 = hub(
        "SELECT id FROM oms.offender WHERE jurisdiction = 'CA-SK' AND custody = 'Community' AND status = 'Released' \
         AND at_large = 'NotAtLarge' ORDER BY id LIMIT 1",
    )[0]
    .parse()
    .unwrap();
    assert!(in_scope(from).contains(&file) && !in_scope(to).contains(&file));
    let (old, new) = (Partner::up(from), Partner::up(to));
    let read = |partner: &Partner, name: &str| partner.post("/api/files/read", &purpose(name), &json!({"file": file}));
    assert_eq!(read(&old, from).0, 200);
    let (never_status, never_body) = read(&new, to);
    assert_eq!(never_status, 404);
    liaison_e2e::oms(&["act", "move", "--offender", &file.to_string(), "--municipality", "2423027"]);
    wait("the new province to see the file", Duration::from_secs(60), || read(&new, to).0 == 200);
    wait("the old province to lose the file", Duration::from_secs(60), || read(&old, from).0 == 404);
    let text = |body: &Value| body["title"].to_string();
    assert_eq!(text(&read(&old, from).1), text(&never_body), "a file that left answers like one that never was");
}

#[test]
fn t14_a_day_in_oms_reaches_everybody_exactly() {
    liaison_e2e::oms(&["day", "--seed", "7"]);
    wait_for_a_cycle();
    for name in PARTNERS {
        let schema = name.replace('-', "_");
        let held: BTreeSet<i64> = store(&format!("SELECT offender FROM share_{schema}.subject"))
            .iter()
            .map(|id| id.parse().unwrap())
            .collect();
        assert_eq!(held, in_scope(name), "{name}");
        let orphans = store(&format!(
            "SELECT count(*) FROM share_{schema}.record r WHERE offender IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM share_{schema}.subject s WHERE s.offender = r.offender)"
        ));
        assert_eq!(orphans, ["0"], "{name}");
        // I2: every row's batch is in the ledger.
        let batches = store(&format!("SELECT DISTINCT batch FROM share_{schema}.record ORDER BY 1"));
        let ledger = hub(&format!("SELECT batch FROM liaison.ledger_batch WHERE partner = '{name}'"));
        assert!(batches.iter().all(|b| ledger.contains(b)), "{name}: a row whose batch is not in the ledger");
    }
}
