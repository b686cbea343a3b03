//! Memory for the copies that conversions make just before sending. It has its own budget, so that conversions and
//! incoming mail cannot block each other.
//!
//! If there is not enough memory for a message, it waits for a while without holding any and is then deferred.

use crate::message::MemoryBudget;
use crate::message::budget::MemoryShare;
use crate::relay::Deadline;
use std::time::Duration;
use tokio::time::sleep;

/// A server waits five minutes for a command (RFC 5321 §4.5.3.2.7), and the lane's other messages wait for this
/// connection.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoConversionMemory {
    /// The message needs more than the whole budget.
    Ever,
    Yet,
}

/// Small copies may overtake large ones that wait.
pub(super) async fn reserve_conversion(
    octets: usize,
    memory: &MemoryBudget,
    deadline: Deadline,
) -> Result<MemoryShare, NoConversionMemory> {
    if octets as u64 > memory.total() {
        return Err(NoConversionMemory::Ever);
    }
    let deadline = deadline.capped(MAX_WAIT);
    let mut share = memory.share();
    while share.grow(octets).is_err() {
        if deadline.has_passed() {
            return Err(NoConversionMemory::Yet);
        }
        sleep(deadline.remaining().map_or(CHECK_INTERVAL, |remaining| remaining.min(CHECK_INTERVAL))).await;
    }
    Ok(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_message_that_finds_no_room_waits_for_a_bounded_time() {
        let memory = MemoryBudget::new(10 * 4096);
        let held = reserve_conversion(6 * 4096, &memory, Deadline::NONE).await.expect("all is free");
        let start = Instant::now();
        let refused =
            async |units: usize, deadline| reserve_conversion(units * 4096, &memory, deadline).await.map(drop);
        assert_eq!(refused(11, Deadline::NONE).await, Err(NoConversionMemory::Ever));
        assert_eq!(start.elapsed(), Duration::ZERO);
        let second = Duration::from_secs(1);
        assert_eq!(refused(5, Deadline::after(second)).await, Err(NoConversionMemory::Yet));
        assert!(start.elapsed() >= second && start.elapsed() < 2 * second);
        assert_eq!(refused(5, Deadline::NONE).await, Err(NoConversionMemory::Yet));
        assert!(start.elapsed() >= MAX_WAIT);
        assert_eq!(refused(4, Deadline::NONE).await, Ok(()), "it goes past");
        let (waited, ()) = tokio::join!(refused(10, Deadline::NONE), async {
            sleep(second).await;
            drop(held);
        });
        assert_eq!(waited, Ok(()));
    }
}
