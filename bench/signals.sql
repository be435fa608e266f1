-- The benchmark of signals: activities, what they are worth, and the variants
-- that keep the score.
--
-- What is right is decided beforehand, by one SQL statement (bench.decided).
-- Points are multiples of 5, all activities happened within an hour, and the
-- threshold stands between two such multiples: so which leads reach it does not
-- depend on when the benchmark runs.

-- the tables that the functions name are made later
SET check_function_bodies = off;
CREATE EXTENSION lifecycle;
CREATE SCHEMA bench;

CREATE UNLOGGED TABLE bench.result (
    measure text NOT NULL,
    variant text NOT NULL,
    round   int NOT NULL,
    seconds double precision NOT NULL,  -- for one activity
    cpu     double precision,           -- of them, what the backend ran
    wal     double precision,           -- bytes for one activity
    PRIMARY KEY (measure, variant, round)
);

-- How many seconds this backend ran on a processor, where the kernel tells.
CREATE FUNCTION bench.cpu() RETURNS double precision
    LANGUAGE sql VOLATILE
AS $$
    SELECT split_part(pg_read_file('/proc/self/schedstat', 0, 100, true), ' ', 1)::float8 / 1e9
$$;

CREATE TABLE bench.rule (
    place     int PRIMARY KEY,
    name      text NOT NULL UNIQUE,
    points    int NOT NULL,
    condition text NOT NULL
);
INSERT INTO bench.rule (place, name, points, condition) VALUES
    (1, 'visit', 5, $$ kind = 'visit' $$),
    (2, 'pricing page', 10, $$ kind = 'visit' AND url LIKE '/pricing%' $$),
    (3, 'mail', 5, $$ kind IN ('opened', 'clicked') $$),
    (4, 'clicked', 5, $$ kind = 'clicked' $$),
    (5, 'form', 20, $$ kind = 'form' AND url <> '/unsubscribe' $$);

-- A number from 0 to n - 1 that follows from the row, the seed and k.
CREATE FUNCTION bench.pick(id bigint, k int, n int) RETURNS int
    LANGUAGE sql IMMUTABLE
AS $$
    SELECT ((hashint8extended(id, current_setting('bench.seed')::bigint * 100 + k) & 2147483647) % n)::int
$$;

CREATE TABLE bench.lead AS
SELECT id, 'person' || id || '@company' || bench.pick(id, 1, 5000) || '.example' AS email,
       'First' || bench.pick(id, 2, 500) AS first_name, 'Last' || bench.pick(id, 3, 5000) AS last_name,
       'Company ' || bench.pick(id, 1, 5000) AS company, 'Title ' || bench.pick(id, 4, 100) AS title,
       (ARRAY['Germany', 'Austria', 'Japan', 'Brazil'])[1 + bench.pick(id, 5, 4)] AS country,
       bench.pick(id, 6, 60) AS owner_id, timestamptz '2025-01-01 00:00+00' + bench.pick(id, 7, 26000000) * interval '1 second' AS created_at
FROM generate_series(1, :leads::bigint) AS id;

-- The activities, in the order in which they happened, most of them of few leads:
-- a lead's share falls with the power of its place among them.
CREATE UNLOGGED TABLE bench.activity AS
SELECT id, 1 + floor(:leads * power(bench.pick(id, 10, 1000000007) / 1000000007.0::float8, 4))::bigint AS lead_id,
       (ARRAY['visit', 'visit', 'visit', 'visit', 'visit', 'opened', 'opened', 'clicked', 'bounced', 'form'])[1 + bench.pick(id, 11, 10)] AS kind,
       (ARRAY['/', '/blog/decay', '/docs', '/pricing', '/about', '/unsubscribe'])[1 + bench.pick(id, 12, 6)] AS url,
       date_trunc('second', now()) - interval '1 hour' + id * (interval '1 hour' / (:activities + 1)) AS occurred_at
FROM generate_series(1, :activities::bigint) AS id;
ALTER TABLE bench.activity ADD PRIMARY KEY (id);

CREATE FUNCTION bench.points("row" text) RETURNS text
    LANGUAGE sql STABLE
AS $$
    SELECT string_agg(format('CASE WHEN %s THEN %s ELSE 0 END',
                             regexp_replace(btrim(r.condition), '\m(kind|url)\M', "row" || '.\1', 'g'), r.points),
                      ' + ' ORDER BY r.place)
    FROM bench.rule r
