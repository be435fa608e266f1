-- The benchmark of reports: a tracked table and a history of about :moves moves
-- in two years, and what every report over it must say.
--
-- The history is made by one statement, past the triggers, and its flow counted
-- from it: to let that many leads walk would take longer than all that is
-- measured.  lifecycle.verify() says whether it is one that lifecycle could have
-- written.  What reports must say is counted in the history by plain SQL, which
-- shares nothing with them.

CREATE EXTENSION lifecycle;
CREATE SCHEMA bench;

-- 24 months, the last of which is the present one.
CREATE TABLE bench.period AS
SELECT m - interval '23 months' AS since, m + interval '1 month' AS until, date_trunc('hour', now()) AS present
FROM (SELECT date_trunc('month', now(), 'UTC') AS m) AS month;

-- A number from 0 to n - 1 that follows from the lead, the seed and k.
CREATE FUNCTION bench.pick(id bigint, k int, n int) RETURNS int
    LANGUAGE sql IMMUTABLE
AS $$
    SELECT ((hashint8extended(id, current_setting('bench.seed')::bigint * 1000 + k) & 2147483647) % n)::int
$$;

-- Of 1000 leads in a status, or entering (''): where they go next.  The others stay.
CREATE TABLE bench.step AS
SELECT from_status, to_status,
       (sum(n) OVER w - n)::int AS least, (sum(n) OVER w)::int AS below
FROM (VALUES
    ('', 'known', 600), ('', 'mal', 100), ('', 'engaged', 150), ('', 'mql', 100), ('', 'sql', 50),
    ('known', 'mal', 200), ('known', 'engaged', 350), ('known', 'mql', 150), ('known', 'sql', 20), ('known', 'disqualified', 80),
    ('mal', 'engaged', 400), ('mal', 'mql', 350), ('mal', 'disqualified', 50),
    ('engaged', 'mql', 500), ('engaged', 'sal', 70), ('engaged', 'sql', 50), ('engaged', 'disqualified', 50),
    ('mql', 'sal', 450), ('mql', 'sql', 150), ('mql', 'recycled', 250), ('mql', 'disqualified', 50), ('mql', 'lost', 20),
    ('sal', 'sql', 550), ('sal', 'recycled', 250), ('sal', 'disqualified', 50), ('sal', 'lost', 50),
    ('sql', 'opportunity', 600), ('sql', 'recycled', 150), ('sql', 'lost', 150),
    ('opportunity', 'customer', 450), ('opportunity', 'lost', 400),
    ('customer', 'recycled', 50),
    ('recycled', 'engaged', 350), ('recycled', 'mql', 250), ('recycled', 'sql', 50), ('recycled', 'disqualified', 50),
    ('disqualified', 'sql', 10), ('disqualified', 'recycled', 50),
    ('lost', 'mql', 50), ('lost', 'recycled', 300)) AS s (from_status, to_status, n)
WINDOW w AS (PARTITION BY from_status ORDER BY to_status);

CREATE TABLE public.leads (
    id         bigint PRIMARY KEY,
    email      text NOT NULL,
    company    text,
    utm_source text,
    variant    int,
    created_at timestamptz NOT NULL
) WITH (fillfactor = 80);
SELECT lifecycle.track('public.leads', entered => 'created_at', source => 'utm_source', cohort => 'variant');

SET work_mem = '512MB';
SET maintenance_work_mem = '512MB';
SET session_replication_role = replica;
ALTER TABLE public.leads_history DROP CONSTRAINT leads_history_pkey;
DROP INDEX public.leads_history_at_idx;

-- About 3.7 moves a lead.  The rows lie in the order of their time, as if they
-- had been written then.
INSERT INTO public.leads_history (
    lead, seq, cycle, from_status, from_since, to_status, at, cause, actor, session_user_name, demographic_score,
    behavior_score, source, cohort, entered_at, cycle_since, reached, recorded_at)
