-- The property test of test/sql/property.sql, longer: rounds until :statements
-- have run. Called by test/soak/run; PROPERTY_SEED is set.
\set ON_ERROR_STOP 1
CREATE EXTENSION lifecycle;
\getenv seed PROPERTY_SEED
\getenv directory TMPDIR
SET property.directory = :'directory';
\ir ../lib/property.sql
\ir ../lib/property_statements.sql
SET client_min_messages = warning;

SELECT setseed(:seed) \g /dev/null
-- a round of 50 transactions is some 1000 statements
-- and two of five are over a partitioned table, one of four with imports
SELECT format('CALL property.round(%s, 50, %L, %L)', r, (ARRAY['none', 'range', 'none', 'hash', 'none'])[1 + r % 5], r % 4 = 3) FROM generate_series(0, greatest(11, :statements / 800)) AS r ORDER BY r \gexec

SELECT format('%s rounds, %s statements, %s of which failed as they must, %s moves, %s refused',
              count(*), sum(statements), sum(failures), sum(moves), sum(refused))
FROM property.outcome;
SELECT sum(statements) < :statements AS too_few FROM property.outcome \gset
\if :too_few
    \warn too few statements ran
    SELECT 1 / 0;
\endif
