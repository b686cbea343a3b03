//! Moves messages to their lanes after the routes have changed.

use super::layout::MessagePlace;
use super::record::MessageRecord;
use super::store::RedisStore;
use crate::queue::{Cursor, LaneOf, QueueError, Reassigned};
use std::sync::atomic::Ordering;

impl RedisStore {
    pub(super) async fn begin_reassignment(&self, _: &str, _: LaneOf) -> Result<Reassigned, QueueError> {
        Err(QueueError::Storage("reassignment is not built yet".into()))
    }

    pub(super) async fn go_on_reassigning(&self, _: &str, _: LaneOf, _: Cursor) -> Result<Reassigned, QueueError> {
        Err(QueueError::Storage("reassignment is not built yet".into()))
    }

    /// Moves a message that is about to be leased to its lanes if it may not be there yet; true if a recipient was moved.
    /// `order`: its position in the order of acceptance.
    pub(super) async fn is_moved(&self, _: MessagePlace, _: i64, _: &MessageRecord) -> Result<bool, QueueError> {
        Ok(false)
    }

    /// Another instance has begun a reassignment.
    pub(super) async fn learn_epoch(&self, shard: u16) -> Result<(), QueueError> {
        let epoch = self.counter(shard, "epoch").await?;
        self.epoch.store(epoch.unsigned_abs(), Ordering::Relaxed);
        Ok(())
    }
}
