#!/usr/bin/env perl
# Runs all test files with TAP::Harness (what prove and pg_prove are made of)
# and counts files. A harness of our own because prove's exit status and output
# do not tell a file that was skipped for a reason from one that tested nothing.
use strict;
use warnings;
use TAP::Harness;

$| = 1;
my $jobs = $ENV{JOBS} || 2;
my @patterns = @ARGV ? @ARGV : split ' ', $ENV{TESTS} || '';

my @kinds = (
	{ name => 'pgTAP', files => 'test/sql/*.sql', runner => 'test/lib/pgtap', jobs => $jobs },
	# one at a time: which session is seen to wait must not depend on the load
	{ name => 'isolation', files => 'test/isolation/specs/*.spec', runner => 'test/lib/isolation', jobs => 1 },
	{ name => 'TAP', files => 'test/t/*.pl', jobs => $jobs },
);

my %count = (passed => 0, failed => 0, skipped => 0);
my @notes;

foreach my $kind (@kinds)
{
	my @files = grep { matches($_) } sort glob $kind->{files};

	print "\n== $kind->{name}: $kind->{files}\n";
	if (!@files)
	{
		print @patterns ? "no file matches\n" : "no files\n";
		next;
	}

	my $harness = TAP::Harness->new(
		{
			jobs => $kind->{jobs},
			color => 0,
			failures => 1,
			# Perl's diagnostics come on stderr, and its notes are only noise
			comments => $kind->{runner} ? 1 : 0,
			show_count => 0,
			exec => sub { $kind->{runner} ? [ $kind->{runner}, $_[1] ] : undef },
		});
	my $results = $harness->runtests(@files);

	foreach my $parser ($results->parsers(@files))
	{
		my $file = shift @files;
		my $outcome = outcome($parser);
		$count{$outcome}++;
		push @notes, "skipped: $file: " . $parser->skip_all if $outcome eq 'skipped';
		push @notes, "failed: $file" . ($parser->has_problems ? '' : ': it tests nothing')
		  if $outcome eq 'failed';
		# single tests that a file skips
		push @notes, sprintf('partly skipped: %s: %d of %d tests', $file, scalar $parser->skipped, $parser->tests_run)
		  if $outcome eq 'passed' && $parser->skipped;
	}
}

# Nothing here may crash the common server; tests that crash one start their own.
if (open my $log, '<', $ENV{CLUSTER_LOG})
{
	my @lines = <$log>;
	if (grep { /PANIC:  |TRAP: |was terminated by signal/ } @lines)
	{
		splice @lines, 0, -40 if @lines > 40;
		print "\nThe server crashed. The end of its log:\n", @lines;
		push @notes, 'failed: the server crashed';
		$count{failed}++;
		open my $reported, '>', "$ENV{CLUSTER_LOG}.reported";
	}
}

if ($count{passed} + $count{failed} + $count{skipped} == 0)
{
	push @notes, 'failed: there was no test to run';
	$count{failed}++;
}

print "\n", map { "$_\n" } @notes;
print "$count{passed} passed, $count{failed} failed, $count{skipped} skipped\n";
exit($count{failed} ? 1 : 0);

sub matches
{
	my ($file) = @_;
	return 1 if !@patterns;
	foreach my $pattern (@patterns)
	{
		return 1 if $file =~ /$pattern/;
	}
	return 0;
}

sub outcome
{
	my ($parser) = @_;
	return 'failed' if $parser->has_problems;
	# Test::Harness puts "(no reason given)" where a file gives none
	return 'skipped' if defined $parser->skip_all && $parser->skip_all !~ /^(\(no reason given\))?$/;
	return 'failed' if !$parser->tests_run;
	return 'passed';
}
