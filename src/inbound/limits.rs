//! How many connections there are, in all and from each address. Pure counting; RFC 5321 §7.8.
//! Waits for nobody and closes nothing: whoever is refused is told so by the listener.

use ipnet::{IpNet, Ipv6Net};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one customer of an access provider has at least: each of its addresses is the same client's.
const ONE_CLIENT: u8 = 64;

/// Counts the connections of one listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections {
    most: usize,
    most_strangers: usize,
    most_per_address: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    clients: HashMap<IpNet, usize>,
    strangers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `max_connections`
    Total,
    /// `max_connections`, less what is kept for others.
    Strangers,
    /// `max_connections_per_address`
    Address,
}

/// One open connection; counted until it is dropped.
#[derive(Debug)]
pub struct Slot {
    client: IpNet,
    is_stranger: bool,
    open: Arc<Mutex<Open>>,
}

impl Connections {
    /// `kept`: how many of `most` are for clients that need no login.
    pub fn new(most: usize, kept: usize, most_per_address: usize) -> Self {
        Self { most, most_strangers: most.saturating_sub(kept), most_per_address, open: Arc::default() }
    }

    pub fn admit(&self, address: IpAddr, needs_no_login: bool) -> Result<Slot, Refusal> {
        let (client, is_stranger) = (counted_as(address, needs_no_login), !needs_no_login);
        let mut open = lock(&self.open);
        let (here, all) = (open.clients.get(&client).copied().unwrap_or(0), open.clients.values().sum::<usize>());
        if all >= self.most {
            return Err(Refusal::Total);
        }
        if is_stranger && open.strangers >= self.most_strangers {
            return Err(Refusal::Strangers);
        }
        if here >= self.most_per_address {
            return Err(Refusal::Address);
        }
        open.clients.insert(client, here + 1);
        open.strangers += usize::from(is_stranger);
        Ok(Slot { client, is_stranger, open: Arc::clone(&self.open) })
    }
}

/// Inside `allow` each machine of a network counts for itself.
pub(super) fn counted_as(address: IpAddr, needs_no_login: bool) -> IpNet {
    match address.to_canonical() {
        IpAddr::V6(address) if !needs_no_login => Ipv6Net::new_assert(address, ONE_CLIENT).trunc().into(),
        address => address.into(),
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.strangers -= usize::from(self.is_stranger);
        // Invariant: a client without a connection has no entry, so that the map is as small as the connections are few.
        match open.clients.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.clients.remove(&self.client)),
        }
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGULAR: bool = true;
    const STRANGER: bool = false;

    #[test]
    fn caps_hold_and_slots_come_back() {
        for needs_no_login in [REGULAR, STRANGER] {
            let connections = Connections::new(3, 0, 2);
            let admit = |address| connections.admit(address, needs_no_login);
            let [a, b]: [IpAddr; 2] = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
            let first = admit(a).expect("room");
            let _second = admit(a).expect("room");
            assert_eq!(admit(a).map(drop), Err(Refusal::Address));
            let _third = admit(b).expect("room");
            assert_eq!(admit(b).map(drop), Err(Refusal::Total));
            drop(first);
            assert!(admit(b).is_ok());
            assert!(admit(a).is_ok());
        }
    }

    #[test]
    fn strangers_leave_places_for_those_inside_allow() {
        let connections = Connections::new(4, 1, 10);
        let [inside, outside]: [IpAddr; 2] = [[127, 0, 0, 1].into(), [192, 0, 2, 1].into()];
        let strangers: Vec<_> = (0..3).map(|_| connections.admit(outside, STRANGER).expect("room")).collect();
        assert_eq!(connections.admit(outside, STRANGER).map(drop), Err(Refusal::Strangers));
        let regular = connections.admit(inside, REGULAR).expect("the place that was kept");
        assert_eq!(connections.admit(inside, REGULAR).map(drop), Err(Refusal::Total));
        drop(strangers);
        let regulars: Vec<_> = (0..3).map(|_| connections.admit(inside, REGULAR).expect("they may have all")).collect();
        drop((regular, regulars));
        assert!(connections.admit(outside, STRANGER).is_ok());
    }

    #[test]
    fn the_addresses_of_a_strangers_network_are_one_client() {
        let connections = Connections::new(10, 0, 1);
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let _first = connections.admit(address("2001:db8::1"), STRANGER).expect("room");
        let again = connections.admit(address("2001:db8::ffff:2"), STRANGER);
        assert_eq!(again.map(drop), Err(Refusal::Address));
        let _other = connections.admit(address("2001:db8:0:1::1"), STRANGER).expect("another network");
        let _inside = connections.admit(address("fd00::1"), REGULAR).expect("room");
        let _beside = connections.admit(address("fd00::2"), REGULAR).expect("another machine");
    }

    #[test]
    fn nothing_is_kept_of_an_address_that_left() {
        let connections = Connections::new(10, 0, 10);
        drop(connections.admit([127, 0, 0, 1].into(), STRANGER).expect("room"));
        let open = lock(&connections.open);
        assert!(open.clients.is_empty() && open.strangers == 0);
    }
}
