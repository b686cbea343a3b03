//! `waxseal queue retry --rules`: the current rules applied to waiting or failed mail, with a result for each message.

use super::client::{QueueClient, unexpected};
use super::progress::ProgressDisplay;
use super::selection::MessageSelection;
use super::walk::{print_due, walk};
use super::{print, print_json};
use crate::cli::PROBLEM_FOUND;
use crate::cli::complain;
use crate::control::{Change, ControlResponse, MAX_RULED, RuledMessage};
use crate::intake::Ruling;
use crate::observe::log::Clean;
use serde_json::json;
use std::process::ExitCode;

pub async fn retry(which: &MessageSelection, json: bool, client: &QueueClient) -> anyhow::Result<ExitCode> {
    let mut total = Vec::new();
    let progress = which.all.then(|| ProgressDisplay::start("asking the rules about", None));
    walk(&Change::RetryByRules, which, MAX_RULED, client, |response| {
        let ControlResponse::Ruled(page) = response else { return Err(unexpected(&response)) };
        match &progress {
            Some(progress) => {
                progress.advance(u64::try_from(page.messages.len())?);
                if !json {
                    progress.suspend(|| print_results(&page.messages))?;
                }
            }
            None if !json => print_results(&page.messages)?,
            None => {}
        }
        total.extend(page.messages);
        Ok(())
    })
    .await?;
    drop(progress);
    finish(&total, which.all, json, client).await
}

/// Prints due messages on standard output, others on standard error.
fn print_results(messages: &[RuledMessage]) -> anyhow::Result<()> {
    for RuledMessage { id, ruling } in messages {
        let line = format!("{}: {}", Clean(id), Clean(describe(id, ruling)));
        if ruling.due().is_some() {
            print(line + "\n")?;
        } else {
            complain(format_args!("{line}"));
        }
    }
    Ok(())
}

fn describe(id: &str, ruling: &Ruling) -> String {
    match ruling {
        Ruling::Rewritten { rules, changed, .. } if rules.is_empty() => {
            format!("no rule is for it any more; changed back: {}", changed.join(", "))
        }
        Ruling::Rewritten { rules, changed, .. } => {
            format!("rewritten by {}; changed: {}", rules.join(", "), changed.join(", "))
        }
        Ruling::Unchanged { .. } => "the rules change nothing in what is stored".to_owned(),
        Ruling::Discards { rule } => {
            format!("left as it is: the rule \"{rule}\" discards it; `waxseal queue remove {id}` does so")
        }
        Ruling::Refuses { rule, text } => format!("left as it is: the rule \"{rule}\" refuses it: {text}"),
        Ruling::Busy => "left as it is: it is being sent".to_owned(),
        Ruling::Missing => "it is not in the queue; what was delivered is in `waxseal queue list --history`".to_owned(),
        Ruling::Unreadable { why } => format!("left as it is: {why}"),
    }
}

async fn finish(total: &[RuledMessage], all: bool, json: bool, client: &QueueClient) -> anyhow::Result<ExitCode> {
    let due: Vec<u64> = total.iter().filter_map(|message| message.ruling.due()).collect();
    let messages = u64::try_from(due.len())?;
    let recipients = due.iter().sum();
    if json {
        print_json(&json!({ "messages": messages, "recipients": recipients, "rulings": total }))?;
    } else {
        if messages > 0 {
            print_due(messages, recipients, client).await?;
        }
        if all && total.is_empty() {
            complain(format_args!("nothing in the queue matches"));
        }
    }
    let well = messages > 0 && due.len() == total.len();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(PROBLEM_FOUND) })
}
