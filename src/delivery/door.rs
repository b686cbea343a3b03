//! The door: what happens to a message for one connection that is ready, before its bytes leave: sealed with today's key.
//!
//! At the door and not at intake: a key rotated today signs mail queued yesterday, and a failover gives the other provider
//! its own form.

use super::attempt::local;
use crate::dkim::{self, Keyring, SealError, SealOptions, Sealed, Unsigned};
use crate::message::Outcome;
use crate::message::accepted::Accepted;
use crate::smtp::EnhancedCode;
use std::sync::Arc;

/// Octets from which sealing moves off the async threads: hashing takes longer than a poll should.
const LARGE: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Door {
    pub keyring: Arc<Keyring>,
    pub unsigned: Unsigned,
}

impl Door {
    /// With today's key, over the bytes that leave. A key that is missing or fails may be put right; a message that cannot be
    /// signed stays so.
    pub async fn seal(&self, accepted: &Accepted) -> Result<Sealed, Outcome> {
        let domain = accepted.author.as_ref().map(|author| author.domain());
        let Some(keys) = domain.and_then(|domain| self.keyring.keys_for(domain)) else {
            return if self.unsigned.permits(domain) {
                Ok(Sealed::unsigned(&accepted.message))
            } else {
                let from = domain.map_or_else(|| "an unknown domain".to_owned(), ToString::to_string);
                Err(not_now(format!("there is no DKIM key for {from}, and it may not leave unsigned")))
            };
        };
        let (message, keys) = (accepted.message.clone(), keys.to_vec());
        let work = move || dkim::seal(&message, &keys, &SealOptions::default());
        let sealed = if accepted.message.size() < LARGE {
            work()
        } else {
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| not_now(format!("sealing was interrupted: {error}")))?
        };
        sealed.map_err(|error| match error {
            SealError::NoFrom | SealError::TooManyFields(_) => never(error.to_string()),
            SealError::NoKey | SealError::Signing { .. } => not_now(error.to_string()),
        })
    }
}

// RFC 3463 §3.8: X.7.5, cryptographic failure.
fn not_now(text: String) -> Outcome {
    Outcome::Deferred(local(EnhancedCode::new(4, 7, 5), text))
}

// RFC 3463 §3.7: X.6.0, the message's content.
fn never(text: String) -> Outcome {
    Outcome::Failed(local(EnhancedCode::new(5, 6, 0), text))
}
