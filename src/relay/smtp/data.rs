//! Sends the message itself, dot-stuffed and in bounded pieces, and reads the answer to the final dot.
//!
//! From the write that contains the final dot on, the server may have the message, and every later reason says so. RFC
//! 5321 §4.1.1.4, §4.5.2, §6.1.

use super::session::ClientSession;
use super::starttls::Secured;
use crate::dkim::Sealed;
use crate::message::outcome::{Cause, Reason, RelayStep};
use crate::relay::deadline::Deadline;
use crate::smtp::Reply;
use crate::smtp::dot::DotEncoder;
use std::time::Duration;
use tracing::debug;

/// Octets passed to TLS at once.
const PIECE: usize = 64 * 1024;
/// For the final dot, and for dots that are doubled in most mail.
const DOTS: usize = 64;

impl ClientSession<Secured> {
    /// Call this after a 354. Returns the reply to the final dot, whatever it says.
    pub(super) async fn data(&mut self, sealed: &Sealed, deadline: Deadline) -> Result<Reply, Reason> {
        let mut encoder = DotEncoder::default();
        let mut stuffed = Vec::with_capacity((sealed.message().size() + DOTS).min(2 * PIECE));
        let pieces =
            sealed.message().header().chunks(PIECE).chain([&b"\r\n"[..]]).chain(sealed.message().body().chunks(PIECE));
        for piece in pieces {
            encoder.encode(piece, &mut stuffed);
            if stuffed.len() >= PIECE {
                if let Err(reason) = self.write(RelayStep::Data, &stuffed, deadline).await {
                    return Err(self.last_reply().await.unwrap_or(reason));
                }
                stuffed.clear();
            }
        }
        encoder.finish(&mut stuffed);
        debug!(upstream = %self.options.name, octets = sealed.message().size(), "C: (message)");
        self.end(&stuffed, deadline).await
    }

    /// An empty message: every recipient was refused, and the server expects data anyway. RFC 2920 §3.1.
    pub(super) async fn no_data(&mut self, deadline: Deadline) -> Result<Reply, Reason> {
        self.end(b".\r\n", deadline).await
    }

    async fn end(&mut self, with_dot: &[u8], deadline: Deadline) -> Result<Reply, Reason> {
        self.refuse_surplus(RelayStep::Data)?;
        self.write(RelayStep::EndOfData, with_dot, deadline).await.map_err(Reason::maybe_delivered)?;
        let reply = self.reply(RelayStep::EndOfData, deadline).await.map_err(Reason::maybe_delivered)?;
        if self.interpret(RelayStep::EndOfData, &reply).leaves_open {
            return Err(self.reason(RelayStep::EndOfData, Cause::Reply(reply)).maybe_delivered());
        }
        self.in_transaction = false;
        Ok(reply)
    }

    /// A server that stops reading in the middle of the data usually sends the reason before it closes.
    async fn last_reply(&mut self) -> Option<Reason> {
        const REPLY_TIMEOUT: Duration = Duration::from_millis(500);
        let reply = self.reply(RelayStep::Data, Deadline::after(REPLY_TIMEOUT)).await.ok()?;
        self.mark_unsound();
        (!reply.is_positive()).then(|| self.reason(RelayStep::Data, Cause::Reply(reply)))
    }
}
