-- The hub's extract of OMS: one table for each entry of the catalogue (services/records/src/catalogue), which the tests
-- hold against it. Any ETL may write these tables; the contract is docs/oms-extract.md.
-- Code lists are CHECKed, so that an unknown code is refused where it would enter (invariant I5).

CREATE SCHEMA oms;

CREATE TABLE oms.image (
    sha256 bytea PRIMARY KEY CHECK (octet_length(sha256) = 32),
    jpeg   bytea NOT NULL
);
-- A JPEG does not compress again; do not try.
ALTER TABLE oms.image ALTER COLUMN jpeg SET STORAGE EXTERNAL;

CREATE TABLE oms.office (
    id bigint PRIMARY KEY,
    name_en text NOT NULL,
    name_fr text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('ParoleOffice', 'CommunityCorrectionalCentre', 'DistrictOffice', 'InstitutionOffice')),
    region text NOT NULL CHECK (region IN ('Atlantic', 'Quebec', 'Ontario', 'Prairie', 'Pacific')),
    jurisdiction text NOT NULL CHECK (jurisdiction IN ('CA-AB', 'CA-BC', 'CA-MB', 'CA-NB', 'CA-NL', 'CA-NS', 'CA-NT', 'CA-NU', 'CA-ON', 'CA-PE', 'CA-QC', 'CA-SK', 'CA-YT')),
    municipality text NOT NULL CHECK (municipality ~ '^[0-9]{7}$'),
    municipality_name text NOT NULL,
    telephone text NOT NULL,
    duty_telephone text NOT NULL
);

CREATE TABLE oms.parole_officer (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    telephone text NOT NULL,
    email text NOT NULL,
    language text NOT NULL CHECK (language IN ('eng', 'fra')),
    office bigint NOT NULL REFERENCES oms.office (id),
    office_name text NOT NULL,
    office_name_fr text NOT NULL
);

CREATE TABLE oms.institution (
    id bigint PRIMARY KEY,
    name_en text NOT NULL,
    name_fr text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('Penitentiary', 'HealingLodge', 'TreatmentCentre')),
    security text NOT NULL CHECK (security IN ('Minimum', 'Medium', 'Maximum', 'Multi')),
    population text NOT NULL CHECK (population IN ('Men', 'Women')),
    region text NOT NULL CHECK (region IN ('Atlantic', 'Quebec', 'Ontario', 'Prairie', 'Pacific')),
    jurisdiction text NOT NULL CHECK (jurisdiction IN ('CA-AB', 'CA-BC', 'CA-MB', 'CA-NB', 'CA-NL', 'CA-NS', 'CA-NT', 'CA-NU', 'CA-ON', 'CA-PE', 'CA-QC', 'CA-SK', 'CA-YT')),
    municipality text NOT NULL CHECK (municipality ~ '^[0-9]{7}$'),
    municipality_name text NOT NULL,
    telephone text NOT NULL
);

CREATE TABLE oms.offender (
    id bigint PRIMARY KEY,
    fps text NOT NULL UNIQUE CHECK (fps ~ '^[0-9]{6}[A-Z]$'),
    surname text NOT NULL,
    given text NOT NULL,
    sex text NOT NULL CHECK (sex IN ('Male', 'Female', 'AnotherGender')),
    birth_date date NOT NULL,
    birth_place text,
    language text NOT NULL CHECK (language IN ('eng', 'fra')),
    height_cm integer,
    weight_kg integer,
    eye_colour text CHECK (eye_colour IN ('Brown', 'Blue', 'Green', 'Hazel', 'Grey')),
    hair_colour text CHECK (hair_colour IN ('Black', 'Brown', 'Blond', 'Red', 'Grey', 'Bald')),
    custody text NOT NULL CHECK (custody IN ('Incarcerated', 'Community', 'Archived')),
    status text NOT NULL CHECK (status IN ('InCustody', 'Released', 'Suspended', 'SuspensionCancelled', 'Terminated', 'Revoked', 'Inoperative', 'Recommitted', 'LtsSuspended', 'WarrantExpired', 'Deceased', 'Deported')),
    release_type text CHECK (release_type IN ('DayParole', 'FullParole', 'StatutoryRelease', 'LongTermSupervision', 'Uta', 'WorkRelease', 'EscortedTa')),
    at_large text NOT NULL CHECK (at_large IN ('NotAtLarge', 'UnlawfullyAtLarge', 'Escaped', 'Apprehended')),
    warrant text NOT NULL CHECK (warrant IN ('NoWarrant', 'Outstanding', 'Executed', 'Withdrawn')),
    jurisdiction text NOT NULL CHECK (jurisdiction IN ('CA-AB', 'CA-BC', 'CA-MB', 'CA-NB', 'CA-NL', 'CA-NS', 'CA-NT', 'CA-NU', 'CA-ON', 'CA-PE', 'CA-QC', 'CA-SK', 'CA-YT')),
    municipality text NOT NULL CHECK (municipality ~ '^[0-9]{7}$'),
    municipality_name text NOT NULL
);

