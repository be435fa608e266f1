-- verify(): empty after ordinary life; names every kind of tampering; and a
-- lead that was tampered with can still be written.

CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE TABLE leads (id int PRIMARY KEY, origin text);
SELECT lifecycle.track('leads', source => 'origin');
BEGIN;
SET LOCAL lifecycle.at = '2026-01-01';
INSERT INTO leads (id, origin) SELECT n, 'web' FROM generate_series(1, 6) AS n;
SET LOCAL lifecycle.at = '2026-01-02';
UPDATE leads SET lifecycle_status = 'mql';
SET LOCAL lifecycle.at = '2026-01-03';
UPDATE leads SET lifecycle_status = 'recycled';
SET LOCAL lifecycle.at = '2026-01-04';
UPDATE leads SET lifecycle_status = 'mql' WHERE id <> 3;
DELETE FROM leads WHERE id = 5;
SET LOCAL lifecycle.at = '2026-01-05';
INSERT INTO leads (id) VALUES (5);
COMMIT;
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'verify() is empty after ordinary life');

-- Runs the statement with our guard and triggers off, as only the owner can put them.
CREATE FUNCTION tamper(statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    ALTER TABLE leads_history DISABLE TRIGGER USER;
    ALTER TABLE leads DISABLE TRIGGER USER;
    EXECUTE statement;
    ALTER TABLE leads_history ENABLE TRIGGER USER;
    ALTER TABLE leads ENABLE TRIGGER USER;
END $$;
-- Tampers, asks verify(), and undoes the tampering.
CREATE FUNCTION found(tampering text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    PERFORM tamper(tampering);
    SELECT string_agg(concat_ws(' ', v."check", v.lead || ':', v.detail), E'\n' ORDER BY v."check" COLLATE "C", v.lead, v.detail COLLATE "C")
    INTO result FROM lifecycle.verify('leads') v
    -- what the history no longer says and the flow still does is for the tests of the flow below
    WHERE v."check" <> 'flow';
    RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = coalesce(result, 'nothing');
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    RETURN SQLERRM;
END $$;

SELECT is(found(tampering), expected, description)
FROM (VALUES
('a changed to_status', $$UPDATE leads_history SET to_status = 'sal' WHERE lead = 1 AND seq = 2$$,
'conservation 0 leads are sal, but 1 came and 0 went
conservation 4 leads are mql, but 10 came and 7 went
cycle 1: move 2 says that {known,mql} were reached
gap 1: move 3 leaves mql, but the lead was sal'),
('a changed last to_status', $$UPDATE leads_history SET to_status = 'sql' WHERE lead = 2 AND seq = 4$$,
'conservation 0 leads are sql, but 1 came and 0 went
conservation 4 leads are mql, but 10 came and 7 went
cycle 2: move 4 says that {mql,NULL,known,recycled} were reached
status 2: the lead is mql, but its last move was to sql'),
('a changed from_status', $$UPDATE leads_history SET from_status = 'sal' WHERE lead = 1 AND seq = 3$$,
'conservation 0 leads are sal, but 0 came and 1 went
conservation 4 leads are mql, but 11 came and 6 went
gap 1: move 3 leaves sal, but the lead was mql'),
('a changed from_since', $$UPDATE leads_history SET from_since = '2025-01-01' WHERE lead = 1 AND seq = 3$$,
'gap 1: move 3 closes a visit since 2025-01-01 00:00:00+00, which began at 2026-01-02 00:00:00+00'),
('a changed time', $$UPDATE leads_history SET at = '2026-01-09' WHERE lead = 1 AND seq = 2$$,
'gap 1: move 3 closes a visit since 2026-01-02 00:00:00+00, which began at 2026-01-09 00:00:00+00
overlap 1: move 3 at 2026-01-03 00:00:00+00 is before move 2 at 2026-01-09 00:00:00+00'),
('a changed number', $$UPDATE leads_history SET seq = 9 WHERE lead = 2 AND seq = 4$$,
'gap 2: move 9 follows move 3
status 2: the lead has move 4 at 2026-01-04 00:00:00+00, but its last move was 9 at 2026-01-04 00:00:00+00'),
('a changed cycle', $$UPDATE leads_history SET cycle = 1 WHERE lead = 2 AND seq = 4$$,
'cycle 2: cycle of move 4 is said to begin at 2026-01-04 00:00:00+00
cycle 2: move 4 is in cycle 1 after cycle 1
cycle 2: move 4 says that {mql,NULL,known,recycled} were reached'),
('a changed start of the cycle', $$UPDATE leads_history SET cycle_since = '2025-01-01' WHERE lead = 2 AND seq = 4$$,
'cycle 2: cycle of move 4 is said to begin at 2025-01-01 00:00:00+00'),
('changed reached', $$UPDATE leads_history SET reached = '{customer}' WHERE lead = 2 AND seq = 4$$,
'cycle 2: move 4 says that {customer} were reached'),
('a changed source', $$UPDATE leads_history SET source = NULL WHERE lead = 2 AND seq = 4$$,
'entry 2: move 4 has source (none) and cohort (none)'),
('a changed cohort', $$UPDATE leads_history SET cohort = 1 WHERE lead = 2 AND seq = 4$$,
'entry 2: move 4 has source web and cohort 1'),
('a changed first entry', $$UPDATE leads_history SET entered_at = '2025-01-01' WHERE lead = 2 AND seq = 4$$,
'entry 2: move 4 says that the lead entered at 2025-01-01 00:00:00+00'),
('a deleted first move', $$DELETE FROM leads_history WHERE lead = 3 AND seq = 1$$,
'conservation 1 leads are known, but 6 came and 6 went
cycle 3: cycle of move 2 is said to begin at 2026-01-01 00:00:00+00
cycle 3: move 2 says that {known,mql} were reached
entry 3: move 2 says that the lead entered at 2026-01-01 00:00:00+00
gap 3: move 2 closes a visit since 2026-01-01 00:00:00+00, which began at (never)
gap 3: move 2 follows move 0
gap 3: move 2 leaves known, but the lead was (nothing)'),
('a deleted last move', $$DELETE FROM leads_history WHERE lead = 2 AND seq = 4$$,
'conservation 1 leads are recycled, but 6 came and 4 went
conservation 4 leads are mql, but 10 came and 7 went
status 2: the lead is mql, but its last move was to recycled'),
('an added move', $$INSERT INTO leads_history SELECT lead, 5, cycle, 'mql', at, 'sal', at, 'write', rule, actor, session_user_name, reason, 0, 0, source, cohort, value, entered_at, cycle_since, '{mql,sal,NULL,known,recycled}', now() FROM leads_history WHERE lead = 2 AND seq = 4$$,
'conservation 0 leads are sal, but 1 came and 0 went
conservation 4 leads are mql, but 11 came and 8 went
status 2: the lead is mql, but its last move was to sal'),
('a status changed behind our back', $$UPDATE leads SET lifecycle_status = 'customer' WHERE id = 1$$,
'conservation 1 leads are customer, but 0 came and 0 went
conservation 3 leads are mql, but 11 came and 7 went
status 1: the lead is customer, but its last move was to mql'),
('a time changed behind our back', $$UPDATE leads SET lifecycle_since = '2026-01-09' WHERE id = 1$$,
'status 1: the lead has move 4 at 2026-01-09 00:00:00+00, but its last move was 4 at 2026-01-04 00:00:00+00'),
('a lead deleted behind our back', $$DELETE FROM leads WHERE id = 1$$,
'conservation 3 leads are mql, but 11 came and 7 went
status 1: the lead is gone, but its last move was to mql'),
('a lead inserted behind our back', $$INSERT INTO leads (id, lifecycle_status, lifecycle_seq, lifecycle_since) VALUES (7, 'mql', 1, '2026-01-01')$$,
'conservation 5 leads are mql, but 11 came and 7 went
status 7: the lead is mql, but has no history'),
('a removed lead put back behind our back', $$DELETE FROM leads_history WHERE lead = 5 AND seq = 6$$,
'conservation 1 leads are known, but 6 came and 6 went
status 5: the lead is known, but its last move was its removal')
) AS v (description, tampering, expected);
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'undone, all is well again');

-- The flow
CREATE FUNCTION found_in_flow(tampering text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    PERFORM tamper(tampering);
    SELECT string_agg(v.detail, E'\n' ORDER BY v.detail COLLATE "C") INTO result FROM lifecycle.verify('leads') v WHERE v."check" = 'flow' AND v.lead IS NULL;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = coalesce(result, 'nothing');
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    RETURN SQLERRM;
END $$;
SELECT isnt(found_in_flow($$UPDATE leads_flow_pending SET n[1] = n[1] + 1 WHERE ctid = (SELECT min(ctid) FROM leads_flow_pending)$$), 'nothing', 'a row that was appended, changed');
SELECT isnt(found_in_flow(format('UPDATE leads_flow_pending SET %s WHERE ctid = (SELECT min(ctid) FROM leads_flow_pending WHERE kind = %L)', c.change, c.kind)), 'nothing', c.change || ' of what is pending')
FROM (VALUES ('kind = ''none''', 'move'), ('day = day + 1', 'first'), ('to_status = to_status[2:]', 'move'), ('n = n || 0::bigint', 'first')) AS c (change, kind);
SELECT isnt(found_in_flow(format('ALTER TABLE %s ALTER %s DROP NOT NULL; UPDATE %1$s SET %2$s = NULL WHERE ctid = (SELECT min(ctid) FROM %1$s)', 'leads_flow_pending', c.name)), 'nothing', c.name || ' of what is pending is NULL')
FROM unnest(ARRAY['kind', 'day', 'n']) AS c (name);
SELECT isnt(found_in_flow('TRUNCATE leads_flow_pending'), 'nothing', 'nothing pending');
SELECT isnt(found_in_flow($$DELETE FROM leads_history WHERE lead = 5 AND seq = 6$$), 'nothing', 'a move that is not in the history');
SELECT lifecycle.refresh('leads');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'merged, all is well');
SELECT is(found_in_flow(format('UPDATE leads_flow SET %1$I[cardinality(%1$I)] = %1$I[cardinality(%1$I)] + 1 WHERE ctid = %2$L', c.name, f.ctid)) LIKE '%: SELECT lifecycle.rebuild_flow(''public.leads'')', true,
          format('%s of row %s changed', c.name, f.ctid))
FROM leads_flow f CROSS JOIN unnest(ARRAY['n', 'n_new', 'n_again', 'n_left', 'n_entered']) AS c (name)
WHERE f.ctid IN (SELECT min(g.ctid) FROM leads_flow g GROUP BY g.span, g.kind) AND (f.kind = 'move' OR c.name = 'n');
SELECT isnt(found_in_flow(format('DELETE FROM leads_flow WHERE ctid = %L', f.ctid)), 'nothing', format('row %s deleted', f.ctid)) FROM leads_flow f;
SELECT isnt(found_in_flow(format('UPDATE leads_flow SET %s WHERE ctid = (SELECT max(ctid) FROM leads_flow WHERE span = %L AND kind = %L)', c.change, c.span, c.kind)), 'nothing', c.change || ' of ' || c.span)
FROM (VALUES ('key = gen_random_uuid()', 'day', 'move'), ('key = gen_random_uuid()', 'all', 'first'), ('key = gen_random_uuid()', 'month', 'move'),
             ('day = day + 1', 'day', 'move'), ('day = ''2000-01-01''', 'total', 'move'), ('to_status[1] = ''lost''', 'day', 'move'),
             ('source = ''tv''', 'day', 'first'), ('cohort = 7', 'day', 'first'), ('reached[1] = ''lost''', 'day', 'first'), ('kind = ''later''', 'day', 'first'),
             ('span = ''month''', 'day', 'move'), ('span = ''week''', 'total', 'move'), ('n = n || 0::bigint', 'month', 'move'),
             ('n_new = n_new[2:]', 'all', 'move'), ('reached = reached || ''lost''::text', 'day', 'first'), ('n = ''{}''', 'total', 'first'),
             ('n[1] = NULL', 'day', 'first'), ('(reached, n) = (SELECT reached || reached[1], n || 0::bigint)', 'all', 'first')) AS c (change, span, kind);
SELECT isnt(found_in_flow('TRUNCATE leads_flow'), 'nothing', 'no flow at all');
BEGIN;
SELECT tamper('UPDATE leads_flow SET n = ARRAY(SELECT 2 * u FROM unnest(n) WITH ORDINALITY AS u (u, i) ORDER BY i)');
SELECT lifecycle.rebuild_flow('leads');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'and the hint helps');
ROLLBACK;
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'undone, all is well again');

-- Triggers
CREATE FUNCTION found_by(ddl text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE ddl;
    SELECT string_agg(v."check" || ' ' || v.detail, E'\n') INTO result FROM lifecycle.verify('leads') v;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = coalesce(result, 'nothing');
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    RETURN SQLERRM;
END $$;
SELECT is(found_by(format('ALTER TABLE %s DISABLE TRIGGER %I', t.tgrelid::regclass, t.tgname)), format('trigger trigger %s on %s is disabled', t.tgname, 'public.' || t.tgrelid::regclass), t.tgname || ' disabled')
FROM pg_trigger t WHERE t.tgrelid IN ('leads'::regclass, 'leads_history'::regclass) AND NOT t.tgisinternal ORDER BY t.tgname;
SELECT is(found_by(format('DROP TRIGGER %2$I ON %1$s', t.tgrelid::regclass, t.tgname)), format('trigger trigger %s on %s is missing', t.tgname, 'public.' || t.tgrelid::regclass), t.tgname || ' dropped')
FROM pg_trigger t WHERE t.tgrelid IN ('leads'::regclass, 'leads_history'::regclass) AND NOT t.tgisinternal ORDER BY t.tgname;
SELECT is(found_by('ALTER TABLE leads ENABLE REPLICA TRIGGER lifecycle_after_update'), 'trigger trigger lifecycle_after_update on public.leads is disabled', 'one that fires on replicas only');
SELECT is(found_by('ALTER TABLE leads ENABLE ALWAYS TRIGGER lifecycle_after_update'), 'nothing', 'one that fires always is fine');
SELECT throws_ok($$SELECT * FROM lifecycle.verify('leads_history')$$, '55000', NULL, 'a table that is not tracked');

-- No wedge: whatever happened behind our back, the lead can be written on, and
-- what is written from then on is a history in which nothing is missing.
CREATE FUNCTION goes_on(tampering text, write text, of int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    PERFORM tamper(tampering);
    EXECUTE write;
    SELECT string_agg(format('%s %s', h.seq, coalesce(h.to_status, '-')), ', ' ORDER BY h.seq) INTO result FROM leads_history h WHERE h.lead = of;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = coalesce(result, 'nothing');
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    RETURN SQLERRM;
WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
SELECT is(goes_on(tampering, write, of), expected, description)
FROM (VALUES
    ('history lost, moved on', $$DELETE FROM leads_history WHERE lead = 1$$, $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 1$$, 1, '1 known, 2 mql, 3 sal'),
    ('history lost, deleted', $$DELETE FROM leads_history WHERE lead = 1$$, $$DELETE FROM leads WHERE id = 1$$, 1, '1 known, 2 mql, 3 -'),
    ('history lost, deleted, back', $$DELETE FROM leads_history WHERE lead = 1$$, $$DELETE FROM leads WHERE id = 1; INSERT INTO leads (id) VALUES (1)$$, 1, '1 known, 2 mql, 3 -, 4 known'),
    ('first moves lost, moved on', $$DELETE FROM leads_history WHERE lead = 1 AND seq < 4$$, $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 1$$, 1, '4 mql, 5 sal'),
    ('deleted behind our back, back', $$DELETE FROM leads WHERE id = 1$$, $$INSERT INTO leads (id) VALUES (1)$$, 1, '1 known, 2 mql, 3 recycled, 4 mql, 5 -, 6 known'),
    ('inserted behind our back without number, moved on', $$INSERT INTO leads (id, lifecycle_status) VALUES (8, 'mql')$$, $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 8$$, 8, '1 known, 2 mql, 3 sal'),
    ('inserted behind our back without status, moved on', $$INSERT INTO leads (id) VALUES (8)$$, $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 8$$, 8, '1 sal'),
    ('a removed lead inserted behind our back, moved on', $$DELETE FROM leads WHERE id = 6; INSERT INTO leads (id, lifecycle_status) VALUES (6, 'mql')$$, $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 6$$, 6, '1 known, 2 mql, 3 recycled, 4 mql, 5 sal'),
    ('number taken away, moved on', $$UPDATE leads SET lifecycle_seq = NULL, lifecycle_since = NULL WHERE id = 1$$, $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 1$$, 1, '1 known, 2 mql, 3 recycled, 4 mql, 5 sal')
) AS v (description, tampering, write, of, expected);
SELECT matches(goes_on(tampering, write, 1), expected, description)
FROM (VALUES
    ('last move lost, moved on', $$DELETE FROM leads_history WHERE lead = 1 AND seq = 4$$, $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 1$$, '5 sal$'),
    ('last move lost, deleted', $$DELETE FROM leads_history WHERE lead = 1 AND seq = 4$$, $$DELETE FROM leads WHERE id = 1$$, '5 -$'),
    ('status changed behind our back, moved on', $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 1$$, $$UPDATE leads SET lifecycle_status = 'sql' WHERE id = 1$$, ' sql$'),
    ('status changed behind our back, deleted', $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 1$$, $$DELETE FROM leads WHERE id = 1$$, ' -$'),
    ('an added move, moved on', $$INSERT INTO leads_history SELECT lead, 5, cycle, 'mql', at, 'sal', at, 'write', rule, actor, session_user_name, reason, 0, 0, source, cohort, value, entered_at, cycle_since, '{mql,sal,NULL,known,recycled}', now() FROM leads_history WHERE lead = 1 AND seq = 4$$,
     $$UPDATE leads SET lifecycle_status = 'sql' WHERE id = 1$$, ' sql$'),
    ('number set back, moved on', $$UPDATE leads SET lifecycle_seq = 2 WHERE id = 1$$, $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 1$$, ' sal$'),
    ('number set ahead, moved on', $$UPDATE leads SET lifecycle_seq = 9 WHERE id = 1$$, $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 1$$, ' sal$'),
    ('time set ahead, moved on', $$UPDATE leads SET lifecycle_since = '2026-01-09' WHERE id = 1$$, $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 1$$, '5 sal$'),
    ('time set back, moved on', $$UPDATE leads SET lifecycle_since = '2025-01-09' WHERE id = 1$$, $$UPDATE leads SET lifecycle_status = 'sal' WHERE id = 1$$, '5 sal$')
) AS v (description, tampering, write, expected);

SELECT * FROM finish();
