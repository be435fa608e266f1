-- Random inserts, updates and deletes of signals beside a reference that knows
-- nothing of the extension: a lead's score must be the decayed sum over the rows
-- that are there, by the rules' plain conditions, after the lead's last restart.
-- The same seeds make the same statements.

CREATE EXTENSION lifecycle;
SELECT no_plan();
SET client_min_messages = error;

CREATE TABLE lead (id bigint PRIMARY KEY, note text);
SELECT lifecycle.track('lead', on_illegal => 'keep');
CREATE TABLE act (id int PRIMARY KEY, lead_id int, kind text, n int, at timestamptz NOT NULL);
CREATE INDEX ON act (lead_id);
CREATE TABLE mail (id int, lead_id bigint, kind text, n int, at timestamptz NOT NULL) PARTITION BY LIST (n);
CREATE TABLE mail_low PARTITION OF mail FOR VALUES IN (0, 1, 2, 3);
CREATE TABLE mail_high PARTITION OF mail DEFAULT;
CREATE INDEX ON mail (lead_id);
SELECT lifecycle.track_signal('act', 'lead', 'lead_id', 'at');
SELECT lifecycle.track_signal('mail', 'lead', 'lead_id', 'at');

CREATE TABLE points (on_table regclass, name text, condition text, points text, half_life interval);
INSERT INTO points VALUES
    ('act', 'visit', $$ kind = 'visit' $$, '1', '7 days'), ('act', 'form', $$ kind IN ('form', 'call') $$, 'n * 1.5', '30 days'),
    ('act', 'call', $$ kind = 'call' $$, '-2', NULL), ('act', 'many', 'n > 6', '1e9', '7 days'), ('act', 'few', 'n < 4', '1e-3', NULL),
    ('mail', 'opened', $$ kind = 'visit' $$, 'n', '7 days'), ('mail', 'clicked', $$ kind ~ '^c' $$, 'CASE WHEN n > 2 THEN 0.1 END', NULL);
INSERT INTO lifecycle.rule (on_table, name, condition, points, half_life) SELECT * FROM points;
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('act', 'raise', $$ kind = 'raise' $$, 'mql'), ('act', 'junk', $$ kind = 'junk' $$, 'recycled');

CREATE FUNCTION below(n int) RETURNS int LANGUAGE sql VOLATILE RETURN floor(random() * n)::int;
CREATE FUNCTION any_kind() RETURNS text LANGUAGE sql VOLATILE RETURN (ARRAY['visit', 'form', 'call', 'raise', 'junk', NULL, 'other', 'visit'])[1 + below(8)];
CREATE FUNCTION any_time() RETURNS timestamptz LANGUAGE sql VOLATILE RETURN CASE WHEN below(12) = 0 THEN '-infinity' ELSE now() - power(random(), 4) * interval '100 days' END;
CREATE FUNCTION any_lead() RETURNS int LANGUAGE sql VOLATILE RETURN CASE WHEN below(15) > 0 THEN below(12) END;

