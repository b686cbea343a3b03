//! The last step before a message is sent over a ready connection: its marks become that provider's headers, it is
//! converted to ASCII if the server needs that, and it is signed with the current key.
//!
//! This happens here and not at intake, because a key rotated today must sign mail queued yesterday, and after a
//! failover the other provider needs its own form. Knows what an upstream can carry, but not which provider it is.

use super::conversion_memory::{NoConversionMemory, reserve_conversion};
use super::profile::Profile;
use crate::dkim::{self, Keyring, SealError, SealOptions, Sealed, SigningKey, Unsigned};
use crate::message::accepted::Accepted;
use crate::message::adapt::{Translated, seven_bit_memory, to_seven_bit, translate, with_ascii_texts};
use crate::message::budget::MemoryShare;
use crate::message::outcome::Cause;
use crate::message::{MailId, Marks, MemoryBudget, Outcome, RawMessage, Reason, RelayStep};
use crate::observe::long_work::off_runtime;
use crate::relay::{Deadline, provider};
use crate::smtp::{EnhancedCode, Extensions};
use std::sync::Arc;
use tracing::{debug, info};

/// From this many octets on, sealing runs outside the async threads: hashing would take longer than a poll should.
const LARGE: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Finalizer {
    pub keyring: Arc<Keyring>,
    pub unsigned: Unsigned,
    /// For the copies that conversions make.
    pub memory: MemoryBudget,
}

/// A message in its final form, and the memory that it needs in addition to the accepted one.
#[derive(Debug)]
pub(super) struct FinalMessage {
    pub sealed: Sealed,
    _share: Option<MemoryShare>,
}

/// The upstream through which a message leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct TargetServer<'a> {
    pub upstream: &'a str,
    pub profile: &'a Profile,
}

/// Decides who signs.
enum Signer {
    Keys(Vec<Arc<SigningKey>>, SignaturePolicy),
    Nobody,
    Provider,
}

/// Requirements for a signature.
struct SignaturePolicy {
    provider_rewrites: &'static [&'static str],
    one_signature: bool,
}

impl TargetServer<'_> {
    /// Checked before a connection is requested, since waiting is pointless for a message that the upstream cannot
    /// carry.
    pub fn check_size(&self, size: usize) -> Result<(), Outcome> {
        let size = size as u64;
        let Some(limit) = self.profile.max_size.filter(|&limit| limit < size) else { return Ok(()) };
        let text =
            format!("the message has {size} octets, but this provider accepts at most {limit} (`max_message_size`)");
        Err(self.cannot_carry(EnhancedCode::new(5, 3, 4), text))
    }

    /// Another upstream may be able to carry it.
    fn cannot_carry(&self, enhanced: EnhancedCode, text: String) -> Outcome {
        Outcome::Failed(Reason::new(Some(self.upstream), RelayStep::Local, Cause::Local { enhanced, text }))
    }
}

impl Finalizer {
    /// Produces the form for this server and its extensions. A missing or failing key is a temporary error, because it
    /// can be fixed; a message that cannot be signed fails. Waits no longer than the deadline.
    pub async fn seal(
        &self,
        accepted: &Accepted,
        server: TargetServer<'_>,
        offered: &Extensions,
        deadline: Deadline,
    ) -> Result<FinalMessage, Outcome> {
        let signer = self.signer(accepted, server.profile)?;
        let form = Finalization {
            id: accepted.id,
            profile: server.profile.clone(),
            seven_bit: server.profile.seven_bit_only || !offered.eight_bit_mime,
            ascii_header: !offered.smtputf8,
        };
        let share = if form.seven_bit { self.conversion_memory(accepted, server, deadline).await? } else { None };
        let message = accepted.message.clone();
        let marks = accepted.marks.clone();
        // The memory share moves into the closure: the work needs it even if no one waits for the result any more.
        let work = move || (form.of(&message, &marks).and_then(|formed| signer.seal(&formed)), share);
        let (sealed, mut share) = in_own_task(accepted, work).await?;
        let sealed = sealed.map_err(|NotSendable { enhanced, text, whose }| match whose {
            FailureScope::Upstream => server.cannot_carry(enhanced, text),
            FailureScope::Message => Outcome::Failed(Reason::local(None, enhanced, text)),
            FailureScope::Key => Outcome::Deferred(Reason::local(None, enhanced, text)),
        })?;
        server.check_size(sealed.message().size())?;
        if let Some(share) = &mut share {
            share.shrink(sealed.message().size());
        }
        Ok(FinalMessage { sealed, _share: share })
    }

