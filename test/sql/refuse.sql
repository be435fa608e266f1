-- What a write may not do: illegal moves, statuses that the model lacks, NULL,
-- missing reasons; what "keep" makes of them; and when a new cycle begins.

CREATE EXTENSION lifecycle;
SELECT no_plan();

-- All that an error says, one line for each field that it has.
CREATE FUNCTION error_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; detail text; hint text;
    in_schema text; in_table text; in_column text; in_constraint text;
BEGIN
    EXECUTE statement;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
        in_schema = SCHEMA_NAME, in_table = TABLE_NAME, in_column = COLUMN_NAME, in_constraint = CONSTRAINT_NAME;
    RETURN concat_ws(E'\n', state || ': ' || message, 'DETAIL: ' || nullif(detail, ''), 'HINT: ' || nullif(hint, ''),
                     'AT: ' || nullif(concat_ws(' ', in_schema, in_table, in_column, in_constraint), '   '));
END $$;
\ir ../lib/story.sql

CREATE TABLE leads (id int PRIMARY KEY, name text);
SELECT lifecycle.track('leads');
INSERT INTO leads (id) VALUES (1);

-- Illegal moves
SELECT is(error_of($$UPDATE leads SET lifecycle_status = 'lost' WHERE id = 1$$),
'23514: lead 1 of table "public.leads" cannot move from "known" to "lost"
DETAIL: Model "standard" has no such transition.
HINT: From "known" a lead can become: mal, engaged, mql, sal, sql, opportunity, customer, disqualified.
AT: public leads lifecycle_status lifecycle_transition', 'an illegal move says all that a form has to show');
SELECT is(error_of($$UPDATE leads SET lifecycle_status = NULL WHERE id = 1$$),
'23502: status of lead 1 of table "public.leads" cannot become null
DETAIL: The lead is "known".
HINT: A lead leaves the program by DELETE.
AT: public leads lifecycle_status lifecycle_status', 'a status cannot become null');
SELECT is(error_of($$UPDATE leads SET lifecycle_status = 'nurtured' WHERE id = 1$$),
'22P02: invalid input value for enum lifecycle.lifecycle_status: "nurtured"', 'a label that the enum lacks is the enum''s own error');
SELECT is(error_of($$INSERT INTO leads (id, lifecycle_status) VALUES (2, 'mql'), (1, 'mql')$$),
'23505: duplicate key value violates unique constraint "leads_pkey"
DETAIL: Key (id)=(1) already exists.
AT: public leads  leads_pkey', 'a duplicate key is the table''s own error');
SELECT is(story(1), 'known', 'none of it left a trace on a lead');
SELECT is(story(2), NULL, 'nor did the row that came with it');

-- A status column of text, a model of one's own
SELECT lifecycle.copy_model('etumos', 'ours');
UPDATE lifecycle.stage SET reason_required = true WHERE model = 'ours' AND status IN ('lost', 'disqualified');
DELETE FROM lifecycle.transition WHERE model = 'ours' AND from_status = 'customer';
CREATE SCHEMA crm;
CREATE TABLE crm."Deals" (id text PRIMARY KEY, stage varchar(20), loss_reason text, loss_note text);
SELECT lifecycle.track('crm."Deals"', model => 'ours', status_column => 'stage', reason => 'loss_reason');
INSERT INTO crm."Deals" VALUES ('a', NULL), ('b', 'customer'), ('c', 'sql');
SELECT is(error_of($$UPDATE crm."Deals" SET stage = 'won' WHERE id = 'a'$$),
'23514: "won" is not a status of model "ours"
DETAIL: Table "crm."Deals"" follows model "ours".
HINT: The statuses are: mal, mql, sal, sql, customer, disqualified, lost, recycled.
AT: crm Deals stage lifecycle_status', 'a status that the model lacks, with the model''s statuses');
SELECT is(error_of($$INSERT INTO crm."Deals" VALUES ('d', 'won')$$), error_of($$UPDATE crm."Deals" SET stage = 'won' WHERE id = 'a'$$),
    'and the same from INSERT');
SELECT is(error_of($$UPDATE crm."Deals" SET stage = '' WHERE id = 'a'$$),
'23514: "" is not a status of model "ours"
DETAIL: Table "crm."Deals"" follows model "ours".
HINT: The statuses are: mal, mql, sal, sql, customer, disqualified, lost, recycled.
AT: crm Deals stage lifecycle_status', 'an empty text is not a status');
SELECT is(error_of($$UPDATE crm."Deals" SET stage = 'mql ' WHERE id = 'a'$$) ~ '^23514: "mql " is not a status', true, 'nor is a label with a blank behind it');
SELECT is(error_of($$UPDATE crm."Deals" SET stage = 'sql' WHERE id = 'b'$$),
'23514: lead b of table "crm."Deals"" cannot move from "customer" to "sql"
DETAIL: Model "ours" has no such transition.
HINT: No transition leads away from "customer".
AT: crm Deals stage lifecycle_transition', 'from where nothing leads on');

-- Reasons
SELECT is(error_of($$UPDATE crm."Deals" SET stage = 'lost' WHERE id = 'c'$$),
'23502: lead c of table "crm."Deals"" needs a reason to become "lost"
DETAIL: The reason is: loss_reason.
HINT: Set column "loss_reason" in the same statement.
AT: crm Deals loss_reason lifecycle_reason', 'a missing reason names the column');
SELECT is(error_of($$UPDATE crm."Deals" SET stage = 'lost', loss_reason = '' WHERE id = 'c'$$) ~ '^23502', true, 'an empty reason is none');
SELECT is(error_of($$INSERT INTO crm."Deals" VALUES ('e', 'disqualified')$$) ~ '^23502: lead e of table .* needs a reason to become "disqualified"', true, 'an entry needs its reason, too');
UPDATE crm."Deals" SET stage = 'lost', loss_reason = 'price' WHERE id = 'c';
SELECT results_eq($$SELECT to_status, reason FROM crm."Deals_history" WHERE lead = 'c' ORDER BY seq$$,
    $$VALUES ('sql', NULL), ('lost', 'price')$$, 'the reason stands beside the move');
UPDATE lifecycle.program SET reason = $$ nullif(concat_ws(': ', loss_reason, loss_note), '') $$ WHERE lead_table = 'crm."Deals"'::regclass;
INSERT INTO crm."Deals" VALUES ('f', 'sql');
SELECT is(error_of($$UPDATE crm."Deals" SET stage = 'lost' WHERE id = 'f'$$),
'23502: lead f of table "crm."Deals"" needs a reason to become "lost"
DETAIL: The reason is: NULLIF(concat_ws('': ''::text, loss_reason, loss_note), ''''::text).
HINT: Set what the reason is made of in the same statement.
AT: crm Deals stage lifecycle_reason', 'a reason of two columns names the expression');
UPDATE lifecycle.program SET reason = NULL WHERE lead_table = 'crm."Deals"'::regclass;
SELECT is(error_of($$UPDATE crm."Deals" SET stage = 'lost' WHERE id = 'f'$$),
'23502: lead f of table "crm."Deals"" needs a reason to become "lost"
HINT: Give it with SET LOCAL lifecycle.reason = ''...'' in the same transaction.
AT: crm Deals stage lifecycle_reason', 'without an expression the setting is asked for');
BEGIN;
SET LOCAL lifecycle.reason = 'went bankrupt';
UPDATE crm."Deals" SET stage = 'lost' WHERE id = 'f';
COMMIT;
SELECT is((SELECT reason FROM crm."Deals_history" WHERE lead = 'f' AND to_status = 'lost'), 'went bankrupt', 'SET LOCAL lifecycle.reason gives it');
SELECT is(error_of($$UPDATE crm."Deals" SET stage = 'disqualified' WHERE id = 'f'$$) ~ '^23502', true, 'and is gone with its transaction');
SELECT lives_ok($$UPDATE crm."Deals" SET loss_note = 'called' WHERE id = 'f'$$, 'who stays needs no reason');

-- A later BEFORE trigger does not get around the reason.
CREATE FUNCTION junk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.stage := 'disqualified'; RETURN NEW; END $$;
CREATE TRIGGER zzz_junk BEFORE UPDATE ON crm."Deals" FOR EACH ROW EXECUTE FUNCTION junk();
SELECT is(split_part(error_of($$UPDATE crm."Deals" SET stage = 'mql' WHERE id = 'a'$$), ':', 1), '23502',
    'a trigger behind ours that changes the move into one that wants a reason is refused');
DROP TRIGGER zzz_junk ON crm."Deals";

-- Keep: by the transaction
CREATE TABLE people (id int PRIMARY KEY, name text);
SELECT lifecycle.track('people', actor => 'name');
INSERT INTO people (id, lifecycle_status) SELECT n, CASE WHEN n <= 500 THEN 'customer' ELSE 'known' END::lifecycle.lifecycle_status FROM generate_series(1, 1000) AS n;
BEGIN;
SET LOCAL lifecycle.on_illegal = 'keep';
UPDATE people SET lifecycle_status = 'mql', name = 'synced';
COMMIT;
SELECT results_eq('SELECT lifecycle_status::text, lifecycle_seq, name, count(*) FROM people GROUP BY 1, 2, 3 ORDER BY 1',
    $$VALUES ('customer', 1, 'synced', 500::bigint), ('mql', 2, 'synced', 500)$$,
    'a sync of 1,000 rows writes them all, and keeps the status where the move is illegal');
SELECT results_eq('SELECT from_status, to_status, actor, at = (SELECT max(at) FROM people_history), count(*), min(lead), max(lead) FROM people_refused GROUP BY 1, 2, 3, 4',
    $$VALUES ('customer', 'mql', 'synced', true, 500::bigint, 1, 500)$$, 'what was not let through is noted, once each');
SELECT is_empty($$SELECT * FROM lifecycle.verify('people')$$, 'rows and history agree');
SELECT throws_ok($$UPDATE people SET lifecycle_status = 'mql' WHERE id = 1$$, '23514', NULL, 'the setting is gone with its transaction');
SELECT is(error_of($$SET LOCAL lifecycle.on_illegal = 'ignore'$$),
'22023: invalid value for parameter "lifecycle.on_illegal": "ignore"
DETAIL: The values are "error" and "keep".', 'any other value is refused');
SELECT throws_ok($$UPDATE people SET lifecycle_status = NULL WHERE id = 1$$, '23502', NULL, 'null is refused as well');

-- Keep: by the program, and the other way round
UPDATE lifecycle.program SET on_illegal = 'keep' WHERE lead_table = 'people'::regclass;
TRUNCATE people_refused;
UPDATE people SET lifecycle_status = 'lost' WHERE id = 1;
UPDATE people SET lifecycle_status = NULL WHERE id = 2;
SELECT results_eq('SELECT lead, from_status, to_status FROM people_refused ORDER BY lead', $$VALUES (1, 'customer', 'lost'), (2, 'customer', NULL)$$,
    'keep keeps by the program as well, NULL included');
SELECT results_eq('SELECT id, lifecycle_status::text FROM people WHERE id <= 2 ORDER BY id', $$VALUES (1, 'customer'), (2, 'customer')$$, 'and the statuses stay');
BEGIN;
SET LOCAL lifecycle.on_illegal = 'error';
SELECT throws_ok($$UPDATE people SET lifecycle_status = 'lost' WHERE id = 1$$, '23514', NULL, 'a transaction may be stricter than its program');
ROLLBACK;
BEGIN;
UPDATE people SET lifecycle_status = 'lost' WHERE id = 3;
ROLLBACK;
SELECT is((SELECT count(*) FROM people_refused WHERE lead = 3), 0::bigint, 'what is rolled back was not refused');
UPDATE lifecycle.program SET on_illegal = 'keep' WHERE lead_table = 'crm."Deals"'::regclass;
INSERT INTO crm."Deals" VALUES ('g', 'won');
UPDATE crm."Deals" SET stage = 'won', loss_note = 'x' WHERE id = 'g';
SELECT results_eq($$SELECT from_status, to_status FROM crm."Deals_refused"$$, $$VALUES (NULL, 'won'), ('mal', 'won')$$,
    'keep notes a status that the model lacks');
SELECT results_eq($$SELECT stage::text, loss_note, lifecycle_seq FROM crm."Deals" WHERE id = 'g'$$, $$VALUES ('mal', 'x', 1)$$,
    'the lead enters on the first status, and stays there');
SELECT is(error_of($$UPDATE crm."Deals" SET stage = 'disqualified' WHERE id = 'g'$$) ~ '^23502', true, 'a missing reason is an error under keep, too: the move is legal');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm."Deals"')$$, 'verify() finds nothing');

-- Cycles: a new one begins on the way from a detour to the path, if the cycle touched the path
CREATE FUNCTION cycles(lead int) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(coalesce(to_status, '-') || ' ' || cycle, ', ' ORDER BY seq) FROM leads_history h WHERE h.lead = $1
$$;
CREATE FUNCTION live(id int, VARIADIC statuses text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    s text;
BEGIN
    INSERT INTO leads (id, lifecycle_status) VALUES (live.id, statuses[1]::lifecycle.lifecycle_status);
    FOREACH s IN ARRAY statuses[2:] LOOP
        IF s = '-' THEN
            DELETE FROM leads l WHERE l.id = live.id;
        ELSIF EXISTS (SELECT FROM leads l WHERE l.id = live.id) THEN
            UPDATE leads l SET lifecycle_status = s::lifecycle.lifecycle_status WHERE l.id = live.id;
        ELSE
            INSERT INTO leads (id, lifecycle_status) VALUES (live.id, s::lifecycle.lifecycle_status);
        END IF;
    END LOOP;
    RETURN cycles(live.id);
END $$;
SELECT is(live(11, 'known', 'mql', 'recycled', 'mql', 'sal'), 'known 1, mql 1, recycled 1, mql 2, sal 2', 'path, detour, path: the second cycle');
SELECT is(live(12, 'recycled', 'mql', 'recycled', 'disqualified', 'recycled', 'sal'), 'recycled 1, mql 1, recycled 1, disqualified 1, recycled 1, sal 2',
    'a cycle that began on a detour and never touched the path goes on; moves between detours begin none');
SELECT is(live(13, 'lost', 'disqualified', 'recycled', 'engaged'), 'lost 1, disqualified 1, recycled 1, engaged 1', 'detours only, then the path: still the first');
SELECT is(live(14, 'mql', 'lost', 'customer', 'recycled', 'mql', 'disqualified', 'sql'), 'mql 1, lost 1, customer 2, recycled 2, mql 3, disqualified 3, sql 4',
    'each way back is one more');
SELECT is(live(15, 'mql', '-', 'recycled', 'mql', 'lost', 'mql'), 'mql 1, - 1, recycled 2, mql 2, lost 2, mql 3',
    'a key that comes back begins the next cycle, which on a detour has not touched the path');
SELECT is(live(16, 'mql', 'lost', '-', 'lost', '-', 'lost', 'sql'), 'mql 1, lost 1, - 1, lost 2, - 2, lost 3, sql 3',
    'the path that an earlier cycle touched does not count');
SELECT is((SELECT array_agg(reached::text ORDER BY seq) FROM leads_history WHERE lead = 15),
    ARRAY['{mql}', '{mql}', '{recycled,NULL,mql}', '{recycled,mql}', '{recycled,mql,lost}', '{mql,NULL,recycled,lost}'],
    'reached: this cycle first, then what only earlier ones reached');
SELECT is((SELECT array_agg(lifecycle.reached_in_cycle(reached)::text ORDER BY seq) FROM leads_history WHERE lead = 15),
    ARRAY['{mql}', '{mql}', '{recycled}', '{recycled,mql}', '{recycled,mql,lost}', '{mql}'], 'reached_in_cycle() gives the cycle''s part');
SELECT is((SELECT count(*) FROM leads_history h WHERE h.cycle_since <> (SELECT min(f.at) FROM leads_history f WHERE f.lead = h.lead AND f.cycle = h.cycle)),
    0::bigint, 'cycle_since is the first move of the cycle');

-- A lead that is older than track() comes into the history with its first move.
CREATE TABLE old_leads (id int PRIMARY KEY, stage text, name text, created timestamptz);
INSERT INTO old_leads VALUES (1, 'mql', 'a', '2020-01-01'), (2, NULL, 'b', '2020-01-01'), (3, 'mal', 'c', '2020-01-01'), (4, 'sql', 'd', '2020-01-01');
SELECT lifecycle.track('old_leads', model => 'etumos', status_column => 'stage', entered => 'created');
SELECT throws_ok($$UPDATE old_leads SET stage = 'mal' WHERE id = 1$$, '23514', NULL, 'such a lead obeys the model');
UPDATE old_leads SET name = 'same';
SELECT is_empty('SELECT * FROM old_leads_history', 'a write that does not move it leaves it outside');
UPDATE old_leads SET stage = 'customer';
DELETE FROM old_leads WHERE id = 4;
SELECT results_eq('SELECT lead, seq, to_status, cause, at = ''2020-01-01'' FROM old_leads_history ORDER BY lead, seq',
    $$VALUES (1, 1, 'mal', 'backfill', true), (1, 2, 'mql', 'backfill', false), (1, 3, 'customer', 'write', false),
             (2, 1, 'customer', 'entry', true),
             (3, 1, 'mal', 'backfill', true), (3, 2, 'customer', 'write', false),
             (4, 1, 'mal', 'backfill', true), (4, 2, 'sql', 'backfill', false), (4, 3, 'customer', 'write', false), (4, 4, NULL, 'delete', false)$$,
    'its entry and the status it was found in are backfilled, then the move follows; NULL enters');
SELECT is_empty($$SELECT * FROM lifecycle.verify('old_leads')$$, 'verify() finds nothing');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'here neither');

SELECT * FROM finish();
