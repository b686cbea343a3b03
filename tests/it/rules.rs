//! The user's rules through the whole gateway: who gets which mail, from whom, and what the application is told.

use crate::support::application::{
    SENDER, configuration, field, further, hand_in, hand_in_octets, in_front_of, mail, queued_in_front_of,
};
use crate::support::awkward::recorded_messages;
use crate::support::gateway::{Gateway, Setup};
use crate::support::keys::{TestKey, tables};
use crate::support::stored;
use crate::support::upstream::{At, ScriptedUpstream};
use std::sync::Arc;
use waxseal::dkim::KeyAlgorithm;
use waxseal::intake::{Ruling, rerun};
use waxseal::message::MailId;
use waxseal::message::rewrite::{NamedAddress, Rule, RuleActions, RuleConditions, Rules};
use waxseal::queue::{LaneOf, Operator, Queue};
use waxseal::smtp::Mailbox;

const YOU: [&str; 1] = ["you@example.net"];

/// What the shipped configuration proposes for Plausible.
const PLAUSIBLE: &str = "[[rewrite]]\nname = \"sender\"\nsenders = [\"*@example.com\"]\n\
    set_from = \"Example Analytics <verified@example.org>\"\nset_reply_to = \"Support <support@example.com>\"\n\
    [[rewrite]]\nname = \"reports\"\nbody_contains = \"-report/unsubscribe?email=\"\ntag = \"report\"\n\
    list_unsubscribe = \"/^https?:[^ ]*/(weekly|monthly)-report/unsubscribe[?]email=/\"\n";

const STAGING: &str = "[[rewrite]]\nname = \"staging\"\nmap_recipients = { \"*\" = \"staging@example.com\" }\n\
    subject_prefix = \"[staging] \"\n";

async fn stopped(gateway: Gateway) -> Setup {
    let (_, _, setup) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    setup
}

