-- track() and untrack(): a table of leads becomes a governed lifecycle, and
-- an ordinary table again.

CREATE FUNCTION lifecycle.find_key(lead_table regclass, key name) RETURNS name
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    attribute pg_attribute;
    primary_key pg_index;
    problem text;
BEGIN
    IF key IS NULL THEN
        SELECT * INTO primary_key FROM pg_index i WHERE i.indrelid = lead_table AND i.indisprimary;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'table "%" has no primary key', lead_table
                USING ERRCODE = 'invalid_table_definition',
                      HINT = 'Add one, or name a unique column that is NOT NULL: lifecycle.track(..., key => ''id'').';
        END IF;
        IF primary_key.indnkeyatts <> 1 THEN
            RAISE EXCEPTION 'primary key of table "%" has more than one column', lead_table
                USING ERRCODE = 'invalid_table_definition',
                      DETAIL = 'A lead is known by a key of one column.',
                      HINT = 'Name a unique column that is NOT NULL: lifecycle.track(..., key => ''id'').';
        END IF;
        SELECT * INTO attribute FROM pg_attribute a
        WHERE a.attrelid = lead_table AND a.attnum = primary_key.indkey[0];
    ELSE
        SELECT * INTO attribute FROM pg_attribute a
        WHERE a.attrelid = lead_table AND a.attname = key AND a.attnum > 0 AND NOT a.attisdropped;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'column "%" of table "%" does not exist', key, lead_table
                USING ERRCODE = 'undefined_column',
                      HINT = 'The key is a column that is unique and NOT NULL.';
        END IF;
    END IF;
    IF NOT attribute.attnotnull THEN
        RAISE EXCEPTION 'key column "%" of table "%" is not declared NOT NULL', attribute.attname, lead_table
            USING ERRCODE = 'invalid_table_definition',
                  HINT = format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL;', lead_table, attribute.attname);
    END IF;
    SELECT CASE WHEN bool_or(i.indimmediate AND i.indisvalid) THEN NULL
                WHEN bool_or(i.indisvalid) THEN 'deferrable'
                ELSE 'missing' END INTO problem
    FROM pg_index i
    WHERE i.indrelid = lead_table AND i.indisunique AND i.indnkeyatts = 1
      AND i.indkey[0] = attribute.attnum AND i.indpred IS NULL
      AND i.indcollation[0] = attribute.attcollation;
    IF problem = 'missing' THEN
        RAISE EXCEPTION 'key column "%" of table "%" is not unique', attribute.attname, lead_table
            USING ERRCODE = 'invalid_table_definition',
                  DETAIL = 'No valid unique index covers this column alone and every row.',
                  HINT = CASE (SELECT c.relkind FROM pg_class c WHERE c.oid = lead_table)
                         WHEN 'p' THEN format('A partitioned table of leads is partitioned by its key: CREATE UNIQUE INDEX ON %s (%I);', lead_table, attribute.attname)
                         ELSE format('CREATE UNIQUE INDEX CONCURRENTLY ON %s (%I);', lead_table, attribute.attname) END;
    ELSIF problem = 'deferrable' THEN
        RAISE EXCEPTION 'uniqueness of key column "%" of table "%" is deferrable', attribute.attname, lead_table
            USING ERRCODE = 'invalid_table_definition',
                  DETAIL = 'Until it is checked, two leads could have one key.',
                  HINT = 'Make the constraint NOT DEFERRABLE.';
    END IF;
    RETURN attribute.attname;
END
$$;

COMMENT ON FUNCTION lifecycle.find_key(regclass, name) IS
'Part of lifecycle.track(), which see: the key column, or the error that says why there is none.';

CREATE FUNCTION lifecycle.check_status_column(lead_table regclass, status_column name, model text) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    attribute pg_attribute;
    kind "char";
    labels text;