CREATE VIEW reference AS SELECT NULL::bigint AS lead, NULL::float8 AS score;
DO $$
BEGIN
    EXECUTE 'CREATE OR REPLACE VIEW reference AS SELECT k AS lead, coalesce(sum(s.score), 0)::float8 AS score FROM generate_series(0::bigint, 12) AS k
        CROSS JOIN LATERAL (SELECT coalesce(max(h.at), ''-infinity'') AS at FROM lead_history h WHERE h.lead = k AND (h.to_status IS NULL OR h.cause <> ''correction''
            AND h.to_status IN (''recycled'', ''disqualified'', ''lost'') AND h.from_status NOT IN (''recycled'', ''disqualified'', ''lost''))) AS restart CROSS JOIN LATERAL ('
        || (SELECT string_agg(format('SELECT lifecycle.decayed_sum((%s)::float8, t.at, %L, now()) AS score FROM %s t WHERE lead_id = k AND (%s) AND t.at > restart.at', points, half_life, on_table, condition), ' UNION ALL ') FROM points)
        || ') AS s GROUP BY k';
END $$;

-- Statements that are one step; some write both tables, some fail and are undone.
CREATE PROCEDURE step() LANGUAGE plpgsql AS $$
DECLARE
    signals text := (ARRAY['act', 'mail'])[1 + below(2)];
BEGIN
    CASE below(14)
        WHEN 0, 1, 2 THEN
            INSERT INTO act SELECT coalesce((SELECT max(id) FROM act), 0) + i, any_lead(), any_kind(), below(9), any_time() FROM generate_series(1, 1 + below(9)) AS i;
        WHEN 3, 4 THEN
            INSERT INTO mail SELECT i, any_lead(), any_kind(), below(9), any_time() FROM generate_series(1, 1 + below(9)) AS i;
        WHEN 5 THEN EXECUTE format('UPDATE %s SET kind = any_kind() WHERE lead_id = below(12)', signals);
        WHEN 6 THEN EXECUTE format('UPDATE %s SET n = below(9), at = any_time() WHERE lead_id %% 3 = below(3)', signals);
        WHEN 7 THEN EXECUTE format('UPDATE %s SET lead_id = any_lead() WHERE n = below(9)', signals);
        WHEN 8 THEN EXECUTE format('DELETE FROM %s WHERE n = below(9) OR lead_id = below(14)', signals);
        WHEN 9 THEN
            MERGE INTO act USING (SELECT i, any_lead() AS l, any_kind() AS k, below(9) AS n, any_time() AS at FROM generate_series(1, 60, 4) AS i) AS v ON act.id = v.i
                WHEN MATCHED AND v.n > 5 THEN DELETE WHEN MATCHED THEN UPDATE SET kind = v.k, n = v.n, lead_id = v.l WHEN NOT MATCHED THEN INSERT VALUES (v.i, v.l, v.k, v.n, v.at);
        WHEN 10 THEN
            INSERT INTO act SELECT i, any_lead(), any_kind(), below(9), any_time() FROM generate_series(1, 40, 5) AS i ON CONFLICT (id) DO UPDATE SET kind = EXCLUDED.kind, at = EXCLUDED.at, lead_id = EXCLUDED.lead_id;
        WHEN 11 THEN
            WITH d AS (DELETE FROM act WHERE n = below(9) RETURNING *), u AS (UPDATE mail SET n = 8 - n WHERE lead_id = below(12))
            INSERT INTO mail SELECT id, lead_id, kind, n, at FROM d;
        WHEN 12 THEN
            BEGIN
                EXECUTE format('DELETE FROM %s', signals);
                INSERT INTO mail SELECT i, any_lead(), any_kind(), below(9), any_time() FROM generate_series(1, 3) AS i;
                RAISE EXCEPTION 'undo';
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
        ELSE
            CASE below(4)
                WHEN 0 THEN INSERT INTO lead SELECT below(12) ON CONFLICT DO NOTHING;
                WHEN 1 THEN DELETE FROM lead WHERE id = below(12);
                WHEN 2 THEN UPDATE lead SET lifecycle_status = (ARRAY['mql', 'recycled', 'lost', 'disqualified'])[1 + below(4)]::lifecycle.lifecycle_status WHERE id = below(12);
                ELSE IF below(10) = 0 THEN EXECUTE format('TRUNCATE %s', (ARRAY['act', 'mail', 'mail_low', 'act, mail'])[1 + below(4)]); END IF;
            END CASE;
    END CASE;
END $$;

CREATE TABLE wrong (round int, step int, lead bigint, has float8, must float8);
CREATE TABLE outcome (round int, step int, rows int, restarts int);
CREATE PROCEDURE run(round int, steps int) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM setseed(round / 1000.0);
    FOR i IN 1..steps LOOP
        CALL step();
        INSERT INTO wrong SELECT round, i, r.lead, has, r.score FROM reference r, LATERAL lifecycle.behavior_score('lead', r.lead) AS has
        WHERE NOT abs(has - r.score) <= 1e-9 * (abs(r.score) + (SELECT 1e-6 + coalesce(sum(abs(b.points)), 0) FROM lead_behavior b WHERE b.lead = r.lead));
        INSERT INTO outcome SELECT round, i, (SELECT count(*) FROM act) + (SELECT count(*) FROM mail), (SELECT count(*) FROM lead_behavior WHERE since > '-infinity');
        COMMIT;
    END LOOP;
END $$;
INSERT INTO lead SELECT generate_series(0, 8);
CALL run(1, 150);
CALL run(2, 150);
CALL run(3, 150);
SELECT is((SELECT count(*)::int FROM outcome), 450, 'all statements ran');
SELECT is((SELECT array_agg(w.*::text ORDER BY round, step, lead) FROM (SELECT * FROM wrong ORDER BY round, step, lead LIMIT 5) AS w), NULL, 'scores are those of the reference after every statement');
SELECT cmp_ok((SELECT max(restarts) FROM outcome), '>', 3, 'with restarts among them');
SELECT cmp_ok((SELECT max(rows) FROM outcome), '>', 50, 'and enough rows');
SELECT is((SELECT count(*)::int FROM lifecycle.verify('lead')), 0, 'verify() finds nothing');
SELECT * FROM finish();
