//! Keeps newly stored messages in memory, so that leasing them needs no read from disk. Bounded in octets; the oldest
//! is dropped first. Only a copy: the database decides what is waiting.

use crate::message::MailId;
use crate::message::accepted::Accepted;
use hashlink::LinkedHashMap;
use std::sync::Arc;

/// Octets that an entry costs in addition to its message.
const OVERHEAD: u64 = 512;

#[derive(Debug)]
struct Entry {
    accepted: Arc<Accepted>,
    /// Over the header and body as they were stored.
    digest: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Cache {
    limit: u64,
    octets: u64,
    /// Oldest first.
    entries: LinkedHashMap<MailId, Entry>,
}

impl Cache {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, octets: 0, entries: LinkedHashMap::new() }
    }

    /// Returns false and does nothing if the message is too large or another message has its id.
    pub(super) fn insert(&mut self, accepted: &Arc<Accepted>, digest: &[u8]) -> bool {
        let cost = cost(accepted);
        if cost > self.limit || self.entries.contains_key(&accepted.id) {
            return false;
        }
        self.octets += cost;
        self.entries.insert(accepted.id, Entry { accepted: accepted.clone(), digest: digest.to_vec() });
        while self.octets > self.limit
            && let Some((_, oldest)) = self.entries.pop_front()
        {
            self.octets -= self::cost(&oldest.accepted);
        }
        true
    }

    pub(super) fn find(&self, id: MailId) -> Option<(Arc<Accepted>, Vec<u8>)> {
        self.entries.get(&id).map(|entry| (entry.accepted.clone(), entry.digest.clone()))
    }

    pub(super) fn remove(&mut self, id: MailId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.octets -= cost(&entry.accepted);
        }
    }
}

fn cost(accepted: &Accepted) -> u64 {
    accepted.memory_needed() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::accepted::Origin;
    use crate::message::{Envelope, Marks, RawMessage};
    use crate::smtp::ReversePath;

    fn accepted(number: u32, size: usize) -> Arc<Accepted> {
        let received_at = jiff::Timestamp::from_second(1_795_000_000).unwrap();
        Arc::new(Accepted {
            id: MailId::new(received_at, number),
            received_at,
            envelope: Envelope::new(ReversePath::Null),
            message: RawMessage::from_data(vec![b'x'; size].into()).unwrap(),
            author: None,
            origin: Origin::default(),
            marks: Marks::default(),
        })
    }

    #[test]
    fn the_oldest_goes_first_and_the_limit_holds() {
        let mail: Vec<_> = (0..10).map(|number| accepted(number, 1000)).collect();
        let mut cache = Cache::new(3 * cost(&mail[0]));
        for one in &mail {
            cache.insert(one, &[]);
            assert!(cache.octets <= cache.limit);
        }
        let kept: Vec<bool> = mail.iter().map(|one| cache.find(one.id).is_some()).collect();
        assert_eq!(kept, [false, false, false, false, false, false, false, true, true, true]);
        cache.insert(&accepted(99, 100_000), &[]);
        assert!(cache.find(mail[9].id).is_some(), "what can never fit drives nothing out");
        for one in &mail {
            cache.remove(one.id);
        }
        assert_eq!((cache.octets, cache.entries.len()), (0, 0));
    }

    #[test]
    fn what_comes_and_goes_leaves_nothing_behind() {
        let mut cache = Cache::new(1 << 20);
        for number in 0..10_000 {
            let one = accepted(number, 10);
            cache.insert(&one, &[]);
            cache.remove(one.id);
        }
        assert_eq!((cache.octets, cache.entries.len()), (0, 0));
    }
}
