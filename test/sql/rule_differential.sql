-- Random rules over random rows, beside a reference that knows nothing of the
-- extension: scores must be those of the same expressions summed up in plain SQL,
-- bit by bit; entries and moves, with their rules, those that the words of the
-- specification give when they are written down naively, in SQL. The same seeds
-- make the same rules and rows.

CREATE EXTENSION lifecycle;
SELECT no_plan();
SET client_min_messages = error;

CREATE TABLE lead (
    id int PRIMARY KEY, name text, title text, n int, x numeric, f float8, d date, at timestamptz, ok boolean, tags text[], data jsonb
);
CREATE TABLE leads (LIKE lead INCLUDING ALL);
SELECT lifecycle.track('leads', on_illegal => 'keep');

-- ---- at random ----

CREATE FUNCTION below(n int) RETURNS int LANGUAGE sql VOLATILE RETURN floor(random() * n)::int;
CREATE FUNCTION one_of(choices text[]) RETURNS text LANGUAGE sql VOLATILE RETURN choices[1 + below(cardinality(choices))];
CREATE FUNCTION words() RETURNS text[] LANGUAGE sql IMMUTABLE RETURN
    ARRAY['VP Sales', 'vp', 'CHIEF of Staff', 'Intern', 'Übersetzer', 'ÜBERSETZER', '日本語', '日本', 'Ærøskøbing', 'naïve', 'ß', '😀 sales', '', ' ', '%', 'a\b', E'tab\there', 'it''s', repeat('ü', 1100)];

CREATE FUNCTION random_row(id int) RETURNS lead LANGUAGE sql VOLATILE AS $$
    SELECT id, CASE WHEN random() > 0.15 THEN one_of(words()) END, CASE WHEN random() > 0.15 THEN one_of(words()) || one_of('{"",""," ",x}') END,
        CASE WHEN random() > 0.15 THEN below(12) - 4 END, CASE WHEN random() > 0.15 THEN round((random() * 20 - 5)::numeric, below(4)) END,
        CASE WHEN random() > 0.15 THEN one_of('{0,-0,1,0.1,2.5e-3,1e10,-7.25}')::float8 END,
        CASE WHEN random() > 0.15 THEN date '2026-01-01' + below(60) END, CASE WHEN random() > 0.15 THEN now() - below(60) * interval '1 day' END,
        CASE WHEN random() > 0.2 THEN random() < 0.5 END,
        CASE WHEN random() > 0.2 THEN (SELECT coalesce(array_agg(w), '{}') FROM (SELECT one_of('{a,b,ü,日本,NULL}') AS w FROM generate_series(1, below(4))) AS t) END,
        CASE WHEN random() > 0.2 THEN jsonb_strip_nulls(jsonb_build_object('n', below(9), 'w', one_of(words()), 'deep', jsonb_build_object('k', one_of('{x,ü}')))) END
$$;

CREATE FUNCTION random_atom(scores boolean) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN scores AND random() < 0.4 THEN format('demographic_score %s %s', one_of('{>=,>,<,<=,=,<>}'), below(12) - 3)
    ELSE (ARRAY[
        format('n %s %s', one_of('{>,<,=,<>}'), below(12) - 4), format('x BETWEEN %s AND %s', below(8) - 5, below(12)), format('f %s %s', one_of('{>=,<}'), one_of('{0,0.1,2}')),
        format('name = %L', one_of(words())), format('title LIKE %L', '%' || one_of('{s,S,ü,日,"",\\}') || '%'), format('title ILIKE %L', one_of('{vp%,%sales,übersetzer%,_p%}')),
        format('%s ~* %L', one_of('{name,title}'), one_of(ARRAY['\m(vp|chief)\M', '^ü', '本', 'SALES$', '.{3,8}', '[[:alpha:]]{4}', '\s'])),
        format('upper(name) = upper(%L)', one_of(words())), format('length(title) > %s', below(14)), format('lower(title) > lower(name)'), 'ok', 'NOT ok', 'ok IS NOT TRUE',
        format('d < date %L', date '2026-01-01' + below(60)), format('at > now() - interval ''%s days''', below(60)), format('at::date = CURRENT_DATE - %s', below(60)),
        format('%L = ANY (tags)', one_of('{a,b,ü}')), format('tags @> ARRAY[%L]', one_of('{a,日本}')), format('cardinality(tags) > %s', below(3)), format('name IN (%L, %L)', one_of(words()), one_of(words())),
        format('data ->> ''w'' = %L', one_of(words())), format('(data ->> ''n'')::numeric > %s', below(9)), format('data @> %L', '{"deep": {"k": "ü"}}'), 'data ? ''n''', 'data IS NULL', 'name IS NULL',
        format('CASE WHEN n <> 0 THEN 100 / n > %s END', below(40)), format('coalesce(n, 0) %% 3 = %s', below(3)), 'n + x > 4', 'name IS DISTINCT FROM title', 'true', 'NULL'
    ])[1 + below(32)] END
