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
    draw_page(directory, name, &answer.text().replace("/assets/infopol.css", "infopol.css"), size);
}

fn draw_page(directory: &Path, name: &str, text: &str, size: &str) {
    let page = directory.join(format!("{name}.html"));
    fs::write(&page, text).unwrap();
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

/// On a desk and on a telephone.
fn both(directory: &Path, name: &str, answer: &Answer, (wide, narrow): (u32, u32)) {
    draw(directory, name, answer, &format!("1200,{wide}"));
    // A page of its own width in a frame of the telephone's: Chromium has no window narrower than 500 px.
    let framed = format!("{name}-narrow");
    let page = format!(
        "<!DOCTYPE html><style>body {{ margin: 0 }} iframe {{ border: 0 }}</style><iframe src=\"{name}.html\" width=\"375\" height=\"{narrow}\"></iframe>"
    );
    draw_page(directory, &framed, &page, &format!("500,{narrow}"));
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
    both(&directory, "sign-on-fr", &sign_on, (900, 1100));
    browser.sign_on("en").await;
    for lang in ["en", "fr"] {
        let search = browser.get(&format!("/{lang}/search")).await;
        both(&directory, &format!("search-{lang}"), &search, (850, 1200));
        let results = browser.post(&format!("/{lang}/search"), &[("name", "tremblay")]).await;
        both(&directory, &format!("results-{lang}"), &results, (700, 1200));
        let profile = browser.post(&format!("/{lang}/file"), &[("file", "101")]).await;
        both(&directory, &format!("profile-{lang}"), &profile, (2100, 3200));
    }
    let list = browser.post("/en/at-large", &[]).await;
    both(&directory, "at-large-en", &list, (700, 1000));
    let none = browser.post("/en/search", &[("name", "nobody at all")]).await;
    both(&directory, "none-en", &none, (700, 900));
    replica.exec("UPDATE {share}.cursor SET as_of = now() - interval '40 minutes'").await;
    let stale = browser.post("/fr/search", &[("name", "x")]).await;
    both(&directory, "stale-fr", &stale, (850, 1200));
    replica.exec("UPDATE {share}.cursor SET fenced = true").await;
    both(&directory, "fenced", &browser.post("/fr/search", &[("name", "tremblay")]).await, (700, 900));
    replica.exec("UPDATE {share}.cursor SET suspended = true").await;
    both(&directory, "closed", &browser.get("/en/search").await, (700, 900));
    service.stop().await;
    replica.remove().await;
}
