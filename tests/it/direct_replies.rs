//! `delivery = "direct"`: the application's reply, the log, and what the provider got, whatever the provider replies.

use crate::support::application::{hand_in, in_front_of, mail, up_to_data};
use crate::support::client::Client;
use crate::support::upstream::{Action, At, ScriptedUpstream};

/// Checks the reply to the final dot: one line (which the client in `hand_in` has checked) that contains these words.
fn assert_says(reply: &str, words: &[&str]) {
    assert!(!reply.contains('\n'), "one line: {reply}");
    for word in words {
        assert!(reply.contains(word), "no {word:?} in {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_own_reply_is_folded_into_one_line() {
    let scripted = ScriptedUpstream::builder()
        .once(At::Dot, Action::Raw(b"250-2.0.0 taken\r\n250-2.0.0 and queued\r\n250 2.0.0 as 4711\r\n".to_vec()))
        .once(At::Dot, Action::Raw(b"250\r\n".to_vec()))
        .once(At::Dot, "251 taken, and forwarded")
        .start()
        .await;
    let gateway = in_front_of(&scripted, "").start(1);
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("one")).await;
    assert_eq!(reply, "250 2.0.0 taken and queued as 4711");
    let bare = hand_in(gateway.address(), &["you@example.net"], &mail("two")).await;
    assert_says(&bare, &["250 2.0.0 Delivered as "]);
    let other = hand_in(gateway.address(), &["you@example.net"], &mail("three")).await;
    assert_eq!(other, "250 2.0.0 taken, and forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn some_recipients_refused_is_a_250_and_an_error_line_for_each() {
    let scripted = ScriptedUpstream::builder()
        .recipient("gone@", "550 5.1.1 no such user")
        .recipient("full@", "452 4.2.2 mailbox full")
        .start()
        .await;
    let gateway = in_front_of(&scripted, "").start(1);
    let recipients = ["gone@example.net", "you@example.net", "full@example.net"];
    let reply = hand_in(gateway.address(), &recipients, &mail("mixed")).await;
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(scripted.messages()[0].recipients, ["you@example.net"]);
    let failed = gateway.wait_for_line(&["\"failed\"", "gone@example.net"]);
    assert!(failed.contains("550 5.1.1 no such user") && failed.contains("\"ERROR\""), "{failed}");
    let deferred = gateway.wait_for_line(&["\"deferred\"", "full@example.net"]);
    assert!(deferred.contains("452 4.2.2 mailbox full"), "{deferred}");
    let delivered = gateway.wait_for_line(&["\"delivered\"", "you@example.net"]);
    assert!(!delivered.contains("gone@example.net"), "{delivered}");
}

/// It went to the first upstream, although `waxseal check` had said that it would not.
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_no_route_takes_goes_nowhere() {
    let scripted = ScriptedUpstream::builder().start().await;
    let route = "[[route]]\nname = \"inside\"\nrecipients = [\"*@example.net\"]\nupstreams = [\"company\"]";
    let gateway = in_front_of(&scripted, route).start(1);
    let reply = hand_in(gateway.address(), &["you@example.org"], &mail("where to")).await;
    assert_says(&reply, &["451 ", "no [[route]] matches mail from this sender"]);
    assert!(scripted.messages().is_empty());
    assert!(hand_in(gateway.address(), &["you@example.net"], &mail("inside")).await.starts_with("250 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recipient_refused_is_the_providers_code_and_text() {
    for (at, line) in [
        (At::Rcpt, "550 5.1.1 no such user"),
        (At::Mail, "550 5.7.1 sender not verified"),
        (At::Dot, "554 5.7.1 looks like spam"),
        (At::Mail, "451 4.3.0 come back"),
        (At::Rcpt, "450 4.2.1 greylisted"),
        (At::Dot, "451 4.7.1 later"),
    ] {
        let scripted = ScriptedUpstream::builder().always(at, line).start().await;
        let gateway = in_front_of(&scripted, "").start(1);
        let reply = hand_in(gateway.address(), &["you@example.net"], &mail("no")).await;
        assert_eq!(reply, line, "{at:?}");
        gateway.wait_for_line(&[if line.starts_with('5') { "\"failed\"" } else { "\"deferred\"" }, line]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_about_the_mail_is_a_451_with_step_and_cause() {
    for (at, action, words) in [
        (At::Auth, Action::Say("535 5.7.8 wrong password".into()), &["AUTH", "535 5.7.8 wrong password"][..]),
        (At::Greeting, Action::Say("554 5.3.2 not today".into()), &["greeting", "554"]),
        (At::StartTls, Action::Say("454 4.7.0 no TLS now".into()), &["STARTTLS", "454"]),
        (At::Ehlo, Action::Say("500 what".into()), &["EHLO", "500"]),
        (At::Mail, Action::Say("530 5.7.0 log in first".into()), &["MAIL FROM", "530"]),
        (At::Mail, Action::say_and_close("421 4.7.0 too many connections"), &["MAIL FROM", "421"]),
        (At::Handshake, Action::RawAndClose(b"250 hello again\r\n".to_vec()), &["TLS handshake"]),
        (At::Data, Action::Close, &["DATA"]),
    ] {
        let scripted = ScriptedUpstream::builder().always(at, action).start().await;
        let gateway = in_front_of(&scripted, "").start(1);
        let reply = hand_in(gateway.address(), &["you@example.net"], &mail("later")).await;
        assert_says(&reply, &[&["451 4.", "company"], words].concat());
        let log = gateway.wait_for_line(&["\"deferred\"", "company"]);
        assert!(words.iter().all(|word| log.contains(word)), "{log}");
        assert!(!log.contains("canary") && !reply.contains("canary"), "{log} {reply}");
        assert!(scripted.messages().is_empty());
        let clear = String::from_utf8_lossy(&scripted.heard_in_clear()).into_owned();
        assert!(!clear.contains("canary") && !clear.contains("AUTH") && !clear.contains("MAIL"), "{at:?}: {clear}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_is_a_451_that_says_which() {
    let scripted = ScriptedUpstream::start().await;
    let config =
        in_front_of(&scripted, "").config_with("server_name = \"localhost\"", "server_name = \"mx.example.com\"");
    let gateway = config.start(1);
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("later")).await;
    assert_says(&reply, &["451 4.", "TLS handshake", "localhost"]);
    assert!(scripted.logins().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_a_451_that_names_the_address() {
    let scripted = ScriptedUpstream::start().await;
    let setup = in_front_of(&scripted, "");
    let address = scripted.address();
    drop(scripted);
    let gateway = setup.start(1);
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("later")).await;
    assert_says(&reply, &["451 4.", "connect", &address.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_or_the_end_after_the_final_dot_may_be_a_delivery() {
    for action in [Action::Stall, Action::Close] {
        let scripted = ScriptedUpstream::builder().always(At::Dot, action).start().await;
        let gateway = in_front_of(&scripted, "data_timeout = \"2s\"").start(1);
        let reply = hand_in(gateway.address(), &["you@example.net"], &mail("perhaps")).await;
        assert_says(&reply, &["451 4.", "final dot", "may have been delivered"]);
        assert_eq!(scripted.not_accepted().len(), 1, "once, and not once more at once");
        gateway.wait_for_line(&["\"deferred\"", "may have been delivered"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_stalls_uses_up_the_25_seconds_and_no_more() {
    let scripted = ScriptedUpstream::builder().always(At::Mail, Action::Stall).start().await;
    let gateway = in_front_of(&scripted, "").start(1);
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("slow")).await;
    assert_says(&reply, &["451 4.", "MAIL FROM", "no answer"]);
    assert!(!reply.contains("may have been delivered"), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_upstream_takes_over_when_the_first_is_away() {
    let away = ScriptedUpstream::start().await;
    let backup = ScriptedUpstream::start().await;
    let lines = format!(
        "[[upstream]]\nname = \"backup\"\nprovider = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\n\
         server_name = \"localhost\"\ntls = \"starttls\"\nca = \"backup.pem\"\n\
         [[route]]\nname = \"all\"\nupstreams = [\"company\", \"backup\"]\n",
        backup.address().port()
    );
    let setup = in_front_of(&away, &lines).file("backup.pem", backup.ca());
    drop(away);
    let gateway = setup.start(1);
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("over")).await;
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(backup.messages().len(), 1);
    gateway.wait_for_line(&["\"delivered\"", "\"upstream\":\"backup\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_recipients_for_the_provider_go_in_another_transaction() {
    let builder = ScriptedUpstream::builder().once(At::Rcpt, "250 2.1.5 ok").once(At::Rcpt, "250 2.1.5 ok");
    let scripted = builder.once(At::Rcpt, "452 4.5.3 too many recipients").start().await;
    let gateway = in_front_of(&scripted, "").start(1);
    let reply = hand_in(gateway.address(), &["a@example.net", "b@example.net", "c@example.net"], &mail("many")).await;
    assert!(reply.starts_with("250 "), "{reply}");
    let sent: Vec<_> = scripted.messages().into_iter().map(|message| message.recipients).collect();
    assert_eq!(sent, [vec!["a@example.net", "b@example.net"], vec!["c@example.net"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_client_in_data_finish_and_says_421_to_an_idle_one() {
    let scripted = ScriptedUpstream::start().await;
    let mut gateway = in_front_of(&scripted, "").start(1);
    let mut idle = Client::connect(gateway.address()).await;
    idle.greet().await;
    let mut busy = up_to_data(gateway.address(), &["you@example.net"]).await;
    busy.send(b"From: reports@example.com\r\nSubject: half\r\n").await;
    gateway.signal("TERM");
    assert!(idle.reply().await.is_some_and(|reply| reply.starts_with("421 4.3.2 ")));
    assert_eq!(idle.reply().await, None, "and the connection is closed");
    let reply = busy.ask("\r\nthe other half\r\n.").await;
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(scripted.messages()[0].data.ends_with(b"the other half\r\n"));
    assert_eq!(scripted.count("QUIT"), 1, "the connection to the provider is ended politely");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_is_given_up_at_the_end_of_the_drain_time() {
    for (at, heard, delivered) in [(At::Mail, "MAIL FROM", 0), (At::Dot, "\r\n.\r\n", 1)] {
        let scripted = ScriptedUpstream::builder().always(at, Action::Stall).start().await;
        let setup = in_front_of(&scripted, "").config_with("unsigned", "drain = \"2s\"\nunsigned");
        let mut gateway = setup.start(1);
        let mut client = up_to_data(gateway.address(), &["you@example.net"]).await;
        client.send(format!("{}.\r\n", mail("slow")).as_bytes()).await;
        scripted.until_heard(heard).await;
        gateway.signal("TERM");
        let reply = client.reply().await.expect("a reply");
        assert_says(&reply, &["451 4.3.2 ", "may have been delivered"]);
        assert_eq!(gateway.wait().code(), Some(0));
        assert_eq!(scripted.not_accepted().len(), delivered);
        gateway.wait_for_line(&["given up", "possible duplicate", "you@example.net", "\"ERROR\""]);
    }
}
