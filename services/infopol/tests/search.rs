//! What a search finds, against a look at every file; and that it looks at no more files than it must.
//!
//! The names are those of the synthetic OMS: accents, hyphens, apostrophes, several words.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{collections::BTreeMap, time::Instant};

use common::Replica;
use liaison_records::{
    encoding::{RecordRef, subject},
    search,
};
use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};

const OFFICER: &str = "VPD-1";
const SURNAMES: &str = include_str!("../../oms/data/names-surname.csv");
const GIVEN: &str = include_str!("../../oms/data/names-given.csv");

/// Names that are rare in the lists, and must not be missed.
const PARTICULAR: [(&str, &str); 10] = [
    ("O'Brien", "Zoé"),
    ("D\u{2019}Amours", "Jean-Sébastien"),
    ("St-Pierre", "Marc-André"),
    ("Sainte-Marie", "Anne"),
    ("De la Durantaye", "Luc"),
    ("T'Seleie", "Bjørn"),
    ("Kwìkwèxwelhp", "Rose"),
    ("Eagle Speaker", "Ángel"),
    ("Ł", "Ö"),
    ("Nuñez y Ruiz", "María José"),
];

struct Names {
    surnames: Vec<&'static str>,
    given: Vec<&'static str>,
}

impl Names {
    fn load() -> Self {
        let of = |csv: &'static str| csv.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
        Self { surnames: of(SURNAMES), given: of(GIVEN) }
    }

    fn pick(&self, random: &mut ChaCha8Rng) -> (&'static str, &'static str) {
        if random.random_ratio(1, 8) {
            return *PARTICULAR.choose(random).unwrap();
        }
        // The common ones come first in the lists, and are to meet one another.
        let near = |random: &mut ChaCha8Rng, list: &[&'static str]| {
            let span = if random.random_bool(0.5) { 60 } else { list.len() };
            list[random.random_range(0..span.min(list.len()))]
        };
        (near(random, &self.surnames), near(random, &self.given))
    }
}

fn date(random: &mut ChaCha8Rng) -> String {
    format!("19{}-0{}-1{}", random.random_range(60..64), random.random_range(1..4), random.random_range(0..4))
}

/// The search row of a file with these records, as sync makes it.
fn row(file: i64, random: &mut ChaCha8Rng, names: &Names) -> Value {
    let (surname, given) = names.pick(random);
    let at_large = ["NotAtLarge", "NotAtLarge", "NotAtLarge", "Escaped", "UnlawfullyAtLarge", "Apprehended"];
    let own = json!({
        "fps": format!("{:06}B", file % 997), "surname": surname, "given": given, "birthDate": date(random),
        "custody": "Community", "status": "Released", "atLarge": at_large.choose(random).unwrap(),
        "jurisdiction": "CA-BC", "municipality": "5915022"
    });
    let mut bodies = vec![("offender", file, own.to_string())];
    for n in 0..random.random_range(0..3_i64) {
        let (surname, given) = names.pick(random);
        let born = random.random_bool(0.5).then(|| date(random));
        let alias = json!({"surname": surname, "given": given, "birthDate": born});
        bodies.push(("alias", file * 10 + n, alias.to_string()));
    }
    let record = |(tbl, id, body)| RecordRef { offender: Some(file), grp: "identity", tbl, id, body };
    let s = subject(bodies.iter().map(|(tbl, id, body)| record((*tbl, *id, body.as_str())))).unwrap();
    json!({
        "offender": s.offender, "fps": s.fps, "surname": s.surname, "given": s.given, "names": s.names,
        "sounds": s.sounds, "birth_date": s.birth_date, "other_dates": s.other_dates, "custody": s.custody,
        "status": s.status, "at_large": s.at_large, "jurisdiction": s.jurisdiction, "municipality": s.municipality,
        "batch": 1,
    })
}

