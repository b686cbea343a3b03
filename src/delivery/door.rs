//! The door: what happens to a message for one connection that is ready, before its bytes leave: its marks in that
//! provider's headers, ASCII where nothing else can be carried, and the seal, with today's key.
//!
//! At the door and not at intake: a key rotated today signs mail queued yesterday, and a failover gives the other provider
//! its own form. Knows what an upstream can carry, never which provider it is.

use super::attempt::local;
use super::profile::Profile;
use crate::dkim::{self, Keyring, SealError, SealOptions, Sealed, SigningKey, Unsigned};
use crate::message::accepted::Accepted;
use crate::message::adapt::{Translated, to_seven_bit, translate, with_ascii_texts};
use crate::message::outcome::Cause;
use crate::message::{MailId, Marks, Outcome, RawMessage, Reason, Step};
use crate::relay::provider;
use crate::smtp::{EnhancedCode, Extensions};
use std::sync::Arc;
use tracing::{debug, info};

/// Octets from which sealing moves off the async threads: hashing takes longer than a poll should.
const LARGE: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Door {
    pub keyring: Arc<Keyring>,
    pub unsigned: Unsigned,
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
    /// that cannot be signed stays so.
    pub async fn seal(&self, accepted: &Accepted, exit: Exit<'_>, offered: &Extensions) -> Result<Sealed, Outcome> {
        let signer = self.signer(accepted, exit.profile)?;
        let form = Form {
            id: accepted.id,
            profile: exit.profile.clone(),
            seven_bit: exit.profile.seven_bit_only || !offered.eight_bit_mime,
            ascii_header: !offered.smtputf8,
        };
        let (message, marks) = (accepted.message.clone(), accepted.marks.clone());
        let work = move || signer.seal(&form.of(&message, &marks)?);
        let sealed = if accepted.message.size() < LARGE {
            work()
        } else {
            let interrupted = |error| not_now(format!("sealing was interrupted: {error}"));
            tokio::task::spawn_blocking(work).await.map_err(interrupted)?
        };
        let sealed = sealed.map_err(|Refused { enhanced, text, whose }| match whose {
            Whose::Upstream => exit.cannot_carry(enhanced, text),
            Whose::Message => Outcome::Failed(local(enhanced, text)),
            Whose::Key => Outcome::Deferred(local(enhanced, text)),
        })?;
        exit.check_size(sealed.size())?;
        Ok(sealed)
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
