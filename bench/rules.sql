-- The benchmark of rules: twenty rules, the leads that they judge, and the
-- variants that decide the same.
--
-- The rules stand once, in bench.rule; what each variant executes is made of
-- that, so that all judge by the same conditions.  What is right is decided
-- before anything is measured, by one plain SQL statement (bench.decide).

CREATE EXTENSION lifecycle;
CREATE SCHEMA bench;

CREATE UNLOGGED TABLE bench.result (
    measure text NOT NULL,
    variant text NOT NULL,
    round   int NOT NULL,
    seconds double precision NOT NULL,  -- for one lead, UPDATE or transaction
    PRIMARY KEY (measure, variant, round)
);

-- Rules with a status in the order in which they win: that of semantics where
-- none has a priority: detours, then the furthest along the path.
CREATE TABLE bench.rule (
    place     int PRIMARY KEY,
    name      text NOT NULL UNIQUE,
    condition text NOT NULL,
    points    numeric,
    status    text,
    CHECK (num_nonnulls(points, status) = 1)
);
INSERT INTO bench.rule (place, name, points, condition) VALUES
    (1, 'vice president', 20, $$ title ILIKE '%vice president%' $$),
    (2, 'marketing', 15, $$ title ILIKE '%marketing%' $$),
    (3, 'software house', 10, $$ company ILIKE '%software%' $$),
    (4, 'free mail', -20, $$ email ILIKE '%@gmail.%' $$),
    (5, 'decision maker', 25, $$ title ~* '\m(vp|chief|head|director)\M' $$),
    (6, 'operations', 5, $$ title ~ 'Operations' $$),
    (7, 'german phone', 5, $$ phone LIKE '+49 %' $$),
    (8, 'home market', 10, $$ country IN ('Germany', 'Austria', 'Switzerland') $$),
    (9, 'industry we know', 10, $$ industry = ANY (ARRAY['Software', 'Banking', 'Machinery']) $$),
    (10, 'large', 15, $$ employees >= 200 $$),
    (11, 'medium', 5, $$ employees BETWEEN 20 AND 199 $$),
    (12, 'revenue', 10.5, $$ annual_revenue >= 10000000.00 $$),
    (13, 'seen lately', 10, $$ last_seen_at >= timestamptz '2025-11-01 00:00+00' $$),
    (14, 'no phone', -5, $$ phone IS NULL $$),
    (15, 'list', -10.25, $$ utm_source = 'bought list' $$),
    (16, 'old', -2.5, $$ created_at < timestamptz '2025-04-01 00:00+00' $$);
INSERT INTO bench.rule (place, name, status, condition) VALUES
    (17, 'nobody', 'disqualified', $$ demographic_score < 0 AND title = 'Student' $$),
    (18, 'qualified', 'mql', $$ demographic_score >= 50 $$),
    (19, 'engaged', 'engaged', $$ demographic_score >= 20 AND last_seen_at >= timestamptz '2025-11-01 00:00+00' $$),
    (20, 'accepted', 'mal', $$ demographic_score >= 15 $$);

-- The leads: sixteen columns.  No random(): the same seed loads the same rows.
CREATE UNLOGGED TABLE bench.lead (
    id             bigint NOT NULL,
    email          text NOT NULL,
    first_name     text,
    last_name      text,
    company        text,
    title          text,
    industry       text,
    country        text,
    city           text,
    phone          text,
    employees      int,
    annual_revenue numeric(14,2),
    utm_source     text,
    owner_id       int,
    last_seen_at   timestamptz,
    created_at     timestamptz NOT NULL
);

-- A number from 0 to n - 1 that follows from the lead, the seed and k.
CREATE FUNCTION bench.pick(id bigint, k int, n int) RETURNS int
    LANGUAGE sql IMMUTABLE
AS $$
    SELECT ((hashint8extended(id, current_setting('bench.seed')::bigint * 100 + k) & 2147483647) % n)::int
$$;