$$;

-- What is right.  Powers of the distance to one time that all are near to.
CREATE TABLE bench.moment AS SELECT max(occurred_at) AS at FROM bench.activity;
CREATE TABLE bench.decided (lead bigint PRIMARY KEY, points double precision NOT NULL, status text NOT NULL);
DO $$
BEGIN
    EXECUTE format($q$
        INSERT INTO bench.decided
        SELECT l.id, coalesce(s.score, 0), CASE WHEN s.points >= 200 THEN 'mql' ELSE 'known' END
        FROM bench.lead l
        LEFT JOIN (
            SELECT lead_id, sum(points) AS points,
                   sum(points * power(2::float8, extract(epoch FROM occurred_at - m.at)::float8 / 1209600)) AS score
            FROM (SELECT a.lead_id, a.occurred_at, %s AS points FROM bench.activity a) AS a, bench.moment m
            GROUP BY lead_id
        ) AS s ON s.lead_id = l.id $q$, bench.points('a'));
END
$$;

CREATE TABLE bench.pattern (id bigint PRIMARY KEY);
SELECT lifecycle.track('bench.pattern');

-- A hand-written move: the lead's row, and a row of history.
CREATE FUNCTION bench.move(id bigint, score double precision) RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    l public.leads;
BEGIN
    UPDATE public.leads SET lifecycle_status = 'mql', lifecycle_since = now(), lifecycle_seq = lifecycle_seq + 1
    WHERE leads.id = move.id RETURNING * INTO l;
    INSERT INTO public.leads_history (lead, seq, cycle, from_status, from_since, to_status, at, cause, rule, session_user_name,
                                      demographic_score, behavior_score, entered_at, cycle_since, reached, recorded_at)
    VALUES (id, l.lifecycle_seq, 1, 'known', l.created_at, 'mql', now(), 'rule', 'qualified', session_user,
            0, score, l.created_at, l.created_at, '{1,4}', clock_timestamp());
END
$$;

