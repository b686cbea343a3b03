//! `Examination`: all probes side by side, each with its own time. A probe that panics or takes too long is a result like
//! any other.

use super::check::CheckResult;
use super::dns::Dns;
use super::domains::{self, TrialSender};
use super::{clock, configuration, data_dir, dkim, dmarc, listener, queue, repair, reverse, spf, test_mail, upstream};
use crate::config::{DkimSettings, ListenerSettings, Settings, UpstreamSettings};
use crate::control::{self, ControlRequest, ControlResponse};
use crate::observe::CheckId;
use crate::smtp::Mailbox;
use anyhow::Context as _;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Together with what is printed before and after, less than the half minute that the command may take.
const TIME_LIMIT: Duration = Duration::from_secs(26);

/// Someone who answers questions about the queue: the running gateway, or its database.
#[async_trait]
pub trait QueueDesk: Send + Sync {
    async fn ask(&self, request: ControlRequest) -> anyhow::Result<ControlResponse>;

    /// Releases what is held for it.
    async fn close(self: Box<Self>);
}

/// Opens the queue of a gateway that does not run. It is closed again at once, because it keeps the gateway from starting.
#[async_trait]
pub trait QueueOpener: Send + Sync + fmt::Debug {
    /// `None`: there is no queue yet.
    async fn open(&self) -> anyhow::Result<Option<Box<dyn QueueDesk>>>;
}

/// The desk of the running gateway.
pub(super) struct GatewayDesk(PathBuf);

#[async_trait]
impl QueueDesk for GatewayDesk {
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

/// One line of the checklist, with its results.
#[derive(Debug, Clone)]
pub struct ExaminationPart {
    /// In the order of the checklist.
    pub index: usize,
    /// Empty: a probe that is beginning.
    pub results: Vec<CheckResult>,
}

/// Where a probe puts its results: what it has put there counts even if its time is over.
#[derive(Debug, Clone, Default)]
pub(super) struct Results(Arc<Mutex<Vec<CheckResult>>>);

impl Results {
    pub fn put(&self, result: CheckResult) {
        self.0.lock().push(result);
    }
}

type Probe = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Planned {
    title: String,
    /// What is unknown if the probe does not end.
    id: CheckId,
    subject: String,
    probe: Box<dyn FnOnce(Arc<Examination>, Results) -> Probe + Send>,
}

impl Planned {
    fn new<F, P>(id: CheckId, title: impl Into<String>, subject: &str, probe: F) -> Self
    where
        F: FnOnce(Arc<Examination>, Results) -> P + Send + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        let probe = Box::new(|exam, results| Box::pin(probe(exam, results)) as Probe);
        Self { title: title.into(), id, subject: subject.to_owned(), probe }
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

    /// The checklist's lines.
    pub fn titles(&self) -> Vec<String> {
        self.plan().into_iter().map(|planned| planned.title).collect()
    }

    /// Runs every probe; `report` gets the results of each as soon as it ends. At most [`TIME_LIMIT`].
    pub async fn run(self: Arc<Self>, report: mpsc::Sender<ExaminationPart>) {
        let mut probes = JoinSet::new();
        for (index, planned) in self.plan().into_iter().enumerate() {
            let exam = self.clone();
            let report = report.clone();
            probes.spawn(async move {
                let results = examine(exam, planned).await;
                let _nobody_may_be_listening = report.send(ExaminationPart { index, results }).await;
            });
        }
        while probes.join_next().await.is_some() {}
    }

    pub(super) fn upstreams(&self) -> impl Iterator<Item = &UpstreamSettings> {
        let wanted = self.request.upstream.as_deref();
        self.settings.upstreams.iter().filter(move |upstream| wanted.is_none_or(|wanted| *upstream.name == *wanted))
    }

    pub(super) fn gateway_desk(&self) -> GatewayDesk {
        GatewayDesk(self.settings.data_dir.clone())
    }

    pub(super) async fn ask_gateway(&self, request: ControlRequest) -> anyhow::Result<ControlResponse> {
        self.gateway_desk().ask(request).await
    }

