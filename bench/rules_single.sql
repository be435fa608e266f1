-- For pgbench: a column of one lead changes that no rule reads.
\set id random(1, :leads)
UPDATE public.leads SET owner_id = coalesce(owner_id, 0) + 1 WHERE id = :id;
