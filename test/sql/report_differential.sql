-- Random histories, and what each report says of them beside the second opinion
-- (test/lib/reports.sql): for random spans, modes, cycles, segments, steps, time
-- zones, limits and points of view, between moves and refresh().
--
-- The leads come in by import and by backfill; then they move, skip stages, are
-- set right, removed, and come back, live, in the order of time.
--   PROPERTY_SEED=0.123456 make test TESTS=report_differential    that run again

CREATE EXTENSION lifecycle;
SELECT plan(4);
SET client_min_messages = error;
\ir ../lib/reports.sql

\set seed ''
\getenv seed PROPERTY_SEED
SELECT CASE WHEN :'seed' = '' THEN round(random()::numeric, 6)::text ELSE :'seed' END AS seed \gset
\echo # PROPERTY_SEED=:seed
SELECT setseed(:seed);

-- A model in which every move is legal, with ranks that leave room.
SELECT lifecycle.copy_model('etumos', 'wild');
UPDATE lifecycle.stage SET rank = rank * 100 WHERE model = 'wild';
INSERT INTO lifecycle.transition (model, from_status, to_status)
SELECT 'wild', f.status, t.status FROM lifecycle.stage f JOIN lifecycle.stage t USING (model)
WHERE model = 'wild' AND f.status <> t.status
ON CONFLICT DO NOTHING;

CREATE FUNCTION below(n int) RETURNS int LANGUAGE sql VOLATILE RETURN floor(random() * n)::int;
CREATE FUNCTION one_of(choices text[]) RETURNS text LANGUAGE sql VOLATILE RETURN choices[1 + below(cardinality(choices))];
-- Those of the path come more often.
CREATE FUNCTION any_status() RETURNS text LANGUAGE sql VOLATILE
    RETURN one_of('{mal,mql,sal,sql,customer,mal,mql,sal,sql,recycled,disqualified,lost}');
CREATE FUNCTION any_source() RETURNS text LANGUAGE sql VOLATILE
    RETURN CASE below(8) WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'web' ELSE 'source ' || below(90) END;

-- Leads 1 to 200 are imported, 201 to 240 found with a status, 241 to 250 with none.
CREATE TABLE leads (id int PRIMARY KEY, origin text, created timestamptz, stage text);
INSERT INTO leads (id, origin) SELECT i, any_source() FROM generate_series(1, 200) AS i;
INSERT INTO leads SELECT i, any_source(), CASE WHEN below(8) > 0 THEN timestamptz '2023-06-01' + random() * interval '300 days' END, CASE WHEN i <= 240 THEN any_status() END
FROM generate_series(201, 250) AS i;
SELECT lifecycle.track('leads', model => 'wild', status_column => 'stage', entered => 'created', source => 'origin', cohort => 'nullif(id % 4, 3)', tz => 'Europe/Berlin');
CREATE TABLE moves AS
SELECT i AS lead, any_status() AS status,
       -- by the day, by the microsecond, several at once
       CASE below(3) WHEN 0 THEN date_trunc('day', t.at) WHEN 1 THEN date_trunc('hour', t.at) ELSE t.at END AS at
FROM generate_series(1, 200) AS i, generate_series(1, 1 + below(9) + 0 * i) AS n,
     LATERAL (SELECT timestamptz '2024-01-01' + random() * interval '400 days' + n * interval '0' AS at) AS t;
SELECT is_empty($$SELECT * FROM lifecycle.import_history('leads', 'SELECT * FROM moves') WHERE NOT imported AND problem !~ 'already'$$, 'histories are imported');
CALL lifecycle.backfill('leads');

-- What happens next, each time somewhat later; who was backfilled moved just now, so that only now can move him.
CREATE TABLE clock (at timestamptz);
INSERT INTO clock VALUES ('2025-02-15');
CREATE PROCEDURE move(n int) LANGUAGE plpgsql AS $$
DECLARE
    now_at timestamptz;
    lead int;
BEGIN
    FOR i IN 1 .. n LOOP
        UPDATE clock SET at = CASE below(3) WHEN 0 THEN at WHEN 1 THEN date_trunc('day', at + interval '1 day') ELSE at + random() * interval '4 days' END RETURNING at INTO now_at;
        PERFORM set_config('lifecycle.at', now_at::text, true);
        lead := 1 + below(200);
        CASE below(12)
            WHEN 0 THEN
                DELETE FROM leads WHERE id = lead;
            WHEN 1 THEN
                INSERT INTO leads (id, origin, stage) VALUES (lead, any_source(), any_status()) ON CONFLICT DO NOTHING;
            WHEN 2, 3 THEN
                INSERT INTO leads (id, origin, stage) SELECT max(h.lead) + 1 + k, any_source(), CASE WHEN below(3) = 0 THEN any_status() END
                FROM leads_history h, generate_series(1, 1 + below(4)) AS k GROUP BY k;
            WHEN 4 THEN
                SELECT l.id INTO lead FROM leads l WHERE l.id >= lead AND l.id NOT BETWEEN 201 AND 250 AND l.lifecycle_seq > 0 ORDER BY l.id LIMIT 1;
                IF FOUND THEN
                    PERFORM lifecycle.correct('leads', lead, (SELECT s.status FROM lifecycle.stage s, leads l
                        WHERE s.model = 'wild' AND l.id = lead AND s.status <> l.stage ORDER BY random() LIMIT 1), 'a mistake');
                END IF;
            WHEN 5 THEN
                UPDATE leads SET stage = any_status() WHERE id % 40 = lead % 40 AND id NOT BETWEEN 201 AND 250;
            WHEN 6 THEN
                PERFORM set_config('lifecycle.at', '', true);
                UPDATE leads SET stage = any_status() WHERE id = 201 + lead % 50;
            WHEN 7 THEN
                PERFORM set_config('lifecycle.at', '', true);
                DELETE FROM leads WHERE id = 201 + lead % 50 AND below(4) = 0;
            ELSE
                UPDATE leads SET stage = any_status() WHERE id IN (lead, lead + 250);
        END CASE;
        COMMIT;
    END LOOP;
