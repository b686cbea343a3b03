//! How a provider may refuse a message, and what happens to each recipient, the message and the connection.

use crate::support::mail::{envelope, envelope_from, numbered, unsigned};
use crate::support::relay::{assert_told, not_ready, send, told, upstream};
use crate::support::upstream::{Action, At, Builder, ScriptedUpstream};
use std::time::Duration;
use waxseal::message::outcome::{Cause, SlowDown};
use waxseal::message::{Outcome, RelayStep};
use waxseal::relay::{ConnectionRequest, Deadline, Sent, Upstream};

async fn started(builder: Builder) -> (ScriptedUpstream, Upstream) {
    let scripted = builder.start().await;
    let upstream = upstream(scripted.options("company"));
    (scripted, upstream)
}

fn builders() -> [Builder; 2] {
    [ScriptedUpstream::builder(), ScriptedUpstream::builder().without("PIPELINING")]
}

/// Nothing is left over from the message before.
async fn next_message_arrives(scripted: &ScriptedUpstream, upstream: &Upstream) {
    let before = scripted.messages().len();
    assert_told(&send(upstream, &envelope(&["next@example.net"]), &numbered(99)).await.unwrap(), &["delivered"]);
    let messages = scripted.messages();
    assert_eq!((messages.len(), &messages[before].recipients[..]), (before + 1, &["next@example.net".to_owned()][..]));
}

#[tokio::test]
async fn a_421_before_mail_defers_with_the_step() {
    for (at, step) in [
        (At::Greeting, RelayStep::Greeting),
        (At::Ehlo, RelayStep::Ehlo),
        (At::StartTls, RelayStep::StartTls),
        (At::EhloInTls, RelayStep::Ehlo),
        (At::Auth, RelayStep::Auth),
    ] {
        let (_scripted, upstream) = started(ScriptedUpstream::builder().once(at, "421 4.7.0 busy")).await;
        let reason = not_ready(&upstream).await;
        assert_eq!((reason.step, reason.reply().map(|reply| reply.code())), (step, Some(421)));
        next_message_arrives(&_scripted, &upstream).await;
    }
}

#[tokio::test]
async fn a_421_inside_a_transaction_defers_everyone_and_ends_the_connection() {
    for (at, step) in [(At::Mail, "MAIL FROM"), (At::Rcpt, "RCPT TO"), (At::Data, "DATA"), (At::Dot, "final dot")] {
        for builder in builders() {
            let (scripted, upstream) = started(builder.once(at, "421 4.7.0 busy")).await;
            let envelope = envelope(&["b@example.net", "c@example.net"]);
            let told = format!("deferred: upstream \"company\", {step}: 421 4.7.0 busy");
            assert_told(&send(&upstream, &envelope, &numbered(1)).await.unwrap(), &[&told, &told]);
            next_message_arrives(&scripted, &upstream).await;
            assert_eq!((scripted.counts().total, scripted.count("RSET")), (2, 0));
        }
    }
}

/// Every further message on the connection was deferred, too.
#[tokio::test]
async fn a_login_that_has_lapsed_is_repeated() {
    for at in [At::Mail, At::Rcpt, At::Data, At::Dot] {
        for (line, builder) in ["530 5.7.0 log in first", "535 5.7.8 login expired"].into_iter().zip(builders()) {
            let (scripted, upstream) = started(builder.once(at, line)).await;
            let outcomes = send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
            let told = told(&outcomes[0]);
            assert!(told.starts_with("deferred: ") && told.ends_with(line), "{told}");
            next_message_arrives(&scripted, &upstream).await;
            assert_eq!((scripted.counts().total, scripted.count("AUTH")), (2, 2), "{at:?}: {line}");
        }
    }
}

/// The dot had not gone out: no other provider would have been tried, and the client was warned of a duplicate.
#[tokio::test]
async fn a_second_reply_behind_the_354_sends_nothing_and_says_so() {
    let builder = ScriptedUpstream::builder().once(At::Data, Action::Raw(b"354 go\r\n250 injected\r\n".to_vec()));
    let (scripted, upstream) = started(builder).await;
    let outcomes = send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
    let told_so = "deferred: upstream \"company\", DATA: the server said more than it was asked for";
    assert_eq!(outcomes.iter().map(told).collect::<Vec<_>>(), [told_so]);
    assert!(scripted.messages().is_empty());
    next_message_arrives(&scripted, &upstream).await;
}

