//! What the generator draws from, made once from the reference data: weighted tables a region, a group, a sex; officers.

use std::collections::HashMap;

use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    data::{Data, Weighted},
    error::Error,
};

/// CSC's regions, as in the data.
pub const REGIONS: [&str; 5] = ["Atlantic", "Quebec", "Ontario", "Prairie", "Pacific"];

/// The least share of a jurisdiction in its region: the territories would else be empty in a small population.
const LEAST_SHARE: f64 = 0.004;

/// A parole officer.
#[derive(Debug, Clone)]
pub struct Officer {
    /// Number.
    pub id: i64,
    /// Given name and surname.
    pub name: String,
    /// Telephone.
    pub telephone: String,
    /// `eng` or `fra`.
    pub language: &'static str,
    /// The office's number.
    pub office: i64,
}

/// An office to call: of the file, or the case management of an institution.
#[derive(Debug, Clone)]
pub struct OfficeRow {
    /// Number.
    pub id: i64,
    /// English name.
    pub name_en: String,
    /// French name.
    pub name_fr: String,
    /// Code of `OfficeKind`.
    pub kind: String,
    /// Region.
    pub region: String,
    /// `CA-XX`.
    pub jurisdiction: String,
    /// Index of its municipality.
    pub municipality: usize,
}

