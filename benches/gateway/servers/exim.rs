//! Debian's Exim with its own DKIM. It knows no cap on connections: a process and a connection for each message.
//!
//! The program insists on an account and on paths that only an installed one has. It gets them in a mount namespace of its
//! own: an overlay over /usr and /etc that nothing else on the machine sees.

use super::super::mail;
use super::super::peers;
use super::super::ports::{ReservedPort, greets};
use super::super::processes::Processes;
use super::{Place, Running, account, folder_of};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Arguments: our /etc, the unpacked /usr.
const ENTER: &str = "mount -t overlay overlay -o \"lowerdir=$1:/etc\" /etc && \
    mount -t overlay overlay -o \"lowerdir=$2:/usr\" /usr && exec /usr/sbin/exim4 -bdf -q1m";

/// Why it cannot be measured here; `None` if it can.
pub fn missing() -> Option<&'static str> {
    if !unpacked().join("sbin/exim4").exists() {
        return Some("Exim is missing: run make peers");
    }
    if !peers::is_root() {
        return Some("Exim needs a mount namespace, which only root can make");
    }
    // Its processes end without anyone waiting for them, so nothing else knows what they used.
    (!Processes::new().are_grouped()).then_some("Exim's CPU can only be known from a control group (cgroup v2)")
}

fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/exim/usr")
}

pub fn start(place: &Place<'_>) -> Running {
    let port = ReservedPort::take();
    let (folder, daemon) = (place.folder, account("daemon"));
    folder_of(&folder.join("spool"), 0o750, daemon);
    folder_of(&folder.join("log"), 0o750, daemon);
    folder_of(&folder.join("etc"), 0o755, (0, 0));
    folder_of(&folder.join("etc/exim4"), 0o755, (0, 0));
    for (file, id) in [("passwd", daemon.0), ("group", daemon.1)] {
        let installed = fs::read_to_string(Path::new("/etc").join(file)).unwrap();
        let added = if file == "passwd" { format!("{id}:{}::/:/usr/sbin/nologin", daemon.1) } else { format!("{id}:") };
        fs::write(folder.join("etc").join(file), format!("{installed}Debian-exim:x:{added}\n")).unwrap();
    }
    fs::write(folder.join("etc/exim4/exim4.conf"), configuration(place, port.number)).unwrap();
    fs::write(folder.join("sink.pem"), place.certificate).unwrap();
    fs::write(folder.join("dkim.pem"), place.dkim_key).unwrap();
    let mut exim = Command::new("unshare");
    exim.args(["--mount", "sh", "-c", ENTER, "sh"]).arg(folder.join("etc")).arg(unpacked());
    exim.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut processes = Processes::new();
    processes.spawn(&exim, &folder.join("output"));
    let address = (Ipv4Addr::LOCALHOST, port.number).into();
    Running::wait(processes, folder.join("log/mainlog"), || greets(port.number).then_some(address))
}

/// Without limits on how many clients and messages it handles at once.
fn configuration(place: &Place<'_>, port: u16) -> String {
    let (folder, sink) = (place.folder.display(), place.sink.port());
    format!(
        "primary_hostname = gateway.example.com
spool_directory = {folder}/spool
split_spool_directory = true
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/spool/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
keep_environment =
message_size_limit = 60M
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 0
smtp_connect_backlog = 200
acl_smtp_rcpt = accept
begin acl
accept:
  accept
begin routers
sink:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = sink
begin transports
sink:
  driver = smtp
  port = {sink}
  hosts_require_tls = *
  tls_verify_certificates = {folder}/sink.pem
  tls_verify_hosts = *
  tls_resumption_hosts = *
  dkim_domain = {}
  dkim_selector = wax1
  dkim_private_key = {folder}/dkim.pem
  dkim_canon = relaxed
  dkim_strict = true
begin retry
* * F,1h,1m
",
        mail::DOMAIN
    )
}
