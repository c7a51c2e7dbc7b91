//! Every text of InfoPol's own that a person sees, in English and French, side by side (invariant I11).
//!
//! Labels of codes and of record columns are in the catalogue. French follows Canadian usage: a no-break space
//! (written `~` here) before a colon and inside guillemets, none before `; ? !`, typographic apostrophes. `{}` stands for
//! a value.

use std::fmt;

use liaison_records::codes::Label;

/// One of the two official languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// French.
    Fr,
}

impl Lang {
    /// `en` or `fr`, as in URLs, `lang` attributes and the access log.
    pub const fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Fr => "fr",
        }
    }

    /// The language so written, if it is one of the two.
    pub fn parse(code: &str) -> Option<Self> {
        match code {
            "en" => Some(Self::En),
            "fr" => Some(Self::Fr),
            _ => None,
        }
    }

    /// The first of the two that an `Accept-Language` header names; English when it names neither.
    pub fn preferred(accept_language: &str) -> Self {
        accept_language
            .split(',')
            .find_map(|range| Self::parse(range.trim().get(..2)?.to_ascii_lowercase().as_str()))
            .unwrap_or_default()
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::En => Self::Fr,
            Self::Fr => Self::En,
        }
    }

    /// A label of the catalogue in this language, with typographic apostrophes.
    pub fn of(self, label: Label) -> String {
        match self {
            Self::En => label.en,
            Self::Fr => label.fr,
        }
        .replace('\'', "\u{2019}")
    }

    /// A text in this language.
    pub fn text(self, text: Text) -> String {
        text.get(self).replace('~', "\u{a0}")
    }

    /// A text in this language with `{}` replaced by `value`.
    pub fn fill(self, text: Text, value: impl fmt::Display) -> String {
        self.text(text).replacen("{}", &value.to_string(), 1)
    }
}

macro_rules! texts {
    ($($key:ident = $en:literal, $fr:literal;)+) => {
        /// A text of InfoPol's own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Text { $(#[doc = $en] $key,)+ }

        impl Text {
            /// Every text.
            pub const ALL: &'static [Self] = &[$(Self::$key),+];

            const fn get(self, lang: Lang) -> &'static str {
                match (self, lang) { $((Self::$key, Lang::En) => $en, (Self::$key, Lang::Fr) => $fr,)+ }
            }
        }
    };
}

