//! Plays recordings of Plausible's real clients, byte for byte and reply by reply, to a real listener.
//!
//! Each reply must have the code that the client got in the recording; the intake must receive what the client meant.

use crate::support::canaries;
use crate::support::certificate::Authority;
use crate::support::client::Client;
use crate::support::listener::{Listening, Recorder, budget, options, server_tls};
use crate::support::transcript::{Event, parse};
use std::path::{Path, PathBuf};
use waxseal::inbound::users::{Password, Users};
use waxseal::inbound::{AuthMode, ListenerOptions, Received, Tls};
use waxseal::observe::Secret;
use waxseal::smtp::{EnhancedCode, Reply};

const PASSWORD: &str = "geheim:ß1";

/// How the listener differs from one that takes loopback without a login.
struct Case {
    name: String,
    options: ListenerOptions,
    password: &'static str,
    intake: Recorder,
    /// The reply at which the real client would not have gone on: to which command, and how it begins.
    ends: Option<(&'static str, &'static str)>,
    messages: usize,
}

impl Case {
    fn new(name: &str) -> Self {
        let options = options();
        let intake = Recorder::default();
        Self { name: name.to_owned(), options, password: PASSWORD, intake, ends: None, messages: 1 }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    async fn play(self, authority: &Authority) {
        let text = std::fs::read_to_string(wire().join(format!("{}.transcript", self.name))).unwrap();
        canaries::learn(self.password);
        let users = Users::new([("plausible".into(), Password::Plain(Secret::new(self.password)))]);
        let listening = Listening::start(self.options, users, budget(), self.intake);
        let mut client = None;
        let mut last = Vec::new();
        let mut sent = Vec::new();
        'conversation: for event in parse(&text) {
            match event {
                Event::Opened => client = Some(Client::connect(listening.address).await),
                Event::Secured => client = Some(client.unwrap().start_tls(authority).await.unwrap()),
                Event::Client(bytes) => {
                    client.as_mut().unwrap().send(&bytes).await;
                    last.clone_from(&bytes);
                    sent.push(bytes);
                }
                Event::Server(replies) => {
                    for recorded in replies {
                        let reply = client.as_mut().unwrap().reply().await.expect("a reply");
                        let command = String::from_utf8_lossy(&last).into_owned();
                        if self.ends.is_some_and(|(ends, how)| command.starts_with(ends) && reply.starts_with(how)) {
                            break 'conversation;
                        }
                        assert_eq!(reply[..3], recorded[..3], "{}: {reply}, after {command}", self.name);
                        if recorded.starts_with("334 ") {
                            assert_eq!(reply, recorded, "{}", self.name);
                        }
                    }
                }
            }
        }
        drop(client);
        let taken = listening.finish().await.take();
        assert_eq!(taken.len(), self.messages, "messages of {}", self.name);
        compare(&self.name, &taken, &sent);
    }
}

fn wire() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire")
}

async fn play(cases: impl IntoIterator<Item = Case>) {
    let authority = Authority::new();
    for case in cases {
        case.play(&authority).await;
    }
}

