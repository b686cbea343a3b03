use super::*;
use crate::queue::testing::row;
use crate::queue::{HeldLane, Statistics};

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

const NOW: &str = "2026-11-24T03:00:00Z";

fn obstacle(cause: HoldCause, until: Option<&str>) -> LaneObstacle {
    LaneObstacle { cause, upstream: Some("company".into()), text: "connection refused".into(), until: until.map(at) }
}

fn lane(obstacle: Option<LaneObstacle>, waiting: u64, later: u64) -> LaneState {
    LaneState { lane: "default".into(), obstacle, waiting, later, held: 0, delayed: 0 }
}

fn overview(lanes: Option<Vec<LaneState>>, held: &[&str]) -> Overview {
    let held = held.iter().map(|lane| HeldLane { lane: Some((*lane).to_owned()), except: Vec::new() }).collect();
    Overview { held, counts: Statistics { waiting: 2, ..Statistics::default() }, lanes, spool: None }
}

fn waiting(due: &str) -> RecipientRow {
    let mut recipient = row(1, RecipientState::Waiting).recipients.remove(0);
    (recipient.due, recipient.reason) = (Some(at(due)), Some("upstream \"company\", RCPT TO: 450 4.2.1 full".into()));
    recipient
}

/// Each cause, with a due time that has come and one that has not.
#[test]
fn what_holds_a_mail_now_is_told_and_not_what_an_earlier_attempt_met() {
    const SOON: &str = "2026-11-24T03:00:40Z";
    const LATE: &str = "2026-11-24T06:00:00Z";
    const REASON: &str = "upstream \"company\", RCPT TO: 450 4.2.1 full";
    let last = format!("last attempt: {REASON}");
    let blamed = Some("company: connection refused".to_owned());
    let of = |cause, until| Some(vec![lane(Some(obstacle(cause, until)), 1, 0)]);
    let free = Some(vec![lane(None, 1, 0)]);
    for (lanes, held, due, state, reason, by) in [
        (free.clone(), false, NOW, "about to be sent", None, None),
        (free.clone(), false, SOON, "next try in 40 s", Some(REASON.to_owned()), Some("backoff")),
        (free, true, NOW, "held", Some(last.clone()), Some("operator")),
        (None, false, NOW, "gateway stopped", Some(last.clone()), Some("gateway_stopped")),
        (None, false, SOON, "gateway stopped", Some(last.clone()), Some("gateway_stopped")),
        (None, true, SOON, "held", Some(last), Some("operator")),
        (of(HoldCause::Breaker, Some(SOON)), false, NOW, "breaker open, 40 s", blamed.clone(), Some("breaker")),
        (of(HoldCause::Breaker, Some(SOON)), false, SOON, "breaker open, 40 s", blamed.clone(), Some("breaker")),
        (of(HoldCause::Breaker, Some(SOON)), false, LATE, "next try in 3 h", Some(REASON.to_owned()), Some("backoff")),
        (of(HoldCause::Quota, Some(LATE)), false, SOON, "quota reached, 3 h", blamed.clone(), Some("quota")),
        (of(HoldCause::Recovery, None), false, NOW, "upstream recovering", blamed.clone(), Some("recovery")),
        (of(HoldCause::Rate, None), false, NOW, "rate", blamed.clone(), Some("rate")),
        (of(HoldCause::Connections, None), false, NOW, "connections busy", blamed.clone(), Some("connections")),
        (of(HoldCause::Connections, None), false, SOON, "next try in 40 s", Some(REASON.to_owned()), Some("backoff")),
        (of(HoldCause::Ledger, None), false, NOW, "shared limits unknown", blamed.clone(), Some("ledger")),
        (of(HoldCause::Memory, None), false, NOW, "memory used up", blamed, Some("memory")),
    ] {
        let overview = overview(lanes, if held { &["default"] } else { &[] });
        let view = WaitingView { overview: &overview, now: at(NOW) };
        let recipient = waiting(due);
        assert_eq!((view.state(&recipient).as_str(), view.reason(&recipient)), (state, reason), "{overview:?}");
        assert_eq!(view.to_json(&recipient)["by"].as_str(), by, "{overview:?}");
    }
}

#[test]
fn what_does_not_wait_is_held_by_nothing() {
    let overview = overview(Some(vec![lane(Some(obstacle(HoldCause::Memory, None)), 1, 0)]), &["default"]);
    let view = WaitingView { overview: &overview, now: at(NOW) };
    for (state, words) in [
        (RecipientState::Leased, "being sent"),
        (RecipientState::Failed, "failed"),
        (RecipientState::Damaged, "damaged"),
    ] {
        let recipient = row(1, state).recipients.remove(0);
        assert_eq!((view.state(&recipient).as_str(), view.to_json(&recipient)), (words, Value::Null));
    }
}

#[test]
fn the_state_of_a_message_is_that_of_its_recipients() {
    let free = overview(Some(vec![lane(None, 1, 0)]), &[]);
    let view = WaitingView { overview: &free, now: at(NOW) };
    let mut message = row(1, RecipientState::Waiting);
    message.recipients[0].due = Some(at("2026-11-24T03:12:00Z"));
    assert_eq!(view.message_state(&message), "next try in 12 min");
    message.recipients.push(message.recipients[0].clone());
    message.recipients[1].due = Some(at("2026-11-24T03:02:10Z"));
    assert_eq!(view.message_state(&message), "next try in 2 min");
    message.recipients.push(row(2, RecipientState::Failed).recipients.remove(0));
    assert_eq!(view.message_state(&message), "2 waiting, 1 failed");
    assert_eq!(view.message_state(&row(3, RecipientState::Leased)), "being sent");
}

#[test]
fn what_waits_is_grouped_by_what_holds_it() {
    let breaker = || Some(obstacle(HoldCause::Breaker, Some("2026-11-24T03:00:40Z")));
    for (lanes, held, expected) in [
        (Some(vec![]), false, &[][..]),
        (Some(vec![lane(None, 0, 0)]), false, &[]),
        (None, false, &["The gateway is not running: 2 waiting for it."]),
        (
            Some(vec![lane(breaker(), 10_000, 0)]),
            false,
            &["10,000 waiting for company: connection refused; next try in 40 s"],
        ),
        (
            Some(vec![lane(breaker(), 1_012, 12)]),
            false,
            &[
                "1,000 waiting for company: connection refused; next try in 40 s",
                "12 waiting for the next try on lane default",
            ],
        ),
        (
            Some(vec![lane(Some(obstacle(HoldCause::Rate, None)), LaneState::MOST, 0)]),
            false,
            &["over 100,000 waiting for company: connection refused"],
        ),
        (Some(vec![lane(None, 3, 0)]), false, &["3 about to be sent on lane default"]),
        (Some(vec![lane(breaker(), 7, 2)]), true, &["7 held on lane default"]),
    ] {
        let overview = overview(lanes, if held { &["default"] } else { &[] });
        assert_eq!(WaitingView { overview: &overview, now: at(NOW) }.summary(), expected);
    }
    assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
}