CREATE TABLE oms.caution (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    kind text NOT NULL CHECK (kind IN ('Violent', 'Armed', 'EscapeRisk', 'SelfHarm', 'Gang', 'Opioids')),
    noted_on date NOT NULL,
    detail text
);
CREATE INDEX ON oms.caution (offender);

CREATE TABLE oms.mark (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    kind text NOT NULL CHECK (kind IN ('Tattoo', 'Scar', 'Birthmark', 'Missing')),
    body_part text NOT NULL CHECK (body_part IN ('Face', 'Neck', 'LeftArm', 'RightArm', 'LeftHand', 'RightHand', 'Chest', 'Back', 'Leg')),
    detail text NOT NULL
);
CREATE INDEX ON oms.mark (offender);

CREATE TABLE oms.alias (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    kind text NOT NULL CHECK (kind IN ('BirthName', 'MarriedName', 'Nickname', 'AssumedName', 'Spelling')),
    surname text NOT NULL,
    given text NOT NULL,
    birth_date date
);
CREATE INDEX ON oms.alias (offender);

CREATE TABLE oms.photograph (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    sha256 bytea NOT NULL REFERENCES oms.image (sha256),
    taken_on date NOT NULL,
    reason text NOT NULL CHECK (reason IN ('Admission', 'Periodic', 'Release', 'Appearance')),
    format text NOT NULL,
    width_px integer NOT NULL,
    height_px integer NOT NULL,
    size_bytes integer NOT NULL
);
CREATE INDEX ON oms.photograph (offender);

CREATE TABLE oms.sentence (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    term integer NOT NULL,
    kind text NOT NULL CHECK (kind IN ('Determinate', 'LifeFirstDegree', 'LifeSecondDegree', 'Life', 'Indeterminate')),
    state text NOT NULL CHECK (state IN ('Serving', 'Expired', 'Quashed', 'Interrupted')),
    length_days integer,
    imposed_on date NOT NULL,
    commenced_on date NOT NULL,
    court text NOT NULL,
    day_parole_eligible_on date,
    full_parole_eligible_on date,
    statutory_release_on date,
    warrant_expires_on date,
    long_term_supervision_ends_on date,
    ended_on date
);
CREATE INDEX ON oms.sentence (offender);

CREATE TABLE oms.offence (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    term integer NOT NULL,
    ucr_code text,
    act text NOT NULL,
    section text NOT NULL,
    title_en text NOT NULL,
    title_fr text NOT NULL,
    category text NOT NULL CHECK (category IN ('Homicide', 'ScheduleI-Sexual', 'ScheduleI-NonSexual', 'ScheduleII-Drug', 'NonScheduled')),
    counts integer NOT NULL,
    committed_on date NOT NULL,
    convicted_on date NOT NULL,
    court text NOT NULL
);
CREATE INDEX ON oms.offence (offender);

CREATE TABLE oms.prior_offence (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    ucr_code text,
    act text NOT NULL,
    section text NOT NULL,
    title_en text NOT NULL,
    title_fr text NOT NULL,
    convicted_on date NOT NULL,
    court text NOT NULL,
    disposition text NOT NULL CHECK (disposition IN ('Penitentiary', 'Jail', 'Probation', 'ConditionalSentence', 'Fine', 'Discharge')),
    sentence_months integer
);
CREATE INDEX ON oms.prior_offence (offender);

CREATE TABLE oms.release (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    kind text NOT NULL CHECK (kind IN ('DayParole', 'FullParole', 'StatutoryRelease', 'LongTermSupervision', 'Uta', 'WorkRelease', 'EscortedTa')),
    state text NOT NULL CHECK (state IN ('Active', 'Suspended', 'Completed', 'Revoked', 'Terminated', 'Inoperative')),
    authority text NOT NULL CHECK (authority IN ('ParoleBoard', 'BoardMember', 'DesignatedPosition', 'InstitutionalHead', 'Statute', 'Court')),
    started_on date NOT NULL,
    ends_on date,
    ended_on date,
    residency boolean NOT NULL,
    municipality text NOT NULL CHECK (municipality ~ '^[0-9]{7}$'),
    municipality_name text NOT NULL
);
CREATE INDEX ON oms.release (offender);

CREATE TABLE oms.suspension (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    release_kind text NOT NULL CHECK (release_kind IN ('DayParole', 'FullParole', 'StatutoryRelease', 'LongTermSupervision', 'Uta', 'WorkRelease', 'EscortedTa')),
    suspended_on date NOT NULL,
    reason text NOT NULL CHECK (reason IN ('Breach', 'PreventBreach', 'ProtectSociety', 'NewCharge', 'NewSentence')),
    section text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('Pending', 'Cancelled', 'Revoked', 'RevokedNewOffence', 'Inoperative')),
    resolved_on date
);
CREATE INDEX ON oms.suspension (offender);