$$;
CREATE FUNCTION random_condition(depth int, scores boolean) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN CASE WHEN depth = 0 THEN random_atom(scores)
                ELSE (ARRAY[random_atom(scores), format('(%s) AND (%s)', random_condition(depth - 1, scores), random_condition(depth - 1, scores)),
                            format('(%s) OR (%s)', random_condition(depth - 1, scores), random_condition(depth - 1, scores)), format('NOT (%s)', random_condition(depth - 1, scores))])[1 + below(4)] END;
END $$;
CREATE FUNCTION random_points() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT (ARRAY['1', '0.1', '-2.7', '1e-3', '5', 'n', 'n * 0.3', 'x', 'x / 3', 'f', 'length(name) * 0.01', 'NULL', 'CASE WHEN ok THEN 3 ELSE -1 END', '(data ->> ''n'')::int', '7', '10'])[1 + below(16)]
$$;

-- ---- the reference ----

CREATE TABLE rule (name text PRIMARY KEY, condition text NOT NULL, points text, status text, only_from text[], priority int NOT NULL);
-- what is written, and what must come of it
CREATE TABLE fresh (LIKE lead, lifecycle_status lifecycle.lifecycle_status);
CREATE TABLE must (LIKE leads, seq int, cause text, rule text);
CREATE TABLE verdict (rule text, lead int, side text, holds boolean);
CREATE TABLE wrong (round int, step int, lead int, what text);
CREATE TABLE outcome (round int, step int, what text, n bigint);

-- The score of a row, as anybody would write it.
CREATE FUNCTION score_sql() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT '0::float8' || coalesce(string_agg(format(' + CASE WHEN (%s) THEN coalesce((%s)::float8, 0) ELSE 0 END', condition, points), '' ORDER BY name COLLATE "C"), '')
    FROM rule WHERE points IS NOT NULL
$$;
-- The names of columns that the points rules hold.
CREATE FUNCTION counted() RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(c) FROM unnest('{name,title,n,x,f,d,at,ok,tags,data}'::text[]) AS c WHERE EXISTS (SELECT FROM rule r WHERE r.points IS NOT NULL AND r.condition || ' ' || r.points ~ ('\m' || c || '\M'))
$$;
-- Which status rules hold for the rows of the table, with the scores they have there.
CREATE PROCEDURE judge(rows regclass, as_side text) LANGUAGE plpgsql AS $$
DECLARE
    r rule;
BEGIN
    FOR r IN SELECT * FROM rule WHERE status IS NOT NULL LOOP
        EXECUTE format('INSERT INTO verdict SELECT %L, id, %L, coalesce((%s), false) FROM (SELECT t.*, 0::float8 AS behavior_score FROM %s t) AS t', r.name, as_side, r.condition, rows);
    END LOOP;
END $$;
-- The order in which rules have precedence.
CREATE VIEW precedence AS
SELECT r.*, row_number() OVER (ORDER BY r.priority DESC, CASE WHEN s.rank = (SELECT max(rank) FROM lifecycle.stage WHERE model = 'standard') THEN 1 WHEN s.rank IS NULL THEN 2 ELSE 3 END,
                               s.rank DESC NULLS LAST, r.name COLLATE "C") AS place
FROM rule r JOIN lifecycle.stage s ON s.model = 'standard' AND s.status = r.status;

CREATE PROCEDURE compare(in_round int, in_step int) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO wrong
    SELECT in_round, in_step, m.id, concat_ws(' ', 'must be', m.lifecycle_status, m.seq, m.demographic_score, m.cause, m.rule, 'and is', l.lifecycle_status, l.lifecycle_seq, l.demographic_score, h.to_status, h.cause, h.rule, h.demographic_score)
    FROM must m LEFT JOIN leads l USING (id) LEFT JOIN leads_history h ON h.lead = m.id AND h.seq = m.seq
    WHERE (m.lifecycle_status, m.seq, m.demographic_score) IS DISTINCT FROM (l.lifecycle_status, l.lifecycle_seq, l.demographic_score)
       OR (m.lifecycle_status::text, m.cause, m.rule) IS DISTINCT FROM (h.to_status, h.cause, h.rule)
       OR (m.cause IS NOT NULL AND h.seq IS NULL);
    INSERT INTO outcome SELECT in_round, in_step, concat_ws(' ', m.cause, CASE WHEN m.rule IS NULL THEN 'without rule' ELSE 'by rule' END), count(*) FROM must m GROUP BY 3;
