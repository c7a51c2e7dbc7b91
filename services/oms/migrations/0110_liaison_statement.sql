-- What is signed: checkpoints of the ledger, attestations of a verification, disposal certificates. Who makes one inserts it
-- in the transaction that it belongs to; the operator, which holds the key, signs it later. Statements outlive every replica.

CREATE TABLE liaison.statement (
    kind      text   NOT NULL CHECK (kind IN ('checkpoint', 'attestation', 'disposal')),
    -- '' where it is of all partners.
    partner   text   NOT NULL,
    -- Counted a kind and partner, without gaps: a statement that is missing is noticed.
    number    bigint NOT NULL CHECK (number > 0),
    -- Canonical JSON (keys sorted, no spaces), byte for byte what is signed. Digests, counts, names of partner and agreement:
    -- no personal data.
    statement text   NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- ECDSA P-256 with SHA-256 over the bytes of `statement`, in DER; NULL until it is signed.
    signature bytea,
    -- Lower-case hex SHA-256 of the signing key's SubjectPublicKeyInfo.
    key_id    text,
    -- Signing and issuing certificate in PEM.
    chain     text,
    signed_at timestamptz,
    PRIMARY KEY (kind, partner, number),
    CHECK (num_nulls(signature, key_id, chain, signed_at) IN (0, 4))
);
CREATE INDEX statement_unsigned ON liaison.statement (at) WHERE signature IS NULL;

-- What sync needs of it: it adds statements and signatures, and changes no statement. `liaison-oms migrate` calls every
-- function whose name begins with admit_sync.
CREATE OR REPLACE FUNCTION liaison.admit_sync_statement(who name) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE (signature, key_id, chain, signed_at) ON liaison.statement TO %I', who);
END $$;
