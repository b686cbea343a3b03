//! A connection as the pool keeps it: a session over a socket that holds its permit.

use super::pool::Pooled;
use super::smtp::{ClientSession, Secured};
use super::socket::ConnectionPermit;
use super::surplus::WorkingConnection;
use tokio::runtime::Handle;

/// A session and how many messages it was used for.
#[derive(Debug)]
pub(super) struct PooledConnection {
    pub session: ClientSession<Secured>,
    pub messages: usize,
    /// Ends with the connection.
    pub working: WorkingConnection,
}

impl Pooled for PooledConnection {
    fn permit(&self) -> &ConnectionPermit {
        self.session.permit()
    }
}

/// Says QUIT in the background; the permit is held until the connection is closed.
pub(super) fn retire(connection: PooledConnection) {
    connection.permit().start_closing();
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            connection.session.quit().await;
            drop(connection.working);
        });
    }
}
