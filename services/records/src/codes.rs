//! The closed code lists: every code has a stable CamelCase spelling and a label in English and French.
//!
//! Sources: CCRA sections named beside each code; the lists of the Parole Board and of CSC. An unknown code is refused
//! wherever it appears (invariant I5), which serde does for these enums.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text in both official languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// English.
    pub en: &'static str,
    /// French.
    pub fr: &'static str,
}

/// One code of a list, as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeEntry {
    /// The stable spelling.
    pub code: &'static str,
    /// What a person reads.
    pub label: Label,
}

/// A whole list, as data: for columns, documentation, checks in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeList {
    /// The list's name, as in the documentation and in `ca:<name>Code`.
    pub name: &'static str,
    /// Every code, in display order.
    pub codes: &'static [CodeEntry],
}

impl CodeList {
    /// The label of a code; `None` if it is not of this list.
    pub fn label(&self, code: &str) -> Option<Label> {
        self.codes.iter().find(|entry| entry.code == code).map(|entry| entry.label)
    }
}

/// A closed list of codes.
pub trait Code: Copy + Eq + 'static {
    /// Every code of the list, in display order.
    const ALL: &'static [Self];
    /// The stable spelling, as in manifests, records and databases.
    fn as_str(self) -> &'static str;
    /// What a person reads.
    fn label(self) -> Label;
    /// The code so spelled, if there is one.
    fn parse(s: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.as_str() == s)
    }
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $spelling:literal, $en:literal, $fr:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $(
            #[doc = $en] $(#[$vdoc])*
            #[serde(rename = $spelling)]
            $variant,
        )+ }

        impl $name {
            /// This list as data.
            pub const LIST: CodeList = CodeList {
                name: stringify!($name),
                codes: &[$(CodeEntry { code: $spelling, label: Label { en: $en, fr: $fr } }),+],
            };
        }

        impl Code for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $spelling,)+ }
            }

            fn label(self) -> Label {
                match self { $(Self::$variant => Label { en: $en, fr: $fr },)+ }
            }
        }
    };
}

pub mod record;

codes! {
    /// What a legal instrument grants: a set of tables that are shared together. A published group is frozen.
    FieldGroup {
        Identity = "identity", "Identity and status", "Identité et situation";
        Aliases = "aliases", "Aliases", "Noms d'emprunt";
        Photograph = "photograph", "Photograph", "Photographie";
        Sentence = "sentence", "Sentence", "Peine";
        Offences = "offences", "Offences", "Infractions";
        Release = "release", "Conditional release", "Mise en liberté sous condition";
        Conditions = "conditions", "Release conditions", "Conditions de la mise en liberté";
        Supervision = "supervision", "Supervision", "Surveillance";
        Warrants = "warrants", "Warrants", "Mandats";
        Movements = "movements", "Movements and security level", "Déplacements et cote de sécurité";
        Incidents = "incidents", "Incident reports", "Rapports d'incident";
        RiskAssessments = "riskAssessments", "Risk assessments", "Évaluations du risque";
        Programs = "programs", "Work and education programs", "Programmes de travail et d'études";
        ProgressReports = "progressReports", "Progress reports", "Rapports d'étape";
        CommunityAssessments = "communityAssessments", "Community assessments", "Évaluations communautaires";
        ReleaseDecisions = "releaseDecisions", "Conditional release decisions", "Décisions de mise en liberté sous condition";
    }
}

codes! {
    /// Where the file stands: in an institution, in the community, or closed.
    Custody {
        Incarcerated = "Incarcerated", "Incarcerated", "Incarcéré";
        Community = "Community", "In the community", "Dans la collectivité";
        Archived = "Archived", "Archived", "Archivé";
    }
}

codes! {
    /// The state of the sentence or release (CCRA s.99-137). At large and warrants are axes of their own.
    Status {
        InCustody = "InCustody", "In custody", "Sous garde";
        Released = "Released", "On conditional release", "En liberté sous condition";
        /// CCRA s.135(1), (1.1).
        Suspended = "Suspended", "Release suspended", "Mise en liberté suspendue";
        /// CCRA s.135(3), (5)(b).
        SuspensionCancelled = "SuspensionCancelled", "Suspension cancelled", "Suspension annulée";
        /// CCRA s.135(5)(a)(i), (7).
        Terminated = "Terminated", "Release terminated", "Mise en liberté cessée";
        /// CCRA s.135(5)(a)(ii), (7).
        Revoked = "Revoked", "Release revoked", "Mise en liberté révoquée";
        /// CCRA s.128(5), 135(9.2).
        Inoperative = "Inoperative", "Release inoperative", "Mise en liberté ineffective";
        Recommitted = "Recommitted", "Recommitted", "Réincarcéré";
        /// CCRA s.135.1.
        LtsSuspended = "LtsSuspended", "Long-term supervision suspended", "Surveillance de longue durée suspendue";
        WarrantExpired = "WarrantExpired", "Sentence ended", "Peine expirée";
        Deceased = "Deceased", "Deceased", "Décédé";
        Deported = "Deported", "Deported", "Expulsé";
    }
}