-- PL/pgSQL.  What the score was before follows from what it is after and what came.
DO $make$
BEGIN
    -- narrow, per row
    EXECUTE format($f$
        CREATE FUNCTION bench.narrow_row() RETURNS trigger LANGUAGE plpgsql AS $body$
        DECLARE
            points double precision := %1$s;
            status lifecycle.lifecycle_status;
            b public.leads_behavior;
            score double precision;
        BEGIN
            IF points = 0 THEN
                RETURN NULL;
            END IF;
            SELECT l.lifecycle_status INTO status FROM public.leads l WHERE l.id = NEW.lead_id FOR NO KEY UPDATE;
            SELECT * INTO b FROM public.leads_behavior c WHERE c.lead = NEW.lead_id AND c.half_life = '14 days';
            IF FOUND THEN
                b.points := CASE WHEN NEW.occurred_at >= b.at
                    THEN b.points * power(2::float8, extract(epoch FROM b.at - NEW.occurred_at)::float8 / 1209600) + points
                    ELSE b.points + points * power(2::float8, extract(epoch FROM NEW.occurred_at - b.at)::float8 / 1209600) END;
                b.at := greatest(b.at, NEW.occurred_at);
                UPDATE public.leads_behavior c
                SET points = b.points, at = b.at, heat = ln(b.points) / ln(2::float8) + extract(epoch FROM b.at)::float8 / 1209600
                WHERE c.lead = NEW.lead_id AND c.half_life = '14 days';
            ELSE
                INSERT INTO public.leads_behavior (lead, half_life, points, at, heat)
                VALUES (NEW.lead_id, '14 days', points, NEW.occurred_at, ln(points) / ln(2::float8) + extract(epoch FROM NEW.occurred_at)::float8 / 1209600);
                b.points := points;
                b.at := NEW.occurred_at;
            END IF;
            IF status = 'known' THEN
                score := b.points * power(2::float8, extract(epoch FROM b.at - now())::float8 / 1209600);
                IF score >= 198 AND score - points < 198 THEN
                    PERFORM bench.move(NEW.lead_id, score);
                END IF;
            END IF;
            RETURN NULL;
        END $body$ $f$, bench.points('NEW'));

    -- on the lead's row, per row: one UPDATE, which is also the lock
    EXECUTE format($f$
        CREATE FUNCTION bench.wide_row() RETURNS trigger LANGUAGE plpgsql AS $body$
        DECLARE
            arrived double precision := %1$s;
            l record;
            score double precision;
        BEGIN
            IF arrived = 0 THEN
                RETURN NULL;
            END IF;
            SELECT points, at, lifecycle_status INTO l FROM public.leads WHERE id = NEW.lead_id FOR NO KEY UPDATE;
            l.points := CASE WHEN l.at IS NULL THEN arrived WHEN NEW.occurred_at >= l.at
                THEN l.points * power(2::float8, extract(epoch FROM l.at - NEW.occurred_at)::float8 / 1209600) + arrived
                ELSE l.points + arrived * power(2::float8, extract(epoch FROM NEW.occurred_at - l.at)::float8 / 1209600) END;
            l.at := greatest(l.at, NEW.occurred_at);
            UPDATE public.leads
            SET points = l.points, at = l.at, heat = ln(l.points) / ln(2::float8) + extract(epoch FROM l.at)::float8 / 1209600
            WHERE id = NEW.lead_id;
            IF l.lifecycle_status = 'known' THEN
                score := l.points * power(2::float8, extract(epoch FROM l.at - now())::float8 / 1209600);
                IF score >= 198 AND score - arrived < 198 THEN
                    PERFORM bench.move(NEW.lead_id, score);
                END IF;
            END IF;
            RETURN NULL;
        END $body$ $f$, bench.points('NEW'));

    -- narrow, per statement
    EXECUTE format($f$
        CREATE FUNCTION bench.narrow_statement() RETURNS trigger LANGUAGE plpgsql AS $body$
        DECLARE
            q record;
        BEGIN
            PERFORM FROM public.leads l WHERE l.id IN (SELECT lead_id FROM arrived) ORDER BY l.id FOR NO KEY UPDATE;
            FOR q IN
                WITH given AS (
                    SELECT a.lead_id, a.occurred_at, %1$s AS points FROM arrived a
                ), ends AS (
                    SELECT lead_id, max(occurred_at) AS at FROM given WHERE points <> 0 GROUP BY lead_id
                ), added AS (
                    SELECT g.lead_id, e.at, sum(g.points * power(2::float8, extract(epoch FROM g.occurred_at - e.at)::float8 / 1209600)) AS points
                    FROM given g JOIN ends e USING (lead_id) WHERE g.points <> 0 GROUP BY g.lead_id, e.at
                ), written AS (
                    INSERT INTO public.leads_behavior AS b (lead, half_life, points, at, heat)
                    SELECT a.lead_id, '14 days', a.points, a.at, ln(a.points) / ln(2::float8) + extract(epoch FROM a.at)::float8 / 1209600
                    FROM added a ORDER BY a.lead_id
                    ON CONFLICT (lead, half_life) DO UPDATE
                    SET points = b.points * power(2::float8, extract(epoch FROM b.at - greatest(b.at, EXCLUDED.at))::float8 / 1209600)
                            + EXCLUDED.points * power(2::float8, extract(epoch FROM EXCLUDED.at - greatest(b.at, EXCLUDED.at))::float8 / 1209600),
                        at = greatest(b.at, EXCLUDED.at),
                        heat = ln(b.points * power(2::float8, extract(epoch FROM b.at - greatest(b.at, EXCLUDED.at))::float8 / 1209600)
                            + EXCLUDED.points * power(2::float8, extract(epoch FROM EXCLUDED.at - greatest(b.at, EXCLUDED.at))::float8 / 1209600)) / ln(2::float8)
                            + extract(epoch FROM greatest(b.at, EXCLUDED.at))::float8 / 1209600
                    RETURNING lead, points, at
                )
                SELECT w.lead, w.points * power(2::float8, extract(epoch FROM w.at - now())::float8 / 1209600) AS score,
                       a.points * power(2::float8, extract(epoch FROM a.at - now())::float8 / 1209600) AS added
                FROM written w JOIN added a ON a.lead_id = w.lead JOIN public.leads l ON l.id = w.lead
                WHERE l.lifecycle_status = 'known'
            LOOP
                IF q.score >= 198 AND q.score - q.added < 198 THEN
                    PERFORM bench.move(q.lead, q.score);
                END IF;
            END LOOP;
            RETURN NULL;
        END $body$ $f$, bench.points('a'));

    -- on the lead's row, per statement
    EXECUTE format($f$
        CREATE FUNCTION bench.wide_statement() RETURNS trigger LANGUAGE plpgsql AS $body$
        DECLARE
            q record;
        BEGIN
            PERFORM FROM public.leads l WHERE l.id IN (SELECT lead_id FROM arrived) ORDER BY l.id FOR NO KEY UPDATE;
            FOR q IN
                WITH given AS (
                    SELECT a.lead_id, a.occurred_at, %1$s AS points FROM arrived a
                ), ends AS (
                    SELECT lead_id, max(occurred_at) AS at FROM given WHERE points <> 0 GROUP BY lead_id
                ), added AS (
                    SELECT g.lead_id, e.at, sum(g.points * power(2::float8, extract(epoch FROM g.occurred_at - e.at)::float8 / 1209600)) AS points
                    FROM given g JOIN ends e USING (lead_id) WHERE g.points <> 0 GROUP BY g.lead_id, e.at
                ), written AS (
                    UPDATE public.leads l
                    SET points = s.points, at = s.at, heat = ln(s.points) / ln(2::float8) + extract(epoch FROM s.at)::float8 / 1209600
                    FROM added a
                    JOIN public.leads o ON o.id = a.lead_id
                    CROSS JOIN LATERAL (
                        SELECT greatest(o.at, a.at) AS at,
                               coalesce(o.points, 0) * power(2::float8, extract(epoch FROM coalesce(o.at, a.at) - greatest(o.at, a.at))::float8 / 1209600)
                               + a.points * power(2::float8, extract(epoch FROM a.at - greatest(o.at, a.at))::float8 / 1209600) AS points
                    ) AS s
                    WHERE l.id = a.lead_id
                    RETURNING l.id, l.points, l.at, l.lifecycle_status, a.points AS added, a.at AS added_at
                )
                SELECT w.id, w.points * power(2::float8, extract(epoch FROM w.at - now())::float8 / 1209600) AS score,
                       w.added * power(2::float8, extract(epoch FROM w.added_at - now())::float8 / 1209600) AS added
                FROM written w WHERE w.lifecycle_status = 'known'
            LOOP
                IF q.score >= 198 AND q.score - q.added < 198 THEN
                    PERFORM bench.move(q.id, q.score);
                END IF;
            END LOOP;
            RETURN NULL;
        END $body$ $f$, bench.points('a'));
