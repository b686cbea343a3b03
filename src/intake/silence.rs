//! `[[expect]]`: mail that should come regularly, such as a weekly report. A silence that is longer than its `every` is
//! one warning, and one line when mail comes again.
//!
//! Intake only sets a mark per expectation; a task that looks every few seconds turns marks into times, so a message
//! costs no clock and no storage. Times are by [`QuotaLedger::lived`]: setting the wall clock neither raises a warning nor
//! hides a silence. They are stored in that ledger because it is durable with every backend, and because gateways that
//! share a queue share it: mail that one of them accepts ends the silence for all. Who is told by mail, and how, is `notice`'s.

mod notice;

pub use notice::{NoticeOptions, NoticeWriter};

use crate::message::SenderPatterns;
use crate::message::accepted::Accepted;
use crate::queue::{QueueError, QuotaLedger, QuotaRow};
use crate::text::{any_of, in_words, roughly};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Between two looks; for a short `every`, a twentieth of it.
const LONGEST_LOOK: Duration = Duration::from_secs(60);
const SHORTEST_LOOK: Duration = Duration::from_secs(1);
/// The time of the last mail is stored at most this often (for a short `every`, a tenth of it): a crash loses no more.
const BETWEEN_WRITES: Duration = Duration::from_secs(3600);
/// For so long after a start no silence begins, so that applications can submit what they could not during the stop.
const LONGEST_GRACE: Duration = Duration::from_secs(3600);
/// The only row of an expectation in the ledger.
const ROW: i64 = 1;

#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// Identifies it in the ledger, the log and the metrics.
    pub name: Arc<str>,
    /// The envelope's sender or the author matches.
    pub senders: SenderPatterns,
    pub every: Duration,
    /// Who gets a mail about a silence.
    pub notice: Option<NoticeOptions>,
}

/// What an operator sees of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedStatus {
    pub name: String,
    pub senders: Vec<String>,
    pub every_seconds: u64,
    /// Since the last mail; if none has come yet, since the first start with this expectation.
    pub quiet_seconds: u64,
    /// Mail has come since the first start with it.
    pub has_come: bool,
    pub is_silent: bool,
}

/// All of them. Clones share the state; the default expects nothing.
#[derive(Debug, Clone, Default)]
pub struct SilenceWatch {
    mails: Arc<[ExpectedMail]>,
    /// `None`: nobody is told by mail.
    writer: Option<NoticeWriter>,
}

#[derive(Debug)]
struct ExpectedMail {
    expectation: Expectation,
    memory: Arc<SilenceMemory>,
}

/// Outlives a reload.
#[derive(Debug, Default)]
struct SilenceMemory {
    /// Mail was accepted since the last look.
    mark: AtomicBool,
    /// `None`: not loaded yet.
    state: Mutex<Option<SilenceState>>,
    /// The log has said that the ledger fails.
    failure_logged: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct SilenceState {
    record: SilenceRecord,
    /// What the ledger has, and since when.
    stored: Option<(SilenceRecord, Duration)>,
    /// When it was loaded.
    began: Duration,
}

/// Times are by [`QuotaLedger::lived`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SilenceRecord {
    /// Of the last mail; without one, the beginning.
    last: Duration,
    has_come: bool,
    is_silent: bool,
    /// The mail about this silence is stored.
    is_notified: bool,
}

impl SilenceWatch {
    /// What `former` knows of an expectation of the same name is kept.
    pub fn new(expectations: &[Expectation], former: Option<&Self>) -> Self {
        let memory = |name: &str| {
            let mut known = former.iter().flat_map(|former| former.mails.iter());
            known.find(|mail| *mail.expectation.name == *name).map(|mail| mail.memory.clone()).unwrap_or_default()
        };
        let expected = expectations
            .iter()
            .map(|expectation| ExpectedMail { memory: memory(&expectation.name), expectation: expectation.clone() });
        Self { mails: expected.collect(), writer: None }
    }

    /// With mail about silences.
    pub fn notifying(self, writer: NoticeWriter) -> Self {
        Self { writer: Some(writer), ..self }
    }

