//! What an operator asks of the queue and does to it.

use super::RedisQueue;
use crate::message::MailId;
use crate::queue::{
    Correction, Cursor, Filter, HeldLane, HistoryRow, Lane, MessageDetails, Operator, Page, QueueError, QueueFigures,
    Revision, Statistics, StoredMail,
};
use async_trait::async_trait;
use jiff::Timestamp;
use std::time::Duration;

fn missing<T>() -> Result<T, QueueError> {
    Err(QueueError::Storage("this is not built yet".into()))
}

#[async_trait]
impl Operator for RedisQueue {
    async fn hold(&self, _: Option<&Lane>, _: bool) -> Result<(), QueueError> {
        missing()
    }

    async fn holds(&self) -> Result<Vec<HeldLane>, QueueError> {
        missing()
    }

    async fn list(&self, _: &Filter, _: Option<Cursor>, _: usize) -> Result<Page, QueueError> {
        missing()
    }

    async fn show(&self, _: MailId) -> Result<Option<MessageDetails>, QueueError> {
        missing()
    }

    async fn content(&self, _: MailId) -> Result<Option<bytes::Bytes>, QueueError> {
        missing()
    }

    async fn retry(&self, _: &[MailId], _: Option<&Correction>, _: Timestamp) -> Result<u64, QueueError> {
        missing()
    }

    async fn release(&self, _: &[MailId]) -> Result<u64, QueueError> {
        missing()
    }

    async fn stored(&self, _: MailId) -> Result<Option<StoredMail>, QueueError> {
        missing()
    }

    async fn replace(&self, _: Revision, _: Timestamp) -> Result<bool, QueueError> {
        missing()
    }

    async fn remove(&self, _: &[MailId]) -> Result<u64, QueueError> {
        missing()
    }

    async fn history(&self, _: Option<Cursor>, _: usize) -> Result<Vec<HistoryRow>, QueueError> {
        missing()
    }

    async fn prune(&self, _: Duration, _: Duration) -> Result<u64, QueueError> {
        missing()
    }

    async fn figures(&self) -> Result<QueueFigures, QueueError> {
        missing()
    }

    async fn statistics(&self) -> Result<Statistics, QueueError> {
        missing()
    }

    async fn count_waiting(&self, _: &Lane, _: Option<Timestamp>, _: u64) -> Result<u64, QueueError> {
        missing()
    }
}
