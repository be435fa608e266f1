-- One COPY of :leads leads into an empty table, as :variant.
SELECT bench.fresh(:'variant');
SELECT :'variant' = 'floor' AS floor \gset
CHECKPOINT;

SELECT clock_timestamp() AS started, pg_current_wal_insert_lsn() AS lsn \gset
BEGIN;
COPY public.leads (id, email, first_name, last_name, company, title, country, city, utm_source, updated_by,
                   lost_reason, expected_revenue, employees, created_at) FROM :'file';
\if :floor
SELECT bench.write_entries();
\endif
COMMIT;
INSERT INTO bench.result
VALUES ('copy', :'variant', :round, extract(epoch FROM clock_timestamp() - :'started'),
        pg_wal_lsn_diff(pg_current_wal_insert_lsn(), :'lsn'));

SELECT bench.prove('copy', :'variant', :leads, :leads, 0, :round = 1);
