//! The tables of a file that say what happened: warrants to release decisions.
//!
//! Constants only. A published group is frozen: the fixture `published.txt` refuses a changed column list.

use super::{
    ColumnType::{Boolean, Code, Date, Instant, Integer, Reference, Text},
    Sensitivity, Table, TableKind, column,
};
use crate::codes::{
    FieldGroup, Jurisdiction, Label, ReleaseType, WarrantState,
    record::{
        AssessmentTool, Authority, CommunityContact, Decision, EducationLevel, IncidentKind, IncidentRole,
        InstitutionKind, InstitutionSecurity, Language, Level, MovementKind, ParticipationState, PopulationGroup,
        ProgramKind, Rating, Recommendation, Region, ReportKind, SecurityLevel, Severity, WarrantKind,
    },
};

pub(super) const WARRANT: Table = Table {
    name: "warrant",
    group: FieldGroup::Warrants,
    kind: TableKind::File,
    label: Label { en: "Warrant", fr: "Mandat" },
    niem: "j:Warrant",
    columns: &[
        column("number", "number", Text, "nc:ActivityIdentification", "Number", "Numéro"),
        column("kind", "kind", Code(WarrantKind::LIST), "j:WarrantCategoryText", "Kind", "Type"),
        column("state", "state", Code(WarrantState::LIST), "ca:WarrantStateCode", "State", "État"),
        column("section", "section", Text, "ca:StatutorySection", "Section of the CCRA", "Article de la LSCMLC"),
        column("issued_by", "issuedBy", Code(Authority::LIST), "ca:WarrantIssuerAuthority", "Issued by", "Délivré par"),
        column("issued_on", "issuedOn", Date, "j:CourtOrderIssuingDate", "Issued on", "Délivré le"),
        column("executed_on", "executedOn", Date, "j:CourtOrderServiceDate", "Executed on", "Exécuté le").nullable(),
        column("withdrawn_on", "withdrawnOn", Date, "j:CourtOrderRecallDate", "Withdrawn on", "Retiré le").nullable(),
        column("extent", "extent", Text, "j:WarrantExtraditionLimitationText", "Extent", "Portée"),
        column("caution", "caution", Text, "j:CourtOrderServiceCautionText", "Caution", "Mise en garde").nullable(),
    ],
};

pub(super) const MOVEMENT: Table = Table {
    name: "movement",
    group: FieldGroup::Movements,
    kind: TableKind::File,
    label: Label { en: "Movement", fr: "Déplacement" },
    niem: "j:CustodyTransfer",
    columns: &[
        column("moved_at", "movedAt", Instant, "nc:ActivityDate", "When", "Moment"),
        column("kind", "kind", Code(MovementKind::LIST), "ca:MovementKindCode", "Kind", "Type"),
        column("from_place", "fromPlace", Text, "j:CustodyTransferReleasingEnforcementFacility", "From", "De")
            .nullable(),
        column(
            "from_place_fr",
            "fromPlaceFr",
            Text,
            "j:CustodyTransferReleasingEnforcementFacility",
            "From (French)",
            "De (français)",
        )
        .nullable(),
        column(
            "from_institution",
            "fromInstitution",
            Reference("institution"),
            "j:CustodyTransferReleasingEnforcementFacility",
            "From institution (number)",
            "De l'établissement (numéro)",
        )
        .nullable(),
        column("to_place", "toPlace", Text, "j:CustodyTransferReceivingEnforcementFacility", "To", "À").nullable(),
        column(
            "to_place_fr",
            "toPlaceFr",
            Text,
            "j:CustodyTransferReceivingEnforcementFacility",
            "To (French)",
            "À (français)",
        )
        .nullable(),
        column(
            "to_institution",
            "toInstitution",
            Reference("institution"),
            "j:CustodyTransferReceivingEnforcementFacility",
            "To institution (number)",
            "À l'établissement (numéro)",
        )
        .nullable(),
    ],
};

