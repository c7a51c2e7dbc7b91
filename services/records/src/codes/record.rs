//! The code lists that stand inside records: kinds, states and levels that scope is not decided on.
//!
//! Nothing here narrows or widens a share; the axes that do are in the parent module.

use super::{Code, CodeEntry, CodeList, Deserialize, JsonSchema, Label, Serialize};

codes! {
    /// The official language of a record or the one a person prefers.
    Language {
        English = "eng", "English", "Anglais";
        French = "fra", "French", "Français";
    }
}

codes! {
    /// Sex as recorded at admission.
    Sex {
        Male = "Male", "Male", "Homme";
        Female = "Female", "Female", "Femme";
        AnotherGender = "AnotherGender", "Another gender", "Autre genre";
    }
}

codes! {
    /// What an officer must know before an approach.
    CautionKind {
        Violent = "Violent", "Violent", "Violent";
        Armed = "Armed", "Known to carry weapons", "Connu pour porter des armes";
        EscapeRisk = "EscapeRisk", "Escape risk", "Risque d'évasion";
        SelfHarm = "SelfHarm", "Risk of self-harm", "Risque d'automutilation";
        Gang = "Gang", "Security threat group affiliation", "Affiliation à un groupe menaçant la sécurité";
        Opioids = "Opioids", "Opioid overdose risk", "Risque de surdose d'opioïdes";
    }
}

codes! {
    /// A lasting feature of the body.
    MarkKind {
        Tattoo = "Tattoo", "Tattoo", "Tatouage";
        Scar = "Scar", "Scar", "Cicatrice";
        Birthmark = "Birthmark", "Birthmark", "Tache de naissance";
        Missing = "Missing", "Missing part", "Partie manquante";
    }
}

codes! {
    /// Where on the body.
    BodyPart {
        Face = "Face", "Face", "Visage";
        Neck = "Neck", "Neck", "Cou";
        LeftArm = "LeftArm", "Left arm", "Bras gauche";
        RightArm = "RightArm", "Right arm", "Bras droit";
        LeftHand = "LeftHand", "Left hand", "Main gauche";
        RightHand = "RightHand", "Right hand", "Main droite";
        Chest = "Chest", "Chest", "Poitrine";
        Back = "Back", "Back", "Dos";
        Leg = "Leg", "Leg", "Jambe";
    }
}

codes! {
    /// Colour of the eyes.
    EyeColour {
        Brown = "Brown", "Brown", "Bruns";
        Blue = "Blue", "Blue", "Bleus";
        Green = "Green", "Green", "Verts";
        Hazel = "Hazel", "Hazel", "Noisette";
        Grey = "Grey", "Grey", "Gris";
    }
}

codes! {
    /// Colour of the hair.
    HairColour {
        Black = "Black", "Black", "Noirs";
        Brown = "Brown", "Brown", "Bruns";
        Blond = "Blond", "Blond", "Blonds";
        Red = "Red", "Red", "Roux";
        Grey = "Grey", "Grey", "Gris";
        Bald = "Bald", "Bald", "Chauve";
    }
}

codes! {
    /// Where another name comes from.
    AliasKind {
        BirthName = "BirthName", "Birth name", "Nom de naissance";
        MarriedName = "MarriedName", "Married name", "Nom de mariage";
        Nickname = "Nickname", "Nickname", "Surnom";
        AssumedName = "AssumedName", "Assumed name", "Nom d'emprunt";
        Spelling = "Spelling", "Other spelling", "Autre graphie";
    }
}

codes! {
    /// Why a photograph was taken.
    PhotographReason {
        Admission = "Admission", "Admission", "Admission";
        Periodic = "Periodic", "Five-year renewal", "Renouvellement quinquennal";
        Release = "Release", "Release", "Mise en liberté";
        Appearance = "Appearance", "Changed appearance", "Changement d'apparence";
    }
}

