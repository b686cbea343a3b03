//! A provider that can be unavailable: its address and certificates outlive it.

use super::application::configuration;
use super::certificate::Authority;
use super::gateway::Setup;
use super::ports::ReservedPort;
use super::upstream::{Builder, ScriptedUpstream};
use std::net::SocketAddr;

pub struct Provider {
    port: ReservedPort,
    authority: Authority,
}

impl Provider {
    /// Nobody is there yet: connecting is refused.
    pub fn away() -> Self {
        Self { port: ReservedPort::take(), authority: Authority::new() }
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port.number).into()
    }

    pub fn builder(&self) -> Builder {
        let issued = self.authority.issue(&["localhost", "127.0.0.1"]);
        ScriptedUpstream::builder().address(self.address()).identity(issued, &self.authority.pem())
    }

    /// Waits until an earlier one has gone.
    pub async fn start(&self) -> ScriptedUpstream {
        super::until("the port is free", || std::net::TcpListener::bind(self.address()).is_ok()).await;
        self.builder().start().await
    }

    /// As `application::queued_in_front_of`.
    pub fn queued(&self, upstream: &str, queue: &str) -> Setup {
        let config = configuration(self.address(), "queue", upstream, queue);
        Setup::new(Some(&config)).file("ca.pem", self.authority.pem())
    }
}
