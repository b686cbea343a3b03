//! `waxseal queue retry --rules`: today's rules on mail that waits or failed, told message by message.

use super::change::Which;
use super::progress::Progress;
use super::reach::{Reach, unexpected};
use super::{print, print_json};
use crate::cli::NOT_WELL;
use crate::cli::complain;
use crate::message::MailId;
use crate::observe::log::Clean;
use crate::queue::control::{MAX_RULED, Request, Response, Ruled, RuledPage, Ruling};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use std::process::ExitCode;

pub async fn retry(which: &Which, json: bool, reach: &Reach) -> anyhow::Result<ExitCode> {
    let mut total = Vec::new();
    if which.all {
        let progress = Progress::start("asking the rules about", None);
        let mut after = None;
        loop {
            let filter = which.selection.filter(Timestamp::now());
            let page = ask(reach, Request::RetryMatchingByRules { filter, after, limit: MAX_RULED }).await?;
            progress.advance(u64::try_from(page.messages.len())?);
            if !json {
                progress.aside(|| told(&page.messages))?;
            }
            after = page.next;
            total.extend(page.messages);
            if after.is_none() {
                break;
            }
        }
    } else {
        let unique: Vec<MailId> = which.ids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        for ids in unique.chunks(MAX_RULED) {
            let page = ask(reach, Request::RetryByRules { ids: ids.to_vec() }).await?;
            if !json {
                told(&page.messages)?;
            }
            total.extend(page.messages);
        }
    }
    finish(&total, which.all, json, reach).await
}

async fn ask(reach: &Reach, request: Request) -> anyhow::Result<RuledPage> {
    match reach.ask(request).await? {
        Response::Ruled(page) => Ok(page),
        other => Err(unexpected(&other)),
    }
}

/// What is due on standard output, what is not on standard error.
fn told(messages: &[Ruled]) -> anyhow::Result<()> {
    for Ruled { id, ruling } in messages {
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

async fn finish(total: &[Ruled], all: bool, json: bool, reach: &Reach) -> anyhow::Result<ExitCode> {
    let due: Vec<u64> = total.iter().filter_map(|message| message.ruling.due()).collect();
    let (messages, recipients) = (u64::try_from(due.len())?, due.iter().sum());
    if json {
        print_json(&json!({ "messages": messages, "recipients": recipients, "rulings": total }))?;
    } else {
        if messages > 0 {
            super::change::print_due(messages, recipients, reach).await?;
        }
        if all && total.is_empty() {
            complain(format_args!("nothing in the queue matches"));
        }
    }
    let well = messages > 0 && due.len() == total.len();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) })
}
