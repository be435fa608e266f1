-- All activities, in batches, as :variant.  The checkpoint comes before the tables:
-- pages that are younger than it are not written to the WAL as a whole.
CHECKPOINT;
SELECT bench.fresh(:'variant');
VACUUM ANALYZE public.leads;

SELECT clock_timestamp() AS started, bench.cpu() AS cpu, pg_current_wal_insert_lsn() AS lsn \gset
CALL bench.load(:activities, :batch);
INSERT INTO bench.result
VALUES (:'measure', :'variant', :round, extract(epoch FROM clock_timestamp() - :'started') / :activities,
        (bench.cpu() - nullif(:'cpu', '')::float8) / :activities, (pg_current_wal_insert_lsn() - :'lsn'::pg_lsn)::float8 / :activities);

SELECT bench.prove(:'measure', :'variant');
