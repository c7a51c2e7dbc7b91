-- The replica proper of one partner: the same four tables whatever is shared. Run by `liaison-sync seed`, as often as
-- one likes. {share} is the quoted schema name; the schema exists, and bears Liaison's mark. Only the role that syncs
-- has any right here: the partner's reader goes through the functions of {journal}.

-- One row of OMS. `body` is the canonical JSON text, byte for byte what was hashed; a reference record has no offender.
CREATE TABLE IF NOT EXISTS {share}.record (
    offender bigint,
    grp      text   NOT NULL,
    tbl      text   NOT NULL,
    id       bigint NOT NULL,
    body     text   NOT NULL,
    hash     bytea  NOT NULL CHECK (octet_length(hash) = 32),
    batch    bigint NOT NULL,
    -- The picture that a photograph record names, so that no index is over the body: then what changes a body stays on its
    -- page, where there is room, and touches no index.
    picture  text GENERATED ALWAYS AS (CASE WHEN tbl = 'photograph' THEN body::jsonb ->> 'sha256' END) STORED,
    PRIMARY KEY (tbl, id)
) WITH (fillfactor = 75);
CREATE INDEX IF NOT EXISTS record_offender ON {share}.record (offender);
-- Replicas made before there was a picture column.
ALTER TABLE {share}.record ADD COLUMN IF NOT EXISTS
    picture text GENERATED ALWAYS AS (CASE WHEN tbl = 'photograph' THEN body::jsonb ->> 'sha256' END) STORED;
ALTER TABLE {share}.record SET (fillfactor = 75);
DROP INDEX IF EXISTS {share}.record_photograph;
-- Which photograph records name a picture: whether the bytes may go.
CREATE INDEX IF NOT EXISTS record_picture ON {share}.record (picture) WHERE picture IS NOT NULL;

-- One search row a file: a pure function of the identity, alias and supervision records held here.
CREATE TABLE IF NOT EXISTS {share}.subject (
    offender     bigint PRIMARY KEY,
    fps          text,
    surname      text NOT NULL,
    given        text NOT NULL,
    names        text[] NOT NULL,
    sounds       text[] NOT NULL,
    birth_date   date,
    other_dates  date[] NOT NULL,
    custody      text NOT NULL,
    status       text NOT NULL,
    at_large     text NOT NULL,
    jurisdiction text NOT NULL,
    municipality text NOT NULL,
    photograph   bytea,
    batch        bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS subject_fps ON {share}.subject (fps);
-- What {journal}.find searches by. A text search vector finds by the beginning of a key, which an index of the array
-- (what earlier versions had) can not, and costs the writer the same.
CREATE INDEX IF NOT EXISTS subject_name_keys ON {share}.subject USING gin (array_to_tsvector(names));
DROP INDEX IF EXISTS {share}.subject_names;
CREATE INDEX IF NOT EXISTS subject_sounds ON {share}.subject USING gin (sounds);
CREATE INDEX IF NOT EXISTS subject_birth_date ON {share}.subject (birth_date);
CREATE INDEX IF NOT EXISTS subject_other_dates ON {share}.subject USING gin (other_dates);
CREATE INDEX IF NOT EXISTS subject_at_large ON {share}.subject (at_large);

-- The bytes of the pictures that photograph records here name, by SHA-256; already compressed.
CREATE TABLE IF NOT EXISTS {share}.photograph (
    sha256 bytea PRIMARY KEY CHECK (octet_length(sha256) = 32),
    jpeg   bytea NOT NULL
);
ALTER TABLE {share}.photograph ALTER COLUMN jpeg SET STORAGE EXTERNAL;

-- Where this replica stands, and the partner's terms; one row.
CREATE TABLE IF NOT EXISTS {share}.cursor (
    one              boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- System identifier and timeline of the hub that `snapshot` is of; NULL before the first batch.
    hub_identity     text,
    snapshot         pg_snapshot,
    -- The hub's clock when the snapshot was taken: what a person reads as "data as of".
    as_of            timestamptz,
    -- Last batch that landed here, and the ledger's head with it.
    batch            bigint  NOT NULL DEFAULT 0,
    head             bytea   NOT NULL DEFAULT ''::bytea,
    -- The lease under which this row may be written; an older holder's transaction fails.
    epoch            bigint  NOT NULL DEFAULT 0,
    -- The replica equals the scope for offender numbers up to this one; 9223372036854775807 = all.
    filled           bigint  NOT NULL DEFAULT 0,
    -- Whether it was complete once: until then the fence stays.
    seeded           boolean NOT NULL DEFAULT false,
    -- What the records here follow.
    generation       bigint  NOT NULL DEFAULT 0,
    agreement        text    NOT NULL DEFAULT '',
    groups           text[]  NOT NULL DEFAULT '{}',
    -- {"share": ..., "agreement": ...}: a file is here when both cover it.
    population       jsonb,
    -- What the partner's people are told, and may do.
    purposes         text[]  NOT NULL DEFAULT '{}',
    time_zone        text    NOT NULL DEFAULT 'UTC',
    partner_en       text    NOT NULL DEFAULT '',
    partner_fr       text    NOT NULL DEFAULT '',
    authorized_until timestamptz,
    suspended        boolean NOT NULL DEFAULT true,
    fenced           boolean NOT NULL DEFAULT true
);
-- If `snapshot` is one to which nothing crossed: a mark that the hub had after it (liaison.mark). NULL: the batch is the witness.
ALTER TABLE {share}.cursor ADD COLUMN IF NOT EXISTS mark bytea;
INSERT INTO {share}.cursor DEFAULT VALUES ON CONFLICT DO NOTHING;
