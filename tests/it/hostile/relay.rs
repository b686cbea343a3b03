//! What a provider may do in the middle of a delivery, through the whole gateway: a retry happens later and once, only
//! for deferred recipients; there is never a bounce, and never a duplicate without a warning.

use crate::support::application::{NO_REPAIR, hand_in, hand_in_octets, mail, queued_in_front_of};
use crate::support::gateway::{Gateway, Setup};
use crate::support::keys::{self, TestKey};
use crate::support::provider_servers::SES;
use crate::support::tally::Tally;
use crate::support::upstream::{Action, At, Builder, ScriptedUpstream};
use tokio::task::JoinSet;
use waxseal::dkim::{self, KeyAlgorithm, Records};

const ONE: &[&str] = &["a@example.net"];
const THREE: &[&str] = &["a@example.net", "b@example.net", "c@example.net"];

async fn behind(builder: Builder) -> (ScriptedUpstream, Gateway) {
    let scripted = builder.start().await;
    let gateway = queued_in_front_of(&scripted, "", "").start(1);
    (scripted, gateway)
}

async fn queue(gateway: &Gateway, recipients: &[&str]) {
    let reply = hand_in(gateway.address(), recipients, &mail("checked")).await;
    assert!(reply.starts_with("250 2.0.0 Queued as "), "{reply}");
}

/// For all messages, sorted.
fn served(scripted: &ScriptedUpstream) -> Vec<String> {
    let mut served: Vec<_> = scripted.messages().into_iter().flat_map(|message| message.recipients).collect();
    served.sort_unstable();
    served
}

fn failed(gateway: &Gateway) -> bool {
    gateway.log().iter().any(|line| line.contains("\"message\":\"failed\""))
}

/// Everything is delivered, once.
async fn all_arrive_once(name: &str, builder: Builder, recipients: &[&str], messages: usize) -> Result<(), String> {
    let (scripted, gateway) = behind(builder).await;
    queue(&gateway, recipients).await;
    scripted.until_messages(messages).await;
    let (status, log, _) = gateway.stop();
    let right = served(&scripted) == recipients && scripted.messages().len() == messages && status.success();
    if right && !log.iter().any(|line| line.contains("\"message\":\"failed\"")) {
        return Ok(());
    }
    Err(format!("{name}: {:?} in {} messages\n{}", served(&scripted), scripted.messages().len(), log.join("\n")))
}

fn says(at: At, line: &'static str) -> Builder {
    ScriptedUpstream::builder().always(at, line)
}