WITH RECURSIVE walk AS (
    SELECT l.id AS lead, 1 AS seq, 1 AS cycle, NULL::text AS from_status, NULL::timestamptz AS from_since, s.to_status,
           l.at, 'entry' AS cause, l.at AS entered_at, l.at AS cycle_since, ARRAY[s.to_status] AS reached, NULL::text[] AS before,
           l.present
    FROM (SELECT id, bench.pick(id, 1, 1000) AS dice, p.present,
                 p.since + bench.pick(id, 2, extract(epoch FROM p.present - p.since)::int) * interval '1 second' AS at
          FROM generate_series(1, (:moves / 3.7)::bigint) AS id CROSS JOIN bench.period p) AS l
    JOIN bench.step s ON s.from_status = '' AND l.dice >= s.least AND l.dice < s.below
    UNION ALL
    SELECT w.lead, w.seq + 1, CASE WHEN m.new_cycle THEN w.cycle + 1 ELSE w.cycle END, w.to_status, w.at, m.to_status, m.at, m.cause,
           w.entered_at, CASE WHEN m.new_cycle THEN m.at ELSE w.cycle_since END,
           CASE WHEN m.to_status IS NULL THEN w.reached
                ELSE lifecycle.reached_add(CASE m.cause WHEN 'correction' THEN w.before ELSE w.reached END, m.to_status, m.new_cycle) END,
           CASE WHEN m.cause = 'write' AND NOT m.new_cycle THEN w.reached END,
           w.present
    FROM walk w
    -- one in a hundred who was accepted or taken over by sales was not; few leads are deleted
    CROSS JOIN LATERAL (
        SELECT CASE WHEN w.before IS NOT NULL AND w.to_status IN ('sal', 'sql') AND bench.pick(w.lead, 5 * w.seq + 10, 100) = 0 THEN 'correction'
                    WHEN bench.pick(w.lead, 5 * w.seq + 11, 300) = 0 THEN 'delete' ELSE 'write' END AS cause,
               bench.pick(w.lead, 5 * w.seq + 12, 1000) AS dice,
               -12 * 86400 * ln((bench.pick(w.lead, 5 * w.seq + 13, 1000000) + 0.5) / 1000000) AS wait
    ) AS d
    LEFT JOIN bench.step s ON s.from_status = w.to_status AND d.dice >= s.least AND d.dice < s.below
    CROSS JOIN LATERAL (
        SELECT d.cause, CASE d.cause WHEN 'correction' THEN 'mql' WHEN 'write' THEN s.to_status END AS to_status,
               w.at + floor(d.wait) * interval '1 second' AS at,
               d.cause = 'write' AND w.to_status IN ('recycled', 'disqualified', 'lost')
               AND s.to_status NOT IN ('recycled', 'disqualified', 'lost') AS new_cycle
    ) AS m
    WHERE w.to_status IS NOT NULL AND (m.to_status IS NOT NULL OR m.cause = 'delete') AND m.at < w.present
)
SELECT w.lead, w.seq, w.cycle, w.from_status, w.from_since, w.to_status, w.at, w.cause, 'sync ' || bench.pick(w.lead, 3, 20), 'crm', 0, 0,
       (ARRAY['google', 'newsletter', 'linkedin', 'partner', 'webinar', 'trade fair', 'bought list', 'referral', 'bing', 'podcast', 'print', 'outbound']
       )[1 + floor(12 * power(bench.pick(w.lead, 4, 10000) / 10000.0, 2))::int],
       w.lead % 2, w.entered_at, w.cycle_since, w.reached, w.at
FROM walk w
ORDER BY w.at, w.lead, w.seq;

ALTER TABLE public.leads_history ADD PRIMARY KEY (lead, seq);
CREATE INDEX ON public.leads_history (at);

INSERT INTO public.leads
SELECT h.lead, format('lead%s@company%s.example.com', h.lead, h.lead % 30000), format('Company %s', h.lead % 30000), h.source, h.cohort, h.entered_at,
       h.to_status::lifecycle.lifecycle_status, h.at, h.seq, 0
FROM (SELECT DISTINCT ON (h.lead) h.* FROM public.leads_history h ORDER BY h.lead, h.seq DESC) AS h
WHERE h.to_status IS NOT NULL;

SET session_replication_role = origin;
VACUUM ANALYZE;
SELECT lifecycle.rebuild_flow('public.leads');

