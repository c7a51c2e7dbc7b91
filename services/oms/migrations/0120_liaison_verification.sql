-- Verifications: asked for by a row, worked off by the worker that holds the partner's lease, so that one process at a
-- time touches a replica. The row stays, with what was found.
CREATE TABLE liaison.verification (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner      text        NOT NULL,
    -- What asks: the name of the Job. Asking twice is asking once.
    token        text        NOT NULL,
    -- The replica is made anew first, beside the one that is read.
    anew         boolean     NOT NULL DEFAULT false,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL until it has ended.
    ended_at     timestamptz,
    -- equal: the roots were equal at once. repaired: they were after what differed had crossed again. failed: see `reason`.
    outcome      text CHECK (outcome IN ('equal', 'repaired', 'failed')),
    reason       text,
    agreement    text,
    generation   bigint,
    -- The snapshot of the hub at which both sides were hashed, and the hub's clock then.
    snapshot     pg_snapshot,
    as_of        timestamptz,
    root         bytea,
    files        bigint,
    records      bigint,
    photographs  bigint,
    -- Units (files, reference records, pictures) that were found to differ, and the buckets that they were in.
    mismatches   bigint,
    buckets      bigint,
    UNIQUE (partner, token),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX verification_open ON liaison.verification (partner) WHERE ended_at IS NULL;
CREATE INDEX verification_shown ON liaison.verification (partner, as_of) WHERE root IS NOT NULL;

-- What a verification found to differ crosses again in a batch that says so.
ALTER TABLE liaison.ledger_batch DROP CONSTRAINT ledger_batch_kind_check;
ALTER TABLE liaison.ledger_batch ADD CONSTRAINT ledger_batch_kind_check
    CHECK (kind IN ('changes', 'compare', 'rebuild', 'repair'));

-- Called by `liaison-oms migrate` like liaison.admit_sync.
CREATE OR REPLACE FUNCTION liaison.admit_sync_verification(who name) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON liaison.verification TO %I', who);
END $$;
