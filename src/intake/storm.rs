//! `[storm]`: many equal mails to one recipient are accepted and held, so that an application that goes round in circles
//! does not fill a mailbox or use up a quota.
//!
//! Equal are mails with one envelope sender, one decoded subject and one recipient; what is remembered of them is a
//! digest. A mail is held if more than the configured number were accepted within the time before it, held ones
//! included. Nothing outlives the process: after a start, counting begins at zero, and what is held stays held.

use crate::message::accepted::Accepted;
use crate::observe::log::Clean;
use crate::queue::InitialState;
use crate::smtp::Mailbox;
use crate::text::{counted, in_words};
use aws_lc_rs::digest::{Context, SHA256};
use hashlink::LinkedHashMap;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Kinds of equal mail that are counted; the one that came least recently makes room.
const MOST_KINDS: usize = 20_000;
/// Mails that are counted, of all kinds together.
const MOST_COUNTED: usize = 500_000;
/// Storms at once that have lines of their own in the log.
const MOST_LOGGED: usize = 100;
/// Between two looks for storms that are over.
const LONGEST_LOOK: Duration = Duration::from_secs(30);
const SHORTEST_LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StormOptions {
    pub more_than: usize,
    pub within: Duration,
}

/// What all listeners share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StormWatch {
    options: StormOptions,
    /// Outlives a reload.
    state: Arc<Mutex<WatchState>>,
}

#[derive(Debug, Default)]
struct WatchState {
    /// By when they came last.
    seen: LinkedHashMap<MailKind, VecDeque<Instant>>,
    /// Times in `seen`.
    counted: usize,
    storms: HashMap<MailKind, Storm>,
    /// The log has said that there are more storms than it names.
    more_told: bool,
}

/// A digest of sender, subject and recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct MailKind([u8; 16]);

/// One that has begun and is not over.
#[derive(Debug)]
struct Storm {
    from: String,
    to: String,
    held: u64,
    last: Instant,
}

/// One message's recipients, counted. Dropped without [`StormCheck::keep`], they do not count.
#[derive(Debug)]
pub(super) struct StormCheck {
    watch: StormWatch,
    counted: Vec<(MailKind, Instant)>,
    /// One per recipient: whether it is to be held.
    held: Vec<bool>,
}

impl StormWatch {
    /// What `former` has counted counts on.
    pub fn new(options: StormOptions, former: Option<&Self>) -> Self {
        Self { options, state: former.map(|former| former.state.clone()).unwrap_or_default() }
    }

    /// Counts a message for each of its recipients. `subject`: decoded.
    pub(super) fn check(&self, accepted: &Accepted, subject: &str) -> StormCheck {
        let now = Instant::now();
        let mut state = self.state.lock();
        let mut check = StormCheck { watch: self.clone(), counted: Vec::new(), held: Vec::new() };
        for recipient in &accepted.envelope.recipients {
            let kind = MailKind::of(&accepted.envelope.sender.to_string(), subject, recipient);
            check.held.push(state.count(kind, now, self.options) > self.options.more_than);
            check.counted.push((kind, now));
        }
        check
    }

    /// Looks for storms that are over until `stop` is cancelled, by the newest value of `current`. `None`: nothing is held.
    pub async fn run(mut current: watch::Receiver<Option<Self>>, stop: CancellationToken) {
        loop {
            let storms = current.borrow_and_update().clone();
            if let Some(storms) = &storms {
                storms.end(|storm| storm.last.elapsed() >= storms.options.within, "it is over");
            }
            let pause = storms.as_ref().map_or(LONGEST_LOOK, Self::pause);
            let changed = tokio::select! {
                () = stop.cancelled() => None,
                changed = current.changed() => changed.ok(),
                () = sleep(pause) => continue,
            };
            if let (Some(()), Some(_)) = (changed, &*current.borrow()) {
                continue;
            }
            if let Some(storms) = storms {
                storms.end(|_| true, if changed.is_some() { "[storm] is off now" } else { "the gateway stops" });
            }
            if changed.is_none() {
                return;
            }
        }
    }

    fn pause(&self) -> Duration {
        (self.options.within / 4).clamp(SHORTEST_LOOK, LONGEST_LOOK)
    }

    fn end(&self, is_over: impl Fn(&Storm) -> bool, why: &str) {
        let mut state = self.state.lock();
        let over: Vec<Storm> = state.storms.extract_if(|_, storm| is_over(storm)).map(|(_, storm)| storm).collect();
        if state.storms.len() < MOST_LOGGED {
            state.more_told = false;
        }
        drop(state);
        for Storm { from, to, held, .. } in over {
            let mails = counted(held, "mail");
            info!(%from, %to, held, "storm of equal mails: {why}; {mails} held, see `waxseal queue list --state held`");
        }
    }

