//! The door: what happens to a message for one connection that is ready, before its bytes leave: its marks in that
//! provider's headers, ASCII where nothing else can be carried, and the seal, with today's key.
//!
//! At the door and not at intake: a key rotated today signs mail queued yesterday, and a failover gives the other provider
//! its own form. Knows what an upstream can carry, never which provider it is.

use super::attempt::local;
use super::profile::Profile;
use super::room::{NoRoom, room_for};
use crate::dkim::{self, Keyring, SealError, SealOptions, Sealed, SigningKey, Unsigned};
use crate::message::accepted::Accepted;
use crate::message::adapt::{Translated, seven_bit_room, to_seven_bit, translate, with_ascii_texts};
use crate::message::budget::Share;
use crate::message::outcome::Cause;
use crate::message::{Budget, MailId, Marks, Outcome, RawMessage, Reason, Step};
use crate::relay::{Deadline, provider};
use crate::smtp::{EnhancedCode, Extensions};
use std::sync::Arc;
use tracing::{debug, info};

/// Octets from which sealing moves off the async threads: hashing takes longer than a poll should.
const LARGE: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Door {
    pub keyring: Arc<Keyring>,
    pub unsigned: Unsigned,
    /// For what conversions make of messages.
    pub memory: Budget,
}

/// A message as it leaves, and the memory that it takes beside the one that was accepted.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub sealed: Sealed,
    _share: Option<Share>,
}

/// Through which upstream a message is to leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit<'a> {
    pub upstream: &'a str,
    pub profile: &'a Profile,
}

/// Who signs.
enum Signer {
    Keys(Vec<Arc<SigningKey>>, Signature),
    Nobody,
    Provider,
}

/// What a signature may be like.
struct Signature {
    provider_rewrites: &'static [&'static str],
    one_signature: bool,
}

impl Exit<'_> {
    /// Before a connection is asked for: nobody need wait for one that could not carry the message.
    pub fn check_size(&self, size: usize) -> Result<(), Outcome> {
        let size = size as u64;
        let Some(limit) = self.profile.max_size.filter(|&limit| limit < size) else { return Ok(()) };
        let text =
            format!("the message has {size} octets, and this provider takes {limit} at most (`max_message_size`)");
        Err(self.cannot_carry(EnhancedCode::new(5, 3, 4), text))
    }

    /// Another upstream may be able to.
    fn cannot_carry(&self, enhanced: EnhancedCode, text: String) -> Outcome {
        Outcome::Failed(Reason::new(Some(self.upstream), Step::Local, Cause::Local { enhanced, text }))
    }
}

impl Door {
    /// In the form for this exit and for what its server offers. A key that is missing or fails may be put right; a message
    /// that cannot be signed stays so. At the deadline nothing is waited for any more.
    pub async fn seal(
        &self,
        accepted: &Accepted,
        exit: Exit<'_>,
        offered: &Extensions,
        deadline: Deadline,
    ) -> Result<Outgoing, Outcome> {
        let signer = self.signer(accepted, exit.profile)?;
        let form = Form {
            id: accepted.id,
            profile: exit.profile.clone(),
            seven_bit: exit.profile.seven_bit_only || !offered.eight_bit_mime,
            ascii_header: !offered.smtputf8,
        };
        let share = if form.seven_bit { self.room(accepted, exit, deadline).await? } else { None };
        let (message, marks) = (accepted.message.clone(), accepted.marks.clone());
        // The share goes along: work that nobody waits for any more still takes its memory.
        let work = move || (form.of(&message, &marks).and_then(|formed| signer.seal(&formed)), share);
        let (sealed, mut share) = off_the_way(accepted, work).await?;
        let sealed = sealed.map_err(|Refused { enhanced, text, whose }| match whose {
            Whose::Upstream => exit.cannot_carry(enhanced, text),
            Whose::Message => Outcome::Failed(local(enhanced, text)),
            Whose::Key => Outcome::Deferred(local(enhanced, text)),
        })?;
        exit.check_size(sealed.size())?;
        if let Some(share) = &mut share {
            share.shrink(sealed.size());
        }
        Ok(Outgoing { sealed, _share: share })
    }