    /// A message was accepted.
    pub(super) fn accepted(&self, message: &Accepted) {
        for ExpectedMail { expectation, memory } in self.mails.iter() {
            if !memory.mark.load(Ordering::Relaxed) && expectation.matches(message) {
                memory.mark.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Looks until `stop` is cancelled, at the newest value of `current`.
    pub async fn run(mut current: watch::Receiver<Self>, ledger: Arc<dyn QuotaLedger>, stop: CancellationToken) {
        loop {
            let expected = current.borrow_and_update().clone();
            expected.look(&*ledger, Look::Regular).await;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = current.changed() => if changed.is_err() { return },
                () = sleep(expected.pause()) => {}
            }
        }
    }

    /// Stores the exact times, once no more mail comes.
    pub async fn close(&self, ledger: &dyn QuotaLedger) {
        self.look(ledger, Look::Last).await;
    }

    /// In the order of the configuration; those that are not loaded yet are left out. `now`: by [`QuotaLedger::lived`].
    pub fn statuses(&self, now: Duration) -> Vec<ExpectedStatus> {
        self.mails.iter().filter_map(|mail| mail.status(now)).collect()
    }

    fn pause(&self) -> Duration {
        let shortest = self.mails.iter().map(|mail| mail.expectation.every).min();
        shortest.map_or(LONGEST_LOOK, |every| (every / 20).clamp(SHORTEST_LOOK, LONGEST_LOOK))
    }

    async fn look(&self, ledger: &dyn QuotaLedger, look: Look) {
        for mail in self.mails.iter() {
            let failed = mail.look(ledger, self.writer.as_ref(), look).await.err();
            let was_logged = mail.memory.failure_logged.swap(failed.is_some(), Ordering::Relaxed);
            if let Some(error) = failed.filter(|_| !was_logged) {
                let expect = &*mail.expectation.name;
                error!(
                    expect,
                    "when expected mail last came, or a mail about its absence, could not be read or stored; it is tried again: \
                     {error}"
                );
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Regular,
    /// Before the stop.
    Last,
}

impl Expectation {
    fn matches(&self, message: &Accepted) -> bool {
        message.envelope.sender.mailbox().is_some_and(|sender| self.senders.matches(sender))
            || message.author.as_ref().is_some_and(|author| self.senders.matches(author.mailbox()))
    }

    fn is_overdue(&self, record: &SilenceRecord, now: Duration) -> bool {
        now.saturating_sub(record.last) >= self.every
    }

    async fn load(&self, ledger: &dyn QuotaLedger) -> Result<Option<SilenceRecord>, QueueError> {
        let rows = ledger.spent(&self.key()).await?;
        Ok(rows.iter().find(|row| row.number == ROW).map(SilenceRecord::of_row))
    }

    fn key(&self) -> String {
        format!("expect:{}", self.name)
    }

    /// Returns whether somebody is notified now.
    async fn notify(
        &self,
        writer: Option<&NoticeWriter>,
        record: &SilenceRecord,
        now: Duration,
    ) -> Result<bool, QueueError> {
        let (Some(notice), Some(writer)) = (&self.notice, writer) else { return Ok(false) };
        let silence = notice::Silence { since: record.last, lasts: now.saturating_sub(record.last) };
        writer.send(self, notice, silence).await?;
        Ok(true)
    }

    /// `former`: before mail came or `every` passed.
    fn log_change(&self, former: &SilenceRecord, record: &SilenceRecord, now: Duration) {
        let (expect, senders) = (&*self.name, any_of(self.senders.iter()));
        match (former.is_silent, record.is_silent) {
            (false, true) => {
                let (quiet, every) = (roughly(now.saturating_sub(record.last)), in_words(self.every));
                warn!(
                    expect,
                    "no mail from {senders} for {quiet}; it is expected every {every}: look at the application that sends it"
                );
            }
            (true, false) if record.last > former.last => {
                let gap = roughly(record.last.saturating_sub(former.last));
                info!(expect, "mail from {senders} comes again, after {gap} without any");
            }
            (true, false) => info!(expect, "mail from {senders} is not overdue any more: `every` is longer now"),
            _ => {}
        }
    }
}

impl ExpectedMail {
    async fn look(
        &self,
        ledger: &dyn QuotaLedger,
        writer: Option<&NoticeWriter>,
        look: Look,
    ) -> Result<(), QueueError> {
        let Self { expectation, memory } = self;
        let known = *memory.state.lock();
        let mut state = match known {
            Some(state) => state,
            None => SilenceState::begin(expectation.load(ledger).await?, ledger.lived()),
        };
        let now = ledger.lived();
        let former = state.record;
        if memory.mark.swap(false, Ordering::Relaxed) {
            (state.record.last, state.record.has_come) = (now, true);
        } else if expectation.is_overdue(&state.record, now) {
            // It may have come through another gateway of the same queue.
            let stored = expectation.load(ledger).await?;
            if let Some(stored) = stored.filter(|stored| stored.last > state.record.last && stored.last <= now) {
                (state.record.last, state.record.has_come) = (stored.last, stored.has_come);
            }
        }
        let may_begin = now.saturating_sub(state.began) >= expectation.every.min(LONGEST_GRACE);
        state.record.is_silent = expectation.is_overdue(&state.record, now) && (former.is_silent || may_begin);
        state.record.is_notified &= state.record.is_silent;
        *memory.state.lock() = Some(state);
        expectation.log_change(&former, &state.record, now);
        if look == Look::Regular && state.record.is_silent && !state.record.is_notified {
            state.record.is_notified = expectation.notify(writer, &state.record, now).await?;
            *memory.state.lock() = Some(state);
        }
        if state.has_to_be_stored(now, expectation.every, look) {
            ledger.spend(&expectation.key(), vec![state.record.row()], ROW).await?;
            state.stored = Some((state.record, now));
            *memory.state.lock() = Some(state);
        }
        Ok(())
    }

    fn status(&self, now: Duration) -> Option<ExpectedStatus> {
        let Expectation { name, senders, every, .. } = &self.expectation;
        let SilenceState { record, .. } = (*self.memory.state.lock())?;
        // The next look will say so.
        let has_come = self.memory.mark.load(Ordering::Relaxed);
        Some(ExpectedStatus {
            name: name.to_string(),
            senders: senders.iter().map(str::to_owned).collect(),
            every_seconds: every.as_secs(),
            quiet_seconds: if has_come { 0 } else { now.saturating_sub(record.last).as_secs() },
            has_come: has_come || record.has_come,
            is_silent: record.is_silent && !has_come,
        })
    }
}

impl SilenceState {
    fn begin(stored: Option<SilenceRecord>, now: Duration) -> Self {
        let first = SilenceRecord { last: now, has_come: false, is_silent: false, is_notified: false };
        let record = stored.map_or(first, |stored| SilenceRecord { last: stored.last.min(now), ..stored });
        Self { record, stored: stored.map(|stored| (stored, stored.last)), began: now }
    }

    fn has_to_be_stored(&self, now: Duration, every: Duration, look: Look) -> bool {
        let Some((stored, at)) = self.stored else { return true };
        let SilenceRecord { last, has_come, is_silent, is_notified } = self.record;
        let is_due = look == Look::Last || now.saturating_sub(at) >= (every / 10).min(BETWEEN_WRITES);
        let flags = (stored.has_come, stored.is_silent, stored.is_notified);
        flags != (has_come, is_silent, is_notified) || (stored.last != last && is_due)
    }
}

impl SilenceRecord {
    /// `units`: 1, and 2 if mail has come, 4 if the silence was logged, and 8 if there was a mail about it.
    fn row(&self) -> QuotaRow {
        let flags = [self.has_come, self.is_silent, self.is_notified];
        let units = flags.into_iter().zip([2, 4, 8]).map(|(flag, unit)| u64::from(flag) * unit).sum::<u64>();
        QuotaRow { number: ROW, at: self.last, units: 1 + units }
    }

    fn of_row(row: &QuotaRow) -> Self {
        let has = |unit: u64| row.units & unit != 0;
        Self { last: row.at, has_come: has(2), is_silent: has(4), is_notified: has(8) }
    }
}

#[cfg(test)]
mod tests;
