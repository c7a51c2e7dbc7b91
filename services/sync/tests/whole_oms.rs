//! All field groups of the real OMS: seeded, a day played, reloaded, narrowed; with sync's own rights on both databases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use liaison_records::codes::{Code, FieldGroup};
use liaison_sync::{compare::Budget, dispose, fault::Faults, seed};
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
