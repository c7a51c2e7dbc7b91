//! The verifier against a real PostgreSQL (TEST_DATABASE_URL): it is, byte for byte, what PostgreSQL computes itself from the
//! same password and salt, and PostgreSQL stores ours as it is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use base64::{Engine, engine::general_purpose::STANDARD};
use liaison_operator::scram;

const PASSWORD: &str = "Kd7-x_9a0Q";

#[tokio::test]
async fn postgresql_computes_and_takes_the_same_verifier() {
    let url = std::env::var("TEST_DATABASE_URL").expect(
        "TEST_DATABASE_URL must be a superuser's: tests/cluster/services up; eval \"$(tests/cluster/services env)\"",
    );
    let (admin, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let role = format!("scram_test_{}", std::process::id());
    let held = async || -> String {
        let row = admin.query_one("SELECT rolpassword FROM pg_authid WHERE rolname = $1", &[&role]).await.unwrap();
        row.get(0)
    };
    admin
        .batch_execute(&format!(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"
        ))
        .await
        .unwrap();
    let theirs = held().await;
    let salt = theirs.split(['$', ':']).nth(2).unwrap();
    let salt: [u8; 16] = STANDARD.decode(salt).unwrap().try_into().unwrap();
    assert_eq!(scram::verifier(PASSWORD, &salt), theirs);

    let ours = scram::verifier(PASSWORD, &rand::random());
    admin.batch_execute(&format!("ALTER ROLE {role} PASSWORD '{ours}'")).await.unwrap();
    assert_eq!(held().await, ours, "PostgreSQL recognizes a verifier and does not hash it again");

    // Where the server asks for passwords (the one of tests/cluster/services trusts its own machine), this one logs in and
    // another does not.
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    assert!(config.user(&role).password(PASSWORD).connect(tokio_postgres::NoTls).await.is_ok());
    admin.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
}
