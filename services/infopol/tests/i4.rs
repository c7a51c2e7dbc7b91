//! Invariant I4 in the database: with psql, as InfoPol's own role, every way round the access log is tried.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fmt::Write as _;

use common::{Replica, files};
use liaison_records::{
    catalogue::{ColumnType, TABLES},
    names::PartnerName,
};

const NO_ROW: &str = "no unused access-log row";
const FILE: &str = "'{\"file\": 101}'";

/// Psql's script to log a request for file 101 and keep its number in `:id`.
const LOG: &str = "SELECT id FROM {journal}.log_request('VPD-1', 'Supervision', 'file', '{\"file\": 101}', 'en', NULL, NULL) \\gset\n";
const READ: &str = "SELECT count(*) || ' records' FROM {journal}.read_file(:id, 'VPD-1', '{\"file\": 101}');\n";

async fn replica() -> Replica {
    let replica = Replica::create().await;
    files::fill(&replica, &files::people(), files::GROUPS).await;
    replica
}

#[tokio::test]
async fn i4_a_read_needs_a_row_that_another_transaction_committed() {
    let replica = replica().await;
    let ok = replica.psql(&format!("{LOG}{READ}"));
    assert!(ok.ends_with("records") && ok != "0 records", "{ok}");

    for (what, script) in [
        ("the same transaction", format!("BEGIN;\n{LOG}{READ}COMMIT;")),
        ("a savepoint of it", format!("BEGIN;\nSAVEPOINT a;\n{LOG}RELEASE a;\n{READ}COMMIT;")),
        ("a savepoint around the read", format!("BEGIN;\n{LOG}SAVEPOINT a;\n{READ}ROLLBACK TO a;\nCOMMIT;")),
        (
            "one statement",
            format!(
                "SELECT count(*) FROM {{journal}}.log_request('VPD-1', 'Supervision', 'file', {FILE}, 'en', NULL, NULL) l, \
                     LATERAL {{journal}}.read_file(l.id, 'VPD-1', {FILE});"
            ),
        ),
        ("a row that was rolled back", format!("BEGIN;\n{LOG}ROLLBACK;\n{READ}")),
        (
            "a prepared transaction",
            format!("BEGIN;\n{LOG}PREPARE TRANSACTION '{}';\n{READ}ROLLBACK PREPARED '{0}';", replica.database),
        ),
        ("another's officer", format!("{LOG}SELECT * FROM {{journal}}.read_file(:id, 'VPD-2', {FILE});")),
        ("another file", format!("{LOG}SELECT * FROM {{journal}}.read_file(:id, 'VPD-1', '{{\"file\": 102}}');")),
        (
            "more than was logged",
            format!("{LOG}SELECT * FROM {{journal}}.read_file(:id, 'VPD-1', '{{\"file\": 101, \"x\": 1}}');"),
        ),
        ("no request", format!("{LOG}SELECT * FROM {{journal}}.read_file(:id, 'VPD-1', NULL);")),
        ("no officer", format!("{LOG}SELECT * FROM {{journal}}.read_file(:id, NULL, {FILE});")),
        ("no number", format!("SELECT * FROM {{journal}}.read_file(NULL, 'VPD-1', {FILE});")),
        ("another kind", format!("{LOG}SELECT {{journal}}.find(:id, 'VPD-1', {FILE});")),
        ("a number of nobody's", format!("SELECT * FROM {{journal}}.read_file(4711, 'VPD-1', {FILE});")),
    ] {
        let said = replica.psql(&script);
        assert!(said.contains("ERROR") && !said.contains("Larivi"), "{what}: {said}");
        assert!(!said.contains("records"), "{what}: {said}");
    }
    replica.remove().await;
}

