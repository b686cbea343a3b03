//! Applies the current rules to stored mail: to its form from before any rule, for the recipients that are not settled
//! yet.
//!
//! This fixes "sender not verified": add a rule that sets From, and retry the failed mail with it. The gateway's own
//! Received field stays on top; the repairs are not repeated.

use super::fit;
use super::prepare::{drop_broken_signature, is_large, log_notes, log_skipped, subject_of};
use crate::message::accepted::Accepted;
use crate::message::headers::Fields;
use crate::message::optional::attempt;
use crate::message::rewrite::{KeptMail, Original, OriginalError, RewriteDraft, Rewritten, Rules, Verdict};
use crate::message::{MailId, RawMessage};
use crate::observe::log::Clean;
use crate::observe::long_work::in_place;
use crate::queue::{Lane, LaneOf, Operator, QueueError, Revision, StoredMail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use tracing::info;

/// The result for one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Ruling {
    /// It was replaced by the new form, which is due now.
    Rewritten {
        /// The rules that applied to it.
        rules: Vec<String>,
        /// "sender", "recipients", "marks", and names of headers.
        changed: Vec<String>,
        recipients: u64,
    },
    /// The rules produce what is already stored; it is due now.
    Unchanged { recipients: u64 },
    /// A rule discards it: it stays as it is, and is not due any earlier. Only an operator removes accepted mail.
    Discards { rule: String },
    /// A rule refuses it: it stays as it is, and is not due any earlier.
    Refuses { rule: String, text: String },
    /// It is being sent, or was changed at this moment: it stays as it is.
    Busy,
    /// There is no such message, or it has no recipient left.
    Missing,
    /// Its stored original cannot be read, the rules fail on it, or the result could never be sent: it stays as it is.
    Unreadable { why: String },
}

impl Ruling {
    /// Number of recipients that are due now; `None`: it stays as it is.
    pub fn due(&self) -> Option<u64> {
        match self {
            Self::Rewritten { recipients, .. } | Self::Unchanged { recipients } => Some(*recipients),
            _ => None,
        }
    }

    fn unreadable(why: impl ToString) -> Self {
        Self::Unreadable { why: why.to_string() }
    }
}

/// `lane_of`: by the current routes.
pub async fn rerun(
    queue: &dyn Operator,
    rules: &Rules,
    lane_of: &LaneOf,
    id: MailId,
    now: Timestamp,
) -> Result<Ruling, QueueError> {
    let Some(StoredMail { accepted, original }) = queue.stored(id).await? else { return Ok(Ruling::Missing) };
    if accepted.envelope.recipients.is_empty() {
        return Ok(Ruling::Missing);
    }
    let (trace, before) = match before_the_rules(&accepted, original.as_deref()) {
        Ok(found) => found,
        Err(error) => return Ok(Ruling::unreadable(error)),
    };
    // A fault with one message must not affect the others.
    let rewritten =
        in_place(is_large(before.message.size()), || attempt("rules", || Ok(rules.apply(&before, &accepted.origin))));
    let Rewritten { verdict, matched, notes, skipped, .. } = match rewritten {
        Ok(rewritten) => rewritten,
        Err(skipped) => return Ok(Ruling::unreadable(format_args!("{}, in the rules", skipped.why))),
    };
    log_notes(&notes, id);
    log_skipped(&skipped, id);
    match verdict {
        Verdict::Refuse { rule, text } => Ok(Ruling::Refuses { rule: rule.to_string(), text }),
        Verdict::Discard { rule } => Ok(Ruling::Discards { rule: rule.to_string() }),
        Verdict::Keep(kept) => {
            let revision = revision(*kept, &before, &accepted, &trace, lane_of);
            let made = RawMessage::from_parts(revision.header.clone(), accepted.message.body().clone());
            if let Err(unfit) = fit::check(&made) {
                return Ok(Ruling::unreadable(format_args!("it could never be sent: {unfit}")));
            }
            if is_as_stored(&revision, &accepted) {
                return match queue.retry(&[id], None, now).await? {
                    0 => Ok(Ruling::Busy),
                    recipients => Ok(Ruling::Unchanged { recipients }),
                };
            }
            let changed = differences(&revision, &accepted);
            let recipients = revision.envelope.recipients.len() as u64;
            if !queue.replace(revision, now).await? {
                return Ok(Ruling::Busy);
            }
            info!(%id, rules = %Clean(matched.join(", ")), "rewritten by the current rules");
            let rules = matched.iter().map(ToString::to_string).collect();
            Ok(Ruling::Rewritten { rules, changed, recipients })
        }
    }
}

