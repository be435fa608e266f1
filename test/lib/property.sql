-- The machinery of the property tests (test/sql/property.sql, test/soak/run).
--
-- CALL property.round(...) makes a tracked table property.leads and lets random
-- statements loose on it. Beside it stands a naive reference: it compares the
-- table before and after each statement (a column "incarnation" tells a row
-- from another that has its key), and writes down the moves that it sees by the
-- words of the specification and nothing else. Before each statement it says
-- from the rows of lifecycle.transition which errors it must raise, if any.
-- After each transaction the history must be the reference's.
--
-- The first thing that is wrong raises an error that holds the round, its
-- configuration and the statement. The same seed makes the same statements.

CREATE SCHEMA property;

CREATE TABLE property.config (
    round int, model text, status_type text, on_illegal text, meddling text, replays boolean, entered boolean,
    batch_history text, partitions text, imports boolean);
-- the leads as they were when last looked at
CREATE UNLOGGED TABLE property.lead (
    id int PRIMARY KEY, incarnation bigint, status text, source text, amount numeric, entered timestamptz);
-- what the history must be
CREATE UNLOGGED TABLE property.move (
    lead int, seq int, cycle int, from_status text, from_since timestamptz, to_status text, at timestamptz,
    cause text, source text, value numeric, entered_at timestamptz, cycle_since timestamptz,
    in_cycle text[], ever text[], PRIMARY KEY (lead, seq));
-- what on_illegal = 'keep' must note
CREATE UNLOGGED TABLE property.refused (lead int, from_status text, to_status text);
CREATE TABLE property.outcome (
    round int, configuration text, statements bigint, failures bigint, moves bigint, refused bigint);

CREATE SEQUENCE property.incarnation;
CREATE SEQUENCE property.statements;
CREATE SEQUENCE property.failures;

-- what import_history() must report and what it did
CREATE UNLOGGED TABLE property.must_report (lead text, status text, at timestamptz, problem text, imported boolean);
CREATE UNLOGGED TABLE property.reported (LIKE property.must_report);
-- the imports' rows by what they must come to
CREATE TABLE property.imported (problem text PRIMARY KEY, n bigint);

-- What a statement means to do with one lead: (I)nsert, (U)pdate, (D)elete.
CREATE TYPE property.intent AS (id int, action "char", status text);
CREATE TYPE property.statement AS (command text, intents property.intent[]);

CREATE FUNCTION property.below(n int) RETURNS int
    LANGUAGE sql VOLATILE
    RETURN floor(random() * n)::int;

CREATE FUNCTION property.one_of(choices text[]) RETURNS text
    LANGUAGE sql VOLATILE
    RETURN choices[1 + property.below(cardinality(choices))];

-- The statuses of the model, and where a lead may go from one.
CREATE FUNCTION property.statuses() RETURNS text[]
    LANGUAGE sql STABLE
    RETURN (SELECT array_agg(s.status ORDER BY s.rank, s.status) FROM lifecycle.stage s, property.config c WHERE s.model = c.model);

CREATE FUNCTION property.first_status() RETURNS text
    LANGUAGE sql STABLE
    RETURN (SELECT s.status FROM lifecycle.stage s, property.config c WHERE s.model = c.model ORDER BY s.rank LIMIT 1);

CREATE FUNCTION property.legal(from_status text) RETURNS text[]
    LANGUAGE sql STABLE
    RETURN (SELECT coalesce(array_agg(t.to_status ORDER BY t.to_status), '{}') FROM lifecycle.transition t, property.config c
            WHERE t.model = c.model AND t.from_status = legal.from_status);

CREATE FUNCTION property.on_path(status text) RETURNS boolean
    LANGUAGE sql STABLE
    RETURN (SELECT s.rank IS NOT NULL FROM lifecycle.stage s, property.config c WHERE s.model = c.model AND s.status = on_path.status);

CREATE FUNCTION property.last_move(lead int) RETURNS property.move
    LANGUAGE sql STABLE
    RETURN (SELECT m FROM property.move m WHERE m.lead = last_move.lead ORDER BY m.seq DESC LIMIT 1);

