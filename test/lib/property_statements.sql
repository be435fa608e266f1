-- The random statements of the property tests; test/lib/property.sql, which
-- must come first, says what this is about.

-- Ten leads, so that they meet often.
CREATE FUNCTION property.some_ids(most int) RETURNS int[]
    LANGUAGE plpgsql
AS $$
DECLARE
    ids int[] := '{}';
BEGIN
    FOR i IN 1 .. 1 + property.below(most) LOOP
        ids := array_remove(ids, 1 + property.below(10));
        ids := ids || (SELECT min(g) FROM generate_series(1 + property.below(5), 10) AS g WHERE g <> ALL (ids));
    END LOOP;
    RETURN array_remove(ids, NULL);
END
$$;

-- Mostly where the lead may go, sometimes anywhere, NULL or what nobody knows.
CREATE FUNCTION property.some_status(id int) RETURNS text
    LANGUAGE plpgsql
AS $$
DECLARE
    roll int := property.below(100);
    legal text[] := property.legal((SELECT l.status FROM property.lead l WHERE l.id = some_status.id));
BEGIN
    RETURN CASE WHEN roll < 85 AND legal <> '{}' THEN property.one_of(legal)
                WHEN roll < 96 THEN property.one_of(property.statuses())
                WHEN roll < 98 THEN NULL
                ELSE 'no such status' END;
END
$$;

-- The leads that a statement names, with what becomes of them.
CREATE FUNCTION property.some_intents(most int, action "char") RETURNS property.intent[]
    LANGUAGE sql VOLATILE
    RETURN (SELECT array_agg(ROW(i.id, action, property.some_status(i.id))::property.intent ORDER BY i.n)
            FROM unnest(property.some_ids(most)) WITH ORDINALITY AS i (id, n));

-- (id, status, source, amount, entered), ... of intents, for VALUES
CREATE FUNCTION property.values_of(intents property.intent[], typed boolean) RETURNS text
    LANGUAGE sql VOLATILE
    RETURN (SELECT string_agg(format('(%s, %L%s, %L, %s, %s)', i.id, i.status,
                                     CASE WHEN typed THEN '::' || (SELECT status_type FROM property.config) END,
                                     property.one_of('{web,fair,NULL,""}'), property.below(1000),
                                     property.one_of('{NULL::timestamptz,NULL::timestamptz,now() - interval ''3 days'',timestamptz ''2001-02-03 04:05:06+00'',now() + interval ''1 day''}')),
                              ', ' ORDER BY i.n)
            FROM unnest(intents) WITH ORDINALITY AS i (id, action, status, n));

CREATE FUNCTION property.some_statement() RETURNS property.statement
    LANGUAGE plpgsql
AS $$
DECLARE
    config property.config;
    columns CONSTANT text := 'id, status, source, amount, entered';
    roll int := property.below(100);
    intents property.intent[];
    more property.intent[];
    ids int[];
    status text;
    target text;
    file text;
    exists_already boolean;
