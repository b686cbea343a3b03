//! /metrics: gauges are set from the state of the gateway at the time of the scrape; counters and histograms were
//! recorded where things happened.

use super::AdminState;
use crate::control::{GatewayStatus, LiveStatus, WaitReason, gather};
use crate::delivery::{UNROUTED, UpstreamState};
use crate::observe::metrics::{GaugeSnapshot, MetricsRegistry};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Prometheus, "Text format details".
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Until histograms are summed up, each of their values is kept.
const SUM_UP_INTERVAL: Duration = Duration::from_secs(5);

/// Mail on lanes that no route names any more, until it is moved.
const OTHER_LANES: &str = "other";

pub(super) async fn metrics(State(state): State<AdminState>) -> Response {
    let now = state.clock.now();
    match gather(state.queue.as_ref(), Some(&state.live), now).await {
        Ok(status) => {
            let text = state.metrics.render() + &gauges(&status, now).render();
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
        }
        // Numbers of an earlier time would look like those of now.
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("the queue cannot be read: {error}\n")).into_response(),
    }
}

/// Runs until the stop.
pub async fn sum_up(metrics: MetricsRegistry, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SUM_UP_INTERVAL) => metrics.sum_up(),
        }
    }
}

fn gauges(status: &GatewayStatus, now: Timestamp) -> GaugeSnapshot {
    let gauges = GaugeSnapshot::new();
    let Some(live) = &status.live else { return gauges };
    set_queue(&gauges, status, live, now);
    set_waiting(&gauges, status, live);
    for upstream in &live.upstreams {
        gauges.set_connections(&upstream.name, upstream.connections, upstream.connections_allowed);
        for state in UpstreamState::ALL {
            gauges.set_upstream_state(&upstream.name, state.label(), state == upstream.state);
        }
        for quota in &upstream.quotas {
            gauges.set_quota_used(&upstream.name, &quota.window, quota.ratio());
        }
    }
    for key in &live.dkim {
        gauges.set_dkim_record(&key.domain, &key.selector, key.is_published);
    }
    for certificate in &live.certificates {
        gauges.set_certificate_expiry(&certificate.usage, &certificate.name, certificate.expires.as_second());
    }
    for expected in &live.expected {
        gauges.set_expected(&expected.name, expected.is_silent, Duration::from_secs(expected.quiet_seconds));
    }
    gauges.set_disk(live.disk_free, live.disk_floor);
    gauges.set_memory_used(live.memory_used);
    gauges
}

/// One series for each lane of the routes, whatever is in the queue.
fn set_queue(gauges: &GaugeSnapshot, status: &GatewayStatus, live: &LiveStatus, now: Timestamp) {
    let mut lanes: BTreeMap<&str, ([u64; 5], Option<Timestamp>)> = BTreeMap::new();
    let known = live.lanes.iter().map(|lane| lane.state.lane.as_str()).chain([UNROUTED, OTHER_LANES]);
    lanes.extend(known.map(|lane| (lane, Default::default())));
    for counts in &status.figures.lanes {
        let lane = if lanes.contains_key(counts.lane.as_str()) { counts.lane.as_str() } else { OTHER_LANES };
        let (numbers, oldest) = lanes.entry(lane).or_default();
        let found = [counts.waiting, counts.held, counts.leased, counts.failed, counts.damaged];
        numbers.iter_mut().zip(found).for_each(|(number, found)| *number += found);
        *oldest = [*oldest, counts.oldest].into_iter().flatten().min();
    }
    for (lane, (numbers, oldest)) in lanes {
        for (state, number) in ["waiting", "held", "leased", "failed", "damaged"].into_iter().zip(numbers) {
            gauges.set_queue_recipients(lane, state, number);
        }
        let age = oldest.and_then(|oldest| Duration::try_from(now.duration_since(oldest)).ok());
        gauges.set_queue_oldest(lane, age.unwrap_or_default());
    }
    gauges.set_queue_bytes(status.figures.octets);
    if let Some(spool) = &status.spool {
        gauges.set_queue_spool(spool.recipients, spool.octets);
    }
}

