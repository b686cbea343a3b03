//! Debian's Postfix with OpenDKIM as its milter, tuned as its documentation advises for a busy relay: TLS connections
//! reused, no delay at intake, as many deliveries at once as there may be connections.

use super::super::peers;
use super::super::ports::{ReservedPort, greets};
use super::super::processes::Processes;
use super::{Place, Running, account, folder_of};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

/// Why it cannot be measured here; `None` if it can.
pub fn missing() -> Option<&'static str> {
    let programs = ["master", "trivial-rewrite", "opendkim"];
    if programs.into_iter().any(|program| peers::find(program).is_none()) {
        return Some("Postfix or OpenDKIM is missing: run make peers");
    }
    (!peers::is_root()).then_some("Postfix's master runs as root only")
}

pub fn start(place: &Place<'_>) -> Running {
    let port = ReservedPort::take();
    lay_out(place.folder);
    fs::write(place.folder.join("conf/main.cf"), main(place)).unwrap();
    fs::write(place.folder.join("conf/master.cf"), services(port.number)).unwrap();
    fs::write(place.folder.join("opendkim.conf"), milter(place.folder)).unwrap();
    fs::write(place.folder.join("sink.pem"), place.certificate).unwrap();
    fs::write(place.folder.join("dkim.pem"), place.dkim_key).unwrap();
    let mut processes = Processes::new();
    let log = place.folder.join("log");
    let mut opendkim = peer("opendkim");
    opendkim.arg("-f").arg("-x").arg(place.folder.join("opendkim.conf"));
    processes.spawn(&opendkim, &place.folder.join("opendkim.log"));
    let mut master = peer("master");
    master.arg("-c").arg(place.folder.join("conf")).args(["-d", "-e", "3600"]);
    processes.spawn(&master, &log);
    let address = (Ipv4Addr::LOCALHOST, port.number).into();
    Running::wait(processes, log, || greets(port.number).then_some(address))
}

fn peer(program: &str) -> Command {
    let mut command = Command::new(peers::find(program).unwrap());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(peers::environment());
    command
}

fn lay_out(folder: &Path) {
    let daemon = account("daemon");
    for name in ["conf", "queue", "queue/pid"] {
        folder_of(&folder.join(name), 0o755, (0, 0));
    }
    folder_of(&folder.join("data"), 0o700, daemon);
    for name in "active bounce corrupt defer deferred flush hold incoming private public saved trace".split(' ') {
        folder_of(&folder.join("queue").join(name), 0o700, daemon);
    }
}

fn main(place: &Place<'_>) -> String {
    let daemons = peers::find("trivial-rewrite").unwrap();
    let environment: Vec<String> = peers::environment().iter().map(|(name, value)| format!("{name}={value}")).collect();
    MAIN.replace("@DIR@", &place.folder.display().to_string())
        .replace("@DAEMONS@", &daemons.with_file_name("").display().to_string())
        .replace("@ENVIRONMENT@", &environment.join(" "))
        .replace("@SINK@", &place.sink.port().to_string())
        .replace("@CONNECTIONS@", &place.upstream_connections.to_string())
}

/// Accounts are those that every system has: Postfix's own exist only where it is installed.
const MAIN: &str = "compatibility_level = 3.6
queue_directory = @DIR@/queue
data_directory = @DIR@/data
meta_directory = @DIR@/conf
daemon_directory = @DAEMONS@
import_environment = MAIL_CONFIG LANG=C @ENVIRONMENT@
maillog_file = @DIR@/log
maillog_file_prefixes = @DIR@
mail_owner = daemon
setgid_group = games
default_privs = nobody
myhostname = gateway.example.com
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
alias_maps =
alias_database =
local_recipient_maps =
message_size_limit = 60000000
in_flow_delay = 0
smtpd_milters = unix:@DIR@/milter
milter_default_action = tempfail
relayhost = [127.0.0.1]:@SINK@
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = localhost
smtp_tls_CAfile = @DIR@/sink.pem
smtp_tls_connection_reuse = yes
smtp_connection_cache_destinations = [127.0.0.1]:@SINK@
initial_destination_concurrency = @CONNECTIONS@
default_destination_concurrency_limit = @CONNECTIONS@
";

fn services(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd
cleanup    unix n - n - 0 cleanup
qmgr       unix n - n 300 1 qmgr
tlsmgr     unix - - n 1000? 1 tlsmgr
tlsproxy   unix - - n - 0 tlsproxy
rewrite    unix - - n - - trivial-rewrite
bounce     unix - - n - 0 bounce
defer      unix - - n - 0 bounce
trace      unix - - n - 0 bounce
error      unix - - n - - error
retry      unix - - n - - error
proxymap   unix - - n - - proxymap
smtp       unix - - n - - smtp
relay      unix - - n - - smtp
scache     unix - - n - 1 scache
anvil      unix - - n - 1 anvil
postlog    unix-dgram n - n - 1 postlogd
"
    )
}

fn milter(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Mode s\nDomain {}\nSelector wax1\nKeyFile {folder}/dkim.pem\nRequireSafeKeys no\n\
        Canonicalization relaxed/relaxed\nSignatureAlgorithm rsa-sha256\nOversignHeaders From\n\
        Socket local:{folder}/milter\nUMask 000\nInternalHosts 127.0.0.1\nSyslog no\n",
        super::super::mail::DOMAIN
    )
}
