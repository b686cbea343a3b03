//! From `Received` to `Accepted`: loop check, author, repair, rules, trace.
//!
//! Who may send as whom is checked before any rule, after those repairs that make the author readable without changing
//! an address. If the author is still unclear, it is checked after the rules, one of which may have set it. Whether the
//! message can be signed is decided on the result of the rules.

use super::deduplication::deduplication;
use super::fit;
use super::pipeline::IntakePipeline;
use super::report::RefusedMail;
use crate::inbound::Received;
use crate::message::accepted::{Accepted, Origin};
use crate::message::author::AuthorError;
use crate::message::budget::{BudgetExceeded, MemoryShare};
use crate::message::optional::{Obstacle, Skipped};
use crate::message::raw::RawError;
use crate::message::repair::{RepairInputs, Repaired, header_room, memory_needed, repair, repair_header};
use crate::message::rewrite::{KeptMail, Original, RewriteDraft, Rewritten, RuleNote, Rules, Unmet, Verdict};
use crate::message::trace::{Trace, add_received, is_looping};
use crate::message::{Author, MailId, Marks, RawMessage, subject};
use crate::observe::log::Clean;
use crate::observe::long_work::in_place;
use crate::observe::{fault, random_u32};
use crate::queue::Deduplication;
use crate::smtp::{EnhancedCode, Mailbox, Reply};
use bytes::Bytes;
use jiff::Timestamp;
use std::sync::Arc;
use tracing::{debug, info, warn};

/// Ready to be delivered or stored.
#[derive(Debug)]
pub(super) struct PreparedMail {
    pub accepted: Accepted,
    /// The form from before the rules, if one changed it.
    pub original: Option<Bytes>,
}

/// Why nothing is to be delivered.
#[derive(Debug)]
pub enum Rejection {
    Refused {
        reply: Reply,
        /// The rule that refuses it, if one does.
        rule: Option<Arc<str>>,
    },
    /// A rule discards it.
    Discarded { rule: Arc<str> },
}

impl From<Reply> for Rejection {
    fn from(reply: Reply) -> Self {
        Self::Refused { reply, rule: None }
    }
}

/// What intake did to a message, for reports.
#[derive(Debug, Clone, Default)]
pub struct IntakeReport {
    /// Names of the repairs that changed something.
    pub repairs: Vec<&'static str>,
    /// Headers that occurred several times with different values, of which the first was kept.
    pub conflicts: Vec<&'static str>,
    /// Rules that applied, in order.
    pub matched: Vec<Arc<str>>,
    /// Rules that did not apply, each with its first unmet condition.
    pub passed_over: Vec<(Arc<str>, Unmet)>,
    /// What rules asked for but could not be done.
    pub notes: Vec<RuleNote>,
    /// Repairs and text searches that were skipped, because the mail must not wait for them.
    pub skipped: Vec<Skipped>,
}

impl IntakePipeline {
    /// Computed from the message as it was received, because the result of repairs and rules may differ from time to
    /// time.
    pub(super) fn deduplication(&self, received: &Received) -> Option<Deduplication> {
        let window = self.deduplicate?;
        in_place(is_large(received.data.len()), || deduplication(received, window))
    }

    /// At the final dot. The error is the reply if nothing is to be delivered: a refusal, or the 250 for a message that
    /// a rule discards. It has been logged.
    pub(super) fn accept(&self, received: &mut Received) -> Result<PreparedMail, Reply> {
        fault::provoke("intake", &received.envelope.sender);
        let now = self.clock.now();
        let id = MailId::new(now, random_u32());
        self.prepare(received, id, now, &mut IntakeReport::default()).map_err(|rejection| {
            let mail = RefusedMail { id, received, listener: &self.listener };
            match rejection {
                Rejection::Refused { reply, rule } => {
                    mail.log_refused(&reply, rule.as_ref());
                    reply
                }
                Rejection::Discarded { rule } => {
                    mail.log_discarded(&rule);
                    Reply::new(250, EnhancedCode::new(2, 0, 0), format!("Accepted as {id}"))
                }
            }
        })
    }

