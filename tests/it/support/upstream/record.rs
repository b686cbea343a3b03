//! What the scripted provider took down.

use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::watch;

/// One message, as its final dot left it.
#[derive(Debug, Clone)]
pub struct Message {
    /// When its final dot had come.
    pub at: Instant,
    /// Number of the connection, from 0.
    pub connection: usize,
    /// Whose login this connection had; "" without one.
    pub login: String,
    /// The client's certificate, DER; empty without one.
    pub certificate: Vec<u8>,
    /// Argument of MAIL, parameters included: `<a@b> SIZE=12`.
    pub mail: String,
    /// Those that were accepted, without brackets.
    pub recipients: Vec<String>,
    /// Un-stuffed.
    pub data: Vec<u8>,
    /// As it came, the final dot included.
    pub wire: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub now: usize,
    pub max: usize,
    pub total: usize,
    pub messages: usize,
}

#[derive(Debug, Default)]
struct Notes {
    in_clear: Vec<u8>,
    inside_tls: Vec<u8>,
    commands: Vec<String>,
    logins: Vec<(String, String, String)>,
    messages: Vec<Message>,
    not_accepted: Vec<Message>,
    round_trips: usize,
    segments: usize,
    broken: Vec<&'static str>,
}

#[derive(Debug, Default)]
pub struct Record {
    notes: Mutex<Notes>,
    counts: Arc<watch::Sender<Counts>>,
}

/// Counts as one connection until it is dropped.
pub struct Connected {
    counts: Arc<watch::Sender<Counts>>,
    pub number: usize,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.counts.send_modify(|counts| counts.now -= 1);
    }
}

impl Record {
    pub fn connected(&self) -> Connected {
        self.counts.send_modify(|counts| {
            counts.now += 1;
            counts.max = counts.max.max(counts.now);
            counts.total += 1;
        });
        Connected { counts: Arc::clone(&self.counts), number: self.counts().total - 1 }
    }

    pub fn heard(&self, secured: bool, octets: &[u8]) {
        let mut notes = self.notes.lock().unwrap();
        if secured { &mut notes.inside_tls } else { &mut notes.in_clear }.extend_from_slice(octets);
    }

    pub fn segment(&self, after_a_reply: bool) {
        let mut notes = self.notes.lock().unwrap();
        notes.segments += 1;
        notes.round_trips += usize::from(after_a_reply);
    }

    pub fn command(&self, line: &str) {
        self.notes.lock().unwrap().commands.push(line.to_owned());
    }

    pub fn login(&self, mechanism: &str, username: String, password: String) {
        self.notes.lock().unwrap().logins.push((mechanism.to_owned(), username, password));
    }

    pub fn message(&self, message: Message, accepted: bool) {
        let mut notes = self.notes.lock().unwrap();
        if accepted { &mut notes.messages } else { &mut notes.not_accepted }.push(message);
        drop(notes);
        self.counts.send_modify(|counts| counts.messages += usize::from(accepted));
    }

    pub fn broken(&self, rule: &'static str) {
        self.notes.lock().unwrap().broken.push(rule);
    }

    pub fn broken_rules(&self) -> Vec<&'static str> {
        self.notes.lock().unwrap().broken.clone()
    }

    pub fn not_accepted(&self) -> Vec<Message> {
        self.notes.lock().unwrap().not_accepted.clone()
    }

    pub fn messages(&self) -> Vec<Message> {
        self.notes.lock().unwrap().messages.clone()
    }

    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    pub fn commands(&self) -> Vec<String> {
        self.notes.lock().unwrap().commands.clone()
    }

    pub fn logins(&self) -> Vec<(String, String, String)> {
        self.notes.lock().unwrap().logins.clone()
    }

    pub fn in_clear(&self) -> Vec<u8> {
        self.notes.lock().unwrap().in_clear.clone()
    }

    pub fn inside_tls(&self) -> Vec<u8> {
        self.notes.lock().unwrap().inside_tls.clone()
    }

    pub fn round_trips(&self) -> usize {
        self.notes.lock().unwrap().round_trips
    }

    pub fn segments(&self) -> usize {
        self.notes.lock().unwrap().segments
    }

    pub async fn until(&self, condition: impl Fn(&Counts) -> bool) {
        let mut counts = self.counts.subscribe();
        let met = tokio::time::timeout(crate::support::client::HANG_GUARD, counts.wait_for(|counts| condition(counts)));
        met.await.expect("it never happens").expect("the record outlives the wait");
    }
}
