//! Counts connections, in total and per address, and those that ended without a login. Pure counting; RFC 5321 §7.8.
//!
//! A client that needs a login and has not logged in yet is waiting. A connection that ends in that state was
//! abandoned. A network from which someone logged in within the last day is authenticated: its abandoned connections do
//! not count against it, and at the limit its longest-waiting connection is evicted in favour of the new one, because
//! clients behind one address may be unrelated. Has no clock and closes nothing; the callers reply to clients that are
//! refused or evicted.

use ipnet::{IpNet, Ipv6Net};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The smallest IPv6 network that an access provider assigns: all of its addresses count as one client.
const ONE_CLIENT: u8 = 64;
/// The most abandoned connections per minute from a network that is not authenticated.
const MOST_ABANDONED: u32 = 60;
/// At most one in this many of an address's connections may wait for a login, unless its network is authenticated.
const WAITING_SHARE: usize = 2;
/// Minutes for which a network stays authenticated.
const PROVEN_FOR: u64 = 24 * 60;
/// Networks whose abandoned connections are counted; for more networks only the other limits apply.
const MOST_NETWORKS: usize = 10_000;

/// Counts the connections of one listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionCounter {
    most: usize,
    most_strangers: usize,
    most_per_address: usize,
    open: Arc<Mutex<OpenConnections>>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    clients: HashMap<IpNet, ClientConnections>,
    unauthenticated: usize,
    /// In the current minute.
    abandoned: HashMap<IpNet, u32>,
    /// The minute of the last login. Invariant: a network is added only after a correct password.
    authenticated: HashMap<IpNet, u64>,
    minute: u64,
    next_number: u64,
}

/// The connections of one client.
#[derive(Debug, Default)]
struct ClientConnections {
    connections: usize,
    /// Connections that still need a login, by number; oldest first.
    waiting: VecDeque<(u64, CancellationToken)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// `max_connections`
    Total,
    /// `max_connections`, minus the part reserved for others.
    Unauthenticated,
    /// `max_connections_per_address`
    Address,
    /// Half of `max_connections_per_address`, for connections without a login.
    Waiting,
    /// Too many connections in this minute that never logged in.
    Abandoned,
}

/// One open connection; counted until it is dropped or evicted.
#[derive(Debug)]
pub struct ConnectionSlot {
    client: IpNet,
    is_unauthenticated: bool,
    number: u64,
    leave: CancellationToken,
    open: Arc<Mutex<OpenConnections>>,
}

impl ConnectionCounter {
    /// `kept`: how many of `most` are reserved for clients that need no login.
    pub fn new(most: usize, kept: usize, most_per_address: usize) -> Self {
        Self { most, most_strangers: most.saturating_sub(kept), most_per_address, open: Arc::default() }
    }

    /// Other limits for the same connections; those that are too many by them stay.
    pub fn with(&self, most: usize, kept: usize, most_per_address: usize) -> Self {
        Self { open: self.open.clone(), ..Self::new(most, kept, most_per_address) }
    }

    pub fn admit(&self, address: IpAddr, needs_no_login: bool) -> Result<ConnectionSlot, ConnectionRefusal> {
        let client = client_network(address, needs_no_login);
        let is_unauthenticated = !needs_no_login;
        let mut open = self.open.lock();
        if let Some(refusal) = self.refusal(&open, client, is_unauthenticated)
            && !(open.authenticated.contains_key(&client) && open.evict_longest_waiting(client))
        {
            return Err(refusal);
        }
        open.next_number += 1;
        let number = open.next_number;
        let leave = CancellationToken::new();
        let here = open.clients.entry(client).or_default();
        here.connections += 1;
        if is_unauthenticated {
            here.waiting.push_back((number, leave.clone()));
            open.unauthenticated += 1;
        }
        Ok(ConnectionSlot { client, is_unauthenticated, number, leave, open: Arc::clone(&self.open) })
    }

    /// Starts the next minute.
    pub fn next_minute(&self) {
        let mut open = self.open.lock();
        open.minute += 1;
        open.abandoned.clear();
        let minute = open.minute;
        open.authenticated.retain(|_, last| minute - *last < PROVEN_FOR);
    }

