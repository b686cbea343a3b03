//! The gauges of one scrape. They describe what there is at that time: a lane, an upstream or a key that a reload took away
//! has no series any more, so every scrape begins with none.

use super::catalogue::{self, METRICS, MetricKind, MetricSchema};
use super::{SOURCE, flag, from_count, key};
use metrics::{Gauge, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::fmt;
use std::time::Duration;

pub struct GaugeSnapshot {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl GaugeSnapshot {
    /// Without any series.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for schema in METRICS.iter().filter(|schema| schema.kind == MetricKind::Gauge) {
            recorder.describe_gauge(schema.name.into(), None, schema.help.into());
        }
        Self { handle: recorder.handle(), recorder }
    }

    /// In the text format of Prometheus.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    pub fn set_queue_recipients(&self, lane: &str, state: &str, number: u64) {
        self.gauge(&catalogue::QUEUE_RECIPIENTS, &[lane, state]).set(from_count(number));
    }

    pub fn set_queue_oldest(&self, lane: &str, age: Duration) {
        self.gauge(&catalogue::QUEUE_OLDEST, &[lane]).set(age.as_secs_f64());
    }

    pub fn set_queue_bytes(&self, octets: u64) {
        self.gauge(&catalogue::QUEUE_BYTES, &[]).set(from_count(octets));
    }

    pub fn set_queue_spool(&self, recipients: u64, octets: u64) {
        self.gauge(&catalogue::QUEUE_SPOOL_RECIPIENTS, &[]).set(from_count(recipients));
        self.gauge(&catalogue::QUEUE_SPOOL_BYTES, &[]).set(from_count(octets));
    }

    pub fn set_waiting_recipients(&self, upstream: &str, why: &str, number: u64) {
        self.gauge(&catalogue::WAITING_RECIPIENTS, &[upstream, why]).set(from_count(number));
    }

    pub fn set_connections(&self, upstream: &str, open: usize, limit: usize) {
        self.gauge(&catalogue::UPSTREAM_CONNECTIONS, &[upstream]).set(from_count(open as u64));
        self.gauge(&catalogue::UPSTREAM_CONNECTIONS_LIMIT, &[upstream]).set(from_count(limit as u64));
    }

    pub fn set_upstream_state(&self, upstream: &str, state: &str, is_current: bool) {
        self.gauge(&catalogue::UPSTREAM_STATE, &[upstream, state]).set(flag(is_current));
    }

    /// `window`: as in "1d".
    pub fn set_quota_used(&self, upstream: &str, window: &str, ratio: f64) {
        self.gauge(&catalogue::QUOTA_USED, &[upstream, window]).set(ratio);
    }

    /// `None`: not known.
    pub fn set_dkim_record(&self, domain: &str, selector: &str, is_ok: Option<bool>) {
        self.gauge(&catalogue::DKIM_RECORD_OK, &[domain, selector]).set(is_ok.map_or(f64::NAN, flag));
    }

    /// `usage`: "listener" or "upstream". `at`: seconds since 1970.
    pub fn set_certificate_expiry(&self, usage: &str, name: &str, at: i64) {
        #[expect(clippy::cast_precision_loss, reason = "exact for the next million years")]
        self.gauge(&catalogue::CERTIFICATE_EXPIRY, &[usage, name]).set(at as f64);
    }

    pub fn set_expected(&self, name: &str, is_silent: bool, quiet_for: Duration) {
        self.gauge(&catalogue::EXPECTED_SILENT, &[name]).set(flag(is_silent));
        self.gauge(&catalogue::EXPECTED_QUIET, &[name]).set(quiet_for.as_secs_f64());
    }

    /// `None`: the system does not report it.
    pub fn set_disk(&self, free: Option<u64>, floor: u64) {
        self.gauge(&catalogue::DISK_FREE, &[]).set(free.map_or(f64::NAN, from_count));
        self.gauge(&catalogue::DISK_FLOOR, &[]).set(from_count(floor));
    }

    pub fn set_memory_used(&self, octets: u64) {
        self.gauge(&catalogue::MEMORY_USED, &[]).set(from_count(octets));
    }

    fn gauge(&self, schema: &MetricSchema, labels: &[&str]) -> Gauge {
        self.recorder.register_gauge(&key(schema, labels), &SOURCE)
    }
}

impl Default for GaugeSnapshot {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for GaugeSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GaugeSnapshot").finish_non_exhaustive()
    }
}