async fn fill(replica: &Replica, files: i64) {
    let (names, mut random) = (Names::load(), ChaCha8Rng::seed_from_u64(3));
    let mut rows: Vec<Value> = (1..=files).map(|file| row(file, &mut random, &names)).collect();
    // Held, but without a name that could be found: as sync writes a file whose records it can not read.
    rows.push(json!({"offender": files + 1, "surname": "", "given": "", "names": [], "sounds": [], "other_dates": [],
                     "custody": "", "status": "", "at_large": "", "jurisdiction": "", "municipality": "", "batch": 1}));
    let share = replica.partner.share_schema();
    let sql =
        format!("INSERT INTO {share}.subject SELECT s.* FROM jsonb_populate_recordset(NULL::{share}.subject, $1) s");
    sqlx::query(AssertSqlSafe(sql)).bind(Value::Array(rows)).execute(&replica.admin).await.unwrap();
    replica.exec("ANALYZE {share}.subject").await;
}

/// A name as somebody might type it, of somebody who is there or not.
fn typed(random: &mut ChaCha8Rng, names: &Names) -> String {
    let (surname, given) = names.pick(random);
    let mut words: Vec<String> = match random.random_range(0..4) {
        0 => vec![surname.to_owned()],
        1 => vec![given.to_owned()],
        2 => vec![surname.to_owned(), given.to_owned()],
        _ => format!("{given} {surname}").split([' ', '-']).map(str::to_owned).collect(),
    };
    for word in &mut words {
        let letters: Vec<char> = word.chars().collect();
        *word = match random.random_range(0..5) {
            0 => letters[..random.random_range(1..=letters.len())].iter().collect(),
            1 => letters[..letters.len().min(2)].iter().collect(),
            2 => word.to_uppercase(),
            // A letter too few.
            3 if letters.len() > 3 => {
                let gone = random.random_range(1..letters.len());
                letters.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, c)| c).collect()
            }
            _ => word.clone(),
        };
    }
    words.join([" ", ", ", "-"].choose(random).unwrap())
}

fn query(random: &mut ChaCha8Rng, names: &Names) -> Value {
    let size = *[1, 5, 25, 100].choose(random).unwrap();
    let mut request = json!({"page": random.random_range(1..4), "size": size});
    if random.random_ratio(9, 10) {
        let keys = search::query(&typed(random, names));
        request["names"] = json!(keys.names);
        request["sounds"] = json!(keys.sounds);
    }
    if random.random_ratio(1, 6) {
        request["birthDate"] = json!(date(random));
    }
    if random.random_ratio(1, 10) {
        request["bornFrom"] = json!(date(random));
    }
    if random.random_ratio(1, 10) {
        request["bornTo"] = json!(date(random));
    }
    if random.random_ratio(1, 10) {
        request["fps"] = json!(format!("{:06}B", random.random_range(0..997)));
    }
    if random.random_ratio(1, 6) {
        request["atLarge"] = json!(true);
    }
    request
}

/// How many files a request finds and which of them its page shows, by a look at every file.
async fn scan(replica: &Replica, request: &Value) -> (i32, Vec<i64>) {
    let sql = format!(
        r#"WITH asked AS (
            SELECT ARRAY(SELECT '% ' || w || '%' FROM jsonb_array_elements_text(coalesce($1 -> 'names', '[]')) w) AS words,
                   ARRAY(SELECT k FROM jsonb_array_elements_text(coalesce($1 -> 'sounds', '[]')) k) AS keys
        ), hit AS (
            SELECT s.offender, s.surname, s.given, NOT exact AS alike
              FROM {share}.subject s CROSS JOIN asked a
             CROSS JOIN LATERAL (SELECT (' ' || array_to_string(s.names, ' ')) COLLATE "C" LIKE ALL (a.words)) w(exact)
             WHERE ($1 ->> 'fps' IS NULL OR s.fps = $1 ->> 'fps')
               AND ($1 ->> 'birthDate' IS NULL OR s.birth_date = ($1 ->> 'birthDate')::date
                    OR ($1 ->> 'birthDate')::date = ANY (s.other_dates))
               AND ($1 ->> 'bornFrom' IS NULL OR s.birth_date >= ($1 ->> 'bornFrom')::date)
               AND ($1 ->> 'bornTo' IS NULL OR s.birth_date <= ($1 ->> 'bornTo')::date)
               AND (NOT coalesce(($1 ->> 'atLarge')::boolean, false) OR s.at_large IN ('UnlawfullyAtLarge', 'Escaped'))
               AND (exact OR (cardinality(keys) > 0 AND s.sounds @> keys))
        )
        SELECT (SELECT count(*) FROM hit)::integer,
               ARRAY(SELECT offender FROM hit ORDER BY alike, surname, given, offender
                     LIMIT ($1 ->> 'size')::integer OFFSET (($1 ->> 'page')::integer - 1) * ($1 ->> 'size')::integer)"#,
        share = replica.partner.share_schema()
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(request).fetch_one(&replica.admin).await.unwrap();
    (row.get(0), row.get(1))
}

