//! The hub on a real PostgreSQL: the schema against the catalogue, the population, a day, the nightly reload.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use liaison_oms::{
    actions::{Action, act},
    capture::{Capture, capture_by, captured_by},
    connect::{PgDate, from_url},
    data::Data,
    day::{DayArgs, day},
    generate::{GenerateArgs, Generated, generate},
    migrate::migrate,
    reload::reload,
};
use liaison_records::{
    catalogue::{TABLES, TableKind},
    encoding::{RecordRef, record_hash, subject},
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, postgres::PgRow};

/// A database of one test; the name says which, and is dropped and made anew.
async fn hub(name: &str) -> PgConnection {
    let url = std::env::var("TEST_DATABASE_URL").expect(
        "TEST_DATABASE_URL must be set: run `eval \"$(tests/cluster/services env)\"` after `tests/cluster/services up`",
    );
    let options = from_url(&url).unwrap();
    let name = format!("oms_test_{name}");
    let mut admin = PgConnection::connect_with(&options).await.unwrap();
    admin.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))).await.unwrap();
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let mut hub = PgConnection::connect_with(&options.database(&name)).await.unwrap();
    migrate(&mut hub).await.unwrap();
    hub
}

fn small(seed: u32) -> GenerateArgs {
    GenerateArgs {
        seed,
        active_incarcerated: 130,
        community: 90,
        archived: 1250,
        as_of: "2026-11-01".parse().unwrap(),
        replace: false,
        json: false,
    }
}

async fn filled(name: &str) -> (PgConnection, Generated) {
    let mut hub = hub(name).await;
    let done = generate(&mut hub, &small(1)).await.unwrap();
    (hub, done)
}

