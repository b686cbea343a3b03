//! /metrics: gauges are set from the state of the gateway at the time of the scrape; counters and histograms were
//! recorded where things happened.

use super::AdminState;
use crate::control::{GatewayStatus, LiveStatus, WaitReason, gather};
use crate::delivery::{UNROUTED, UpstreamState};
use crate::observe::metrics::MetricsRegistry;
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
            set(&state.metrics, &status, now);
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], state.metrics.render()).into_response()
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

fn set(metrics: &MetricsRegistry, status: &GatewayStatus, now: Timestamp) {
    let Some(live) = &status.live else { return };
    set_queue(metrics, status, live, now);
    set_waiting(metrics, status, live);
    for upstream in &live.upstreams {
        metrics.set_connections(&upstream.name, upstream.connections, upstream.connections_allowed);
        for state in UpstreamState::ALL {
            metrics.set_upstream_state(&upstream.name, state.label(), state == upstream.state);
        }
        for quota in &upstream.quotas {
            metrics.set_quota_used(&upstream.name, &quota.window, quota.ratio());
        }
    }
    for key in &live.dkim {
        metrics.set_dkim_record(&key.domain, &key.selector, key.is_published);
    }
    for certificate in &live.certificates {
        metrics.set_certificate_expiry(&certificate.usage, &certificate.name, certificate.expires.as_second());
    }
    metrics.set_expected(
        live.expected
            .iter()
            .map(|expected| (expected.name.as_str(), expected.is_silent, Duration::from_secs(expected.quiet_seconds))),
    );
    metrics.set_disk(live.disk_free, live.disk_floor);
    metrics.set_memory_used(live.memory_used);
}

/// One series for each lane of the routes, whatever is in the queue.
fn set_queue(metrics: &MetricsRegistry, status: &GatewayStatus, live: &LiveStatus, now: Timestamp) {
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
            metrics.set_queue_recipients(lane, state, number);
        }
        let age = oldest.and_then(|oldest| Duration::try_from(now.duration_since(oldest)).ok());
        metrics.set_queue_oldest(lane, age.unwrap_or_default());
    }
    metrics.set_queue_bytes(status.figures.octets);
}

/// By the upstream that holds the mail; without one, by the first of the lane.
fn set_waiting(metrics: &MetricsRegistry, status: &GatewayStatus, live: &LiveStatus) {
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
        metrics.set_waiting_recipients(upstream, why, number);
    }
}
