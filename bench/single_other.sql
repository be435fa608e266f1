-- For pgbench: another column of one lead changes.
\set id random(1, :leads)
UPDATE public.leads SET employees = employees + 1 WHERE id = :id;
