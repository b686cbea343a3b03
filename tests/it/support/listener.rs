//! A real listener on a free port of 127.0.0.1, and an intake that records everything.

use super::canaries;
use super::certificate::Authority;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use waxseal::inbound::users::Users;
use waxseal::inbound::{AuthMode, Client, Intake, LineEndings, Listener, ListenerOptions, Received, Tls};
use waxseal::message::MemoryBudget;
use waxseal::smtp::{EnhancedCode, Reply, ReversePath};

/// Accepts what it is given and keeps it.
#[derive(Debug)]
pub struct Recorder {
    /// Said to every MAIL, if set.
    pub admit: Option<Reply>,
    /// Said to every final dot.
    pub accept: Reply,
    taken: Mutex<Vec<Received>>,
}

impl Default for Recorder {
    fn default() -> Self {
        let accept = Reply::new(250, EnhancedCode::new(2, 0, 0), "Taken");
        Self { admit: None, accept, taken: Mutex::default() }
    }
}

impl Recorder {
    /// What came in so far, in order.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.taken.lock().unwrap())
    }
}

impl Intake for Recorder {
    fn admit(&self, _client: &Client, _sender: &ReversePath, _size: Option<u64>) -> Result<(), Reply> {
        self.admit.clone().map_or(Ok(()), Err)
    }

    async fn accept(&self, received: Received) -> Reply {
        self.taken.lock().unwrap().push(received);
        self.accept.clone()
    }
}

/// Loopback may send, everything else as in the documentation of the configuration.
pub fn options() -> ListenerOptions {
    ListenerOptions {
        address: ([127, 0, 0, 1], 0).into(),
        hostname: "gateway.example".to_owned(),
        tls: Tls::Off,
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        auth: AuthMode::Optional,
        line_endings: LineEndings::Normalize,
        max_message_size: 25 * 1024 * 1024,
        max_recipients: 1000,
        max_connections: 1000,
        max_connections_per_address: 200,
        proxy_protocol: Vec::new(),
        timeout: Duration::from_secs(300),
        rates: waxseal::inbound::SubmissionRates::default(),
        metrics: Default::default(),
    }
}

pub fn budget() -> MemoryBudget {
    MemoryBudget::new(256 * 1024 * 1024)
}

/// A certificate for `localhost` and its authority.
pub fn server_tls(authority: &Authority) -> Arc<rustls::ServerConfig> {
    let issued = authority.issue(&["localhost", "127.0.0.1"]);
    let chain = waxseal::pem::certificates(issued.certificate.as_bytes()).unwrap();
    let key = waxseal::pem::private_key(issued.private_key.as_bytes()).unwrap();
    waxseal::tls::server(chain, key).unwrap()
}

pub struct Listening<I> {
    pub address: SocketAddr,
    pub intake: Arc<I>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl<I: Intake> Listening<I> {
    pub fn start(options: ListenerOptions, users: Users, budget: MemoryBudget, intake: I) -> Self {
        canaries::watch_this_process();
        let listener = Listener::bind(options, users, budget).unwrap();
        let address = listener.local_address();
        let intake = Arc::new(intake);
        let stop = CancellationToken::new();
        let serving = tokio::spawn(listener.serve(Arc::clone(&intake), stop.clone()));
        Self { address, intake, stop, serving }
    }

    /// As SIGTERM does.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops and waits until every connection has ended.
    pub async fn finish(self) -> Arc<I> {
        self.stop.cancel();
        self.serving.await.unwrap();
        self.intake
    }
}