END
$make$;

-- The tables of a variant, anew: leads that stand at known, and no activity.
CREATE FUNCTION bench.fresh(variant text) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    DROP TABLE IF EXISTS public.activities, public.leads, public.leads_history, public.leads_refused, public.leads_flow, public.leads_flow_pending, public.leads_behavior CASCADE;
    CREATE TABLE public.leads (LIKE bench.lead, PRIMARY KEY (id)) WITH (fillfactor = 80);
    CREATE TABLE public.activities (
        id          bigint PRIMARY KEY,
        lead_id     bigint NOT NULL,
        kind        text NOT NULL,
        url         text NOT NULL,
        occurred_at timestamptz NOT NULL
    );
    CREATE INDEX ON public.activities (lead_id);
    IF variant LIKE 'lifecycle%' THEN
        PERFORM lifecycle.track('public.leads', entered => 'created_at');
        PERFORM lifecycle.track_signal('public.activities', 'public.leads', lead => 'lead_id', at => 'occurred_at');
        INSERT INTO lifecycle.rule (on_table, name, condition, points, half_life)
        SELECT 'public.activities', r.name, r.condition, r.points, '14 days' FROM bench.rule r;
        IF variant = 'lifecycle' THEN
            INSERT INTO lifecycle.rule (on_table, name, condition, status)
            VALUES ('public.leads', 'qualified', 'behavior_score >= 198', 'mql');
        END IF;
    ELSE
        ALTER TABLE public.leads
            ADD COLUMN lifecycle_status lifecycle.lifecycle_status DEFAULT 'known', ADD COLUMN lifecycle_since timestamptz DEFAULT now(),
            ADD COLUMN lifecycle_seq int DEFAULT 1, ADD COLUMN demographic_score double precision DEFAULT 0;
        CREATE TABLE public.leads_history (LIKE bench.pattern_history INCLUDING ALL);
    END IF;
    IF variant LIKE 'narrow%' THEN
        CREATE TABLE public.leads_behavior (
            lead bigint NOT NULL, half_life interval NOT NULL, points double precision NOT NULL, at timestamptz NOT NULL,
            heat double precision, since timestamptz NOT NULL DEFAULT '-infinity', PRIMARY KEY (lead, half_life));
        CREATE INDEX ON public.leads_behavior (half_life, heat DESC NULLS LAST);
        EXECUTE coalesce((SELECT format('ALTER TABLE public.leads_behavior SET (%s)', array_to_string(c.reloptions, ', '))
                          FROM pg_class c WHERE c.oid = to_regclass('bench.like_behavior') AND c.reloptions IS NOT NULL), 'SELECT');
    ELSIF variant LIKE 'wide%' THEN
        ALTER TABLE public.leads ADD COLUMN points double precision, ADD COLUMN at timestamptz, ADD COLUMN heat double precision;
        CREATE INDEX ON public.leads (heat DESC NULLS LAST);
    END IF;
    INSERT INTO public.leads SELECT l.* FROM bench.lead l ORDER BY l.id;
    IF variant LIKE '%row' THEN
        EXECUTE format('CREATE TRIGGER arrive AFTER INSERT ON public.activities FOR EACH ROW EXECUTE FUNCTION bench.%I()', variant);
    ELSIF variant LIKE '%statement' THEN
        EXECUTE format('CREATE TRIGGER arrive AFTER INSERT ON public.activities REFERENCING NEW TABLE AS arrived FOR EACH STATEMENT EXECUTE FUNCTION bench.%I()', variant);
    END IF;
