//! The embedded reference data: places, institutions, offices, offences, names, proportions (sources: `data/README.md`).

use std::collections::HashMap;

use liaison_records::codes::{Code as _, Jurisdiction};
use serde::{Deserialize, de::DeserializeOwned};

use crate::error::Error;

/// A census subdivision.
#[derive(Debug, Clone, Deserialize)]
pub struct Municipality {
    /// Seven digits.
    pub csd_code: String,
    /// Name.
    pub name_en: String,
    /// `CA-XX`.
    pub jurisdiction: String,
    /// 2021 Census count; blank for some reserves.
    pub population_2021: Option<f64>,
    /// Statistics Canada's type.
    pub csd_type: String,
}

/// An institution of CSC.
#[derive(Debug, Clone, Deserialize)]
pub struct Institution {
    /// kebab-case.
    pub id: String,
    /// English name.
    pub name_en: String,
    /// French name.
    pub name_fr: String,
    /// CSC region.
    pub region: String,
    /// `CA-XX`.
    pub jurisdiction: String,
    /// Postal place.
    pub municipality: String,
    /// Minimum, Medium, Maximum or Multi.
    pub security_level: String,
    /// Men or Women.
    pub population_group: String,
    /// Beds, where known.
    pub rated_capacity: Option<f64>,
    /// Levels, separated by `;`.
    pub security_units: String,
    /// Penitentiary, `HealingLodge` or `TreatmentCentre`.
    pub kind: String,
}

/// An office of CSC.
#[derive(Debug, Clone, Deserialize)]
pub struct Office {
    /// kebab-case.
    pub id: String,
    /// English name.
    pub name_en: String,
    /// French name.
    pub name_fr: String,
    /// `ParoleOffice`, `CommunityCorrectionalCentre` or `DistrictOffice`.
    pub kind: String,
    /// CSC region.
    pub region: String,
    /// `CA-XX`.
    pub jurisdiction: String,
    /// Place.
    pub municipality: String,
    /// Seven digits.
    pub csd_code: String,
}

/// An offence.
#[derive(Debug, Clone, Deserialize)]
pub struct Offence {
    /// Uniform Crime Reporting code, where sure.
    pub code: Option<String>,
    /// The Act.
    pub act: String,
    /// Its section.
    pub criminal_code_section: String,
    /// English title.
    pub title_en: String,
    /// French title.
    pub title_fr: String,
    /// CCRA schedule.
    pub category: String,
}

#[derive(Deserialize)]
struct Given {
    name: String,
    community: String,
    sex: String,
    weight: f64,
}

#[derive(Deserialize)]
struct Surname {
    name: String,
    community: String,
    weight: f64,
}

/// A weighted choice, drawn in constant time a halving.
#[derive(Debug, Clone)]
pub struct Weighted<T> {
    items: Vec<T>,
    upto: Vec<f64>,
}

impl<T> Weighted<T> {
    /// From items and their weights; what has no weight is never drawn.
    pub fn new(pairs: impl IntoIterator<Item = (T, f64)>) -> Self {
        let mut items = Vec::new();
        let mut upto = Vec::new();
        let mut sum = 0.0;
        for (item, weight) in pairs {
            if weight > 0.0 {
                sum += weight;
                items.push(item);
                upto.push(sum);
            }
        }
        Self { items, upto }
    }

    /// The item at `x` in 0..1 of the whole weight; `None` when there is none.
    pub fn at(&self, x: f64) -> Option<&T> {
        let target = x * self.upto.last()?;
        let index = self.upto.partition_point(|upto| *upto <= target);
        self.items.get(index.min(self.items.len() - 1))
    }

    /// The items.
    pub fn items(&self) -> &[T] {
        &self.items
    }
}

/// Everything that the generator draws from.
#[derive(Debug)]
pub struct Data {
    /// Every census subdivision of the file.
    pub municipalities: Vec<Municipality>,
    /// 43 institutions, in file order; number = position + 1.
    pub institutions: Vec<Institution>,
    /// The municipality (index) of each institution.
    pub institution_places: Vec<usize>,
    /// Offices, in file order; number = position + 1.
    pub offices: Vec<Office>,
    /// Offences by category.
    pub offences: HashMap<String, Vec<Offence>>,
    given: HashMap<(String, String), Weighted<String>>,
    surnames: HashMap<String, Weighted<String>>,
    /// Municipalities (index) of a jurisdiction that people live in, by population.
    pub homes: HashMap<String, Weighted<usize>>,
    stats: serde_json::Value,
}

fn rows<T: DeserializeOwned>(name: &str, text: &str) -> Result<Vec<T>, Error> {
    csv::Reader::from_reader(text.as_bytes())
        .deserialize()
        .collect::<Result<_, _>>()
        .map_err(|e| Error::Data(format!("{name}: {e}")))
}

/// Postal places of institutions that are not census subdivisions of the file: the subdivision that they lie in, or, where
/// that is not in the file either, the nearest in it (`data/README.md`).
const PLACES: &[(&str, &str)] = &[
    ("Renous", "1309018"),         // nearest: Blackville
    ("Dorchester", "1307009"),     // nearest: Sackville
    ("Springhill", "1211006"),     // in Cumberland, Subd. B
    ("Bath", "3511005"),           // in Loyalist
    ("Grande Cache", "4818015"),   // in Greenview No. 16
    ("Maskwacis", "4811801"),      // in Ermineskin 138
    ("Duck Lake", "4715061"),      // surrounded by Duck Lake No. 463
    ("Stony Mountain", "4614036"), // in Rockwood
    ("Agassiz", "5909032"),        // in Kent
    ("Harrison Mills", "5909032"), // nearest municipality: Kent
];