/// By the upstream that holds the mail; without one, by the first of the lane.
fn set_waiting(gauges: &GaugeSnapshot, status: &GatewayStatus, live: &LiveStatus) {
    let mut numbers: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for upstream in live.upstreams.iter().map(|upstream| upstream.name.as_str()).chain([MetricsRegistry::NO_UPSTREAM]) {
        numbers.extend(WaitReason::ALL.map(|why| ((upstream, why.label()), 0)));
    }
    for lane in &live.lanes {
        let first = lane.upstreams.first().map_or(MetricsRegistry::NO_UPSTREAM, String::as_str);
        let holding = lane.state.obstacle.as_ref().and_then(|obstacle| obstacle.upstream.as_deref()).unwrap_or(first);
        for (why, number) in status.waiting(lane) {
            let upstream = if matches!(why, WaitReason::Lane(_)) { holding } else { first };
            if let Some(known) = numbers.get_mut(&(upstream, why.label())) {
                *known += number;
            }
        }
    }
    for ((upstream, why), number) in numbers {
        gauges.set_waiting_recipients(upstream, why, number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{CertificateStatus, DkimKeyStatus, LaneStatus};
    use crate::delivery::{LaneState, UpstreamStatus};
    use crate::intake::ExpectedStatus;

    fn live(upstreams: &[&str]) -> LiveStatus {
        let upstream = |name: &&str| UpstreamStatus {
            name: (*name).into(),
            state: UpstreamState::Available,
            reason: None,
            until: None,
            connections: 1,
            connections_allowed: 4,
            quotas: Vec::new(),
            is_sandbox: false,
        };
        let lane = |name: &&str| LaneStatus {
            state: LaneState { lane: (*name).into(), obstacle: None, waiting: 0, later: 0, held: 0, delayed: 0 },
            upstreams: vec![(*name).to_owned()],
        };
        LiveStatus {
            upstreams: upstreams.iter().map(upstream).collect(),
            lanes: upstreams.iter().map(lane).collect(),
            ..LiveStatus::default()
        }
    }

    fn rendered(live: LiveStatus) -> String {
        let status = GatewayStatus {
            version: String::new(),
            counts: Default::default(),
            held: Vec::new(),
            figures: Default::default(),
            spool: None,
            live: Some(live),
        };
        gauges(&status, Timestamp::UNIX_EPOCH).render()
    }

    /// Their last values stayed, so an alert about an upstream that was taken out fired for good.
    #[test]
    fn what_a_reload_took_away_has_no_series_any_more() {
        let gone = |name: &str| LiveStatus {
            dkim: vec![DkimKeyStatus { domain: name.into(), selector: "wax1".into(), is_published: Some(false) }],
            certificates: vec![CertificateStatus {
                usage: "listener".into(),
                name: name.into(),
                expires: Timestamp::UNIX_EPOCH,
            }],
            expected: vec![ExpectedStatus {
                name: name.into(),
                senders: Vec::new(),
                every_seconds: 1,
                quiet_seconds: 2,
                has_come: true,
                is_silent: true,
            }],
            ..live(&["stays", name])
        };
        let before = rendered(gone("gone"));
        for line in [
            "waxseal_upstream_connections{upstream=\"gone\"} 1",
            "waxseal_upstream_state{upstream=\"gone\",state=\"available\"} 1",
            "waxseal_waiting_recipients{upstream=\"gone\",why=\"turn\"} 0",
            "waxseal_queue_recipients{lane=\"gone\",state=\"waiting\"} 0",
            "waxseal_dkim_record_ok{domain=\"gone\",selector=\"wax1\"} 0",
            "waxseal_expected_silent{expect=\"gone\"} 1",
        ] {
            assert!(before.lines().any(|found| found == line), "{line}\n{before}");
        }
        let after = rendered(live(&["stays"]));
        assert!(after.contains("waxseal_upstream_connections{upstream=\"stays\"} 1"), "{after}");
        assert!(!after.contains("gone"), "{after}");
    }
}