pub(super) const SECURITY_LEVEL: Table = Table {
    name: "security_level",
    group: FieldGroup::Movements,
    kind: TableKind::File,
    label: Label { en: "Security level", fr: "Cote de sécurité" },
    niem: "ca:OffenderSecurityLevel",
    columns: &[
        column("level", "level", Code(SecurityLevel::LIST), "ca:SecurityLevelCode", "Level", "Cote"),
        column("decided_on", "decidedOn", Date, "nc:ActivityDate", "Decided on", "Décidée le"),
        column("review", "review", Boolean, "ca:ReviewIndicator", "Review", "Réévaluation"),
        column("score", "score", Integer, "ca:SecurityLevelScore", "Score", "Résultat"),
        column(
            "institution",
            "institution",
            Reference("institution"),
            "nc:SupervisionFacility",
            "Institution (number)",
            "Établissement (numéro)",
        ),
        column("institution_name", "institutionName", Text, "nc:FacilityName", "Institution", "Établissement"),
        column(
            "institution_name_fr",
            "institutionNameFr",
            Text,
            "nc:FacilityName",
            "Institution (French)",
            "Établissement (français)",
        ),
    ],
};

pub(super) const INSTITUTION: Table = Table {
    name: "institution",
    group: FieldGroup::Movements,
    kind: TableKind::Reference,
    label: Label { en: "Institution", fr: "Établissement" },
    niem: "nc:Facility",
    columns: &[
        column("name_en", "nameEn", Text, "nc:FacilityName", "Name (English)", "Nom (anglais)")
            .classified(Sensitivity::Unclassified),
        column("name_fr", "nameFr", Text, "nc:FacilityName", "Name (French)", "Nom (français)")
            .classified(Sensitivity::Unclassified),
        column("kind", "kind", Code(InstitutionKind::LIST), "ca:InstitutionKindCode", "Kind", "Type")
            .classified(Sensitivity::Unclassified),
        column(
            "security",
            "security",
            Code(InstitutionSecurity::LIST),
            "ca:InstitutionSecurityCode",
            "Security",
            "Sécurité",
        )
        .classified(Sensitivity::Unclassified),
        column("population", "population", Code(PopulationGroup::LIST), "ca:PopulationGroupCode", "For", "Pour")
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
    ],
};

pub(super) const INCIDENT: Table = Table {
    name: "incident",
    group: FieldGroup::Incidents,
    kind: TableKind::File,
    label: Label { en: "Incident report", fr: "Rapport d'incident" },
    niem: "nc:Incident",
    columns: &[
        column("occurred_at", "occurredAt", Instant, "nc:ActivityDate", "When", "Moment"),
        column("kind", "kind", Code(IncidentKind::LIST), "ca:IncidentKindCode", "Kind", "Type"),
        column("severity", "severity", Code(Severity::LIST), "ca:SeverityCode", "Severity", "Gravité"),
        column("role", "role", Code(IncidentRole::LIST), "ca:IncidentRoleCode", "Role", "Rôle"),
        column("institution_name", "institutionName", Text, "nc:FacilityName", "Institution", "Établissement"),
        column(
            "institution_name_fr",
            "institutionNameFr",
            Text,
            "nc:FacilityName",
            "Institution (French)",
            "Établissement (français)",
        ),
        column(
            "language",
            "language",
            Code(Language::LIST),
            "nc:Language",
            "Language of the report",
            "Langue du rapport",
        ),
        column("report", "report", Text, "nc:ActivityDescriptionText", "Report", "Rapport"),
    ],
};

pub(super) const RISK_ASSESSMENT: Table = Table {
    name: "risk_assessment",
    group: FieldGroup::RiskAssessments,
    kind: TableKind::File,
    label: Label { en: "Risk assessment", fr: "Évaluation du risque" },
    niem: "nc:Assessment",
    columns: &[
        column("tool", "tool", Code(AssessmentTool::LIST), "ca:AssessmentToolCode", "Instrument", "Instrument"),
        column("assessed_on", "assessedOn", Date, "nc:ActivityDate", "Assessed on", "Évalué le"),
        column("level", "level", Code(Level::LIST), "ca:LevelCode", "Level", "Niveau"),
        column("score", "score", Integer, "nc:AssessmentScoreText", "Score", "Résultat").nullable(),
        column("assessor", "assessor", Text, "nc:AssessmentAssessor", "Assessed by", "Évalué par"),
        column(
            "language",
            "language",
            Code(Language::LIST),
            "nc:Language",
            "Language of the comment",
            "Langue du commentaire",
        ),
        column("comment", "comment", Text, "nc:AssessmentSummaryText", "Comment", "Commentaire"),
    ],
};

