-- What test/sql/rule_hostile.sql and `make soak` throw random expressions at.
-- To be read in with \ir; the expressions come from hostile_expressions.pl.

CREATE SCHEMA hostile;
CREATE TYPE hostile.mood AS ENUM ('sad', 'ok', 'häppy');
CREATE DOMAIN hostile.age AS int CHECK (value > 0);
CREATE TYPE hostile.place AS (city text, x int);
CREATE TABLE hostile.lead (
    id int PRIMARY KEY, t text, v varchar(20), c char(5), n int, f float8, num numeric, b boolean,
    at timestamptz, d date, ts timestamp, iv interval, j jsonb, js json, a text[], ia int[], bin bytea, u uuid,
    mood hostile.mood, age hostile.age, place hostile.place, span int4range, "strange "" Ünïcode" text,
    gen text GENERATED ALWAYS AS (upper(t)) STORED
);
CREATE FUNCTION hostile.stable(text) RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN $1 || current_user; END$$;
CREATE FUNCTION hostile.raises(int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN RETURN 1 / ($1 - 3) > 0; END$$;
CREATE FUNCTION hostile.volatile(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION hostile.several(int) RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT 1 UNION SELECT 2';
CREATE FUNCTION hostile.polymorphic(anyelement) RETURNS anyelement LANGUAGE sql STABLE AS 'SELECT $1';
CREATE FUNCTION hostile.variadic(VARIADIC text[]) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT cardinality($1)';
CREATE FUNCTION hostile.strict_sql(int) RETURNS boolean LANGUAGE sql STABLE STRICT AS 'SELECT $1 > 0 AND now() IS NOT NULL';
CREATE FUNCTION hostile.recursive(n int) RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN RETURN hostile.recursive(n); END$$;
CREATE PROCEDURE hostile.procedure(int) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION hostile.write(int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$BEGIN
    INSERT INTO hostile.lead (id) VALUES ($1 + 100000) ON CONFLICT DO NOTHING;
    UPDATE lifecycle.rule SET priority = priority + 1 WHERE on_table = 'hostile.lead'::regclass;
    RETURN 1;
END$$;
CREATE FUNCTION hostile.writes(int) RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN
    RETURN CASE WHEN $1 < 100000 THEN hostile.write($1) ELSE 0 END;
END$$;
CREATE OPERATOR hostile.=== (FUNCTION = texteq, LEFTARG = text, RIGHTARG = text);

SELECT lifecycle.track('hostile.lead');
INSERT INTO hostile.lead (id) VALUES (1);
INSERT INTO hostile.lead
SELECT i, (ARRAY['a', 'Ä€😀', '', 'VP of sales', repeat('ä', 3000), E'line\nline', 'x%_\y', '123'])[1 + i % 8], left(md5(i::text), 20), 'ab', i - 5,
       (ARRAY[0, -1.5, 1e308, 'NaN', 'Infinity', 1e-300])[1 + i % 6]::float8, (ARRAY['0', 'NaN', '1e100', '-0.001'])[1 + i % 4]::numeric, i % 2 = 0,
       (ARRAY['infinity', '2026-01-01 00:00+00', '4713-01-01 00:00+00 BC'])[1 + i % 3]::timestamptz, date '2026-01-01' + i, 'infinity', make_interval(days => i),
       (ARRAY['{}', '{"a": [1, 2, {"b": null}]}', '"x"', 'null', '{"a": {"a": "ä"}}'])[1 + i % 5]::jsonb, '{"a": 1, "a": 2}',
       (ARRAY['{}', '{a,NULL}', '{{a,b},{c,d}}', '[5:6]={x,y}'])[1 + i % 4]::text[], ARRAY[i, NULL], '\xff00', md5(i::text)::uuid,
       'häppy', i, ROW('Köln', i)::hostile.place, int4range(1, i + 1), 'odd'
FROM generate_series(2, 24) AS i;

CREATE TABLE hostile.expression (n int PRIMARY KEY, expression text);
CREATE TABLE hostile.outcome (n int, kind text, refused text, failed text, message text);

-- Store the expression as a rule of the kind, let all leads be judged by it,
-- and undo all that. Says what it was refused with, what it failed with.
CREATE FUNCTION hostile.attempt(n int, kind text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    expression text := (SELECT e.expression FROM hostile.expression e WHERE e.n = attempt.n);
    refused text;
    failed text;
    message text;
BEGIN
    BEGIN
        CASE kind
            WHEN 'points' THEN INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('hostile.lead', 'tried', 'true', expression);
            WHEN 'status' THEN INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('hostile.lead', 'tried', expression, 'mql');
            ELSE INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('hostile.lead', 'tried', expression, '10');
        END CASE;
        refused := '00000';
        BEGIN
            INSERT INTO hostile.lead (id, t, v, c, n, f, num, b, at, j, a, ia, mood, age, place, span)
            SELECT l.id + 1000, l.v, l.t::varchar(20), l.c, -l.n, -l.f, l.num, NOT l.b, l.at, l.j, l.a, l.ia, l.mood, l.age, l.place, l.span FROM hostile.lead l;
            UPDATE hostile.lead AS l SET t = l.t || 'x', n = l.n + 1, b = NOT l.b, f = 0, j = '[]', at = now(), a = '{x}', num = 1, v = NULL;
            failed := '00000';
        EXCEPTION WHEN OTHERS THEN
            failed := SQLSTATE;
            message := SQLERRM;
        END;
        RAISE EXCEPTION SQLSTATE 'ZZ000';
    EXCEPTION
        WHEN SQLSTATE 'ZZ000' THEN NULL;
        WHEN OTHERS THEN
            refused := SQLSTATE;
            message := SQLERRM;
    END;
    INSERT INTO hostile.outcome VALUES (n, kind, refused, failed, left(message, 200));
END $$;

-- Memory of this backend: what contexts of ours have, and what the process has, in kB.
CREATE TYPE hostile.memory AS (ours bigint, all_contexts bigint, resident bigint);
CREATE FUNCTION hostile.memory() RETURNS hostile.memory LANGUAGE sql AS $$
    SELECT coalesce(sum(total_bytes) FILTER (WHERE name ~ '^(lifecycle|CachedExpression)'), 0)::bigint / 1024, sum(total_bytes)::bigint / 1024,
           substring(pg_read_file('/proc/self/status') FROM 'RssAnon:\s+(\d+)')::bigint
    FROM pg_backend_memory_contexts
$$;
