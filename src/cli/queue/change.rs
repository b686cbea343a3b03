//! `waxseal queue retry` and `remove`: named messages, or all that match, page by page.

use super::client::{QueueClient, unexpected};
use super::progress::ProgressDisplay;
use super::selection::{MessageSelection, Selection};
use super::walk::{print_due, walk};
use super::{print, print_json, rules};
use crate::cli::PROBLEM_FOUND;
use crate::cli::complain;
use crate::control::{Change, Changed, ControlResponse, MAX_PAGE};
use crate::queue::{Cursor, Filter, RecipientState, Statistics};
use crate::smtp::Mailbox;
use crate::text::counted;
use anyhow::bail;
use jiff::Timestamp;
use serde_json::json;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    #[command(flatten)]
    which: MessageSelection,

    /// Send it to this address instead; for one message with one unsettled recipient
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
pub struct FlushArgs {
    #[command(flatten)]
    selection: Selection,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

impl From<FlushArgs> for RetryArgs {
    fn from(FlushArgs { selection, json }: FlushArgs) -> Self {
        let which = MessageSelection { ids: Vec::new(), all: true, selection };
        Self { which, to: None, rules: false, json }
    }
}

#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    which: MessageSelection,

    /// Do not ask for confirmation; required for --all without a terminal
    #[arg(long, short)]
    yes: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub async fn retry(args: &RetryArgs, client: &QueueClient) -> anyhow::Result<ExitCode> {
    if args.rules {
        return rules::retry(&args.which, args.json, client).await;
    }
    let to = args.to.as_ref().map(ToString::to_string);
    let total = change(Change::Retry { to }, &args.which, client).await?;
    if !args.json && total.messages > 0 {
        print_due(total.messages, total.recipients, client).await?;
    }
    report(&total, "it is being sent, or nothing of it is left to be sent", args.json, args.which.all)
}

/// Messages that were stored on hold.
pub async fn release(which: &MessageSelection, json: bool, client: &QueueClient) -> anyhow::Result<ExitCode> {
    let total = change(Change::Release, which, client).await?;
    if !json && total.messages > 0 {
        print_due(total.messages, total.recipients, client).await?;
    }
    report(&total, "nothing of it is held by [storm]", json, which.all)
}

pub async fn remove(args: &RemoveArgs, client: &QueueClient) -> anyhow::Result<ExitCode> {
    if !args.yes && !confirmed(&args.which, client).await? {
        eprintln!("Nothing was removed.");
        return Ok(ExitCode::from(PROBLEM_FOUND));
    }
    let total = change(Change::Remove, &args.which, client).await?;
    if !args.json && total.messages > 0 {
        print(format!("Removed: {}.\n", counted(total.messages, "message")))?;
    }
    report(&total, "it is being sent, or was delivered", args.json, args.which.all)
}

impl RetryArgs {
    /// Wrong usage that the parser accepts.
    pub fn wrong_use(&self) -> Option<&'static str> {
        self.which.wrong_use(self.to.is_some())
    }

    pub fn asks_the_rules(&self) -> bool {
        self.rules
    }

    /// An address is corrected, and the routes decide its lane.
    pub fn corrects(&self) -> bool {
        self.to.is_some()
    }
}

impl RemoveArgs {
    pub fn wrong_use(&self) -> Option<&'static str> {
        self.which.wrong_use(false)
    }
}

async fn change(what: Change, which: &MessageSelection, client: &QueueClient) -> anyhow::Result<Changed> {
    let mut total = Changed::default();
    let progress = if which.all { Some(progress(&what, &which.selection, client).await?) } else { None };
    walk(&what, which, MAX_PAGE, client, |response| {
        let ControlResponse::Changed(changed) = response else { return Err(unexpected(&response)) };
        if let Some(progress) = &progress {
            progress.advance(changed.recipients);
        }
        total.messages += changed.messages;
        total.recipients += changed.recipients;
        // With --all, messages that could not be changed are not named.
        if !which.all {
            total.missing.extend(changed.missing);
            total.unchanged.extend(changed.unchanged);
        }
        Ok(())
    })
    .await?;
    Ok(total)
}

/// Shows a total if the counts give one.
async fn progress(what: &Change, selection: &Selection, client: &QueueClient) -> anyhow::Result<ProgressDisplay> {
    let end = if selection.is_state_only() {
        Some(recipients(&client.overview().await?.counts, selection.state))
    } else {
        None
    };
    Ok(ProgressDisplay::start(if *what == Change::Remove { "removing" } else { "making due" }, end))
}

/// The total of the progress bar.
fn recipients(counts: &Statistics, state: Option<RecipientState>) -> u64 {
    match state {
        None => counts.waiting + counts.leased + counts.failed + counts.damaged,
        Some(RecipientState::Waiting | RecipientState::Held) => counts.waiting,
        Some(RecipientState::Leased) => counts.leased,
        Some(RecipientState::Failed) => counts.failed,
        Some(RecipientState::Damaged) => counts.damaged,
    }
}

/// Prints what could not be done; returns the exit status.
fn report(total: &Changed, why_unchanged: &str, json: bool, all: bool) -> anyhow::Result<ExitCode> {
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
        for id in &total.unchanged {
            complain(format_args!("{id} was left as it is: {why_unchanged}"));
        }
        if all && total.messages == 0 {
            complain(format_args!("nothing in the queue matches"));
        }
    }
    let well = total.messages > 0 && total.missing.is_empty() && total.unchanged.is_empty();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(PROBLEM_FOUND) })
}

/// Without a terminal to ask, only named messages are removed.
async fn confirmed(which: &MessageSelection, client: &QueueClient) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    let stderr = std::io::stderr();
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
        format!("{}{}", if more { "more than " } else { "" }, counted(number, "message"))
    } else {
        counted(u64::try_from(which.ids.len())?, "message")
    };
    asked(&format!("Remove {number} permanently?"))
}

/// Asks on a terminal.
pub fn asked(question: &str) -> anyhow::Result<bool> {
    write!(std::io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Counting further would only make the user wait.
const MAX_COUNTED: u64 = 10_000;

async fn matching(filter: &Filter, client: &QueueClient) -> anyhow::Result<(u64, bool)> {
    let mut number = 0;
    let mut after = None::<Cursor>;
    loop {
        let page = client.page(filter, after, MAX_PAGE).await?;
        number += u64::try_from(page.rows.len())?;
        after = page.next;
        if after.is_none() || number >= MAX_COUNTED {
            return Ok((number, after.is_some()));
        }
    }
}
