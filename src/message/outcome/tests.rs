//! The table of replies row by row, and what a reason says.

use super::*;
use crate::smtp::reply::ReplyParser;

#[test]
fn the_table_row_by_row() {
    use Meaning::*;
    let gmail = [SlowDown { code: 550, starts_with: "5.4.5" }];
    for (step, line, expected) in [
        (RelayStep::Greeting, "220 hello", Accepted),
        (RelayStep::Greeting, "554 go away", UpstreamDeferred),
        (RelayStep::Ehlo, "500 what", UpstreamDeferred),
        (RelayStep::Ehlo, "221 2.0.0 bye", UpstreamDeferred),
        (RelayStep::StartTls, "354 odd", UpstreamDeferred),
        (RelayStep::StartTls, "221 bye", UpstreamDeferred),
        (RelayStep::StartTls, "554 5.7.3 no", UpstreamDeferred),
        (RelayStep::Auth, "235 2.7.0 in", Accepted),
        (RelayStep::Auth, "535 5.7.8 wrong", UpstreamDeferred),
        (RelayStep::Mail, "250 ok", Accepted),
        (RelayStep::Mail, "451 4.3.0 later", MessageDeferred),
        (RelayStep::Mail, "550 5.7.1 sender not verified", MessageFailed),
        (RelayStep::Mail, "530 5.7.0 login first", UpstreamDeferred),
        (RelayStep::Mail, "421 4.7.0 bye", UpstreamDeferred),
        (RelayStep::Mail, "221 2.0.0 bye", UpstreamDeferred),
        (RelayStep::Rcpt, "250 ok", Accepted),
        (RelayStep::Rcpt, "251 forwarding", Accepted),
        (RelayStep::Rcpt, "550 5.1.1 unknown", RecipientFailed),
        (RelayStep::Rcpt, "450 4.2.1 later", RecipientDeferred),
        (RelayStep::Rcpt, "452 4.5.3 too many", RecipientDeferred),
        (RelayStep::Rcpt, "552 too many", RecipientDeferred),
        (RelayStep::Rcpt, "421 bye", UpstreamDeferred),
        (RelayStep::Rcpt, "221 2.0.0 bye", UpstreamDeferred),
        (RelayStep::Data, "354 go", Accepted),
        (RelayStep::Data, "250 odd", MessageDeferred),
        (RelayStep::Data, "221 2.0.0 bye", UpstreamDeferred),
        (RelayStep::Data, "554 5.5.1 no valid recipients", MessageFailed),
        (RelayStep::EndOfData, "250 2.0.0 queued", Accepted),
        (RelayStep::EndOfData, "354 odd", MessageDeferred),
        (RelayStep::EndOfData, "221 2.0.0 bye", UpstreamDeferred),
        (RelayStep::EndOfData, "451 4.7.1 greylisted", MessageDeferred),
        (RelayStep::EndOfData, "550 5.7.1 spam", MessageFailed),
        (RelayStep::EndOfData, "535 5.7.8 expired", UpstreamDeferred),
        (RelayStep::EndOfData, "550 5.4.5 daily limit", UpstreamDeferred),
    ] {
        assert_eq!(interpret(step, &reply(line), &gmail).meaning, expected, "{step}: {line}");
    }
}

/// Every step and code, against the four questions that were once answered in four files.
#[test]
fn what_a_reply_does_to_connection_and_breaker_follows_from_step_and_code() {
    for step in STEPS {
        for code in 200..=599 {
            let said = reply(&format!("{code} text"));
            let Interpretation { meaning, connection, signal, next_transaction, leaves_open, advice } =
                interpret(step, &said, &[]);
            let what = format!("{step}: {code}");
            let goes_on = (300..400).contains(&code);
            let is_odd = goes_on && !matches!(step, RelayStep::Auth | RelayStep::Data);
            let expected = match code {
                221 | 421 => ConnectionState::Closed,
                530 | 535 => ConnectionState::Spent,
                _ if is_odd => ConnectionState::Spent,
                _ => ConnectionState::Kept,
            };
            assert_eq!(connection, expected, "{what}");
            let expected = match meaning {
                _ if code == 421 => Signal::SlowDown,
                Meaning::UpstreamDeferred => Signal::Unavailable,
                _ => Signal::Success,
            };
            assert_eq!(signal, expected, "{what}");
            assert_eq!(next_transaction, step == RelayStep::Rcpt && matches!(code, 452 | 552), "{what}");
            assert_eq!(leaves_open, step == RelayStep::EndOfData && (goes_on || code == 221), "{what}");
            assert_eq!(advice.is_some(), step == RelayStep::Auth && matches!(code, 534 | 535), "{what}");
            let reason = Reason::new(Some("a"), step, Cause::Reply(said.clone()));
            let is_about_upstream =
                step < RelayStep::Mail && meaning != Meaning::Accepted || matches!(code, 221 | 421 | 530 | 535);
            assert_eq!(reason.is_about_upstream(), is_about_upstream, "{what}");
            if meaning != Meaning::Accepted {
                let patterns = [SlowDown { code, starts_with: "" }];
                let slowed = interpret(step, &said, &patterns);
                assert_eq!((slowed.meaning, slowed.signal), (Meaning::UpstreamDeferred, Signal::SlowDown), "{what}");
                assert_eq!(slowed.connection, connection, "{what}");
            }
        }
    }
}

