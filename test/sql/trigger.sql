-- Users' triggers before, after and inside ours, on the leads and on the
-- history. Everything is lived twice, with lifecycle.batch_history on and off:
-- the histories must be right, and the same.

CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE FUNCTION error_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; hint text;
BEGIN
    EXECUTE statement;
    RAISE SQLSTATE 'ZZ000';
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    RETURN 'no error';
WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', state || ': ' || message, 'HINT: ' || nullif(hint, ''));
END $$;

CREATE TABLE leads (id int PRIMARY KEY, account int, owner_name text, note text);
SELECT lifecycle.track('leads');
-- columns of the user's on the history: default, generated, checked, a foreign key
CREATE TABLE teams (status text PRIMARY KEY);
INSERT INTO teams VALUES ('known'), ('mal'), ('engaged'), ('mql'), ('sal'), ('sql'), ('opportunity'), ('customer'), ('recycled'), ('disqualified'), ('lost');
CREATE SEQUENCE tickets;
ALTER TABLE leads_history
    ADD COLUMN note text DEFAULT 'new',
    ADD COLUMN ticket bigint DEFAULT nextval('tickets'),
    ADD COLUMN leg text GENERATED ALWAYS AS (coalesce(from_status, '') || '>' || coalesce(to_status, '')) STORED,
    ADD CONSTRAINT first_cycles CHECK (cycle < 100),
    ADD FOREIGN KEY (to_status) REFERENCES teams;

-- Puts the trigger, lives the life with and without batches, and takes both
-- histories; everything else is rolled back.
CREATE TABLE told (batch text, lead int, seq int, move jsonb);
CREATE FUNCTION story(of int, mode text DEFAULT 'on') RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(coalesce(move ->> 'to_status', '-'), ' ' ORDER BY seq) FROM told WHERE lead = of AND batch = mode
$$;
CREATE FUNCTION lived(description text, setup text, life text[], expected text DEFAULT NULL, leads int[] DEFAULT NULL) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    mode text;
    statement text;
    taken jsonb;
    both_taken jsonb := '{}';
    problem text;
    problems text := '';
BEGIN
    FOREACH mode IN ARRAY '{on,off}'::text[] LOOP
        BEGIN
            PERFORM set_config('lifecycle.batch_history', mode, true);
            -- an empty file: leads are found in the order in which they came,
            -- not in that of the room which the life before left behind
            TRUNCATE leads;
            EXECUTE setup;
            FOREACH statement IN ARRAY life LOOP
                EXECUTE statement;
            END LOOP;
            SELECT jsonb_agg(to_jsonb(h) - 'recorded_at' - 'ticket' ORDER BY h.lead, h.seq) INTO taken FROM leads_history h;
            SELECT string_agg(concat_ws(' ', v."check", v.lead, v.detail), E'\n') INTO problem FROM lifecycle.verify('leads') v;
            problems := problems || coalesce(mode || ': ' || problem, '');
            SELECT coalesce(mode || ': moves of a lead written out of order', '') INTO problem
            FROM (SELECT seq, row_number() OVER (PARTITION BY lead ORDER BY ctid) AS written FROM leads_history) AS o
            WHERE seq <> written LIMIT 1;
            problems := problems || coalesce(problem, '');
            RAISE EXCEPTION USING ERRCODE = 'ZZ000';
        EXCEPTION
            WHEN SQLSTATE 'ZZ000' THEN NULL;
            WHEN OTHERS THEN
                problems := problems || format('%s: %s %s', mode, SQLSTATE, SQLERRM);
                taken := '[]';
        END;
        both_taken := both_taken || jsonb_build_object(mode, taken);
    END LOOP;
    DELETE FROM told;
    INSERT INTO told SELECT b.key, (m ->> 'lead')::int, (m ->> 'seq')::int, m
    FROM jsonb_each(both_taken) AS b CROSS JOIN jsonb_array_elements(b.value) AS m;
    RETURN NEXT is(problems, '', description || ': it works, and verify() finds nothing');
    RETURN NEXT ok(both_taken -> 'on' = both_taken -> 'off', description || ': batched or not, the history is the same');
    IF expected IS NOT NULL THEN
        RETURN NEXT is((SELECT string_agg(coalesce(story(l.id), '(none)'), '|' ORDER BY l.place) FROM unnest(leads) WITH ORDINALITY AS l (id, place)),
                       expected, description || ': each move is there, in order');
    END IF;
