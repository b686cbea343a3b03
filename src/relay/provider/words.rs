//! The marks in each provider's headers: before and after.

use super::{HEADERS, named};
use crate::message::adapt::{Translated, Vocabulary, translate};
use crate::message::headers::Fields;
use crate::message::{Mark, Marks, RawMessage};

fn mark(text: &str) -> Mark {
    Mark::new(text).expect("a mark")
}

fn marks(metadata: &[(&str, &str)]) -> Marks {
    Marks {
        tag: Some(mark("weekly-report")),
        stream: Some(mark("outbound")),
        ip_pool: Some(mark("pool-1")),
        metadata: metadata.iter().map(|(name, value)| (mark(name), mark(value))).collect(),
        upstream: None,
    }
}

fn vocabulary(provider: &str) -> Vocabulary {
    named(provider).expect("a provider").vocabulary
}

/// The header, each field on one line, and what was left out.
fn translated(provider: &str, header: &str, marks: &Marks) -> (Vec<String>, Vec<String>) {
    let message = RawMessage::from_data(format!("{header}\r\nbody\r\n").into()).expect("a message");
    let Translated { message: changed, left_out } = translate(&message, marks, &vocabulary(provider), HEADERS);
    let message = changed.unwrap_or(message);
    assert_eq!(&message.body()[..], b"body\r\n");
    let line = |field: crate::message::headers::FieldRef<'_>| {
        format!("{}: {}", String::from_utf8_lossy(field.name()), String::from_utf8_lossy(&field.unfolded()))
    };
    (message.fields().map(line).collect(), left_out)
}

