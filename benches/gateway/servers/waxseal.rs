//! The program itself, built in the bench's own profile: durable queue, one RSA-2048 key, STARTTLS verified.

use super::{Place, Running, wait_for};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How it is run, where that differs from a plain start.
#[derive(Debug, Clone)]
pub struct Waxseal {
    pub program: PathBuf,
    /// Run by this one, as in `strace -f`.
    pub wrapper: Vec<String>,
    /// "queue" or "direct".
    pub delivery: &'static str,
    /// Clients at once.
    pub max_connections: usize,
}

impl Waxseal {
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), wrapper: Vec::new(), delivery: "queue", max_connections: 1000 }
    }

    /// The same, applied to a folder that it has run in before, finds the queue there.
    pub fn start(&self, place: &Place<'_>) -> Running {
        fs::write(place.folder.join("config.toml"), self.configuration(place)).unwrap();
        fs::write(place.folder.join("sink.pem"), place.certificate).unwrap();
        fs::write(place.folder.join("dkim.pem"), place.dkim_key).unwrap();
        let log = place.folder.join("log");
        let mut child = self.spawn(place.folder, &log);
        let address = wait_for(&mut child, &log, || listening(&log));
        Running { address, log, children: vec![child] }
    }

    fn spawn(&self, folder: &Path, log: &Path) -> Child {
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, words)) => {
                let mut command = Command::new(wrapper);
                command.args(words).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        let output = File::create(log).unwrap();
        command.current_dir(folder).env_clear().args(["--config", "config.toml", "run"]).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap()
    }

    fn configuration(&self, place: &Place<'_>) -> String {
        let Place { sink, upstream_connections, .. } = place;
        format!(
            "hostname = \"gateway.example.com\"\n\
            [[listener]]\naddress = \"127.0.0.1:0\"\ndelivery = \"{}\"\n\
            max_connections = {1}\nmax_connections_per_address = {1}\n\
            [[dkim]]\ndomain = \"{2}\"\nselector = \"wax1\"\nprivate_key = \"dkim.pem\"\n\
            [[upstream]]\nname = \"sink\"\nprovider = \"smtp\"\nhost = \"127.0.0.1\"\nport = {3}\ntls = \"starttls\"\n\
            ca = \"sink.pem\"\nmax_connections = {upstream_connections}\n\
            [log]\nformat = \"json\"\n",
            self.delivery,
            self.max_connections,
            super::super::mail::DOMAIN,
            sink.port(),
        )
    }
}

/// The address that the log names.
fn listening(log: &Path) -> Option<SocketAddr> {
    let text = fs::read_to_string(log).ok()?;
    let line = text.lines().find(|line| line.contains("listening"))?;
    line.split_once("\"address\":\"")?.1.split('"').next()?.parse().ok()
}
