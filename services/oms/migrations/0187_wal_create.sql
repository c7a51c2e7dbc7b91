-- The slot is made within a subtransaction. PostgreSQL waits for the transactions that are open, reads the log meanwhile, and rolls
-- back a subtransaction of its own where another's DDL went by; current afterwards are the transaction's resources and not the
-- statement's, which then ends with "snapshot reference ... is not owned by resource owner" (XX000; seen with 15.18, found by the
-- soak). Within a subtransaction both are the same. An error is raised again and not handled: a slot that is held is let go
-- where the whole transaction ends.
CREATE FUNCTION liaison.wal_create() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_create_logical_replication_slot(liaison.wal_slot(), 'pgoutput');
EXCEPTION WHEN OTHERS THEN
    RAISE;
END $$;
REVOKE ALL ON FUNCTION liaison.wal_create() FROM PUBLIC;

CREATE OR REPLACE FUNCTION liaison.wal_renew() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(liaison.wal_lock());
    PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = liaison.wal_slot();
    PERFORM liaison.wal_create();
END $$;
