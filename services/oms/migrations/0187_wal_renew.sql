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

-- A number in the log has 32 bits: it is of the epoch in which it is nearest to our own. A snapshot's xmax is no such number: what is
-- committed and not seen yet (it waits for a standby) may be above it.
CREATE OR REPLACE FUNCTION liaison.wal_drain(upto pg_lsn, most integer) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Above so many rows of a table in one transaction the log says "everything", as the triggers do. It is looked for
    -- where so much was read at once that it pays: a nightly reload.
    bulk CONSTANT integer := 50000;
    much CONSTANT integer := 200000;
    reached pg_lsn;
    slot name := liaison.wal_slot();
    own bigint;
    written bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(liaison.wal_lock());
    SELECT position INTO reached FROM liaison.wal_position;
    IF NOT FOUND OR liaison.wal_has(upto) THEN
        RETURN 'complete';
    END IF;
    -- First: a position of another server's log says nothing.
    IF NOT liaison.wal_usable(reached) THEN
        -- Until it is marked, whatever a slot says that is made meanwhile.
        UPDATE liaison.wal_position SET position = '0/0';
        RETURN 'lost';
    END IF;
    -- What is visible is not on the disk yet, and the slot reads from the disk: our own commit takes it there.
    IF pg_current_wal_flush_lsn() < upto THEN
        PERFORM pg_current_xact_id();
        PERFORM pg_logical_emit_message(true, 'liaison', '');
        RETURN 'more';
    END IF;
    -- What another may make us wait for, or give up at, comes before the slot moves.
    LOCK TABLE liaison.change IN ROW EXCLUSIVE MODE;
    PERFORM FROM liaison.wal_position FOR UPDATE;
    own := pg_current_xact_id()::text::bigint;
    -- pgoutput, version 1: a letter, the table, N, and the columns as text; an update whose primary key changed has K and
    -- the old key before that.
    WITH placed AS (
        SELECT p.xid, p.data, c.name, c.offender_column,
               CASE WHEN get_byte(p.data, 5) = 78 THEN 0 ELSE get_byte(p.data, 12) + get_byte(p.data, 7) + 7 END AS s
        FROM pg_logical_slot_get_binary_changes(slot, upto, most,
                'proto_version', '1', 'publication_names', 'liaison_capture') p
            JOIN liaison.captured c ON oidsend(c.rel) = substring(p.data FROM 2 FOR 4)
        WHERE get_byte(p.data, 0) IN (73, 85)
        OFFSET 0),
    keyed AS (
        SELECT xid, data, name, offender_column, s + 13 + get_byte(data, s + 12) AS o,
               convert_from(substring(data FROM s + 14 FOR get_byte(data, s + 12)), 'UTF8')::bigint AS id
        FROM placed
        OFFSET 0)
    INSERT INTO liaison.change (xid, tbl, id, offender)
    SELECT (own - 2147483648 + ((xid::text::bigint - own + 2147483648) & 4294967295))::text::xid8, name, id,
           CASE WHEN offender_column IS NULL THEN NULL
                WHEN offender_column = 'id' THEN id
                WHEN get_byte(data, o) = 116
                THEN convert_from(substring(data FROM o + 6 FOR get_byte(data, o + 4)), 'UTF8')::bigint END
    FROM keyed;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written > much THEN
        WITH large AS (
            SELECT c.xid, c.tbl FROM liaison.change c WHERE c.id IS NOT NULL AND c.xmin = pg_current_xact_id()::xid
            GROUP BY c.xid, c.tbl HAVING count(*) > bulk),
        gone AS (DELETE FROM liaison.change c USING large l WHERE c.xid = l.xid AND c.tbl = l.tbl)
        INSERT INTO liaison.change (xid, tbl) SELECT xid, tbl FROM large;
    END IF;
    -- The slot says how far that was: whole transactions, and no fewer than were committed before.
    SELECT confirmed_flush_lsn INTO reached FROM pg_replication_slots WHERE slot_name = slot;
    UPDATE liaison.wal_position SET position = greatest(reached, position);
    RETURN CASE WHEN reached < upto THEN 'more' ELSE 'complete' END;
END $$;

-- A new slot in place of one that is gone; it waits for the transactions that are open now. One that is there stays, however far it is:
-- it has what comes, and what it has let go of is compared. Afterwards, and in a transaction of its own, liaison.wal_everything.
CREATE OR REPLACE FUNCTION liaison.wal_renew() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(liaison.wal_lock());
    IF NOT EXISTS (SELECT FROM liaison.wal_position) OR EXISTS (
        SELECT FROM pg_replication_slots s WHERE s.slot_name = liaison.wal_slot() AND s.database = current_database()
            AND s.confirmed_flush_lsn <= pg_current_wal_flush_lsn() AND s.wal_status <> 'lost') THEN
        RETURN;
    END IF;
    PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = liaison.wal_slot();
    PERFORM liaison.wal_create();
END $$;

-- What was committed before the slot's beginning may be missing from liaison.change: everything may have changed. Once more for each
-- transaction that began before this and is not seen yet: its commit may be in the log that was let go of. Above a snapshot's xmax
-- those are all numbers up to our own.
CREATE OR REPLACE FUNCTION liaison.wal_everything() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    reached pg_lsn;
    seen pg_snapshot;
    own xid8;
BEGIN
    PERFORM pg_advisory_xact_lock(liaison.wal_lock());
    SELECT confirmed_flush_lsn INTO reached FROM pg_replication_slots
        WHERE slot_name = liaison.wal_slot() AND database = current_database();
    seen := pg_current_snapshot();
    own := pg_current_xact_id();
    INSERT INTO liaison.change (xid, tbl)
        SELECT x.xid, c.name FROM liaison.captured c, (
            SELECT pg_snapshot_xip(seen)
            UNION ALL SELECT n::text::xid8 FROM generate_series(pg_snapshot_xmax(seen)::text::bigint, own::text::bigint) n
            UNION SELECT own) x (xid);
    UPDATE liaison.wal_position SET position = reached, marked = own WHERE reached IS NOT NULL;
END $$;