/// Everything weighted.
#[derive(Debug)]
pub struct Model {
    /// The data it was made of.
    pub data: Data,
    /// Region by custody.
    pub custody_region: Weighted<&'static str>,
    /// Region by community.
    pub community_region: Weighted<&'static str>,
    /// Jurisdiction by region.
    pub jurisdictions: HashMap<&'static str, Weighted<String>>,
    groups: HashMap<(bool, &'static str), Weighted<String>>,
    surname_community: HashMap<(String, &'static str), Weighted<String>>,
    given_community: HashMap<String, Weighted<String>>,
    /// Age in years by five-year band.
    pub ages: Weighted<(i32, i32)>,
    /// Length bands in days of those who are active, `None` = indeterminate.
    pub lengths_active: Weighted<(i32, i32)>,
    /// Length bands at admission: those of archived files.
    pub lengths_admission: Weighted<(i32, i32)>,
    /// Offence categories, homicide in two degrees.
    pub categories: Weighted<String>,
    /// Kind of release of those in the community.
    pub releases: Weighted<String>,
    /// Status in the community.
    pub community_status: Weighted<String>,
    /// Status in an institution.
    pub incarcerated_status: Weighted<String>,
    /// How a file ended.
    pub ends: Weighted<String>,
    /// Security level in custody.
    pub security: Weighted<String>,
    /// Earlier federal terms.
    pub prior_terms: Weighted<String>,
    /// Outcome of a suspension.
    pub suspension_outcome: Weighted<String>,
    /// Share of women in custody, in the community, in all.
    pub women: [f64; 3],
    /// Share outside the home region.
    pub outside_region: f64,
    /// Residency among statutory releases.
    pub residency: f64,
    /// Offices, institutions' case management last.
    pub offices: Vec<OfficeRow>,
    /// Officers, in order of number.
    pub officers: Vec<Officer>,
    by_office: HashMap<i64, Vec<usize>>,
    /// The office of each municipality that people live in.
    office_of: HashMap<usize, i64>,
}

/// Length bands of statistics.json in days, 365 a year, without the indeterminate.
fn band(name: &str) -> Option<(i32, i32)> {
    let years = match name {
        "2y_to_3y" => (730, 1095),
        "3y_to_4y" => (1095, 1460),
        "4y_to_5y" => (1460, 1825),
        "5y_to_6y" => (1825, 2190),
        "6y_to_7y" => (2190, 2555),
        "7y_to_10y" => (2555, 3650),
        "6y_to_10y" => (2190, 3650),
        "10y_to_15y" => (3650, 5475),
        "15y_plus" => (5475, 9125),
        "10y_plus" => (3650, 7300),
        // Under two years is not a federal term of its own: what is left of one, counted as just over two.
        "under_2y" => (730, 760),
        _ => return None,
    };
    Some(years)
}

impl Model {
    /// From the embedded data; `seed` decides officers' names and numbers.
    pub fn new(seed: u64) -> Result<Self, Error> {
        let data = Data::load()?;
        let weighted = |entry: &str, below: &[&str]| Ok::<_, Error>(Weighted::new(data.shares(entry, below)?));
        let region = |entry: &str| {
            let shares = data.shares(entry, &[])?;
            Ok::<_, Error>(Weighted::new(
                REGIONS.iter().map(|r| (*r, shares.iter().find(|(k, _)| k == r).map_or(0.0, |(_, v)| *v))),
            ))
        };
        let provinces = data.shares("region/total_by_province_share", &[])?;
        let jurisdictions = REGIONS
            .iter()
            .map(|r| {
                let own = provinces.iter().filter(|(p, _)| region_of(p) == *r);
                (*r, Weighted::new(own.map(|(p, share)| (p.clone(), share.max(LEAST_SHARE)))))
            })
            .collect();
        let lengths = |entry: &str| {
            let shares = data.shares(entry, &[])?;
            Ok::<_, Error>(Weighted::new(shares.into_iter().filter_map(|(k, v)| Some((band(&k)?, v)))))
        };
        let mut model = Self {
            custody_region: region("region/custody_by_region_share")?,
            community_region: region("region/community_by_region_share")?,
            jurisdictions,
            groups: groups(&data)?,
            surname_community: surname_communities(&data)?,
            given_community: given_communities(&data)?,
            ages: ages(&data)?,
            lengths_active: lengths("sentence/length_distribution_active")?,
            lengths_admission: lengths("sentence/length_distribution_at_admission")?,
            categories: weighted("offence/category_share_active", &[])?,
            releases: weighted("release/community_stock_share", &[])?,
            community_status: weighted("status/community_status_share", &[])?,
            incarcerated_status: weighted("status/incarcerated_status_share", &[])?,
            ends: weighted("archived/by_end_of_file", &[])?,
            security: weighted("security/in_custody_share", &[])?,
            prior_terms: weighted("records_per_offender/prior_federal_terms", &[])?,
            suspension_outcome: weighted("status/suspension_outcome", &[])?,
            women: [
                data.number("sex/women_share_in_custody", &["women_share"])?,
                data.number("sex/women_share_in_community", &["women_share"])?,
                data.number("sex/women_share_all_offenders", &["women_share"])?,
            ],
            outside_region: data.number("placement/share_outside_home_region", &["share"])?,
            residency: data.number("release/residency_condition_share_of_statutory_release", &["share"])?,
            offices: Vec::new(),
            officers: Vec::new(),
            by_office: HashMap::new(),
            office_of: HashMap::new(),
            data,
        };
        model.add_offices()?;
        model.add_officers(seed)?;
        Ok(model)
    }

    fn add_offices(&mut self) -> Result<(), Error> {
        let mut id = 0;
        for office in &self.data.offices {
            id += 1;
            let municipality = self.data.municipalities.iter().position(|m| m.csd_code == office.csd_code);
            self.offices.push(OfficeRow {
                id,
                name_en: office.name_en.clone(),
                name_fr: office.name_fr.clone(),
                kind: office.kind.clone(),
                region: office.region.clone(),
                jurisdiction: office.jurisdiction.clone(),
                municipality: municipality.ok_or_else(|| Error::Data(format!("no municipality for {}", office.id)))?,
            });
        }
        for (institution, place) in self.data.institutions.iter().zip(&self.data.institution_places) {
            id += 1;
            self.offices.push(OfficeRow {
                id,
                name_en: format!("{}, case management", institution.name_en),
                name_fr: format!("{}, gestion de cas", institution.name_fr),
                kind: "InstitutionOffice".to_owned(),
                region: institution.region.clone(),
                jurisdiction: institution.jurisdiction.clone(),
                municipality: *place,
            });
        }
        for homes in self.data.homes.values() {
            for home in homes.items() {
                self.office_of.insert(*home, self.nearest_office(*home));
            }
        }
        Ok(())
    }

    /// The parole office of a municipality: there, else with the closest code in the jurisdiction (codes of one census
    /// division are neighbours), else anywhere in its region.
    fn nearest_office(&self, municipality: usize) -> i64 {
        let home = &self.data.municipalities[municipality];
        let code = |m: usize| self.data.municipalities[m].csd_code.parse::<i64>().unwrap_or(0);
        self.offices
            .iter()
            .filter(|o| o.kind == "ParoleOffice")
            .min_by_key(|o| {
                let rank = if o.jurisdiction == home.jurisdiction {
                    0
                } else if o.region == region_of(&home.jurisdiction) {
                    1
                } else {
                    2
                };
                (rank, (code(o.municipality) - code(municipality)).abs(), o.id)
            })
            .map_or(1, |o| o.id)
    }

    fn add_officers(&mut self, seed: u64) -> Result<(), Error> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::MAX);
        let count = self.data.number("records_per_offender/parole_officers_community", &["count"])?;
        // One for each office, the rest where people live.
        let mut served: HashMap<i64, f64> = HashMap::new();
        for (home, office) in &self.office_of {
            *served.entry(*office).or_default() += self.data.municipalities[*home].population_2021.unwrap_or(0.0);
        }
        let all: f64 = served.values().sum();
        for index in 0..self.offices.len() {
            let office = self.offices[index].clone();
            let people = match office.kind.as_str() {
                "InstitutionOffice" => 12.0,
                "ParoleOffice" => 1.0 + count * served.get(&office.id).copied().unwrap_or(0.0) / all,
                _ => 2.0,
            };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
            for _ in 0..people.round() as usize {
                let french = office.jurisdiction == "CA-QC" && rng.random_bool(0.9);
                let community = if french { "fr" } else { "en" };
                let sex = if rng.random_bool(0.6) { "F" } else { "M" };
                let given = draw(self.data.given(community, sex), &mut rng);
                let surname = draw(self.data.surnames(community), &mut rng);
                let id = i64::try_from(self.officers.len()).unwrap_or(0) + 1;
                self.by_office.entry(office.id).or_default().push(self.officers.len());
                self.officers.push(Officer {
                    id,
                    name: format!("{given} {surname}"),
                    telephone: telephone(&mut rng),
                    language: if french { "fra" } else { "eng" },
                    office: office.id,
                });
            }
        }
        Ok(())
    }