    /// Checks, repairs and rewrites a message, and adds Received.
    pub(super) fn prepare(
        &self,
        received: &mut Received,
        id: MailId,
        now: Timestamp,
        report: &mut IntakeReport,
    ) -> Result<PreparedMail, Rejection> {
        let Self { policy, rules, hostname, listener, .. } = self;
        let RepairedMail { message, readable, author: written, held } = self.repair(received, id, now, report)?;
        let origin = Origin { listener: Some(listener.clone()), user: received.client.user.clone() };
        let draft = RewriteDraft { envelope: received.envelope.clone(), message, marks: Marks::default() };
        reserve(&mut received.share, held + rules.memory_needed(&draft.message))?;
        let RuleResult { draft, original } = follow_rules(rules, draft, &origin, id, report)?;
        let held = held + original.as_ref().map_or(0, Bytes::len);
        reserve(&mut received.share, held)?;
        received.share.shrink(held);
        let RewriteDraft { envelope, mut message, marks } = draft;
        let author = if original.is_some() || written.is_err() { Author::of(&message) } else { written.clone() };
        if let Err(error) = written {
            let is_set_by_rule = |address: &Mailbox| rules.set_from(address);
            policy.check_unclear_author(&received.client, author.as_ref().ok(), is_set_by_rule, &readable, error)?;
        }
        let author = policy.check_seal(&message, author)?;
        let is_signed = author.as_ref().is_some_and(|author| policy.keyring.keys_for(author.domain()).is_some());
        let fit = if is_signed { fit::check(&message) } else { fit::check_lines(&message) };
        fit.map_err(|unfit| unfit.reply())?;
        let trace = Trace {
            ehlo: &received.client.ehlo,
            client: received.client.peer.ip(),
            by: hostname,
            protocol: received.client.protocol(),
            id,
            detail: self.received,
        };
        add_received(&mut message, &trace, now);
        let accepted = Accepted { id, received_at: now, origin, envelope, message, author, marks };
        Ok(PreparedMail { accepted, original })
    }

    /// Checks for loops and for the senders in the header, and repairs the message.
    fn repair(
        &self,
        received: &mut Received,
        id: MailId,
        now: Timestamp,
        report: &mut IntakeReport,
    ) -> Result<RepairedMail, Rejection> {
        let as_received = RawMessage::from_data(received.data.clone()).map_err(|error| match error {
            RawError::HeaderTooLarge => Reply::header_too_large(),
        })?;
        let host = message_id_host(&self.hostname, None);
        let first = repair(&as_received, &self.repairs.before_the_author(), &RepairInputs { now, id, host });
        let readable = first.message;
        for header in &first.conflicts {
            warn!(%id, header, "this header stood there several times with different values: the first one stays");
        }
        report.conflicts = first.conflicts;
        if is_looping(&readable) {
            return Err(Reply::mail_loop().into());
        }
        let author = Author::of(&readable);
        if let Ok(author) = &author {
            self.policy.check_author(&received.client, author)?;
        }
        self.policy.check_senders(&received.client, &as_received, &readable)?;
        let context = RepairInputs { now, id, host: message_id_host(&self.hostname, author.as_ref().ok()) };
        let size = received.data.len();
        let Repaired { mut message, steps, skipped, .. } =
            in_place(is_large(size), || repaired(&readable, self, &context, &mut received.share, size))?;
        let held = octets_with(&message, &readable, size);
        reserve(&mut received.share, held)?;
        received.share.shrink(held);
        let steps = [first.steps, steps].concat();
        let skipped = [first.skipped, skipped].concat();
        log_skipped(&skipped, id);
        report.skipped = skipped;
        if !steps.is_empty() {
            debug!(%id, steps = steps.join(", "), "repaired");
        }
        if received.line_endings_changed || !steps.is_empty() {
            drop_broken_signature(&mut message, id, "repaired");
        }
        report.repairs = steps;
        Ok(RepairedMail { message, readable, author, held })
    }
}

/// A message between its repairs and the rules.
struct RepairedMail {
    message: RawMessage,
    /// With only those repairs that make its author readable.
    readable: RawMessage,
    author: Result<Author, AuthorError>,
    /// Octets of memory that the message takes.
    held: usize,
}

/// Repairs with every step that is wanted. If even all the memory for incoming mail would not suffice for that and for
/// the rules after it, only long lines are encoded; if that is still too much, the body stays as it is. Otherwise a
/// client would be asked to retry every time.
fn repaired(
    message: &RawMessage,
    IntakePipeline { repairs, rules, .. }: &IntakePipeline,
    context: &RepairInputs<'_>,
    share: &mut MemoryShare,
    size: usize,
) -> Result<Repaired, Reply> {
    let repairs = &repairs.after_the_author();
    let fewer = repairs.without_others_on_body();
    for tried in [repairs, &fewer] {
        let needed = size + header_room(message) + memory_needed(message, tried);
        if !share.could_hold(needed) {
            continue;
        }
        reserve(share, needed)?;
        let repaired = repair(message, tried, context);
        let held = octets_with(&repaired.message, message, size);
        if held == size || share.could_hold(held + rules.memory_needed(&repaired.message)) {
            return Ok(if tried == repairs { repaired } else { with_less_of_body(repaired) });
        }
    }
    Ok(with_less_of_body(repair_header(message, repairs, context)))
}

