-- What owners do to leads beside writing them: bring those in that are older
-- than track(), bring scores up to the rules, put mistakes right, forget people.

CREATE FUNCTION lifecycle.announce(lead_table regclass, operation text, reason text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_announce';

COMMENT ON FUNCTION lifecycle.announce(regclass, text, text) IS
'Part of lifecycle.backfill() and lifecycle.rescore(), which see: the next statement on the table''s leads in this subtransaction is no write of a user. operation: ''backfill'', ''rescore'' or ''rescore and move''. The caller must own the table. Errors: 42501 not the owner, 55000 not tracked, 22004 an argument is null, 22023 no such operation.';

CREATE FUNCTION lifecycle.in_transaction_block() RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_in_transaction_block';

COMMENT ON FUNCTION lifecycle.in_transaction_block() IS
'Part of lifecycle.in_batches(), which see: whether the statement runs inside BEGIN ... COMMIT or a subtransaction.';

CREATE FUNCTION lifecycle.correct(lead_table regclass, lead text, status text, reason text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_correct';
CREATE FUNCTION lifecycle.correct(lead_table regclass, lead anyelement, status text, reason text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_correct';

COMMENT ON FUNCTION lifecycle.correct(regclass, text, text, text) IS
'Puts the status of a lead right that was set by mistake. Any move is allowed; it is recorded with cause correction and the reason, begins no cycle and voids the visit that it closes: for funnels the lead was never there. An ordinary UPDATE as the caller; triggers of users fire.
lead: the key, as text. status: the status that is right. reason: what was wrong; kept in the history.
The caller must own the table. Errors: 42501 not the owner, 55000 the table is not tracked or the lead not in the history yet (lifecycle.backfill() brings it in), P0002 no such lead, 22023 the model lacks the status or the lead has it already, 23502 no reason, 22004 another argument is null, 27000 a trigger suppressed the UPDATE.';
COMMENT ON FUNCTION lifecycle.correct(regclass, anyelement, text, text) IS
'The same with the key in its own type.';

CREATE FUNCTION lifecycle.erase(lead_table regclass, lead text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_erase';
CREATE FUNCTION lifecycle.erase(lead_table regclass, lead anyelement) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_erase';

COMMENT ON FUNCTION lifecycle.erase(regclass, text) IS
'Forgets a lead. Deletes its row, if there is one, as DELETE does; then its moves get a random key and lose actor and reason, and its refused moves are deleted. Every number of the past stays the same. Source, cohort, value and session_user_name stay, and columns that users added to the history; the old versions of the rows stay in the files until VACUUM, and in backups.
lead: the key, as text. Keys of integers and numeric become a negative random number, text and character varying become erased- and a uuid, cut to the length of the column, uuid a random one.
Where the lead has no row any more, writers of leads wait until the transaction ends. The caller must own the table. Errors: 42501 not the owner, 55000 the table is not tracked, P0002 neither leads nor history know the lead, 0A000 a key of another type, 22004 an argument is null, 27000 a trigger suppressed the DELETE, or called from a trigger of the leads.';
COMMENT ON FUNCTION lifecycle.erase(regclass, anyelement) IS
'The same with the key in its own type.';

CREATE FUNCTION lifecycle.require_owner(lead_table regclass, what text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    leads pg_class;
BEGIN
    SELECT * INTO leads FROM pg_class c WHERE c.oid = lead_table;
    IF NOT pg_has_role(leads.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', leads.relname
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Let a member of role %s call %s.', leads.relowner::regrole, what);
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.require_owner(regclass, text) IS
'Part of lifecycle.in_batches(), which see: 42501 for who is not a member of the role that owns the table.';

CREATE FUNCTION lifecycle.key_operator(lead_table regclass, key name, strategy int) RETURNS text
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname)
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indkey[0] = a.attnum AND i.indnkeyatts = 1
        AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL
        AND i.indcollation[0] = a.attcollation
    JOIN pg_catalog.pg_opclass c ON c.oid = i.indclass[0]
    JOIN pg_catalog.pg_amop m ON m.amopfamily = c.opcfamily AND m.amoplefttype = c.opcintype
        AND m.amoprighttype = c.opcintype AND m.amopstrategy = strategy
    JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr
    JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
    WHERE a.attrelid = lead_table AND a.attname = key
    ORDER BY i.indisprimary DESC, i.indexrelid
    LIMIT 1;
END;

COMMENT ON FUNCTION lifecycle.key_operator(regclass, name, int) IS
'Part of lifecycle.in_batches(), which see: the operator of a btree strategy by which the key''s unique index is ordered, as SQL text that no search path can change.';

CREATE FUNCTION lifecycle.is_rescored(lead record, move boolean) RETURNS boolean
    LANGUAGE c STABLE STRICT COST 1000 AS 'MODULE_PATHNAME', 'lifecycle_is_rescored';

COMMENT ON FUNCTION lifecycle.is_rescored(record, boolean) IS
'Part of lifecycle.rescore(), which see: whether it has something to write for the row of a lead. lead and errors: as for lifecycle.demographic_score(). move: whether a rule may move the lead.';

CREATE FUNCTION lifecycle.stale_behavior(lead_table regclass, keys text[])
    RETURNS TABLE (lead text, stored double precision, today double precision, restart timestamptz)
    LANGUAGE c STABLE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'lifecycle_stale_behavior';

COMMENT ON FUNCTION lifecycle.stale_behavior(regclass, text[]) IS
'Part of lifecycle.verify(), which see: the leads of these keys, as text, whose stored points are not those that the rows of the signal tables give by today''s rules, beyond a billionth of them.
stored, today: the behaviour score now by the one and by the other. restart: when the history says that the lead began anew, where <prefix>_behavior does not know it. Needs SELECT on <prefix>_behavior.';

CREATE FUNCTION lifecycle.rescore_behavior(lead_table regclass, keys text[], unknown boolean) RETURNS bigint
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'lifecycle_rescore_behavior';

COMMENT ON FUNCTION lifecycle.rescore_behavior(regclass, text[], boolean) IS
'Part of lifecycle.rescore(), which see: makes the points of the leads of these keys, as text, anew, of the rows of the signal tables that are there. Locks and writes only leads whose points differ, in the order of the key. unknown: the keys are of no leads; each gets a row of points, by which a lead that comes finds its signals. Gives how many were written. The caller must own the table.';

CREATE FUNCTION lifecycle.behavior_keys(lead_table regclass, leads boolean) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    equal text := lifecycle.key_operator(lead_table, program.key, 3);
    keys text;
BEGIN
    SELECT string_agg(format('SELECT s.key FROM (SELECT %s AS key FROM %s) AS s WHERE s.key IS NOT NULL', s.lead, s.signal_table),
                      ' UNION ' ORDER BY s.id)
    INTO keys
    FROM lifecycle.signal s
    WHERE s.lead_table = program.lead_table
      AND (NOT leads OR has_table_privilege(s.signal_table, 'SELECT'));
    keys := concat_ws(' UNION ', format('SELECT b.lead AS key FROM %s b', program.behavior), keys);
    IF leads THEN
        RETURN format('SELECT k.key FROM (%s) AS k', keys);
    END IF;
    RETURN format('SELECT k.key FROM (%s) AS k WHERE NOT EXISTS (SELECT FROM %s l WHERE l.%I %s k.key)',
                  keys, program.lead_table, program.key, equal);
END
$$;

COMMENT ON FUNCTION lifecycle.behavior_keys(regclass, boolean) IS
'Part of lifecycle.rescore() and lifecycle.verify(), which see: the query for the keys that have points or signals. leads: also those of leads, and without the signal tables that the caller may not read; else only keys that no lead has.';

CREATE FUNCTION lifecycle.batch_statements(
    lead_table regclass, operation text, batch int, OUT keys text, OUT look text, OUT hold text, OUT write text, OUT estimate text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    key_type text;
    smaller text := lifecycle.key_operator(lead_table, program.key, 1);
    equal text := lifecycle.key_operator(lead_table, program.key, 3);
    greater text := lifecycle.key_operator(lead_table, program.key, 5);
    not_greater text := lifecycle.key_operator(lead_table, program.key, 2);
    is_known text;
    is_due text;
    in_range text;
BEGIN
    -- without the type's length: a cast to one cuts the value
    SELECT format_type(a.atttypid, -1) INTO key_type
    FROM pg_attribute a WHERE a.attrelid = lead_table AND a.attname = program.key;
    IF operation = 'backfill' THEN
        is_known := format('(l.%1$I IS NULL OR l.%1$I::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1))', program.status_column);
        -- a lead that is not in the history, or not as its row says
        is_due := format($q$(l.lifecycle_seq IS NULL OR (
                SELECT h.seq OPERATOR(pg_catalog.=) l.lifecycle_seq AND h.at OPERATOR(pg_catalog.=) l.lifecycle_since
                   AND h.to_status OPERATOR(pg_catalog.=) l.%I::pg_catalog.text
                FROM %s h WHERE h.lead %s l.%I ORDER BY h.seq DESC LIMIT 1) IS NOT TRUE)$q$,
            program.status_column, program.history, equal, program.key);
    ELSE
        is_known := 'true';
        -- l.*, since l may be the name of a column
        is_due := format('lifecycle.is_rescored(l.*, %L)', operation = 'rescore and move');
    END IF;
    in_range := format('($2 IS NULL OR l.%1$I %2$s $2::%4$s) AND ($3 IS NULL OR l.%1$I %3$s $3::%4$s)',
                       program.key, greater, not_greater, key_type);
    keys := format($q$
        SELECT coalesce(array_agg(k.key), '{}')
        FROM (SELECT l.%1$I::text AS key FROM %2$s l WHERE %3$s ORDER BY l.%1$I USING %4$s LIMIT %5$s) AS k$q$,
        program.key, lead_table, in_range, smaller, batch);
    look := format($q$
        SELECT count(*), count(*) FILTER (WHERE s.due AND s.known), count(*) FILTER (WHERE s.due AND NOT s.known),
               (array_agg(s.key))[count(*)]
        FROM (SELECT l.%1$I::text AS key, %2$s AS due, %3$s AS known
              FROM %4$s l WHERE %5$s ORDER BY l.%1$I USING %6$s LIMIT %7$s) AS s$q$,
        program.key, is_due, is_known, lead_table,
        in_range, smaller, batch);
    hold := format('SELECT FROM %s l WHERE %s AND %s AND %s ORDER BY l.%I USING %s FOR NO KEY UPDATE',
                   lead_table, in_range, is_known, is_due, program.key, smaller);
    write := format('UPDATE %s l SET lifecycle_seq = l.lifecycle_seq WHERE %s AND %s AND %s',
                    lead_table, in_range, is_known, is_due);
    estimate := format('EXPLAIN (FORMAT JSON) SELECT FROM %s', lead_table);
END
$$;

COMMENT ON FUNCTION lifecycle.batch_statements(regclass, text, int) IS
'Part of lifecycle.in_batches(), which see: the statements of an operation. $1: the statuses of the model; $2 and $3: the batch is of the keys greater than $2 and not greater than $3.
keys: those of the next batch, as text. look: how many leads there are in the next batch, how many are to be written, how many have a status that the model lacks, and the last key. hold: locks what is to be written, in the order of the key. write: writes it; what becomes of each lead, its trigger decides. estimate: how many rows the table has.';

CREATE PROCEDURE lifecycle.in_batches(lead_table regclass, operation text, batch int, path text)
    LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    name text;
    verb text;
    program lifecycle.program;
    statement record;
    statuses text[];
    plan json;
    total bigint;
    looked bigint := 0;
    told bigint := 0;
    done bigint := 0;
    strange bigint := 0;
    n bigint;
    due bigint;
    unknown bigint;
    keys text[];
    remade bigint := 0;
    written bigint;
    last_key text;
    next_key text;
BEGIN
    SET LOCAL search_path = pg_catalog, pg_temp;
    name := CASE operation WHEN 'rescore and move' THEN 'rescore' ELSE operation END;
    verb := CASE operation WHEN 'backfill' THEN 'brought in' ELSE 'changed' END;
    IF lead_table IS NULL OR batch IS NULL THEN
        RAISE EXCEPTION 'lead_table and batch must not be null' USING ERRCODE = 'null_value_not_allowed';
    ELSIF batch < 1 THEN
        RAISE EXCEPTION 'batch must be at least 1, not %', batch USING ERRCODE = 'invalid_parameter_value';
    ELSIF lifecycle.in_transaction_block() THEN
        RAISE EXCEPTION 'lifecycle.%() cannot run inside a transaction block', name
            USING ERRCODE = 'active_sql_transaction',
                  DETAIL = 'It commits after each batch.',
                  HINT = 'CALL it by itself: outside of BEGIN ... COMMIT, of functions and of blocks with EXCEPTION, and with autocommit on.';
    END IF;
    program := lifecycle.program_of(lead_table);
    PERFORM lifecycle.require_owner(lead_table, format('lifecycle.%s()', name));
    IF row_security_active(lead_table) THEN
        RAISE EXCEPTION 'row security hides leads of table "%" from their owner', lead_table
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY; for the time of the %s, or let a superuser call it.', lead_table, name);
    END IF;
    -- the planner's estimate grows with dead rows, such as an earlier call leaves
    SELECT c.reltuples INTO total FROM pg_class c WHERE c.oid = lead_table;
    IF total <= 0 THEN
        EXECUTE (lifecycle.batch_statements(lead_table, operation, batch)).estimate INTO plan;
        total := (plan -> 0 -> 'Plan' ->> 'Plan Rows')::bigint;
    END IF;
    -- where no COMMIT is possible, this fails before anything is done
    COMMIT;

    LOOP
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        SET LOCAL search_path = pg_catalog, pg_temp;
        -- anew for each batch: what is tracked and how may have changed since
        program := lifecycle.program_of(lead_table);
        statement := lifecycle.batch_statements(lead_table, operation, batch);
        statuses := ARRAY(SELECT s.status FROM lifecycle.stage s WHERE s.model = program.model);
        -- points first: by the score that they give it is judged who moves
        IF operation <> 'backfill' AND program.behavior IS NOT NULL THEN
            EXECUTE statement.keys INTO keys USING statuses, last_key, NULL::text;
            remade := remade + lifecycle.rescore_behavior(lead_table, keys, false);
        END IF;
        EXECUTE statement.look USING statuses, last_key, NULL::text INTO n, due, unknown, next_key;
        EXIT WHEN n = 0;
        strange := strange + unknown;
        IF due > 0 THEN
            EXECUTE statement.hold USING statuses, last_key, next_key;
            PERFORM lifecycle.announce(lead_table, operation);
            -- triggers of users find the path of the caller; nothing else does
            PERFORM set_config('search_path', path, true);
            EXECUTE statement.write USING statuses, last_key, next_key;
            GET DIAGNOSTICS written = ROW_COUNT;
            SET LOCAL search_path = pg_catalog, pg_temp;
            done := done + written;
        END IF;
        looked := looked + n;
        last_key := next_key;
        IF (looked - told) * 20 >= total AND n = batch THEN
            RAISE NOTICE '% of "%": looked at % of about % leads, % %',
                name, lead_table, looked, greatest(total, looked), verb, done;
            told := looked;
        END IF;
        COMMIT;
    END LOOP;
    program := lifecycle.program_of(lead_table);
    IF operation <> 'backfill' AND program.behavior IS NOT NULL THEN
        -- keys that have points or signals, and no lead
        FOR keys IN EXECUTE format('SELECT array_agg(n.key::text ORDER BY n.place)
                                    FROM (SELECT k.key, row_number() OVER (ORDER BY k.key) - 1 AS place FROM (%s) AS k) AS n
                                    GROUP BY n.place / %s ORDER BY n.place / %2$s', lifecycle.behavior_keys(lead_table, false), batch)
        LOOP
            remade := remade + lifecycle.rescore_behavior(lead_table, keys, true);
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            SET LOCAL search_path = pg_catalog, pg_temp;
        END LOOP;
        RAISE NOTICE '% of "%" made the points of % leads anew', name, lead_table, remade;
    END IF;
    RAISE NOTICE '% of "%" is complete: looked at % leads, % %', name, lead_table, looked, verb, done;
    IF strange > 0 THEN
        RAISE WARNING '% leads of table "%" stay out: model "%" lacks their status', strange, lead_table, program.model
            USING HINT = format('The statuses are: %s. Change the rows, or the model, and call lifecycle.%s() again.',
                                (SELECT string_agg(s.status, ', ' ORDER BY s.rank, s.status COLLATE "C")
                                 FROM lifecycle.stage s WHERE s.model = program.model), name);
    END IF;
    -- a procedure that called this one goes on in the same transaction
    PERFORM set_config('search_path', path, true);
END
$$;

COMMENT ON PROCEDURE lifecycle.in_batches(regclass, text, int, text) IS
'Part of lifecycle.backfill() and lifecycle.rescore(), which see: the batches of what is announced as operation. path: the search path of their caller.';

CREATE PROCEDURE lifecycle.backfill(lead_table regclass, batch int DEFAULT 10000)
    LANGUAGE plpgsql
AS $$
DECLARE
    path text;
BEGIN
    path := pg_catalog.current_setting('search_path');
    SET LOCAL search_path = pg_catalog, pg_temp;
    CALL lifecycle.in_batches(lead_table, 'backfill', batch, path);
END
$$;

COMMENT ON PROCEDURE lifecycle.backfill(regclass, int) IS
'Brings the leads into the history that are older than lifecycle.track(), or whose row is not what the history says: each enters at the program''s "entered" (now without it) on the model''s first status, and where it is found elsewhere moves there now; both with cause backfill. No reason is asked for and no move refused.
batch: how many leads are looked at, in the order of the key, between two COMMITs. Leads that are to be written are locked in the order of the key; writers of a lead wait for the COMMIT of its batch. May be stopped at any time and called again; lock_timeout applies to each wait, statement_timeout to the whole CALL. Triggers of users on UPDATE fire. Progress by NOTICE. Leads with a status that the model lacks stay out and are counted in a WARNING.
The caller must own the table. Errors: 42501 not the owner, or row security is forced upon him; 55000 not tracked; 22023 batch less than 1; 22004 an argument is null; 25001 inside a transaction block; 2D000 where it cannot COMMIT.';

CREATE PROCEDURE lifecycle.rescore(lead_table regclass, move boolean DEFAULT false, batch int DEFAULT 10000)
    LANGUAGE plpgsql
AS $$
DECLARE
    path text;
BEGIN
    path := pg_catalog.current_setting('search_path');
    SET LOCAL search_path = pg_catalog, pg_temp;
    IF move IS NULL THEN
        RAISE EXCEPTION 'move must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    CALL lifecycle.in_batches(lead_table, CASE WHEN move THEN 'rescore and move' ELSE 'rescore' END, batch, path);
END
$$;

COMMENT ON PROCEDURE lifecycle.rescore(regclass, boolean, int) IS
'Stores the scores that today''s rules give, after rules were added, changed or deleted, for signals that are older than lifecycle.track_signal(), after lifecycle.untrack_signal(), or where time alone changed what a rule says: the demographic ones in the rows of the leads, the points of signals in <prefix>_behavior, also for keys that no lead has yet. Writes and locks only what differs; what the rows hold else stays.
move: also moves each lead for which a rule with a status holds, though no write made it hold: a rule on its row, judged by the new scores, or one that a row of a signal table fulfils, not older than max_age, dated after the lead last began anew, and with no other row in its way (unless_other); by the rule that comes first, from where the lead is, legal and allowed by only_from; one move for each lead, with cause rescore and the name of the rule. Without it no lead moves. Leads without a status get their score and do not enter; lifecycle.backfill() brings them in.
batch: how many leads are looked at, in the order of the key, between two COMMITs. Leads that are to be written are locked in the order of the key; writers of a lead wait for the COMMIT of its batch. May be stopped at any time and called again; lock_timeout applies to each wait, statement_timeout to the whole CALL. Triggers of users on UPDATE fire. Progress by NOTICE.
The caller must own the table. Errors: 42501 not the owner, or row security is forced upon him; 55000 not tracked; 22023 batch less than 1; 22004 an argument is null; 25001 inside a transaction block; 2D000 where it cannot COMMIT; what a rule raises.';
