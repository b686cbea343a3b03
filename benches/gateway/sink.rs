//! The provider of every server under test: STARTTLS before anything else, every mail taken, none kept.
//!
//! It has one thread of its own, so that its CPU can be told from the source's. It notes which mails have arrived, and which
//! of them were signed: a server that signs nothing is not faster.

use super::mail;
use super::measure::OwnThread;
use bytes::{Buf as _, BytesMut};
use memchr::memmem;
use parking_lot::{Condvar, Mutex};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const BUFFER: usize = 256 * 1024;
const END: &[u8] = b"\r\n.\r\n";
const SIGNATURE: &[u8] = b"DKIM-Signature:";

/// What has arrived since the last `expect`.
#[derive(Debug, Default)]
pub struct Tally {
    seen: Vec<bool>,
    distinct: usize,
    pub duplicates: usize,
    pub unsigned: usize,
    pub octets: u64,
    pub connections: usize,
    last: Option<Instant>,
}

pub struct Sink {
    pub address: SocketAddr,
    /// The certificate, as PEM: it is its own authority.
    pub certificate: String,
    pub thread: OwnThread,
    der: CertificateDer<'static>,
    arrivals: Arc<Arrivals>,
    ended: CancellationToken,
    worker: Option<std::thread::JoinHandle<()>>,
}

/// Of the sink: signed by itself, for loopback.
pub struct Certificate(rcgen::CertifiedKey<rcgen::KeyPair>);

impl Certificate {
    pub fn new() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        Self(rcgen::generate_simple_self_signed(names).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.cert.pem()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.0.signing_key.serialize_der()).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![self.0.cert.der().clone()];
        TlsAcceptor::from(waxseal::tls::server(chain, key).unwrap())
    }
}

#[derive(Default)]
struct Arrivals {
    tally: Mutex<Tally>,
    all_there: Condvar,
}

impl Sink {
    pub fn start() -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), &Certificate::new())
    }

    /// On a socket that is bound already, or again.
    pub fn start_on(listener: TcpListener, certificate: &Certificate) -> Self {
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = certificate.acceptor();
        let (arrivals, ended) = (Arc::new(Arrivals::default()), CancellationToken::new());
        let (told, thread) = std::sync::mpsc::channel();
        let worker = std::thread::spawn({
            let (arrivals, ended) = (arrivals.clone(), ended.clone());
            move || {
                told.send(OwnThread::current()).unwrap();
                super::runtime().block_on(serve(listener, acceptor, arrivals, ended));
            }
        });
        let thread = thread.recv().unwrap();
        let (certificate, der) = (certificate.pem(), certificate.0.cert.der().clone());
        Self { address, certificate, thread, der, arrivals, ended, worker: Some(worker) }
    }

    /// For clients that speak to the sink directly.
    pub fn client_tls(&self) -> Arc<ClientConfig> {
        waxseal::tls::client(std::slice::from_ref(&self.der)).unwrap()
    }

    /// How many have arrived, the same one counted once.
    pub fn arrived(&self) -> usize {
        self.arrivals.tally.lock().distinct
    }

    /// From now on mails with numbers below `messages` are counted.
    pub fn expect(&self, messages: usize) {
        *self.arrivals.tally.lock() = Tally { seen: vec![false; messages], ..Tally::default() };
    }

    /// Waits until every expected mail is there. Returns when the last one came, and what came besides. An error says how
    /// many are missing once none has arrived for `patience`.
    pub fn wait(&self, patience: Duration) -> Result<(Instant, Tally), String> {
        let mut tally = self.arrivals.tally.lock();
        while tally.distinct < tally.seen.len() {
            let before = tally.distinct;
            let late = self.arrivals.all_there.wait_for(&mut tally, patience).timed_out();
            if late && tally.distinct == before {
                return Err(format!("{before} of {} mails have arrived, and no more came", tally.seen.len()));
            }
        }
        let last = tally.last.unwrap_or_else(Instant::now);
        Ok((last, std::mem::take(&mut *tally)))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.ended.cancel();
        if let Some(worker) = self.worker.take() {
            let _a_panic_shows_elsewhere = worker.join();
        }
    }
}

impl Arrivals {
    fn note(&self, number: Option<usize>, octets: usize, signed: bool) {
        let mut tally = self.tally.lock();
        let Some(seen) = number.and_then(|number| tally.seen.get_mut(number)) else { return };
        if std::mem::replace(seen, true) {
            tally.duplicates += 1;
            return;
        }
        tally.distinct += 1;
        tally.octets += octets as u64;
        tally.unsigned += usize::from(!signed);
        if tally.distinct == tally.seen.len() {
            tally.last = Some(Instant::now());
            self.all_there.notify_all();
        }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, arrivals: Arc<Arrivals>, ended: CancellationToken) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ended.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let _slower_without_it = stream.set_nodelay(true);
        arrivals.tally.lock().connections += 1;
        let (acceptor, arrivals) = (acceptor.clone(), arrivals.clone());
        tokio::spawn(async move {
            // A client that hangs up in the middle is the server's business; a missing mail shows in the count.
            let _ended = converse(stream, acceptor, arrivals).await;
        });
    }
}

