#!/usr/bin/env perl
# backfill() is stopped in the middle, by a crash and by a cancel, and called again:
# everything comes in, nothing twice. What it tells meanwhile.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init;
# a crash must not take committed batches with it
$node->append_conf('postgresql.conf', "fsync = on\nsynchronous_commit = on\nautovacuum = off\n");
$node->start;
$node->safe_psql('postgres', q{
    CREATE EXTENSION lifecycle;
    CREATE TABLE leads (id int PRIMARY KEY, stage text);
    INSERT INTO leads SELECT g, CASE WHEN g % 2 = 0 THEN 'mql' END FROM generate_series(1, 1000) AS g;
    ANALYZE leads;
    SELECT lifecycle.track('leads', status_column => 'stage');
    CREATE TABLE held (id int PRIMARY KEY);
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.id IN (450, 750) THEN PERFORM FROM held WHERE id = NEW.id; LOCK TABLE held IN ROW EXCLUSIVE MODE; END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER hold AFTER UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION hold();
});
my $counts = 'SELECT count(*), count(DISTINCT lead) FROM leads_history';
my $waiting = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CALL%'};

# Starts a backfill in the background that stops in the trigger of lead 450.
sub start
{
	my ($blocker) = @_;
	$blocker->query_safe('BEGIN');
	$blocker->query_safe('LOCK TABLE held IN ACCESS EXCLUSIVE MODE');
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', q{CALL lifecycle.backfill('leads', 100)} ],
		'<', \undef, '>', \$out, '2>', \$err);
	$node->poll_query_until('postgres', $waiting) or die 'backfill does not wait';
	return ($run, \$err);
}

# a crash
my $blocker = $node->background_psql('postgres');
my ($run, $err) = start($blocker);
is($node->safe_psql('postgres', $counts), '600|400', 'four batches of 100 are committed');
$node->stop('immediate');
$run->finish;
$blocker->{run}->finish;
$node->start;
is($node->safe_psql('postgres', $counts), '600|400', 'they are there after a crash, and nothing of the fifth');
is($node->safe_psql('postgres', 'SELECT count(*) FROM leads WHERE lifecycle_seq IS NOT NULL'), '400', 'in the leads as in the history');
is($node->safe_psql('postgres', q{SELECT * FROM lifecycle.verify('leads')}), '', 'verify() finds nothing');

# a cancel, as by Ctrl-C; leads of the batch go on meanwhile as before
$blocker = $node->background_psql('postgres');
($run, $err) = start($blocker);
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL%' AND state = 'active' AND pid <> pg_backend_pid()});
$run->finish;
like($$err, qr/ERROR:  57014: /, 'canceled');
like($$err, qr/NOTICE:  00000: backfill of "public\.leads": looked at 400 of about 1000 leads, brought in 0$/m, 'it says how far it is');
$blocker->query_safe('COMMIT');
$blocker->quit;
is($node->safe_psql('postgres', $counts), '600|400', 'nothing of the fifth batch again');
$node->safe_psql('postgres', q{UPDATE leads SET stage = 'sal' WHERE id = 450; DELETE FROM leads WHERE id = 460});

# once more, to the end
my ($code, $stdout, $stderr) = $node->psql('postgres', q{CALL lifecycle.backfill('leads', 100)});
is($code, 0, 'the third time it comes to its end');
like($stderr, qr/NOTICE:  backfill of "public\.leads" is complete: looked at 999 leads, brought in 598$/m, 'and says what it did');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT lead) FROM leads_history WHERE seq = 1'), '999|999', 'every lead has entered, once');
is($node->safe_psql('postgres', $counts), '1499|999', 'every move is there, once');
is($node->safe_psql('postgres', q{SELECT * FROM lifecycle.verify('leads')}), '', 'verify() finds nothing');

# a status that the model lacks
$node->safe_psql('postgres', q{ALTER TABLE leads DISABLE TRIGGER USER});
$node->safe_psql('postgres', q{INSERT INTO leads (id, stage) VALUES (2001, 'odd'), (2002, 'odd')});
$node->safe_psql('postgres', q{ALTER TABLE leads ENABLE TRIGGER USER});
($code, $stdout, $stderr) = $node->psql('postgres', q{CALL lifecycle.backfill('leads')});
like($stderr, qr/WARNING:  2 leads of table "public\.leads" stay out: model "standard" lacks their status\nHINT:  The statuses are: known, .*Change the rows/,
	'leads that stay out are counted, with what to do');
$node->stop;

done_testing();
