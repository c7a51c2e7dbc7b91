-- Written after a snapshot was opened, and named by the replicas' cursors that moved to that snapshot without a batch: a hub
-- that was put back to before it does not have it, whatever became of its transaction numbers. Random; kept for eight days.
CREATE TABLE liaison.mark (
    mark bytea PRIMARY KEY CHECK (octet_length(mark) = 16),
    at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX mark_at ON liaison.mark (at);

CREATE OR REPLACE FUNCTION liaison.admit_sync_mark(who name) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON liaison.mark TO %I', who);
END $$;
