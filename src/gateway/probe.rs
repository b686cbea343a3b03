//! At the start, each upstream is connected to once, logged in to and left, so that a wrong password is told before the
//! first mail. Changes nothing: the breaker is not told, and mail does not wait for it longer than for another mail.

use crate::control::Examiner;
use crate::delivery::{Delivery, DeliveryPlan};
use crate::observe::log::Clean;
use crate::relay::{Deadline, Upstream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Until every upstream was tried, or the stop.
pub(super) async fn at_start(delivery: Arc<Delivery>, stop: CancellationToken) {
    let mut probes = JoinSet::new();
    for target in delivery.targets().iter().filter(|target| !target.is_sandbox) {
        for upstream in target.logins.all() {
            probes.spawn(probe(upstream.clone()));
        }
    }
    drop(delivery);
    let all = async { while probes.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        () = stop.cancelled() => {}
    }
}

async fn probe(target: Upstream) {
    let report = target.probe(None, Deadline::after(TIME_LIMIT)).await;
    let upstream = target.name();
    match report.diagnosis(target.options()) {
        None => info!(upstream, tls = report.opening.tls_version, "the upstream answers and accepts the login"),
        Some(found) if found.is_inconclusive => {
            debug!(upstream, reason = %Clean(&found.evidence), "the upstream could not be tried at the start");
        }
        Some(found) => warn!(
            upstream,
            check = %found.id,
            reason = %Clean(&found.evidence),
            "mail for this upstream will wait: {}; {}", Clean(&found.cause), Clean(&found.fix)
        ),
    }
}

/// For doctor, which must not open connections beside the gateway's.
pub(super) fn examiner(plan: watch::Receiver<Arc<DeliveryPlan<Delivery>>>) -> Examiner {
    Arc::new(move |name, sender, limit| {
        let delivery = plan.borrow().deliver.clone();
        Box::pin(async move {
            let logins = delivery.targets().iter().map(|target| &target.logins).find(|it| it.name() == name)?;
            let logins: Vec<_> =
                logins.by_domain().map(|(domain, login)| (domain.map(str::to_owned), login.clone())).collect();
            let deadline = Deadline::after(limit);
            let mut sender = sender;
            let mut found = Vec::new();
            for (domain, upstream) in logins {
                found.push((domain, Box::new(upstream.examine(sender.take().as_ref(), deadline).await)));
            }
            Some(found)
        })
    })
}
