//! What a listener's log says of its clients: so many lines a minute for each network. The rest is logged at "debug", and
//! its number told once the minute is over.
//!
//! Lines that cannot be written fast enough are lost, whosever they are: nobody may fill the log. Every line that a client
//! can cause before a message of it is taken goes through here. Knows no clock: whoever owns it says when a minute is over.

use super::limits::counted_as;
use crate::observe::log::Clean;
use ipnet::IpNet;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::field::display;
use tracing::{debug, warn};

/// Lines a minute of those who may not send: some failed logins are told one by one.
const MOST_OF_STRANGERS: u32 = 20;
/// Lines a minute of those who may. To most applications a refusal is a lost mail.
const MOST_OF_SENDERS: u32 = 100;
/// Networks that are counted one by one; any others have the lines of one.
const MOST_NETWORKS: usize = 256;

/// One listener's.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<HashMap<Network, Noted>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    One(IpNet),
    Others,
}

#[derive(Debug, Default)]
struct Noted {
    /// Since the minute began, or since a message was taken.
    told: u32,
    /// Since the minute began.
    left_out: u64,
}

/// Of whom a line is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    pub(super) peer: SocketAddr,
    pub(super) needs_no_login: bool,
    /// It needs no login, or has logged in.
    pub(super) may_send: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Told,
    /// The last one that is told.
    Last,
    LeftOut,
}

impl Notes {
    /// `user` is a name that may be shown.
    pub(super) fn tell(&self, subject: Subject, user: Option<&str>, what: fmt::Arguments<'_>) {
        let (peer, user) = (subject.peer, user.map(|user| display(Clean(user))));
        match self.turn(subject) {
            Turn::Told => warn!(%peer, user, "{what}"),
            Turn::Last => warn!(
                %peer,
                user,
                "{what}; what comes next from this network is logged at \"debug\" until a message of it was taken, or a minute is over"
            ),
            Turn::LeftOut => debug!(%peer, user, "{what}"),
        }
    }

    /// A message was taken: what is refused next is news again.
    pub(super) fn forgive(&self, address: IpAddr, needs_no_login: bool) {
        if let Some(noted) = self.lock().get_mut(&Network::One(counted_as(address, needs_no_login))) {
            noted.told = 0;
        }
    }

    /// Tells how much was left out, and begins anew.
    pub(super) fn next_minute(&self) {
        for (network, lines) in self.take() {
            warn!(%network, lines, "left out of this log for their number: refusals, failed logins and handshakes within a minute");
        }
    }

    /// What was left out, by network.
    fn take(&self) -> Vec<(Network, u64)> {
        let noted = std::mem::take(&mut *self.lock());
        noted.into_iter().map(|(network, noted)| (network, noted.left_out)).filter(|(_, lines)| *lines > 0).collect()
    }

    fn turn(&self, subject: Subject) -> Turn {
        let most = if subject.may_send { MOST_OF_SENDERS } else { MOST_OF_STRANGERS };
        let mut networks = self.lock();
        let mut network = Network::One(counted_as(subject.peer.ip(), subject.needs_no_login));
        if networks.len() >= MOST_NETWORKS && !networks.contains_key(&network) {
            network = Network::Others;
        }
        let noted = networks.entry(network).or_default();
        if noted.told > most {
            noted.left_out += 1;
            return Turn::LeftOut;
        }
        noted.told += 1;
        if noted.told > most { Turn::Last } else { Turn::Told }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Network, Noted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(network) => network.fmt(f),
            Self::Others => f.write_str("others"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger(address: &str) -> Subject {
        let peer = SocketAddr::new(address.parse().expect("an address"), 40_000);
        Subject { peer, needs_no_login: false, may_send: false }
    }

    fn told(notes: &Notes, subject: Subject, times: u32) -> usize {
        (0..times).filter(|_| notes.turn(subject) != Turn::LeftOut).count()
    }

    #[test]
    fn each_network_has_its_lines_and_a_minute_later_anew() {
        let notes = Notes::default();
        for minute in 0..3 {
            for (address, lines) in [("192.0.2.1", 21), ("192.0.2.2", 21), ("2001:db8::1", 21), ("2001:db8::2", 0)] {
                assert_eq!(told(&notes, stranger(address), 300), lines, "{address} in minute {minute}");
            }
            let mut left_out: Vec<_> =
                notes.take().iter().map(|(network, lines)| format!("{network} {lines}")).collect();
            left_out.sort_unstable();
            assert_eq!(left_out, ["192.0.2.1/32 279", "192.0.2.2/32 279", "2001:db8::/64 579"]);
        }
    }

    #[test]
    fn who_may_send_has_more_of_them_and_after_a_message_all_again() {
        let (notes, sender) = (Notes::default(), Subject { may_send: true, ..stranger("192.0.2.1") });
        assert_eq!(told(&notes, sender, 300), 101);
        notes.forgive(sender.peer.ip(), sender.needs_no_login);
        assert_eq!(told(&notes, sender, 300), 101);
        assert_eq!(notes.take()[0].1, 398);
    }

    #[test]
    fn more_networks_than_can_be_counted_share_the_lines_of_one() {
        let notes = Notes::default();
        let lines: usize = (0..1000).map(|n: u32| told(&notes, stranger(&format!("2001:db8:0:{n:x}::1")), 30)).sum();
        assert_eq!(lines, 21 * (MOST_NETWORKS + 1));
        assert_eq!(notes.lock().len(), MOST_NETWORKS + 1);
    }
}
