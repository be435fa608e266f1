-- What every measure needs: results, the leads to be loaded, and a history that
-- the hand-written variants copy their table and indexes from.

CREATE EXTENSION lifecycle;
CREATE SCHEMA bench;

CREATE UNLOGGED TABLE bench.result (
    measure text NOT NULL,
    variant text NOT NULL,
    round   int NOT NULL,
    seconds double precision NOT NULL,  -- for the whole measure, or for one statement of it
    wal     double precision NOT NULL   -- bytes, likewise
);

CREATE UNLOGGED TABLE bench.lead (
    id               bigint NOT NULL,
    email            text NOT NULL,
    first_name       text,
    last_name        text,
    company          text,
    title            text,
    country          text,
    city             text,
    utm_source       text,
    updated_by       text,
    lost_reason      text,
    expected_revenue numeric,
    employees        int,
    created_at       timestamptz NOT NULL
);

-- No random(): every run loads the same rows.
INSERT INTO bench.lead
SELECT id,
       format('%s.%s%s@%s.example.com', lower(first_name), lower(last_name), id, lower(translate(company, ' ', '-'))),
       first_name, last_name, company, title, country, city,
       (ARRAY['google', 'newsletter', 'linkedin', NULL, 'partner', 'webinar'])[1 + h % 6],
       'sync ' || h % 20, NULL, (h % 90000 + 1000)::numeric, h % 5000,
       timestamptz '2025-01-01 00:00+00' + (h % 15000000) * interval '1 second'
FROM (SELECT id, abs(hashint8(id)::bigint) AS h FROM generate_series(1, :leads) AS id) AS n
CROSS JOIN LATERAL (
    SELECT (ARRAY['Anna', 'Bernhard', 'Chiara', 'Dmitri', 'Elisabeth', 'Francesco', 'Guillermo'])[1 + h % 7] AS first_name,
           (ARRAY['Smith', 'Rodriguez', 'Schneider', 'Yamamoto', 'Kowalczyk'])[1 + h % 5] AS last_name,
           (ARRAY['Acme Machine Tools', 'Northern Freight', 'Blue Harbour Software', 'Ostsee Logistik'])[1 + h / 7 % 4]
               || ' ' || h % 30000 AS company,
           (ARRAY['VP Marketing', 'Chief Executive Officer', 'Head of Demand Generation',
                  'Student', 'Senior Software Engineer'])[1 + h / 11 % 5] AS title,
           (ARRAY['Germany', 'United States', 'France', 'Japan', 'Brazil'])[1 + h / 13 % 5] AS country,
           (ARRAY['Hamburg', 'San Francisco', 'Lyon', 'Osaka', 'Porto Alegre'])[1 + h / 13 % 5] AS city
) AS words;
ALTER TABLE bench.lead ADD PRIMARY KEY (id);
VACUUM ANALYZE bench.lead;

COPY (SELECT * FROM bench.lead ORDER BY id) TO :'file';

-- Drops the tables of the last measure and creates them anew for the variant,
-- with that many leads that have entered as "known".  They are put there in
-- the same way in every variant, past all triggers, so that what is measured
-- afterwards finds the same pages.
CREATE FUNCTION bench.fresh(variant text, leads bigint DEFAULT 0, fillfactor int DEFAULT 100) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    IF to_regclass('public.leads') IS NOT NULL THEN
        DROP TABLE IF EXISTS public.leads, public.leads_history, public.leads_refused, public.leads_flow, public.leads_flow_pending CASCADE;
    END IF;
    EXECUTE format('CREATE TABLE public.leads (LIKE bench.lead, PRIMARY KEY (id)) WITH (fillfactor = %s)', fillfactor);

    IF variant IN ('untracked', 'floor', 'plpgsql_statement', 'plpgsql_row') THEN
        ALTER TABLE public.leads
            ADD COLUMN lifecycle_status lifecycle.lifecycle_status, ADD COLUMN lifecycle_since timestamptz,
            ADD COLUMN lifecycle_seq int, ADD COLUMN demographic_score double precision;
    ELSE
        PERFORM lifecycle.track('public.leads',
            entered => 'created_at', source => $q$ coalesce(utm_source, 'direct') $q$,
            value => 'expected_revenue', actor => 'updated_by', reason => 'lost_reason', cohort => '(id % 2)::int');
    END IF;
    IF variant IN ('floor', 'plpgsql_statement', 'plpgsql_row') THEN
        CREATE TABLE public.leads_history (LIKE bench.pattern_history INCLUDING ALL);
    END IF;
    IF variant LIKE 'plpgsql%' THEN
        PERFORM bench.create_triggers(variant);
    ELSIF variant = 'untracked_again' THEN
        PERFORM lifecycle.untrack('public.leads');
    ELSIF variant = 'disabled' THEN
        ALTER TABLE public.leads DISABLE TRIGGER USER;
    END IF;
    PERFORM set_config('lifecycle.batch_history', CASE variant WHEN 'lifecycle_single' THEN 'off' ELSE 'on' END, false);

    IF leads = 0 THEN
        RETURN;
    END IF;
    SET LOCAL session_replication_role = replica;
    INSERT INTO public.leads
    SELECT l.*, 'known', l.created_at, 1, 0 FROM bench.lead l WHERE l.id <= leads ORDER BY l.id;
    IF to_regclass('public.leads_history') IS NOT NULL THEN
        PERFORM bench.write_entries();
    END IF;
    SET LOCAL session_replication_role = origin;
