//! The gateway against real clients: Debian's wireguard-go and curl in network namespaces. Needs root and /dev/net/tun.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::{net::UdpSocket, time::Duration};

use liaison_records::trust::Report;
use serde_json::{Value, json};
use support::{
    DOMAIN,
    ca::Ca,
    eventually,
    gateway::{Gateway, kernel},
    partner::{Partner, answer, size, still_coming},
    patience, pause, run,
    world::{World, infopol, refused, world},
};

/// Not a test: the gateway's process, started by the others in its network namespace.
#[test]
#[ignore = "started by the other tests"]
fn gateway_process() {
    support::gateway::child();
}

#[test]
fn a_request_goes_through_and_nothing_forged_with_it() {
    let World { a, b, mut gateway, ca } = world(&[]);
    for arguments in [&["--http1.1"][..], &["--http2"]] {
        let mut all =
            vec!["-H", "Client-Cert: :Zm9yZ2Vk:", "-H", "X-Forwarded-For: 1.2.3.4", "-H", "traceparent: 00-1-1-00"];
        all.extend_from_slice(arguments);
        let answer = answer(&a.curl("/echo?x=1", &all));
        assert_eq!(answer["called"], "infopol-a.liaison-partners.svc");
        assert_eq!(answer["path"], "/echo?x=1");
        let headers = &answer["headers"];
        assert_eq!(headers["host"], format!("a.{DOMAIN}"));
        assert!(headers["x-forwarded-for"].is_null());
        let body: String = a.leaf.chain.lines().skip(1).take_while(|l| !l.starts_with("--")).collect();
        assert_eq!(headers["client-cert"], format!(":{body}:"));
        let trace = headers["traceparent"].as_str().unwrap();
        assert!(trace.starts_with("00-") && trace.len() == 55, "{trace}");
    }
    assert_eq!(answer(&a.curl("/echo", &["-d", "a body"]))["body"], 6);
    assert_eq!(answer(&b.curl("/echo", &[]))["called"], "infopol-b.liaison-partners.svc");
    assert_eq!(answer(&a.curl_v6("/echo", &[]))["called"], "infopol-a.liaison-partners.svc");

    // OpenSSL verifies the server by its name too, and gets no ticket with which it could come back unverified.
    let text = a.openssl();
    assert!(text.contains("Verify return code: 0 (ok)") && text.contains("TLSv1.3"), "{text}");
    assert!(!text.contains("Session Ticket"), "{text}");

    // It says which group; one that is not among ours is refused, and so are a session of before and another handshake.
    let group =
        |name| gateway.metric(&format!("liaison_gateway_tls_handshakes_total{{partner=\"a\",group=\"{name}\"}}"));
    let (before, weak) = (group("secp384r1"), "liaison_gateway_refused_total{partner=\"a\",reason=\"handshake\"}");
    assert!(a.openssl_with("", "-groups P-384").contains("Verify return code: 0 (ok)"));
    assert_eq!((group("secp384r1"), gateway.metric(weak)), (before + 1, 0));
    for (refused, name) in ["P-521", "X448", "ffdhe2048"].into_iter().enumerate() {
        let text = a.openssl_with("", &format!("-groups {name}"));
        assert!(text.contains("handshake failure") && text.contains("Cipher is (NONE)"), "{name}: {text}");
        assert_eq!(gateway.metric(weak), refused as u64 + 1);
    }
    a.openssl_with("", "-sess_out session.pem");
    let text = a.openssl_with("", "$(test -e session.pem && echo -sess_in session.pem)");
    assert!(text.contains("New, TLSv1.3") && !text.contains("Reused"), "{text}");
    let text = a.openssl_with("R", "");
    assert!(text.contains("RENEGOTIATING") && text.contains("error:"), "{text}");

    // Limits and what is not proxied.
    let big = a.write("big", &"x".repeat((1 << 20) + 1));
    let big = format!("@{}", big.display());
    let code = |arguments: &[&str]| {
        let mut all = vec!["-o", "/dev/null", "-w", "%{http_code}"];
        all.extend_from_slice(arguments);
        String::from_utf8(a.curl("/echo", &all).stdout).unwrap()
    };
    assert_eq!(code(&["--data-binary", &big, "-H", "Expect:"]), "413");
    assert_eq!(code(&["--http1.1", "--data-binary", &big, "-H", "Transfer-Encoding: chunked", "-H", "Expect:"]), "413");
    assert_eq!(code(&["-X", "TRACE"]), "405");

    // A new server certificate is served without a restart; the old connection's certificate does not matter.
    let old = a.curl("/echo", &["-w", "%{certs}", "-o", "/dev/null"]).stdout;
    let server = ca.server(&[&format!("*.{DOMAIN}")], &format!("spiffe://{DOMAIN}/gateway"));
    // And a second root, as while the authority changes its own.
    let other = Ca::new();
    let mut material = ca.material(&server);
    material.ca.extend_from_slice(other.root.as_bytes());
    let held = |gateway: &Gateway| serde_json::from_str::<Report>(&gateway.http("trust").unwrap()).unwrap();
    let before = held(&gateway);
    assert_eq!((before.trusts["gateway-tls"].len(), before.trusts["gateway-client-tls"].len()), (1, 1));
    gateway.server(material);
    eventually("the new certificate", Duration::from_secs(5), || {
        let new = a.curl("/echo", &["-w", "%{certs}", "-o", "/dev/null"]);
        new.status.success() && new.stdout != old
    });
    let after = held(&gateway);
    assert_eq!(after.shows["gateway-tls"][0], server.sha256);
    assert_eq!(after.trusts["gateway-tls"].len(), 2);
    assert_eq!(after.shows["gateway-client-tls"], before.shows["gateway-client-tls"]);

    let text = gateway.http("metrics").unwrap();
    let handshakes = gateway.metric("liaison_gateway_wireguard_handshakes_total{partner=\"a\"}");
    assert!((1..=2).contains(&handshakes), "each is counted once: {text}");
    assert!(gateway.metric("liaison_gateway_wireguard_received_bytes_total{partner=\"a\"}") > 1000, "{text}");
}

