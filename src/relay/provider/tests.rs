//! The tables follow their own rules.

use super::*;
use std::collections::HashSet;

#[test]
fn every_preset_can_be_used() {
    let names: HashSet<_> = ALL.iter().map(|preset| preset.name).collect();
    assert_eq!(names.len(), ALL.len(), "each name once");
    for preset in ALL {
        assert_eq!(named(preset.name).map(|found| found.title), Some(preset.title));
        assert!(!preset.ports.is_empty(), "{}", preset.name);
        let numbers: HashSet<_> = preset.ports.iter().map(|port| port.number).collect();
        assert_eq!(numbers.len(), preset.ports.len(), "{}: each port once", preset.name);
        for port in preset.ports {
            let usual = if matches!(port.number, 465 | 2465) { TlsMode::Implicit } else { TlsMode::StartTls };
            assert_eq!(port.tls, usual, "{} {}", preset.name, port.number);
        }
        let first_implicit = preset.ports.iter().position(|port| port.tls == TlsMode::Implicit);
        let last_starttls = preset.ports.iter().rposition(|port| port.tls == TlsMode::StartTls);
        assert!(first_implicit.is_none_or(|at| last_starttls.is_some_and(|last| last < at)), "{}", preset.name);
    }
}

#[test]
fn every_header_of_a_provider_is_known_as_one() {
    let own: HashSet<_> = ALL.iter().flat_map(|preset| preset.vocabulary.own).copied().collect();
    assert_eq!(own, HEADERS.iter().copied().collect());
}

#[test]
fn hosts_by_region() {
    let host = |name: &str, region| named(name).and_then(|preset| preset.host_in(region));
    for (name, region, expected) in [
        ("postmark", None, Some("smtp.postmarkapp.com")),
        ("mailgun", None, Some("smtp.mailgun.org")),
        ("mailgun", Some("eu"), Some("smtp.eu.mailgun.org")),
        ("mailgun", Some("mars"), None),
        ("ses", Some("eu-central-1"), Some("email-smtp.eu-central-1.amazonaws.com")),
        ("ses", None, None),
        ("smtp", None, None),
        ("sandbox", None, None),
    ] {
        assert_eq!(host(name, region).as_deref(), expected, "{name} {region:?}");
    }
}

#[test]
fn providers_are_known_by_their_hosts() {
    for (host, name) in [
        ("smtp.postmarkapp.com", Some("postmark")),
        ("SMTP.eu.mailgun.org.", Some("mailgun")),
        ("email-smtp.us-west-2.amazonaws.com", Some("ses")),
        ("email-smtp.amazonaws.com", None),
        ("smtp.example.com", None),
        ("127.0.0.1", None),
    ] {
        assert_eq!(at_host(host).map(|preset| preset.name), name, "{host}");
    }
}

#[test]
fn what_a_rate_counts_is_what_the_provider_counts() {
    use Counts::{Messages, Recipients};
    for (name, by_the_minute, by_the_day) in
        [("microsoft365", Messages, Recipients), ("ses", Recipients, Recipients), ("gmail", Messages, Messages)]
    {
        let counting = named(name).expect("a preset").limits.counting;
        let counts = |text| counting.of(crate::rate::Rate::parse(text).expect("a rate"));
        assert_eq!((counts("30/min"), counts("10000/day")), (by_the_minute, by_the_day), "{name}");
    }
}
