//! Every field changed, everything removed, everything reordered: each is found.

use serde_json::Map;

use super::*;

/// Two partners, three batches each of three entries, a checkpoint after the second and the cut-off end.
fn lines() -> Vec<Value> {
    let mut batches = Vec::new();
    let mut heads = Vec::new();
    for partner in ["a", "b"] {
        let (mut previous, mut before, mut count) = (Vec::new(), Vec::new(), 0);
        for batch in 1..=3_i64 {
            let entries: Vec<Entry> = (0..3_u8)
                .map(|n| Entry {
                    offender: (n > 0).then_some(batch * 10 + i64::from(n)),
                    groups: vec!["aliases".into(), "identity".into()],
                    kind: if n > 0 { EntryKind::Enter } else { EntryKind::Reference },
                    digest: [n; 32],
                })
                .collect();
            let digest = ledger::batch_digest(&entries);
            let heading = Heading { partner, batch, agreement: "bc-2003", generation: 4, digest: &digest };
            let head = ledger::head(&previous, &heading);
            let line = BatchLine {
                partner: partner.into(),
                batch,
                epoch: 7,
                kind: "changes".into(),
                agreement: "bc-2003".into(),
                generation: 4,
                store_identity: "1/00000001".into(),
                files: 2,
                digest: hex::encode(digest),
                previous: hex::encode(&previous),
                head: hex::encode(head),
                state: if batch == 2 { "void" } else { "landed" }.into(),
                at: format!("2026-11-2{batch}T00:00:00.000000Z"),
            };
            (previous, count) = (head.to_vec(), count + 3);
            before = facts(&before, &line).to_vec();
            if batch == 3 {
                heads.push(Mark {
                    partner: partner.into(),
                    batch,
                    head: line.head.clone(),
                    entries: count,
                    facts: hex::encode(&before),
                });
            }
            batches.push(json!(Line::Batch(line)));
            batches.extend(entries.iter().zip(0..).map(|(e, seq)| {
                json!(Line::Entry(EntryLine {
                    partner: partner.into(),
                    batch,
                    seq,
                    offender: e.offender,
                    groups: e.groups.clone(),
                    kind: e.kind.as_str().into(),
                    digest: hex::encode(e.digest),
                }))
            }));
        }
    }
    let mut lines: Vec<Value> = (1..=2).map(|number| said(number, &heads)).collect();
    lines.extend(batches);
    lines.push(json!(Line::End(Totals { statements: 2, batches: 6, entries: 18 })));
    lines
}

fn said(number: i64, heads: &[Mark]) -> Value {
    let id = Id { kind: Kind::Checkpoint, partner: String::new(), number };
    let text = statement::text(&id, "2026-11-24T00:00:00Z", Map::from_iter([("heads".to_owned(), json!(heads))]));
    json!(Line::Statement(StatementLine {
        signature: Some(hex::encode(Sha256::digest(&text))),
        statement: text,
        key_id: Some("k".into()),
        chain: Some("c".into()),
        signed_at: Some("2026-11-24T00:00:01Z".into()),
    }))
}

/// Stands for the key: a signature is the text's hash.
fn signature(line: &StatementLine) -> Result<(), String> {
    let (id, chain) = (line.key_id.as_deref(), line.chain.as_deref());
    let right =
        line.signature == Some(hex::encode(Sha256::digest(&line.statement))) && (id, chain) == (Some("k"), Some("c"));
    right.then_some(()).ok_or_else(|| "its signature does not count".to_owned())
}

fn verify(lines: &[Value]) -> Verdict {
    let mut verifier = Verifier::default();
    for line in lines {
        verifier.line(&line.to_string(), signature);
    }
    verifier.finish(None)
}

#[test]
fn what_was_not_touched_is_whole() {
    let verdict = verify(&lines());
    assert_eq!(verdict.findings, []);
    assert_eq!((verdict.partners, verdict.signed, verdict.unsigned), (2, 2, 0));
}

