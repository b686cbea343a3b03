//! What a running gateway answers about its queue: a scrape of /metrics, `waxseal status`, and the first page of
//! `waxseal queue list`. Its upstream is away, so the queue stays as it is.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const ASKED: usize = 21;
/// A hang guard, far above what any start takes.
const MAX_LINES: usize = 10_000;

/// Medians, in milliseconds; of the commands, with the start of their process.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    pub scrape: f64,
    pub status: f64,
    pub list: f64,
}

pub fn served(data_dir: &Path) -> Served {
    let gateway = Gateway::start(data_dir);
    let first = scrape(gateway.admin);
    assert!(first.contains("waxseal_queue_recipients"), "{first}");
    Served {
        scrape: median(|| drop(scrape(gateway.admin))),
        status: median(|| gateway.run(&["status"])),
        list: median(|| gateway.run(&["queue", "list", "--limit", "50"])),
    }
}

fn median(mut ask: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..ASKED)
        .map(|_| {
            let began = Instant::now();
            ask();
            began.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ASKED / 2]
}

fn scrape(admin: SocketAddr) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

struct Gateway {
    process: Child,
    configuration: PathBuf,
    admin: SocketAddr,
}

impl Gateway {
    fn start(data_dir: &Path) -> Self {
        let away = super::ports::ReservedPort::take().number;
        let configuration = data_dir.with_extension("toml");
        let text = format!(
            "hostname = \"gateway.example.com\"\ndata_dir = {data_dir:?}\nunsigned = \"send\"\n\
            [[listener]]\naddress = \"127.0.0.1:0\"\n\
            [[upstream]]\nname = \"away\"\nprovider = \"smtp\"\nhost = \"127.0.0.1\"\nport = {away}\n\
            tls = \"starttls\"\n\
            [admin]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n"
        );
        std::fs::write(&configuration, text).unwrap();
        let mut process =
            command(&configuration).arg("run").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut log = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap).take(MAX_LINES);
        let line = log.find(|line| line.contains("\"admin\":")).expect("the gateway serves metrics");
        let address = line.split_once("\"admin\":\"").unwrap().1.split('"').next().unwrap();
        let admin = address.parse().unwrap();
        // Otherwise it would wait for a reader of its log.
        std::thread::spawn(move || log.for_each(drop));
        Self { process, configuration, admin }
    }

    fn run(&self, words: &[&str]) {
        let output = command(&self.configuration).args(words).output().unwrap();
        // `status` ends with 1 when something is wrong, and an upstream is.
        assert!(output.status.code().is_some_and(|code| code < 2), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn command(configuration: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waxseal"));
    command.arg("--config").arg(configuration);
    command
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        self.process.wait().unwrap();
    }
}
