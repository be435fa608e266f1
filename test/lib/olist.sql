-- The funnel of a real marketplace, for tests: tables "leads", still empty, and
-- "deals", with what was won; :leads_file holds the leads. To be read in with
-- \ir ../lib/olist.sql.
--
-- The files are not ours to ship: they are read from the folder
-- $LIFECYCLE_SHARED. Without it :olist_is_there is false, and the plan says that
-- the test is skipped.

\set olist_is_there false
\getenv shared LIFECYCLE_SHARED
\if :{?shared}
    SELECT :'shared' || '/data/olist/olist_marketing_qualified_leads_dataset.csv' AS leads_file,
           :'shared' || '/data/olist/olist_closed_deals_dataset.csv' AS deals_file \gset
    SELECT coalesce((pg_stat_file(:'leads_file', true)).size > 0
                    AND (pg_stat_file(:'deals_file', true)).size > 0, false) AS olist_is_there \gset
    \if :olist_is_there
    \else
        \echo 1..0 # SKIP $LIFECYCLE_SHARED/data/olist does not have the two files
        \quit
    \endif
\else
    \echo 1..0 # SKIP LIFECYCLE_SHARED is not set: no folder with the Olist files
    \quit
\endif

CREATE TABLE leads (
    mql_id             text PRIMARY KEY,
    first_contact_date date NOT NULL,
    landing_page_id    text,
    origin             text
);
CREATE TABLE deals (
    mql_id text PRIMARY KEY, seller_id text, sdr_id text, sr_id text, won_date timestamp NOT NULL,
    business_segment text, lead_type text, lead_behaviour_profile text, has_company text, has_gtin text,
    average_stock text, business_type text, declared_product_catalog_size text, declared_monthly_revenue numeric
);
COPY deals FROM :'deals_file' (FORMAT csv, HEADER);
