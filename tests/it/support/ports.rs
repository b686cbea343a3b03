//! Loopback ports for servers that cannot report which port they use.
//!
//! The port stays reserved: a bound socket that never listens keeps the kernel from giving it to an outgoing connection of
//! another test, while a server that sets SO_REUSEADDR (all of ours do) can still bind it.

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A port that is free on 127.0.0.1 and, where the machine has it, on ::1. Until a server takes it, connecting to it
/// is refused.
#[derive(Debug)]
pub struct ReservedPort {
    pub number: u16,
    _held: Vec<Socket>,
}

impl ReservedPort {
    pub fn take() -> Self {
        for _ in 0..100 {
            let v4 = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("127.0.0.1 has a free port");
            let address = v4.local_addr().expect("a bound socket has an address");
            let number = address.as_socket().expect("an internet address").port();
            if !has_ipv6() {
                return Self { number, _held: vec![v4] };
            }
            if let Ok(v6) = bind((Ipv6Addr::LOCALHOST, number).into()) {
                return Self { number, _held: vec![v4, v6] };
            }
        }
        panic!("no port is free on both 127.0.0.1 and ::1");
    }
}

/// Containers often have no ::1.
pub fn has_ipv6() -> bool {
    bind((Ipv6Addr::LOCALHOST, 0).into()).is_ok()
}

/// Whether an SMTP server on 127.0.0.1 greets on this port by now.
pub fn greets(port: u16) -> bool {
    let Ok(mut connection) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let mut greeting = [0; 4];
    connection.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout above zero");
    connection.read_exact(&mut greeting).is_ok() && &greeting == b"220 "
}

fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
