//! DATA: receives a message, within the limits of size, header and memory.
//!
//! Even if something is wrong, the data is read to its true end before the reply, so that no byte of it becomes a
//! command. A message that is refused anyway is not kept. RFC 5321 §4.1.1.4, RFC 1870 §6.3.

use super::session::{Accepting, Greeted, SessionAction, SessionStep};
use super::{Client, LineEndings, ListenerOptions, Received};
use crate::message::budget::{BudgetExceeded, MemoryShare};
use crate::message::{Envelope, MemoryBudget, RawMessage};
use crate::smtp::Reply;
use crate::smtp::dot::{DotDecoder, Oddities};
use bytes::Bytes;

/// Octets consumed from the input at once; decoding at most doubles them.
const CHUNK: usize = 16 * 1024;
/// Octets of the memory budget that a message needs besides its own size while it is read.
pub const READ_OVERHEAD: u64 = 64 * 1024;
/// Once the buffer is this large, it grows by this many octets; below, it doubles.
const LARGEST_STEP: usize = 1024 * 1024;

/// The state between 354 and the final dot.
#[derive(Debug)]
pub struct Receiving {
    greeted: Greeted,
    envelope: Envelope,
    envelope_share: MemoryShare,
    decoder: DotDecoder,
    content: DataState,
}

#[derive(Debug)]
enum DataState {
    Kept {
        data: Vec<u8>,
        share: MemoryShare,
    },
    /// Nothing is kept; the reply is sent at the end of the data.
    Dropped(Reply),
}

impl Receiving {
    pub(super) fn new(greeted: Greeted, envelope: Envelope, envelope_share: MemoryShare) -> Self {
        let content = DataState::Kept { data: Vec::new(), share: envelope_share.sibling() };
        Self { greeted, envelope, envelope_share, decoder: DotDecoder::default(), content }
    }

    /// Consumes from the front of `input` and returns how much. Consumes nothing after the end of the data.
    pub fn feed(&mut self, input: &[u8]) -> usize {
        let mut consumed = 0;
        while consumed < input.len() && !self.is_done() {
            let chunk = &input[consumed..input.len().min(consumed + CHUNK)];
            consumed += self.feed_chunk(chunk);
        }
        consumed
    }

    /// Octets of the largest message that could be accepted.
    pub fn largest(&self) -> u64 {
        self.greeted.base.options.max_message_size
    }

    pub fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    #[cfg(test)]
    pub(super) fn budget(&self) -> &crate::message::MemoryBudget {
        &self.greeted.base.budget
    }

    fn feed_chunk(&mut self, chunk: &[u8]) -> usize {
        let consumed = match &mut self.content {
            DataState::Kept { data, share } => match reserve(data, share, most_decoded(chunk)) {
                Ok(()) => self.decoder.decode(chunk, data),
                Err(BudgetExceeded) => {
                    self.drop_all(Reply::no_memory());
                    self.decoder.decode(chunk, &mut Vec::new())
                }
            },
            DataState::Dropped(_) => self.decoder.decode(chunk, &mut Vec::new()),
        };
        if let Some(reply) = self.reason_to_drop() {
            self.drop_all(reply);
        }
        consumed
    }

    /// A refused message needs no envelope either.
    fn drop_all(&mut self, reply: Reply) {
        self.content = DataState::Dropped(reply);
        self.envelope.recipients = Vec::new();
        self.envelope_share.shrink(0);
    }

    fn reason_to_drop(&self) -> Option<Reply> {
        match &self.content {
            DataState::Kept { data, .. } if data.len() as u64 > self.largest() => Some(Reply::message_too_big()),
            DataState::Kept { .. } => self.refusal_of_oddities(),
            DataState::Dropped(_) => None,
        }
    }

    fn refusal_of_oddities(&self) -> Option<Reply> {
        refusal_of(self.decoder.oddities(), self.greeted.base.options.line_endings)
    }

