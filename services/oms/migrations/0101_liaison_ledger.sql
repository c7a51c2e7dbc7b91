-- Who may write to a partner's replica, and what was disclosed to whom. The ledger outlives every replica.

-- One row a partner. Who holds the lease raises the epoch; whoever held it before can then write neither side.
CREATE TABLE liaison.lease (
    partner     text PRIMARY KEY,
    epoch       bigint      NOT NULL DEFAULT 0,
    holder      text        NOT NULL DEFAULT '',
    until       timestamptz NOT NULL DEFAULT '-infinity',
    -- xmin of the cursor that the replica was last seen with: change rows before the least of them can be trimmed.
    position    xid8,
    position_at timestamptz
);

-- A batch: what crossed, or was about to cross, to one partner. `head` = SHA-256 over `previous` and the rest: a chain a
-- partner, void batches included. States: prepared (committed here, not yet known to have landed), landed, void (certainly
-- never crossed), disclosed (cannot be known: counts as crossed).
CREATE TABLE liaison.ledger_batch (
    partner        text   NOT NULL,
    batch          bigint NOT NULL,
    epoch          bigint NOT NULL,
    kind           text   NOT NULL CHECK (kind IN ('changes', 'compare', 'rebuild')),
    agreement      text   NOT NULL,
    generation     bigint NOT NULL,
    store_identity text   NOT NULL,
    files          int    NOT NULL,
    digest         bytea  NOT NULL,
    previous       bytea  NOT NULL,
    head           bytea  NOT NULL,
    state          text   NOT NULL DEFAULT 'prepared' CHECK (state IN ('prepared', 'landed', 'void', 'disclosed')),
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partner, batch)
);

-- A file (or, offender NULL, the reference records) in a batch. `digest` covers the hashes of the records that crossed and the
-- keys of those that were withdrawn.
CREATE TABLE liaison.ledger_entry (
    partner  text   NOT NULL,
    batch    bigint NOT NULL,
    seq      int    NOT NULL,
    offender bigint,
    groups   text[] NOT NULL,
    kind     text   NOT NULL CHECK (kind IN ('enter', 'stay', 'leave', 'reference')),
    digest   bytea  NOT NULL,
    PRIMARY KEY (partner, batch, seq),
    FOREIGN KEY (partner, batch) REFERENCES liaison.ledger_batch
);
-- The account of disclosures of one person (Privacy Act 8-9).
CREATE INDEX ledger_entry_offender ON liaison.ledger_entry (offender);

-- A replica that was kept when its connection was deleted, and the instant by which it must be gone.
CREATE TABLE liaison.disposal (
    partner    text PRIMARY KEY,
    agreement  text        NOT NULL,
    store      text        NOT NULL,
    due        timestamptz NOT NULL,
    -- NULL until the replica is gone.
    disposed   timestamptz
);

-- A partner's access log, copied here before its journal is dropped; `entry` is the row as the journal had it.
CREATE TABLE liaison.access_log (
    partner text   NOT NULL,
    journal timestamptz NOT NULL,
    id      bigint NOT NULL,
    entry   jsonb  NOT NULL,
    PRIMARY KEY (partner, journal, id)
);

-- Gives the role that syncs what it needs, and nothing else; called by `liaison-oms migrate` after the view is made.
CREATE OR REPLACE FUNCTION liaison.admit_sync(who name) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA oms, liaison TO %I', who);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA oms TO %I', who);
    EXECUTE format('GRANT SELECT ON liaison.record TO %I', who);
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON liaison.change TO %I', who);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON liaison.change_horizon, liaison.lease, liaison.ledger_batch,
        liaison.disposal TO %I', who);
    EXECUTE format('GRANT DELETE ON liaison.disposal TO %I', who);
    EXECUTE format('GRANT SELECT, INSERT ON liaison.ledger_entry, liaison.access_log TO %I', who);
END $$;
