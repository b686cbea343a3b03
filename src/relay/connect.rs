//! From a host name to a TCP connection; every simultaneous attempt holds its own permit.
//!
//! Happy eyeballs (RFC 8305): families take turns, and a second attempt starts beside the first after 250 ms, but only
//! if another permit is free; otherwise the addresses are tried one by one, each with its share of the time. If no
//! address answers on a port, the next port is tried; the one that works is used for as long as it does.

use super::connection::PooledConnection;
use super::deadline::{Deadline, Expired};
use super::pool::{Pool, PoolMember};
use super::socket::{ConnectionPermit, Socket};
use super::{Port, UpstreamOptions};
use crate::message::outcome::{Cause, Reason, RelayStep};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, warn};

/// RFC 8305 §5, "Connection Attempt Delay".
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The address family that worked last.
#[derive(Debug, Default)]
pub(super) struct Family(AtomicU8);

impl Family {
    fn remember(&self, address: IpAddr) {
        self.0.store(if address.is_ipv4() { 4 } else { 6 }, Ordering::Relaxed);
    }

    /// RFC 8305 §4: IPv6 first if nothing is known.
    fn prefers(&self, address: &SocketAddr) -> bool {
        address.is_ipv4() == (self.0.load(Ordering::Relaxed) == 4)
    }
}

/// The port that worked last. Attempts read and write it concurrently: only the current value can be cleared.
#[derive(Debug, Default)]
pub(super) struct WorkingPort(Mutex<Option<Port>>);

impl WorkingPort {
    pub(super) fn held(&self) -> Option<Port> {
        *self.0.lock()
    }

    /// Returns whether the port is new.
    pub(super) fn remember(&self, port: Port) -> bool {
        let mut held = self.0.lock();
        let is_news = held.is_none();
        held.get_or_insert(port);
        is_news
    }

    /// Returns whether this port was the remembered one.
    fn forget(&self, port: Port) -> bool {
        self.0.lock().take_if(|held| *held == port).is_some()
    }
}

/// The source of permits for further attempts.
pub(super) struct Dialer<'a> {
    pub options: &'a UpstreamOptions,
    pub pool: &'a Arc<Pool<PooledConnection>>,
    pub member: &'a Arc<PoolMember>,
    /// Set if they need not be looked up.
    pub addresses: Option<&'a [SocketAddr]>,
    pub family: &'a Family,
    pub port: &'a WorkingPort,
}

/// Why no address could be reached on one port.
struct Unreachable {
    failed: Vec<(SocketAddr, io::Error)>,
    permit: ConnectionPermit,
}

type Failure = (SocketAddr, io::Error, ConnectionPermit);
type ConnectAttempt<'a> = Pin<Box<dyn Future<Output = Result<(SocketAddr, Socket), Failure>> + Send + 'a>>;