BEGIN
    SELECT * INTO attribute FROM pg_attribute a
    WHERE a.attrelid = lead_table AND a.attname = status_column AND a.attnum > 0 AND NOT a.attisdropped;
    IF NOT FOUND THEN
        IF status_column = 'lifecycle_status' THEN
            SELECT string_agg(s.status, ', ' ORDER BY s.rank, s.status COLLATE "C") INTO labels
            FROM lifecycle.stage s
            WHERE s.model = check_status_column.model
              AND s.status NOT IN (SELECT e.enumlabel FROM pg_enum e
                                   WHERE e.enumtypid = 'lifecycle.lifecycle_status'::regtype);
            IF labels IS NOT NULL THEN
                RAISE EXCEPTION 'type lifecycle.lifecycle_status does not have all statuses of model "%"', model
                    USING ERRCODE = 'datatype_mismatch',
                          DETAIL = format('It lacks: %s.', labels),
                          HINT = format('Add a status column of your own to %s (text, character varying or an enum) and name it: status_column => ''...''.', lead_table);
            END IF;
            RETURN false;
        END IF;
        RAISE EXCEPTION 'column "%" of table "%" does not exist', status_column, lead_table
            USING ERRCODE = 'undefined_column',
                  HINT = 'Leave out status_column, and a column lifecycle_status is added.';
    END IF;
    SELECT t.typtype INTO kind FROM pg_type t WHERE t.oid = attribute.atttypid;
    IF kind <> 'e' AND attribute.atttypid NOT IN ('text'::regtype, 'varchar'::regtype) THEN
        RAISE EXCEPTION 'status column "%" of table "%" is of type %', status_column, lead_table,
                        format_type(attribute.atttypid, attribute.atttypmod)
            USING ERRCODE = 'datatype_mismatch',
                  DETAIL = 'A status column is an enum, text or character varying.',
                  HINT = 'Leave out status_column, and a column lifecycle_status is added.';
    END IF;
    IF attribute.attgenerated <> '' THEN
        RAISE EXCEPTION 'status column "%" of table "%" is a generated column', status_column, lead_table
            USING ERRCODE = 'invalid_table_definition',
                  HINT = 'Leave out status_column, and a column lifecycle_status is added.';
    END IF;
    IF kind = 'e' THEN
        SELECT string_agg(s.status, ', ' ORDER BY s.rank, s.status COLLATE "C") INTO labels
        FROM lifecycle.stage s
        WHERE s.model = check_status_column.model
          AND s.status NOT IN (SELECT e.enumlabel FROM pg_enum e WHERE e.enumtypid = attribute.atttypid);
    ELSIF attribute.atttypmod > 0 THEN
        SELECT string_agg(s.status, ', ' ORDER BY s.rank, s.status COLLATE "C") INTO labels
        FROM lifecycle.stage s
        WHERE s.model = check_status_column.model AND length(s.status) > attribute.atttypmod - 4;
    END IF;
    IF labels IS NOT NULL THEN
        RAISE EXCEPTION 'type % of status column "%" does not have all statuses of model "%"',
                        format_type(attribute.atttypid, attribute.atttypmod), status_column, model
            USING ERRCODE = 'datatype_mismatch',
                  DETAIL = format('It lacks: %s.', labels),
                  HINT = CASE kind WHEN 'e' THEN format('ALTER TYPE %s ADD VALUE ..., or make a model of your own with lifecycle.copy_model().', attribute.atttypid::regtype)
                                   ELSE 'Make the column wider.' END;
    END IF;
    EXECUTE format($q$SELECT string_agg(d.status, ', ' ORDER BY d.status COLLATE "C")
                      FROM (SELECT DISTINCT %1$I::text FROM %2$s) AS d (status)
                      WHERE d.status NOT IN (SELECT s.status FROM lifecycle.stage s WHERE s.model = $1)$q$,
                   status_column, lead_table)
    INTO labels USING model;
    IF labels IS NOT NULL THEN
        RAISE EXCEPTION 'table "%" has rows with a status that model "%" lacks', lead_table, model
            USING ERRCODE = 'check_violation',
                  DETAIL = format('The statuses are: %s.', labels),
                  HINT = 'Make a model of your own with lifecycle.copy_model() and add them to it, or change the rows.';
    END IF;
    RETURN true;
END
$$;

COMMENT ON FUNCTION lifecycle.check_status_column(regclass, name, text) IS
'Part of lifecycle.track(), which see: whether the table has the status column, or the error that says why it cannot be one.';

CREATE FUNCTION lifecycle.check_model(model text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM lifecycle.model m WHERE m.name = check_model.model) THEN
        RAISE EXCEPTION 'model "%" does not exist', model
            USING ERRCODE = 'undefined_object',
                  HINT = (SELECT format('The models are: %s.', string_agg(m.name, ', ' ORDER BY m.name)) FROM lifecycle.model m);
    END IF;
    IF NOT EXISTS (SELECT FROM lifecycle.stage s WHERE s.model = check_model.model AND s.rank IS NOT NULL) THEN
        RAISE EXCEPTION 'model "%" has no stage with a rank', model
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'A lead without a status enters on the stage of the lowest rank.';
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.check_model(text) IS
'Part of lifecycle.track(), which see: refuses a model that cannot govern a table.';

CREATE FUNCTION lifecycle.check_program_model() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM lifecycle.check_model(NEW.model);
    PERFORM lifecycle.check_status_column(OLD.lead_table, OLD.status_column, NEW.model);
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION lifecycle.check_program_model() IS
'BEFORE UPDATE trigger of program: another model must fit the table as it must for lifecycle.track().';

CREATE TRIGGER checked_model BEFORE UPDATE ON lifecycle.program
    FOR EACH ROW WHEN (OLD.model IS DISTINCT FROM NEW.model)
    EXECUTE FUNCTION lifecycle.check_program_model();