CREATE TABLE oms.condition (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    kind text NOT NULL CHECK (kind IN ('Standard', 'Special')),
    topic text NOT NULL CHECK (topic IN ('Report', 'Boundaries', 'KeepThePeace', 'Weapons', 'Address', 'Alcohol', 'Drugs', 'NoContact', 'Associates', 'Residency', 'Curfew', 'Area', 'Children', 'Treatment', 'Finances', 'Relationships', 'Internet', 'Gambling')),
    text_en text NOT NULL,
    text_fr text NOT NULL,
    release_kind text NOT NULL CHECK (release_kind IN ('DayParole', 'FullParole', 'StatutoryRelease', 'LongTermSupervision', 'Uta', 'WorkRelease', 'EscortedTa')),
    authority text NOT NULL CHECK (authority IN ('ParoleBoard', 'BoardMember', 'DesignatedPosition', 'InstitutionalHead', 'Statute', 'Court')),
    imposed_on date NOT NULL,
    ends_on date
);
CREATE INDEX ON oms.condition (offender);

CREATE TABLE oms.supervision (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    kind text NOT NULL CHECK (kind IN ('Community', 'Institutional')),
    level text NOT NULL CHECK (level IN ('A', 'B', 'C', 'D', 'E', 'Institution')),
    started_on date NOT NULL,
    ended_on date,
    officer bigint NOT NULL REFERENCES oms.parole_officer (id),
    officer_name text NOT NULL,
    officer_telephone text NOT NULL,
    office bigint NOT NULL REFERENCES oms.office (id),
    office_name text NOT NULL,
    office_name_fr text NOT NULL,
    residence_kind text NOT NULL CHECK (residence_kind IN ('Private', 'CommunityResidentialFacility', 'CommunityCorrectionalCentre', 'HealingLodge', 'Institution', 'Unknown')),
    residence_address text,
    municipality text NOT NULL CHECK (municipality ~ '^[0-9]{7}$'),
    municipality_name text NOT NULL
);
CREATE INDEX ON oms.supervision (offender);

CREATE TABLE oms.warrant (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    number text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('Suspension', 'Apprehension', 'TemporaryAbsence', 'Escape', 'LongTermSupervision')),
    state text NOT NULL CHECK (state IN ('NoWarrant', 'Outstanding', 'Executed', 'Withdrawn')),
    section text NOT NULL,
    issued_by text NOT NULL CHECK (issued_by IN ('ParoleBoard', 'BoardMember', 'DesignatedPosition', 'InstitutionalHead', 'Statute', 'Court')),
    issued_on date NOT NULL,
    executed_on date,
    withdrawn_on date,
    extent text NOT NULL,
    caution text
);
CREATE INDEX ON oms.warrant (offender);

CREATE TABLE oms.movement (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    moved_at timestamptz NOT NULL,
    kind text NOT NULL CHECK (kind IN ('Admission', 'Transfer', 'Release', 'Return', 'Court', 'Hospital', 'TemporaryAbsence', 'SupervisionTransfer', 'Escape', 'SentenceEnd')),
    from_place text,
    from_place_fr text,
    from_institution bigint REFERENCES oms.institution (id),
    to_place text,
    to_place_fr text,
    to_institution bigint REFERENCES oms.institution (id)
);
CREATE INDEX ON oms.movement (offender);

CREATE TABLE oms.security_level (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    level text NOT NULL CHECK (level IN ('Minimum', 'Medium', 'Maximum')),
    decided_on date NOT NULL,
    review boolean NOT NULL,
    score integer NOT NULL,
    institution bigint NOT NULL REFERENCES oms.institution (id),
    institution_name text NOT NULL,
    institution_name_fr text NOT NULL
);
CREATE INDEX ON oms.security_level (offender);

CREATE TABLE oms.incident (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    occurred_at timestamptz NOT NULL,
    kind text NOT NULL CHECK (kind IN ('AssaultOnInmate', 'AssaultOnStaff', 'Fight', 'Contraband', 'Drugs', 'Disturbance', 'SelfHarm', 'Medical', 'Property', 'Refusal', 'Escape')),
    severity text NOT NULL CHECK (severity IN ('Minor', 'Moderate', 'Serious')),
    role text NOT NULL CHECK (role IN ('Instigator', 'Associate', 'Victim', 'Witness')),
    institution_name text NOT NULL,
    institution_name_fr text NOT NULL,
    language text NOT NULL CHECK (language IN ('eng', 'fra')),
    report text NOT NULL
);
CREATE INDEX ON oms.incident (offender);

