-- What owners do to leads beside writing them: bring those in that are older
-- than track(), put mistakes right, and forget people.

CREATE FUNCTION lifecycle.announce(lead_table regclass, operation text, reason text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_announce';

COMMENT ON FUNCTION lifecycle.announce(regclass, text, text) IS
'Part of lifecycle.backfill() and lifecycle.rescore(), which see: the next statement on the table''s leads in this subtransaction is no write of a user. operation: ''backfill'', ''rescore'' or ''rescore and move''. The caller must own the table. Errors: 42501 not the owner, 55000 not tracked, 22004 an argument is null, 22023 no such operation.';

CREATE FUNCTION lifecycle.in_transaction_block() RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_in_transaction_block';

COMMENT ON FUNCTION lifecycle.in_transaction_block() IS
'Part of lifecycle.backfill(), which see: whether the statement runs inside BEGIN ... COMMIT or a subtransaction.';

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
'Part of lifecycle.backfill(), which see: 42501 for who is not a member of the role that owns the table.';

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
'Part of lifecycle.backfill(), which see: the operator of a btree strategy by which the key''s unique index is ordered, as SQL text that no search path can change.';

CREATE FUNCTION lifecycle.backfill_statements(
    lead_table regclass, batch int, OUT look text, OUT hold text, OUT write text, OUT estimate text)
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
    is_known := format('(l.%1$I IS NULL OR l.%1$I::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1))', program.status_column);
    -- a lead that is not in the history, or not as its row says
    is_due := format($q$(l.lifecycle_seq IS NULL OR (
            SELECT h.seq OPERATOR(pg_catalog.=) l.lifecycle_seq AND h.at OPERATOR(pg_catalog.=) l.lifecycle_since
               AND h.to_status OPERATOR(pg_catalog.=) l.%I::pg_catalog.text
            FROM %s h WHERE h.lead %s l.%I ORDER BY h.seq DESC LIMIT 1) IS NOT TRUE)$q$,
        program.status_column, program.history, equal, program.key);
    in_range := format('($2 IS NULL OR l.%1$I %2$s $2::%4$s) AND ($3 IS NULL OR l.%1$I %3$s $3::%4$s)',
                       program.key, greater, not_greater, key_type);
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

COMMENT ON FUNCTION lifecycle.backfill_statements(regclass, int) IS
'Part of lifecycle.backfill(), which see: its statements. $1: the statuses of the model; $2 and $3: the batch is of the keys greater than $2 and not greater than $3.
look: how many leads there are in the next batch, how many are to be brought in, how many have a status that the model lacks, and the last key. hold: locks what is to be brought in, in the order of the key. write: brings it in. estimate: how many rows the table has.';

CREATE PROCEDURE lifecycle.backfill(lead_table regclass, batch int DEFAULT 10000)
    LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    path text;
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
    written bigint;
    last_key text;
    next_key text;
BEGIN
    -- Triggers of users find the path of the caller; nothing else does.
    path := pg_catalog.current_setting('search_path');
    SET LOCAL search_path = pg_catalog, pg_temp;
    IF lead_table IS NULL OR batch IS NULL THEN
        RAISE EXCEPTION 'lead_table and batch must not be null' USING ERRCODE = 'null_value_not_allowed';
    ELSIF batch < 1 THEN
        RAISE EXCEPTION 'batch must be at least 1, not %', batch USING ERRCODE = 'invalid_parameter_value';
    ELSIF lifecycle.in_transaction_block() THEN
        RAISE EXCEPTION 'lifecycle.backfill() cannot run inside a transaction block'
            USING ERRCODE = 'active_sql_transaction',
                  DETAIL = 'It commits after each batch.',
                  HINT = 'CALL it by itself: outside of BEGIN ... COMMIT, of functions and of blocks with EXCEPTION, and with autocommit on.';
    END IF;
    program := lifecycle.program_of(lead_table);
    PERFORM lifecycle.require_owner(lead_table, 'lifecycle.backfill()');
    IF row_security_active(lead_table) THEN
        RAISE EXCEPTION 'row security hides leads of table "%" from their owner', lead_table
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY; for the time of the backfill, or let a superuser call it.', lead_table);
    END IF;
    -- the planner's estimate grows with dead rows, such as an earlier call leaves
    SELECT c.reltuples INTO total FROM pg_class c WHERE c.oid = lead_table;
    IF total <= 0 THEN
        EXECUTE (lifecycle.backfill_statements(lead_table, batch)).estimate INTO plan;
        total := (plan -> 0 -> 'Plan' ->> 'Plan Rows')::bigint;
    END IF;
    -- where no COMMIT is possible, this fails before anything is done
    COMMIT;

    LOOP
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        SET LOCAL search_path = pg_catalog, pg_temp;
        -- anew for each batch: what is tracked and how may have changed since
        program := lifecycle.program_of(lead_table);
        statement := lifecycle.backfill_statements(lead_table, batch);
        statuses := ARRAY(SELECT s.status FROM lifecycle.stage s WHERE s.model = program.model);
        EXECUTE statement.look USING statuses, last_key, NULL::text INTO n, due, unknown, next_key;
        EXIT WHEN n = 0;
        strange := strange + unknown;
        IF due > 0 THEN
            EXECUTE statement.hold USING statuses, last_key, next_key;
            PERFORM lifecycle.announce(lead_table, 'backfill');
            PERFORM set_config('search_path', path, true);
            EXECUTE statement.write USING statuses, last_key, next_key;
            GET DIAGNOSTICS written = ROW_COUNT;
            SET LOCAL search_path = pg_catalog, pg_temp;
            done := done + written;
        END IF;
        looked := looked + n;
        last_key := next_key;
        IF (looked - told) * 20 >= total AND n = batch THEN
            RAISE NOTICE 'backfill of "%": looked at % of about % leads, brought in %',
                lead_table, looked, greatest(total, looked), done;
            told := looked;
        END IF;
        COMMIT;
    END LOOP;
    RAISE NOTICE 'backfill of "%" is complete: looked at % leads, brought in %', lead_table, looked, done;
    IF strange > 0 THEN
        RAISE WARNING '% leads of table "%" stay out: model "%" lacks their status', strange, lead_table, program.model
            USING HINT = format('The statuses are: %s. Change the rows, or the model, and call lifecycle.backfill() again.',
                                (SELECT string_agg(s.status, ', ' ORDER BY s.rank, s.status COLLATE "C")
                                 FROM lifecycle.stage s WHERE s.model = program.model));
    END IF;
    -- a procedure that called this one goes on in the same transaction
    PERFORM set_config('search_path', path, true);
END
$$;

COMMENT ON PROCEDURE lifecycle.backfill(regclass, int) IS
'Brings the leads into the history that are older than lifecycle.track(), or whose row is not what the history says: each enters at the program''s "entered" (now without it) on the model''s first status, and where it is found elsewhere moves there now; both with cause backfill. No reason is asked for and no move refused.
batch: how many leads are looked at, in the order of the key, between two COMMITs. Leads that are to be written are locked in the order of the key; writers of a lead wait for the COMMIT of its batch. May be stopped at any time and called again; lock_timeout applies to each wait, statement_timeout to the whole CALL. Triggers of users on UPDATE fire. Progress by NOTICE. Leads with a status that the model lacks stay out and are counted in a WARNING.
The caller must own the table. Errors: 42501 not the owner, or row security is forced upon him; 55000 not tracked; 22023 batch less than 1; 22004 an argument is null; 25001 inside a transaction block; 2D000 where it cannot COMMIT.';