#[test]
fn a_certificate_of_another_ca_counts_where_a_status_grants_it_and_nowhere_else() {
    let World { a, b, mut gateway, ca: _ca } = world(&[]);
    let ministry = Ca::new();
    let mut granted = a.granted(&gateway.public_key);
    let issue = |name: &str| {
        let leaf = ministry.client(&format!("spiffe://{DOMAIN}/partner/a"));
        let files = [a.write(&format!("{name}.pem"), &leaf.chain), a.write(&format!("{name}-key.pem"), &leaf.key)];
        (leaf, files.map(|file| file.to_str().unwrap().to_owned()))
    };
    let (leaf, [chain, key]) = issue("ministry");
    let identity = ["--cert", chain.as_str(), "--key", key.as_str()];
    granted["spec"]["credentials"]["certificate"] =
        json!({"signingRequests": [leaf.request], "issuerRef": {"name": "ministry"}});
    let held = &mut granted["status"]["certificates"][0];
    held["sha256"] = json!(leaf.sha256);
    held["publicKeySha256"] = json!(liaison_gateway::state::public_key_sha256(&leaf.request).unwrap());
    held["chain"] = json!(leaf.chain);
    // Not by its fingerprint alone: only where the status says that another issued it.
    gateway.apply(&granted);
    pause(Duration::from_millis(200));
    refused(&a.curl_anonymous("/echo", &identity), "not said to be of another CA");
    granted["status"]["certificates"][0]["issuedBy"] = json!("cert-manager.io/Issuer/ministry");
    gateway.apply(&granted);
    eventually("it is served", Duration::from_secs(5), || a.curl_anonymous("/echo", &identity).status.success());
    refused(&a.curl("/echo", &[]), "the certificate of Liaison's CA, which is granted no more");
    refused(&b.curl_anonymous("/echo", &identity), "through another partner's tunnel");
    let (_, [chain, key]) = issue("sibling");
    refused(&a.curl_anonymous("/echo", &["--cert", &chain, "--key", &key]), "another one of that CA");
    // It ends with its grant, in live connections too.
    granted["spec"]["credentials"]["certificate"]["signingRequests"] = json!([]);
    gateway.apply(&granted);
    eventually("it is refused", Duration::from_secs(5), || !a.curl_anonymous("/echo", &identity).status.success());
}

