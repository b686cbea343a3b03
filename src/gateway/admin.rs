//! `[admin]` at start: the registry of the metrics, its handles for each part, and the server.

use super::StartError;
use crate::admin::{self, AdminError, AdminServer, AdminState};
use crate::config::Settings;
use crate::control::LiveWatch;
use crate::message::RelayStep;
use crate::observe::Clock;
use crate::observe::clock::seconds_since_epoch;
use crate::observe::metrics::{DeliveryMetrics, ListenerMetrics, MetricsRegistry, QueueMetrics};
use crate::queue::Operator;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// The metrics of this gateway; without `[admin]` nothing is recorded.
#[derive(Debug, Clone, Default)]
pub(super) struct GatewayMetrics(Option<MetricsRegistry>);

impl GatewayMetrics {
    pub fn new(settings: &Settings) -> Self {
        let registry = settings.admin.as_ref().map(|_| MetricsRegistry::new());
        if let Some(registry) = &registry {
            registry.set_configuration_read(true, seconds_since_epoch());
        }
        Self(registry)
    }

    /// What became of a reload.
    pub fn configuration_read(&self, is_in_use: bool) {
        if let Some(registry) = &self.0 {
            registry.set_configuration_read(is_in_use, seconds_since_epoch());
        }
    }

    /// `address`: as configured.
    pub fn listener(&self, address: SocketAddr) -> ListenerMetrics {
        self.0.as_ref().map(|registry| registry.listener(&address.to_string())).unwrap_or_default()
    }

    pub fn delivery(&self, settings: &Settings) -> DeliveryMetrics {
        let names = settings.upstreams.iter().map(|upstream| &*upstream.name);
        let steps = RelayStep::ALL.map(RelayStep::label);
        self.0.as_ref().map(|registry| registry.delivery(names, &steps)).unwrap_or_default()
    }

    pub fn queue(&self) -> QueueMetrics {
        self.0.as_ref().map(MetricsRegistry::queue).unwrap_or_default()
    }
}

/// What serves and keeps the metrics.
#[derive(Debug)]
pub(super) struct GatewayAdmin {
    server: Option<AdminServer>,
    metrics: GatewayMetrics,
}

impl GatewayAdmin {
    /// Mail does not depend on it: if nobody chose the address and it is taken, the gateway starts without it.
    ///
    /// `hostname`: the gateway's, whenever it changes.
    pub fn bind(
        settings: &Settings,
        hostname: watch::Receiver<String>,
        metrics: GatewayMetrics,
    ) -> Result<Self, StartError> {
        let Some(typed) = &settings.admin else { return Ok(Self { server: None, metrics }) };
        let server = match AdminServer::bind(&typed.options, hostname) {
            Ok(server) => Some(server),
            Err(error @ AdminError::InUse { .. }) if !typed.is_given => {
                warn!("{error}; continuing without health and metrics");
                None
            }
            Err(AdminError::Other { address, source }) if !typed.is_given => {
                warn!("[admin] cannot listen on {address}: {source}; continuing without health and metrics");
                None
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self { server, metrics })
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(AdminServer::local_address)
    }

    /// Until the stop.
    pub fn open(self, aside: &mut JoinSet<()>, queue: Arc<dyn Operator>, live: LiveWatch, stop: &CancellationToken) {
        let GatewayMetrics(Some(metrics)) = self.metrics else { return };
        aside.spawn(admin::sum_up(metrics.clone(), stop.clone()));
        if let Some(server) = self.server {
            let state = AdminState { queue, live, metrics, clock: Clock::System };
            aside.spawn(server.serve(state, stop.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use std::path::Path;

    /// Two gateways on one machine, neither of which says anything about `[admin]`.
    #[tokio::test]
    async fn a_taken_address_that_nobody_chose_keeps_no_gateway_from_starting() {
        let text = "[[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";
        let mut settings =
            config::load_text(text, Path::new(""), &Environment::of([("", ""); 0])).expect("a configuration");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let admin = settings.admin.as_mut().expect("on by default");
        assert!(!admin.is_given && admin.options.address.port() == 8025, "{admin:?}");
        admin.options.address = taken.local_addr().expect("its address");
        let metrics = GatewayMetrics::new(&settings);
        let hostname = watch::Sender::new(settings.hostname.clone());
        let bind = |settings: &Settings| GatewayAdmin::bind(settings, hostname.subscribe(), metrics.clone());
        assert_eq!(bind(&settings).expect("it goes on").address(), None);
        settings.admin.as_mut().expect("still on").is_given = true;
        let refused = bind(&settings).expect_err("a choice is kept");
        assert!(refused.to_string().contains("set it to \"off\""), "{refused}");
    }
}
