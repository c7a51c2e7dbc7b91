//! The generator against the published proportions, on a few thousand files without photographs of their own.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::date;

use super::*;

fn maker(model: &Model) -> Maker<'_> {
    Maker { model, seed: 1, as_of: date(2026, 11, 1) }
}

fn files(model: &Model, custody: Custody, count: i64) -> Vec<File<'_>> {
    (1..=count).map(|id| File::new(maker(model), id, custody)).collect()
}

fn share(files: &[File<'_>], which: impl Fn(&File<'_>) -> bool) -> f64 {
    let hits = files.iter().filter(|f| which(f)).count();
    f64::from(u32::try_from(hits).unwrap()) / f64::from(u32::try_from(files.len()).unwrap())
}

fn near(what: &str, got: f64, wanted: f64, tolerance: f64) {
    assert!((got - wanted).abs() <= tolerance, "{what}: {got:.4}, published {wanted:.4}");
}

#[test]
fn those_in_custody_are_as_published() {
    let model = Model::new(1).unwrap();
    let files = files(&model, Custody::Incarcerated, 6000);
    near("women", share(&files, |f| f.female), 0.0501, 0.01);
    near("Indigenous", share(&files, |f| f.group == "Indigenous"), 0.325, 0.02);
    near("Quebec", share(&files, |f| f.region == "Quebec"), 0.22, 0.02);
    near("maximum", share(&files, |f| f.level == "Maximum"), 0.16, 0.02);
    near("murder", share(&files, |f| f.category.starts_with("Homicide")), 0.18, 0.02);
    near("indeterminate", share(&files, |f| f.sentence.days.is_none()), 0.245, 0.02);
    near("two to three years", share(&files, |f| f.sentence.days.is_some_and(|d| d < 1095)), 0.755 * 0.278, 0.03);
    near("escaped", share(&files, |f| f.at_large == "Escaped"), 0.002, 0.002);
    near("aged 50 and over", share(&files, |f| between(f.birth, f.last()) >= 50 * 365), 0.25, 0.12);
    assert!(files.iter().all(|f| f.female == (model.data.institutions[f.institution].population_group == "Women")));
    // No institution stands empty.
    let used: BTreeSet<_> = files.iter().map(|f| f.institution).collect();
    assert_eq!(used.len(), 43);
}

#[test]
fn those_in_the_community_are_as_published() {
    let model = Model::new(1).unwrap();
    let files = files(&model, Custody::Community, 6000);
    near("women", share(&files, |f| f.female), 0.085, 0.015);
    for (kind, wanted) in
        [("StatutoryRelease", 0.31), ("FullParole", 0.43), ("DayParole", 0.2), ("LongTermSupervision", 0.06)]
    {
        near(kind, share(&files, |f| f.release == Some(kind)), wanted, 0.025);
    }
    near("active warrants", share(&files, |f| f.warrant == "Outstanding"), 0.07, 0.012);
    near("unlawfully at large", share(&files, |f| f.at_large == "UnlawfullyAtLarge"), 0.04, 0.01);
    near("Ontario", share(&files, |f| f.region == "Ontario"), 0.29, 0.02);
    let vancouver = share(&files, |f| f.place().csd_code == "5915022");
    assert!(vancouver > 0.01, "{vancouver}");
    let places: BTreeSet<_> = files.iter().map(|f| f.place().jurisdiction.clone()).collect();
    assert_eq!(places.len(), 13, "every jurisdiction supervises somebody");
}

#[test]
fn archived_files_ended_as_published() {
    let model = Model::new(1).unwrap();
    let files = files(&model, Custody::Archived, 6000);
    near("warrant expiry", share(&files, |f| f.status == "WarrantExpired"), 0.935, 0.02);
    near("deceased", share(&files, |f| f.status == "Deceased"), 0.04, 0.01);
    assert!(files.iter().all(|f| f.ended.is_some_and(|e| e < f.maker.as_of)));
}

#[test]
fn nobody_is_sentenced_before_eighteen_and_names_are_of_all_kinds() {
    let model = Model::new(1).unwrap();
    let files = files(&model, Custody::Incarcerated, 6000);
    for f in &files {
        assert!(between(f.birth, f.sentence.commenced) >= 18 * 365, "{} {}", f.birth, f.sentence.commenced);
        assert!(!f.surname.is_empty() && !f.given.is_empty());
    }
    let names: Vec<_> = files.iter().flat_map(|f| [&f.surname, &f.given]).collect();
    for what in ["-", "'", "é", "St", " ", "Mc"] {
        assert!(names.iter().filter(|n| n.contains(what)).count() > 10, "{what}");
    }
    let fr = files.iter().filter(|f| f.region == "Quebec" && f.french).count();
    assert!(fr > 500, "{fr}");
}

#[test]
fn a_file_is_the_same_whatever_else_is_made() {
    let model = Model::new(7).unwrap();
    let maker = maker(&model);
    let mut alone = Rows::default();
    maker.file(42, Custody::Community, &mut alone).unwrap();
    let mut again = Rows::default();
    let other = Model::new(7).unwrap();
    Maker { model: &other, ..maker }.file(42, Custody::Community, &mut again).unwrap();
    assert_eq!(alone, again);
    let mut different = Rows::default();
    Maker { seed: 2, ..maker }.file(42, Custody::Community, &mut different).unwrap();
    assert_ne!(alone, different);
}

#[test]
fn children_are_in_every_table() {
    let model = Model::new(1).unwrap();
    let maker = maker(&model);
    let mut rows = Rows::default();
    for id in 1..=60 {
        maker.file(id, Custody::Incarcerated, &mut rows).unwrap();
        maker.file(1000 + id, Custody::Community, &mut rows).unwrap();
        maker.file(2000 + id, Custody::Archived, &mut rows).unwrap();
    }
    let mut counts = BTreeMap::new();
    for table in liaison_records::catalogue::TABLES {
        if table.kind == liaison_records::catalogue::TableKind::File {
            let n = rows.of(table.name).unwrap().rows;
            assert!(n > 0, "{} is empty", table.name);
            counts.insert(table.name, n);
        }
    }
    assert_eq!(counts["offender"], 180);
    assert_eq!(counts["photograph"], 120);
    // Aliases: 0.9 an active file.
    assert!((60..170).contains(&counts["alias"]), "{}", counts["alias"]);
}

#[test]
fn fps_numbers_are_unique() {
    let all: BTreeSet<_> = (1..=50_000).map(|id| fps(1, id)).collect();
    assert_eq!(all.len(), 50_000);
    let one = fps(99, 123);
    assert!(one.len() == 7 && one[..6].bytes().all(|b| b.is_ascii_digit()) && one.as_bytes()[6].is_ascii_uppercase());
}
