//! How many connections there are, in all and from each address, and how many came to nothing. Pure counting; RFC 5321 §7.8.
//!
//! A client that needs a login and has none yet is waiting for it; one that leaves without it was fruitless. A network that
//! logged in within the last day is proven: its fruitless connections do not keep it out, and the one that has waited
//! longest makes room for the next, since the clients behind one address need not know each other. Knows no clock and
//! closes nothing: whoever is refused, or is to leave, is told so by others.

use ipnet::{IpNet, Ipv6Net};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// What one customer of an access provider has at least: each of its addresses is the same client's.
const ONE_CLIENT: u8 = 64;
/// Within a minute, of a network that is not proven.
const MOST_FRUITLESS: u32 = 60;
/// One in so many of an address's connections may wait for a login, where its network is not proven.
const WAITING_SHARE: usize = 2;
/// Minutes for which a network stays proven.
const PROVEN_FOR: u64 = 24 * 60;
/// Networks whose fruitless connections are counted; those beyond are held by the other limits alone.
const MOST_NETWORKS: usize = 10_000;

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
    clients: HashMap<IpNet, Here>,
    strangers: usize,
    /// Of this minute.
    fruitless: HashMap<IpNet, u32>,
    /// The minute of the last login. Invariant: no network without a right password comes in here.
    proven: HashMap<IpNet, u64>,
    minute: u64,
    next_number: u64,
}

/// Of one client.
#[derive(Debug, Default)]
struct Here {
    connections: usize,
    /// Those without the login that they need, by number; the oldest first.
    waiting: VecDeque<(u64, CancellationToken)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `max_connections`
    Total,
    /// `max_connections`, less what is kept for others.
    Strangers,
    /// `max_connections_per_address`
    Address,
    /// Half of it, without a login.
    Waiting,
    /// Too many in this minute that never logged in.
    Fruitless,
}

/// One open connection; counted until it is dropped, or has to leave.
#[derive(Debug)]
pub struct Slot {
    client: IpNet,
    is_stranger: bool,
    number: u64,
    leave: CancellationToken,
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
        if let Some(refusal) = self.refusal(&open, client, is_stranger)
            && !(open.proven.contains_key(&client) && open.make_room(client))
        {
            return Err(refusal);
        }
        open.next_number += 1;
        let (number, leave) = (open.next_number, CancellationToken::new());
        let here = open.clients.entry(client).or_default();
        here.connections += 1;
        if is_stranger {
            here.waiting.push_back((number, leave.clone()));
            open.strangers += 1;
        }
        Ok(Slot { client, is_stranger, number, leave, open: Arc::clone(&self.open) })
    }

    /// A minute is over.
    pub fn next_minute(&self) {
        let mut open = lock(&self.open);
        open.minute += 1;
        open.fruitless.clear();
        let minute = open.minute;
        open.proven.retain(|_, last| minute - *last < PROVEN_FOR);
    }

    fn refusal(&self, open: &Open, client: IpNet, is_stranger: bool) -> Option<Refusal> {
        let (connections, waiting) =
            open.clients.get(&client).map_or((0, 0), |here| (here.connections, here.waiting.len()));
        let is_unproven = is_stranger && !open.proven.contains_key(&client);
        if open.clients.values().map(|here| here.connections).sum::<usize>() >= self.most {
            Some(Refusal::Total)
        } else if is_stranger && open.strangers >= self.most_strangers {
            Some(Refusal::Strangers)
        } else if connections >= self.most_per_address {
            Some(Refusal::Address)
        } else if is_unproven && waiting >= self.most_per_address.div_ceil(WAITING_SHARE) {
            Some(Refusal::Waiting)
        } else if is_unproven && open.fruitless.get(&client).is_some_and(|count| *count >= MOST_FRUITLESS) {
            Some(Refusal::Fruitless)
        } else {
            None
        }
    }
}

impl Open {
    /// Sends away the connection of this client that has waited longest.
    fn make_room(&mut self, client: IpNet) -> bool {
        let Some((_, leave)) = self.clients.get_mut(&client).and_then(|here| here.waiting.pop_front()) else {
            return false;
        };
        leave.cancel();
        self.forget(client, true);
        true
    }

    fn forget(&mut self, client: IpNet, is_stranger: bool) {
        self.strangers -= usize::from(is_stranger);
        // Invariant: a client without a connection has no entry, so that the map is as small as the connections are few.
        match self.clients.get_mut(&client) {
            Some(here) if here.connections > 1 => here.connections -= 1,
            _ => drop(self.clients.remove(&client)),
        }
    }

