-- For pgbench: one lead moves, mql, recycled, engaged, mql and so on.
\set id random(1, :leads)
UPDATE public.leads
SET lifecycle_status = (CASE lifecycle_status WHEN 'mql' THEN 'recycled' WHEN 'recycled' THEN 'engaged'
                                         ELSE 'mql' END)::lifecycle.lifecycle_status
WHERE id = :id;