    /// Nothing leaves the machine, so no receiver asks the DNS.
    fn sends_nothing(&self) -> bool {
        self.request.from.is_none() && self.upstreams().all(|upstream| upstream.preset.is_embedded())
    }

    fn plan(&self) -> Vec<Planned> {
        use CheckId::*;
        let mut plan =
            vec![
                Planned::new(Configuration, "configuration", "", |exam, out| async move {
                    configuration::probe(&exam, &out)
                }),
                Planned::new(DataDirAccess, "data folder", "", |exam, out| async move { data_dir::probe(&exam, &out) }),
                Planned::new(Clock, "clock", "", |exam, out| async move { clock::probe(&exam, &out) }),
                Planned::new(IntakeRepair, "repairs", "", |exam, out| async move { repair::probe(&exam, &out) }),
            ];
        for (at, ListenerSettings { options, .. }) in self.settings.listeners.iter().enumerate() {
            let address = options.address.to_string();
            plan.push(Planned::new(
                ListenerReachable,
                format!("listener {address}"),
                &address,
                move |exam, out| async move {
                    listener::probe(&exam, at, &out).await;
                },
            ));
        }
        for UpstreamSettings { name, .. } in self.upstreams() {
            let chosen = name.clone();
            plan.push(Planned::new(UpstreamConnect, format!("upstream {name}"), name, move |exam, out| async move {
                upstream::probe(&exam, &chosen, &out).await;
            }));
        }
        let published =
            if self.sends_nothing() { (&[][..], &[][..]) } else { (&self.settings.dkim[..], &self.from_domains[..]) };
        for (at, DkimSettings { domain, selector, .. }) in published.0.iter().enumerate() {
            let name = format!("{selector}._domainkey.{domain}");
            plan.push(Planned::new(DkimRecord, format!("DKIM key {name}"), &name, move |exam, out| async move {
                dkim::probe(&exam, at, &out).await;
            }));
        }
        for domain in published.1 {
            let (one, other) = (domain.clone(), domain.clone());
            plan.push(Planned::new(SpfRecord, format!("SPF of {domain}"), domain, move |exam, out| async move {
                spf::probe(&exam, &one, &out).await;
            }));
            plan.push(Planned::new(DmarcRecord, format!("DMARC of {domain}"), domain, move |exam, out| async move {
                dmarc::probe(&exam, &other, &out).await;
            }));
        }
        plan.push(Planned::new(AddressReverse, "our address", "", |exam, out| async move {
            reverse::probe(&exam, &out).await
        }));
        plan.push(Planned::new(QueueAccess, "queue", "", |exam, out| async move { queue::probe(&exam, &out).await }));
        if let Some(to) = &self.request.send_to {
            plan.push(Planned::new(
                SendOutcome,
                format!("test mail to {to}"),
                &to.to_string(),
                |exam, out| async move {
                    test_mail::probe(&exam, &out).await;
                },
            ));
        }
        plan
    }
}

async fn examine(exam: Arc<Examination>, planned: Planned) -> Vec<CheckResult> {
    let put = Results::default();
    let Planned { id, subject, probe, .. } = planned;
    // In a task of its own, so that a panic ends this probe alone.
    let mut task = tokio::spawn(probe(exam.clone(), put.clone()));
    let ended = timeout(TIME_LIMIT, &mut task).await;
    let unfinished = match ended {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some("this check ended in a fault of the program"),
        Err(_) => {
            task.abort();
            Some("this check did not end in time")
        }
    };
    let mut results = std::mem::take(&mut *put.0.lock());
    results.extend(unfinished.map(|text| CheckResult::unknown(id, &subject, text)));
    let ignore = &exam.settings.doctor.ignore;
    let present = |mut result: CheckResult| {
        result.ignored = ignore.contains(&result.id);
        result.presentable(|text| exam.settings.warnings.hide(text).to_string())
    };
    results.into_iter().map(present).collect()
}