codes! {
    /// The kind of sentence (Criminal Code s.745, 753, 753.1).
    SentenceKind {
        Determinate = "Determinate", "Determinate", "Durée déterminée";
        LifeFirstDegree = "LifeFirstDegree", "Life, first degree murder", "Perpétuité, meurtre au premier degré";
        LifeSecondDegree = "LifeSecondDegree", "Life, second degree murder", "Perpétuité, meurtre au deuxième degré";
        Life = "Life", "Life, other", "Perpétuité, autre";
        Indeterminate = "Indeterminate", "Indeterminate (dangerous offender)", "Durée indéterminée (délinquant dangereux)";
    }
}

codes! {
    /// Where a sentence stands.
    SentenceState {
        Serving = "Serving", "Being served", "En cours";
        Expired = "Expired", "Expired", "Expirée";
        Quashed = "Quashed", "Quashed", "Annulée";
        Interrupted = "Interrupted", "Ended by death or deportation", "Interrompue par décès ou expulsion";
    }
}

codes! {
    /// CCRA schedules, as offences.csv has them.
    OffenceCategory {
        Homicide = "Homicide", "Homicide", "Homicide";
        ScheduleISexual = "ScheduleI-Sexual", "Schedule I, sexual", "Annexe I, sexuelle";
        ScheduleINonSexual = "ScheduleI-NonSexual", "Schedule I, not sexual", "Annexe I, non sexuelle";
        ScheduleIIDrug = "ScheduleII-Drug", "Schedule II, drugs", "Annexe II, drogues";
        NonScheduled = "NonScheduled", "Not scheduled", "Hors annexe";
    }
}

codes! {
    /// How an earlier charge ended.
    Disposition {
        Penitentiary = "Penitentiary", "Penitentiary", "Pénitencier";
        Jail = "Jail", "Provincial custody", "Détention provinciale";
        Probation = "Probation", "Probation", "Probation";
        ConditionalSentence = "ConditionalSentence", "Conditional sentence", "Condamnation avec sursis";
        Fine = "Fine", "Fine", "Amende";
        Discharge = "Discharge", "Discharge", "Absolution";
    }
}

codes! {
    /// Where a release stands.
    ReleaseState {
        Active = "Active", "Active", "En cours";
        Suspended = "Suspended", "Suspended", "Suspendue";
        Completed = "Completed", "Completed", "Terminée avec succès";
        Revoked = "Revoked", "Revoked", "Révoquée";
        Terminated = "Terminated", "Terminated", "Cessée";
        Inoperative = "Inoperative", "Inoperative", "Ineffective";
    }
}

codes! {
    /// Who decides or issues.
    Authority {
        ParoleBoard = "ParoleBoard", "Parole Board of Canada", "Commission des libérations conditionnelles du Canada";
        BoardMember = "BoardMember", "Member of the Board", "Membre de la Commission";
        DesignatedPosition = "DesignatedPosition", "Designated position of CSC", "Poste désigné du SCC";
        InstitutionalHead = "InstitutionalHead", "Institutional head", "Directeur du pénitencier";
        Statute = "Statute", "By operation of law", "Par l'effet de la loi";
        Court = "Court", "Court", "Tribunal";
    }
}

codes! {
    /// Why a release was suspended (CCRA s.135(1)).
    SuspensionReason {
        Breach = "Breach", "Breach of a condition", "Manquement à une condition";
        PreventBreach = "PreventBreach", "To prevent a breach", "Prévention d'un manquement";
        ProtectSociety = "ProtectSociety", "To protect society", "Protection de la société";
        NewCharge = "NewCharge", "New charge", "Nouvelle accusation";
        NewSentence = "NewSentence", "Additional sentence", "Peine supplémentaire";
    }
}

codes! {
    /// How a suspension ended.
    SuspensionOutcome {
        Pending = "Pending", "Pending", "En attente";
        Cancelled = "Cancelled", "Cancelled", "Annulée";
        Revoked = "Revoked", "Release revoked", "Mise en liberté révoquée";
        RevokedNewOffence = "RevokedNewOffence", "Release revoked, new offence", "Mise en liberté révoquée, nouvelle infraction";
        Inoperative = "Inoperative", "Release inoperative", "Mise en liberté ineffective";
    }
}

codes! {
    /// Standard (CCR regulations s.161) or special (CCRA s.133(3)).
    ConditionKind {
        Standard = "Standard", "Standard", "Ordinaire";
        Special = "Special", "Special", "Spéciale";
    }
}