fn with_less_of_body(mut repaired: Repaired) -> Repaired {
    repaired.skipped.push(Skipped { step: "body", why: Obstacle::Memory });
    repaired
}

/// Temporary, unless the message would not fit even if no other mail were in memory.
fn reserve(share: &mut MemoryShare, octets: usize) -> Result<(), Reply> {
    if !share.could_hold(octets) {
        return Err(Reply::never_enough_memory());
    }
    share.grow(octets).map_err(|BudgetExceeded| Reply::no_memory())
}

/// A rewritten body is held beside the old one until the reply.
fn octets_with(message: &RawMessage, as_received: &RawMessage, size: usize) -> usize {
    let is_new = message.body().as_ptr() != as_received.body().as_ptr();
    if is_new { size + message.size() } else { size }
}

/// The result of the rules for a message.
struct RuleResult {
    draft: RewriteDraft,
    original: Option<Bytes>,
}

fn follow_rules(
    rules: &Rules,
    draft: RewriteDraft,
    origin: &Origin,
    id: MailId,
    report: &mut IntakeReport,
) -> Result<RuleResult, Rejection> {
    if rules.is_empty() {
        return Ok(RuleResult { draft, original: None });
    }
    let rewritten = in_place(is_large(draft.message.size()), || rules.apply(&draft, origin));
    let Rewritten { verdict, matched, passed_over, notes, skipped } = rewritten;
    log_notes(&notes, id);
    log_skipped(&skipped, id);
    report.skipped.extend(skipped);
    report.matched = matched;
    report.passed_over = passed_over;
    report.notes = notes;
    match verdict {
        Verdict::Discard { rule } => Err(Rejection::Discarded { rule }),
        Verdict::Refuse { rule, text } => {
            let reply = Reply::new(550, EnhancedCode::new(5, 7, 1), text).folded();
            Err(Rejection::Refused { reply, rule: Some(rule) })
        }
        Verdict::Keep(kept) if !kept.changes.any() => Ok(RuleResult { draft, original: None }),
        Verdict::Keep(kept) => {
            let KeptMail { draft: mut made, targets, changes } = *kept;
            debug!(%id, rules = %Clean(report.matched.join(", ")), "rewritten");
            if changes.header {
                drop_broken_signature(&mut made.message, id, "rewritten");
            }
            Ok(RuleResult { draft: made, original: Some(Original::new(&draft, &targets).encode()) })
        }
    }
}

/// Logs what rules asked for but could not be done.
pub(super) fn log_notes(notes: &[RuleNote], id: MailId) {
    for RuleNote { rule, header, trouble } in notes {
        warn!(%id, rule = %Clean(rule), header = %Clean(header), "a rule could not change a header: {trouble}");
    }
}

/// One line for each skipped step, wherever it was skipped.
pub(super) fn log_skipped(skipped: &[Skipped], id: MailId) {
    for Skipped { step, why } in skipped {
        warn!(%id, step, "an optional step was skipped, and the mail continues without it: {why}");
    }
}

/// For lists; empty if it cannot be read.
pub(super) fn subject_of(message: &RawMessage, id: MailId) -> String {
    subject(message).unwrap_or_else(|skipped| {
        log_skipped(&[skipped], id);
        String::new()
    })
}

/// For messages of this size, repairs and rules take longer than an async thread's other work should wait.
pub(super) fn is_large(octets: usize) -> bool {
    octets >= 16 * 1024
}

// A name without a dot is not known to others; spam filters penalise it.
fn message_id_host<'a>(hostname: &'a str, author: Option<&'a Author>) -> &'a str {
    match author {
        Some(author) if !hostname.contains('.') && !author.domain().is_literal() => author.domain().as_str(),
        _ => hostname,
    }
}

// The application's own signature does not cover the changes, and a broken one is worse than none.
pub(super) fn drop_broken_signature(message: &mut RawMessage, id: MailId, what: &'static str) {
    let removed = message.remove_fields(|field| field.is("DKIM-Signature"));
    if removed > 0 {
        info!(%id, removed, "removed the application's own DKIM-Signature, since the message was {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::budget::MemoryBudget;

    #[test]
    fn what_would_never_fit_is_refused_permanently() {
        let budget = MemoryBudget::new(10 * 4096);
        let mut share = budget.share();
        let mut other = budget.share();
        assert_eq!(reserve(&mut other, 4096), Ok(()));
        assert_eq!(reserve(&mut share, 10 * 4096), Err(Reply::no_memory()));
        assert_eq!(reserve(&mut share, 10 * 4096 + 1), Err(Reply::never_enough_memory()));
        assert_eq!(reserve(&mut share, 9 * 4096), Ok(()));
    }
}