codes! {
    /// The kind of release (CCRA s.99).
    ReleaseType {
        DayParole = "DayParole", "Day parole", "Semi-liberté";
        FullParole = "FullParole", "Full parole", "Libération conditionnelle totale";
        /// CCRA s.127.
        StatutoryRelease = "StatutoryRelease", "Statutory release", "Libération d'office";
        /// CCRA s.134.1.
        LongTermSupervision = "LongTermSupervision", "Long-term supervision", "Surveillance de longue durée";
        /// CCRA s.116.
        Uta = "Uta", "Unescorted temporary absence", "Permission de sortir sans escorte";
        /// CCRA s.18.
        WorkRelease = "WorkRelease", "Work release", "Placement à l'extérieur";
        /// CCRA s.17.
        EscortedTa = "EscortedTa", "Escorted temporary absence", "Permission de sortir avec escorte";
    }
}

codes! {
    /// Whether the person is being sought.
    AtLarge {
        NotAtLarge = "NotAtLarge", "Not at large", "Pas en liberté illégale";
        UnlawfullyAtLarge = "UnlawfullyAtLarge", "Unlawfully at large", "Illégalement en liberté";
        Escaped = "Escaped", "Escaped", "Évadé";
        Apprehended = "Apprehended", "Apprehended", "Appréhendé";
    }
}

codes! {
    /// The state of the latest warrant (CCRA s.11.1, 118, 135, 136).
    WarrantState {
        NoWarrant = "NoWarrant", "No warrant", "Aucun mandat";
        Outstanding = "Outstanding", "Warrant outstanding", "Mandat non exécuté";
        Executed = "Executed", "Warrant executed", "Mandat exécuté";
        Withdrawn = "Withdrawn", "Warrant withdrawn", "Mandat retiré";
    }
}

codes! {
    /// Provinces and territories, ISO 3166-2.
    Jurisdiction {
        Alberta = "CA-AB", "Alberta", "Alberta";
        BritishColumbia = "CA-BC", "British Columbia", "Colombie-Britannique";
        Manitoba = "CA-MB", "Manitoba", "Manitoba";
        NewBrunswick = "CA-NB", "New Brunswick", "Nouveau-Brunswick";
        NewfoundlandAndLabrador = "CA-NL", "Newfoundland and Labrador", "Terre-Neuve-et-Labrador";
        NovaScotia = "CA-NS", "Nova Scotia", "Nouvelle-Écosse";
        NorthwestTerritories = "CA-NT", "Northwest Territories", "Territoires du Nord-Ouest";
        Nunavut = "CA-NU", "Nunavut", "Nunavut";
        Ontario = "CA-ON", "Ontario", "Ontario";
        PrinceEdwardIsland = "CA-PE", "Prince Edward Island", "Île-du-Prince-Édouard";
        Quebec = "CA-QC", "Quebec", "Québec";
        Saskatchewan = "CA-SK", "Saskatchewan", "Saskatchewan";
        Yukon = "CA-YT", "Yukon", "Yukon";
    }
}

codes! {
    /// Why a partner's officer looks at a record. An agreement lists those that it permits.
    Purpose {
        /// CCRA s.25(1).
        Supervision = "Supervision", "Supervision or surveillance of the offender", "Surveillance du délinquant";
        /// CCRA s.137.
        Apprehension = "Apprehension", "Execution of a warrant or apprehension", "Exécution d'un mandat ou appréhension";
        /// Privacy Act 8(2)(e).
        Investigation = "Investigation", "Lawful investigation", "Enquête licite";
        /// CCRA s.25(1).
        ReleaseDecision = "ReleaseDecision", "Release decision-making", "Décision de mise en liberté";
        /// Privacy Act 8(2)(f).
        SentenceAdministration = "SentenceAdministration", "Administration of a sentence", "Administration d'une peine";
        OfficerSafety = "OfficerSafety", "Officer or public safety", "Sécurité des agents ou du public";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_round_trips_through_serde() {
        for group in FieldGroup::ALL {
            let json = serde_json::to_string(group).unwrap();
            assert_eq!(json, format!("\"{}\"", group.as_str()));
            assert_eq!(FieldGroup::parse(group.as_str()), Some(*group));
        }
        assert_eq!(FieldGroup::ALL.len(), 16);
    }

    #[test]
    fn unknown_codes_are_refused() {
        assert!(serde_json::from_str::<FieldGroup>("\"victims\"").is_err());
        assert!(serde_json::from_str::<Custody>("\"incarcerated\"").is_err());
    }
}
