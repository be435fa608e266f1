-- The flow: what reports sum.

CREATE FUNCTION lifecycle.flow_day(at timestamptz, tz text) RETURNS date
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_flow_day';

COMMENT ON FUNCTION lifecycle.flow_day(timestamptz, text) IS
'The day of the time zone that a moment is in: the one that has begun and not ended, however the clocks are set. Days of the flow are such days.';

CREATE FUNCTION lifecycle.lock_flow(flow regclass) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'lifecycle_lock_flow';

COMMENT ON FUNCTION lifecycle.lock_flow(regclass) IS
'Part of lifecycle.refresh(): waits until nobody else merges the flow, and keeps others from it until the transaction ends. The caller must own the flow. Errors: 42501 not the owner.';

CREATE FUNCTION lifecycle.flow_key(source text, cohort int) RETURNS uuid
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_flow_key';

COMMENT ON FUNCTION lifecycle.flow_key(text, int) IS
'Part of lifecycle.refresh(): what the rows of a source and a cohort are found by in each span. The first 16 bytes of the sha256 of both.';

CREATE FUNCTION lifecycle.create_flow(lead_table regclass, flow text, pending text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = lead_table);
    counts text[] := ARRAY[
        ['kind', 'move: moves, by the day of the move. What leads reached, by the day of entry: first, in their first cycle; later, in a later one, by the day it began; ever, how what they ever reached differs from the first cycle.'],
        ['cohort', 'The cohort of the leads. NULL in moves.'],
        ['from_status', 'Of moves: the status that was left; NULL at an entry.'],
        ['to_status', 'Of moves: the status that was entered; NULL at a removal.'],
        ['reached', 'Of what leads reached: the statuses, in the order of their bytes, with tabs between them.'],
        ['n', 'How many.'],
        ['n_new', 'Of moves: to a status where the lead had never been.'],
        ['n_again', 'Of moves: to one where it had been.'],
        ['n_left', 'Of moves: that count in conversion, where they come from.'],
        ['n_entered', 'Of moves: that count in conversion, where they go.']];
BEGIN
    -- not out of line up to a page: a merge reads and writes many rows, and compresses them itself
    EXECUTE format($q$
        CREATE TABLE %s (
            span        text COLLATE "C" NOT NULL,
            kind        text COLLATE "C" NOT NULL,
            day         date NOT NULL,
            key         uuid NOT NULL,
            source      text,
            cohort      int,
            from_status text[],
            to_status   text[],
            reached     text[],
            n           bigint[] NOT NULL,
            n_new       bigint[],
            n_again     bigint[],
            n_left      bigint[],
            n_entered   bigint[]
        ) WITH (fillfactor = 60, toast_tuple_target = 8160)$q$, flow);
    EXECUTE format('CREATE UNIQUE INDEX ON %s (span, kind, day, key)', flow);
    EXECUTE format('COMMENT ON TABLE %s IS %L', flow,
                   format('What reports of %s sum, kept by lifecycle; lifecycle.counts_of_flow() shows it a row for each thing counted. The rows of span ''day'' and those of %s, which lifecycle.refresh() merges into them, add up to the history; the other spans are sums of ''day''. The arrays of a row run side by side.', lead_table, pending));
    PERFORM lifecycle.comment_columns(flow, ARRAY[
        ['span', 'day; month; total: over all days; all: over all days, sources and cohorts.'],
        ['day', 'The day, or the first day of the month, in the time zone of the program; -infinity over all days.'],
        ['key', 'What the rows of the source and cohort are found by.'],
        ['source', 'The source of the leads; beyond the first 64 (other). NULL in moves.']] || counts);

    -- without an index: every write of a lead would pay for it, and reports read all of it
    EXECUTE format($q$
        CREATE TABLE %s (
            kind        text COLLATE "C" NOT NULL,
            day         date NOT NULL,
            source      text,
            cohort      int,
            from_status text[],
            to_status   text[],
            reached     text[],
            n           bigint[] NOT NULL,
            n_new       bigint[],
            n_again     bigint[],
            n_left      bigint[],
            n_entered   bigint[]
        ) WITH (toast_tuple_target = 8160)$q$, pending);
    EXECUTE format('COMMENT ON TABLE %s IS %L', pending,
                   format('What has been counted of %s and is not in %s yet, kept by lifecycle: each statement appends to it, lifecycle.refresh() empties it. The arrays of a row run side by side; one of nothing but 0 or NULL is left out.', lead_table, flow));
    PERFORM lifecycle.comment_columns(pending, ARRAY[
        ['day', 'The day, in the time zone of the program.'],
        ['source', 'The source of the leads. NULL in moves.']] || counts);

    -- or a publication of all tables would keep them from being merged
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', flow);
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', pending);
    PERFORM lifecycle.keep_private(flow::regclass, owner);
    PERFORM lifecycle.keep_private(pending::regclass, owner);
END
$$;

