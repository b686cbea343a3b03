//! The names, labels and buckets keep the rules of Prometheus, and everything is there from the start.

use super::*;
use std::collections::BTreeSet;

fn registry() -> MetricsRegistry {
    let registry = MetricsRegistry::new();
    let _handles =
        (registry.listener("127.0.0.1:2525"), registry.delivery(["company", "backup"], &["connect", "data"]));
    registry
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for MetricSchema { name, kind, labels, help } in METRICS {
        assert!(names.insert(*name), "{name} is there twice");
        assert!(name.starts_with("waxseal_") && help.ends_with('.'), "{name}: {help}");
        assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
        assert!(labels.iter().all(|label| !["le", "quantile", "job", "instance"].contains(label)), "{name}");
        if let MetricKind::Histogram(buckets) = kind {
            assert!(name.ends_with("_seconds") && buckets.len() <= 12 && buckets.is_sorted(), "{name}");
        }
    }
}

/// A counter that appears with its first event hides that event from `rate()`.
#[test]
fn every_counter_is_zero_from_the_start_for_every_label() {
    let text = registry().render();
    for line in [
        "waxseal_messages_accepted_total{listener=\"127.0.0.1:2525\"} 0",
        "waxseal_messages_refused_total{listener=\"127.0.0.1:2525\",reason=\"rate\"} 0",
        "waxseal_recipients_total{upstream=\"backup\",outcome=\"failed\"} 0",
        "waxseal_attempts_total{upstream=\"company\",step=\"data\",outcome=\"deferred\"} 0",
        "waxseal_upstream_connection_reuses_total{upstream=\"company\"} 0",
        "waxseal_possible_duplicates_total 0",
        "waxseal_panics_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let counted = text.lines().filter(|line| line.starts_with("waxseal_messages_refused_total")).count();
    assert_eq!(counted, RefusalReason::ALL.len());
}

#[test]
fn an_upstream_that_is_not_configured_makes_no_series() {
    let registry = MetricsRegistry::new();
    let delivery = registry.delivery(["company"], &["connect"]);
    let before = registry.render().lines().count();
    for name in ["a", "b", "evil\"}\n"] {
        delivery.recipient(Some(name), DeliveryOutcome::Failed);
        delivery.attempt(name, 0, DeliveryOutcome::Failed);
        delivery.attempt(name, 99, DeliveryOutcome::Failed);
    }
    let text = registry.render();
    assert_eq!(text.lines().count(), before);
    assert!(text.contains("waxseal_recipients_total{upstream=\"none\",outcome=\"failed\"} 3"), "{text}");
}

#[test]
fn histograms_have_buckets_and_handles_without_a_registry_do_nothing() {
    let registry = registry();
    registry.listener("127.0.0.1:2525").accepted(Duration::from_millis(3));
    ListenerMetrics::default().accepted(Duration::ZERO);
    DeliveryMetrics::default().possible_duplicate();
    QueueMetrics::default().committed(Duration::ZERO);
    let text = registry.render();
    assert!(text.contains("waxseal_accept_seconds_bucket{le=\"0.005\"} 1"), "{text}");
    assert!(!text.contains("quantile"), "{text}");
}

/// A name that is written by hand somewhere else is of a metric, and docs/metrics.md has all of them as the table does.
#[test]
fn the_documentation_the_alerts_and_the_dashboard_name_the_metrics_that_there_are() {
    let page = include_str!("../../../docs/metrics.md");
    for MetricSchema { name, kind, labels, help } in METRICS {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram(_) => "histogram",
        };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{name}` | {kind} | {} | {help} |", labels.join(" ")).replace("|  |", "| |");
        assert!(page.lines().any(|line| line == row), "docs/metrics.md lacks this row:\n{row}");
    }
    let known: BTreeSet<&str> = METRICS.iter().map(|schema| schema.name).collect();
    let (alerts, dashboard) =
        (include_str!("../../../deploy/alerts.yml"), include_str!("../../../deploy/grafana/waxseal.json"));
    let mut shown = BTreeSet::new();
    for (file, text) in
        [("docs/metrics.md", page), ("deploy/alerts.yml", alerts), ("deploy/grafana/waxseal.json", dashboard)]
    {
        let words = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_');
        for word in words.filter(|word| word.starts_with("waxseal_") && *word != "waxseal_admin_token") {
            let name = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(known.contains(name), "{file} names {word}");
            if file.ends_with(".json") {
                shown.insert(name);
            }
        }
    }
    assert_eq!(shown, known, "the dashboard shows every metric");
    serde_json::from_str::<serde_json::Value>(dashboard).expect("JSON");
}
