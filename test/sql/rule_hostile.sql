-- Random expressions, valid, half-valid and hostile, as conditions and points of
-- rules, and at work: errors of the expression's own, never an internal one, and
-- no memory that stays. `make soak` does the same with many more.
CREATE EXTENSION lifecycle;
SELECT no_plan();

SET client_min_messages = error;
\ir ../lib/hostile.sql
\copy hostile.expression FROM PROGRAM 'perl test/lib/hostile_expressions.pl 2000 20260101'
SET statement_timeout = '5s';
\o /dev/null
SELECT format('SELECT hostile.attempt(%s, %L)', n, (ARRAY['condition', 'points', 'status'])[1 + n % 3]) FROM hostile.expression ORDER BY n LIMIT 200 \gexec
SELECT * FROM hostile.memory() \gset before_
SELECT format('SELECT hostile.attempt(%s, %L)', n, (ARRAY['condition', 'points', 'status'])[1 + n % 3]) FROM hostile.expression ORDER BY n OFFSET 200 \gexec
SELECT * FROM hostile.memory() \gset after_
\o
RESET statement_timeout;

SELECT is((SELECT count(*) FROM hostile.outcome), 2000::bigint, 'every expression has an outcome');
SELECT is_empty($$SELECT e.n, o.refused, o.failed, o.message, left(e.expression, 200) FROM hostile.outcome o JOIN hostile.expression e USING (n)
                  WHERE o.refused LIKE 'XX%' OR o.failed LIKE 'XX%'$$, 'no internal error');
SELECT cmp_ok((SELECT count(*) FROM hostile.outcome WHERE failed = '00000'), '>', 150::bigint, 'many are taken and work');
SELECT cmp_ok((SELECT count(DISTINCT refused) FROM hostile.outcome), '>', 15::bigint, 'the others are refused for many reasons');
SELECT cmp_ok((:after_ours - :before_ours)::bigint, '<=', 64::bigint, 'what we keep of all that is less than 64 kB more than after the first 200');
SELECT is((SELECT count(*) FROM hostile.lead), 24::bigint, 'no lead came or went');
SELECT is_empty('SELECT * FROM lifecycle.rule', 'no rule is left');
SELECT is_empty($$SELECT * FROM lifecycle.verify('hostile.lead')$$, 'the history is whole');
SELECT * FROM finish();
