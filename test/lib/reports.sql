-- A second opinion on the reports: each of them again, over nothing but the rows
-- of a history, as the definitions say it and without any thought for speed. What
-- the reports of the extension say must be what these say. To be read in with
-- \ir ../lib/reports.sql.
--
-- They take the history and the name of the model where the extension's take the
-- lead table, and give the same columns. Statuses that the model does not have
-- are in flow(), and there in every bucket, in conversion(), and, where they had
-- visits in the period, in time_in_status(). jit is off: for a few thousand rows
-- the server would compile longer than it counts.

CREATE SCHEMA naive;

-- A move, and what became of the visit that it opened. "removed": the visit
-- ended with the lead. "void": it was a mistake, and a correction closed it.
CREATE TYPE naive.move AS (
    lead text, seq int, cycle int, from_status text, to_status text, at timestamptz, cause text,
    left_at timestamptz, removed boolean, void boolean,
    from_guessed boolean, entered timestamptz, source text, cohort text);

CREATE FUNCTION naive.moves(history regclass) RETURNS SETOF naive.move
    LANGUAGE plpgsql STABLE SET jit = off
AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        SELECT h.lead::text, h.seq, h.cycle, h.from_status, h.to_status, h.at, h.cause,
               next.at, next.lead IS NOT NULL AND next.to_status IS NULL, coalesce(next.cause = 'correction', false),
               coalesce(before.cause = 'backfill', false), first.at, first.source, first.cohort::text
        FROM %1$s h
        JOIN %1$s first ON first.lead = h.lead AND first.seq = 1
        LEFT JOIN %1$s before ON before.lead = h.lead AND before.seq = h.seq - 1
        LEFT JOIN %1$s next ON next.lead = h.lead AND next.seq = h.seq + 1
        ORDER BY 1, 2 $q$, history);
END
$$;

CREATE FUNCTION naive.path(model text) RETURNS text[]
    LANGUAGE sql STABLE
    RETURN (SELECT coalesce(array_agg(s.status ORDER BY s.rank), '{}') FROM lifecycle.stage s WHERE s.model = path.model AND s.rank IS NOT NULL);

-- ---- funnel ----

-- Which stages one unit reached, by the statuses that it visited in their order.
CREATE FUNCTION naive.reached(visited text[], path text[], mode text)
    RETURNS TABLE (status text, inferred boolean)
    LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    furthest int := 0;
    in_order int := 0;
    visit text;
BEGIN
    FOREACH visit IN ARRAY visited LOOP
        furthest := greatest(furthest, array_position(path, visit));
        IF visit = path[in_order + 1] THEN
            in_order := in_order + 1;
        END IF;
    END LOOP;
    FOR place IN 1 .. cardinality(path) LOOP
        status := path[place];
        IF (CASE mode WHEN 'filled' THEN place <= furthest
                      WHEN 'any' THEN status = ANY (visited)
                      WHEN 'ordered' THEN place <= in_order END) THEN
            inferred := status <> ALL (visited);
            RETURN NEXT;
        END IF;
    END LOOP;
    inferred := false;
    FOREACH visit IN ARRAY ARRAY(SELECT DISTINCT v FROM unnest(visited) AS v WHERE v <> ALL (path)) LOOP
        status := visit;
        RETURN NEXT;
    END LOOP;
END
$$;

CREATE FUNCTION naive.funnel(
    history regclass, model text, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity',
    mode text DEFAULT 'filled', cycle text DEFAULT 'ever', by text DEFAULT NULL)
    RETURNS TABLE (segment text, status text, rank int, reached bigint, of_which_inferred bigint,
                   next_step_rate double precision, cumulative_rate double precision)
    LANGUAGE sql STABLE SET jit = off