CREATE FUNCTION lifecycle.check_table(relation regclass, rows_are text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    table_class pg_class;
    space name;
    rows text := CASE rows_are WHEN 'lead' THEN 'leads' ELSE 'signals' END;
    lost text := CASE rows_are WHEN 'lead' THEN 'leads would be gone after a crash, and their history would not.'
                               ELSE 'signals would be gone after a crash, and their points would not.' END;
    kept_for regclass;
BEGIN
    SELECT * INTO STRICT table_class FROM pg_class c WHERE c.oid = check_table.relation;
    SELECT n.nspname INTO space FROM pg_namespace n WHERE n.oid = table_class.relnamespace;
    IF table_class.relkind IN ('v', 'm') THEN
        RAISE EXCEPTION 'cannot track "%", which is a view', check_table.relation
            USING ERRCODE = 'wrong_object_type', HINT = 'Track the table that the view reads.';
    ELSIF table_class.relkind = 'f' THEN
        RAISE EXCEPTION 'cannot track "%", which is a foreign table', check_table.relation
            USING ERRCODE = 'wrong_object_type', HINT = 'Track the table on the server that it is on.';
    ELSIF table_class.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION 'cannot track "%", which is not a table', check_table.relation
            USING ERRCODE = 'wrong_object_type';
    ELSIF table_class.relpersistence = 't' THEN
        RAISE EXCEPTION 'cannot track "%", which is a temporary table', check_table.relation
            USING ERRCODE = 'wrong_object_type', DETAIL = format('Its %s would be gone with the session.', rows);
    ELSIF table_class.relpersistence = 'u' THEN
        RAISE EXCEPTION 'cannot track "%", which is an unlogged table', check_table.relation
            USING ERRCODE = 'wrong_object_type',
                  DETAIL = 'Its ' || lost,
                  HINT = format('ALTER TABLE %s SET LOGGED;', check_table.relation);
    ELSIF table_class.relispartition THEN
        RAISE EXCEPTION 'cannot track "%", which is a partition', check_table.relation
            USING ERRCODE = 'wrong_object_type', HINT = 'Track the partitioned table.';
    ELSIF EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = check_table.relation) THEN
        RAISE EXCEPTION 'cannot track "%", which inherits from another table', check_table.relation
            USING ERRCODE = 'wrong_object_type', DETAIL = format('Its %s are rows of that table as well.', rows);
    ELSIF table_class.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = check_table.relation) THEN
        RAISE EXCEPTION 'cannot track "%", from which other tables inherit', check_table.relation
            USING ERRCODE = 'wrong_object_type', DETAIL = 'Writes to their rows would not be seen.';
    ELSIF EXISTS (SELECT FROM lifecycle.tables_of(check_table.relation) AS t WHERE t.kind = 'f') THEN
        RAISE EXCEPTION 'cannot track "%", which has foreign tables as partitions', check_table.relation
            USING ERRCODE = 'wrong_object_type', HINT = 'Track the tables on the servers that they are on.';
    ELSIF EXISTS (SELECT FROM lifecycle.tables_of(check_table.relation) AS t JOIN pg_class c ON c.oid = t.relation
                  WHERE c.relpersistence = 'u') THEN
        RAISE EXCEPTION 'cannot track "%", which has unlogged tables as partitions', check_table.relation
            USING ERRCODE = 'wrong_object_type', DETAIL = 'Their ' || lost;
    ELSIF table_class.relkind = 'p' AND EXISTS (
        SELECT FROM lifecycle.tables_of(check_table.relation) AS t JOIN lifecycle.tracked_tables() AS k ON k.relation = t.relation
        WHERE t.relation <> check_table.relation AND k.rows_are = check_table.rows_are) THEN
        RAISE EXCEPTION 'cannot track "%", which has partitions that are tracked by themselves', check_table.relation
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = CASE rows_are WHEN 'lead' THEN 'A lead has one history.' ELSE 'A row is one signal.' END,
                  HINT = CASE rows_are WHEN 'lead' THEN 'Call lifecycle.untrack() on them first; their histories stay.'
                                       ELSE 'Call lifecycle.untrack_signal() on them first.' END;
    ELSIF space IN ('pg_catalog', 'information_schema', 'lifecycle') THEN
        RAISE EXCEPTION 'cannot track "%", which is in schema "%"', check_table.relation, space
            USING ERRCODE = 'wrong_object_type';
    END IF;
    SELECT p.lead_table INTO kept_for FROM lifecycle.program p
    WHERE check_table.relation IN (p.history, p.refused, p.behavior, p.flow, p.flow_pending) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'cannot track "%", which lifecycle keeps for table "%"', check_table.relation, kept_for
            USING ERRCODE = 'wrong_object_type';
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.check_table(regclass, text) IS
'Part of lifecycle.track() and lifecycle.track_signal(), which see: refuses a relation that cannot be a table of leads (rows_are => ''lead'') or of signals (''signal'').';

CREATE FUNCTION lifecycle.has_columns(relation regclass, names name[], types regtype[]) RETURNS boolean
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT pg_catalog.bool_and(EXISTS (
               SELECT FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = relation AND a.attname = c.name AND a.atttypid = c.type
                 AND a.attnum > 0 AND NOT a.attisdropped))
    FROM ROWS FROM (pg_catalog.unnest(names), pg_catalog.unnest(types)) AS c (name, type);
END;

COMMENT ON FUNCTION lifecycle.has_columns(regclass, name[], regtype[]) IS
'Part of lifecycle.track(), which see: whether the relation has all these columns, of these types.';

