//! Prints the results of `waxseal check --message`, for people and for programs. Texts of the message are foreign: each
//! stays on its line.

use super::{diff, line};
use crate::config::Settings;
use crate::dkim::Sealed;
use crate::gateway::{DryRun, RecipientPreview, ServerNeed, UpstreamPreview};
use crate::intake::{IntakeReport, Rejection};
use crate::message::accepted::Accepted;
use crate::message::headers::Fields;
use crate::message::{Envelope, Mark, Marks, Outcome, RawMessage};
use crate::observe::log::Clean;
use crate::smtp::{Mailbox, Reply};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What was submitted, and how.
#[derive(Debug)]
pub struct Submission {
    pub file: String,
    pub octets: usize,
    pub listener: String,
    pub client: IpAddr,
    pub user: Option<Arc<str>>,
    pub envelope: Envelope,
    /// The sender comes from the header.
    pub from_header: bool,
    /// The recipients come from the header.
    pub to_header: bool,
}

#[derive(Debug)]
pub enum DryRunOutcome {
    /// Refused before its content was examined.
    Early(Reply),
    Whole {
        before: RawMessage,
        dry_run: Box<DryRun>,
    },
}

impl DryRunOutcome {
    pub fn refusal(&self) -> Option<&Reply> {
        match self {
            Self::Early(reply) => Some(reply),
            Self::Whole { dry_run, .. } => match &dry_run.intake.result {
                Err(Rejection::Refused { reply, .. }) => Some(reply),
                Ok(_) | Err(Rejection::Discarded { .. }) => None,
            },
        }
    }

    fn accepted(&self) -> Option<(&RawMessage, &DryRun, &Accepted)> {
        match self {
            Self::Whole { before, dry_run } => {
                dry_run.intake.result.as_ref().ok().map(|accepted| (before, &**dry_run, accepted))
            }
            Self::Early(_) => None,
        }
    }

    fn report(&self) -> Option<&IntakeReport> {
        match self {
            Self::Whole { dry_run, .. } => Some(&dry_run.intake.report),
            Self::Early(_) => None,
        }
    }

    fn result(&self) -> String {
        match (self.refusal(), self) {
            (Some(reply), _) => format!("refused: {}", Clean(reply)),
            (None, Self::Whole { dry_run, .. }) => match &dry_run.intake.result {
                Err(Rejection::Discarded { rule }) => {
                    format!("discarded by the rule \"{rule}\": the application gets a 250, and nobody receives it")
                }
                _ => "would be accepted (dry run: nothing was sent)".to_owned(),
            },
            (None, Self::Early(_)) => String::new(),
        }
    }
}

pub fn text(handed: &Submission, seen: &DryRunOutcome, settings: &Settings, colours: bool) -> String {
    let mut lines = submission_lines(handed);
    lines.push(line("result", seen.result()));
    if let Some(report) = seen.report() {
        lines.extend(report_lines(report, settings));
    }
    let Some((before, dry_run, accepted)) = seen.accepted() else { return lines.join("\n") };
    lines.push(String::new());
    lines.extend(envelope_lines(&handed.envelope, &accepted.envelope));
    if !accepted.marks.is_empty() {
        lines.push(line("marks", Clean(marks(&accepted.marks).join(", "))));
    }
    lines.extend(dry_run.onward.iter().map(|onward| line("route", way(onward, settings))));
    for exit in &dry_run.exits {
        let name = &settings.upstreams[exit.upstream].name;
        lines.extend(preview_lines(name, exit, accepted));
    }
    let diff = diff::unified(&before.to_bytes(), &accepted.message.to_bytes());
    let diff = if colours { diff::with_colours(&diff) } else { diff };
    lines.push(format!("\n{diff}"));
    lines.join("\n")
}

fn submission_lines(handed: &Submission) -> Vec<String> {
    let by =
        handed.user.as_ref().map_or_else(|| "without a login".to_owned(), |user| format!("by the login \"{user}\""));
    let of_header = |is_of: bool| if is_of { " (from the header)" } else { "" };
    let mut lines = vec![
        line("message", format!("{}, {} octets", Clean(&handed.file), handed.octets)),
        line("submitted", format!("at {}, from {}, {by}", handed.listener, handed.client)),
    ];
    if !handed.envelope.recipients.is_empty() {
        lines.push(line("from", format!("{}{}", path(&handed.envelope), of_header(handed.from_header))));
        lines.push(line("to", format!("{}{}", names(&handed.envelope), of_header(handed.to_header))));
    }
    lines
}

