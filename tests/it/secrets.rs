//! Every secret of a configuration is a canary, and the log is as detailed as possible: no canary is in any line that
//! the program prints, nor in any reply to a client, even if the provider repeats what it was sent.

use crate::support::application::{configuration, hand_in, in_front_of, mail, queued_in_front_of};
use crate::support::canaries::{Search, search_remains};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::keys::{self, TestKey};
use crate::support::tally::Tally;
use crate::support::upstream::{Action, At, Builder, ScriptedUpstream};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use waxseal::dkim::KeyAlgorithm;
use waxseal::inbound::users::hash_password;
use waxseal::observe::Secret;

const USER: &str = "plausible";
const UPSTREAM_USER: &str = "relay-user";
/// `in_front_of` puts it into the configuration.
const UPSTREAM_PASSWORD: &str = "relay-canary-password";
const USER_PASSWORD: &str = "canary of an application";
const WRONG_PASSWORD: &str = "canary mistyped";
/// A provider's token, left in the application as name and password; and a password typed into the name field.
const TOKEN: &str = "pm-canary-token";
const MISPLACED: &str = "canary misplaced";
/// What is tried: only the last is right.
const LOGINS: [(&str, &str); 5] = [
    (USER, WRONG_PASSWORD),
    ("nobody", WRONG_PASSWORD),
    (TOKEN, TOKEN),
    (MISPLACED, WRONG_PASSWORD),
    (USER, USER_PASSWORD),
];
/// In no line, but in the database, of course.
const BODY_WORD: &str = "linnet";
const BODY: &str = "linnet-in-a-body https://example.com/reset?token=linnet";

/// Secrets and the body, in any form.
fn assert_hidden(tally: &mut Tally, lines: &[String]) {
    assert!(!lines.is_empty());
    let search = Search::now();
    for line in lines {
        tally.case(!search.finds(line) && !line.contains(BODY_WORD), || format!("told: {line}"));
    }
}

