//! The tables of a file that say who, why and under whom: identity to supervision.
//!
//! Constants only. A published group is frozen: the fixture `published.txt` refuses a changed column list.

use super::{
    ColumnType::{Boolean, Code, Date, Hash, Integer, Reference, Text},
    Sensitivity, Table, TableKind, column,
};
use crate::codes::{
    AtLarge, Custody, FieldGroup, Jurisdiction, Label, ReleaseType, Status, WarrantState,
    record::{
        AliasKind, Authority, BodyPart, CautionKind, ConditionKind, ConditionTopic, Disposition, EyeColour, HairColour,
        Language, MarkKind, OffenceCategory, OfficeKind, PhotographReason, Region, ReleaseState, ResidenceKind,
        SentenceKind, SentenceState, Sex, SupervisionKind, SupervisionLevel, SuspensionOutcome, SuspensionReason,
    },
};

pub(super) const OFFENDER: Table = Table {
    name: "offender",
    group: FieldGroup::Identity,
    kind: TableKind::File,
    label: Label { en: "Offender", fr: "Délinquant" },
    niem: "j:Subject",
    columns: &[
        column("fps", "fps", Text, "nc:PersonOtherIdentification", "FPS number", "Numéro SED"),
        column("surname", "surname", Text, "nc:PersonSurName", "Surname", "Nom de famille"),
        column("given", "given", Text, "nc:PersonGivenName", "Given names", "Prénoms"),
        column("sex", "sex", Code(Sex::LIST), "nc:PersonSexText", "Sex", "Sexe"),
        column("birth_date", "birthDate", Date, "nc:PersonBirthDate", "Date of birth", "Date de naissance"),
        column("birth_place", "birthPlace", Text, "nc:PersonBirthLocation", "Place of birth", "Lieu de naissance")
            .nullable(),
        column(
            "language",
            "language",
            Code(Language::LIST),
            "nc:PersonPrimaryLanguage",
            "Preferred official language",
            "Langue officielle préférée",
        ),
        column("height_cm", "heightCm", Integer, "nc:PersonHeightMeasure", "Height (cm)", "Taille (cm)").nullable(),
        column("weight_kg", "weightKg", Integer, "nc:PersonWeightMeasure", "Weight (kg)", "Poids (kg)").nullable(),
        column("eye_colour", "eyeColour", Code(EyeColour::LIST), "nc:PersonEyeColorText", "Eyes", "Yeux").nullable(),
        column("hair_colour", "hairColour", Code(HairColour::LIST), "nc:PersonHairColorText", "Hair", "Cheveux")
            .nullable(),
        column("custody", "custody", Code(Custody::LIST), "nc:SupervisionCustodyStatus", "Custody", "Garde"),
        column("status", "status", Code(Status::LIST), "ca:SupervisionStatusCode", "Status", "Situation"),
        column(
            "release_type",
            "releaseType",
            Code(ReleaseType::LIST),
            "ca:ReleaseTypeCode",
            "Kind of release",
            "Type de mise en liberté",
        )
        .nullable(),
        column("at_large", "atLarge", Code(AtLarge::LIST), "ca:AtLargeCode", "At large", "En liberté illégale"),
        column("warrant", "warrant", Code(WarrantState::LIST), "ca:WarrantStateCode", "Warrant", "Mandat"),
        column(
            "jurisdiction",
            "jurisdiction",
            Code(Jurisdiction::LIST),
            "iso_3166:StateCode",
            "Province or territory",
            "Province ou territoire",
        ),
        column(
            "municipality",
            "municipality",
            Text,
            "ca:CensusSubdivisionCode",
            "Municipality code",
            "Code de la municipalité",
        ),
        column("municipality_name", "municipalityName", Text, "nc:AddressCityName", "Municipality", "Municipalité"),
    ],
};

pub(super) const CAUTION: Table = Table {
    name: "caution",
    group: FieldGroup::Identity,
    kind: TableKind::File,
    label: Label { en: "Caution", fr: "Mise en garde" },
    niem: "j:SubjectCautionInformationText",
    columns: &[
        column("kind", "kind", Code(CautionKind::LIST), "ca:CautionKindCode", "Caution", "Mise en garde"),
        column("noted_on", "notedOn", Date, "nc:ActivityDate", "Noted on", "Inscrite le"),
        column("detail", "detail", Text, "j:SubjectCautionInformationText", "Detail", "Précisions").nullable(),
    ],
};

