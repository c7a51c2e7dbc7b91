//! The pages as a browser draws them, for looking at: `cargo test -p liaison-infopol --test screens -- --ignored`.
//!
//! Writes PNG files to `target/screens`, drawn by Chromium from what InfoPol answered. Synthetic data only.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{fs, path::Path, process::Command};

use common::{
    Replica, files,
    https::{Answer, Browser, Service},
};

fn draw(directory: &Path, name: &str, answer: &Answer, size: &str) {
    let page = directory.join(format!("{name}.html"));
    fs::write(&page, answer.text().replace("/assets/infopol.css", "infopol.css")).unwrap();
    let profile = tempfile::TempDir::new().unwrap();
    let done = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={size}"))
        .arg(format!("--screenshot={}", directory.join(format!("{name}.png")).display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium must be installed (Debian: chromium)");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
#[ignore = "for looking at; needs Chromium"]
async fn draw_the_pages() {
    let replica = Replica::create().await;
    files::fill(&replica, &files::people(), files::GROUPS).await;
    let service = Service::start(&replica).await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/screens");
    fs::create_dir_all(&directory).unwrap();
    let directory = directory.canonicalize().unwrap();
    fs::write(directory.join("infopol.css"), service.send("GET", "/assets/infopol.css", &[], "").await.text()).unwrap();
    let mut browser = Browser::new(&service);
    let sign_on = browser.get("/fr").await;
    draw(&directory, "sign-on-fr", &sign_on, "1200,900");
    browser.sign_on("en").await;
    for lang in ["en", "fr"] {
        let search = browser.get(&format!("/{lang}/search")).await;
        draw(&directory, &format!("search-{lang}"), &search, "1200,850");
        let results = browser.post(&format!("/{lang}/search"), &[("name", "tremblay")]).await;
        draw(&directory, &format!("results-{lang}"), &results, "1200,700");
        let profile = browser.post(&format!("/{lang}/file"), &[("file", "101")]).await;
        draw(&directory, &format!("profile-{lang}"), &profile, "1200,2100");
    }
    let list = browser.post("/en/at-large", &[]).await;
    draw(&directory, "at-large-en", &list, "1200,700");
    let profile = browser.post("/en/file", &[("file", "102")]).await;
    draw(&directory, "narrow", &profile, "500,2600");
    replica.exec("UPDATE {share}.cursor SET as_of = now() - interval '40 minutes'").await;
    let stale = browser.post("/fr/search", &[("name", "x")]).await;
    draw(&directory, "stale-fr", &stale, "1200,850");
    replica.exec("UPDATE {share}.cursor SET suspended = true").await;
    draw(&directory, "closed", &browser.get("/en/search").await, "1200,700");
    service.stop().await;
    replica.remove().await;
}
