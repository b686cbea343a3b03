//! A TCP connection and the permit it lives on: the permit is free only after the socket is closed, whatever ends it.
//!
//! A provider counts a connection until it has seen its end. So a socket that is dropped says at once that nothing more
//! will come, and holds the permit until the peer has closed too, for a second at most.

use super::pool;
use super::upstream::Connection;
use socket2::SockRef;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

pub(super) type Permit = pool::Permit<Connection>;

/// How long a closed connection keeps its permit for a peer that does not close.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Socket {
    /// `None` only when it is being closed.
    tcp: Option<TcpStream>,
    permit: Permit,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, permit: Permit) -> Self {
        Self { tcp: Some(tcp), permit }
    }

    pub(super) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Closes the socket and keeps the permit for the next one.
    pub(super) async fn close(mut self) -> Permit {
        if let Some(tcp) = &mut self.tcp {
            let _already_shut = SockRef::from(&*tcp).shutdown(Shutdown::Write);
            until_closed(tcp).await;
        }
        drop(self.tcp.take());
        self.permit.clone()
    }

    fn tcp(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.tcp.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(tcp) = self.tcp.take() else { return };
        self.permit.leave();
        let shut = SockRef::from(&tcp).shutdown(Shutdown::Write);
        if let (Ok(()), Ok(runtime)) = (shut, Handle::try_current()) {
            runtime.spawn(linger(self.permit.clone(), tcp));
        }
    }
}

/// Parameters are dropped last to first: the socket before its permit, also when the runtime ends.
async fn linger(permit: Permit, mut tcp: TcpStream) {
    until_closed(&mut tcp).await;
    drop(tcp);
    drop(permit);
}

async fn until_closed(tcp: &mut TcpStream) {
    let mut scratch = [0; 4096];
    let closed = async { while tcp.read(&mut scratch).await.is_ok_and(|octets| octets > 0) {} };
    let _closed_or_not = tokio::time::timeout(LINGER, closed).await;
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.tcp()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.tcp()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_shutdown(cx)
    }
}
