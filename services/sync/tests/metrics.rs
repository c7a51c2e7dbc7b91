//! What Prometheus scrapes: names, units, help, and labels that are bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use liaison_records::names::PartnerName;
use liaison_sync::{
    cursor::Point,
    partner::Written,
    telemetry::{self, Metrics},
    tls::Witness,
    verify::{Found, News, Verified},
    worker::{Report, Standing},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

async fn scrape(address: std::net::SocketAddr) -> String {
    for _ in 0..100 {
        if let Ok(mut stream) = tokio::net::TcpStream::connect(address).await {
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            return text;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing answers at {address}");
}

fn verified(partner: &PartnerName, units: u64) -> News {
    News::Verified(Box::new(Verified {
        partner: partner.clone(),
        id: 1,
        agreement: "a".into(),
        generation: 1,
        point: Point { snapshot: "7:7:".parse().unwrap(), as_of: "x".into(), millis: 1_800_000_000_000 },
        hub_identity: "h".into(),
        batch: 3,
        head: vec![],
        root: [0; 32],
        files: 1,
        records: 1,
        photographs: 0,
        found: Found { units, buckets: units },
        failure: None,
    }))
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one scrape, looked at from all sides")]
async fn metrics_follow_the_conventions_and_forget_partners() {
    let metrics = Arc::new(Metrics::default());
    let partners: Vec<PartnerName> = ["vancouver-police", "quebec-police"].map(|p| p.parse().unwrap()).into();
    let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
    for partner in &partners {
        let standing = Standing {
            files: 12,
            exact_at_millis: Some(now.as_millisecond() - 1_500),
            complete: true,
            open: true,
            held: true,
            ledger: 9,
            ..Standing::default()
        };
        metrics.standing(partner.as_str(), &standing, now);
        metrics.behind(partner.as_str(), 4);
        let took = Duration::from_millis(30);
        let written = Written { batch: Some(9), records: 5, withdrawn: 1, bytes: 700 };
        metrics.report(&Report { partner: partner.clone(), result: Ok(written), took });
        metrics.report(&Report { partner: partner.clone(), result: Err("StoreUnreachable"), took });
        metrics.news(&News::Differed(partner.clone(), Found { units: 2, buckets: 1 }));
        metrics.news(&verified(partner, 2));
    }
    metrics.partners(2, 2);
    metrics.change_log(77);
    metrics.ledger_lost(1);
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let stop = CancellationToken::new();
    let server = tokio::spawn(telemetry::serve(address, metrics.clone(), Witness::default(), stop.clone()));
    let text = scrape(address).await;
    assert!(text.starts_with("HTTP/1.0 200") && text.contains("application/openmetrics-text"), "{text}");

    let of =
        |line: &str, prefix: &str| line.strip_prefix(prefix).map(|rest| rest.split(' ').next().unwrap().to_owned());
    let helped: BTreeSet<String> = text.lines().filter_map(|line| of(line, "# HELP ")).collect();
    let units: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# UNIT ")?.split_once(' '))
        .map(|(name, unit)| (name.to_owned(), unit.to_owned()))
        .collect();
    let types: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    assert_eq!(helped, types.keys().cloned().collect());
    for (name, unit) in &units {
        assert!(name.ends_with(&format!("_{unit}")), "{name} is in {unit}");
        assert!(["seconds", "bytes"].contains(&unit.as_str()), "base units: {name}");
    }
    for name in types.keys() {
        assert!(name.starts_with("liaison_sync_") && !name.ends_with("_total"), "{name}");
        assert!(units.contains_key(name) || !(name.contains("seconds") || name.contains("bytes")), "{name} has a unit");
    }
    for wanted in [
        "replica_lag_seconds",
        "replica_lag_changes",
        "batch_duration_seconds",
        "replica_batch_seconds",
        "records",
        "crossed_bytes",
        "replica_verified_timestamp_seconds",
        "root_mismatches",
        "ledger_batches",
        "ledger_lost",
        "replica_complete",
        "replica_fenced",
        "leases_held",
        "partners",
        "change_log_rows",
        "verifications",
        "failures",
        "hub_up",
    ] {
        assert!(types.contains_key(&format!("liaison_sync_{wanted}")), "{wanted}");
    }
    // Samples: counters end in _total, labels are of a closed set, and their values are names that we know.
    let mut series: BTreeMap<String, usize> = BTreeMap::new();
    let body = text.split_once("\r\n\r\n").unwrap().1;
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line
            .split_once('{')
            .map_or((line.split(' ').next().unwrap(), ""), |(name, rest)| (name, rest.split('}').next().unwrap()));
        let family = types.keys().filter(|family| name.starts_with(family.as_str())).max_by_key(|f| f.len()).unwrap();
        *series.entry(family.clone()).or_default() += 1;
        if types[family] == "counter" {
            assert_eq!(name, format!("{family}_total"));
        }
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').unwrap();
            let value = value.trim_matches('"');
            match key {
                "partner" => assert!(partners.iter().any(|p| p.as_str() == value), "{line}"),
                "reason" => assert_eq!(value, "StoreUnreachable"),
                "outcome" => assert!(["equal", "repaired", "failed"].contains(&value)),
                "le" => assert_eq!(family, "liaison_sync_batch_duration_seconds", "no histogram a partner"),
                _ => panic!("a label that is not known: {line}"),
            }
        }
    }
    for line in [
        r#"liaison_sync_replica_lag_seconds{partner="vancouver-police"} 1.5"#,
        r#"liaison_sync_ledger_batches{partner="quebec-police"} 9"#,
        r#"liaison_sync_root_mismatches_total{partner="quebec-police"} 2"#,
        r#"liaison_sync_replica_verified_timestamp_seconds{partner="quebec-police"} 1800000000.0"#,
        r#"liaison_sync_crossed_bytes_total{partner="quebec-police"} 700"#,
        r#"liaison_sync_verifications_total{outcome="repaired"} 2"#,
        "liaison_sync_batch_duration_seconds_count 2",
        "liaison_sync_ledger_lost 1",
    ] {
        assert!(body.lines().any(|l| l == line), "{line} in\n{body}");
    }
    // A partner that is no more leaves no series.
    metrics.forget("quebec-police");
    let after = scrape(address).await;
    assert!(!after.contains("quebec-police") && after.contains("vancouver-police"), "{after}");
    // One whose lease is another's says only what this process itself did.
    metrics.standing("vancouver-police", &Standing::default(), now);
    let after = scrape(address).await;
    assert!(!after.contains("replica_lag_seconds{") && !after.contains("ledger_batches{"), "{after}");
    stop.cancel();
    server.await.unwrap().unwrap();
}
