//! Which provider gets a mail: by header and login, by weight, and the next one if one refuses or is unavailable.

use crate::support::application::{field, further, hand_in, in_front_of, mail, queued_in_front_of, subjects};
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::upstream::{At, ScriptedUpstream};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const PASSWORD: &str = "correct horse";

/// Where no test says otherwise.
const YOU: [&str; 1] = ["you@example.net"];

/// A route's table.
fn route(name: &str, lines: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\n{lines}\n")
}

fn with_ca(setup: Setup, name: &str, scripted: &ScriptedUpstream) -> Setup {
    setup.file(&format!("{name}.pem"), scripted.ca())
}

#[tokio::test(flavor = "multi_thread")]
async fn header_and_login_decide_and_the_rest_goes_where_the_rest_goes() {
    let company = ScriptedUpstream::start().await;
    let reports = ScriptedUpstream::start().await;
    let crm = ScriptedUpstream::start().await;
    let hash = Setup::new(None).output_with_input(&["user", "hash"], &format!("{PASSWORD}\n")).stdout;
    let user = format!("[[user]]\nname = \"crm-1\"\npassword = '{}'\n", String::from_utf8(hash).unwrap().trim_end());
    let lines = further("reports", &reports, "")
        + &further("crm", &crm, "")
        + &user
        + &route("by header", "header = { X-Kind = \"report*\" }\nupstreams = [\"reports\"]")
        + &route("by login", "user = \"crm-*\"\nupstreams = [\"crm\"]")
        + &route("rest", "upstreams = [\"company\"]");
    let setup = with_ca(in_front_of(&company, &lines), "reports", &reports);
    let gateway = with_ca(setup, "crm", &crm).start(1);
    let marked = mail("marked").replacen("Subject", "X-Kind: Report-7\r\nSubject", 1);
    for message in [marked.as_str(), &mail("plain")] {
        let reply = hand_in(gateway.address(), &YOU, message).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    let mut client = Client::connect(gateway.address()).await;
    client.greet().await;
    let login = STANDARD.encode(format!("\0crm-1\0{PASSWORD}"));
    assert!(client.ask(&format!("AUTH PLAIN {login}")).await.starts_with("235 "));
    for line in ["MAIL FROM:<reports@example.com>", "RCPT TO:<you@example.net>", "DATA"] {
        client.ask(line).await;
    }
    assert!(client.ask(&format!("{}.", mail("with a login"))).await.starts_with("250 "));
    let arrived = [&company, &reports, &crm].map(subjects);
    assert_eq!(arrived, [vec!["plain"], vec!["marked"], vec!["with a login"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_a_rule_gave_decides_and_what_a_rule_chose_needs_no_route() {
    let company = ScriptedUpstream::start().await;
    let tagged = ScriptedUpstream::start().await;
    let chosen = ScriptedUpstream::start().await;
    let lines = further("tagged", &tagged, "")
        + &further("chosen", &chosen, "")
        + "[[rewrite]]\nheader = { Subject = \"weekly*\" }\ntag = \"weekly-report\"\n\
           [[rewrite]]\nheader = { Subject = \"*chosen\" }\nupstream = \"chosen\"\n"
        + &route("reports", "tag = [\"monthly-*\", \"weekly-*\"]\nupstreams = [\"tagged\"]")
        + &route("rest", "upstreams = [\"company\"]");
    let setup = with_ca(in_front_of(&company, &lines), "tagged", &tagged);
    let gateway = with_ca(setup, "chosen", &chosen).start(1);
    for subject in ["weekly", "daily", "weekly and chosen", "chosen"] {
        let reply = hand_in(gateway.address(), &YOU, &mail(subject)).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    let arrived = [&company, &tagged, &chosen].map(subjects);
    assert_eq!(arrived, [vec!["daily"], vec!["weekly"], vec!["chosen", "weekly and chosen"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_upstream_gets_its_share_and_an_absent_ones_share_goes_to_the_other() {
    const MOST: usize = 200;
    let company = ScriptedUpstream::start().await;
    let other = ScriptedUpstream::start().await;
    let lines = further("other", &other, "") + &route("both", "upstreams = { company = 1, other = 1 }");
    let gateway = with_ca(in_front_of(&company, &lines), "other", &other).start(1);
    let mut handed_in = 0;
    // Two hundred tosses of a coin do not all fall alike.
    while handed_in < MOST && (company.messages().is_empty() || other.messages().is_empty()) {
        let reply = hand_in(gateway.address(), &YOU, &mail("either")).await;
        assert!(reply.starts_with("250 "), "{reply}");
        handed_in += 1;
    }
    let before = (company.messages().len(), other.messages().len());
    assert!(before.0 > 0 && before.1 > 0 && before.0 + before.1 == handed_in, "{before:?} of {handed_in}");
    other.always(At::Auth, "535 5.7.8 wrong password");
    other.always(At::Mail, "421 4.3.2 closing");
    for _ in 0..20 {
        let reply = hand_in(gateway.address(), &YOU, &mail("either")).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    assert_eq!((company.messages().len(), other.messages().len()), (before.0 + 20, before.1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_final_unless_the_route_says_otherwise() {
    for retry in [false, true] {
        let first = ScriptedUpstream::builder().recipient("gone@", "550 5.1.1 not here").start().await;
        let second = ScriptedUpstream::builder().recipient("nowhere@", "550 5.1.1 not here either").start().await;
        first.always(At::Dot, "554 5.7.1 looks like spam");
        let lines = further("second", &second, "")
            + &route("both", &format!("upstreams = [\"company\", \"second\"]\nretry_refused = {retry}"));
        let gateway = with_ca(queued_in_front_of(&first, &lines, ""), "second", &second).start(1);
        let recipients = ["gone@example.net", "you@example.net", "nowhere@example.net"];
        hand_in(gateway.address(), &recipients, &mail("refused")).await;
        if !retry {
            for recipient in recipients {
                gateway.wait_for_line(&["\"message\":\"failed\"", recipient]);
            }
            assert_eq!(second.counts().total, 0, "nobody else is asked");
            continue;
        }
        let failed = gateway.wait_for_line(&["\"message\":\"failed\"", "nowhere@example.net"]);
        let words = "\"reason\":\"RCPT TO: 550 5.1.1 not here either; before that, upstream \\\"company\\\", ";
        assert!(failed.contains(words) && failed.contains("looks like spam"), "{failed}");
        gateway.wait_for_line(&["refused; the route's next upstream is asked", "gone@example.net", "not here"]);
        let [message] = &second.messages()[..] else { panic!("{:?}", second.messages()) };
        assert_eq!(message.recipients, ["gone@example.net", "you@example.net"]);
        assert_eq!(field(&message.data, "Subject"), "refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_the_first_does_not_fail_mail_while_the_next_is_unavailable() {
    let first = ScriptedUpstream::builder().once(At::Rcpt, "550 5.1.1 not here").start().await;
    first.always(At::Rcpt, "550 5.1.1 still not here");
    let second = ScriptedUpstream::builder().once(At::Mail, "421 4.3.2 closing").start().await;
    let lines =
        further("second", &second, "") + &route("both", "upstreams = [\"company\", \"second\"]\nretry_refused = true");
    let gateway = with_ca(queued_in_front_of(&first, &lines, ""), "second", &second).start(1);
    hand_in(gateway.address(), &YOU, &mail("patience")).await;
    gateway.wait_for_line(&["\"deferred\"", "421 4.3.2 closing", "before that, upstream \\\"company\\\"", "not here"]);
    second.until_messages(1).await;
    gateway.wait_for_line(&["\"delivered\"", "\"upstream\":\"second\""]);
}
