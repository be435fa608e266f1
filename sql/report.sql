-- Reports, straight from the history.

CREATE FUNCTION lifecycle.in_order(done int, place int) RETURNS int
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_in_order';

COMMENT ON FUNCTION lifecycle.in_order(int, int) IS 'Transition function of lifecycle.path_in_order().';

CREATE AGGREGATE lifecycle.path_in_order(place int) (
    SFUNC = lifecycle.in_order, STYPE = int, INITCOND = '0'
);

COMMENT ON AGGREGATE lifecycle.path_in_order(int) IS
'How many stages of the path were visited in its order, from the first on. place: the place on the path, 1 for the first stage and NULL for a detour, in the order of the visits.';

CREATE FUNCTION lifecycle.readable_history(program lifecycle.program) RETURNS regclass
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT has_table_privilege(program.history, 'SELECT') THEN
        RAISE EXCEPTION 'permission denied for table %', (SELECT relname FROM pg_class WHERE oid = program.history)
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = format('The report reads the history of %s.', program.lead_table),
                  HINT = format('GRANT SELECT ON %s TO %I;', program.history, current_user);
    END IF;
    RETURN program.history;
END
$$;

COMMENT ON FUNCTION lifecycle.readable_history(lifecycle.program) IS
'Part of the reports: the history of a program, or 42501 with the GRANT that is missing.';

CREATE FUNCTION lifecycle.funnel_of_history(
    lead_table regclass, since timestamptz, until timestamptz, mode text, cycle text, by text)
    RETURNS TABLE (segment text, status text, rank int, reached bigint, of_which_inferred bigint,
                   next_step_rate double precision, cumulative_rate double precision)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    history regclass := lifecycle.readable_history(program);
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH stages AS (
            SELECT s.status, s.rank,
                   CASE WHEN s.rank IS NOT NULL THEN (row_number() OVER (ORDER BY s.rank))::int END AS place
            FROM lifecycle.stage s
            WHERE s.model = $1
        ), moves AS (
            SELECT h.lead, h.seq, h.cycle, h.to_status, h.entered_at, h.cycle_since,
                   %1$s AS segment,
                   lead(h.cause) OVER (PARTITION BY h.lead ORDER BY h.seq) AS next_cause
            FROM %2$s h
        ), visits AS (
            SELECT m.lead, m.seq, m.segment, %3$s AS unit, m.to_status AS status, s.place
            FROM moves m LEFT JOIN stages s ON s.status = m.to_status
            WHERE m.to_status IS NOT NULL AND m.next_cause IS DISTINCT FROM 'correction'
              AND %4$s >= $2 AND %4$s < $3 %5$s
        ), units AS (
            SELECT v.segment, max(v.place) AS furthest, lifecycle.path_in_order(v.place ORDER BY v.seq) AS in_order
            FROM visits v
            GROUP BY v.segment, v.lead, v.unit
        ), visited AS (
            SELECT d.segment, d.status, count(*) AS n
            FROM (SELECT DISTINCT v.segment, v.lead, v.unit, v.status FROM visits v) AS d
            GROUP BY d.segment, d.status
        ), segments AS (
            %6$s
        ), counted AS (
            SELECT g.segment, s.status, s.rank, s.place,
                   CASE WHEN s.place IS NULL OR $4 = 'any' THEN coalesce(v.n, 0)
                        ELSE (SELECT count(*) FROM units u
                              WHERE u.segment IS NOT DISTINCT FROM g.segment
                                AND CASE $4 WHEN 'filled' THEN u.furthest ELSE u.in_order END >= s.place)
                   END AS reached,
                   coalesce(v.n, 0) AS visited
            FROM segments g
            CROSS JOIN stages s
            LEFT JOIN visited v ON v.segment IS NOT DISTINCT FROM g.segment AND v.status = s.status
        )
        SELECT c.segment, c.status, c.rank, c.reached,
               CASE WHEN $4 = 'filled' AND c.place IS NOT NULL THEN c.reached - c.visited ELSE 0 END,
               CASE WHEN c.place IS NOT NULL THEN
                   c.reached / nullif(lag(c.reached) OVER (PARTITION BY c.segment ORDER BY c.place), 0)::double precision END,
               CASE WHEN c.place IS NOT NULL THEN
                   c.reached / nullif(first_value(c.reached) OVER (PARTITION BY c.segment ORDER BY c.place), 0)::double precision END
        FROM counted c
        ORDER BY c.segment COLLATE "C" NULLS FIRST, c.place, c.status COLLATE "C"$q$,
        CASE by WHEN 'source' THEN $s$coalesce(h.source, '(none)')$s$
                WHEN 'cohort' THEN $s$coalesce(h.cohort::text, '(none)')$s$
                ELSE 'NULL::text' END,
        history,
        CASE cycle WHEN 'every' THEN 'm.cycle' ELSE '1' END,
        CASE cycle WHEN 'every' THEN 'm.cycle_since' ELSE 'm.entered_at' END,
        CASE cycle WHEN 'first' THEN 'AND m.cycle = 1' ELSE '' END,
        CASE WHEN by IS NULL THEN 'SELECT NULL::text AS segment' ELSE 'SELECT DISTINCT u.segment FROM units u' END)
    USING program.model, since, until, mode;
