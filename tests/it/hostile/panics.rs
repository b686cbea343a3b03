//! A fault of the program in one session, one message or one delivery: nothing else is affected, no mail is lost, and
//! each is one log line, counted, without the text of the panic.

use crate::support::application::{hand_in, in_front_of, mail, mail_from, numbered, queued_in_front_of, subjects};
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::tally::Tally;
use crate::support::upstream::{At, ScriptedUpstream};
use std::net::SocketAddr;

/// How often each place panics before it works.
const FAULTS: usize = 2;
const RECIPIENT: &[&str] = &["you@example.net"];

/// From a sender for which the built program panics at this place.
async fn hand_in_from(gateway: SocketAddr, sender: &str, subject: &str) -> String {
    let mut client = Client::connect(gateway).await;
    client.greet().await;
    for line in [format!("MAIL FROM:<{sender}>"), "RCPT TO:<you@example.net>".to_owned(), "DATA".to_owned()] {
        let reply = client.ask(&line).await;
        assert!(reply.starts_with("250 ") || reply.starts_with("354 "), "{line}: {reply}");
    }
    client.ask(&format!("{}.", mail_from(sender, subject))).await
}

/// The reply to MAIL, or nothing if the connection ends.
async fn session(gateway: SocketAddr) -> Option<String> {
    let mut client = Client::connect(gateway).await;
    client.greet().await;
    client.send(b"MAIL FROM:<panics-in-session@example.com>\r\n").await;
    client.reply().await
}

fn faults(gateway: &Gateway) -> Vec<String> {
    gateway.log().into_iter().filter(|line| line.contains("a fault of this program: ")).collect()
}

fn judge_log(tally: &mut Tally, gateway: &Gateway, expected: usize) {
    let faults = faults(gateway);
    tally.case(faults.len() == expected, || format!("{} faults in the log: {faults:#?}", faults.len()));
    for (number, line) in faults.iter().enumerate() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let right = event["count"] == number + 1 && event["at"].as_str().is_some_and(|at| at.contains("src/"));
        tally.case(right, || line.clone());
    }
    let told = gateway.log().iter().any(|line| line.contains("on purpose"));
    tally.case(!told, || "the text of a panic was printed".to_owned());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_session_a_message_or_a_delivery_loses_nothing() {
    let mut tally = Tally::new("panics", "queue");
    let scripted = ScriptedUpstream::start().await;
    let mut gateway = queued_in_front_of(&scripted, "", "").env("WAXSEAL_TEST_FAULTS", FAULTS).start(1);
    let address = gateway.address();

    let mut beside = Client::connect(address).await;
    beside.greet().await;
    assert!(beside.ask("MAIL FROM:<reports@example.com>").await.starts_with("250 "));
    for _ in 0..FAULTS {
        let reply = session(address).await;
        tally.case(reply.is_none(), || format!("{reply:?}"));
    }
    let reply = session(address).await.unwrap_or_default();
    tally.case(reply.starts_with("250 "), || reply);
    let reply = beside.ask("RCPT TO:<you@example.net>").await;
    tally.case(reply.starts_with("250 "), || reply);

    for _ in 0..FAULTS {
        let reply = hand_in_from(address, "panics-in-intake@example.com", "refused").await;
        tally.case(reply.starts_with("451 4.3.0 "), || reply);
    }
    let reply = hand_in_from(address, "panics-in-attempt@example.com", "9999").await;
    tally.case(reply.starts_with("250 "), || reply);
    for subject in numbered(20) {
        let reply = hand_in(address, RECIPIENT, &mail(&subject)).await;
        tally.case(reply.starts_with("250 "), || reply);
    }
    scripted.until_messages(21).await;
    let mut expected = numbered(20);
    expected.push("9999".to_owned());
    tally.case(subjects(&scripted) == expected, || format!("{:?}", subjects(&scripted)));

    judge_log(&mut tally, &gateway, 3 * FAULTS);
    tally.case(gateway.is_alive(), || "the gateway is gone".to_owned());
    gateway.signal("TERM");
    tally.case(gateway.wait().code() == Some(0), || gateway.log().join("\n"));
    tally.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_direct_mode_the_application_gets_a_temporary_error() {
    let mut tally = Tally::new("panics", "direct");
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted, "").env("WAXSEAL_TEST_FAULTS", FAULTS).start(1);
    for place in ["intake", "attempt"] {
        let sender = format!("panics-in-{place}@example.com");
        for _ in 0..FAULTS {
            let reply = hand_in_from(gateway.address(), &sender, place).await;
            tally.case(reply.starts_with("451 4.3.0 "), || format!("{place}: {reply}"));
        }
        let reply = hand_in_from(gateway.address(), &sender, place).await;
        tally.case(reply.starts_with("250 "), || format!("{place}: {reply}"));
    }
    tally.case(subjects(&scripted) == ["attempt", "intake"], || format!("{:?}", subjects(&scripted)));
    judge_log(&mut tally, &gateway, 2 * FAULTS);
    tally.finish();
}

/// Between the mark in the database and the first command to a provider, and between its last reply and the settlement:
/// the lease ends without another start.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_while_a_lease_is_handed_over_or_closed_leaves_no_mail_leased() {
    let mut tally = Tally::new("panics", "leases");
    let scripted = ScriptedUpstream::builder().recipient("gone@", "550 5.1.1 no such user").start().await;
    let queue = "retry = { first = \"1s\", longest = \"1s\" }\nbounce = \"sender\"";
    let gateway = queued_in_front_of(&scripted, "", queue).env("WAXSEAL_TEST_FAULTS", 1).start(1);
    // New mail is handed over as it is stored; only what waits is searched for.
    scripted.once(At::Rcpt, "451 4.3.0 later");
    for (number, place) in ["lending", "hand-over", "closing"].into_iter().enumerate() {
        let reply = hand_in_from(gateway.address(), &format!("panics-in-{place}@example.com"), place).await;
        let id = reply.rsplit(' ').next().unwrap_or_default().to_owned();
        tally.case(reply.starts_with("250 "), || format!("{place}: {reply}"));
        gateway.wait_for_line(&["\"delivered\"", &id]);
        let again = gateway.log().iter().any(|line| line.contains("possible duplicate") && line.contains(&id));
        tally.case(again == (place == "closing"), || format!("{place}: a possible duplicate? {again}"));
        tally.case(faults(&gateway).len() == number + 1, || format!("{place}: {:#?}", faults(&gateway)));
    }
    let sent = subjects(&scripted);
    tally.case(sent == ["closing", "closing", "hand-over", "lending"], || format!("{sent:?}"));
    tally.finish();
}
