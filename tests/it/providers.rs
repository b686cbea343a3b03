//! Each known provider behaves as its documentation says: mail gets through, verifies after the provider's changes, and
//! no limit is ever exceeded.

use crate::support::application::{NO_REPAIR, field, hand_in_octets, queued_in_front_of};
use crate::support::bench::{Bench, assert_none};
use crate::support::gateway::{Gateway, Setup};
use crate::support::keys;
use crate::support::provider_servers::{
    GMAIL, HEAD, MAILGUN, MANDRILL, MICROSOFT365, POSTMARK, ProviderServer, SENDGRID, SES,
};
use crate::support::upstream::{At, Message, ScriptedUpstream};
use std::path::PathBuf;
use tokio::task::JoinSet;

/// Text and names that need more than ASCII.
const EIGHT_BIT: &str = "From: =?UTF-8?Q?J=C3=BCrgen?= <reports@example.com>\r\nTo: you@example.net\r\n\
    Subject: Gr\u{fc}\u{df}e\r\nDate: Tue, 24 Nov 2026 03:05:09 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\u{fc}\u{df}e aus K\u{f6}ln\r\n.dot\r\n";
const MANY: usize = 120;
const BURST: usize = 30;

fn small(number: usize) -> String {
    EIGHT_BIT.replacen("Subject: ", &format!("Subject: {number} "), 1)
}

