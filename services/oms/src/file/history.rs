//! Releases, suspensions and conditions; warrants; movements and security levels.

use jiff::civil::Date;
use liaison_records::codes::Custody;
use rand::RngExt as _;

use super::{File, between, plus};
use crate::{
    rows::{Rows, Value},
    values,
};

/// Standard conditions (Corrections and Conditional Release Regulations s.161), in short.
const STANDARD: [(&str, &str, &str); 5] = [
    ("Report", "Report to the parole supervisor as instructed", "Se présenter au surveillant selon ses directives"),
    ("Boundaries", "Remain in Canada within the fixed boundaries", "Demeurer au Canada dans les limites fixées"),
    ("KeepThePeace", "Obey the law and keep the peace", "Respecter la loi et ne pas troubler l'ordre public"),
    ("Weapons", "Not own, possess or control any weapon", "N'avoir aucune arme en sa possession"),
    ("Address", "Advise of any change of address or occupation", "Signaler tout changement d'adresse ou d'occupation"),
];

/// Special conditions that the Board often imposes.
const SPECIAL: [(&str, &str, &str); 12] = [
    ("Alcohol", "Not to consume, purchase or possess alcohol", "Ne pas consommer, acheter ou posséder d'alcool"),
    ("Drugs", "Not to consume drugs other than as prescribed", "Ne pas consommer de drogues, sauf sur ordonnance"),
    (
        "NoContact",
        "No contact with the persons named by the Board",
        "Aucun contact avec les personnes nommées par la Commission",
    ),
    ("Associates", "Not to associate with persons involved in crime", "Ne pas fréquenter de personnes criminalisées"),
    ("Curfew", "Be at the residence from 22:00 to 6:00", "Être à la résidence de 22 h à 6 h"),
    ("Area", "Not to be in the area described", "Ne pas se trouver dans le secteur décrit"),
    ("Children", "Not to be near children unless accompanied", "Ne pas se trouver près d'enfants sans être accompagné"),
    ("Treatment", "Follow the treatment plan", "Suivre le plan de traitement"),
    ("Finances", "Disclose finances on request", "Divulguer sa situation financière sur demande"),
    ("Relationships", "Report all intimate relationships", "Déclarer toute relation intime"),
    ("Internet", "No internet use unless supervised", "Aucun usage d'internet sans surveillance"),
    ("Gambling", "Not to enter gambling establishments", "Ne pas fréquenter de lieux de jeu"),
];

