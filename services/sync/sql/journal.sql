-- The journal of one partner: who read what, and the only functions by which its InfoPol can read at all.
--
-- A template: {share}, {journal} and {reader} are replaced by quoted identifiers. It is run by `liaison-sync seed` as
-- the owner of the store's database, in one transaction, any number of times; it never drops or empties anything.
-- The role {reader} gets USAGE on {journal} and EXECUTE on six functions; on {share} it gets nothing.
--
-- Invariant I4: no record is read without a row of access_log, committed first by another transaction, for that
-- officer and exactly that request; once, within 60 seconds; denied requests are rows too. What enforces it is
-- take(), below. A search needs two rows: the query, and then the list of the files that it shows.
--
-- The functions are SECURITY DEFINER with a pinned search_path, and plpgsql: their text is resolved when they run, so
-- they follow a swap of the share schema. They read clock_timestamp() and insist on READ COMMITTED: inside a
-- long transaction now() and an old snapshot would go on honouring an agreement that has ended.
--
-- SQLSTATEs: LA001 closed (no terms, suspended or ended), LA002 fenced for a moment by sync, LA003 no access-log row
-- that allows this read, LA004 a request that asks for nothing or is malformed.

CREATE SCHEMA IF NOT EXISTS {journal};

CREATE TABLE IF NOT EXISTS {journal}.access_log (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid         xid8 NOT NULL,                 -- the transaction that wrote the row; the read must be another
    at          timestamptz NOT NULL,
    officer     text NOT NULL CHECK (length(officer) BETWEEN 1 AND 64),
    identity    text NOT NULL DEFAULT 'asserted' CHECK (identity IN ('asserted')),  -- how the officer is known
    purpose     text NOT NULL CHECK (length(purpose) BETWEEN 1 AND 64),
    kind        text NOT NULL CHECK (kind IN ('search', 'file', 'photograph', 'at_large', 'shown')),
    request     jsonb NOT NULL,
    language    text NOT NULL CHECK (language IN ('en', 'fr')),
    trace       text CHECK (length(trace) <= 64),   -- W3C traceparent, from the gateway
    leaf        text CHECK (leaf ~ '^[0-9a-f]{64}$'),  -- SHA-256 of the client certificate that asked
    generation  bigint,                        -- of the terms in force
    batch       bigint,                        -- of the replica when asked
    outcome     text NOT NULL CHECK (outcome IN ('allowed', 'denied')),
    reason      text CHECK ((reason IS NULL) = (outcome = 'allowed')),
    query       bigint REFERENCES {journal}.access_log (id),  -- of a 'shown' row: the query that it answers
    files       bigint[],                      -- of a 'shown' row: the files shown, in order
    total       integer,                       -- of a 'shown' row: how many files the query found
    used_at     timestamptz,                   -- when the row was read by
    found       boolean                        -- whether that read found anything
);
CREATE INDEX IF NOT EXISTS access_log_at ON {journal}.access_log (at);
CREATE INDEX IF NOT EXISTS access_log_officer ON {journal}.access_log (officer, at);

-- Which rows have been read by, also when the reading transaction was rolled back (setval is not undone): the upper
-- bits are the highest number read by, the lower 30 say which of the 30 numbers up to it were. As in the anti-replay
-- window of IPsec, what is older than the window counts as read.
CREATE SEQUENCE IF NOT EXISTS {journal}.taken MINVALUE 0 START 0;

-- NULL when the share is open; else 'closed' or 'fenced'. Whatever is missing or unknown is closed.
CREATE OR REPLACE FUNCTION {journal}.obstacle() RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    terms record;
BEGIN
    IF to_regclass('{share}.cursor') IS NULL THEN
        RETURN 'closed';
    END IF;
    SELECT c.authorized_until, c.suspended, c.fenced INTO terms FROM {share}.cursor c;
    IF NOT FOUND OR terms.suspended IS NOT FALSE OR terms.authorized_until IS NULL
       OR clock_timestamp() >= terms.authorized_until THEN
        RETURN 'closed';
    ELSIF terms.fenced IS NOT FALSE THEN
        RETURN 'fenced';
    END IF;
    RETURN NULL;
END
$fn$;

-- Raises unless the share is open and the transaction sees the present.
CREATE OR REPLACE FUNCTION {journal}.require_open() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    obstacle text;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'reading needs a READ COMMITTED transaction' USING ERRCODE = 'LA003';
    END IF;
    obstacle := {journal}.obstacle();
    IF obstacle = 'closed' THEN
        RAISE EXCEPTION 'closed' USING ERRCODE = 'LA001';
    ELSIF obstacle IS NOT NULL THEN
        RAISE EXCEPTION 'fenced' USING ERRCODE = 'LA002';
    END IF;