/// Types of subdivision that nobody is sent to live in: reserves, unorganized areas, electoral areas.
const NOT_HOMES: &[&str] = &["IRI", "NO", "SNO", "RDA", "SC"];

impl Data {
    /// Reads what is embedded.
    pub fn load() -> Result<Self, Error> {
        let municipalities: Vec<Municipality> = rows("municipalities.csv", include_str!("../data/municipalities.csv"))?;
        let institutions: Vec<Institution> = rows("institutions.csv", include_str!("../data/institutions.csv"))?;
        let offices: Vec<Office> = rows("offices.csv", include_str!("../data/offices.csv"))?;
        let stats = serde_json::from_str(include_str!("../data/statistics.json"))
            .map_err(|e| Error::Data(format!("statistics.json: {e}")))?;
        let mut offences: HashMap<String, Vec<Offence>> = HashMap::new();
        for offence in rows::<Offence>("offences.csv", include_str!("../data/offences.csv"))? {
            offences.entry(offence.category.clone()).or_default().push(offence);
        }
        let mut given: HashMap<(String, String), Vec<(String, f64)>> = HashMap::new();
        for row in rows::<Given>("names-given.csv", include_str!("../data/names-given.csv"))? {
            given.entry((row.community, row.sex)).or_default().push((row.name, row.weight));
        }
        let mut surnames: HashMap<String, Vec<(String, f64)>> = HashMap::new();
        for row in rows::<Surname>("names-surname.csv", include_str!("../data/names-surname.csv"))? {
            surnames.entry(row.community).or_default().push((row.name, row.weight));
        }
        let institution_places =
            institutions.iter().map(|institution| place_of(institution, &municipalities)).collect::<Result<_, _>>()?;
        let mut homes: HashMap<String, Weighted<usize>> = HashMap::new();
        for jurisdiction in Jurisdiction::ALL {
            let weighted = Weighted::new(municipalities.iter().enumerate().filter_map(|(index, m)| {
                let lived = m.jurisdiction == jurisdiction.as_str() && !NOT_HOMES.contains(&m.csd_type.as_str());
                lived.then_some((index, m.population_2021.unwrap_or(0.0)))
            }));
            homes.insert(jurisdiction.as_str().to_owned(), weighted);
        }
        Ok(Self {
            municipalities,
            institutions,
            institution_places,
            offices,
            offences,
            given: given.into_iter().map(|(key, pairs)| (key, Weighted::new(pairs))).collect(),
            surnames: surnames.into_iter().map(|(key, pairs)| (key, Weighted::new(pairs))).collect(),
            homes,
            stats,
        })
    }

    /// The shares at a path of statistics.json, below `values`: `shares("identity/target_mix", &["in_custody"])`.
    pub fn shares(&self, entry: &str, below: &[&str]) -> Result<Vec<(String, f64)>, Error> {
        let value = self.value(entry, below)?;
        let pairs = value.as_object().ok_or_else(|| Error::Data(format!("{entry} is not a table of shares")))?;
        pairs
            .iter()
            .map(|(key, v)| {
                let share = v.as_f64().ok_or_else(|| Error::Data(format!("{entry}/{key} is not a number")))?;
                Ok((key.clone(), share))
            })
            .collect()
    }

    /// One number of statistics.json.
    pub fn number(&self, entry: &str, below: &[&str]) -> Result<f64, Error> {
        self.value(entry, below)?.as_f64().ok_or_else(|| Error::Data(format!("{entry} is not a number")))
    }

    /// Any value of statistics.json below an entry's `values`.
    pub fn value(&self, entry: &str, below: &[&str]) -> Result<&serde_json::Value, Error> {
        let path = format!("/{entry}/values");
        below
            .iter()
            .try_fold(self.stats.pointer(&path), |value, key| Some(value?.get(key)))
            .flatten()
            .ok_or_else(|| Error::Data(format!("statistics.json lacks {entry} {below:?}")))
    }

    /// Given names of a community and a sex (`M`, `F`).
    pub fn given(&self, community: &str, sex: &str) -> Option<&Weighted<String>> {
        self.given.get(&(community.to_owned(), sex.to_owned()))
    }

    /// Surnames of a community.
    pub fn surnames(&self, community: &str) -> Option<&Weighted<String>> {
        self.surnames.get(community)
    }

    /// The municipality with this code.
    pub fn municipality(&self, code: &str) -> Option<&Municipality> {
        self.municipalities.iter().find(|m| m.csd_code == code)
    }
}

fn place_of(institution: &Institution, municipalities: &[Municipality]) -> Result<usize, Error> {
    let code = PLACES.iter().find(|(name, _)| *name == institution.municipality).map(|(_, code)| *code);
    municipalities
        .iter()
        .position(|m| match code {
            Some(code) => m.csd_code == code,
            None => m.name_en == institution.municipality && m.jurisdiction == institution.jurisdiction,
        })
        .ok_or_else(|| Error::Data(format!("institutions.csv: no municipality for {}", institution.id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_embedded_can_be_read() {
        let data = Data::load().unwrap();
        assert_eq!(data.institutions.len(), 43);
        assert_eq!(data.offices.len(), 116);
        assert_eq!(data.offences.values().map(Vec::len).sum::<usize>(), 129);
        for (institution, place) in data.institutions.iter().zip(&data.institution_places) {
            assert_eq!(data.municipalities[*place].jurisdiction, institution.jurisdiction, "{}", institution.id);
        }
        for office in &data.offices {
            assert!(data.municipality(&office.csd_code).is_some(), "{}", office.id);
        }
        assert!(data.homes.values().all(|homes| homes.at(0.5).is_some()));
    }
}
