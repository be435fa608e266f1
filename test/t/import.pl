#!/usr/bin/env perl
# A crash in the middle of an import, and the same import again: complete, and
# nothing twice.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION lifecycle;
	CREATE TABLE leads (id int PRIMARY KEY);
	INSERT INTO leads SELECT generate_series(1, 5000);
	SELECT lifecycle.track('leads');
	CREATE VIEW moves AS
	SELECT lead, status, timestamptz '2020-01-01 00:00+00' + n * interval '1 day' AS at
	FROM generate_series(1, 5000) AS lead, unnest('{known,mql,sal,lost}'::text[]) WITH ORDINALITY AS m (status, n);
});
my $count = 'SELECT count(*), max(seq) FROM leads_history';
my $import = q{SELECT count(*), bool_or(imported) FROM lifecycle.import_history('leads', 'SELECT * FROM moves')};

# A trigger holds the import up in its middle until the server is gone: a lock
# that another session has. Half of the rows are on disk by then.
my ($in, $out) = ('', '');
my $holder = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \my $holder_error);
$in .= "SELECT pg_advisory_lock(1);\n\\echo locked\n";
IPC::Run::pump($holder) until $out =~ /locked/;
$node->safe_psql('postgres', q{
	CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(1); RETURN NULL; END $$;
	CREATE TRIGGER hold AFTER INSERT ON leads_history FOR EACH ROW
		WHEN (NEW.lead = 3500 AND NEW.seq = 2) EXECUTE FUNCTION hold();
});
my ($import_in, $import_out, $import_error) = ("$import;\n", '', '');
my $importer = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres') ], '<', \$import_in, '>', \$import_out, '2>', \$import_error);
IPC::Run::pump_nb($importer);
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}),
	'the import is in its middle');
cmp_ok($node->safe_psql('postgres', q{SELECT pg_relation_size('leads_history')}), '>', 0, 'and has written');
is($node->safe_psql('postgres', $count), '0|', 'of which nobody sees anything');
$node->safe_psql('postgres', 'CHECKPOINT');
$node->stop('immediate');
eval { IPC::Run::finish($_) } foreach $importer, $holder;
isnt($import_error, '', 'the import failed');

$node->start;
is($node->safe_psql('postgres', $count), '0|', 'after the crash nothing of it is there');
is($node->safe_psql('postgres', 'SELECT count(*) FROM leads WHERE lifecycle_status IS NOT NULL'), '0', 'nor on the leads');
is($node->safe_psql('postgres', $import), '0|', 'the second run imports');
is($node->safe_psql('postgres', $count), '20000|4', 'everything, once');
is($node->safe_psql('postgres', q{SELECT lifecycle_status, lifecycle_seq, count(*) FROM leads GROUP BY 1, 2}), 'lost|4|5000', 'the leads follow');
is($node->safe_psql('postgres', q{SELECT * FROM lifecycle.verify('leads')}), '', 'verify() finds nothing');
is($node->safe_psql('postgres', $import), '20000|f', 'the third refuses every row');
is($node->safe_psql('postgres', $count), '20000|4', 'and writes nothing');

# A crash right after the commit loses nothing.
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', $count), '20000|4', 'what was committed is there after a crash');
is($node->safe_psql('postgres', q{SELECT * FROM lifecycle.verify('leads')}), '', 'verify() finds nothing');

# It can be cancelled.
$node->safe_psql('postgres', q{DELETE FROM leads; INSERT INTO leads SELECT generate_series(6001, 6010)});
my ($status, undef, $error) = $node->psql('postgres', q{
	SET statement_timeout = '200ms';
	SELECT count(*) FROM lifecycle.import_history('leads',
		'SELECT 6001 AS lead, ''mql'' AS status, now() AS at FROM generate_series(1, 1000000000)')});
like($error, qr/canceling statement due to statement timeout/, 'an import can be cancelled');
$node->stop;
done_testing();
