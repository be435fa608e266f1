-- The decay of points.

CREATE FUNCTION lifecycle.decayed(points double precision, age interval, half_life interval) RETURNS double precision
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_decayed';

COMMENT ON FUNCTION lifecycle.decayed(double precision, interval, interval) IS
'What points are worth at an age: points * 2^(-age / half_life). A half_life of NULL: they do not decay. Months count 30 days, days 24 hours. 25 points with a half-life of 14 days are 12.5 after 14 days and 6.25 after 28. Errors: 22023 a half-life that is not greater than zero.';

CREATE FUNCTION lifecycle.decayed_sum_add(
    sum double precision, points double precision, at timestamptz, half_life interval, as_of timestamptz)
    RETURNS double precision
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_decayed_sum_add';

COMMENT ON FUNCTION lifecycle.decayed_sum_add(double precision, double precision, timestamptz, interval, timestamptz) IS
'Transition function of lifecycle.decayed_sum(), which see.';

CREATE AGGREGATE lifecycle.decayed_sum(points double precision, at timestamptz, half_life interval, as_of timestamptz) (
    SFUNC = lifecycle.decayed_sum_add,
    STYPE = double precision,
    INITCOND = '0',
    COMBINEFUNC = pg_catalog.float8pl,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE lifecycle.decayed_sum(double precision, timestamptz, interval, timestamptz) IS
'The sum of points, each dated at its time and decayed with its half-life, as of an instant; 0 for none. What is dated after as_of, and rows with a NULL in points, at or as_of, do not count. Errors: 22023 a half-life that is not greater than zero, 22008 an infinite time.';

CREATE FUNCTION lifecycle.first_below(
    points double precision[], half_lives interval[], value double precision, since timestamptz) RETURNS timestamptz
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_first_below';

COMMENT ON FUNCTION lifecycle.first_below(double precision[], interval[], double precision, timestamptz) IS
'Part of lifecycle.behavior_falls_below(), which see: when the sum of points, worth that much at "since" and decaying with a half-life each (0: they do not), falls below the value for the first time from then on; NULL where it is below already, or never will be. Errors: 22023 what is not a number or a time, 2202E not as many half-lives as points.';

CREATE FUNCTION lifecycle.readable_behavior(program lifecycle.program) RETURNS regclass
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF program.behavior IS NOT NULL AND NOT has_table_privilege(program.behavior, 'SELECT') THEN
        RAISE EXCEPTION 'permission denied for table %', (SELECT c.relname FROM pg_class c WHERE c.oid = program.behavior)
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = format('It has the behaviour scores of the leads of %s.', program.lead_table),
                  HINT = format('GRANT SELECT ON %s TO %I;', program.behavior, current_user);
    END IF;
    RETURN program.behavior;
END
$$;

COMMENT ON FUNCTION lifecycle.readable_behavior(lifecycle.program) IS
'Part of lifecycle.behavior_score(), which see: the program''s table of points, NULL where it has no signals, or 42501 with the GRANT that is missing.';

CREATE FUNCTION lifecycle.points_of_lead(program lifecycle.program) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key_type text;
BEGIN
    -- without the type's length: a cast to one cuts the value
    SELECT format_type(a.atttypid, -1) INTO key_type
    FROM pg_attribute a WHERE a.attrelid = program.lead_table AND a.attname = program.key;
    RETURN format('%s AS b WHERE b.lead %s $1::%s', program.behavior,
                  lifecycle.key_operator(program.lead_table, program.key, 3), key_type);
END
$$;

COMMENT ON FUNCTION lifecycle.points_of_lead(lifecycle.program) IS
'Part of lifecycle.behavior_score(), which see: what follows FROM to read the points of the lead whose key, as text, is $1.';

CREATE FUNCTION lifecycle.behavior_score(lead_table regclass, lead text, at timestamptz DEFAULT pg_catalog.now())
    RETURNS double precision
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    behavior regclass := lifecycle.readable_behavior(program);
    score double precision;
    known_since timestamptz;
BEGIN
    IF lead IS NULL OR at IS NULL THEN
        RAISE EXCEPTION 'lead and at must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF NOT isfinite(at) THEN
        RAISE EXCEPTION 'a score is one of an instant, not of %', at USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF behavior IS NULL THEN
        RETURN 0;
    END IF;
    EXECUTE format($q$SELECT lifecycle.decayed_sum(b.points, b.at, nullif(b.half_life, '0'), $2), max(b.at) FROM %s$q$,
                   lifecycle.points_of_lead(program))
    INTO score, known_since USING lead, at;
    -- what the points were before their last change is nowhere but in the signals
    IF at < known_since THEN
        RETURN lifecycle.behavior_score_from_signals(lead_table, lead, at);
    END IF;
    RETURN score;
END
$$;

CREATE FUNCTION lifecycle.behavior_score(lead_table regclass, lead anyelement, at timestamptz DEFAULT pg_catalog.now())
    RETURNS double precision
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN lifecycle.behavior_score(lead_table, lead::text, at);
END
$$;

COMMENT ON FUNCTION lifecycle.behavior_score(regclass, text, timestamptz) IS
'The behaviour score of a lead at an instant, by default now: what the points that its signals gave are worth then. A lead that is not known, or has no signals, has 0. For an instant before the lead''s last signal, or in the time before its last restart, it is computed from the rows of the signal tables that are there now.
lead: the key, as text. Needs SELECT on <prefix>_behavior. Errors: 42501 no SELECT, 55000 the table is not tracked, 22004 an argument is null, 22023 an infinite time, and what is wrong with the text as a key.';
COMMENT ON FUNCTION lifecycle.behavior_score(regclass, anyelement, timestamptz) IS
'The same with the key in its own type.';

CREATE FUNCTION lifecycle.behavior_falls_below(lead_table regclass, lead text, value double precision) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    behavior regclass := lifecycle.readable_behavior(program);
    instant timestamptz;
    points double precision[] := '{}';
    half_lives interval[] := '{}';
BEGIN
    IF lead IS NULL OR value IS NULL THEN
        RAISE EXCEPTION 'lead and value must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF value = 'NaN' THEN
        RAISE EXCEPTION 'value must be a number' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF behavior IS NULL THEN
        RETURN NULL;
    END IF;
    -- other transactions may have written since ours began
    EXECUTE format($q$
        SELECT max(p.instant), array_agg(lifecycle.decayed(p.points, p.instant - p.at, nullif(p.half_life, '0'))), array_agg(p.half_life)
        FROM (SELECT b.points, b.at, b.half_life, greatest(now(), max(b.at) OVER ()) AS instant FROM %s) AS p$q$,
        lifecycle.points_of_lead(program))
    INTO instant, points, half_lives USING lead;
    RETURN lifecycle.first_below(points, half_lives, value, instant);
END
$$;

CREATE FUNCTION lifecycle.behavior_falls_below(lead_table regclass, lead anyelement, value double precision) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN lifecycle.behavior_falls_below(lead_table, lead::text, value);
END
$$;

COMMENT ON FUNCTION lifecycle.behavior_falls_below(regclass, text, double precision) IS
'When the behaviour score of a lead will fall below the value, if nothing else happens: the first microsecond from now on. NULL where it is below already, or never will be. With one half-life that is the time at which it is S0, plus the half-life times log2(S0 / value); with several, and with points that do not decay or are negative, it is found by bisection.
lead: the key, as text. Needs SELECT on <prefix>_behavior. Errors: 42501 no SELECT, 55000 the table is not tracked, 22004 an argument is null, 22023 a value that is no number, and what is wrong with the text as a key.';
COMMENT ON FUNCTION lifecycle.behavior_falls_below(regclass, anyelement, double precision) IS
'The same with the key in its own type.';

CREATE FUNCTION lifecycle.hottest_statements(lead_table regclass, OUT half_lives text, OUT top text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    equal text := lifecycle.key_operator(lead_table, program.key, 3);
    worth CONSTANT text := $w$lifecycle.decayed(b.points, greatest($3 - b.at, '0'), nullif(b.half_life, '0'))$w$;
    -- what the points are worth at most, by their place in the order; kept within the range of power()
    bound CONSTANT text := $w$CASE WHEN b.half_life = '0' THEN b.heat
                     ELSE power(2::float8, least(1023, greatest(-1000,
                              b.heat - extract(epoch FROM $3 - timestamptz '2000-01-01 00:00+00')::float8
                                       / nullif(extract(epoch FROM b.half_life), 0)::float8))) END$w$;
BEGIN
    half_lives := format($q$
        WITH RECURSIVE h (half_life) AS (
            (SELECT b.half_life FROM %1$s b ORDER BY b.half_life LIMIT 1)
            UNION ALL
            SELECT (SELECT b.half_life FROM %1$s b WHERE b.half_life > h.half_life ORDER BY b.half_life LIMIT 1)
            FROM h WHERE h.half_life IS NOT NULL
        )
        SELECT array_agg(h.half_life) FROM h WHERE h.half_life IS NOT NULL$q$, program.behavior);
    top := format($q$
        WITH top AS MATERIALIZED (
            SELECT h.half_life, t.lead, t.bound
            FROM unnest($1) AS h (half_life)
            CROSS JOIN LATERAL (
                SELECT b.lead, %6$s AS bound
                FROM %1$s b
                WHERE b.half_life = h.half_life AND b.heat IS NOT NULL
                  AND EXISTS (SELECT FROM %2$s l WHERE l.%5$I %3$s b.lead)
                ORDER BY b.heat DESC NULLS LAST
                LIMIT $2) AS t
        ), total AS MATERIALIZED (
            SELECT c.lead, (SELECT sum(%4$s) FROM %1$s b WHERE b.lead %3$s c.lead) AS score
            FROM (SELECT DISTINCT p.lead FROM top p) AS c
        ), best AS (
            SELECT t.lead, t.score FROM total t WHERE t.score > 0 ORDER BY t.score DESC, t.lead LIMIT $4
        )
        SELECT array_agg(b.lead::text ORDER BY b.score DESC, b.lead), array_agg(b.score ORDER BY b.score DESC, b.lead),
               (SELECT coalesce(sum(e.least), 0)
                FROM (SELECT min(p.bound) AS least FROM top p GROUP BY p.half_life HAVING count(*) = $2) AS e)
        FROM best b$q$,
        program.behavior, program.lead_table, equal, worth, program.key, bound);
END
$$;

COMMENT ON FUNCTION lifecycle.hottest_statements(regclass) IS
'Part of lifecycle.hottest(), which see: the statements by which it reads. half_lives: those that there are, by a look into the index for each. top: of the $2 first leads of each of the half-lives $1, at the instant $3, the $4 with the highest total scores: keys, scores, and what a lead that was not looked at has at most.';

CREATE FUNCTION lifecycle.hottest(lead_table regclass, n int DEFAULT 100)
    RETURNS TABLE (lead text, behavior_score double precision)
    LANGUAGE plpgsql STABLE ROWS 100 SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    behavior regclass := lifecycle.readable_behavior(program);
    statements record;
    half_lives interval[];
    depth bigint := n;
    leads text[];
    scores double precision[];
    unseen double precision;
BEGIN
    IF n IS NULL OR n < 0 THEN
        RAISE EXCEPTION 'n must not be negative or null' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF behavior IS NULL OR n = 0 THEN
        RETURN;
    END IF;
    SELECT * INTO statements FROM lifecycle.hottest_statements(lead_table);
    EXECUTE statements.half_lives INTO half_lives;
    LOOP
        EXECUTE statements.top INTO leads, scores, unseen USING half_lives, depth, now(), n;
        -- nobody who was not looked at can be hotter than the last of these
        EXIT WHEN unseen = 0 OR scores[n] >= unseen;
        depth := depth * 2;
    END LOOP;
    RETURN QUERY SELECT r.lead, r.score FROM unnest(leads, scores) WITH ORDINALITY AS r (lead, score, place) ORDER BY r.place;
END
$$;

COMMENT ON FUNCTION lifecycle.hottest(regclass, int) IS
'The n leads with the highest behaviour scores now, highest first, of those with a score greater than zero; keys that have points but no lead are not among them. lead: the key, as text. Reads the index of <prefix>_behavior on (half_life, heat), whose order does not change as time passes: with one half-life n entries of it or somewhat more, since the order there is rough; with several as many of each as it takes to be sure.
Needs SELECT on <prefix>_behavior and on the key of the leads. Errors: 42501 no SELECT, 55000 the table is not tracked, 22023 n is negative or null.';
