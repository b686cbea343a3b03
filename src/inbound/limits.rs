//! How many connections there are, in all and from each address. Pure counting; RFC 5321 §7.8.
//! Waits for nobody and closes nothing: whoever is refused is told so by the listener.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the connections of one listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections {
    most: usize,
    most_per_address: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `max_connections`
    Total,
    /// `max_connections_per_address`
    Address,
}

/// One open connection; counted until it is dropped.
#[derive(Debug)]
pub struct Slot {
    address: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Connections {
    pub fn new(most: usize, most_per_address: usize) -> Self {
        Self { most, most_per_address, open: Arc::default() }
    }

    pub fn admit(&self, address: IpAddr) -> Result<Slot, Refusal> {
        let mut open = lock(&self.open);
        let (here, all) = (open.get(&address).copied().unwrap_or(0), open.values().sum::<usize>());
        if all >= self.most {
            return Err(Refusal::Total);
        }
        if here >= self.most_per_address {
            return Err(Refusal::Address);
        }
        open.insert(address, here + 1);
        Ok(Slot { address, open: Arc::clone(&self.open) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        // Invariant: an address without a connection has no entry, so that the map is as small as the connections are few.
        match open.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.address)),
        }
    }
}

fn lock(open: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_hold_and_slots_come_back() {
        let connections = Connections::new(3, 2);
        let [a, b]: [IpAddr; 2] = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
        let first = connections.admit(a).expect("room");
        let _second = connections.admit(a).expect("room");
        assert_eq!(connections.admit(a).map(drop), Err(Refusal::Address));
        let _third = connections.admit(b).expect("room");
        assert_eq!(connections.admit(b).map(drop), Err(Refusal::Total));
        drop(first);
        assert!(connections.admit(b).is_ok());
        assert!(connections.admit(a).is_ok());
    }

    #[test]
    fn nothing_is_kept_of_an_address_that_left() {
        let connections = Connections::new(10, 10);
        drop(connections.admit([127, 0, 0, 1].into()).expect("room"));
        assert!(lock(&connections.open).is_empty());
    }
}
