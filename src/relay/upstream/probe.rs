//! One connection that carries no mail: how far it comes, and what was learned on the way. It holds a permit like any
//! other, and says nothing to the breaker.

use super::{Claim, PoolGrant, Upstream, UpstreamInner, retire};
use crate::message::outcome::Reason;
use crate::relay::connect::Dialer;
use crate::relay::deadline::{Deadline, Expired};
use crate::relay::pool::Reuse;
use crate::relay::smtp::{self, OpeningNotes};
use crate::relay::socket::{ConnectionPermit, Socket};
use crate::relay::{Port, UpstreamOptions};
use crate::smtp::{Reply, ReversePath};
use std::net::SocketAddr;

/// What one connection showed.
#[derive(Debug, Default)]
pub struct ProbeReport {
    /// Where it was connected to, and how TLS begins there.
    pub port: Option<Port>,
    pub peer: Option<SocketAddr>,
    /// This machine's side.
    pub local: Option<SocketAddr>,
    pub opening: OpeningNotes,
    /// The login was accepted, or none was needed.
    pub is_open: bool,
    /// The reply to MAIL, if a sender was given and the connection came so far.
    pub sender: Option<Result<Reply, Reason>>,
    /// Why it was not opened.
    pub failure: Option<Reason>,
    /// The caller's time was over, so a time-out says nothing about the server.
    pub was_cut_short: bool,
}

impl Upstream {
    /// Connects, logs in and says QUIT; with a sender, MAIL and RSET in between.
    pub async fn probe(&self, sender: Option<&ReversePath>, deadline: Deadline) -> ProbeReport {
        let mut report = ProbeReport::default();
        report.opening.wants_certificate = true;
        report.failure = self.try_probe(sender, deadline, &mut report).await.err();
        report.was_cut_short = report.failure.is_some() && deadline.has_passed();
        report
    }

    /// Whether anything answers at this port of the same host. Nothing is said there.
    pub(in crate::relay) async fn try_port(&self, number: u16, deadline: Deadline) -> Result<SocketAddr, Reason> {
        let mut options = UpstreamOptions::clone(&self.0.options);
        options.endpoint.port = number;
        options.endpoint.fallback_ports.clear();
        let mut addresses = self.0.addresses.clone();
        addresses.iter_mut().flatten().for_each(|address| address.set_port(number));
        let (socket, _) = self.dial(&options, addresses.as_deref(), deadline).await?;
        let peer = socket.peer().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], number)));
        drop(socket.close().await);
        Ok(peer)
    }

    async fn try_probe(
        &self,
        sender: Option<&ReversePath>,
        deadline: Deadline,
        report: &mut ProbeReport,
    ) -> Result<(), Reason> {
        let options = &self.0.options;
        let (socket, port) = self.dial(options, self.0.addresses.as_deref(), deadline).await?;
        (report.port, report.peer, report.local) = (Some(port), socket.peer(), socket.local());
        smtp::check_credentials(options)?;
        let mut session = smtp::open(socket, port.tls, options, deadline, &mut report.opening).await?;
        report.is_open = true;
        if let Some(sender) = sender {
            report.sender = Some(session.try_sender(sender, deadline).await);
        }
        session.quit().await;
        Ok(())
    }

    async fn dial(
        &self,
        options: &UpstreamOptions,
        addresses: Option<&[SocketAddr]>,
        deadline: Deadline,
    ) -> Result<(Socket, Port), Reason> {
        let permit = self.permit_for_probe(deadline).await?;
        let UpstreamInner { account, member, family, port, .. } = &*self.0;
        let dialer = Dialer { options, pool: &account.pool, member, addresses, family, port };
        dialer.dial(permit, deadline).await.map_err(|(reason, _permit)| reason)
    }

    /// Waits in line, and closes an idle connection if there is no other place.
    async fn permit_for_probe(&self, deadline: Deadline) -> Result<ConnectionPermit, Reason> {
        if let Some(trouble) = self.ledger_trouble() {
            return Err(self.unshared(&trouble));
        }
        let mut ticket = match self.0.account.pool.claim(&self.0.member, Reuse::Fresh) {
            Claim::Granted(grant) => return self.permit_of(grant).await,
            Claim::Closed => return Err(self.busy()),
            Claim::Wait(ticket, evicted) => {
                evicted.into_iter().for_each(retire);
                self.0.account.notify_need();
                ticket
            }
        };
        match deadline.limit(ticket.granted()).await {
            Ok(Some(grant)) => self.permit_of(grant).await,
            Ok(None) | Err(Expired) => Err(self.busy()),
        }
    }

    async fn permit_of(&self, grant: PoolGrant<super::PooledConnection>) -> Result<ConnectionPermit, Reason> {
        match grant {
            PoolGrant::Permit(permit) => Ok(permit),
            PoolGrant::Connection(connection) => {
                drop(connection.working);
                Ok(connection.session.into_permit().await)
            }
        }
    }

    /// The same server at this port alone, for a probe that asks whether that works. It shares the account.
    #[must_use]
    pub(in crate::relay) fn at(&self, port: Port) -> Self {
        let mut options = UpstreamOptions::clone(&self.0.options);
        (options.endpoint.port, options.endpoint.tls) = (port.number, port.tls);
        options.endpoint.fallback_ports.clear();
        Self::build(options, self.0.account.clone(), self.0.addresses.clone())
    }
}