END $$;

-- A time of a move, or near one, or any.
CREATE FUNCTION any_time() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT CASE below(5) WHEN 0 THEN m.at WHEN 1 THEN date_trunc('day', m.at) WHEN 2 THEN date_trunc('month', m.at, 'Europe/Berlin')
                         WHEN 3 THEN m.at + random() * interval '9 days' ELSE timestamptz '2023-12-01' + random() * interval '800 days' END
    FROM leads_history m OFFSET below((SELECT count(*)::int FROM leads_history)) LIMIT 1
$$;

CREATE TABLE difference (report text, arguments text, whose text, line text);
CREATE TABLE compared (report text, rows bigint);
-- Both reports, to the row; the columns are those that are to be the same.
CREATE PROCEDURE compare(report text, columns text, arguments text, theirs text DEFAULT NULL, condition text DEFAULT 'true') LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($q$
        WITH ours AS MATERIALIZED (SELECT %2$s FROM lifecycle.%1$I('leads', %3$s) AS r WHERE %5$s),
             theirs AS MATERIALIZED (SELECT %2$s FROM naive.%1$I('leads_history', 'wild', %4$s) AS r WHERE %5$s),
             noted AS (
                 INSERT INTO difference SELECT %1$L, %3$L, d.* FROM (
                     (SELECT 'lifecycle', o::text FROM (TABLE ours EXCEPT ALL TABLE theirs) AS o LIMIT 3)
                     UNION ALL (SELECT 'naive', t::text FROM (TABLE theirs EXCEPT ALL TABLE ours) AS t LIMIT 3)) AS d)
        INSERT INTO compared SELECT %1$L, count(*) FROM theirs $q$, report, columns, arguments, coalesce(theirs, arguments), condition);
END $$;
CREATE FUNCTION seconds(t interval) RETURNS numeric LANGUAGE sql IMMUTABLE RETURN round(extract(epoch FROM t), 3);

CREATE PROCEDURE compare_all() LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz := CASE WHEN below(6) > 0 THEN any_time() ELSE '-infinity' END;
    until timestamptz := CASE WHEN below(6) > 0 THEN any_time() ELSE 'infinity' END;
    opens timestamptz := CASE WHEN below(3) > 0 THEN any_time() ELSE date_trunc('month', any_time(), 'Europe/Berlin') END;
    step interval := one_of('{1 day,1 day,7 days,1 month,1 month,3 months,1 year,5 hours,90 minutes,36 hours,1 month 2 days 3 hours}');
    tz text := nullif(one_of('{UTC,Europe/Berlin,America/New_York,Asia/Kolkata,Australia/Lord_Howe,none,none}'), 'none');
    span text;
    buckets text;
    view_from timestamptz := CASE WHEN below(4) > 0 THEN any_time() ELSE now() END;
BEGIN
    IF since > until THEN
        SELECT until, since INTO since, until;
    END IF;
    buckets := format('%L::timestamptz, %L::timestamptz, %L::interval, ', opens, opens + below(12) * step + below(2) * random() * step, step);
    span := format('%L::timestamptz, %L::timestamptz', since, until);
    -- a segment that nobody is in may be there or not
    CALL compare('funnel', 'segment, status, rank, reached, of_which_inferred, round(next_step_rate::numeric, 9), round(cumulative_rate::numeric, 9)',
        format('%s, %L, %L, %L', span, one_of('{filled,filled,any,ordered}'), one_of('{ever,ever,first,every}'), nullif(one_of('{source,cohort,none}'), 'none')),
        condition => 'r.segment IS NULL OR r.reached > 0');
    CALL compare('flow', 'bucket, status, rank, opening, inflow, inflow_new, inflow_again, outflow, closing',
        buckets || format('%L', tz), buckets || format('%L', coalesce(tz, 'Europe/Berlin')));
    CALL compare('conversion', 'from_status, to_status, moves, round(period_rate::numeric, 9), round(exit_share::numeric, 9)', span);
    CALL compare('entry_conversion', 'n, converted, matured, round(rate::numeric, 9), round(matured_rate::numeric, 9), round(km_rate::numeric, 9)',
        format('%L, %L, %s, %L::interval, %L::timestamptz', any_status(), any_status(), span,
               nullif(one_of('{none,none,1 day,10 days,36 hours,60 days,17:03:01.5,400 days}'), 'none'), view_from));
    CALL compare('time_in_status', 'status, rank, completed, inside, seconds(mean), seconds(p50), seconds(p75), seconds(p90), seconds(km_median)',
        format('%s, %L::timestamptz', span, view_from));
END $$;

CREATE PROCEDURE live() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 60 LOOP
        CALL compare_all();
        CALL move(1 + below(12));
        IF below(3) = 0 THEN
            PERFORM lifecycle.refresh(CASE WHEN below(2) = 0 THEN 'leads'::regclass END);
        END IF;
        COMMIT;
    END LOOP;
    CALL compare_all();
END $$;
CALL live();

SELECT is_empty('SELECT * FROM difference', 'every report says what the second opinion says');
SELECT is_empty($$SELECT r FROM unnest('{funnel,flow,conversion,entry_conversion,time_in_status}'::text[]) AS r
                  WHERE (SELECT coalesce(sum(c.rows), 0) FROM compared c WHERE c.report = r) < 25$$, 'each of them had much to say');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'verify() finds nothing');
SELECT * FROM finish();