AS $$
    WITH units AS (
        SELECT CASE by WHEN 'source' THEN coalesce(m.source, '(none)') WHEN 'cohort' THEN coalesce(m.cohort, '(none)') END AS segment,
               coalesce(array_agg(m.to_status ORDER BY m.seq) FILTER (WHERE m.to_status IS NOT NULL AND NOT m.void), '{}') AS visited
        FROM naive.moves(history) m
        WHERE funnel.cycle <> 'first' OR m.cycle = 1
        GROUP BY m.lead, CASE funnel.cycle WHEN 'every' THEN m.cycle END, m.source, m.cohort
        -- a unit's first move is its lead's first entry, or the start of its cycle
        HAVING min(m.at) >= since AND min(m.at) < until
    ), segments AS (
        SELECT DISTINCT u.segment FROM units u
        UNION SELECT NULL WHERE by IS NULL
    ), counts AS (
        SELECT u.segment, r.status, count(*) AS reached, count(*) FILTER (WHERE r.inferred) AS inferred
        FROM units u CROSS JOIN LATERAL naive.reached(u.visited, naive.path(model), mode) AS r
        GROUP BY u.segment, r.status
    ), rows AS (
        SELECT g.segment, s.status, s.rank, coalesce(c.reached, 0) AS reached, coalesce(c.inferred, 0) AS inferred
        FROM segments g
        JOIN lifecycle.stage s ON s.model = funnel.model
        LEFT JOIN counts c ON c.segment IS NOT DISTINCT FROM g.segment AND c.status = s.status
    )
    SELECT r.segment, r.status, r.rank, r.reached, r.inferred,
           CASE WHEN r.rank IS NOT NULL THEN
               r.reached::double precision / nullif((SELECT b.reached FROM rows b WHERE b.segment IS NOT DISTINCT FROM r.segment AND b.rank < r.rank ORDER BY b.rank DESC LIMIT 1), 0) END,
           CASE WHEN r.rank IS NOT NULL THEN
               r.reached::double precision / nullif((SELECT b.reached FROM rows b WHERE b.segment IS NOT DISTINCT FROM r.segment AND b.rank IS NOT NULL ORDER BY b.rank LIMIT 1), 0) END
    FROM rows r
    ORDER BY r.segment COLLATE "C", r.rank, r.status COLLATE "C"
$$;

-- ---- flow ----

-- Steps by the calendar and the clock of the time zone, counted from since: the
-- server's own addition, as it would be in a session there.
CREATE FUNCTION naive.buckets(since timestamptz, until timestamptz, step interval, tz text)
    RETURNS TABLE (opens timestamptz, closes timestamptz)
    LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    session_tz text := current_setting('timezone');
    n int := 0;
BEGIN
    PERFORM set_config('timezone', tz, true);
    WHILE since + n * step < until LOOP
        opens := since + n * step;
        closes := least(since + (n + 1) * step, until);
        RETURN NEXT;
        n := n + 1;
    END LOOP;
    PERFORM set_config('timezone', session_tz, true);
END
$$;

CREATE FUNCTION naive.flow(history regclass, model text, since timestamptz, until timestamptz, step interval DEFAULT '1 day', tz text DEFAULT 'UTC')
    RETURNS TABLE (bucket timestamptz, status text, rank int, opening bigint, inflow bigint, inflow_new bigint,
                   inflow_again bigint, outflow bigint, closing bigint)
    LANGUAGE sql VOLATILE SET jit = off