END $$;

-- Makes a trigger function and a trigger of it.
CREATE FUNCTION trigger_of(name text, place text, body text) RETURNS text LANGUAGE sql AS $$
    SELECT format('CREATE FUNCTION %I() RETURNS trigger LANGUAGE plpgsql AS %L; CREATE TRIGGER %I %s EXECUTE FUNCTION %I();',
                  name, 'DECLARE n bigint; BEGIN ' || body || ' END', name, place, name)
$$;

-- BEFORE ROW triggers on the leads
SELECT lived('a BEFORE trigger sets the status', trigger_of('a_sets', 'BEFORE INSERT OR UPDATE ON leads FOR EACH ROW',
        'IF NEW.owner_name IS NOT NULL AND NEW.lifecycle_status IN (''known'', ''mql'') THEN NEW.lifecycle_status := ''sal''; END IF; RETURN NEW;'),
    ARRAY['INSERT INTO leads (id, owner_name) VALUES (1, ''Ann''), (2, NULL)', 'UPDATE leads SET owner_name = ''Bob''']);
SELECT is(story(2), 'known sal', 'the move that a BEFORE trigger asks for is made');
SELECT is(error_of($q$DO $d$ BEGIN
    EXECUTE trigger_of('a_illegal', 'BEFORE UPDATE ON leads FOR EACH ROW', 'NEW.lifecycle_status := ''lost''; RETURN NEW;');
    INSERT INTO leads (id) VALUES (1); UPDATE leads SET note = 'x'; END $d$$q$),
'23514: lead 1 of table "public.leads" cannot move from "known" to "lost"
HINT: From "known" a lead can become: mal, engaged, mql, sal, sql, opportunity, customer, disqualified.', 'and it is judged');
SELECT lived('a BEFORE trigger sets time and number', trigger_of('a_derives', 'BEFORE INSERT OR UPDATE ON leads FOR EACH ROW',
        'NEW.lifecycle_seq := 7; NEW.lifecycle_since := ''1999-01-01''; NEW.demographic_score := 1; RETURN NEW;'),
    ARRAY['INSERT INTO leads (id) VALUES (1)', 'UPDATE leads SET lifecycle_status = ''mql''', 'UPDATE leads SET note = ''x''', 'DELETE FROM leads']);
SELECT is(story(1), 'known mql -', 'time and number set before ours are put back');
SELECT lived('BEFORE triggers suppress rows', trigger_of('a_suppress', 'BEFORE INSERT OR UPDATE OR DELETE ON leads FOR EACH ROW', 'IF coalesce(NEW.id, OLD.id) % 2 = 0 THEN RETURN NULL; END IF; RETURN coalesce(NEW, OLD);')
    || trigger_of('zzz_suppress', 'BEFORE INSERT OR UPDATE OR DELETE ON leads FOR EACH ROW', 'IF coalesce(NEW.id, OLD.id) % 3 = 0 THEN RETURN NULL; END IF; RETURN coalesce(NEW, OLD);'),
    ARRAY['INSERT INTO leads (id) SELECT generate_series(1, 7)', 'ALTER TABLE leads DISABLE TRIGGER zzz_suppress', 'INSERT INTO leads (id) VALUES (3)',
          'ALTER TABLE leads ENABLE TRIGGER zzz_suppress', 'UPDATE leads SET lifecycle_status = ''mql''', 'DELETE FROM leads']);
SELECT is(concat_ws('|', story(1), story(2), story(3), story(6), story(7)), 'known mql -|known|known mql -', 'what a BEFORE trigger suppresses, before ours or behind, is not recorded');

-- BEFORE ROW triggers behind ours may not touch what was judged.
CREATE FUNCTION behind(body text, event text, statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN error_of(format('DO %L', format('BEGIN INSERT INTO leads (id, lifecycle_status) VALUES (1, ''mql''); EXECUTE trigger_of(''zzz_behind'', ''BEFORE %s ON leads FOR EACH ROW'', %L); %s; END',
                                           event, body, statement)));
END $$;
SELECT is(behind($$NEW.lifecycle_status := 'sal'; RETURN NEW;$$, 'UPDATE', $$UPDATE leads SET note = 'x'$$),
'27000: the status of lead 1 of table "public.leads" was changed after its move was checked
HINT: Let BEFORE triggers that set the status have names that sort before "zz_lifecycle_before_row".', 'a status set behind ours is refused, with a hint');
SELECT matches(behind(body, event, statement), '^27000: .* was changed after its move was checked', description)
FROM (VALUES
    ($$NEW.lifecycle_status := OLD.lifecycle_status; RETURN NEW;$$, 'UPDATE', $$UPDATE leads SET lifecycle_status = 'sal'$$, 'so is a status set back'),
    ($$NEW.lifecycle_status := 'known'; RETURN NEW;$$, 'UPDATE', $$UPDATE leads SET lifecycle_status = 'sal'$$, 'an illegal one'),
    ($$NEW.lifecycle_status := NULL; RETURN NEW;$$, 'UPDATE', $$UPDATE leads SET lifecycle_status = 'sal'$$, 'none'),
    ($$NEW.lifecycle_seq := 9; RETURN NEW;$$, 'UPDATE', $$UPDATE leads SET lifecycle_status = 'sal'$$, 'another number of the move'),
    ($$NEW.lifecycle_seq := 9; RETURN NEW;$$, 'UPDATE', $$UPDATE leads SET note = 'x'$$, 'a number without a move'),
    ($$NEW.lifecycle_seq := NULL; RETURN NEW;$$, 'UPDATE', $$UPDATE leads SET lifecycle_status = 'sal'$$, 'no number'),
    ($$NEW.lifecycle_since := '1999-01-01'; RETURN NEW;$$, 'UPDATE', $$UPDATE leads SET lifecycle_status = 'sal'$$, 'a time before the last move'),
    ($$NEW.lifecycle_since := '2999-01-01'; RETURN NEW;$$, 'UPDATE', $$UPDATE leads SET lifecycle_status = 'sal'$$, 'a time in the future'),
    ($$NEW.lifecycle_since := '1999-01-01'; RETURN NEW;$$, 'UPDATE', $$UPDATE leads SET note = 'x'$$, 'a time without a move'),
    ($$NEW.lifecycle_seq := 9; RETURN NEW;$$, 'INSERT', $$INSERT INTO leads (id) VALUES (2)$$, 'a number at an entry'),
    ($$NEW.lifecycle_since := '2999-01-01'; RETURN NEW;$$, 'INSERT', $$INSERT INTO leads (id) VALUES (2)$$, 'a future time at an entry'),
    ($$NEW.lifecycle_since := NULL; RETURN NEW;$$, 'INSERT', $$INSERT INTO leads (id) VALUES (2)$$, 'no time at an entry')
) AS v (body, event, statement, description);

-- AFTER ROW triggers that move the same lead again, in front of ours and behind
SELECT lived(name || ' moves its lead again', trigger_of(name, 'AFTER INSERT OR UPDATE ON leads FOR EACH ROW',
        'IF NEW.lifecycle_status IN (''mal'', ''engaged'', ''mql'') THEN
             UPDATE leads SET lifecycle_status = CASE NEW.lifecycle_status WHEN ''mal'' THEN ''engaged'' WHEN ''engaged'' THEN ''mql'' ELSE ''sal'' END::lifecycle.lifecycle_status
             WHERE id = NEW.id AND lifecycle_status = NEW.lifecycle_status;
         END IF; RETURN NULL;'),
    ARRAY['INSERT INTO leads (id, lifecycle_status) VALUES (1, ''known''), (2, ''mal''), (3, ''mql'')', 'UPDATE leads SET lifecycle_status = ''mal'' WHERE id = 1'],
    'known mal engaged mql sal|mal engaged mql sal|mql sal', '{1,2,3}')
FROM (VALUES ('assign_owner'), ('zz_assign_owner')) AS n (name);

-- AFTER ROW triggers that move another lead of the same statement, insert, delete
SELECT lived(name || ' moves other leads of the statement', trigger_of(name, 'AFTER UPDATE ON leads FOR EACH ROW',
        'IF NEW.lifecycle_status = ''customer'' AND OLD.lifecycle_status <> ''customer'' THEN
             UPDATE leads SET lifecycle_status = ''recycled'' WHERE account = NEW.account AND id <> NEW.id AND lifecycle_status = ''customer'';
         END IF; RETURN NULL;'),
    ARRAY['INSERT INTO leads (id, account) SELECT n, n % 3 FROM generate_series(1, 6) AS n', 'UPDATE leads SET lifecycle_status = ''customer'''],
    'known customer recycled|known customer recycled|known customer recycled', '{1,3,6}')
FROM (VALUES ('account_lost'), ('zz_account_lost')) AS n (name);
SELECT lived(name || ' removes and inserts leads', trigger_of(name, 'AFTER INSERT OR UPDATE ON leads FOR EACH ROW',
        'IF NEW.lifecycle_status = ''disqualified'' THEN DELETE FROM leads WHERE id = NEW.id;
         ELSIF NEW.lifecycle_status = ''customer'' THEN INSERT INTO leads (id, lifecycle_status) VALUES (NEW.id + 1000, ''known''); END IF; RETURN NULL;'),
    ARRAY['INSERT INTO leads (id, lifecycle_status) VALUES (1, ''disqualified''), (2, ''known''), (3, ''mql'')',
          'UPDATE leads SET lifecycle_status = CASE id WHEN 2 THEN ''disqualified'' ELSE ''customer'' END::lifecycle.lifecycle_status'],
    'disqualified -|known disqualified -|mql customer|known', '{1,2,3,1003}')
FROM (VALUES ('clean'), ('zz_clean')) AS n (name);

-- Several levels deep, all over leads whose own move waits to be recorded
SELECT lived(name || ' moves waiting leads three levels deep', trigger_of(name, 'AFTER INSERT OR UPDATE ON leads FOR EACH ROW',
        'IF pg_trigger_depth() < 4 THEN
             UPDATE leads SET lifecycle_status = CASE lifecycle_status WHEN ''known'' THEN ''mql'' WHEN ''mql'' THEN ''sal'' WHEN ''sal'' THEN ''sql'' WHEN ''sql'' THEN ''opportunity''
                 WHEN ''opportunity'' THEN ''lost'' WHEN ''customer'' THEN ''recycled'' ELSE ''mql'' END::lifecycle.lifecycle_status WHERE id > NEW.id;
         END IF; RETURN NULL;'),
    ARRAY['INSERT INTO leads (id) SELECT generate_series(1, 5)', 'UPDATE leads SET lifecycle_status = ''customer'' WHERE lifecycle_status <> ''customer'' AND id IN (1, 2)'])
FROM (VALUES ('deep'), ('zz_deep')) AS n (name);
SELECT cmp_ok((SELECT max(seq) FROM told WHERE batch = 'on'), '>', 10, 'that made many moves');
SELECT lived(name || ' removes waiting leads and brings them back', trigger_of(name, 'AFTER UPDATE ON leads FOR EACH ROW',
        'IF pg_trigger_depth() < 2 THEN
             BEGIN
                 DELETE FROM leads WHERE id = NEW.id + 1;
                 IF NEW.id = 3 THEN RAISE EXCEPTION ''no''; END IF;
                 INSERT INTO leads (id, lifecycle_status) VALUES (NEW.id + 1, ''sal'');
                 UPDATE leads SET lifecycle_status = ''sql'' WHERE id = NEW.id + 1;
             EXCEPTION WHEN raise_exception THEN NULL; END;
         END IF; RETURN NULL;'),
    ARRAY['INSERT INTO leads (id) SELECT generate_series(1, 4)', 'UPDATE leads SET lifecycle_status = ''mql'''], 'known mql|known mql|known mql - sal sql', '{1,4,2}')
FROM (VALUES ('recycle'), ('zz_recycle')) AS n (name);

-- Exception handlers: what they roll back is not in the history, all else is.
SELECT lived(name || ' has blocks that fail and blocks that succeed', trigger_of(name, 'AFTER UPDATE ON leads FOR EACH ROW',
        'IF pg_trigger_depth() > 1 THEN RETURN NULL; END IF;
         BEGIN
             UPDATE leads SET lifecycle_status = ''recycled'' WHERE id = NEW.id + 100;
             UPDATE leads SET lifecycle_status = ''mql'' WHERE id = NEW.id + 100;
             IF NEW.id % 2 = 0 THEN RAISE EXCEPTION ''no''; END IF;
         EXCEPTION WHEN raise_exception THEN NULL; END; RETURN NULL;'),
    ARRAY['INSERT INTO leads (id, lifecycle_status) SELECT n, ''mql'' FROM generate_series(1, 5) AS n', 'INSERT INTO leads (id, lifecycle_status) SELECT n, ''mql'' FROM generate_series(101, 105) AS n',
          'UPDATE leads SET lifecycle_status = ''sal'' WHERE id < 100'],
    'mql sal|mql sal|mql recycled mql|mql|mql recycled mql', '{1,2,101,102,105}')
FROM (VALUES ('hope'), ('zz_hope')) AS n (name);

-- Collected moves and a block that fails in the trigger of another table of the
-- same statement; a BEFORE ROW trigger on the history sees each row once.
CREATE TABLE calls (id int PRIMARY KEY, n int DEFAULT 0);
INSERT INTO calls SELECT generate_series(1, 4);
SELECT lived('a block that fails in the trigger of another table', trigger_of('called', 'AFTER UPDATE ON calls FOR EACH ROW',
        'BEGIN UPDATE leads SET lifecycle_status = ''sal'' WHERE id = NEW.id + 10; IF NEW.id <> 3 THEN RAISE EXCEPTION ''no''; END IF; EXCEPTION WHEN raise_exception THEN NULL; END; RETURN NULL;')
    || trigger_of('stamped', 'BEFORE INSERT ON leads_history FOR EACH ROW', 'NEW.note := NEW.note || ''!''; RETURN NEW;'),
    ARRAY['INSERT INTO leads (id, lifecycle_status) SELECT n, ''mql'' FROM generate_series(1, 14) AS n',
          'WITH l AS (UPDATE leads SET lifecycle_status = ''recycled'' WHERE id <= 4 RETURNING id) UPDATE calls c SET n = c.n + 1 FROM l WHERE l.id = c.id']);
SELECT is(concat_ws('|', story(1), story(4), story(11), story(13)), 'mql recycled|mql recycled|mql|mql sal', 'all of the outer moves, and of the inner ones those that stayed');
SELECT is((SELECT array_agg(DISTINCT move ->> 'note') FROM told), '{new!}', 'a BEFORE ROW trigger on the history changed each row once');

-- AFTER STATEMENT triggers on the leads read the history.
SELECT lived('an AFTER STATEMENT trigger reads the history', trigger_of('zz_report', 'AFTER UPDATE ON leads FOR EACH STATEMENT',
        'SELECT count(*) INTO n FROM leads_history WHERE to_status = ''mql''; IF n <> 3 THEN RAISE ''only % moves are there'', n; END IF; RETURN NULL;'),
    ARRAY['INSERT INTO leads (id) VALUES (1), (2), (3)', 'UPDATE leads SET lifecycle_status = ''mql''']);

-- Triggers on the history: the hooks
SELECT lived('a hook for each of 2,500 moves', trigger_of('assign', 'AFTER INSERT ON leads_history FOR EACH ROW WHEN (NEW.to_status = ''mql'')',
        'UPDATE leads SET owner_name = ''Ann'', lifecycle_status = CASE WHEN id % 2 = 0 THEN ''sal'' ELSE lifecycle_status END WHERE id = NEW.lead; RETURN NULL;'),
    ARRAY['INSERT INTO leads (id) SELECT generate_series(1, 2500)', 'UPDATE leads SET lifecycle_status = ''mql''',
          'DO $d$ BEGIN IF (SELECT count(*) FROM leads WHERE owner_name = ''Ann'') <> 2500 THEN RAISE ''owners are missing''; END IF; END $d$']);
SELECT results_eq($$SELECT story(lead), count(*) FROM told WHERE batch = 'on' AND seq = 1 GROUP BY 1 ORDER BY 1$$,
    $$VALUES ('known mql', 1250::bigint), ('known mql sal', 1250)$$, 'a hook on 2,500 moves of one statement writes every lead, and moves some on');
SELECT lived('a hook with a transition table', trigger_of('mass', 'AFTER INSERT ON leads_history REFERENCING NEW TABLE AS moved FOR EACH STATEMENT',
        'IF pg_trigger_depth() > 2 THEN RETURN NULL; END IF;
         UPDATE leads l SET lifecycle_status = ''sql'' FROM moved m WHERE m.lead = l.id AND m.to_status = ''sal'' AND l.lifecycle_status = ''sal''; RETURN NULL;'),
    ARRAY['INSERT INTO leads (id, lifecycle_status) SELECT n, ''mql'' FROM generate_series(1, 2500) AS n', 'UPDATE leads SET lifecycle_status = ''sal''']);
SELECT is((SELECT count(*) FROM told WHERE batch = 'on' AND seq = 3 AND move ->> 'to_status' = 'sql'), 2500::bigint, 'a transition table names the moves');
SELECT lived('a hook that moves another lead of the statement', trigger_of('next_lead', 'AFTER INSERT ON leads_history FOR EACH ROW WHEN (NEW.to_status = ''customer'')',
        'UPDATE leads SET lifecycle_status = ''recycled'' WHERE id = NEW.lead + 1 AND NEW.lead % 10 = 1 AND lifecycle_status = ''customer''; RETURN NULL;'),
    ARRAY['INSERT INTO leads (id) SELECT generate_series(1, 1500)', 'UPDATE leads SET lifecycle_status = ''customer''']);
SELECT is((SELECT count(*) FROM told WHERE batch = 'on' AND seq = 3 AND lead % 10 = 2), 150::bigint, 'a hook moves another lead of the same statement');
SELECT lived('a BEFORE STATEMENT hook with a block', trigger_of('a_statement', 'BEFORE INSERT ON leads_history FOR EACH STATEMENT',
        'BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
         BEGIN UPDATE calls SET n = n + 1; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN NULL;'),
    ARRAY['INSERT INTO leads (id) VALUES (1), (2)', 'UPDATE leads SET lifecycle_status = ''mql'' WHERE id = 1'],
    'known mql|known', '{1,2}');
SELECT matches(error_of($q$DO $d$ BEGIN
    INSERT INTO leads (id) VALUES (1);
    EXECUTE trigger_of('a_mover', 'BEFORE INSERT ON leads_history FOR EACH STATEMENT', 'UPDATE leads SET lifecycle_status = ''mql'' WHERE id = 1; RETURN NULL;');
    INSERT INTO leads (id) VALUES (2); END $d$$q$), E'^27000: .*\nHINT: .*AFTER', 'it cannot move leads');
SELECT throws_ok($q$DO $d$ BEGIN
    EXECUTE trigger_of('a_forger', 'BEFORE INSERT ON leads_history FOR EACH STATEMENT', 'IF pg_trigger_depth() < 3 THEN INSERT INTO leads_history (lead) VALUES (1); END IF; RETURN NULL;');
    INSERT INTO leads (id) VALUES (1); END $d$$q$, '42501', 'history "leads_history" cannot be written', 'nor write the history itself');
SELECT lived('a BEFORE ROW hook that looks at the history', trigger_of('counted', 'BEFORE INSERT ON leads_history FOR EACH ROW', 'SELECT count(*) INTO n FROM leads_history; NEW.note := n; RETURN NEW;'),
    ARRAY['INSERT INTO leads (id) VALUES (1), (2), (3)']);
SELECT is((SELECT array_agg(move ->> 'note' ORDER BY lead) FROM told WHERE batch = 'on'), '{0,1,2}', 'a BEFORE ROW trigger on the history sees the rows before its own');

SELECT is(error_of($q$DO $d$ BEGIN
    EXECUTE trigger_of('swallow', 'BEFORE INSERT ON leads_history FOR EACH ROW', 'IF NEW.to_status = ''sal'' THEN RETURN NULL; END IF; RETURN NEW;');
    INSERT INTO leads (id) VALUES (1), (2); UPDATE leads SET lifecycle_status = 'sal' WHERE id = 2; END $d$$q$),
'27000: a trigger on "leads_history" suppressed a row
HINT: Raise an error in the trigger to refuse the move.', 'a hook cannot suppress a move');
SELECT is(error_of($q$DO $d$ BEGIN
    EXECUTE trigger_of('refuse', 'AFTER INSERT ON leads_history FOR EACH ROW', 'IF NEW.lead = 2 THEN RAISE EXCEPTION ''not this one''; END IF; RETURN NULL;');
    INSERT INTO leads (id) VALUES (1), (2); END $d$$q$), 'P0001: not this one', 'but refuse it with an error');
SELECT is((SELECT count(*) FROM leads), 0::bigint, 'then the whole statement is undone');
SELECT matches(error_of($q$DO $d$ BEGIN
    EXECUTE trigger_of('too_early', 'BEFORE INSERT ON leads_history FOR EACH ROW', 'IF NEW.to_status = ''mql'' THEN UPDATE leads SET lifecycle_status = ''sal'' WHERE id = NEW.lead; END IF; RETURN NEW;');
    INSERT INTO leads (id) VALUES (1); UPDATE leads SET lifecycle_status = 'mql'; END $d$$q$), E'^27000: .*\nHINT: .*AFTER', 'a BEFORE ROW hook cannot move the lead whose move is not written yet');
SELECT throws_ok($q$DO $d$ BEGIN ALTER TABLE leads_history ADD CHECK (to_status <> 'lost'); INSERT INTO leads (id, lifecycle_status) VALUES (1, 'lost'); END $d$$q$, '23514',
    'new row for relation "leads_history" violates check constraint "leads_history_to_status_check"', 'a CHECK on the history holds');
SELECT throws_ok($q$DO $d$ BEGIN DELETE FROM teams WHERE status = 'lost'; INSERT INTO leads (id, lifecycle_status) VALUES (1, 'lost'); END $d$$q$, '23503', NULL, 'a foreign key of the history holds');

SELECT lived('identity and domain columns on the history', 'CREATE DOMAIN greeting AS text DEFAULT ''hello''; ALTER TABLE leads_history ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY, ADD COLUMN team greeting;',
    ARRAY['INSERT INTO leads (id) VALUES (1), (2)', 'UPDATE leads SET lifecycle_status = ''mql''']);
SELECT results_eq($$SELECT array_agg((move ->> 'number')::int ORDER BY seq, lead), array_agg(DISTINCT move ->> 'team') FROM told WHERE batch = 'on'$$,
    $$VALUES ('{1,2,3,4}'::int[], '{hello}'::text[])$$, 'they are filled in');

-- Hooks fire as the writer, who needs no privilege on the history.
CREATE ROLE tapb_writer;
GRANT SELECT, INSERT, UPDATE ON leads TO tapb_writer;
CREATE TABLE heard (who text, what text);
GRANT INSERT ON heard TO tapb_writer;
GRANT USAGE ON SEQUENCE tickets TO tapb_writer;
SELECT lives_ok(trigger_of('listen', 'AFTER INSERT ON leads_history FOR EACH ROW', 'INSERT INTO heard VALUES (current_user, NEW.leg || '' '' || NEW.note || '' '' || (NEW.ticket > 0)); RETURN NULL;'), 'a hook that listens');
SET ROLE tapb_writer;
INSERT INTO leads (id) VALUES (1);
UPDATE leads SET lifecycle_status = 'mql';
RESET ROLE;
SELECT ok(NOT has_table_privilege('tapb_writer', 'leads_history', 'SELECT, INSERT'), 'the writer may not read or write the history');
SELECT results_eq('SELECT who, what FROM heard ORDER BY what', $$VALUES ('tapb_writer'::text, '>known new true'), ('tapb_writer', 'known>mql new true')$$,
    'the hook ran as the writer, and saw defaults and generated columns');
DROP OWNED BY tapb_writer;
DROP ROLE tapb_writer;

-- only where a user's trigger fires between ours, the second looks at each row
CREATE TABLE watched (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
CREATE TABLE watched_low PARTITION OF watched FOR VALUES FROM (0) TO (100);
SELECT lifecycle.track('watched');
CREATE FUNCTION looks_always() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(tgrelid::regclass || ' ' || (tgqual IS NULL), ', ' ORDER BY tgrelid::regclass::text)
    FROM pg_trigger WHERE tgname = 'lifecycle_after_update' AND tgrelid::regclass::text LIKE 'watched%'
$$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := coalesce(NEW.note, ''-''); RETURN NEW; END';
SELECT is(looks_always(), 'watched false, watched_low false', 'the trigger after an UPDATE looks at leads that moved');
CREATE TRIGGER a_touch BEFORE UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER zzz_count AFTER UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION touch();
SELECT is(looks_always(), 'watched false, watched_low false', 'also with triggers of users that fire before ours, or after both');
ALTER TRIGGER a_touch ON watched RENAME TO zzz_touch;
SELECT is(looks_always(), 'watched true, watched_low true', 'one that is renamed to fire between them makes it look at each row');
DROP TRIGGER zzz_touch ON watched;
SELECT lifecycle.untrack('watched');
SELECT lifecycle.track('watched');
SELECT is(looks_always(), 'watched false, watched_low false', 'track() sees that it is gone');
CREATE TRIGGER zzz_touch BEFORE UPDATE ON watched_low FOR EACH ROW EXECUTE FUNCTION touch();
SELECT is(looks_always(), 'watched true, watched_low true', 'so does one on a partition');
SELECT lifecycle.untrack('watched');
SELECT lifecycle.track('watched');
SELECT is(looks_always(), 'watched true, watched_low true', 'and track() sees that it is there');
CREATE TABLE watched_high (id int PRIMARY KEY, note text, lifecycle_status lifecycle.lifecycle_status, lifecycle_since timestamptz, lifecycle_seq int, demographic_score float8);
DROP TRIGGER zzz_touch ON watched_low;
SELECT lifecycle.untrack('watched');
SELECT lifecycle.track('watched');
CREATE TRIGGER zzz_touch BEFORE UPDATE ON watched_high FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE watched ATTACH PARTITION watched_high FOR VALUES FROM (100) TO (200);
SELECT is(looks_always(), 'watched true, watched_high true, watched_low true', 'a partition that is attached brings its own');

SELECT * FROM finish();