-- What users have who know no better: the funnel by source and in total over the
-- history, tuned.  The row of each lead's last move knows all that it reached.
CREATE MATERIALIZED VIEW bench.funnel_of_history AS
WITH sets AS (
    SELECT h.source, array_remove(h.reached, NULL) AS reached, count(*) AS n
    FROM public.leads_history h
    WHERE NOT EXISTS (SELECT FROM public.leads_history n WHERE n.lead = h.lead AND n.seq = h.seq + 1)
    GROUP BY 1, 2
), furthest AS (
    SELECT s.source, s.reached, s.n, (SELECT max(g.rank) FROM lifecycle.stage g WHERE g.model = 'standard' AND g.status = ANY (s.reached)) AS rank
    FROM sets s
)
SELECT f.source AS segment, g.status, g.rank,
       sum(f.n) FILTER (WHERE g.status = ANY (f.reached) OR f.rank >= g.rank) AS reached,
       sum(f.n) FILTER (WHERE g.status <> ALL (f.reached) AND f.rank >= g.rank) AS of_which_inferred
FROM furthest f CROSS JOIN lifecycle.stage g
WHERE g.model = 'standard'
GROUP BY GROUPING SETS ((f.source, g.status, g.rank), (g.status, g.rank))
WITH NO DATA;
CREATE UNIQUE INDEX ON bench.funnel_of_history (segment, status);

-- Where the leads can go from each status: moves that are made while it is measured.
CREATE FUNCTION bench.next_status(status lifecycle.lifecycle_status) RETURNS lifecycle.lifecycle_status
    LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE status WHEN 'mql' THEN 'sal' WHEN 'sal' THEN 'recycled' WHEN 'recycled' THEN 'engaged' WHEN 'sql' THEN 'opportunity'
                       WHEN 'opportunity' THEN 'customer' WHEN 'customer' THEN 'recycled' WHEN 'lost' THEN 'recycled'
                       WHEN 'disqualified' THEN 'recycled' ELSE 'mql' END::lifecycle.lifecycle_status
$$;

-- Single rows move, each in a transaction of its own, as chance has it: so many
-- moves, or until so many rows wait to be merged.
CREATE PROCEDURE bench.move(moves int, tail int DEFAULT NULL)
    LANGUAGE plpgsql
AS $$
DECLARE
    last bigint := (SELECT max(id) FROM public.leads);
    done int := 0;
    lead bigint;
BEGIN
    SET synchronous_commit = off;
    WHILE done < moves LOOP
        lead := 1 + floor(random() * last);
        UPDATE public.leads SET lifecycle_status = bench.next_status(lifecycle_status) WHERE id = lead;
        IF FOUND THEN
            done := done + 1;
        END IF;
        COMMIT;
        EXIT WHEN done % 250 = 0 AND (SELECT count(*) FROM public.leads_flow_pending) >= tail;
    END LOOP;
    RESET synchronous_commit;
END
$$;

CREATE FUNCTION bench.same(what text, said text, counted text) RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    differ bigint;
    rows bigint;
BEGIN
    DROP TABLE IF EXISTS said, counted;
    EXECUTE format('CREATE TEMP TABLE said AS %s', said);
    EXECUTE format('CREATE TEMP TABLE counted AS %s', counted);
    SELECT count(*) INTO differ FROM ((TABLE said EXCEPT ALL TABLE counted) UNION ALL (TABLE counted EXCEPT ALL TABLE said)) AS d;
    SELECT count(*) INTO rows FROM counted;
    IF differ > 0 OR rows = 0 THEN
        RAISE 'bench: % rows differ of the % that % must have', differ, rows, what;
    END IF;
END
$$;

-- What the history says, counted once for all that is compared with it.
CREATE PROCEDURE bench.count_anew()
    LANGUAGE plpgsql
