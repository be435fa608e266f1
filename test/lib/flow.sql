-- Whether all that the flow of a lead table says is what its history says, under
-- one snapshot: that of the statement that asks. To be read in with
-- \ir ../lib/flow.sql; at most 64 sources. They may be asked for a part, at random.

-- The flow, each of its spans, against a count of the whole history; gives what
-- only one of the two has.
CREATE FUNCTION flow_faults(lead_table regclass, part float8 DEFAULT 1) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET jit = off
AS $test$
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    span text;
    day text;
    whole text;
BEGIN
    FOR span, day, whole IN VALUES
        ('day', 'f.day', 'f.source, f.cohort'), ('month', $$date_trunc('month', f.day)::date$$, 'f.source, f.cohort'),
        ('total', $$'-infinity'::date$$, 'f.source, f.cohort'), ('all', $$'-infinity'::date$$, 'NULL::text, NULL::int') LOOP
        CONTINUE WHEN random() > part;
        RETURN QUERY EXECUTE format($q$
            WITH flow AS (
                SELECT f.kind, %1$s, %2$s, f.from_status, f.to_status, f.reached,
                       sum(f.n)::bigint, sum(f.n_new)::bigint, sum(f.n_again)::bigint, sum(f.n_left)::bigint, sum(f.n_entered)::bigint
                FROM lifecycle.counts_of_flow($1) AS f WHERE f.span IN ('pending', %3$L)
                GROUP BY 1, 2, 3, 4, 5, 6, 7
                HAVING (sum(f.n), sum(f.n_new), sum(f.n_again), sum(f.n_left), sum(f.n_entered)) <> (0, 0, 0, 0, 0)
            ), history AS (
                SELECT f.kind, %1$s, %2$s, f.from_status, f.to_status, f.reached,
                       sum(f.n)::bigint, sum(f.n_new)::bigint, sum(f.n_again)::bigint, sum(f.n_left)::bigint, sum(f.n_entered)::bigint
                FROM lifecycle.flow_of_history($1) AS f
                GROUP BY 1, 2, 3, 4, 5, 6, 7
                HAVING (sum(f.n), sum(f.n_new), sum(f.n_again), sum(f.n_left), sum(f.n_entered)) <> (0, 0, 0, 0, 0)
            )
            (SELECT 'only the flow has, by ' || %3$L || ': ' || d FROM (TABLE flow EXCEPT TABLE history) AS d)
            UNION ALL
            (SELECT 'only the history has, by ' || %3$L || ': ' || d FROM (TABLE history EXCEPT TABLE flow) AS d)$q$,
            day, whole, span)
        USING program;
    END LOOP;
END
$test$;

-- The reports that the flow answers, against the same counted in the history.
CREATE FUNCTION report_faults(lead_table regclass, part float8 DEFAULT 1) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET jit = off
AS $$
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    today CONSTANT timestamptz := date_trunc('day', now(), program.tz);
    since timestamptz;
    until timestamptz;
    starts timestamptz[];
    mode text;
    cycle text;
    segments text;
BEGIN
    FOR since, until IN VALUES ('-infinity'::timestamptz, 'infinity'::timestamptz),
        ('-infinity', today + interval '1 day'), (today - interval '1 day', today + interval '1 day') LOOP
        FOR mode, cycle, segments IN
            SELECT m, c, b FROM unnest(ARRAY['filled', 'any']) m, unnest(ARRAY['ever', 'first', 'every']) c, unnest(ARRAY[NULL, 'source', 'cohort']) b
            WHERE random() <= part LOOP
            IF EXISTS (
                (SELECT f FROM lifecycle.funnel(lead_table, since, until, mode, cycle, segments) AS f
                 EXCEPT ALL SELECT f FROM lifecycle.funnel_of_history(lead_table, since, until, mode, cycle, segments) AS f)
                UNION ALL
                (SELECT f FROM lifecycle.funnel_of_history(lead_table, since, until, mode, cycle, segments) AS f
                 EXCEPT ALL SELECT f FROM lifecycle.funnel(lead_table, since, until, mode, cycle, segments) AS f)) THEN
                RETURN NEXT format('funnel(%L, %L, %L, %L, %L)', since, until, mode, cycle, segments);
            END IF;
        END LOOP;
        IF random() <= part AND EXISTS (
            (SELECT c FROM lifecycle.conversion(lead_table, since, until) AS c
             EXCEPT ALL SELECT c FROM lifecycle.conversion_of_history(program, program.history, since, until) AS c)
            UNION ALL
            (SELECT c FROM lifecycle.conversion_of_history(program, program.history, since, until) AS c
             EXCEPT ALL SELECT c FROM lifecycle.conversion(lead_table, since, until) AS c)) THEN
            RETURN NEXT format('conversion(%L, %L)', since, until);
        END IF;
    END LOOP;
    since := today - interval '2 days';
    until := today + interval '1 day';
    starts := lifecycle.buckets(since, until, '1 day', program.tz);
    IF random() <= part AND EXISTS (
        (SELECT f FROM lifecycle.flow(lead_table, since, until) AS f
         EXCEPT ALL SELECT f FROM lifecycle.steps_of_history(lead_table, starts, until) AS f)
        UNION ALL
        (SELECT f FROM lifecycle.steps_of_history(lead_table, starts, until) AS f
         EXCEPT ALL SELECT f FROM lifecycle.flow(lead_table, since, until) AS f)) THEN
        RETURN NEXT format('flow(%L, %L)', since, until);
    END IF;
END
$$;
