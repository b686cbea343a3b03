//! `waxseal queue retry` and `remove`: named messages, or all that match, page by page.

use super::client::{QueueClient, unexpected};
use super::progress::ProgressDisplay;
use super::selection::Selection;
use super::{print, print_json, rules, text};
use crate::cli::NOT_WELL;
use crate::cli::complain;
use crate::message::MailId;
use crate::queue::control::{Changed, ControlRequest, ControlResponse, MAX_PAGE};
use crate::queue::{Cursor, Filter, RecipientState, Statistics};
use crate::smtp::Mailbox;
use anyhow::bail;
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    #[command(flatten)]
    which: MessageSelection,

    /// Send it to this address instead; for one message with one recipient that is not settled
    #[arg(long, value_name = "ADDRESS", conflicts_with = "all", value_parser = Mailbox::parse)]
    to: Option<Mailbox>,

    #[allow(rustdoc::broken_intra_doc_links, reason = "[[…]] is a table of the configuration, in a help text")]
    /// Apply the current rules ([[rewrite]]) to each message as the application submitted it, and send the result.
    /// A running gateway uses the rules it was started with
    #[arg(long, conflicts_with = "to")]
    rules: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    which: MessageSelection,

    /// Do not ask; --all without a terminal needs it
    #[arg(long, short)]
    yes: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct MessageSelection {
    /// Names of messages
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<MailId>,

    /// All messages, or all that match the filters
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    pub selection: Selection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChangeKind {
    Retry,
    Remove,
}

pub async fn retry(args: &RetryArgs, client: &QueueClient) -> anyhow::Result<ExitCode> {
    if args.rules {
        return rules::retry(&args.which, args.json, client).await;
    }
    let to = args.to.as_ref().map(ToString::to_string);
    let total = if args.which.all {
        all(ChangeKind::Retry, &args.which.selection, client).await?
    } else {
        named(ChangeKind::Retry, &args.which.ids, to, client).await?
    };
    if !args.json && total.messages > 0 {
        print_due(total.messages, total.recipients, client).await?;
    }
    report(ChangeKind::Retry, &total, args.json, args.which.all)
}

/// Also prints lanes that are held.
pub async fn print_due(messages: u64, recipients: u64, client: &QueueClient) -> anyhow::Result<()> {
    let (messages, recipients) = (text::count(messages, "message"), text::count(recipients, "recipient"));
    let held = text::holds(&client.overview().await?.held);
    let held: String = held.iter().map(|line| format!("{line}\n")).collect();
    print(format!("Due now: {messages} for {recipients}.\n{held}"))
}

pub async fn remove(args: &RemoveArgs, client: &QueueClient) -> anyhow::Result<ExitCode> {
    if !args.yes && !confirmed(&args.which, client).await? {
        eprintln!("Nothing was removed.");
        return Ok(ExitCode::from(NOT_WELL));
    }
    let total = if args.which.all {
        all(ChangeKind::Remove, &args.which.selection, client).await?
    } else {
        named(ChangeKind::Remove, &args.which.ids, None, client).await?
    };
    if !args.json && total.messages > 0 {
        print(format!("Removed: {}.\n", text::count(total.messages, "message")))?;
    }
    report(ChangeKind::Remove, &total, args.json, args.which.all)
}

impl RetryArgs {
    /// Wrong usage that the parser accepts.
    pub fn wrong_use(&self) -> Option<&'static str> {
        self.which.wrong_use(self.to.is_some())
    }

    pub fn asks_the_rules(&self) -> bool {
        self.rules
    }

    /// An address is corrected; the routes decide its lane.
    pub fn corrects(&self) -> bool {
        self.to.is_some()
    }
}

impl RemoveArgs {
    pub fn wrong_use(&self) -> Option<&'static str> {
        self.which.wrong_use(false)
    }
}

impl MessageSelection {
    fn wrong_use(&self, has_address: bool) -> Option<&'static str> {
        if self.selection.is_given() && !self.all {
            return Some("the filters choose among --all; leave them out where messages are named");
        }
        (has_address && self.ids.len() != 1).then_some("--to corrects the address of one message at a time")
    }
}

async fn named(
    change: ChangeKind,
    ids: &[MailId],
    to: Option<String>,
    client: &QueueClient,
) -> anyhow::Result<Changed> {
    let unique: Vec<MailId> = ids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let mut total = Changed::default();
    for ids in unique.chunks(MAX_PAGE) {
        let request = match change {
            ChangeKind::Retry => ControlRequest::Retry { ids: ids.to_vec(), to: to.clone() },
            ChangeKind::Remove => ControlRequest::Remove { ids: ids.to_vec() },
        };
        add(&mut total, ask(client, request).await?);
    }
    Ok(total)
}