BEGIN
    SELECT * INTO config FROM property.config;
    IF roll < 12 THEN
        intents := property.some_intents(1, 'I');
        IF property.below(4) = 0 THEN
            intents[1].status := NULL;
            RETURN (format('INSERT INTO property.leads (id) VALUES (%s)', intents[1].id), intents);
        END IF;
        RETURN (format('INSERT INTO property.leads (%s) VALUES %s', columns, property.values_of(intents, true)), intents);
    ELSIF roll < 20 THEN
        intents := property.some_intents(4, 'I');
        -- mostly leads that are not there
        SELECT coalesce(array_agg(i ORDER BY i.id), intents) INTO intents
        FROM unnest(intents) AS i WHERE property.below(8) = 0 OR NOT EXISTS (SELECT FROM property.lead l WHERE l.id = i.id);
        IF property.below(3) = 0 THEN
            RETURN (format('INSERT INTO property.leads (%s) SELECT * FROM (VALUES %s) AS v', columns, property.values_of(intents, true)), intents);
        ELSIF property.below(2) = 0 THEN
            file := current_setting('property.directory') || '/property_' || pg_backend_pid() || '.copy';
            EXECUTE format('COPY (SELECT * FROM (VALUES %s) AS v) TO %L', property.values_of(intents, false), file);
            RETURN (format('COPY property.leads (%s) FROM %L', columns, file), intents);
        END IF;
        RETURN (format('INSERT INTO property.leads (%s) VALUES %s', columns, property.values_of(intents, true)), intents);
    ELSIF roll < 40 THEN
        intents := property.some_intents(1, 'U');
        RETURN (format('UPDATE property.leads SET status = %L, amount = %s%s WHERE id = %s', intents[1].status, property.below(1000),
                       CASE property.below(5) WHEN 0 THEN ', lifecycle_seq = 99, lifecycle_since = NULL, demographic_score = 7' END,
                       intents[1].id), intents);
    ELSIF roll < 48 THEN
        ids := property.some_ids(4);
        status := property.some_status(ids[1]);
        SELECT array_agg(ROW(i, 'U', status)::property.intent) INTO intents FROM unnest(ids) AS i;
        RETURN (format('UPDATE property.leads SET status = %L WHERE id = ANY (%L)', status, ids), intents);
    ELSIF roll < 55 THEN
        intents := property.some_intents(4, 'U');
        RETURN (format('UPDATE property.leads l SET status = v.status, amount = v.amount FROM (VALUES %s) AS v (%s) WHERE v.id = l.id',
                       property.values_of(intents, true), columns), intents);
    ELSIF roll < 63 THEN
        -- MERGE: leads whose key is a multiple of the number are deleted
        intents := property.some_intents(4, 'U');
        roll := 2 + property.below(5);
        SELECT array_agg(ROW(i.id, CASE WHEN l.id IS NULL THEN 'I' WHEN i.id % roll = 0 THEN 'D' ELSE 'U' END, i.status)::property.intent)
        INTO more FROM unnest(intents) AS i LEFT JOIN property.lead l ON l.id = i.id;
        RETURN (format('MERGE INTO property.leads l USING (VALUES %s) AS v (%s) ON v.id = l.id
                        WHEN MATCHED AND l.id %% %s = 0 THEN DELETE
                        WHEN MATCHED THEN UPDATE SET status = v.status
                        WHEN NOT MATCHED THEN INSERT (%2$s) VALUES (v.id, v.status, v.source, v.amount, v.entered)',
                       property.values_of(intents, true), columns, roll), more);
    ELSIF roll < 75 THEN
        intents := property.some_intents(3, 'I');
        more := '{}';
        FOR i IN 1 .. cardinality(intents) LOOP
            -- the trigger judges what is proposed before the conflict is
            -- known, so that an unknown status would be noted in any case
            IF intents[i].status = 'no such status' THEN
                intents[i].status := NULL;
            END IF;
            exists_already := EXISTS (SELECT FROM property.lead l WHERE l.id = intents[i].id);
            IF NOT exists_already THEN
                more := more || intents[i];
            ELSIF roll < 72 THEN
                -- EXCLUDED holds what the insert would have written
                more := more || ROW(intents[i].id, 'U', coalesce(intents[i].status, property.first_status()))::property.intent;
            END IF;
        END LOOP;
        RETURN (format('INSERT INTO property.leads (%s) VALUES %s ON CONFLICT (id) DO %s', columns, property.values_of(intents, true),
                       CASE WHEN roll < 72 THEN 'UPDATE SET status = EXCLUDED.status, amount = EXCLUDED.amount' ELSE 'NOTHING' END), more);
    ELSIF roll < 81 THEN
        -- the key leaves and comes back in one statement
        intents := property.some_intents(3, 'D');
        SELECT array_agg(i) INTO more FROM (
            SELECT i FROM unnest(intents) AS i
            UNION ALL
            SELECT ROW(i.id, 'I', i.status)::property.intent FROM unnest(intents) AS i JOIN property.lead l ON l.id = i.id) AS u (i);
        RETURN (format('WITH gone AS (DELETE FROM property.leads WHERE id = ANY (%L) RETURNING id)
                        INSERT INTO property.leads (%s) SELECT v.* FROM (VALUES %s) AS v (%2$s) JOIN gone USING (id)',
                       (SELECT array_agg(i.id) FROM unnest(intents) AS i), columns, property.values_of(intents, true)), more);
    ELSIF roll < 86 THEN
        -- three leads, three ways, one statement
        intents := property.some_intents(6, 'U');
        WHILE cardinality(intents) < 3 LOOP
            intents := property.some_intents(6, 'U');
        END LOOP;
        intents[2].action := 'D';
        intents[3].action := 'I';
        IF intents[3].status = 'no such status' THEN
            intents[3].status := NULL;
        END IF;
        RETURN (format('WITH moved AS (UPDATE property.leads SET status = %L WHERE id = %s RETURNING id),
                             gone AS (DELETE FROM property.leads WHERE id = %s RETURNING id)
                        INSERT INTO property.leads (%s) VALUES %s',
                       intents[1].status, intents[1].id, intents[2].id, columns, property.values_of(intents[3:3], true)), intents[1:3]);
    ELSIF roll < 93 THEN
        intents := property.some_intents(2, 'D');
        RETURN (format('DELETE FROM property.leads WHERE id = ANY (%L)', (SELECT array_agg(i.id) FROM unnest(intents) AS i)), intents);
    ELSIF roll < 94 AND property.below(3) = 0 THEN
        SELECT coalesce(array_agg(ROW(l.id, 'D', NULL)::property.intent), '{}') INTO intents FROM property.lead l;
        RETURN (property.one_of('{TRUNCATE property.leads,TRUNCATE property.leads RESTART IDENTITY CASCADE,DELETE FROM property.leads}'), intents);
    END IF;
    -- what moves nobody
    RETURN (format('UPDATE property.leads SET amount = %s, source = %L%s WHERE id = ANY (%L)', property.below(1000), property.one_of('{web,fair}'),
                   CASE property.below(3) WHEN 0 THEN ', lifecycle_seq = NULL' WHEN 1 THEN ', status = status' END,
                   property.some_ids(5)), '{}'::property.intent[]);