END
$$;

COMMENT ON FUNCTION lifecycle.funnel_of_history(regclass, timestamptz, timestamptz, text, text, text) IS
'Part of lifecycle.funnel(), which see: the same, counted in the history. Errors: 55000 not tracked, 42501 no SELECT on the history.';

CREATE FUNCTION lifecycle.funnel(
    lead_table regclass, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity',
    mode text DEFAULT 'filled', cycle text DEFAULT 'ever', by text DEFAULT NULL)
    RETURNS TABLE (segment text, status text, rank int, reached bigint, of_which_inferred bigint,
                   next_step_rate double precision, cumulative_rate double precision)
    LANGUAGE c STABLE ROWS 20 AS 'MODULE_PATHNAME', 'lifecycle_funnel';

COMMENT ON FUNCTION lifecycle.funnel(regclass, timestamptz, timestamptz, text, text, text) IS
'How far the leads of the table came.
since, until: [since, until), tested on the first entry of the lead, or, with cycle => ''every'', on the start of the cycle.
mode: ''filled'' counts a stage that the lead passed over on its way further (of_which_inferred says how many of reached); ''any'' counts visits; ''ordered'' counts stages visited in the order of the path from the first on.
cycle: ''ever'' counts each lead once with all it ever reached, ''first'' with what its first cycle reached, ''every'' counts each cycle.
by: ''source'' or ''cohort'' of the first entry; NULL: one segment, named NULL, with all.
Result: segment (''(none)'' where the lead has none); status; rank on the path, NULL for detours, which are counted as visited; reached; of_which_inferred; next_step_rate = reached / reached at the stage before; cumulative_rate = reached / reached at the first stage; a rate over 0 is NULL. Visits that a correction voided are not counted.
Answered from <prefix>_flow where since and until begin days of the program''s time zone, and from the history where they do not, where mode is ''ordered'', and by source where there are more than 64. Needs SELECT on <prefix>_funnel, or on the flow or history; what the history answers, on that.
Errors: 55000 not tracked, 42501 no SELECT on the history, 22023 a wrong mode, cycle or by.';

CREATE FUNCTION lifecycle.funnel_of_flow(lead_table regclass)
    RETURNS TABLE (segment text, status text, rank int, reached bigint, of_which_inferred bigint,
                   next_step_rate double precision, cumulative_rate double precision)
    LANGUAGE c STABLE ROWS 200 AS 'MODULE_PATHNAME', 'lifecycle_funnel_of_flow';

COMMENT ON FUNCTION lifecycle.funnel_of_flow(regclass) IS
'What <prefix>_funnel shows: lifecycle.funnel() over all time, in total (segment NULL) and by source, from the flow alone. Beyond 64 sources the others are put together as ''(other)''. Errors: 55000 not tracked, 42501 no SELECT on the view, the flow or the history.';

CREATE FUNCTION lifecycle.buckets(since timestamptz, until timestamptz, step interval, tz text) RETURNS timestamptz[]
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most CONSTANT int := 100000;
    starts timestamptz[] := '{}';
    start timestamptz := since;
    n int := 0;
    -- the part of step that clocks measure, and that of the calendar
    clock interval := make_interval(hours => extract(hour FROM step)::int, mins => extract(minute FROM step)::int,
                                    secs => extract(microseconds FROM step) % 60000000 / 1000000);
    days interval := step - clock;
