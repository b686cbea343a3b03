//! The program itself, built in the bench's own profile: durable queue, one RSA-2048 key, STARTTLS verified.

use super::super::processes::Processes;
use super::{Place, Running};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How it is run, where that differs from a plain start.
#[derive(Debug, Clone)]
pub struct Waxseal {
    pub program: PathBuf,
    /// Where it serves metrics; `None`: nowhere.
    pub admin_port: Option<u16>,
    /// "queue" or "direct".
    pub delivery: &'static str,
    /// Clients at once.
    pub max_connections: usize,
}

impl Waxseal {
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), admin_port: None, delivery: "queue", max_connections: 1000 }
    }

    /// In a folder that it has run in before it finds its queue again.
    pub fn start(&self, place: &Place<'_>) -> Running {
        fs::write(place.folder.join("config.toml"), self.configuration(place)).unwrap();
        fs::write(place.folder.join("sink.pem"), place.certificate).unwrap();
        let key = place.folder.join("dkim.pem");
        fs::write(&key, place.dkim_key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let log = place.folder.join("log");
        let _of_an_earlier_run = fs::remove_file(&log);
        let mut processes = Processes::new();
        processes.spawn(&self.command(place.folder), &log);
        Running::wait(processes, log.clone(), || listening(&log))
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--config", "config.toml", "run"]).current_dir(folder);
        command
    }

    fn configuration(&self, place: &Place<'_>) -> String {
        let Place { sink, upstream_connections, .. } = place;
        let admin =
            self.admin_port.map(|port| format!("[admin]\naddress = \"127.0.0.1:{port}\"\n")).unwrap_or_default();
        format!(
            "hostname = \"gateway.example.com\"\n\
            [[listener]]\naddress = \"127.0.0.1:0\"\ndelivery = \"{}\"\n\
            max_connections = {1}\nmax_connections_per_address = {1}\n\
            [[dkim]]\ndomain = \"{2}\"\nselector = \"wax1\"\nprivate_key = \"dkim.pem\"\n\
            [[upstream]]\nname = \"sink\"\nprovider = \"smtp\"\nhost = \"127.0.0.1\"\nport = {3}\ntls = \"starttls\"\n\
            ca = \"sink.pem\"\nmax_connections = {upstream_connections}\n\
            {admin}[log]\nformat = \"json\"\n",
            self.delivery,
            self.max_connections,
            super::super::mail::DOMAIN,
            sink.port(),
        )
    }
}

/// A figure of its metrics, by the start of its line. `None`: they cannot be read, or do not have it.
pub fn metric(admin_port: u16, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", admin_port)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// The address that the log names.
fn listening(log: &Path) -> Option<SocketAddr> {
    let text = fs::read_to_string(log).ok()?;
    let line = text.lines().find(|line| line.contains("listening"))?;
    line.split_once("\"address\":\"")?.1.split('"').next()?.parse().ok()
}