END
$$;

-- A user's trigger that writes leads inside our statements.
CREATE FUNCTION property.meddle() RETURNS trigger
    LANGUAGE plpgsql
AS $$
DECLARE
    target property.lead;
    next text;
    illegal text;
BEGIN
    IF pg_trigger_depth() > 2 OR property.below(4) > 0 THEN
        RETURN NULLIF(coalesce(NEW, OLD), NULL);
    END IF;
    PERFORM property.observe();
    SELECT * INTO target FROM property.lead l ORDER BY abs(l.id - 1 - property.below(10)), l.id LIMIT 1;
    next := property.one_of(property.legal(target.status));
    illegal := (SELECT min(s) FROM unnest(property.statuses()) AS s WHERE s <> target.status AND s <> ALL (property.legal(target.status)));
    IF property.below(3) = 0 AND next IS NOT NULL THEN
        BEGIN
            EXECUTE format('UPDATE property.leads SET status = %L WHERE id = %s', next, target.id);
            PERFORM property.observe();
            RAISE EXCEPTION 'undone' USING ERRCODE = 'PT001';
        EXCEPTION WHEN SQLSTATE 'PT001' THEN NULL;
        END;
    END IF;
    IF property.below(3) = 0 AND illegal IS NOT NULL
       AND coalesce(nullif(current_setting('lifecycle.on_illegal', true), ''), (SELECT on_illegal FROM property.config)) = 'error' THEN
        BEGIN
            EXECUTE format('UPDATE property.leads SET status = %L WHERE id = %s', illegal, target.id);
            RAISE EXCEPTION 'lead % was let through from % to %', target.id, target.status, illegal USING ERRCODE = 'PT002';
        EXCEPTION WHEN check_violation THEN NULL;
        END;
    END IF;
    IF property.below(3) = 0 AND target.id IS NOT NULL THEN
        EXECUTE format('DELETE FROM property.leads WHERE id = %s', target.id);
        PERFORM property.observe();
        IF property.below(2) = 0 THEN
            EXECUTE format('INSERT INTO property.leads (id, status) VALUES (%s, %L)', target.id, property.one_of(property.statuses()));
        END IF;
    ELSIF next IS NOT NULL THEN
        EXECUTE format('UPDATE property.leads SET status = %L WHERE id = %s', next, target.id);
    END IF;
    PERFORM property.observe();
    RETURN NULLIF(coalesce(NEW, OLD), NULL);
