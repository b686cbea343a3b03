//! Work that runs to its end even if its caller is dropped; otherwise half-finished work would stay so until the next start.

use super::QueueError;

pub(super) fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, QueueError>> + Send + 'static,
) -> impl Future<Output = Result<T, QueueError>> {
    let task = tokio::spawn(work);
    async { task.await.unwrap_or_else(|_| Err(QueueError::fault())) }
}