COMMENT ON FUNCTION lifecycle.create_flow(regclass, text, text) IS
'Part of lifecycle.track(), which see: creates the tables that reports sum, what is merged and what is pending.';

CREATE FUNCTION lifecycle.counts_of_flow(program lifecycle.program)
    RETURNS TABLE (span text, kind text, day date, key uuid, source text, cohort int, from_status text, to_status text,
                   reached text[], n bigint, n_new bigint, n_again bigint, n_left bigint, n_entered bigint)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        SELECT f.span, f.kind, f.day, f.key, f.source, f.cohort, c.from_status, c.to_status, string_to_array(c.reached, E'\t'),
               coalesce(c.n, 0), coalesce(c.n_new, 0), coalesce(c.n_again, 0), coalesce(c.n_left, 0), coalesce(c.n_entered, 0)
        FROM (SELECT m.span, m.kind, m.day, m.key, m.source, m.cohort, m.from_status, m.to_status, m.reached,
                     m.n, m.n_new, m.n_again, m.n_left, m.n_entered
              FROM %s m
              UNION ALL
              SELECT 'pending', p.kind, p.day, NULL, p.source, p.cohort, p.from_status, p.to_status, p.reached,
                     p.n, p.n_new, p.n_again, p.n_left, p.n_entered
              FROM %s p) AS f
        CROSS JOIN LATERAL unnest(f.from_status, f.to_status, f.reached, f.n, f.n_new, f.n_again, f.n_left, f.n_entered)
             AS c (from_status, to_status, reached, n, n_new, n_again, n_left, n_entered)$q$, program.flow, program.flow_pending);
END
$$;

COMMENT ON FUNCTION lifecycle.counts_of_flow(lifecycle.program) IS
'What the flow of a program holds, a row for each thing that is counted: the columns of <prefix>_flow, reached as an array of statuses; span pending, without a key, is what <prefix>_flow_pending has. SELECT * FROM lifecycle.program p, lifecycle.counts_of_flow(p) WHERE p.lead_table = ''crm.leads''::regclass. Needs SELECT on both tables. Errors: 42501.';

CREATE FUNCTION lifecycle.flow_of_history(program lifecycle.program)
    RETURNS TABLE (kind text, day date, source text, cohort int, from_status text, to_status text, reached text[],
                   n bigint, n_new bigint, n_again bigint, n_left bigint, n_entered bigint)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH moves AS (
            SELECT h.*, lead(h.cause) OVER w IS NOT DISTINCT FROM 'correction' AS void,
                   lag(h.cause) OVER w IS NOT DISTINCT FROM 'backfill' AS found
            FROM %s h
            WINDOW w AS (PARTITION BY h.lead ORDER BY h.seq)
        ), visits AS (
            SELECT m.lead, m.seq, m.cycle, m.to_status, m.entered_at, m.cycle_since, m.source, m.cohort
            FROM moves m
            WHERE m.to_status IS NOT NULL AND NOT m.void
        ), firsts AS (
            SELECT v.lead, v.to_status, min(v.seq) AS seq FROM visits v GROUP BY v.lead, v.to_status
        ), cycles AS (
            SELECT v.lead, v.cycle, min(v.entered_at) AS entered_at, min(v.cycle_since) AS cycle_since,
                   min(v.source) AS source, min(v.cohort) AS cohort,
                   array_agg(DISTINCT v.to_status COLLATE "C" ORDER BY v.to_status COLLATE "C") AS reached
            FROM visits v
            GROUP BY v.lead, v.cycle
        ), leads AS (
            SELECT v.lead, min(v.entered_at) AS entered_at, min(v.source) AS source, min(v.cohort) AS cohort,
                   array_agg(DISTINCT v.to_status COLLATE "C" ORDER BY v.to_status COLLATE "C") AS reached,
                   array_agg(DISTINCT v.to_status COLLATE "C" ORDER BY v.to_status COLLATE "C") FILTER (WHERE v.cycle = 1) AS first
            FROM visits v
            GROUP BY v.lead
            HAVING max(v.cycle) > 1
        ), counts AS (
            SELECT 'move' AS kind, lifecycle.flow_day(m.at, $1) AS day, NULL::text AS source, NULL::int AS cohort,
                   m.from_status, m.to_status, NULL::text[] AS reached, 1 AS n,
                   CASE WHEN m.to_status IS NOT NULL AND NOT m.void AND f.seq IS NOT NULL THEN 1 ELSE 0 END AS n_new,
                   CASE WHEN m.to_status IS NOT NULL AND NOT m.void AND f.seq IS NULL THEN 1 ELSE 0 END AS n_again,
                   CASE WHEN m.from_status IS NOT NULL AND m.cause NOT IN ('correction', 'backfill') AND NOT m.void AND NOT m.found
                        THEN 1 ELSE 0 END AS n_left,
                   CASE WHEN m.to_status IS NOT NULL AND m.cause NOT IN ('correction', 'backfill') AND NOT m.void
                        THEN 1 ELSE 0 END AS n_entered
            FROM moves m LEFT JOIN firsts f ON f.lead = m.lead AND f.seq = m.seq
            UNION ALL
            SELECT CASE c.cycle WHEN 1 THEN 'first' ELSE 'later' END,
                   lifecycle.flow_day(CASE c.cycle WHEN 1 THEN c.entered_at ELSE c.cycle_since END, $1),
                   c.source, c.cohort, NULL, NULL, c.reached, 1, 0, 0, 0, 0
            FROM cycles c
            UNION ALL
            SELECT 'ever', lifecycle.flow_day(l.entered_at, $1), l.source, l.cohort, NULL, NULL, s.reached, s.n, 0, 0, 0, 0
            FROM leads l
            CROSS JOIN LATERAL (VALUES (l.first, -1), (l.reached, 1)) AS s (reached, n)
            WHERE s.reached IS NOT NULL AND l.first IS DISTINCT FROM l.reached
        )
        SELECT c.kind, c.day, c.source, c.cohort, c.from_status, c.to_status, c.reached, sum(c.n)::bigint,
               sum(c.n_new)::bigint, sum(c.n_again)::bigint, sum(c.n_left)::bigint, sum(c.n_entered)::bigint
        FROM counts c
        GROUP BY c.kind, c.day, c.source, c.cohort, c.from_status, c.to_status, c.reached$q$, program.history)
    USING program.tz;