const STEPS: [RelayStep; 8] = [
    RelayStep::Greeting,
    RelayStep::Ehlo,
    RelayStep::StartTls,
    RelayStep::Auth,
    RelayStep::Mail,
    RelayStep::Rcpt,
    RelayStep::Data,
    RelayStep::EndOfData,
];

fn reply(line: &str) -> Reply {
    let parsed = ReplyParser::default().parse(format!("{line}\r\n").as_bytes());
    parsed.expect("a reply").1.expect("a whole reply")
}

/// What servers say to a client that should have logged in, and what they say of a mail that is at fault.
#[test]
fn a_refusal_for_want_of_a_login_is_no_fault_of_the_mail() {
    use RelayStep::{Data, EndOfData, Mail, Rcpt};
    for (step, line, unserved, served) in [
        (Mail, "530 5.7.0 Must authenticate", true, true),
        (Mail, "530 5.7.57 Client not authenticated to send mail", true, true),
        (Mail, "550 5.7.1 Sender not permitted", true, false),
        (Mail, "550 5.7.60 no", true, false),
        (Mail, "553 5.7.1 no", true, false),
        (Mail, "554 denied", true, false),
        (Mail, "503 AUTH first: authentication required", true, true),
        (Rcpt, "554 5.7.1 <b@example.net>: Relay access denied", true, true),
        (Rcpt, "550 relay not permitted", true, true),
        (Rcpt, "550 5.7.1 Unable to relay", true, true),
        (Rcpt, "454 4.7.1 Relaying temporarily denied", true, true),
        (Data, "554 5.7.1 no", true, false),
        (EndOfData, "554 5.7.1 no", true, false),
        (Rcpt, "550 5.1.1 no such user", false, false),
        (Rcpt, "552 5.2.2 mailbox full", false, false),
        (Mail, "550 no", false, false),
        (Data, "554 5.5.1 no valid recipients", false, false),
        (EndOfData, "554 5.6.0 bad content", false, false),
        (EndOfData, "451 4.7.1 greylisted", false, false),
        (RelayStep::Greeting, "554 5.7.1 no", false, false),
    ] {
        for (was_served, wants) in [(false, unserved), (true, served)] {
            let reason = Reason::new(Some("company"), step, Cause::Reply(reply(line)));
            let before = Outcome::of(reason, &[]);
            let outcome = before.clone().deferred_without_login(was_served, MISSING_LOGIN);
            let what = format!("{step}: {line}, served: {was_served}");
            if !wants {
                assert_eq!(outcome, before, "{what}");
                continue;
            }
            let Outcome::Deferred(reason) = outcome else { panic!("{what}: it fails") };
            assert!(reason.is_about_upstream() && reason.to_string().contains("`username` and `password`"), "{what}");
            assert_eq!(reason.signal(&[]), Signal::Unavailable, "{what}");
        }
    }
}

#[test]
fn the_last_word_tells_what_the_others_said_before() {
    let said = |upstream, step| Reason::new(Some(upstream), step, Cause::TimedOut);
    let first = said("a", RelayStep::Connect);
    let again = said("b", RelayStep::Rcpt);
    let second = said("b", RelayStep::Mail);
    let third = said("c", RelayStep::Auth);
    let outcome = Outcome::Deferred(second).after(Outcome::Failed(first));
    let outcome = Outcome::Deferred(again).after(outcome);
    let Outcome::Failed(reason) = Outcome::Failed(third).after(outcome) else { panic!("the last one decides") };
    assert_eq!(
        reason.to_string(),
        "upstream \"c\", AUTH: no answer in time; before that, upstream \"b\", RCPT TO: no answer in time; \
         before that, upstream \"a\", connect: no answer in time"
    );
}
