//! Every secret of a configuration is a canary, and the log is as talkative as it can be: no canary is in any line that
//! the program prints, nor in what a client is told. Not even where the provider says back what it was sent.

use crate::support::application::{hand_in, in_front_of, mail};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::keys::{self, TestKey};
use crate::support::upstream::{Action, At, Builder, ScriptedUpstream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::SocketAddr;
use waxseal::dkim::KeyAlgorithm;
use waxseal::inbound::auth::hash_password;
use waxseal::observe::Secret;

const USER: &str = "plausible";
const UPSTREAM_USER: &str = "relay-user";
/// `in_front_of` puts it into the configuration.
const UPSTREAM_PASSWORD: &str = "relay-canary-password";
const USER_PASSWORD: &str = "canary of an application";
const WRONG_PASSWORD: &str = "canary mistyped";
const BODY: &str = "canary-in-a-body https://example.com/reset?token=canary";

/// What each secret looks like on its way, and each line of the keys.
fn canaries(keys: &[TestKey], upstream_password: &str) -> Vec<String> {
    let mut canaries = vec![BODY.to_owned(), "token=canary".to_owned()];
    let logins =
        [(UPSTREAM_USER, upstream_password), (USER, USER_PASSWORD), (USER, WRONG_PASSWORD), ("nobody", WRONG_PASSWORD)];
    for (name, password) in logins {
        let plain = format!("\0{name}\0{password}");
        canaries.extend([password.to_owned(), STANDARD.encode(password), STANDARD.encode(plain)]);
    }
    for key in keys {
        canaries.extend(key.pem.reveal().lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
    }
    canaries
}

fn assert_hidden(canaries: &[String], lines: &[String]) {
    assert!(!lines.is_empty());
    for canary in canaries {
        // A piece of it is too much already.
        let piece = &canary[..canary.len().min(24)];
        let told: Vec<_> = lines.iter().filter(|line| line.contains(piece)).collect();
        assert!(told.is_empty(), "{piece}: {told:#?}");
    }
}

/// Right and wrong, PLAIN and LOGIN, in one line and in two; then a mail. Returns every reply.
async fn use_it(gateway: SocketAddr) -> Vec<String> {
    let mut replies = Vec::new();
    for (name, password) in [(USER, WRONG_PASSWORD), ("nobody", WRONG_PASSWORD), (USER, USER_PASSWORD)] {
        let plain = STANDARD.encode(format!("\0{name}\0{password}"));
        let (name, password) = (STANDARD.encode(name), STANDARD.encode(password));
        for dialogue in [
            vec![format!("AUTH PLAIN {plain}")],
            vec!["AUTH PLAIN".to_owned(), plain.clone()],
            vec!["AUTH LOGIN".to_owned(), name.clone(), password.clone()],
            vec![format!("AUTH LOGIN {name}"), password.clone()],
            // Clients that are out of step: a login where a command should be.
            vec![plain.clone()],
            vec![format!("AUTH CRAM-MD5 {plain}")],
        ] {
            let mut client = Client::connect(gateway).await;
            client.greet().await;
            for line in dialogue {
                replies.push(client.ask(&line).await);
            }
        }
    }
    replies.push(hand_in(gateway, &["you@example.net"], &format!("{}{BODY}\r\n", mail("canary"))).await);
    // One that is refused, too.
    let refused = format!("From: a@example.org\r\n\r\n{BODY}\r\n");
    replies.push(hand_in(gateway, &["you@example.net"], &refused).await);
    replies
}

/// To the end of the program.
async fn everything_said(mut gateway: Gateway) -> Vec<String> {
    let mut said = use_it(gateway.address()).await;
    // A queue has answered before it delivers.
    gateway.wait_for_line(&["C: AUTH"]);
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    let log = gateway.log();
    assert!(log.iter().any(|line| line.contains("TRACE")) && log.iter().any(|line| line.contains("S: ")), "{log:#?}");
    said.extend(log);
    said
}

/// Providers that say back the login, or a part of it, whole or over several lines, with a yes and with a no.
fn quoting_providers(password: &str) -> Vec<(&'static str, Builder)> {
    let plain = STANDARD.encode(format!("\0{UPSTREAM_USER}\0{password}"));
    let encoded = STANDARD.encode(password);
    let builder = ScriptedUpstream::builder;
    let login = || builder().without("AUTH").keywords(&["PIPELINING", "AUTH LOGIN"]);
    let say = Action::Say;
    vec![
        ("silent", builder()),
        ("yes, with the login", builder().always(At::Auth, say(format!("235 2.7.0 welcome {plain}")))),
        (
            "no, with the login",
            builder().always(At::Auth, say(format!("535 5.7.8 Error: authentication failed: {plain}"))),
        ),
        ("no, decoded", builder().always(At::Auth, say(format!("535 5.7.8 {UPSTREAM_USER}:{password} is not known")))),
        ("no, cut off", builder().always(At::Auth, say(format!("501 5.5.4 cannot decode \"{}...\"", &plain[..40])))),
        (
            "no, over two lines",
            builder().always(At::Auth, say(format!("535-5.7.8 {}\r\n535 5.7.8 {}", &plain[..26], &plain[26..]))),
        ),
        ("a question, with the login", builder().always(At::Auth, say(format!("334 {plain}")))),
        ("LOGIN", login()),
        (
            "LOGIN, yes",
            login().once(At::AuthAnswer, "334 UGFzc3dvcmQ6").once(At::AuthAnswer, say(format!("235 {encoded}"))),
        ),
        (
            "LOGIN, no",
            login().once(At::AuthAnswer, "334 UGFzc3dvcmQ6").once(At::AuthAnswer, say(format!("535 not {encoded}"))),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_canary_is_in_any_line() {
    let keys = [TestKey::new("r", KeyAlgorithm::Rsa2048), TestKey::new("e", KeyAlgorithm::Ed25519)];
    let canaries = canaries(&keys, UPSTREAM_PASSWORD);
    let hash = hash_password(&Secret::new(USER_PASSWORD));
    let tables = format!("{}[[user]]\nname = \"{USER}\"\npassword = \"{hash}\"\n", keys::tables(&keys));
    for format in ["json", "pretty"] {
        for (what, builder) in quoting_providers(UPSTREAM_PASSWORD) {
            let scripted = builder.start().await;
            let setup = in_front_of(&scripted, &tables)
                .config_with("format = \"json\"", &format!("format = \"{format}\"\nlevel = \"trace\""));
            let said = everything_said(keys::with_files(setup, &keys).start(1)).await;
            assert!(!scripted.logins().is_empty() || what == "a question, with the login", "{what}");
            assert_hidden(&canaries, &said);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_of_a_secrets_folder_is_in_any_line() {
    const PASSWORD: &str = "canary of a secrets folder";
    let key = TestKey::new("r", KeyAlgorithm::Rsa2048);
    let scripted = ScriptedUpstream::builder()
        .always(At::Auth, Action::Say(format!("535 5.7.8 I do not know {PASSWORD}")))
        .start()
        .await;
    let setup = Setup::new(Some("[log]\nlevel = \"trace\"\n"))
        .file("roots.pem", scripted.ca())
        .file("secrets/SMTP_HOST_ADDR", "localhost")
        .file("secrets/SMTP_HOST_PORT", scripted.address().port().to_string())
        .file("secrets/SMTP_USER_NAME", UPSTREAM_USER)
        .file("secrets/SMTP_USER_PWD", PASSWORD)
        .file("secrets/WAXSEAL_USER", USER)
        .file("secrets/WAXSEAL_PASSWORD", USER_PASSWORD)
        .file("secrets/DKIM_DOMAIN", "example.com")
        .file("secrets/DKIM_SELECTOR", "r")
        .file("secrets/DKIM_PRIVATE_KEY", key.pem.reveal());
    let (roots, secrets) = (setup.folder().join("roots.pem"), setup.folder().join("secrets"));
    let setup = setup
        .env("SSL_CERT_FILE", roots.display())
        .env("CONFIG_DIR", secrets.display())
        .env("WAXSEAL_LISTEN", "127.0.0.1:0");
    let canaries = canaries(&[key], PASSWORD);
    let mut printed = Vec::new();
    for arguments in [&["check"][..], &["check", "--json"], &["dkim", "record"], &["dkim", "record", "--json"]] {
        let output = setup.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        printed.extend(text.lines().map(str::to_owned));
    }
    printed.extend(everything_said(setup.start(1)).await);
    assert!(!scripted.logins().is_empty());
    assert_hidden(&canaries, &printed);
}
