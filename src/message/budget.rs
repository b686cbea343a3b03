//! The memory budget for messages in flight (`max_memory`): code that holds message bytes holds a `MemoryShare` of it.
//! Never waits: if memory does not suffice, the request is refused and the sender retries.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Octets per permit, which is also the step by which a share grows.
const UNIT: usize = 4096;

/// Shared by everything that holds message bytes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    units: Arc<Semaphore>,
    total: u64,
}

impl MemoryBudget {
    /// `octets` is rounded up to 4 KiB.
    pub fn new(octets: u64) -> Self {
        let units = usize::try_from(octets.div_ceil(UNIT as u64)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), total: octets }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// True if `octets` would fit now. A later `grow` may still fail.
    pub fn has_room_for(&self, octets: u64) -> bool {
        self.available() >= octets
    }

    /// Unreserved octets.
    pub fn available(&self) -> u64 {
        (self.units.available_permits() as u64).saturating_mul(UNIT as u64)
    }

    pub fn share(&self) -> MemoryShare {
        MemoryShare { budget: self.clone(), held: Vec::new(), octets: 0, beside: 0 }
    }
}

/// The memory of one message, returned on drop.
#[derive(Debug)]
pub struct MemoryShare {
    budget: MemoryBudget,
    held: Vec<OwnedSemaphorePermit>,
    octets: usize,
    /// Octets of the same message that another share covers.
    beside: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the memory budget for messages is used up")]
pub struct BudgetExceeded;

impl MemoryShare {
    /// A share for another part of the same message.
    pub fn sibling(&self) -> Self {
        Self { beside: self.octets, ..self.budget.share() }
    }

    /// True if `octets` would fit if no other message were there.
    pub fn could_hold(&self, octets: usize) -> bool {
        octets.saturating_add(self.beside) as u64 <= self.budget.total
    }

    /// Ensures that the share covers `octets` in total.
    pub fn grow(&mut self, octets: usize) -> Result<(), BudgetExceeded> {
        if octets <= self.octets {
            return Ok(());
        }
        let units = (octets - self.octets).div_ceil(UNIT);
        let wanted = u32::try_from(units).map_err(|_| BudgetExceeded)?;
        let permit = self.budget.units.clone().try_acquire_many_owned(wanted).map_err(|_| BudgetExceeded)?;
        match self.held.first_mut() {
            Some(first) => first.merge(permit),
            None => self.held.push(permit),
        }
        self.octets += units * UNIT;
        Ok(())
    }

    /// As `grow`, but only if a quarter of the budget stays free: growth ahead of need must not starve messages that
    /// have arrived completely and need memory for repairs.
    pub fn grow_ahead(&mut self, octets: usize) -> Result<(), BudgetExceeded> {
        let wanted = octets.saturating_sub(self.octets) as u64;
        if self.budget.has_room_for(wanted.saturating_add(self.budget.total / 4)) {
            self.grow(octets)
        } else {
            Err(BudgetExceeded)
        }
    }

    /// Returns everything beyond `octets` in total.
    pub fn shrink(&mut self, octets: usize) {
        let spare = self.octets.saturating_sub(octets) / UNIT;
        if let Some(given_back) = self.held.first_mut().and_then(|held| held.split(spare)) {
            self.octets -= given_back.num_permits() * UNIT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_until_the_budget_is_used_up_and_gives_back() {
        let budget = MemoryBudget::new(10 * 4096);
        let mut first = budget.share();
        let mut second = budget.share();
        assert!(first.could_hold(10 * 4096) && !first.could_hold(10 * 4096 + 1));
        assert_eq!(first.grow(6 * 4096), Ok(()));
        assert_eq!(first.grow(100), Ok(()), "already covered");
        assert_eq!(second.grow(5 * 4096), Err(BudgetExceeded));
        assert!(budget.has_room_for(4 * 4096) && !budget.has_room_for(4 * 4096 + 1));
        drop(first);
        assert_eq!(second.grow(10 * 4096), Ok(()));
    }

    #[test]
    fn growth_ahead_of_need_leaves_a_quarter_to_others() {
        let budget = MemoryBudget::new(8 * 4096);
        let mut share = budget.share();
        assert_eq!(share.grow_ahead(7 * 4096), Err(BudgetExceeded));
        assert_eq!(share.grow_ahead(6 * 4096), Ok(()));
        assert_eq!(share.grow(5 * 4096), Ok(()), "already covered");
        assert_eq!(budget.share().grow_ahead(1), Err(BudgetExceeded));
        assert_eq!(budget.share().grow(2 * 4096), Ok(()));
    }

    #[test]
    fn a_share_gives_back_what_it_does_not_need() {
        let budget = MemoryBudget::new(10 * 4096);
        let mut share = budget.share();
        share.shrink(0);
        share.grow(9 * 4096).expect("room");
        share.shrink(2 * 4096 + 1);
        assert!(budget.has_room_for(7 * 4096) && !budget.has_room_for(7 * 4096 + 1));
        share.shrink(9 * 4096);
        assert_eq!(share.grow(10 * 4096), Ok(()));
        assert!(!budget.has_room_for(1));
        drop(share);
        assert!(budget.has_room_for(10 * 4096));
    }
}
