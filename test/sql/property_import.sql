-- Random imports among random statements, against the naive reference of the
-- property test (test/lib/property.sql says how): rows in any order, many to be
-- refused, some to be warned of; on plain and on partitioned tables, with
-- batching on and off. After each import what it reported, and after each
-- transaction the history, must be the reference's. PROPERTY_SEED=0.25
-- make test TESTS=property_import repeats a run.
CREATE EXTENSION lifecycle;
SELECT plan(4);

\ir ../lib/seed.sql

SELECT setseed(:seed);
-- each model with each way of batching and each kind of table
SELECT format('CALL property.round(%s, 4, %L, imports => true)', r, (ARRAY['none', 'range', 'hash'])[1 + (r / 8) % 3])
FROM generate_series(0, 23) AS r ORDER BY r \gexec

SELECT is((SELECT count(*) FROM property.outcome), 24::bigint, 'in all rounds the history and what was reported are those of the reference');
SELECT is((SELECT count(*) FROM property.imported), 11::bigint, 'every problem was met');
SELECT cmp_ok((SELECT n FROM property.imported WHERE problem = 'none'), '>', 100::bigint, 'many rows were imported without');
SELECT cmp_ok((SELECT sum(moves) FROM property.outcome), '>', 1000::numeric, 'there were moves');
SELECT diag(format('%s statements, %s moves, rows of imports: %s', sum(statements), sum(moves),
                   (SELECT string_agg(format('%s %s', i.n, i.problem), ', ' ORDER BY i.problem) FROM property.imported i)))
FROM property.outcome;
SELECT * FROM finish();
