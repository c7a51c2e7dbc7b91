-- What a signed checkpoint had seen of the ledger and the hub no longer has, since it was put back to an earlier state, and who
-- decided that the ledger goes on all the same. Rows are added and never changed; the next checkpoint names them.
CREATE TABLE liaison.ledger_loss (
    -- SHA-256 of the checkpoint's text.
    checkpoint  bytea PRIMARY KEY CHECK (octet_length(checkpoint) = 32),
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    accepted_by text  NOT NULL CHECK (accepted_by <> ''),
    reason      text  NOT NULL CHECK (reason <> ''),
    -- The ends of chains that were lost, as the checkpoint has them.
    lost        jsonb NOT NULL,
    -- The checkpoint as it was signed: the hub's own went with the loss.
    statement   text  NOT NULL,
    signature   bytea NOT NULL,
    key_id      text  NOT NULL,
    chain       text  NOT NULL,
    signed_at   timestamptz NOT NULL
);

CREATE OR REPLACE FUNCTION liaison.admit_sync_loss(who name) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT ON liaison.ledger_loss TO %I', who);
END $$;