    /// At the end of the data: the refusal, or the message for the intake. Malformed line endings are checked first, so
    /// that the reply does not depend on how the bytes were split into segments.
    pub fn finish(self: Box<Self>) -> SessionStep {
        if let Some(reply) = self.refusal_of_oddities() {
            return self.greeted.answer(reply).about(&self.envelope.sender);
        }
        let (data, share) = match self.content {
            DataState::Kept { mut data, mut share } => {
                // It may wait for a provider, so the spare capacity is returned.
                data.shrink_to_fit();
                share.shrink(data.len());
                (Bytes::from(data), share)
            }
            DataState::Dropped(reply) => return self.greeted.answer(reply).about(&self.envelope.sender),
        };
        if RawMessage::from_data(data.clone()).is_err() {
            return self.greeted.answer(Reply::header_too_large()).about(&self.envelope.sender);
        }
        let received = Received {
            client: self.greeted.client.clone(),
            envelope: self.envelope,
            data,
            line_endings_changed: self.decoder.oddities().bare_line_ending,
            share,
            envelope_share: self.envelope_share,
        };
        SessionStep::silent(SessionAction::Accept(Box::new(received), Accepting::new(self.greeted)))
    }
}

fn refusal_of(oddities: Oddities, line_endings: LineEndings) -> Option<Reply> {
    let Oddities { bare_line_ending, stray_end, nul } = oddities;
    // With "reject" that reply is the helpful one, even for a dot after a bare LF.
    if bare_line_ending && line_endings == LineEndings::Reject {
        Some(Reply::bare_line_ending())
    } else if stray_end {
        Some(Reply::stray_line_ending())
    } else if nul {
        Some(Reply::nul_in_message())
    } else {
        None
    }
}

impl Received {
    /// A message from a file, as a listener with these options would receive it from this client; or the refusal.
    pub fn read(client: Client, envelope: Envelope, file: &[u8], options: &ListenerOptions) -> Result<Self, Reply> {
        let mut wire = Vec::with_capacity(file.len() + file.len() / 32 + 8);
        for line in file.split_inclusive(|&octet| octet == b'\n') {
            // RFC 5321 §4.5.2; also after a bare LF, as clients that send bare LFs do.
            if line.starts_with(b".") {
                wire.push(b'.');
            }
            wire.extend_from_slice(line);
        }
        wire.extend_from_slice(if wire.is_empty() || wire.ends_with(b"\r\n") { b".\r\n" } else { b"\r\n.\r\n" });
        let mut decoder = DotDecoder::default();
        let mut data = Vec::with_capacity(wire.len());
        decoder.decode(&wire, &mut data);
        if let Some(refusal) = refusal_of(decoder.oddities(), options.line_endings) {
            return Err(refusal);
        }
        if data.len() as u64 > options.max_message_size {
            return Err(Reply::message_too_big());
        }
        let line_endings_changed = decoder.oddities().bare_line_ending;
        // No other message is being received.
        let budget = MemoryBudget::new(u64::MAX);
        let share = budget.share();
        let envelope_share = budget.share();
        Ok(Self { client, envelope, data: data.into(), line_endings_changed, share, envelope_share })
    }
}

/// The most octets that a chunk can become: each bare CR or LF becomes two, and a few remain from the chunk before.
fn most_decoded(chunk: &[u8]) -> usize {
    chunk.len() + memchr::memchr2_iter(b'\r', b'\n', chunk).count() + 8
}

/// Ensures that `more` octets fit without the vector growing by itself, so that exactly what is allocated is counted.
fn reserve(data: &mut Vec<u8>, share: &mut MemoryShare, more: usize) -> Result<(), BudgetExceeded> {
    if data.capacity() - data.len() >= more {
        return Ok(());
    }
    let needed = data.len() + more;
    let generous = needed + data.len().min(LARGEST_STEP);
    let octets = match share.grow_ahead(generous) {
        Ok(()) => generous,
        Err(BudgetExceeded) => share.grow(needed).map(|()| needed)?,
    };
    data.reserve_exact(octets - data.len());
    Ok(())
}
