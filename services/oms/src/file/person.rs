//! Cautions, marks, aliases; sentences and offences; supervision.

use liaison_records::codes::Custody;
use rand::RngExt as _;

use super::{File, between, plus};
use crate::{
    data::Offence,
    model::telephone,
    rows::{Rows, Value},
    values,
};

impl File<'_> {
    pub(super) fn identity(&mut self, rows: &mut Rows) {
        let (p, most) = if self.archived() { (0.12, 1) } else { (0.45, 3) };
        for _ in 0..self.several(p, most) {
            let kind = self.pick(&["Violent", "Armed", "EscapeRisk", "SelfHarm", "Gang", "Opioids"]);
            let noted = self.when(self.sentence.commenced, self.last());
            let detail = self.french.then_some("Voir le dossier avant toute intervention.");
            self.add(rows, "caution", &values![kind, noted, detail]);
        }
        let (p, most) = if self.archived() { (0.1, 1) } else { (0.5, 4) };
        for _ in 0..self.several(p, most) {
            let kind = self.pick(&["Tattoo", "Tattoo", "Tattoo", "Scar", "Scar", "Birthmark", "Missing"]);
            let part =
                self.pick(&["Face", "Neck", "LeftArm", "RightArm", "LeftHand", "RightHand", "Chest", "Back", "Leg"]);
            let detail = if self.french {
                self.pick(&["rose", "croix", "prénom", "loup", "date", "trait de 4 cm", "étoile"])
            } else {
                self.pick(&["rose", "cross", "first name", "wolf", "date", "line of 4 cm", "star"])
            };
            self.add(rows, "mark", &values![kind, part, detail]);
        }
        // 45 % have an alias, 0.9 on average: one, and then half of them one more, and so on.
        let with_any = if self.archived() { 0.18 } else { 0.45 };
        let aliases = if self.rng.random_bool(with_any) { 1 + self.several(0.5, 6) } else { 0 };
        for _ in 0..aliases {
            self.alias(rows);
        }
    }

    fn alias(&mut self, rows: &mut Rows) {
        let (kind, surname, given) = match self.rng.random_range(0..10) {
            0..3 => ("Spelling", respell(&self.surname), self.given.clone()),
            3..6 => {
                let nickname = if self.french {
                    self.pick(&["Ti-Guy", "Le Grand", "Coco", "Pou", "Rocky", "Mémé"])
                } else {
                    self.pick(&["Ace", "Red", "Smiley", "Bear", "Slim", "Junior"])
                };
                ("Nickname", self.surname.clone(), nickname.to_owned())
            }
            6..8 => {
                let (_, surname) = self.maker.model.name(&self.group.clone(), self.region, self.female, &mut self.rng);
                (if self.female { "MarriedName" } else { "BirthName" }, surname, self.given.clone())
            }
            _ => {
                let (given, surname) =
                    self.maker.model.name(&self.group.clone(), self.region, self.female, &mut self.rng);
                ("AssumedName", surname, given)
            }
        };
        let shift = self.rng.random_range(-900..900);
        let used = (kind == "AssumedName" || self.rng.random_bool(0.1)).then(|| plus(self.birth, shift));
        self.add(rows, "alias", &values![kind, surname, given, used]);
    }

    pub(super) fn sentences(&mut self, rows: &mut Rows) {
        let priors = match self.draw(&self.maker.model.prior_terms).as_str() {
            "1" => 1,
            "2" => 2,
            "3_plus" => 3,
            _ => 0,
        };
        // Earlier terms, backwards in time, as far as the age allows.
        let mut earlier = Vec::new();
        let mut before = self.sentence.commenced;
        let adult = plus(self.birth, 18 * 366);
        for _ in 0..priors {
            let days = self.rng.random_range(730..1800);
            let ended = plus(before, -self.rng.random_range(120..2000));
            let commenced = plus(ended, -days);
            if commenced <= adult {
                break;
            }
            earlier.push((commenced, days, ended));
            before = commenced;
        }
        earlier.reverse();
        let court = self.court();
        let mut term = 0;
        for (commenced, days, ended) in earlier {
            term += 1;
            let row = values![
                term,
                "Determinate",
                "Expired",
                days,
                commenced,
                commenced,
                &court,
                plus(commenced, (days / 3 - 183).max(183)),
                plus(commenced, days / 3),
                plus(commenced, days * 2 / 3),
                ended,
                Value::Null,
                ended
            ];
            self.add(rows, "sentence", &row);
        }
        term += 1;
        let s = self.sentence.clone();
        let state = match (self.custody, self.status) {
            (Custody::Archived, _) if self.quashed => "Quashed",
            (Custody::Archived, "WarrantExpired") => "Expired",
            (Custody::Archived, _) => "Interrupted",
            _ if s.expires.is_some_and(|e| e <= self.maker.as_of) => "Expired",
            _ => "Serving",
        };
        let eligible = match s.days {
            // One third or seven years, whichever is less; day parole six months before, and at least six months served.
            Some(days) => (days / 3).min(7 * 365),
            None => s.parole_years * 365,
        };
        let day_parole = if s.days.is_some() { (eligible - 183).max(183) } else { eligible - 3 * 365 };
        let row = values![
            term,
            s.kind,
            state,
            s.days,
            s.commenced,
            s.commenced,
            court,
            plus(s.commenced, day_parole),
            plus(s.commenced, eligible),
            s.days.map(|d| plus(s.commenced, d * 2 / 3)),
            s.expires,
            s.supervision_ends,
            self.ended.or(s.expires.filter(|e| *e <= self.maker.as_of))
        ];
        self.add(rows, "sentence", &row);
    }

    pub(super) fn offences(&mut self, rows: &mut Rows) {
        let (p, most) = if self.archived() { (0.35, 3) } else { (0.72, 12) };
        let more = self.several(p, most);
        let court = self.court();
        let convicted = self.sentence.commenced;
        let term = i32::try_from(self.counts.get("sentence").copied().unwrap_or(1)).unwrap_or(1);
        for index in 0..=more {
            let offence = if index == 0 { self.leading_offence() } else { self.any_offence() };
            let committed = plus(convicted, -self.rng.random_range(60..900));
            let counts = 1 + self.several(0.25, 5);
            let row = values![
                term,
                offence.code.as_deref(),
                &offence.act,
                &offence.criminal_code_section,
                &offence.title_en,
                &offence.title_fr,
                &offence.category,
                counts,
                committed,
                convicted,
                &court
            ];
            self.add(rows, "offence", &row);
        }
        let (p, most) = if self.archived() { (0.4, 4) } else { (0.75, 14) };
        let adult = plus(self.birth, 18 * 366);
        for _ in 0..self.several(p, most) {
            let offence = self.any_offence();
            let on = self.when(adult, plus(convicted, -30));
            let disposition = self.pick(&[
                "Jail",
                "Jail",
                "Jail",
                "Probation",
                "Probation",
                "ConditionalSentence",
                "Fine",
                "Discharge",
            ]);
            let months = (disposition == "Jail").then(|| self.rng.random_range(1..24));
            let row = values![
                offence.code.as_deref(),
                &offence.act,
                &offence.criminal_code_section,
                &offence.title_en,
                &offence.title_fr,
                on,
                &court,
                disposition,
                months
            ];
            self.add(rows, "prior_offence", &row);
        }
    }

    fn leading_offence(&mut self) -> Offence {
        let homicide = self.category.starts_with("Homicide");
        let key = if homicide { "Homicide" } else { self.category.as_str() };
        let of = self.maker.model.data.offences.get(key).map_or(&[][..], Vec::as_slice);
        if homicide {
            let degree = if self.sentence.kind == "LifeFirstDegree" { "First" } else { "Second" };
            if let Some(offence) = of.iter().find(|o| o.title_en.starts_with(degree)) {
                return offence.clone();
            }
        }
        self.one_of(of)
    }

    fn any_offence(&mut self) -> Offence {
        let key = self.pick(&["NonScheduled", "NonScheduled", "ScheduleI-NonSexual", "ScheduleII-Drug"]);
        self.one_of(self.maker.model.data.offences.get(key).map_or(&[][..], Vec::as_slice))
    }

    fn one_of(&mut self, of: &[Offence]) -> Offence {
        let index = self.rng.random_range(0..of.len().max(1));
        of.get(index).cloned().unwrap_or(Offence {
            code: None,
            act: "Criminal Code".to_owned(),
            criminal_code_section: "745".to_owned(),
            title_en: "Offence".to_owned(),
            title_fr: "Infraction".to_owned(),
            category: "NonScheduled".to_owned(),
        })
    }

    pub(super) fn supervisions(&mut self, rows: &mut Rows) {
        let m = self.maker.model;
        let Some(office) = m.office(self.office) else { return };
        let institutional = self.custody == Custody::Incarcerated;
        let place = self.place();
        let residence = if institutional {
            "Institution"
        } else if self.archived() || self.at_large == "UnlawfullyAtLarge" {
            "Unknown"
        } else {
            match (self.release, self.rng.random_range(0..100)) {
                (Some("DayParole"), 0..80) => "CommunityResidentialFacility",
                (Some("DayParole"), 80..90) => "HealingLodge",
                (Some("StatutoryRelease"), x) if f64::from(x) < m.residency * 100.0 => "CommunityCorrectionalCentre",
                _ => "Private",
            }
        };
        let street = self.pick(&[
            "Main Street",
            "King Street",
            "rue Principale",
            "Station Road",
            "rue Saint-Jean",
            "Lake Drive",
        ]);
        let number = self.rng.random_range(1..2400);
        let address = (residence != "Unknown" && !institutional).then(|| format!("{number} {street}"));
        let since = self.when(self.sentence.commenced, self.last());
        let kind = if institutional { "Institutional" } else { "Community" };
        let level = if institutional { "Institution" } else { self.pick(&["A", "B", "B", "C", "C", "D", "E"]) };
        let telephone = match m.officers.get(usize::try_from(self.officer - 1).unwrap_or(0)) {
            Some(officer) => officer.telephone.clone(),
            None => telephone(&mut self.rng),
        };
        let name = self.officer_name.clone();
        let row = values![
            kind,
            level,
            since,
            self.ended,
            self.officer,
            name,
            telephone,
            office.id,
            &office.name_en,
            &office.name_fr,
            residence,
            address,
            &place.csd_code,
            &place.name_en
        ];
        self.add(rows, "supervision", &row);
    }

    /// How long the file has been open, in days.
    pub(super) fn open_days(&self) -> i32 {
        between(self.sentence.commenced, self.last()).max(1)
    }
}

/// A misspelling, as at a counter: accents lost, a letter doubled.
fn respell(name: &str) -> String {
    let plain = liaison_records::search::normalise_name(name);
    let mut chars = plain.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    let rest: String = chars.collect();
    let written = format!("{first}{rest}");
    if written == name { format!("{name}{}", name.chars().last().unwrap_or('e')) } else { written }
}
