//! Work that runs to its end even if its caller is dropped; otherwise half-finished work would stay so until the next start.

use super::{Leased, QueueError};

pub(super) fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, QueueError>> + Send + 'static,
) -> impl Future<Output = Result<T, QueueError>> {
    let task = tokio::spawn(work);
    async { task.await.unwrap_or_else(|_| Err(QueueError::fault())) }
}

/// Goes with a message that is marked as leased and has not reached its caller. Dropped before `end`, it releases the lease;
/// otherwise the message would stay leased until the next start.
pub(super) trait LeaseGuard: Send + 'static {
    /// The caller has the lease, or it was released.
    fn end(self);
}

/// Even if the caller is dropped, each message that was claimed is either returned or released.
pub(super) async fn deliver_or_release<G: LeaseGuard, T: Send + 'static>(
    claiming: impl Future<Output = Result<(Vec<(Leased, G)>, T), QueueError>> + Send + 'static,
) -> Result<(Vec<Leased>, T), QueueError> {
    let (claimed, more) = detached(claiming).await?;
    let returned = claimed.into_iter().map(|(leased, guard)| {
        guard.end();
        leased
    });
    Ok((returned.collect(), more))
}