CREATE TABLE oms.risk_assessment (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    tool text NOT NULL CHECK (tool IN ('CRI', 'StaticFactors', 'DynamicFactors', 'Reintegration', 'Static99R', 'Spousal')),
    assessed_on date NOT NULL,
    level text NOT NULL CHECK (level IN ('Low', 'Medium', 'High')),
    score integer,
    assessor text NOT NULL,
    language text NOT NULL CHECK (language IN ('eng', 'fra')),
    comment text NOT NULL
);
CREATE INDEX ON oms.risk_assessment (offender);

CREATE TABLE oms.program (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    kind text NOT NULL CHECK (kind IN ('Correctional', 'Indigenous', 'Social', 'Vocational')),
    name_en text NOT NULL,
    name_fr text NOT NULL,
    state text NOT NULL CHECK (state IN ('Waiting', 'Enrolled', 'Completed', 'Incomplete')),
    started_on date,
    ended_on date,
    hours integer NOT NULL,
    place text NOT NULL,
    place_fr text NOT NULL
);
CREATE INDEX ON oms.program (offender);

CREATE TABLE oms.work_assignment (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    title_en text NOT NULL,
    title_fr text NOT NULL,
    state text NOT NULL CHECK (state IN ('Waiting', 'Enrolled', 'Completed', 'Incomplete')),
    rating text CHECK (rating IN ('Poor', 'Fair', 'Good', 'Excellent')),
    started_on date NOT NULL,
    ended_on date,
    place text NOT NULL,
    place_fr text NOT NULL
);
CREATE INDEX ON oms.work_assignment (offender);

CREATE TABLE oms.education (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    level text NOT NULL CHECK (level IN ('AdultBasic1', 'AdultBasic2', 'AdultBasic3', 'Secondary', 'PostSecondary')),
    state text NOT NULL CHECK (state IN ('Waiting', 'Enrolled', 'Completed', 'Incomplete')),
    started_on date NOT NULL,
    ended_on date,
    credits integer NOT NULL,
    place text NOT NULL,
    place_fr text NOT NULL
);
CREATE INDEX ON oms.education (offender);

CREATE TABLE oms.progress_report (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    kind text NOT NULL CHECK (kind IN ('CorrectionalPlan', 'Supervision', 'Transfer', 'Decision')),
    written_on date NOT NULL,
    author text NOT NULL,
    accountability text NOT NULL CHECK (accountability IN ('Low', 'Medium', 'High')),
    motivation text NOT NULL CHECK (motivation IN ('Low', 'Medium', 'High')),
    engagement boolean NOT NULL,
    language text NOT NULL CHECK (language IN ('eng', 'fra')),
    summary text NOT NULL
);
CREATE INDEX ON oms.progress_report (offender);

CREATE TABLE oms.community_assessment (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    written_on date NOT NULL,
    contact text NOT NULL CHECK (contact IN ('Spouse', 'Parent', 'Sibling', 'Friend', 'Employer', 'Community')),
    support text NOT NULL CHECK (support IN ('Low', 'Medium', 'High')),
    recommendation text NOT NULL CHECK (recommendation IN ('Support', 'SupportWithConditions', 'Oppose')),
    office_name text NOT NULL,
    office_name_fr text NOT NULL,
    municipality_name text NOT NULL,
    language text NOT NULL CHECK (language IN ('eng', 'fra')),
    summary text NOT NULL
);
CREATE INDEX ON oms.community_assessment (offender);

CREATE TABLE oms.release_decision (
    id bigint PRIMARY KEY,
    offender bigint NOT NULL REFERENCES oms.offender (id),
    number text NOT NULL,
    release_kind text NOT NULL CHECK (release_kind IN ('DayParole', 'FullParole', 'StatutoryRelease', 'LongTermSupervision', 'Uta', 'WorkRelease', 'EscortedTa')),
    decision text NOT NULL CHECK (decision IN ('Granted', 'Denied', 'Continued', 'Deferred', 'Revoked', 'CancelledSuspension', 'Detained')),
    authority text NOT NULL CHECK (authority IN ('ParoleBoard', 'BoardMember', 'DesignatedPosition', 'InstitutionalHead', 'Statute', 'Court')),
    decided_on date NOT NULL,
    effective_on date,
    panel integer NOT NULL,
    language text NOT NULL CHECK (language IN ('eng', 'fra')),
    reasons text NOT NULL
);
CREATE INDEX ON oms.release_decision (offender);

-- The axes that scope is decided on.
CREATE INDEX ON oms.offender (municipality);
CREATE INDEX ON oms.offender (jurisdiction, custody);
CREATE INDEX ON oms.offender (status) WHERE custody <> 'Archived';
CREATE INDEX ON oms.offender (at_large) WHERE at_large <> 'NotAtLarge';
CREATE INDEX ON oms.photograph (sha256);
