-- wal_drain reads the log once: the slot moves with what is read, and not afterwards, which had decoded it again. A slot moves
-- whether its transaction is committed or not. One that is not leaves the slot ahead of the position, which is what is asked first the
-- next time: everything is compared then, as after any other loss.
CREATE OR REPLACE FUNCTION liaison.wal_drain(upto pg_lsn, most integer) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Above so many rows of a table in one transaction the log says "everything", as the triggers do. It is looked for
    -- where so much was read at once that it pays: a nightly reload.
    bulk CONSTANT integer := 50000;
    much CONSTANT integer := 200000;
    reached pg_lsn;
    slot name := liaison.wal_slot();
    next_xid bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    written bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(liaison.wal_lock());
    SELECT position INTO reached FROM liaison.wal_position;
    IF NOT FOUND OR liaison.wal_has(upto) THEN
        RETURN 'complete';
    END IF;
    -- First: a position of another server's log says nothing.
    IF NOT liaison.wal_usable(reached) THEN
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
    SELECT (next_xid - ((next_xid - xid::text::bigint) & 4294967295))::text::xid8, name, id,
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
