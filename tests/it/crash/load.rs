//! Senders that submit numbered mails until they are stopped, and record the number of each that got its 250.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};

/// Acknowledged mails: the number, and the id from the reply.
#[derive(Debug)]
pub struct Acknowledged {
    next: AtomicU64,
    ids: Mutex<BTreeMap<u64, String>>,
    /// Numbers of mails whose final dot was refused.
    refused: Mutex<BTreeSet<u64>>,
    frozen: AtomicBool,
    lines: usize,
}

impl Default for Acknowledged {
    fn default() -> Self {
        Self::of_lines(50)
    }
}

impl Acknowledged {
    /// For mails with this many lines.
    pub fn of_lines(lines: usize) -> Self {
        Self {
            next: AtomicU64::default(),
            ids: Mutex::default(),
            refused: Mutex::default(),
            frozen: AtomicBool::default(),
            lines,
        }
    }

    pub fn mail(&self, number: u64) -> String {
        mail(number, self.lines)
    }

    pub fn refused(&self) -> BTreeSet<u64> {
        self.refused.lock().unwrap().clone()
    }

    /// From now on nothing counts: in a real power failure no answer would arrive any more.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
    }

    fn note(&self, number: u64, id: String) {
        let mut ids = self.ids.lock().unwrap();
        if !self.frozen.load(Ordering::SeqCst) {
            ids.insert(number, id);
        }
    }

    fn note_refused(&self, number: u64) {
        let mut refused = self.refused.lock().unwrap();
        if !self.frozen.load(Ordering::SeqCst) {
            refused.insert(number);
        }
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.ids.lock().unwrap().keys().copied().collect()
    }

    /// The mail was removed by an operator.
    pub fn forget(&self, number: u64) {
        self.ids.lock().unwrap().remove(&number);
    }

    pub fn id(&self, number: u64) -> String {
        self.ids.lock().unwrap().get(&number).cloned().unwrap_or_default()
    }

    pub fn count(&self) -> usize {
        self.ids.lock().unwrap().len()
    }
}

/// A mail whose body repeats its number, so that a truncated or mixed mail is noticed.
fn mail(number: u64, lines: usize) -> String {
    let line = format!("line of number {number}\r\n");
    format!(
        "From: reports@example.com\r\nTo: you@example.net\r\nSubject: number {number}\r\n\
         Message-ID: <number-{number}@example.com>\r\n\r\n{}end of number {number}\r\n",
        line.repeat(lines)
    )
}

/// Clients that send until `stop`; they retry after a refusal or a broken connection.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    pub fn start(gateway: SocketAddr, clients: usize, acknowledged: &Arc<Acknowledged>) -> Self {
        Self::paced(gateway, clients, acknowledged, Duration::ZERO)
    }

    /// With a pause of each client after each mail.
    pub fn paced(gateway: SocketAddr, clients: usize, acknowledged: &Arc<Acknowledged>, pause: Duration) -> Self {
        acknowledged.frozen.store(false, Ordering::SeqCst);
        let stop = Arc::new(AtomicBool::new(false));
        let mut set = JoinSet::new();
        for _ in 0..clients {
            let stop = stop.clone();
            let acknowledged = acknowledged.clone();
            set.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if session(gateway, &stop, &acknowledged, pause).await.is_none() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            });
        }
        Self { stop, clients: set }
    }

    /// Every client finishes or abandons its current mail.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
    }
}

/// Exactly `count` mails, one after another over one connection; stops early if one is not accepted.
pub async fn hand_in(gateway: SocketAddr, count: usize, acknowledged: &Acknowledged) {
    let Some(mut connection) = Connection::open(gateway).await else { return };
    for _ in 0..count {
        if connection.send(acknowledged).await.is_none() {
            return;
        }
    }
}

async fn session(gateway: SocketAddr, stop: &AtomicBool, acknowledged: &Acknowledged, pause: Duration) -> Option<()> {
    let mut connection = Connection::open(gateway).await?;
    while !stop.load(Ordering::Relaxed) {
        connection.send(acknowledged).await?;
        tokio::time::sleep(pause).await;
    }
    Some(())
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(gateway: SocketAddr) -> Option<Self> {
        let socket = TcpStream::connect(gateway).await.ok()?;
        let mut connection = Self(BufReader::new(socket));
        connection.reply().await?;
        connection.ask("EHLO load.example\r\n").await?;
        Some(connection)
    }

    /// `None`: not accepted. An acknowledgement is recorded before anything else can go wrong.
    async fn send(&mut self, acknowledged: &Acknowledged) -> Option<()> {
        let number = acknowledged.next.fetch_add(1, Ordering::Relaxed);
        self.ask("MAIL FROM:<reports@example.com>\r\n").await?;
        self.ask("RCPT TO:<you@example.net>\r\n").await?;
        self.ask("DATA\r\n").await?;
        let reply = self.say(&format!("{}.\r\n", acknowledged.mail(number))).await?;
        if !reply.starts_with('2') {
            acknowledged.note_refused(number);
            return None;
        }
        let id = reply.split_ascii_whitespace().last().unwrap_or_default().to_owned();
        acknowledged.note(number, id);
        Some(())
    }

    /// The last line of a positive reply.
    async fn ask(&mut self, bytes: &str) -> Option<String> {
        self.say(bytes).await.filter(|reply| reply.starts_with(['2', '3']))
    }

    async fn say(&mut self, bytes: &str) -> Option<String> {
        self.0.get_mut().write_all(bytes.as_bytes()).await.ok()?;
        self.reply().await
    }

    /// The last line of a complete reply.
    async fn reply(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            // A hang guard: a gateway that was stopped with SIGSTOP, or a machine without power, says nothing.
            let read = timeout(Duration::from_secs(20), self.0.read_line(&mut line)).await.ok()?.ok()?;
            if read == 0 {
                return None;
            }
            if line.as_bytes().get(3) == Some(&b' ') {
                return Some(line.trim_end().to_owned());
            }
        }
    }
}