    /// An officer of an office, and the office.
    pub fn officer(&self, office: i64, rng: &mut impl Rng) -> Option<(&Officer, &OfficeRow)> {
        let of = self.by_office.get(&office)?;
        let officer = self.officers.get(*of.get(rng.random_range(0..of.len()))?)?;
        Some((officer, self.office(office)?))
    }

    /// An office by its number.
    pub fn office(&self, id: i64) -> Option<&OfficeRow> {
        self.offices.get(usize::try_from(id - 1).ok()?)
    }

    /// The parole office of a municipality.
    pub fn office_of(&self, municipality: usize) -> i64 {
        self.office_of.get(&municipality).copied().unwrap_or_else(|| self.nearest_office(municipality))
    }

    /// The case management office of an institution by its position.
    pub fn office_of_institution(&self, institution: usize) -> i64 {
        i64::try_from(self.data.offices.len() + institution).unwrap_or(0) + 1
    }

    /// A group of identity, for somebody in custody or not, of a region.
    pub fn group(&self, custody: bool, region: &'static str, rng: &mut impl Rng) -> String {
        draw(self.groups.get(&(custody, region)), rng)
    }

    /// Given names and surname of somebody of a group and region.
    pub fn name(&self, group: &str, region: &'static str, female: bool, rng: &mut impl Rng) -> (String, String) {
        let community = draw(self.surname_community.get(&(group.to_owned(), region)), rng);
        let surname = draw(self.data.surnames(&community), rng);
        let given = self.given(&community, female, rng);
        (given, surname)
    }

