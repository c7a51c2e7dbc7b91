-- Secrets that a partner has picked up are in the ledger too: a statement of what was handed over, with the digest of the bundle
-- that it was in. What it was is in no database.
ALTER TABLE liaison.statement DROP CONSTRAINT statement_kind_check;
ALTER TABLE liaison.statement ADD CONSTRAINT statement_kind_check
    CHECK (kind IN ('checkpoint', 'attestation', 'disposal', 'handover'));