pub(super) const MARK: Table = Table {
    name: "mark",
    group: FieldGroup::Identity,
    kind: TableKind::File,
    label: Label { en: "Mark", fr: "Signe particulier" },
    niem: "nc:PersonPhysicalFeature",
    columns: &[
        column("kind", "kind", Code(MarkKind::LIST), "ca:MarkKindCode", "Kind", "Type"),
        column("body_part", "bodyPart", Code(BodyPart::LIST), "nc:PhysicalFeatureLocationText", "Where", "Endroit"),
        column("detail", "detail", Text, "nc:PhysicalFeatureDescriptionText", "Description", "Description"),
    ],
};

pub(super) const ALIAS: Table = Table {
    name: "alias",
    group: FieldGroup::Aliases,
    kind: TableKind::File,
    label: Label { en: "Alias", fr: "Nom d'emprunt" },
    niem: "nc:PersonAliasIdentityAssociation",
    columns: &[
        column("kind", "kind", Code(AliasKind::LIST), "ca:AliasKindCode", "Kind", "Type"),
        column("surname", "surname", Text, "nc:PersonSurName", "Surname", "Nom de famille"),
        column("given", "given", Text, "nc:PersonGivenName", "Given names", "Prénoms"),
        column(
            "birth_date",
            "birthDate",
            Date,
            "nc:PersonBirthDate",
            "Date of birth used",
            "Date de naissance utilisée",
        )
        .nullable(),
    ],
};

pub(super) const PHOTOGRAPH: Table = Table {
    name: "photograph",
    group: FieldGroup::Photograph,
    kind: TableKind::File,
    label: Label { en: "Photograph", fr: "Photographie" },
    niem: "nc:PersonDigitalImage",
    columns: &[
        column("sha256", "sha256", Hash, "nc:BinaryHash", "SHA-256 of the image", "SHA-256 de l'image"),
        column("taken_on", "takenOn", Date, "nc:BinaryCaptureDate", "Taken on", "Prise le"),
        column("reason", "reason", Code(PhotographReason::LIST), "ca:PhotographReasonCode", "Reason", "Motif"),
        column("format", "format", Text, "nc:BinaryFormatText", "Format", "Format"),
        column("width_px", "widthPx", Integer, "nc:ImageWidthValue", "Width (pixels)", "Largeur (pixels)"),
        column("height_px", "heightPx", Integer, "nc:ImageHeightValue", "Height (pixels)", "Hauteur (pixels)"),
        column("size_bytes", "sizeBytes", Integer, "nc:BinarySizeValue", "Size (bytes)", "Taille (octets)"),
    ],
};

pub(super) const SENTENCE: Table = Table {
    name: "sentence",
    group: FieldGroup::Sentence,
    kind: TableKind::File,
    label: Label { en: "Sentence", fr: "Peine" },
    niem: "j:Sentence",
    columns: &[
        column("term", "term", Integer, "ca:FederalTermNumber", "Federal term", "Peine fédérale no"),
        column("kind", "kind", Code(SentenceKind::LIST), "ca:SentenceKindCode", "Kind", "Type"),
        column("state", "state", Code(SentenceState::LIST), "ca:SentenceStateCode", "State", "État"),
        column("length_days", "lengthDays", Integer, "j:TermDuration", "Length (days)", "Durée (jours)").nullable(),
        column("imposed_on", "imposedOn", Date, "nc:ActivityDate", "Imposed on", "Imposée le"),
        column("commenced_on", "commencedOn", Date, "j:SentenceTerm", "Commenced on", "Début"),
        column("court", "court", Text, "j:SentenceIssuerEntity", "Court", "Tribunal"),
        column(
            "day_parole_eligible_on",
            "dayParoleEligibleOn",
            Date,
            "ca:DayParoleEligibilityDate",
            "Day parole eligibility",
            "Admissibilité à la semi-liberté",
        )
        .nullable(),
        column(
            "full_parole_eligible_on",
            "fullParoleEligibleOn",
            Date,
            "j:IncarcerationParoleEligibilityDate",
            "Full parole eligibility",
            "Admissibilité à la libération conditionnelle totale",
        )
        .nullable(),
        column(
            "statutory_release_on",
            "statutoryReleaseOn",
            Date,
            "ca:StatutoryReleaseDate",
            "Statutory release",
            "Libération d'office",
        )
        .nullable(),
        column(
            "warrant_expires_on",
            "warrantExpiresOn",
            Date,
            "j:SentenceExpirationDate",
            "Warrant expiry",
            "Expiration du mandat",
        )
        .nullable(),
        column(
            "long_term_supervision_ends_on",
            "longTermSupervisionEndsOn",
            Date,
            "ca:LongTermSupervisionEndDate",
            "Long-term supervision ends",
            "Fin de la surveillance de longue durée",
        )
        .nullable(),
        column("ended_on", "endedOn", Date, "nc:EndDate", "Ended on", "Fin réelle").nullable(),
    ],
};