async fn all(change: ChangeKind, selection: &Selection, client: &QueueClient) -> anyhow::Result<Changed> {
    let filter = selection.filter(Timestamp::now());
    let end =
        if selection.is_state_only() { Some(recipients(&client.overview().await?.counts, filter.state)) } else { None };
    let progress = ProgressDisplay::start(if change == ChangeKind::Retry { "making due" } else { "removing" }, end);
    let (mut total, mut after) = (Changed::default(), None);
    loop {
        let (filter, limit) = (filter.clone(), MAX_PAGE);
        let changed = ask(
            client,
            match change {
                ChangeKind::Retry => ControlRequest::RetryMatching { filter, after, limit },
                ChangeKind::Remove => ControlRequest::RemoveMatching { filter, after, limit },
            },
        );
        let changed = changed.await?;
        progress.advance(changed.recipients);
        after = changed.next;
        total.messages += changed.messages;
        total.recipients += changed.recipients;
        if after.is_none() {
            return Ok(total);
        }
    }
}

/// The total of the progress bar.
fn recipients(counts: &Statistics, state: Option<RecipientState>) -> u64 {
    match state {
        None => counts.waiting + counts.leased + counts.failed + counts.damaged,
        Some(RecipientState::Waiting) => counts.waiting,
        Some(RecipientState::Leased) => counts.leased,
        Some(RecipientState::Failed) => counts.failed,
        Some(RecipientState::Damaged) => counts.damaged,
    }
}

async fn ask(client: &QueueClient, request: ControlRequest) -> anyhow::Result<Changed> {
    match client.ask(request).await? {
        ControlResponse::Changed(changed) => Ok(changed),
        other => Err(unexpected(&other)),
    }
}

fn add(total: &mut Changed, more: Changed) {
    total.messages += more.messages;
    total.recipients += more.recipients;
    total.missing.extend(more.missing);
    total.unchanged.extend(more.unchanged);
}

/// What could not be done, and the exit status.
fn report(change: ChangeKind, total: &Changed, json: bool, all: bool) -> anyhow::Result<ExitCode> {
    if json {
        let [messages, recipients] = [total.messages, total.recipients];
        let [missing, unchanged] = [json!(total.missing), json!(total.unchanged)];
        let value =
            json!({ "messages": messages, "recipients": recipients, "missing": missing, "unchanged": unchanged });
        print_json(&value)?;
    } else {
        for id in &total.missing {
            complain(format_args!(
                "there is no message {id} in the queue; what was delivered is in `waxseal queue list --history`"
            ));
        }
        let why = match change {
            ChangeKind::Retry => "it is being sent, or nothing of it is left to be sent",
            ChangeKind::Remove => "it is being sent, or was delivered",
        };
        for id in &total.unchanged {
            complain(format_args!("{id} was left as it is: {why}"));
        }
        if all && total.messages == 0 {
            complain(format_args!("nothing in the queue matches"));
        }
    }
    let well = total.messages > 0 && total.missing.is_empty() && total.unchanged.is_empty();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) })
}

/// Without a terminal to ask, only named messages are removed.
async fn confirmed(which: &MessageSelection, client: &QueueClient) -> anyhow::Result<bool> {
    let (stdin, stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() {
        if which.all {
            bail!(
                "there is no terminal to ask whether to remove all that match; nothing was removed: add --yes to confirm"
            );
        }
        return Ok(true);
    }
    if !stderr.is_terminal() {
        bail!("the question whether to remove them would not be seen; add --yes to confirm");
    }
    let number = if which.all {
        let (number, more) = matching(&which.selection.filter(Timestamp::now()), client).await?;
        format!("{}{}", if more { "more than " } else { "" }, text::count(number, "message"))
    } else {
        text::count(u64::try_from(which.ids.len())?, "message")
    };
    asked(&format!("Remove {number} for good?"))
}

/// On a terminal.
pub fn asked(question: &str) -> anyhow::Result<bool> {
    write!(std::io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Counting further would only make the user wait.
const ENOUGH: u64 = 10_000;

async fn matching(filter: &Filter, client: &QueueClient) -> anyhow::Result<(u64, bool)> {
    let (mut number, mut after) = (0, None::<Cursor>);
    loop {
        let page = client.page(filter, after, MAX_PAGE).await?;
        number += u64::try_from(page.rows.len())?;
        after = page.next;
        if after.is_none() || number >= ENOUGH {
            return Ok((number, after.is_some()));
        }
    }
}