#[tokio::test]
async fn i4_a_row_is_good_for_one_read() {
    let replica = replica().await;
    let said = replica.psql(&format!("{LOG}{READ}{READ}"));
    assert!(said.contains("records") && said.contains(NO_ROW), "twice: {said}");

    for (what, script) in [
        ("rolled back", format!("{LOG}BEGIN;\n{READ}ROLLBACK;\n{READ}")),
        ("a savepoint undone", format!("{LOG}BEGIN;\nSAVEPOINT a;\n{READ}ROLLBACK TO a;\n{READ}COMMIT;")),
        (
            "twice in a statement",
            format!(
                "{LOG}SELECT count(*) || ' records' FROM generate_series(1, 2) g, LATERAL {{journal}}.read_file(:id + 0 * g, 'VPD-1', {FILE});"
            ),
        ),
    ] {
        let said = replica.psql(&script);
        assert_eq!(said.matches("records").count(), usize::from(!what.starts_with("twice")), "{what}: {said}");
        assert!(said.contains(NO_ROW), "{what}: {said}");
    }

    // Many numbers at once, read by in any order within the window, each once.
    let mut script = String::new();
    for n in 0..25 {
        script.push_str(&LOG.replace("SELECT id", &format!("SELECT id AS id{n}")));
    }
    for n in (0..25).rev() {
        write!(script, "BEGIN;\n{}ROLLBACK;\n{0}", READ.replace(":id", &format!(":id{n}"))).unwrap();
    }
    let said = replica.psql(&script);
    assert_eq!((said.matches("records").count(), said.matches(NO_ROW).count()), (25, 25), "{said}");

    // A minute later it is too late.
    let id = replica.psql(&format!("{LOG}SELECT :id;"));
    replica.exec(&format!("UPDATE {{journal}}.access_log SET at = at - interval '61 seconds' WHERE id = {id}")).await;
    assert!(replica.psql(&READ.replace(":id", &id)).contains(NO_ROW));
    replica.remove().await;
}

#[tokio::test]
async fn i4_a_query_shows_only_what_a_second_row_lists() {
    let replica = replica().await;
    let query = r#"'{"name": "larivière", "names": ["lariviere"], "sounds": ["LRFR"], "page": 1}'"#;
    let log = format!(
        "SELECT id FROM {{journal}}.log_request('VPD-1', 'Supervision', 'search', {query}, 'fr', NULL, NULL) \\gset\n"
    );
    let find = format!("SELECT {{journal}}.find(:id, 'VPD-1', {query}) AS list \\gset\n");
    let shown = "SELECT total, offender, surname FROM {journal}.shown(:list, 'VPD-1');\n";

    assert_eq!(replica.psql(&format!("{log}{find}{shown}")), "1|101|Larivière");
    let listed = replica
        .rows("SELECT kind || ' ' || officer || ' ' || purpose || ' ' || identity || ' ' || files::text || ' ' || (query IS NOT NULL) FROM {journal}.access_log WHERE kind = 'shown'")
        .await;
    assert_eq!(listed, ["shown VPD-1 Supervision asserted {101} true"]);

    for (what, script) in [
        ("the list in the same transaction", format!("{log}BEGIN;\n{find}{shown}COMMIT;")),
        ("the query in the same transaction", format!("BEGIN;\n{log}{find}{shown}COMMIT;")),
        ("the query's own number", format!("{log}SELECT surname FROM {{journal}}.shown(:id, 'VPD-1');")),
        ("another officer", format!("{log}{find}{}", shown.replace("VPD-1", "VPD-2"))),
        (
            "a search for something else",
            format!("{log}SELECT {{journal}}.find(:id, 'VPD-1', '{{\"names\": [\"tremblay\"]}}');"),
        ),
        ("a list as a file", format!("{log}{find}SELECT * FROM {{journal}}.read_file(:list, 'VPD-1', {query});")),
        ("a list that was rolled back", format!("{log}BEGIN;\n{find}ROLLBACK;\n{shown}")),
    ] {
        let said = replica.psql(&script);
        assert!(said.contains("ERROR") && !said.contains("Larivi"), "{what}: {said}");
    }
    let twice = replica.psql(&format!("{log}{find}{shown}{shown}"));
    assert!(twice.matches("Larivi").count() == 1 && twice.contains(NO_ROW), "{twice}");
    let empty = replica.psql(
        "SELECT id FROM {journal}.log_request('VPD-1', 'Supervision', 'search', '{\"page\": 1}', 'en', NULL, NULL) \\gset\n\
         SELECT {journal}.find(:id, 'VPD-1', '{\"page\": 1}');",
    );
    assert!(empty.contains("names nothing"), "{empty}");
    replica.remove().await;
}

