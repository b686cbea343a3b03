//! Every metric once: its name, kind, labels, buckets and help. docs/metrics.md is compared with this table.
//!
//! Labels come from the configuration or from a fixed set, so the number of series does not depend on mail.

/// What kind of metric it is; a histogram has the upper bounds of its buckets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

#[derive(Debug)]
pub struct MetricSchema {
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> MetricSchema {
    MetricSchema { name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> MetricSchema {
    MetricSchema { name, kind: MetricKind::Gauge, labels, help }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    buckets: &'static [f64],
    help: &'static str,
) -> MetricSchema {
    MetricSchema { name, kind: MetricKind::Histogram(buckets), labels, help }
}

/// In seconds, for what a client or a disk waits for.
const SHORT: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// In seconds, for a transaction with a provider.
const TRANSACTION: &[f64] = &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];
/// In seconds, from acceptance to delivery: a moment, or days.
const DELIVERY: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 432_000.0];

pub const MESSAGES_ACCEPTED: MetricSchema =
    counter("waxseal_messages_accepted_total", &["listener"], "Messages that a listener accepted.");
pub const MESSAGES_REFUSED: MetricSchema = counter(
    "waxseal_messages_refused_total",
    &["listener", "reason"],
    "Messages that a listener refused, at MAIL or after their last line.",
);
pub const ACCEPT_SECONDS: MetricSchema = histogram(
    "waxseal_accept_seconds",
    &[],
    SHORT,
    "From the last line of an accepted message to its reply; with delivery = \"direct\" this includes the delivery.",
);
pub const RECIPIENTS: MetricSchema = counter(
    "waxseal_recipients_total",
    &["upstream", "outcome"],
    "Outcomes of delivery attempts, one per recipient. A deferred recipient is tried again and counts again.",
);
pub const ATTEMPTS: MetricSchema = counter(
    "waxseal_attempts_total",
    &["upstream", "step", "outcome"],
    "Transactions with an upstream, by the step of the dialogue that decided them.",
);
pub const ATTEMPT_SECONDS: MetricSchema = histogram(
    "waxseal_attempt_seconds",
    &["upstream"],
    TRANSACTION,
    "From a ready connection to the provider's last reply in a transaction.",
);
pub const DELIVERY_SECONDS: MetricSchema =
    histogram("waxseal_delivery_seconds", &[], DELIVERY, "From the acceptance of a message to its delivery.");
pub const POSSIBLE_DUPLICATES: MetricSchema = counter(
    "waxseal_possible_duplicates_total",
    &[],
    "Messages that were sent again although an earlier attempt may have got through.",
);
pub const QUEUE_RECIPIENTS: MetricSchema = gauge(
    "waxseal_queue_recipients",
    &["lane", "state"],
    "Recipients in the queue, as `waxseal queue list` shows them.",
);
pub const QUEUE_OLDEST: MetricSchema = gauge(
    "waxseal_queue_oldest_seconds",
    &["lane"],
    "Age of the oldest message that waits or is being sent; 0 if there is none.",
);
pub const QUEUE_BYTES: MetricSchema =
    gauge("waxseal_queue_bytes", &[], "Size of the queue's database and of its message files.");
pub const QUEUE_SPOOL_RECIPIENTS: MetricSchema = gauge(
    "waxseal_queue_spool_recipients",
    &[],
    "Recipients whose mail waits in this gateway's spool until Redis answers; only with `fallback = \"sqlite\"`.",
);
pub const QUEUE_SPOOL_BYTES: MetricSchema =
    gauge("waxseal_queue_spool_bytes", &[], "Size of this gateway's spool; only with `fallback = \"sqlite\"`.");
pub const QUEUE_SYNC_SECONDS: MetricSchema = histogram(
    "waxseal_queue_sync_seconds",
    &[],
    SHORT,
    "Duration of a commit of the queue, which includes the sync to the disk; in Redis: of a change, until it is known to be synced.",
);
pub const WAITING_RECIPIENTS: MetricSchema =
    gauge("waxseal_waiting_recipients", &["upstream", "why"], "Waiting recipients by what they wait for.");
pub const UPSTREAM_CONNECTIONS: MetricSchema = gauge(
    "waxseal_upstream_connections",
    &["upstream"],
    "Connections to an upstream that exist: being made, in use, idle or being closed.",
);
pub const UPSTREAM_CONNECTIONS_LIMIT: MetricSchema = gauge(
    "waxseal_upstream_connections_limit",
    &["upstream"],
    "Connections to an upstream that are allowed now: `max_connections`, or fewer if the provider allows fewer.",
);
pub const CONNECTION_REUSES: MetricSchema = counter(
    "waxseal_upstream_connection_reuses_total",
    &["upstream"],
    "Transactions on a connection that had carried a message before.",
);
pub const UPSTREAM_STATE: MetricSchema = gauge(
    "waxseal_upstream_state",
    &["upstream", "state"],
    "1 for the state that an upstream is in, 0 for the others.",
);
pub const QUOTA_USED: MetricSchema = gauge(
    "waxseal_quota_used_ratio",
    &["upstream", "window"],
    "Used part of a rate's limit within its window, from 0 to 1.",
);
pub const DKIM_RECORD_OK: MetricSchema = gauge(
    "waxseal_dkim_record_ok",
    &["domain", "selector"],
    "1 if the DNS has the key's record, 0 if it is missing or different, NaN while that is not known.",
);
pub const CERTIFICATE_EXPIRY: MetricSchema = gauge(
    "waxseal_certificate_expiry_timestamp_seconds",
    &["use", "name"],
    "When a certificate of the gateway expires, in seconds since 1970.",
);
pub const EXPECTED_SILENT: MetricSchema = gauge(
    "waxseal_expected_silent",
    &["expect"],
    "1 if no mail has come for longer than `every` of an [[expect]], otherwise 0.",
);
pub const EXPECTED_QUIET: MetricSchema = gauge(
    "waxseal_expected_quiet_seconds",
    &["expect"],
    "Time since the last mail of an [[expect]]; if none has come yet, since the first start with it.",
);
pub const DISK_FREE: MetricSchema =
    gauge("waxseal_disk_free_bytes", &[], "Free space on the file system of `data_dir`.");
pub const DISK_FLOOR: MetricSchema =
    gauge("waxseal_disk_floor_bytes", &[], "`min_free_space`: below it, no new mail is accepted.");
pub const MEMORY_USED: MetricSchema = gauge(
    "waxseal_memory_budget_used_bytes",
    &[],
    "Used part of `max_memory` for incoming messages and for conversions.",
);
pub const RELOAD_SUCCESSFUL: MetricSchema = gauge(
    "waxseal_config_last_reload_successful",
    &[],
    "1 if the configuration was read without errors when it was last read, otherwise 0.",
);
pub const RELOAD_TIME: MetricSchema = gauge(
    "waxseal_config_last_reload_success_timestamp_seconds",
    &[],
    "When the configuration was last read without errors, in seconds since 1970.",
);
pub const PANICS: MetricSchema = counter("waxseal_panics_total", &[], "Faults of the program itself.");
pub const BUILD_INFO: MetricSchema =
    gauge("waxseal_build_info", &["version"], "Always 1; the label says which version runs.");

/// In the order of docs/metrics.md.
pub const METRICS: &[&MetricSchema] = &[
    &MESSAGES_ACCEPTED,
    &MESSAGES_REFUSED,
    &ACCEPT_SECONDS,
    &RECIPIENTS,
    &ATTEMPTS,
    &ATTEMPT_SECONDS,
    &DELIVERY_SECONDS,
    &POSSIBLE_DUPLICATES,
    &QUEUE_RECIPIENTS,
    &QUEUE_OLDEST,
    &QUEUE_BYTES,
    &QUEUE_SPOOL_RECIPIENTS,
    &QUEUE_SPOOL_BYTES,
    &QUEUE_SYNC_SECONDS,
    &WAITING_RECIPIENTS,
    &UPSTREAM_CONNECTIONS,
    &UPSTREAM_CONNECTIONS_LIMIT,
    &CONNECTION_REUSES,
    &UPSTREAM_STATE,
    &QUOTA_USED,
    &DKIM_RECORD_OK,
    &CERTIFICATE_EXPIRY,
    &EXPECTED_SILENT,
    &EXPECTED_QUIET,
    &DISK_FREE,
    &DISK_FLOOR,
    &MEMORY_USED,
    &RELOAD_SUCCESSFUL,
    &RELOAD_TIME,
    &PANICS,
    &BUILD_INFO,
];
