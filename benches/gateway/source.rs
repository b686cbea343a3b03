//! The applications of a run: clients that speak plain SMTP as mail libraries do, one command and one reply at a time.
//!
//! All clients of a load share one thread of their own, so that their CPU can be told from everyone else's.

use super::mail::{Mail, SENDER, recipient};
use super::measure::OwnThread;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// For a server that has no memory for a large message now.
const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(20);

/// How much is sent, and how.
#[derive(Clone)]
pub struct Load {
    pub address: SocketAddr,
    /// STARTTLS first, as towards the sink itself.
    pub tls: Option<Arc<ClientConfig>>,
    pub clients: usize,
    pub messages_per_connection: usize,
    pub messages: usize,
    /// Octets of a message.
    pub size: usize,
}

/// What the clients saw.
pub struct Sent {
    pub began: Instant,
    /// From the last octet of the data sent to the reply, sorted.
    pub acknowledgements: Vec<Duration>,
    /// CPU of all clients together.
    pub cpu: Duration,
}

impl Sent {
    /// In milliseconds; `share` 0.5 is the median.
    pub fn acknowledged(&self, share: f64) -> f64 {
        let at = ((self.acknowledgements.len() - 1) as f64 * share) as usize;
        self.acknowledgements[at].as_secs_f64() * 1000.0
    }
}

/// Sends everything and returns after the last acknowledgement. An error is the reply that was not expected.
pub fn send(load: Load) -> Result<Sent, String> {
    let thread = std::thread::spawn(move || {
        let own = OwnThread::current();
        let sent = super::runtime().block_on(send_all(load));
        sent.map(|(began, mut acknowledgements)| {
            acknowledgements.sort_unstable();
            Sent { began, acknowledgements, cpu: own.cpu() }
        })
    });
    thread.join().unwrap()
}

async fn send_all(load: Load) -> Result<(Instant, Vec<Duration>), String> {
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..load.clients {
        clients.spawn(send_some(load.clone(), next.clone()));
    }
    let mut all = Vec::with_capacity(load.messages);
    while let Some(client) = clients.join_next().await {
        all.extend(client.unwrap().map_err(|e| format!("the source: {e}"))?);
    }
    Ok((began, all))
}

/// One client: connections until no mail is left.
async fn send_some(load: Load, next: Arc<AtomicUsize>) -> std::io::Result<Vec<Duration>> {
    let mut mail = Mail::new(load.size);
    let mut acknowledgements = Vec::new();
    let mut taken = next.fetch_add(1, Ordering::Relaxed);
    while taken < load.messages {
        let mut client = Client::connect(&load).await?;
        for _ in 0..load.messages_per_connection {
            acknowledgements.push(client.send(&mut mail, taken).await?);
            taken = next.fetch_add(1, Ordering::Relaxed);
            if taken >= load.messages {
                break;
            }
        }
        client.command("QUIT\r\n", "221").await?;
    }
    Ok(acknowledgements)
}

/// A client that sends one mail at a time, the next only after `arrived`, and gets the acknowledgements' times, sorted.
pub fn send_one_by_one(load: Load, mut arrived: impl FnMut(usize) + Send) -> Result<Vec<Duration>, String> {
    let alone = async {
        let (mut mail, mut client) = (Mail::new(load.size), Client::connect(&load).await?);
        let mut acknowledgements = Vec::with_capacity(load.messages);
        for number in 0..load.messages {
            acknowledgements.push(client.send(&mut mail, number).await?);
            arrived(number);
        }
        client.command("QUIT\r\n", "221").await?;
        acknowledgements.sort_unstable();
        Ok(acknowledgements)
    };
    super::runtime().block_on(alone).map_err(|e: std::io::Error| format!("the source: {e}"))
}

/// Connections that have said EHLO and say nothing more, until they are dropped.
pub fn idle(load: Load) -> Result<(tokio::runtime::Runtime, Vec<Client>), String> {
    let runtime = super::runtime();
    let mut clients = Vec::with_capacity(load.clients);
    for _ in 0..load.clients {
        clients.push(runtime.block_on(Client::connect(&load)).map_err(|e| format!("the source: {e}"))?);
    }
    Ok((runtime, clients))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection that has said EHLO.
pub struct Client {
    stream: Box<dyn Stream>,
    reply: Vec<u8>,
}

impl Client {
    pub async fn connect(load: &Load) -> std::io::Result<Self> {
        let stream = TcpStream::connect(load.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &load.tls else {
            let mut client = Self { stream: Box::new(stream), reply: Vec::with_capacity(256) };
            client.expect("220").await?;
            client.command("EHLO app.example.com\r\n", "250").await?;
            return Ok(client);
        };
        let mut stream = stream;
        for (command, code) in [("", "220"), ("EHLO app.example.com\r\n", "250"), ("STARTTLS\r\n", "220")] {
            stream.write_all(command.as_bytes()).await?;
            expect(&mut stream, &mut Vec::new(), code).await?;
        }
        let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        let secured = TlsConnector::from(tls.clone()).connect(name, stream).await?;
        let mut client = Self { stream: Box::new(secured), reply: Vec::with_capacity(256) };
        client.command("EHLO app.example.com\r\n", "250").await?;
        Ok(client)
    }

    /// How long the acknowledgement took. A server that is short of memory for now is asked again.
    pub async fn send(&mut self, mail: &mut Mail, number: usize) -> std::io::Result<Duration> {
        let asked = Instant::now();
        loop {
            match self.transaction(mail, number).await {
                Err(_) if self.reply.starts_with(b"452") && asked.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                    self.command("RSET\r\n", "250").await?;
                }
                done => return done,
            }
        }
    }

    async fn transaction(&mut self, mail: &mut Mail, number: usize) -> std::io::Result<Duration> {
        self.command(&format!("MAIL FROM:<{SENDER}> SIZE={}\r\n", mail.size()), "250").await?;
        self.command(&format!("RCPT TO:<{}>\r\n", recipient(number)), "250").await?;
        self.command("DATA\r\n", "354").await?;
        self.stream.write_all(mail.numbered(number)).await?;
        self.stream.flush().await?;
        let sent = Instant::now();
        self.expect("250").await?;
        Ok(sent.elapsed())
    }

    pub async fn command(&mut self, command: &str, code: &str) -> std::io::Result<()> {
        self.stream.write_all(command.as_bytes()).await?;
        self.stream.flush().await?;
        self.expect(code).await
    }

    async fn expect(&mut self, code: &str) -> std::io::Result<()> {
        expect(&mut self.stream, &mut self.reply, code).await
    }
}

/// Reads one reply, all its lines.
async fn expect(stream: &mut (impl AsyncRead + Unpin), reply: &mut Vec<u8>, code: &str) -> std::io::Result<()> {
    reply.clear();
    while !is_whole(reply) {
        if stream.read_buf(reply).await? == 0 {
            return Err(std::io::Error::other(format!("the connection ended where {code} was expected")));
        }
    }
    if reply.starts_with(code.as_bytes()) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(reply).into_owned();
    Err(std::io::Error::other(format!("{code} was expected, not {said:?}")))
}

/// The last line has a space after the code. RFC 5321 §4.2.1.
fn is_whole(reply: &[u8]) -> bool {
    let Some(lines) = reply.strip_suffix(b"\r\n") else { return false };
    let last = memchr::memrchr(b'\n', lines).map_or(0, |at| at + 1);
    lines.get(last + 3).is_none_or(|sign| *sign == b' ')
}
