//! The API and the pages over real TLS, against a replica on a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use axum::body::Body;
use common::{
    Replica, files,
    https::{Browser, DOMAIN, OFFICER, Service, TRACE, ca, leaf},
};
use hyper::{Request, StatusCode};
use serde_json::json;

async fn served() -> (Replica, Service) {
    let replica = Replica::create().await;
    files::fill(&replica, &files::people(), files::GROUPS).await;
    let service = Service::start(&replica).await;
    (replica, service)
}

async fn end(replica: Replica, service: Service) {
    service.stop().await;
    replica.remove().await;
}

fn found(answer: &common::https::Answer) -> Vec<i64> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.json()["results"].as_array().unwrap().iter().map(|row| row["file"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn only_the_gateway_gets_a_connection_and_only_the_partner_an_answer() {
    let (replica, service) = served().await;
    let request = || Request::builder().uri("/api/terms").header("host", "x").body(Body::empty()).unwrap();
    let uri = |role: &str| format!("spiffe://{DOMAIN}/{role}");
    assert!(service.send_as(None, request()).await.is_err(), "no certificate");
    let (certificate, key, _) = leaf(&service.ca, "gateway", &uri("partner/vancouver-police"));
    assert!(service.send_as(Some((&certificate, &key)), request()).await.is_err(), "another's name");
    let (certificate, key, _) = leaf(&ca(), "gateway", &uri("gateway"));
    assert!(service.send_as(Some((&certificate, &key)), request()).await.is_err(), "another CA");

    let answer = service.send_bare("GET", "/api/terms", &[]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "no Client-Cert");
    assert_eq!(answer.json()["type"], "urn:liaison:problem:wrong-certificate");
    let (_, _, der) = leaf(&service.ca, "client", &uri("partner/victoria-police"));
    let other = {
        use base64::Engine;
        format!(":{}:", base64::engine::general_purpose::STANDARD.encode(der))
    };
    assert_eq!(service.send_bare("GET", "/en", &[("client-cert", &other)]).await.status, StatusCode::FORBIDDEN);
    let twice = [("client-cert", service.client_cert.as_str()), ("client-cert", other.as_str())];
    assert_eq!(service.send_bare("GET", "/en", &twice).await.status, StatusCode::FORBIDDEN);
    assert_eq!(service.send("GET", "/api/terms", &[], "").await.status, StatusCode::OK);
    end(replica, service).await;
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_without_a_restart() {
    let (replica, service) = served().await;
    let serial = |stream: &tokio_rustls::client::TlsStream<tokio::net::TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let (certificate, key, _) = leaf(&service.ca, "gateway", &format!("spiffe://{DOMAIN}/gateway"));
    let before = serial(&service.connect(Some((&certificate, &key))).await.unwrap());
    service.renew(replica.partner.as_str());
    let mut after = before.clone();
    for _ in 0..80 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        after = serial(&service.connect(Some((&certificate, &key))).await.unwrap());
        if after != before {
            break;
        }
    }
    assert_ne!(before, after);
    end(replica, service).await;
}

#[tokio::test]
async fn api_search_finds_by_name_alias_sound_number_and_date() {
    let (replica, service) = served().await;
    for (query, expected, matched) in [
        (json!({"name": "lariviere"}), vec![101], "name"),
        (json!({"name": "LARIVIÈRE, Jean-François"}), vec![101], "name"),
        (json!({"name": "johnny rivers"}), vec![101], "alias"),
        (json!({"name": "trembl"}), vec![102, 103, 107], "name"),
        (json!({"name": "tremblay sylvie"}), vec![103], "name"),
        (json!({"name": "obrien"}), vec![104], "name"),
        (json!({"name": "Saint-Pierre"}), vec![105], "name"),
        (json!({"name": "Nunez Maria"}), vec![108], "name"),
        (json!({"fps": "104 007 b"}), vec![104], "fps"),
        (json!({"birthDate": "1992-12-25"}), vec![106], "birthDate"),
        (json!({"birthDate": "1980-04-01"}), vec![101, 104], "birthDate"),
        (json!({"bornFrom": "1985-01-01", "bornTo": "1989-12-31"}), vec![102, 107], "birthDate"),
        (json!({"name": "tremblay", "birthDate": "1990-07-21"}), vec![103], "name"),
        (json!({"name": "tremblay", "atLarge": true}), vec![], "name"),
        (json!({"name": "nobody at all"}), vec![], "name"),
    ] {
        let answer = service.api("/api/search", &query).await;
        let files = found(&answer);
        assert_eq!(files, expected, "{query}: {}", answer.text());
        let body = answer.json();
        assert_eq!(body["total"], json!(expected.len()), "{query}");
        assert!(body["dataAsOf"].is_string() && body["stale"] == json!(false) && body["accessRecord"].is_i64());
        if let Some(row) = body["results"].get(0) {
            assert_eq!(row["matchedBy"], matched, "{query}");
        }
    }
    // Exact before alike: Smith is an alias of O'Brien, Smyth only sounds so.
    let answer = service.api("/api/search", &json!({"name": "Smith"})).await;
    assert_eq!(found(&answer), [104, 106]);
    assert_eq!(answer.json()["results"][1]["matchedBy"], "sound");
    assert_eq!(found(&service.api("/api/at-large", &json!({})).await), [101, 105]);
    end(replica, service).await;
}

#[tokio::test]
async fn api_pages_list_every_file_once() {
    let (replica, service) = served().await;
    let mut all = Vec::new();
    for page in 1..=3 {
        let query = json!({"bornFrom": "1900-01-01", "page": page, "pageSize": 3});
        let answer = service.api("/api/search", &query).await;
        assert_eq!(answer.json()["total"], 8);
        all.extend(found(&answer));
    }
    assert_eq!(all.len(), 8);
    all.sort_unstable();
    assert_eq!(all, (101..=108).collect::<Vec<_>>());
    assert_eq!(
        found(&service.api("/api/search", &json!({"bornFrom": "1900-01-01", "page": 9})).await),
        Vec::<i64>::new()
    );
    end(replica, service).await;
}

#[tokio::test]
async fn api_reads_a_file_and_its_photograph() {
    let (replica, service) = served().await;
    let answer = service.api("/api/files/read", &json!({"file": 101})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let body = answer.json();
    let tables = |key: &str| -> Vec<String> {
        body[key].as_array().unwrap().iter().map(|r| r["table"].as_str().unwrap().to_owned()).collect()
    };
    assert!(
        tables("records").contains(&"supervision".to_owned()) && tables("records").contains(&"offender".to_owned())
    );
    assert_eq!(tables("references"), ["office", "parole_officer"]);
    let sha =
        body["records"].as_array().unwrap().iter().find(|r| r["table"] == "photograph").unwrap()["body"]["sha256"]
            .clone();
    let picture = service.api("/api/files/photograph", &json!({"file": 101, "sha256": sha})).await;
    assert_eq!((picture.status, picture.header("content-type")), (StatusCode::OK, "image/jpeg"));
    assert!(picture.body.starts_with(&[0xff, 0xd8]) && !picture.header("data-as-of").is_empty());

    // Not held, and not ever held, are one answer.
    let one = service.api("/api/files/read", &json!({"file": 999})).await;
    let two = service.api("/api/files/read", &json!({"file": 424_242})).await;
    assert_eq!((one.status, &one.body), (StatusCode::NOT_FOUND, &two.body));
    let none = service.api("/api/files/photograph", &json!({"file": 999, "sha256": sha})).await;
    assert_eq!((none.status, &none.body), (StatusCode::NOT_FOUND, &two.body));
    end(replica, service).await;
}

/// A sealed record, as any file that a batch has withdrawn, answers like one that never was: status, headers, body, page.
#[tokio::test]
async fn a_file_that_left_answers_like_one_that_never_was() {
    let (replica, service) = served().await;
    let mut browser = Browser::new(&service);
    browser.sign_on("en").await;
    let sha = {
        let body = service.api("/api/files/read", &json!({"file": 101})).await.json();
        let records = body["records"].as_array().unwrap().clone();
        records.iter().find(|r| r["table"] == "photograph").unwrap()["body"]["sha256"].clone()
    };
    replica
        .exec("DELETE FROM {share}.record WHERE offender = 101; DELETE FROM {share}.subject WHERE offender = 101")
        .await;
    for (path, left, never) in [
        ("/api/files/read", json!({"file": 101}), json!({"file": 424_242})),
        ("/api/files/photograph", json!({"file": 101, "sha256": sha}), json!({"file": 424_242, "sha256": sha})),
    ] {
        let (left, never) = (service.api(path, &left).await, service.api(path, &never).await);
        assert_eq!((left.status, &left.body), (StatusCode::NOT_FOUND, &never.body), "{path}");
        assert_eq!(never.status, StatusCode::NOT_FOUND, "{path}");
        for header in ["content-type", "cache-control", "data-as-of"] {
            assert_eq!(left.header(header), never.header(header), "{path} {header}");
        }
    }
    let (left, never) =
        (browser.post("/en/file", &[("file", "101")]).await, browser.post("/en/file", &[("file", "424242")]).await);
    assert_eq!((left.status, left.text()), (never.status, never.text()));
    assert_eq!(left.status, StatusCode::NOT_FOUND);
    for query in [json!({"fps": "101007B"}), json!({"name": "lariviere"}), json!({"name": "johnny rivers"})] {
        let answer = service.api("/api/search", &query).await;
        assert_eq!((found(&answer), &answer.json()["total"]), (vec![], &json!(0)), "{query}");
    }
    end(replica, service).await;
}

#[tokio::test]
async fn every_read_is_in_the_access_log_with_who_why_and_what() {
    let (replica, service) = served().await;
    service.api("/api/search", &json!({"name": "lariviere"})).await;
    service.api("/api/files/read", &json!({"file": 101})).await;
    let denied = service.api_for("/api/files/read", "Curiosity", &json!({"file": 101})).await;
    assert_eq!(
        (denied.status, &denied.json()["type"]),
        (StatusCode::FORBIDDEN, &json!("urn:liaison:problem:purpose-not-permitted"))
    );
    let unpermitted = service.api_for("/api/search", "Investigation", &json!({"name": "roy"})).await;
    assert_eq!(unpermitted.status, StatusCode::FORBIDDEN, "a known purpose that the agreement does not have");
    let rows = replica
        .rows(
            "SELECT concat_ws(' ', kind, officer, identity, purpose, outcome, reason, coalesce(request ->> 'name', \
             request ->> 'file'), files::text, found) FROM {journal}.access_log ORDER BY id",
        )
        .await;
    assert_eq!(
        rows,
        [
            "search VPD-1234 asserted Apprehension allowed lariviere t",
            "shown VPD-1234 asserted Apprehension allowed lariviere {101} t",
            "file VPD-1234 asserted Apprehension allowed 101 t",
            "file VPD-1234 asserted Curiosity denied purpose 101",
            "search VPD-1234 asserted Investigation denied purpose roy",
        ]
    );
    let same = replica
        .rows("SELECT DISTINCT trace || ' ' || leaf || ' ' || generation || ' ' || batch FROM {journal}.access_log")
        .await;
    assert_eq!(same, [format!("{TRACE} {} 3 1", service.leaf_hash)]);
    end(replica, service).await;
}

#[tokio::test]
async fn what_is_missing_or_malformed_says_what_to_do_in_both_languages() {
    let (replica, service) = served().await;
    let json_type = ("content-type", "application/json");
    let (officer, purpose) = (("officer-id", OFFICER), ("purpose", "Apprehension"));
    for (headers, body, status, word) in [
        (vec![json_type, purpose], "{\"name\":\"roy\"}", 400, "officer identifier"),
        (vec![json_type, ("officer-id", "a b"), purpose], "{\"name\":\"roy\"}", 400, "officer identifier"),
        (vec![json_type, officer], "{\"name\":\"roy\"}", 400, "purpose"),
        (vec![json_type, officer, purpose, purpose], "{\"name\":\"roy\"}", 400, "purpose"),
        (vec![json_type, officer, purpose], "{}", 400, "at least"),
        (vec![json_type, officer, purpose], "{\"surname\":\"roy\"}", 400, "openapi.json"),
        (vec![json_type, officer, purpose], "{\"birthDate\":\"1.1.80\"}", 400, "year-month-day"),
        (vec![json_type, officer, purpose], "nonsense", 400, "openapi.json"),
        (vec![officer, purpose], "{\"name\":\"roy\"}", 415, "application/json"),
    ] {
        let answer = service.send("POST", "/api/search", &headers, body).await;
        let problem = answer.json();
        assert_eq!(answer.status.as_u16(), status, "{problem}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{problem}");
        assert!(
            problem["detailFr"].as_str().is_some_and(|fr| !fr.is_empty() && fr != problem["detail"].as_str().unwrap())
        );
    }
    assert_eq!(service.send("GET", "/api/search", &[], "").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(service.api("/api/nothing", &json!({})).await.status, StatusCode::NOT_FOUND);
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(20_000));
    let answer = service.send("POST", "/api/search", &[json_type, officer, purpose], large).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(replica.rows("SELECT count(*) FROM {journal}.access_log").await, ["0"]);
    let openapi = service.send("GET", "/api/openapi.json", &[], "").await;
    assert_eq!(openapi.json(), liaison_infopol::openapi::document());
    end(replica, service).await;
}

#[tokio::test]
async fn closed_and_fenced_are_said_at_once() {
    let (replica, service) = served().await;
    let mut browser = Browser::new(&service);
    browser.sign_on("en").await;
    for (change, status, code, title) in [
        ("suspended = true", 403, "closed", "Access is closed"),
        ("suspended = false, authorized_until = now() - interval '1 s'", 403, "closed", "Access is closed"),
        ("authorized_until = now() + interval '1 h', fenced = true", 503, "fenced", "Updating"),
    ] {
        replica.exec(&format!("UPDATE {{share}}.cursor SET {change}")).await;
        let answer = service.api("/api/files/read", &json!({"file": 101})).await;
        assert_eq!(answer.status.as_u16(), status, "{change}");
        assert_eq!(answer.json()["type"], format!("urn:liaison:problem:{code}"));
        let page = browser.post("/en/file", &[("file", "101")]).await;
        assert_eq!(page.status.as_u16(), status, "{change}");
        assert!(page.text().contains(title) && page.text().contains("lang=\"fr\""), "both languages: {}", page.text());
        assert!(!page.text().contains("Larivi"));
        for said in [&answer, &page] {
            assert_eq!(said.header("retry-after"), if status == 503 { "30" } else { "" });
        }
    }
    replica.exec("UPDATE {share}.cursor SET fenced = false, as_of = now() - interval '3 hours'").await;
    let stale = service.api("/api/search", &json!({"name": "lariviere"})).await.json();
    assert_eq!(stale["stale"], true);
    assert!(browser.post("/en/file", &[("file", "101")]).await.text().contains("3 hours old"));
    replica.exec("DROP SCHEMA {share} CASCADE").await;
    assert_eq!(service.api("/api/search", &json!({"name": "roy"})).await.status, StatusCode::FORBIDDEN);
    end(replica, service).await;
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_a_bilingual_page() {
    let replica = Replica::create().await;
    let service = Service::start_with(&replica, "postgres://nobody@127.0.0.1:1/none?sslmode=disable").await;
    let page = service.send("GET", "/fr", &[], "").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.text().contains("Non disponible") && page.text().contains("Not available now"));
    let health = |path: &str| {
        let url = format!("http://{}{path}", service.health);
        tokio::task::spawn_blocking(move || {
            let out = std::process::Command::new("curl").args(["-s", "-w", "%{http_code}", &url]).output().unwrap();
            String::from_utf8(out.stdout).unwrap()
        })
    };
    assert!(health("/readyz").await.unwrap().ends_with("503"), "not ready until the store has answered");
    assert!(health("/healthz").await.unwrap().ends_with("200"));
    let metrics = health("/metrics").await.unwrap();
    let held: liaison_records::trust::Report =
        serde_json::from_str(health("/trust").await.unwrap().strip_suffix("200").unwrap()).unwrap();
    assert_eq!((held.trusts["tls"].len(), held.shows["tls"].len()), (1, 1), "of its files");
    assert!(metrics.contains("infopol_store_up 0") && metrics.contains("route=\"/{lang}\",code=\"503\""), "{metrics}");
    end(replica, service).await;
}

#[tokio::test]
async fn pages_lead_from_sign_on_to_a_profile_without_a_script() {
    let (replica, service) = served().await;
    let mut browser = Browser::new(&service);
    let root = service.send("GET", "/", &[("accept-language", "fr-CA")], "").await;
    assert_eq!((root.status, root.header("location")), (StatusCode::SEE_OTHER, "/fr"));
    let page = browser.get("/en").await;
    assert!(page.text().contains("Vancouver Police Department") && page.text().contains("value=\"Apprehension\""));
    assert!(!page.text().contains("value=\"Investigation\""), "only what the agreement permits");
    assert!(page.header("set-cookie").ends_with("; Path=/; Secure; HttpOnly; SameSite=Strict"));
    let before = browser.cookie.clone();
    let wrong = browser.post("/en/sign-on", &[("officer", "not an id"), ("purpose", "Apprehension")]).await;
    assert!(wrong.status == StatusCode::BAD_REQUEST && wrong.text().contains("role=\"alert\""));
    browser.sign_on("en").await;
    assert_ne!(before, browser.cookie, "a session number from before sign-on is worth nothing");

    let empty = browser.post("/en/search", &[("name", "x")]).await;
    assert!(empty.status == StatusCode::BAD_REQUEST && empty.text().contains("at least a name of two letters"));
    assert!(empty.text().contains("value=\"x\""), "what was typed stays");
    let results = browser.post("/en/search", &[("name", "lariviere")]).await;
    let text = results.text();
    assert!(
        results.status == StatusCode::OK && text.contains("Larivière, Jean-François") && text.contains("1 file<"),
        "{text}"
    );
    assert!(text.contains("Unlawfully at large") && text.contains("(asserted)") && text.contains("Data as of"));

    assert!(text.contains("Name or alias <strong>lariviere</strong>"), "what was asked for is said: {text}");
    let change = browser.post("/en/search", &[("name", "lariviere"), ("edit", "on")]).await.text();
    assert!(change.contains("id=\"name\" name=\"name\" value=\"lariviere\""), "and can be changed: {change}");

    let profile = browser.post("/en/file", &[("file", "101")]).await.text();
    for word in [
        "href=\"tel:18005550199\"",
        "Unlawfully at large",
        "call the Correctional Service at once",
        "Known to carry weapons",
        "101007B",
        "1979-03-14",
        "Helen Marchand",
        "604-555-0142",
        "1-800-555-0199",
        "Rivers",
        "W-2026-0417",
        "Not to consume",
        "data:image/jpeg;base64,",
        "Photograph of Larivière",
        "Vancouver, British Columbia",
        "lang=\"en\"",
    ] {
        assert!(profile.contains(word), "{word}: {profile}");
    }
    assert!(profile.find("call the Correctional").unwrap() < profile.find("data:image").unwrap(), "status first");
    // The other language repeats the request, and the record's own text says its language.
    assert!(profile.contains("action=\"/fr/file\"") && profile.contains("name=\"file\" value=\"101\""));
    let french = browser.post("/fr/file", &[("file", "101")]).await.text();
    for word in [
        "<html lang=\"fr\">",
        "Illégalement en liberté",
        "Ne pas consommer",
        "Qui appeler",
        "Bureau de libération conditionnelle de Vancouver",
        "<dd lang=\"en\">Synthetic text",
    ] {
        assert!(french.contains(word), "{word}: {french}");
    }
    assert!(!french.contains("Not to consume"));
    let list = browser.post("/fr/at-large", &[]).await.text();
    assert!(list.contains("2 dossiers") && list.contains("St-Pierre, Luc"), "{list}");
    let absent = browser.post("/en/file", &[("file", "999")]).await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    assert_eq!(absent.body, browser.post("/en/file", &[("file", "4711")]).await.body);
    // Each of these was logged before it was shown.
    let kinds = replica.rows("SELECT kind || ' ' || count(*) FROM {journal}.access_log WHERE officer = 'VPD-1234' GROUP BY kind ORDER BY kind").await;
    assert_eq!(kinds, ["at_large 1", "file 4", "photograph 2", "search 1", "shown 2"]);
    let off = browser.post("/en/sign-off", &[]).await;
    assert!(off.text().contains("You have signed off"));
    assert_eq!(browser.post("/en/file", &[("file", "101")]).await.status, StatusCode::FORBIDDEN);
    end(replica, service).await;
}

#[tokio::test]
async fn a_session_is_good_at_every_replica_and_outlives_them() {
    let replica = Replica::create().await;
    files::fill(&replica, &files::people(), files::GROUPS).await;
    let start =
        async |secret: &'static str| Service::start_sharing(&replica, &replica.reader_url(), Some(secret)).await;
    let secret = "a secret of 32 bytes or more, shared";
    let (one, two) = (start(secret).await, start(secret).await);
    let mut browser = Browser::new(&one);
    browser.sign_on("en").await;
    let (cookie, token) = (browser.cookie.clone(), browser.token.clone());
    let refreshed = browser.get("/en/search").await;
    assert!(refreshed.header("set-cookie").starts_with("__Host-infopol="), "each use is written down");
    assert!(
        !one.send("GET", "/assets/infopol.css", &[("cookie", &cookie)], "").await.headers.contains_key("set-cookie")
    );
    one.stop().await;
    for service in [two, start(secret).await] {
        let mut browser = Browser { service: &service, cookie: cookie.clone(), token: token.clone() };
        let profile = browser.post("/en/file", &[("file", "101")]).await;
        assert!(profile.status == StatusCode::OK && profile.text().contains(OFFICER), "{}", profile.text());
        service.stop().await;
    }
    let stranger = start("another secret of 32 bytes or more").await;
    let mut browser = Browser { service: &stranger, cookie, token };
    assert_eq!(browser.post("/en/file", &[("file", "101")]).await.status, StatusCode::FORBIDDEN);
    end(replica, stranger).await;
}

#[tokio::test]
async fn pages_believe_only_their_own_forms_and_leak_nothing() {
    let (replica, service) = served().await;
    let mut browser = Browser::new(&service);
    browser.sign_on("en").await;
    let form = "application/x-www-form-urlencoded";
    let body = format!("token={}&file=101", browser.token);
    for (what, headers, body) in [
        (
            "another site",
            vec![("cookie", browser.cookie.as_str()), ("content-type", form), ("sec-fetch-site", "cross-site")],
            body.as_str(),
        ),
        (
            "another origin",
            vec![("cookie", browser.cookie.as_str()), ("content-type", form), ("origin", "https://evil.example")],
            body.as_str(),
        ),
        (
            "no token",
            vec![("cookie", browser.cookie.as_str()), ("content-type", form), ("sec-fetch-site", "same-origin")],
            "file=101",
        ),
        ("another token", vec![("cookie", browser.cookie.as_str()), ("content-type", form)], "token=x&file=101"),
        ("no cookie", vec![("content-type", form), ("sec-fetch-site", "same-origin")], body.as_str()),
    ] {
        let answer = service.send("POST", "/en/file", &headers, body.to_owned()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
        assert!(!answer.text().contains("Larivi"), "{what}");
    }
    assert_eq!(replica.rows("SELECT count(*) FROM {journal}.access_log").await, ["0"]);
    let page = browser.post("/en/file", &[("file", "101")]).await;
    assert_eq!(page.header("cache-control"), "no-store");
    let csp = page.header("content-security-policy");
    assert!(csp.starts_with("default-src 'none'") && !csp.contains("unsafe") && !csp.contains("script"), "{csp}");
    let text = page.text();
    assert!(
        !text.contains("http://") && !text.contains("https://") && !text.contains("<script"),
        "nothing from elsewhere"
    );
    assert!(!text.contains("style="), "no inline style: the policy would drop it");
    let style = service.send("GET", "/assets/infopol.css", &[], "").await;
    assert!(style.status == StatusCode::OK && !style.text().contains("url(") && !style.text().contains("@import"));
    assert_eq!(
        service.send("GET", "/en/file", &[("cookie", &browser.cookie)], "").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(service.send("GET", "/de", &[], "").await.status, StatusCode::NOT_FOUND);
    // Markup in a search comes back as text.
    let odd = browser.post("/en/search", &[("name", "<b>x</b>"), ("fps", "<i>")]).await.text();
    assert!(!odd.contains("<b>x") && odd.contains("&#60;b&#62;x"), "{odd}");
    end(replica, service).await;
}