/// The id in the reply.
fn id_in(reply: &str) -> MailId {
    reply.rsplit(' ').next().expect("a last word").parse().unwrap_or_else(|_| panic!("{reply}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn plausibles_mail_gets_a_sender_and_its_reports_a_way_out() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted, PLAUSIBLE).start(1);
    let mut reports = 0;
    for (name, message) in recorded_messages() {
        let reply = hand_in_octets(gateway.address(), &YOU, &message).await;
        assert!(reply.starts_with("250 "), "{name}: {reply}");
        let arrived = scripted.messages().pop().expect("a message");
        let link = field(&arrived.data, "List-Unsubscribe");
        assert_eq!(field(&arrived.data, "From"), "Example Analytics <verified@example.org>", "{name}");
        assert_eq!(field(&arrived.data, "Reply-To"), "Support <support@example.com>", "{name}");
        assert!(arrived.mail.starts_with(&format!("<{SENDER}>")), "{}", arrived.mail);
        assert!(arrived.data.starts_with(b"Received: from "), "{name}");
        let is_report = name.contains("weekly-report");
        let expected = link.starts_with("<https://") && link.contains("/weekly-report/unsubscribe?email=");
        assert_eq!((expected, link.is_empty()), (is_report, !is_report), "{name}: {link}");
        assert_eq!(field(&arrived.data, "List-Unsubscribe-Post"), "", "its link takes no POST");
        reports += usize::from(is_report);
    }
    assert!(reports >= 6, "{reports}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_decides_the_way() {
    let company = ScriptedUpstream::start().await;
    let other = ScriptedUpstream::start().await;
    let lines = format!(
        "{}[[rewrite]]\nheader = {{ Subject = \"*weekly*\" }}\ntag = \"report\"\n\
         [[route]]\nname = \"reports\"\ntag = \"report\"\nupstreams = [\"other\"]\n\
         [[route]]\nname = \"rest\"\nupstreams = [\"company\"]\n",
        further("other", &other, "")
    );
    let gateway = queued_in_front_of(&company, &lines, "").file("other.pem", other.ca()).start(1);
    for subject in ["Your weekly figures", "Your password"] {
        hand_in(gateway.address(), &YOU, &mail(subject)).await;
    }
    company.until_messages(1).await;
    other.until_messages(1).await;
    assert_eq!(field(&company.messages()[0].data, "Subject"), "Your password");
    assert_eq!(field(&other.messages()[0].data, "Subject"), "Your weekly figures");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_staging_system_nobody_else_gets_mail() {
    for delivery in ["queue", "direct"] {
        let scripted = ScriptedUpstream::start().await;
        let config = configuration(scripted.address(), delivery, STAGING, "");
        let gateway = Setup::new(Some(&config)).file("ca.pem", scripted.ca()).start(1);
        let reply = hand_in(gateway.address(), &["a@example.net", "b@example.org"], &mail("Hello")).await;
        assert!(reply.starts_with("250 "), "{reply}");
        scripted.until_messages(1).await;
        let message = scripted.messages().remove(0);
        assert_eq!(message.recipients, ["staging@example.com"], "{delivery}");
        assert_eq!(field(&message.data, "Subject"), "[staging] Hello");
        assert_eq!(scripted.count("RCPT"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_discards_or_refuses_goes_nowhere_and_is_said() {
    let rules = "[[rewrite]]\nname = \"noise\"\nheader = { Subject = \"Noise*\" }\ndiscard = true\n\
                 [[rewrite]]\nname = \"wrong\"\nrecipients = [\"*@test.example\"]\nrefuse = \"no mail to test.example\"\n";
    for delivery in ["queue", "direct"] {
        let scripted = ScriptedUpstream::start().await;
        let config = configuration(scripted.address(), delivery, rules, "");
        let gateway = Setup::new(Some(&config)).file("ca.pem", scripted.ca()).start(1);
        let reply = hand_in(gateway.address(), &YOU, &mail("Noise 1")).await;
        assert!(reply.starts_with("250 2.0.0 Accepted as "), "{reply}");
        let id = id_in(&reply);
        gateway.wait_for_line(&["discarded", "\"rule\":\"noise\"", id.as_str(), SENDER]);
        let reply = hand_in(gateway.address(), &["a@test.example"], &mail("Hello")).await;
        assert_eq!(reply, "550 5.7.1 no mail to test.example");
        gateway.wait_for_line(&["refused a message", "\"rule\":\"wrong\"", "no mail to test.example"]);
        hand_in(gateway.address(), &YOU, &mail("Hello")).await;
        scripted.until_messages(1).await;
        assert_eq!(scripted.messages().len() + scripted.not_accepted().len(), 1, "{delivery}");
        let setup = stopped(gateway).await;
        let queue = stored::open(&setup.folder().join("data"));
        let page = queue.list(&waxseal::queue::Filter::default(), None, 10).await.unwrap();
        assert!(page.rows.is_empty() && queue.show(id).await.unwrap().is_none(), "never stored: {:?}", page.rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_asked_for_the_author_that_a_rule_made() {
    let key = [TestKey::new("wax1", KeyAlgorithm::Ed25519)];
    let scripted = ScriptedUpstream::start().await;
    let rule =
        |from: &str| format!("{}[[rewrite]]\nfrom = [\"*@other.example\"]\nset_from = \"{from}\"\n", tables(&key));
    let from_elsewhere = mail("x").replace(SENDER, "app@other.example");
    for (lines, expected) in [
        (tables(&key), "550 5.7.20 No DKIM key for other.example"),
        (rule("reports@example.com"), "250 "),
        (rule("reports@third.example"), "550 5.7.20 No DKIM key for third.example"),
    ] {
        let setup = in_front_of(&scripted, &lines).file("wax1.pem", key[0].pem.reveal());
        let setup = setup.config_with("unsigned = \"send\"", "unsigned = \"refuse\"");
        let gateway = setup.config_with("delivery = ", "senders = [\"*\"]\ndelivery = ").start(1);
        let reply = hand_in(gateway.address(), &YOU, &from_elsewhere).await;
        assert!(reply.starts_with(expected), "{reply}");
    }
    let arrived = String::from_utf8_lossy(&scripted.messages()[0].data).into_owned();
    assert!(arrived.contains("DKIM-Signature: ") && arrived.contains("d=example.com;"), "{arrived}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_is_checked_on_what_the_application_wrote() {
    let scripted = ScriptedUpstream::start().await;
    let rule = "[[rewrite]]\nset_from = \"reports@example.com\"\n";
    let setup = in_front_of(&scripted, rule).config_with("delivery = ", "senders = [\"*@example.com\"]\ndelivery = ");
    let gateway = setup.start(1);
    let reply = hand_in(gateway.address(), &YOU, &mail("x").replace(SENDER, "boss@other.example")).await;
    assert!(reply.starts_with("550 5.7.1 Not allowed to send as <boss@other.example>"), "{reply}");
    assert!(scripted.messages().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applications_own_signature_goes_where_a_rule_changes_what_it_signed() {
    let scripted = ScriptedUpstream::start().await;
    let signed = format!(
        "DKIM-Signature: v=1; d=app.example\r\nDate: Tue, 24 Nov 2026 03:05:09 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n{}",
        mail("x")
    );
    for (rule, is_kept) in [("tag = \"x\"", true), ("set_headers = { X-New = \"y\" }", false)] {
        let gateway = in_front_of(&scripted, &format!("[[rewrite]]\n{rule}\n")).start(1);
        hand_in(gateway.address(), &YOU, &signed).await;
        let arrived = scripted.messages().pop().expect("a message").data;
        assert_eq!(field(&arrived, "DKIM-Signature").contains("d=app.example"), is_kept, "{rule}");
    }
}

/// "Sender not verified", and the cure.
fn verified() -> Rules {
    let address = Mailbox::parse("verified@example.org").expect("an address");
    let set_from = Some(NamedAddress { display_name: "Example".into(), address });
    let actions = RuleActions { set_from, ..RuleActions::default() };
    Rules([Rule { name: "sender".into(), conditions: RuleConditions::default(), actions }].into())
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_failed_on_its_sender_is_cured_by_a_rule_of_another_day() {
    let scripted = ScriptedUpstream::builder().once(At::Dot, "550 5.7.1 Sender address not verified").start().await;
    let gateway = queued_in_front_of(&scripted, STAGING, "").start(1);
    let id = id_in(&hand_in(gateway.address(), &YOU, &mail("Hello")).await);
    gateway.wait_for_line(&["\"failed\"", "not verified"]);
    let setup = stopped(gateway).await;
    let queue = stored::open(&setup.folder().join("data"));
    let lane_of: LaneOf = Arc::new(|_| stored::lane());
    let now = jiff::Timestamp::now();
    let changed = ["recipients", "From", "Subject"].map(str::to_owned).to_vec();
    let expected = Ruling::Rewritten { rules: vec!["sender".into()], changed, recipients: 1 };
    assert_eq!(rerun(&queue, &verified(), &lane_of, id, now).await.unwrap(), expected);
    queue.close().await;
    drop(queue);
    let gateway = setup.start(1);
    scripted.until_messages(1).await;
    let message = scripted.messages().remove(0);
    assert_eq!(field(&message.data, "From"), "Example <verified@example.org>");
    assert_eq!((message.recipients, field(&message.data, "Subject")), (vec![YOU[0].to_owned()], "Hello".to_owned()));
    let text = String::from_utf8_lossy(&message.data).into_owned();
    assert!(text.starts_with("Received: from ") && text.matches("Received: ").count() == 1, "{text}");
    gateway.wait_for_line(&["\"delivered\"", id.as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_direct_mode_leaves_over_keeps_what_it_was() {
    let scripted = ScriptedUpstream::builder().recipient("gone@", "550 5.1.1 no such user").start().await;
    let rules = "[[rewrite]]\nmap_recipients = { \"*@old.example\" = \"*@example.net\" }\nsubject_prefix = \"[x]\"\n";
    let gateway = in_front_of(&scripted, rules).start(1);
    let reply = hand_in(gateway.address(), &["gone@old.example", "you@old.example"], &mail("Hello")).await;
    assert!(reply.starts_with("250 "), "{reply}");
    gateway.wait_for_line(&["\"failed\"", "gone@example.net"]);
    let setup = stopped(gateway).await;
    let queue = stored::open(&setup.folder().join("data"));
    let page = queue.list(&waxseal::queue::Filter::default(), None, 10).await.unwrap();
    let id: MailId = page.rows[0].id.parse().unwrap();
    let lane_of: LaneOf = Arc::new(|_| stored::lane());
    let result = rerun(&queue, &Rules::default(), &lane_of, id, jiff::Timestamp::now()).await.unwrap();
    let changed = ["recipients", "Subject"].map(str::to_owned).to_vec();
    assert_eq!(result, Ruling::Rewritten { rules: vec![], changed, recipients: 1 });
    let row = queue.show(id).await.unwrap().unwrap().row;
    assert_eq!((row.subject.as_str(), row.recipients[0].address.as_str()), ("Hello", "gone@old.example"));
}