    /// Reserves memory for the conversion, if there is one.
    async fn conversion_memory(
        &self,
        accepted: &Accepted,
        server: TargetServer<'_>,
        deadline: Deadline,
    ) -> Result<Option<MemoryShare>, Outcome> {
        let message = accepted.message.clone();
        let octets = in_own_task(accepted, move || seven_bit_memory(&message)).await?;
        if octets == 0 {
            return Ok(None);
        }
        reserve_conversion(octets, &self.memory, deadline).await.map(Some).map_err(|no_room| match no_room {
            NoConversionMemory::Ever => {
                let text = format!(
                    "this server accepts only 7-bit mail, and the conversion may take {octets} octets of memory, of which \
                     there are {} (a quarter of `max_memory`)",
                    self.memory.total()
                );
                server.cannot_carry(EnhancedCode::new(5, 3, 4), text)
            }
            NoConversionMemory::Yet => {
                let text = "there is not enough memory at the moment for its conversion to 7 bits (a quarter of `max_memory`)";
                Outcome::Deferred(Reason::local(None, EnhancedCode::new(4, 3, 1), text.to_owned()))
            }
        })
    }

    fn signer(&self, accepted: &Accepted, profile: &Profile) -> Result<Signer, Outcome> {
        let provider::Signing::Ours { provider_rewrites, one_signature } = profile.signing else {
            return Ok(Signer::Provider);
        };
        let domain = accepted.author.as_ref().map(|author| author.domain());
        if let Some(keys) = domain.and_then(|domain| self.keyring.keys_for(domain)) {
            return Ok(Signer::Keys(keys.to_vec(), SignaturePolicy { provider_rewrites, one_signature }));
        }
        if self.unsigned.permits(domain) {
            return Ok(Signer::Nobody);
        }
        let from = domain.map_or_else(|| "an unknown domain".to_owned(), ToString::to_string);
        Err(deferred_here(format!("there is no DKIM key for {from}, and it may not be sent unsigned")))
    }
}

async fn in_own_task<T: Send + 'static>(
    accepted: &Accepted,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Outcome> {
    let interrupted = |error| deferred_here(format!("sealing was interrupted: {error}"));
    off_runtime(accepted.message.size() >= LARGE, work).await.map_err(interrupted)
}

/// Why a message cannot be sent, and what is to blame.
struct NotSendable {
    enhanced: EnhancedCode,
    text: String,
    whose: FailureScope,
}

enum FailureScope {
    /// Another upstream may carry it.
    Upstream,
    Message,
    /// A temporary error, because it can be fixed.
    Key,
}

/// The form in which a message is sealed.
struct Finalization {
    id: MailId,
    profile: Profile,
    seven_bit: bool,
    ascii_header: bool,
}

impl Finalization {
    fn of(&self, message: &RawMessage, marks: &Marks) -> Result<RawMessage, NotSendable> {
        let Translated { message: translated, left_out } =
            translate(message, marks, &self.profile.vocabulary, provider::HEADERS);
        if !left_out.is_empty() {
            debug!(id = %self.id, left_out = left_out.join(", "), "this provider has no header for it");
        }
        let message = translated.as_ref().unwrap_or(message);
        let converted = if self.seven_bit {
            to_seven_bit(message).map_err(|why| NotSendable {
                enhanced: why.enhanced(),
                text: format!("this server accepts only 7-bit mail, and the message cannot be converted: {why}"),
                whose: FailureScope::Upstream,
            })?
        } else if self.ascii_header {
            with_ascii_texts(message)
        } else {
            None
        };
        let Some(mut converted) = converted else { return Ok(message.clone()) };
        // The signed text has changed, and a broken signature is worse than none.
        let removed = converted.remove_fields(|field| field.is("DKIM-Signature"));
        if removed > 0 {
            info!(id = %self.id, removed, "removed the application's own DKIM-Signature, since 8-bit text had to be converted");
        }
        Ok(converted)
    }
}

impl Signer {
    fn seal(&self, message: &RawMessage) -> Result<Sealed, NotSendable> {
        let (keys, SignaturePolicy { provider_rewrites, one_signature }) = match self {
            Self::Keys(keys, signature) => (keys, signature),
            Self::Nobody => return Ok(Sealed::unsigned(message)),
            Self::Provider => return Ok(Sealed::left_to_provider(message)),
        };
        let options = SealOptions { provider_rewrites, one_signature: *one_signature };
        dkim::seal(message, keys, &options).map_err(|error| match error {
            // RFC 3463 §3.7: X.6.0, the message's content.
            SealError::NoFrom | SealError::TooManyFields(_) => NotSendable {
                enhanced: EnhancedCode::new(5, 6, 0),
                text: error.to_string(),
                whose: FailureScope::Message,
            },
            SealError::NoKey | SealError::Signing { .. } => {
                NotSendable { enhanced: KEY, text: error.to_string(), whose: FailureScope::Key }
            }
        })
    }
}

/// RFC 3463 §3.8: X.7.5, cryptographic failure.
const KEY: EnhancedCode = EnhancedCode::new(4, 7, 5);

fn deferred_here(text: String) -> Outcome {
    Outcome::Deferred(Reason::local(None, KEY, text))
}