CREATE FUNCTION lifecycle.can_adopt_history(history regclass, owner oid, key_type regtype) RETURNS boolean
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
                   WHERE c.oid = history AND c.relowner = owner AND c.relkind = 'r')
       AND EXISTS (SELECT FROM pg_catalog.pg_trigger t
                   WHERE t.tgrelid = history AND t.tgfoid = 'lifecycle.guard_history()'::pg_catalog.regprocedure)
       AND NOT EXISTS (SELECT FROM lifecycle.program p WHERE p.history = can_adopt_history.history)
       AND lifecycle.has_columns(history,
               '{lead,seq,cycle,from_status,from_since,to_status,at,cause,rule,actor,session_user_name,reason,
                 demographic_score,behavior_score,source,cohort,value,entered_at,cycle_since,reached,recorded_at}',
               ARRAY[key_type, 'int4', 'int4', 'text', 'timestamptz', 'text', 'timestamptz', 'text', 'text', 'text', 'text', 'text',
                     'float8', 'float8', 'text', 'int4', 'numeric', 'timestamptz', 'timestamptz', 'text[]', 'timestamptz']::pg_catalog.regtype[]);
END;

COMMENT ON FUNCTION lifecycle.can_adopt_history(regclass, oid, regtype) IS
'Part of lifecycle.track(), which see: whether the table is a history that lifecycle.untrack() left.';

CREATE FUNCTION lifecycle.can_adopt_refused(refused regclass, owner oid, key_type regtype) RETURNS boolean
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
                   WHERE c.oid = refused AND c.relowner = owner AND c.relkind = 'r')
       AND NOT EXISTS (SELECT FROM lifecycle.program p WHERE p.refused = can_adopt_refused.refused)
       AND lifecycle.has_columns(refused, '{lead,from_status,to_status,at,actor}',
               ARRAY[key_type, 'text', 'text', 'timestamptz', 'text']::pg_catalog.regtype[]);
END;

COMMENT ON FUNCTION lifecycle.can_adopt_refused(regclass, oid, regtype) IS
'Part of lifecycle.track(), which see: whether the table is one of refused moves that lifecycle.untrack() left.';

CREATE FUNCTION lifecycle.can_adopt_behavior(behavior regclass, owner oid, key_type regtype) RETURNS boolean
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
                   WHERE c.oid = behavior AND c.relowner = owner AND c.relkind = 'r')
       AND EXISTS (SELECT FROM pg_catalog.pg_index i
                   WHERE i.indrelid = behavior AND i.indisprimary
                     AND pg_catalog.pg_get_indexdef(i.indexrelid) LIKE '%(lead, half_life)')
       AND NOT EXISTS (SELECT FROM lifecycle.program p WHERE p.behavior = can_adopt_behavior.behavior)
       AND lifecycle.has_columns(behavior, '{lead,half_life,points,at,heat,since}',
               ARRAY[key_type, 'interval', 'float8', 'timestamptz', 'float8', 'timestamptz']::pg_catalog.regtype[]);
END;

COMMENT ON FUNCTION lifecycle.can_adopt_behavior(regclass, oid, regtype) IS
'Part of lifecycle.track_signal(), which see: whether the table is one of points that lifecycle.untrack() left.';

CREATE FUNCTION lifecycle.can_replace_flow(flow regclass, owner oid) RETURNS boolean
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
                   WHERE c.oid = flow AND c.relowner = owner AND c.relkind = 'r')
       AND NOT EXISTS (SELECT FROM lifecycle.program p WHERE p.flow = can_replace_flow.flow)
       AND lifecycle.has_columns(flow, '{span,kind,day,key,source,cohort,from_status,to_status,reached,n,n_new,n_again,n_left,n_entered}',
               '{text,text,date,uuid,text,int4,_text,_text,_text,_int8,_int8,_int8,_int8,_int8}');
END;

COMMENT ON FUNCTION lifecycle.can_replace_flow(regclass, oid) IS
'Part of lifecycle.track(), which see: whether the table is a flow whose leads were dropped.';

CREATE FUNCTION lifecycle.can_replace_pending(pending regclass, owner oid) RETURNS boolean
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
                   WHERE c.oid = pending AND c.relowner = owner AND c.relkind = 'r')
       AND NOT EXISTS (SELECT FROM lifecycle.program p WHERE p.flow_pending = can_replace_pending.pending)
       AND lifecycle.has_columns(pending, '{kind,day,source,cohort,from_status,to_status,reached,n,n_new,n_again,n_left,n_entered}',
               '{text,date,text,int4,_text,_text,_text,_int8,_int8,_int8,_int8,_int8}');
END;

COMMENT ON FUNCTION lifecycle.can_replace_pending(regclass, oid) IS
'Part of lifecycle.track(), which see: whether the table is what was pending of a flow whose leads were dropped.';

CREATE FUNCTION lifecycle.key_type(lead_table regclass, key name) RETURNS text
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT pg_catalog.format_type(a.atttypid, a.atttypmod)
        || CASE WHEN a.attcollation <> t.typcollation
                THEN pg_catalog.format(' COLLATE %s', a.attcollation::pg_catalog.regcollation) ELSE '' END
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = lead_table AND a.attname = key;
END;

COMMENT ON FUNCTION lifecycle.key_type(regclass, name) IS
'Part of lifecycle.track(), which see: how a column for the key is declared.';

