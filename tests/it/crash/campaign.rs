//! One row of the matrix: a gateway on one data folder, a provider that counts, and the audit.

use super::load::Acknowledged;
use crate::support::application::queued_in_front_of;
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::{Message, ScriptedUpstream};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Connections to the provider, which is also the maximum number of messages that one fault can duplicate.
pub const CAP: usize = 4;

/// The result of a campaign.
#[derive(Debug, Clone)]
pub struct Row {
    pub fault: String,
    pub faults: usize,
    pub acknowledged: usize,
    pub delivered: usize,
    pub lost: usize,
    pub duplicates: usize,
    pub duplicates_bound: usize,
    /// Mails that arrived twice without a warning in the log.
    pub unlogged_duplicates: usize,
    pub cut_or_mixed: usize,
    /// Mails that were refused at the final dot and arrived anyway.
    pub came_back: usize,
    /// Connections to the provider at one time.
    pub most_connections: usize,
}

impl Row {
    /// As a line of the table in docs/reliability.md.
    pub fn print(&self) {
        println!(
            "| {} | {} | {} | {} | {} | {} | ≤ {} |",
            self.fault,
            self.faults,
            self.acknowledged,
            self.delivered,
            self.lost,
            self.duplicates,
            self.duplicates_bound
        );
    }
}

pub struct Campaign {
    pub provider: ScriptedUpstream,
    pub acknowledged: Arc<Acknowledged>,
    log: Vec<String>,
    faults: usize,
    /// The provider keeps a message even if its answer was lost.
    keeps_unanswered: bool,
    /// The provider's messages that came from a machine whose power was already cut.
    from_beyond: Vec<Range<usize>>,
}

impl Campaign {
    pub async fn new() -> Self {
        Self::with(ScriptedUpstream::start().await)
    }

    pub fn with(provider: ScriptedUpstream) -> Self {
        Self {
            provider,
            acknowledged: Arc::default(),
            log: Vec::new(),
            faults: 0,
            keeps_unanswered: false,
            from_beyond: Vec::new(),
        }
    }

    /// Mails with this many lines.
    pub fn of_lines(mut self, lines: usize) -> Self {
        self.acknowledged = Arc::new(Acknowledged::of_lines(lines));
        self
    }

    pub fn keeping_unanswered(mut self) -> Self {
        self.keeps_unanswered = true;
        self
    }

    /// In a separate folder.
    pub fn setup(&self) -> Setup {
        self.setup_with("")
    }

    /// `lines`: of the upstream's table.
    pub fn setup_with(&self, lines: &str) -> Setup {
        self.setup_in(&format!("max_connections = {CAP}\n{lines}"), "min_free_space = \"16 MiB\"")
    }

    /// `queue`: lines of [queue].
    pub fn setup_in(&self, lines: &str, queue: &str) -> Setup {
        queued_in_front_of(&self.provider, lines, queue)
    }

    /// In a folder on a file system that can be damaged.
    pub fn setup_within(&self, folder: &Path) -> Setup {
        self.setup().moved_to(folder)
    }

