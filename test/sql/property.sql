-- Thousands of random statements of all kinds against a naive reference, with
-- batching on and off, with and without users' triggers that write leads inside
-- ours (test/lib/property.sql says how). The seed is another one each time,
-- and printed; PROPERTY_SEED=0.25 make test TESTS=property repeats it.
CREATE EXTENSION lifecycle;
SELECT plan(4);

\ir ../lib/seed.sql

SELECT setseed(:seed);
-- 24 rounds: each model with each way of meddling and each way of batching
SELECT format('CALL property.round(%s, 7)', r) FROM generate_series(0, 23) AS r ORDER BY r \gexec

-- the same of partitioned tables: through the tracked table and at the leaves,
-- of which some are detached, exchanged and attached between transactions
SELECT format('CALL property.round(%s, 2, %L)', 24 + r, (ARRAY['range', 'hash'])[1 + r % 2]) FROM generate_series(0, 11) AS r ORDER BY r \gexec

SELECT is((SELECT count(*) FROM property.outcome), 36::bigint, 'in all rounds the history is that of the reference');
SELECT cmp_ok((SELECT sum(statements) FROM property.outcome), '>=', 3000::numeric, 'at least 3000 statements ran');
SELECT cmp_ok((SELECT sum(failures) / sum(statements) FROM property.outcome), '>', 0.05, 'some of them had to fail, and did');
SELECT cmp_ok((SELECT sum(moves) FROM property.outcome), '>', 2000::numeric, 'they made moves');
SELECT diag(format('%s statements, %s of which failed as they must, %s moves, %s refused', sum(statements), sum(failures), sum(moves), sum(refused)))
FROM property.outcome;
SELECT * FROM finish();