impl Dialer<'_> {
    /// On failure the permit is returned with the reason.
    pub(super) async fn dial(
        &self,
        permit: ConnectionPermit,
        deadline: Deadline,
    ) -> Result<(Socket, Port), (Reason, ConnectionPermit)> {
        let deadline = deadline.capped(self.options.limits.connect_timeout);
        let addresses = match self.resolve(deadline).await {
            Ok(addresses) => addresses,
            Err(reason) => return Err((reason, permit)),
        };
        let ports = self.ports();
        let start = Instant::now();
        let mut permit = permit;
        let mut failed = Vec::new();
        for (at, port) in ports.iter().enumerate() {
            let mut there = addresses.clone();
            // Given addresses keep their ports on the first one.
            if port.number != self.options.endpoint.port {
                there.iter_mut().for_each(|address| address.set_port(port.number));
            }
            match self.race(there, permit, share(deadline, ports.len() - at)).await {
                Ok(socket) => {
                    self.remember(*port, &ports[..at]);
                    return Ok((socket, *port));
                }
                Err(unreachable) => {
                    let is_blocked = unreachable.is_blocked();
                    if is_blocked
                        && (!unreachable.is_silence() || start.elapsed() >= self.options.limits.connect_timeout / 2)
                    {
                        self.forget(*port);
                    }
                    permit = unreachable.permit;
                    failed.extend(unreachable.failed);
                    if !is_blocked {
                        break;
                    }
                }
            }
        }
        Err((self.unreachable(&failed), permit))
    }

    /// In the order in which they are tried.
    fn ports(&self) -> Vec<Port> {
        match self.port.held() {
            Some(port) => vec![port],
            None => {
                let first = Port { number: self.options.endpoint.port, tls: self.options.endpoint.tls };
                std::iter::once(first).chain(self.options.endpoint.fallback_ports.iter().copied()).collect()
            }
        }
    }

    fn remember(&self, port: Port, silent: &[Port]) {
        if self.port.remember(port) && !silent.is_empty() {
            let silent = silent.iter().map(|port| port.number.to_string()).collect::<Vec<_>>().join(", ");
            let upstream = &*self.options.name;
            let host = &*self.options.endpoint.host;
            warn!(upstream, "nothing answers at {host} on port {silent}; port {} is used from now on", port.number);
        }
    }

    /// A firewall may close a port later. With a single port there is nothing else to try.
    fn forget(&self, port: Port) {
        if !self.options.endpoint.fallback_ports.is_empty() && self.port.forget(port) {
            let upstream = &*self.options.name;
            let host = &*self.options.endpoint.host;
            warn!(
                upstream,
                "nothing answers at {host} on port {} any more; its ports are tried in order again", port.number
            );
        }
    }

    async fn resolve(&self, deadline: Deadline) -> Result<VecDeque<SocketAddr>, Reason> {
        let host = &self.options.endpoint.host;
        let found = match self.addresses {
            Some(addresses) => addresses.to_vec(),
            None => self.look_up(deadline).await?,
        };
        let source = self.options.endpoint.source_address;
        let usable = found.iter().filter(|address| source.is_none_or(|source| source.is_ipv4() == address.is_ipv4()));
        let addresses = interleave(usable.copied(), |address| self.family.prefers(address));
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        let text = match source {
            Some(source) if !found.is_empty() => {
                format!("{host} has no address of the family of `source_address` {source}")
            }
            _ => format!("the name {host} has no address"),
        };
        Err(Reason::new(Some(&self.options.name), RelayStep::Resolve, Cause::Network(text)))
    }

    async fn look_up(&self, deadline: Deadline) -> Result<Vec<SocketAddr>, Reason> {
        let host = self.options.endpoint.host.trim_start_matches('[').trim_end_matches(']');
        let reason = |cause| Reason::new(Some(&self.options.name), RelayStep::Resolve, cause);
        match deadline.limit(tokio::net::lookup_host((host, self.options.endpoint.port))).await {
            Ok(Ok(found)) => Ok(found.collect()),
            Ok(Err(error)) => {
                Err(reason(Cause::Network(format!("the address of {host} could not be looked up: {error}")))
                    .with_advice("check `host`, and that this machine can look names up"))
            }
            Err(Expired) => Err(reason(Cause::TimedOut)),
        }
    }

    async fn race(
        &self,
        mut waiting: VecDeque<SocketAddr>,
        permit: ConnectionPermit,
        deadline: Deadline,
    ) -> Result<Socket, Unreachable> {
        let mut running = Vec::<ConnectAttempt<'_>>::new();
        let mut failed = Vec::new();
        let mut spare = Some(permit);
        loop {
            if waiting.is_empty() && !running.is_empty() {
                spare = None;
            }
            let next = if running.is_empty() { spare.take() } else { None };
            let next = next.or_else(|| {
                // Never request a permit without an address to use it for.
                let wanted = !waiting.is_empty();
                wanted.then(|| spare.take().or_else(|| self.pool.try_permit(self.member))).flatten()
            });
            match (next, waiting.pop_front()) {
                (Some(permit), Some(address)) => {
                    let share = share(deadline, waiting.len() + 1);
                    running.push(Box::pin(self.attempt(address, permit, share)));
                }
                (Some(permit), None) => return Err(Unreachable { failed, permit }),
                (None, Some(address)) => waiting.push_front(address),
                (None, None) => {}
            }
            let delay = if waiting.is_empty() { Deadline::NONE } else { Deadline::after(ATTEMPT_DELAY) };
            match delay.limit(first_done(&mut running)).await {
                Ok(Ok((address, socket))) => {
                    self.family.remember(address.ip());
                    return Ok(socket);
                }
                Ok(Err((address, error, permit))) => {
                    debug!(upstream = %self.options.name, "no connection to {address}: {error}");
                    failed.push((address, error));
                    spare = Some(permit);
                }
                Err(Expired) => {}
            }
        }
    }

    async fn attempt(
        &self,
        address: SocketAddr,
        permit: ConnectionPermit,
        deadline: Deadline,
    ) -> Result<(SocketAddr, Socket), Failure> {
        debug!(upstream = %self.options.name, "connecting to {address}");
        match Socket::connect(address, self.options.endpoint.source_address, permit, deadline).await {
            Ok(socket) => Ok((address, socket)),
            Err((error, permit)) => Err((address, error, permit)),
        }
    }

    /// Every address with what went wrong there.
    fn unreachable(&self, failed: &[(SocketAddr, io::Error)]) -> Reason {
        let texts: Vec<String> =
            failed.iter().map(|(address, error)| format!("{address}: {}", explain(error))).collect();
        let reason = Reason::new(Some(&self.options.name), RelayStep::Connect, Cause::Network(texts.join(", ")));
        let all = |kinds: &[io::ErrorKind]| failed.iter().all(|(_, error)| kinds.contains(&error.kind()));
        let is_often_blocked =
            self.options.endpoint.fallback_ports.is_empty() && matches!(self.options.endpoint.port, 25 | 465);
        if is_often_blocked && all(&[io::ErrorKind::TimedOut, io::ErrorKind::ConnectionRefused]) {
            reason.with_advice("many hosters block ports 25 and 465; try 587 or 2525 if the provider has them")
        } else if all(&[io::ErrorKind::ConnectionRefused]) {
            reason.with_advice("nothing listens there: check `host` and `port`")
        } else {
            reason
        }
    }
}

