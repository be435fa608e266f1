-- The flow: what reports sum.

CREATE FUNCTION lifecycle.flow_day(at timestamptz, tz text) RETURNS date
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_flow_day';

COMMENT ON FUNCTION lifecycle.flow_day(timestamptz, text) IS
'The day of the time zone that a moment is in: the one that has begun and not ended, however the clocks are set. Days of the flow are such days.';

CREATE FUNCTION lifecycle.lock_flow(program int) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'lifecycle_lock_flow';

COMMENT ON FUNCTION lifecycle.lock_flow(int) IS
'Part of lifecycle.refresh(): waits until nobody else merges the flow of the program (lifecycle.program.id), and keeps others from it until the transaction ends.';

CREATE FUNCTION lifecycle.flow_key(source text, cohort int, from_status text, to_status text, reached text[]) RETURNS uuid
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_flow_key';

COMMENT ON FUNCTION lifecycle.flow_key(text, int, text, text, text[]) IS
'Part of lifecycle.refresh(): what is counted together in a span has the same key. The first 16 bytes of the sha256 of its columns.';

CREATE FUNCTION lifecycle.create_flow(lead_table regclass, flow text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format($q$
        CREATE TABLE %s (
            span        text COLLATE "C" NOT NULL,
            kind        text COLLATE "C" NOT NULL,
            day         date NOT NULL,
            key         uuid,
            source      text,
            cohort      int,
            from_status text,
            to_status   text,
            reached     text[],
            n           bigint NOT NULL,
            n_new       bigint NOT NULL,
            n_again     bigint NOT NULL,
            n_left      bigint NOT NULL,
            n_entered   bigint NOT NULL
        ) WITH (fillfactor = 80)$q$, flow);
    EXECUTE format('CREATE UNIQUE INDEX ON %s (span, kind, day, key)', flow);
    EXECUTE format('COMMENT ON TABLE %s IS %L', flow,
                   format('What reports of %s sum, kept by lifecycle: the rows of span ''new'', which writers append, and those of span ''day'', into which lifecycle.refresh() merges them, add up to the history; the other spans are sums of ''day''.', lead_table));
    EXECUTE (
        SELECT string_agg(format('COMMENT ON COLUMN %s.%I IS %L', flow, c.name, c.comment), '; ')
        FROM (VALUES
            ('span', 'new: appended by a statement, by day; day; month; total: over all days; all: over all days, sources and cohorts.'),
            ('kind', 'move: moves, by the day of the move. What leads reached, by the day of entry: first, in their first cycle; later, in a later one, by the day it began; ever, how what they ever reached differs from the first cycle.'),
            ('day', 'The day, or the first day of the month, in the time zone of the program; -infinity over all days.'),
            ('key', 'Of rows that are merged: what is counted together has the same.'),
            ('source', 'The source of the leads; beyond 64 of them (other). NULL in moves.'),
            ('cohort', 'The cohort of the leads. NULL in moves.'),
            ('from_status', 'Of moves: the status that was left; NULL at an entry.'),
            ('to_status', 'Of moves: the status that was entered; NULL at a removal.'),
            ('reached', 'Of what leads reached: the statuses, in the order of their bytes.'),
            ('n', 'How many.'),
            ('n_new', 'Of moves: to a status where the lead had never been.'),
            ('n_again', 'Of moves: to one where it had been.'),
            ('n_left', 'Of moves: that count in conversion, where they come from.'),
            ('n_entered', 'Of moves: that count in conversion, where they go.')) AS c (name, comment));
    PERFORM lifecycle.keep_private(flow::regclass, (SELECT c.relowner FROM pg_class c WHERE c.oid = lead_table));
END
$$;

COMMENT ON FUNCTION lifecycle.create_flow(regclass, text) IS
'Part of lifecycle.track(), which see: creates the table that reports sum.';

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

CREATE FUNCTION lifecycle.rebuild_flow(lead_table regclass) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    counts bigint;
BEGIN
    -- before the tables, as lifecycle.refresh() does
    PERFORM lifecycle.lock_flow(program.id);
    -- nobody moves a lead while it is counted
    EXECUTE format('LOCK TABLE %s, %s IN SHARE ROW EXCLUSIVE MODE', program.history, program.flow);
    EXECUTE format('DELETE FROM %s', program.flow);
    EXECUTE format($q$
        INSERT INTO %s (span, kind, day, source, cohort, from_status, to_status, reached, n, n_new, n_again, n_left, n_entered)
        SELECT 'new', f.* FROM lifecycle.flow_of_history($1) AS f$q$, program.flow)
    USING program;
    GET DIAGNOSTICS counts = ROW_COUNT;
    PERFORM lifecycle.merge_flow(program);
    RETURN counts;
END
$$;

COMMENT ON FUNCTION lifecycle.rebuild_flow(regclass) IS
'Counts the flow of a tracked table anew from its history, and merges it; for when lifecycle.verify() says that they differ. Writers of leads wait until the transaction ends. Gives the number of rows before merging. The caller must own the table. Errors: 55000 not tracked, 42501 not the owner.';

CREATE AGGREGATE lifecycle.total(n bigint) (
    SFUNC = int8pl, STYPE = bigint, COMBINEFUNC = int8pl, INITCOND = '0', PARALLEL = SAFE
);

COMMENT ON AGGREGATE lifecycle.total(bigint) IS
'Part of lifecycle.refresh(): the sum, as a bigint, 0 over no rows; 22003 where it does not fit. Several times as fast as sum(), which adds numerics.';

CREATE FUNCTION lifecycle.merge_flow(program lifecycle.program) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off SET enable_seqscan = off SET work_mem = '64MB'
AS $$
#variable_conflict use_column
DECLARE
    merged bigint;
    gone tid[];
BEGIN
    -- one at a time: held to the end of the transaction, it keeps nobody else waiting
    PERFORM lifecycle.lock_flow(program.id);
    EXECUTE format($q$
        WITH taken AS (
            DELETE FROM %1$s f WHERE f.span = 'new' RETURNING f.*
        ), known AS (
            SELECT DISTINCT f.source FROM %1$s f WHERE f.span = 'total' AND f.source IS NOT NULL AND f.source <> '(other)'
        ), named AS (
            SELECT k.source FROM known k
            UNION ALL
            (SELECT t.source FROM taken t
             WHERE t.source IS NOT NULL AND t.source NOT IN (SELECT k.source FROM known k)
             GROUP BY t.source ORDER BY t.source COLLATE "C"
             LIMIT greatest(0, 64 - (SELECT count(*) FROM known)))
        ), mapped AS (
            SELECT t.kind, t.day, CASE WHEN t.source IS NULL OR d.source IS NOT NULL THEN t.source ELSE '(other)' END AS source,
                   t.cohort, t.from_status, t.to_status, t.reached, t.n, t.n_new, t.n_again, t.n_left, t.n_entered
            FROM taken t LEFT JOIN named d ON d.source = t.source
        ), days AS (
            SELECT m.kind, m.day, m.source, m.cohort, m.from_status, m.to_status, m.reached, lifecycle.total(m.n) AS n,
                   lifecycle.total(m.n_new) AS n_new, lifecycle.total(m.n_again) AS n_again, lifecycle.total(m.n_left) AS n_left, lifecycle.total(m.n_entered) AS n_entered
            FROM mapped m
            GROUP BY m.kind, m.day, m.source, m.cohort, m.from_status, m.to_status, m.reached
        ), spans AS (
            SELECT s.span, d.kind, s.day, s.source, s.cohort, d.from_status, d.to_status, d.reached, lifecycle.total(d.n) AS n,
                   lifecycle.total(d.n_new) AS n_new, lifecycle.total(d.n_again) AS n_again, lifecycle.total(d.n_left) AS n_left,
                   lifecycle.total(d.n_entered) AS n_entered
            FROM days d
            CROSS JOIN LATERAL (VALUES
                ('day', d.day, d.source, d.cohort), ('month', date_trunc('month', d.day)::date, d.source, d.cohort),
                ('total', '-infinity', d.source, d.cohort), ('all', '-infinity', NULL, NULL)) AS s (span, day, source, cohort)
            GROUP BY s.span, d.kind, s.day, s.source, s.cohort, d.from_status, d.to_status, d.reached
        ), written AS (
            INSERT INTO %1$s AS f (span, kind, day, key, source, cohort, from_status, to_status, reached, n, n_new, n_again, n_left, n_entered)
            SELECT s.span, s.kind, s.day, lifecycle.flow_key(s.source, s.cohort, s.from_status, s.to_status, s.reached),
                   s.source, s.cohort, s.from_status, s.to_status, s.reached, s.n, s.n_new, s.n_again, s.n_left, s.n_entered
            FROM spans s
            WHERE (s.n, s.n_new, s.n_again, s.n_left, s.n_entered) <> (0, 0, 0, 0, 0)
            -- in the order of the index: what is read together lies together
            ORDER BY s.span COLLATE "C", s.kind COLLATE "C", s.day, 4
            ON CONFLICT (span, kind, day, key) DO UPDATE
            SET n = f.n + EXCLUDED.n, n_new = f.n_new + EXCLUDED.n_new, n_again = f.n_again + EXCLUDED.n_again,
                n_left = f.n_left + EXCLUDED.n_left, n_entered = f.n_entered + EXCLUDED.n_entered
            RETURNING f.ctid, (f.n, f.n_new, f.n_again, f.n_left, f.n_entered) = (0, 0, 0, 0, 0) AS empty
        )
        SELECT (SELECT count(*) FROM taken), array_agg(w.ctid) FILTER (WHERE w.empty) FROM written w$q$, program.flow)
    INTO merged, gone;
    IF gone IS NOT NULL THEN
        EXECUTE format('DELETE FROM %s f WHERE f.ctid = ANY ($1)', program.flow) USING gone;
    END IF;
    RETURN merged;
END
$$;

COMMENT ON FUNCTION lifecycle.merge_flow(lifecycle.program) IS
'Part of lifecycle.refresh(), which see: takes what statements appended to the flow, and adds it to the sums by day, month and in total, all in one statement, so that every snapshot sees it once. Gives the number of rows taken. Others that merge wait until the transaction ends; writers and readers do not.';
