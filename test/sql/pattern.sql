-- The matches that rules use in the place of the server's LIKE, ILIKE, ~ and ~*:
-- the same answers and errors for every pattern, subject and collation.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE TABLE matcher (name text, operator text, regex boolean);
INSERT INTO matcher VALUES ('matches_like', 'LIKE', false), ('matches_ilike', 'ILIKE', false),
                           ('matches_regex', '~', true), ('matches_iregex', '~*', true);

-- The collations that this server has, and one that the server refuses matches under.
CREATE TABLE tried (name regcollation PRIMARY KEY);
INSERT INTO tried SELECT format('pg_catalog.%I', collname)::regcollation FROM pg_collation
WHERE collnamespace = 'pg_catalog'::regnamespace AND collencoding IN (-1, pg_char_to_encoding('UTF8'))
  AND collname IN ('default', 'C', 'C.utf8', 'ucs_basic', 'pg_c_utf8', 'pg_unicode_fast', 'und-x-icu', 'tr-x-icu',
                   'lt-x-icu', 'en_US.utf8', 'tr_TR.utf8');
DO $$
BEGIN
    CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    INSERT INTO tried VALUES ('loose');
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'this server has no ICU';
END
$$;
SELECT cmp_ok(count(*), '>=', 3::bigint, 'there are collations to try') FROM tried;

-- Where the function differs from the operator, or one of them fails otherwise than
-- the other. The subjects come as often as it takes for a pattern to be looked into.
CREATE FUNCTION differences(function text, operator text, pattern text, subjects text[], under regcollation)
    RETURNS SETOF text
    LANGUAGE plpgsql
AS $$
DECLARE
    theirs text := format('subject COLLATE %s %s %L', under, operator, pattern);
    ours text := format('lifecycle.%I(subject COLLATE %s, %L)', function, under, pattern);