CREATE FUNCTION lifecycle.keep_private(made regclass, owner oid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    grantee text;
BEGIN
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', made);
    FOR grantee IN
        SELECT DISTINCT g.grantee::regrole::text
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
        WHERE c.oid = made AND g.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', made, grantee);
    END LOOP;
    EXECUTE format('ALTER TABLE %s OWNER TO %s', made, owner::regrole);
END
$$;

COMMENT ON FUNCTION lifecycle.keep_private(regclass, oid) IS
'Part of lifecycle.track(), which see: a table that was just made belongs to the owner of the leads, and what default privileges gave away is taken back.';

CREATE FUNCTION lifecycle.comment_columns(relation text, comments text[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    FOR i IN 1 .. cardinality(comments) / 2 LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', relation, comments[i][1], comments[i][2]);
    END LOOP;
END
$$;

COMMENT ON FUNCTION lifecycle.comment_columns(text, text[]) IS
'Part of lifecycle.track(), which see: comments on columns of what was made. comments: name and comment of each.';

CREATE FUNCTION lifecycle.create_history(lead_table regclass, key name, prefix name) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    leads pg_class;
    space name;
    key_type text;
    refused text;
    history text;
BEGIN
    SELECT * INTO leads FROM pg_class c WHERE c.oid = lead_table;
    SELECT n.nspname INTO space FROM pg_namespace n WHERE n.oid = leads.relnamespace;
    key_type := lifecycle.key_type(lead_table, key);
    history := format('%I.%I', space, prefix || '_history');
    refused := format('%I.%I', space, prefix || '_refused');

    IF to_regclass(history) IS NULL THEN
        EXECUTE format($q$
            CREATE TABLE %s (
                lead              %s NOT NULL,
                seq               int NOT NULL,
                cycle             int NOT NULL,
                from_status       text,
                from_since        timestamptz,
                to_status         text,
                at                timestamptz NOT NULL,
                cause             text NOT NULL,
                rule              text,
                actor             text,
                session_user_name text NOT NULL,
                reason            text,
                demographic_score double precision,
                behavior_score    double precision,
                source            text,
                cohort            int,
                value             numeric,
                entered_at        timestamptz NOT NULL,
                cycle_since       timestamptz NOT NULL,
                reached           text[] NOT NULL,
                recorded_at       timestamptz NOT NULL,
                PRIMARY KEY (lead, seq)
            )$q$, history, key_type);
        EXECUTE format('CREATE INDEX ON %s (at)', history);
        EXECUTE format('CREATE TRIGGER lifecycle_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s
                        FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.guard_history()', history);
        EXECUTE format('COMMENT ON TABLE %s IS %L', history,
                       format('One row for each move of the leads of %s, kept by lifecycle. Append-only.', lead_table));
        PERFORM lifecycle.comment_columns(history, ARRAY[
            ['lead', 'The key of the lead.'],
            ['seq', 'The number of the move among those of its lead, from 1.'],
            ['cycle', 'Which time the lead goes through the lifecycle, from 1.'],
            ['from_status', 'The status that was left; NULL at an entry.'],
            ['from_since', 'When the lead had come to that status.'],
            ['to_status', 'The status that was entered; NULL at a removal.'],
            ['at', 'When the move happened.'],
            ['cause', 'entry, rule, write, import, backfill, rescore, correction or delete.'],
            ['rule', 'The rule that decided, where one did.'],
            ['actor', 'Who made the move, by the program''s expression or lifecycle.actor: a claim.'],
            ['session_user_name', 'Who was connected: a fact.'],
            ['reason', 'Why, by the program''s expression or lifecycle.reason.'],
            ['demographic_score', 'The demographic score at the move.'],
            ['behavior_score', 'The behaviour score at the move.'],
            ['source', 'Where the lead came from, at its first entry.'],
            ['cohort', 'The test group of the lead, at its first entry.'],
            ['value', 'What the lead was worth at the move.'],
            ['entered_at', 'When the lead first entered.'],
            ['cycle_since', 'When its cycle began.'],
            ['reached', 'The statuses reached in this cycle, by first visit; after a NULL those of earlier cycles only.'],
            ['recorded_at', 'When the row was written.']]);
        PERFORM lifecycle.keep_private(history::regclass, leads.relowner);
    END IF;
    IF to_regclass(refused) IS NULL THEN
        EXECUTE format($q$
            CREATE TABLE %s (
                lead        %s NOT NULL,
                from_status text,
                to_status   text,
                at          timestamptz NOT NULL,
                actor       text
            )$q$, refused, key_type);
        EXECUTE format('CREATE INDEX ON %s (lead)', refused);
        -- or a publication of all tables would keep a lead from being erased
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', refused);
        EXECUTE format('COMMENT ON TABLE %s IS %L', refused,
                       format('The moves of the leads of %s that on_illegal = ''keep'' did not let through.', lead_table));
        PERFORM lifecycle.keep_private(refused::regclass, leads.relowner);
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.create_history(regclass, name, name) IS
'Part of lifecycle.track(), which see: creates the history and the table of refused moves where they are not there.';

CREATE FUNCTION lifecycle.begin_tracking(
    lead_table regclass, model text, key name, status_column name, prefix name,
    entered text, source text, value text, actor text, reason text, cohort text,
    on_illegal text, tz text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    leads pg_class;
    space name;
    program lifecycle.program;
    differences text;
    taken text;
    has_status boolean;
    status_added boolean;
    adopts boolean;
    key_type regtype;
    history text;
    refused text;
    flow text;
    pending text;
    added text;
    status_comment CONSTANT text := 'Where the lead is in its lifecycle. Added by lifecycle.track().';
    id int;
BEGIN
    IF lead_table IS NULL OR model IS NULL OR status_column IS NULL OR on_illegal IS NULL OR tz IS NULL THEN
        RAISE EXCEPTION 'lead_table, model, status_column, on_illegal and tz must not be null'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    SELECT * INTO leads FROM pg_class c WHERE c.oid = lead_table;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'relation with OID % does not exist', lead_table::oid USING ERRCODE = 'undefined_table';
    END IF;
    SELECT n.nspname INTO space FROM pg_namespace n WHERE n.oid = leads.relnamespace;

    IF NOT pg_has_role(leads.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', leads.relname
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Let a member of role %s call lifecycle.track().', leads.relowner::regrole);
    END IF;
    PERFORM lifecycle.check_table(lead_table, 'lead');

    IF on_illegal NOT IN ('error', 'keep') THEN
        RAISE EXCEPTION 'on_illegal must be "error" or "keep", not "%"', on_illegal
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM lifecycle.check_model(model);
    PERFORM now() AT TIME ZONE tz;

    key := lifecycle.find_key(lead_table, key);
    prefix := coalesce(prefix, leads.relname);
    history := format('%I.%I', space, prefix || '_history');
    refused := format('%I.%I', space, prefix || '_refused');
    flow := format('%I.%I', space, prefix || '_flow');
    pending := format('%I.%I', space, prefix || '_flow_pending');

    SELECT * INTO program FROM lifecycle.program p WHERE p.lead_table = lead_table;
    IF FOUND THEN
        SELECT string_agg(format('%s is %s, not %s', d.name, coalesce(quote_literal(d.has), 'null'), coalesce(quote_literal(d.wanted), 'null')), '; ')
        INTO differences
        FROM (VALUES ('model', program.model, model), ('key', program.key, key),
                     ('status_column', program.status_column, status_column), ('prefix', program.prefix, prefix),
                     ('entered', program.entered, entered), ('source', program.source, source),
                     ('value', program.value, value), ('actor', program.actor, actor),
                     ('reason', program.reason, reason), ('cohort', program.cohort, cohort),
                     ('on_illegal', program.on_illegal, on_illegal), ('tz', program.tz, tz)) AS d (name, has, wanted)
        WHERE d.has IS DISTINCT FROM d.wanted;
        IF differences IS NOT NULL THEN
            RAISE EXCEPTION 'table "%" is tracked already, in another way', lead_table
                USING ERRCODE = 'duplicate_object',
                      DETAIL = differences || '.',
                      HINT = format('UPDATE lifecycle.program SET ... WHERE lead_table = %L::regclass; key, status_column and prefix change by lifecycle.untrack() and lifecycle.track(), which keeps the history.', lead_table);
        END IF;
        RETURN;
    END IF;

    -- the longest of the names
    IF octet_length(prefix || '_funnel_monthly') > 63 THEN
        RAISE EXCEPTION 'name "%" is too long', prefix || '_funnel_monthly'
            USING ERRCODE = 'name_too_long', HINT = 'Give a shorter one: prefix => ''...''.';
    END IF;
    has_status := lifecycle.check_status_column(lead_table, status_column, model);
    IF status_column IN (key, 'lifecycle_since', 'lifecycle_seq', 'demographic_score') THEN
        RAISE EXCEPTION 'column "%" of table "%" cannot be its status column', status_column, lead_table
            USING ERRCODE = 'invalid_table_definition';
    END IF;

    -- A history that untrack() left is taken up again, and our columns with
    -- it; anybody else's table or column of that name is not ours to write.
    SELECT a.atttypid INTO key_type FROM pg_attribute a WHERE a.attrelid = lead_table AND a.attname = key;
    adopts := coalesce(lifecycle.can_adopt_history(to_regclass(history), leads.relowner, key_type), false);
    IF to_regclass(history) IS NOT NULL AND NOT adopts THEN
        taken := to_regclass(history);
    ELSIF to_regclass(refused) IS NOT NULL AND NOT (
        adopts AND lifecycle.can_adopt_refused(to_regclass(refused), leads.relowner, key_type)) THEN
        taken := to_regclass(refused);
    ELSIF to_regclass(flow) IS NOT NULL AND NOT (adopts AND lifecycle.can_replace_flow(to_regclass(flow), leads.relowner)) THEN
        taken := to_regclass(flow);
    ELSIF to_regclass(pending) IS NOT NULL AND NOT (adopts AND lifecycle.can_replace_pending(to_regclass(pending), leads.relowner)) THEN
        taken := to_regclass(pending);
    ELSE
        SELECT to_regclass(v.name) INTO taken
        FROM lifecycle.view_names(lead_table, prefix) AS n
        CROSS JOIN LATERAL unnest(ARRAY[n.overview, n.funnel, n.funnel_monthly]) AS v (name)
        WHERE to_regclass(v.name) IS NOT NULL AND NOT (adopts AND lifecycle.can_replace_view(to_regclass(v.name), leads.relowner))
        LIMIT 1;
    END IF;
    IF taken IS NOT NULL THEN
        RAISE EXCEPTION 'relation "%" already exists', taken
            USING ERRCODE = 'duplicate_table',
                  DETAIL = format('It is not a history that lifecycle.untrack() of %s left.', lead_table),
                  HINT = 'Choose other names with prefix => ''...''.';
    END IF;
    SELECT a.attname INTO taken
    FROM pg_attribute a
    WHERE a.attrelid = lead_table AND NOT a.attisdropped
      AND a.attname IN ('lifecycle_since', 'lifecycle_seq', 'demographic_score')
      AND (NOT adopts OR a.atttypid <> CASE a.attname WHEN 'lifecycle_since' THEN 'timestamptz'::regtype
                                                      WHEN 'lifecycle_seq' THEN 'int'::regtype
                                                      ELSE 'float8'::regtype END)
    LIMIT 1;
    -- a status column that untrack() left is still one that we added
    status_added := NOT has_status OR EXISTS (
        SELECT FROM pg_attribute a
        WHERE a.attrelid = lead_table AND a.attname = status_column
          AND col_description(lead_table, a.attnum) = status_comment);
    IF taken IS NOT NULL THEN
        RAISE EXCEPTION 'column "%" of table "%" already exists', taken, lead_table
            USING ERRCODE = 'duplicate_column',
                  DETAIL = 'Lifecycle keeps a column of that name and would overwrite what is in it.',
                  HINT = format('ALTER TABLE %s RENAME COLUMN %I TO ...;', lead_table, taken);
    END IF;

    PERFORM lifecycle.create_history(lead_table, key, prefix);
    -- of leads that were dropped the flow is left; it is counted anew
    PERFORM lifecycle.drop_view(to_regclass(n.funnel_monthly)) FROM lifecycle.view_names(lead_table, prefix) AS n;
    IF to_regclass(flow) IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', flow);
    END IF;
    IF to_regclass(pending) IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', pending);
    END IF;
    PERFORM lifecycle.create_flow(lead_table, flow, pending);
    id := lifecycle.register_program(lead_table, model, key, status_column, prefix,
                                     history::regclass, refused::regclass,
                                     status_added, entered, source, value, actor, reason, cohort, on_illegal, tz,
                                     flow::regclass, pending::regclass);
    IF adopts THEN
        PERFORM lifecycle.rebuild_flow(lead_table);
    END IF;

    -- From here on the lead table is locked.
    SELECT string_agg(format('ADD COLUMN %I %s', c.name, c.type), ', ' ORDER BY c.place)
    INTO added
    FROM (VALUES (1, status_column, 'lifecycle.lifecycle_status'), (2, 'lifecycle_since', 'timestamptz'),
                 (3, 'lifecycle_seq', 'int'), (4, 'demographic_score', 'double precision')) AS c (place, name, type)
    WHERE NOT EXISTS (SELECT FROM pg_attribute a
                      WHERE a.attrelid = lead_table AND a.attname = c.name AND NOT a.attisdropped);
    EXECUTE CASE WHEN added IS NULL THEN format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', lead_table)
                 ELSE format('ALTER TABLE %s %s', lead_table, added) END;
    IF status_added THEN
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', lead_table, status_column, status_comment);
    END IF;
    PERFORM lifecycle.comment_columns(lead_table::text, ARRAY[
        ['lifecycle_since', 'When the lead came to its status. Kept by lifecycle.'],
        ['lifecycle_seq', 'The number of the lead''s last move. Kept by lifecycle.'],
        ['demographic_score', 'The points of the rules that hold for the row. Kept by lifecycle.']]);
    PERFORM lifecycle.add_statement_triggers(lead_table, 'lead', id);
    EXECUTE format('CREATE TRIGGER zz_lifecycle_before_row BEFORE INSERT OR UPDATE OR DELETE ON %s
                    FOR EACH ROW EXECUTE FUNCTION lifecycle.lead_before_row(%L)', lead_table, id);
    EXECUTE format('CREATE TRIGGER lifecycle_after_insert AFTER INSERT ON %s
                    FOR EACH ROW EXECUTE FUNCTION lifecycle.lead_after_row(%L)', lead_table, id);
    PERFORM lifecycle.put_update_trigger(lead_table);
    EXECUTE format('CREATE TRIGGER lifecycle_after_delete AFTER DELETE ON %s
                    FOR EACH ROW EXECUTE FUNCTION lifecycle.lead_after_row(%L)', lead_table, id);
    PERFORM lifecycle.create_views(lead_table);
END
$$;

COMMENT ON FUNCTION lifecycle.begin_tracking(regclass, text, name, name, name, text, text, text, text, text, text, text, text) IS
'Part of lifecycle.track(), which see: the same, with canonical expressions.';

CREATE FUNCTION lifecycle.track(
    lead_table regclass, model text DEFAULT 'standard', key name DEFAULT NULL,
    status_column name DEFAULT 'lifecycle_status', prefix name DEFAULT NULL,
    entered text DEFAULT NULL, source text DEFAULT NULL, value text DEFAULT NULL,
    actor text DEFAULT NULL, reason text DEFAULT NULL, cohort text DEFAULT NULL,
    on_illegal text DEFAULT 'error', tz text DEFAULT 'UTC') RETURNS void
    LANGUAGE sql
BEGIN ATOMIC
    SELECT lifecycle.begin_tracking(
        lead_table, model, key, status_column, prefix,
        lifecycle.canonical(lead_table, 'entered', entered),
        lifecycle.canonical(lead_table, 'source', source),
        lifecycle.canonical(lead_table, 'value', value),
        lifecycle.canonical(lead_table, 'actor', actor),
        lifecycle.canonical(lead_table, 'reason', reason),
        lifecycle.canonical(lead_table, 'cohort', cohort),
        on_illegal, tz);
END;

COMMENT ON FUNCTION lifecycle.track(regclass, text, name, name, name, text, text, text, text, text, text, text, text) IS
'Puts a table of leads under a lifecycle: every later INSERT, UPDATE, DELETE, COPY, MERGE and TRUNCATE is judged by the model and recorded in <prefix>_history. <prefix>_lifecycle shows where each lead is; <prefix>_funnel and <prefix>_funnel_monthly are materialized views that lifecycle.refresh() brings up to date; whoever may read the whole lead table may read these. Existing rows are not touched; their leads enter with their first write or by backfill.
lead_table: a plain or a partitioned table, of which the caller is owner; not a partition.
model: a row of lifecycle.model.
key: a column that is unique, not deferrable, and NOT NULL; by default the primary key.
status_column: an enum, text or character varying column; by default lifecycle_status, which is added.
prefix: what the names of the history, the views and the other tables begin with; by default the table''s name.
entered (timestamptz), source (text), value (numeric), actor (text), reason (text), cohort (int): SQL expressions over one row, without subqueries, aggregates and volatile functions.
on_illegal: "error", or "keep" to write the row, keep the status and note the move in <prefix>_refused.
tz: the time zone whose days the reports use.
Called again with the same arguments it does nothing. It takes ACCESS EXCLUSIVE on the table last, for an instant, and honours lock_timeout. Errors: 42501 not the owner, 42809 not a plain or partitioned table, 42P16 no suitable key, 42804 wrong type, 42P07 and 42701 a name is taken, 42704 no such model, 23514 rows with a status that the model lacks, 42710 tracked in another way; and what is wrong with an expression, with its position.';

CREATE FUNCTION lifecycle.untrack(lead_table regclass, drop_data boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    leads pg_class;
    program lifecycle.program;
    tracked boolean;
    found_trigger boolean;
BEGIN
    IF lead_table IS NULL OR drop_data IS NULL THEN
        RAISE EXCEPTION 'lead_table and drop_data must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    SELECT * INTO leads FROM pg_class c WHERE c.oid = lead_table;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'relation with OID % does not exist', lead_table::oid USING ERRCODE = 'undefined_table';
    END IF;
    IF NOT pg_has_role(leads.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', leads.relname
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Let a member of role %s call lifecycle.untrack().', leads.relowner::regrole);
    END IF;
    SELECT * INTO program FROM lifecycle.program p WHERE p.lead_table = lead_table;
    tracked := FOUND;
    PERFORM lifecycle.untrack_signal(s.signal_table) FROM lifecycle.signal s WHERE s.lead_table = lead_table;
    -- also the triggers of a program whose row is gone
    found_trigger := lifecycle.drop_triggers(lead_table, 'lead');
    IF NOT tracked AND NOT found_trigger THEN
        RAISE EXCEPTION 'table "%" is not tracked', lead_table
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'The tracked tables are the rows of lifecycle.program.';
    END IF;
    PERFORM lifecycle.unregister_program(lead_table);
    -- what follows from the history is made anew by track()
    IF program.flow IS NOT NULL THEN
        PERFORM lifecycle.drop_view(v.view) FROM unnest(ARRAY[program.overview, program.funnel_monthly, program.funnel]) AS v (view);
        EXECUTE format('DROP TABLE IF EXISTS %s, %s', program.flow, program.flow_pending);
    END IF;
    -- what is kept no more is no sign of a restore under way
    EXECUTE (
        SELECT format('COMMENT ON COLUMN %s.lifecycle_seq IS %L', lead_table, 'The number of the lead''s last move. Left by lifecycle.untrack().')
        FROM pg_attribute a WHERE a.attrelid = lead_table AND a.attname = 'lifecycle_seq' AND NOT a.attisdropped);
    IF drop_data AND tracked THEN
        EXECUTE format('DROP TABLE IF EXISTS %s', concat_ws(', ', program.history, program.refused, program.behavior));
        EXECUTE format('ALTER TABLE %s DROP COLUMN IF EXISTS lifecycle_since, DROP COLUMN IF EXISTS lifecycle_seq,
                        DROP COLUMN IF EXISTS demographic_score', lead_table);
        IF program.status_added THEN
            EXECUTE format('ALTER TABLE %s DROP COLUMN IF EXISTS %I', lead_table, program.status_column);
        END IF;
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.untrack(regclass, boolean) IS
'Makes the table an ordinary one again: triggers, registration and rules go, those of its signal tables as well, as by lifecycle.untrack_signal(); the views and what reports sum, which follow from the history, go; columns, history, behaviour and the table of refused moves stay, and lifecycle.track() and lifecycle.track_signal() take them up again and make the rest anew. drop_data => true drops them, too, except for a status column that was there before. The caller must own the table and its signal tables. Errors: 42501 not the owner, 55000 not tracked, 2BP01 something of a user depends on one of the views.';