#[tokio::test]
async fn i4_denied_requests_are_rows_too_and_open_nothing() {
    let replica = replica().await;
    let said = replica.psql(&format!(
        "SELECT id, outcome, reason FROM {{journal}}.log_request('VPD-1', 'Curiosity', 'file', {FILE}, 'en', NULL, NULL);\n\
         SELECT * FROM {{journal}}.read_file(1, 'VPD-1', {FILE});"
    ));
    assert!(said.starts_with("1|denied|purpose") && said.contains(NO_ROW), "{said}");

    for (change, undo, reason, sentence) in [
        ("suspended = true", "suspended = false", "closed", "closed"),
        ("suspended = NULL", "suspended = false", "closed", "closed"),
        ("fenced = true", "fenced = false", "fenced", "fenced"),
        ("authorized_until = now() - interval '1 s'", "authorized_until = now() + interval '1 h'", "closed", "closed"),
        ("authorized_until = NULL", "authorized_until = now() + interval '1 h'", "closed", "closed"),
    ] {
        // Logged while it was open; then it closes.
        let id = replica.psql(&format!("{LOG}SELECT :id;"));
        if change.ends_with("NULL") && change.starts_with("suspended") {
            replica.exec("ALTER TABLE {share}.cursor ALTER suspended DROP NOT NULL").await;
        }
        replica.exec(&format!("UPDATE {{share}}.cursor SET {change}")).await;
        let read = replica.psql(&READ.replace(":id", &id));
        assert!(read.contains("ERROR") && read.contains(sentence), "{change}: {read}");
        let logged = replica.psql(&format!(
            "SELECT outcome || ' ' || reason FROM {{journal}}.log_request('VPD-1', 'Supervision', 'file', {FILE}, 'en', NULL, NULL);"
        ));
        assert_eq!(logged, format!("denied {reason}"), "{change}");
        replica.exec(&format!("UPDATE {{share}}.cursor SET {undo}")).await;
    }
    assert_eq!(
        replica.rows("SELECT count(*) FROM {journal}.access_log WHERE outcome = 'denied'").await,
        ["6"],
        "every denied request is there"
    );
    replica.exec("DELETE FROM {share}.cursor").await;
    assert!(replica.psql(&format!("{LOG}{READ}")).contains("closed"), "no terms");
    replica.exec("DROP SCHEMA {share} CASCADE").await;
    assert!(replica.psql(&format!("{LOG}{READ}")).contains("closed"), "no replica");
    assert_eq!(replica.psql("SELECT count(*) FROM {journal}.terms();"), "0");
    replica.remove().await;
}

#[tokio::test]
async fn i4_an_old_snapshot_does_not_outlive_the_agreement() {
    let replica = replica().await;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let said = replica.psql(&format!("{LOG}BEGIN ISOLATION LEVEL {level};\n{READ}COMMIT;"));
        assert!(said.contains("READ COMMITTED") && !said.contains("records"), "{level}: {said}");
    }
    // A transaction that began before the end reads nothing after it: now() stands still in it, the clock does not.
    replica.exec("UPDATE {share}.cursor SET authorized_until = clock_timestamp() + interval '400 ms'").await;
    let said = replica.psql(&format!("{LOG}BEGIN;\nSELECT 'began';\nSELECT pg_sleep(0.6);\n{READ}COMMIT;"));
    assert!(said.contains("began") && said.contains("closed") && !said.contains("records"), "{said}");
    replica.remove().await;
}

#[tokio::test]
async fn i3_i4_the_role_has_these_functions_and_nothing_else() {
    let replica = replica().await;
    let other: PartnerName = common::unique("u").parse().unwrap();
    replica.add_partner(&other, &replica.owner()).await;
    let (share, journal) = (other.share_schema(), other.journal_schema());
    let owner = replica.owner();
    for statement in [
        "SELECT * FROM {share}.record",
        "SELECT * FROM {share}.subject",
        "SELECT * FROM {share}.photograph",
        "SELECT * FROM {share}.cursor",
        "SELECT * FROM {journal}.access_log",
        "SELECT * FROM {journal}.taken",
        "SELECT nextval('{journal}.taken')",
        "SELECT setval('{journal}.taken', 1)",
        "INSERT INTO {journal}.access_log (xid, at, officer, purpose, kind, request, language, outcome) \
         VALUES ('1', now(), 'VPD-1', 'Supervision', 'file', '{}', 'en', 'allowed')",
        "UPDATE {journal}.access_log SET used_at = NULL",
        "DELETE FROM {journal}.access_log",
        "TRUNCATE {journal}.access_log",
        "DROP TABLE {journal}.access_log",
        "UPDATE {share}.cursor SET authorized_until = 'infinity'",
        "SELECT {journal}.take(1, 'VPD-1', NULL, '{file}')",
        "SELECT {journal}.require_open()",
        "CREATE FUNCTION {journal}.obstacle() RETURNS text LANGUAGE sql AS 'SELECT NULL'",
        "CREATE OR REPLACE FUNCTION {journal}.obstacle() RETURNS text LANGUAGE sql AS 'SELECT NULL'",
        "ALTER FUNCTION {journal}.terms() SECURITY INVOKER",
        "CREATE TABLE {journal}.mine (x int)",
        "CREATE SCHEMA mine",
        "CREATE TABLE public.mine (x int)",
        "CREATE TEMP TABLE mine (x int)",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY {share}.record TO STDOUT",
        "SELECT lo_import('/etc/passwd')",
        "CREATE ROLE friend",
        &format!("SET ROLE {owner}"),
        &format!("SET SESSION AUTHORIZATION {owner}"),
        &format!("SELECT * FROM {share}.record"),
        &format!("SELECT * FROM {journal}.access_log"),
        &format!("SELECT * FROM {journal}.terms()"),
        &format!("SELECT * FROM {journal}.log_request('VPD-1', 'Supervision', 'file', {FILE}, 'en', NULL, NULL)"),
        &format!("SELECT * FROM {journal}.read_file(1, 'VPD-1', {FILE})"),
    ] {
        let said = replica.psql(&format!("{statement};"));
        assert!(said.starts_with("ERROR"), "{statement}: {said}");
    }
    let functions = replica
        .rows(&format!(
            "SELECT string_agg(p.proname, ' ' ORDER BY p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
             WHERE (n.nspname LIKE 'journal%' OR n.nspname LIKE 'share%') AND has_function_privilege('{}', p.oid, 'EXECUTE') \
             AND has_schema_privilege('{0}', n.oid, 'USAGE')",
            replica.partner.reader_role()
        ))
        .await;
    assert_eq!(functions, ["find log_request read_file read_photograph shown terms"]);
    replica.exec(&format!("DROP OWNED BY \"{0}\"; DROP ROLE \"{0}\"", other.reader_role())).await;
    replica.remove().await;
}

