//! Owns a lease from the queue until its delivery begins, and settles leases.
//!
//! Whatever happens meanwhile (a panic, a dropped task), a lease that was not begun is released unchanged. No one would
//! ask for it again, and its mail would wait for the next start.

use crate::observe::Backoff;
use crate::queue::{Leased, Queue, QueueError, Settlement};
use jiff::Timestamp;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tracing::{error, warn};

pub(super) struct Unbegun {
    queue: Arc<dyn Queue>,
    leased: Arc<Leased>,
    is_taken: bool,
}

impl Unbegun {
    pub fn new(queue: &Arc<dyn Queue>, leased: Leased) -> Self {
        Self { queue: queue.clone(), leased: Arc::new(leased), is_taken: false }
    }

    pub fn leased(&self) -> &Leased {
        &self.leased
    }

    /// From now on the caller must settle the lease: if the delivery is interrupted, the provider may have the message.
    pub fn begin(mut self) -> Arc<Leased> {
        self.is_taken = true;
        self.leased.clone()
    }

    pub async fn release(mut self) {
        self.is_taken = true;
        release(&*self.queue, &self.leased).await;
    }
}

impl Drop for Unbegun {
    fn drop(&mut self) {
        if self.is_taken {
            return;
        }
        warn!(id = %self.leased.accepted.id, "a leased message was not begun; its lease is released");
        let queue = self.queue.clone();
        let leased = self.leased.clone();
        let is_fault = std::thread::panicking();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if is_fault {
                    // A pause, in case the message itself causes the fault.
                    sleep(Backoff::FIRST).await;
                }
                release(&*queue, &leased).await;
                queue.wakeups().wake([&leased.lane]);
            });
        }
    }
}

async fn release(queue: &dyn Queue, leased: &Leased) {
    let settlements = vec![Settlement::Untried; leased.accepted.envelope.recipients.len()];
    settle(queue, leased, settlements, Timestamp::MIN).await;
}

/// Repeats until the settlement is durable.
pub(super) async fn settle(queue: &dyn Queue, leased: &Leased, settlements: Vec<Settlement>, due: Timestamp) {
    let mut backoff = Backoff::default();
    while let Err(error) = queue.settle(leased.lease, settlements.clone(), due).await {
        error!(id = %leased.accepted.id, "the outcome of a delivery attempt could not be recorded: {error}");
        if matches!(error, QueueError::Closed | QueueError::NoSuchLease) {
            return;
        }
        backoff.wait().await;
    }
}