#[tokio::test]
async fn each_recipient_has_an_outcome_of_its_own() {
    for builder in builders() {
        let (scripted, upstream) = started(
            builder
                .recipient("unknown", "550 5.1.1 no such user")
                .recipient("full", "452 4.2.2 mailbox full")
                .recipient("many", "552 too many recipients")
                .recipient("slow", "450-4.2.1 slow\r\n450 4.2.1 down"),
        )
        .await;
        let recipients =
            ["unknown@x.example", "b@x.example", "full@x.example", "many@x.example", "slow@x.example", "c@x.example"];
        let outcomes = send(&upstream, &envelope(&recipients), &numbered(1)).await.unwrap();
        assert_told(
            &outcomes,
            &[
                "failed: upstream \"company\", RCPT TO: 550 5.1.1 no such user",
                "delivered",
                "deferred: upstream \"company\", RCPT TO: 452 4.2.2 mailbox full",
                "deferred: upstream \"company\", RCPT TO: 552 too many recipients",
                "deferred: upstream \"company\", RCPT TO: 450 4.2.1 slow down",
                "delivered",
            ],
        );
        assert_eq!(scripted.messages()[0].recipients, ["b@x.example", "c@x.example"]);
        next_message_arrives(&scripted, &upstream).await;
        assert_eq!((scripted.counts().total, scripted.count("RSET")), (1, 0));
    }
}

#[tokio::test]
async fn a_refusal_of_the_message_applies_to_every_accepted_recipient() {
    for (at, line, told) in [
        (At::Mail, "550 5.7.1 sender not verified", "failed: upstream \"company\", MAIL FROM: 550 5.7.1"),
        (At::Mail, "451 4.3.0 later", "deferred: upstream \"company\", MAIL FROM: 451 4.3.0"),
        (At::Data, "554 5.7.1 no", "failed: upstream \"company\", DATA: 554 5.7.1"),
        (At::Data, "451 4.3.0 later", "deferred: upstream \"company\", DATA: 451 4.3.0"),
        (At::Data, "250 odd", "deferred: upstream \"company\", DATA: 250 odd"),
        (At::Dot, "550 5.7.1 spam", "failed: upstream \"company\", final dot: 550 5.7.1"),
        (
            At::Dot,
            "451-4.7.1 grey\r\n451 4.7.1 listed",
            "deferred: upstream \"company\", final dot: 451 4.7.1 grey listed",
        ),
    ] {
        for builder in builders() {
            let builder = builder.once(at, line).recipient("unknown", "550 5.1.1 no such user");
            let (scripted, upstream) = started(builder).await;
            let envelope = envelope(&["b@example.net", "c@example.net"]);
            assert_told(&send(&upstream, &envelope, &numbered(1)).await.unwrap(), &[told, told]);
            assert!(scripted.messages().is_empty());
            next_message_arrives(&scripted, &upstream).await;
            // RSET only where a transaction was left open.
            assert_eq!((scripted.counts().total, scripted.count("RSET")), (1, usize::from(at == At::Data)), "{line}");
        }
    }
}

#[tokio::test]
async fn when_everyone_was_refused_nothing_is_sent() {
    for builder in builders() {
        let (scripted, upstream) = started(builder.recipient("unknown", "550 5.1.1 no such user")).await;
        let envelope = envelope(&["unknown1@example.net", "unknown2@example.net"]);
        let told = "failed: upstream \"company\", RCPT TO: 550 5.1.1 no such user";
        assert_told(&send(&upstream, &envelope, &numbered(1)).await.unwrap(), &[told, told]);
        assert!(scripted.messages().is_empty() && scripted.not_accepted().is_empty());
        next_message_arrives(&scripted, &upstream).await;
        assert_eq!((scripted.counts().total, scripted.count("RSET")), (1, 1));
    }
}

/// RFC 2920 §3.1.
#[tokio::test]
async fn when_everyone_was_refused_and_data_is_wanted_all_the_same_a_lone_dot_is_sent() {
    for answer in ["250 2.0.0 ok", "554 5.5.1 no recipients"] {
        let builder = ScriptedUpstream::builder()
            .recipient("unknown", "550 5.1.1 no such user")
            .once(At::Data, "354 go ahead")
            .once(At::Dot, answer);
        let (scripted, upstream) = started(builder).await;
        let told = "failed: upstream \"company\", RCPT TO: 550 5.1.1 no such user";
        assert_told(&send(&upstream, &envelope(&["unknown@example.net"]), &numbered(1)).await.unwrap(), &[told]);
        let dots = [scripted.messages(), scripted.not_accepted()].concat();
        assert_eq!((dots.len(), &dots[0].wire[..]), (1, &b".\r\n"[..]));
        let upstream_is_clean = send(&upstream, &envelope(&["next@example.net"]), &numbered(2)).await.unwrap();
        assert_told(&upstream_is_clean, &["delivered"]);
        assert_eq!((scripted.counts().total, scripted.count("RSET")), (1, 0));
    }
}

