//! A client that sends exactly the bytes it is told to, and holds every reply line to the rules.

use super::certificate::Authority;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Nothing takes that long; a test that would hang fails instead.
pub const HANG_GUARD: Duration = Duration::from_secs(60);

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

pub struct Client {
    socket: Box<dyn Socket>,
    received: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        // So that each write is a segment of its own.
        socket.set_nodelay(true).unwrap();
        Self { socket: Box::new(socket), received: Vec::new() }
    }

    /// From another address of loopback.
    pub async fn connect_from(source: [u8; 4], address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        Self { socket: Box::new(socket.connect(address).await.unwrap()), received: Vec::new() }
    }

    /// Trusts the authority; `localhost` is the name.
    pub async fn start_tls(self, authority: &Authority) -> io::Result<Self> {
        assert!(self.received.is_empty(), "the server spoke out of turn: {}", self.received.escape_ascii());
        let ca = waxseal::pem::certificates(authority.pem().as_bytes()).unwrap();
        let connector = TlsConnector::from(waxseal::tls::client(&ca).unwrap());
        let name = "localhost".try_into().unwrap();
        let socket = timeout(HANG_GUARD, connector.connect(name, self.socket)).await.expect("no handshake")?;
        Ok(Self { socket: Box::new(socket), received: Vec::new() })
    }

    /// In one write. Errors are left for the reading side to find: the server may have closed already.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _closed = timeout(HANG_GUARD, async {
            self.socket.write_all(bytes).await?;
            self.socket.flush().await
        })
        .await
        .expect("the server does not read");
    }

    /// The next reply line without its CRLF, or `None` at the end of the connection.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).take(end).collect();
                return Some(checked(line));
            }
            let read = timeout(HANG_GUARD, self.socket.read_buf(&mut self.received)).await.expect("no reply");
            if matches!(read, Ok(0) | Err(_)) {
                assert!(self.received.is_empty(), "half a line: {}", self.received.escape_ascii());
                return None;
            }
        }
    }

    /// All lines of the next reply, joined by LF.
    pub async fn reply(&mut self) -> Option<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            let last = line.as_bytes().get(3) == Some(&b' ');
            lines.push(line);
            if last {
                return Some(lines.join("\n"));
            }
        }
    }

    /// The same, of a server that may be killed in the middle of it.
    pub async fn try_reply(&mut self) -> Option<String> {
        loop {
            let end = self.received.windows(2).position(|pair| pair == b"\r\n");
            if let Some(end) = end {
                let line: Vec<u8> = self.received.drain(..end + 2).take(end).collect();
                let line = checked(line);
                if line.as_bytes().get(3) == Some(&b' ') {
                    return Some(line);
                }
                continue;
            }
            let read = timeout(HANG_GUARD, self.socket.read_buf(&mut self.received)).await.expect("no reply");
            if matches!(read, Ok(0) | Err(_)) {
                return None;
            }
        }
    }

    /// Sends a line and returns the reply.
    pub async fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await.unwrap_or_else(|| panic!("closed instead of a reply to {line}"))
    }

    /// The greeting and EHLO.
    pub async fn greet(&mut self) {
        assert!(self.reply().await.is_some_and(|greeting| greeting.starts_with("220 ")));
        assert!(self.ask("EHLO client.example").await.starts_with("250-"));
    }

    /// One half to read with, one to write with: for what is too much to be sent before the first reply is read.
    pub fn split(self) -> (Self, Self) {
        let (reading, writing) = tokio::io::split(self.socket);
        let reading = tokio::io::join(reading, tokio::io::empty());
        let writing = tokio::io::join(tokio::io::empty(), writing);
        (
            Self { socket: Box::new(reading), received: self.received },
            Self { socket: Box::new(writing), received: Vec::new() },
        )
    }

    /// No more to send; replies can still be read.
    pub async fn close_sending(&mut self) {
        let _closed = self.socket.shutdown().await;
    }
}

/// RFC 5321 §4.5.3.1.5 (512 octets), and a code is never without text: a bare `250` crashes both of Plausible's clients.
fn checked(line: Vec<u8>) -> String {
    assert!(line.len() + 2 <= 512, "a reply line of {} octets", line.len() + 2);
    let line = String::from_utf8(line).expect("a reply in UTF-8");
    let (code, rest) = line.split_at(3);
    assert!(code.bytes().all(|byte| byte.is_ascii_digit()), "no code: {line}");
    assert!(rest.starts_with([' ', '-']) && !rest.contains('\r'), "not of the form \"250 text\": {line:?}");
    assert!(rest.len() > 1 || line == "334 ", "a reply without text: {line}");
    line
}
