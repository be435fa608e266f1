-- Why a lead is where it is, and what the rules make of it.

-- Not parallel safe, since the functions that rules call need not be.
CREATE FUNCTION lifecycle.demographic_score(lead record) RETURNS double precision
    LANGUAGE c STABLE STRICT COST 1000 AS 'MODULE_PATHNAME', 'lifecycle_demographic_score';

COMMENT ON FUNCTION lifecycle.demographic_score(record) IS
'The demographic score that today''s rules give a row of a tracked table, as in: SELECT lifecycle.demographic_score(l) FROM crm.leads l; whatever score is stored. NULL for NULL. Writes nothing.
lead: a whole row of the table, or of a partition of it; it need not be stored there, as in: SELECT lifecycle.demographic_score(jsonb_populate_record(NULL::crm.leads, ''{"title": "VP"}''));
Needs SELECT on the table. Errors: 42809 not a row of a table, such as one of a view; 42501 no SELECT; 55000 the table is not tracked; what a rule raises.';

CREATE FUNCTION lifecycle.entry_status(lead record) RETURNS text
    LANGUAGE c STABLE STRICT COST 1000 AS 'MODULE_PATHNAME', 'lifecycle_entry_status';

COMMENT ON FUNCTION lifecycle.entry_status(record) IS
'The status on which a row of a tracked table would enter if it were inserted now and named none: that of the first rule that holds, or else the model''s first. The row''s own status does not matter. NULL for NULL. Writes nothing.
lead, privileges and errors: as for lifecycle.demographic_score().';

CREATE TYPE lifecycle.verdict AS (
    name text, enabled boolean, status text, precedence int, only_from text, applies boolean,
    holds boolean, points double precision, failure text
);

COMMENT ON TYPE lifecycle.verdict IS
'Part of lifecycle.explain(), which see: what a rule makes of a row.
status: which one the rule asks for, NULL where it gives points. precedence: of the rules with a status, the lowest number goes first. only_from: the statuses of the model in which it applies. applies: whether the row''s status is among them; without a status, whether the rule takes part in an entry. holds: NULL where that cannot be judged. points: what it gives the row. failure: the error that it raises.';

CREATE FUNCTION lifecycle.judge(lead record) RETURNS SETOF lifecycle.verdict
    LANGUAGE c STABLE STRICT ROWS 20 AS 'MODULE_PATHNAME', 'lifecycle_judge';

COMMENT ON FUNCTION lifecycle.judge(record) IS
'Part of lifecycle.explain(), which see: what each rule of the table, disabled ones too, makes of a row. lead, privileges and errors: as for lifecycle.demographic_score(); but a rule that fails raises nothing here.';

