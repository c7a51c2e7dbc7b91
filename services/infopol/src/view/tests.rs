use serde_json::json;

use liaison_records::{
    catalogue::{self, TableKind},
    codes::FieldGroup,
};

use super::{profile::age, *};
use crate::store::{File, Record};

fn context(lang: Lang) -> Context {
    let zone = TimeZone::get("America/Vancouver").unwrap();
    Context { lang, zone, now: "2026-11-22T04:00:00Z".parse().unwrap() }
}

fn record(table: &str, id: i64, body: Value) -> Record {
    let group = catalogue::table(table).unwrap().group.as_str().to_owned();
    let reference = catalogue::table(table).unwrap().kind == TableKind::Reference;
    Record { offender: (!reference).then_some(7), group, table: table.to_owned(), id, body }
}

fn profile_of(records: Vec<Record>, lang: Lang) -> Profile {
    let granted: Vec<String> = FieldGroup::ALL.iter().map(|g| g.as_str().to_owned()).collect();
    profile(7, &File { access: 1, as_of: None, records }, &granted, &context(lang))
}

#[test]
fn at_large_comes_before_a_warrant_and_a_warrant_before_the_status() {
    let level = |status, at_large, warrant| headline("Community", status, at_large, Some(warrant), Lang::En).0;
    assert_eq!(level("Released", "Escaped", "Outstanding"), "danger");
    assert_eq!(level("Released", "Apprehended", "Outstanding"), "warning");
    assert_eq!(level("Revoked", "NotAtLarge", "Executed"), "warning");
    assert_eq!(level("Released", "NotAtLarge", "NoWarrant"), "plain");
    // A code that this version does not know is shown as it is.
    assert_eq!(headline("Community", "Novel", "NotAtLarge", None, Lang::Fr).1, "Novel – Dans la collectivité");
}

#[test]
fn times_are_the_partners_and_old_data_is_said_to_be_old() {
    let context = context(Lang::Fr);
    assert_eq!(context.instant("2026-07-01T06:30:00Z".parse().unwrap()), "2026-06-30 23:30 PDT");
    let ago = |seconds: i64| Some(Timestamp::from_second(context.now.as_second() - seconds).unwrap());
    assert_eq!(context.stale(ago(STALE_AFTER)), None);
    assert!(context.stale(ago(301)).unwrap().contains("5 minutes"));
    assert!(context.stale(ago(7_300)).unwrap().contains("2 heures"));
    assert!(context.stale(ago(200_000)).unwrap().contains("2 jours"));
}

#[test]
fn age_turns_on_the_birthday() {
    let birth = "1980-02-29".parse().unwrap();
    assert_eq!(age(birth, "2026-02-28".parse().unwrap()), 45);
    assert_eq!(age(birth, "2026-03-01".parse().unwrap()), 46);
}

#[test]
fn a_file_with_almost_nothing_in_it_is_still_shown() {
    let profile = profile_of(vec![record("offender", 7, json!({"surname": "Roy", "given": "Al"}))], Lang::En);
    assert_eq!((profile.name.as_str(), profile.call, profile.picture), ("Roy, Al", None, None));
}

#[test]
fn of_a_pair_of_columns_only_the_pages_language_is_shown() {
    let body =
        json!({"kind": "Standard", "textEn": "No alcohol.", "textFr": "Pas d'alcool.", "imposedOn": "2025-01-02"});
    let texts = |lang| -> Vec<String> {
        let profile = profile_of(vec![record("condition", 1, body.clone())], lang);
        let group = profile.groups.iter().find(|g| g.id == "conditions").unwrap().clone();
        group.sections[0].records[0].iter().map(|field| format!("{}={}", field.label, field.value)).collect()
    };
    assert!(texts(Lang::En).contains(&"Text=No alcohol.".to_owned()), "{:?}", texts(Lang::En));
    assert!(texts(Lang::Fr).contains(&"Texte=Pas d'alcool.".to_owned()), "{:?}", texts(Lang::Fr));
    assert_eq!(texts(Lang::Fr).len(), 3);
}

#[test]
fn the_present_supervision_says_whom_to_call() {
    let past = json!({"startedOn": "2026-01-01", "endedOn": "2026-05-01", "officerName": "Past", "officer": 1});
    let present = json!({"startedOn": "2025-01-01", "endedOn": null, "officerName": "Old copy", "officer": 2,
        "officeName": "Office", "officeNameFr": "Bureau"});
    let officer = json!({"name": "Now", "telephone": "604-555-0100"});
    let records =
        vec![record("supervision", 1, past), record("supervision", 2, present), record("parole_officer", 2, officer)];
    let call = profile_of(records, Lang::Fr).call.unwrap();
    assert_eq!(call.officer.as_deref(), Some("Now"));
    assert_eq!((call.telephone.as_deref(), call.office.as_deref()), (Some("604-555-0100"), Some("Bureau")));
}

#[test]
fn long_text_is_shown_as_a_list_with_its_language() {
    let body = json!({"writtenOn": "2025-01-02", "language": "fra", "summary": "x".repeat(80)});
    let profile = profile_of(vec![record("progress_report", 1, body)], Lang::En);
    let group = profile.groups.iter().find(|g| g.id == "progressReports").unwrap();
    assert_eq!(group.sections[0].columns, None);
    assert!(group.sections[0].records[0].iter().any(|field| field.lang == Some("fr")));
}
