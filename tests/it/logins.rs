//! An application's login from start to finish: the password hashed on the command line, pasted into the configuration,
//! used by swaks in plain text on loopback, over STARTTLS and over implicit TLS; and which senders each user may use.

use crate::support::application::in_front_of;
use crate::support::certificate::Authority;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::peers::Finished;
use crate::support::real_clients::swaks;
use crate::support::upstream::ScriptedUpstream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const PASSWORD: &str = "canary:ß1 \"x\"";

/// The table that `waxseal user hash` offers for pasting.
fn table(name: &str, password: &str) -> String {
    let output = Setup::new(None).output_with_input(&["user", "hash", name], &format!("{password}\n"));
    assert!(output.status.success(), "{output:?}");
    let hash = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let table = told[told.find("[[user]]").expect("a table")..].to_owned();
    assert!(table.contains(hash.trim_end()) && !told.contains(password), "{told}");
    table
}

/// One listener of each kind, all of them for logins only. `plausible` may send as example.org and nothing else;
/// `other` has the listeners' `senders`.
fn gateway(scripted: &ScriptedUpstream) -> Gateway {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost", "127.0.0.1"]);
    let users =
        format!("{}senders = [\"*@example.org\"]\n{}", table("plausible", PASSWORD), table("other", "another canary"));
    let listener = |tls: &str| {
        format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\ndelivery = \"direct\"\nauth = \"required\"\nsenders = [\"*@example.com\"]\n{tls}\n\
             certificate = \"gateway.pem\"\nprivate_key = \"gateway.key\"\n"
        )
    };
    let listeners = ["tls = \"off\"", "tls = \"starttls\"", "tls = \"implicit\""].map(listener).concat();
    in_front_of(scripted, &users)
        .config_with("[[listener]]\naddress = \"127.0.0.1:0\"\ndelivery = \"direct\"\n", &listeners)
        .file("gateway.pem", &issued.certificate)
        .file("gateway.key", &issued.private_key)
        .file("authority.pem", authority.pem())
        .start(3)
}

/// swaks's arguments for each listener.
const OVER: [&[&str]; 3] = [&[], &["--tls"], &["--tls-on-connect"]];

fn login<'a>(mechanism: &'a str, name: &'a str, password: &'a str) -> [&'a str; 6] {
    ["--auth", mechanism, "--auth-user", name, "--auth-password", password]
}

