//! Shared by commands that change messages: goes through all selected messages, page by page.

use super::client::QueueClient;
use super::selection::MessageSelection;
use super::{print, text};
use crate::control::{Change, ControlRequest, ControlResponse, Which};
use crate::message::MailId;
use crate::text::counted;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// Requests the change of at most `limit` messages at a time, and passes each answer to `each`. A message that was
/// named twice is changed once.
pub async fn walk(
    what: &Change,
    messages: &MessageSelection,
    limit: usize,
    client: &QueueClient,
    mut each: impl FnMut(ControlResponse) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let ask = async |which| client.ask(ControlRequest::Change { what: what.clone(), which }).await;
    if !messages.all {
        let unique: Vec<MailId> = messages.ids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        for ids in unique.chunks(limit) {
            each(ask(Which::Named(ids.to_vec())).await?)?;
        }
        return Ok(());
    }
    let filter = messages.selection.filter(Timestamp::now());
    let mut after = None;
    loop {
        let response = ask(Which::Matching { filter: filter.clone(), after, limit }).await?;
        after = response.next();
        each(response)?;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Also prints lanes that are held.
pub async fn print_due(messages: u64, recipients: u64, client: &QueueClient) -> anyhow::Result<()> {
    let messages = counted(messages, "message");
    let recipients = counted(recipients, "recipient");
    let held = text::holds(&client.overview().await?.held);
    let held: String = held.iter().map(|line| format!("{line}\n")).collect();
    print(format!("Due now: {messages} for {recipients}.\n{held}"))
}