BEGIN
    IF since IS NULL OR until IS NULL OR NOT isfinite(since) OR NOT isfinite(until) THEN
        RAISE EXCEPTION 'since and until must be finite'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'The report has a row for each step between them.';
    END IF;
    IF step IS NULL OR since + step <= since THEN
        RAISE EXCEPTION 'step must be positive, not "%"', coalesce(step::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM since AT TIME ZONE tz;      -- an error where there is no such zone
    WHILE start < until LOOP
        IF n = most THEN
            RAISE EXCEPTION 'more than % steps between % and %', most, since, until
                USING ERRCODE = 'program_limit_exceeded', HINT = 'Take a longer step.';
        END IF;
        starts[n + 1] := start;
        n := n + 1;
        -- by the calendar of the time zone a day may have 23 or 25 hours; an hour is an hour
        start := greatest(CASE days WHEN interval '0' THEN since ELSE ((since AT TIME ZONE tz) + n * days) AT TIME ZONE tz END + n * clock,
                          start + interval '1 microsecond');
    END LOOP;
    RETURN starts;
END
$$;

COMMENT ON FUNCTION lifecycle.buckets(timestamptz, timestamptz, interval, text) IS
'Part of the reports: the starts of the steps from since to until, by the calendar of the time zone.';

CREATE FUNCTION lifecycle.steps_of_history(lead_table regclass, starts timestamptz[], until timestamptz)
    RETURNS TABLE (bucket timestamptz, status text, rank int, opening bigint, inflow bigint, inflow_new bigint,
                   inflow_again bigint, outflow bigint, closing bigint)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    history regclass := lifecycle.readable_history(program);
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH moves AS (
            SELECT h.lead, h.seq, h.from_status, h.to_status, h.at, h.cause,
                   lead(h.cause) OVER (PARTITION BY h.lead ORDER BY h.seq) IS NOT DISTINCT FROM 'correction' AS void
            FROM %s h
        ), numbered AS (
            SELECT m.*, CASE WHEN m.to_status IS NOT NULL AND NOT m.void THEN
                       row_number() OVER (PARTITION BY m.lead, m.to_status, m.void ORDER BY m.seq) END AS visit
            FROM moves m
        ), changes AS (
            SELECT n.to_status AS status, width_bucket(n.at, $2) AS bucket,
                   1 AS inflow, CASE WHEN n.visit = 1 THEN 1 ELSE 0 END AS fresh,
                   CASE WHEN n.visit > 1 THEN 1 ELSE 0 END AS again, 0 AS outflow
            FROM numbered n WHERE n.to_status IS NOT NULL AND n.at < $3
            UNION ALL
            SELECT n.from_status, width_bucket(n.at, $2), 0, 0, 0, 1
            FROM numbered n WHERE n.from_status IS NOT NULL AND n.at < $3
        ), summed AS (
            SELECT c.status, c.bucket, sum(c.inflow) AS inflow, sum(c.fresh) AS fresh,
                   sum(c.again) AS again, sum(c.outflow) AS outflow
            FROM changes c GROUP BY c.status, c.bucket
        ), stages AS (
            SELECT s.status, s.rank FROM lifecycle.stage s WHERE s.model = $1
            UNION ALL
            SELECT DISTINCT d.status, NULL::int FROM summed d
            WHERE d.status NOT IN (SELECT s.status FROM lifecycle.stage s WHERE s.model = $1)
        ), grid AS (
            SELECT g.bucket, s.status, s.rank, coalesce(d.inflow, 0) AS inflow, coalesce(d.fresh, 0) AS fresh,
                   coalesce(d.again, 0) AS again, coalesce(d.outflow, 0) AS outflow
            FROM generate_series(0, cardinality($2)) AS g (bucket)
            CROSS JOIN stages s
            LEFT JOIN summed d ON d.status = s.status AND d.bucket = g.bucket
        ), balanced AS (
            SELECT g.*, sum(g.inflow - g.outflow) OVER (PARTITION BY g.status ORDER BY g.bucket) AS closing
            FROM grid g
        )
        SELECT ($2)[b.bucket], b.status, b.rank, (b.closing - b.inflow + b.outflow)::bigint, b.inflow::bigint,
               b.fresh::bigint, b.again::bigint, b.outflow::bigint, b.closing::bigint
        FROM balanced b
        WHERE b.bucket > 0
        ORDER BY b.bucket, b.rank, b.status COLLATE "C"$q$, history)
    USING program.model, starts, until;
END
$$;

COMMENT ON FUNCTION lifecycle.steps_of_history(regclass, timestamptz[], timestamptz) IS
'Part of lifecycle.flow(), which see: the same, counted in the history. starts: when each step begins; until: when the last ends. Errors: 55000 not tracked, 42501 no SELECT on the history.';