INSERT INTO bench.lead
SELECT id,
       translate(lower(first_name || '.' || last_name), 'äéëíöøüñ ''', 'aeeioounx') || id || '@'
           || CASE WHEN bench.pick(id, 0, 100) < 15 THEN (ARRAY['gmail.com', 'GMail.com', 'web.de', 'outlook.com'])[1 + bench.pick(id, 1, 4)]
                   ELSE lower(name_a || '-' || name_b) || (ARRAY['.com', '.de', '.io', '.co.uk'])[1 + bench.pick(id, 2, 4)] END,
       first_name, last_name, name_a || ' ' || name_b || legal_form, title || area,
       (ARRAY['Software', 'Banking', 'Machinery', 'Retail', 'Logistics', 'Health Care', 'Education', 'Media', NULL])[1 + bench.pick(id, 3, 9)],
       (ARRAY['Germany', 'Austria', 'Switzerland', 'United States', 'United Kingdom', 'France', 'Spain', 'Japan', 'Brazil', NULL])[1 + place],
       (ARRAY['Hamburg', 'Graz', 'Zürich', 'San Francisco', 'Manchester', 'Lyon', 'Málaga', '大阪', 'Porto Alegre', NULL])[1 + place],
       CASE WHEN bench.pick(id, 5, 100) >= 30 AND place < 9
            THEN format('+%s %s %s', (ARRAY[49, 43, 41, 1, 44, 33, 34, 81, 55])[1 + place], 20 + bench.pick(id, 6, 80), 1000000 + bench.pick(id, 7, 9000000)) END,
       CASE WHEN bench.pick(id, 8, 10) > 0 THEN round(exp(bench.pick(id, 9, 1000) / 100.0))::int END,
       CASE WHEN bench.pick(id, 10, 10) > 2 THEN round((10000 * exp(bench.pick(id, 11, 1000) / 100.0))::numeric, 2) END,
       (ARRAY['google', 'newsletter', 'linkedin', 'partner', 'webinar', 'trade fair', 'bought list', NULL])[1 + bench.pick(id, 12, 8)],
       CASE WHEN bench.pick(id, 13, 3) > 0 THEN bench.pick(id, 14, 60) END,
       CASE WHEN bench.pick(id, 15, 4) > 0
            THEN timestamptz '2025-01-01 00:00+00' + bench.pick(id, 16, 31536000) * interval '1 second' END,
       timestamptz '2025-01-01 00:00+00' + bench.pick(id, 17, 26000000) * interval '1 second'
FROM generate_series(1, :leads) AS id
CROSS JOIN LATERAL (
    SELECT (ARRAY['Anna', 'Bernhard', 'Chloë', 'Dmitri', 'Elisabeth', 'Francesco', 'Guillermo', 'Hélène', 'Ingrid', 'Jürgen', 'Kenji', 'Íñigo'])[1 + bench.pick(id, 20, 12)] AS first_name,
           (ARRAY['Smith', 'Rodríguez', 'Schneider', 'Yamamoto', 'Kowalczyk', 'O''Brien', 'Müller', 'Sørensen', 'Dupont', 'van Dijk', 'Okafor'])[1 + bench.pick(id, 21, 11)] AS last_name,
           (ARRAY['Acme', 'Northern', 'Harbour', 'Ostsee', 'Alpen', 'Pacific', 'Union', 'Delta', 'Meridian', 'Fjord', 'Granite', 'Helix'])[1 + bench.pick(id, 22, 12)] AS name_a,
           (ARRAY['Software', 'Logistik', 'Freight', 'Machine-Tools', 'Analytics', 'Foods', 'Systems', 'Energie', 'Textiles', 'Consulting'])[1 + bench.pick(id, 23, 10)] AS name_b,
           (ARRAY['', ' GmbH', ' Inc.', ' Ltd', ' S.A.', ' AG & Co. KG'])[1 + bench.pick(id, 24, 6)] AS legal_form,
           (ARRAY['Vice President Marketing', 'Chief Executive Officer', 'Head of Demand Generation', 'Director of Operations', 'VP Sales',
                  'Senior Software Engineer', 'Student', 'Geschäftsführerin', 'Responsable marketing', 'Marketing Manager', 'Account Executive',
                  'Data Analyst', 'Purchasing Assistant', 'Chief Financial Officer', 'Sales Development Representative', 'Product Manager',
                  'Office Manager', 'Operations Planner', 'Professor of Economics', NULL])[1 + bench.pick(id, 25, 20)] AS title,
           (ARRAY['', '', '', '', ', EMEA', ', North America', ' (interim)'])[1 + bench.pick(id, 26, 7)] AS area,
           bench.pick(id, 4, 10) AS place
) AS words;
ALTER TABLE bench.lead ADD PRIMARY KEY (id);
COPY (SELECT * FROM bench.lead ORDER BY id) TO :'file';

