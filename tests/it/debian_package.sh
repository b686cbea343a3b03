# The life of the package, inside a copy of this machine's file system with a network of its own: debian_package.rs runs it.
# $1: the folder with first.deb and second.deb.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
config=/etc/waxseal/config.toml

fail() {
  echo "FAILED: $*"
  cat /var/log/waxseal.test 2>/dev/null || true
  exit 1
}
expect() { # TEXT, WHAT: the command's words
  local wanted=$1 got
  shift
  got=$("$@" 2>&1) || fail "$*: $got"
  [ "$got" = "$wanted" ] || fail "$*: $got, not $wanted"
}
user=(setpriv --reuid=waxseal --regid=waxseal --init-groups --no-new-privs)
as_waxseal() { "${user[@]}" "$@"; }
# The commands of the unit, in the way that systemd starts them.
of_unit() { sed -n "s/^$1=//p" /usr/lib/systemd/system/waxseal.service; }

start() {
  # shellcheck disable=SC2046
  as_waxseal $(of_unit ExecStartPre) >/dev/null || fail "the check before the start"
  # shellcheck disable=SC2046
  "${user[@]}" $(of_unit ExecStart) >/var/log/waxseal.test 2>&1 &
  gateway=$!
  for _ in $(seq 300); do
    if as_waxseal waxseal --config $config health >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "it does not start"
}
stop() {
  kill "$gateway"
  wait "$gateway" || fail "it did not stop in order"
}
send() {
  python3 - "$1" <<'PYTHON'
import smtplib, sys
with smtplib.SMTP("127.0.0.1", 2525, timeout=30) as client:
    client.sendmail("reports@example.com", ["you@example.net"], f"From: reports@example.com\r\nSubject: {sys.argv[1]}\r\n\r\nText\r\n")
PYTHON
}
kept() { find /var/lib/waxseal/sandbox -name '*.eml' 2>/dev/null | wc -l; }
until_kept() {
  for _ in $(seq 300); do
    if [ "$(kept)" = "$1" ]; then return; fi
    sleep 0.1
  done
  fail "$(kept) mails are kept, not $1"
}

dpkg --install "$1/first.deb" </dev/null || fail "installing"
expect "750 root:waxseal" stat -c '%a %U:%G' /etc/waxseal
expect "644 root:root" stat -c '%a %U:%G' $config
expect "700 waxseal:waxseal" stat -c '%a %U:%G' /var/lib/waxseal
expect "$config" sh -c "dpkg-query -W -f='\${Conffiles}' waxseal | awk '{ print \$1 }' | grep ."
[ -z "$(find /etc/systemd -name 'waxseal*')" ] || fail "it is enabled by itself"

# As installed, with the sandbox.
start
send first
until_kept 1
expect "600 waxseal" stat -c '%a %U' /var/lib/waxseal/dkim/example.com.wax1.pem
stop

# As set up by root, under the same user.
waxseal --config $config init --yes --force --provider sandbox --domain example.com >/dev/null || fail "init"
expect "600 waxseal" stat -c '%a %U' /etc/waxseal/certs/dkim/example.com.wax1.pem
start
as_waxseal waxseal --config $config queue hold --all >/dev/null || fail "hold"
send second
stop
own=$(sha256sum $config)

dpkg --install "$1/second.deb" </dev/null || fail "upgrading"
expect "$own" sha256sum $config
start
as_waxseal waxseal --config $config queue list --json | grep -q you@example.net || fail "the upgrade lost mail"
as_waxseal waxseal --config $config queue release --all >/dev/null || fail "release"
until_kept 2
as_waxseal waxseal --config $config queue hold --all >/dev/null || fail "hold"
send third
stop

dpkg --remove waxseal </dev/null || fail "removing"
[ ! -e /usr/bin/waxseal ] && [ ! -e /usr/lib/systemd/system/waxseal.service ] || fail "it is still there"
[ -e $config ] && [ -e /var/lib/waxseal/queue.sqlite ] && [ "$(kept)" = 2 ] || fail "removing took what is the user's"
dpkg --purge waxseal </dev/null || fail "purging"
[ ! -e /etc/waxseal ] && [ ! -e /var/lib/waxseal ] || fail "purging left something"
echo "ALL WELL"
