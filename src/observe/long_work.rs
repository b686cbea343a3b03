//! Runs long work where it delays no other task.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{JoinError, block_in_place, spawn_blocking};

/// Runs on this thread, which first passes its other tasks to another one. For work that borrows.
pub fn in_place<T>(is_long: bool, work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) if is_long => block_in_place(work),
        _ => work(),
    }
}

/// Runs on a thread of the blocking pool, or directly if it is short. An error means that it panicked or that the
/// runtime is ending.
pub async fn off_runtime<T: Send + 'static>(
    is_long: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if is_long { spawn_blocking(work).await } else { Ok(work()) }
}
