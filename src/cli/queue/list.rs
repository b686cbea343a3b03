//! `waxseal queue list`: the messages in the queue, oldest first, or delivered ones, newest first.

use super::client::{QueueClient, unexpected};
use super::listing::Listing;
use super::progress::ProgressDisplay;
use super::selection::Selection;
use super::table::Column;
use super::waiting::WaitingView;
use super::{print, text};
use crate::control::{ControlRequest, ControlResponse, MAX_PAGE, Overview};
use crate::queue::{Cursor, HistoryRow, Row, is_message_id};
use crate::text::counted;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    selection: Selection,

    /// List delivered messages, newest first, instead of those in the queue
    #[arg(long, conflicts_with = "state")]
    history: bool,

    /// At most this many messages
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,

    /// All messages
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

const MESSAGES: [Column; 6] =
    [("ID", 16), ("RECEIVED", 14), ("FROM", 36), ("TO", 40), ("STATE", 28), ("SUBJECT AND REASON", 200)];
const DELIVERED: [Column; 6] =
    [("ID", 16), ("DELIVERED", 14), ("FROM", 36), ("TO", 40), ("UPSTREAM", 20), ("REPLY", 200)];

pub async fn run(args: &ListArgs, client: &QueueClient) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let limit = if args.all { u64::MAX } else { args.limit };
    if args.history {
        history(args, limit, client, now).await?;
    } else {
        messages(args, limit, client, now).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn messages(args: &ListArgs, limit: u64, client: &QueueClient, now: Timestamp) -> anyhow::Result<()> {
    let overview = client.overview().await?;
    let filter = args.selection.filter(now);
    let mut listing = if args.json { Listing::json("messages") } else { Listing::table(MESSAGES, terminal_width()) };
    let view = WaitingView { overview: &overview, now };
    // Of the whole queue.
    let summary = if listing.is_table() && !args.selection.is_given() { view.summary() } else { Vec::new() };
    if !summary.is_empty() {
        print(summary.iter().map(|line| format!("{line}\n")).collect::<String>() + "\n")?;
    }
    let progress = ProgressDisplay::start("searching the queue", None);
    let mut after = None;
    loop {
        let wanted = usize::try_from(limit - listing.written()).unwrap_or(usize::MAX).min(MAX_PAGE);
        let page = client.page(&filter, after, wanted).await?;
        let text = listing.page(&page.rows, |row| message_cells(row, view), |row| message_object(row, view));
        progress.suspend(|| print(text))?;
        progress.advance(count(&page.rows));
        after = page.next;
        if after.is_none() || listing.written() >= limit {
            break;
        }
    }
    drop(progress);
    let mut below = below_messages(listing.written(), after.is_some(), args.selection.is_given(), &overview);
    if args.selection.message_id.is_some() && listing.written() == 0 {
        below.push_str("What was delivered is in: waxseal queue list --history --message-id …\n");
    }
    let beside = [
        ("more", json!(after.is_some())),
        ("gateway_running", json!(overview.lanes.is_some())),
        ("held", json!(overview.held)),
        ("counts", json!(overview.counts)),
        ("spool", json!(overview.spool)),
    ];
    print(listing.end(&beside, &below))
}

fn message_cells(row: &Row, view: WaitingView<'_>) -> [String; MESSAGES.len()] {
    let reason = row.recipients.iter().find_map(|recipient| view.reason(recipient));
    let subject_and_reason = match (row.subject.as_str(), reason) {
        (subject, None) => subject.to_owned(),
        ("", Some(reason)) => reason,
        (subject, Some(reason)) => format!("{}: {reason}", super::table::fit(subject, 40)),
    };
    [
        row.id.clone(),
        text::ago(view.now, row.received_at),
        text::sender(&row.sender).to_owned(),
        recipients(row.recipients.iter().map(|recipient| recipient.address.as_str())),
        view.message_state(row),
        subject_and_reason,
    ]
}

/// The first address, and how many more.
fn recipients<'a>(mut addresses: impl ExactSizeIterator<Item = &'a str>) -> String {
    let others = addresses.len().saturating_sub(1);
    let first = addresses.next().unwrap_or_default();
    if others == 0 { first.to_owned() } else { format!("{} (+{others})", super::table::fit(first, 32)) }
}

fn count<T>(rows: &[T]) -> u64 {
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
}

/// The row, with what each recipient waits for.
pub fn message_object(row: &Row, view: WaitingView<'_>) -> Value {
    let mut value = json!(row);
    for (at, recipient) in row.recipients.iter().enumerate() {
        value["recipients"][at]["hold"] = view.to_json(recipient);
    }
    value
}