/// The same, as an officer would find it: the row of the access log that lists what is shown.
async fn find(replica: &Replica, request: &Value) -> Result<(i32, Vec<i64>), sqlx::Error> {
    let journal = replica.partner.journal_schema();
    let log =
        format!("SELECT id FROM {journal}.log_request($1, 'Supervision', 'search', $2, 'en', NULL::text, NULL::text)");
    let access: i64 =
        sqlx::query_scalar(AssertSqlSafe(log)).bind(OFFICER).bind(request).fetch_one(&replica.admin).await?;
    let list: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {journal}.find($1, $2, $3)")))
        .bind(access)
        .bind(OFFICER)
        .bind(request)
        .fetch_one(&replica.admin)
        .await?;
    let row = sqlx::query(AssertSqlSafe(format!("SELECT total, files FROM {journal}.access_log WHERE id = $1")))
        .bind(list)
        .fetch_one(&replica.admin)
        .await?;
    Ok((row.get(0), row.get(1)))
}

fn is_empty(request: &Value) -> bool {
    let named = request["names"].as_array().is_some_and(|names| !names.is_empty());
    !named && ["fps", "birthDate", "bornFrom", "bornTo", "atLarge"].iter().all(|key| request[key].is_null())
}

#[tokio::test]
async fn a_search_finds_what_a_look_at_every_file_finds() {
    let replica = Replica::create().await;
    fill(&replica, 3_000).await;
    let (names, mut random) = (Names::load(), ChaCha8Rng::seed_from_u64(5));
    let mut met: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..500 {
        let request = query(&mut random, &names);
        if is_empty(&request) {
            assert!(find(&replica, &request).await.is_err(), "nothing is asked for: {request}");
            continue;
        }
        let expected = scan(&replica, &request).await;
        assert_eq!(find(&replica, &request).await.unwrap(), expected, "{request}");
        let words = request["names"].as_array().map_or(0, Vec::len);
        let letter = |w: &Value| w.as_str().is_some_and(|w| w.chars().count() == 1);
        for (what, holds) in [
            ("found nothing", expected.0 == 0),
            ("found some", expected.0 > 0),
            ("more than a page", i64::from(expected.0) > request["size"].as_i64().unwrap()),
            ("past the last page", expected.0 > 0 && expected.1.is_empty()),
            ("several words", words > 1),
            ("one letter", words == 1 && letter(&request["names"][0])),
            ("no name", words == 0),
        ] {
            *met.entry(what).or_default() += u32::from(holds);
        }
    }
    println!("{met:?}");
    assert!(met.values().all(|count| *count > 0), "{met:?}");
    for (surname, given) in PARTICULAR {
        for name in [surname.to_owned(), given.to_owned(), format!("{given} {surname}")] {
            let keys = search::query(&name);
            let request = json!({"names": keys.names, "sounds": keys.sounds, "page": 1, "size": 100});
            let found = find(&replica, &request).await.unwrap();
            assert!(found.0 > 0, "{name}");
            assert_eq!(found, scan(&replica, &request).await, "{name}");
        }
    }
    replica.remove().await;
}

#[tokio::test]
async fn a_word_is_only_ever_the_beginning_of_a_name() {
    let replica = Replica::create().await;
    fill(&replica, 300).await;
    // InfoPol sends letters and digits; its role may send anything.
    for word in
        ["o'b", "a\\", "\\'", "'", "''", "zz:* | a", "zz' | 'a':*", "zz':* | 'a", "!zz", "a & b", "%", "_", "zz:A"]
    {
        let request = json!({"names": [word], "sounds": [], "page": 1, "size": 100});
        assert_eq!(find(&replica, &request).await.unwrap().0, 0, "{word}");
    }
    assert!(find(&replica, &json!({"names": [""], "page": 1})).await.is_err(), "no word at all");
    replica.remove().await;
}

