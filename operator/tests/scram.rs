//! The verifier against a real PostgreSQL (TEST_DATABASE_URL): a role made with it lets its password in, and no other.

use liaison_operator::scram;

#[tokio::test]
async fn postgresql_takes_the_verifier() {
    let url = std::env::var("TEST_DATABASE_URL")
        .expect("TEST_DATABASE_URL must be a superuser's: tests/cluster/services up; eval \"$(tests/cluster/services env)\"");
    let (admin, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let role = format!("scram_test_{}", std::process::id());
    let verifier = scram::verifier("Kd7-x_9a0Q", &rand::random());
    admin.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD '{verifier}'")).await.unwrap();
    let held: String = admin
        .query_one("SELECT rolpassword FROM pg_authid WHERE rolname = $1", &[&role])
        .await
        .unwrap()
        .get(0);
    assert_eq!(held, verifier, "PostgreSQL stores it as it is, and does not hash it again");
    // Where the server asks for a password, it must be this one.
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    config.user(&role).password("Kd7-x_9a0Q");
    let (_, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    drop(connection);
    let asks = admin
        .query_one("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'scram-sha-256' AND type LIKE 'host%'", &[])
        .await
        .unwrap()
        .get::<_, i64>(0);
    let wrong = config.password("wrong").connect(tokio_postgres::NoTls).await;
    assert!(asks == 0 || wrong.is_err());
    admin.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
    assert!(asks > 0, "the server trusts everybody; the check needs a pg_hba.conf line with scram-sha-256");
}