    /// The configuration is not part of the guarantee: a cut may have lost files that were never synced.
    pub fn restored(&self, left: Setup, folder: &Path) -> Setup {
        let fresh = self.setup();
        for entry in std::fs::read_dir(fresh.folder()).expect("the folder") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), folder.join(entry.file_name())).expect("the file is copied");
        }
        left
    }

    /// Messages beyond the first `before` ones were sent after the cut, but a machine without power sends nothing.
    pub fn ignore_since(&mut self, before: usize) {
        self.from_beyond.push(before..self.provider.counts().messages);
    }

    /// A fault happened; this is the log of that process.
    pub fn fault(&mut self, log: Vec<String>) {
        self.faults += 1;
        self.logged(log);
    }

    /// The log of a process that has ended.
    pub fn logged(&mut self, log: Vec<String>) {
        self.log.extend(log);
    }

    /// Waits until nothing more arrives for a moment.
    pub async fn until_quiet(&self) {
        let mut before = usize::MAX;
        let mut still = 0;
        for _ in 0..200 {
            let now = self.provider.counts().messages;
            still = if now == before { still + 1 } else { 0 };
            before = now;
            if still == 3 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every acknowledged mail has arrived, as far as it ever does; then stops the gateway in an orderly
    /// way.
    pub async fn drain(&mut self, gateway: Gateway) -> Setup {
        self.until_delivered().await;
        let (_status, log, setup) = tokio::task::spawn_blocking(move || gateway.stop()).await.unwrap();
        self.log.extend(log);
        setup
    }

    /// Waits until every acknowledged mail has arrived, or nothing has changed for half a minute; the audit then says what
    /// is missing.
    pub async fn until_delivered(&self) {
        let wanted: BTreeSet<u64> = self.acknowledged.numbers().into_iter().collect();
        let mut before = usize::MAX;
        let mut idle = 0;
        while idle < 300 {
            let arrived: BTreeSet<u64> = self.provider.messages().iter().filter_map(number_of).collect();
            let missing = wanted.difference(&arrived).count();
            if missing == 0 {
                break;
            }
            idle = if missing == before { idle + 1 } else { 0 };
            before = missing;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// `bound`: the maximum number of duplicates.
    pub fn audit(&self, fault: &str, bound: usize) -> Row {
        let mut messages = self.provider.messages();
        if self.keeps_unanswered {
            messages.extend(self.provider.not_accepted());
        }
        let mut arrivals: BTreeMap<u64, Vec<&Message>> = BTreeMap::new();
        let mut cut_or_mixed = 0;
        let mut excused = BTreeSet::new();
        for (at, message) in messages.iter().enumerate() {
            match number_of(message) {
                Some(number) if self.is_whole(message, number) => {
                    arrivals.entry(number).or_default().push(message);
                    if self.from_beyond.iter().any(|range| range.contains(&at)) {
                        excused.insert(number);
                    }
                }
                _ => cut_or_mixed += 1,
            }
        }
        let acknowledged = self.acknowledged.numbers();
        let lost: Vec<u64> = acknowledged.iter().copied().filter(|number| !arrivals.contains_key(number)).collect();
        self.explain_losses(&lost[..lost.len().min(3)]);
        let twice: Vec<_> = arrivals.iter().filter(|(_, copies)| copies.len() > 1).collect();
        let is_unlogged = |number: &u64, copies: &[&Message]| !excused.contains(number) && !self.is_logged(copies[0]);
        Row {
            fault: fault.to_owned(),
            faults: self.faults,
            acknowledged: acknowledged.len(),
            delivered: acknowledged.iter().filter(|number| arrivals.contains_key(number)).count(),
            lost: lost.len(),
            duplicates: twice.iter().map(|(_, copies)| copies.len() - 1).sum(),
            duplicates_bound: bound,
            unlogged_duplicates: twice.iter().filter(|(number, copies)| is_unlogged(number, copies)).count(),
            cut_or_mixed,
            most_connections: self.provider.counts().max,
            came_back: self.acknowledged.refused().iter().filter(|number| arrivals.contains_key(number)).count(),
        }
    }

    /// Every log line about the missing mails, for debugging.
    fn explain_losses(&self, numbers: &[u64]) {
        for number in numbers {
            let id = self.acknowledged.id(*number);
            eprintln!("number {number}, acknowledged as {id}, never arrived:");
            self.log.iter().filter(|line| line.contains(&id)).for_each(|line| eprintln!("  {line}"));
        }
    }

    fn is_whole(&self, message: &Message, number: u64) -> bool {
        let sent = self.acknowledged.mail(number);
        let body = sent.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        message.data.ends_with(format!("\r\n\r\n{body}").as_bytes())
    }

    /// "possible duplicate", with the id from the message's Received field.
    fn is_logged(&self, message: &Message) -> bool {
        let text = String::from_utf8_lossy(&message.data).into_owned();
        let id = text.split_once(" id ").and_then(|(_, rest)| rest.split(';').next()).unwrap_or("no id");
        self.log.iter().any(|line| line.contains("possible duplicate") && line.contains(id))
    }
}

fn number_of(message: &Message) -> Option<u64> {
    let text = String::from_utf8_lossy(&message.data);
    text.lines().find_map(|line| line.strip_prefix("Subject: number "))?.parse().ok()
}