AS $$
BEGIN
    DROP TABLE IF EXISTS void, days, fresh, lasts;
    CREATE TEMP TABLE void AS SELECT h.lead, h.seq - 1 AS seq FROM public.leads_history h WHERE h.cause = 'correction';
    ANALYZE void;
    CREATE TEMP TABLE days AS
    SELECT (h.at AT TIME ZONE 'UTC')::date AS day, h.from_status, h.to_status, v.lead IS NOT NULL AS void, h.cause = 'correction' AS correction, count(*) AS n
    FROM public.leads_history h LEFT JOIN void v ON v.lead = h.lead AND v.seq = h.seq
    GROUP BY 1, 2, 3, 4, 5;
    CREATE TEMP TABLE fresh AS
    SELECT f.day, f.to_status AS status, count(*) AS n
    FROM (SELECT h.lead, h.to_status, (min(h.at) AT TIME ZONE 'UTC')::date AS day
          FROM public.leads_history h LEFT JOIN void v ON v.lead = h.lead AND v.seq = h.seq
          WHERE v.lead IS NULL AND h.to_status IS NOT NULL GROUP BY h.lead, h.to_status) AS f
    GROUP BY 1, 2;
    CREATE TEMP TABLE lasts AS
    SELECT s.source, s.cohort, s.day, s.visited, (SELECT max(g.rank) FROM lifecycle.stage g WHERE g.model = 'standard' AND g.status = ANY (s.visited)) AS furthest, s.n
    FROM (SELECT h.source, h.cohort::text AS cohort, (h.entered_at AT TIME ZONE 'UTC')::date AS day, array_remove(h.reached, NULL) AS visited, count(*) AS n
          FROM public.leads_history h JOIN (SELECT m.lead, max(m.seq) AS seq FROM public.leads_history m GROUP BY m.lead) AS m USING (lead, seq)
          GROUP BY 1, 2, 3, 4) AS s;
    ANALYZE days; ANALYZE fresh; ANALYZE lasts;
END
$$;

-- The funnel as it must be, and the flow.
CREATE FUNCTION bench.funnel_as_counted(segment text, condition text DEFAULT 'true') RETURNS text
    LANGUAGE sql IMMUTABLE
AS $$
    SELECT format($q$
        SELECT %1$s AS segment, g.status, g.rank, coalesce(sum(l.n) FILTER (WHERE g.status = ANY (l.visited) OR l.furthest >= g.rank), 0)::bigint AS reached,
               coalesce(sum(l.n) FILTER (WHERE g.status <> ALL (l.visited) AND l.furthest >= g.rank), 0)::bigint AS of_which_inferred
        FROM lasts l CROSS JOIN lifecycle.stage g WHERE g.model = 'standard' AND (%2$s) GROUP BY 1, 2, 3$q$, segment, condition)
$$;

CREATE FUNCTION bench.flow_as_counted(step text, since timestamptz, until timestamptz) RETURNS text
    LANGUAGE sql IMMUTABLE
AS $$
    SELECT format($q$
        SELECT c.bucket, g.status, g.rank, (c.closing - c.n_in + c.n_out)::bigint AS opening, c.n_in::bigint, c.n_new::bigint, c.n_again::bigint, c.n_out::bigint, c.closing::bigint
        FROM (SELECT g.status, b.bucket, coalesce(sum(m.n_in), 0) AS n_in, coalesce(sum(m.n_new), 0) AS n_new,
                     coalesce(sum(m.valid) - sum(m.n_new), 0) AS n_again, coalesce(sum(m.n_out), 0) AS n_out,
                     sum(coalesce(sum(m.n_in), 0) - coalesce(sum(m.n_out), 0)) OVER (PARTITION BY g.status ORDER BY b.bucket) AS closing
              FROM (SELECT timestamp '-infinity' AS bucket UNION ALL
                    SELECT generate_series(%2$L::timestamptz AT TIME ZONE 'UTC', %3$L::timestamptz AT TIME ZONE 'UTC' - interval '1 microsecond', %1$L::interval)) AS b
              CROSS JOIN lifecycle.stage g
              LEFT JOIN (SELECT CASE WHEN x.day < %2$L::timestamptz AT TIME ZONE 'UTC' THEN timestamp '-infinity' ELSE date_trunc(%4$L, x.day::timestamp) END AS bucket,
                                x.status, sum(x.n_in) AS n_in, sum(x.valid) AS valid, sum(x.n_new) AS n_new, sum(x.n_out) AS n_out
                         FROM (SELECT d.day, d.to_status AS status, d.n AS n_in, CASE WHEN d.void THEN 0 ELSE d.n END AS valid, 0 AS n_new, 0 AS n_out FROM days d
                               UNION ALL SELECT d.day, d.from_status, 0, 0, 0, d.n FROM days d
                               UNION ALL SELECT f.day, f.status, 0, 0, f.n, 0 FROM fresh f) AS x
                         WHERE x.day < %3$L::timestamptz AT TIME ZONE 'UTC'
                         GROUP BY 1, 2) AS m ON m.bucket = b.bucket AND m.status = g.status
              WHERE g.model = 'standard'
              GROUP BY g.status, b.bucket) AS c
        JOIN lifecycle.stage g ON g.model = 'standard' AND g.status = c.status
        WHERE c.bucket > '-infinity'$q$, step, since, until, substring(step FROM '[a-z]+'))
