-- One COPY of :leads leads into an empty table, as :variant.
SELECT bench.fresh(:'variant');
SELECT :'variant' = 'floor' AS floor \gset
CHECKPOINT;

SELECT clock_timestamp() AS started \gset
BEGIN;
COPY public.leads (id, email, first_name, last_name, company, title, industry, country, city, phone, employees,
                   annual_revenue, utm_source, owner_id, last_seen_at, created_at) FROM :'file';
\if :floor
SELECT bench.write_entries(:leads);
\endif
COMMIT;
INSERT INTO bench.result
VALUES (:'measure', :'variant', :round, extract(epoch FROM clock_timestamp() - :'started') / :leads);

SELECT bench.prove(:'measure', :'variant', :leads, :round = 1);