    fn given(&self, community: &str, female: bool, rng: &mut impl Rng) -> String {
        let sex = if female { "F" } else { "M" };
        let of = self.given_community.get(community).and_then(|w| w.at(rng.random())).map_or("en", String::as_str);
        let first = draw(self.data.given(of, sex), rng);
        // Some have a second given name.
        if rng.random_bool(0.35) {
            let second = draw(self.data.given(of, sex), rng);
            if second != first {
                return format!("{first} {second}");
            }
        }
        first
    }
}

/// The region that runs a jurisdiction.
pub fn region_of(jurisdiction: &str) -> &'static str {
    match jurisdiction {
        "CA-QC" => "Quebec",
        "CA-ON" | "CA-NU" => "Ontario",
        "CA-AB" | "CA-SK" | "CA-MB" | "CA-NT" => "Prairie",
        "CA-BC" | "CA-YT" => "Pacific",
        _ => "Atlantic",
    }
}

/// A telephone number of the range that is kept for fiction.
pub fn telephone(rng: &mut impl Rng) -> String {
    let area = ["506", "514", "613", "403", "604", "204", "306", "902"][rng.random_range(0..8)];
    format!("+1 {area} 555-01{:02}", rng.random_range(0..100))
}

fn draw(from: Option<&Weighted<String>>, rng: &mut impl Rng) -> String {
    from.and_then(|w| w.at(rng.random())).cloned().unwrap_or_default()
}

/// Groups by custody and region: the region's own shares, scaled so that the whole has the target mix.
fn groups(data: &Data) -> Result<HashMap<(bool, &'static str), Weighted<String>>, Error> {
    let mut out = HashMap::new();
    for (custody, target, regions) in [
        (true, "in_custody", "region/custody_by_region_share"),
        (false, "community", "region/community_by_region_share"),
    ] {
        let target = data.shares("identity/target_mix", &[target])?;
        let regions = data.shares(regions, &[])?;
        let mut overall: HashMap<String, f64> = HashMap::new();
        for (region, share) in &regions {
            for (group, of_region) in data.shares("identity/groups_by_region_share", &[region])? {
                *overall.entry(group).or_default() += share * of_region;
            }
        }
        for region in REGIONS {
            let own = data.shares("identity/groups_by_region_share", &[region])?;
            let pairs = own.into_iter().map(|(group, share)| {
                let wanted = target.iter().find(|(g, _)| *g == group).map_or(0.0, |(_, v)| *v);
                let scale = wanted / overall.get(&group).copied().unwrap_or(1.0);
                (group, share * scale)
            });
            out.insert((custody, region), Weighted::new(pairs));
        }
    }
    Ok(out)
}

fn surname_communities(data: &Data) -> Result<HashMap<(String, &'static str), Weighted<String>>, Error> {
    let mut out = HashMap::new();
    for group in ["White", "Indigenous", "Black", "Asian", "OtherOrUnknown"] {
        for region in REGIONS {
            let below = if group == "White" { vec![group, region] } else { vec![group] };
            let shares = data.shares("names_mix/community_given_identity", &below)?;
            out.insert((group.to_owned(), region), Weighted::new(shares));
        }
    }
    Ok(out)
}

fn given_communities(data: &Data) -> Result<HashMap<String, Weighted<String>>, Error> {
    let entry = "names_mix/given_name_community_for_surname_community";
    let table = data.value(entry, &[])?.as_object().ok_or_else(|| Error::Data(entry.to_owned()))?;
    table.keys().map(|key| Ok((key.clone(), Weighted::new(data.shares(entry, &[key])?)))).collect()
}

fn ages(data: &Data) -> Result<Weighted<(i32, i32)>, Error> {
    let entry = "age/all_offenders_histogram";
    let bands = data.value(entry, &[])?.as_array().ok_or_else(|| Error::Data(entry.to_owned()))?;
    let mut pairs = Vec::new();
    for band in bands {
        let number = |key: &str| band.get(key).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, reason = "ages")]
        pairs.push(((number("from") as i32, number("to") as i32), number("share")));
    }
    Ok(Weighted::new(pairs))
}