/// The gateway's own Received field, and the message below it as it was before the rules.
fn before_the_rules(accepted: &Accepted, original: Option<&[u8]>) -> Result<(Vec<u8>, RewriteDraft), OriginalError> {
    let header = accepted.message.header();
    let trace = Fields::new(header).next().filter(|field| {
        let is_ours = memchr::memmem::find(field.raw(), accepted.id.as_str().as_bytes()).is_some();
        field.is("Received") && is_ours
    });
    let trace = trace.map(|field| field.raw().to_vec()).unwrap_or_default();
    let draft = match original {
        Some(original) => Original::decode(original)?.draft(&accepted.message, &accepted.envelope.recipients),
        None => RewriteDraft {
            envelope: accepted.envelope.clone(),
            message: RawMessage::from_parts(header[trace.len()..].to_vec(), accepted.message.body().clone()),
            marks: accepted.marks.clone(),
        },
    };
    Ok((trace, draft))
}

/// `trace`: the gateway's own field, which goes on top again.
fn revision(kept: KeptMail, before: &RewriteDraft, accepted: &Accepted, trace: &[u8], lane_of: &LaneOf) -> Revision {
    let KeptMail { draft: RewriteDraft { envelope, mut message, marks }, targets, changes } = kept;
    if changes.header {
        drop_broken_signature(&mut message, accepted.id, "rewritten");
    }
    let header = [trace, message.header()].concat();
    let original = changes.any().then(|| Original::new(before, &targets).encode());
    let subject = subject_of(&message, accepted.id);
    let message = RawMessage::from_parts(header, message.body().clone());
    let made = Accepted { envelope, message, marks, ..accepted.clone() };
    let asked = made.asked_header();
    let lanes: Vec<Lane> = made.envelope.recipients.iter().map(|to| lane_of(&made.addressed(to, &asked))).collect();
    Revision {
        id: accepted.id,
        replaces: accepted.envelope.recipients.clone(),
        header: made.message.header().to_vec(),
        envelope: made.envelope,
        lanes,
        marks: made.marks,
        original,
        subject,
    }
}

fn is_as_stored(revision: &Revision, accepted: &Accepted) -> bool {
    revision.header == accepted.message.header()
        && revision.envelope == accepted.envelope
        && revision.marks == accepted.marks
}

/// By name: first the current fields in their order, then removed ones.
fn differences(revision: &Revision, accepted: &Accepted) -> Vec<String> {
    let parts = [
        ("sender", revision.envelope.sender != accepted.envelope.sender),
        ("recipients", revision.envelope.recipients != accepted.envelope.recipients),
        ("marks", revision.marks != accepted.marks),
    ];
    let mut found: Vec<String> =
        parts.iter().filter(|(_, differs)| *differs).map(|(name, _)| (*name).to_owned()).collect();
    let before = by_name(accepted.message.header());
    let after = by_name(&revision.header);
    let mut seen = HashSet::new();
    for field in Fields::new(&revision.header).chain(Fields::new(accepted.message.header())) {
        let key = field.name().to_ascii_lowercase();
        if seen.insert(key.clone()) && before.get(&key) != after.get(&key) {
            found.push(String::from_utf8_lossy(field.name()).into_owned());
        }
    }
    found
}

/// The fields by lower-case name, in their order.
fn by_name(header: &[u8]) -> HashMap<Vec<u8>, Vec<&[u8]>> {
    let mut fields: HashMap<_, Vec<_>> = HashMap::new();
    for field in Fields::new(header) {
        fields.entry(field.name().to_ascii_lowercase()).or_default().push(field.raw());
    }
    fields
}

#[cfg(test)]
mod tests;