#[tokio::test]
async fn a_server_that_wants_data_after_a_refused_mail_gets_no_dot() {
    let builder = ScriptedUpstream::builder()
        .once(At::Mail, "550 5.7.1 sender not verified")
        .once(At::Rcpt, "250 2.1.5 ok")
        .once(At::Data, "354 go ahead");
    let (scripted, upstream) = started(builder).await;
    let told = "failed: upstream \"company\", MAIL FROM: 550 5.7.1";
    assert_told(&send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap(), &[told]);
    next_message_arrives(&scripted, &upstream).await;
    assert!(scripted.not_accepted().is_empty());
    assert_eq!(scripted.counts().total, 2);
}

#[tokio::test]
async fn no_answer_to_the_final_dot_may_be_a_delivery() {
    let malformed = Action::Raw(b"\x00\x01 what\r\n".to_vec());
    for (action, told) in [
        (Action::Close, "the server closed the connection"),
        (Action::Stall, "no answer in time"),
        (malformed, "this is not SMTP"),
        (Action::Say("354 more".to_owned()), "354 more"),
    ] {
        let scripted = ScriptedUpstream::builder().once(At::Dot, action).start().await;
        let mut options = scripted.options("company");
        options.limits.data_timeout = Duration::from_secs(3);
        let upstream = upstream(options);
        let outcomes = send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
        assert_told(&outcomes, &[&format!("deferred: upstream \"company\", final dot: {told}")]);
        assert!(matches!(&outcomes[0], Outcome::Deferred(reason) if reason.possible_duplicate), "{outcomes:?}");
        assert_eq!(scripted.not_accepted().len(), 1);
        next_message_arrives(&scripted, &upstream).await;
        assert_eq!(scripted.counts().total, 2);
    }
}

#[tokio::test]
async fn a_connection_lost_before_the_dot_is_not_a_delivery() {
    let large = unsigned(format!("From: a@example.com\r\n\r\n{}", "0123456789\r\n".repeat(1_000_000)));
    for at in [At::Mail, At::Rcpt, At::Data, At::Midway] {
        let (scripted, upstream) = started(ScriptedUpstream::builder().once(at, Action::Close)).await;
        let outcomes = send(&upstream, &envelope(&["b@example.net"]), &large).await.unwrap();
        assert!(matches!(&outcomes[..], [Outcome::Deferred(reason)] if !reason.possible_duplicate), "{outcomes:?}");
        next_message_arrives(&scripted, &upstream).await;
    }
}

#[tokio::test]
async fn what_a_server_says_in_the_middle_of_the_data_is_heard() {
    let large = unsigned(format!("From: a@example.com\r\n\r\n{}", "0123456789\r\n".repeat(1_000_000)));
    let builder = ScriptedUpstream::builder().once(At::Midway, Action::say_and_close("452 4.3.1 disk full"));
    let (scripted, upstream) = started(builder).await;
    let outcomes = send(&upstream, &envelope(&["b@example.net"]), &large).await.unwrap();
    // The answer may be lost with the connection; the message is deferred in either case.
    assert!(matches!(&outcomes[..], [Outcome::Deferred(reason)] if !reason.possible_duplicate), "{outcomes:?}");
    next_message_arrives(&scripted, &upstream).await;
}

#[tokio::test]
async fn what_the_server_cannot_carry_is_not_sent() {
    let eight_bit = "From: a@example.com\r\n\r\nbödy\r\n";
    let utf8 = "no SMTPUTF8";
    for (without, sealed, recipients, expected) in [
        ("8BITMIME", unsigned(eight_bit), &["b@example.net"][..], &["only 7-bit mail"][..]),
        ("room", unsigned("From: a@example.com\r\n\r\n0123456789\r\n"), &["b@example.net"], &["accepts at most 20"]),
        ("SMTPUTF8", numbered(1), &["jürgen@example.net", "b@example.net"], &[utf8, "delivered"]),
        ("SMTPUTF8", numbered(1), &["jürgen@example.net"], &[utf8]),
    ] {
        let keywords: &[&str] = match without {
            "8BITMIME" => &["PIPELINING", "SMTPUTF8", "AUTH PLAIN"],
            "SMTPUTF8" => &["PIPELINING", "8BITMIME", "AUTH PLAIN"],
            _ => &["PIPELINING", "8BITMIME", "AUTH PLAIN", "SIZE 20"],
        };
        let (scripted, upstream) = started(ScriptedUpstream::builder().keywords(keywords)).await;
        let outcomes = send(&upstream, &envelope(recipients), &sealed).await.unwrap();
        for (outcome, part) in outcomes.iter().zip(expected) {
            let text = told(outcome);
            let local = text.starts_with("failed: upstream \"company\", gateway: ");
            assert!(text.contains(part) && (local || text == "delivered"), "{without}: {text}");
        }
        let delivered = expected.iter().filter(|part| **part == "delivered").count();
        assert_eq!((scripted.messages().len(), scripted.count("MAIL")), (delivered, delivered), "{without}");
    }
    let (scripted, upstream) = started(ScriptedUpstream::builder().without("SMTPUTF8")).await;
    let outcomes = send(&upstream, &envelope_from("jürgen@example.com", &["b@example.net"]), &numbered(1)).await;
    assert!(told(&outcomes.unwrap()[0]).contains("the sender's address is not ASCII"));
    assert_eq!(scripted.count("MAIL"), 0);
}

