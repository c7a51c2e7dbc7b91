//! What a file is about: who, where, which sentence and how it stands. Drawn before a row of it is written.

use jiff::civil::date;
use liaison_records::codes::Custody;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{File, Maker, Sentence, capacity, code, plus};
use crate::data::Weighted;

impl<'a> File<'a> {
    pub(super) fn new(maker: Maker<'a>, id: i64, custody: Custody) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(maker.seed);
        rng.set_stream(id.unsigned_abs());
        let m = maker.model;
        let incarcerated = custody == Custody::Incarcerated;
        let regions = if custody == Custody::Community { &m.community_region } else { &m.custody_region };
        let region = regions.at(rng.random()).copied().unwrap_or("Ontario");
        let jurisdiction = m.jurisdictions.get(region).and_then(|w| w.at(rng.random())).cloned().unwrap_or_default();
        let home = m.data.homes.get(&jurisdiction).and_then(|w| w.at(rng.random())).copied().unwrap_or(0);
        let women = match custody {
            Custody::Incarcerated => m.women[0],
            Custody::Community => m.women[1],
            Custody::Archived => m.women[2],
        };
        let female = rng.random_bool(women);
        let group = m.group(incarcerated, region, &mut rng);
        let (given, surname) = m.name(&group, region, female, &mut rng);
        let french = rng.random_bool(match jurisdiction.as_str() {
            "CA-QC" => 0.85,
            "CA-NB" => 0.3,
            "CA-ON" => 0.04,
            _ => 0.01,
        });
        let mut file = Self {
            maker,
            rng,
            id,
            counts: std::collections::HashMap::new(),
            custody,
            status: "InCustody",
            release: None,
            at_large: "NotAtLarge",
            warrant: "NoWarrant",
            female,
            french,
            region,
            group,
            given,
            surname,
            birth: date(1980, 1, 1),
            home,
            institution: 0,
            level: "Medium",
            category: String::new(),
            sentence: Sentence {
                kind: "Determinate",
                days: None,
                commenced: maker.as_of,
                parole_years: 10,
                expires: None,
                supervision_ends: None,
            },
            ended: None,
            quashed: false,
            officer: 1,
            officer_name: String::new(),
            office: 1,
        };
        file.axes();
        file.term();
        file.born();
        file.placed();
        file.supervisor();
        file
    }

    /// Custody's own axes: status, release, at large, warrant.
    fn axes(&mut self) {
        let m = self.maker.model;
        match self.custody {
            Custody::Incarcerated => match self.draw(&m.incarcerated_status).as_str() {
                "Escaped" => (self.at_large, self.warrant) = ("Escaped", "Outstanding"),
                "TemporaryAbsence" => self.release = Some(self.pick(&["Uta", "EscortedTa", "WorkRelease"])),
                // Of those who serve, some are back from a release. No share is published; about 2,000 revocations a year.
                _ => match self.rng.random_range(0..1000) {
                    0..70 => (self.status, self.warrant) = ("Recommitted", "Executed"),
                    70..110 => (self.status, self.warrant, self.at_large) = ("Revoked", "Executed", "Apprehended"),
                    110..120 => (self.status, self.warrant) = ("Terminated", "Executed"),
                    120..124 => self.status = "Inoperative",
                    _ => {}
                },
            },
            Custody::Community => {
                let release = code(&self.draw(&m.releases));
                self.release = Some(release);
                let suspended = if release == "LongTermSupervision" { "LtsSuspended" } else { "Suspended" };
                (self.status, self.at_large, self.warrant) = match self.draw(&m.community_status).as_str() {
                    "Suspended_in_custody" => (suspended, "Apprehended", "Executed"),
                    // A warrant is out and the person is not yet unlawfully at large: the axes are separate.
                    "Suspended_at_large" => (suspended, "NotAtLarge", "Outstanding"),
                    "UnlawfullyAtLarge" => (suspended, "UnlawfullyAtLarge", "Outstanding"),
                    "Revoked_at_large" => ("Revoked", "UnlawfullyAtLarge", "Outstanding"),
                    _ => match self.rng.random_range(0..100) {
                        0..2 => ("SuspensionCancelled", "NotAtLarge", "Executed"),
                        2..3 => ("SuspensionCancelled", "NotAtLarge", "Withdrawn"),
                        _ => ("Released", "NotAtLarge", "NoWarrant"),
                    },
                };
            }
            Custody::Archived => {
                let end = self.draw(&m.ends);
                self.quashed = end == "SentenceQuashed";
                self.status = match end.as_str() {
                    "Deceased" => "Deceased",
                    "TransferredOrDeported" => "Deported",
                    _ => "WarrantExpired",
                };
                self.ended = Some(plus(self.maker.as_of, -self.rng.random_range(1..25 * 365)));
            }
        }
    }

