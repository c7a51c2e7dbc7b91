-- The change log that sync follows, and the triggers that write it. Rows name keys only, never content.
CREATE SCHEMA IF NOT EXISTS liaison;

-- One row a changed row of OMS. `id` NULL: everything of that table may have changed (TRUNCATE, or a very large
-- statement). `offender` NULL with an id: a reference record. Order is by visibility of `xid`, never by a sequence.
CREATE TABLE liaison.change (
    xid      xid8   NOT NULL DEFAULT pg_current_xact_id(),
    tbl      text   NOT NULL,
    id       bigint,
    offender bigint
);
CREATE INDEX change_xid ON liaison.change (xid);

-- Change rows of transactions before this one may have been trimmed: a cursor that does not have them all starts over.
CREATE TABLE liaison.change_horizon (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    xid xid8 NOT NULL
);
INSERT INTO liaison.change_horizon (xid) VALUES ('0');

-- Makes `tbl` write the change log under the catalogue's name `name`. `offender_column` is the column with the file's
-- number, or NULL for a reference table. May be called again. The triggers are statement-level with transition tables
-- (one INSERT a statement, not a row) and ENABLE ALWAYS, so that session_replication_role does not switch them off.
CREATE OR REPLACE FUNCTION liaison.capture(tbl regclass, name text, offender_column text) RETURNS void
LANGUAGE plpgsql SET client_min_messages = warning AS $capture$
DECLARE
    -- Above so many rows in one statement the log says "everything": comparing is cheaper than that many keys.
    bulk CONSTANT integer := 50000;
    offender text := coalesce(quote_ident(offender_column), 'NULL::bigint');
    fn text := 'liaison.' || quote_ident('capture_' || name);
    event text;
BEGIN
    EXECUTE format($fmt$
        CREATE OR REPLACE FUNCTION %1$s() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
        BEGIN
            -- Everything of this table is dirty in this transaction already: the nightly reload inserts after TRUNCATE.
            IF EXISTS (SELECT FROM liaison.change c
                       WHERE c.xid = pg_current_xact_id_if_assigned() AND c.tbl = %2$L AND c.id IS NULL) THEN
                RETURN NULL;
            END IF;
            IF TG_OP = 'TRUNCATE' THEN
                INSERT INTO liaison.change (tbl) VALUES (%2$L);
            ELSIF TG_OP = 'INSERT' THEN
                IF EXISTS (SELECT FROM new_rows OFFSET %4$s) THEN
                    INSERT INTO liaison.change (tbl) VALUES (%2$L);
                ELSE
                    INSERT INTO liaison.change (tbl, id, offender) SELECT %2$L, id, %3$s FROM new_rows;
                END IF;
            ELSIF TG_OP = 'DELETE' THEN
                IF EXISTS (SELECT FROM old_rows OFFSET %4$s) THEN
                    INSERT INTO liaison.change (tbl) VALUES (%2$L);
                ELSE
                    INSERT INTO liaison.change (tbl, id, offender) SELECT %2$L, id, %3$s FROM old_rows;
                END IF;
            ELSE
                IF EXISTS (SELECT FROM new_rows OFFSET %4$s) THEN
                    INSERT INTO liaison.change (tbl) VALUES (%2$L);
                ELSE
                    INSERT INTO liaison.change (tbl, id, offender)
                    SELECT %2$L, id, %3$s FROM old_rows UNION SELECT %2$L, id, %3$s FROM new_rows;
                END IF;
            END IF;
            RETURN NULL;
        END $fn$ $fmt$, fn, name, offender, bulk);
    EXECUTE format('REVOKE ALL ON FUNCTION %s() FROM PUBLIC', fn);
    FOREACH event IN ARRAY ARRAY['insert', 'update', 'delete', 'truncate'] LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', 'liaison_capture_' || event, tbl);
        EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION %s()',
            'liaison_capture_' || event, event, tbl,
            CASE event
                WHEN 'insert' THEN 'REFERENCING NEW TABLE AS new_rows'
                WHEN 'update' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
                WHEN 'delete' THEN 'REFERENCING OLD TABLE AS old_rows'
                ELSE ''
            END, fn);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', tbl, 'liaison_capture_' || event);
    END LOOP;
END $capture$;
