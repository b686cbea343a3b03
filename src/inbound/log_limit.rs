//! Limits a listener's log lines about its clients to a number per minute and network. Further lines are logged at
//! "debug", and counted in one line once the minute is over.
//!
//! Lines that cannot be written fast enough are lost, whichever client they are about, so no client may flood the log.
//! Every line that a client can cause before one of its messages is accepted goes through here. Has no clock: its owner
//! calls it when a minute is over.

use super::limits::client_network;
use crate::observe::log::Clean;
use crate::smtp::ReversePath;
use ipnet::IpNet;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use tracing::field::display;
use tracing::{debug, warn};

/// Lines per minute about clients that may not send: a few failed logins are logged one by one.
const MAX_LINES_STRANGERS: u32 = 20;
/// Lines per minute about clients that may send. For most applications a refusal is a lost mail.
const MAX_LINES_SENDERS: u32 = 100;
/// Number of networks that are counted separately; all others share one allowance.
const MOST_NETWORKS: usize = 256;

/// The limiter of one listener.
#[derive(Debug, Default)]
pub(super) struct LogLimiter(Mutex<HashMap<Network, NetworkLines>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    One(IpNet),
    Others,
}

#[derive(Debug, Default)]
struct NetworkLines {
    /// Lines since the minute began or since a message was accepted.
    lines: u32,
    /// Lines left out since the minute began.
    left_out: u64,
}

/// The client that a log line is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogPeer {
    pub(super) listener: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) needs_no_login: bool,
    /// The client needs no login, or has logged in.
    pub(super) may_send: bool,
}

/// What else is known of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LogAbout<'a> {
    /// A name that may be shown.
    pub(super) user: Option<&'a str>,
    pub(super) sender: Option<&'a ReversePath>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineAllowance {
    Log,
    /// The last line that is logged.
    Last,
    LeftOut,
}

impl LogLimiter {
    pub(super) fn warn(&self, log_peer: LogPeer, about: LogAbout<'_>, what: fmt::Arguments<'_>) {
        let LogPeer { listener, peer, .. } = log_peer;
        let from = about.sender.map(|sender| display(Clean(sender)));
        let user = about.user.map(|user| display(Clean(user)));
        match self.allowance(log_peer) {
            LineAllowance::Log => warn!(%listener, %peer, user, from, "{what}"),
            LineAllowance::Last => warn!(
                %listener,
                %peer,
                user,
                from,
                "{what}; further lines about this network are logged at \"debug\" until it sends a message or the minute is over"
            ),
            LineAllowance::LeftOut => debug!(%listener, %peer, user, from, "{what}"),
        }
    }

    /// A message was accepted: the next refusal is logged again.
    pub(super) fn reset(&self, address: IpAddr, needs_no_login: bool) {
        if let Some(noted) = self.0.lock().get_mut(&Network::One(client_network(address, needs_no_login))) {
            noted.lines = 0;
        }
    }

    /// Logs how many lines were suppressed, and starts a new minute.
    pub(super) fn next_minute(&self) {
        for (network, lines) in self.take() {
            warn!(%network, lines, "too many refusals, failed logins and handshakes within a minute; not all were logged");
        }
    }

    /// The number of lines left out, by network.
    fn take(&self) -> Vec<(Network, u64)> {
        let noted = std::mem::take(&mut *self.0.lock());
        noted.into_iter().map(|(network, noted)| (network, noted.left_out)).filter(|(_, lines)| *lines > 0).collect()
    }

    fn allowance(&self, log_peer: LogPeer) -> LineAllowance {
        let most = if log_peer.may_send { MAX_LINES_SENDERS } else { MAX_LINES_STRANGERS };
        let mut networks = self.0.lock();
        let mut network = Network::One(client_network(log_peer.peer.ip(), log_peer.needs_no_login));
        if networks.len() >= MOST_NETWORKS && !networks.contains_key(&network) {
            network = Network::Others;
        }
        let noted = networks.entry(network).or_default();
        if noted.lines > most {
            noted.left_out += 1;
            return LineAllowance::LeftOut;
        }
        noted.lines += 1;
        if noted.lines > most { LineAllowance::Last } else { LineAllowance::Log }
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

    fn stranger(address: &str) -> LogPeer {
        let peer = SocketAddr::new(address.parse().expect("an address"), 40_000);
        let listener = SocketAddr::from(([127, 0, 0, 1], 2525));
        LogPeer { listener, peer, needs_no_login: false, may_send: false }
    }

    fn lines_logged(log_limiter: &LogLimiter, log_peer: LogPeer, times: u32) -> usize {
        (0..times).filter(|_| log_limiter.allowance(log_peer) != LineAllowance::LeftOut).count()
    }

    #[test]
    fn each_network_has_its_lines_and_a_minute_later_again() {
        let log_limiter = LogLimiter::default();
        for minute in 0..3 {
            for (address, lines) in [("192.0.2.1", 21), ("192.0.2.2", 21), ("2001:db8::1", 21), ("2001:db8::2", 0)] {
                assert_eq!(lines_logged(&log_limiter, stranger(address), 300), lines, "{address} in minute {minute}");
            }
            let mut left_out: Vec<_> =
                log_limiter.take().iter().map(|(network, lines)| format!("{network} {lines}")).collect();
            left_out.sort_unstable();
            assert_eq!(left_out, ["192.0.2.1/32 279", "192.0.2.2/32 279", "2001:db8::/64 579"]);
        }
    }

    #[test]
    fn a_client_that_may_send_has_more_lines_and_after_a_message_all_again() {
        let log_limiter = LogLimiter::default();
        let sender = LogPeer { may_send: true, ..stranger("192.0.2.1") };
        assert_eq!(lines_logged(&log_limiter, sender, 300), 101);
        log_limiter.reset(sender.peer.ip(), sender.needs_no_login);
        assert_eq!(lines_logged(&log_limiter, sender, 300), 101);
        assert_eq!(log_limiter.take()[0].1, 398);
    }

    #[test]
    fn more_networks_than_can_be_counted_share_the_lines_of_one() {
        let log_limiter = LogLimiter::default();
        let lines: usize =
            (0..1000).map(|n: u32| lines_logged(&log_limiter, stranger(&format!("2001:db8:0:{n:x}::1")), 30)).sum();
        assert_eq!(lines, 21 * (MOST_NETWORKS + 1));
        assert_eq!(log_limiter.0.lock().len(), MOST_NETWORKS + 1);
    }
}
