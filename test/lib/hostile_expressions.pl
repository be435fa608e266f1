# Random SQL expressions over a row of hostile.lead (hostile.sql): some valid,
# many half-valid, some hostile. One a line, in the format of COPY.
#
#   perl hostile_expressions.pl COUNT SEED
#
# The same seed gives the same expressions everywhere: the generator of random
# numbers is our own.
use strict;
use utf8;
use warnings;
no warnings 'qw';

my ($count, $seed) = @ARGV;
my $state = ($seed * 2654435761 + 12345) % 4294967296;

sub rnd    # 0 .. n-1
{
	my ($n) = @_;
	for (1, 2)
	{
		$state ^= ($state << 13) & 0xffffffff;
		$state ^= $state >> 17;
		$state ^= ($state << 5) & 0xffffffff;
	}
	$state ||= 1;
	return $state % $n;
}
sub pick { return $_[ rnd(scalar @_) ]; }

my @columns = qw(id t v c n f num b at d ts iv j js a ia bin u mood age place span gen nosuch ctid tableoid lead
  lead.t hostile.lead.t x.t lifecycle_status lifecycle_since lifecycle_seq demographic_score behavior_score
  lead.* (place).city (place).* (place).x id.t);
push @columns, '"strange "" Ünïcode"', 'U&"\0074"', 'U&"\+01F600"', '"T"', '*', 'current_user', 'session_user', 'current_date', 'localtime(3)',
  'current_timestamp(0)', 'now()', 'lifecycle.behavior_score()', 'current_schema', 'user', 'current_catalog', 'lead';
my @good = qw(id t v c n f num b at d ts iv j js a ia bin u mood age place span gen);
my @types = qw(int text varchar(3) char(2) float8 numeric numeric(5,2) boolean timestamptz timestamp(0) date time interval jsonb json
  text[] int[] bytea uuid hostile.mood hostile.age hostile.place int4range regclass regproc regtype oid xml money bit(3) varbit name "char"
  point box inet tsvector tsquery pg_lsn record cstring anyelement void nosuch hostile.lead lifecycle.rule jsonpath xid tid internal trigger refcursor);
