-- For pgbench: one activity of any lead.
\set lead random(1, :leads)
\set kind random(1, 10)
INSERT INTO public.activities (id, lead_id, kind, url, occurred_at)
VALUES (nextval('bench.activity_id'), :lead,
        CASE WHEN :kind <= 5 THEN 'visit' WHEN :kind <= 7 THEN 'opened' WHEN :kind = 8 THEN 'clicked' WHEN :kind = 9 THEN 'bounced' ELSE 'form' END,
        CASE WHEN :kind = 3 THEN '/pricing' ELSE '/docs' END, now());
