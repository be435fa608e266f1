-- One UPDATE of every second of :leads leads, as :variant; :measure says
-- whether it moves them.
SELECT bench.fresh(:'variant', :leads, 70);
VACUUM ANALYZE public.leads;
SELECT :'measure' = 'update_move' AS moves, :'measure' = 'update_move' AND :'variant' = 'floor' AS floor \gset
CHECKPOINT;

SELECT clock_timestamp() AS started, pg_current_wal_insert_lsn() AS lsn \gset
BEGIN;
\if :moves
UPDATE public.leads SET lifecycle_status = 'mql' WHERE id % 2 = 0;
\else
UPDATE public.leads SET employees = employees + 1 WHERE id % 2 = 0;
\endif
\if :floor
SELECT bench.write_moves();
\endif
COMMIT;
INSERT INTO bench.result
VALUES (:'measure', :'variant', :round, extract(epoch FROM clock_timestamp() - :'started'),
        pg_wal_lsn_diff(pg_current_wal_insert_lsn(), :'lsn'));

SELECT bench.prove(:'measure', :'variant', :leads, :leads, CASE WHEN :'moves' THEN :leads / 2 ELSE 0 END, :round = 1);