pub(super) const PROGRAM: Table = Table {
    name: "program",
    group: FieldGroup::Programs,
    kind: TableKind::File,
    label: Label { en: "Program", fr: "Programme" },
    niem: "nc:Program",
    columns: &[
        column("kind", "kind", Code(ProgramKind::LIST), "ca:ProgramKindCode", "Kind", "Type"),
        column("name_en", "nameEn", Text, "nc:ActivityName", "Program (English)", "Programme (anglais)"),
        column("name_fr", "nameFr", Text, "nc:ActivityName", "Program (French)", "Programme (français)"),
        column("state", "state", Code(ParticipationState::LIST), "ca:ParticipationStateCode", "State", "État"),
        column("started_on", "startedOn", Date, "nc:StartDate", "Started on", "Début").nullable(),
        column("ended_on", "endedOn", Date, "nc:EndDate", "Ended on", "Fin").nullable(),
        column("hours", "hours", Integer, "ca:ProgramHours", "Hours", "Heures"),
        column("place", "place", Text, "nc:FacilityName", "Place", "Lieu"),
        column("place_fr", "placeFr", Text, "nc:FacilityName", "Place (French)", "Lieu (français)"),
    ],
};

pub(super) const WORK_ASSIGNMENT: Table = Table {
    name: "work_assignment",
    group: FieldGroup::Programs,
    kind: TableKind::File,
    label: Label { en: "Work assignment", fr: "Affectation de travail" },
    niem: "nc:PersonEmploymentAssociation",
    columns: &[
        column("title_en", "titleEn", Text, "nc:EmploymentPositionName", "Work (English)", "Travail (anglais)"),
        column("title_fr", "titleFr", Text, "nc:EmploymentPositionName", "Work (French)", "Travail (français)"),
        column("state", "state", Code(ParticipationState::LIST), "ca:ParticipationStateCode", "State", "État"),
        column("rating", "rating", Code(Rating::LIST), "ca:RatingCode", "Rating", "Appréciation").nullable(),
        column("started_on", "startedOn", Date, "nc:StartDate", "Started on", "Début"),
        column("ended_on", "endedOn", Date, "nc:EndDate", "Ended on", "Fin").nullable(),
        column("place", "place", Text, "nc:FacilityName", "Place", "Lieu"),
        column("place_fr", "placeFr", Text, "nc:FacilityName", "Place (French)", "Lieu (français)"),
    ],
};

pub(super) const EDUCATION: Table = Table {
    name: "education",
    group: FieldGroup::Programs,
    kind: TableKind::File,
    label: Label { en: "Education", fr: "Études" },
    niem: "nc:PersonEducation",
    columns: &[
        column("level", "level", Code(EducationLevel::LIST), "ca:EducationLevelCode", "Level", "Niveau"),
        column("state", "state", Code(ParticipationState::LIST), "ca:ParticipationStateCode", "State", "État"),
        column("started_on", "startedOn", Date, "nc:StartDate", "Started on", "Début"),
        column("ended_on", "endedOn", Date, "nc:EndDate", "Ended on", "Fin").nullable(),
        column("credits", "credits", Integer, "ca:EducationCredits", "Credits", "Crédits"),
        column("place", "place", Text, "nc:FacilityName", "Place", "Lieu"),
        column("place_fr", "placeFr", Text, "nc:FacilityName", "Place (French)", "Lieu (français)"),
    ],
};