#[test]
fn every_mark_in_each_providers_words() {
    let marks = marks(&[("site", "example.com"), ("year", "2026")]);
    let no_tracking =
        r#""filters": {"clicktrack": {"settings": {"enable": 0}}, "opentrack": {"settings": {"enable": 0}}}"#;
    let sendgrid = format!(
        r#"X-SMTPAPI: {{"category": ["weekly-report"], {no_tracking}, "ip_pool": "pool-1", "unique_args": {{"site": "example.com", "year": "2026"}}}}"#
    );
    for (provider, header, left_out) in [
        (
            "postmark",
            &[
                "X-PM-Tag: weekly-report",
                "X-PM-Message-Stream: outbound",
                "X-PM-Metadata-site: example.com",
                "X-PM-Metadata-year: 2026",
            ][..],
            &["ip_pool"][..],
        ),
        (
            "mailgun",
            &[
                "X-Mailgun-Tag: weekly-report",
                "X-Mailgun-Sending-Ip-Pool: pool-1",
                "X-Mailgun-Track: no",
                r#"X-Mailgun-Variables: {"site": "example.com", "year": "2026"}"#,
            ],
            &["stream"],
        ),
        (
            "mandrill",
            &[
                "X-MC-Tags: weekly-report",
                "X-MC-Subaccount: outbound",
                "X-MC-IPPool: pool-1",
                r#"X-MC-Metadata: {"site": "example.com", "year": "2026"}"#,
            ],
            &[],
        ),
        ("sendgrid", &[&*sendgrid], &["stream"]),
        (
            "ses",
            &["X-SES-CONFIGURATION-SET: outbound", "X-SES-MESSAGE-TAGS: tag=weekly-report, year=2026"],
            &["ip_pool", "metadata site"],
        ),
        ("gmail", &[], &["tag", "stream", "ip_pool", "metadata site", "metadata year"]),
        ("microsoft365", &[], &["tag", "stream", "ip_pool", "metadata site", "metadata year"]),
        ("smtp", &[], &["tag", "stream", "ip_pool", "metadata site", "metadata year"]),
        ("sandbox", &[], &["tag", "stream", "ip_pool", "metadata site", "metadata year"]),
    ] {
        let (lines, missing) = translated(provider, "Subject: s\r\n", &marks);
        assert_eq!(
            (&lines[0][..], &lines[1..]),
            ("Subject: s", &header.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
            "{provider}"
        );
        assert_eq!(missing, left_out, "{provider}");
    }
}

#[test]
fn the_applications_own_headers_for_the_same_provider_stay_and_those_for_others_go() {
    let all = "X-PM-Tag: a\r\nX-Mailgun-Tag: b\r\nX-MC-Tags: c\r\nX-SMTPAPI: {\"to\": [\"x\"], \"category\": \"d\", \"filters\": {}}\r\n\
               X-SES-MESSAGE-TAGS: k=v, tag=e\r\nx-pm-trackopens: true\r\nX-Other: f\r\nX-PMX: g\r\n";
    let tagged = Marks { tag: Some(mark("T")), ..Marks::default() };
    for (provider, own, marked) in [
        ("postmark", &["X-PM-Tag: a", "x-pm-trackopens: true"][..], &["x-pm-trackopens: true", "X-PM-Tag: T"][..]),
        ("mailgun", &["X-Mailgun-Tag: b", "X-Mailgun-Track: no"], &["X-Mailgun-Tag: T", "X-Mailgun-Track: no"]),
        ("mandrill", &["X-MC-Tags: c"], &["X-MC-Tags: T"]),
        (
            "sendgrid",
            &[r#"X-SMTPAPI: {"category": "d", "filters": {}, "to": ["x"]}"#],
            &[r#"X-SMTPAPI: {"category": ["T"], "filters": {}, "to": ["x"]}"#],
        ),
        ("ses", &["X-SES-MESSAGE-TAGS: k=v, tag=e"], &["X-SES-MESSAGE-TAGS: k=v, tag=T"]),
        ("gmail", &[], &[]),
        ("smtp", &[], &[]),
    ] {
        let others = |lines: Vec<String>| {
            let (others, own): (Vec<_>, Vec<_>) =
                lines.into_iter().partition(|line| ["X-Other: f", "X-PMX: g"].contains(&line.as_str()));
            assert_eq!(others.len(), 2, "{provider}: of nobody's headers");
            own
        };
        assert_eq!(others(translated(provider, all, &Marks::default()).0), own, "{provider}");
        assert_eq!(others(translated(provider, all, &tagged).0), marked, "{provider}");
    }
    assert_eq!(translated("sandbox", all, &tagged).0.len(), 8, "the sandbox shows them all");
}

#[test]
fn what_a_provider_does_not_allow_is_left_out_and_nothing_breaks_out_of_a_header() {
    let long = "x".repeat(51);
    let wide = "Größe ☕";
    let of = |tag: &str, name: &str, value: &str| Marks {
        tag: Some(mark(tag)),
        metadata: [(mark(name), mark(value))].into(),
        ..Marks::default()
    };
    for (provider, marks, header, left_out) in [
        ("mandrill", of("a,b", "n", "v"), &[r#"X-MC-Metadata: {"n": "v"}"#][..], &["tag"][..]),
        ("mandrill", of(&long, "n", &"v".repeat(492)), &[], &["tag", "metadata n"]),
        ("postmark", of(wide, "a:b", "v"), &[], &["tag", "metadata a:b"]),
        ("postmark", of("t", "name", &"v".repeat(81)), &["X-PM-Tag: t"], &["metadata name"]),
        ("ses", of("a=b", "a b", "v"), &[], &["tag", "metadata a b"]),
        (
            "mailgun",
            of("t", wide, "\"}, {\""),
            &[
                "X-Mailgun-Tag: t",
                "X-Mailgun-Track: no",
                r#"X-Mailgun-Variables: {"Gr\u00f6\u00dfe \u2615": "\"}, {\""}"#,
            ],
            &[],
        ),
        // No white space to fold at.
        (
            "mailgun",
            of("t", "n", &"☕".repeat(166)),
            &["X-Mailgun-Tag: t", "X-Mailgun-Track: no"],
            &["X-Mailgun-Variables"],
        ),
    ] {
        let (lines, missing) = translated(provider, "", &marks);
        assert_eq!(
            (lines, missing),
            (header.iter().map(ToString::to_string).collect(), left_out.iter().map(ToString::to_string).collect()),
            "{provider}"
        );
    }
}

#[test]
fn long_values_are_folded_where_json_allows_it() {
    let metadata: Vec<_> =
        (0..60).map(|number| (format!("name-{number}"), format!("a value with words {number}"))).collect();
    let metadata: Vec<_> = metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let message = RawMessage::from_data("Subject: s\r\n\r\n".into()).expect("a message");
    let done = translate(&message, &marks(&metadata), &vocabulary("sendgrid"), HEADERS);
    let message = done.message.expect("another one");
    assert!(message.header().split(|&byte| byte == b'\n').all(|line| line.len() <= 78), "folded");
    let field = Fields::new(message.header()).find(|field| field.is("X-SMTPAPI")).expect("the field").unfolded();
    let read: serde_json::Value = serde_json::from_slice(&field).expect("JSON");
    assert_eq!(read["unique_args"]["name-59"], "a value with words 59");
}

/// An application's incomplete JSON is not completed.
#[test]
fn json_that_cannot_be_read_stays_and_the_marks_are_left_out() {
    for own in ["{\"to\": [", "[1]", "x"] {
        let header = format!("X-SMTPAPI: {own}\r\n");
        let (lines, left_out) = translated("sendgrid", &header, &marks(&[("n", "v")]));
        assert_eq!(lines, [header.trim_end()], "{own}");
        assert_eq!(left_out, ["tag", "stream", "ip_pool", "metadata n"], "{own}");
    }
}

#[test]
fn a_signature_over_what_changes_goes() {
    let signature =
        |names: &str| format!("DKIM-Signature: v=1; h=From:\r\n {names}; b=x\r\nX-PM-Tag: a\r\nFrom: a@b\r\n");
    let tagged = Marks { tag: Some(mark("T")), ..Marks::default() };
    let left = |provider: &str, names: &str, marks: &Marks| translated(provider, &signature(names), marks).0.len();
    assert_eq!(left("mandrill", "Subject", &Marks::default()), 2, "it does not cover the header that goes");
    assert_eq!(left("mandrill", "x-pm-tag", &Marks::default()), 1);
    assert_eq!(left("postmark", "x-pm-tag", &Marks::default()), 3, "nothing changes");
    assert_eq!(left("postmark", "x-pm-tag", &tagged), 2);
}
