//! `waxseal queue show`: one message, with every reason in full; or its content, byte for byte.

use super::client::{QueueClient, unexpected};
use super::list::{history_object, message_object, terminal_width};
use super::waiting::WaitingView;
use super::{print, print_json, text};
use crate::cli::PROBLEM_FOUND;
use crate::cli::complain;
use crate::control::{ControlRequest, ControlResponse};
use crate::message::MailId;
use crate::observe::log::Clean;
use crate::queue::{Attempted, HistoryRow, MessageDetails, RecipientRow};
use crate::text::counted;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The message ID, as shown by `queue list`, the log and the 250 reply
    id: MailId,

    /// Print the message itself, as it would be sent, without the signature
    #[arg(long, conflicts_with = "json")]
    content: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &ShowArgs, client: &QueueClient) -> anyhow::Result<ExitCode> {
    if args.content { content(args.id, client).await } else { details(args, client).await }
}

async fn details(args: &ShowArgs, client: &QueueClient) -> anyhow::Result<ExitCode> {
    let shown = match client.ask(ControlRequest::Show { id: args.id }).await? {
        ControlResponse::Shown(Some(shown)) => shown,
        ControlResponse::Shown(None) => return Ok(not_found(args.id)),
        other => return Err(unexpected(&other)),
    };
    let overview = client.overview().await?;
    let view = WaitingView { overview: &overview, now: Timestamp::now() };
    if args.json {
        print_json(&object(&shown, view))?;
    } else {
        print(text::wrapped(&Details { shown: &shown, view }.to_string(), terminal_width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn content(id: MailId, client: &QueueClient) -> anyhow::Result<ExitCode> {
    match client.ask(ControlRequest::Content { id }).await? {
        // A mail can contain control sequences for the terminal.
        ControlResponse::Content(Some(content)) if std::io::stdout().is_terminal() => print(readable(&content.data))?,
        ControlResponse::Content(Some(content)) => print(&content.data)?,
        ControlResponse::Content(None) => {
            complain(format_args!("no content of {id} is here: it was delivered or removed, or never came"));
            return Ok(ExitCode::from(PROBLEM_FOUND));
        }
        other => return Err(unexpected(&other)),
    }
    Ok(ExitCode::SUCCESS)
}

fn not_found(id: MailId) -> ExitCode {
    complain(format_args!("there is no message {id}: it was removed, or it is older than the history that is kept"));
    ExitCode::from(PROBLEM_FOUND)
}

fn object(shown: &MessageDetails, view: WaitingView<'_>) -> Value {
    let mut value = message_object(&shown.row, view);
    value["gateway_running"] = json!(view.overview.lanes.is_some());
    value["header"] = json!(shown.header);
    value["attempts"] = json!(shown.attempts);
    value["delivered"] = shown.delivered.iter().map(history_object).collect();
    value["has_original"] = json!(shown.has_original);
    value
}

/// Line by line, each cleaned.
fn readable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().fold(String::new(), |mut all, line| {
        let _to_memory = writeln!(all, "{}", Clean(line.replace('\t', "    ")));
        all
    })
}

/// For people.
struct Details<'a> {
    shown: &'a MessageDetails,
    view: WaitingView<'a>,
}

impl fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = &self.shown.row;
        writeln!(f, "Message    {}", Clean(&row.id))?;
        writeln!(f, "Received   {} ({})", text::exact(row.received_at), text::ago(self.view.now, row.received_at))?;
        writeln!(f, "From       {}", Clean(text::sender(&row.sender)))?;
        writeln!(f, "Subject    {}", Clean(&row.subject))?;
        writeln!(f, "Size       {}", text::size(row.size))?;
        if row.is_spooled {
            writeln!(f, "Spool      it waits on this gateway, and moves into Redis when that answers")?;
        }
        if self.shown.has_original {
            writeln!(f, "Original   kept as it was before the rewrite rules")?;
        }
        if !row.recipients.is_empty() {
            writeln!(f, "\nNot delivered yet")?;
        }
        row.recipients.iter().try_for_each(|recipient| self.recipient(f, recipient))?;
        if !self.shown.delivered.is_empty() {
            writeln!(f, "\nDelivered")?;
        }
        self.shown.delivered.iter().try_for_each(|delivered| self.delivered(f, delivered))?;
        if !self.shown.attempts.is_empty() {
            writeln!(f, "\nAttempts")?;
        }
        self.shown.attempts.iter().try_for_each(|attempt| self.attempt(f, attempt))?;
        if !self.shown.header.is_empty() {
            writeln!(f, "\nHeader")?;
        }
        readable(self.shown.header.as_bytes()).lines().try_for_each(|line| writeln!(f, "  {line}"))?;
        text::holds(&self.view.overview.held).iter().try_for_each(|line| writeln!(f, "\n{line}"))
    }
}

impl Details<'_> {
    fn recipient(&self, f: &mut fmt::Formatter<'_>, recipient: &RecipientRow) -> fmt::Result {
        let state = self.view.state(recipient);
        let tries = match recipient.attempts {
            0 => "not tried yet".to_owned(),
            number => format!("tried {}", counted(number.into(), "time")),
        };
        write!(f, "  {}: {state}, {tries}, lane {}", Clean(&recipient.address), Clean(&recipient.lane))?;
        match recipient.due {
            Some(due) if due > self.view.now => writeln!(f, " (next {})", text::exact(due))?,
            _ => writeln!(f)?,
        }
        self.view.reason(recipient).iter().try_for_each(|reason| writeln!(f, "    {}", Clean(reason)))
    }

    fn delivered(&self, f: &mut fmt::Formatter<'_>, row: &HistoryRow) -> fmt::Result {
        let delivery = &row.delivery;
        let at = text::exact(delivery.at);
        let ago = text::ago(self.view.now, delivery.at);
        writeln!(
            f,
            "  {at} ({ago}), upstream {}, after {} ms: {}",
            Clean(&delivery.upstream),
            delivery.milliseconds,
            Clean(&delivery.reply)
        )?;
        row.recipients.iter().try_for_each(|address| writeln!(f, "    {}", Clean(address)))
    }

    fn attempt(&self, f: &mut fmt::Formatter<'_>, attempt: &Attempted) -> fmt::Result {
        let at = text::exact(attempt.at);
        let ago = text::ago(self.view.now, attempt.at);
        writeln!(f, "  {at} ({ago})\n    {}", Clean(&attempt.text))?;
        if attempt.possible_duplicate {
            writeln!(f, "    The provider may have taken it all the same.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
