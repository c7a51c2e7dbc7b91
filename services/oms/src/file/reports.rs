//! What is written about somebody: incidents, assessments, programs, progress reports, decisions. Texts are of a few
//! sentences, in the language of the file; they name nobody.

use liaison_records::codes::Custody;
use rand::RngExt as _;

use super::{File, plus};
use crate::{
    rows::{Rows, Value},
    values,
};

const PROGRAMS: [(&str, &str, &str); 8] = [
    (
        "Correctional",
        "Integrated Correctional Program Model, moderate",
        "Modèle de programme correctionnel intégré, modéré",
    ),
    ("Correctional", "Integrated Correctional Program Model, high", "Modèle de programme correctionnel intégré, élevé"),
    ("Correctional", "Community maintenance program", "Programme de maintien dans la collectivité"),
    ("Indigenous", "Indigenous integrated program", "Programme intégré pour Autochtones"),
    ("Indigenous", "Pathways", "Sentiers autochtones"),
    ("Social", "Community integration program", "Programme d'intégration communautaire"),
    ("Vocational", "Construction safety certificate", "Attestation en sécurité de la construction"),
    ("Vocational", "Food safety certificate", "Attestation en salubrité des aliments"),
];

const WORK: [(&str, &str); 8] = [
    ("Kitchen", "Cuisine"),
    ("Cleaner", "Entretien ménager"),
    ("Laundry", "Buanderie"),
    ("CORCAN woodwork", "CORCAN, menuiserie"),
    ("CORCAN textiles", "CORCAN, textiles"),
    ("Library", "Bibliothèque"),
    ("Grounds", "Entretien du terrain"),
    ("Peer support", "Soutien par les pairs"),
];

const OPENINGS: [(&str, &str); 6] = [
    ("Has taken part in every meeting of the period.", "A participé à chaque rencontre de la période."),
    ("Recognises the factors that led to the offence.", "Reconnaît les facteurs liés à l'infraction."),
    ("Some resistance to direction was noted.", "Une certaine résistance aux directives a été notée."),
    ("Has kept work throughout the period.", "A conservé un emploi pendant toute la période."),
    ("Contact with family has been regular.", "Les contacts avec la famille ont été réguliers."),
    ("Two appointments were missed without reason.", "Deux rendez-vous ont été manqués sans motif."),
];

const CLOSINGS: [(&str, &str); 5] = [
    ("The risk is judged manageable with the plan in place.", "Le risque est jugé gérable avec le plan en place."),
    ("Further work on impulsivity is advised.", "Un travail supplémentaire sur l'impulsivité est conseillé."),
    ("A review is set in six months.", "Une révision est prévue dans six mois."),
    ("The case management team agrees.", "L'équipe de gestion de cas est d'accord."),
    ("Support in the community is to be confirmed.", "Le soutien dans la collectivité est à confirmer."),
];

