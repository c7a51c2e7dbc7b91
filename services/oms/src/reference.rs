//! Rows of the reference tables: offices, officers, institutions. Nothing about offenders.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    model::{Model, telephone},
    rows::Rows,
    values,
};

/// CSC's National Monitoring Centre stands behind every office at night; a number that is kept for fiction.
const DUTY: &str = "+1 613 555-0199";

/// All reference rows.
pub fn reference(model: &Model, seed: u64, rows: &mut Rows) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::MAX - 1);
    for office in &model.offices {
        let place = &model.data.municipalities[office.municipality];
        let row = values![
            &office.name_en,
            &office.name_fr,
            &office.kind,
            &office.region,
            &office.jurisdiction,
            &place.csd_code,
            &place.name_en,
            telephone(&mut rng),
            DUTY
        ];
        rows.push("office", office.id, None, &row);
    }
    for officer in &model.officers {
        let Some(office) = model.office(officer.office) else { continue };
        let mut mailbox: Vec<String> =
            officer.name.split(' ').map(liaison_records::search::normalise_name).filter(|w| !w.is_empty()).collect();
        mailbox.push(officer.id.to_string());
        let email = format!("{}@csc-scc.example.ca", mailbox.join("."));
        let row = values![
            &officer.name,
            &officer.telephone,
            email,
            officer.language,
            office.id,
            &office.name_en,
            &office.name_fr
        ];
        rows.push("parole_officer", officer.id, None, &row);
    }
    for (id, (institution, place)) in (1..).zip(model.data.institutions.iter().zip(&model.data.institution_places)) {
        let place = &model.data.municipalities[*place];
        let row = values![
            &institution.name_en,
            &institution.name_fr,
            &institution.kind,
            &institution.security_level,
            &institution.population_group,
            &institution.region,
            &institution.jurisdiction,
            &place.csd_code,
            &place.name_en,
            telephone(&mut rng)
        ];
        rows.push("institution", id, None, &row);
    }
}