END
$$;

-- A row of an import: any lead, there or not, any status, any time.
CREATE TYPE property.dated_row AS (lead text, status text, at timestamptz);

-- Rows of some leads, several of each and in no order, of which many are to be
-- refused. Times are on a coarse grid around the lead's last move, so that some
-- are alike; while the past is replayed they do not run ahead of it by far.
CREATE FUNCTION property.some_rows() RETURNS property.dated_row[]
    LANGUAGE plpgsql
AS $$
DECLARE
    replay timestamptz := nullif(current_setting('lifecycle.at', true), '')::timestamptz;
    ids int[] := property.some_ids(2) || ARRAY(SELECT l.id FROM property.lead l ORDER BY md5(l.id::text || property.below(1000)) LIMIT 4) || 11;
    rows property.dated_row[] := '{}';
    one property.dated_row;
    id int;
    base timestamptz;
    roll int;
BEGIN
    FOR i IN 1 .. 1 + property.below(12) LOOP
        id := ids[1 + property.below(cardinality(ids))];
        base := coalesce((property.last_move(id)).at, replay, timestamptz '2020-01-01 00:00+00');
        roll := property.below(100);
        one.lead := CASE WHEN roll < 94 THEN id::text WHEN roll < 96 THEN 'nobody' WHEN roll < 98 THEN '99999999999' END;
        one.status := CASE WHEN property.below(30) = 0 THEN NULL WHEN property.below(2) = 0 THEN property.some_status(id) ELSE property.one_of(property.statuses()) END;
        roll := property.below(100);
        one.at := CASE WHEN roll < 3 THEN NULL
                       WHEN roll < 6 THEN now() + interval '1 day'
                       WHEN roll < 8 THEN 'infinity'
                       WHEN roll < 10 THEN '-infinity'
                       WHEN replay IS NULL AND roll < CASE WHEN base < now() - interval '1 day' THEN 40 ELSE 95 END THEN base + (now() - base) * (property.below(5) / 4.0)
                       ELSE base + interval '5 minutes' * (property.below(7) - 1) END;
        rows := rows || one;
    END LOOP;
    RETURN rows;
END
$$;

-- Imports some rows, with what must come of each written down first, lead by
-- lead in the order of time and, where that is the same, of the query.
CREATE FUNCTION property.run_import() RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    rows property.dated_row[] := property.some_rows();
    numbers boolean;
    query text;
    one record;
    known property.lead;
    last property.move;
    why text;
    wrong text;