/// Each with its provider, its recipients, and the number of transactions.
fn cases() -> Vec<(&'static str, Builder, &'static [&'static str], usize)> {
    let builder = ScriptedUpstream::builder;
    let busy = || Action::say_and_close("421 4.7.0 busy");
    let steps = [
        ("421 instead of a greeting", At::Greeting),
        ("421 to EHLO", At::Ehlo),
        ("421 to STARTTLS", At::StartTls),
        ("421 to EHLO inside TLS", At::EhloInTls),
        ("421 to AUTH", At::Auth),
        ("421 to MAIL", At::Mail),
        ("421 to RCPT", At::Rcpt),
        ("421 to DATA", At::Data),
        ("421 to the final dot", At::Dot),
    ];
    let mut cases: Vec<_> = steps.into_iter().map(|(name, at)| (name, builder().once(at, busy()), ONE, 1)).collect();
    let steps =
        [("221 to MAIL", At::Mail), ("221 to RCPT", At::Rcpt), ("221 to DATA", At::Data), ("221 to the dot", At::Dot)];
    let bye = || Action::say_and_close("221 2.0.0 bye");
    cases.extend(steps.into_iter().map(|(name, at)| (name, builder().once(at, bye()), ONE, 1)));
    let some = builder().once(At::Rcpt, "250 ok").once(At::Rcpt, "250 ok").once(At::Rcpt, "452 4.5.3 too many");
    cases.push(("452 after two recipients", some, THREE, 2));
    let some = builder().once(At::Rcpt, "250 ok").once(At::Rcpt, "552 too many").once(At::Rcpt, "552 too many");
    cases.push(("552 after one recipient", some.once(At::Rcpt, "250 ok").once(At::Rcpt, "250 ok"), THREE, 2));
    cases.push(("a reply of several lines to MAIL", says(At::Mail, "250-2.1.0 well\r\n250 2.1.0 then"), ONE, 1));
    cases.push(("a reply of several lines to RCPT", says(At::Rcpt, "250-2.1.5 well\r\n250 2.1.5 then"), ONE, 1));
    cases.push(("a reply of several lines to DATA", says(At::Data, "354-well\r\n354 then"), ONE, 1));
    cases.push(("a reply of several lines to the dot", says(At::Dot, "250-well\r\n250-then\r\n250 queued"), ONE, 1));
    cases.push(("a reply without text", says(At::Mail, "250"), ONE, 1));
    cases.push(("keywords in lower case", builder().keywords(&["pipelining", "size 1000000", "auth plain"]), ONE, 1));
    cases.push(("the keyword AUTH=PLAIN", builder().keywords(&["PIPELINING", "AUTH=PLAIN"]), ONE, 1));
    cases.push(("no PIPELINING", builder().without("PIPELINING"), THREE, 1));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_come_back_comes_back_once() {
    let mut tally = Tally::new("relay-checks", "once");
    let mut running = JoinSet::new();
    for (name, builder, recipients, messages) in cases() {
        running.spawn(all_arrive_once(name, builder, recipients, messages));
    }
    for result in running.join_all().await {
        tally.case(result.is_ok(), || result.unwrap_err());
    }
    tally.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_deferred_recipients_are_retried_and_refused_ones_have_failed() {
    let mut tally = Tally::new("relay-checks", "each recipient");
    let builder = ScriptedUpstream::builder().once(At::Rcpt, "250 ok").once(At::Rcpt, "450 4.2.1 later");
    let (scripted, gateway) = behind(builder.once(At::Rcpt, "550 5.1.1 no such user")).await;
    queue(&gateway, THREE).await;
    scripted.until_messages(2).await;
    gateway.wait_for_line(&["\"failed\"", "c@example.net", "550 5.1.1 no such user"]);
    tally.case(served(&scripted) == THREE[..2], || format!("{:?}", served(&scripted)));
    tally.case(scripted.count("RCPT") == 4, || format!("{:?}", scripted.commands()));
    tally.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_to_the_final_dot_is_tried_again_as_a_possible_duplicate() {
    let mut tally = Tally::new("relay-checks", "no answer");
    let (scripted, gateway) = behind(ScriptedUpstream::builder().once(At::Dot, Action::Close)).await;
    queue(&gateway, ONE).await;
    scripted.until_messages(1).await;
    let told = gateway.wait_for_line(&["possible duplicate"]);
    tally.case(scripted.not_accepted().len() == 1 && !failed(&gateway), || told);
    // RFC 5321 §4.5.3.2: ten minutes for the answer to the dot, five for MAIL and RCPT, two for DATA.
    let shown = Setup::new(None).output(&["check", "--defaults"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for deadline in ["data_timeout = \"10m\"", "command_timeout = \"5m\""] {
        tally.case(shown.contains(deadline), || format!("no {deadline} in {shown}"));
    }
    tally.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_cannot_carry_is_converted_before_it_is_signed_or_failed_for_that_recipient() {
    let mut tally = Tally::new("relay-checks", "extensions");
    let keys = [TestKey::new("e", KeyAlgorithm::Ed25519)];
    let scripted = ScriptedUpstream::builder().keywords(&["PIPELINING", "AUTH PLAIN"]).start().await;
    let setup = queued_in_front_of(&scripted, &format!("{}{NO_REPAIR}", keys::tables(&keys)), "");
    let gateway = keys::with_files(setup, &keys).start(1);
    let message = "From: reports@example.com\r\nTo: a@example.net\r\nSubject: x\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\u{fc}\u{df}e\r\n";
    let reply =
        hand_in_octets(gateway.address(), &["a@example.net", "j\u{fc}rgen@example.net"], message.as_bytes()).await;
    assert!(reply.starts_with("250 "), "{reply}");
    scripted.until_messages(1).await;
    gateway.wait_for_line(&["\"failed\"", "rgen@example.net", "no SMTPUTF8"]);
    let arrived = &scripted.messages()[0];
    tally.case(arrived.recipients == ["a@example.net"], || format!("{:?}", arrived.recipients));
    tally.case(arrived.data.is_ascii(), || arrived.data.escape_ascii().to_string());
    let verified = dkim::verify(&arrived.data, &Records::of_keys(keys.iter().map(|key| &*key.signing)));
    tally.case(verified.len() == 1 && verified[0].is_pass(), || format!("{verified:?}"));
    tally.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_slows_and_never_fails() {
    let mut tally = Tally::new("relay-checks", "throttling");
    let key = "[[dkim]]\ndomain = \"example.com\"\nselector = \"a\"\nprivate_key = \"a.pem\"\ngenerate = true\n";
    let scripted = SES.builder().start().await;
    for _ in 0..2 {
        scripted.once(At::Dot, "454 Throttling failure: Maximum sending rate exceeded.");
    }
    let gateway = SES.behind(&scripted, key).start(1);
    queue(&gateway, ONE).await;
    scripted.until_messages(1).await;
    tally.case(!failed(&gateway) && scripted.messages().len() == 1, || gateway.log().join("\n"));
    tally.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_dot_where_everyone_was_refused_and_data_is_wanted_all_the_same() {
    let mut tally = Tally::new("relay-checks", "lone dot");
    let (scripted, gateway) = behind(says(At::Rcpt, "550 5.1.1 no such user").always(At::Data, "354 go")).await;
    queue(&gateway, THREE).await;
    for recipient in THREE {
        gateway.wait_for_line(&["\"failed\"", recipient]);
    }
    gateway.stop();
    let wires: Vec<_> =
        [scripted.messages(), scripted.not_accepted()].concat().into_iter().map(|message| message.wire).collect();
    tally.case(wires == [b".\r\n"], || format!("{wires:?}"));
    tally.finish();
}
