//! Metrics: the registry and typed recording functions. No other module spells the name of a metric.
//!
//! Counters and histograms are registered once, with every value that their labels can have, and recorded through
//! handles: no look-up, no formatting and no allocation per message. A handle that belongs to no registry does nothing,
//! so parts can be built without one. Gauges are set when the metrics are read ([`GaugeSnapshot`]).

mod catalogue;
mod gauges;

pub use catalogue::{METRICS, MetricKind, MetricSchema};
pub use gauges::GaugeSnapshot;

use super::fault;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// All metrics of one gateway. Cheap to clone.
#[derive(Clone)]
pub struct MetricsRegistry(Arc<RegistryInner>);

struct RegistryInner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    panics: Counter,
}

const SOURCE: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

impl MetricsRegistry {
    /// The label of mail for which no upstream was found or asked.
    pub const NO_UPSTREAM: &str = "none";

    /// With the metrics that have no label.
    pub fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for schema in METRICS {
            if let MetricKind::Histogram(buckets) = schema.kind {
                // Fails for an empty list of buckets only.
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(schema.name.to_owned()), buckets)
                    .unwrap_or_else(|_| PrometheusBuilder::new());
            }
        }
        let recorder = builder.build_recorder();
        for schema in METRICS {
            let help = schema.help.into();
            match schema.kind {
                MetricKind::Counter => recorder.describe_counter(schema.name.into(), None, help),
                MetricKind::Gauge => recorder.describe_gauge(schema.name.into(), None, help),
                MetricKind::Histogram(_) => recorder.describe_histogram(schema.name.into(), None, help),
            }
        }
        let handle = recorder.handle();
        let panics = recorder.register_counter(&key(&catalogue::PANICS, &[]), &SOURCE);
        let registry = Self(Arc::new(RegistryInner { recorder, handle, panics }));
        registry.gauge(&catalogue::BUILD_INFO, &[env!("CARGO_PKG_VERSION")]).set(1.0);
        registry
    }

    /// In the text format of Prometheus, without the gauges of a [`GaugeSnapshot`].
    pub fn render(&self) -> String {
        self.0.panics.absolute(fault::panics());
        self.0.handle.render()
    }

    /// Sums up what histograms have recorded. To be called every few seconds: until then each value is kept.
    pub fn sum_up(&self) {
        self.0.handle.run_upkeep();
    }

    /// `listener`: its address as configured.
    pub fn listener(&self, listener: &str) -> ListenerMetrics {
        let refused = |reason: RefusalReason| self.counter(&catalogue::MESSAGES_REFUSED, &[listener, reason.label()]);
        ListenerMetrics(Some(Arc::new(ListenerHandles {
            accepted: self.counter(&catalogue::MESSAGES_ACCEPTED, &[listener]),
            refused: RefusalReason::ALL.map(refused),
            accept_seconds: self.histogram(&catalogue::ACCEPT_SECONDS, &[]),
        })))
    }

    /// `upstreams`: their names. `steps`: all steps of a dialogue, in the order of their numbers.
    pub fn delivery<'a>(
        &self,
        upstreams: impl IntoIterator<Item = &'a str>,
        steps: &[&'static str],
    ) -> DeliveryMetrics {
        let upstreams = upstreams.into_iter().map(|name| (name.to_owned(), self.upstream(name, steps)));
        DeliveryMetrics(Some(Arc::new(DeliveryHandles {
            upstreams: upstreams.collect(),
            none: self.upstream(Self::NO_UPSTREAM, steps),
            delivery_seconds: self.histogram(&catalogue::DELIVERY_SECONDS, &[]),
            possible_duplicates: self.counter(&catalogue::POSSIBLE_DUPLICATES, &[]),
        })))
    }

    fn upstream(&self, name: &str, steps: &[&'static str]) -> UpstreamHandles {
        let outcomes = DeliveryOutcome::ALL;
        let attempt = |step: &&str| outcomes.map(|it| self.counter(&catalogue::ATTEMPTS, &[name, step, it.label()]));
        UpstreamHandles {
            recipients: outcomes.map(|it| self.counter(&catalogue::RECIPIENTS, &[name, it.label()])),
            attempts: steps.iter().map(attempt).collect(),
            attempt_seconds: self.histogram(&catalogue::ATTEMPT_SECONDS, &[name]),
            reuses: self.counter(&catalogue::CONNECTION_REUSES, &[name]),
        }
    }

    pub fn queue(&self) -> QueueMetrics {
        QueueMetrics { sync_seconds: Some(self.histogram(&catalogue::QUEUE_SYNC_SECONDS, &[])) }
    }

    /// The configuration was read: at the start, and at each reload. `at`: seconds since 1970.
    pub fn set_configuration_read(&self, is_successful: bool, at: u64) {
        self.gauge(&catalogue::RELOAD_SUCCESSFUL, &[]).set(flag(is_successful));
        let time = self.gauge(&catalogue::RELOAD_TIME, &[]);
        if is_successful {
            time.set(from_count(at));
        }
    }

    fn counter(&self, schema: &MetricSchema, labels: &[&str]) -> Counter {
        self.0.recorder.register_counter(&key(schema, labels), &SOURCE)
    }

    fn gauge(&self, schema: &MetricSchema, labels: &[&str]) -> Gauge {
        self.0.recorder.register_gauge(&key(schema, labels), &SOURCE)
    }

    fn histogram(&self, schema: &MetricSchema, labels: &[&str]) -> Histogram {
        self.0.recorder.register_histogram(&key(schema, labels), &SOURCE)
    }
}