impl File<'_> {
    pub(super) fn releases(&mut self, rows: &mut Rows) {
        let back = matches!(self.status, "Recommitted" | "Revoked" | "Terminated" | "Inoperative");
        let absence = matches!(self.release, Some("Uta" | "EscortedTa" | "WorkRelease"));
        let last = self.last();
        let served = between(self.sentence.commenced, last);
        if self.archived() {
            let kind = self.pick(&["StatutoryRelease", "StatutoryRelease", "FullParole", "DayParole"]);
            let from = plus(self.sentence.commenced, served * 2 / 3);
            let state = if self.status == "WarrantExpired" { "Completed" } else { "Terminated" };
            self.release_row(rows, kind, state, from, self.sentence.expires, Some(last));
            if self.rng.random_bool(0.12) {
                let on = self.when(from, last);
                self.suspension_row(rows, kind, on, "Cancelled", Some(plus(on, 20).min(last)));
            }
            if self.rng.random_bool(0.5) {
                self.conditions(rows, kind, from, Some(last), 2, 1);
            }
            return;
        }
        if self.custody == Custody::Incarcerated && (back || self.rng.random_bool(0.15)) {
            // A release that brought the person back: of this sentence when the status says so, else of long ago.
            let to = if back { plus(last, -self.rng.random_range(5..200)) } else { plus(self.sentence.commenced, -30) };
            let from = plus(to, -self.rng.random_range(30..400));
            let kind = if back { "StatutoryRelease" } else { self.pick(&["DayParole", "StatutoryRelease"]) };
            let state = match self.status {
                "Terminated" => "Terminated",
                "Inoperative" => "Inoperative",
                _ => "Revoked",
            };
            self.release_row(rows, kind, state, from, self.sentence.expires, Some(to));
            let suspended = plus(to, -self.rng.random_range(15..60));
            let outcome = if state == "Revoked" { self.revoked() } else { "Inoperative" };
            self.suspension_row(rows, kind, suspended, outcome, Some(to));
        }
        let Some(kind) = self.release else { return };
        // Periods on release: parole for months, life on parole for years.
        let longest = match kind {
            "DayParole" => 180,
            "StatutoryRelease" => 330,
            "FullParole" | "LongTermSupervision" => 2400,
            _ => 3,
        };
        let from = plus(last, -self.rng.random_range(1..longest.min(served.max(2)) + 1));
        let ends = match kind {
            "LongTermSupervision" => self.sentence.supervision_ends,
            "DayParole" => Some(plus(from, 183).max(plus(last, 5))),
            _ if absence => Some(plus(last, 2)),
            _ => self.sentence.expires,
        };
        let state = match self.status {
            "Suspended" | "LtsSuspended" => "Suspended",
            "Revoked" => "Revoked",
            _ => "Active",
        };
        self.release_row(rows, kind, state, from, ends, None);
        let suspended = plus(last, -self.rng.random_range(0..25)).max(from);
        match self.status {
            "Suspended" | "LtsSuspended" => self.suspension_row(rows, kind, suspended, "Pending", None),
            "Revoked" => {
                let outcome = self.revoked();
                self.suspension_row(rows, kind, from, outcome, Some(suspended));
            }
            "SuspensionCancelled" => self.suspension_row(rows, kind, from, "Cancelled", Some(suspended)),
            _ if !absence && self.rng.random_bool(0.15) => {
                self.suspension_row(rows, kind, from, "Cancelled", Some(suspended));
            }
            _ => {}
        }
        let special = if absence { 1 } else { 1 + self.several(0.75, 9) };
        self.conditions(rows, kind, from, ends, if absence { 1 } else { 5 }, special);
    }

    fn revoked(&mut self) -> &'static str {
        // 33 to 9 (status/suspension_outcome).
        if self.rng.random_bool(0.21) { "RevokedNewOffence" } else { "Revoked" }
    }

    fn release_row(
        &mut self,
        rows: &mut Rows,
        kind: &'static str,
        state: &'static str,
        from: Date,
        ends: Option<Date>,
        ended: Option<Date>,
    ) {
        let residency = kind == "StatutoryRelease" && self.rng.random_bool(self.maker.model.residency);
        let home = &self.maker.model.data.municipalities[self.home];
        let authority = authority(kind);
        let row = values![kind, state, authority, from, ends, ended, residency, &home.csd_code, &home.name_en];
        self.add(rows, "release", &row);
    }

    fn suspension_row(
        &mut self,
        rows: &mut Rows,
        kind: &'static str,
        on: Date,
        outcome: &'static str,
        resolved: Option<Date>,
    ) {
        let reason = self.pick(&["Breach", "Breach", "PreventBreach", "ProtectSociety", "NewCharge"]);
        let section = if kind == "LongTermSupervision" { "135.1" } else { "135(1)" };
        self.add(rows, "suspension", &values![kind, on, reason, section, outcome, resolved]);
    }

    fn conditions(
        &mut self,
        rows: &mut Rows,
        kind: &'static str,
        from: Date,
        ends: Option<Date>,
        standard: usize,
        special: i32,
    ) {
        for (topic, en, fr) in STANDARD.iter().take(standard) {
            self.add(rows, "condition", &values!["Standard", *topic, *en, *fr, kind, "Statute", from, ends]);
        }
        let start = self.rng.random_range(0..SPECIAL.len());
        for (topic, en, fr) in
            SPECIAL.iter().cycle().skip(start).take(usize::try_from(special).unwrap_or(0).min(SPECIAL.len()))
        {
            self.add(rows, "condition", &values!["Special", *topic, *en, *fr, kind, "ParoleBoard", from, ends]);
        }
    }

    pub(super) fn warrants(&mut self, rows: &mut Rows) {
        let last = self.last();
        let state = match self.warrant {
            "NoWarrant" if self.archived() && self.rng.random_bool(0.08) => self.pick(&["Executed", "Withdrawn"]),
            "NoWarrant" => return,
            state => state,
        };
        let (kind, section, authority) = match (self.at_large, self.status) {
            ("Escaped", _) => ("Escape", "11.1", "InstitutionalHead"),
            (_, "LtsSuspended") => ("LongTermSupervision", "135.1", "DesignatedPosition"),
            (_, "Revoked" | "Terminated" | "Recommitted") => ("Apprehension", "136", "BoardMember"),
            _ => ("Suspension", "135(1)", self.pick(&["DesignatedPosition", "BoardMember"])),
        };
        let issued = plus(last, -self.rng.random_range(3..60)).max(self.sentence.commenced);
        let done = plus(issued, self.rng.random_range(0..3));
        let number = format!("W{}-{:07}", issued.year(), self.id);
        let caution =
            self.rng.random_bool(0.2).then_some(if self.french { "Peut être violent" } else { "May be violent" });
        let row = values![
            number,
            kind,
            state,
            section,
            authority,
            issued,
            (state == "Executed").then_some(done),
            (state == "Withdrawn").then_some(done),
            "Canada",
            caution
        ];
        self.add(rows, "warrant", &row);
    }

    pub(super) fn movements(&mut self, rows: &mut Rows) {
        let (here, ici) = self.institution_names();
        let here_id = self.institution_id();
        let commenced = self.sentence.commenced;
        let last = self.last();
        let court = self.court();
        let seconds = self.rng.random_range(28_800..72_000);
        let at = |day: Date, seconds: i32| Value::Instant(day, seconds);
        let row = values![at(commenced, seconds), "Admission", &court, &court, Value::Null, here, ici, here_id];
        self.add(rows, "movement", &row);
        // About 4,500 moves a year between institutions, one in three years each.
        let most = if self.archived() { 1 } else { 6 };
        let p = if self.archived() { 0.15 } else { 0.4 };
        let released = match self.custody {
            Custody::Incarcerated => last,
            _ => plus(commenced, self.open_days() * 2 / 3),
        };
        for _ in 0..self.several(p, most) {
            let day = self.when(plus(commenced, 1), released);
            let seconds = self.rng.random_range(28_800..72_000);
            let kind = self.pick(&["Transfer", "Transfer", "Court", "Hospital"]);
            let row = if kind == "Transfer" {
                let all = &self.maker.model.data.institutions;
                let from = self.rng.random_range(0..all.len());
                let from_id = i64::try_from(from).unwrap_or(0) + 1;
                values![at(day, seconds), kind, &all[from].name_en, &all[from].name_fr, from_id, here, ici, here_id]
            } else {
                let (to, vers) = if kind == "Court" {
                    (court.as_str(), court.as_str())
                } else {
                    ("Outside hospital", "Hôpital externe")
                };
                values![at(day, seconds), kind, here, ici, here_id, to, vers, Value::Null]
            };
            self.add(rows, "movement", &row);
        }
        let seconds = self.rng.random_range(28_800..72_000);
        if self.custody != Custody::Incarcerated {
            let home = &self.maker.model.data.municipalities[self.home].name_en;
            let kind = if self.archived() && self.release.is_none() { "SentenceEnd" } else { "Release" };
            let day = if kind == "SentenceEnd" { last } else { released };
            self.add(rows, "movement", &values![at(day, seconds), kind, here, ici, here_id, home, home, Value::Null]);
        } else if self.at_large == "Escaped" {
            let row = values![at(last, seconds), "Escape", here, ici, here_id, Value::Null, Value::Null, Value::Null];
            self.add(rows, "movement", &row);
        }
        let reviews = if self.archived() { 0 } else { self.several(0.5, 4) };
        for index in 0..=reviews {
            let level = if index == reviews { self.level } else { self.pick(&["Medium", "Maximum", "Medium"]) };
            let day =
                if index == 0 { plus(commenced, 45).min(last) } else { self.when(plus(commenced, 60).min(last), last) };
            let score = match level {
                "Minimum" => self.rng.random_range(80..172),
                "Medium" => self.rng.random_range(173..255),
                _ => self.rng.random_range(256..400),
            };
            self.add(rows, "security_level", &values![level, day, index > 0, score, here_id, here, ici]);
        }
    }
}

/// Who grants it: the Board, the institutional head (CCRA s.17, 18), or the law itself (s.127).
fn authority(kind: &str) -> &'static str {
    match kind {
        "StatutoryRelease" => "Statute",
        "EscortedTa" | "WorkRelease" => "InstitutionalHead",
        "LongTermSupervision" => "Court",
        _ => "ParoleBoard",
    }
}