-- A condition as it reads in a function where the lead is called "row".
CREATE FUNCTION bench.of_row(condition text, "row" text) RETURNS text
    LANGUAGE sql STABLE
AS $$
    SELECT btrim(regexp_replace(condition,
               format('\m(%s)\M', (SELECT string_agg(a.attname, '|') FROM pg_attribute a
                                   WHERE a.attrelid = 'bench.lead'::regclass AND a.attnum > 0)),
               "row" || '.\1', 'g'))
$$;

-- The score as one expression, added in the order of the names.
CREATE FUNCTION bench.score_expression("row" text) RETURNS text
    LANGUAGE sql STABLE
AS $$
    SELECT string_agg(format('CASE WHEN %s THEN %s::float8 ELSE 0 END',
                             CASE "row" WHEN '' THEN btrim(r.condition) ELSE bench.of_row(r.condition, "row") END, r.points),
                      E'\n    + ' ORDER BY r.name COLLATE "C")
    FROM bench.rule r WHERE r.points IS NOT NULL
$$;

-- What is right: score, status and the rule that decided, for each lead.
CREATE TABLE bench.decided (id bigint NOT NULL, score double precision NOT NULL, status text NOT NULL, rule text, cohort int NOT NULL);
DO $$
BEGIN
    EXECUTE format($q$
        INSERT INTO bench.decided
        SELECT l.id, s.demographic_score, CASE %2$s ELSE 'known' END, CASE %3$s END, lifecycle.cohort(l.id::text, 2)
        FROM bench.lead l CROSS JOIN LATERAL (SELECT %1$s AS demographic_score OFFSET 0) AS s
        ORDER BY l.id$q$,
        bench.score_expression('l'),
        (SELECT string_agg(format('WHEN %s THEN %L', bench.of_row(condition, 'l'), status), ' ' ORDER BY place) FROM bench.rule WHERE status IS NOT NULL),
        (SELECT string_agg(format('WHEN %s THEN %L', bench.of_row(condition, 'l'), name), ' ' ORDER BY place) FROM bench.rule WHERE status IS NOT NULL));
END
$$;

CREATE FUNCTION bench.checksum(id bigint, score double precision, status text) RETURNS bigint
    LANGUAGE sql IMMUTABLE
AS $$
    SELECT hashtextextended(concat_ws(' ', id, score, status), 0)
$$;

-- The rows of a floor's history, decided already.
CREATE UNLOGGED TABLE bench.entry AS
SELECT l.id, d.status, l.created_at, d.rule, l.owner_id::text AS actor, d.score, coalesce(l.utm_source, 'direct') AS source,
       d.cohort, l.annual_revenue::numeric AS value, ARRAY[d.status] AS reached
FROM bench.lead l JOIN bench.decided d USING (id)
ORDER BY l.id;
ALTER TABLE bench.entry ADD PRIMARY KEY (id);
VACUUM ANALYZE;

-- What must not be there for nothing: each rule holds for some and not for all.
DO $$
DECLARE
    r bench.rule;
    n bigint;