BEGIN
    PERFORM nextval('property.statements');
    TRUNCATE property.must_report, property.reported;
    numbers := property.below(2) = 0
        AND NOT EXISTS (SELECT FROM unnest(rows) AS r WHERE r.lead !~ '^[0-9]+$');
    SELECT string_agg(format('SELECT %L::%s AS lead, %L AS status, %L::timestamptz AS at', r.lead, CASE WHEN numbers THEN 'int8' ELSE 'text' END,
                             r.status, r.at), ' UNION ALL ' ORDER BY r.n)
    INTO query FROM unnest(rows) WITH ORDINALITY AS r (lead, status, at, n);

    FOR one IN
        SELECT r.*, CASE WHEN r.lead ~ '^[0-9]{1,9}$' THEN r.lead::int END AS id
        FROM unnest(rows) WITH ORDINALITY AS r (lead, status, at, n) ORDER BY id, r.at, r.n
    LOOP
        SELECT * INTO known FROM property.lead o WHERE o.id = one.id;
        last := property.last_move(one.id);
        why := CASE WHEN one.lead IS NULL THEN 'lead is null'
                    WHEN known.id IS NULL THEN 'unknown lead'
                    WHEN one.status IS NULL THEN 'status is null'
                    WHEN one.status <> ALL (property.statuses())
                        THEN format('"%s" is not a status of model "%s"', one.status, (SELECT c.model FROM property.config c))
                    WHEN one.at IS NULL THEN 'at is null'
                    WHEN NOT isfinite(one.at) THEN 'at is not finite'
                    WHEN one.at > clock_timestamp() THEN 'at is in the future'
                    WHEN one.at < last.at THEN format('before the lead''s last move, at %s', last.at)
                    WHEN one.status = last.to_status THEN format('the lead is "%s" already', one.status) END;
        IF why IS NOT NULL THEN
            INSERT INTO property.must_report VALUES (one.lead, one.status, one.at, why, false);
            CONTINUE;
        END IF;
        IF last.to_status IS NOT NULL AND one.status <> ALL (property.legal(last.to_status)) THEN
            INSERT INTO property.must_report VALUES (one.lead, one.status, one.at,
                format('model "%s" has no transition from "%s" to "%s"', (SELECT c.model FROM property.config c), last.to_status, one.status), true);
        END IF;
        PERFORM property.record(one.id, one.status, 'import', known.source, known.amount, NULL, dated => one.at);
        UPDATE property.lead o SET status = one.status WHERE o.id = one.id;
    END LOOP;

    INSERT INTO property.reported SELECT * FROM lifecycle.import_history('property.leads', query);
    SELECT string_agg(d::text, '; ') INTO wrong
    FROM ((SELECT 'not reported', r.* FROM (TABLE property.must_report EXCEPT ALL TABLE property.reported) AS r)
          UNION ALL
          (SELECT 'reported', r.* FROM (TABLE property.reported EXCEPT ALL TABLE property.must_report) AS r)) AS d;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'import: %: %', wrong, query;
    END IF;
    SELECT string_agg(format('lead %s is %s, not %s', o.id, coalesce(n.status::text, '(null)'), coalesce(o.status, '(null)')), ', ') INTO wrong
    FROM property.lead o FULL JOIN property.leads n ON n.id = o.id
    WHERE (o.incarnation, o.status) IS DISTINCT FROM (n.incarnation, n.status::text);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'import: %: %', wrong, query;
    END IF;
    INSERT INTO property.imported AS i
    SELECT p.problem, count(*)
    FROM (SELECT regexp_replace(regexp_replace(r.problem, '"[^"]*"', '...', 'g'), ', at .*', '') FROM property.must_report r
          UNION ALL
          SELECT 'none' FROM generate_series(1, cardinality(rows) - (SELECT count(*) FROM property.must_report))) AS p (problem)
    GROUP BY 1
    ON CONFLICT (problem) DO UPDATE SET n = i.n + EXCLUDED.n;
END
$$;

-- Some statements in a transaction, now and then in a savepoint that is
-- released or rolled back.
CREATE FUNCTION property.run_some(n int, depth int) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    FOR i IN 1 .. n LOOP
        IF depth < 3 AND property.below(10) = 0 THEN
            BEGIN
                PERFORM property.run_some(1 + property.below(4), depth + 1);
                IF property.below(2) = 0 THEN
                    RAISE EXCEPTION 'savepoint rolled back' USING ERRCODE = 'PT003';
                END IF;
            EXCEPTION WHEN SQLSTATE 'PT003' THEN NULL;
            END;
        ELSIF (SELECT c.imports FROM property.config c) AND property.below(5) = 0 THEN
            PERFORM property.run_import();
        ELSE
            PERFORM property.run(property.some_statement());
        END IF;
    END LOOP;
END
$$;

-- A model of one's own: three to eight stages on the path, with gaps between
-- the ranks, up to three detours, some of the moves.
CREATE PROCEDURE property.make_model(name text)
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO lifecycle.model VALUES (name, 'random');
    INSERT INTO lifecycle.stage (model, status, rank)
    SELECT name, 'stage ' || g, g * 10 + 5 FROM generate_series(1, 3 + property.below(6)) AS g;
    INSERT INTO lifecycle.stage (model, status)
    SELECT name, 'detour ' || g FROM generate_series(1, property.below(4)) AS g;
    CALL property.change_model(name, 60);
END
$$;