impl Unreachable {
    /// No server replied, as with a firewall that blocks this port.
    fn is_blocked(&self) -> bool {
        use io::ErrorKind::*;
        let blocked = [TimedOut, ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied];
        self.failed.iter().all(|(_, error)| blocked.contains(&error.kind()))
    }

    /// No answer in the given time; if that time is short, this says nothing about the port.
    fn is_silence(&self) -> bool {
        self.failed.iter().any(|(_, error)| error.kind() == io::ErrorKind::TimedOut)
    }
}

/// Waits for the first attempt that ends and removes it from `running`. If none is running, it never returns.
async fn first_done<T>(running: &mut Vec<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> T {
    poll_fn(|cx| {
        for at in 0..running.len() {
            if let Poll::Ready(output) = running[at].as_mut().poll(cx) {
                drop(running.remove(at));
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
    .await
}

/// The remaining time, divided among the remaining addresses.
fn share(deadline: Deadline, addresses: usize) -> Deadline {
    match (deadline.remaining(), u32::try_from(addresses)) {
        (Some(remaining), Ok(addresses)) if addresses > 1 => deadline.capped(remaining / addresses),
        _ => deadline,
    }
}

/// Preferred family first, then the families in turn; no address twice. RFC 8305 §4.
fn interleave(
    addresses: impl Iterator<Item = SocketAddr>,
    preferred: impl Fn(&SocketAddr) -> bool,
) -> VecDeque<SocketAddr> {
    let mut first = VecDeque::new();
    let mut second = VecDeque::new();
    for address in addresses {
        let family = if preferred(&address) { &mut first } else { &mut second };
        if !family.contains(&address) {
            family.push_back(address);
        }
    }
    let mut mixed = VecDeque::with_capacity(first.len() + second.len());
    while !first.is_empty() || !second.is_empty() {
        mixed.extend(first.pop_front());
        mixed.extend(second.pop_front());
    }
    mixed
}

fn explain(error: &io::Error) -> String {
    use io::ErrorKind::*;
    match error.kind() {
        ConnectionRefused => "connection refused".to_owned(),
        TimedOut => "no answer in time".to_owned(),
        HostUnreachable | NetworkUnreachable => "no route there".to_owned(),
        AddrNotAvailable => "`source_address` is not an address of this machine".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn families_take_turns() {
        let found = addresses(&["192.0.2.1:25", "192.0.2.2:25", "[2001:db8::1]:25", "192.0.2.1:25"]);
        let family = Family::default();
        let mixed = |family: &Family| Vec::from(interleave(found.iter().copied(), |address| family.prefers(address)));
        assert_eq!(mixed(&family), addresses(&["[2001:db8::1]:25", "192.0.2.1:25", "192.0.2.2:25"]));
        family.remember([192, 0, 2, 1].into());
        assert_eq!(mixed(&family), addresses(&["192.0.2.1:25", "[2001:db8::1]:25", "192.0.2.2:25"]));
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_gets_its_share_of_the_time() {
        let second = Duration::from_secs(1);
        let deadline = Deadline::after(10 * second);
        assert_eq!(share(deadline, 4).remaining(), Some(10 * second / 4));
        assert_eq!(share(deadline, 1), deadline);
        assert_eq!(share(Deadline::NONE, 4), Deadline::NONE);
    }
}
