//! A data folder with mail in it, and optionally a process that holds it like a running gateway: lock, queue and control
//! socket, but no delivery, so that what a command finds does not depend on time.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use waxseal::control::{ControlServer, GatewayHooks};
use waxseal::gateway::lock::Lock;
use waxseal::message::accepted::{Accepted, Origin};
use waxseal::message::{Envelope, MailId, Marks, RawMessage};
use waxseal::observe::Clock;
use waxseal::queue::schedule::Schedule;
use waxseal::queue::sqlite::{SqliteOptions, SqliteQueue};
use waxseal::queue::{Attempted, Delivered, InitialState, Lane, NewMail, Queue};
use waxseal::smtp::{Mailbox, ReversePath};

pub fn open(data_dir: &Path) -> SqliteQueue {
    let options = SqliteOptions {
        data_dir: data_dir.to_owned(),
        cache_octets: 1 << 20,
        min_free_space: 0,
        schedule: Schedule::default(),
        clock: Clock::System,
        metrics: Default::default(),
    };
    SqliteQueue::open(options).expect("the queue opens")
}

/// Before now.
pub fn ago(hours: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(hours)
}

pub fn lane() -> Lane {
    Lane::new("default")
}

pub fn attempt(text: &str) -> Attempted {
    Attempted {
        at: ago(1),
        upstream: Some("company".into()),
        text: format!("upstream \"company\", {text}"),
        possible_duplicate: false,
    }
}

pub fn deferred() -> InitialState {
    let due = Timestamp::now() + SignedDuration::from_mins(40);
    InitialState::Deferred { lane: lane(), due, attempt: attempt("connect: connection refused") }
}

pub fn failed() -> InitialState {
    InitialState::Failed { lane: lane(), attempt: attempt("RCPT TO: 550 5.1.1 no such user") }
}

pub fn delivered() -> InitialState {
    let reply = "250 2.0.0 Ok: queued as 4711".to_owned();
    InitialState::Delivered(Delivered { at: ago(1), upstream: "company".into(), reply, milliseconds: 231 })
}

/// One message with these recipients; its name.
pub async fn put(queue: &dyn Queue, hours_ago: i64, subject: &str, recipients: &[(&str, InitialState)]) -> MailId {
    let received_at = ago(hours_ago);
    let id = MailId::new(received_at, rand_of(subject));
    let mut envelope = Envelope::new(ReversePath::Mailbox(Mailbox::parse("reports@example.com").expect("a sender")));
    for (address, _) in recipients {
        envelope.add_recipient(Mailbox::parse(address).expect("a recipient"));
    }
    let data = format!(
        "From: reports@example.com\r\nSubject: {subject}\r\nMessage-ID: <{id}@example.com>\r\n\r\nHello \x1b[31m.\r\n"
    );
    let message = RawMessage::from_data(Bytes::from(data)).expect("a message");
    let accepted = Arc::new(Accepted {
        id,
        received_at,
        origin: Origin::default(),
        envelope,
        message,
        author: None,
        marks: Marks::default(),
    });
    let initial_states = recipients.iter().map(|(_, initial_state)| initial_state.clone()).collect();
    let mail = NewMail { accepted, initial_states, original: None, subject: subject.into(), deduplication: None };
    queue.put(mail).await.expect("it is put");
    id
}

fn rand_of(text: &str) -> u32 {
    text.bytes().fold(17, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)))
}

/// As a gateway would, until it is dropped or stopped.
pub struct Holder {
    pub wakes: Arc<AtomicUsize>,
    queue: Arc<SqliteQueue>,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    _lock: Lock,
}

impl Holder {
    pub fn start(data_dir: PathBuf) -> Self {
        let lock = Lock::take(&data_dir).expect("nobody else holds it");
        let queue = Arc::new(open(&data_dir));
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = wakes.clone();
        let wake = Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let hooks = GatewayHooks { wake, ..GatewayHooks::default() };
        let server = ControlServer::bind(&data_dir, queue.clone(), hooks, Clock::System).expect("a socket");
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(server.serve(shutdown.clone()));
        Self { wakes, queue, shutdown, server, _lock: lock }
    }

    pub fn queue(&self) -> &SqliteQueue {
        &self.queue
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.server.await.expect("the server ends");
        self.queue.close().await;
    }
}
