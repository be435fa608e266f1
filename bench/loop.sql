-- :leads UPDATEs of one row each in one transaction, as :variant: the work of
-- the processor without commits and round trips; :measure says whether they move.
SELECT bench.fresh(:'variant', :leads, 70);
VACUUM ANALYZE public.leads;
SELECT :'measure' = 'loop_move' AS moves \gset
CHECKPOINT;

SELECT clock_timestamp() AS started, pg_current_wal_insert_lsn() AS lsn \gset
\if :moves
DO $$
BEGIN
    FOR n IN 1 .. (SELECT max(id) FROM public.leads) LOOP
        UPDATE public.leads SET lifecycle_status = 'mql' WHERE id = n;
    END LOOP;
END
$$;
\else
DO $$
BEGIN
    FOR n IN 1 .. (SELECT max(id) FROM public.leads) LOOP
        UPDATE public.leads SET employees = employees + 1 WHERE id = n;
    END LOOP;
END
$$;
\endif
INSERT INTO bench.result
VALUES (:'measure', :'variant', :round, extract(epoch FROM clock_timestamp() - :'started') / :leads,
        pg_wal_lsn_diff(pg_current_wal_insert_lsn(), :'lsn') / :leads);

SELECT bench.prove(:'measure', :'variant', :leads, :leads, CASE WHEN :'moves' THEN :leads ELSE 0 END, false);