pub(super) const PROGRESS_REPORT: Table = Table {
    name: "progress_report",
    group: FieldGroup::ProgressReports,
    kind: TableKind::File,
    label: Label { en: "Progress report", fr: "Rapport d'étape" },
    niem: "ca:ProgressReport",
    columns: &[
        column("kind", "kind", Code(ReportKind::LIST), "ca:ReportKindCode", "Kind", "Type"),
        column("written_on", "writtenOn", Date, "nc:DocumentCreationDate", "Written on", "Rédigé le"),
        column("author", "author", Text, "nc:DocumentAuthor", "Author", "Auteur"),
        column(
            "accountability",
            "accountability",
            Code(Level::LIST),
            "ca:LevelCode",
            "Accountability",
            "Responsabilisation",
        ),
        column("motivation", "motivation", Code(Level::LIST), "ca:LevelCode", "Motivation", "Motivation"),
        column(
            "engagement",
            "engagement",
            Boolean,
            "ca:EngagementIndicator",
            "Engaged in the correctional plan",
            "Engagé dans le plan correctionnel",
        ),
        column(
            "language",
            "language",
            Code(Language::LIST),
            "nc:Language",
            "Language of the report",
            "Langue du rapport",
        ),
        column("summary", "summary", Text, "ca:ReportSummaryText", "Summary", "Résumé"),
    ],
};

pub(super) const COMMUNITY_ASSESSMENT: Table = Table {
    name: "community_assessment",
    group: FieldGroup::CommunityAssessments,
    kind: TableKind::File,
    label: Label { en: "Community assessment", fr: "Évaluation communautaire" },
    niem: "ca:CommunityAssessment",
    columns: &[
        column("written_on", "writtenOn", Date, "nc:DocumentCreationDate", "Written on", "Rédigée le"),
        column(
            "contact",
            "contact",
            Code(CommunityContact::LIST),
            "ca:CommunityContactCode",
            "Contact",
            "Personne-ressource",
        ),
        column("support", "support", Code(Level::LIST), "ca:LevelCode", "Support", "Soutien"),
        column(
            "recommendation",
            "recommendation",
            Code(Recommendation::LIST),
            "ca:RecommendationCode",
            "Recommendation",
            "Recommandation",
        ),
        column("office_name", "officeName", Text, "ca:SupervisingOffice", "Office", "Bureau"),
        column("office_name_fr", "officeNameFr", Text, "ca:SupervisingOffice", "Office (French)", "Bureau (français)"),
        column("municipality_name", "municipalityName", Text, "nc:AddressCityName", "Municipality", "Municipalité"),
        column(
            "language",
            "language",
            Code(Language::LIST),
            "nc:Language",
            "Language of the report",
            "Langue du rapport",
        ),
        column("summary", "summary", Text, "ca:ReportSummaryText", "Summary", "Résumé"),
    ],
};

pub(super) const RELEASE_DECISION: Table = Table {
    name: "release_decision",
    group: FieldGroup::ReleaseDecisions,
    kind: TableKind::File,
    label: Label { en: "Release decision", fr: "Décision de mise en liberté" },
    niem: "j:ParoleHearing",
    columns: &[
        column("number", "number", Text, "nc:ActivityIdentification", "Number", "Numéro"),
        column(
            "release_kind",
            "releaseKind",
            Code(ReleaseType::LIST),
            "ca:ReleaseTypeCode",
            "Kind of release",
            "Type de mise en liberté",
        ),
        column("decision", "decision", Code(Decision::LIST), "j:ParoleHearingDecisionText", "Decision", "Décision"),
        column("authority", "authority", Code(Authority::LIST), "ca:DecisionAuthority", "Authority", "Autorité"),
        column("decided_on", "decidedOn", Date, "nc:ActivityDate", "Decided on", "Décidée le"),
        column(
            "effective_on",
            "effectiveOn",
            Date,
            "j:ParoleHearingDecisionImplementationDate",
            "Effective on",
            "En vigueur le",
        )
        .nullable(),
        column("panel", "panel", Integer, "ca:PanelSize", "Members of the panel", "Membres du comité"),
        column(
            "language",
            "language",
            Code(Language::LIST),
            "nc:Language",
            "Language of the reasons",
            "Langue des motifs",
        ),
        column("reasons", "reasons", Text, "nc:ActivityReasonText", "Reasons", "Motifs"),
    ],
};