my @operators = (qw(+ - * / % ^ = <> != < > <= >= || ~ ~* !~ !~* ~~ && @> <@ -> ->> #> #>> ? ?| ?& @? @@ <-> << >> & | # === ~=~ <=> ~~~ -|-),
	'AND', 'OR', 'IS DISTINCT FROM', 'IS NOT DISTINCT FROM', 'LIKE', 'NOT LIKE', 'ILIKE', 'SIMILAR TO', 'AT TIME ZONE',
	'OPERATOR(pg_catalog.+)', 'OPERATOR(hostile.===)', 'OPERATOR(nosuch.+)', 'COLLATE', 'OVERLAPS', 'IN', '::', ',', ';', '--', '/*', '*/', 'UNION');
my @functions = qw(lower upper length repeat substr substring replace split_part left lpad regexp_replace regexp_match regexp_matches regexp_like
  abs round sqrt ln exp power mod div width_bucket trunc greatest least coalesce nullif to_char to_date to_timestamp to_number date_trunc
  date_part age make_date justify_days extract now random clock_timestamp nextval currval pg_sleep txid_current version current_setting set_config
  jsonb_path_exists jsonb_path_query jsonb_path_match jsonb_set jsonb_typeof jsonb_build_object jsonb_array_elements jsonb_populate_record to_jsonb row_to_json array_length
  array_position array_append array_to_string unnest generate_series string_to_array cardinality array_agg sum count max string_agg rank
  md5 sha256 encode decode convert_from convert_to chr ascii format concat concat_ws quote_literal quote_ident query_to_xml table_to_xml
  has_table_privilege pg_read_file pg_ls_dir lo_get lo_import pg_terminate_backend pg_advisory_lock pg_notify dblink xpath xmlparse
  to_tsvector to_tsquery ts_rank ts_headline ts_rewrite lower_inc upper isempty int4range textin int4in record_out array_in domain_in enum_in enum_first
  hostile.stable hostile.raises hostile.volatile hostile.several hostile.polymorphic hostile.variadic hostile.writes hostile.strict_sql
  hostile.recursive hostile.procedure lifecycle.cohort lifecycle.behavior_score lifecycle.canonical lifecycle.untrack lifecycle.announce lifecycle.rule_changes lifecycle.verify
  pg_catalog.lower nosuch.f interval_pl overlaps rangetypes num_nulls num_nonnulls pg_typeof pg_column_size format_type to_regclass obj_description inet_client_addr);
my @patterns = ('^a', '.*', '(a+)+$', '[[:alpha:]]+', '\\m(vp|chief)\\M', '(?i)x', '***=a', '***:a', '(', '[', 'a{1,255}', 'a{1,256}', '(a{1,255}){1,20}', '\\', '\\x{', '(?=a)', 'ä|€|😀',
	'%', '%a%', '_%', '%\\', '\\%', '%😀%', '', 'a' x 300, '(x|' x 40 . 'y' . ')' x 40, '\\1', '(a)\\1', '[^\\u0000-\\uffff]', '%' x 50);
my @jsonpaths = ('$', '$.a', '$.a[*] ? (@ > 1)', 'strict $.x', '$..a', '$.**', '$.a.datetime()', '$ ? (@.a like_regex "^a" flag "i")', '$[last]', '$.a + 1', '$x', '(', '$.a[1 to 999999999]', '$.keyvalue()', '$.double()');

sub text_constant
{
	my $k = rnd(16);
	return "''" if $k == 0;
	return "'" . pick(map { my $p = $_; $p =~ s/'/''/g; $p } @patterns) . "'" if $k <= 4;
	return "'" . pick(@jsonpaths) . "'" if $k == 5;
	return 'E\'' . pick('\\n', '\\x41', '\\u00e4', '\\U0001F600', '\\ud83d', '\\0', '\\xff', '\\\'', '\\') . '\'' if $k == 6;
	return 'U&\'' . pick('\\0041', '\\+01F600', '\\D83D', '\\0000', '!0041\' UESCAPE \'!', '\\xyz') . '\'' if $k == 7;
	return pick('$$x$$', '$a$x$a$', '$a$x', '$1$x$1$', '$$') if $k == 8;
	return "'" . pick('{}', '{a,NULL}', '{{1,2},{3}}', '{1,2', '{"a":1}', '{"a":[1,2,{"b":null}]}', '[1,2)', 'empty', '(a,1)', '(', '2026-02-30', 'infinity', '-infinity', 'now', 'today', 'epoch', '1 day', 'P1Y', 'NaN', '1e400', '0x1F', '-0', '99999999999999999999', 'true', 'x', 'b', "\x{e4}") . "'" if $k <= 11;
	return "'" . pick('UTC', 'Europe/Berlin', 'nosuch', 'day', 'year', 'YYYY-MM-DD', 'hostile.lead', 'pg_class', 'hostile.lead_history', 'simple', 'hex', 'base64', 'UTF8', 'mql') . "'" if $k == 12;
	return "'" . ('ab😀' x rnd(400)) . "'" if $k == 13;
	return pick('B', 'X', 'N', '') . "'" . pick('101', 'ff', 'zz') . "'";
}

sub number { return pick('0', '1', '-1', '2', '10', '1.5', '1e10', '1e308', '1e-400', '2147483647', '2147483648', '9223372036854775808', '-9223372036854775808', '9' x 200, '0.' . '1' x 300, '1_000', '0x10', '.', '1.', '.5', '1e', 'NaN', '1e1000', '$1', '$3', '$0', ':x', '?'); }

sub expression
{
	my ($depth) = @_;
	if ($depth <= 0 || rnd(8) == 0)
	{
		my $k = rnd(10);
		return pick(@good) if $k < 5;
		return pick(@columns) if $k == 5;
		return number() if $k < 8;
		return text_constant() if $k == 8;
		return pick('NULL', 'true', 'false', 'DEFAULT', "''", '(t)', 't', 'n', 'num');
	}
	my $k = rnd(40);
	my $d = $depth - 1;
	return '(' . expression($d) . ' ' . pick(@operators) . ' ' . expression($d) . ')' if $k < 7;
	return '(' . pick(qw(t v gen c)) . ' ' . pick('~', '~*', 'LIKE', 'ILIKE', '!~', 'SIMILAR TO', '^@', '=') . ' ' . text_constant() . ')' if $k < 11;
	return '(' . pick(qw(n id f num age)) . ' ' . pick(qw(= < > <= >= <> + - * / %)) . ' ' . number() . ')' if $k < 14;
	return pick(@functions) . '(' . pick('', '', 'DISTINCT ', 'VARIADIC ', '*, ') . join(', ', map { expression($d) } 1 .. rnd(4)) . ')' . pick('', '', '', '', '', ' OVER ()', ' FILTER (WHERE b)', '.x', '[1]') if $k < 19;
	return '(' . expression($d) . ')::' . pick(@types) if $k < 22;
	return 'CAST(' . expression($d) . ' AS ' . pick(@types) . ')' if $k == 22;
	return pick('NOT ', '- ', '@ ', '! ', '~ ', '|/ ', '+') . expression($d) if $k == 23;
	return 'CASE WHEN ' . expression($d) . ' THEN ' . expression($d) . pick('', ' ELSE ' . expression($d)) . ' END' if $k == 24;
	return 'CASE ' . expression($d) . ' WHEN ' . expression($d) . ' THEN ' . expression($d) . ' END' if $k == 25;
	return '(' . expression($d) . ' ' . pick('IS NULL', 'IS NOT NULL', 'IS TRUE', 'IS UNKNOWN', 'IS DOCUMENT', 'IS NORMALIZED', 'ISNULL', 'IS JSON', 'IS OF (int)') . ')' if $k == 26;
	return '(' . expression($d) . ' ' . pick('', 'NOT ') . 'BETWEEN ' . pick('', 'SYMMETRIC ') . expression($d) . ' AND ' . expression($d) . ')' if $k == 27;
	return '(' . expression($d) . ' ' . pick('', 'NOT ') . 'IN (' . join(', ', map { expression($d - 1) } 0 .. rnd(4)) . '))' if $k == 28;
	return '(' . expression($d) . ' ' . pick('=', '~', '<', 'LIKE') . ' ' . pick('ANY', 'ALL', 'SOME') . '(' . pick('a', 'ia', "'{a,b}'", 'ARRAY[' . expression($d - 1) . ']', expression($d - 1)) . '))' if $k == 29;
	return pick('ARRAY[', 'ROW(', 'COALESCE(', 'GREATEST(', 'LEAST(', 'NULLIF(', 'XMLCONCAT(', 'XMLFOREST(', 'GROUPING(', 'JSON_OBJECT(', 'JSON_ARRAY(') . join(', ', map { expression($d) } 0 .. rnd(3)) . pick(']', ')', ')', ')') if $k == 30;
	return expression($d) . pick('[1]', '[1:2]', '[NULL]', '[999999999999]', "['a']", '[n]', '.x', '.city', '[:]') if $k == 31;
	return pick('EXTRACT(' . pick(qw(year epoch dow nosuch)) . ' FROM ' . expression($d) . ')', 'SUBSTRING(t FROM ' . expression($d) . ')', 'SUBSTRING(t SIMILAR ' . text_constant() . " ESCAPE '#')",
		'POSITION(' . expression($d) . ' IN t)', 'TRIM(BOTH FROM ' . expression($d) . ')', 'OVERLAY(t PLACING ' . expression($d) . ' FROM 1)', 'JSON_VALUE(j, \'$.a\' RETURNING int)', 'XMLELEMENT(NAME a, t)', 'JSON_QUERY(j, \'$\' RETURNING hostile.age)') if $k == 32;
	return pick('(SELECT 1)', 'EXISTS (SELECT FROM hostile.lead)', 'ARRAY(SELECT 1)', '(SELECT count(*) FROM hostile.lead)', 'n = ANY (SELECT 1)', '(VALUES (1))', '(WITH d AS (DELETE FROM hostile.lead RETURNING 1) SELECT 1 FROM d)',
		'(SELECT l FROM hostile.lead l FOR UPDATE LIMIT 1)', '(TABLE hostile.lead)', '(SELECT ' . expression($d) . ')', '(DELETE FROM hostile.lead)') if $k == 33;
	return '(' . expression($d) . ' COLLATE ' . pick('"C"', '"default"', 'nosuch', 'pg_catalog."C"', '"und-x-icu"', '"POSIX"') . ')' if $k == 34;
	return '(' . expression($d) . ' AT TIME ZONE ' . text_constant() . ')' if $k == 35;
	return pick(@types) . ' ' . text_constant() if $k == 36;
	return '(' . expression($d) . pick(' -- comment', ' /* comment */', ' /* /* nested */', "\n", "\t", "\r\n", '/**/', ';', '; DROP TABLE hostile.lead', ' AS x', ' FROM hostile.lead', ' LIMIT 1', ' UNION SELECT 1', ', 1', ' INTO x', ' WHERE true', ' ORDER BY 1', ' OVER w', "\x{a0}", '\\', '\'', '"', '$$') . ')' if $k == 37;
	return '(' x 20 . expression($d) . ')' x 20 if $k == 38;
	return pick(@good) . ' IS NOT NULL AND ' . expression($d);
}

# What is only there to be too big.
sub monster
{
	my $k = rnd(10);
	my $n = pick(100, 1000, 5000, 20000);
	return '(' x $n . '1' . ')' x $n if $k == 0;
	return join(' + ', ('n') x $n) . ' > 0' if $k == 1;
	return join(' AND ', ('b') x $n) if $k == 2;
	return 'NOT ' x $n . 'b' if $k == 3;
	return 'n IN (' . join(',', 1 .. $n) . ')' if $k == 4;
	return 't = \'' . ('ä' x ($n * 10)) . '\'' if $k == 5;
	return 'n = ' . '9' x $n if $k == 6;
	return 'CASE ' . join(' ', map { "WHEN n = $_ THEN true" } 1 .. $n) . ' END' if $k == 7;
	return 'lower(' x $n . 't' . ')' x $n . ' = \'a\'' if $k == 8;
	return '- ' x $n . 'n > 0';
}

binmode STDOUT, ':encoding(UTF-8)';
for my $i (1 .. $count)
{
	my $text = rnd(400) == 0 ? monster() : expression(1 + rnd(5));
	# mostly something that can be a condition
	$text = '(' . $text . ') IS NOT NULL' if rnd(2) == 0;
	$text =~ s/\\/\\\\/g;
	$text =~ s/\t/\\t/g;
	$text =~ s/\n/\\n/g;
	$text =~ s/\r/\\r/g;
	print "$i\t$text\n";
}