/// Against what was recorded at the time, or else against what the commands and the data say.
fn compare(name: &str, taken: &[Received], sent: &[Vec<u8>]) {
    let data = sent.iter().filter(|block| block.ends_with(b"\r\n.\r\n")).map(|block| &block[..block.len() - 3]);
    assert_eq!(data.clone().count(), taken.len(), "{name}");
    for (received, data) in taken.iter().zip(data) {
        assert_eq!(lines(&received.data), lines(&unstuffed(data)), "{name}");
        assert_eq!(received.line_endings_changed, data != normalised(data), "{name}");
    }
    let Some(received) = taken.last() else { return };
    let paths = std::iter::once(format!("<{}>", received.envelope.sender))
        .chain(received.envelope.recipients.iter().map(|mailbox| format!("<{mailbox}>")));
    let recorded = wire().join("mail").join(format!("{name}.envelope"));
    if recorded.exists() {
        let envelope = std::fs::read_to_string(recorded).unwrap();
        let expected: Vec<_> = envelope.lines().map(|path| format!("<{}>", path.trim_matches(['<', '>']))).collect();
        assert_eq!(paths.collect::<Vec<_>>(), expected, "{name}");
        let mail = std::fs::read(wire().join("mail").join(format!("{name}.eml"))).unwrap();
        assert_eq!(lines(&received.data), lines(&normalised(&mail)), "{name}");
    } else {
        let commands = sent.iter().filter(|block| block.starts_with(b"MAIL") || block.starts_with(b"RCPT"));
        let said: Vec<_> = commands.map(|line| std::str::from_utf8(line).unwrap()).collect();
        let expected = said[said.len() - 1 - received.envelope.recipients.len()..]
            .iter()
            .map(|line| line[line.find('<').unwrap()..].trim_end().to_owned());
        assert_eq!(paths.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{name}");
    }
}

/// Bare CR and LF as CRLF; the plain way, as an oracle for the decoder's.
fn normalised(data: &[u8]) -> Vec<u8> {
    let text: Vec<u8> = data.iter().copied().filter(|&byte| byte != b'\r').collect();
    let mut out = Vec::new();
    for &byte in &text {
        if byte == b'\n' {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out
}

fn unstuffed(data: &[u8]) -> Vec<u8> {
    let normalised = normalised(data);
    let lines = normalised.split_inclusive(|&byte| byte == b'\n');
    lines.flat_map(|line| if line.starts_with(b".") { &line[1..] } else { line }).copied().collect()
}

/// For a readable difference.
fn lines(data: &[u8]) -> Vec<String> {
    data.split_inclusive(|&byte| byte == b'\n').map(|line| line.escape_ascii().to_string()).collect()
}

#[tokio::test]
async fn every_mail_of_every_client() {
    let folder = std::fs::read_dir(wire().join("mail")).unwrap();
    let names: Vec<_> = folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    for client in ["mua-", "oldmua-", "smtpadapter-"] {
        assert!(names.iter().filter(|name| name.starts_with(client)).count() >= 10, "recordings of {client}");
    }
    play(names.iter().map(|name| Case::new(name))).await;
}

#[tokio::test]
async fn odd_mails() {
    let cases = ["cc-bcc", "dots", "utf8-local-part", "long-host", "subject-underscore", "subject-question-mark"];
    for client in ["mua", "smtpadapter"] {
        play(cases.iter().map(|case| Case::new(&format!("{client}-{case}")))).await;
    }
    play([Case::new("oldmua-subject-underscore"), Case::new("oldmua-subject-question-mark")]).await;
}

#[tokio::test]
async fn two_mails_are_two_connections() {
    let two = |name| Case::new(name).with(|case| case.messages = 2);
    play([two("mua-two-mails"), two("smtpadapter-two-mails")]).await;
}

#[tokio::test]
async fn logins() {
    for client in ["mua", "smtpadapter"] {
        let cases = ["plain-only", "login-only", "plain-login", "login-plain-order"].map(|case| {
            Case::new(&format!("{client}-auth-{case}")).with(|case| {
                case.options.allow.clear();
                case.options.auth = AuthMode::Required;
            })
        });
        play(cases).await;
        play([Case::new(&format!("{client}-auth-advertised-no-credentials"))]).await;
    }
}

/// The current client logs in anyway, the older one does not.
#[tokio::test]
async fn credentials_although_no_login_is_offered() {
    let off = |name| Case::new(name).with(|case| case.options.auth = AuthMode::Off);
    play([
        Case::new("mua-auth-not-advertised"),
        off("mua-auth-not-advertised-502").with(|case| case.messages = 0),
        off("smtpadapter-auth-not-advertised"),
        off("smtpadapter-auth-not-advertised-502"),
    ])
    .await;
}

/// The older client continues without a login after a refusal: only `allow` admits it.
#[tokio::test]
async fn a_refused_login() {
    let refused = |name| Case::new(name).with(|case| case.password = "another");
    play([
        refused("mua-auth-rejected").with(|case| case.messages = 0),
        refused("smtpadapter-auth-rejected"),
        refused("smtpadapter-auth-rejected").with(|case| {
            case.options.allow.clear();
            (case.ends, case.messages) = (Some(("MAIL", "530 5.7.0 ")), 0);
        }),
        refused("smtpadapter-auth-rejected").with(|case| {
            case.options.auth = AuthMode::Required;
            (case.ends, case.messages) = (Some(("MAIL", "530 5.7.0 ")), 0);
        }),
    ])
    .await;
}

#[tokio::test]
async fn a_name_in_mailer_email_is_named_in_the_reply() {
    let name = "501 5.1.7 Bad sender: a display name stands before the address";
    play([Case::new("mua-mailer-email-with-name").with(|case| {
        (case.ends, case.messages) = (Some(("MAIL", name)), 0);
    })])
    .await;
}

#[tokio::test]
async fn refusals_for_now() {
    let later = || Reply::new(451, EnhancedCode::new(4, 3, 0), "Later");
    for client in ["mua", "smtpadapter"] {
        play([
            Case::new(&format!("{client}-451-mail")).with(|case| {
                case.intake.admit = Some(later());
                case.messages = 0;
            }),
            Case::new(&format!("{client}-451-after-data")).with(|case| case.intake.accept = later()),
        ])
        .await;
    }
}

#[tokio::test]
async fn starttls() {
    let authority = Authority::new();
    for name in ["mua-starttls-trusted", "mua-starttls-verify-none", "smtpadapter-starttls-auth-inside"] {
        let tls = Tls::StartTls(server_tls(&authority));
        Case::new(name).with(|case| case.options.tls = tls).play(&authority).await;
    }
}

/// Plausible's current client verifies, and there is no opt-out: with a private certificate its mail ends at the alert.
#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_does_no_harm() {
    let ours = Authority::new();
    let theirs = Authority::new();
    let options = ListenerOptions { tls: Tls::StartTls(server_tls(&ours)), ..options() };
    let listening = Listening::start(options, Users::none(), budget(), Recorder::default());
    for trusted in [&theirs, &ours] {
        let mut client = Client::connect(listening.address).await;
        client.greet().await;
        assert!(client.ask("STARTTLS").await.starts_with("220 "));
        let secured = client.start_tls(trusted).await;
        assert_eq!(secured.is_ok(), std::ptr::eq(trusted, &ours));
    }
    assert!(listening.finish().await.take().is_empty());
}