pub(super) const OFFENCE: Table = Table {
    name: "offence",
    group: FieldGroup::Offences,
    kind: TableKind::File,
    label: Label { en: "Offence", fr: "Infraction" },
    niem: "j:Charge",
    columns: &[
        column("term", "term", Integer, "ca:FederalTermNumber", "Federal term", "Peine fédérale no"),
        column("ucr_code", "ucrCode", Text, "ca:CanadianUCRCode", "UCR code", "Code DUC").nullable(),
        column("act", "act", Text, "j:StatuteCodeIdentification", "Act", "Loi"),
        column("section", "section", Text, "j:StatuteCodeSectionIdentification", "Section", "Article"),
        column("title_en", "titleEn", Text, "j:ChargeDescriptionText", "Offence (English)", "Infraction (anglais)"),
        column("title_fr", "titleFr", Text, "j:ChargeDescriptionText", "Offence (French)", "Infraction (français)"),
        column("category", "category", Code(OffenceCategory::LIST), "ca:OffenceCategoryCode", "Category", "Catégorie"),
        column("counts", "counts", Integer, "j:ChargeCountQuantity", "Counts", "Chefs"),
        column("committed_on", "committedOn", Date, "nc:ActivityDate", "Committed on", "Commise le"),
        column("convicted_on", "convictedOn", Date, "nc:DispositionDate", "Convicted on", "Condamnation le"),
        column("court", "court", Text, "j:CourtName", "Court", "Tribunal"),
    ],
};

pub(super) const PRIOR_OFFENCE: Table = Table {
    name: "prior_offence",
    group: FieldGroup::Offences,
    kind: TableKind::File,
    label: Label { en: "Prior offence", fr: "Infraction antérieure" },
    niem: "j:Conviction",
    columns: &[
        column("ucr_code", "ucrCode", Text, "ca:CanadianUCRCode", "UCR code", "Code DUC").nullable(),
        column("act", "act", Text, "j:StatuteCodeIdentification", "Act", "Loi"),
        column("section", "section", Text, "j:StatuteCodeSectionIdentification", "Section", "Article"),
        column("title_en", "titleEn", Text, "j:ChargeDescriptionText", "Offence (English)", "Infraction (anglais)"),
        column("title_fr", "titleFr", Text, "j:ChargeDescriptionText", "Offence (French)", "Infraction (français)"),
        column("convicted_on", "convictedOn", Date, "nc:DispositionDate", "Convicted on", "Condamnation le"),
        column("court", "court", Text, "j:CourtName", "Court", "Tribunal"),
        column("disposition", "disposition", Code(Disposition::LIST), "ca:DispositionCode", "Disposition", "Décision"),
        column("sentence_months", "sentenceMonths", Integer, "j:TermDuration", "Length (months)", "Durée (mois)")
            .nullable(),
    ],
};

pub(super) const RELEASE: Table = Table {
    name: "release",
    group: FieldGroup::Release,
    kind: TableKind::File,
    label: Label { en: "Release", fr: "Mise en liberté" },
    niem: "j:ConditionalRelease",
    columns: &[
        column(
            "kind",
            "kind",
            Code(ReleaseType::LIST),
            "ca:ReleaseTypeCode",
            "Kind of release",
            "Type de mise en liberté",
        ),
        column("state", "state", Code(ReleaseState::LIST), "ca:ReleaseStateCode", "State", "État"),
        column("authority", "authority", Code(Authority::LIST), "nc:ReleaseIssuer", "Authority", "Autorité"),
        column("started_on", "startedOn", Date, "nc:ReleaseDate", "Started on", "Début"),
        column("ends_on", "endsOn", Date, "j:ConditionalReleaseExpirationDate", "Ends on", "Fin prévue").nullable(),
        column("ended_on", "endedOn", Date, "nc:EndDate", "Ended on", "Fin réelle").nullable(),
        column(
            "residency",
            "residency",
            Boolean,
            "ca:ResidencyIndicator",
            "Residency required",
            "Assignation à résidence",
        ),
        column(
            "municipality",
            "municipality",
            Text,
            "ca:CensusSubdivisionCode",
            "Municipality code",
            "Code de la municipalité",
        ),
        column(
            "municipality_name",
            "municipalityName",
            Text,
            "nc:ReleaseToLocation",
            "Municipality of release",
            "Municipalité de mise en liberté",
        ),
    ],
};

