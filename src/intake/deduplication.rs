//! Recognises a message that a client submits a second time because it did not see the answer to the first; in direct mode,
//! the second waits for the first.
//!
//! Two submissions are the same message if these are equal: the login (without one, the client's address), the
//! Idempotency-Key (without one, the Message-ID), the envelope and the content. The content does not include what a library
//! writes differently each time it renders a message: Date, multipart boundaries, and the Message-ID if there is an
//! Idempotency-Key. Mail with neither header is always new.

use crate::inbound::{Client, Received};
use crate::message::headers::FieldRef;
use crate::message::mime::Structure;
use crate::message::{Envelope, RawMessage};
use crate::queue::{Deduplication, IdempotencyKey};
use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const MESSAGE_ID: &str = "Message-ID";
/// A shorter boundary, in octets, could occur in a header as a word.
const SHORTEST_BOUNDARY: usize = 8;
/// Real mail has a handful.
const MOST_BOUNDARIES: usize = 32;
const MOST_PLACES: usize = 10_000;

/// The key under which `received` is remembered; `None` for mail with neither header, or with a repeated one.
pub(super) fn deduplication(received: &Received, window: Duration) -> Option<Deduplication> {
    let message = RawMessage::from_data(received.data.clone()).ok()?;
    let name = OwnName::of(&message)?;
    let key = key(&received.client, &received.envelope, &message, &name);
    Some(Deduplication { key, window })
}

/// The field by which the sender identifies the message.
struct OwnName {
    field: &'static str,
    value: Vec<u8>,
}

impl OwnName {
    /// A repeated field does not identify the message.
    fn of(message: &RawMessage) -> Option<Self> {
        let field = if message.has(IDEMPOTENCY_KEY) { IDEMPOTENCY_KEY } else { MESSAGE_ID };
        let mut fields = message.fields_named(field);
        let value = fields.next()?.unfolded();
        (fields.next().is_none() && !value.is_empty()).then_some(Self { field, value })
    }
}

fn key(client: &Client, envelope: &Envelope, message: &RawMessage, name: &OwnName) -> IdempotencyKey {
    let mut digest = Digest::new();
    match &client.user {
        Some(user) => digest.add(b"user", user.as_bytes()),
        None => digest.add(b"address", address_of(client).as_bytes()),
    }
    digest.add(name.field.as_bytes(), &name.value);
    digest.add(b"sender", envelope.sender.to_string().as_bytes());
    let mut recipients: Vec<String> = envelope.recipients.iter().map(ToString::to_string).collect();
    recipients.sort_unstable();
    recipients.iter().for_each(|recipient| digest.add(b"recipient", recipient.as_bytes()));
    add_content(&mut digest, message);
    digest.finish()
}

/// "localhost" is one client, whichever loopback address it uses the next time.
fn address_of(client: &Client) -> String {
    let address = client.peer.ip().to_canonical();
    if address.is_loopback() { "loopback".to_owned() } else { address.to_string() }
}

fn add_content(digest: &mut Digest, message: &RawMessage) {
    let structure = Structure::of(message);
    let boundaries = boundaries(&structure);
    // The identifying fields have been counted, or must not count.
    let is_content = |field: &FieldRef<'_>| !["Date", MESSAGE_ID, IDEMPOTENCY_KEY].iter().any(|name| field.is(name));
    for field in message.fields().filter(is_content) {
        digest.add_text(field.raw(), &boundaries, |_| true);
    }
    let body = message.body();
    let headers: Vec<&Range<usize>> = structure.entities().iter().map(|entity| &entity.header).collect();
    let is_in_header = |at: usize| {
        let before = headers.partition_point(|header| header.start <= at);
        before.checked_sub(1).is_some_and(|last| headers[last].contains(&at))
    };
    // Elsewhere in the body, the same octets are text.
    let is_delimiter = |at: usize| {
        let before = &body[..at];
        before == b"--" || before.ends_with(b"\r\n--")
    };
    digest.add_text(body, &boundaries, |at| is_delimiter(at) || is_in_header(at));
}

/// A library chooses new ones each time.
fn boundaries(structure: &Structure) -> Vec<&[u8]> {
    let mut found: Vec<&[u8]> = Vec::new();
    for entity in structure.entities().iter().filter(|entity| !entity.is_opaque) {
        let Some(boundary) = entity.content.boundary.as_deref() else { continue };
        if boundary.len() >= SHORTEST_BOUNDARY && !found.contains(&boundary) {
            found.push(boundary);
        }
    }
    found.truncate(MOST_BOUNDARIES);
    found
}

/// A digest of parts, each preceded by its length, so that no two different sequences give the same input.
struct Digest(Context);

impl Digest {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn add(&mut self, what: &[u8], value: &[u8]) {
        for part in [what, value] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    /// Replaces a boundary by its number wherever `is_boundary` holds.
    fn add_text(&mut self, text: &[u8], boundaries: &[&[u8]], is_boundary: impl Fn(usize) -> bool) {
        let mut places: Vec<(usize, usize)> = Vec::new();
        for (number, boundary) in boundaries.iter().enumerate() {
            let found = memchr::memmem::find_iter(text, boundary).filter(|&at| is_boundary(at));
            places.extend(found.take(MOST_PLACES).map(|at| (at, number)));
        }
        // One boundary may be the beginning of another.
        places.sort_unstable_by_key(|&(at, number)| (at, Reverse(boundaries[number].len())));
        let mut end = 0;
        for (at, number) in places {
            if at >= end {
                self.add(b"text", &text[end..at]);
                self.add(b"boundary", &number.to_be_bytes());
                end = at + boundaries[number].len();
            }
        }
        self.add(b"end", &text[end..]);
    }

    fn finish(self) -> IdempotencyKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.finish().as_ref());
        IdempotencyKey(key)
    }
}

/// Direct mode: messages with the same key are tried one at a time, so that the second sees the outcome of the first.
#[derive(Debug, Clone, Default)]
pub(crate) struct InProgress(Arc<Mutex<HashMap<IdempotencyKey, Arc<tokio::sync::Mutex<()>>>>>);

/// The right to try a message of this key, or the wait for it.
#[derive(Debug)]
pub(super) struct Turn {
    all: InProgress,
    key: IdempotencyKey,
    held: Option<OwnedMutexGuard<()>>,
}

impl InProgress {
    /// `None` if another one is still being tried after that time.
    pub(super) async fn turn(&self, key: IdempotencyKey, patience: Duration) -> Option<Turn> {
        let lock = self.0.lock().entry(key).or_default().clone();
        let mut turn = Turn { all: self.clone(), key, held: None };
        turn.held = Some(timeout(patience, lock.lock_owned()).await.ok()?);
        Some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.held.take());
        let mut all = self.all.0.lock();
        if all.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