BEGIN
    FOR r IN SELECT * FROM bench.rule LOOP
        IF r.status IS NULL THEN
            EXECUTE format('SELECT count(*) FROM bench.lead WHERE %s', r.condition) INTO n;
        ELSE
            SELECT count(*) INTO n FROM bench.decided d WHERE d.rule = r.name;
        END IF;
        IF n = 0 OR n = (SELECT count(*) FROM bench.lead) THEN
            RAISE 'bench: rule "%" holds for % leads', r.name, n;
        END IF;
    END LOOP;
END
$$;

-- (b) By hand: a BEFORE ROW trigger with the conditions written out.  As in
-- plpgsql.sql it looks whether the key comes back, and keeps a given status.

CREATE FUNCTION bench.create_before_insert(name text, body text) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format($q$
CREATE FUNCTION bench.%I() RETURNS trigger LANGUAGE plpgsql AS $f$
DECLARE
    score double precision := 0;
    last_seq int;
    last_at timestamptz;
BEGIN
%s
    NEW.demographic_score := score;
    SELECT h.seq, h.at INTO last_seq, last_at
    FROM public.leads_history h WHERE h.lead = NEW.id ORDER BY h.seq DESC LIMIT 1;
    IF FOUND THEN
        NEW.lifecycle_seq := last_seq + 1;
        NEW.lifecycle_since := greatest(least(NEW.created_at, now()), last_at);
    ELSE
        NEW.lifecycle_seq := 1;
        NEW.lifecycle_since := least(NEW.created_at, now());
    END IF;
    IF NEW.lifecycle_status IS NULL OR NEW.lifecycle_status = 'known' THEN
        IF %s
        ELSE
            NEW.lifecycle_status := 'known';
        END IF;
    END IF;
    RETURN NEW;
END
$f$
$q$, name, body,
        (SELECT string_agg(format('%s THEN NEW.lifecycle_status := %L;',
                                  replace(bench.of_row(r.condition, 'NEW'), 'demographic_score', 'score'), r.status),
                           E'\n        ELSIF ' ORDER BY r.place)
         FROM bench.rule r WHERE r.status IS NOT NULL));
END
$$;
SELECT bench.create_before_insert('before_insert_if',
    (SELECT string_agg(format('    IF %s THEN score := score + %s; END IF;', bench.of_row(r.condition, 'NEW'), r.points), E'\n' ORDER BY r.name COLLATE "C")
     FROM bench.rule r WHERE r.points IS NOT NULL));
SELECT bench.create_before_insert('before_insert_expression', format('    score := %s;', bench.score_expression('NEW')));

-- The rule that decided follows from the status, since here no two rules ask
-- for the same one.
CREATE FUNCTION bench.rule_of(status text) RETURNS text
    LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE status WHEN 'disqualified' THEN 'nobody' WHEN 'mql' THEN 'qualified' WHEN 'engaged' THEN 'engaged'
                       WHEN 'mal' THEN 'accepted' END
$$;