    /// Why such a mail is held.
    fn reason(&self) -> String {
        let StormOptions { more_than, within } = self.options;
        format!(
            "more than {more_than} mails with this sender, subject and recipient within {} ([storm])",
            in_words(within)
        )
    }

    fn log_begin(&self, from: &str, to: &str, lane: &str) {
        let StormOptions { more_than, within } = self.options;
        let (within, which) = (in_words(within), for_a_shell(to));
        warn!(
            %from, %to, %lane,
            "a storm of equal mails: more than {more_than} with one subject within {within}; further ones are accepted and held. \
             `waxseal queue release --all --state held --recipient {which}` sends them, \
             `waxseal queue remove --all --state held --recipient {which}` removes them"
        );
    }
}

impl WatchState {
    /// How many of this kind came within the time, this one included.
    fn count(&mut self, kind: MailKind, now: Instant, StormOptions { more_than, within }: StormOptions) -> usize {
        let times = self.seen.entry(kind).or_insert_with(VecDeque::new);
        let before = times.len();
        while times.front().is_some_and(|first| now.saturating_duration_since(*first) >= within) {
            times.pop_front();
        }
        times.push_back(now);
        let count = times.len();
        // No more are needed to know that it is one too many, also if some are taken back.
        while times.len() > more_than.saturating_mul(2).saturating_add(100) {
            times.pop_front();
        }
        self.counted = self.counted + times.len() - before;
        self.seen.to_back(&kind);
        while self.seen.len() > MOST_KINDS || (self.counted > MOST_COUNTED && self.seen.len() > 1) {
            let Some((_, times)) = self.seen.pop_front() else { break };
            self.counted -= times.len();
        }
        count
    }

    fn take_back(&mut self, kind: MailKind, at: Instant) {
        let Some(times) = self.seen.get_mut(&kind) else { return };
        if let Some(index) = times.iter().rposition(|time| *time == at) {
            times.remove(index);
            self.counted -= 1;
        }
    }
}

impl StormCheck {
    pub(super) fn holds_any(&self) -> bool {
        self.held.contains(&true)
    }

    /// Whether the recipient at this place of the envelope is to be held.
    pub(super) fn holds(&self, index: usize) -> bool {
        self.held.get(index).copied().unwrap_or_default()
    }

    /// The initial states, which are in the envelope's order, with those held that must be.
    pub(super) fn hold(&self, initial_states: Vec<InitialState>) -> Vec<InitialState> {
        let hold = |(index, state)| match state {
            InitialState::Waiting(lane) if self.holds(index) => {
                InitialState::Held { lane, reason: self.watch.reason() }
            }
            state => state,
        };
        initial_states.into_iter().enumerate().map(hold).collect()
    }

    /// The message was accepted. `initial_states`: as they were stored, in the envelope's order.
    pub(super) fn keep(mut self, accepted: &Accepted, initial_states: &[InitialState]) {
        let counted = std::mem::take(&mut self.counted);
        let recipients = accepted.envelope.recipients.iter().zip(initial_states);
        let mut begun = Vec::new();
        let mut state = self.watch.state.lock();
        for ((kind, at), (to, initial_state)) in counted.into_iter().zip(recipients) {
            let InitialState::Held { lane, .. } = initial_state else { continue };
            if let Some(storm) = state.storms.get_mut(&kind) {
                (storm.held, storm.last) = (storm.held + 1, at);
            } else if state.storms.len() < MOST_LOGGED {
                let from = Clean(&accepted.envelope.sender).to_string();
                let to = Clean(to).to_string();
                begun.push((from.clone(), to.clone(), lane.clone()));
                state.storms.insert(kind, Storm { from, to, held: 1, last: at });
            } else if !std::mem::replace(&mut state.more_told, true) {
                warn!("more than {MOST_LOGGED} storms of equal mails at once: the others are held without a line each");
            }
        }
        drop(state);
        for (from, to, lane) in begun {
            self.watch.log_begin(&from, &to, lane.as_str());
        }
    }
}

impl Drop for StormCheck {
    fn drop(&mut self) {
        if self.counted.is_empty() {
            return;
        }
        let mut state = self.watch.state.lock();
        for (kind, at) in &self.counted {
            state.take_back(*kind, *at);
        }
    }
}

impl MailKind {
    fn of(sender: &str, subject: &str, recipient: &Mailbox) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [sender, subject, &recipient.identity()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut kind = [0; 16];
        kind.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(kind)
    }
}

/// An address as a word of a command; one that no shell takes as it is becomes a hint.
fn for_a_shell(address: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@.-_+=".contains(c);
    if address.chars().all(is_plain) { address } else { "ADDRESS" }
}

#[cfg(test)]
mod tests;
