//! An address that does not answer, as behind a firewall that drops packets.

/// A listening socket whose backlog is full, so that connecting gets no answer.
pub struct BlackHole {
    pub address: std::net::SocketAddr,
    _listener: socket2::Socket,
    _waiting: Vec<socket2::Socket>,
}

impl BlackHole {
    pub fn open() -> Self {
        use socket2::{Domain, Socket, Type};
        let socket = || Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        let listener = socket();
        let loopback: std::net::SocketAddr = (std::net::Ipv6Addr::LOCALHOST, 0).into();
        listener.bind(&loopback.into()).expect("this machine has no ::1");
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let fill = |_| {
            let filler = socket();
            filler.set_nonblocking(true).unwrap();
            let _in_progress = filler.connect(&address);
            filler
        };
        let waiting = (0..8).map(fill).collect();
        Self { address: address.as_socket().unwrap(), _listener: listener, _waiting: waiting }
    }
}