END
$$;

-- The history rows of the entries of all leads, set-based: what the floor
-- writes, and what others start from where moves are measured.
CREATE FUNCTION bench.write_entries() RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.leads_history (
        lead, seq, cycle, to_status, at, cause, actor, session_user_name, reason, demographic_score,
        behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
    SELECT l.id, 1, 1, 'known', l.created_at, 'entry', l.updated_by, session_user, l.lost_reason, 0,
           0, coalesce(l.utm_source, 'direct'), l.id % 2, l.expected_revenue, l.created_at, l.created_at,
           ARRAY['known'], clock_timestamp()
    FROM public.leads l;
END
$$;

-- The history rows of the moves of all leads with an even key, likewise.
CREATE FUNCTION bench.write_moves() RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.leads_history (
        lead, seq, cycle, from_status, from_since, to_status, at, cause, actor, session_user_name, reason,
        demographic_score, behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
    SELECT l.id, 2, 1, 'known', h.at, 'mql', now(), 'write', l.updated_by, session_user, l.lost_reason,
           0, 0, h.source, h.cohort, l.expected_revenue, h.entered_at, h.cycle_since,
           h.reached || 'mql'::text, clock_timestamp()
    FROM public.leads l
    JOIN public.leads_history h ON h.lead = l.id AND h.seq = 1
    WHERE l.id % 2 = 0;
END
$$;

-- Fails unless the variant did what it claims: so many history rows where it
-- keeps a history, and none where it does not; and, where one is asked for, the
-- same content as every other variant (without the times of the run).
CREATE TABLE bench.content (measure text PRIMARY KEY, variant text NOT NULL, sum numeric NOT NULL);

CREATE FUNCTION bench.prove(measure text, variant text, leads bigint, entries bigint, moves bigint, content boolean)
    RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    history boolean := variant NOT IN ('untracked', 'untracked_again', 'disabled');
    counted bigint;
    found_sum numeric;
    first bench.content;
BEGIN
    SELECT count(*) INTO counted FROM public.leads;
    IF counted <> leads THEN
        RAISE 'bench: % in %: % leads, expected %', variant, measure, counted, leads;
    END IF;
    IF NOT history THEN
        entries := CASE WHEN measure = 'copy' THEN 0 ELSE entries END;
        moves := 0;
        IF variant = 'untracked' THEN
            RETURN;
        END IF;
    END IF;
    SELECT count(*) INTO counted FROM public.leads_history;
    IF counted <> entries + moves THEN
        RAISE 'bench: % in %: % history rows, expected % + %', variant, measure, counted, entries, moves;
    END IF;
    IF NOT content OR NOT history THEN
        RETURN;
    END IF;
    SELECT sum(hashtextextended(ROW(h.lead, h.seq, h.cycle, h.from_status, h.from_since, h.to_status,
                   CASE WHEN h.seq = 1 THEN h.at END, h.cause, h.rule, h.actor, h.session_user_name, h.reason,
                   h.demographic_score, h.behavior_score, h.source, h.cohort, h.value, h.entered_at,
                   h.cycle_since, h.reached)::text, 0)) INTO found_sum
    FROM public.leads_history h
    WHERE h.seq <= 2;
    SELECT * INTO first FROM bench.content c WHERE c.measure = prove.measure;
    IF NOT FOUND THEN
        INSERT INTO bench.content VALUES (measure, variant, found_sum);
    ELSIF first.sum <> found_sum THEN
        RAISE 'bench: % and % wrote different histories in %', variant, first.variant, measure;
    END IF;
END
$$;

CREATE TABLE bench.pattern (LIKE bench.lead, PRIMARY KEY (id));
SELECT lifecycle.track('bench.pattern');
