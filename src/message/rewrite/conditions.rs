//! Whether a rule applies to a message: all of its conditions are checked, the cheap ones first.

use super::RuleConditions;
use super::outcome::{RewriteDraft, Unmet};
use super::texts::Texts;
use crate::message::accepted::Origin;
use crate::message::text_pattern::{HeaderPattern, any_matches};
use crate::message::{Author, AuthorError, SenderPatterns};

/// `None`: all conditions hold. Fails if the result depends on the author and the author cannot be determined.
pub(super) fn first_unmet(
    conditions: &RuleConditions,
    draft: &RewriteDraft,
    origin: &Origin,
    texts: &mut Texts,
) -> Result<Option<Unmet>, AuthorError> {
    let cheap = envelope_unmet(conditions, draft).or_else(|| origin_unmet(conditions, origin));
    let unmet = cheap.or_else(|| size_unmet(conditions, draft)).or_else(|| {
        let fits = |pattern: &HeaderPattern| pattern.matches(draft.message.fields());
        conditions.headers.iter().position(|pattern| !fits(pattern)).map(Unmet::Header)
    });
    if unmet.is_some() {
        return Ok(unmet);
    }
    if let Some(part) = &conditions.body_contains
        && !texts.contain(&draft.message, part)
    {
        return Ok(Some(Unmet::BodyContains));
    }
    match &conditions.from {
        Some(patterns) => {
            let author = Author::of(&draft.message)?;
            Ok((!patterns.matches(author.mailbox())).then_some(Unmet::From))
        }
        None => Ok(None),
    }
}

fn envelope_unmet(conditions: &RuleConditions, draft: &RewriteDraft) -> Option<Unmet> {
    let envelope = &draft.envelope;
    if !conditions.senders.as_ref().is_none_or(|patterns| patterns.matches_sender(envelope.sender.mailbox())) {
        return Some(Unmet::Senders);
    }
    let one_of = |patterns: &SenderPatterns| envelope.recipients.iter().any(|recipient| patterns.matches(recipient));
    (!conditions.recipients.as_ref().is_none_or(one_of)).then_some(Unmet::Recipients)
}

fn origin_unmet(conditions: &RuleConditions, origin: &Origin) -> Option<Unmet> {
    let listeners = &conditions.listeners;
    let users = &conditions.users;
    if !listeners.is_empty() && !origin.listener.as_ref().is_some_and(|address| listeners.contains(address)) {
        return Some(Unmet::Listener);
    }
    (!any_matches(users, origin.user.as_deref())).then_some(Unmet::User)
}

fn size_unmet(conditions: &RuleConditions, draft: &RewriteDraft) -> Option<Unmet> {
    let size = draft.message.size() as u64;
    if conditions.larger_than.is_some_and(|least| size <= least) {
        return Some(Unmet::LargerThan);
    }
    conditions.smaller_than.is_some_and(|most| size >= most).then_some(Unmet::SmallerThan)
}

impl RuleConditions {
    /// A description for people.
    pub fn describe(&self, unmet: Unmet) -> String {
        let patterns =
            |patterns: &Option<SenderPatterns>| patterns.as_ref().map(ToString::to_string).unwrap_or_default();
        let octets = |octets: Option<u64>| octets.unwrap_or_default();
        match unmet {
            Unmet::Senders => format!("its envelope sender is not {}", patterns(&self.senders)),
            Unmet::Recipients => format!("none of its recipients is {}", patterns(&self.recipients)),
            Unmet::From => format!("its From address is not {}", patterns(&self.from)),
            Unmet::Header(at) => match self.headers.get(at) {
                Some(HeaderPattern { name, value }) => format!("it has no {name} that fits \"{value}\""),
                None => "a header does not fit".to_owned(),
            },
            Unmet::Listener => format!("it did not come in at {}", self.listeners.join(", ")),
            Unmet::User => {
                let names: Vec<String> = self.users.iter().map(ToString::to_string).collect();
                format!("it did not come in with the login {}", names.join(", "))
            }
            Unmet::LargerThan => format!("it is not larger than {} octets", octets(self.larger_than)),
            Unmet::SmallerThan => format!("it is not smaller than {} octets", octets(self.smaller_than)),
            Unmet::BodyContains => {
                format!("no text in it contains \"{}\"", self.body_contains.as_deref().unwrap_or_default())
            }
        }
    }
}