    /// Whether it was waiting.
    fn ends_waiting(&mut self, slot: &Slot) -> bool {
        let Some(here) = self.clients.get_mut(&slot.client) else { return false };
        let at = here.waiting.iter().position(|(number, _)| *number == slot.number);
        at.is_some_and(|at| here.waiting.remove(at).is_some())
    }
}

impl Slot {
    /// Its client has logged in.
    pub fn prove(&self) {
        let mut open = lock(&self.open);
        if open.ends_waiting(self) {
            let minute = open.minute;
            open.proven.insert(self.client, minute);
            open.fruitless.remove(&self.client);
        }
    }

    /// Somebody has logged in from its network within the last day.
    pub fn is_proven(&self) -> bool {
        lock(&self.open).proven.contains_key(&self.client)
    }

    /// Once its place was given to another connection of the same client. Never after [`Self::prove`].
    pub async fn has_to_leave(&self) {
        self.leave.cancelled().await;
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
        // Cancelled under the same lock: its place is another's already.
        if self.leave.is_cancelled() {
            return;
        }
        let was_waiting = open.ends_waiting(self);
        open.forget(self.client, self.is_stranger);
        if was_waiting && (open.fruitless.len() < MOST_NETWORKS || open.fruitless.contains_key(&self.client)) {
            *open.fruitless.entry(self.client).or_default() += 1;
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
            let admit = |address| {
                let slot = connections.admit(address, needs_no_login)?;
                slot.prove();
                Ok(slot)
            };
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

    const HOUSE: [u8; 4] = [192, 0, 2, 1];

    fn come(connections: &Connections) -> Result<Slot, Refusal> {
        connections.admit(HOUSE.into(), STRANGER)
    }

    /// So many in a row that leave without a login; what the next one is told.
    fn come_to_nothing(connections: &Connections, times: u32) -> Option<Refusal> {
        (0..times).for_each(|_| drop(come(connections)));
        come(connections).map(drop).err()
    }

    #[test]
    fn a_network_that_never_logs_in_has_so_many_connections_a_minute() {
        let connections = Connections::new(100, 0, 50);
        for _ in 0..3 {
            assert_eq!(come_to_nothing(&connections, MOST_FRUITLESS), Some(Refusal::Fruitless));
            assert!(connections.admit([192, 0, 2, 2].into(), STRANGER).is_ok(), "another network");
            assert!(connections.admit(HOUSE.into(), REGULAR).is_ok(), "one that needs no login");
            connections.next_minute();
        }
        assert_eq!(come_to_nothing(&connections, MOST_FRUITLESS - 1), None);
    }

    #[test]
    fn logins_are_not_fruitless_and_a_proven_network_stays_open_for_a_day() {
        let connections = Connections::new(100, 0, 50);
        come(&connections).expect("room").prove();
        for minute in 0..PROVEN_FOR {
            assert_eq!(come_to_nothing(&connections, 2 * MOST_FRUITLESS), None, "minute {minute}");
            connections.next_minute();
        }
        assert_eq!(come_to_nothing(&connections, MOST_FRUITLESS), Some(Refusal::Fruitless));
    }

    #[tokio::test]
    async fn half_of_the_places_are_for_waiting_and_in_a_proven_network_the_longest_waiting_makes_room() {
        let connections = Connections::new(5, 0, 4);
        let [first, _second] = [(); 2].map(|()| come(&connections).expect("room"));
        assert_eq!(come(&connections).map(drop), Err(Refusal::Waiting));
        first.prove();
        let mut waiting: Vec<_> = (0..2).map(|_| come(&connections).expect("all places")).collect();
        for _ in 0..20 {
            waiting.push(come(&connections).expect("another has to leave"));
        }
        let left = waiting.iter().filter(|slot| slot.leave.is_cancelled()).count();
        assert_eq!(left, waiting.len() - 3);
        waiting[0].has_to_leave().await;
        assert!(!first.leave.is_cancelled(), "it has logged in");
        waiting.retain(|slot| !slot.leave.is_cancelled());
        waiting.iter().for_each(Slot::prove);
        assert_eq!(come(&connections).map(drop), Err(Refusal::Address), "those that have logged in stay");
    }

    #[test]
    fn nothing_is_kept_of_an_address_that_left() {
        let connections = Connections::new(10, 0, 10);
        drop(connections.admit([127, 0, 0, 1].into(), STRANGER).expect("room"));
        let open = lock(&connections.open);
        assert!(open.clients.is_empty() && open.strangers == 0);
        drop(open);
        connections.next_minute();
        assert!(lock(&connections.open).fruitless.is_empty());
    }
}
