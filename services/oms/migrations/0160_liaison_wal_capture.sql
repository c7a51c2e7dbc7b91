-- Capture from the write-ahead log: inserts and updates, which are nearly all changes, are read from one logical slot
-- instead of being written by triggers, and cost a writer nothing. What is read goes into liaison.change as a trigger would have
-- written it, with its own transaction's number. Deletions, moved keys and TRUNCATE are rare, and name what the log
-- does not have: they keep their triggers.
--
-- With no row in wal_position everything is captured by triggers. `liaison-oms capture` goes from one to the other.
CREATE TABLE liaison.wal_position (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- liaison.change has what was committed before this; the slot is never ahead of it.
    position pg_lsn NOT NULL
);

-- The tables that are captured, each under its name in the catalogue.
CREATE TABLE liaison.captured (
    rel             oid  PRIMARY KEY,
    name            text NOT NULL,
    offender_column text
);

-- Captures `tbl`, by triggers or from the log, as it is set. May be called again.
CREATE FUNCTION liaison.capture_from(tbl regclass, name text, offender_column text) RETURNS void
LANGUAGE plpgsql SET client_min_messages = warning AS $$
DECLARE
    columns text := CASE WHEN offender_column IS NULL OR offender_column = 'id' THEN 'id'
                         ELSE 'id, ' || quote_ident(offender_column) END;
    in_order boolean;
BEGIN
    INSERT INTO liaison.captured AS c VALUES (tbl, capture_from.name, capture_from.offender_column)
        ON CONFLICT (rel) DO UPDATE SET name = EXCLUDED.name, offender_column = EXCLUDED.offender_column;
    PERFORM liaison.capture(tbl, name, offender_column);
    -- A trigger's condition is compiled anew for each statement, which is most of what a trigger costs that does not run: where
    -- only a statement that names the columns can change them, the statement is looked at first.
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = tbl AND NOT tgisinternal AND tgtype & 19 = 19) THEN
        EXECUTE format('DROP TRIGGER liaison_capture_moved ON %1$s;
            CREATE TRIGGER liaison_capture_moved AFTER UPDATE OF %2$s ON %1$s FOR EACH ROW WHEN (%3$s)
                EXECUTE FUNCTION liaison.%4$I();
            ALTER TABLE %1$s ENABLE ALWAYS TRIGGER liaison_capture_moved',
            tbl, columns,
            (SELECT string_agg(format('OLD.%1$s IS DISTINCT FROM NEW.%1$s', c), ' OR ') FROM unnest(string_to_array(columns, ', ')) c),
            'capture_moved_' || name);
    END IF;
    IF NOT EXISTS (SELECT FROM liaison.wal_position) THEN
        RETURN;
    END IF;
    -- What liaison.wal_drain relies on: the number first, and nothing else that tells old rows apart.
    SELECT coalesce(min(attnum) FILTER (WHERE attname = 'id') <= min(attnum) FILTER (WHERE attname = capture_from.offender_column), true)
      INTO in_order FROM pg_attribute WHERE attrelid = tbl AND attnum > 0 AND NOT attisdropped;
    IF NOT in_order OR NOT EXISTS (
        SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid AND c.relreplident = 'd'
        WHERE i.indrelid = tbl AND i.indisprimary AND i.indnatts = 1
          AND i.indkey[0] = (SELECT attnum FROM pg_attribute WHERE attrelid = tbl AND attname = 'id')) THEN
        RAISE EXCEPTION '% cannot be captured from the log: its primary key must be id, a column before %, and its replica identity the default',
            tbl, coalesce(offender_column, 'all others') USING HINT = 'keep capture by triggers: liaison-oms capture triggers';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid AND p.pubname = 'liaison_capture'
                   WHERE r.prrelid = tbl) THEN
        EXECUTE format('ALTER PUBLICATION liaison_capture ADD TABLE ONLY %s (%s)', tbl, columns);
    END IF;
    EXECUTE format('DROP TRIGGER liaison_capture_insert ON %1$s; DROP TRIGGER liaison_capture_update ON %1$s', tbl);
END $$;

-- What stands between two who read the slot at once: any number.
CREATE FUNCTION liaison.wal_lock() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 5497853135693827074';

-- The slot's name: of this database alone, so that a copy of it finds none, and does not take that of the original.
CREATE FUNCTION liaison.wal_slot() RETURNS name LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ('liaison_' || oid)::name FROM pg_database WHERE datname = current_database()
$$;

-- Whether the slot is there, and no further than we left it: what it has let go of, liaison.change has.
CREATE FUNCTION liaison.wal_usable(reached pg_lsn) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_replication_slots s WHERE s.slot_name = liaison.wal_slot() AND s.database = current_database()
                   AND s.confirmed_flush_lsn <= reached AND s.wal_status <> 'lost')
$$;

-- Whether liaison.change has all that was committed before `upto`; NULL where triggers write it.
CREATE FUNCTION liaison.wal_has(upto pg_lsn) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT l.position >= upto AND liaison.wal_usable(l.position) FROM liaison.wal_position l
$$;