CREATE FUNCTION bench.after_insert_row() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.lifecycle_seq = 1 THEN
        INSERT INTO public.leads_history (
            lead, seq, cycle, to_status, at, cause, rule, actor, session_user_name, demographic_score,
            behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
        VALUES (NEW.id, 1, 1, NEW.lifecycle_status, NEW.lifecycle_since, 'entry', bench.rule_of(NEW.lifecycle_status::text),
                NEW.owner_id, session_user, NEW.demographic_score, 0, coalesce(NEW.utm_source, 'direct'),
                lifecycle.cohort(NEW.id::text, 2), NEW.annual_revenue, NEW.lifecycle_since, NEW.lifecycle_since,
                ARRAY[NEW.lifecycle_status], clock_timestamp());
    ELSE
        INSERT INTO public.leads_history (
            lead, seq, cycle, to_status, at, cause, rule, actor, session_user_name, demographic_score,
            behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
        SELECT NEW.id, NEW.lifecycle_seq, l.cycle + 1, NEW.lifecycle_status, NEW.lifecycle_since, 'entry',
               bench.rule_of(NEW.lifecycle_status::text), NEW.owner_id, session_user, NEW.demographic_score, 0,
               l.source, l.cohort, NEW.annual_revenue, l.entered_at, NEW.lifecycle_since,
               lifecycle.reached_add(l.reached, NEW.lifecycle_status::text, true), clock_timestamp()
        FROM public.leads_history l WHERE l.lead = NEW.id AND l.seq = NEW.lifecycle_seq - 1;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION bench.after_insert_statement() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.leads_history (
        lead, seq, cycle, to_status, at, cause, rule, actor, session_user_name, demographic_score,
        behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
    SELECT n.id, 1, 1, n.lifecycle_status, n.lifecycle_since, 'entry', bench.rule_of(n.lifecycle_status::text),
           n.owner_id, session_user, n.demographic_score, 0, coalesce(n.utm_source, 'direct'),
           lifecycle.cohort(n.id::text, 2), n.annual_revenue, n.lifecycle_since, n.lifecycle_since,
           ARRAY[n.lifecycle_status], clock_timestamp()
    FROM arrived n WHERE n.lifecycle_seq = 1;
    IF EXISTS (SELECT FROM arrived n WHERE n.lifecycle_seq > 1) THEN
        INSERT INTO public.leads_history (
            lead, seq, cycle, to_status, at, cause, rule, actor, session_user_name, demographic_score,
            behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
        SELECT n.id, n.lifecycle_seq, l.cycle + 1, n.lifecycle_status, n.lifecycle_since, 'entry',
               bench.rule_of(n.lifecycle_status::text), n.owner_id, session_user, n.demographic_score, 0,
               l.source, l.cohort, n.annual_revenue, l.entered_at, n.lifecycle_since,
               lifecycle.reached_add(l.reached, n.lifecycle_status::text, true), clock_timestamp()
        FROM arrived n JOIN public.leads_history l ON l.lead = n.id AND l.seq = n.lifecycle_seq - 1
        WHERE n.lifecycle_seq > 1;
    END IF;
    RETURN NULL;
END
$$;

-- (c) The rules stay in a table, as their users write them, and each is
-- EXECUTEd for each row; or, in "fields", with the columns spelt as fields of
-- the parameter, which is less to plan but asks for a parser of one's own.
CREATE TABLE bench.executed (place int PRIMARY KEY, name text, plain text, fields text, points double precision, status text);
INSERT INTO bench.executed
SELECT r.place, r.name, format('SELECT %s FROM (SELECT ($1).*, $2 AS demographic_score) AS lead', r.condition),
       'SELECT ' || replace(bench.of_row(r.condition, '($1)'), 'demographic_score', '$2'), r.points, r.status
FROM bench.rule r;
ANALYZE bench.executed;

DO $make$
DECLARE
    form text;
BEGIN
    FOREACH form IN ARRAY ARRAY['plain', 'fields'] LOOP
        EXECUTE format($q$
CREATE FUNCTION bench.before_insert_%1$s() RETURNS trigger LANGUAGE plpgsql AS $f$
DECLARE
    lead bench.lead;
    rule record;
    holds boolean;
    score double precision := 0;
    last_seq int;
    last_at timestamptz;
BEGIN
    lead := ROW(%2$s);
    FOR rule IN SELECT e.%1$s AS query, e.points FROM bench.executed e WHERE e.points IS NOT NULL ORDER BY e.name COLLATE "C" LOOP
        EXECUTE rule.query INTO holds USING lead, score;
        IF holds THEN
            score := score + rule.points;
        END IF;
    END LOOP;
    NEW.demographic_score := score;
    SELECT h.seq, h.at INTO last_seq, last_at
    FROM public.leads_history h WHERE h.lead = NEW.id ORDER BY h.seq DESC LIMIT 1;
    IF FOUND THEN
        NEW.lifecycle_seq := last_seq + 1;
        NEW.lifecycle_since := greatest(least(NEW.created_at, now()), last_at);
    ELSE
        NEW.lifecycle_seq := 1;
        NEW.lifecycle_since := least(NEW.created_at, now());
    END IF;
    IF NEW.lifecycle_status IS NULL OR NEW.lifecycle_status = 'known' THEN
        NEW.lifecycle_status := 'known';
        FOR rule IN SELECT e.%1$s AS query, e.status FROM bench.executed e WHERE e.status IS NOT NULL ORDER BY e.place LOOP
            EXECUTE rule.query INTO holds USING lead, score;
            IF holds THEN
                NEW.lifecycle_status := rule.status;
                EXIT;
            END IF;
        END LOOP;
    END IF;
    RETURN NEW;
END
$f$
$q$, form, (SELECT string_agg('NEW.' || a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
            WHERE a.attrelid = 'bench.lead'::regclass AND a.attnum > 0));
    END LOOP;
END
$make$;

-- The tables of a variant, anew.  With "leads", that many are there already, as
-- they were decided: put there past all triggers in the same way in each
-- variant, so that what is measured afterwards finds the same pages.
CREATE TABLE bench.pattern (LIKE bench.lead, PRIMARY KEY (id));
SELECT lifecycle.track('bench.pattern');

CREATE FUNCTION bench.fresh(variant text, leads bigint DEFAULT 0) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    IF to_regclass('public.leads') IS NOT NULL THEN
        DROP TABLE IF EXISTS public.leads, public.leads_history, public.leads_refused, public.leads_flow, public.leads_flow_pending CASCADE;
    END IF;
    EXECUTE format('CREATE TABLE public.leads (LIKE bench.lead, PRIMARY KEY (id)) WITH (fillfactor = %s)',
                   CASE WHEN leads > 0 THEN 70 ELSE 100 END);
    IF variant IN ('lifecycle', 'no_rules') THEN
        PERFORM lifecycle.track('public.leads',
            entered => 'created_at', source => $q$ coalesce(utm_source, 'direct') $q$, value => 'annual_revenue',
            actor => 'owner_id::text', cohort => 'lifecycle.cohort(id::text, 2)');
        IF variant = 'lifecycle' THEN
            INSERT INTO lifecycle.rule (on_table, name, condition, points, status)
            SELECT 'public.leads', r.name, r.condition, r.points, r.status FROM bench.rule r;
        END IF;
    ELSIF variant = 'generated' THEN
        EXECUTE format('ALTER TABLE public.leads ADD COLUMN demographic_score double precision GENERATED ALWAYS AS (%s) STORED',
                       bench.score_expression(''));
    ELSE
        ALTER TABLE public.leads
            ADD COLUMN lifecycle_status lifecycle.lifecycle_status, ADD COLUMN lifecycle_since timestamptz,
            ADD COLUMN lifecycle_seq int, ADD COLUMN demographic_score double precision;
    END IF;
    IF variant = 'floor' OR variant LIKE 'plpgsql%' THEN
        CREATE TABLE public.leads_history (LIKE bench.pattern_history INCLUDING ALL);
    END IF;
    IF variant LIKE 'plpgsql%' THEN
        EXECUTE format('CREATE TRIGGER before_insert BEFORE INSERT ON public.leads FOR EACH ROW EXECUTE FUNCTION bench.%I()',
                       CASE variant WHEN 'plpgsql_execute' THEN 'before_insert_plain'
                                    WHEN 'plpgsql_execute_fields' THEN 'before_insert_fields'
                                    WHEN 'plpgsql_expression' THEN 'before_insert_expression'
                                    ELSE 'before_insert_if' END);
        IF variant = 'plpgsql_row' THEN
            CREATE TRIGGER after_insert AFTER INSERT ON public.leads
                FOR EACH ROW EXECUTE FUNCTION bench.after_insert_row();
        ELSE
            CREATE TRIGGER after_insert AFTER INSERT ON public.leads REFERENCING NEW TABLE AS arrived
                FOR EACH STATEMENT EXECUTE FUNCTION bench.after_insert_statement();
        END IF;
    END IF;

    IF leads = 0 THEN
        RETURN;
    END IF;
    SET LOCAL session_replication_role = replica;
    INSERT INTO public.leads
    SELECT l.*, d.status::lifecycle.lifecycle_status, l.created_at, 1, d.score
    FROM bench.lead l JOIN bench.decided d USING (id) WHERE l.id <= leads ORDER BY l.id;
    IF to_regclass('public.leads_history') IS NOT NULL THEN
        PERFORM bench.write_entries(leads);
    END IF;
    SET LOCAL session_replication_role = origin;
END
$$;

-- The history of the entries, set-based and decided before: what the floor
-- writes, and what leads start from that are there already.
CREATE FUNCTION bench.write_entries(leads bigint) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.leads_history (
        lead, seq, cycle, to_status, at, cause, rule, actor, session_user_name, demographic_score,
        behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
    SELECT e.id, 1, 1, e.status, e.created_at, 'entry', e.rule, e.actor, session_user, e.score,
           0, e.source, e.cohort, e.value, e.created_at, e.created_at, e.reached, clock_timestamp()
    FROM bench.entry e WHERE e.id <= leads;
END
$$;

-- Fails unless the variant decided what is right for each of the leads and
-- kept, where it keeps a history, as many rows as belong into it; and exactly
-- those, where "content" asks for that.
CREATE FUNCTION bench.prove(measure text, variant text, leads bigint, content boolean) RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    right_n bigint;
    right_sum numeric;
    found_n bigint;
    found_sum numeric;
BEGIN
    SELECT count(*) INTO found_n FROM public.leads;
    IF found_n <> leads THEN
        RAISE 'bench: % in %: % leads, expected %', variant, measure, found_n, leads;
    END IF;
    IF variant NOT IN ('untracked', 'floor', 'no_rules') THEN
        SELECT count(*), sum(bench.checksum(d.id, d.score, CASE variant WHEN 'generated' THEN '' ELSE d.status END))
        INTO right_n, right_sum FROM bench.decided d WHERE d.id <= leads;
        EXECUTE format('SELECT sum(bench.checksum(l.id, l.demographic_score, %s)) FROM public.leads l',
                       CASE variant WHEN 'generated' THEN quote_literal('') ELSE 'l.lifecycle_status::text' END)
        INTO found_sum;
        IF found_sum IS DISTINCT FROM right_sum THEN
            RAISE 'bench: % in %: scores or statuses are wrong', variant, measure;
        END IF;
    END IF;
    IF to_regclass('public.leads_history') IS NULL THEN
        IF variant NOT IN ('untracked', 'untracked_too', 'generated') THEN
            RAISE 'bench: % has no history', variant;
        END IF;
        RETURN;
    END IF;
    SELECT count(*) INTO found_n FROM public.leads_history;
    IF found_n <> leads THEN
        RAISE 'bench: % in %: % history rows, expected %', variant, measure, found_n, leads;
    END IF;
    IF variant = 'no_rules' OR NOT content THEN
        RETURN;
    END IF;
    SELECT sum(hashtextextended(ROW(e.id, 1, 1, NULL::text, NULL::timestamptz, e.status, e.created_at, 'entry', e.rule,
                   e.actor, session_user, NULL::text, e.score, 0::float8, e.source, e.cohort, e.value, e.created_at,
                   e.created_at, e.reached)::text, 0))
    INTO right_sum FROM bench.entry e WHERE e.id <= leads;
    SELECT sum(hashtextextended(ROW(h.lead, h.seq, h.cycle, h.from_status, h.from_since, h.to_status, h.at, h.cause, h.rule,
                   h.actor, h.session_user_name, h.reason, h.demographic_score, h.behavior_score, h.source, h.cohort, h.value,
                   h.entered_at, h.cycle_since, h.reached)::text, 0))
    INTO found_sum FROM public.leads_history h;
    IF found_sum IS DISTINCT FROM right_sum THEN
        RAISE 'bench: % in %: the history is wrong', variant, measure;
    END IF;
END
$$;