codes! {
    /// What a condition is about.
    ConditionTopic {
        Report = "Report", "Report to the parole supervisor", "Se présenter au surveillant de liberté conditionnelle";
        Boundaries = "Boundaries", "Remain within fixed boundaries", "Demeurer dans les limites fixées";
        KeepThePeace = "KeepThePeace", "Obey the law and keep the peace", "Respecter la loi et ne pas troubler l'ordre public";
        Weapons = "Weapons", "No weapon", "Aucune arme";
        Address = "Address", "Advise of any change of address", "Signaler tout changement d'adresse";
        Alcohol = "Alcohol", "Abstain from alcohol", "S'abstenir d'alcool";
        Drugs = "Drugs", "Abstain from drugs", "S'abstenir de drogues";
        NoContact = "NoContact", "No contact with named persons", "Aucun contact avec les personnes désignées";
        Associates = "Associates", "No association with persons involved in crime", "Aucune fréquentation de personnes criminalisées";
        Residency = "Residency", "Reside at an approved facility", "Habiter un établissement approuvé";
        Curfew = "Curfew", "Curfew", "Couvre-feu";
        Area = "Area", "Stay out of an area", "Ne pas se trouver dans un secteur";
        Children = "Children", "Not be near children", "Ne pas se trouver près d'enfants";
        Treatment = "Treatment", "Follow treatment", "Suivre un traitement";
        Finances = "Finances", "Disclose finances", "Divulguer sa situation financière";
        Relationships = "Relationships", "Report relationships", "Déclarer ses relations";
        Internet = "Internet", "No unsupervised internet use", "Aucun usage d'internet sans surveillance";
        Gambling = "Gambling", "No gambling", "Aucun jeu de hasard";
    }
}

codes! {
    /// Where supervision is exercised.
    SupervisionKind {
        Community = "Community", "In the community", "Dans la collectivité";
        Institutional = "Institutional", "Institutional parole officer", "Agent de libération conditionnelle en établissement";
    }
}

codes! {
    /// How closely somebody is supervised.
    SupervisionLevel {
        A = "A", "A, eight contacts a month", "A, huit rencontres par mois";
        B = "B", "B, four contacts a month", "B, quatre rencontres par mois";
        C = "C", "C, two contacts a month", "C, deux rencontres par mois";
        D = "D", "D, one contact a month", "D, une rencontre par mois";
        E = "E", "E, one contact in three months", "E, une rencontre par trimestre";
        Institution = "Institution", "In an institution", "En établissement";
    }
}

codes! {
    /// Where somebody under supervision lives.
    ResidenceKind {
        Private = "Private", "Private home", "Domicile privé";
        CommunityResidentialFacility = "CommunityResidentialFacility", "Community-based residential facility", "Établissement résidentiel communautaire";
        CommunityCorrectionalCentre = "CommunityCorrectionalCentre", "Community correctional centre", "Centre correctionnel communautaire";
        HealingLodge = "HealingLodge", "Healing lodge", "Pavillon de ressourcement";
        Institution = "Institution", "Institution", "Établissement";
        Unknown = "Unknown", "Not known", "Inconnu";
    }
}

codes! {
    /// The kind of office to call.
    OfficeKind {
        ParoleOffice = "ParoleOffice", "Parole office", "Bureau de libération conditionnelle";
        CommunityCorrectionalCentre = "CommunityCorrectionalCentre", "Community correctional centre", "Centre correctionnel communautaire";
        DistrictOffice = "DistrictOffice", "District office", "Bureau de district";
        InstitutionOffice = "InstitutionOffice", "Case management of an institution", "Gestion de cas d'un établissement";
    }
}

codes! {
    /// CSC's regions.
    Region {
        Atlantic = "Atlantic", "Atlantic", "Atlantique";
        Quebec = "Quebec", "Quebec", "Québec";
        Ontario = "Ontario", "Ontario", "Ontario";
        Prairie = "Prairie", "Prairies", "Prairies";
        Pacific = "Pacific", "Pacific", "Pacifique";
    }
}