END
$fn$;

-- Uses up one row of access_log and returns it, or raises LA003, always the same way: it must have been committed by
-- another transaction within the last 60 s, allowed, for this officer and exactly this request (a list of files has none
-- of its own), unused.
CREATE OR REPLACE FUNCTION {journal}.take(access bigint, officer text, request jsonb, kinds text[])
RETURNS {journal}.access_log
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    entry {journal}.access_log;
    held bigint;
    top bigint;
    bits bigint;
BEGIN
    PERFORM {journal}.require_open();
    UPDATE {journal}.access_log l SET used_at = clock_timestamp()
     WHERE l.id = take.access
       AND l.xid IS DISTINCT FROM pg_current_xact_id()
       AND l.at > clock_timestamp() - interval '60 seconds'
       AND l.officer = take.officer
       AND (l.kind = 'shown' OR l.request = take.request)
       AND l.kind = ANY (take.kinds)
       AND l.outcome = 'allowed'
       AND l.used_at IS NULL
    RETURNING l.* INTO entry;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no unused access-log row, committed within the last 60 s, for this officer and request'
            USING ERRCODE = 'LA003';
    END IF;
    SELECT s.last_value INTO held FROM {journal}.taken s;
    top := held >> 30;
    bits := held & 1073741823;
    IF access > top THEN
        bits := CASE WHEN access - top < 30 THEN (bits << (access - top)::integer) & 1073741823 ELSE 0 END | 1;
        top := access;
    ELSIF top - access >= 30 OR (bits >> (top - access)::integer) & 1 = 1 THEN
        RAISE EXCEPTION 'no unused access-log row, committed within the last 60 s, for this officer and request'
            USING ERRCODE = 'LA003';
    ELSE
        bits := bits | (1::bigint << (top - access)::integer);
    END IF;
    PERFORM setval('{journal}.taken', (top << 30) | bits);
    RETURN entry;
END
$fn$;