pub(super) const SUSPENSION: Table = Table {
    name: "suspension",
    group: FieldGroup::Release,
    kind: TableKind::File,
    label: Label { en: "Suspension", fr: "Suspension" },
    niem: "ca:ReleaseSuspension",
    columns: &[
        column(
            "release_kind",
            "releaseKind",
            Code(ReleaseType::LIST),
            "ca:ReleaseTypeCode",
            "Kind of release",
            "Type de mise en liberté",
        ),
        column("suspended_on", "suspendedOn", Date, "ca:SuspensionDate", "Suspended on", "Suspendue le"),
        column("reason", "reason", Code(SuspensionReason::LIST), "ca:SuspensionReasonCode", "Reason", "Motif"),
        column("section", "section", Text, "ca:StatutorySection", "Section of the CCRA", "Article de la LSCMLC"),
        column("outcome", "outcome", Code(SuspensionOutcome::LIST), "ca:SuspensionOutcomeCode", "Outcome", "Issue"),
        column("resolved_on", "resolvedOn", Date, "nc:EndDate", "Resolved on", "Réglée le").nullable(),
    ],
};

pub(super) const CONDITION: Table = Table {
    name: "condition",
    group: FieldGroup::Conditions,
    kind: TableKind::File,
    label: Label { en: "Condition", fr: "Condition" },
    niem: "j:ConditionalReleaseCondition",
    columns: &[
        column("kind", "kind", Code(ConditionKind::LIST), "ca:ConditionKindCode", "Kind", "Type"),
        column("topic", "topic", Code(ConditionTopic::LIST), "ca:ConditionTopicCode", "About", "Objet"),
        column("text_en", "textEn", Text, "ca:ConditionText", "Text (English)", "Texte (anglais)"),
        column("text_fr", "textFr", Text, "ca:ConditionText", "Text (French)", "Texte (français)"),
        column(
            "release_kind",
            "releaseKind",
            Code(ReleaseType::LIST),
            "ca:ReleaseTypeCode",
            "Kind of release",
            "Type de mise en liberté",
        ),
        column("authority", "authority", Code(Authority::LIST), "nc:ReleaseIssuer", "Imposed by", "Imposée par"),
        column("imposed_on", "imposedOn", Date, "nc:ConditionSetDate", "Imposed on", "Imposée le"),
        column("ends_on", "endsOn", Date, "nc:EndDate", "Ends on", "Fin").nullable(),
    ],
};

pub(super) const SUPERVISION: Table = Table {
    name: "supervision",
    group: FieldGroup::Supervision,
    kind: TableKind::File,
    label: Label { en: "Supervision", fr: "Surveillance" },
    niem: "nc:Supervision",
    columns: &[
        column("kind", "kind", Code(SupervisionKind::LIST), "ca:SupervisionKindCode", "Kind", "Type"),
        column("level", "level", Code(SupervisionLevel::LIST), "j:SupervisionLevelText", "Level", "Niveau"),
        column("started_on", "startedOn", Date, "nc:StartDate", "Since", "Depuis"),
        column("ended_on", "endedOn", Date, "nc:EndDate", "Until", "Jusqu'au").nullable(),
        column(
            "officer",
            "officer",
            Reference("parole_officer"),
            "nc:SupervisionSupervisor",
            "Parole officer (number)",
            "Agent de libération conditionnelle (numéro)",
        ),
        column(
            "officer_name",
            "officerName",
            Text,
            "j:ParoleOfficer",
            "Parole officer",
            "Agent de libération conditionnelle",
        ),
        column(
            "officer_telephone",
            "officerTelephone",
            Text,
            "nc:ContactTelephoneNumber",
            "Officer's telephone",
            "Téléphone de l'agent",
        ),
        column("office", "office", Reference("office"), "ca:SupervisingOffice", "Office (number)", "Bureau (numéro)"),
        column("office_name", "officeName", Text, "ca:SupervisingOffice", "Office", "Bureau"),
        column("office_name_fr", "officeNameFr", Text, "ca:SupervisingOffice", "Office (French)", "Bureau (français)"),
        column(
            "residence_kind",
            "residenceKind",
            Code(ResidenceKind::LIST),
            "ca:ResidenceKindCode",
            "Residence",
            "Résidence",
        ),
        column("residence_address", "residenceAddress", Text, "nc:AddressFullText", "Address", "Adresse").nullable(),
        column(
            "municipality",
            "municipality",
            Text,
            "ca:CensusSubdivisionCode",
            "Municipality code",
            "Code de la municipalité",
        ),
        column("municipality_name", "municipalityName", Text, "nc:AddressCityName", "Municipality", "Municipalité"),
    ],
};

