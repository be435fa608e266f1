-- What happens in 2025: made up here, always the same, on every machine.
--
-- All chance comes from demo.chance(), a hash; there is no random() and no
-- clock. The result is three tables: the leads that come, the plan of what
-- becomes of each of them, and what they do.

CREATE SCHEMA demo;

CREATE FUNCTION demo.chance(lead int, what text) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ('x' || left(md5(what || '/' || lead), 12))::bit(48)::bigint / 281474976710656.0;

COMMENT ON FUNCTION demo.chance(int, text) IS 'From 0 to 1, the same for the same lead and question.';

CREATE FUNCTION demo.pick(choices text[], lead int, what text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN choices[1 + floor(demo.chance(lead, what) * cardinality(choices))::int];

-- Words.
CREATE TABLE demo.words AS
SELECT string_to_array(w.first_names, ' ') AS first_names, string_to_array(w.last_names, ' ') AS last_names,
       string_to_array(w.company_heads, ' ') AS company_heads, string_to_array(w.company_tails, ' ') AS company_tails,
       string_to_array(w.industries, ', ') AS industries, string_to_array(w.titles, ', ') AS titles
FROM (VALUES (
    'Ada Amir Anika Bela Bruno Carla Chen Clara Dario Deniz Edda Emil Esra Farah Felix Finn Greta Hana Hugo Ida Ines Ivo Jana Jonas Kaya Lars Lea Leon Lina Luca Mara Mats Mila Nadia Nils Nora Omar Oskar Paula Petra Rafa Rosa Sami Selma Sofia Tariq Thea Timo Vera Yuki',
    'Abel Adler Arslan Bauer Berg Blum Brandt Castro Costa Dahl Diaz Ebert Falk Fischer Frank Gomez Haas Hahn Hansen Hartmann Ito Jansen Jung Kaiser Keller Klein Koch Kowalski Kruger Lang Lindner Lopez Maier Moreau Nagy Novak Olsen Park Peters Popov Rossi Roth Sato Schmidt Silva Sommer Stein Vogel Weber Wolf',
    'Nord Sued Alpen Rhein Elb Blau Gruen Stern Eichen Falken Silber Quell Birken Hafen Berg Feld',
    'werk logistik optik technik druck pharma bau energie daten moebel labor textil medien handel metall apotheken',
    'logistics, manufacturing, retail, health, software, energy, construction, media',
    'Buyer, Head of Purchasing, Operations Manager, IT Manager, CFO, Managing Director, Analyst, Project Manager, Head of Marketing, Engineer'
)) AS w (first_names, last_names, company_heads, company_tails, industries, titles);

-- Where leads come from. quality: how much likelier than usual they go on.
CREATE TABLE demo.source (name text, share double precision, quality double precision, entry_status text);
INSERT INTO demo.source VALUES
    ('organic search', 0.29, 1.00, 'known'),
    ('paid search',    0.24, 0.80, 'known'),
    ('webinar',        0.14, 1.05, 'mal'),
    ('cold outreach',  0.12, 0.55, 'known'),
    ('trade fair',     0.10, 1.10, 'mal'),
    ('referral',       0.07, 1.65, 'mql'),
    ('partner',        0.04, 1.40, 'sal');

-- What becomes of a lead in a status: how many of a hundred go where, after
-- about how many days. Who is left over stays.
CREATE TABLE demo.habit (from_status text, to_status text, percent double precision, days double precision, forward boolean);
INSERT INTO demo.habit VALUES
    ('known', 'mal', 58, 6, true),          ('known', 'engaged', 9, 9, true),         ('known', 'disqualified', 11, 7, false),
    ('mal', 'engaged', 56, 12, true),       ('mal', 'mql', 6, 5, true),               ('mal', 'disqualified', 5, 10, false),
    ('engaged', 'mql', 50, 18, true),       ('engaged', 'disqualified', 3, 20, false),
    ('mql', 'sal', 60, 2, true),            ('mql', 'recycled', 20, 6, false),        ('mql', 'disqualified', 9, 3, false),
    ('sal', 'sql', 52, 7, true),            ('sal', 'recycled', 24, 12, false),       ('sal', 'disqualified', 6, 6, false),
    ('sal', 'lost', 4, 12, false),
    ('sql', 'opportunity', 62, 9, true),    ('sql', 'recycled', 14, 20, false),       ('sql', 'lost', 13, 18, false),
    ('opportunity', 'customer', 33, 42, true), ('opportunity', 'lost', 50, 34, false),
    ('customer', 'recycled', 8, 130, false),
    ('recycled', 'engaged', 16, 45, false), ('recycled', 'mql', 17, 60, true),        ('recycled', 'disqualified', 8, 40, false),
    ('lost', 'mql', 9, 75, true),           ('lost', 'recycled', 28, 35, false),
    ('disqualified', 'recycled', 5, 60, false);

CREATE TABLE demo.reason (to_status text, reasons text[]);
INSERT INTO demo.reason VALUES
    ('disqualified', '{student,competitor,no such company,private person,wrong region}'),
    ('recycled',     '{no budget this year,no answer,project postponed,too early}'),
    ('lost',         '{price,chose a competitor,missing feature,no decision}');

-- Which day a lead comes: few at weekends, few in August and around Christmas, more by the end of the year.
CREATE TABLE demo.day AS
SELECT d.day, sum(d.weight) OVER (ORDER BY d.day) / sum(d.weight) OVER () AS up_to
FROM (SELECT g.day::date AS day,
             CASE WHEN extract(isodow FROM g.day) > 5 THEN 0.25 ELSE 1 END
             * (ARRAY[0.9, 1, 1.15, 1.05, 1, 0.9, 0.75, 0.6, 1.15, 1.25, 1.15, 0.6])[extract(month FROM g.day)::int]
             * (1 + extract(doy FROM g.day) / 900) AS weight
      FROM generate_series(timestamp '2025-01-02', '2025-12-30', '1 day') AS g (day)) AS d;

-- 900 accounts.
INSERT INTO crm.accounts
SELECT n, demo.pick(w.company_heads, n, 'head') || demo.pick(w.company_tails, n, 'tail') || ' '
          || demo.pick('{GmbH,AG,KG,SE}', n, 'form'),
       demo.pick(w.industries, n, 'industry'), (5 * exp(6 * demo.chance(n, 'employees')))::int
FROM generate_series(1, 900) AS n, demo.words w;

-- 5,000 leads.
CREATE TABLE demo.new_lead AS
SELECT (row_number() OVER (ORDER BY t.created_at, l.n))::int AS id, l.n AS seed,
       1 + floor(900 * demo.chance(l.n, 'account') ^ 1.5)::int AS account_id,
       p.first_name, p.last_name, lower(p.first_name || '.' || p.last_name) || l.n || '@example.com' AS email,
       demo.pick(w.titles, l.n, 'title') AS title, s.name AS source, s.quality,
       s.entry_status AS lifecycle_status,
       -- one in thirty asks to be called at once
       demo.chance(l.n, 'hand raise') < 0.03 AND s.entry_status IN ('known', 'mal') AS hand_raise,
       t.created_at,
       CASE s.name WHEN 'partner' THEN 'partner portal' WHEN 'cold outreach' THEN 'outreach team'
                   WHEN 'trade fair' THEN 'list import' ELSE 'web form' END AS updated_by
FROM generate_series(1, 5000) AS l (n)
CROSS JOIN demo.words w
CROSS JOIN LATERAL (SELECT demo.pick(w.first_names, l.n, 'first name'), demo.pick(w.last_names, l.n, 'last name')) AS p (first_name, last_name)
JOIN LATERAL (SELECT s.*, sum(s.share) OVER (ORDER BY s.share DESC, s.name) - s.share AS above FROM demo.source s) AS s
  ON demo.chance(l.n, 'source') >= s.above AND demo.chance(l.n, 'source') < s.above + s.share
CROSS JOIN LATERAL (
    SELECT (CASE WHEN s.name = 'trade fair'
                 THEN CASE WHEN demo.chance(l.n, 'fair') < 0.45 THEN date '2025-03-18' ELSE date '2025-10-08' END
                 ELSE (SELECT d.day FROM demo.day d WHERE d.up_to > demo.chance(l.n, 'day') ORDER BY d.day LIMIT 1) END
            + interval '7 hours' + 840 * demo.chance(l.n, 'minute') * interval '1 minute') AT TIME ZONE 'UTC') AS d (at)
CROSS JOIN LATERAL (SELECT date_trunc('minute', d.at)) AS t (created_at);

-- What becomes of each: one row for each thing that somebody does to a lead.
CREATE TABLE demo.plan (at timestamptz, lead int, status text, updated_by text, reason text);

CREATE FUNCTION demo.working_time(at timestamptz, lead int, what text) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE
RETURN date_trunc('day', at, 'UTC')
       + greatest(0, extract(isodow FROM at AT TIME ZONE 'UTC') - 5) % 3 * interval '1 day'
       + CASE WHEN extract(isodow FROM at AT TIME ZONE 'UTC') = 6 THEN interval '1 day' ELSE interval '0' END
       + interval '8 hours' + floor(600 * demo.chance(lead, what)) * interval '1 minute';

COMMENT ON FUNCTION demo.working_time(timestamptz, int, text) IS 'Some time of that day, or of the Monday after it.';

CREATE FUNCTION demo.plan_lead(new demo.new_lead) RETURNS SETOF demo.plan
    LANGUAGE plpgsql
AS $$
DECLARE
    step int := 0;
    status text := CASE WHEN new.hand_raise THEN 'mql' ELSE new.lifecycle_status END;
    at timestamptz := new.created_at;
    gone timestamptz := CASE WHEN demo.chance(new.seed, 'gone') < 0.005
                             THEN demo.working_time(new.created_at + interval '30 days', new.seed, 'gone at') END;
    habit record;
    row demo.plan;
BEGIN
    LOOP
        step := step + 1;
        SELECT h.to_status, h.days INTO habit
        FROM (SELECT h.*, sum(h.percent / 100 * CASE WHEN h.forward THEN new.quality ^ 0.55 ELSE new.quality ^ -0.3 END)
                          OVER (ORDER BY h.forward DESC, h.to_status) AS up_to
              FROM demo.habit h WHERE h.from_status = status) AS h
        WHERE h.up_to > demo.chance(new.seed, 'where ' || step)
        ORDER BY h.up_to
        LIMIT 1;
        EXIT WHEN NOT FOUND;
        status := habit.to_status;
        at := greatest(at + interval '4 minutes',
                       demo.working_time(at + habit.days * 0.8 * interval '1 day'
                                         * exp(1.5 * (demo.chance(new.seed, 'days ' || step)
                                                      + demo.chance(new.seed, 'more days ' || step) - 1)),
                                         new.seed, 'time ' || step));
        EXIT WHEN at >= least(gone, '2026-01-01 00:00+00');
        row := (at, new.id, status,
                CASE WHEN status IN ('mal', 'engaged', 'mql') THEN 'marketing automation'
                     WHEN status IN ('opportunity', 'customer', 'lost')
                     THEN demo.pick('{Theo,Marta,Jun,Olga}', new.seed, 'account executive')
                     WHEN status = 'disqualified' AND step <= 2 THEN 'data team'
                     ELSE demo.pick('{Kim,Aziz,Lotte,Pavel,Rita}', new.seed, 'sales development') END,
                (SELECT demo.pick(r.reasons, new.seed, 'why ' || step) FROM demo.reason r WHERE r.to_status = status));
        RETURN NEXT row;
    END LOOP;
    IF gone < '2026-01-01 00:00+00' THEN
        row := (gone, new.id, NULL, 'data team', NULL);
        RETURN NEXT row;
    END IF;
END
$$;

INSERT INTO demo.plan SELECT p.* FROM demo.new_lead n CROSS JOIN LATERAL demo.plan_lead(n) AS p;

-- What they do: before somebody does something to a lead it has read, listened
-- or answered; and the hand raises.
CREATE TABLE demo.activity AS
SELECT p.lead AS lead_id, demo.pick('{visit,visit,mail,mail,mail,webinar}', p.lead, 'what ' || p.at || n.n) AS kind,
       demo.pick('{/pricing,/product,/blog}', p.lead, 'page ' || p.at || n.n) AS page,
       p.at - (3 + 7000 * demo.chance(p.lead, 'when ' || p.at || n.n)) * interval '1 minute' AS at
FROM demo.plan p
JOIN demo.new_lead l ON l.id = p.lead
CROSS JOIN LATERAL generate_series(1, floor(4 * demo.chance(p.lead, 'how many ' || p.at))::int) AS n (n)
WHERE p.status IS NOT NULL
UNION ALL
SELECT l.id, 'form', '/contact-sales', l.created_at + interval '2 minutes' FROM demo.new_lead l WHERE l.hand_raise;
DELETE FROM demo.activity a USING demo.new_lead l WHERE l.id = a.lead_id AND a.at < l.created_at;
