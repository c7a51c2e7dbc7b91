-- By when each partner's replica must be gone, whatever becomes of its manifest: the end of the agreement, and its bound.
-- sync keeps a row a partner from the first day on; deleting the connection can only bring the date forward.
ALTER TABLE liaison.disposal
    ALTER COLUMN due DROP NOT NULL,
    -- agreement: due when it ends, and lifted when it is renewed. deletion: the connection was deleted.
    ADD COLUMN cause       text    NOT NULL DEFAULT 'deletion' CHECK (cause IN ('agreement', 'deletion')),
    -- What the certificate names as authority.
    ADD COLUMN reference   text    NOT NULL DEFAULT '',
    ADD COLUMN legal_basis text[]  NOT NULL DEFAULT '{}',
    -- Days after the agreement's end, in case it goes without saying when it ended.
    ADD COLUMN bound_days  integer NOT NULL DEFAULT 0 CHECK (bound_days >= 0),
    -- A legal hold refuses disposal, however due it is. `hold` is set by a person with `liaison-sync disposal hold`, and lasts
    -- with no manifest left; `manifest_hold` is what spec.legalHold last said.
    ADD COLUMN hold          boolean NOT NULL DEFAULT false,
    ADD COLUMN manifest_hold boolean NOT NULL DEFAULT false,
    -- What was counted before the data went, until the certificate says it.
    ADD COLUMN facts jsonb;

-- Which FPS number a file had when something of it crossed: the account of disclosures can be given of a file that the hub no
-- longer has, or whose number was corrected. Written with the ledger batch, in its transaction.
CREATE TABLE liaison.disclosed_number (
    fps      text   NOT NULL,
    offender bigint NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (fps, offender)
);

CREATE OR REPLACE FUNCTION liaison.admit_sync_retention(who name) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT ON liaison.disclosed_number TO %I', who);
END $$;
