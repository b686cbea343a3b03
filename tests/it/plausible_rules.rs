//! The rules for Plausible that config.toml ships in comments, uncommented as a user would do it, on Plausible's own
//! mail.

use crate::support::application::hand_in_octets;
use crate::support::awkward::recorded_messages;
use crate::support::gateway::Setup;
use crate::support::upstream::ScriptedUpstream;
use mail_parser::{HeaderValue, MessageParser};
use serde_json::Value;

/// The shipped file without "#~".
fn uncommented() -> String {
    let shipped = include_str!("../../config.toml");
    shipped.lines().map(|line| line.strip_prefix("#~").map_or(line, str::trim_start).to_owned() + "\n").collect()
}

/// In front of this provider, on a free port.
fn in_front_of(scripted: &ScriptedUpstream) -> Setup {
    let upstream = format!(
        "name = \"company\"\nprovider = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\nserver_name = \"localhost\"\n\
         tls = \"starttls\"\nca = \"ca.pem\"\n",
        scripted.address().port()
    );
    Setup::new(Some(&uncommented()))
        .file("ca.pem", scripted.ca())
        .config_with("[[listener]]\naddress = \"[::1]:2525\"\n", "")
        .config_with("address = \"127.0.0.1:2525\"\n", "address = \"127.0.0.1:0\"\ndelivery = \"direct\"\n")
        .config_with("name = \"sandbox\"\nprovider = \"sandbox\"\n", &upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_mail_is_sent_as_the_rules_say() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted).start(1);
    let mut reports = 0;
    for (name, message) in recorded_messages() {
        let reply = hand_in_octets(gateway.address(), &["you@example.net"], &message).await;
        assert!(reply.starts_with("250 "), "{name}: {reply}");
        let arrived = scripted.messages().pop().expect("a message");
        assert_eq!(arrived.recipients, ["staging@example.com"], "{name}");
        let before = MessageParser::new().parse(&message);
        let after = MessageParser::new().parse(&arrived.data);
        let before = before.expect("a message");
        let after = after.expect("a message");
        let from = after.from().and_then(|list| list.first()).expect("an author");
        assert_eq!((from.name(), from.address()), (Some("Example Analytics"), Some("reports@example.com")), "{name}");
        let reply_to = after.reply_to().and_then(|list| list.first()).and_then(|one| one.address());
        assert_eq!(reply_to, Some("support@example.com"), "{name}");
        assert!(after.subject().is_some_and(|subject| subject.starts_with("[staging] ")), "{name}");
        let is_report = name.contains("weekly-report");
        let link = after.header("List-Unsubscribe");
        assert_eq!(link.is_some_and(|link| *link != HeaderValue::Empty), is_report, "{name}: {link:?}");
        assert!(after.header("List-Unsubscribe-Post").is_none(), "{name}: the link wants a GET");
        let html = |message: &mail_parser::Message<'_>| message.body_html(0).map(|html| html.replace("\r\n", "\n"));
        assert_eq!(html(&before), html(&after), "{name}");
        reports += usize::from(is_report);
    }
    assert_eq!(reports, 6, "three clients, each with and without a name");
}

/// As Plausible writes them.
#[test]
fn each_kind_of_mail_has_its_tag() {
    let setup = Setup::new(Some(&uncommented()));
    for (subject, body, tag) in [
        (
            "Weekly report for example.com",
            "https://a.example/sites/x/weekly-report/unsubscribe?email=a@b",
            Some("report"),
        ),
        (
            "October report for example.com",
            "https://a.example/sites/x/monthly-report/unsubscribe?email=a@b",
            Some("report"),
        ),
        ("Traffic Spike on example.com", "", Some("traffic-alert")),
        ("Traffic Drop on example.com", "", Some("traffic-alert")),
        ("[Plausible CE] You've been invited to example.com", "", Some("invitation")),
        ("[Plausible CE] anna@example.com accepted your invitation to example.com", "", Some("invitation")),
        ("[Plausible CE] Request to transfer ownership of example.com", "", Some("invitation")),
        ("4830 is your Plausible email verification code", "", Some("account")),
        ("Plausible password reset", "", Some("account")),
        ("Plausible Two-Factor Authentication enabled", "", Some("account")),
        ("Welcome to Plausible", "", None),
    ] {
        let mail = format!("From: reports@example.com\nTo: you@example.net\nSubject: {subject}\n\nHello. {body}\n");
        let output = setup.output_with_input(&["check", "--message", "-", "--json"], &mail);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(value["marks"]["tag"].as_str(), tag, "{subject}");
    }
}
