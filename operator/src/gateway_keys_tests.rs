use super::*;

fn state(keys: [Option<&str>; 2], active: usize, prepared: bool, asked: Option<&str>) -> State {
    State { keys: keys.map(|key| key.map(str::to_owned)), active, prepared, asked: asked.map(str::to_owned) }
}

#[expect(clippy::unnecessary_wraps, reason = "one of the words that there are")]
fn said(all: &[(&str, &[&str])]) -> Word {
    let set = |partners: &[&str]| partners.iter().map(|partner| (*partner).to_owned()).collect();
    Ok(all.iter().map(|(key, partners)| ((*key).to_owned(), set(partners))).collect())
}

fn observed(all: &[(&str, Word)]) -> Observed {
    // Processes of another shard, which have other keys, begin with its letter.
    let of_shard = |prefix: &str| {
        let own = all.iter().filter(|(name, _)| name.starts_with("a-") != prefix.is_empty());
        own.map(|(name, said)| (format!("gateway/{name}"), said.clone())).collect::<Said>()
    };
    let listeners = [("gateway", of_shard("")), ("gateway-a", of_shard("a-"))];
    Observed {
        listeners: listeners.into_iter().map(|(shard, said)| (shard.to_owned(), said)).collect(),
        ..Observed::default()
    }
}

fn who(state: &State, step: Step, observed: &Observed) -> Vec<String> {
    of("gateway", state, step, observed)
}

fn of(shard: &str, state: &State, step: Step, observed: &Observed) -> Vec<String> {
    let all = laggards(&shard.parse().unwrap(), state, step, observed, |_| true);
    all.into_iter().map(|laggard| laggard.who).collect()
}

#[test]
fn a_rotation_goes_through_its_steps_and_back_to_rest_by_the_other_listener() {
    let rest = state([Some("a"), None], 0, false, None);
    assert_eq!((next(&rest, None), next(&rest, Some("1"))), (None, Some(Step::Make(1))));
    let prepared = state([Some("a"), Some("b")], 0, true, Some("1"));
    assert_eq!(next(&prepared, Some("1")), Some(Step::Activate(1)));
    // Asked again meanwhile: the one that is under way first.
    assert_eq!(next(&prepared, Some("2")), Some(Step::Activate(1)));
    let retiring = state([Some("a"), Some("b")], 1, false, Some("1"));
    assert_eq!((next(&retiring, Some("1")), next(&retiring, None)), (Some(Step::Remove(0)), Some(Step::Remove(0))));
    let done = state([None, Some("b")], 1, false, Some("1"));
    assert_eq!((next(&done, Some("1")), next(&done, Some("2"))), (None, Some(Step::Make(0))));
}

#[test]
fn partners_are_told_of_a_key_once_it_is_told_and_of_the_one_before_as_long_as_it_serves() {
    let endpoint = |port: u16| format!("gateway.example.ca:{port}");
    let endpoints = Endpoints { first: endpoint(51820), second: Some(endpoint(51821)) };
    let shard = "gateway".parse().unwrap();
    let told = |state: &State| told(&shard, state, &endpoints).unwrap();
    let prepared = told(&state([Some("a"), Some("b")], 0, true, Some("1")));
    assert_eq!((prepared.key.as_str(), prepared.endpoint, prepared.retiring), ("a", endpoint(51820), None));
    let retiring = told(&state([Some("a"), Some("b")], 1, false, Some("1")));
    assert_eq!((retiring.key.as_str(), retiring.endpoint), ("b", endpoint(51821)));
    assert_eq!(retiring.retiring, Some(("a".to_owned(), endpoint(51820))));
    let done = told(&state([None, Some("b")], 1, false, Some("1")));
    assert_eq!((done.key.as_str(), done.retiring), ("b", None));
    // An endpoint that was taken away while partners use it is not made up.
    let first = Endpoints { second: None, ..endpoints.clone() };
    let with_first = |state: &State| super::told(&shard, state, &first).is_ok();
    assert!(with_first(&state([Some("a"), None], 0, false, None)));
    assert!(with_first(&state([Some("a"), Some("b")], 0, true, Some("1"))));
    assert!(!with_first(&state([Some("a"), Some("b")], 1, false, Some("1"))));
    assert!(!with_first(&state([None, Some("b")], 1, false, Some("1"))));
}

#[test]
fn a_key_is_told_when_every_gateway_listens_with_it() {
    let prepared = state([Some("a"), Some("b")], 0, true, Some("1"));
    let one = |second| observed(&[("g", said(&[("a", &["p"]), ("b", &[]), ("", &[])])), ("h", second)]);
    let step = Step::Activate(1);
    assert!(who(&prepared, step, &one(said(&[("a", &[]), ("b", &[])]))).is_empty(), "one serves, one stands by");
    assert_eq!(who(&prepared, step, &one(said(&[("a", &[])]))), ["gateway/h"]);
    assert_eq!(who(&prepared, step, &one(Err("silent".to_owned()))), ["gateway/h"]);
    assert_eq!(who(&prepared, step, &observed(&[])), ["gateway"]);
}

#[test]
fn a_key_goes_when_nobody_uses_it_and_everybody_was_heard_by_the_one_who_serves() {
    let retiring = state([Some("a"), Some("b")], 1, false, Some("1"));
    let step = Step::Remove(0);
    let by = |old: &[&str], new: &[&str], unheard: &[&str]| {
        observed(&[("g", said(&[("a", old), ("b", new), ("", unheard)])), ("h", said(&[("a", &[]), ("b", &[])]))])
    };
    assert!(who(&retiring, step, &by(&[], &["p", "q"], &[])).is_empty());
    assert_eq!(who(&retiring, step, &by(&["p"], &["q"], &["r"])), ["partner/p", "partner/r"]);
    // Nobody serves at this moment: that nobody is seen to use it means nothing.
    assert_eq!(who(&retiring, step, &observed(&[("h", said(&[("a", &[]), ("b", &[])]))])), ["gateway"]);
    assert_eq!(who(&retiring, step, &observed(&[])), ["gateway"]);
    let shard = "gateway".parse().unwrap();
    let without = laggards(&shard, &retiring, step, &by(&["p"], &[], &["r"]), |who| who != "partner/p");
    assert_eq!(without.len(), 1);
}

#[test]
fn a_shard_waits_for_its_own_processes_and_partners_alone() {
    let own = said(&[("a", &[]), ("b", &["p"]), ("", &[])]);
    let other = said(&[("x", &["q"]), ("", &["r"])]);
    let both = observed(&[("g", own.clone()), ("a-g", other.clone())]);
    let (prepared, retiring) =
        (state([Some("a"), Some("b")], 0, true, Some("1")), state([Some("a"), Some("b")], 1, false, Some("1")));
    assert!(who(&prepared, Step::Activate(1), &both).is_empty() && who(&retiring, Step::Remove(0), &both).is_empty());
    let next = state([Some("x"), Some("y")], 0, true, Some("1"));
    assert_eq!(of("gateway-a", &next, Step::Activate(1), &both), ["gateway/a-g"]);
    let last = state([Some("x"), Some("y")], 1, false, Some("1"));
    assert_eq!(of("gateway-a", &last, Step::Remove(0), &both), ["partner/q", "partner/r"]);
    // That another serves says nothing.
    assert_eq!(of("gateway-a", &last, Step::Remove(0), &observed(&[("g", own)])), ["gateway-a"]);
    assert_eq!(of("gateway-b", &next, Step::Activate(1), &both), ["gateway-b"]);
    assert_eq!(who(&retiring, Step::Remove(0), &observed(&[("a-g", other)])), ["gateway"]);
}
