//! One honest client beside a thousand slow ones: how long its mail takes, compared with the same client alone.
//!
//! `make bench`. The slow ones are in DATA and send one octet per second each; they run in a separate process, so that
//! only the listener is shared. The ratio matters, measured alternately.

#![allow(clippy::unwrap_used, reason = "a benchmark ends where it fails")]

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use waxseal::inbound::users::Users;
use waxseal::inbound::{AuthMode, Client, Intake, LineEndings, Listener, ListenerOptions, Received, Tls};
use waxseal::message::MemoryBudget;
use waxseal::smtp::{EnhancedCode, Reply, ReversePath};

const SLOW: usize = 1000;
/// Mails of the honest client, each time.
const MAILS: usize = 2000;
const ROUNDS: usize = 3;
/// "Within twice the time."
const MAX_RATIO: f64 = 2.0;

/// Accepts every message and discards it.
struct Sink;

impl Intake for Sink {
    fn admit(&self, _: &Client, _: &ReversePath, _: Option<u64>) -> Result<(), Reply> {
        Ok(())
    }

    async fn accept(&self, _: Received) -> Reply {
        Reply::new(250, EnhancedCode::new(2, 0, 0), "Taken")
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|argument| argument == "slow") {
        Some(at) => {
            be_slow(arguments[at + 1].parse().unwrap()).await;
            ExitCode::SUCCESS
        }
        None => compare().await,
    }
}

async fn compare() -> ExitCode {
    let listener = Listener::bind(options(), Users::none(), MemoryBudget::new(256 << 20)).unwrap();
    let address = listener.local_address();
    tokio::spawn(listener.serve(Arc::new(Sink), CancellationToken::new()));
    println!("{:<22} {:>11} {:>11} {:>11}", "one honest client", "median", "99 of 100", "slowest");
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.extend(hand_in(address).await);
        let mut slow = start_slow(address).await;
        beside.extend(hand_in(address).await);
        slow.kill().unwrap();
        slow.wait().unwrap();
    }
    let (alone, beside) = (show("alone", alone), show("beside 1000 slow ones", beside));
    let ratio = beside / alone;
    println!("median: {ratio:.2} times, at most {MAX_RATIO} allowed");
    if ratio <= MAX_RATIO { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The median, in milliseconds.
fn show(name: &str, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!("{name:<22} {:>8.3} ms {:>8.3} ms {:>8.3} ms", at(0.5), at(0.99), at(1.0));
    at(0.5)
}

fn options() -> ListenerOptions {
    ListenerOptions {
        address: ([127, 0, 0, 1], 0).into(),
        hostname: "gateway.example".to_owned(),
        tls: Tls::Off,
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        auth: AuthMode::Optional,
        line_endings: LineEndings::Normalize,
        max_message_size: 25 << 20,
        max_recipients: 1000,
        max_connections: SLOW + 10,
        max_connections_per_address: SLOW + 10,
        proxy_protocol: Vec::new(),
        timeout: Duration::from_secs(300),
        rates: waxseal::inbound::SubmissionRates::default(),
        metrics: Default::default(),
    }
}

/// Connected, with the envelope sent.
async fn up_to_data(address: SocketAddr) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    stream.get_mut().set_nodelay(true).unwrap();
    expect(&mut stream, "220").await;
    for (line, code) in
        [("HELO x", "250"), ("MAIL FROM:<a@example.com>", "250"), ("RCPT TO:<b@example.net>", "250"), ("DATA", "354")]
    {
        stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        expect(&mut stream, code).await;
    }
    stream
}

async fn expect(stream: &mut BufReader<TcpStream>, code: &str) {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with(code), "{line}");
}

/// From the connection to the answer to the dot, for each mail.
async fn hand_in(address: SocketAddr) -> Vec<Duration> {
    let message = format!("Subject: x\r\n\r\n{}.\r\n", "a line of text, as there are many\r\n".repeat(120));
    let mut times = Vec::new();
    for _ in 0..MAILS {
        let begun = Instant::now();
        let mut stream = up_to_data(address).await;
        stream.get_mut().write_all(message.as_bytes()).await.unwrap();
        expect(&mut stream, "250").await;
        times.push(begun.elapsed());
    }
    times
}

/// Returns once all of them are in DATA.
async fn start_slow(address: SocketAddr) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut child = command.args(["slow", &address.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    tokio::task::spawn_blocking(move || output.read_exact(&mut [0; 5])).await.unwrap().unwrap();
    child
}

/// Runs until it is killed.
async fn be_slow(address: SocketAddr) {
    let mut clients = Vec::new();
    for _ in 0..SLOW {
        clients.push(up_to_data(address).await);
    }
    println!("ready");
    loop {
        for client in &mut clients {
            client.get_mut().write_all(b"x").await.unwrap();
            tokio::time::sleep(Duration::from_secs(1) / SLOW as u32).await;
        }
    }
}