#[test]
fn every_field_that_is_changed_is_found() {
    let whole = lines();
    let mut tried = 0;
    for index in 0..whole.len() {
        for (key, value) in whole[index].as_object().unwrap() {
            // When it was signed is the operator's word about its own clock; the text's own time is signed.
            if key == "type" || key == "signedAt" {
                continue;
            }
            let mut changed = whole.clone();
            changed[index][key] = match value {
                Value::Number(n) => json!(n.as_i64().unwrap() + 1),
                Value::String(s) if key == "state" => json!(if s == "void" { "landed" } else { "void" }),
                Value::String(s) if key == "kind" && changed[index]["type"] == "entry" => {
                    json!(if s == "stay" { "leave" } else { "stay" })
                }
                Value::String(s) if s.len() == 64 => {
                    json!(s.replacen(&s[..1], if s.starts_with('0') { "1" } else { "0" }, 1))
                }
                Value::String(s) => json!(format!("{s}0")),
                Value::Array(_) => json!(["identity"]),
                Value::Null => json!(5),
                other => panic!("{other}"),
            };
            assert_ne!(verify(&changed).findings, [], "line {index}: {key} of {}", whole[index]);
            tried += 1;
        }
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn every_line_that_is_removed_repeated_or_moved_is_found_even_with_the_totals_put_right() {
    let whole = lines();
    let end = whole.len() - 1;
    let recount = |lines: &mut Vec<Value>| {
        let count = |kind: &str| lines.iter().filter(|l| l["type"] == kind).count() as u64;
        let totals = Totals { statements: count("statement"), batches: count("batch"), entries: count("entry") };
        *lines.last_mut().unwrap() = json!(Line::End(totals));
    };
    for index in 0..end {
        let mut removed = whole.clone();
        removed.remove(index);
        recount(&mut removed);
        // The last statement may be missing unnoticed by this file alone: its successor, or a copy kept elsewhere, tells.
        if index != 1 {
            assert_ne!(verify(&removed).findings, [], "line {index} removed");
        }
        let mut repeated = whole.clone();
        repeated.insert(index, whole[index].clone());
        recount(&mut repeated);
        assert_ne!(verify(&repeated).findings, [], "line {index} repeated");
        if index > 1 && index + 1 < end {
            let mut swapped = whole.clone();
            swapped.swap(index, index + 1);
            // A batch after the last entry of another: its own entries are what tells.
            assert_ne!(verify(&swapped).findings, [], "lines {index} and the next swapped");
        }
    }
}

#[test]
fn whole_batches_that_are_removed_moved_or_cut_off_are_found() {
    let whole = lines();
    let block = |partner: &str, batch: i64| -> Vec<usize> {
        (0..whole.len()).filter(|i| whole[*i]["partner"] == partner && whole[*i]["batch"] == batch).collect()
    };
    let without = |gone: &[usize]| -> Vec<Value> {
        let kept = (0..whole.len()).filter(|i| !gone.contains(i));
        let mut lines: Vec<Value> = kept.map(|i| whole[i].clone()).collect();
        let count = |kind: &str| lines.iter().filter(|l| l["type"] == kind).count() as u64;
        let totals = Totals { statements: count("statement"), batches: count("batch"), entries: count("entry") };
        *lines.last_mut().unwrap() = json!(Line::End(totals));
        lines
    };
    for batch in 1..=3 {
        let found = verify(&without(&block("a", batch))).findings;
        assert!(found.iter().all(|f| f.partner == "a" || f.partner.is_empty()), "the other chain is whole: {found:?}");
        // What is wrong is told where it is: the batch after the gap, or the mark that is no longer there.
        assert!(found.iter().any(|f| f.batch == Some((batch + 1).min(3))), "batch {batch}: {found:?}");
    }
    // Cut off at the end, with all that follows: only a checkpoint or a cursor can tell.
    let all: Vec<usize> = (2..=3).flat_map(|batch| block("b", batch)).collect();
    let found = verify(&without(&all)).findings;
    assert!(found[0].what.contains("cut off or restored") && found[0].batch == Some(3), "{found:?}");
    // Without checkpoints, a replica's cursor tells.
    let all: Vec<usize> = [0, 1].into_iter().chain(all).collect();
    let cut = without(&all);
    assert_eq!(verify(&cut).findings, [], "nothing else knows");
    let mut verifier = Verifier::default();
    for line in &cut {
        verifier.line(&line.to_string(), signature);
    }
    let mark = Mark { partner: "b".into(), batch: 3, head: "00".into(), entries: 0, facts: String::new() };
    verifier.expect("the replica's cursor", mark);
    assert!(verifier.finish(None).findings[0].what.contains("the replica's cursor"));
    // Two batches of one partner change places.
    let (one, two) = (block("a", 1), block("a", 2));
    let mut swapped = whole.clone();
    for (i, j) in one.iter().zip(&two) {
        swapped.swap(*i, *j);
    }
    assert_ne!(verify(&swapped).findings, []);
    // The file itself is cut off.
    assert!(verify(&whole[..10]).findings.iter().any(|f| f.what.contains("cut off")));
}