-- The terms that this partner reads under, and how old the data is. No record is in it; no row when there are none.
CREATE OR REPLACE FUNCTION {journal}.terms()
RETURNS TABLE (partner_en text, partner_fr text, time_zone text, purposes text[], groups text[], as_of timestamptz,
               authorized_until timestamptz, suspended boolean, fenced boolean, generation bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
BEGIN
    IF to_regclass('{share}.cursor') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT c.partner_en, c.partner_fr, c.time_zone, c.purposes, c.groups, c.as_of,
               c.authorized_until, c.suspended, c.fenced, c.generation
          FROM {share}.cursor c;
END
$fn$;

-- Writes the access-log row that a later read names. Commit it before reading. A request that may not be answered is
-- written too, with outcome 'denied' and the reason: closed, fenced, purpose, or `refusal`, InfoPol's own.
CREATE OR REPLACE FUNCTION {journal}.log_request(officer text, purpose text, kind text, request jsonb, language text,
                                                 trace text, leaf text, refusal text DEFAULT NULL)
RETURNS TABLE (id bigint, outcome text, reason text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
DECLARE
    refused text := refusal;
    purposes text[];
    generation bigint;
    batch bigint;
BEGIN
    IF kind IS NULL OR kind NOT IN ('search', 'file', 'photograph', 'at_large') THEN
        RAISE EXCEPTION 'unknown kind of request' USING ERRCODE = 'LA004';
    END IF;
    IF jsonb_typeof(request) IS DISTINCT FROM 'object' OR octet_length(request::text) > 4096 THEN
        RAISE EXCEPTION 'the request must be a JSON object of at most 4096 bytes' USING ERRCODE = 'LA004';
    END IF;
    refused := coalesce(refused, {journal}.obstacle());
    IF to_regclass('{share}.cursor') IS NOT NULL THEN
        SELECT c.purposes, c.generation, c.batch INTO purposes, generation, batch FROM {share}.cursor c;
    END IF;
    IF refused IS NULL AND (log_request.purpose = ANY (purposes)) IS NOT TRUE THEN
        refused := 'purpose';
    END IF;
    RETURN QUERY
        INSERT INTO {journal}.access_log AS l
               (xid, at, officer, purpose, kind, request, language, trace, leaf, generation, batch, outcome, reason)
        VALUES (pg_current_xact_id(), clock_timestamp(), log_request.officer, log_request.purpose, log_request.kind,
                log_request.request, log_request.language, log_request.trace, log_request.leaf, generation, batch,
                CASE WHEN refused IS NULL THEN 'allowed' ELSE 'denied' END, refused)
        RETURNING l.id, l.outcome, l.reason;
END
$fn$;

-- Runs the query of row `access` and writes the row that lists one page of what it found; returns its number, and no
-- record. `names` and `sounds` are what liaison_records::search::query makes of the name asked for: every word must
-- begin a name key of the file (its name or an alias), or every sound be one of its sounds. Exact comes before alike.
-- Each query is planned for what it asks for, since a plan for any query would have to look at every file; and by an
-- index, since the planner takes the comparison of names, which is most of a look at every file, for as cheap as a sum.
CREATE OR REPLACE FUNCTION {journal}.find(access bigint, officer text, request jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off AS $fn$
DECLARE
    entry {journal}.access_log;
    -- 'marc':* & 'trembl':*, each word quoted; NULL when no name is asked for.
    words tsquery := (SELECT string_agg('''' || replace(replace(w, E'\\', E'\\\\'), '''', '''''') || ''':*', ' & ')
                        FROM jsonb_array_elements_text(coalesce(request -> 'names', '[]')) w WHERE w <> '')::tsquery;
    keys text[] := ARRAY(SELECT k FROM jsonb_array_elements_text(coalesce(request -> 'sounds', '[]')) k);
    number text := request ->> 'fps';
    born date := (request ->> 'birthDate')::date;
    born_from date := (request ->> 'bornFrom')::date;
    born_to date := (request ->> 'bornTo')::date;
    sought boolean := coalesce((request ->> 'atLarge')::boolean, false);
    page integer := coalesce((request ->> 'page')::integer, 1);
    size integer := coalesce((request ->> 'size')::integer, 25);
    shown bigint[];
    count integer;
    list bigint;
BEGIN
    entry := {journal}.take(access, officer, request, ARRAY['search', 'at_large']);
    IF (words IS NULL AND number IS NULL AND NOT sought
        AND coalesce(born, born_from, born_to) IS NULL)
       OR page NOT BETWEEN 1 AND 100000 OR size NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION 'the query names nothing to search for' USING ERRCODE = 'LA004';
    END IF;
    WITH hit AS MATERIALIZED (
        SELECT s.offender, s.surname, s.given, NOT array_to_tsvector(s.names) @@ words AS alike
          FROM {share}.subject s
         WHERE (number IS NULL OR s.fps = number)
           AND (born IS NULL OR s.birth_date = born OR s.other_dates @> ARRAY[born])
           AND (born_from IS NULL OR s.birth_date >= born_from)
           AND (born_to IS NULL OR s.birth_date <= born_to)
           AND (NOT sought OR s.at_large IN ('UnlawfullyAtLarge', 'Escaped'))
           AND (words IS NULL OR array_to_tsvector(s.names) @@ words OR (cardinality(keys) > 0 AND s.sounds @> keys))
    ), paged AS (
        SELECT h.offender, h.surname, h.given, h.alike FROM hit h
         ORDER BY h.alike, h.surname, h.given, h.offender LIMIT size OFFSET (page::bigint - 1) * size
    )
    SELECT (SELECT count(*) FROM hit),
           ARRAY(SELECT p.offender FROM paged p ORDER BY p.alike, p.surname, p.given, p.offender)
      INTO count, shown;
    INSERT INTO {journal}.access_log AS l
           (xid, at, officer, purpose, kind, request, language, trace, leaf, generation, batch, outcome, query, files, total)
    VALUES (pg_current_xact_id(), clock_timestamp(), entry.officer, entry.purpose, 'shown', entry.request,
            entry.language, entry.trace, entry.leaf, entry.generation, entry.batch, 'allowed', entry.id, shown, count)
    RETURNING l.id INTO list;
    UPDATE {journal}.access_log l SET found = count > 0 WHERE l.id = entry.id;
    RETURN list;
END
$fn$;

-- The page that row `list` names, in its order, with how many files there are in all. At least one row comes: when
-- the page is empty, or its files have left the replica since, `offender` is NULL in it.
CREATE OR REPLACE FUNCTION {journal}.shown(list bigint, officer text)
RETURNS TABLE (total integer, as_of timestamptz, offender bigint, fps text, surname text, given text, names text[],
               birth_date date, custody text, status text, at_large text, jurisdiction text, municipality text,
               place text, photograph bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
DECLARE
    entry {journal}.access_log;
BEGIN
    entry := {journal}.take(list, shown.officer, NULL, ARRAY['shown']);
    RETURN QUERY
        SELECT entry.total, c.as_of, s.offender, s.fps, s.surname, s.given, s.names, s.birth_date, s.custody,
               s.status, s.at_large, s.jurisdiction, s.municipality, r.body::jsonb ->> 'municipalityName', s.photograph
          FROM {share}.cursor c
          LEFT JOIN (unnest(entry.files) WITH ORDINALITY f(file, n)
                     JOIN {share}.subject s ON s.offender = f.file
                     LEFT JOIN {share}.record r ON r.tbl = 'offender' AND r.id = f.file) ON true
         WHERE c.suspended IS FALSE AND c.fenced IS FALSE AND clock_timestamp() < c.authorized_until
         ORDER BY f.n;
    UPDATE {journal}.access_log l SET found = cardinality(entry.files) > 0 WHERE l.id = entry.id;
END
$fn$;

-- Every record of the file that the request names, and the reference records (offices, officers) that these name.
-- No row: the replica does not hold the file, which is not told apart from a file that never was.
CREATE OR REPLACE FUNCTION {journal}.read_file(access bigint, officer text, request jsonb)
RETURNS TABLE (offender bigint, grp text, tbl text, id bigint, body jsonb, as_of timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
DECLARE
    entry {journal}.access_log;
    file bigint := (request ->> 'file')::bigint;
BEGIN
    entry := {journal}.take(access, read_file.officer, request, ARRAY['file']);
    RETURN QUERY
        WITH RECURSIVE part AS (
            SELECT r.offender, r.grp, r.tbl, r.id, r.body::jsonb AS body
              FROM {share}.record r WHERE r.offender = file
            UNION
            SELECT r.offender, r.grp, r.tbl, r.id, r.body::jsonb
              FROM part p
              CROSS JOIN LATERAL jsonb_each(p.body) e
              JOIN (VALUES ('officer', 'parole_officer'), ('office', 'office'), ('institution', 'institution'),
                           ('fromInstitution', 'institution'), ('toInstitution', 'institution')) AS reference(key, tbl)
                   ON reference.key = e.key
              JOIN {share}.record r ON r.tbl = reference.tbl AND r.offender IS NULL AND to_jsonb(r.id) = e.value
        )
        SELECT p.offender, p.grp, p.tbl, p.id, p.body, c.as_of
          FROM part p CROSS JOIN {share}.cursor c
         WHERE c.suspended IS FALSE AND c.fenced IS FALSE AND clock_timestamp() < c.authorized_until
         ORDER BY p.offender NULLS LAST, p.grp, p.tbl, p.id;
    UPDATE {journal}.access_log l SET found = EXISTS (SELECT FROM {share}.record r WHERE r.offender = file)
     WHERE l.id = entry.id;
END
$fn$;

-- One photograph of the file that the request names, as JPEG; NULL when the file has no such photograph here.
CREATE OR REPLACE FUNCTION {journal}.read_photograph(access bigint, officer text, request jsonb) RETURNS bytea
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    entry {journal}.access_log;
    file bigint := (request ->> 'file')::bigint;
    picture bytea;
BEGIN
    entry := {journal}.take(access, officer, request, ARRAY['photograph']);
    SELECT p.jpeg INTO picture
      FROM {share}.photograph p, {share}.cursor c
     WHERE p.sha256 = decode(request ->> 'sha256', 'hex')
       AND EXISTS (SELECT FROM {share}.record r
                    WHERE r.offender = file AND r.tbl = 'photograph'
                      AND r.body::jsonb ->> 'sha256' = lower(request ->> 'sha256'))
       AND c.suspended IS FALSE AND c.fenced IS FALSE AND clock_timestamp() < c.authorized_until;
    UPDATE {journal}.access_log l SET found = picture IS NOT NULL WHERE l.id = entry.id;
    RETURN picture;
END
$fn$;

-- Functions are executable by everybody when they are made; in the one transaction that makes them, not for a moment.
REVOKE ALL ON SCHEMA {journal} FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA {journal} FROM PUBLIC, {reader};
REVOKE ALL ON ALL SEQUENCES IN SCHEMA {journal} FROM PUBLIC, {reader};
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {journal} FROM PUBLIC, {reader};
GRANT USAGE ON SCHEMA {journal} TO {reader};
GRANT EXECUTE ON FUNCTION
    {journal}.terms(),
    {journal}.log_request(text, text, text, jsonb, text, text, text, text),
    {journal}.find(bigint, text, jsonb),
    {journal}.shown(bigint, text),
    {journal}.read_file(bigint, text, jsonb),
    {journal}.read_photograph(bigint, text, jsonb)
TO {reader};