BEGIN
    RETURN QUERY EXECUTE format('SELECT DISTINCT concat_ws('' '', quote_literal(subject), %L, %L) FROM unnest($1 || $1) AS s (subject)
        WHERE (%s) IS DISTINCT FROM %s', operator || ' ' || quote_literal(pattern), under, theirs, ours) USING subjects;
EXCEPTION WHEN OTHERS THEN
    RETURN QUERY
    SELECT concat_ws(' ', quote_literal(subject), operator, quote_literal(pattern), under, 'fails otherwise')
    FROM (SELECT subject FROM unnest(subjects) AS s (subject) LIMIT 3) AS s (subject)
    WHERE failure(format('SELECT %s FROM (VALUES (%L::text)) AS s (subject)', theirs, subject))
        <> failure(format('SELECT %s FROM (VALUES (%L::text)) AS s (subject)', ours, subject));
END
$$;

-- ---- picked by hand ----

-- (From 18 on the server matches LIKE under a nondeterministic collation, by a search
-- that took more than ten minutes for a long subject and a few gaps.)

CREATE TABLE subject (subject text);
INSERT INTO subject VALUES
    (''), ('a'), ('A'), ('ab'), ('abc'), ('ABC'), ('aXbXc'), ('abab'), ('aab'), ('gmail'), ('GMAIL'), ('x@gmail.com'), ('X@GMAIL.COM'),
    ('x@gmail.com.de'), ('x@yahoo.de'), ('gmailxcom'), ('x@Gmäil.com'), ('director'), ('DIRECTOR'), ('Marketing Director'), ('MARKETİNG DİRECTOR'),
    ('marketing dırector'), ('Direktorin für Äpfel'), ('ÄPFEL'), ('äpfel'), ('vp'), ('VP Sales'), ('vpx'), ('xvp'), ('Vice-VP.'), ('head of'), ('headless'),
    ('chief' || E'\n' || 'head'), (E'\u212A'), ('k'), ('K'), (E'10 \u212A'), ('ı'), ('İ'), ('i'), ('I'), (E'I\u0307'), ('ß'), ('SS'), ('ss'), ('ẞ'), ('straße'), ('STRASSE'),
    ('ſ'), ('s'), ('S'), ('Σας'), ('ΣΑΣ'), ('日本語'), ('日本'), ('本'), ('a日b本c'), ('😀'), ('a😀b'), ('%'), ('_'), ('a%b'), ('\'), ('a\b'), ('a.c'), ('a+c'), ('(x)'), ('***=a'),
    (' a '), (E'a\nb'), (E'a\tb'), ('a b'), (repeat('ab', 500)), (repeat('ä', 300)), (repeat('x', 400) || 'gmail'), ('aaaaaaaaab'), ('aaaaaaaaac'),
    ('acme.edu'), ('acme.gov'), ('acme.gov.uk'), ('2026-01-01'), ('q1w2'), ('zzz'), (E'I\u0300 J\u0301');

SELECT is_empty(
    $$ SELECT d FROM matcher, tried,
           (VALUES (''), ('%'), ('%%'), ('a'), ('A'), ('abc'), ('a%'), ('%a'), ('%a%'), ('%ab'), ('ab%'), ('%ab%'), ('a%c'), ('a%b%c'), ('%a%b%c%'), ('%a%a%'), ('a%a'), ('ab%ab'),
                   ('aba%bab'), ('%gmail%'), ('%GMAIL%'), ('%@gmail.com'), ('%@GMAIL.COM'), ('director'), ('%director%'), ('%DIRECTOR'), ('%İ%'), ('%ı%'), ('%i%'), ('%I%'), ('k'), ('K'), (E'\u212A'), ('%k%'),
                   ('ss'), ('ß'), ('%ß%'), ('%SS%'), ('s'), ('S'), ('ſ'), ('%σ%'), ('%Σ%'), ('%äpfel%'), ('Ä%'), ('%本%'), ('日%'), ('%語'), ('😀'), ('%😀%'), ('_'), ('__'), ('%_'), ('_%b'), ('a_c'), ('%_本_%'),
                   ('\'), ('a\'), ('%\'), ('\%'), ('\_'), ('a\%b'), ('\\'), ('a%\'), ('%b\'), (repeat('ab', 500)), (repeat('ab', 600)), ('%' || repeat('ab', 400) || '%'), (repeat('a', 200) || '%'), ('%aab'), ('%aaab%b'),
                   (repeat('a%', 60))) AS p (pattern),
           differences(matcher.name, operator, pattern, (SELECT array_agg(subject) FROM subject WHERE tried.name::text <> 'loose' OR length(subject) < 20), tried.name) AS d
       WHERE NOT regex AND (tried.name::text <> 'loose' OR length(pattern) < 20) $$, 'LIKE and ILIKE: the server''s answers');

CREATE TABLE expression (pattern text);
INSERT INTO expression VALUES
    (''), ('a'), ('A'), ('ab'), ('gmail'), ('GMAIL'), ('gmail\.com'), ('gmail.com'), ('@gmail'), ('director'), ('Director'), ('i'), ('I'), ('ı'), ('İ'), ('k'), ('K'), (E'\u212A'),
    ('s'), ('S'), ('ſ'), ('ß'), ('ss'), ('äpfel'), ('Ä'), ('本'), ('日本'), ('😀'), (' '), ('a b'), ('\@'), ('\_'), ('\%'), ('\ä'), ('\'), ('a\'), ('\\'), ('\a'), ('\d'), ('\1'),
    ('@(yahoo|gmail)\.'), ('\.(edu|gov)$'), ('\m(vp|chief|head|director)\M'), ('\<vp\>'), ('\yvp\y'), ('\Yp'), ('[[:<:]]vp[[:>:]]'), ('^vp'), ('vp$'), ('^vp$'), ('\Avp\Z'), ('^'), ('$'), ('^$'),
    ('a|b'), ('a|'), ('|a'), ('(|a)b'), ('(a|b)(c|d)?'), ('a*'), ('a+b'), ('a?b'), ('a{2}b'), ('a{0}b'), ('a{0,1}b'), ('(ab){2,}'), ('(ab){500}'), ('a.c'), ('a.*c'), ('a.*?c'), ('x.+@.+c'), ('[ab]c'), ('[^a]b'), ('[a-f]{3}'), ('[ı-ň]'),
    ('(a)\1'), ('(ab)\1'), ('(a|b)x?\1'), ('(?:a|b)c'), ('(?=a)ab'), ('a(?=b)'), ('a(?!b)'), ('(?!a)b'), ('(?<=a)b'), ('(?<!a)b'), ('(?<=^|x)vp'), ('(?=.*d)(?=.*t)r'), ('(?!x)'),
    ('(?i)gmail'), ('(?c)GMAIL'), ('(?x)g m a i l # mail'), ('(?n)^head'), ('(?q)a.c'), ('(?b)a\|b'), ('(?e)a|b'), ('(?w)chief$'), ('***=a.c'), ('***:a.c'), ('***=***=a'), ('***a'), ('(?#comment)a'), ('(?z)a'),
    ('('), (')'), ('[a'), ('a{2'), ('a{3,2}'), ('*a'), ('a**'), ('a{1}{2}'), ('[b-a]'), ('[[:foo:]]'), ('[[.a.]]'), ('[[=a=]]'), ('\x61b'), ('\u00e4'), ('\U0001F600'), ('a]'), ('a}'), ('}'), ('{'), ('a{,2}'), ('#'), ('a#b'), ('~'), ('"a"'), ('-'),
    ('\w'), ('\W'), ('\d+'), ('\D'), ('\s'), ('\S+\s\S+'), ('\w+@\w+\.com'), ('^\w+$'), ('[[:upper:]]+'), ('[[:lower:]]+'), ('[[:alpha:]][[:digit:]]'), ('\d{4}-\d{2}'), ('[@.]'), ('[^@]+@[^@]+'), ('(gmail|yahoo)'), ('(gmail|yahoo|x)'),
    ('a(b|c)*d'), ('(a*)*b'), ('(a|ab)(c|bcd)'), ('((((a))))'), ('(sales|marketing|äpfel)'), ('(äpfel|vp)'), ('q1|w2|zz'), ('[a-z]+[0-9]'), ('vp.*head|head.*vp'), ('.'), ('.*'), ('..'), ('x*y*z+'), ('z{2,3}$'), ('(?:vp|vpx)$'), ('VP|Head'), ('[Vv][Pp]'), ('[vV]p');

SELECT is_empty(
    $$ SELECT d FROM matcher, tried, expression,
           differences(matcher.name, operator, pattern, (SELECT array_agg(subject) FROM subject), tried.name) AS d
       WHERE regex $$, 'regular expressions: the server''s answers');

-- ---- at random ----

-- A text of 1 to n of the parts.
CREATE FUNCTION random_text(parts text[], n int) RETURNS text
    LANGUAGE sql VOLATILE
AS $$
    SELECT string_agg(parts[1 + floor(random() * cardinality(parts))::int], '')
    FROM generate_series(0, floor(random() * n)::int)
$$;

SELECT setseed(0.42);
CREATE TABLE random_subject AS SELECT random_text(ARRAY['a', 'b', 'c', 'A', 'B', 'k', 'K', 'i', 'I', 's', 'S', 'ab', 'foo', 'bar', 'FOO', '@', '.', ' ', '-', 'é', 'É', 'ß', 'ı', 'İ', E'\u212A', 'ſ', E'\n', '1', '日'], 12) AS subject
FROM generate_series(1, 140);
CREATE FUNCTION random_differences(matches text[], n int, parts text[], len int) RETURNS SETOF text
    LANGUAGE plpgsql
AS $$
DECLARE
    subjects text[] := (SELECT array_agg(subject) FROM random_subject);
    pattern text;
    collations regcollation[] := (SELECT array_agg(name ORDER BY name::text) FROM tried WHERE name::text <> 'loose');
BEGIN
    FOR i IN 1 .. n LOOP
        pattern := random_text(parts, len);
        RETURN QUERY SELECT d FROM matcher, differences(name, operator, pattern, subjects, collations[1 + i % cardinality(collations)]) AS d
        WHERE name = matches[1 + i / 2 % 2];
    END LOOP;
END
$$;
SELECT is_empty($$ SELECT random_differences('{matches_like,matches_ilike}', 1500,
    ARRAY['%', '%', '%', 'a', 'b', 'ab', 'A', 'K', 'i', 'I', 's', 'foo', 'FOO', 'r', '@', '.', ' ', 'é', 'ß', E'\u212A', 'ı', '_', '\', '1'], 6) $$, 'random patterns');
SELECT is_empty($$ SELECT random_differences('{matches_regex,matches_iregex}', 3000,
    ARRAY['a', 'b', 'c', 'ab', 'foo', 'FOO', '(foo|bar)', '(a|b|cc)', '(|a)', '(ab|é)', '@', '\.', '.', '\m', '\M', '\y', '^', '$', '[ab]', '[^a]', '[a-c]', '[k-s]', '\w', '\W', '\d', '\s', '(?=a)', '(?!b)', '(?<=a)', '(?<!c)',
          '*', '+', '?', '*?', '{2}', '{0,2}', '|', '|', '(', ')', 'k', 'K', 'i', 'I', 's', 'é', 'ß', 'ı', E'\u212A', '(ab?)\1', '(?i)', ' ', '1'], 7) $$, 'random regular expressions');
SELECT is_empty($$ SELECT random_differences('{matches_regex,matches_iregex}', 1500,
    ARRAY['a', 'b', 'k', 'ab', 'foo', 'bar', '@', '\.', '\m', '\M', '(foo|bar)', '(a|b)', '(foo|ab|k)', '.*', '[ab]'], 5) $$, 'random regular expressions that are valid');

-- ---- one call, several patterns; many patterns, one session ----

SELECT is_empty(
    $$ SELECT subject, pattern FROM expression, subject
       WHERE failure(format('SELECT '''' ~ %L', pattern)) = 'no error'
         AND ((subject ~ pattern) IS DISTINCT FROM lifecycle.matches_regex(subject, pattern)
              OR (subject ~* pattern) IS DISTINCT FROM lifecycle.matches_iregex(subject, pattern)) $$,
    'the pattern may change from call to call');
SELECT is_empty(
    $$ SELECT subject, pattern FROM subject, (VALUES ('a%'), ('%b'), ('%a%'), ('a_c'), ('%GMAIL%')) AS p (pattern)
       WHERE (subject LIKE pattern) IS DISTINCT FROM lifecycle.matches_like(subject, pattern)
          OR (subject ILIKE pattern) IS DISTINCT FROM lifecycle.matches_ilike(subject, pattern) $$,
    'that of LIKE too');
SELECT results_eq(
    format('SELECT s.subject, %s FROM random_subject AS s ORDER BY s.subject', (SELECT string_agg(format('s.subject ~ %L', 'a' || repeat('b?', n) || '[^x]'), ', ') FROM generate_series(1, 60) AS n)),
    format('SELECT s.subject, %s FROM random_subject AS s ORDER BY s.subject', (SELECT string_agg(format('lifecycle.matches_regex(s.subject, %L)', 'a' || repeat('b?', n) || '[^x]'), ', ') FROM generate_series(1, 60) AS n)),
    '60 regular expressions at once');
SELECT is((SELECT array[count(*) FILTER (WHERE lifecycle.matches_regex(subject, CASE n % 3 WHEN 0 THEN 'gmail' WHEN 1 THEN '@(yahoo|gmail)\.' ELSE 'a%' END)) > 0,
                        (SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'lifecycle pattern%') <= 1]
           FROM subject, generate_series(1, 60) AS n), ARRAY[true, true], 'a pattern leaves nothing behind when another comes');

-- ---- NULLs, and values that are compressed or elsewhere ----

SELECT is(lifecycle.matches_like(NULL, 'a'), NULL, 'no subject, no answer');
SELECT is(lifecycle.matches_iregex('a', NULL), NULL, 'no pattern, no answer');
CREATE TABLE large (id int, compressed text, elsewhere text);
ALTER TABLE large ALTER elsewhere SET STORAGE EXTERNAL;
INSERT INTO large SELECT n, repeat('x', 100000) || CASE n % 2 WHEN 0 THEN '@gmail.com' ELSE '' END, repeat('x', 100000) || CASE n % 2 WHEN 0 THEN '@GMAIL.com' ELSE '' END
FROM generate_series(1, 20) AS n;
SELECT is((SELECT array_agg(id ORDER BY id) FROM large WHERE lifecycle.matches_like(compressed, '%@gmail.com')), '{2,4,6,8,10,12,14,16,18,20}'::int[], 'a compressed subject');
SELECT is((SELECT array_agg(id ORDER BY id) FROM large WHERE lifecycle.matches_ilike(elsewhere, '%@gmail.com')), '{2,4,6,8,10,12,14,16,18,20}'::int[], 'one that is stored elsewhere');
SELECT is((SELECT count(*) FROM large WHERE lifecycle.matches_iregex(elsewhere, 'gmail') AND lifecycle.matches_regex(compressed, '@(gmail|yahoo)\.')), 10::bigint, 'the same for regular expressions');

-- ---- errors are the server's ----

SELECT is(failure($$SELECT lifecycle.matches_regex('a', '(')$$), '2201B: invalid regular expression: parentheses () not balanced', 'an invalid regular expression');
SELECT is(failure($$SELECT lifecycle.matches_iregex('a', 'a**')$$), failure($$SELECT 'a' ~* 'a**'$$), 'another one');
SELECT is(failure($$SELECT lifecycle.matches_like('a', '\')$$), '22025: LIKE pattern must not end with escape character', 'an unfinished LIKE pattern');
SELECT is(failure($$SELECT lifecycle.matches_regex('a' COLLATE loose, 'a')$$), '0A000: nondeterministic collations are not supported for regular expressions', 'a nondeterministic collation')
FROM tried WHERE name::text = 'loose';

-- ---- rules call them ----

SET track_functions = 'all';
CREATE ROLE pattern_owner;
CREATE TABLE leads (id int PRIMARY KEY, email text, title varchar(80));
ALTER TABLE leads OWNER TO pattern_owner;
SELECT lifecycle.track('leads');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES
    ('leads', 'like', $$ email LIKE '%@gmail.com' $$, '1'), ('leads', 'not like', $$ email NOT LIKE '%@gmail.com' $$, '2'),
    ('leads', 'ilike', $$ title ILIKE '%director%' $$, '4'), ('leads', 'not ilike', $$ title NOT ILIKE '%director%' $$, '8'),
    ('leads', 'regex', $$ email ~ '@(yahoo|gmail)\.' $$, '16'), ('leads', 'not regex', $$ email !~ 'gmail' $$, '32'),
    ('leads', 'iregex', $$ title ~* '\m(vp|director)\M' $$, '64'), ('leads', 'not iregex', $$ title !~* 'VP' $$, '128'),
    ('leads', 'nested', $$ CASE WHEN coalesce(title, '') ILIKE 'vp%' THEN true ELSE email LIKE 'x%' END $$, '256'),
    ('leads', 'no constant', $$ title LIKE email $$, '512');
-- How often ours were called by a statement, in the order of their names.
CREATE FUNCTION calls() RETURNS bigint[]
    LANGUAGE sql VOLATILE
AS $$
    SELECT array_agg(coalesce(pg_stat_get_xact_function_calls(oid), 0) ORDER BY proname COLLATE "C")
    FROM pg_proc WHERE pronamespace = 'lifecycle'::regnamespace AND proname LIKE 'matches\_%'
$$;
CREATE FUNCTION calls_of(statement text) RETURNS bigint[]
    LANGUAGE plpgsql
AS $$
DECLARE
    before bigint[] := calls();
BEGIN
    EXECUTE statement;
    RETURN (SELECT array_agg(a - b ORDER BY n) FROM unnest(before, calls()) WITH ORDINALITY AS c (b, a, n));
END
$$;
SELECT is(calls_of($$ INSERT INTO leads VALUES (1, 'a@gmail.com', 'Director'), (2, 'x@yahoo.com', 'VP Sales'), (3, NULL, 'VP'), (4, 'X@GMAIL.COM', NULL) $$),
          '{10,6,8,6}', 'the rules call our functions');
SELECT is((SELECT array_agg(demographic_score ORDER BY id) FROM leads), ARRAY[1 + 4 + 16 + 64 + 128, 2 + 8 + 16 + 32 + 64 + 256, 8 + 64 + 256, 2 + 32]::float8[], 'and the scores are right');

REVOKE EXECUTE ON FUNCTION lifecycle.matches_like, lifecycle.matches_ilike, lifecycle.matches_regex, lifecycle.matches_iregex FROM PUBLIC;
UPDATE lifecycle.rule SET enabled = enabled; -- compiled anew
SELECT is(calls_of($$ INSERT INTO leads SELECT id + 10, email, title FROM leads $$), '{0,0,0,0}', 'an owner who may not call them keeps the server''s');
SELECT is((SELECT array_agg(demographic_score ORDER BY id) FROM leads WHERE id > 10), (SELECT array_agg(demographic_score ORDER BY id) FROM leads WHERE id < 10), 'with the same scores');
SELECT * FROM finish();