AS $$
    WITH visits AS MATERIALIZED (
        SELECT m.to_status AS status, m.at AS t_in, m.left_at AS t_out, m.void,
               coalesce(bool_or(NOT m.void) OVER (PARTITION BY m.lead, m.to_status ORDER BY m.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false) AS again
        FROM naive.moves(history) m
        WHERE m.to_status IS NOT NULL
    ), statuses AS (
        SELECT s.status, s.rank FROM lifecycle.stage s WHERE s.model = flow.model
        UNION
        SELECT v.status, NULL FROM visits v WHERE NOT EXISTS (SELECT FROM lifecycle.stage s WHERE s.model = flow.model AND s.status = v.status)
    )
    SELECT b.opens, s.status, s.rank,
           count(*) FILTER (WHERE v.t_in < b.opens AND (v.t_out IS NULL OR b.opens <= v.t_out)),
           count(*) FILTER (WHERE v.t_in >= b.opens AND v.t_in < b.closes),
           count(*) FILTER (WHERE v.t_in >= b.opens AND v.t_in < b.closes AND NOT v.void AND NOT v.again),
           count(*) FILTER (WHERE v.t_in >= b.opens AND v.t_in < b.closes AND NOT v.void AND v.again),
           count(*) FILTER (WHERE v.t_out >= b.opens AND v.t_out < b.closes),
           count(*) FILTER (WHERE v.t_in < b.closes AND (v.t_out IS NULL OR b.closes <= v.t_out))
    FROM naive.buckets(since, until, step, tz) AS b
    CROSS JOIN statuses s
    LEFT JOIN visits v USING (status)
    GROUP BY b.opens, s.status, s.rank
    ORDER BY b.opens, s.rank, s.status COLLATE "C"
$$;

-- ---- conversion ----

-- A visit that was guessed (backfill) is not in it, neither when it opens nor
-- when it closes; nor the two moves of a mistake.
CREATE FUNCTION naive.conversion(history regclass, model text, since timestamptz, until timestamptz)
    RETURNS TABLE (from_status text, to_status text, moves bigint, period_rate double precision, exit_share double precision)
    LANGUAGE sql STABLE SET jit = off
AS $$
    WITH moves AS MATERIALIZED (
        SELECT * FROM naive.moves(history) m
        WHERE m.at >= since AND m.at < until AND m.cause <> 'correction' AND NOT m.void AND m.cause <> 'backfill'
    ), exits AS (
        SELECT m.from_status, m.to_status, count(*) AS n FROM moves m
        WHERE m.from_status IS NOT NULL AND NOT m.from_guessed GROUP BY 1, 2
    )
    SELECT e.from_status, e.to_status, e.n,
           e.n / nullif((SELECT count(*) FROM moves m WHERE m.to_status = e.from_status), 0)::double precision,
           e.n / (SELECT sum(o.n) FROM exits o WHERE o.from_status = e.from_status)::double precision
    FROM exits e
    LEFT JOIN lifecycle.stage f ON f.model = conversion.model AND f.status = e.from_status
    LEFT JOIN lifecycle.stage t ON t.model = conversion.model AND t.status = e.to_status
    ORDER BY f.rank, e.from_status COLLATE "C", t.rank, e.to_status COLLATE "C"
$$;

-- ---- survival ----

-- Kaplan and Meier's product up to a time, as a fraction of whole numbers, so
-- that no rounding decides whether it is a half. At one time, who ended was
-- still at risk when others were lost from sight.
CREATE FUNCTION naive.survival(lasted interval[], ended boolean[], upto interval)
    RETURNS TABLE (t interval, over numeric, under numeric)
    LANGUAGE plpgsql IMMUTABLE SET jit = off
AS $$
DECLARE
    at_risk bigint;
    events bigint;
BEGIN
    over := 1;
    under := 1;
    FOR t IN SELECT DISTINCT u.d FROM unnest(lasted, ended) AS u (d, e) WHERE u.e AND (upto IS NULL OR u.d <= upto) ORDER BY 1 LOOP
        SELECT count(*), count(*) FILTER (WHERE u.e AND u.d = t) INTO at_risk, events
        FROM unnest(lasted, ended) AS u (d, e) WHERE u.d >= t;
        over := over * (at_risk - events);
        under := under * at_risk;
        RETURN NEXT;
    END LOOP;
END
$$;

CREATE FUNCTION naive.entry_conversion(
    history regclass, model text, from_status text, to_status text, since timestamptz, until timestamptz,
    within interval DEFAULT NULL, as_of timestamptz DEFAULT now())
    RETURNS TABLE (n bigint, converted bigint, matured bigint, rate double precision, matured_rate double precision, km_rate double precision)
    LANGUAGE plpgsql STABLE SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    goals text[] := ARRAY(
        SELECT to_status
        UNION
        SELECT s.status FROM lifecycle.stage s WHERE s.model = model
        AND s.rank > (SELECT g.rank FROM lifecycle.stage g WHERE g.model = model AND g.status = to_status));
    moves naive.move[];
    move naive.move;
    first naive.move;
    event interval;
    removal interval;
    lasted interval[] := '{}';
    ended boolean[] := '{}';
    matured_converted bigint := 0;
    is_matured boolean;
BEGIN
    n := 0;
    converted := 0;
    matured := 0;
    FOR moves IN SELECT array_agg(m ORDER BY m.seq) FROM naive.moves(history) m GROUP BY m.lead LOOP
        first := NULL;
        event := NULL;
        removal := NULL;
        FOREACH move IN ARRAY moves LOOP
            IF first.lead IS NULL THEN
                IF move.to_status = from_status AND NOT move.void THEN
                    first := move;
                END IF;
            ELSIF move.at > as_of THEN
                EXIT;
            ELSIF move.to_status IS NULL AND event IS NULL AND removal IS NULL THEN
                removal := move.at - first.at;
            ELSIF move.to_status = ANY (goals) AND NOT move.void AND move.cause <> 'backfill' AND event IS NULL THEN
                event := move.at - first.at;
            END IF;
        END LOOP;
        CONTINUE WHEN first.lead IS NULL OR first.cause = 'backfill' OR first.at < since OR first.at >= until OR first.at > as_of;
        is_matured := as_of - first.at >= within;
        n := n + 1;
        IF event IS NOT NULL AND (within IS NULL OR event <= within) THEN
            converted := converted + 1;
            matured_converted := matured_converted + is_matured::int;
        END IF;
        matured := matured + is_matured::int;
        lasted := lasted || coalesce(removal, event, as_of - first.at);
        ended := ended || (event IS NOT NULL AND removal IS NULL);
    END LOOP;
    rate := converted::double precision / nullif(n, 0);
    IF within IS NULL THEN
        matured := NULL;
    ELSE
        matured_rate := matured_converted::double precision / nullif(matured, 0);
    END IF;
    IF n > 0 THEN
        km_rate := coalesce((SELECT 1 - s.over / s.under FROM naive.survival(lasted, ended, within) AS s ORDER BY s.t DESC LIMIT 1), 0);
    END IF;
    RETURN NEXT;
END
$$;

CREATE FUNCTION naive.time_in_status(history regclass, model text, since timestamptz, until timestamptz, as_of timestamptz DEFAULT now())
    RETURNS TABLE (status text, rank int, completed bigint, inside bigint, mean interval, p50 interval, p75 interval, p90 interval, km_median interval)
    LANGUAGE sql STABLE SET jit = off
AS $$
    WITH visits AS (
        SELECT m.to_status AS status, least(m.left_at, as_of) - m.at AS lasted,
               m.left_at IS NOT NULL AND m.left_at <= as_of AND NOT m.removed AS completed,
               m.left_at IS NULL OR m.left_at > as_of AS inside
        FROM naive.moves(history) m
        WHERE m.to_status IS NOT NULL AND NOT m.void AND m.cause <> 'backfill' AND m.at >= since AND m.at < until AND m.at <= as_of
    )
    SELECT s.status, s.rank, count(*) FILTER (WHERE v.completed), count(*) FILTER (WHERE v.inside),
           avg(v.lasted) FILTER (WHERE v.completed),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY v.lasted) FILTER (WHERE v.completed),
           percentile_cont(0.75) WITHIN GROUP (ORDER BY v.lasted) FILTER (WHERE v.completed),
           percentile_cont(0.9) WITHIN GROUP (ORDER BY v.lasted) FILTER (WHERE v.completed),
           (SELECT k.t FROM naive.survival(array_agg(v.lasted), array_agg(v.completed), NULL) AS k WHERE k.over * 2 <= k.under ORDER BY k.t LIMIT 1)
    FROM (SELECT g.status, g.rank FROM lifecycle.stage g WHERE g.model = time_in_status.model
          UNION
          SELECT DISTINCT o.status, NULL::int FROM visits o
          WHERE NOT EXISTS (SELECT FROM lifecycle.stage g WHERE g.model = time_in_status.model AND g.status = o.status)) AS s
    LEFT JOIN visits v USING (status)
    GROUP BY s.status, s.rank
    ORDER BY s.rank, s.status COLLATE "C"
$$;