pub(super) const PAROLE_OFFICER: Table = Table {
    name: "parole_officer",
    group: FieldGroup::Supervision,
    kind: TableKind::Reference,
    label: Label { en: "Parole officer", fr: "Agent de libération conditionnelle" },
    niem: "j:ParoleOfficer",
    columns: &[
        column("name", "name", Text, "nc:PersonFullName", "Name", "Nom").classified(Sensitivity::ProtectedA),
        column("telephone", "telephone", Text, "nc:ContactTelephoneNumber", "Telephone", "Téléphone")
            .classified(Sensitivity::ProtectedA),
        column("email", "email", Text, "nc:ContactEmailID", "Email", "Courriel").classified(Sensitivity::ProtectedA),
        column("language", "language", Code(Language::LIST), "nc:PersonPrimaryLanguage", "Language", "Langue")
            .classified(Sensitivity::ProtectedA),
        column("office", "office", Reference("office"), "ca:SupervisingOffice", "Office (number)", "Bureau (numéro)")
            .classified(Sensitivity::ProtectedA),
        column("office_name", "officeName", Text, "ca:SupervisingOffice", "Office", "Bureau")
            .classified(Sensitivity::ProtectedA),
        column("office_name_fr", "officeNameFr", Text, "ca:SupervisingOffice", "Office (French)", "Bureau (français)")
            .classified(Sensitivity::ProtectedA),
    ],
};

pub(super) const OFFICE: Table = Table {
    name: "office",
    group: FieldGroup::Supervision,
    kind: TableKind::Reference,
    label: Label { en: "Office", fr: "Bureau" },
    niem: "nc:Organization",
    columns: &[
        column("name_en", "nameEn", Text, "nc:OrganizationName", "Name (English)", "Nom (anglais)")
            .classified(Sensitivity::Unclassified),
        column("name_fr", "nameFr", Text, "nc:OrganizationName", "Name (French)", "Nom (français)")
            .classified(Sensitivity::Unclassified),
        column("kind", "kind", Code(OfficeKind::LIST), "ca:OfficeKindCode", "Kind", "Type")
            .classified(Sensitivity::Unclassified),
        column("region", "region", Code(Region::LIST), "ca:RegionCode", "Region", "Région")
            .classified(Sensitivity::Unclassified),
        column(
            "jurisdiction",
            "jurisdiction",
            Code(Jurisdiction::LIST),
            "iso_3166:StateCode",
            "Province or territory",
            "Province ou territoire",
        )
        .classified(Sensitivity::Unclassified),
        column(
            "municipality",
            "municipality",
            Text,
            "ca:CensusSubdivisionCode",
            "Municipality code",
            "Code de la municipalité",
        )
        .classified(Sensitivity::Unclassified),
        column("municipality_name", "municipalityName", Text, "nc:AddressCityName", "Municipality", "Municipalité")
            .classified(Sensitivity::Unclassified),
        column("telephone", "telephone", Text, "nc:ContactTelephoneNumber", "Telephone", "Téléphone")
            .classified(Sensitivity::Unclassified),
        column("duty_telephone", "dutyTelephone", Text, "ca:DutyTelephoneNumber", "24-hour line", "Ligne 24 heures")
            .classified(Sensitivity::Unclassified),
    ],
};