/// An 8-bit mail, one to 120 people, and some at once.
async fn hand_in_everything(gateway: &Gateway, at_once: usize) {
    let to_many: Vec<String> = (0..MANY).map(|number| format!("r{number}@example.net")).collect();
    let to_many: Vec<&str> = to_many.iter().map(String::as_str).collect();
    for recipients in [&["you@example.net"][..], &to_many] {
        let reply = hand_in_octets(gateway.address(), recipients, EIGHT_BIT.as_bytes()).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    let mut burst = JoinSet::new();
    for number in 0..at_once {
        let address = gateway.address();
        burst.spawn(async move { hand_in_octets(address, &["b@example.net"], small(number).as_bytes()).await });
    }
    burst.join_all().await.iter().for_each(|reply| assert!(reply.starts_with("250 "), "{reply}"));
}

/// Everything arrives, within the limits, and verifies after the provider's changes.
async fn everything_arrives(server: &ProviderServer, recipients_at_once: usize, connections: usize) -> Vec<Message> {
    everything_arrives_of(server, recipients_at_once, connections, BURST).await
}

async fn everything_arrives_of(
    server: &ProviderServer,
    recipients_at_once: usize,
    connections: usize,
    at_once: usize,
) -> Vec<Message> {
    let scripted = server.builder().start().await;
    let bench = Bench::new();
    let gateway = keys::with_files(server.behind(&scripted, &keys::tables(&bench.keys)), &bench.keys).start(1);
    hand_in_everything(&gateway, at_once).await;
    scripted.until_messages(1 + MANY.div_ceil(recipients_at_once) + at_once).await;
    assert_eq!(scripted.broken_rules(), [""; 0], "{}", server.provider);
    assert!(scripted.counts().max <= connections, "{}: {:?}", server.provider, scripted.counts());
    let offered = server.keywords.iter().find(|line| line.starts_with("AUTH ")).expect("a login");
    assert!(scripted.logins().iter().all(|(mechanism, ..)| offered.contains(mechanism)), "{:?}", scripted.logins());
    let arrived = scripted.messages();
    let mut served: Vec<_> = arrived.iter().flat_map(|message| message.recipients.clone()).collect();
    served.sort_unstable();
    served.dedup();
    assert_eq!(served.len(), MANY + 2, "{}: each once", server.provider);
    assert!(arrived.iter().all(|message| message.recipients.len() <= recipients_at_once));
    let passed_on = |(number, message): (usize, &Message)| {
        bench.write(&format!("{}-{number}", server.provider), &(server.passes_on)(&message.data))
    };
    let files: Vec<PathBuf> = arrived.iter().enumerate().map(passed_on).collect();
    assert_none(bench.judge(&files), |_, verdicts| verdicts != vec!["pass"; server.signatures]);
    arrived
}

#[tokio::test(flavor = "multi_thread")]
async fn postmark_gets_mail_that_it_may_take_apart() {
    let arrived = everything_arrives(&POSTMARK, 50, 10).await;
    assert!(arrived.iter().all(|message| field(&message.data, "DKIM-Signature").is_empty()), "left to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn mailgun_is_asked_not_to_track() {
    let arrived = everything_arrives(&MAILGUN, 1000, 4).await;
    assert!(arrived.iter().all(|message| field(&message.data, "X-Mailgun-Track") == "no"));
}

#[tokio::test(flavor = "multi_thread")]
async fn mandrill_gets_seven_bit_mail() {
    let arrived = everything_arrives(&MANDRILL, usize::MAX, 4).await;
    let text = String::from_utf8_lossy(&arrived[0].data).into_owned();
    assert!(text.contains("Gr=C3=BC=C3=9Fe aus K=C3=B6ln") && !arrived[0].mail.contains("8BITMIME"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sendgrid_is_asked_not_to_track() {
    everything_arrives(&SENDGRID, 1000, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ses_gets_one_signature_that_survives_its_rewriting() {
    let arrived = everything_arrives(&SES, 50, 4).await;
    assert!(arrived.iter().all(|message| !field(&message.data, "Message-ID").is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn gmail_is_greeted_with_a_full_name() {
    everything_arrives(&GMAIL, 100, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn microsoft_365_gets_three_connections_and_auth_login() {
    // Thirty a minute are allowed, so fewer are sent at once than for the others.
    everything_arrives_of(&MICROSOFT365, 500, 3, 6).await;
}

/// Replies that ask for patience, although some of their codes mean "permanent": nothing fails, and everything arrives
/// later.
#[tokio::test(flavor = "multi_thread")]
async fn what_asks_for_a_slower_pace_fails_nothing() {
    for (server, at, reply) in [
        (&SES, At::Dot, "454 Throttling failure: Maximum sending rate exceeded."),
        (&SES, At::Dot, "454 Throttling failure: Daily message quota exceeded."),
        (&GMAIL, At::Dot, "550 5.4.5 Daily user sending limit exceeded. - gsmtp"),
        (&GMAIL, At::Rcpt, "450 4.2.1 Peak SMTP relay limit exceeded for customer. - gsmtp"),
        (&MICROSOFT365, At::AuthAnswer, "432 4.3.2 Concurrent connections limit exceeded."),
        (&MICROSOFT365, At::Dot, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; failed"),
    ] {
        let scripted = server.builder().start().await;
        scripted.once(at, reply);
        let gateway = server
            .behind(
                &scripted,
                "[[dkim]]\ndomain = \"example.com\"\nselector = \"a\"\nprivate_key = \"a.pem\"\ngenerate = true\n",
            )
            .start(1);
        let taken = hand_in_octets(gateway.address(), &["you@example.net"], EIGHT_BIT.as_bytes()).await;
        assert!(taken.starts_with("250 "), "{taken}");
        scripted.until_messages(1).await;
        let told = gateway.wait_for_line(&["\"deferred\""]);
        assert!(told.contains(&reply[4..20]), "{}: {told}", server.provider);
        let failed = gateway.log().into_iter().find(|line| line.contains(":\"failed\""));
        assert_eq!(failed, None, "{}: {reply}", server.provider);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_waits_and_names_what_is_wanted() {
    let scripted = SENDGRID.builder().start().await;
    let setup = SENDGRID.behind(&scripted, "").config_with("SG.canary-key", "SG.other-canary");
    let gateway = setup.start(1);
    hand_in_octets(gateway.address(), &["you@example.net"], EIGHT_BIT.as_bytes()).await;
    let told = gateway.wait_for_line(&["\"deferred\"", "535"]);
    assert!(told.contains("API key") && !told.contains("SG.other-canary"), "{told}");
    assert!(scripted.messages().is_empty());
}

/// A mail that is too large for one provider is carried by the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_one_provider_goes_through_the_next() {
    let small = POSTMARK.builder().start().await;
    let large = MAILGUN.builder().start().await;
    let tables = format!(
        "{HEAD}{}{}[[route]]\nname = \"all\"\nupstreams = [\"small\", \"large\"]\n",
        POSTMARK.table("small", &small, "small.pem"),
        MAILGUN.table("large", &large, "large.pem"),
    );
    let tables = tables.replacen("[log]", "unsigned = \"send\"\nmax_memory = \"256 MiB\"\n[log]", 1);
    let setup = Setup::new(Some(&tables));
    let gateway = setup.file("small.pem", small.ca()).file("large.pem", large.ca()).start(1);
    let filler = "a line of a large mail\r\n".repeat(11 * 1024 * 1024 / 24);
    for message in [EIGHT_BIT.to_owned(), format!("{EIGHT_BIT}{filler}")] {
        let reply = hand_in_octets(gateway.address(), &["you@example.net"], message.as_bytes()).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    ScriptedUpstream::until_messages(&small, 1).await;
    ScriptedUpstream::until_messages(&large, 1).await;
    assert_eq!((small.messages().len(), large.messages().len()), (1, 1));
    assert_eq!((small.broken_rules(), small.not_accepted().len()), (Vec::new(), 0), "it was not even asked");
}

/// The gateway's own marks follow a mail to whichever provider gets it; the application's headers for another one do
/// not.
#[tokio::test(flavor = "multi_thread")]
async fn tags_follow_a_mail_to_the_next_provider() {
    let first = SENDGRID.builder().start().await;
    let second = MAILGUN.builder().start().await;
    let rule = "[[rewrite]]\ntag = \"weekly\"\nip_pool = \"pool-1\"\nmetadata = { site = \"example.com\" }\n";
    let config = format!(
        "{HEAD}{}{}[[route]]\nname = \"all\"\nupstreams = [\"first\", \"second\"]\n{rule}",
        SENDGRID.table("first", &first, "first.pem"),
        MAILGUN.table("second", &second, "second.pem"),
    );
    let setup = Setup::new(Some(&config.replacen("[log]", "unsigned = \"send\"\n[log]", 1)));
    let gateway = setup.file("first.pem", first.ca()).file("second.pem", second.ca()).start(1);
    let message = EIGHT_BIT.replacen("To: ", "X-SMTPAPI: {\"section\": {\"a\": \"b\"}}\r\nX-MC-Tags: other\r\nTo: ", 1);
    for (there, is_away) in [(&first, false), (&second, true)] {
        if is_away {
            first.always(At::Mail, "421 4.3.2 closing");
        }
        let reply = hand_in_octets(gateway.address(), &["you@example.net"], message.as_bytes()).await;
        assert!(reply.starts_with("250 "), "{reply}");
        there.until_messages(1).await;
    }
    let api = first.messages()[0].data.clone();
    let mailgun = second.messages()[0].data.clone();
    let api = String::from_utf8_lossy(&api).replace("\r\n ", " ");
    let told = "\"category\": [\"weekly\"], \"filters\": {\"clicktrack\": {\"settings\": {\"enable\": 0}}, \"opentrack\": \
                {\"settings\": {\"enable\": 0}}}, \"ip_pool\": \"pool-1\", \"section\": {\"a\": \"b\"}, \"unique_args\": \
                {\"site\": \"example.com\"}";
    assert!(api.contains(&format!("X-SMTPAPI: {{{told}}}")) && !api.contains("X-MC-Tags"), "{api}");
    assert_eq!(field(&mailgun, "X-Mailgun-Tag"), "weekly");
    assert_eq!(field(&mailgun, "X-Mailgun-Sending-Ip-Pool"), "pool-1");
    assert_eq!(field(&mailgun, "X-Mailgun-Variables"), "{\"site\": \"example.com\"}");
    assert!(field(&mailgun, "X-SMTPAPI").is_empty() && field(&mailgun, "X-MC-Tags").is_empty());
}

/// The first fifty of 120 people are in one transaction; if the provider then becomes unavailable, no one else waits
/// for it, and no one gets the mail twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_goes_away_between_transactions_gets_each_recipient_once() {
    let scripted = POSTMARK.builder().start().await;
    scripted.once(At::Dot, "421 4.3.2 closing for maintenance");
    let gateway = POSTMARK.behind(&scripted, "").start(1);
    let people: Vec<String> = (0..MANY).map(|number| format!("r{number}@example.net")).collect();
    let people: Vec<&str> = people.iter().map(String::as_str).collect();
    hand_in_octets(gateway.address(), &people, EIGHT_BIT.as_bytes()).await;
    scripted.until_messages(3).await;
    let mut served: Vec<_> = scripted.messages().iter().flat_map(|message| message.recipients.clone()).collect();
    served.sort_unstable();
    let mut wanted: Vec<String> = people.iter().map(ToString::to_string).collect();
    wanted.sort_unstable();
    assert_eq!(served, wanted);
    assert_eq!((scripted.not_accepted().len(), scripted.broken_rules().len()), (1, 0));
}

/// The sandbox and servers without 8BITMIME decide the form, not the application.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_8bitmime_gets_what_it_can_carry_or_a_reason() {
    let scripted = ScriptedUpstream::builder().without("8BITMIME").without("SMTPUTF8").start().await;
    let bench = Bench::new();
    let setup = queued_in_front_of(&scripted, &(keys::tables(&bench.keys) + NO_REPAIR), "");
    let gateway = keys::with_files(setup, &bench.keys).start(1);
    let raw = EIGHT_BIT.replacen("=?UTF-8?Q?J=C3=BCrgen?=", "J\u{fc}rgen", 1);
    let part =
        "--s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\u{fc}\u{df}e\r\n";
    let signed = format!(
        "From: reports@example.com\r\nSubject: s\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n{part}--s--\r\n"
    );
    for message in [&raw, &signed] {
        assert!(hand_in_octets(gateway.address(), &["you@example.net"], message.as_bytes()).await.starts_with("250 "));
    }
    let told = gateway.wait_for_line(&[":\"failed\"", "must not be changed"]);
    assert!(told.contains("multipart/signed") && told.contains("accepts only 7-bit mail"), "{told}");
    scripted.until_messages(1).await;
    let [arrived] = &scripted.messages()[..] else { panic!("one mail") };
    let text = String::from_utf8(arrived.data.clone()).expect("ASCII");
    assert!(text.is_ascii() && text.contains("From: =?UTF-8?Q?J=C3=BCrgen?= <reports@example.com>"), "{text}");
    assert!(text.contains("Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=") && text.contains("Gr=C3=BC=C3=9Fe aus K=C3=B6ln"));
    assert_none(bench.judge(&[bench.write("seven", &arrived.data)]), |_, verdicts| verdicts != ["pass", "pass"]);
}