codes! {
    /// What a warrant is for.
    WarrantKind {
        Suspension = "Suspension", "Suspension and apprehension", "Suspension et arrestation";
        Apprehension = "Apprehension", "Apprehension after revocation or termination", "Arrestation après révocation ou cessation";
        TemporaryAbsence = "TemporaryAbsence", "Suspension of a temporary absence", "Suspension d'une permission de sortir";
        Escape = "Escape", "Escape", "Évasion";
        LongTermSupervision = "LongTermSupervision", "Suspension of long-term supervision", "Suspension de la surveillance de longue durée";
    }
}

codes! {
    /// Why somebody moved.
    MovementKind {
        Admission = "Admission", "Admission", "Admission";
        Transfer = "Transfer", "Transfer", "Transfèrement";
        Release = "Release", "Release", "Mise en liberté";
        Return = "Return", "Return to custody", "Retour en détention";
        Court = "Court", "Court", "Comparution";
        Hospital = "Hospital", "Outside hospital", "Hôpital externe";
        TemporaryAbsence = "TemporaryAbsence", "Temporary absence", "Permission de sortir";
        SupervisionTransfer = "SupervisionTransfer", "Transfer of supervision", "Transfert de surveillance";
        Escape = "Escape", "Escape", "Évasion";
        SentenceEnd = "SentenceEnd", "End of sentence", "Fin de la peine";
    }
}

codes! {
    /// Security level of a person (CCR regulations s.18).
    SecurityLevel {
        Minimum = "Minimum", "Minimum", "Minimale";
        Medium = "Medium", "Medium", "Moyenne";
        Maximum = "Maximum", "Maximum", "Maximale";
    }
}

codes! {
    /// Security level of an institution.
    InstitutionSecurity {
        Minimum = "Minimum", "Minimum", "Minimale";
        Medium = "Medium", "Medium", "Moyenne";
        Maximum = "Maximum", "Maximum", "Maximale";
        Multi = "Multi", "Multi-level or clustered", "Niveaux multiples ou regroupé";
    }
}

codes! {
    /// The kind of institution.
    InstitutionKind {
        Penitentiary = "Penitentiary", "Penitentiary", "Pénitencier";
        HealingLodge = "HealingLodge", "Healing lodge", "Pavillon de ressourcement";
        TreatmentCentre = "TreatmentCentre", "Treatment centre", "Centre de traitement";
    }
}

codes! {
    /// Whom an institution is for.
    PopulationGroup {
        Men = "Men", "Men", "Hommes";
        Women = "Women", "Women", "Femmes";
    }
}

codes! {
    /// What happened.
    IncidentKind {
        AssaultOnInmate = "AssaultOnInmate", "Assault on an inmate", "Voies de fait contre un détenu";
        AssaultOnStaff = "AssaultOnStaff", "Assault on staff", "Voies de fait contre le personnel";
        Fight = "Fight", "Fight", "Bagarre";
        Contraband = "Contraband", "Contraband seized", "Objet interdit saisi";
        Drugs = "Drugs", "Drugs", "Drogues";
        Disturbance = "Disturbance", "Disturbance", "Trouble";
        SelfHarm = "SelfHarm", "Self-injury", "Automutilation";
        Medical = "Medical", "Medical emergency", "Urgence médicale";
        Property = "Property", "Damage to property", "Dommages matériels";
        Refusal = "Refusal", "Refusal of an order", "Refus d'obéir";
        Escape = "Escape", "Escape or attempt", "Évasion ou tentative";
    }
}

codes! {
    /// How grave.
    Severity {
        Minor = "Minor", "Minor", "Mineur";
        Moderate = "Moderate", "Moderate", "Modéré";
        Serious = "Serious", "Serious", "Grave";
    }
}

codes! {
    /// What part the person had.
    IncidentRole {
        Instigator = "Instigator", "Instigator", "Instigateur";
        Associate = "Associate", "Associate", "Complice";
        Victim = "Victim", "Victim", "Victime";
        Witness = "Witness", "Witness", "Témoin";
    }
}

