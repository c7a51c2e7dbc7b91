//! Bad input on a running installation: each with a message that says what must change, and nothing half made (I5).
//!
//! A manifest of `tests/e2e/bad` says in its first line what is expected of it: `# refused: TEXT` when the API server
//! must refuse it with that text, `# condition: REASON: TEXT` when `Accepted` must turn False with that reason and text. What
//! follows a line `# once accepted: PARTNER` is applied when that partner has been accepted: who is first, is first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, time::Duration};

use liaison_e2e::{apply, condition, hub, kubectl, root, run, store, wait};

/// What a partner's name must not appear in after its manifest was refused.
fn traces_of(partner: &str) -> Vec<String> {
    let schema = partner.replace('-', "_");
    let mut traces = store(&format!(
        "SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE '%{schema}'
         UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE '%{schema}'"
    ));
    traces.extend(hub(&format!("SELECT 'ledger ' || batch FROM liaison.ledger_batch WHERE partner = '{partner}'")));
    for (namespace, kinds) in [
        ("liaison-system", "jobs,secrets"),
        ("liaison-partners", "deployments,services,secrets,serviceaccounts,networkpolicies"),
    ] {
        let out = kubectl(&["-n", namespace, "get", kinds, "-o", "name"]);
        traces.extend(out.lines().filter(|line| line.contains(partner)).map(str::to_owned));
    }
    traces
}

#[test]
fn bad_manifests_are_refused_with_what_must_change() {
    let mut seen = 0;
    for entry in fs::read_dir(root().join("tests/e2e/bad")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        seen += 1;
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let manifest = fs::read_to_string(&path).unwrap();
        let expected = manifest.lines().next().unwrap().trim_start_matches('#').trim().to_owned();
        let result = match manifest.split_once("# once accepted: ") {
            None => apply(&manifest),
            Some((first, rest)) => {
                let holder = rest.lines().next().unwrap().trim();
                apply(first).unwrap_or_else(|e| panic!("{file} was refused by the API server: {e}"));
                wait(&format!("{file}: {holder} accepted"), Duration::from_secs(60), || {
                    condition(holder, "Accepted").0 == "True"
                });
                apply(rest.split_once('\n').unwrap().1)
            }
        };
        if let Some(text) = expected.strip_prefix("refused: ") {
            let error = result.expect_err(&format!("{file} was accepted"));
            assert!(error.contains(text), "{file}: expected '{text}' in:\n{error}");
        } else if let Some(text) = expected.strip_prefix("condition: ") {
            let (reason, text) = text.split_once(": ").unwrap();
            result.unwrap_or_else(|e| panic!("{file} was refused by the API server: {e}"));
            let partner = manifest
                .rsplit("kind: PartnerConnection")
                .next()
                .and_then(|rest| rest.split("name: ").nth(1))
                .and_then(|rest| rest.split(['\n', ',', '}']).next())
                .unwrap()
                .trim()
                .to_owned();
            wait(&format!("{file}: Accepted=False {reason}"), Duration::from_secs(60), || {
                let (status, got, message) = condition(&partner, "Accepted");
                status == "False" && got == reason && message.contains(text)
            });
            assert_eq!(condition(&partner, "Ready").0, "False", "{file}");
            assert_eq!(traces_of(&partner), Vec::<String>::new(), "{file} left something half made");
        } else {
            panic!("{file} must start with '# refused: TEXT' or '# condition: REASON: TEXT'");
        }
        let _ = run("kubectl", &["delete", "-f", "-", "--ignore-not-found", "--timeout=60s"], Some(&manifest));
    }
    assert!(seen >= 10, "only {seen} bad manifests");
}