fn report_lines(report: &IntakeReport, settings: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    if !report.repairs.is_empty() {
        lines.push(line("repaired", report.repairs.join(", ")));
    }
    if !report.conflicts.is_empty() {
        lines.push(line("decided", format!("the first of several different {}", report.conflicts.join(", "))));
    }
    // What is refused before the rules says nothing about them.
    let was_asked = !report.matched.is_empty() || !report.passed_over.is_empty();
    for rule in settings.rules.0.iter().filter(|_| was_asked) {
        let passed_over = report.passed_over.iter().find(|(name, _)| *name == rule.name);
        let result = match passed_over {
            _ if report.matched.contains(&rule.name) => "for this message".to_owned(),
            Some((_, unmet)) => format!("not for it: {}", rule.conditions.describe(*unmet)),
            None => "not asked".to_owned(),
        };
        lines.push(line("rule", Clean(format!("{}: {result}", rule.name))));
    }
    for note in &report.notes {
        let text = format!("{}: {} stays as it was: {}", note.rule, note.header, note.trouble);
        lines.push(line("not done", Clean(text)));
    }
    lines.extend(report.skipped.iter().map(|skipped| line("left out", skipped)));
    lines
}

/// What the rules changed in the envelope.
fn envelope_lines(before: &Envelope, after: &Envelope) -> Vec<String> {
    let mut lines = Vec::new();
    if before.sender != after.sender {
        lines.push(line("sender", format!("{} -> {}", path(before), path(after))));
    }
    if before.recipients != after.recipients {
        lines.push(line("recipients", format!("{} -> {}", names(before), names(after))));
    }
    lines
}

fn way(onward: &RecipientPreview, settings: &Settings) -> String {
    let to = Clean(&onward.recipient);
    match &onward.way {
        Ok(way) => {
            let names = way.upstreams.iter().filter_map(|index| settings.upstreams.get(*index)).map(|it| &*it.name);
            format!("{to}: {}, through {}", way.name, names.collect::<Vec<_>>().join(", then "))
        }
        Err(no_way) => format!("{to}: none, it would wait: {}", no_way.reason()),
    }
}

/// How it is sent, and what is different in the form for this provider.
fn preview_lines(name: &str, exit: &UpstreamPreview, accepted: &Accepted) -> Vec<String> {
    match &exit.sealed {
        Ok(sealed) => {
            let mut lines = vec![line("upstream", format!("{name}: {}", sealed.seal()))];
            let own = own_fields(sealed, accepted);
            lines.extend(own.into_iter().map(|field| line("", format!("{name}: with {}", Clean(field)))));
            lines.extend(exit.needs.iter().map(|need| line("", format!("{name}: {}", Clean(without(need))))));
            lines
        }
        Err(outcome) => vec![line("upstream", format!("{name}: not sent: {}", Clean(reason(outcome))))],
    }
}

/// What depends on the server.
fn without(need: &ServerNeed) -> String {
    match need {
        ServerNeed::EightBitMime(Ok(())) => "if its server offers 8BITMIME; else it is converted to 7 bits".to_owned(),
        ServerNeed::EightBitMime(Err(outcome)) => {
            format!("if its server offers 8BITMIME; else it is not sent: {}", reason(outcome))
        }
        ServerNeed::SmtpUtf8 => "if its server offers SMTPUTF8, which the addresses need".to_owned(),
    }
}

/// Fields that only this provider gets, one line each, without the signature.
fn own_fields(sealed: &Sealed, accepted: &Accepted) -> Vec<String> {
    let known: HashSet<&[u8]> = accepted.message.fields().map(|field| field.raw()).collect();
    let new = Fields::new(sealed.message().header())
        .filter(|field| !known.contains(field.raw()) && !field.is("DKIM-Signature"));
    new.map(|field| {
        let name = String::from_utf8_lossy(field.name());
        let value = field.unfolded();
        format!("{name}: {}", String::from_utf8_lossy(&value))
    })
    .collect()
}

fn reason(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Deferred(reason) | Outcome::Failed(reason) => reason.to_string(),
        Outcome::Delivered(reply) => reply.to_string(),
    }
}