/// Right and wrong, PLAIN and LOGIN, in one line and in two; then a mail. Returns every reply.
async fn use_it(gateway: SocketAddr) -> Vec<String> {
    let mut replies = Vec::new();
    for (name, password) in LOGINS {
        let plain = STANDARD.encode(format!("\0{name}\0{password}"));
        let name = STANDARD.encode(name);
        let password = STANDARD.encode(password);
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
    replies.push(hand_in(gateway, &["you@example.net"], &format!("{}{BODY}\r\n", mail("a bird"))).await);
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
    let mut tally = Tally::new("secrets", "lines");
    let keys = [TestKey::new("r", KeyAlgorithm::Rsa2048), TestKey::new("e", KeyAlgorithm::Ed25519)];
    let hash = hash_password(&Secret::new(USER_PASSWORD));
    let tables = format!("{}[[user]]\nname = \"{USER}\"\npassword = \"{hash}\"\n", keys::tables(&keys));
    for format in ["json", "pretty"] {
        for (what, builder) in quoting_providers(UPSTREAM_PASSWORD) {
            let scripted = builder.start().await;
            let setup = in_front_of(&scripted, &tables)
                .config_with("format = \"json\"", &format!("format = \"{format}\"\nlevel = \"trace\""));
            let said = everything_said(keys::with_files(setup, &keys).start(1)).await;
            assert!(!scripted.logins().is_empty() || what == "a question, with the login", "{what}");
            assert_hidden(&mut tally, &said);
        }
    }
    tally.finish();
}

/// A provider quotes the login in its refusals, which are kept for the operator.
#[tokio::test(flavor = "multi_thread")]
async fn no_login_is_in_the_database_or_sent_through_the_control_socket() {
    let mut tally = Tally::new("secrets", "database and control");
    let keys = [TestKey::new("e", KeyAlgorithm::Ed25519)];
    let hash = hash_password(&Secret::new(USER_PASSWORD));
    let tables = format!("{}[[user]]\nname = \"{USER}\"\npassword = \"{hash}\"\n", keys::tables(&keys));
    for (what, builder) in quoting_providers(UPSTREAM_PASSWORD) {
        let scripted = builder.start().await;
        let setup = queued_in_front_of(&scripted, &tables, "")
            .config_with("format = \"json\"", "format = \"json\"\nlevel = \"trace\"");
        let gateway = keys::with_files(setup, &keys).start(1);
        let mut told = use_it(gateway.address()).await;
        gateway.wait_for_line(&["C: AUTH"]);
        eventually("the mail is tried", || {
            gateway.log().iter().any(|line| line.contains("\"deferred\"") || line.contains("\"delivered\""))
        });
        let shown = |arguments: &[&str]| {
            let output = gateway.output(arguments);
            assert!(output.status.success(), "{what}: {arguments:?}: {output:?}");
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        };
        let id =
            told.iter().rev().find_map(|reply| reply.strip_prefix("250 2.0.0 Queued as ")).expect("queued").to_owned();
        let commands: [&[&str]; 5] = [
            &["queue", "list"],
            &["queue", "list", "--json"],
            &["queue", "list", "--history", "--json"],
            &["queue", "show", &id],
            &["queue", "show", &id, "--json"],
        ];
        told.extend(commands.iter().flat_map(|command| shown(command).lines().map(str::to_owned).collect::<Vec<_>>()));
        assert_hidden(&mut tally, &told);
        // The write-ahead log, as it is now, is part of the database. Once the gateway has ended, the rest is searched.
        search_remains("a running gateway", &[], &gateway.folder());
        gateway.stop();
    }
    tally.finish();
}

/// Every form of the login, on lines of their own, one of them split; `code` with its enhanced code.
fn quoting_everything(code: &str) -> String {
    let password = UPSTREAM_PASSWORD;
    let plain = format!("\0{UPSTREAM_USER}\0{password}");
    let each = |before: &str| password.bytes().map(|octet| format!("{before}{octet:02X}")).collect::<String>();
    let quoted = [
        format!("login {UPSTREAM_USER}:{password}"),
        STANDARD.encode(password),
        STANDARD.encode(&plain),
        URL_SAFE_NO_PAD.encode(&plain),
        STANDARD.encode(format!("{UPSTREAM_USER}{plain}")),
        each(""),
        each("%"),
        each("="),
        password.to_ascii_uppercase(),
        password.replace('-', "%2D"),
        format!("{}...", &password[..14]),
    ];
    let (one, other) = password.split_at(9);
    let lines: Vec<String> = quoted.into_iter().chain([one.to_owned(), other.to_owned()]).collect();
    let (last, first) = lines.split_last().expect("lines");
    let digits = &code[..3];
    let first: String = first.iter().map(|line| format!("{digits}-{line}\r\n")).collect();
    format!("{digits}-{}\r\n{first}{digits} {last}", &code[3..])
}

/// At each step a temporary refusal, a permanent one, a 221, and acceptance where the dialogue continues.
fn steps() -> Vec<(At, &'static str)> {
    let refused = [
        At::Greeting,
        At::Ehlo,
        At::StartTls,
        At::EhloInTls,
        At::Auth,
        At::Mail,
        At::Rcpt,
        At::Data,
        At::Dot,
        At::Rset,
        At::Quit,
    ];
    let refusals = refused.into_iter().flat_map(|at| ["451 4.3.0", "550 5.7.1"].map(|code| (at, code)));
    let taken = [
        (At::Greeting, "220"),
        (At::Auth, "235 2.7.0"),
        (At::Mail, "250 2.1.0"),
        (At::Rcpt, "250 2.1.5"),
        (At::Data, "354"),
        (At::Midway, "421 4.7.0"),
        (At::Dot, "250 2.0.0"),
    ];
    refusals.chain(taken).collect()
}

/// Everything that is told of two mails, the second of which finds the connection that the first has left; and the commands that
/// the provider was given.
async fn told_by_a_quoting_provider(delivery: &str, at: At, code: &str) -> (Vec<String>, Vec<String>) {
    let say = |code: &str| Action::Say(quoting_everything(code));
    let provider = ScriptedUpstream::builder().once(at, say(code));
    let scripted = provider.always(At::Rset, say("250 2.0.0")).always(At::Quit, say("221 2.0.0")).start().await;
    let config = configuration(scripted.address(), delivery, "", "bounce = \"sender\"")
        .replace("format = \"json\"", "format = \"json\"\nlevel = \"trace\"");
    let gateway = Setup::new(Some(&config)).file("ca.pem", scripted.ca()).start(1);
    let mut told = Vec::new();
    for subject in ["one", "two"] {
        let recipients = ["you@example.net", "them@example.net"];
        told.push(hand_in(gateway.address(), &recipients, &mail(subject)).await);
    }
    if delivery == "queue" {
        let shown = |arguments: &[&str]| {
            let output = gateway.output(arguments);
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        };
        eventually("nothing waits", || !shown(&["queue", "list", "--json"]).contains("\"waiting\","));
        told.push(shown(&["queue", "list", "--history", "--json"]));
        for id in told.clone().iter().filter_map(|reply| reply.strip_prefix("250 2.0.0 Queued as ")) {
            told.extend([shown(&["queue", "show", id]), shown(&["queue", "show", id, "--json"])]);
        }
    }
    // Bounces are among them.
    told.extend(scripted.messages().iter().map(|message| String::from_utf8_lossy(&message.data).into_owned()));
    told.extend(gateway.log());
    // What is printed at the end, and the database, are searched at the end of every gateway.
    let (_, log, _) = gateway.stop();
    told.extend(log);
    (told, scripted.commands())
}

/// The provider says the login back at each step of its own, in all forms at once: to a client in direct mode, to the log, to
/// the operator, and to the sender in a bounce.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn no_login_that_a_provider_quotes_at_any_step_gets_any_further() {
    let mut tally = Tally::new("secrets", "quoted at every step");
    let mut given = BTreeSet::new();
    let mut answered = BTreeSet::new();
    for delivery in ["direct", "queue"] {
        for some in steps().chunks(6) {
            let all = some.iter().map(|&(at, code)| tokio::spawn(told_by_a_quoting_provider(delivery, at, code)));
            for ((at, code), told) in some.iter().zip(all.collect::<Vec<_>>()) {
                let search = Search::now();
                let (told, commands) = told.await.expect("an end");
                given.extend(commands.iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()));
                answered.extend(told.iter().filter(|line| line.contains("S: 221")).map(|_| "221"));
                for line in told {
                    let split = line.contains("relay-can") || line.contains("ary-passw");
                    tally.case(!search.finds(&line) && !split, || format!("{delivery}, {at:?}, {code}: {line}"));
                }
            }
        }
    }
    // Every command that the relay has was answered with the login.
    let all = ["AUTH", "DATA", "EHLO", "MAIL", "QUIT", "RCPT", "RSET"].map(str::to_owned);
    assert_eq!(given, BTreeSet::from(all));
    assert!(!answered.is_empty(), "the answer to QUIT is in the log");
    tally.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_of_a_secrets_folder_is_in_any_line() {
    const PASSWORD: &str = "canary of a secrets folder";
    let mut tally = Tally::new("secrets", "environment");
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
    let roots = setup.folder().join("roots.pem");
    let secrets = setup.folder().join("secrets");
    let setup = setup
        .env("SSL_CERT_FILE", roots.display())
        .env("CONFIG_DIR", secrets.display())
        .env("WAXSEAL_LISTEN", "127.0.0.1:0");
    let mut printed = Vec::new();
    for arguments in [&["check"][..], &["check", "--json"], &["dkim", "record"], &["dkim", "record", "--json"]] {
        let output = setup.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        printed.extend(text.lines().map(str::to_owned));
    }
    printed.extend(everything_said(setup.start(1)).await);
    assert!(!scripted.logins().is_empty());
    assert_hidden(&mut tally, &printed);
    tally.finish();
}
