use super::*;
use crate::control::Overview;
use crate::queue::testing::row;
use crate::queue::{Cursor, Delivered, HeldLane, RecipientState};

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn shown() -> MessageDetails {
    let mut row = row(2, RecipientState::Waiting);
    row.id = "01kbtsb6g0000001".into();
    row.received_at = at("2026-11-24T00:00:00Z");
    row.recipients[0].due = Some(at("2026-11-24T03:12:30Z"));
    row.recipients[0].reason = Some("upstream \"company\", connect: connection refused\r\nFAKE".into());
    MessageDetails {
        header: "Subject: Report\r\n\t2\r\nX-Evil: \u{1b}[2J\u{202e}\r\n".into(),
        attempts: vec![Attempted {
            at: at("2026-11-24T02:59:00Z"),
            upstream: Some("company".into()),
            text: "upstream \"company\", final dot: no reply in time".into(),
            possible_duplicate: true,
        }],
        delivered: vec![HistoryRow {
            cursor: Cursor(3),
            id: row.id.clone(),
            received_at: row.received_at,
            sender: row.sender.clone(),
            recipients: vec!["b@example.net".into()],
            subject: row.subject.clone(),
            message_id: row.message_id.clone(),
            delivery: Delivered {
                at: at("2026-11-24T00:00:02Z"),
                upstream: "company".into(),
                reply: "250 2.0.0 Ok".into(),
                milliseconds: 231,
            },
        }],
        has_original: true,
        row,
    }
}

#[test]
fn everything_is_shown_and_stays_on_its_lines() {
    let shown = shown();
    let now = at("2026-11-24T03:00:00Z");
    let running = |held: &[HeldLane]| Overview { held: held.to_vec(), lanes: Some(Vec::new()), ..Overview::default() };
    let overview = running(&[]);
    assert_eq!(
        Details { shown: &shown, view: WaitingView { overview: &overview, now } }.to_string(),
        "\
Message    01kbtsb6g0000001
Received   2026-11-24 00:00:00 UTC (3 h ago)
From       reports@example.com
Subject    Report 2
Size       4.3 KiB
Original   kept as it was before the rewrite rules

Not delivered yet
  r2@example.net: next try in 12 min, tried 2 times, lane default (next 2026-11-24 03:12:30 UTC)
    upstream \"company\", connect: connection refused??FAKE

Delivered
  2026-11-24 00:00:02 UTC (2 h ago), upstream company, after 231 ms: 250 2.0.0 Ok
    b@example.net

Attempts
  2026-11-24 02:59:00 UTC (60 s ago)
    upstream \"company\", final dot: no reply in time
    The provider may have taken it all the same.

Header
  Subject: Report
      2
  X-Evil: ?[2J?
"
    );
    let held = [HeldLane { lane: Some("default".into()), except: Vec::new() }];
    let overview = running(&held);
    let text = Details { shown: &shown, view: WaitingView { overview: &overview, now } }.to_string();
    assert!(text.contains("r2@example.net: held, tried 2 times"), "{text}");
    assert!(text.ends_with("waxseal queue release default\n"), "{text}");
}

#[test]
fn the_object_has_the_shape_that_programs_know() {
    let overview = Overview::default();
    let value = object(&shown(), WaitingView { overview: &overview, now: Timestamp::UNIX_EPOCH });
    let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "attempts",
            "delivered",
            "gateway_running",
            "has_original",
            "header",
            "id",
            "message_id",
            "received_at",
            "recipients",
            "sender",
            "size",
            "subject"
        ]
    );
    assert_eq!(
        value["attempts"],
        json!([{
            "at": "2026-11-24T02:59:00Z",
            "upstream": "company",
            "text": "upstream \"company\", final dot: no reply in time",
            "possible_duplicate": true,
        }])
    );
    assert_eq!(value["delivered"][0]["reply"], "250 2.0.0 Ok");
    assert_eq!(value["header"], "Subject: Report\r\n\t2\r\nX-Evil: \u{1b}[2J\u{202e}\r\n");
}

#[test]
fn content_for_a_terminal_cannot_drive_it() {
    assert_eq!(readable(b"A: 1\r\n\r\n\ttab \x1b]0;title\x07\xff\r\n"), "A: 1\n\n    tab ?]0;title?\u{fffd}\n");
}
