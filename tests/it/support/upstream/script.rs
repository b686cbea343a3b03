//! What the scripted provider does where.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A place in the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum At {
    Greeting,
    /// Before TLS.
    Ehlo,
    StartTls,
    /// Instead of the handshake.
    Handshake,
    EhloInTls,
    Auth,
    /// Instead of a prompt, and of the last word.
    AuthAnswer,
    Mail,
    Rcpt,
    Data,
    /// When the first octets of a message have come.
    Midway,
    Dot,
    Rset,
    Quit,
}

#[derive(Debug, Clone)]
pub enum Action {
    /// A line; CRLF is added. `&str` converts into this.
    Say(String),
    /// Octets as they are.
    Raw(Vec<u8>),
    /// Octets as they are, and the end of the connection.
    RawAndClose(Vec<u8>),
    Close,
    /// Never a word again; what comes is still taken down.
    Stall,
    /// The same line endlessly.
    Endless(&'static str),
    /// The usual, but late.
    Late(Duration),
    /// The usual, once the test gives a permit for it.
    OnceAllowed(Arc<Semaphore>),
}

impl Action {
    pub fn say_and_close(line: &str) -> Self {
        Self::RawAndClose(format!("{line}\r\n").into_bytes())
    }
}

impl From<&str> for Action {
    fn from(line: &str) -> Self {
        Self::Say(line.to_owned())
    }
}

#[derive(Debug, Default)]
pub struct Script {
    once: Mutex<HashMap<At, VecDeque<Action>>>,
    always: Mutex<HashMap<At, Action>>,
    recipients: Mutex<Vec<(String, Action)>>,
}

impl Script {
    pub fn once(&self, at: At, action: Action) {
        self.once.lock().unwrap().entry(at).or_default().push_back(action);
    }

    pub fn always(&self, at: At, action: Action) {
        self.always.lock().unwrap().insert(at, action);
    }

    pub fn recipient(&self, part: &str, action: Action) {
        self.recipients.lock().unwrap().push((part.to_owned(), action));
    }

    /// `None`: the usual.
    pub fn next(&self, at: At, line: &str) -> Option<Action> {
        if at == At::Rcpt {
            let recipients = self.recipients.lock().unwrap();
            if let Some((_, action)) = recipients.iter().find(|(part, _)| line.contains(part)) {
                return Some(action.clone());
            }
        }
        let once = self.once.lock().unwrap().get_mut(&at).and_then(VecDeque::pop_front);
        once.or_else(|| self.always.lock().unwrap().get(&at).cloned())
    }
}
