//! `Examination`: what the probes share, and whom they ask about the queue.

use super::check::CheckResult;
use super::dns::Dns;
use super::domains::{self, TrialSender};
use crate::config::{Settings, UpstreamSettings};
use crate::control::{self, ControlRequest, ControlResponse};
use crate::smtp::Mailbox;
use anyhow::Context as _;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Someone who answers questions about the queue: the running gateway, or its database.
#[async_trait]
pub trait QueueAccess: Send + Sync {
    async fn ask(&self, request: ControlRequest) -> anyhow::Result<ControlResponse>;

    /// Releases what is held for it.
    async fn close(self: Box<Self>);
}

/// Opens the queue of a gateway that does not run. It is closed again at once, because it keeps the gateway from starting.
#[async_trait]
pub trait QueueOpener: Send + Sync + fmt::Debug {
    /// `None`: there is no queue yet.
    async fn open(&self) -> anyhow::Result<Option<Box<dyn QueueAccess>>>;
}

/// The queue of the running gateway.
pub(super) struct GatewayQueue(PathBuf);

#[async_trait]
impl QueueAccess for GatewayQueue {
    async fn ask(&self, request: ControlRequest) -> anyhow::Result<ControlResponse> {
        Ok(control::ask(&self.0, &request).await.context("the gateway does not answer")??)
    }

    async fn close(self: Box<Self>) {}
}

/// What the operator asks for.
#[derive(Debug, Default)]
pub struct DoctorRequest {
    /// Only this upstream.
    pub upstream: Option<String>,
    pub from: Option<Mailbox>,
    pub send_to: Option<Mailbox>,
}

/// What the probes share.
#[derive(Debug)]
pub struct Examination {
    pub(super) settings: Settings,
    pub(super) request: DoctorRequest,
    pub(super) dns: Dns,
    /// The gateway of this configuration answers.
    pub(super) gateway_runs: bool,
    pub(super) opener: Box<dyn QueueOpener>,
    pub(super) from_domains: Vec<String>,
    pub(super) sender: Option<TrialSender>,
}

/// Where a probe puts its results: what it has put there counts even if its time is over.
#[derive(Debug, Clone, Default)]
pub(super) struct Results(Arc<Mutex<Vec<CheckResult>>>);

impl Results {
    pub fn put(&self, result: CheckResult) {
        self.0.lock().push(result);
    }

    pub fn take(&self) -> Vec<CheckResult> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Examination {
    pub async fn new(settings: Settings, request: DoctorRequest, opener: Box<dyn QueueOpener>) -> Self {
        let gateway_runs = control::connect(&settings.data_dir).await.is_ok();
        let dns = Dns::new(settings.doctor.dns);
        let from_domains = domains::from_domains(&settings, request.from.as_ref());
        let sender = domains::trial_sender(&settings, request.from.as_ref());
        Self { settings, request, dns, gateway_runs, opener, from_domains, sender }
    }

    pub(super) fn upstreams(&self) -> impl Iterator<Item = &UpstreamSettings> {
        let wanted = self.request.upstream.as_deref();
        self.settings.upstreams.iter().filter(move |upstream| wanted.is_none_or(|wanted| *upstream.name == *wanted))
    }

    pub(super) fn gateway_queue(&self) -> GatewayQueue {
        GatewayQueue(self.settings.data_dir.clone())
    }

    pub(super) async fn ask_gateway(&self, request: ControlRequest) -> anyhow::Result<ControlResponse> {
        self.gateway_queue().ask(request).await
    }

    /// Nothing leaves the machine, so no receiver asks the DNS.
    pub(super) fn sends_nothing(&self) -> bool {
        self.request.from.is_none() && self.upstreams().all(|upstream| upstream.preset.is_embedded())
    }
}