CREATE PROCEDURE property.change_model(name text, changes int)
    LANGUAGE plpgsql
AS $$
DECLARE
    one text;
    other text;
BEGIN
    FOR i IN 1 .. changes LOOP
        SELECT s.status INTO one FROM lifecycle.stage s WHERE s.model = name ORDER BY md5(s.status || property.below(1000)) LIMIT 1;
        SELECT s.status INTO other FROM lifecycle.stage s WHERE s.model = name AND s.status <> one ORDER BY md5(s.status || property.below(1000)) LIMIT 1;
        IF property.below(3) > 0 THEN
            INSERT INTO lifecycle.transition VALUES (name, one, other) ON CONFLICT DO NOTHING;
        ELSE
            DELETE FROM lifecycle.transition t WHERE t.model = name AND t.from_status = one AND t.to_status = other;
        END IF;
    END LOOP;
END
$$;

-- One table, one configuration, some transactions of about 20 statements; with
-- imports, one of five is one.
CREATE PROCEDURE property.round(number int, transactions int, partitions text DEFAULT 'none', imports boolean DEFAULT false)
    LANGUAGE plpgsql
AS $$
DECLARE
    config property.config;
    timing text;
    event text;
    before_statements bigint;
    before_failures bigint;
    configuration text;
BEGIN
    SELECT s.last_value, f.last_value INTO before_statements, before_failures FROM property.statements s, property.failures f;
    config.round := number;
    config.model := (ARRAY['standard', 'etumos', 'random ' || number])[1 + number % 3];
    config.status_type := CASE WHEN number % 3 < 2 THEN property.one_of('{text,character varying,lifecycle.lifecycle_status}')
                               ELSE property.one_of('{text,character varying(20)}') END;
    config.on_illegal := property.one_of('{error,error,keep}');
    config.imports := imports;
    config.meddling := CASE WHEN imports THEN 'none' ELSE (ARRAY['none', 'after', 'none', 'before'])[1 + (number / 3) % 4] END;
    config.replays := (property.below(3) = 0) <> imports;
    config.entered := NOT config.replays AND property.below(2) = 0;
    config.batch_history := (ARRAY['on', 'off', 'on', 'mixed'])[1 + (number / 2) % 4];
    config.partitions := partitions;
    configuration := config::text;
    RAISE NOTICE 'round %', configuration;

    DELETE FROM property.config;
    INSERT INTO property.config SELECT config.*;
    TRUNCATE property.lead, property.move, property.refused;
    IF config.model LIKE 'random%' THEN
        CALL property.make_model(config.model);
    END IF;
    IF to_regclass('property.leads') IS NOT NULL THEN
        PERFORM lifecycle.untrack('property.leads', drop_data => true);
        DROP TABLE property.leads;
    END IF;
    EXECUTE format('CREATE TABLE property.leads (
                        id int PRIMARY KEY, status %s, source text, amount numeric, entered timestamptz,
                        incarnation bigint NOT NULL DEFAULT nextval(''property.incarnation'')) %s', config.status_type,
                   CASE WHEN partitions = 'none' THEN property.storage() ELSE 'PARTITION BY ' || partitions || ' (id)' END);
    IF partitions = 'range' THEN
        EXECUTE format('CREATE TABLE property.low PARTITION OF property.leads FOR VALUES FROM (MINVALUE) TO (4) %1$s;
                        CREATE TABLE property.middle PARTITION OF property.leads FOR VALUES FROM (4) TO (8) PARTITION BY HASH (id);
                        CREATE TABLE property.even PARTITION OF property.middle FOR VALUES WITH (MODULUS 2, REMAINDER 0) %1$s;
                        CREATE TABLE property.odd PARTITION OF property.middle FOR VALUES WITH (MODULUS 2, REMAINDER 1) %1$s;
                        CREATE TABLE property.high PARTITION OF property.leads DEFAULT %1$s', property.storage());
    ELSIF partitions = 'hash' THEN
        EXECUTE format('CREATE TABLE property.zero PARTITION OF property.leads FOR VALUES WITH (MODULUS 3, REMAINDER 0) %1$s;
                        CREATE TABLE property.one PARTITION OF property.leads FOR VALUES WITH (MODULUS 3, REMAINDER 1) %1$s;
                        CREATE TABLE property.two PARTITION OF property.leads FOR VALUES WITH (MODULUS 3, REMAINDER 2) %1$s', property.storage());
    END IF;
    -- older than track(), some with a status and some without
    EXECUTE format('INSERT INTO property.leads (id, status) VALUES (1, NULL), (2, NULL)');
    IF NOT config.replays AND NOT config.entered AND NOT imports THEN
        EXECUTE format('INSERT INTO property.leads (id, status) VALUES (3, %L), (4, %L)',
                       property.one_of(property.statuses()), property.first_status());
    END IF;
    INSERT INTO property.lead SELECT l.id, l.incarnation, l.status::text, l.source, l.amount, l.entered FROM property.leads l;
    PERFORM lifecycle.track('property.leads', model => config.model, status_column => 'status', source => 'source', value => 'amount',
                            on_illegal => config.on_illegal, entered => CASE WHEN config.entered THEN 'entered' END);
    IF config.meddling = 'after' THEN
        CREATE TRIGGER a_meddle AFTER INSERT OR UPDATE OR DELETE ON property.leads FOR EACH ROW EXECUTE FUNCTION property.meddle();
        CREATE TRIGGER z_meddle AFTER INSERT OR UPDATE OR DELETE ON property.leads FOR EACH ROW EXECUTE FUNCTION property.meddle();
        CREATE TRIGGER a_meddle_statement AFTER INSERT OR UPDATE OR DELETE ON property.leads EXECUTE FUNCTION property.meddle();
        CREATE TRIGGER z_meddle_statement AFTER INSERT OR UPDATE OR DELETE ON property.leads EXECUTE FUNCTION property.meddle();
    ELSIF config.meddling = 'before' THEN
        CREATE TRIGGER a_meddle BEFORE INSERT OR UPDATE OR DELETE ON property.leads FOR EACH ROW EXECUTE FUNCTION property.meddle();
        CREATE TRIGGER zzz_meddle BEFORE INSERT OR UPDATE OR DELETE ON property.leads FOR EACH ROW EXECUTE FUNCTION property.meddle();
        CREATE TRIGGER a_meddle_statement BEFORE INSERT OR UPDATE OR DELETE ON property.leads EXECUTE FUNCTION property.meddle();
        CREATE TRIGGER z_meddle_statement BEFORE INSERT OR UPDATE OR DELETE ON property.leads EXECUTE FUNCTION property.meddle();
    END IF;
    COMMIT;

    FOR i IN 1 .. transactions LOOP
        PERFORM set_config('lifecycle.batch_history', CASE config.batch_history WHEN 'mixed' THEN property.one_of('{on,off}')
                                                           ELSE config.batch_history END, true);
        IF config.replays AND i <= transactions * 2 / 3 THEN
            -- now and then an hour or more too early
            PERFORM set_config('lifecycle.at', (timestamptz '2020-01-01 00:00+00' + interval '1 hour' * (i - property.below(3)))::text, true);
        END IF;
        IF property.below(5) = 0 THEN
            PERFORM set_config('lifecycle.on_illegal', property.one_of('{error,keep}'), true);
        END IF;
        IF config.model LIKE 'random%' AND property.below(5) = 0 THEN
            CALL property.change_model(config.model, 3);
        END IF;
        IF partitions <> 'none' AND property.below(2) = 0 THEN
            PERFORM property.exchange_leaf();
        END IF;
        PERFORM property.run_some(10 + property.below(20), 1);
        IF property.below(7) = 0 THEN
            ROLLBACK;
        ELSE
            PERFORM property.compare(); -- before the commit,
            COMMIT;
        END IF;
        PERFORM property.compare(); -- and after
        COMMIT;
    END LOOP;

    INSERT INTO property.outcome
    SELECT number, configuration, s.last_value - before_statements, f.last_value - before_failures,
           (SELECT count(*) FROM property.move), (SELECT count(*) FROM property.leads_refused)
    FROM property.statements s, property.failures f;
    COMMIT;
END
$$;