/// 150,000 files, as many as all of the OMS: the plans that the function itself runs, as PostgreSQL reports them.
#[tokio::test]
async fn no_search_reads_every_file() {
    let replica = Replica::create().await;
    fill(&replica, 3_000).await;
    replica
        .exec(
            "INSERT INTO {share}.subject
             SELECT n * 10000 + offender, fps || n, surname, given, names, sounds, birth_date - n, other_dates, custody,
                    status, CASE WHEN n % 25 = 0 THEN at_large ELSE 'NotAtLarge' END, jurisdiction, municipality,
                    photograph, batch
               FROM {share}.subject, generate_series(1, 49) n;
             ANALYZE {share}.subject",
        )
        .await;
    let named = |name: &str| {
        let keys = search::query(name);
        json!({"names": keys.names, "sounds": keys.sounds, "page": 1, "size": 25})
    };
    let with = |mut request: Value, key: &str, value: Value| {
        request[key] = value;
        request
    };
    for (what, request) in [
        ("a name", named("D'Amours")),
        ("the beginning of a name", named("kwikw")),
        ("several words", named("jean seb damours")),
        ("two letters", named("zo")),
        ("a letter and a name", named("z o'brien")),
        ("a name of nobody's", named("Zzyzx")),
        ("a name, the last page", with(named("st-pierre"), "page", json!(300))),
        ("a number", json!({"fps": "000007B3", "page": 1, "size": 25})),
        ("a date of birth", json!({"birthDate": "1961-02-11", "page": 1, "size": 25})),
        ("a name and a date of birth", with(named("anne"), "birthDate", json!("1961-02-11"))),
        ("a name among those at large", with(named("marc"), "atLarge", json!(true))),
    ] {
        let text = request.to_string().replace('\'', "''");
        let script = format!(
            "SELECT id FROM {{journal}}.log_request('{OFFICER}', 'Supervision', 'search', '{text}', 'en', NULL, NULL) \\gset\n\
             LOAD 'auto_explain';\n\
             SET auto_explain.log_min_duration = 0;\nSET auto_explain.log_nested_statements = on;\n\
             SET client_min_messages = log;\nSELECT {{journal}}.find(:id, '{OFFICER}', '{text}');\n"
        );
        let said = replica.admin_psql(&script);
        assert!(!said.contains("ERROR"), "{what}: {said}");
        let plan = said.split("Query Text:").find(|plan| plan.contains("hit AS MATERIALIZED")).expect(&said);
        assert!(!plan.contains("Seq Scan on subject"), "{what}: {plan}");
        assert!(plan.contains("Scan on subject_") || plan.contains("Scan using subject_"), "{what}: {plan}");
        let started = Instant::now();
        let found = find(&replica, &request).await.unwrap();
        let (took, started) = (started.elapsed(), Instant::now());
        assert_eq!(found, scan(&replica, &request).await, "{what}");
        println!("{what}: {} of 150,001 files in {took:.1?}; looking at each takes {:.1?}", found.0, started.elapsed());
    }
    replica.remove().await;
}

#[tokio::test]
async fn a_replica_of_an_earlier_version_gets_the_indexes() {
    let replica = Replica::create().await;
    fill(&replica, 300).await;
    let indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = '{share}' ORDER BY 1";
    let fresh = replica.rows(indexes).await;
    replica
        .exec(
            "DROP INDEX {share}.subject_name_keys, {share}.subject_other_dates;
             CREATE INDEX subject_names ON {share}.subject USING gin (names)",
        )
        .await;
    assert_ne!(replica.rows(indexes).await, fresh);
    replica.prepare().await;
    assert_eq!(replica.rows(indexes).await, fresh);
    let keys = search::query("o'brien");
    let request = json!({"names": keys.names, "sounds": keys.sounds, "page": 1, "size": 25});
    assert_eq!(find(&replica, &request).await.unwrap(), scan(&replica, &request).await);
    replica.remove().await;
}