codes! {
    /// What was assessed with.
    AssessmentTool {
        CRI = "CRI", "Criminal Risk Index", "Indice du risque criminel";
        StaticFactors = "StaticFactors", "Static factors assessment", "Évaluation des facteurs statiques";
        DynamicFactors = "DynamicFactors", "Dynamic factors (DFIA-R)", "Facteurs dynamiques (IDFD-R)";
        Reintegration = "Reintegration", "Reintegration potential", "Potentiel de réinsertion sociale";
        Static99R = "Static99R", "STATIC-99R", "STATIQUE-99R";
        Spousal = "Spousal", "Spousal assault risk", "Risque de violence conjugale";
    }
}

codes! {
    /// A level in three steps.
    Level {
        Low = "Low", "Low", "Faible";
        Medium = "Medium", "Medium", "Moyen";
        High = "High", "High", "Élevé";
    }
}

codes! {
    /// The kind of program.
    ProgramKind {
        Correctional = "Correctional", "Correctional program", "Programme correctionnel";
        Indigenous = "Indigenous", "Indigenous program", "Programme pour Autochtones";
        Social = "Social", "Social program", "Programme social";
        Vocational = "Vocational", "Vocational program", "Programme professionnel";
    }
}

codes! {
    /// Where a program or an assignment stands.
    ParticipationState {
        Waiting = "Waiting", "Waiting list", "Liste d'attente";
        Enrolled = "Enrolled", "Enrolled", "Inscrit";
        Completed = "Completed", "Completed", "Terminé";
        Incomplete = "Incomplete", "Not completed", "Non terminé";
    }
}

codes! {
    /// Level of schooling.
    EducationLevel {
        AdultBasic1 = "AdultBasic1", "Adult basic education 1", "Formation de base des adultes 1";
        AdultBasic2 = "AdultBasic2", "Adult basic education 2", "Formation de base des adultes 2";
        AdultBasic3 = "AdultBasic3", "Adult basic education 3", "Formation de base des adultes 3";
        Secondary = "Secondary", "Secondary diploma", "Diplôme d'études secondaires";
        PostSecondary = "PostSecondary", "Post-secondary", "Études postsecondaires";
    }
}

codes! {
    /// How well something is done.
    Rating {
        Poor = "Poor", "Poor", "Faible";
        Fair = "Fair", "Fair", "Passable";
        Good = "Good", "Good", "Bon";
        Excellent = "Excellent", "Excellent", "Excellent";
    }
}

codes! {
    /// Why a report was written.
    ReportKind {
        CorrectionalPlan = "CorrectionalPlan", "Correctional plan update", "Mise à jour du plan correctionnel";
        Supervision = "Supervision", "Supervision progress", "Progrès de la surveillance";
        Transfer = "Transfer", "Transfer", "Transfèrement";
        Decision = "Decision", "For decision", "En vue d'une décision";
    }
}

codes! {
    /// Whom a community assessment was made with.
    CommunityContact {
        Spouse = "Spouse", "Spouse or partner", "Conjoint ou partenaire";
        Parent = "Parent", "Parent", "Parent";
        Sibling = "Sibling", "Brother or sister", "Frère ou sœur";
        Friend = "Friend", "Friend", "Ami";
        Employer = "Employer", "Employer", "Employeur";
        Community = "Community", "Community or band council", "Collectivité ou conseil de bande";
    }
}

codes! {
    /// What an author recommends.
    Recommendation {
        Support = "Support", "Supports release", "Favorable à la mise en liberté";
        SupportWithConditions = "SupportWithConditions", "Supports release with conditions", "Favorable sous conditions";
        Oppose = "Oppose", "Does not support release", "Défavorable";
    }
}

codes! {
    /// What the Board or CSC decided.
    Decision {
        Granted = "Granted", "Granted", "Accordée";
        Denied = "Denied", "Denied", "Refusée";
        Continued = "Continued", "Continued", "Prolongée";
        Deferred = "Deferred", "Deferred", "Reportée";
        Revoked = "Revoked", "Revoked", "Révoquée";
        CancelledSuspension = "CancelledSuspension", "Suspension cancelled", "Suspension annulée";
        Detained = "Detained", "Detention ordered (s.130)", "Maintien en incarcération (art. 130)";
    }
}
