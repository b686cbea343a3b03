//! Listening sockets: opened here, or inherited from a service manager that keeps them over a restart.
//!
//! A socket that systemd holds (`LISTEN_FDS`, sd_listen_fds(3)) stays open while the gateway drains and starts again,
//! so clients wait in the kernel's queue instead of being refused. A socket serves the listener whose `address` it is
//! bound to.

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

const BACKLOG: i32 = 1024;

/// Why inherited sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedSocketError {
    #[error("LISTEN_FDS: the service manager passed something that is not a TCP socket: {0}; correct the socket unit")]
    NotTcp(io::Error),
    #[error(
        "LISTEN_FDS: the service manager passed a socket on {address}, and no listener has that `address`; \
         add the listener or correct the socket unit"
    )]
    Unclaimed { address: SocketAddr },
}

/// The sockets that the service manager passed to this process; usually none.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<(SocketAddr, TcpListener)>);

impl InheritedSockets {
    /// Reads the environment and removes the variables it used, so that no child process mistakes the sockets for its
    /// own. Call it before threads start.
    pub fn of_process() -> Result<Self, InheritedSocketError> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let socket = passed.take_tcp_listener(index).map_err(InheritedSocketError::NotTcp)?;
            let Some(socket) = socket else { continue };
            let address = socket.local_addr().map_err(InheritedSocketError::NotTcp)?;
            sockets.push((address, socket));
        }
        Ok(Self(sockets))
    }

    /// The socket that is bound to this address.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let index = self.0.iter().position(|(bound, _)| *bound == address)?;
        Some(self.0.swap_remove(index).1)
    }

    /// An error if a socket is left over: clients that connect to it would never be served.
    pub fn all_claimed(&self) -> Result<(), InheritedSocketError> {
        match self.0.first() {
            Some(&(address, _)) => Err(InheritedSocketError::Unclaimed { address }),
            None => Ok(()),
        }
    }
}

/// Whether a listener on an IPv6 address accepts IPv4 clients too. Only the wildcard address can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv4Clients {
    /// `[::]` accepts them; their addresses are shown and matched as IPv4.
    Accepted,
    /// Another listener accepts them.
    LeftToOthers,
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "cannot listen on {address}: another program does (`ss -ltnp 'sport = :{}'` shows which); stop it or change the listener's `address`",
        address.port()
    )]
    InUse { address: SocketAddr },
    #[error(
        "cannot listen on {address}: ports below 1024 are for root; use a port such as 2525, or give the program CAP_NET_BIND_SERVICE"
    )]
    Privileged { address: SocketAddr },
    #[error("cannot listen on {address}: this machine has no such address; change the listener's `address`")]
    NoSuchAddress { address: SocketAddr },
    #[error("cannot listen on {address}: this machine has no IPv6; remove the listener")]
    NoIpv6 { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Other { address: SocketAddr, source: io::Error },
}

impl BindError {
    pub(super) fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::Privileged { address },
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress { address },
            io::ErrorKind::Unsupported if address.is_ipv6() => Self::NoIpv6 { address },
            _ => Self::Other { address, source },
        }
    }
}

/// Opens a listening socket.
pub fn open(address: SocketAddr, ipv4: Ipv4Clients) -> Result<TcpListener, BindError> {
    listen(address, ipv4).map_err(|error| BindError::new(address, error))
}

fn listen(address: SocketAddr, ipv4: Ipv4Clients) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Set in both cases, because the default depends on the machine (net.ipv6.bindv6only).
        socket.set_only_v6(!address.ip().is_unspecified() || ipv4 == Ipv4Clients::LeftToOthers)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn inherited(sockets: Vec<TcpListener>) -> InheritedSockets {
        InheritedSockets(sockets.into_iter().map(|socket| (socket.local_addr().expect("bound"), socket)).collect())
    }

    #[test]
    fn a_socket_serves_the_listener_with_its_address_and_none_is_left() {
        let sockets = [0; 2].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
        let [first, second] = sockets.each_ref().map(|socket| socket.local_addr().expect("bound"));
        let mut inherited = inherited(sockets.into());
        assert!(inherited.take(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), first.port())).is_none());
        assert!(inherited.take(first).is_some());
        assert!(inherited.take(first).is_none());
        let left = inherited.all_claimed().expect_err("the second socket");
        assert!(left.to_string().contains(&second.to_string()), "{left}");
        assert!(inherited.take(second).is_some());
        inherited.all_claimed().expect("all taken");
    }

    #[test]
    fn the_ipv6_wildcard_takes_ipv4_clients_unless_another_listener_does() {
        let wildcard = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let both = match open(wildcard, Ipv4Clients::Accepted) {
            Ok(socket) => socket,
            Err(BindError::NoIpv6 { .. }) => return,
            Err(other) => panic!("{other}"),
        };
        let ipv4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), both.local_addr().expect("bound").port());
        std::net::TcpStream::connect(ipv4).expect("IPv4 clients are accepted");
        assert!(open(ipv4, Ipv4Clients::Accepted).is_err(), "the port is taken in both families");
        let alone = open(wildcard, Ipv4Clients::LeftToOthers).expect("a free port");
        let ipv4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), alone.local_addr().expect("bound").port());
        open(ipv4, Ipv4Clients::Accepted).expect("IPv4 is free for another listener");
    }
}
