//! All field groups of the real OMS: seeded, a day played, reloaded, narrowed; with sync's own rights on both databases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use liaison_records::codes::{Code, FieldGroup};
use liaison_sync::{
    backlog,
    compare::Budget,
    dispose,
    fault::Faults,
    seed,
    telemetry::Metrics,
    verify::{self, Outcome},
};
use support::{VERIFIER, World, now, terms};

const PROVINCES: &str =
    r#"{"anyOf":[{"jurisdictions":["CA-BC","CA-QC","CA-SK"]},{"atLarge":["UnlawfullyAtLarge","Escaped"]}]}"#;
const POLICE: &str = r#"{"anyOf":[{"jurisdictions":["CA-BC"],"statuses":["Released","Suspended"]}]}"#;

#[tokio::test]
async fn every_group_of_the_real_oms_arrives_follows_and_goes() {
    let mut world = World::over_oms("syncoms", 120).await;
    let (province, police) = (world.partner("p"), world.partner("q"));
    world.adopt(&province);
    world.adopt(&police);
    let all: Vec<&str> = FieldGroup::ALL.iter().map(|group| group.as_str()).collect();
    let mut both = vec![
        terms(&province, &all, PROVINCES),
        terms(&police, &["identity", "aliases", "photograph", "supervision", "warrants"], POLICE),
    ];
    for terms in &both {
        let seeded = seed::seed(
            &world.hub_target,
            &world.store_target,
            terms,
            VERIFIER,
            "job",
            Budget::default(),
            Faults::default(),
        )
        .await
        .unwrap();
        assert!(seeded.files > 0 && seeded.records > seeded.files, "{seeded:?}");
        world.check_i1(terms).await;
        world.check_i2(&terms.partner).await;
    }
    let mut worker = world.worker("serve", Budget::default(), Faults::default());
    worker.set_terms(both.clone());
    worker.converge(now()).await.unwrap();
    let mut oms = world.oms().await;
    for seed in 1..=3 {
        let day = liaison_oms::day::DayArgs { seed, date: None, json: false };
        liaison_oms::day::day(&mut oms, &day).await.unwrap();
        worker.converge(now()).await.unwrap();
        for terms in &both {
            world.check_i1(terms).await;
            world.check_i2(&terms.partner).await;
        }
    }
    let batches = "SELECT count(*) FROM liaison.ledger_batch";
    let before: i64 = world.hub.query_one(batches, &[]).await.unwrap().get(0);
    liaison_oms::reload::reload(&mut oms).await.unwrap();
    worker.converge(now()).await.unwrap();
    let after: i64 = world.hub.query_one(batches, &[]).await.unwrap().get(0);
    assert_eq!(before, after, "the nightly reload changes nothing for anybody");
    // Asked, verified, made anew and attested with the rights that sync has; every field group of every table.
    let sync = world.hub_target.connect().await.unwrap();
    for (terms, anew) in [(&both[0], false), (&both[1], false), (&both[0], true)] {
        let token = format!("anew {anew}");
        verify::request(&sync, &terms.partner, &token, anew).await.unwrap();
        let mut ended = None;
        for _ in 0..10_000 {
            worker.round(now()).await.unwrap();
            while worker.busy() {
                worker.wait(Duration::from_secs(1)).await;
            }
            ended = verify::ended(&sync, &terms.partner, &token).await.unwrap();
            if ended.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ended = ended.expect("it ends");
        assert_eq!((ended.outcome, ended.mismatches), (Outcome::Equal, 0), "{}", terms.partner);
        assert!(ended.photographs > 0 && ended.records > ended.files);
        world.check_i1(terms).await;
        world.check_i2(&terms.partner).await;
    }
    let metrics = Metrics::default();
    backlog::measure(&world.hub_target, &worker.positions(now()), &metrics).await.unwrap();
    both[0].generation += 1;
    both[0].grant.as_mut().unwrap().scope.share = support::population(POLICE);
    both[0].grant.as_mut().unwrap().groups.remove(&FieldGroup::Aliases);
    worker.set_terms(both.clone());
    worker.converge(now()).await.unwrap();
    for terms in &both {
        world.check_i1(terms).await;
        world.check_i2(&terms.partner).await;
    }
    worker.shut_down().await;
    let gone = dispose::dispose(&world.hub_target, &world.store_target, &police, &dispose::Policy::Delete, "job")
        .await
        .unwrap();
    assert!(gone.gone);
    world.check_i1(&both[0]).await;
    world.drop().await;
}