$$;

-- The reports: how they are asked, which of their columns are compared, and with what.
CREATE TABLE bench.report (place int PRIMARY KEY, name text UNIQUE NOT NULL, quick boolean NOT NULL, query text NOT NULL, columns text, counted text);
DO $$
DECLARE
    since timestamptz;
    until timestamptz;
    present timestamptz;
    day timestamptz;
    funnel CONSTANT text := 'segment, status, rank, reached, of_which_inferred';
    flow CONSTANT text := 'bucket AT TIME ZONE ''UTC'', status, rank, opening, inflow, inflow_new, inflow_again, outflow, closing';
BEGIN
    SELECT p.since, p.until, p.present INTO since, until, present FROM bench.period p;
    day := date_trunc('day', present, 'UTC');
    INSERT INTO bench.report VALUES
        (1, 'leads_funnel', true, 'SELECT * FROM public.leads_funnel', NULL, NULL),
        (2, 'funnel()', true, $q$SELECT * FROM lifecycle.funnel('public.leads')$q$, funnel, bench.funnel_as_counted('NULL::text')),
        (3, 'funnel() by source', true, $q$SELECT * FROM lifecycle.funnel('public.leads', by => 'source')$q$, funnel, bench.funnel_as_counted('l.source')),
        (4, 'funnel() by cohort', true, $q$SELECT * FROM lifecycle.funnel('public.leads', by => 'cohort')$q$, funnel, bench.funnel_as_counted('l.cohort')),
        (5, 'funnel() of 200 days', true, format($q$SELECT * FROM lifecycle.funnel('public.leads', since => %L, until => %L)$q$, day - interval '400 days', day - interval '200 days'),
         funnel, bench.funnel_as_counted('NULL::text', format('l.day >= %L AND l.day < %L', (day - interval '400 days') AT TIME ZONE 'UTC', (day - interval '200 days') AT TIME ZONE 'UTC'))),
        (6, 'flow() by month, 24 months', true, format($q$SELECT * FROM lifecycle.flow('public.leads', %L, %L, '1 month')$q$, since, until),
         flow, bench.flow_as_counted('1 month', since, until)),
        (7, 'flow() by day, 90 days', true, format($q$SELECT * FROM lifecycle.flow('public.leads', %L, %L)$q$, day - interval '89 days', day + interval '1 day'),
         flow, bench.flow_as_counted('1 day', day - interval '89 days', day + interval '1 day')),
        (8, 'conversion(), two years', true, format($q$SELECT * FROM lifecycle.conversion('public.leads', %L, %L)$q$, since, until),
         'from_status, to_status, moves, round(period_rate::numeric, 9) AS period_rate, round(exit_share::numeric, 9) AS exit_share',
         format($q$SELECT c.from_status, c.to_status, c.n, round((c.n / (SELECT sum(e.n) FROM days e WHERE e.to_status = c.from_status AND NOT e.void AND NOT e.correction AND e.day >= %1$L AND e.day < %2$L))::numeric, 9) AS period_rate,
                          round(c.n / sum(c.n) OVER (PARTITION BY c.from_status), 9) AS exit_share
                   FROM (SELECT d.from_status, d.to_status, sum(d.n)::bigint AS n FROM days d
                         WHERE d.from_status IS NOT NULL AND NOT d.void AND NOT d.correction AND d.day >= %1$L AND d.day < %2$L GROUP BY 1, 2) AS c$q$,
                since AT TIME ZONE 'UTC', until AT TIME ZONE 'UTC')),
        (9, 'leads counted by status', false, 'SELECT lifecycle_status, count(*) FROM public.leads GROUP BY 1', 'lifecycle_status::text, count',
         $q$SELECT g.status, (SELECT sum(d.n) FROM days d WHERE d.to_status = g.status) - (SELECT sum(d.n) FROM days d WHERE d.from_status = g.status)
            FROM lifecycle.stage g WHERE g.model = 'standard'$q$),
        (10, 'entry_conversion(), mql to customer', false, format($q$SELECT * FROM lifecycle.entry_conversion('public.leads', 'mql', 'customer', since => %L, until => %L, within => '90 days')$q$, since, until),
         'n', $q$SELECT sum(f.n) FROM fresh f WHERE f.status = 'mql'$q$),
        (11, 'time_in_status(), two years', false, format($q$SELECT * FROM lifecycle.time_in_status('public.leads', since => %L, until => %L)$q$, since, until),
         'status, rank, completed, inside',
         $q$SELECT g.status, g.rank, (SELECT sum(d.n) FROM days d WHERE d.from_status = g.status AND d.to_status IS NOT NULL AND NOT d.correction)::bigint AS completed,
                   (SELECT sum(d.n) FROM days d WHERE d.to_status = g.status)::bigint - (SELECT sum(d.n) FROM days d WHERE d.from_status = g.status)::bigint AS inside
            FROM lifecycle.stage g WHERE g.model = 'standard'$q$),
        (12, 'REFRESH over the history', false, 'REFRESH MATERIALIZED VIEW bench.funnel_of_history', NULL, NULL);