/// Columns of the terminal, if standard output is one.
pub(super) fn terminal_width() -> Option<usize> {
    let stdout = std::io::stdout();
    let size = rustix::termios::tcgetwinsize(&stdout).ok().filter(|_| stdout.is_terminal())?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0).or(Some(80))
}

fn below_messages(written: u64, more: bool, is_filtered: bool, overview: &Overview) -> String {
    let counts = &overview.counts;
    let mut lines = vec![match (written, more) {
        (0, _) if is_filtered => "No message matches.".to_owned(),
        (0, _) => "The queue is empty.".to_owned(),
        (_, true) => format!("\nThe oldest {}; see more with --limit or --all.", counted(written, "message")),
        (_, false) => format!("\n{}.", counted(written, "message")),
    }];
    if counts.waiting + counts.leased + counts.failed + counts.damaged > 0 {
        let damaged = if counts.damaged == 0 { String::new() } else { format!(", {} damaged", counts.damaged) };
        let [waiting, leased, failed] = [counts.waiting, counts.leased, counts.failed];
        lines.push(format!(
            "Recipients in the queue: {waiting} waiting, {leased} being sent, {failed} failed{damaged}."
        ));
    }
    lines.extend(text::holds(&overview.held));
    lines.join("\n") + "\n"
}

async fn history(args: &ListArgs, limit: u64, client: &QueueClient, now: Timestamp) -> anyhow::Result<()> {
    let mut listing = if args.json { Listing::json("delivered") } else { Listing::table(DELIVERED, terminal_width()) };
    let progress = ProgressDisplay::start("searching the history", None);
    let mut before = None;
    let mut more = true;
    while more && listing.written() < limit {
        let rows = history_page(client, before).await?;
        more = rows.len() == MAX_PAGE;
        before = rows.last().map(|row| row.cursor);
        let wanted = usize::try_from(limit - listing.written()).unwrap_or(usize::MAX);
        let mut chosen: Vec<_> = rows.into_iter().filter(|row| is_chosen(row, &args.selection, now)).collect();
        more |= chosen.len() > wanted;
        chosen.truncate(wanted);
        let text = listing.page(&chosen, |row| history_cells(row, now), history_object);
        progress.suspend(|| print(text))?;
        progress.advance(count(&chosen));
    }
    drop(progress);
    let below = match (listing.written(), more) {
        (0, _) if args.selection.is_given() => "No delivered message matches.\n".to_owned(),
        (0, _) => "No deliveries recorded.\n".to_owned(),
        (written, true) => format!("\nThe newest {written}; see more with --limit or --all.\n"),
        (written, false) => format!("\n{written} delivered.\n"),
    };
    print(listing.end(&[("more", json!(more))], &below))
}

async fn history_page(client: &QueueClient, before: Option<Cursor>) -> anyhow::Result<Vec<HistoryRow>> {
    match client.ask(ControlRequest::History { before, limit: MAX_PAGE }).await? {
        ControlResponse::History(rows) => Ok(rows),
        other => Err(unexpected(&other)),
    }
}

fn is_chosen(row: &HistoryRow, selection: &Selection, now: Timestamp) -> bool {
    let has = |part: &str| row.recipients.iter().any(|address| address.to_lowercase().contains(&part.to_lowercase()));
    selection.recipient.as_deref().is_none_or(has)
        && selection.message_id.as_deref().is_none_or(|wanted| is_message_id(row.message_id.as_deref(), wanted))
        && selection.upstream.as_ref().is_none_or(|name| row.delivery.upstream == *name)
        && selection.received_before(now).is_none_or(|before| row.received_at < before)
}

fn history_cells(row: &HistoryRow, now: Timestamp) -> [String; DELIVERED.len()] {
    [
        row.id.clone(),
        text::ago(now, row.delivery.at),
        text::sender(&row.sender).to_owned(),
        recipients(row.recipients.iter().map(String::as_str)),
        row.delivery.upstream.clone(),
        row.delivery.reply.clone(),
    ]
}

pub fn history_object(row: &HistoryRow) -> Value {
    json!({
        "id": row.id,
        "received_at": row.received_at,
        "delivered_at": row.delivery.at,
        "sender": row.sender,
        "recipients": row.recipients,
        "subject": row.subject,
        "message_id": row.message_id,
        "upstream": row.delivery.upstream,
        "reply": row.delivery.reply,
        "milliseconds": row.delivery.milliseconds,
    })
}

#[cfg(test)]
mod tests;