fn path(envelope: &Envelope) -> String {
    envelope.sender.mailbox().map_or_else(|| "<>".to_owned(), |mailbox| Clean(mailbox).to_string())
}

fn names(envelope: &Envelope) -> String {
    envelope.recipients.iter().map(|to| Clean(to).to_string()).collect::<Vec<_>>().join(", ")
}

fn marks(marks: &Marks) -> Vec<String> {
    let Marks { tag, stream, metadata, ip_pool, upstream } = marks;
    let single = [("tag", tag), ("stream", stream), ("ip_pool", ip_pool), ("upstream", upstream)];
    let named = |(name, mark): (&str, &Option<Mark>)| mark.as_ref().map(|mark| format!("{name} {mark}"));
    let metadata = metadata.iter().map(|(name, value)| format!("{name} = {value}"));
    single.into_iter().filter_map(named).chain(metadata).collect()
}

/// The same for programs.
pub fn to_json(handed: &Submission, seen: &DryRunOutcome, settings: &Settings) -> Value {
    let mut value = json!({
        "ok": seen.refusal().is_none(),
        "result": match (seen.refusal(), seen.accepted()) {
            (Some(_), _) => "refused",
            (None, Some(_)) => "accepted",
            (None, None) => "discarded",
        },
        "reply": seen.refusal().map(ToString::to_string),
        "listener": handed.listener,
        "client": handed.client,
        "user": handed.user.as_deref(),
        "before": envelope_to_json(&handed.envelope),
    });
    if let Some(report) = seen.report() {
        value["repairs"] = json!(report.repairs);
        value["conflicts"] = json!(report.conflicts);
        value["rules"] = rules_to_json(report, settings);
        value["not_done"] = report.notes.iter().map(note_to_json).collect();
        value["left_out"] = report
            .skipped
            .iter()
            .map(|skipped| json!({ "step": skipped.step, "reason": skipped.why.to_string() }))
            .collect();
    }
    if let Some((before, dry_run, accepted)) = seen.accepted() {
        value["after"] = envelope_to_json(&accepted.envelope);
        value["marks"] = json!(accepted.marks);
        value["recipients"] = dry_run.onward.iter().map(|onward| onward_to_json(onward, settings)).collect();
        value["upstreams"] = dry_run
            .exits
            .iter()
            .map(|exit| {
                let name = &*settings.upstreams[exit.upstream].name;
                match &exit.sealed {
                    Ok(sealed) => {
                        let needs: Vec<_> = exit.needs.iter().map(ServerNeed::keyword).collect();
                        let seal = sealed.seal().to_string();
                        let headers = own_fields(sealed, accepted);
                        json!({ "name": name, "seal": seal, "headers": headers, "needs": needs })
                    }
                    Err(outcome) => json!({ "name": name, "problem": reason(outcome) }),
                }
            })
            .collect();
        value["diff"] = diff::unified(&before.to_bytes(), &accepted.message.to_bytes()).into();
    }
    value
}

fn rules_to_json(report: &IntakeReport, settings: &Settings) -> Value {
    let rule = |rule: &crate::message::rewrite::Rule| {
        let unmet = report.passed_over.iter().find(|(name, _)| *name == rule.name);
        json!({
            "name": &*rule.name,
            "matched": report.matched.contains(&rule.name),
            "unmet": unmet.map(|(_, unmet)| rule.conditions.describe(*unmet)),
        })
    };
    settings.rules.0.iter().map(rule).collect()
}

fn note_to_json(note: &crate::message::rewrite::RuleNote) -> Value {
    json!({ "rule": &*note.rule, "header": note.header, "reason": note.trouble.to_string() })
}

fn onward_to_json(onward: &RecipientPreview, settings: &Settings) -> Value {
    let address = onward.recipient.to_string();
    match &onward.way {
        Ok(way) => {
            let names = way.upstreams.iter().filter_map(|index| settings.upstreams.get(*index)).map(|it| &*it.name);
            json!({ "address": address, "route": &*way.name, "upstreams": names.collect::<Vec<_>>() })
        }
        Err(no_way) => json!({ "address": address, "problem": no_way.reason().to_string() }),
    }
}

fn envelope_to_json(envelope: &Envelope) -> Value {
    let addresses: Vec<String> = envelope.recipients.iter().map(Mailbox::to_string).collect();
    json!({ "from": envelope.sender.mailbox().map(Mailbox::to_string), "to": addresses })
}