-- Brings liaison.change up to `upto`, or nearer to it: at most about `most` messages at once, and whole transactions. Says
-- `complete` when everything that was committed before `upto` is there, `more` when it must be called again once this
-- transaction is committed, `lost` when the slot is gone, or was moved by somebody else: then liaison.wal_renew.
CREATE FUNCTION liaison.wal_drain(upto pg_lsn, most integer) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Above so many rows of a table in one transaction the log says "everything", as the triggers do. It is looked for
    -- where so much was read at once that it pays: a nightly reload.
    bulk CONSTANT integer := 50000;
    much CONSTANT integer := 500000;
    reached pg_lsn;
    slot name := liaison.wal_slot();
    next_xid bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    decoded bigint;
    last pg_lsn;
    oldest xid8;
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
    -- pgoutput, version 1: a letter, the table, N, and the columns as text; an update whose primary key changed has K and
    -- the old key before that.
    WITH message AS MATERIALIZED (
        SELECT p.lsn, p.xid, p.data, get_byte(p.data, 0) AS kind
        FROM pg_logical_slot_peek_binary_changes(slot, upto, most,
            'proto_version', '1', 'publication_names', 'liaison_capture') p),
    placed AS (
        SELECT m.xid, m.data, c.name, c.offender_column,
               CASE WHEN get_byte(m.data, 5) = 78 THEN 0 ELSE get_byte(m.data, 12) + get_byte(m.data, 7) + 7 END AS s
        FROM message m JOIN liaison.captured c ON oidsend(c.rel) = substring(m.data FROM 2 FOR 4)
        WHERE m.kind IN (73, 85)),
    keyed AS (
        SELECT xid, data, name, offender_column, s + 13 + get_byte(data, s + 12) AS o,
               convert_from(substring(data FROM s + 14 FOR get_byte(data, s + 12)), 'UTF8')::bigint AS id
        FROM placed),
    written AS (
        INSERT INTO liaison.change (xid, tbl, id, offender)
        SELECT (next_xid - ((next_xid - xid::text::bigint) & 4294967295))::text::xid8, name, id,
               CASE WHEN offender_column IS NULL THEN NULL
                    WHEN offender_column = 'id' THEN id
                    WHEN get_byte(data, o) = 116
                    THEN convert_from(substring(data FROM o + 6 FOR get_byte(data, o + 4)), 'UTF8')::bigint END
        FROM keyed)
    SELECT count(*), max(lsn),
           (min(next_xid - ((next_xid - xid::text::bigint) & 4294967295)) FILTER (WHERE kind = 66))::text::xid8
      INTO decoded, last, oldest FROM message;
    IF decoded > much THEN
        WITH large AS (
            SELECT c.xid, c.tbl FROM liaison.change c WHERE c.xid >= oldest AND c.id IS NOT NULL
            GROUP BY c.xid, c.tbl HAVING count(*) > bulk),
        gone AS (DELETE FROM liaison.change c USING large l WHERE c.xid = l.xid AND c.tbl = l.tbl)
        INSERT INTO liaison.change (xid, tbl) SELECT xid, tbl FROM large;
    END IF;
    UPDATE liaison.wal_position SET position = CASE WHEN decoded < most THEN upto ELSE last END;
    RETURN CASE WHEN decoded < most THEN 'complete' ELSE 'more' END;
END $$;

-- Lets the log go of which liaison.change has everything. After the transaction of wal_drain, never in it.
CREATE FUNCTION liaison.wal_release() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(liaison.wal_lock());
    PERFORM pg_replication_slot_advance(s.slot_name, l.position) FROM liaison.wal_position l
        JOIN pg_replication_slots s ON s.slot_name = liaison.wal_slot()
        WHERE liaison.wal_usable(l.position) AND s.confirmed_flush_lsn < l.position;
END $$;

-- A new slot in place of one that is gone; it waits for the transactions that are open now. Afterwards, and in a
-- transaction of its own, liaison.wal_everything.
CREATE FUNCTION liaison.wal_renew() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(liaison.wal_lock());
    PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = liaison.wal_slot();
    PERFORM pg_create_logical_replication_slot(liaison.wal_slot(), 'pgoutput');
END $$;

-- What was committed before the new slot may be missing from liaison.change: everything may have changed.
CREATE FUNCTION liaison.wal_everything() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(liaison.wal_lock());
    INSERT INTO liaison.change (tbl) SELECT name FROM liaison.captured;
    UPDATE liaison.wal_position l SET position = s.confirmed_flush_lsn
        FROM pg_replication_slots s WHERE s.slot_name = liaison.wal_slot() AND s.database = current_database();
END $$;

REVOKE ALL ON FUNCTION liaison.wal_drain(pg_lsn, integer), liaison.wal_release(), liaison.wal_renew(),
    liaison.wal_everything() FROM PUBLIC;

CREATE FUNCTION liaison.admit_sync_capture(who name) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT ON liaison.wal_position TO %I', who);
    EXECUTE format('GRANT EXECUTE ON FUNCTION liaison.wal_drain(pg_lsn, integer), liaison.wal_release(),
        liaison.wal_renew(), liaison.wal_everything() TO %I', who);
END $$;