/// By swaks, which trusts the authority in the file `ca`.
fn send(gateway: &Gateway, listener: usize, ca: &str, sender: &str, arguments: &[&str]) -> Option<Finished> {
    let server = format!("localhost:{}", gateway.addresses()[listener].port());
    let ca = gateway.folder().join(ca).display().to_string();
    let mut all = vec!["--server", &server, "-4", "--from", sender, "--to", "you@example.net"];
    all.extend(OVER[listener]);
    if listener > 0 {
        all.extend(["--tls-verify", "--tls-ca-path", &ca]);
    }
    all.extend(arguments);
    swaks(&all)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mechanism_over_every_listener() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = gateway(&scripted);
    for (listener, protocol) in ["ESMTPA", "ESMTPSA", "ESMTPSA"].into_iter().enumerate() {
        let send = |arguments: &[&str]| send(&gateway, listener, "authority.pem", "a@example.org", arguments);
        for mechanism in ["PLAIN", "LOGIN"] {
            let before = scripted.messages().len();
            let Some(sent) = send(&login(mechanism, "plausible", PASSWORD)) else { return };
            assert!(sent.success, "{sent:?}");
            assert_eq!(scripted.messages().len(), before + 1);
            let text = String::from_utf8(scripted.messages().remove(before).data).unwrap();
            assert!(text.contains(&format!("by gateway.example.com with {protocol} id ")), "{text}");
            for (name, password) in [("plausible", "canary"), ("nobody", PASSWORD)] {
                let wrong = send(&login(mechanism, name, password)).unwrap();
                assert!(!wrong.success && wrong.stdout.contains(" 535 5.7.8 "), "{wrong:?}");
            }
            assert_eq!(scripted.messages().len(), before + 1);
        }
        let absent = send(&[]).unwrap();
        assert!(!absent.success && absent.stdout.contains(" 530 5.7.0 "), "{absent:?}");
        assert!(absent.stdout.contains("`auth` is \"required\""), "which setting asks for it: {absent:?}");
    }
    assert_eq!(scripted.messages().len(), 6);
    gateway.wait_for_line(&["login refused: wrong password", "plausible"]);
    // Never a name that is not a user's, because it may be a secret.
    gateway.wait_for_line(&["login refused: unknown user"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_in_clear_where_starttls_is_asked_for() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = gateway(&scripted);
    let server = gateway.addresses()[1].to_string();
    let in_clear = |arguments: &[&str]| {
        swaks(&[&["--server", &server, "--from", "a@example.org", "--to", "you@example.net"], arguments].concat())
    };
    let Some(without) = in_clear(&[]) else { return };
    assert!(!without.success && without.stdout.contains(" 530 5.7.0 Must issue a STARTTLS"), "{without:?}");
    assert!(without.stdout.contains("250-STARTTLS") && !without.stdout.contains("AUTH"), "{without:?}");
    // The password is not sent: AUTH is not offered.
    let logged_in = in_clear(&login("PLAIN", "plausible", PASSWORD)).unwrap();
    assert!(!logged_in.success && !logged_in.stdout.contains(" ~> AUTH"), "{logged_in:?}");
    assert!(scripted.messages().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = gateway(&scripted);
    for (version, spoken) in [("tlsv1_3", true), ("tlsv1_2", true), ("tlsv1_1", false), ("tlsv1", false)] {
        for listener in [1, 2] {
            let arguments = [&login("PLAIN", "plausible", PASSWORD)[..], &["--tls-protocol", version]].concat();
            let Some(sent) = send(&gateway, listener, "authority.pem", "a@example.org", &arguments) else { return };
            assert_eq!(sent.success, spoken, "{version}: {sent:?}");
        }
    }
    assert_eq!(scripted.messages().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trusts_another_authority_sends_nothing() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = gateway(&scripted);
    std::fs::write(gateway.folder().join("foreign.pem"), Authority::new().pem()).unwrap();
    for listener in [1, 2] {
        let login = login("PLAIN", "plausible", PASSWORD);
        let Some(sent) = send(&gateway, listener, "foreign.pem", "a@example.org", &login) else { return };
        assert!(!sent.success, "{sent:?}");
    }
    assert_eq!(scripted.counts().total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_own_senders_stand_in_for_the_listeners() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = gateway(&scripted);
    let own = "a@example.org";
    let others = "a@example.com";
    for (user, password, envelope, header, taken) in [
        ("plausible", PASSWORD, own, own, true),
        ("plausible", PASSWORD, others, others, false),
        ("plausible", PASSWORD, own, others, false),
        ("other", "another canary", others, others, true),
        ("other", "another canary", own, own, false),
        ("other", "another canary", others, own, false),
    ] {
        let before = scripted.messages().len();
        let from = format!("From: {header}");
        let arguments = [&login("PLAIN", user, password)[..], &["--header", &from]].concat();
        let Some(sent) = send(&gateway, 0, "authority.pem", envelope, &arguments) else { return };
        assert_eq!(sent.success, taken, "{user}, {envelope}, {header}: {sent:?}");
        assert_eq!(scripted.messages().len(), before + usize::from(taken));
        if !taken {
            let what = if envelope == header { "the envelope sender" } else { "the From header's address" };
            assert!(sent.stdout.contains(" 550 5.7.1 ") && sent.stdout.contains(what), "{sent:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_log_in_are_refused_until_one_from_their_address_does() {
    const AGAIN: usize = 300;
    let scripted = ScriptedUpstream::start().await;
    let gateway = gateway(&scripted);
    let in_clear = gateway.addresses()[0];
    let come = || async move { Client::connect(in_clear).await.reply().await.unwrap_or_default() };
    let mut neighbour = Client::connect(in_clear).await;
    neighbour.greet().await;
    let mut turned_away = 0;
    for _ in 0..AGAIN {
        let reply = come().await;
        assert!(reply.starts_with("220 ") || reply.starts_with("421 4.7.0 "), "{reply}");
        turned_away += usize::from(reply.contains("without a login"));
    }
    assert!(turned_away > 0, "{AGAIN} times");

    let right = STANDARD.encode(format!("\0plausible\0{PASSWORD}"));
    let reply = neighbour.ask(&format!("AUTH PLAIN {right}")).await;
    assert!(reply.starts_with("235 "), "{reply}");
    for _ in 0..AGAIN {
        let reply = come().await;
        assert!(reply.starts_with("220 "), "{reply}");
    }
}
