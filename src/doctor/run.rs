//! The plan of an examination, and all of its probes side by side, each with its own time. A probe that panics or takes too
//! long is a result like any other.

use super::check::CheckResult;
use super::examination::{Examination, Results};
use super::{clock, configuration, data_dir, dkim, dmarc, listener, queue, repair, reverse, spf, test_mail, upstream};
use crate::config::{DkimSettings, ListenerSettings, UpstreamSettings};
use crate::observe::CheckId;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Together with what is printed before and after, less than the half minute that the command may take.
const TIME_LIMIT: Duration = Duration::from_secs(26);

/// One line of the checklist, with its results.
#[derive(Debug, Clone)]
pub struct ExaminationPart {
    /// In the order of the checklist.
    pub index: usize,
    /// Empty: a probe that is beginning.
    pub results: Vec<CheckResult>,
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
        plan.extend(self.published());
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

    /// What the DNS has to say of the keys and the From domains.
    fn published(&self) -> Vec<Planned> {
        use CheckId::*;
        let mut plan = Vec::new();
        if self.sends_nothing() {
            return plan;
        }
        for (at, DkimSettings { domain, selector, .. }) in self.settings.dkim.iter().enumerate() {
            let name = format!("{selector}._domainkey.{domain}");
            plan.push(Planned::new(DkimRecord, format!("DKIM key {name}"), &name, move |exam, out| async move {
                dkim::probe(&exam, at, &out).await;
            }));
        }
        for domain in &self.from_domains {
            let (one, other) = (domain.clone(), domain.clone());
            plan.push(Planned::new(SpfRecord, format!("SPF of {domain}"), domain, move |exam, out| async move {
                spf::probe(&exam, &one, &out).await;
            }));
            plan.push(Planned::new(DmarcRecord, format!("DMARC of {domain}"), domain, move |exam, out| async move {
                dmarc::probe(&exam, &other, &out).await;
            }));
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
    let mut results = put.take();
    results.extend(unfinished.map(|text| CheckResult::unknown(id, &subject, text)));
    let ignore = &exam.settings.doctor.ignore;
    let present = |mut result: CheckResult| {
        result.ignored = ignore.contains(&result.id);
        result.presentable(|text| exam.settings.warnings.hide(text).to_string())
    };
    results.into_iter().map(present).collect()
}