    /// The offence category and the sentence, so that today stands where the status says.
    fn term(&mut self) {
        let m = self.maker.model;
        let must_end = matches!(self.release, Some("StatutoryRelease" | "LongTermSupervision"))
            || matches!(self.status, "WarrantExpired" | "Inoperative");
        self.category = self.draw(&m.categories);
        while must_end && self.category.starts_with("Homicide") {
            self.category = self.draw(&m.categories);
        }
        let kind = match self.category.as_str() {
            "Homicide (first degree murder)" => "LifeFirstDegree",
            "Homicide (second degree murder)" => "LifeSecondDegree",
            // What is left of the indeterminate share (24.5 %) when homicide (18 %) is taken away.
            c if c.starts_with("ScheduleI-") && !must_end && self.rng.random_bool(0.11) => {
                self.pick(&["Life", "Indeterminate"])
            }
            _ => "Determinate",
        };
        self.sentence.kind = kind;
        let lengths = if self.custody == Custody::Archived { &m.lengths_admission } else { &m.lengths_active };
        let (from, to) = lengths.at(self.rng.random()).copied().unwrap_or((730, 1095));
        let days = self.rng.random_range(from..to);
        let today = self.ended.unwrap_or(self.maker.as_of);
        if kind != "Determinate" {
            self.sentence.parole_years = match kind {
                "LifeFirstDegree" => 25,
                "LifeSecondDegree" => self.rng.random_range(10..=20),
                _ => 7,
            };
            let served = if self.custody == Custody::Incarcerated {
                self.rng.random_range(100..26 * 365)
            } else {
                self.sentence.parole_years * 365 + self.rng.random_range(0..12 * 365)
            };
            self.sentence.commenced = plus(today, -served);
            return;
        }
        // Parts of the sentence that are served today, in thousandths.
        let served = match (self.custody, self.release, self.status) {
            (Custody::Incarcerated, _, "InCustody") => self.rng.random_range(20..660),
            (Custody::Incarcerated, ..) => self.rng.random_range(670..980),
            (Custody::Community, Some("DayParole"), _) => self.rng.random_range(180..500),
            (Custody::Community, Some("FullParole"), _) => self.rng.random_range(340..990),
            (Custody::Community, Some("StatutoryRelease"), _) => self.rng.random_range(670..998),
            (Custody::Archived, _, "WarrantExpired") => 1000,
            (Custody::Archived, ..) => self.rng.random_range(100..900),
            _ => 1000,
        };
        let mut passed = days * served / 1000;
        if self.release == Some("LongTermSupervision") {
            passed = days + self.rng.random_range(10..9 * 365);
        }
        self.sentence.days = Some(days);
        self.sentence.commenced = plus(today, -passed);
        let expires = plus(self.sentence.commenced, days);
        self.sentence.expires = Some(expires);
        // Long-term offenders: 955 of 22,000; those in the community under the order are among the releases.
        let long_term = self.release == Some("LongTermSupervision")
            || (self.custody == Custody::Incarcerated
                && self.category == "ScheduleI-Sexual"
                && self.rng.random_bool(0.16));
        if long_term {
            self.sentence.supervision_ends = Some(plus(expires, 10 * 365 + 2));
        }
    }

    /// Born so that the age is of the published ages, and nobody was sentenced before 18.
    fn born(&mut self) {
        let (from, to) = self.maker.model.ages.at(self.rng.random()).copied().unwrap_or((30, 40));
        // Means: White 42.6, Indigenous 36.7, Black 34.1 against 39 in all; women two years younger.
        let shift = match self.group.as_str() {
            "White" => 2,
            "Indigenous" => -2,
            "Black" => -4,
            _ => 0,
        } - if self.female { 2 } else { 0 };
        let age = (self.rng.random_range(from * 365..to * 365) + shift * 365).clamp(18 * 365 + 30, 92 * 365);
        let today = self.ended.unwrap_or(self.maker.as_of);
        let latest = plus(self.sentence.commenced, -(18 * 366 + self.rng.random_range(0..1500)));
        self.birth = plus(today, -age).min(latest);
    }

    /// The institution: of the level, the sex, the region; 6 % outside it.
    fn placed(&mut self) {
        let m = self.maker.model;
        self.level = code(&self.draw(&m.security));
        let outside = self.rng.random_bool(m.outside_region);
        let wanted = if self.female { "Women" } else { "Men" };
        let weigh = |region: Option<&str>, level: Option<&str>| {
            Weighted::new(m.data.institutions.iter().enumerate().map(|(index, i)| {
                let fits = i.population_group == wanted
                    && region.is_none_or(|r| (i.region == r) != outside)
                    && level.is_none_or(|l| i.security_units.split(';').any(|u| u == l));
                (index, if fits { capacity(i) } else { 0.0 })
            }))
        };
        let x = self.rng.random();
        let chosen = [(Some(self.region), Some(self.level)), (Some(self.region), None), (None, None)]
            .into_iter()
            .find_map(|(region, level)| weigh(region, level).at(x).copied());
        self.institution = chosen.unwrap_or(0);
    }

    fn supervisor(&mut self) {
        let m = self.maker.model;
        self.office = if self.custody == Custody::Incarcerated {
            m.office_of_institution(self.institution)
        } else {
            m.office_of(self.home)
        };
        if let Some((officer, _)) = m.officer(self.office, &mut self.rng) {
            self.officer = officer.id;
            self.officer_name.clone_from(&officer.name);
        }
    }
}