CREATE FUNCTION lifecycle.of_rules(names text[], singular text, plural text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE pg_catalog.cardinality(names)
               WHEN 1 THEN pg_catalog.format('rule "%s" %s', names[1], singular)
               WHEN 2 THEN pg_catalog.format('rules "%s" and "%s" %s', names[1], names[2], plural)
               ELSE pg_catalog.format('rules "%s", "%s" and %s more %s', names[1], names[2], pg_catalog.cardinality(names) - 2, plural)
           END;
END;

COMMENT ON FUNCTION lifecycle.of_rules(text[], text, text) IS
'Part of lifecycle.explain(), which see: a sentence about rules, of which it names the first two. singular, plural: what is said of them.';

CREATE FUNCTION lifecycle.judge_signals(lead_table regclass, signal_table regclass, lead text)
    RETURNS TABLE (on_table regclass, name text, signals bigint, points double precision, last_at timestamptz, asks boolean)
    LANGUAGE c STABLE STRICT ROWS 20 AS 'MODULE_PATHNAME', 'lifecycle_judge_signals';

COMMENT ON FUNCTION lifecycle.judge_signals(regclass, regclass, text) IS
'Part of lifecycle.explain(), which see: what the rows that a signal table has of a lead come to, by each of its enabled rules. signals: for how many rows it holds. points: what those are worth now. last_at: when the last of them happened. asks: whether one of them still asks for the status. Needs SELECT on <prefix>_behavior; a rule that fails raises.';

CREATE FUNCTION lifecycle.explain_signals(lead_table regclass, lead text)
    RETURNS TABLE (name text, on_table regclass, status text, holds boolean, points double precision, detail text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    of_table regclass; -- not signal_table, which is a column of the rule
    failure text;
BEGIN
    FOR of_table IN
        SELECT s.signal_table FROM lifecycle.signal s WHERE s.lead_table = explain_signals.lead_table ORDER BY s.id
    LOOP
        failure := NULL;
        BEGIN
            RETURN QUERY
            SELECT r.name, r.on_table, r.status, j.signals > 0, j.points,
                   nullif(concat_ws('; ',
                       CASE WHEN NOT r.enabled THEN 'disabled' END,
                       'to ' || r.status,
                       CASE WHEN j.signals > 0 THEN format(CASE j.signals WHEN 1 THEN '%s signal, of %s' ELSE '%s signals, the last of %s' END,
                                                           j.signals, date_trunc('second', j.last_at))
                            WHEN r.enabled THEN 'no signals' END,
                       CASE WHEN j.signals > 0 AND NOT j.asks THEN 'too old, or from before the lead began anew' END), '')
            FROM lifecycle.rule r
            LEFT JOIN lifecycle.judge_signals(lead_table, of_table, lead) j ON j.name = r.name
            WHERE r.on_table = of_table
              AND NOT EXISTS (SELECT FROM lifecycle.program p WHERE p.lead_table = r.on_table);
        EXCEPTION WHEN data_exception OR raise_exception OR syntax_error_or_access_rule_violation OR feature_not_supported THEN
            failure := SQLERRM;
        END;
        IF failure IS NOT NULL THEN
            RETURN QUERY
            SELECT r.name, r.on_table, r.status, NULL::boolean, NULL::double precision, 'not known: a rule of the table fails: ' || failure
            FROM lifecycle.rule r WHERE r.on_table = of_table;
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION lifecycle.explain_signals(regclass, text) IS
'Part of lifecycle.explain(), which see: the rules of the signal tables, and what the rows of a lead come to by them.';

CREATE FUNCTION lifecycle.explain(lead_table regclass, lead text)
    RETURNS TABLE (kind text, name text, on_table regclass, holds boolean, points double precision, detail text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    program lifecycle.program;
    key_type text;
    is_lead text;
    one record;
    last record;
    history text;
    whereabouts text;
    behavior double precision := 0;
    restarted text;
    stale record;
BEGIN
    IF explain.lead_table IS NULL OR explain.lead IS NULL THEN
        RAISE EXCEPTION 'lead_table and lead must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    program := lifecycle.program_of(lead_table);
    IF NOT has_table_privilege(lead_table, 'SELECT') THEN
        RAISE EXCEPTION 'permission denied for table %', (SELECT c.relname FROM pg_class c WHERE c.oid = explain.lead_table)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('GRANT SELECT ON %s TO %I;', lead_table, current_user);
    END IF;
    -- without the type's length: a cast to one cuts the value
    SELECT format_type(a.atttypid, -1) INTO key_type
    FROM pg_attribute a WHERE a.attrelid = explain.lead_table AND a.attname = program.key;
    is_lead := lifecycle.key_operator(lead_table, program.key, 3) || ' $1::' || key_type;
    -- l.*, since l may be the name of a column
    EXECUTE format('SELECT true AS there, l.%2$I::text AS status, l.lifecycle_since AS since, l.lifecycle_seq AS seq,
                           l.demographic_score AS score, ARRAY(SELECT j FROM lifecycle.judge(l.*) j) AS verdicts
                    FROM %1$s l WHERE l.%3$I %4$s', lead_table, program.status_column, program.key, is_lead)
    USING explain.lead INTO one;
    IF one.there IS NULL THEN
        RAISE EXCEPTION 'table "%" has no lead %', lead_table, explain.lead USING ERRCODE = 'no_data_found';
    END IF;
    IF one.seq IS NOT NULL AND has_table_privilege(program.history, 'SELECT') THEN
        EXECUTE format('SELECT h.cause, h.rule, h.actor FROM %s h WHERE h.lead %s AND h.seq = $2', program.history, is_lead)
        USING explain.lead, one.seq INTO last;
        history := concat_ws(', ',
            CASE last.cause WHEN 'rule' THEN format('by rule "%s"', last.rule)
                            WHEN 'entry' THEN concat_ws(' by rule ', 'entered', '"' || last.rule || '"')
                            WHEN 'rescore' THEN format('by rescore() and rule "%s"', last.rule)
                            WHEN 'write' THEN 'by a write'
                            WHEN 'import' THEN 'imported'
                            WHEN 'backfill' THEN 'found by backfill()'
                            WHEN 'correction' THEN 'corrected'
                            ELSE last.cause END,
            'actor ' || last.actor);
    END IF;
    IF program.behavior IS NULL THEN
        SELECT NULL::text AS lead, 0::double precision AS today INTO stale;
    ELSIF NOT has_table_privilege(program.behavior, 'SELECT') THEN
        behavior := NULL;
        SELECT NULL::text AS lead, 0::double precision AS today INTO stale;
    ELSE
        behavior := lifecycle.behavior_score(lead_table, explain.lead);
        BEGIN
            SELECT s.lead, s.today INTO stale FROM lifecycle.stale_behavior(lead_table, ARRAY[explain.lead]) AS s;
        EXCEPTION WHEN data_exception OR raise_exception OR syntax_error_or_access_rule_violation OR feature_not_supported THEN
            -- which rule fails is said with the rules
            SELECT NULL::text AS lead, 0::double precision AS today INTO stale;
        END;
        EXECUTE format('SELECT ''without signals until '' || nullif(date_trunc(''second'', max(b.since)), ''-infinity'') FROM %s b WHERE b.lead %s',
                       program.behavior, is_lead) INTO restarted USING explain.lead;
    END IF;
    whereabouts := CASE
        WHEN one.status IS NULL THEN format('the lead has not entered; CALL lifecycle.backfill(%L) brings it in', lead_table)
        WHEN one.seq IS NULL THEN format('older than lifecycle.track(); CALL lifecycle.backfill(%L) brings it into the history', lead_table)
        ELSE concat_ws(', ', 'since ' || date_trunc('second', one.since), 'move ' || one.seq, nullif(history, '')) END;

    RETURN QUERY
    WITH stages AS (
        SELECT s.status, s.rank, s.reason_required,
               EXISTS (SELECT FROM lifecycle.transition t
                       WHERE t.model = s.model AND t.from_status = one.status AND t.to_status = s.status) AS legal
        FROM lifecycle.stage s WHERE s.model = program.model
    ), judged AS (
        SELECT j.*, s.status IS NOT NULL AS known,
               -- whether it could move the lead, or let it enter, if it held
               coalesce(j.enabled AND j.applies AND CASE WHEN one.status IS NULL THEN s.status IS NOT NULL ELSE s.legal END, false) AS may
        FROM unnest(one.verdicts::lifecycle.verdict[]) j LEFT JOIN stages s ON s.status = j.status
    ), first AS (
        SELECT j.name, j.status FROM judged j WHERE j.may AND j.holds ORDER BY j.precedence LIMIT 1
    ), score AS (
        SELECT coalesce(sum(j.points ORDER BY j.name COLLATE "C") FILTER (WHERE j.enabled), 0) AS today,
               array_agg(j.name ORDER BY j.name COLLATE "C") FILTER (WHERE j.enabled AND j.holds IS NULL) AS failing
        FROM judged j WHERE j.status IS NULL
    ), next AS (
        SELECT s.status, s.rank, s.reason_required,
               array_agg(j.name ORDER BY j.precedence) FILTER (WHERE j.may AND j.holds) AS holding,
               array_agg(j.name ORDER BY j.precedence) FILTER (WHERE j.may AND j.failure IS NOT NULL) AS failing,
               array_agg(j.name ORDER BY j.precedence) FILTER (WHERE j.may) AS asking,
               array_agg(j.name ORDER BY j.precedence) FILTER (WHERE j.enabled AND NOT j.applies) AS elsewhere,
               array_agg(j.name ORDER BY j.precedence) FILTER (WHERE NOT j.enabled) AS disabled
        FROM stages s LEFT JOIN judged j ON j.status = s.status
        WHERE s.legal OR one.status IS NULL
        GROUP BY s.status, s.rank, s.reason_required
    ), by_signals AS (
        SELECT g.* FROM lifecycle.explain_signals(lead_table, explain.lead) g
        WHERE behavior IS NOT NULL AND program.behavior IS NOT NULL
    ), told AS (
        SELECT 1 AS part, NULL::int AS place, 'status' AS kind, one.status AS name, NULL::regclass AS on_table,
               NULL::boolean AS holds, NULL::double precision AS points,
               concat_ws('; ', whereabouts, CASE WHEN one.status IS NOT NULL AND NOT EXISTS (SELECT FROM stages s WHERE s.status = one.status)
                                           THEN format('model "%s" lacks it', program.model) END) AS detail
        UNION ALL
        SELECT 2, 1, 'score', 'demographic_score', NULL, NULL, one.score,
               CASE WHEN s.failing IS NOT NULL THEN 'not known today: ' || lifecycle.of_rules(s.failing, 'fails', 'fail')
                    WHEN one.score IS NULL THEN format('not stored yet: the rules give %s; CALL lifecycle.rescore(%L) stores it', s.today, lead_table)
                    WHEN one.score <> s.today THEN format('stale: the rules give %s today; CALL lifecycle.rescore(%L) stores it', s.today, lead_table)
               END
        FROM score s
        UNION ALL
        SELECT 2, 2, 'score', 'behavior_score', NULL, NULL, behavior,
               CASE WHEN program.behavior IS NULL THEN 'no signals are tracked'
                    WHEN behavior IS NULL THEN format('needs SELECT on %s', program.behavior)
                    WHEN stale.lead IS NOT NULL THEN format('stale: the signals give %s today; CALL lifecycle.rescore(%L) stores it', stale.today, lead_table)
                    ELSE restarted END
        UNION ALL
        SELECT 3, NULL, 'rule', j.name, lead_table, j.holds, j.points,
               nullif(concat_ws('; ',
                   CASE WHEN NOT j.enabled THEN 'disabled' END,
                   CASE WHEN j.failure IS NOT NULL AND j.status IS NULL THEN 'fails: ' || j.failure
                        WHEN j.status IS NOT NULL THEN format('to %s: ', j.status) || CASE
                            WHEN j.failure IS NOT NULL THEN 'fails: ' || j.failure
                            WHEN NOT j.known THEN format('model "%s" lacks that status', program.model)
                            WHEN j.status = one.status THEN 'the lead is there'
                            WHEN NOT j.applies AND one.status IS NULL THEN 'takes no part in an entry'
                            WHEN NOT j.applies THEN 'applies only from ' || coalesce(nullif(j.only_from, ''), format('statuses that model "%s" lacks', program.model))
                            WHEN j.holds IS NULL THEN 'cannot be judged without the score'
                            WHEN NOT j.holds THEN 'does not hold'
                            WHEN one.status IS NULL THEN 'counts when the lead enters'
                            WHEN NOT EXISTS (SELECT FROM stages s WHERE s.status = j.status AND s.legal)
                                THEN format('no transition from %s to %s in model "%s"', one.status, j.status, program.model)
                            WHEN NOT j.enabled THEN 'holds'
                            WHEN j.name <> f.name THEN format('holds already, behind rule "%s"', f.name)
                            ELSE format('holds already: moves the lead when a write makes it hold anew, or by CALL lifecycle.rescore(%L, move => true)', lead_table)
                        END END), '')
        FROM judged j LEFT JOIN first f ON true
        UNION ALL
        SELECT 3, 1, 'rule', g.name, g.on_table, g.holds, g.points, g.detail FROM by_signals g
        UNION ALL
        SELECT 4, n.rank, 'next', n.status, NULL, n.holding IS NOT NULL, NULL,
               concat_ws('; ', CASE
                   WHEN one.status IS NULL THEN
                       CASE WHEN n.status = coalesce(f.status, (SELECT s.status FROM stages s ORDER BY s.rank LIMIT 1))
                            THEN format('CALL lifecycle.backfill(%L) lets the lead enter here', lead_table)
                            ELSE 'only a write lets the lead enter here' END
                   WHEN n.status = f.status THEN format('rule "%s" holds already, see above', f.name)
                   WHEN n.holding IS NOT NULL THEN lifecycle.of_rules(n.holding, 'holds', 'hold') || format(' already, behind rule "%s"', f.name)
                   WHEN n.failing IS NOT NULL THEN lifecycle.of_rules(n.failing, 'fails', 'fail')
                   WHEN n.asking IS NOT NULL THEN lifecycle.of_rules(n.asking, 'does not hold', 'do not hold')
                   WHEN n.elsewhere IS NOT NULL THEN lifecycle.of_rules(n.elsewhere, 'does', 'do') || format(' not apply from %s: only a write leads there', one.status)
                   WHEN n.disabled IS NOT NULL THEN lifecycle.of_rules(n.disabled, 'is', 'are') || ' disabled: only a write leads there'
                   WHEN NOT EXISTS (SELECT FROM by_signals g WHERE g.status = n.status) THEN 'no rule asks for it: only a write leads there' END,
                   (SELECT format('rule "%s" waits for a row of %s', g.name, g.on_table)
                    FROM by_signals g WHERE g.status = n.status ORDER BY g.name COLLATE "C" LIMIT 1),
                   CASE WHEN n.reason_required THEN 'needs a reason' END)
        FROM next n LEFT JOIN first f ON true
    )
    SELECT t.kind, t.name, t.on_table, t.holds, t.points, t.detail
    FROM told t
    ORDER BY t.part, t.place, t.name COLLATE "C";
END
$$;

CREATE FUNCTION lifecycle.explain(lead_table regclass, lead anyelement)
    RETURNS TABLE (kind text, name text, on_table regclass, holds boolean, points double precision, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM lifecycle.explain($1, CASE WHEN $2 IS NOT NULL THEN format('%s', $2) END)
$$;

COMMENT ON FUNCTION lifecycle.explain(regclass, text) IS
'Why a lead is where it is, what its table''s rules make of it today, and where it can go.
lead: the key, as text.
kind ''status'': name is its status; detail since when it has it, by which move, and, for who may read the history, what made that move. kind ''score'': points is what is stored; detail says where today''s rules give something else. behavior_score is its value now, NULL for who may not read <prefix>_behavior; 0 while no signals are tracked. kind ''rule'', one row for each rule, disabled ones too: holds, NULL where the rule fails; points, what it gives this lead; detail why it does not move the lead now. A rule that holds already moves nobody: it fires when a write makes it hold that did not hold before. Rules with a status are judged by the stored score. Rules of signal tables follow, with on_table the signal table: holds, whether some row of the lead fulfils the rule; points, what its rows are worth now; for who may read <prefix>_behavior. kind ''next'', one row for each status that the model allows next (of a lead that has not entered, all): holds, whether a rule holds that may move the lead there; detail what it waits for.
Writes nothing; a rule that fails is reported, and raises nothing. Needs SELECT on the table. Errors: P0002 no such lead, 55000 not tracked, 42501 no SELECT, 22004 an argument is null.';
COMMENT ON FUNCTION lifecycle.explain(regclass, anyelement) IS
'The same with the key in its own type.';