END
$$;

CREATE PROCEDURE bench.load(activities bigint, batch bigint)
    LANGUAGE plpgsql
AS $$
BEGIN
    FOR n IN 0 .. (activities - 1) / batch LOOP
        INSERT INTO public.activities SELECT a.* FROM bench.activity a WHERE a.id > n * batch AND a.id <= (n + 1) * batch ORDER BY a.id;
        COMMIT;
    END LOOP;
END
$$;

-- Fails unless each lead has the score and the status that are right, and each
-- move a row of history.
CREATE FUNCTION bench.prove(measure text, variant text) RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    wrong bigint;
    moved bigint;
    recorded bigint;
BEGIN
    IF variant LIKE 'untracked%' THEN
        RETURN;
    END IF;
    EXECUTE format($q$
        SELECT count(*) FROM bench.decided d
        LEFT JOIN (SELECT %s) AS b ON b.lead = d.lead, bench.moment m
        WHERE abs(coalesce(b.points * power(2::float8, extract(epoch FROM b.at - m.at)::float8 / 1209600), 0) - d.points) > 1e-9 * d.points $q$,
        CASE WHEN variant LIKE 'wide%' THEN 'id AS lead, points, at FROM public.leads'
             ELSE 'lead, points, at FROM public.leads_behavior WHERE half_life = ''14 days''' END)
    INTO wrong;
    IF wrong > 0 THEN
        RAISE 'bench: % in %: % scores are wrong', variant, measure, wrong;
    END IF;
    IF variant = 'lifecycle_points' THEN
        RETURN;
    END IF;
    SELECT count(*) INTO wrong FROM bench.decided d JOIN public.leads l ON l.id = d.lead
    WHERE l.lifecycle_status::text IS DISTINCT FROM d.status;
    SELECT count(*) INTO moved FROM bench.decided d WHERE d.status = 'mql';
    SELECT count(*) INTO recorded FROM public.leads_history h WHERE h.to_status = 'mql' AND h.rule = 'qualified';
    IF wrong > 0 OR moved <> recorded THEN
        RAISE 'bench: % in %: % statuses are wrong, % moves are recorded, expected %', variant, measure, wrong, recorded, moved;
    END IF;
END
$$;

-- The table of points as lifecycle makes it, whose storage parameters the others have, too.
CREATE TABLE bench.like (id bigint PRIMARY KEY);
CREATE TABLE bench.like_signals (id bigint, lead_id bigint, at timestamptz);
CREATE INDEX ON bench.like_signals (lead_id);
SELECT lifecycle.track('bench.like');
SELECT lifecycle.track_signal('bench.like_signals', 'bench.like', lead => 'lead_id', at => 'at');
VACUUM ANALYZE;
