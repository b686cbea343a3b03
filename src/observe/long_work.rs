//! Work that takes long is done where no other task waits for its turn.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{JoinError, block_in_place, spawn_blocking};

/// On this thread, which hands its other tasks to another one first. For work that borrows.
pub fn in_place<T>(is_long: bool, work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) if is_long => block_in_place(work),
        _ => work(),
    }
}

/// On a thread of the blocking pool; here and now if it is short. An error: it panicked, or the runtime ends.
pub async fn off_runtime<T: Send + 'static>(
    is_long: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if is_long { spawn_blocking(work).await } else { Ok(work()) }
}
