//! DATA: a message as it arrives, within the limits of size, header and memory.
//!
//! Whatever is wrong, the data is read to its true end before the reply, so that no byte of it becomes a command; what is
//! refused anyway is not kept. RFC 5321 §4.1.1.4, RFC 1870 §6.3.

use super::session::{Accepting, Greeted, SessionAction, SessionStep};
use super::{Client, LineEndings, ListenerOptions, Received};
use crate::message::budget::{BudgetExceeded, MemoryShare};
use crate::message::{Envelope, MemoryBudget, RawMessage};
use crate::smtp::Reply;
use crate::smtp::dot::{DotDecoder, Oddities};
use bytes::Bytes;

/// Octets taken from the input at once; decoding at most doubles them.
const CHUNK: usize = 16 * 1024;
/// Octets of the memory budget that a message needs besides its own while it is read.
pub const READING_ROOM: u64 = 64 * 1024;
/// Octets by which the buffer grows once it is that large; below, it doubles.
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
    /// Nothing of it is used; the reply for the end of the data.
    Dropped(Reply),
}

impl Receiving {
    pub(super) fn new(greeted: Greeted, envelope: Envelope, envelope_share: MemoryShare) -> Self {
        let content = DataState::Kept { data: Vec::new(), share: envelope_share.sibling() };
        Self { greeted, envelope, envelope_share, decoder: DotDecoder::default(), content }
    }

    /// Consumes from the front of `input` and returns how much. Nothing behind the end of the data is consumed.
    pub fn feed(&mut self, input: &[u8]) -> usize {
        let mut consumed = 0;
        while consumed < input.len() && !self.is_done() {
            let chunk = &input[consumed..input.len().min(consumed + CHUNK)];
            consumed += self.feed_chunk(chunk);
        }
        consumed
    }

    /// Octets of the largest message that could be taken.
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

    /// What is refused anyway needs no envelope either.
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

    /// At the end of the data: the refusal, or the message for the intake. The oddities come first, so that the reply
    /// does not depend on how the bytes were split over segments.
    pub fn finish(self: Box<Self>) -> SessionStep {
        if let Some(reply) = self.refusal_of_oddities() {
            return self.greeted.answer(reply);
        }
        let (data, share) = match self.content {
            DataState::Kept { mut data, mut share } => {
                // It may wait for a provider; the room for growing is for others now.
                data.shrink_to_fit();
                share.shrink(data.len());
                (Bytes::from(data), share)
            }
            DataState::Dropped(reply) => return self.greeted.answer(reply),
        };
        if RawMessage::from_data(data.clone()).is_err() {
            return self.greeted.answer(Reply::header_too_large());
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
    // With "reject" its text is the one that helps, also for a dot behind a bare LF.
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
    /// A message that lies in a file, as a listener with these options would have it from this client; or its refusal.
    pub fn read(client: Client, envelope: Envelope, file: &[u8], options: &ListenerOptions) -> Result<Self, Reply> {
        let mut wire = Vec::with_capacity(file.len() + file.len() / 32 + 8);
        for line in file.split_inclusive(|&octet| octet == b'\n') {
            // RFC 5321 §4.5.2; behind a bare LF too, as clients do that write one.
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
        // Nothing else is in flight.
        let budget = MemoryBudget::new(u64::MAX);
        let share = budget.share();
        let envelope_share = budget.share();
        Ok(Self { client, envelope, data: data.into(), line_endings_changed, share, envelope_share })
    }
}

/// Octets that a chunk becomes at most: each bare CR or LF becomes two, and a few are left from the chunk before.
fn most_decoded(chunk: &[u8]) -> usize {
    chunk.len() + memchr::memchr2_iter(b'\r', b'\n', chunk).count() + 8
}

/// Makes sure that `more` octets fit without the vector growing on its own: what is allocated is what is accounted for.
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
