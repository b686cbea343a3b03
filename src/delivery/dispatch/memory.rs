//! Divides the memory for leased messages among lanes: one half in equal guaranteed parts, the other half shared on
//! demand. Few lanes are busy at a time, and none of them can starve another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// In octets of messages, like all values here.
#[derive(Debug)]
pub(super) struct LeaseMemory {
    /// Guaranteed to all lanes together.
    guaranteed: u64,
    /// Each lane's guaranteed part.
    part: AtomicU64,
    /// The unused rest of the shared half.
    free: AtomicU64,
}

impl LeaseMemory {
    /// For one lane.
    pub fn new(octets: u64) -> Arc<Self> {
        let common = octets / 2;
        let guaranteed = octets - common;
        Arc::new(Self { guaranteed, part: AtomicU64::new(guaranteed), free: AtomicU64::new(common) })
    }

    /// For so many lanes from now on. A lane that has more than its new part keeps it until its messages are sent.
    pub fn divide_among(&self, lanes: usize) {
        let lanes = u64::try_from(lanes.max(1)).unwrap_or(u64::MAX);
        self.part.store(self.guaranteed / lanes, Ordering::Release);
    }

    fn part(&self) -> u64 {
        self.part.load(Ordering::Acquire)
    }
}

/// One lane's share.
#[derive(Debug)]
pub(super) struct LaneAllotment {
    memory: Arc<LeaseMemory>,
    used: u64,
    /// Octets taken from the shared half.
    borrowed: u64,
}

impl LaneAllotment {
    pub fn of(memory: Arc<LeaseMemory>) -> Self {
        Self { memory, used: 0, borrowed: 0 }
    }

    /// How many more octets may be used. The free part of the shared half is reserved for this lane until
    /// [`LaneAllotment::settle`].
    pub fn reserve(&mut self) -> u64 {
        self.borrowed = self.borrowed.saturating_add(self.memory.free.swap(0, Ordering::AcqRel));
        self.memory.part().saturating_add(self.borrowed).saturating_sub(self.used)
    }

    /// How many more octets may be used without borrowing from the shared half.
    pub fn own_rest(&self) -> u64 {
        self.memory.part().saturating_sub(self.used)
    }

    /// A queue may lease a message that is larger than the rest; the share is then exceeded.
    pub fn add(&mut self, octets: u64) {
        self.used = self.used.saturating_add(octets);
    }

    /// Releases what was reserved but not used.
    pub fn settle(&mut self) {
        let needed = self.used.saturating_sub(self.memory.part()).min(self.borrowed);
        self.memory.free.fetch_add(self.borrowed - needed, Ordering::AcqRel);
        self.borrowed = needed;
    }

    pub fn remove(&mut self, octets: u64) {
        self.used = self.used.saturating_sub(octets);
        self.settle();
    }
}

impl Drop for LaneAllotment {
    fn drop(&mut self) {
        self.memory.free.fetch_add(self.borrowed, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(lanes: usize, octets: u64) -> Arc<LeaseMemory> {
        let memory = LeaseMemory::new(octets);
        memory.divide_among(lanes);
        memory
    }

    #[test]
    fn a_lane_that_is_added_takes_from_the_parts_of_the_others_and_none_is_lost() {
        let memory = among(1, 800);
        let mut first = LaneAllotment::of(memory.clone());
        assert_eq!(first.reserve(), 400 + 400);
        first.add(700);
        first.settle();
        memory.divide_among(2);
        let mut second = LaneAllotment::of(memory.clone());
        assert_eq!(second.reserve(), 200 + 100);
        second.settle();
        first.remove(700);
        assert_eq!((first.reserve(), second.reserve()), (200 + 400, 200));
        first.settle();
        drop(second);
        memory.divide_among(1);
        assert_eq!(first.reserve(), 800);
    }

    #[test]
    fn a_busy_lane_gets_more_than_its_part_and_leaves_the_others_theirs() {
        let memory = among(4, 800);
        let [mut busy, mut other, mut idle] = [(); 3].map(|()| LaneAllotment::of(memory.clone()));
        assert_eq!(busy.reserve(), 100 + 400);
        assert_eq!(other.reserve(), 100, "what is reserved is nobody else's");
        busy.add(300);
        busy.settle();
        other.settle();
        assert_eq!(idle.reserve(), 100 + 200, "of the common 400, 200 are borrowed");
        idle.settle();
        assert_eq!(busy.reserve(), 200);
        busy.add(200);
        busy.settle();
        assert_eq!((busy.reserve(), other.reserve()), (0, 100));
        busy.remove(250);
        assert_eq!(other.reserve(), 100 + 250);
        drop((busy, other));
        assert_eq!(idle.reserve(), 500, "nothing is lost");
    }

    #[test]
    fn a_message_too_large_for_the_memory_leaves_no_debt() {
        let memory = LeaseMemory::new(100);
        let mut lane = LaneAllotment::of(memory.clone());
        let mut other = LaneAllotment::of(memory);
        assert_eq!(lane.reserve(), 100);
        lane.add(1_000);
        lane.settle();
        assert_eq!((lane.reserve(), other.reserve()), (0, 50));
        lane.remove(1_000);
        other.settle();
        assert_eq!(lane.reserve(), 100);
    }
}