impl File<'_> {
    fn prose(&mut self) -> String {
        let (opening, closing) = (self.pick(&OPENINGS), self.pick(&CLOSINGS));
        if self.french { format!("{} {}", opening.1, closing.1) } else { format!("{} {}", opening.0, closing.0) }
    }

    /// Whether an archived file has a kind of report at all: the old ones are thin.
    fn has(&mut self, p: f64) -> bool {
        !self.archived() || self.rng.random_bool(p)
    }

    pub(super) fn reports(&mut self, rows: &mut Rows) {
        self.incidents(rows);
        self.assessments(rows);
        self.programs(rows);
        self.progress(rows);
        self.community(rows);
        self.decisions(rows);
    }

    fn incidents(&mut self, rows: &mut Rows) {
        let (here, ici) = self.institution_names();
        let p = match self.custody {
            Custody::Incarcerated => 0.7,
            Custody::Community => 0.4,
            Custody::Archived => 0.15,
        };
        for _ in 0..self.several(p, 20) {
            let day = self.when(self.sentence.commenced, self.last());
            let seconds = self.rng.random_range(0..86_400);
            let kind = self.pick(&[
                "AssaultOnInmate",
                "Fight",
                "Contraband",
                "Contraband",
                "Drugs",
                "Disturbance",
                "SelfHarm",
                "Medical",
                "Property",
                "Refusal",
                "Refusal",
                "AssaultOnStaff",
            ]);
            let severity = self.pick(&["Minor", "Minor", "Moderate", "Serious"]);
            let role = self.pick(&["Instigator", "Associate", "Associate", "Victim", "Witness"]);
            let text = if self.french {
                self.pick(&[
                    "Constaté lors de la ronde; rapport versé au dossier.",
                    "Deux agents sont intervenus; aucune blessure.",
                    "Objet saisi et consigné; cellule fouillée.",
                    "Soins donnés sur place; retour à l'unité.",
                ])
            } else {
                self.pick(&[
                    "Seen on a round; report placed on file.",
                    "Two officers intervened; no injury.",
                    "Item seized and logged; cell searched.",
                    "Treated on site; back to the unit.",
                ])
            };
            let row = values![Value::Instant(day, seconds), kind, severity, role, here, ici, self.language(), text];
            self.add(rows, "incident", &row);
        }
    }

    fn assessments(&mut self, rows: &mut Rows) {
        let mut tools = vec!["CRI", "StaticFactors", "DynamicFactors", "Reintegration"];
        if self.category == "ScheduleI-Sexual" {
            tools.push("Static99R");
        }
        if self.rng.random_bool(0.1) {
            tools.push("Spousal");
        }
        if self.archived() {
            tools.truncate(1);
        }
        let intake = plus(self.sentence.commenced, 60).min(self.last());
        for tool in tools {
            let x = self.rng.random_range(0..1000);
            // Reintegration potential is published for custody and community; the rest follow the security level.
            let (low, medium) = match (tool, self.custody) {
                ("Reintegration", Custody::Community) => (145, 604),
                ("Reintegration", _) => (350, 809),
                _ if self.level == "Minimum" => (450, 850),
                _ if self.level == "Maximum" => (50, 300),
                _ => (200, 700),
            };
            let level = if x < low {
                "Low"
            } else if x < medium {
                "Medium"
            } else {
                "High"
            };
            let score = matches!(tool, "CRI" | "Static99R").then(|| {
                self.rng.random_range(match level {
                    "Low" => 0..9,
                    "Medium" => 9..18,
                    _ => 18..34,
                })
            });
            let on = self.when(intake, plus(intake, 30).min(self.last()));
            let row = values![tool, on, level, score, &self.officer_name, self.language(), self.prose()];
            self.add(rows, "risk_assessment", &row);
        }
    }

    fn programs(&mut self, rows: &mut Rows) {
        let (here, ici) = self.institution_names();
        let (start, last) = (plus(self.sentence.commenced, 90).min(self.last()), self.last());
        if self.has(0.25) {
            for _ in 0..=self.several(0.4, 3) {
                let (kind, en, fr) = self.pick(&PROGRAMS);
                let open = !self.archived();
                let state = if open {
                    self.pick(&["Waiting", "Enrolled", "Completed", "Completed", "Incomplete"])
                } else {
                    "Completed"
                };
                let from = self.when(start, last);
                let ended = matches!(state, "Completed" | "Incomplete").then(|| plus(from, 120).min(last));
                let hours = if state == "Waiting" { 0 } else { self.rng.random_range(20..220) };
                let row = values![kind, en, fr, state, (state != "Waiting").then_some(from), ended, hours, here, ici];
                self.add(rows, "program", &row);
            }
        }
        if self.has(0.15) {
            for _ in 0..=self.several(0.35, 3) {
                let (en, fr) = self.pick(&WORK);
                let from = self.when(start, last);
                let ended = (self.archived() || self.rng.random_bool(0.5)).then(|| plus(from, 150).min(last));
                let state = if ended.is_some() { "Completed" } else { "Enrolled" };
                let rating = self.pick(&["Poor", "Fair", "Good", "Good", "Excellent"]);
                self.add(rows, "work_assignment", &values![en, fr, state, rating, from, ended, here, ici]);
            }
        }
        if self.rng.random_bool(if self.archived() { 0.1 } else { 0.55 }) {
            let level = self.pick(&["AdultBasic1", "AdultBasic2", "AdultBasic3", "Secondary", "PostSecondary"]);
            let from = self.when(start, last);
            let ended = (self.archived() || self.rng.random_bool(0.5)).then(|| plus(from, 240).min(last));
            let state = if ended.is_some() { self.pick(&["Completed", "Incomplete"]) } else { "Enrolled" };
            let credits = self.rng.random_range(0..30);
            self.add(rows, "education", &values![level, state, from, ended, credits, here, ici]);
        }
    }

    fn progress(&mut self, rows: &mut Rows) {
        if !self.has(0.3) {
            return;
        }
        let most = if self.archived() { 0 } else { self.several(0.6, 6) };
        for _ in 0..=most {
            let kind = match self.custody {
                Custody::Community => self.pick(&["Supervision", "Supervision", "Decision"]),
                _ => self.pick(&["CorrectionalPlan", "CorrectionalPlan", "Transfer", "Decision"]),
            };
            let on = self.when(plus(self.sentence.commenced, 60).min(self.last()), self.last());
            let (a, b) = (self.pick(&["Low", "Medium", "High"]), self.pick(&["Low", "Medium", "Medium", "High"]));
            let engaged = self.rng.random_bool(0.7);
            let row = values![kind, on, &self.officer_name, a, b, engaged, self.language(), self.prose()];
            self.add(rows, "progress_report", &row);
        }
    }

    fn community(&mut self, rows: &mut Rows) {
        if !self.has(0.12) {
            return;
        }
        let Some(office) = self.maker.model.office(self.maker.model.office_of(self.home)) else { return };
        let home = &self.maker.model.data.municipalities[self.home].name_en;
        for _ in 0..=self.several(0.3, 3) {
            let on = self.when(plus(self.sentence.commenced, 90).min(self.last()), self.last());
            let contact = self.pick(&["Spouse", "Parent", "Parent", "Sibling", "Friend", "Employer", "Community"]);
            let support = self.pick(&["Low", "Medium", "High", "High"]);
            let recommendation =
                if support == "Low" { "Oppose" } else { self.pick(&["Support", "SupportWithConditions"]) };
            let row = values![
                on,
                contact,
                support,
                recommendation,
                &office.name_en,
                &office.name_fr,
                home,
                self.language(),
                self.prose()
            ];
            self.add(rows, "community_assessment", &row);
        }
    }

    fn decisions(&mut self, rows: &mut Rows) {
        if !self.has(0.3) {
            return;
        }
        let mut decisions: Vec<(&'static str, &'static str)> = Vec::new();
        match (self.release, self.custody) {
            (Some(kind @ ("DayParole" | "FullParole")), _) => decisions.push((kind, "Granted")),
            (Some(kind @ ("Uta" | "LongTermSupervision")), _) => decisions.push((kind, "Continued")),
            (_, Custody::Archived) => decisions.push((self.pick(&["DayParole", "FullParole"]), "Granted")),
            _ => {}
        }
        match self.status {
            "Revoked" | "Recommitted" => decisions.push(("StatutoryRelease", "Revoked")),
            "SuspensionCancelled" => {
                decisions.push((self.release.unwrap_or("StatutoryRelease"), "CancelledSuspension"));
            }
            _ => {}
        }
        // Day parole is granted in four of five reviews, full parole in one of three.
        if !self.archived() {
            for _ in 0..self.several(0.6, 4) {
                let kind = self.pick(&["DayParole", "DayParole", "FullParole", "Uta", "EscortedTa"]);
                let granted = if kind == "FullParole" { 0.36 } else { 0.75 };
                let refused = self.pick(&["Denied", "Denied", "Deferred"]);
                decisions.push((kind, if self.rng.random_bool(granted) { "Granted" } else { refused }));
            }
        }
        for (index, (kind, decision)) in decisions.into_iter().enumerate() {
            let on = self.when(plus(self.sentence.commenced, 120).min(self.last()), self.last());
            let effective = (decision == "Granted").then(|| plus(on, 14).min(self.last()));
            let number = format!("D{}-{:07}-{}", on.year(), self.id, index + 1);
            let panel = self.rng.random_range(1..=2);
            let authority = if kind == "EscortedTa" { "InstitutionalHead" } else { "ParoleBoard" };
            let row = values![number, kind, decision, authority, on, effective, panel, self.language(), self.prose()];
            self.add(rows, "release_decision", &row);
        }
    }
}