async fn converse(mut stream: TcpStream, acceptor: TlsAcceptor, arrivals: Arc<Arrivals>) -> std::io::Result<()> {
    stream.write_all(b"220 sink ESMTP\r\n").await?;
    let mut dialog = Dialog::new(arrivals, false);
    if dialog.run(&mut stream).await? == Next::StartTls {
        let mut secured = acceptor.accept(stream).await?;
        let mut dialog = Dialog::new(dialog.arrivals, true);
        dialog.run(&mut secured).await?;
        secured.shutdown().await?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Read,
    StartTls,
    Quit,
}

/// One connection, before TLS or after.
struct Dialog {
    arrivals: Arc<Arrivals>,
    is_secured: bool,
    input: BytesMut,
    replies: Vec<u8>,
    recipient: Option<usize>,
    /// `None` between messages.
    data: Option<Data>,
}

/// A message on its way in.
#[derive(Default)]
struct Data {
    octets: usize,
    signed: bool,
}

impl Dialog {
    fn new(arrivals: Arc<Arrivals>, is_secured: bool) -> Self {
        let input = BytesMut::with_capacity(if is_secured { BUFFER } else { 1024 });
        Self { arrivals, is_secured, input, replies: Vec::new(), recipient: None, data: None }
    }

    async fn run(&mut self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<Next> {
        loop {
            self.input.reserve(BUFFER / 4);
            if stream.read_buf(&mut self.input).await? == 0 {
                return Ok(Next::Quit);
            }
            let next = self.consume();
            stream.write_all(&self.replies).await?;
            stream.flush().await?;
            self.replies.clear();
            if next != Next::Read {
                return Ok(next);
            }
        }
    }

    /// Everything in the buffer; pipelined commands are answered together.
    fn consume(&mut self) -> Next {
        loop {
            if self.data.is_some() {
                if !self.take_data() {
                    return Next::Read;
                }
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', &self.input) else { return Next::Read };
            let line = self.input.split_to(end + 1);
            let next = self.command(&line);
            if next != Next::Read {
                return next;
            }
        }
    }

    /// Whether the final dot was there. What cannot be part of it any more is dropped unread.
    fn take_data(&mut self) -> bool {
        let Some(data) = &mut self.data else { return false };
        data.signed = data.signed || memmem::find(&self.input, SIGNATURE).is_some();
        if let Some(at) = memmem::find(&self.input, END) {
            let octets = data.octets + at + 2;
            self.arrivals.note(self.recipient, octets, data.signed);
            self.input.advance(at + END.len());
            self.data = None;
            self.replies.extend_from_slice(b"250 2.0.0 Taken\r\n");
            return true;
        }
        // Enough is kept for either text to be found across two reads.
        let dropped = self.input.len().saturating_sub(SIGNATURE.len());
        data.octets += dropped;
        self.input.advance(dropped);
        false
    }

    fn command(&mut self, line: &[u8]) -> Next {
        let is = |verb: &[u8]| line.len() >= verb.len() && line[..verb.len()].eq_ignore_ascii_case(verb);
        let reply: &[u8] = match () {
            () if is(b"EHLO") && self.is_secured => {
                b"250-sink\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n"
            }
            () if is(b"EHLO") => {
                b"250-sink\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n250 STARTTLS\r\n"
            }
            () if is(b"STARTTLS") && !self.is_secured => {
                self.replies.extend_from_slice(b"220 2.0.0 Go ahead\r\n");
                return Next::StartTls;
            }
            () if is(b"QUIT") => {
                self.replies.extend_from_slice(b"221 2.0.0 Bye\r\n");
                return Next::Quit;
            }
            () if !self.is_secured => b"530 5.7.0 STARTTLS first\r\n",
            () if is(b"RCPT") => {
                self.recipient = mail::number_of(line);
                b"250 2.1.5 Ok\r\n"
            }
            () if is(b"DATA") => {
                self.data = Some(Data::default());
                b"354 Go ahead\r\n"
            }
            () if is(b"MAIL") || is(b"RSET") || is(b"NOOP") => b"250 2.0.0 Ok\r\n",
            () => b"502 5.5.1 Not here\r\n",
        };
        self.replies.extend_from_slice(reply);
        Next::Read
    }
}
