//! The beginning of a load balancer's connection: reads the PROXY header and not one octet more, so that whatever follows,
//! plain text or TLS, is the client's.
//!
//! Bounded in octets and in time. The limits of the listener apply to the client that the header names, so they are asked
//! after it.

use super::proxy::{self, HeaderError, HeaderProgress, ProxiedClient};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// A load balancer sends its header with the first packet; the protocol asks for at least 3 seconds, which a lost
/// packet takes.
const LONGEST: Duration = Duration::from_secs(10);

/// Why no client could be learned.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoClient {
    /// Usual for load balancers that only try whether the port is open.
    #[error("it closed the connection before a PROXY header")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("its PROXY header is not complete after {} seconds", LONGEST.as_secs())]
    Slow,
}

/// The client that the load balancer at `peer` speaks for; itself, where it speaks for none that it knows.
pub(super) async fn client<S: AsyncRead + Unpin>(socket: &mut S, peer: SocketAddr) -> Result<SocketAddr, NoClient> {
    match timeout(LONGEST, header(socket)).await.map_err(|_| NoClient::Slow)?? {
        // The client of an IPv4 connection has the same address on listeners of both families.
        ProxiedClient::At(client) => Ok(SocketAddr::new(client.ip().to_canonical(), client.port())),
        ProxiedClient::LoadBalancer => Ok(peer),
    }
}

async fn header<S: AsyncRead + Unpin>(socket: &mut S) -> Result<ProxiedClient, NoClient> {
    let mut input = Vec::new();
    loop {
        let missing = match proxy::read(&input)? {
            HeaderProgress::Complete(client) => return Ok(client),
            HeaderProgress::Incomplete(missing) => missing as u64,
        };
        if (&mut *socket).take(missing).read_buf(&mut input).await? == 0 {
            return Err(NoClient::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    const LOAD_BALANCER: ([u8; 4], u16) = ([10, 0, 0, 1], 50_000);

    #[tokio::test]
    async fn nothing_behind_the_header_is_read_however_it_arrives() {
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x0a\0\0\x01\x9c\x40\0\x19";
        for header in
            [&b"PROXY TCP4 192.0.2.1 10.0.0.1 40000 25\r\n"[..], b"PROXY TCP6 ::ffff:192.0.2.1 ::1 40000 25\r\n", v2]
        {
            for step in [1, 7, 1000] {
                let whole = [header, b"PROXY TCP4 203.0.113.9 10.0.0.1 1 1\r\nEHLO x\r\n"].concat();
                let (mut sender, mut socket) = duplex(1024);
                let sending = tokio::spawn(async move {
                    for part in whole.chunks(step) {
                        sender.write_all(part).await.expect("a pipe");
                        tokio::task::yield_now().await;
                    }
                });
                let found = client(&mut socket, LOAD_BALANCER.into()).await.expect("a client");
                assert_eq!(found.to_string(), "192.0.2.1:40000", "{step}");
                let mut rest = String::new();
                socket.read_to_string(&mut rest).await.expect("text");
                assert_eq!(rest, "PROXY TCP4 203.0.113.9 10.0.0.1 1 1\r\nEHLO x\r\n", "{step}");
                sending.await.expect("no panic");
            }
        }
    }

    #[tokio::test]
    async fn a_load_balancers_own_connection_has_its_own_address() {
        for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
            let found = client(&mut &*header, LOAD_BALANCER.into()).await.expect("a client");
            assert_eq!(found, LOAD_BALANCER.into());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_come_ends_the_connection() {
        for (sent, closes, expected) in [
            (&b""[..], false, "not complete after 10 seconds"),
            (b"PROXY TCP4 192.0.2.1", false, "not complete after 10 seconds"),
            (b"", true, "closed"),
            (b"PROXY TCP4 192.0.2.1", true, "closed"),
            (b"EHLO x\r\n", false, "does not begin with a PROXY header"),
            (b"\x16\x03\x01", false, "does not begin with a PROXY header"),
        ] {
            let (mut sender, mut socket) = duplex(1024);
            sender.write_all(sent).await.expect("a pipe");
            let kept = (!closes).then_some(sender);
            let error = client(&mut socket, LOAD_BALANCER.into()).await.expect_err("no client").to_string();
            assert!(error.contains(expected), "{}: {error}", sent.escape_ascii());
            drop(kept);
        }
    }
}