END
$$;

COMMENT ON FUNCTION lifecycle.flow_of_history(lifecycle.program) IS
'What the flow of a program adds up to, counted anew from its history, by day. The result columns are those of the flow.';

CREATE FUNCTION lifecycle.merge_flow(flow regclass, pending regclass) RETURNS bigint
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'lifecycle_merge_flow';

COMMENT ON FUNCTION lifecycle.merge_flow(regclass, regclass) IS
'Part of lifecycle.refresh(), which see: takes what is pending, and adds it to the sums by day, month and in total, all in one command, so that every snapshot sees it once. Gives the number of rows taken. Others that merge wait until the transaction ends; writers and readers do not. The caller must own both tables. Errors: 42501 not the owner, 40001 somebody else changed a row since the snapshot was taken.';

CREATE FUNCTION lifecycle.count_anew(program lifecycle.program) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- before the tables, as lifecycle.refresh() does
    PERFORM lifecycle.lock_flow(program.flow);
    -- nobody moves a lead while it is counted
    EXECUTE format('LOCK TABLE %s, %s, %s IN SHARE ROW EXCLUSIVE MODE', program.history, program.flow, program.flow_pending);
    EXECUTE format('DELETE FROM %s', program.flow);
    EXECUTE format('DELETE FROM %s', program.flow_pending);
    EXECUTE format($q$
        INSERT INTO %s (kind, day, source, cohort, from_status, to_status, reached, n, n_new, n_again, n_left, n_entered)
        SELECT f.kind, f.day, f.source, f.cohort,
               CASE f.kind WHEN 'move' THEN array_agg(f.from_status) END, CASE f.kind WHEN 'move' THEN array_agg(f.to_status) END,
               CASE WHEN f.kind <> 'move' THEN array_agg(array_to_string(f.reached, E'\t')) END, array_agg(f.n),
               array_agg(f.n_new), array_agg(f.n_again), array_agg(f.n_left), array_agg(f.n_entered)
        FROM lifecycle.flow_of_history($1) AS f
        GROUP BY f.kind, f.day, f.source, f.cohort$q$, program.flow_pending)
    USING program;
    RETURN lifecycle.merge_flow(program.flow, program.flow_pending);
END
$$;

COMMENT ON FUNCTION lifecycle.count_anew(lifecycle.program) IS
'Part of lifecycle.rebuild_flow(), which see: as the owner of the flow. Gives the number of rows before merging.';

CREATE FUNCTION lifecycle.count_anew_as_owner(lead_table regclass) RETURNS bigint
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'lifecycle_count_anew_as_owner';

COMMENT ON FUNCTION lifecycle.count_anew_as_owner(regclass) IS
'Part of lifecycle.rebuild_flow(), which see: lifecycle.count_anew() as the owner of the table, whose triggers on the flow must not run as a superuser; NULL where it is tracked no more. The caller must own the table.';

CREATE FUNCTION lifecycle.rebuild_flow(lead_table regclass) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM lifecycle.program_of(lead_table);
    PERFORM lifecycle.require_owner(lead_table, 'lifecycle.rebuild_flow()');
    RETURN lifecycle.count_anew_as_owner(lead_table);
END
$$;

COMMENT ON FUNCTION lifecycle.rebuild_flow(regclass) IS
'Counts the flow of a tracked table anew from its history, and merges it; for when lifecycle.verify() says that they differ. Writers of leads wait until the transaction ends. Gives the number of rows before merging: one for each kind, day, source and cohort. The caller must own the table. Errors: 55000 not tracked, 42501 not the owner.';