    /// For its conversion, if it needs one.
    async fn room(&self, accepted: &Accepted, exit: Exit<'_>, deadline: Deadline) -> Result<Option<Share>, Outcome> {
        let message = accepted.message.clone();
        let octets = off_the_way(accepted, move || seven_bit_room(&message)).await?;
        if octets == 0 {
            return Ok(None);
        }
        room_for(octets, &self.memory, deadline).await.map(Some).map_err(|no_room| match no_room {
            NoRoom::Ever => {
                let text = format!(
                    "this server takes 7-bit mail only, and the conversion may take {octets} octets of memory, of which \
                     there are {} (a quarter of `max_memory`)",
                    self.memory.total()
                );
                exit.cannot_carry(EnhancedCode::new(5, 3, 4), text)
            }
            NoRoom::Yet => {
                let text = "there is no memory just now for its conversion to 7 bits (a quarter of `max_memory`)";
                Outcome::Deferred(local(EnhancedCode::new(4, 3, 1), text.to_owned()))
            }
        })
    }

    fn signer(&self, accepted: &Accepted, profile: &Profile) -> Result<Signer, Outcome> {
        let provider::Signing::Ours { provider_rewrites, one_signature } = profile.signing else {
            return Ok(Signer::Provider);
        };
        let domain = accepted.author.as_ref().map(|author| author.domain());
        if let Some(keys) = domain.and_then(|domain| self.keyring.keys_for(domain)) {
            return Ok(Signer::Keys(keys.to_vec(), Signature { provider_rewrites, one_signature }));
        }
        if self.unsigned.permits(domain) {
            return Ok(Signer::Nobody);
        }
        let from = domain.map_or_else(|| "an unknown domain".to_owned(), ToString::to_string);
        Err(not_now(format!("there is no DKIM key for {from}, and it may not leave unsigned")))
    }
}

/// What takes long for a large message is done where nobody waits for a poll.
async fn off_the_way<T: Send + 'static>(
    accepted: &Accepted,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Outcome> {
    if accepted.message.size() < LARGE {
        return Ok(work());
    }
    let interrupted = |error| not_now(format!("sealing was interrupted: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(interrupted)
}

/// Why a message does not leave, and whose matter that is.
struct Refused {
    enhanced: EnhancedCode,
    text: String,
    whose: Whose,
}

enum Whose {
    /// Another may carry it.
    Upstream,
    Message,
    /// May be put right.
    Key,
}

/// The form in which a message is sealed.
struct Form {
    id: MailId,
    profile: Profile,
    seven_bit: bool,
    ascii_header: bool,
}

impl Form {
    fn of(&self, message: &RawMessage, marks: &Marks) -> Result<RawMessage, Refused> {
        let Translated { message: translated, left_out } =
            translate(message, marks, &self.profile.vocabulary, provider::HEADERS);
        if !left_out.is_empty() {
            debug!(id = %self.id, left_out = left_out.join(", "), "this provider has no header for it");
        }
        let message = translated.as_ref().unwrap_or(message);
        let converted = if self.seven_bit {
            to_seven_bit(message).map_err(|why| Refused {
                enhanced: why.enhanced(),
                text: format!("this server takes 7-bit mail only, and the message cannot be converted: {why}"),
                whose: Whose::Upstream,
            })?
        } else if self.ascii_header {
            with_ascii_texts(message)
        } else {
            None
        };
        let Some(mut converted) = converted else { return Ok(message.clone()) };
        // What was signed is another text now, and a broken signature is worse than none.
        let removed = converted.remove_fields(|field| field.is("DKIM-Signature"));
        if removed > 0 {
            info!(id = %self.id, removed, "removed the application's own DKIM-Signature, since 8-bit text had to be converted");
        }
        Ok(converted)
    }
}

impl Signer {
    fn seal(&self, message: &RawMessage) -> Result<Sealed, Refused> {
        let (keys, Signature { provider_rewrites, one_signature }) = match self {
            Self::Keys(keys, signature) => (keys, signature),
            Self::Nobody => return Ok(Sealed::unsigned(message)),
            Self::Provider => return Ok(Sealed::left_to_provider(message)),
        };
        let options = SealOptions { provider_rewrites, one_signature: *one_signature };
        dkim::seal(message, keys, &options).map_err(|error| match error {
            // RFC 3463 §3.7: X.6.0, the message's content.
            SealError::NoFrom | SealError::TooManyFields(_) => {
                Refused { enhanced: EnhancedCode::new(5, 6, 0), text: error.to_string(), whose: Whose::Message }
            }
            SealError::NoKey | SealError::Signing { .. } => {
                Refused { enhanced: KEY, text: error.to_string(), whose: Whose::Key }
            }
        })
    }
}

/// RFC 3463 §3.8: X.7.5, cryptographic failure.
const KEY: EnhancedCode = EnhancedCode::new(4, 7, 5);

fn not_now(text: String) -> Outcome {
    Outcome::Deferred(local(KEY, text))
}
