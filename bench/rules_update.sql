-- :leads UPDATEs of one row each in one transaction, of a column that no rule
-- reads, as :variant: the work of the processor without commits and round trips.
SELECT bench.fresh(:'variant', :leads);
VACUUM ANALYZE public.leads;
CHECKPOINT;

SELECT clock_timestamp() AS started \gset
DO $$
BEGIN
    FOR n IN 1 .. (SELECT max(id) FROM public.leads) LOOP
        UPDATE public.leads SET owner_id = coalesce(owner_id, 0) + 1 WHERE id = n;
    END LOOP;
END
$$;
INSERT INTO bench.result
VALUES (:'measure', :'variant', :round, extract(epoch FROM clock_timestamp() - :'started') / :leads);

SELECT bench.prove(:'measure', :'variant', :leads, :round = 1);