END
$$;

-- Fails where a report does not say what was counted.
CREATE PROCEDURE bench.prove_reports(quick boolean)
    LANGUAGE plpgsql
AS $$
DECLARE
    r bench.report;
BEGIN
    CALL bench.count_anew();
    FOR r IN SELECT * FROM bench.report b WHERE b.columns IS NOT NULL AND (b.quick OR NOT prove_reports.quick) ORDER BY b.place LOOP
        PERFORM bench.same(r.name, format('SELECT %s FROM (%s) AS r', r.columns, r.query), r.counted);
    END LOOP;
END
$$;

CREATE FUNCTION bench.prove_view(view text) RETURNS void
    LANGUAGE sql
AS $$
    SELECT bench.same(view, format('SELECT segment, status, rank, coalesce(reached, 0)::bigint AS reached, coalesce(of_which_inferred, 0)::bigint AS of_which_inferred FROM %s', view),
                      bench.funnel_as_counted('l.source') || ' UNION ALL ' || bench.funnel_as_counted('NULL::text'))
$$;

-- Fails where verify() has something to say, and, where it is asked, if it would
-- not say it.
CREATE FUNCTION bench.prove_history(tamper boolean) RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    found text;
BEGIN
    SELECT string_agg(concat_ws(': ', v."check", v.lead, v.detail), E'\n') INTO found
    FROM (SELECT * FROM lifecycle.verify('public.leads') LIMIT 10) AS v;
    IF found IS NOT NULL THEN
        RAISE 'bench: the history is none that lifecycle could have written'  USING DETAIL = found;
    END IF;
    IF NOT tamper THEN
        RETURN;
    END IF;
    BEGIN
        SET LOCAL session_replication_role = replica;
        UPDATE public.leads_history SET cycle = cycle + 1 WHERE lead = (SELECT min(lead) FROM public.leads_history WHERE seq = 2) AND seq = 2;
        SET LOCAL session_replication_role = origin;
        IF NOT EXISTS (SELECT FROM lifecycle.verify('public.leads') AS v WHERE v."check" = 'cycle') THEN
            RAISE 'bench: verify() does not see that a cycle is wrong';
        END IF;
        RAISE SQLSTATE 'LCYES';
    EXCEPTION WHEN SQLSTATE 'LCYES' THEN
        NULL;
    END;
END
$$;

SELECT lifecycle.refresh('public.leads');
VACUUM ANALYZE;
