-- A slot is made within a subtransaction. PostgreSQL waits for the transactions that are open, reads the log meanwhile, and rolls back
-- a subtransaction of its own where another's DDL went by; current afterwards are the transaction's resources and not the
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

-- Who marked last that everything may have changed. A snapshot that does not see it may show what the log has lost.
ALTER TABLE liaison.wal_position ADD COLUMN marked xid8;

-- A new slot in place of one that is gone; it waits for the transactions that are open now. One that is there and ahead of the
-- position stays: it has what comes, and what it has let go of is compared. Afterwards, and in a transaction of its own,
-- liaison.wal_everything.
CREATE OR REPLACE FUNCTION liaison.wal_renew() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(liaison.wal_lock());
    IF EXISTS (SELECT FROM pg_replication_slots s, liaison.wal_position l WHERE s.slot_name = liaison.wal_slot()
               AND s.database = current_database() AND s.confirmed_flush_lsn > l.position AND s.wal_status <> 'lost') THEN
        -- Whoever began before this has a lower number than whatever is finished when it is committed.
        PERFORM pg_current_xact_id();
        RETURN;
    END IF;
    PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = liaison.wal_slot();
    PERFORM liaison.wal_create();
END $$;

-- What was committed before the slot's beginning may be missing from liaison.change: everything may have changed. Once more for each
-- transaction that is under way: its commit may be in the log that was let go of, and not be seen by anybody yet.
CREATE OR REPLACE FUNCTION liaison.wal_everything() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(liaison.wal_lock());
    INSERT INTO liaison.change (xid, tbl)
        SELECT x.xid, c.name FROM liaison.captured c,
            (SELECT pg_current_xact_id() UNION ALL SELECT pg_snapshot_xip(pg_current_snapshot())) x (xid);
    UPDATE liaison.wal_position l SET position = s.confirmed_flush_lsn, marked = pg_current_xact_id()
        FROM pg_replication_slots s WHERE s.slot_name = liaison.wal_slot() AND s.database = current_database();
END $$;
