//! The listening socket of `[admin]`: accepts, bounds connections and slow clients, and ends within a second of the
//! stop, whatever is open.

use super::guard::{Guard, LocalAddress};
use super::{AdminOptions, AdminState, routes};
use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// At once; further clients wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// For the head of a request, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection is closed after this, so that clients that never finish cannot hold all of them.
const LONGEST_CONNECTION: Duration = Duration::from_secs(300);
/// For answers in progress at the stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// After accept() failed.
const PAUSE: Duration = Duration::from_millis(200);

/// Why the address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(
        "[admin] cannot listen on {address}: another program does (`ss -ltnp 'sport = :{}'` shows which); stop it, change \
         the `address` of [admin], or set it to \"off\"",
        address.port()
    )]
    InUse { address: SocketAddr },
    #[error("[admin] cannot listen on {address}: {source}; change the `address` of [admin], or set it to \"off\"")]
    Other { address: SocketAddr, source: io::Error },
}

/// Bound, but not serving yet.
#[derive(Debug)]
pub struct AdminServer {
    socket: TcpListener,
    local_address: SocketAddr,
    guard: Arc<Guard>,
}

impl AdminServer {
    /// Needs a tokio runtime. `hostname`: by which it may be addressed too; it changes with the configuration.
    pub fn bind(options: &AdminOptions, hostname: watch::Receiver<String>) -> Result<Self, AdminError> {
        let address = options.address;
        let bound = std::net::TcpListener::bind(address)
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .and_then(TcpListener::from_std)
            .and_then(|socket| Ok((socket.local_addr()?, socket)));
        match bound {
            Ok((local_address, socket)) => Ok(Self { socket, local_address, guard: Guard::new(options, hostname) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(AdminError::InUse { address }),
            Err(source) => Err(AdminError::Other { address, source }),
        }
    }

    /// The actual address: includes the real port if port 0 was requested.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Serves until `stop` is cancelled, and for at most a second more.
    pub async fn serve(self, state: AdminState, stop: CancellationToken) {
        let router = self.guard.around(routes::router(state));
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = open.join_next() => continue,
                accepted = accept(&self.socket, &connections) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => drop(open.spawn(connection(stream, router.clone(), permit, stop.clone()))),
                Err(error) => {
                    warn!(address = %self.local_address, "[admin] cannot accept a connection: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
        drop(self.socket);
        // What is still open after that is cut off: dropping the set ends its tasks.
        let _late = timeout(DRAIN_TIMEOUT, async { while open.join_next().await.is_some() {} }).await;
    }
}

async fn accept(socket: &TcpListener, connections: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = socket.accept().await?;
    Ok((stream, permit))
}

async fn connection(stream: TcpStream, router: Router, _permit: OwnedSemaphorePermit, stop: CancellationToken) {
    let Ok(local) = stream.local_addr() else { return };
    let service = tower::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(LocalAddress(local)));
        tower::ServiceExt::oneshot(router.clone(), request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(64);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = sleep(LONGEST_CONNECTION) => return,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        debug!("[admin]: a connection ended: {error}");
    }
}