impl fmt::Debug for MetricsRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsRegistry").finish_non_exhaustive()
    }
}

fn key(schema: &MetricSchema, values: &[&str]) -> Key {
    debug_assert_eq!(schema.labels.len(), values.len(), "{}", schema.name);
    let labels = schema.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned()));
    Key::from_parts(schema.name, labels.collect::<Vec<_>>())
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53; nothing here is larger")]
fn from_count(number: u64) -> f64 {
    number as f64
}

fn flag(is_set: bool) -> f64 {
    if is_set { 1.0 } else { 0.0 }
}

/// Why a listener refused a message. Every refusal has one of these reasons, whatever its text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// The client may not send, or must log in first.
    Login,
    /// Sender policy: `senders`, or no DKIM key.
    Sender,
    Size,
    Memory,
    Disk,
    Storage,
    Rate,
    Content,
    Loop,
    /// The provider deferred it (delivery = "direct").
    Deferred,
    /// The provider refused it (delivery = "direct").
    Refused,
    Other,
}

impl RefusalReason {
    pub const ALL: [Self; 12] = [
        Self::Login,
        Self::Sender,
        Self::Size,
        Self::Memory,
        Self::Disk,
        Self::Storage,
        Self::Rate,
        Self::Content,
        Self::Loop,
        Self::Deferred,
        Self::Refused,
        Self::Other,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Sender => "sender",
            Self::Size => "size",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Storage => "storage",
            Self::Rate => "rate",
            Self::Content => "content",
            Self::Loop => "loop",
            Self::Deferred => "deferred",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }
}

/// The outcome for a recipient, or for a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    Deferred,
    Failed,
}

impl DeliveryOutcome {
    const ALL: [Self; 3] = [Self::Delivered, Self::Deferred, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
        }
    }
}

/// What one listener records.
#[derive(Debug, Clone, Default)]
pub struct ListenerMetrics(Option<Arc<ListenerHandles>>);

#[derive(Debug)]
struct ListenerHandles {
    accepted: Counter,
    refused: [Counter; RefusalReason::ALL.len()],
    accept_seconds: Histogram,
}

impl ListenerMetrics {
    pub fn accepted(&self, elapsed: Duration) {
        if let Some(handles) = &self.0 {
            handles.accepted.increment(1);
            handles.accept_seconds.record(elapsed);
        }
    }

    pub fn refused(&self, reason: RefusalReason) {
        if let Some(handles) = &self.0 {
            handles.refused[reason as usize].increment(1);
        }
    }
}

/// What delivery records, for every upstream.
#[derive(Debug, Clone, Default)]
pub struct DeliveryMetrics(Option<Arc<DeliveryHandles>>);

#[derive(Debug)]
struct DeliveryHandles {
    upstreams: HashMap<String, UpstreamHandles>,
    none: UpstreamHandles,
    delivery_seconds: Histogram,
    possible_duplicates: Counter,
}

#[derive(Debug)]
struct UpstreamHandles {
    recipients: [Counter; 3],
    attempts: Vec<[Counter; 3]>,
    attempt_seconds: Histogram,
    reuses: Counter,
}

impl DeliveryMetrics {
    /// The outcome for one recipient; `upstream`: the one that decided it.
    pub fn recipient(&self, upstream: Option<&str>, outcome: DeliveryOutcome) {
        if let Some(handles) = &self.0 {
            handles.of(upstream).recipients[outcome as usize].increment(1);
        }
    }

    /// A transaction, or an attempt at one. `step`: the number of the step that decided it.
    pub fn attempt(&self, upstream: &str, step: usize, outcome: DeliveryOutcome) {
        if let Some(handles) = &self.0
            && let Some(step) = handles.of(Some(upstream)).attempts.get(step)
        {
            step[outcome as usize].increment(1);
        }
    }

    /// A transaction on a ready connection.
    pub fn transaction(&self, upstream: &str, elapsed: Duration, is_reused: bool) {
        if let Some(handles) = &self.0 {
            let upstream = handles.of(Some(upstream));
            upstream.attempt_seconds.record(elapsed);
            if is_reused {
                upstream.reuses.increment(1);
            }
        }
    }

    /// A message was delivered so long after it was accepted.
    pub fn delivered(&self, elapsed: Duration) {
        if let Some(handles) = &self.0 {
            handles.delivery_seconds.record(elapsed);
        }
    }

    pub fn possible_duplicate(&self) {
        if let Some(handles) = &self.0 {
            handles.possible_duplicates.increment(1);
        }
    }
}

impl DeliveryHandles {
    fn of(&self, upstream: Option<&str>) -> &UpstreamHandles {
        upstream.and_then(|name| self.upstreams.get(name)).unwrap_or(&self.none)
    }
}

/// What the queue's storage records.
#[derive(Debug, Clone, Default)]
pub struct QueueMetrics {
    sync_seconds: Option<Histogram>,
}

impl QueueMetrics {
    pub fn committed(&self, elapsed: Duration) {
        if let Some(histogram) = &self.sync_seconds {
            histogram.record(elapsed);
        }
    }
}

#[cfg(test)]
mod tests;