#[test]
fn whatever_does_not_agree_is_refused() {
    let World { a, b, gateway, ca } = world(&[]);
    let count = |partner: &str, reason: &str| {
        gateway.metric(&format!("liaison_gateway_refused_total{{partner=\"{partner}\",reason=\"{reason}\"}}"))
    };

    refused(&a.curl_anonymous("/echo", &[]), "no certificate");
    assert_eq!(count("a", "no_certificate"), 1);

    let stranger = Ca::new().client(&format!("spiffe://{DOMAIN}/partner/a"));
    let (chain, key) = (a.write("other.pem", &stranger.chain), a.write("other-key.pem", &stranger.key));
    let identity = ["--cert", chain.to_str().unwrap(), "--key", key.to_str().unwrap()];
    refused(&a.curl_anonymous("/echo", &identity), "a certificate of another CA");
    assert_eq!(count("a", "untrusted_certificate"), 1);

    let unknown = ca.client(&format!("spiffe://{DOMAIN}/partner/a"));
    let (chain, key) = (a.write("other.pem", &unknown.chain), a.write("other-key.pem", &unknown.key));
    let identity = ["--cert", chain.to_str().unwrap(), "--key", key.to_str().unwrap()];
    refused(&a.curl_anonymous("/echo", &identity), "a certificate of the CA that is not active");
    assert_eq!(count("a", "unknown_certificate"), 1);

    let (chain, key) = (b.file("chain.pem"), b.file("key.pem"));
    refused(&a.curl_anonymous("/echo", &["--cert", &chain, "--key", &key]), "b's certificate through a's tunnel");
    assert_eq!(count("a", "unknown_certificate"), 2);

    // b's name at a's address: as SNI; and as Host alone.
    refused(&a.curl_as(&b.server_name(), &a.addresses().0, "/echo", &[]), "b's name as SNI");
    assert_eq!(count("a", "wrong_server_name"), 1);
    for version in ["--http1.1", "--http2"] {
        let host = format!("Host: {}", b.server_name());
        let output = a.curl("/echo", &["-H", &host, version, "-w", "%{http_code}"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.ends_with("421") && text.contains("autre nom"), "{text}");
    }
    assert_eq!(count("a", "wrong_host"), 2);

    refused(&a.curl("/echo", &["--tls-max", "1.2"]), "TLS 1.2");
    assert_eq!(count("a", "handshake"), 1);

    // These never reach the host's stack: time-outs, and the filter's own counters.
    refused(&a.curl_as(&b.server_name(), &b.addresses().0, "/echo", &["-m", "1"]), "a's tunnel to b's address");
    assert!(gateway.metric("liaison_gateway_packets_dropped_total{direction=\"in\",reason=\"address\"}") >= 1);
    let url = format!("http://{}:8080/metrics", a.addresses().0);
    let scan = a.namespace.command("curl").args(["-sS", "-m", "1", &url]).output().unwrap();
    refused(&scan, "another port of the gateway");
    assert!(gateway.metric("liaison_gateway_packets_dropped_total{direction=\"in\",reason=\"service\"}") >= 1);
    let dropped = gateway.metric("liaison_gateway_packets_dropped_total{direction=\"in\",reason=\"address\"}");
    let spoofed = b.addresses().1;
    a.spoof(&spoofed);
    let (chain, key) = (b.file("chain.pem"), b.file("key.pem"));
    let identity = ["--cert", &chain, "--key", &key, "--interface", &spoofed, "-m", "1"];
    let (name, address) = (b.server_name(), b.addresses().0);
    refused(&a.curl_as(&name, &address, "/echo", &identity), "b's address as source in a's tunnel");
    let after = gateway.metric("liaison_gateway_packets_dropped_total{direction=\"in\",reason=\"address\"}");
    assert_eq!(after, dropped, "WireGuard's own check dropped it before the filter");

    // Nobody was disturbed.
    assert!(a.curl("/echo", &[]).status.success() && b.curl("/echo", &[]).status.success());
}

#[test]
fn taking_away_ends_live_connections_at_once() {
    let World { a, b, mut gateway, ca: _ca } = world(&[]);
    let open = a.granted(&gateway.public_key);
    let mut revoked = open.clone();
    revoked["spec"]["revocation"] = json!({"revoked": true});
    let mut dated = open.clone();
    dated["spec"]["revocation"] = json!({"revoked": false, "notBefore": "2020-06-01T00:00:00Z"});
    let mut no_leaf = open.clone();
    no_leaf["status"]["certificates"] = json!([]);
    // A field that this version does not know, as a newer one might write it.
    let mut unknown = open.clone();
    unknown["spec"]["fieldOfALaterVersion"] = json!(true);
    let mut ended = open.clone();
    ended["status"]["authorizedUntil"] = json!("2020-01-01T00:00:00Z");

    let (_other, other) = b.download(&["--http2"]);
    let takings = [
        ("certificate", Some(&no_leaf)),
        ("ended", Some(&ended)),
        ("unknown field", Some(&unknown)),
        ("gone", None),
        ("older than the date", Some(&dated)),
        ("revoked", Some(&revoked)),
    ];
    for (what, taken) in takings {
        let downloads = [a.download(&["--http1.1"]), a.download(&["--http2"])];
        eventually("the downloads run", Duration::from_secs(10), || downloads.iter().all(|(_, f)| size(f) > 20_000));
        let before = size(&other);
        let cut = gateway.metric("liaison_gateway_connections_cut_total{partner=\"a\"}");
        match taken {
            Some(object) => gateway.apply(object),
            None => gateway.delete("a"),
        }
        let took = still_coming(&downloads);
        assert!(took < Duration::from_millis(700) * patience(), "{what}: bytes for {took:?}");
        assert!(size(&other) > before + 50_000, "{what}: b was disturbed");

        // The series of a partner that is gone is gone with it.
        let now = gateway.metric("liaison_gateway_connections_cut_total{partner=\"a\"}");
        assert_eq!(now, if taken.is_some() { cut + 2 } else { 0 }, "{what}");

        refused(&a.curl("/echo", &["-m", "1"]), what);
        let addresses = gateway.show(&["addr", "show", "dev", "liaison0"]);
        let routes = gateway.show(&["route", "show", "dev", "liaison0"]);
        if what != "certificate" {
            a.configure(&gateway.public_key, support::gateway::PORT);
            pause(Duration::from_millis(1500));
            assert_eq!(a.last_handshake(), 0, "{what}: a new handshake");
            assert!(!addresses.contains(&a.addresses().0) && !routes.contains(&a.addresses().1), "{what}: {addresses}");
        }
        assert!(addresses.contains(&b.addresses().0) && routes.contains(&b.addresses().1), "{addresses} {routes}");

        // A revocation is for good: what comes back is as if the keys had been claimed after it.
        let mut again = open.clone();
        again["status"]["wireGuardKeysSeen"][0]["firstSeen"] = json!("2199-01-01T00:00:00Z");
        again["status"]["certificates"][0]["keyFirstSeen"] = json!("2199-01-01T00:00:00Z");
        gateway.apply(if matches!(what, "revoked" | "older than the date") { &again } else { &open });
        eventually("it is served again", Duration::from_secs(15), || a.curl("/echo", &["-m", "2"]).status.success());
    }
}

#[test]
fn i6_a_revocation_is_acknowledged_when_nothing_gets_through_and_outlives_its_manifest() {
    let World { a, b, mut gateway, ca: _ca } = world(&[]);
    let mut open = a.granted(&gateway.public_key);
    open["metadata"]["generation"] = json!(4);
    gateway.apply(&open);
    let downloads = [a.download(&["--http1.1"]), a.download(&["--http2"]), a.download(&["--http2"])];
    eventually("the downloads run", Duration::from_secs(10), || downloads.iter().all(|(_, f)| size(f) > 20_000));
    let (_other, other) = b.download(&["--http2"]);
    assert!(gateway.words().is_empty());

    let mut revoked = open.clone();
    revoked["spec"]["revocation"] = json!({"revoked": true});
    revoked["metadata"]["generation"] = json!(5);
    gateway.apply(&revoked);
    eventually("it is acknowledged", Duration::from_secs(10), || !gateway.words().is_empty());
    // From its word on, nothing: the peer is gone, so not even what lay in a buffer.
    let at_word: Vec<u64> = downloads.iter().map(|(_, file)| size(file)).collect();
    let others = size(&other);
    pause(Duration::from_secs(2));
    assert_eq!(downloads.iter().map(|(_, file)| size(file)).collect::<Vec<_>>(), at_word);
    assert!(size(&other) > others + 50_000, "b was disturbed");
    let words = gateway.words();
    let word = words[0]["word"].clone();
    assert_eq!(
        (words.len(), &words[0]["partner"], &word["name"], &word["generation"]),
        (1, &json!("a"), &json!("gateway"), &json!(5))
    );
    assert!(word["revokedAt"].is_string() && word["notBefore"].is_null(), "{word}");
    assert_eq!(gateway.metric("liaison_gateway_connections_cut_total{partner=\"a\"}"), 3);
    assert_eq!(gateway.metric("liaison_gateway_revocations_unacknowledged"), 1, "until it is read back");

    // Taken back, with the same keys still granted in status: they stay refused, by memory, and by status after that.
    for words in [json!([]), json!([word])] {
        let mut back = open.clone();
        back["metadata"]["generation"] = json!(6);
        back["status"]["gateways"] = words;
        gateway.apply(&back);
        a.configure(&gateway.public_key, support::gateway::PORT);
        pause(Duration::from_millis(1500));
        assert_eq!(a.last_handshake(), 0, "a handshake with a revoked key");
    }
    assert_eq!(gateway.metric("liaison_gateway_revocations_unacknowledged"), 0);
    assert_eq!(gateway.metric("liaison_gateway_partners_open"), 1);
}

#[test]
fn a_key_that_takes_a_preshared_key_waits_for_it_and_goes_with_it() {
    let World { a, b, mut gateway, ca: _ca } = world(&[]);
    let key = gateway.public_key.clone();
    let shakes_hands = |shared: Option<&str>| {
        a.configure_with(&key, support::gateway::PORT, shared);
        pause(Duration::from_millis(1500));
        a.last_handshake() != 0
    };
    assert!(shakes_hands(None));
    let mut object = a.granted(&gateway.public_key);
    let public = object["status"]["wireGuardKeys"][0].as_str().unwrap().to_owned();
    object["status"]["wireGuardKeysSeen"][0]["preshared"] = json!(true);
    let (shared, other) = (support::run("wg", &["genpsk"]), support::run("wg", &["genpsk"]));

    // It is not there yet, and then it is: with it alone, and the tunnel carries requests.
    gateway.apply(&object);
    pause(Duration::from_millis(500));
    assert!(!shakes_hands(None), "the preshared key is missing, so the key is not accepted");
    gateway.preshared(&[(&public, &shared)]);
    assert!(!shakes_hands(None), "without the preshared key");
    assert!(!shakes_hands(Some(&other)), "with another");
    assert!(shakes_hands(Some(&shared)));
    eventually("a request", Duration::from_secs(10), || a.curl("/echo", &["-m", "2"]).status.success());

    // Another one ends the session that was made with it; none at all ends it too.
    gateway.preshared(&[(&public, &other)]);
    pause(Duration::from_millis(500));
    refused(&a.curl("/echo", &["-m", "1"]), "a session of the old preshared key");
    assert!(!shakes_hands(Some(&shared)) && shakes_hands(Some(&other)));
    gateway.preshared(&[]);
    pause(Duration::from_millis(500));
    refused(&a.curl("/echo", &["-m", "1"]), "a session of a preshared key that is gone");
    assert!(!shakes_hands(Some(&other)));
    assert!(b.curl("/echo", &[]).status.success(), "b was disturbed");
}

#[test]
fn a_date_revokes_one_generation_of_keys_and_leaves_the_other_undisturbed() {
    let World { a, b, mut gateway, ca } = world(&[]);
    drop(b);
    // The same partner's second router and second leaf, of a later generation; the tunnel's address is theirs by now.
    let mut second = Partner::new(&ca, "a", 3, Some(&gateway.namespace));
    let mut both = a.granted(&gateway.public_key);
    let newer = second.granted(&gateway.public_key);
    for path in [
        "/spec/credentials/wireGuard/publicKeys",
        "/spec/credentials/certificate/signingRequests",
        "/status/wireGuardKeys",
        "/status/wireGuardKeysSeen",
        "/status/certificates",
    ] {
        let more = newer.pointer(path).unwrap()[0].clone();
        both.pointer_mut(path).unwrap().as_array_mut().unwrap().push(more);
    }
    both["status"]["wireGuardKeysSeen"][1]["firstSeen"] = json!("2021-01-01T00:00:00Z");
    both["status"]["certificates"][1]["keyFirstSeen"] = json!("2021-01-01T00:00:00Z");
    gateway.apply(&both);
    second.connect_default(&gateway.public_key);
    second.spoof(&a.addresses().1);
    let with = |leaf: &Partner| [leaf.file("chain.pem"), leaf.file("key.pem")];
    let from = a.addresses().1;
    let ask = |[chain, key]: &[String; 2]| {
        let arguments = ["--cert", chain, "--key", key, "--interface", &from, "-m", "2"];
        second.curl_as(&a.server_name(), &a.addresses().0, "/echo", &arguments)
    };
    let (old, new) = (with(&a), with(&second));
    eventually("both leaves are served through the new tunnel", Duration::from_secs(10), || {
        ask(&old).status.success() && ask(&new).status.success()
    });
    let stream = |[chain, key]: &[String; 2]| {
        let arguments = ["--cert", chain, "--key", key, "--interface", &from, "--http2"];
        second.download_as(&a.server_name(), &a.addresses().0, &arguments)
    };
    let ((_one, old_file), (_two, new_file)) = (stream(&old), stream(&new));
    eventually("both run", Duration::from_secs(10), || size(&old_file) > 20_000 && size(&new_file) > 20_000);

    let mut dated = both.clone();
    dated["spec"]["revocation"] = json!({"revoked": false, "notBefore": "2020-06-01T00:00:00Z"});
    gateway.apply(&dated);
    let acknowledged = || gateway.words().iter().any(|word| word["word"]["notBefore"] == "2020-06-01T00:00:00Z");
    eventually("it is acknowledged", Duration::from_secs(10), acknowledged);
    // What was on its way when the connection was cut arrives.
    pause(Duration::from_millis(500));
    let (stopped, before) = (size(&old_file), size(&new_file));
    pause(Duration::from_secs(1));
    assert_eq!(size(&old_file), stopped);
    assert!(size(&new_file) > before + 50_000, "the newer generation was disturbed");
    refused(&ask(&old), "the older leaf through the newer tunnel");
    a.configure(&gateway.public_key, support::gateway::PORT);
    pause(Duration::from_millis(1500));
    assert_eq!(a.last_handshake(), 0, "a handshake with the older key");
    assert!(ask(&new).status.success());
}

#[test]
fn an_infopol_that_is_down_or_another_is_503_in_both_languages() {
    let ca = Ca::new();
    // a's InfoPol shows b's identity under a's name; b's does not exist.
    let mut gateway = Gateway::start(&ca, vec![infopol(&ca, "a", "b")], &[]);
    let mut a = Partner::new(&ca, "a", 1, Some(&gateway.namespace));
    let mut b = Partner::new(&ca, "b", 2, Some(&gateway.namespace));
    gateway.list(&[&a.granted(&gateway.public_key), &b.granted(&gateway.public_key)]);
    for partner in [&mut a, &mut b] {
        partner.connect_default(&gateway.public_key);
        let mut text = String::new();
        eventually("an answer", Duration::from_secs(10), || {
            let output = partner.curl("/echo", &["-w", "%{http_code}"]);
            text = String::from_utf8(output.stdout).unwrap();
            output.status.success()
        });
        assert!(
            text.ends_with("503") && text.contains("not available") && text.contains("n'est pas disponible"),
            "{text}"
        );
    }
}

#[test]
fn silence_of_the_api_closes_everything_and_a_word_opens_it() {
    let World { a, mut gateway, .. } = world(&[&format!("--staleness-limit={}", 8 * patience())]);
    let (_download, file) = a.download(&["--http2"]);
    eventually("the download runs", Duration::from_secs(10), || size(&file) > 20_000);
    assert_eq!(gateway.http("readyz").as_deref(), Some("ok\n"));
    eventually("nothing is served", Duration::from_secs(15), || {
        gateway.http("readyz").as_deref() == Some("not ready\n")
    });
    pause(Duration::from_millis(300));
    let stopped = size(&file);
    refused(&a.curl("/echo", &["-m", "1"]), "silence");
    assert_eq!(size(&file), stopped);
    assert!(!gateway.show(&["addr", "show", "dev", "liaison0"]).contains("100.72.9"));
    gateway.list(&[&a.granted(&gateway.public_key)]);
    // The partner's side notices after fifteen seconds that its session is gone; its next handshake is made now.
    a.configure(&gateway.public_key, support::gateway::PORT);
    eventually("it is served again", Duration::from_secs(7), || a.curl("/echo", &["-m", "2"]).status.success());
}

/// The partner's object with a second key, that of `staged`.
fn two_keys(gateway: &Gateway, a: &Partner, second: &str) -> Value {
    let mut object = a.granted(&gateway.public_key);
    for path in ["/spec/credentials/wireGuard/publicKeys", "/status/wireGuardKeys"] {
        object.pointer_mut(path).unwrap().as_array_mut().unwrap().push(json!(second));
    }
    object
}

#[test]
fn an_open_connection_outlives_the_rotation_of_the_key_and_the_way_back() {
    let World { mut a, b, mut gateway, ca: _ca } = world(&[]);
    let (old, new) = (a.private_key().to_owned(), support::run("wg", &["genkey"]));
    let (old_public, new_public) = (support::gateway::public_key(&old), support::gateway::public_key(&new));
    let both = two_keys(&gateway, &a, &new_public);
    gateway.apply(&both);
    let (mut open, file) = a.download(&["--http2"]);
    let moves = |open: &mut support::Process, what: &str| {
        let before = size(&file);
        eventually(what, Duration::from_secs(20), || size(&file) > before + 20_000);
        assert!(open.0.try_wait().unwrap().is_none(), "{what}: the connection ended");
    };
    let in_use = || gateway.metric("liaison_gateway_wireguard_key_in_use{partner=\"a\"}");
    let told = || gateway.words().last().map(|word| word["word"]["keyInUse"]["publicKey"].clone());
    moves(&mut open, "by the first key");
    eventually("the metric follows", Duration::from_secs(5), || in_use() == 1);

    a.set_key(&new);
    moves(&mut open, "by the new key");
    eventually("the metric follows", Duration::from_secs(5), || in_use() == 2);
    eventually("status is told", Duration::from_secs(20), || told() == Some(json!(new_public)));
    assert!(gateway.words().last().unwrap()["word"]["since"].is_null());

    a.set_key(&old);
    moves(&mut open, "back by the old key");
    eventually("the metric follows", Duration::from_secs(5), || in_use() == 1);
    eventually("status is told", Duration::from_secs(20), || told() == Some(json!(old_public)));

    // The overlap is over: the operator takes the old key out of status, whatever the manifest names.
    a.set_key(&new);
    moves(&mut open, "by the new key again");
    let mut over = both.clone();
    over["status"]["wireGuardKeys"] = json!([new_public]);
    gateway.apply(&over);
    moves(&mut open, "the old key's end disturbs nobody");
    a.set_key(&old);
    refused(&a.curl("/echo", &["-m", "2"]), "the old key");
    a.configure(&gateway.public_key, support::gateway::PORT);
    pause(Duration::from_millis(1500));
    assert_eq!(a.last_handshake(), 0, "a handshake with the old key");
    assert!(b.curl("/echo", &[]).status.success(), "b was disturbed");
    assert_eq!(gateway.metric("liaison_gateway_connections_cut_total{partner=\"a\"}"), 0);
}

#[test]
fn a_recorded_handshake_moves_no_address_and_a_router_that_sends_does() {
    let World { a, b, mut gateway, ca } = world(&[]);
    drop(b);
    // The same partner with a second key, in a second router. What it sends first goes to somebody who only records it.
    let mut staged = Partner::new(&ca, "a", 3, Some(&gateway.namespace));
    let both = two_keys(&gateway, &a, &support::gateway::public_key(staged.private_key()));
    gateway.apply(&both);
    let recorder = staged.namespace.within(|| std::net::UdpSocket::bind("127.0.0.1:40000").unwrap());
    recorder.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    staged.endpoint = Some("127.0.0.1:40000".to_owned());
    staged.connect_default(&gateway.public_key);
    let mut initiations: Vec<Vec<u8>> = Vec::new();
    while initiations.len() < 2 {
        let mut packet = [0; 2048];
        let (length, _) = recorder.recv_from(&mut packet).unwrap();
        initiations.push(packet[..length].to_vec());
    }
    assert!(initiations.iter().all(|packet| packet.len() == 148 && packet[0] == 1));

    // The gateway has never seen them, as after a restart: it answers, and nothing moves.
    let (open, file) = a.download(&["--http2"]);
    let replay = a.namespace.within(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    replay.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for packet in &initiations {
        replay.send_to(packet, "192.0.2.5:51820").unwrap();
        let mut answer = [0; 2048];
        let (length, _) = replay.recv_from(&mut answer).unwrap();
        assert_eq!((length, answer[0]), (92, 2), "the gateway takes it for a handshake");
        let before = size(&file);
        pause(Duration::from_secs(1));
        assert!(size(&file) > before + 20_000, "the address has moved");
    }

    // The real router, which keeps its tunnel alive and sends nothing: nothing moves either, but where the kernel knows sessions only.
    staged.endpoint = None;
    staged.configure(&gateway.public_key, support::gateway::PORT);
    eventually("a handshake", Duration::from_secs(10), || staged.last_handshake() != 0);
    let in_use = || gateway.metric("liaison_gateway_wireguard_key_in_use{partner=\"a\"}");
    if kernel() {
        eventually("the address has moved", Duration::from_secs(5), || in_use() == 2);
        // The other sends, hears nothing for fifteen seconds, and shakes hands again.
        eventually("it is back", Duration::from_secs(40), || {
            a.curl("/echo", &["-m", "2"]).status.success() && in_use() == 1
        });
    } else {
        let before = size(&file);
        pause(Duration::from_secs(2));
        assert!(size(&file) > before + 50_000, "the address has moved");
        assert_eq!(in_use(), 1);
    }
    drop(open);
    staged.spoof(&a.addresses().1);
    let (chain, key, from) = (a.file("chain.pem"), a.file("key.pem"), a.addresses().1);
    let arguments = ["--cert", &chain, "--key", &key, "--interface", &from, "-m", "2"];
    eventually("the new key carries it", Duration::from_secs(10), || {
        staged.curl_as(&a.server_name(), &a.addresses().0, "/echo", &arguments).status.success()
    });
    eventually("the metric follows", Duration::from_secs(5), || in_use() == 2);
}

#[test]
fn a_gateway_that_is_killed_shakes_hands_with_its_partners_where_they_were() {
    let state = tempfile::TempDir::new().unwrap();
    let World { mut a, b, mut gateway, ca: _ca } = world(&[&format!("--state-dir={}", state.path().display())]);
    // One that says nothing by itself, so that it is not the one to begin.
    a.keepalive = 0;
    a.configure(&gateway.public_key, support::gateway::PORT);
    eventually("a request", Duration::from_secs(10), || a.curl("/echo", &["-m", "2"]).status.success());
    let file = state.path().join("endpoints.json");
    let kept = || std::fs::read_to_string(&file).unwrap_or_default();
    let (of_a, of_b) = (a.outer_endpoint(), b.outer_endpoint());
    eventually("it is kept where they are", Duration::from_secs(10), || {
        kept().contains(&of_a) && kept().contains(&of_b)
    });

    let objects = [a.granted(&gateway.public_key), b.granted(&gateway.public_key)];
    for _ in 0..2 {
        // It is told in whole seconds.
        let before = a.last_handshake();
        pause(Duration::from_millis(1100));
        gateway.kill();
        gateway.start_again(&[&objects[0], &objects[1]]);
        eventually("the gateway shakes hands", Duration::from_secs(20), || a.last_handshake() > before);
        assert!(a.curl("/echo", &["-m", "2"]).status.success());
        eventually("b is served", Duration::from_secs(20), || b.curl("/echo", &["-m", "2"]).status.success());
        assert!(kept().contains(&of_a), "for the process after this one");
    }

    // Revoked meanwhile: whatever was kept, nobody is reached.
    let mut revoked = objects[0].clone();
    revoked["spec"]["revocation"] = json!({"revoked": true});
    let before = a.last_handshake();
    gateway.kill();
    gateway.start_again(&[&revoked, &objects[1]]);
    eventually("b is served", Duration::from_secs(20), || b.curl("/echo", &["-m", "2"]).status.success());
    eventually("a is forgotten", Duration::from_secs(10), || !kept().contains(&of_a));
    assert_eq!(a.last_handshake(), before);
}

#[test]
fn a_partner_that_moved_is_sent_to_where_it_is_when_all_is_listed_again() {
    let state = tempfile::TempDir::new().unwrap();
    let World { a, b, mut gateway, ca: _ca } = world(&[&format!("--state-dir={}", state.path().display())]);
    let kept = || std::fs::read_to_string(state.path().join("endpoints.json")).unwrap_or_default();
    let (mut open, file) = a.download(&["--http2"]);
    let mut moves = |what: &str| {
        let before = size(&file);
        eventually(what, Duration::from_secs(10), || size(&file) > before + 50_000);
        assert!(open.0.try_wait().unwrap().is_none(), "{what}: the connection ended");
    };
    moves("where it was");
    let (shaken, old) = (a.last_handshake(), a.outer_endpoint());
    eventually("it is kept where it was", Duration::from_secs(10), || kept().contains(&old));
    a.set_port(40_001);
    let new = a.outer_endpoint();
    assert!(new.ends_with(":40001") && new != old, "{old} {new}");
    moves("where it is");
    eventually("it is kept where it is", Duration::from_secs(10), || kept().contains(&new) && !kept().contains(&old));

    // Nothing more is heard of it, so that no packet of its own can say again where it is.
    a.mute(true);
    let objects = [a.granted(&gateway.public_key), b.granted(&gateway.public_key)];
    let mut closed = objects[1].clone();
    closed["spec"]["suspend"] = json!(true);
    gateway.list(&[&objects[0], &objects[1]]);
    gateway.list(&[&objects[0], &closed]);
    let both_heard = || gateway.metric("liaison_gateway_partners_open") == 1;
    eventually("both lists are acted on", Duration::from_secs(5), both_heard);
    let before = a.received();
    eventually("it is sent to where it is", Duration::from_secs(6), || a.received() > before + 1000);

    a.mute(false);
    moves("when it is heard again");
    assert_eq!(a.last_handshake(), shaken, "by the session that there was");
    assert!(kept().contains(&new) && !kept().contains(&old));
    assert_eq!(gateway.metric("liaison_gateway_connections_cut_total{partner=\"a\"}"), 0);
}

#[test]
fn a_listener_that_cannot_be_opened_is_not_told_and_is_tried_again() {
    // The kernel's links have their ports from the start.
    if kernel() {
        return;
    }
    let World { a, b: _b, mut gateway, ca: _ca } = world(&[]);
    let (own, second) = (gateway.own_key(), run("wg", &["genkey"]));
    let told = |gateway: &Gateway| {
        gateway.http("trust").is_some_and(|report| report.contains(&support::gateway::public_key(&second)))
    };
    let port = support::gateway::PORT + 1;
    let taken = gateway.namespace.within(|| UdpSocket::bind(("::", port)).unwrap());
    gateway.keys([Some(&own), Some(&second)]);
    pause(Duration::from_secs(2));
    assert!(!told(&gateway), "a key is told that is not listened with");
    assert!(a.curl("/echo", &[]).status.success(), "who is served by the first was disturbed");
    drop(taken);
    eventually("it listens with the key", Duration::from_secs(10), || told(&gateway));
    assert!(a.curl("/echo", &[]).status.success());
}

#[test]
fn the_gateways_own_key_changes_while_partners_come_over_one_by_one() {
    let World { a, b, mut gateway, ca: _ca } = world(&[]);
    let objects = [a.granted(&gateway.public_key), b.granted(&gateway.public_key)];
    let ([first, second, third], second_port) = ([(); 3].map(|()| run("wg", &["genkey"])), support::gateway::PORT + 1);
    let public = |key: &str| support::gateway::public_key(key);
    let (_open, file) = a.download(&["--http2"]);
    let moves = |what: &str| {
        let before = size(&file);
        eventually(what, Duration::from_secs(10), || size(&file) > before + 50_000);
    };
    let by = |gateway: &Gateway, key: &str| -> Vec<String> {
        let report: Value = serde_json::from_str(&gateway.http("trust").unwrap()).unwrap();
        serde_json::from_value(report["wireguard"][key].clone()).unwrap_or_default()
    };
    let serves = |partner: &Partner| partner.curl("/echo", &["-m", "2"]).status.success();
    // Whoever comes before would try again after five seconds.
    let listens = |gateway: &Gateway, key: &str| {
        eventually("it listens with the key", Duration::from_secs(10), || {
            gateway.http("trust").is_some_and(|report| report.contains(&public(key)))
        });
    };
    // The key that it was started with, in the form in which it is told.
    let own = gateway.own_key();
    eventually("the report", Duration::from_secs(5), || by(&gateway, &gateway.public_key) == ["a", "b"]);

    // A second listener. Nobody notices.
    gateway.keys([Some(&own), Some(&second)]);
    listens(&gateway, &second);
    moves("by the first listener");
    // So is b where the kernel counts what keeps a tunnel alive.
    let heard = |gateway: &Gateway| by(gateway, &gateway.public_key);
    eventually("a is heard there", Duration::from_secs(5), || heard(&gateway).contains(&"a".to_owned()));
    assert!(kernel() || heard(&gateway) == ["a"]);
    assert!(by(&gateway, &public(&second)).is_empty());
    // a comes over, with its connection, by which it only receives; b does not, and is served.
    a.configure(&public(&second), second_port);
    moves("by the second listener");
    eventually("a is heard there", Duration::from_secs(5), || by(&gateway, &public(&second)) == ["a"]);
    assert!(serves(&b), "b was disturbed");
    eventually("b is heard at the first", Duration::from_secs(5), || by(&gateway, &gateway.public_key) == ["b"]);
    // What is closed is closed at both.
    let mut closed = objects[1].clone();
    closed["spec"]["suspend"] = json!(true);
    gateway.apply(&closed);
    b.configure(&public(&second), second_port);
    pause(Duration::from_millis(1500));
    assert_eq!(b.last_handshake(), 0, "a closed partner's handshake with the second listener");
    gateway.apply(&objects[1]);
    eventually("b comes back by the second", Duration::from_secs(10), || serves(&b));

    // The first listener has no key any more: nobody is let in there.
    gateway.keys([None, Some(&second)]);
    moves("by the second listener alone");
    b.configure(&gateway.public_key, support::gateway::PORT);
    pause(Duration::from_millis(1500));
    assert_eq!(b.last_handshake(), 0, "a handshake with the key that is gone");
    // Killed now, the next process knows the second alone.
    gateway.kill();
    gateway.start_again(&[&objects[0], &objects[1]]);
    b.configure(&public(&second), second_port);
    eventually("b is served", Duration::from_secs(20), || serves(&b));
    eventually("a is served", Duration::from_secs(40), || serves(&a));

    // The next rotation goes the other way.
    gateway.keys([Some(&first), Some(&second)]);
    listens(&gateway, &first);
    a.configure(&public(&first), support::gateway::PORT);
    eventually("a is served", Duration::from_secs(10), || serves(&a));
    assert!(serves(&b), "b was disturbed");
    gateway.keys([Some(&first), None]);
    assert!(serves(&a));
    b.configure(&public(&first), support::gateway::PORT);
    eventually("b is served", Duration::from_secs(10), || serves(&b));
    // A key that was stolen: another at once, in its place.
    gateway.keys([Some(&third), None]);
    listens(&gateway, &third);
    a.configure(&public(&third), support::gateway::PORT);
    eventually("a is served", Duration::from_secs(10), || serves(&a));
}