#[tokio::test]
async fn i4_objects_of_the_role_do_not_stand_in_for_the_functions_own() {
    let replica = replica().await;
    // As if somebody had left TEMP and a schema of its own to the role: what is in them must never be called.
    replica
        .exec(&format!(
            "GRANT TEMP ON DATABASE {} TO \"{1}\"; CREATE SCHEMA trap AUTHORIZATION \"{1}\"",
            replica.database,
            replica.partner.reader_role()
        ))
        .await;
    let said = replica.psql(&format!(
        "CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT ''epoch''::timestamptz';\n\
         CREATE FUNCTION trap.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS 'SELECT ''3''::xid8';\n\
         CREATE FUNCTION trap.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';\n\
         CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.same);\n\
         CREATE TEMP TABLE cursor (authorized_until timestamptz, suspended bool, fenced bool);\n\
         INSERT INTO cursor VALUES ('infinity', false, false);\n\
         CREATE TEMP TABLE access_log (id bigint);\n\
         SET search_path = trap, pg_temp, {{share}}, {{journal}}, pg_catalog;\n\
         BEGIN;\n{LOG}{READ}ROLLBACK;\n{LOG}SELECT 'found ' || count(*) FROM {{journal}}.read_file(:id, 'VPD-2', {FILE});"
    ));
    assert_eq!(said.matches(NO_ROW).count(), 2, "{said}");
    assert!(!said.contains("records") && !said.contains("found"), "{said}");
    replica.exec("DROP SCHEMA trap CASCADE").await;
    replica.remove().await;
}

#[tokio::test]
async fn a_file_comes_with_the_offices_and_officers_that_it_names() {
    let replica = replica().await;
    let tables = replica.psql(&format!(
        "{LOG}SELECT DISTINCT tbl FROM {{journal}}.read_file(:id, 'VPD-1', {FILE}) WHERE offender IS NULL ORDER BY 1;"
    ));
    assert_eq!(tables, "office\nparole_officer");
    // The keys that the function follows are those that the catalogue says are references.
    let sql = include_str!("../../sync/sql/journal.sql");
    for (table, column) in TABLES.iter().flat_map(|t| t.columns.iter().map(move |c| (t, c))) {
        if let ColumnType::Reference(to) = column.ty {
            let pair = format!("('{}', '{to}')", column.json_name);
            assert!(sql.contains(&pair), "{}.{}: {pair}", table.name, column.name);
        }
    }
    let photograph = replica.rows("SELECT encode(sha256, 'hex') FROM {share}.photograph").await.remove(0);
    let read = |file: i64, sha: &str| {
        let request = format!("'{{\"file\": {file}, \"sha256\": \"{sha}\"}}'");
        replica.psql(&format!(
            "SELECT id FROM {{journal}}.log_request('VPD-1', 'Supervision', 'photograph', {request}, 'en', NULL, NULL) \\gset\n\
             SELECT coalesce(octet_length({{journal}}.read_photograph(:id, 'VPD-1', {request})) > 1000, false);"
        ))
    };
    assert_eq!(read(101, &photograph), "t");
    assert_eq!(read(999, &photograph), "f", "another file's photograph");
    assert_eq!(read(101, &"0".repeat(64)), "f");
    replica.remove().await;
}