#[tokio::test]
async fn lower_case_keywords_and_bare_replies_are_understood() {
    let builder = ScriptedUpstream::builder()
        .keywords_in_clear(&["starttls"])
        .keywords(&["pipelining", "size 1000000", "auth login"])
        .once(At::Mail, "250")
        .once(At::Rcpt, Action::Raw(b"250 \n".to_vec()))
        .once(At::Dot, "250-2.0.0 thank\r\n250-2.0.0 you\r\n250 2.0.0 all");
    let (scripted, upstream) = started(builder).await;
    let outcomes = send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
    assert!(matches!(&outcomes[..], [Outcome::Delivered(reply)] if reply.text() == "thank you all"), "{outcomes:?}");
    assert_eq!(scripted.round_trips(), 2);
}

#[tokio::test]
async fn a_reply_too_many_ends_the_connection() {
    let (scripted, upstream) =
        started(ScriptedUpstream::builder().once(At::Dot, "250 2.0.0 ok\r\n250 2.0.0 and for the next one")).await;
    assert_told(&send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap(), &["delivered"]);
    next_message_arrives(&scripted, &upstream).await;
    assert_eq!(scripted.counts().total, 2, "a reply in advance must not answer the next message");
}

#[tokio::test]
async fn a_provider_that_asks_for_a_slower_pace_with_a_5yz_is_not_believed_about_the_mail() {
    const GMAIL: &[SlowDown] = &[SlowDown { code: 550, starts_with: "5.4.5" }];
    for at in [At::Mail, At::Rcpt, At::Data, At::Dot] {
        for builder in builders() {
            let scripted = builder.once(at, "550-5.4.5 Daily limit\r\n550 5.4.5 exceeded").start().await;
            let mut options = scripted.options("company");
            options.slow_down = GMAIL;
            let upstream = upstream(options);
            let outcomes = send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
            assert!(told(&outcomes[0]).starts_with("deferred: "), "{outcomes:?}");
            assert!(told(&outcomes[0]).ends_with("550 5.4.5 Daily limit exceeded"), "{outcomes:?}");
            let Outcome::Deferred(reason) = &outcomes[0] else { panic!("{outcomes:?}") };
            assert!(reason.is_about_upstream(), "all of the upstream's mail waits");
            next_message_arrives(&scripted, &upstream).await;
        }
    }
}

#[tokio::test]
async fn the_callers_deadline_ends_every_step() {
    let mut stalled = tokio::task::JoinSet::new();
    for (at, step) in [
        (At::Greeting, RelayStep::Greeting),
        (At::Ehlo, RelayStep::Ehlo),
        (At::StartTls, RelayStep::StartTls),
        (At::Handshake, RelayStep::TlsHandshake),
        (At::EhloInTls, RelayStep::Ehlo),
        (At::Auth, RelayStep::Auth),
        (At::Mail, RelayStep::Mail),
        (At::Rcpt, RelayStep::Rcpt),
        (At::Data, RelayStep::Data),
        (At::Dot, RelayStep::EndOfData),
    ] {
        stalled.spawn(stalled_at(at, step));
    }
    while let Some(ended) = stalled.join_next().await {
        ended.unwrap();
    }
}

async fn stalled_at(at: At, step: RelayStep) {
    let (scripted, upstream) = started(ScriptedUpstream::builder().once(at, Action::Stall)).await;
    let deadline = Deadline::after(Duration::from_secs(5));
    let to = envelope(&["b@example.net"]);
    let mail = numbered(1);
    let reason = match upstream.ready(ConnectionRequest::by(deadline)).await {
        Err(reason) => reason,
        Ok(ready) => match ready.send(&to, &to.recipients, &mail, deadline).await {
            Sent::Outcomes(outcomes) => match &outcomes[..] {
                [Outcome::Deferred(reason)] => reason.clone(),
                other => panic!("{other:?}"),
            },
            Sent::Stale => panic!("a fresh connection was called stale"),
        },
    };
    assert_eq!((reason.step, &reason.cause), (step, &Cause::TimedOut));
    assert_eq!(reason.possible_duplicate, at == At::Dot);
    assert!(deadline.has_passed());
    next_message_arrives(&scripted, &upstream).await;
}