async fn one<T>(hub: &mut PgConnection, sql: &'static str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(sql).fetch_one(hub).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// A digest of every record, and of every image.
async fn content(hub: &mut PgConnection) -> (String, String) {
    let records = "SELECT coalesce(md5(string_agg(md5(concat_ws(' ', grp, tbl, id, offender, body)), '' ORDER BY tbl, id)), '') \
                   FROM liaison.record";
    let images = "SELECT coalesce(md5(string_agg(encode(sha256(jpeg), 'hex'), '' ORDER BY sha256)), '') FROM oms.image";
    (one(hub, records).await, one(hub, images).await)
}

#[tokio::test]
async fn the_schema_is_the_catalogue() {
    let mut hub = hub("schema").await;
    let rows: Vec<PgRow> = sqlx::query(
        "SELECT table_name::text AS t, column_name::text AS c, data_type::text AS d, is_nullable = 'YES' AS n \
         FROM information_schema.columns WHERE table_schema = 'oms' AND table_name NOT IN ('image', 'origin') \
         AND column_name <> 'sealed_on' \
         ORDER BY table_name, ordinal_position",
    )
    .fetch_all(&mut hub)
    .await
    .unwrap();
    let mut held: BTreeMap<String, Vec<(String, String, bool)>> = BTreeMap::new();
    for row in rows {
        held.entry(row.get("t")).or_default().push((row.get("c"), row.get("d"), row.get("n")));
    }
    let mut wanted: BTreeMap<String, Vec<(String, String, bool)>> = BTreeMap::new();
    for table in TABLES {
        let mut columns = vec![("id".to_owned(), "bigint".to_owned(), false)];
        if table.offender_column() == Some("offender") {
            columns.push(("offender".to_owned(), "bigint".to_owned(), false));
        }
        columns.extend(table.columns.iter().map(|c| (c.name.to_owned(), c.ty.sql().to_owned(), c.nullable)));
        wanted.insert(table.name.to_owned(), columns);
    }
    assert_eq!(held, wanted);
    // Every code column refuses what is not of its list.
    for table in TABLES {
        for column in table.columns {
            let Some(list) = column.codes() else { continue };
            let check: Option<String> = sqlx::query_scalar(
                "SELECT string_agg(pg_get_constraintdef(oid), ' ') FROM pg_constraint \
                 WHERE conrelid = $1::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%(' || $2 || ' = %'",
            )
            .bind(format!("oms.{}", table.name))
            .bind(column.name)
            .fetch_one(&mut hub)
            .await
            .unwrap();
            let check = check.unwrap_or_else(|| panic!("no CHECK on {}.{}", table.name, column.name));
            assert_eq!(
                check.matches("::text").count(),
                list.codes.len() + usize::from(check.contains("ANY ((")),
                "{check}"
            );
            for entry in list.codes {
                assert!(
                    check.contains(&format!("'{}'", entry.code)),
                    "{}.{} lacks {}",
                    table.name,
                    column.name,
                    entry.code
                );
            }
        }
    }
}

/// That a file is sealed is in no record: what is not in the catalogue cannot cross.
#[tokio::test]
async fn a_seal_changes_no_record_and_is_a_change() {
    let (mut hub, _) = filled("seal").await;
    let data = Data::load().unwrap();
    let on: jiff::civil::Date = "2026-11-02".parse().unwrap();
    let before = content(&mut hub).await;
    assert_eq!(one::<i64>(&mut hub, "SELECT count(sealed_on) FROM oms.offender").await, 0, "none is generated sealed");
    let offender: i64 = one(&mut hub, "SELECT min(id) FROM oms.offender WHERE custody = 'Archived'").await;
    let open: i64 = one(&mut hub, "SELECT min(id) FROM oms.offender WHERE custody = 'Community'").await;
    hub.execute("DELETE FROM liaison.change").await.unwrap();
    let refused = act(&mut hub, &data, &Action::Seal { offender: open }, on).await.unwrap_err().to_string();
    assert!(refused.contains("must be archived"), "{refused}");
    let refused = act(&mut hub, &data, &Action::Unseal { offender }, on).await.unwrap_err().to_string();
    assert!(refused.contains("must be sealed"), "{refused}");
    act(&mut hub, &data, &Action::Seal { offender }, on).await.unwrap();
    assert_eq!(content(&mut hub).await, before);
    let changed = "SELECT min(offender) FROM liaison.change WHERE tbl = 'offender' AND id = offender";
    assert_eq!(one::<Option<i64>>(&mut hub, changed).await, Some(offender));
    let correct = Action::Correct { offender, surname: None };
    let refused = act(&mut hub, &data, &correct, on).await.unwrap_err().to_string();
    assert!(refused.contains("must be unsealed first"), "{refused}");
    // The nightly load keeps it.
    reload(&mut hub).await.unwrap();
    assert_eq!(one::<i64>(&mut hub, "SELECT count(sealed_on) FROM oms.offender").await, 1);
    act(&mut hub, &data, &Action::Unseal { offender }, on).await.unwrap();
    assert_eq!(one::<i64>(&mut hub, "SELECT count(sealed_on) FROM oms.offender").await, 0);
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let (mut hub, _) = filled("again").await;
    let before = content(&mut hub).await;
    let changes: i64 = one(&mut hub, "SELECT count(*) FROM liaison.change").await;
    migrate(&mut hub).await.unwrap();
    assert_eq!(content(&mut hub).await, before);
    assert_eq!(one::<i64>(&mut hub, "SELECT count(*) FROM liaison.change").await, changes);
}

#[tokio::test]
async fn the_population_is_exact_deterministic_and_in_every_table() {
    let (mut hub, done) = filled("population").await;
    assert_eq!((done.files, done.images), (1470, 220));
    for (custody, count) in [("Incarcerated", 130i64), ("Community", 90), ("Archived", 1250)] {
        let held: i64 = sqlx::query_scalar("SELECT count(*) FROM oms.offender WHERE custody = $1")
            .bind(custody)
            .fetch_one(&mut hub)
            .await
            .unwrap();
        assert_eq!(held, count, "{custody}");
    }
    for table in TABLES {
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM oms.{}", table.name)))
            .fetch_one(&mut hub)
            .await
            .unwrap();
        assert!(count > 0, "{} is empty", table.name);
    }
    let photographs: PgRow = sqlx::query(
        "SELECT count(*) AS n, count(DISTINCT jpeg) AS d, min(octet_length(jpeg)) AS least, max(octet_length(jpeg)) AS most, \
         bool_and(sha256(jpeg) = sha256 AND substr(jpeg, 1, 2) = '\\xffd8' AND substr(jpeg, octet_length(jpeg) - 1) = '\\xffd9') AS ok \
         FROM oms.image",
    )
    .fetch_one(&mut hub)
    .await
    .unwrap();
    assert_eq!((photographs.get::<i64, _>("n"), photographs.get::<i64, _>("d")), (220, 220));
    assert!(photographs.get::<i32, _>("least") > 12_000 && photographs.get::<i32, _>("most") < 30_000);
    assert!(photographs.get::<bool, _>("ok"));
    let place = "SELECT bool_and(EXISTS (SELECT FROM oms.institution i WHERE i.municipality = o.municipality)) \
                 FROM oms.offender o WHERE custody = 'Incarcerated'";
    assert!(one::<bool>(&mut hub, place).await, "those in custody are where an institution is");

    let first = content(&mut hub).await;
    let again = generate(&mut hub, &small(1)).await.unwrap();
    assert!(again.already_there);
    let refused = generate(&mut hub, &small(2)).await.unwrap_err().to_string();
    assert!(refused.contains("--replace"), "{refused}");
    let other = generate(&mut hub, &GenerateArgs { replace: true, ..small(2) }).await.unwrap();
    assert_eq!(other.files, 1470);
    assert_ne!(content(&mut hub).await, first);
    generate(&mut hub, &GenerateArgs { replace: true, ..small(1) }).await.unwrap();
    assert_eq!(content(&mut hub).await, first, "the same seed gives the same population");
    let keys: i64 =
        one(&mut hub, "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'oms'::regnamespace")
            .await;
    assert!(keys > 20, "foreign keys are back: {keys}");
}

#[tokio::test]
async fn records_are_of_one_shape_whatever_the_session() {
    let (mut hub, _) = filled("records").await;
    let before = content(&mut hub).await;
    hub.execute("SET TimeZone = 'America/Vancouver'; SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'")
        .await
        .unwrap();
    assert_eq!(content(&mut hub).await, before);
    let rows: Vec<PgRow> = sqlx::query("SELECT offender, grp, tbl, id, body::text AS body FROM liaison.record WHERE offender = 150 OR offender IS NULL")
        .fetch_all(&mut hub)
        .await
        .unwrap();
    let mut own = Vec::new();
    let mut hashes = std::collections::BTreeSet::new();
    for row in &rows {
        let record = RecordRef {
            offender: row.get("offender"),
            grp: row.get("grp"),
            tbl: row.get("tbl"),
            id: row.get("id"),
            body: row.get("body"),
        };
        let table = liaison_records::catalogue::table(record.tbl).unwrap();
        assert_eq!(table.group, liaison_records::codes::Code::parse(record.grp).unwrap());
        assert_eq!(record.offender.is_none(), table.kind == TableKind::Reference);
        let body: serde_json::Map<String, serde_json::Value> = serde_json::from_str(record.body).unwrap();
        assert_eq!(body.len(), table.columns.len());
        for column in table.columns {
            let value = &body[column.json_name];
            assert!(column.nullable || !value.is_null(), "{}.{}", table.name, column.json_name);
        }
        assert!(hashes.insert(record_hash(&record)));
        if record.offender.is_some() {
            own.push(record);
        }
    }
    let subject = subject(own).expect("the file has a search row");
    assert_eq!(subject.offender, 150);
    assert!(subject.photograph.is_some());
}

#[tokio::test]
async fn a_reload_changes_nothing_and_says_everything() {
    let (mut hub, _) = filled("reload").await;
    let before = content(&mut hub).await;
    hub.execute("DELETE FROM liaison.change").await.unwrap();
    reload(&mut hub).await.unwrap();
    assert_eq!(content(&mut hub).await, before);
    let marks: i64 = one(&mut hub, "SELECT count(DISTINCT tbl) FROM liaison.change WHERE id IS NULL").await;
    assert_eq!(usize::try_from(marks).unwrap(), TABLES.len());
}

#[tokio::test]
async fn a_day_plays_every_kind_and_leaves_a_trace() {
    let (mut hub, _) = filled("day").await;
    let mut moved = 0;
    for _ in 0..3 {
        hub.execute("DELETE FROM liaison.change").await.unwrap();
        let played = day(&mut hub, &DayArgs { seed: 1, date: None, json: false }).await.unwrap();
        moved += played.events["move"];
        assert!(played.events.values().sum::<usize>() >= 8, "{played:?}");
        assert!(
            one::<i64>(&mut hub, "SELECT count(DISTINCT xid) FROM liaison.change").await >= 5,
            "several transactions"
        );
    }
    assert!(moved >= 3);
    assert!(one::<i64>(&mut hub, "SELECT count(sealed_on) FROM oms.offender").await >= 3, "one a day at least");
    let PgDate(as_of) = one(&mut hub, "SELECT as_of FROM oms.origin").await;
    assert_eq!(as_of.to_string(), "2026-11-04");
    let stray = "SELECT count(*) FROM oms.offender o WHERE (custody = 'Community') <> (release_type IS NOT NULL) AND custody <> 'Incarcerated'";
    assert_eq!(one::<i64>(&mut hub, stray).await, 0);
}

#[tokio::test]
async fn a_body_is_the_text_of_its_jsonb() {
    let (mut hub, _) = filled("bodies").await;
    // What must be escaped, and what is empty.
    hub.execute(
        "UPDATE oms.offender SET surname = E'O\"Neil\\\\ \\t\\u0001 é \\u2028 </b>', given = '' WHERE id = 150",
    )
    .await
    .unwrap();
    let tables: i64 =
        one(&mut hub, "SELECT count(DISTINCT tbl) FROM liaison.record WHERE body = body::jsonb::text").await;
    assert_eq!(usize::try_from(tables).unwrap(), TABLES.len());
    assert_eq!(one::<i64>(&mut hub, "SELECT count(*) FROM liaison.record WHERE body <> body::jsonb::text").await, 0);
}

#[tokio::test]
async fn capture_goes_from_triggers_to_the_log_and_back() {
    let (mut hub, _) = filled("capture").await;
    let ways = async |hub: &mut PgConnection| -> (i64, i64, i64) {
        let triggers =
            "SELECT count(*) FROM pg_trigger WHERE tgname IN ('liaison_capture_insert', 'liaison_capture_update')";
        let published = "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'liaison_capture'";
        let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
        (one(hub, triggers).await, one(hub, published).await, one(hub, slots).await)
    };
    let all = i64::try_from(TABLES.len()).unwrap();
    assert_eq!(ways(&mut hub).await, (2 * all, 0, 0));
    for _ in 0..2 {
        capture_by(&mut hub, Capture::Wal).await.unwrap();
        // Migrating again, as every upgrade does, leaves it as it is.
        migrate(&mut hub).await.unwrap();
        assert_eq!(captured_by(&mut hub).await.unwrap(), Capture::Wal);
        assert_eq!(ways(&mut hub).await, (0, all, 1));
    }
    hub.execute("DELETE FROM liaison.change").await.unwrap();
    hub.execute("UPDATE oms.offender SET weight_kg = 81 WHERE id = 150").await.unwrap();
    assert_eq!(one::<i64>(&mut hub, "SELECT count(*) FROM liaison.change").await, 0, "nothing for the writer to do");
    capture_by(&mut hub, Capture::Triggers).await.unwrap();
    assert_eq!(ways(&mut hub).await, (2 * all, 0, 0));
    let left = "SELECT count(*) FROM liaison.change WHERE tbl = 'offender' AND id = 150 AND offender = 150";
    assert_eq!(one::<i64>(&mut hub, left).await, 1, "what stood in the log only is taken over");
    hub.execute("UPDATE oms.offender SET weight_kg = 82 WHERE id = 150").await.unwrap();
    assert_eq!(one::<i64>(&mut hub, left).await, 2);
}

#[tokio::test]
async fn actions_fit_the_file_or_say_what_would() {
    let (mut hub, _) = filled("act").await;
    let data = Data::load().unwrap();
    let on = "2026-11-02".parse().unwrap();
    let offender: i64 = one(
        &mut hub,
        "SELECT min(id) FROM oms.offender WHERE status = 'Released' AND release_type <> 'LongTermSupervision'",
    )
    .await;
    let steps: [(Action, &str); 6] = [
        (Action::Move { offender, municipality: "2466023".into() }, "Community Released NoWarrant 2466023 CA-QC"),
        (Action::Suspend { offender }, "Community Suspended Outstanding 2466023 CA-QC"),
        (Action::Abscond { offender }, "Community Suspended Outstanding 2466023 CA-QC"),
        (Action::Apprehend { offender }, "Community Suspended Executed 2466023 CA-QC"),
        (Action::Cancel { offender }, "Community SuspensionCancelled Executed 2466023 CA-QC"),
        (Action::End { offender }, "Archived WarrantExpired Executed 2466023 CA-QC"),
    ];
    for (action, wanted) in steps {
        act(&mut hub, &data, &action, on).await.unwrap();
        let held: String = sqlx::query_scalar(
            "SELECT concat_ws(' ', custody, status, warrant, municipality, jurisdiction) FROM oms.offender WHERE id = $1",
        )
        .bind(offender)
        .fetch_one(&mut hub)
        .await
        .unwrap();
        assert_eq!(held, wanted, "{}", action.name());
    }
    let refused = act(&mut hub, &data, &Action::Suspend { offender }, on).await.unwrap_err().to_string();
    assert!(refused.contains("must be on conditional release"), "{refused}");
    let nowhere = Action::Move { offender: 131, municipality: "9999999".into() };
    let refused = act(&mut hub, &data, &nowhere, on).await.unwrap_err().to_string();
    assert!(refused.contains("must be"), "{refused}");

    let inside: i64 = one(&mut hub, "SELECT min(id) FROM oms.offender WHERE custody = 'Incarcerated' AND status = 'InCustody' AND warrant = 'NoWarrant'").await;
    for action in [
        Action::Release { offender: inside, municipality: Some("5915022".into()) },
        Action::Suspend { offender: inside },
        Action::Apprehend { offender: inside },
        Action::Revoke { offender: inside },
        Action::Correct { offender: inside, surname: Some("Saint-Exemple".into()) },
        Action::Withdraw { offender: inside },
    ] {
        act(&mut hub, &data, &action, on).await.unwrap_or_else(|e| panic!("{}: {e}", action.name()));
    }
    let held: String =
        sqlx::query_scalar("SELECT concat_ws(' ', custody, status, surname) FROM oms.offender WHERE id = $1")
            .bind(inside)
            .fetch_one(&mut hub)
            .await
            .unwrap();
    assert_eq!(held, "Incarcerated Revoked Saint-Exemple");
}