texts! {
    // Frame of every page.
    Service = "Correctional Service Canada", "Service correctionnel Canada";
    AppName = "InfoPol", "InfoPol";
    SkipToContent = "Skip to main content", "Passer au contenu principal";
    OtherLanguage = "Français", "English";
    Protected = "Protected B", "Protégé~B";
    UseIsLogged = "Every search and every file you open is recorded with your identifier and purpose.",
        "Chaque recherche et chaque dossier ouvert sont consignés avec votre identifiant et le motif invoqué.";
    Officer = "Officer", "Agent";
    Asserted = "asserted", "déclaré";
    AssertedHint = "The identifier is what you declare; it has not been verified.",
        "L’identifiant est celui que vous déclarez; il n’a pas été vérifié.";
    Purpose = "Purpose", "Motif";
    SignOff = "Sign off", "Fermer la session";
    NavLabel = "InfoPol pages", "Pages d’InfoPol";
    NavSearch = "Search", "Recherche";
    NavAtLarge = "Who is at large", "Personnes en liberté illégale";
    DataAsOf = "Data as of", "Données en date du";
    NeverFilled = "not yet filled", "pas encore chargées";
    Stale = "This data is {} old. Confirm with the Correctional Service before you act on it.",
        "Ces données datent de {}. Confirmez auprès du Service correctionnel avant d’agir.";
    Minutes = "{} minutes", "{} minutes";
    Hours = "{} hours", "{} heures";
    Days = "{} days", "{} jours";
    AccessRecord = "Access record", "Entrée au registre d’accès";
    Error = "What must change", "Ce qu’il faut corriger";

    // Sign-on.
    SignOnTitle = "Sign on", "Ouvrir une session";
    SignOnLead = "{}: information on federal offenders that the Correctional Service shares with you.",
        "{}~: renseignements que le Service correctionnel vous communique sur les délinquants sous responsabilité fédérale.";
    OfficerIdentifier = "Officer identifier", "Identifiant de l’agent";
    OfficerHint = "Badge or employee number: letters, digits, . _ @ and -",
        "Numéro d’insigne ou d’employé~: lettres, chiffres, . _ @ et -";
    PurposeQuestion = "Why do you need this information?", "Pourquoi avez-vous besoin de ces renseignements?";
    PurposeHint = "The purposes that your agreement permits.", "Les motifs que permet votre entente.";
    Continue = "Continue", "Continuer";
    SignedOff = "You have signed off.", "Votre session est fermée.";
    SessionEnded = "Your session has ended. Sign on again.", "Votre session a pris fin. Ouvrez-en une autre.";

    // Search.
    SearchTitle = "Search for a person", "Rechercher une personne";
    SearchLead = "Give one or more; a file must match all that you give.",
        "Donnez un ou plusieurs critères; le dossier doit répondre à tous ceux que vous donnez.";
    NameOrAlias = "Name or alias", "Nom ou nom d’emprunt";
    NameHint = "In any order. Beginnings of names, accents left out and names that sound alike are found too.",
        "Dans n’importe quel ordre. Le début d’un nom, un nom sans accents et un nom de même consonance conviennent aussi.";
    FpsNumber = "FPS number", "Numéro SED";
    FpsHint = "Fingerprint section number, for example 123456A", "Numéro de la Section des empreintes digitales, par exemple 123456A";
    BirthDate = "Date of birth", "Date de naissance";
    BirthDateHint = "Year-month-day, for example 1980-05-31", "Année-mois-jour, par exemple 1980-05-31";
    OnlyAtLarge = "Only people who are at large", "Seulement les personnes en liberté illégale";
    SearchButton = "Search", "Rechercher";

    // Results.
    ResultsTitle = "Search results", "Résultats de la recherche";
    AtLargeTitle = "Who is at large", "Personnes en liberté illégale";
    AtLargeLead = "People unlawfully at large or escaped, as far as your agreement covers them.",
        "Personnes illégalement en liberté ou évadées, dans la mesure où votre entente les vise.";
    FoundNone = "No file matches.", "Aucun dossier ne correspond.";
    FoundNoneHint = "Check the spelling, give the beginning of the name only, or search by FPS number or date of birth.",
        "Vérifiez l’orthographe, ne donnez que le début du nom, ou cherchez par numéro SED ou par date de naissance.";
    FoundOne = "1 file", "1 dossier";
    FoundMany = "{} files", "{} dossiers";
    PageOf = "Page {}", "Page {}";
    Next = "Next page", "Page suivante";
    Previous = "Previous page", "Page précédente";
    Paging = "Pages of results", "Pages de résultats";
    NewSearch = "New search", "Nouvelle recherche";
    ChangeSearch = "Change this search", "Modifier cette recherche";
    Asked = "You searched for", "Vous avez cherché";
    ColumnName = "Name", "Nom";
    ColumnStatus = "Status", "Situation";
    ColumnPlace = "Place", "Lieu";
    ColumnMatch = "Found by", "Correspondance";
    OpenFile = "Open the file", "Ouvrir le dossier";
    MatchedName = "name", "nom";
    MatchedAlias = "alias", "nom d’emprunt";
    MatchedSound = "sounds alike", "consonance";
    MatchedNumber = "FPS number", "numéro SED";
    MatchedBirthDate = "date of birth", "date de naissance";
    MatchedAtLarge = "at large", "en liberté illégale";

    // Profile.
    ProfileTitle = "Offender file", "Dossier du délinquant";
    BannerAtLarge = "At large. Approach as your service directs, and call the Correctional Service at once.",
        "En liberté illégale. Suivez les directives de votre service et appelez sans délai le Service correctionnel.";
    BannerSuspended = "Release suspended or revoked: check for a warrant of apprehension.",
        "Mise en liberté suspendue ou révoquée~: vérifiez s’il y a un mandat d’arrestation.";
    PhotographOf = "Photograph of {}", "Photographie~: {}";
    PhotographTaken = "Taken on {}", "Prise le {}";
    NoPhotograph = "No photograph", "Aucune photographie";
    Age = "{} years old", "{} ans";
    WhomToCall = "Whom to call", "Qui appeler";
    ParoleOfficer = "Parole officer", "Agent de libération conditionnelle";
    Telephone = "Telephone", "Téléphone";
    DutyLine = "Duty line, day and night", "Ligne de garde, jour et nuit";
    Office = "Office", "Bureau";
    Email = "Email", "Courriel";
    NoSupervisor = "No supervising officer is recorded.", "Aucun agent de surveillance n’est inscrit.";
    Identity = "Identity", "Identité";
    NoneRecorded = "None recorded", "Rien d’inscrit";
    RecordLanguage = "Records are shown in the language in which they were written.",
        "Les dossiers figurent dans la langue dans laquelle ils ont été rédigés.";
    Yes = "Yes", "Oui";
    No = "No", "Non";

    // Refusals.
    BackToInfoPol = "Back to InfoPol", "Retour à InfoPol";
    NotFoundTitle = "Not available", "Non disponible";
    NotFound = "There is no such page or file here.", "Cette page ou ce dossier ne se trouve pas ici.";
    ClosedTitle = "Access is closed", "L’accès est fermé";
    Closed = "Sharing with your service is suspended, has ended or has not begun. Nothing is shown. Ask your service’s InfoPol coordinator.",
        "La communication avec votre service est suspendue, terminée ou n’a pas commencé. Rien n’est affiché. Adressez-vous à la personne responsable d’InfoPol dans votre service.";
    FencedTitle = "Updating", "Mise à jour en cours";
    Fenced = "The data is being updated. Try again in a minute.", "Les données sont en cours de mise à jour. Réessayez dans une minute.";
    UnavailableTitle = "Not available now", "Non disponible pour l’instant";
    Unavailable = "The data can not be reached now. Try again in a minute; if it lasts, call your service’s InfoPol coordinator.",
        "Les données sont inaccessibles pour l’instant. Réessayez dans une minute; si cela persiste, appelez la personne responsable d’InfoPol dans votre service.";
    ForbiddenTitle = "Refused", "Refusé";
    WrongCertificate = "The certificate of this connection is not one of this partner.",
        "Le certificat de cette connexion n’est pas celui de ce partenaire.";
    CrossSite = "The request did not come from an InfoPol page. Open InfoPol again and repeat what you did.",
        "La demande ne provenait pas d’une page d’InfoPol. Rouvrez InfoPol et recommencez.";
    PurposeMissing = "Give a purpose: one of the codes that your agreement permits (GET /api/terms lists them).",
        "Donnez un motif~: un des codes que permet votre entente (GET /api/terms les énumère).";
    PurposeNotPermitted = "Your agreement does not permit this purpose. GET /api/terms lists those that it permits.",
        "Votre entente ne permet pas ce motif. GET /api/terms énumère ceux qu’elle permet.";
    OfficerMissing = "Give an officer identifier of 1 to 64 letters, digits, . _ @ or -",
        "Donnez un identifiant d’agent de 1 à 64 lettres, chiffres, . _ @ ou -";
    SearchEmpty = "Give at least a name of two letters, an FPS number or a date of birth.",
        "Donnez au moins un nom de deux lettres, un numéro SED ou une date de naissance.";
    NameTooLong = "The name must be 100 characters or less.", "Le nom doit compter au plus 100 caractères.";
    FpsInvalid = "The FPS number must be digits followed by a letter, such as 123456A.",
        "Le numéro SED doit se composer de chiffres suivis d’une lettre, comme 123456A.";
    BirthDateInvalid = "The date of birth must be a date written year-month-day, such as 1980-05-31.",
        "La date de naissance doit être une date de la forme année-mois-jour, comme 1980-05-31.";
    PageInvalid = "The page must be a number from 1 to 100000.", "La page doit être un nombre de 1 à 100~000.";
    PageSizeInvalid = "The page size must be a number from 1 to 100.", "La taille de page doit être un nombre de 1 à 100.";
    FileInvalid = "The file must be named by its number.", "Le dossier doit être désigné par son numéro.";
    PhotographInvalid = "The photograph must be named by its SHA-256: 64 hexadecimal digits.",
        "La photographie doit être désignée par son SHA-256~: 64 chiffres hexadécimaux.";
    BodyInvalid = "The body must be a JSON object as /api/openapi.json describes, sent as application/json.",
        "Le corps doit être un objet JSON conforme à /api/openapi.json, envoyé comme application/json.";
    MethodNotAllowed = "This address does not take this method; see /api/openapi.json.",
        "Cette adresse n’accepte pas cette méthode; voir /api/openapi.json.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_there_in_both_languages_with_the_same_places() {
        for text in Text::ALL {
            let (en, fr) = (Lang::En.text(*text), Lang::Fr.text(*text));
            assert!(!en.trim().is_empty() && !fr.trim().is_empty(), "{text:?}");
            assert_eq!(en.matches("{}").count(), fr.matches("{}").count(), "{text:?}");
            assert_eq!(en.ends_with('.'), fr.ends_with('.'), "{text:?}: both end alike");
        }
    }

    #[test]
    fn french_typography() {
        for text in Text::ALL {
            let fr = Lang::Fr.text(*text);
            assert!(!fr.contains('\''), "{text:?}: typographic apostrophe");
            for (at, mark) in fr.match_indices([':', '»']) {
                assert!(fr[..at].ends_with('\u{a0}'), "{text:?}: no-break space before {mark}");
            }
            assert!(!fr.contains('"'), "{text:?}: guillemets");
        }
    }

    #[test]
    fn picks_the_first_official_language_asked_for() {
        assert_eq!(Lang::preferred("fr-CA,fr;q=0.9,en;q=0.8"), Lang::Fr);
        assert_eq!(Lang::preferred("de, EN-gb"), Lang::En);
        assert_eq!(Lang::preferred("é"), Lang::En);
    }
}
