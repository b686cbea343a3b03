//! Whether a rule is for a message: all of its conditions are asked, the cheap ones first.

use super::Conditions;
use super::apply::Draft;
use super::texts::Texts;
use crate::message::accepted::Origin;
use crate::message::{Author, AuthorError, SenderPatterns};
use crate::smtp::Mailbox;

/// An error if all depends on the author and nobody can tell who that is.
pub(super) fn hold(
    conditions: &Conditions,
    draft: &Draft,
    origin: &Origin,
    texts: &mut Texts,
) -> Result<bool, AuthorError> {
    if !(envelope_fits(conditions, draft) && origin_fits(conditions, origin) && size_fits(conditions, draft)) {
        return Ok(false);
    }
    if !conditions.headers.iter().all(|pattern| pattern.matches(draft.message.fields())) {
        return Ok(false);
    }
    if let Some(part) = &conditions.body_contains
        && !texts.contain(&draft.message, part)
    {
        return Ok(false);
    }
    match &conditions.from {
        Some(patterns) => Author::of(&draft.message).map(|author| patterns.matches(author.mailbox())),
        None => Ok(true),
    }
}

fn envelope_fits(conditions: &Conditions, draft: &Draft) -> bool {
    let fits = |patterns: &SenderPatterns, mailbox: Option<&Mailbox>| match mailbox {
        Some(mailbox) => patterns.matches(mailbox),
        None => patterns.is_any(),
    };
    let envelope = &draft.envelope;
    let sender = conditions.senders.as_ref().is_none_or(|patterns| fits(patterns, envelope.sender.mailbox()));
    let one_of = |patterns: &SenderPatterns| envelope.recipients.iter().any(|recipient| patterns.matches(recipient));
    sender && conditions.recipients.as_ref().is_none_or(one_of)
}

fn origin_fits(conditions: &Conditions, origin: &Origin) -> bool {
    let (listeners, users) = (&conditions.listeners, &conditions.users);
    let listener = listeners.is_empty() || origin.listener.as_ref().is_some_and(|address| listeners.contains(address));
    let is_named = |user: &str| users.iter().any(|pattern| pattern.matches(user));
    listener && (users.is_empty() || origin.user.as_deref().is_some_and(is_named))
}

fn size_fits(conditions: &Conditions, draft: &Draft) -> bool {
    let size = draft.message.size() as u64;
    conditions.larger_than.is_none_or(|least| size > least) && conditions.smaller_than.is_none_or(|most| size < most)
}
