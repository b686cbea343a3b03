//! A TCP connection and its permit: the permit is free only after the socket is closed, whatever ends it.
//!
//! A provider counts a connection until it has seen its end. A dropped socket therefore shuts down its side at once,
//! and holds the permit until the peer has closed too, for at most a second.

use super::connection::PooledConnection;
use super::deadline::{Deadline, Expired};
use super::pool;
use socket2::{Domain, Protocol, SockRef, Type};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

pub(super) type ConnectionPermit = pool::Permit<PooledConnection>;

/// How long a closed connection keeps its permit for a peer that does not close.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Socket {
    /// `None` only while it is being closed.
    tcp: Option<TcpStream>,
    permit: ConnectionPermit,
}

impl Socket {
    /// One attempt at one address. From the first SYN on, the permit waits for the socket's end, because a peer may
    /// count a connection before the caller that gave up has seen it. On failure the permit is returned.
    pub(super) async fn connect(
        address: SocketAddr,
        source: Option<IpAddr>,
        permit: ConnectionPermit,
        deadline: Deadline,
    ) -> Result<Self, (io::Error, ConnectionPermit)> {
        let socket = match begin(address, source) {
            Ok(tcp) => Self { tcp: Some(tcp), permit },
            Err(error) => return Err((error, permit)),
        };
        let error = match deadline.limit(socket.connected()).await {
            Ok(Ok(())) => return Ok(socket),
            Ok(Err(error)) => error,
            Err(Expired) => io::ErrorKind::TimedOut.into(),
        };
        Err((error, socket.close().await))
    }

    pub(super) fn permit(&self) -> &ConnectionPermit {
        &self.permit
    }

    /// The port that was connected to.
    pub(super) fn peer_port(&self) -> Option<u16> {
        self.peer().map(|address| address.port())
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.peer_addr().ok()
    }

    /// This machine's side.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// Closes the socket and keeps the permit for the next one.
    pub(super) async fn close(mut self) -> ConnectionPermit {
        if let Some(tcp) = &mut self.tcp
            && SockRef::from(&*tcp).shutdown(Shutdown::Write).is_ok()
        {
            until_closed(tcp).await;
        }
        drop(self.tcp.take());
        self.permit.clone()
    }

    async fn connected(&self) -> io::Result<()> {
        let tcp = self.tcp.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        tcp.writable().await?;
        tcp.take_error()?.map_or(Ok(()), Err)
    }

    fn tcp(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.tcp.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(tcp) = self.tcp.take() else { return };
        self.permit.start_closing();
        let shut = SockRef::from(&tcp).shutdown(Shutdown::Write);
        if let (Ok(()), Ok(runtime)) = (shut, Handle::try_current()) {
            runtime.spawn(linger(self.permit.clone(), tcp));
        }
    }
}

/// Sends the first SYN and does not wait.
fn begin(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A command waits for its reply: holding back small segments only costs time.
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    TcpStream::from_std(socket.into())
}

/// Parameters are dropped last to first: the socket before its permit, even if the runtime ends.
async fn linger(permit: ConnectionPermit, mut tcp: TcpStream) {
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
