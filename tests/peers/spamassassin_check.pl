# Scores messages with SpamAssassin's own rules, without the network: one line per file, "SCORE SYMBOL,SYMBOL,…".
#
# Each message is judged in a process of its own: rules that remember parts of a header mix up the messages otherwise.
use strict;
use warnings;
use Mail::SpamAssassin;

my ($rules, $site, $state, @files) = @ARGV;
my $judge = Mail::SpamAssassin->new({
  rules_filename => $rules,
  site_rules_filename => $site,
  userprefs_filename => '/dev/null',
  userstate_dir => $state,
  home_dir_for_helpers => $state,
  local_tests_only => 1,
  dont_copy_prefs => 1,
  post_config_text => "use_bayes 0\n",
});
$judge->compile_now(0);
$| = 1;

for my $file (@files) {
  my $child = fork() // die "fork: $!";
  if ($child) {
    waitpid($child, 0) > 0 && $? == 0 or die "$file could not be judged\n";
    next;
  }
  open(my $handle, '<:raw', $file) or die "$file: $!";
  my $message = $judge->parse($handle, 1);
  my $status = $judge->check($message);
  my $symbols = $status->get_names_of_tests_hit();
  print sprintf('%.1f', $status->get_score()), ' ', $symbols, "\n";
  exit 0;
}
