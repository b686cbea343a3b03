//! Who may send what: `senders` for the envelope and for headers that name a sender, and what happens to a domain
//! without a key.
//!
//! A logged-in user's own `senders` replace the listener's. The null path is always allowed in the envelope (RFC 5321
//! §4.5.5); the From header is still checked.

use crate::dkim::{Keyring, Unsigned};
use crate::inbound::Client;
use crate::message::addresses::addresses_in;
use crate::message::author::mailboxes_in;
use crate::message::{Author, AuthorError, RawMessage, SenderPatterns};
use crate::smtp::{Domain, EnhancedCode, Mailbox, Reply, ReversePath};
use std::collections::HashMap;
use std::sync::Arc;

/// The rules of one listener.
#[derive(Debug, Clone)]
pub struct SenderPolicy {
    pub listener_senders: SenderPatterns,
    /// By user name; a user without an entry has the listener's.
    pub user_senders: Arc<HashMap<Arc<str>, SenderPatterns>>,
    pub unsigned: Unsigned,
    pub keyring: Arc<Keyring>,
}

impl SenderPolicy {
    /// At MAIL.
    pub fn check_envelope(&self, client: &Client, sender: &ReversePath) -> Result<(), Reply> {
        match sender.mailbox() {
            Some(mailbox) if !self.senders_of(client).matches(mailbox) => {
                Err(not_yours("the envelope sender", mailbox))
            }
            _ => Ok(()),
        }
    }

    /// At the final dot, before any rule: whether this client may write in the author's name.
    pub fn check_author(&self, client: &Client, author: &Author) -> Result<(), Reply> {
        match self.senders_of(client).matches(author.mailbox()) {
            true => Ok(()),
            false => Err(not_yours("the From header's address", author.mailbox())),
        }
    }

    /// The same for a message whose author could not be determined, after the rules, one of which may have set it.
    /// `author`: what can be read after the rules; `error`: why it could not be determined in `message`, before them.
    pub fn check_unclear_author(
        &self,
        client: &Client,
        author: Option<&Author>,
        is_set_by_rule: impl Fn(&Mailbox) -> bool,
        message: &RawMessage,
        error: AuthorError,
    ) -> Result<(), Reply> {
        match author {
            _ if self.senders_of(client).is_any() => Ok(()),
            Some(author) if is_set_by_rule(author.mailbox()) => Ok(()),
            Some(author) => self.check_author(client, author),
            None => Err(no_author(message, error)),
        }
    }

    /// The same for the other headers that name a sender, because readers show Sender beside From. `written` is the
    /// message before the repairs: where a name had no quotes in it, an address in that name counts too.
    pub fn check_senders(&self, client: &Client, written: &RawMessage, message: &RawMessage) -> Result<(), Reply> {
        let senders = self.senders_of(client);
        if senders.is_any() {
            return Ok(());
        }
        for name in SENDER_FIELDS {
            let is_quoted_now = written.fields_named(name).any(|field| mailboxes_in(&field).is_err());
            for field in message.fields_named(name) {
                let mut mailboxes = mailboxes_in(&field).map_err(|_| unreadable(name))?;
                if is_quoted_now {
                    mailboxes.extend(addresses_in(&String::from_utf8_lossy(&field.unfolded())));
                }
                if let Some(mailbox) = mailboxes.iter().find(|mailbox| !senders.matches(mailbox)) {
                    return Err(not_yours(&format!("an address in the {name} header"), mailbox));
                }
            }
        }
        Ok(())
    }

    /// For the message in its final form: whether there is a key for its author, or it may be sent without. The author
    /// is `None` if it cannot be determined and nothing depends on it.
    pub fn check_seal(
        &self,
        message: &RawMessage,
        author: Result<Author, AuthorError>,
    ) -> Result<Option<Author>, Reply> {
        match author {
            Ok(author) => {
                let sealed = self.keyring.keys_for(author.domain()).is_some();
                let permitted = sealed || self.unsigned.permits(Some(author.domain()));
                if permitted { Ok(Some(author)) } else { Err(no_key(author.domain())) }
            }
            Err(_) if self.unsigned.permits(None) && self.keyring.is_empty() => Ok(None),
            Err(error) => Err(no_author(message, error)),
        }
    }

    fn senders_of(&self, client: &Client) -> &SenderPatterns {
        client.user.as_ref().and_then(|user| self.user_senders.get(user)).unwrap_or(&self.listener_senders)
    }
}

/// RFC 5322 §3.6.2, §3.6.6.
const SENDER_FIELDS: [&str; 3] = ["Sender", "Resent-From", "Resent-Sender"];

fn unreadable(name: &str) -> Reply {
    let text = format!("Refused: the {name} header does not hold valid addresses only, and `senders` bounds them");
    Reply::new(550, EnhancedCode::new(5, 7, 1), text)
}

fn not_yours(what: &str, mailbox: &Mailbox) -> Reply {
    let text = format!(
        "Not allowed to send as <{mailbox}>: {what} matches none of the `senders` (by default the domains that have a key)"
    );
    Reply::new(550, EnhancedCode::new(5, 7, 1), text)
}

fn no_author(message: &RawMessage, error: AuthorError) -> Reply {
    let text = format!("Refused: the sender cannot be determined: {}", Author::why_unclear(message, error));
    Reply::new(550, EnhancedCode::new(5, 7, 1), text).folded()
}

// RFC 7372 §3.1: X.7.20, no passing DKIM signature found.
fn no_key(domain: &Domain) -> Reply {
    let text = format!(
        "No DKIM key for {domain}: add one with `waxseal dkim generate {domain} --selector wax1`, or name the domain in `unsigned`"
    );
    Reply::new(550, EnhancedCode::new(5, 7, 20), text)
}
