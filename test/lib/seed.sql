-- What a property test begins with: :seed, another one each time or that of
-- PROPERTY_SEED, printed so that a run can be repeated; and the machinery. To be
-- read in with \ir ../lib/seed.sql.

\set seed ''
\getenv seed PROPERTY_SEED
SELECT CASE WHEN :'seed' = '' THEN round(random()::numeric, 6)::text ELSE :'seed' END AS seed \gset
\echo # PROPERTY_SEED=:seed
\getenv directory TMPDIR
SET property.directory = :'directory';

\ir property.sql
\ir property_statements.sql