    fn refusal(&self, open: &OpenConnections, client: IpNet, is_unauthenticated: bool) -> Option<ConnectionRefusal> {
        let (connections, waiting) =
            open.clients.get(&client).map_or((0, 0), |here| (here.connections, here.waiting.len()));
        let is_unproven = is_unauthenticated && !open.authenticated.contains_key(&client);
        if open.clients.values().map(|here| here.connections).sum::<usize>() >= self.most {
            Some(ConnectionRefusal::Total)
        } else if is_unauthenticated && open.unauthenticated >= self.most_strangers {
            Some(ConnectionRefusal::Unauthenticated)
        } else if connections >= self.most_per_address {
            Some(ConnectionRefusal::Address)
        } else if is_unproven && waiting >= self.most_per_address.div_ceil(WAITING_SHARE) {
            Some(ConnectionRefusal::Waiting)
        } else if is_unproven && open.abandoned.get(&client).is_some_and(|count| *count >= MOST_ABANDONED) {
            Some(ConnectionRefusal::Abandoned)
        } else {
            None
        }
    }
}

impl OpenConnections {
    /// Evicts the connection of this client that has waited longest.
    fn evict_longest_waiting(&mut self, client: IpNet) -> bool {
        let Some((_, leave)) = self.clients.get_mut(&client).and_then(|here| here.waiting.pop_front()) else {
            return false;
        };
        leave.cancel();
        self.connection_ended(client, true);
        true
    }

    fn connection_ended(&mut self, client: IpNet, is_unauthenticated: bool) {
        self.unauthenticated -= usize::from(is_unauthenticated);
        // Invariant: a client without a connection has no entry, so the map is never larger than the number of
        // connections.
        match self.clients.get_mut(&client) {
            Some(here) if here.connections > 1 => here.connections -= 1,
            _ => drop(self.clients.remove(&client)),
        }
    }

    /// Returns whether it was waiting.
    fn stop_waiting(&mut self, slot: &ConnectionSlot) -> bool {
        let Some(here) = self.clients.get_mut(&slot.client) else { return false };
        let at = here.waiting.iter().position(|(number, _)| *number == slot.number);
        at.is_some_and(|at| here.waiting.remove(at).is_some())
    }
}

impl ConnectionSlot {
    /// The connection's client has logged in.
    pub fn mark_authenticated(&self) {
        let mut open = self.open.lock();
        if open.stop_waiting(self) {
            let minute = open.minute;
            open.authenticated.insert(self.client, minute);
            open.abandoned.remove(&self.client);
        }
    }

    /// Someone has logged in from its network within the last day.
    pub fn is_proven(&self) -> bool {
        self.open.lock().authenticated.contains_key(&self.client)
    }

    /// Returns once its slot was given to another connection of the same client. Never returns after
    /// [`Self::mark_authenticated`].
    pub async fn evicted(&self) {
        self.leave.cancelled().await;
    }
}