CREATE FUNCTION lifecycle.flow(
    lead_table regclass, since timestamptz, until timestamptz,
    step interval DEFAULT '1 day', tz text DEFAULT NULL)
    RETURNS TABLE (bucket timestamptz, status text, rank int, opening bigint, inflow bigint, inflow_new bigint,
                   inflow_again bigint, outflow bigint, closing bigint)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'lifecycle_flow';

COMMENT ON FUNCTION lifecycle.flow(regclass, timestamptz, timestamptz, interval, text) IS
'Who came and went: for each step of [since, until) and each status, closing = opening + inflow - outflow, exactly.
step: the length of a bucket, by the calendar of the time zone tz (by default the program''s).
Result: bucket, its start; status; rank, NULL for detours and for statuses that the model no longer has; opening, leads inside just before the bucket; inflow, visits that begin in it, of which inflow_new for the first time of the lead and inflow_again not; outflow, visits that end in it; closing, leads inside just before its end. A visit of no length counts once in and once out; one that a correction voided is neither new nor again.
Errors: 55000 not tracked, 42501 no SELECT on the history, 22023 bounds that are not finite or a step that is not positive, 54000 more than 100000 steps.';

CREATE FUNCTION lifecycle.conversion_of_history(program lifecycle.program, history regclass, since timestamptz, until timestamptz)
    RETURNS TABLE (from_status text, to_status text, moves bigint, period_rate double precision, exit_share double precision)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH counted AS (
            SELECT h.from_status, h.to_status, before.lead IS NULL AND h.from_status IS NOT NULL AS leaves, count(*) AS n
            FROM %1$s h
            LEFT JOIN %1$s before ON before.lead = h.lead AND before.seq = h.seq - 1 AND before.cause = 'backfill'
            WHERE h.at >= $2 AND h.at < $3 AND h.cause NOT IN ('correction', 'backfill')
              AND NOT EXISTS (SELECT FROM %1$s after WHERE after.lead = h.lead AND after.seq = h.seq + 1 AND after.cause = 'correction')
            GROUP BY 1, 2, 3
        ), entered AS (
            SELECT c.to_status AS status, sum(c.n)::double precision AS n FROM counted c GROUP BY c.to_status
        ), passages AS (
            SELECT c.from_status, c.to_status, c.n FROM counted c WHERE c.leaves
        )
        SELECT p.from_status, p.to_status, p.n, p.n / e.n,
               p.n / (sum(p.n) OVER (PARTITION BY p.from_status))::double precision
        FROM passages p
        LEFT JOIN entered e ON e.status = p.from_status
        LEFT JOIN lifecycle.stage f ON f.model = $1 AND f.status = p.from_status
        LEFT JOIN lifecycle.stage t ON t.model = $1 AND t.status = p.to_status
        ORDER BY f.rank, p.from_status COLLATE "C", p.to_status IS NULL, t.rank, p.to_status COLLATE "C"$q$, history)
    USING program.model, since, until;
END
$$;

COMMENT ON FUNCTION lifecycle.conversion_of_history(lifecycle.program, regclass, timestamptz, timestamptz) IS
'Part of lifecycle.conversion(), which see: the same, counted in the history.';

CREATE FUNCTION lifecycle.conversion(
    lead_table regclass, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity')
    RETURNS TABLE (from_status text, to_status text, moves bigint, period_rate double precision, exit_share double precision)
    LANGUAGE c STABLE ROWS 50 AS 'MODULE_PATHNAME', 'lifecycle_conversion';

COMMENT ON FUNCTION lifecycle.conversion(regclass, timestamptz, timestamptz) IS
'Where the leads of each status went in [since, until).
Result: from_status; to_status, NULL for removals; moves from the one to the other in the period; period_rate = moves / inflow of from_status in the period: the people above and below differ, and it can exceed 1; exit_share = moves / all that left from_status in the period, which sums to 1. A rate over 0 is NULL. By rank, detours by name, removals last.
Of a visit that a correction voided neither the move that opened it nor the correction counts, above or below. Moves that lifecycle.backfill() guessed are no conversion, nor is leaving a visit that it opened.
Answered from <prefix>_flow where since and until begin days of the program''s time zone, else from the history. Needs SELECT on <prefix>_funnel, or on the flow or history; what the history answers, on that.
Errors: 55000 not tracked, 42501 no SELECT on the history.';
