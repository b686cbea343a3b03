//! Shared by tests and fuzz targets: options, TLS, an intake that records, and a conversation without a socket. Not
//! part of any build of the program. Decides nothing about the protocol: `session` does.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use super::lines::LineBuffer;
use super::session::{ServerSession, SessionAction, SessionStep};
use super::{AuthMode, Client, Intake, LineEndings, ListenerOptions, Received, SubmissionRates, Tls};
use crate::message::MemoryBudget;
use crate::smtp::{EnhancedCode, Reply, ReversePath};
use parking_lot::Mutex;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

pub(crate) fn options() -> ListenerOptions {
    ListenerOptions {
        address: ([127, 0, 0, 1], 0).into(),
        hostname: "gateway.example".into(),
        tls: Tls::Off,
        allow: vec!["127.0.0.0/8".parse().expect("a network")],
        auth: AuthMode::Optional,
        line_endings: LineEndings::Normalize,
        max_message_size: 100_000,
        max_recipients: 5,
        max_connections: 10,
        max_connections_per_address: 10,
        proxy_protocol: Vec::new(),
        timeout: Duration::from_secs(300),
        rates: SubmissionRates::default(),
        metrics: crate::observe::metrics::ListenerMetrics::default(),
    }
}

pub(crate) fn budget() -> MemoryBudget {
    MemoryBudget::new(10 * 1024 * 1024)
}

/// Uses one certificate for all tests of the process.
pub(crate) fn server_tls() -> Arc<rustls::ServerConfig> {
    static CONFIG: LazyLock<Arc<rustls::ServerConfig>> = LazyLock::new(|| {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = crate::pem::private_key(own.signing_key.serialize_pem().as_bytes()).expect("its key");
        crate::tls::server(vec![own.cert.der().clone()], key).expect("a configuration")
    });
    Arc::clone(&CONFIG)
}

/// Accepts every message; refuses the sender `refused@…`.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) taken: Mutex<Vec<Received>>,
}

impl Recorder {
    pub(crate) fn count(&self) -> usize {
        self.taken.lock().len()
    }
}

impl Intake for Recorder {
    fn admit(&self, _client: &Client, sender: &ReversePath, _size: Option<u64>) -> Result<(), Reply> {
        if sender.to_string().starts_with("refused@") {
            Err(Reply::new(550, EnhancedCode::new(5, 7, 1), "Not you"))
        } else {
            Ok(())
        }
    }

    async fn accept(&self, received: Received) -> Reply {
        self.taken.lock().push(received);
        Reply::ok()
    }
}

/// A session, its input and its replies: a connection without a socket.
#[derive(Debug)]
pub(crate) struct Dialogue {
    pub(crate) next: Option<SessionAction>,
    input: LineBuffer,
    pub(crate) intake: Recorder,
    pub(crate) budget: MemoryBudget,
    pub(crate) replies: Vec<Reply>,
    /// Plain text followed STARTTLS; the connection was dropped.
    pub(crate) injected: bool,
}

impl Dialogue {
    pub(crate) fn new(options: ListenerOptions) -> Self {
        let input = LineBuffer::default();
        let intake = Recorder::default();
        let mut dialogue = Self { next: None, input, intake, budget: budget(), replies: Vec::new(), injected: false };
        let peer = ([127, 0, 0, 1], 40_000).into();
        dialogue.step(ServerSession::open(Arc::new(options), dialogue.budget.clone(), peer, None));
        dialogue
    }

    fn step(&mut self, step: SessionStep) {
        self.replies.extend(step.reply);
        self.next = Some(step.next);
    }

    /// Sends the bytes as if they came in one segment.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.input.buffer().extend_from_slice(bytes);
        while let Some(next) = self.next.take() {
            match self.advance(next) {
                Ok(step) => self.step(step),
                Err(waiting) => return self.next = Some(*waiting),
            }
        }
    }

    /// `Err` if more bytes are needed, or none will come.
    fn advance(&mut self, next: SessionAction) -> Result<SessionStep, Box<SessionAction>> {
        Ok(match next {
            SessionAction::Command(session) => match self.input.next_line() {
                Some(line) => session.line(line),
                None => return Err(Box::new(SessionAction::Command(session))),
            },
            SessionAction::Response(exchange) => match self.input.next_line() {
                Some(line) => exchange.response(line),
                None => return Err(Box::new(SessionAction::Response(exchange))),
            },
            SessionAction::Data(mut receiving) => {
                let consumed = receiving.feed(self.input.bytes());
                self.input.consume(consumed);
                if !receiving.is_done() {
                    return Err(Box::new(SessionAction::Data(receiving)));
                }
                receiving.finish()
            }
            SessionAction::Verify(verification) => {
                let right = verification.name() == "u" && verification.password().reveal() == "p";
                verification.verdict(right.then(|| "u".into()))
            }
            SessionAction::StartTls(upgrade) => match upgrade.check(self.input.bytes()) {
                Ok(clean) => SessionStep::silent(SessionAction::Command(clean.secured("TLSv1.3"))),
                Err(_) => {
                    self.injected = true;
                    SessionStep::silent(SessionAction::Close)
                }
            },
            SessionAction::Admit(admission) => admission.decide(&self.intake),
            SessionAction::Accept(received, accepting) => {
                self.intake.taken.lock().push(*received);
                accepting.replied(&Reply::ok())
            }
            SessionAction::Close => return Err(Box::new(SessionAction::Close)),
        })
    }

    pub(crate) fn codes(&self) -> Vec<u16> {
        self.replies.iter().map(Reply::code).collect()
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.next, Some(SessionAction::Close))
    }

    pub(crate) fn is_in_data(&self) -> bool {
        matches!(self.next, Some(SessionAction::Data(_)))
    }

    /// Number of unconsumed octets.
    pub(crate) fn waiting(&self) -> usize {
        self.input.bytes().len()
    }
}