END $$;

-- ---- one round: rules, entries, and three UPDATEs of all leads, the last one after some rules changed ----

CREATE PROCEDURE play(in_round int, n_leads int) LANGUAGE plpgsql AS $$
DECLARE
    statuses text[] := (SELECT array_agg(s.status ORDER BY s.rank, s.status) FROM lifecycle.stage s WHERE s.model = 'standard');
    kept int;
BEGIN
    PERFORM setseed(in_round / 1000.0);
    PERFORM set_config('lifecycle.batch_history', CASE in_round % 2 WHEN 0 THEN 'on' ELSE 'off' END, true);
    DELETE FROM leads; TRUNCATE rule, fresh, must, verdict; DELETE FROM lifecycle.rule;
    PERFORM lifecycle.untrack('leads', true);
    PERFORM lifecycle.track('leads', on_illegal => 'keep');
    INSERT INTO rule SELECT format('%s %s', one_of('{a,B,ü,Z}'), g), random_condition(2, false), random_points(), NULL, NULL, 0 FROM generate_series(1, below(12)) AS g;
    INSERT INTO rule SELECT format('%s %s', one_of('{a,B,ü,Z}'), 100 + g), random_condition(2, true), NULL, one_of(statuses),
        CASE WHEN random() < 0.3 THEN (SELECT array_agg(DISTINCT one_of(statuses)) FROM generate_series(1, 1 + below(5)) WHERE g > 0) END, CASE WHEN random() < 0.3 THEN below(3) - 1 ELSE 0 END
    FROM generate_series(1, 1 + below(12)) AS g;
    INSERT INTO lifecycle.rule (on_table, name, condition, points, status, only_from, priority) SELECT 'leads', name, condition, points, status, only_from, priority FROM rule;

    -- entries
    INSERT INTO fresh SELECT r.id, r.name, r.title, r.n, r.x, r.f, r.d, r.at, r.ok, r.tags, r.data,
        CASE WHEN random() < 0.5 THEN NULL WHEN random() < 0.5 THEN 'known' ELSE one_of(statuses) END::lifecycle.lifecycle_status
    FROM generate_series(1, n_leads) AS g CROSS JOIN LATERAL random_row(g) AS r;
    EXECUTE format('INSERT INTO must SELECT id, name, title, n, x, f, d, at, ok, tags, data, lifecycle_status, NULL, NULL, %s, 1, ''entry'' FROM fresh', score_sql());
    CALL judge('must', 'new');
    UPDATE must m SET lifecycle_status = coalesce(p.status, 'known')::lifecycle.lifecycle_status, rule = p.name
    FROM must o LEFT JOIN LATERAL (SELECT p.* FROM precedence p JOIN verdict v ON v.rule = p.name AND v.lead = o.id WHERE v.holds AND p.only_from IS NULL ORDER BY p.place LIMIT 1) AS p ON true
    WHERE o.id = m.id AND coalesce(m.lifecycle_status, 'known') = 'known';
    INSERT INTO leads SELECT id, name, title, n, x, f, d, at, ok, tags, data, lifecycle_status FROM fresh;
    CALL compare(in_round, 0);

    FOR step IN 1..3 LOOP
        IF step = 3 THEN
            -- rules change: those that are gone, new points, another threshold; the stored scores stay
            DELETE FROM rule WHERE random() < 0.2;
            UPDATE rule SET points = random_points() WHERE points IS NOT NULL AND random() < 0.4;
            UPDATE rule SET condition = random_condition(2, status IS NOT NULL) WHERE random() < 0.2;
            DELETE FROM lifecycle.rule t WHERE NOT EXISTS (SELECT FROM rule r WHERE r.name = t.name);
            UPDATE lifecycle.rule t SET condition = r.condition, points = r.points FROM rule r WHERE r.name = t.name;
        END IF;
        kept := 1 + below(9);
        TRUNCATE fresh, verdict;
        INSERT INTO fresh SELECT m.id, CASE WHEN random() < 0.6 THEN m.name ELSE r.name END, CASE WHEN random() < 0.6 THEN m.title ELSE r.title END, CASE WHEN below(10) < kept THEN m.n ELSE r.n END,
            CASE WHEN below(10) < kept THEN m.x ELSE r.x END, CASE WHEN below(10) < kept THEN m.f ELSE r.f END, CASE WHEN random() < 0.6 THEN m.d ELSE r.d END,
            CASE WHEN random() < 0.6 THEN m.at ELSE r.at END, CASE WHEN random() < 0.6 THEN m.ok ELSE r.ok END, CASE WHEN random() < 0.6 THEN m.tags ELSE r.tags END,
            CASE WHEN random() < 0.6 THEN m.data ELSE r.data END, CASE WHEN random() < 0.25 THEN one_of(statuses)::lifecycle.lifecycle_status WHEN random() < 0.03 THEN NULL ELSE m.lifecycle_status END
        FROM must m CROSS JOIN LATERAL random_row(m.id) AS r;
        CALL judge('must', 'old');
        CREATE TEMP TABLE was ON COMMIT DROP AS TABLE must;
        TRUNCATE must;
        -- the new rows: a score is counted where a column that the points read is another
        EXECUTE format('INSERT INTO must SELECT r.id, r.name, r.title, r.n, r.x, r.f, r.d, r.at, r.ok, r.tags, r.data, w.lifecycle_status, NULL, NULL,
                            CASE WHEN %s THEN r.score ELSE w.demographic_score END, w.seq, w.cause, w.rule
                        FROM (SELECT fresh.*, %s AS score FROM fresh) AS r JOIN was w USING (id)',
                       coalesce((SELECT string_agg(format('r.%1$I::text IS DISTINCT FROM w.%1$I::text', c), ' OR ') FROM unnest(counted()) AS c), 'false'), score_sql());
        CALL judge('must', 'new');
        -- a status that is written and legal; one that is not is kept out, and the rules have their say
        UPDATE must m SET lifecycle_status = f.lifecycle_status, seq = m.seq + 1, cause = 'write', rule = NULL FROM fresh f
        WHERE f.id = m.id AND EXISTS (SELECT FROM lifecycle.transition t WHERE t.model = 'standard' AND t.from_status = m.lifecycle_status::text AND t.to_status = f.lifecycle_status::text);
        UPDATE must m SET lifecycle_status = p.status::lifecycle.lifecycle_status, seq = m.seq + 1, cause = 'rule', rule = p.name
        FROM was w CROSS JOIN LATERAL (
            SELECT p.* FROM precedence p JOIN verdict v ON v.rule = p.name AND v.lead = w.id AND v.side = 'new' JOIN verdict o ON o.rule = p.name AND o.lead = w.id AND o.side = 'old'
            WHERE v.holds AND NOT o.holds AND w.lifecycle_status::text = ANY (coalesce(p.only_from, statuses))
              AND EXISTS (SELECT FROM lifecycle.transition t WHERE t.model = 'standard' AND t.from_status = w.lifecycle_status::text AND t.to_status = p.status)
            ORDER BY p.place LIMIT 1) AS p
        WHERE w.id = m.id AND m.seq = w.seq;
        DROP TABLE was;
        UPDATE leads l SET name = f.name, title = f.title, n = f.n, x = f.x, f = f.f, d = f.d, at = f.at, ok = f.ok, tags = f.tags, data = f.data, lifecycle_status = f.lifecycle_status FROM fresh f WHERE f.id = l.id;
        CALL compare(in_round, step);
    END LOOP;
    INSERT INTO outcome SELECT in_round, 4, 'rules', count(*) FROM rule UNION ALL SELECT in_round, 4, 'refused', count(*) FROM leads_refused;
    INSERT INTO wrong SELECT in_round, 4, NULL, concat_ws(' ', v."check", v.lead, v.detail) FROM lifecycle.verify('leads') v WHERE v.detail NOT LIKE 'stale%' AND v."check" <> 'stale';
END $$;
DO $$BEGIN FOR g IN 1..24 LOOP CALL play(g, 100); END LOOP; END $$;

SELECT is_empty('SELECT * FROM wrong ORDER BY round, step, lead LIMIT 5', 'scores, entries and moves by random rules are those of the reference');
-- and the test tests something
SELECT cmp_ok((SELECT coalesce(sum(n), 0) FROM outcome WHERE what = o.what AND (step = 0) = o.at_entry), '>', o.more_than, format('%s: more than %s', o.what, o.more_than))
FROM (VALUES ('entry by rule', true, 500::numeric), ('entry without rule', true, 800), ('rule by rule', false, 800), ('write without rule', false, 800), ('refused', false, 500)) AS o (what, at_entry, more_than);

SELECT * FROM finish();