-- One more move of a lead, by the words of the specification.
-- Where a key comes back in the statement that removes it, the removal is not
-- known when the entry is judged (it could be another session's, and later than
-- now()): any time between the right one and the clock's is right there. That
-- is "since", the time that the lead's row says. "dated" is the time of an
-- imported move.
CREATE FUNCTION property.record(
    lead int, status text, cause text, source text, value numeric, entered timestamptz, since timestamptz DEFAULT NULL,
    dated timestamptz DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    last property.move := property.last_move(lead);
    replay timestamptz := nullif(current_setting('lifecycle.at', true), '')::timestamptz;
    next property.move;
BEGIN
    next.lead := lead;
    next.seq := coalesce(last.seq, 0) + 1;
    next.from_status := last.to_status;
    next.from_since := CASE WHEN last.to_status IS NOT NULL THEN last.at END;
    next.to_status := status;
    next.cause := cause;
    next.at := CASE WHEN dated IS NOT NULL THEN dated
                    WHEN replay IS NOT NULL THEN replay
                    WHEN last.to_status IS NULL AND entered <= now() THEN greatest(entered, last.at)
                    ELSE greatest(now(), last.at) END;
    IF replay IS NULL AND dated IS NULL AND since BETWEEN next.at AND clock_timestamp() THEN
        next.at := since;
    END IF;
    next.cycle := CASE
        WHEN last.seq IS NULL THEN 1
        WHEN status IS NULL THEN last.cycle
        WHEN last.to_status IS NULL THEN last.cycle + 1
        WHEN NOT property.on_path(last.to_status) AND property.on_path(status)
             AND EXISTS (SELECT FROM property.move m
                         WHERE m.lead = lead AND m.cycle = last.cycle AND property.on_path(m.to_status))
            THEN last.cycle + 1
        ELSE last.cycle END;
    next.source := CASE WHEN last.seq IS NULL THEN source ELSE last.source END;
    next.value := value;
    next.entered_at := coalesce(last.entered_at, next.at);
    next.cycle_since := CASE WHEN next.cycle = last.cycle THEN last.cycle_since ELSE next.at END;
    INSERT INTO property.move SELECT next.*;
    UPDATE property.move m SET
        in_cycle = (SELECT array_agg(v.to_status ORDER BY v.first_visit)
                    FROM (SELECT h.to_status, min(h.seq) AS first_visit FROM property.move h
                          WHERE h.lead = next.lead AND h.cycle = next.cycle AND h.to_status IS NOT NULL
                          GROUP BY h.to_status) AS v),
        ever = (SELECT array_agg(DISTINCT h.to_status ORDER BY h.to_status) FROM property.move h
                WHERE h.lead = next.lead AND h.to_status IS NOT NULL)
    WHERE m.lead = next.lead AND m.seq = next.seq;
END
$$;

-- Looks at the table, and writes down what changed since the last look.
CREATE FUNCTION property.observe() RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    lead record;
    meddling text := (SELECT c.meddling FROM property.config c);
BEGIN
    FOR lead IN
        SELECT coalesce(o.id, n.id) AS id, o.incarnation AS was, n.incarnation AS is,
               o.status AS old_status, n.status::text AS new_status,
               o.source AS old_source, n.source AS new_source, o.amount AS old_amount, n.amount AS new_amount,
               CASE WHEN (SELECT entered FROM property.config) THEN n.entered END AS new_entered,
               n.lifecycle_since AS since,
               (property.last_move(coalesce(o.id, n.id))).to_status IS NOT NULL AS in_history
        FROM property.lead o FULL JOIN property.leads n ON n.id = o.id
        WHERE (o.incarnation, o.status, o.amount, o.source) IS DISTINCT FROM (n.incarnation, n.status::text, n.amount, n.source)
        ORDER BY 1
    LOOP
        IF lead.was IS DISTINCT FROM lead.is THEN
            IF lead.in_history THEN
                PERFORM property.record(lead.id, NULL, 'delete', NULL, lead.old_amount, NULL);
            END IF;
            DELETE FROM property.lead o WHERE o.id = lead.id;
            IF lead.is IS NOT NULL THEN
                PERFORM property.record(lead.id, lead.new_status, 'entry', lead.new_source, lead.new_amount, lead.new_entered,
                                        CASE WHEN lead.was IS NOT NULL OR meddling <> 'none' THEN lead.since END);
                INSERT INTO property.lead
                VALUES (lead.id, lead.is, lead.new_status, lead.new_source, lead.new_amount, lead.new_entered);
            END IF;
            CONTINUE;
        END IF;
        IF lead.old_status IS DISTINCT FROM lead.new_status THEN
            IF lead.old_status IS NOT NULL AND NOT coalesce(lead.new_status = ANY (property.legal(lead.old_status)), false) THEN
                RAISE EXCEPTION 'lead % was let through from % to %', lead.id, lead.old_status, lead.new_status;
            END IF;
            IF NOT lead.in_history AND lead.old_status IS NOT NULL THEN
                -- older than track(): found as it was, date unknown
                PERFORM property.record(lead.id, property.first_status(), 'backfill', lead.old_source, lead.old_amount, NULL);
                IF lead.old_status <> property.first_status() THEN
                    PERFORM property.record(lead.id, lead.old_status, 'backfill', NULL, lead.old_amount, NULL);
                END IF;
            END IF;
            PERFORM property.record(lead.id, lead.new_status, CASE WHEN lead.old_status IS NULL THEN 'entry' ELSE 'write' END,
                                    lead.new_source, lead.new_amount, lead.new_entered);
        END IF;
        UPDATE property.lead o SET status = lead.new_status, amount = lead.new_amount, source = lead.new_source
        WHERE o.id = lead.id;
    END LOOP;
END
$$;

-- The errors of which a statement must raise one (none: it must succeed); in
-- "outcome" what must stand in the rows that it names; and the moves that
-- on_illegal = 'keep' must note.
CREATE FUNCTION property.predict(
    intents property.intent[], OUT errors text[], OUT outcome property.intent[], OUT refusals property.refused[])
    LANGUAGE plpgsql
AS $$
DECLARE
    config property.config;
    keep boolean;
    replay timestamptz := nullif(current_setting('lifecycle.at', true), '')::timestamptz;
    intent property.intent;
    old property.lead;
    last property.move;
    deleted int[] := '{}';
    known boolean;
    moves boolean;
    refusal text;
    result text;
BEGIN
    SELECT * INTO config FROM property.config;
    keep := coalesce(nullif(current_setting('lifecycle.on_illegal', true), ''), config.on_illegal) = 'keep';
    errors := '{}';
    outcome := '{}';
    refusals := '{}';
    FOREACH intent IN ARRAY intents LOOP
        SELECT * INTO old FROM property.lead o WHERE o.id = intent.id AND o.id <> ALL (deleted);
        last := property.last_move(intent.id);
        known := intent.status = ANY (property.statuses());
        refusal := NULL;
        moves := false;
        result := intent.status;
        IF intent.action = 'D' THEN
            CONTINUE WHEN old.id IS NULL;
            deleted := deleted || intent.id;
            moves := last.to_status IS NOT NULL;
        ELSIF NOT known AND config.status_type = 'lifecycle.lifecycle_status' THEN
            refusal := '22P02';
            errors := array_append(errors, refusal);
        ELSIF intent.action = 'I' THEN
            IF old.id IS NOT NULL THEN errors := array_append(errors, '23505'); END IF;
            result := CASE WHEN known THEN result ELSE property.first_status() END;
            IF NOT known THEN refusal := '23514'; END IF;
            moves := true;
            old := NULL;
        ELSE
            CONTINUE WHEN old.id IS NULL OR old.status IS NOT DISTINCT FROM result;
            IF result IS NULL THEN
                refusal := '23502';
            ELSIF NOT known OR (old.status IS NOT NULL AND result <> ALL (property.legal(old.status))) THEN
                refusal := '23514';
            END IF;
            moves := refusal IS NULL;
            IF refusal IS NOT NULL THEN result := old.status; END IF;
        END IF;
        IF refusal IS NOT NULL AND NOT keep THEN
            errors := array_append(errors, refusal);
        ELSIF refusal IS NOT NULL THEN
            refusals := refusals || ROW(intent.id, old.status, intent.status)::property.refused;
        END IF;
        IF moves AND replay < last.at THEN errors := array_append(errors, '22023'); END IF;
        outcome := outcome || ROW(intent.id, intent.action, CASE WHEN intent.action <> 'D' THEN result END)::property.intent;
    END LOOP;
END
$$;

-- A server with assertions stops in heap_update() where a row that was locked,
-- updated in a savepoint and rolled back is updated again and finds its page
-- full; without any trigger, too. Pages that are nearly empty make that rare.
CREATE FUNCTION property.storage() RETURNS text
    LANGUAGE sql STABLE
    RETURN CASE WHEN current_setting('debug_assertions')::boolean THEN 'WITH (fillfactor = 10)' ELSE '' END;

-- The leaf that all leads of the statement are or would be in, or NULL.
CREATE FUNCTION property.leaf_of(statement property.statement) RETURNS regclass
    LANGUAGE plpgsql
AS $$
DECLARE
    parent regclass := 'property.leads';
    leaf regclass;
    child regclass;
    fits boolean;
BEGIN
    -- ON CONFLICT DO NOTHING names leads of which it wants nothing
    IF statement.command LIKE '%DO NOTHING' OR statement.intents = '{}' THEN
        RETURN NULL;
    END IF;
    LOOP
        leaf := NULL;
        FOR child IN SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = parent ORDER BY i.inhrelid::regclass::text LOOP
            EXECUTE format('SELECT bool_and(%s) FROM unnest($1) AS i', pg_get_partition_constraintdef(child)) INTO fits USING statement.intents;
            IF fits THEN leaf := child; END IF;
        END LOOP;
        EXIT WHEN leaf IS NULL OR (SELECT c.relkind = 'r' FROM pg_class c WHERE c.oid = leaf);
        parent := leaf;
    END LOOP;
    RETURN leaf;
END
$$;

-- Takes one leaf away and attaches it again, or another one with its leads and
-- with its columns in another order.
CREATE FUNCTION property.exchange_leaf() RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    status_type text := (SELECT c.status_type FROM property.config c);
    columns CONSTANT text := 'id, status, source, amount, entered, incarnation, lifecycle_since, lifecycle_seq, demographic_score';
    leaf regclass;
    parent regclass;
    bound text;
BEGIN
    SELECT t.relid, t.parentrelid, pg_get_expr(c.relpartbound, c.oid) INTO leaf, parent, bound
    FROM pg_partition_tree('property.leads') AS t JOIN pg_class c ON c.oid = t.relid
    WHERE t.isleaf ORDER BY md5(t.relid::regclass::text || property.below(1000)) LIMIT 1;
    EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', parent, leaf);
    IF property.below(2) = 0 THEN
        EXECUTE format('CREATE TABLE property.exchanged (
                            gone int, incarnation bigint NOT NULL DEFAULT nextval(''property.incarnation''), lifecycle_seq int,
                            entered timestamptz, amount numeric, gone_too text, source text, demographic_score float8,
                            lifecycle_since timestamptz, id int PRIMARY KEY, status %s) %s', status_type, property.storage());
        ALTER TABLE property.exchanged DROP COLUMN gone, DROP COLUMN gone_too;
        EXECUTE format('INSERT INTO property.exchanged (%s) SELECT %1$s FROM %s', columns, leaf);
        EXECUTE format('DROP TABLE %s', leaf);
        EXECUTE format('ALTER TABLE property.exchanged RENAME TO leaf_%s', nextval('property.statements'));
        leaf := (SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'property'::regnamespace AND c.relkind = 'r' AND c.relname = 'leaf_' || currval('property.statements'));
    END IF;
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s %s', parent, leaf, bound);
END
$$;

-- Runs one statement, and holds what it did against what it must do.
CREATE FUNCTION property.run(statement property.statement) RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    config property.config;
    predicted record;
    tolerated text[] := '{}';
    raised text := '';
    message text;
    wrong text;
BEGIN
    SELECT * INTO config FROM property.config;
    PERFORM nextval('property.statements');
    IF config.partitions <> 'none' AND property.below(2) = 0 THEN
        statement.command := replace(statement.command, 'property.leads', coalesce(property.leaf_of(statement)::text, 'property.leads'));
    END IF;
    SELECT * INTO predicted FROM property.predict(statement.intents);
    IF config.status_type = 'lifecycle.lifecycle_status' AND statement.command LIKE '%no such status%' THEN
        predicted.errors := array_append(predicted.errors, '22P02');
    END IF;
    IF config.meddling <> 'none' AND nullif(current_setting('lifecycle.at', true), '') IS NOT NULL THEN
        tolerated := '{22023}';
    END IF;
    IF config.meddling = 'before' THEN
        -- the meddler was at the statement's own rows
        tolerated := tolerated || '{27000,21000,23505,23514,23502}'::text[];
    END IF;
    IF predicted.errors || tolerated = '{}' THEN
        EXECUTE statement.command; -- in no subtransaction
    ELSE
        BEGIN
            EXECUTE statement.command;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS raised = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
        END;
    END IF;
    IF raised <> '' AND raised <> ALL (predicted.errors || tolerated) THEN
        RAISE EXCEPTION '%: %, but one of % was to be expected: %', raised, message, predicted.errors, statement.command;
    ELSIF raised = '' AND predicted.errors <> '{}' AND config.meddling <> 'before' THEN
        RAISE EXCEPTION 'no error, but one of % was to be expected: %', predicted.errors, statement.command;
    END IF;
    PERFORM property.observe();
    IF raised <> '' THEN
        PERFORM nextval('property.failures');
        RETURN;
    END IF;
    INSERT INTO property.refused SELECT r.* FROM unnest(predicted.refusals) AS r;
    IF config.meddling = 'none' THEN
        SELECT string_agg(format('lead %s is %s, not %s', o.id, coalesce(l.status, '(null)'), coalesce(o.status, '(null)')), ', ')
        INTO wrong
        FROM (SELECT DISTINCT ON (i.id) i.id, i.action, i.status, i.n
              FROM unnest(predicted.outcome) WITH ORDINALITY AS i (id, action, status, n) ORDER BY i.id, i.n DESC) AS o
        LEFT JOIN property.lead l ON l.id = o.id
        WHERE l.status IS DISTINCT FROM o.status OR (l.id IS NULL) <> (o.action = 'D');
        IF wrong IS NOT NULL THEN
            RAISE EXCEPTION '%: %', wrong, statement.command;
        END IF;
    END IF;
END
$$;

-- The history, the leads and the refused moves against the reference.
CREATE FUNCTION property.compare() RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    wrong text;
BEGIN
    SELECT string_agg(v::text, '; ') INTO wrong FROM (SELECT * FROM lifecycle.verify('property.leads') LIMIT 5) AS v;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'verify(): %', wrong;
    END IF;

    -- A removal that a trigger of a user makes come late, after the key is back,
    -- has the value of the row that came.
    WITH actual AS (
        SELECT h.lead, h.seq, h.cycle, h.from_status, h.from_since, h.to_status, h.at, h.cause, h.source,
               CASE WHEN h.to_status IS NULL AND c.meddling <> 'none' THEN NULL ELSE h.value END AS value,
               h.entered_at, h.cycle_since,
               h.reached[1 : coalesce(array_position(h.reached, NULL) - 1, cardinality(h.reached))] AS in_cycle,
               (SELECT array_agg(DISTINCT r.status ORDER BY r.status) FROM unnest(h.reached) AS r (status) WHERE r.status IS NOT NULL) AS ever
        FROM property.leads_history h CROSS JOIN property.config c
    ), expected AS (
        SELECT m.lead, m.seq, m.cycle, m.from_status, m.from_since, m.to_status, m.at, m.cause, m.source,
               CASE WHEN m.to_status IS NULL AND c.meddling <> 'none' THEN NULL ELSE m.value END AS value,
               m.entered_at, m.cycle_since, m.in_cycle, m.ever
        FROM property.move m CROSS JOIN property.config c
    ), differences AS (
        (SELECT 'unexpected ' AS what, a FROM (TABLE actual EXCEPT ALL TABLE expected) AS a)
        UNION ALL
        (SELECT 'missing ', m FROM (TABLE expected EXCEPT ALL TABLE actual) AS m)
    )
    SELECT string_agg(d.what || d.a::text, '; ' ORDER BY d.a, d.what)
    INTO wrong FROM (SELECT * FROM differences ORDER BY a, what LIMIT 6) AS d;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'history: %', wrong;
    END IF;

    SELECT string_agg(format('lead %s has (%s, %s, %s)', l.id, l.status, l.lifecycle_seq, l.lifecycle_since), '; ') INTO wrong
    FROM property.leads l CROSS JOIN LATERAL property.last_move(l.id) AS m
    WHERE CASE WHEN m.to_status IS NULL THEN l.lifecycle_seq IS NOT NULL
               ELSE (l.status::text, l.lifecycle_seq, l.lifecycle_since) IS DISTINCT FROM (m.to_status, m.seq, m.at) END;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'leads: %', wrong;
    END IF;

    IF (SELECT meddling = 'none' FROM property.config) THEN
        SELECT string_agg(r::text, '; ') INTO wrong
        FROM ((SELECT 'missing', r.* FROM (TABLE property.refused EXCEPT ALL SELECT lead, from_status, to_status FROM property.leads_refused) AS r)
              UNION ALL
              (SELECT 'unexpected', r.* FROM (SELECT lead, from_status, to_status FROM property.leads_refused EXCEPT ALL TABLE property.refused) AS r)) AS r;
        IF wrong IS NOT NULL THEN
            RAISE EXCEPTION 'refused: %', wrong;
        END IF;
    END IF;
END
$$;
