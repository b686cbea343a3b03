//! The memory of Redis: new mail is refused while there is still room for what ends the mail that is there.

use crate::queue::QueueError;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of a hundred parts of `maxmemory`, those that new mail may use.
const FOR_MAIL: u64 = 90;

#[derive(Debug, Default)]
pub(super) struct Memory {
    used: AtomicU64,
    /// 0: not known, or no limit.
    max: AtomicU64,
}

impl Memory {
    pub(super) fn learn(&self, used: u64, max: u64) {
        self.used.store(used, Ordering::Relaxed);
        self.max.store(max, Ordering::Relaxed);
    }

    /// Whether a message of this size fits, as far as that is known.
    pub(super) fn admit(&self, octets: u64) -> Result<(), QueueError> {
        let (used, max) = (self.used.load(Ordering::Relaxed), self.max.load(Ordering::Relaxed));
        let most = max / 100 * FOR_MAIL;
        if max > 0 && used.saturating_add(octets) > most {
            return Err(QueueError::Full(format!(
                "Redis uses {used} octets; new mail may use {most}, which is {FOR_MAIL} % of its maxmemory"
            )));
        }
        Ok(())
    }

    /// Counted until the server is asked again.
    pub(super) fn add(&self, octets: u64) {
        self.used.fetch_add(octets, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_mail_leaves_a_tenth_of_the_memory_to_what_ends_mail() {
        let memory = Memory::default();
        memory.admit(u64::MAX).unwrap();
        memory.learn(800, 1000);
        memory.admit(100).unwrap();
        assert!(matches!(memory.admit(101), Err(QueueError::Full(_))));
        memory.add(1);
        assert!(matches!(memory.admit(100), Err(QueueError::Full(_))));
    }
}
