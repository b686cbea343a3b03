//! `waxseal queue check`: reports damage on the disk and message by message. Reads the files itself, even beside a
//! running gateway, because the damage may affect what the gateway would answer.

use super::progress::ProgressDisplay;
use super::{print, print_json};
use crate::cli::PROBLEM_FOUND;
use crate::gateway::lock::refuse_other_users;
use crate::observe::log::Clean;
use crate::queue::sqlite::{self, Checked, Finding};
use crate::text::counted;
use anyhow::{Context as _, bail};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct QueueCheckArgs {
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &QueueCheckArgs, data_dir: &Path) -> anyhow::Result<ExitCode> {
    refuse_without_a_queue(data_dir)?;
    refuse_other_users(data_dir)?;
    let mut progress = Watched::start("searching the queue");
    let checked = sqlite::check(data_dir, |done, all| progress.reach(done, all));
    let checked = checked.with_context(|| {
        format!("the queue in {} cannot be read; run this as the user that the gateway runs as", data_dir.display())
    })?;
    drop(progress);
    let is_well = checked.is_well();
    if args.json {
        let mut value = json!(checked);
        value["well"] = json!(is_well);
        print_json(&value)?;
    } else {
        print(description(&checked))?;
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(PROBLEM_FOUND) })
}

/// Like every command of the queue, this looks for a queue and does not create one.
pub fn refuse_without_a_queue(data_dir: &Path) -> anyhow::Result<()> {
    let exists =
        sqlite::exists(data_dir).with_context(|| format!("the folder {} cannot be read", data_dir.display()))?;
    if !exists {
        bail!("there is no queue in {}; name the configuration's file with --config", data_dir.display());
    }
    Ok(())
}

/// A progress bar that starts once the total is known.
pub struct Watched {
    what: &'static str,
    bar: Option<(ProgressDisplay, u64)>,
}

impl Watched {
    pub fn start(what: &'static str) -> Self {
        Self { what, bar: None }
    }

    pub fn reach(&mut self, done: u64, all: u64) {
        let (bar, before) = self.bar.get_or_insert_with(|| (ProgressDisplay::start(self.what, Some(all)), 0));
        bar.advance(done.saturating_sub(*before));
        *before = done;
    }
}

fn description(checked: &Checked) -> String {
    let mut text = String::new();
    let mut line = |line: String| text.extend([line.as_str(), "\n"]);
    if let Some(error) = &checked.unreadable {
        line(format!("The database cannot be read: {error}"));
    }
    if checked.lost_transactions > 0 {
        let lost = counted(checked.lost_transactions, "transaction");
        line(format!("The write-ahead log is damaged; {lost} behind the damage would be passed over."));
    }
    for finding in &checked.integrity {
        line(format!("Database: {}", Clean(finding)));
    }
    findings(&checked.damaged, &mut line);
    if checked.unreadable.is_none() && checked.counted != checked.ledger {
        let counted = checked.counted;
        let ledger = checked.ledger;
        line(format!(
            "Recipients: {} waiting, {} being sent, {} failed, {} damaged; the database's own count says {}, {}, {}, {}.",
            counted.waiting,
            counted.leased,
            counted.failed,
            counted.damaged,
            ledger.waiting,
            ledger.leased,
            ledger.failed,
            ledger.damaged
        ));
    }
    if checked.counted.damaged > 0 {
        line(format!(
            "{} set aside as damaged; see `waxseal queue list --state damaged`.",
            counted(checked.counted.damaged, "recipient")
        ));
    }
    let looked_at = counted(checked.messages, "message");
    if checked.is_well() {
        line(format!("{looked_at} looked at; nothing is damaged."));
    } else if is_of_the_database(checked) {
        line(format!("{looked_at} looked at. Stop the gateway and run `waxseal queue salvage`."));
    } else {
        line(format!(
            "{looked_at} looked at. What is damaged is never sent; remove it with `waxseal queue remove ID`."
        ));
    }
    text
}

/// Damage of the database as a whole, not only of single messages.
fn is_of_the_database(checked: &Checked) -> bool {
    checked.unreadable.is_some()
        || checked.lost_transactions > 0
        || !checked.integrity.is_empty()
        || checked.counted != checked.ledger
}

pub fn findings(findings: &[Finding], line: &mut impl FnMut(String)) {
    for Finding { id, row, recipients, reasons } in findings {
        let name = if id.is_empty() { format!("row {row}, whose name is lost") } else { id.clone() };
        let to = if recipients.is_empty() { String::new() } else { format!(", to {}", recipients.join(", ")) };
        line(format!("{}: {}", Clean(format!("{name}{to}")), Clean(reasons.join("; "))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Statistics;

    #[test]
    fn a_report_names_what_is_damaged_and_what_to_do() {
        let well = Checked { messages: 3, ..Checked::default() };
        assert_eq!(description(&well), "3 messages looked at; nothing is damaged.\n");
        let finding = Finding {
            id: "01kbtsb6g0000009".into(),
            row: 7,
            recipients: vec!["b@example.net".into()],
            reasons: vec!["its content is lost".into()],
        };
        let damaged = Checked { messages: 1, damaged: vec![finding.clone()], ..Checked::default() };
        let text = description(&damaged);
        assert!(text.contains("01kbtsb6g0000009, to b@example.net: its content is lost"), "{text}");
        assert!(text.contains("queue remove") && !text.contains("salvage"), "{text}");
        let nameless = Finding { id: String::new(), ..finding };
        let counted = Statistics { waiting: 1, ..Statistics::default() };
        let worse = Checked { damaged: vec![nameless], integrity: vec!["Tree 3 page 4".into()], counted, ..damaged };
        let text = description(&worse);
        for part in ["row 7, whose name is lost", "Database: Tree 3 page 4", "1 waiting", "queue salvage"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
