use super::*;
use crate::queue::testing::row;
use crate::queue::{Delivered, HeldLane, RecipientState, Statistics};

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn overview(held: &[&str]) -> Overview {
    let held = held.iter().map(|lane| HeldLane { lane: Some((*lane).to_owned()), except: Vec::new() }).collect();
    Overview { held, counts: Statistics { waiting: 7, leased: 1, failed: 2, damaged: 0 }, lanes: None, spool: None }
}

fn delivered() -> HistoryRow {
    HistoryRow {
        cursor: Cursor(41),
        id: "01kbtsb6g0000001".into(),
        received_at: at("2026-11-24T01:00:00Z"),
        sender: String::new(),
        recipients: vec!["Anna@Example.net".into(), "b@example.net".into()],
        subject: "Report".into(),
        message_id: Some("<41@example.com>".into()),
        delivery: Delivered {
            at: at("2026-11-24T02:00:00Z"),
            upstream: "company".into(),
            reply: "250 2.0.0 Ok: queued as 4C\u{202e}\r\n".into(),
            milliseconds: 231,
        },
    }
}

#[test]
fn a_message_is_one_line_whatever_is_in_it() {
    let mut message = row(1, RecipientState::Failed);
    let now = Timestamp::from_second(message.received_at.as_second() + 3 * 3_600).unwrap();
    message.sender = String::new();
    message.subject = "Re: \u{202e}gpj.exe\r\nX: 日本語".into();
    message.recipients.push(row(2, RecipientState::Failed).recipients.remove(0));
    let overview = overview(&[]);
    let view = WaitingView { overview: &overview, now };
    let mut listing = Listing::table(MESSAGES, None);
    let text = listing.page(&[message], |row| message_cells(row, view), |row| message_object(row, view));
    let lines: Vec<_> = text.lines().collect();
    let [heading, line] = lines.as_slice() else { panic!("{text}") };
    assert!(heading.starts_with("ID                RECEIVED  FROM  TO"), "{heading}");
    assert!(
        line.ends_with(
            "  3 h ago   <>    r1@example.net (+1)  failed  Re: ?gpj.exe??X: 日本語: upstream \"company\", RCPT TO: 550 \
             5.1.1 no such user"
        ),
        "{line}"
    );
}

#[test]
fn the_objects_have_the_shape_that_programs_know() {
    let mut message = row(1, RecipientState::Waiting);
    message.id = "01kbtsb6g0000001".into();
    assert_eq!(
        message_object(&message, WaitingView { overview: &overview(&["default"]), now: Timestamp::UNIX_EPOCH }),
        json!({
            "id": "01kbtsb6g0000001",
            "received_at": "2026-11-18T11:06:41Z",
            "sender": "reports@example.com",
            "subject": "Report 1",
            "size": 4500,
            "message_id": "<report-1@example.com>",
            "recipients": [{
                "address": "r1@example.net",
                "state": "waiting",
                "lane": "default",
                "attempts": 1,
                "due": "2026-11-18T11:06:41Z",
                "reason": null,
                "hold": { "by": "operator", "until": null, "upstream": null, "text": null },
            }],
        })
    );
    assert_eq!(
        history_object(&delivered()),
        json!({
            "id": "01kbtsb6g0000001",
            "received_at": "2026-11-24T01:00:00Z",
            "delivered_at": "2026-11-24T02:00:00Z",
            "sender": "",
            "recipients": ["Anna@Example.net", "b@example.net"],
            "subject": "Report",
            "message_id": "<41@example.com>",
            "upstream": "company",
            "reply": "250 2.0.0 Ok: queued as 4C\u{202e}\r\n",
            "milliseconds": 231,
        })
    );
}

#[test]
fn what_stands_below_tells_how_much_there_is_and_what_is_held() {
    for (written, more, is_filtered, first) in [
        (0, false, false, "The queue is empty.\n"),
        (0, false, true, "No message matches.\n"),
        (1, false, false, "\n1 message.\n"),
        (50, true, true, "\nThe oldest 50 messages; see more with --limit or --all.\n"),
    ] {
        let text = below_messages(written, more, is_filtered, &overview(&["reports"]));
        assert_eq!(
            text,
            format!(
                "{first}Recipients in the queue: 7 waiting, 1 being sent, 2 failed.\n\
                 Lane reports is held; resume it with: waxseal queue release reports\n"
            )
        );
    }
    assert_eq!(below_messages(0, false, false, &Overview::default()), "The queue is empty.\n");
}

#[test]
fn the_history_is_filtered_like_the_queue() {
    let row = delivered();
    let now = at("2026-11-24T03:30:00Z");
    let hours = jiff::SignedDuration::from_hours;
    let with = |recipient: Option<&str>, upstream: Option<&str>, older_than| Selection {
        state: None,
        recipient: recipient.map(str::to_owned),
        upstream: upstream.map(str::to_owned),
        older_than,
        message_id: None,
    };
    let named = |message_id: &str| Selection { message_id: Some(message_id.into()), ..Selection::default() };
    for (selection, chosen) in [
        (Selection::default(), true),
        (with(Some("anna@"), None, None), true),
        (with(Some("carl@"), None, None), false),
        (with(None, Some("company"), Some(hours(2))), true),
        (with(None, Some("backup"), None), false),
        (with(None, None, Some(hours(3))), false),
        (named("<41@example.com>"), true),
        (named("41@example.com"), true),
        (named("1@example.com"), false),
    ] {
        assert_eq!(is_chosen(&row, &selection, now), chosen, "{selection:?}");
    }
    assert_eq!(
        history_cells(&row, now).map(|cell| super::super::table::fit(&cell, 100)),
        ["01kbtsb6g0000001", "90 min ago", "<>", "Anna@Example.net (+1)", "company", "250 2.0.0 Ok: queued as 4C???",]
    );
}