/// Inside `allow`, each machine of a network counts separately.
pub(super) fn client_network(address: IpAddr, needs_no_login: bool) -> IpNet {
    match address.to_canonical() {
        IpAddr::V6(address) if !needs_no_login => Ipv6Net::new_assert(address, ONE_CLIENT).trunc().into(),
        address => address.into(),
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        // Eviction cancels under the same lock, and then the slot already belongs to another connection.
        if self.leave.is_cancelled() {
            return;
        }
        let was_waiting = open.stop_waiting(self);
        open.connection_ended(self.client, self.is_unauthenticated);
        if was_waiting && (open.abandoned.len() < MOST_NETWORKS || open.abandoned.contains_key(&self.client)) {
            *open.abandoned.entry(self.client).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGULAR: bool = true;
    const UNAUTHENTICATED: bool = false;

    #[test]
    fn caps_hold_and_slots_come_back() {
        for needs_no_login in [REGULAR, UNAUTHENTICATED] {
            let connections = ConnectionCounter::new(3, 0, 2);
            let admit = |address| {
                let slot = connections.admit(address, needs_no_login)?;
                slot.mark_authenticated();
                Ok(slot)
            };
            let [a, b]: [IpAddr; 2] = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
            let first = admit(a).expect("room");
            let _second = admit(a).expect("room");
            assert_eq!(admit(a).map(drop), Err(ConnectionRefusal::Address));
            let _third = admit(b).expect("room");
            assert_eq!(admit(b).map(drop), Err(ConnectionRefusal::Total));
            drop(first);
            assert!(admit(b).is_ok());
            assert!(admit(a).is_ok());
        }
    }

    #[test]
    fn unauthenticated_clients_leave_slots_for_those_inside_allow() {
        let connections = ConnectionCounter::new(4, 1, 10);
        let [inside, outside]: [IpAddr; 2] = [[127, 0, 0, 1].into(), [192, 0, 2, 1].into()];
        let unauthenticated: Vec<_> =
            (0..3).map(|_| connections.admit(outside, UNAUTHENTICATED).expect("room")).collect();
        assert_eq!(connections.admit(outside, UNAUTHENTICATED).map(drop), Err(ConnectionRefusal::Unauthenticated));
        let regular = connections.admit(inside, REGULAR).expect("the place that was kept");
        assert_eq!(connections.admit(inside, REGULAR).map(drop), Err(ConnectionRefusal::Total));
        drop(unauthenticated);
        let regulars: Vec<_> = (0..3).map(|_| connections.admit(inside, REGULAR).expect("they may have all")).collect();
        drop((regular, regulars));
        assert!(connections.admit(outside, UNAUTHENTICATED).is_ok());
    }

    #[test]
    fn the_addresses_of_an_unauthenticated_network_are_one_client() {
        let connections = ConnectionCounter::new(10, 0, 1);
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let _first = connections.admit(address("2001:db8::1"), UNAUTHENTICATED).expect("room");
        let again = connections.admit(address("2001:db8::ffff:2"), UNAUTHENTICATED);
        assert_eq!(again.map(drop), Err(ConnectionRefusal::Address));
        let _other = connections.admit(address("2001:db8:0:1::1"), UNAUTHENTICATED).expect("another network");
        let _inside = connections.admit(address("fd00::1"), REGULAR).expect("room");
        let _beside = connections.admit(address("fd00::2"), REGULAR).expect("another machine");
    }

    const NETWORK: [u8; 4] = [192, 0, 2, 1];

    fn come(connections: &ConnectionCounter) -> Result<ConnectionSlot, ConnectionRefusal> {
        connections.admit(NETWORK.into(), UNAUTHENTICATED)
    }

    /// Opens and abandons this many connections in a row; returns the refusal of the next one.
    fn come_to_nothing(connections: &ConnectionCounter, times: u32) -> Option<ConnectionRefusal> {
        (0..times).for_each(|_| drop(come(connections)));
        come(connections).map(drop).err()
    }

    #[test]
    fn a_network_that_never_logs_in_has_so_many_connections_a_minute() {
        let connections = ConnectionCounter::new(100, 0, 50);
        for _ in 0..3 {
            assert_eq!(come_to_nothing(&connections, MOST_ABANDONED), Some(ConnectionRefusal::Abandoned));
            assert!(connections.admit([192, 0, 2, 2].into(), UNAUTHENTICATED).is_ok(), "another network");
            assert!(connections.admit(NETWORK.into(), REGULAR).is_ok(), "one that needs no login");
            connections.next_minute();
        }
        assert_eq!(come_to_nothing(&connections, MOST_ABANDONED - 1), None);
    }

    #[test]
    fn logins_are_not_abandoned_and_an_authenticated_network_stays_open_for_a_day() {
        let connections = ConnectionCounter::new(100, 0, 50);
        come(&connections).expect("room").mark_authenticated();
        for minute in 0..PROVEN_FOR {
            assert_eq!(come_to_nothing(&connections, 2 * MOST_ABANDONED), None, "minute {minute}");
            connections.next_minute();
        }
        assert_eq!(come_to_nothing(&connections, MOST_ABANDONED), Some(ConnectionRefusal::Abandoned));
    }

    #[tokio::test]
    async fn half_of_the_places_are_for_waiting_and_in_a_proven_network_the_longest_waiting_makes_room() {
        let connections = ConnectionCounter::new(5, 0, 4);
        let [first, _second] = [(); 2].map(|()| come(&connections).expect("room"));
        assert_eq!(come(&connections).map(drop), Err(ConnectionRefusal::Waiting));
        first.mark_authenticated();
        let mut waiting: Vec<_> = (0..2).map(|_| come(&connections).expect("all places")).collect();
        for _ in 0..20 {
            waiting.push(come(&connections).expect("another has to leave"));
        }
        let left = waiting.iter().filter(|slot| slot.leave.is_cancelled()).count();
        assert_eq!(left, waiting.len() - 3);
        waiting[0].evicted().await;
        assert!(!first.leave.is_cancelled(), "it has logged in");
        waiting.retain(|slot| !slot.leave.is_cancelled());
        waiting.iter().for_each(ConnectionSlot::mark_authenticated);
        assert_eq!(come(&connections).map(drop), Err(ConnectionRefusal::Address), "those that have logged in stay");
    }

    #[test]
    fn nothing_is_kept_of_an_address_that_left() {
        let connections = ConnectionCounter::new(10, 0, 10);
        drop(connections.admit([127, 0, 0, 1].into(), UNAUTHENTICATED).expect("room"));
        let open = connections.open.lock();
        assert!(open.clients.is_empty() && open.unauthenticated == 0);
        drop(open);
        connections.next_minute();
        assert!(connections.open.lock().abandoned.is_empty());
    }
}
