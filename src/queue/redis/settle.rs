//! How a lease ends for all its recipients, in one step.

use super::commit::{COMMIT, Committed, RecordChange};
use super::link::CallError;
use super::record::MessageRecord;
use super::store::{InstanceLease, Loaded, MAX_ATTEMPTS, RedisStore, of_damage, refused};
use crate::queue::{LeaseId, QueueError, Settlement};
use jiff::Timestamp;

impl RedisStore {
    pub(super) async fn settle(
        &self,
        lease: LeaseId,
        settlements: Vec<Settlement>,
        due: Timestamp,
    ) -> Result<(), QueueError> {
        self.keep_lifetime(false).await?;
        let mut held = self.leases.lock().remove(&lease).ok_or(QueueError::NoSuchLease)?;
        let ended = self.end(&mut held, &settlements, self.times.to_server(due)).await;
        if let Err(error) = &ended
            && !matches!(error, QueueError::NoSuchLease)
        {
            // The caller will settle it again.
            self.leases.lock().insert(lease, held);
        }
        ended
    }

    /// `due`: by the server's clock.
    pub(super) async fn end(
        &self,
        held: &mut InstanceLease,
        settlements: &[Settlement],
        due: i64,
    ) -> Result<(), QueueError> {
        if settlements.len() != held.positions.len() {
            return Err(QueueError::Storage("a lease needs one settlement per recipient".into()));
        }
        // Nothing has changed the record since it was leased, usually.
        let mut found = Some((held.fence, held.record.clone()));
        for _ in 0..MAX_ATTEMPTS {
            if let Some((version, record)) = found.take() {
                match self.settle_version(held, version, &record, settlements, due).await {
                    Ok(Committed::Done(_)) => return Ok(()),
                    Ok(Committed::Changed) => {}
                    Ok(other) => return Err(refused(&other)),
                    Err(CallError::Unanswered(_)) => held.is_unsure = true,
                    Err(CallError::NotDone(error)) => return Err(error),
                }
            }
            if held.is_unsure && self.was_settled(held).await? {
                return Ok(());
            }
            let Some(Loaded { version, record, .. }) = self.load_one(held.place).await? else {
                return Err(QueueError::NoSuchLease);
            };
            let record = record.map_err(of_damage)?;
            if !record.is_held_by(&held.lane, held.fence) {
                return Err(QueueError::NoSuchLease);
            }
            found = Some((version, record));
        }
        Err(QueueError::Storage("the message was changed by others again and again".into()))
    }

    async fn settle_version(
        &self,
        held: &InstanceLease,
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

    /// Whether the change whose answer was lost was made: it is the last one, or nothing is left of the message.
    async fn was_settled(&self, held: &InstanceLease) -> Result<bool, QueueError> {
        Ok(match self.last_change(held.place).await? {
            None => true,
            Some(token) => token == held.token,
        })
    }
}
