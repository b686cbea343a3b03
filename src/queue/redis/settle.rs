//! How a lease ends for all its recipients, in one step. While Redis is away the outcome goes into the journal, and is told
//! before anything else is leased.

use super::commit::{COMMIT, Committed, RecordChange};
use super::journal::JournalEntry;
use super::layout::MessagePlace;
use super::lease::{FencedLease, InstanceLease};
use super::node::CallError;
use super::record::MessageRecord;
use super::store::{Loaded, MAX_ATTEMPTS, NextRecord, RedisStore, of_damage, refused};
use crate::message::MailId;
use crate::queue::{LeaseId, QueueError, Settlement};
use jiff::Timestamp;
use tracing::{error, warn};

impl RedisStore {
    pub(super) async fn settle(
        &self,
        lease: LeaseId,
        settlements: Vec<Settlement>,
        due: Timestamp,
    ) -> Result<(), QueueError> {
        let mut active = self.leases.lock().get(&lease).cloned().ok_or(QueueError::NoSuchLease)?;
        if settlements.len() != active.held.positions.len() {
            return Err(QueueError::Storage("a lease needs one settlement per recipient".into()));
        }
        // The best effort: without it, some seconds of the clock are lost by a crash.
        let _kept = self.keep_lifetime(false).await;
        let due = self.times.to_server(due);
        let known = (active.held.fence, active.record.clone());
        let ended = self.end(&active.held, Some(known), &mut active.is_unsure, &settlements, due).await;
        let ended = match ended {
            Err(
                error @ (QueueError::Storage(_) | QueueError::Away(_) | QueueError::Moved(_) | QueueError::Full(_)),
            ) => self.note(&active, settlements, due).map_err(|full| {
                error!(id = %active.held.place.id, %full, "the outcome of a delivery can be kept nowhere");
                error
            }),
            other => other,
        };
        if ended.is_ok() || matches!(ended, Err(QueueError::NoSuchLease)) {
            self.leases.lock().remove(&lease);
        }
        ended
    }

    fn note(&self, active: &InstanceLease, settlements: Vec<Settlement>, due: i64) -> std::io::Result<()> {
        warn!(id = %active.held.place.id, "Redis cannot be told the outcome of a delivery; it is kept in the journal");
        self.journal.add(JournalEntry::Settled { lease: active.held.clone(), settlements, due })
    }

    /// `known`: the version and the record, if nothing has changed it since, usually. `is_unsure`: an earlier try may have
    /// done it. `due`: by the server's clock.
    async fn end(
        &self,
        held: &FencedLease,
        mut known: Option<(u64, MessageRecord)>,
        is_unsure: &mut bool,
        settlements: &[Settlement],
        due: i64,
    ) -> Result<(), QueueError> {
        for _ in 0..MAX_ATTEMPTS {
            if let Some((version, record)) = known.take() {
                match self.end_version(held, version, &record, settlements, due).await {
                    Ok(Committed::Done(_)) => return Ok(()),
                    Ok(Committed::Changed) => {}
                    Ok(other) => return Err(refused(&other)),
                    Err(CallError::Unanswered(_)) => *is_unsure = true,
                    Err(CallError::NotDone(error)) => return Err(error),
                }
            }
            // It is the last change, or nothing is left of the message.
            if *is_unsure && self.last_change(held.place).await?.is_none_or(|token| token == held.token) {
                return Ok(());
            }
            let Some(Loaded { version, record, .. }) = self.load_one(held.place).await? else {
                return Err(QueueError::NoSuchLease);
            };
            let record = record.map_err(of_damage)?;
            if !record.is_held_by(&held.lane, held.fence) {
                return Err(QueueError::NoSuchLease);
            }
            known = Some((version, record));
        }
        Err(QueueError::Storage("the message was changed by others again and again".into()))
    }

    async fn end_version(
        &self,
        held: &FencedLease,
        version: u64,
        record: &MessageRecord,
        settlements: &[Settlement],
        due: i64,
    ) -> Result<Committed, CallError> {
        let lived = self.lived();
        let mut after = record.clone();
        let delivered = after.settle(&held.lane, &held.positions, settlements, due, lived);
        let mut change = RecordChange::new(&self.layout, held.place.shard);
        change.if_version(held.place, version);
        change
            .write(held.place, Some(record), &after, (version + 1, &held.token, self.lease_length))
            .map_err(|damage| CallError::NotDone(of_damage(damage)))?
            .write_history(&after.history(&delivered, lived));
        self.link.commit(COMMIT, &change).await
    }

    /// Tells Redis what it could not be told before.
    pub(super) async fn replay(&self) -> Result<(), QueueError> {
        if self.journal.is_empty() && self.unsure.lock().is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.telling.lock().await;
        self.take_back_unsure().await?;
        let mut told = Vec::new();
        let mut failed = None;
        for entry in self.journal.entries() {
            match self.tell(&entry).await {
                Ok(()) => told.push(entry),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        self.journal.remove(&told).map_err(|error| QueueError::Storage(format!("the journal: {error}")))?;
        failed.map_or(Ok(()), Err)
    }

    async fn tell(&self, entry: &JournalEntry) -> Result<(), QueueError> {
        match entry {
            JournalEntry::Settled { lease, settlements, due } => {
                // It may have been done at the first try, whose answer was lost.
                let ended = self.end(lease, None, &mut true, settlements, *due).await;
                if matches!(ended, Err(QueueError::NoSuchLease)) {
                    warn!(id = %lease.place.id, lane = lease.lane, "a delivery ended after its lease was taken over; its outcome is lost");
                    return Ok(());
                }
                ended
            }
            JournalEntry::Revoked { shard, id, key } => {
                self.tell_revoked(MessagePlace { shard: *shard, id: *id }, key.as_deref()).await?;
                self.unanswered.lock().remove(id);
                Ok(())
            }
        }
    }

    async fn tell_revoked(&self, place: MessagePlace, key: Option<&str>) -> Result<(), QueueError> {
        let MessagePlace { shard, id } = place;
        let mut change = RecordChange::new(&self.layout, shard);
        change.step("add").key(self.layout.revoked(shard)).arg(self.lived()).arg(id);
        if let Some(key) = key {
            let (known, ends) = (self.layout.known_keys(shard), self.layout.known_until(shard));
            change.step("forget").key(known).key(ends).arg(key).arg(id);
        }
        match self.link.commit(COMMIT, &change).await? {
            Committed::Done(_) => {}
            other => return Err(refused(&other)),
        }
        let remove = |mut record: MessageRecord| {
            (!record.is_leased()).then(|| {
                record.recipients.clear();
                record.jobs.clear();
                NextRecord { record, answer: () }
            })
        };
        self.change(place, remove, |_, ()| {}).await?;
        if self.exists(place).await? {
            let id: MailId = id;
            warn!(%id, "another instance sends a message that its client was told is not stored");
        }
        Ok(())
    }

    async fn exists(&self, place: MessagePlace) -> Result<bool, QueueError> {
        Ok(self.load_one(place).await?.is_some())
    }
}
