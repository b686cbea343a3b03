//! Runs the transcripts under tests/dialogs against a real listener. tests/dialogs/README.md describes the form.
//!
//! `DIALOG=name` runs only the files whose name contains it.

use crate::support::canaries;
use crate::support::certificate::Authority;
use crate::support::client::Client;
use crate::support::listener::{Listening, Recorder, budget, options, server_tls};
use crate::support::tally::Tally;
use crate::support::transcript;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use waxseal::inbound::users::{Password, Users};
use waxseal::inbound::{AuthMode, LineEndings, ListenerOptions, Received, Tls};
use waxseal::message::MemoryBudget;
use waxseal::observe::Secret;
use waxseal::smtp::Reply;
use waxseal::smtp::command::BodyType;
use waxseal::smtp::reply::ReplyParser;

#[tokio::test(flavor = "multi_thread")]
async fn dialogs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs");
    let wanted = std::env::var("DIALOG").unwrap_or_default();
    let authority = Arc::new(Authority::new());
    let mut running = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "dialog") && name.contains(&wanted) {
            let dialog = Dialog::parse(&std::fs::read_to_string(&path).unwrap());
            let authority = Arc::clone(&authority);
            running.push((name, tokio::spawn(async move { dialog.run(&authority).await })));
        }
    }
    assert!(!running.is_empty(), "no dialog named {wanted}");
    let mut tally = Tally::new("listener-checks", "dialogs");
    for (name, task) in running {
        // The panic's own message gives the line.
        tally.case(task.await.is_ok(), || name);
    }
    tally.finish();
}

/// The forty checks of the listener: the beginning of a dialog's title says which one it covers.
#[test]
fn each_of_the_forty_checks_has_a_dialog() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let covered: BTreeSet<u32> = files
        .filter_map(|text| Some(text.strip_prefix("# ")?.split_once(':')?.0.to_owned()))
        .flat_map(|numbers| numbers.split(", ").filter_map(|number| number.parse().ok()).collect::<Vec<_>>())
        .collect();
    assert_eq!(covered.into_iter().collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
}

/// One file.
struct Dialog {
    title: String,
    settings: BTreeMap<String, Vec<String>>,
    /// With line numbers.
    acts: Vec<(usize, Act)>,
    /// What the intake must have received; `None`: nothing at all.
    outcome: Option<BTreeMap<String, String>>,
}

enum Act {
    /// Continue with this connection, which is opened at its first use.
    Connection(usize),
    Send(Vec<u8>),
    /// Lines that match this, one each.
    Expect {
        pattern: String,
        times: usize,
    },
    StartTls,
    /// The server closes without sending more.
    Closed,
    /// The client stops sending.
    Close,
    /// The gateway is told to stop.
    Stop,
}

impl Dialog {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line)).peekable();
        let title = lines.next().and_then(|(_, line)| line.strip_prefix("# ")).expect("a title").to_owned();
        let mut dialog = Self { title, settings: BTreeMap::new(), acts: Vec::new(), outcome: None };
        while let Some((number, line)) = lines.next() {
            if line == "---" {
                dialog.outcome = Some(lines.by_ref().map(|(_, line)| key_and_value(line)).collect());
            } else if let Some(first) = line.strip_prefix("C| ") {
                let mut segment = format!("{first}\r\n");
                while let Some((_, next)) = lines.next_if(|(_, line)| line.starts_with("C|")) {
                    segment += &format!("{}\r\n", next[2..].trim_start_matches(' '));
                }
                dialog.acts.push((number, Act::Send(unescape(&segment))));
            } else if dialog.acts.is_empty() && !line.starts_with(['S', 'C', '@']) && line.contains(": ") {
                let (key, value) = key_and_value(line);
                dialog.settings.entry(key).or_default().push(value);
            } else if !line.is_empty() && !line.starts_with('#') {
                dialog.acts.extend(Act::parse(line).into_iter().map(|act| (number, act)));
            }
        }
        dialog
    }

    async fn run(self, authority: &Authority) {
        let listening = self.listen(authority);
        let mut clients: BTreeMap<usize, Client> = BTreeMap::new();
        let mut current = 1;
        for (number, act) in &self.acts {
            let here = format!("line {number} of \"{}\"", self.title);
            if let Act::Connection(connection) = act {
                current = *connection;
            }
            let client = match clients.entry(current) {
                Entry::Occupied(client) => client.into_mut(),
                Entry::Vacant(place) => place.insert(Client::connect(listening.address).await),
            };
            match act {
                Act::Connection(_) => {}
                Act::Send(bytes) => client.send(bytes).await,
                Act::Expect { pattern, times } => {
                    for _ in 0..*times {
                        let line = client.line().await.unwrap_or_else(|| panic!("{here}: closed"));
                        assert!(matches(pattern, &line), "{here}: expected {pattern}, got {line}");
                    }
                }
                Act::StartTls => {
                    let plain = clients.remove(&current).unwrap();
                    clients.insert(current, plain.start_tls(authority).await.unwrap());
                }
                Act::Closed => assert_eq!(client.line().await, None, "{here}: expected the end"),
                Act::Close => client.close_sending().await,
                Act::Stop => listening.stop(),
            }
        }
        drop(clients);
        let taken = listening.finish().await.take();
        match self.outcome {
            None => assert!(taken.is_empty(), "\"{}\": the intake got {} messages", self.title, taken.len()),
            Some(expected) => compare(&self.title, &expected, &taken),
        }
    }

    fn listen(&self, authority: &Authority) -> Listening<Recorder> {
        let mut options = options();
        let mut recorder = Recorder::default();
        let mut users = Vec::new();
        let mut memory = budget();
        for (key, values) in &self.settings {
            for value in values {
                match key.as_str() {
                    "user" => {
                        let (name, password) = value.split_once(' ').expect("name and password");
                        canaries::learn(password);
                        users.push((name.into(), Password::Plain(Secret::new(password))));
                    }
                    "admit" => recorder.admit = Some(reply(value)),
                    "accept" => recorder.accept = reply(value),
                    "memory" => memory = MemoryBudget::new(value.parse().unwrap()),
                    _ => set(&mut options, key, value, authority),
                }
            }
        }
        Listening::start(options, Users::new(users), memory, recorder)
    }
}

impl Act {
    fn parse(line: &str) -> Vec<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "C:" => vec![Self::Send(unescape(&format!("{rest}\r\n")))],
            "C~" => vec![Self::Send(unescape(rest))],
            // A command many times over in one segment.
            "C*" => {
                let (times, command) = rest.split_once(' ').expect("how often");
                let all = (1..=times.parse().unwrap())
                    .map(|n: usize| format!("{command}\r\n").replace("{n}", &n.to_string()));
                vec![Self::Send(unescape(&all.collect::<String>()))]
            }
            "S:" => vec![Self::Expect { pattern: rest.to_owned(), times: 1 }],
            "S*" => {
                let (times, pattern) = rest.split_once(' ').expect("how often");
                vec![Self::Expect { pattern: pattern.to_owned(), times: times.parse().unwrap() }]
            }
            "hello" => Self::parse("S: 220 *").into_iter().chain(Self::hello()).collect(),
            "hello-again" => Self::hello(),
            "tls" => vec![Self::StartTls],
            "closed" => vec![Self::Closed],
            "close" => vec![Self::Close],
            "stop" => vec![Self::Stop],
            _ => match word.strip_prefix('@') {
                Some(number) => vec![Self::Connection(number.parse().unwrap())],
                None => panic!("no such line: {line}"),
            },
        }
    }

    /// HELO: its reply has one line, and the rest does not depend on the extensions.
    fn hello() -> Vec<Self> {
        ["C: HELO client.example", "S: 250 gateway.example"].iter().flat_map(|line| Self::parse(line)).collect()
    }
}

fn set(options: &mut ListenerOptions, key: &str, value: &str, authority: &Authority) {
    match (key, value) {
        ("auth", "off") => options.auth = AuthMode::Off,
        ("auth", "optional") => options.auth = AuthMode::Optional,
        ("auth", "required") => options.auth = AuthMode::Required,
        ("tls", "starttls") => options.tls = Tls::StartTls(server_tls(authority)),
        ("tls", "implicit") => options.tls = Tls::Implicit(server_tls(authority)),
        ("allow", "nobody") => options.allow.clear(),
        ("line_endings", "reject") => options.line_endings = LineEndings::Reject,
        ("max_message_size", _) => options.max_message_size = value.parse().unwrap(),
        ("max_recipients", _) => options.max_recipients = value.parse().unwrap(),
        ("max_connections", _) => options.max_connections = value.parse().unwrap(),
        ("max_connections_per_address", _) => options.max_connections_per_address = value.parse().unwrap(),
        _ => panic!("no such setting: {key}: {value}"),
    }
}

fn compare(title: &str, expected: &BTreeMap<String, String>, taken: &[Received]) {
    let count = expected.get("messages").map_or(1, |count| count.parse().unwrap());
    assert_eq!(taken.len(), count, "messages in \"{title}\"");
    let Some(last) = taken.last() else { return };
    for (key, value) in expected {
        let actual = match key.as_str() {
            "messages" => continue,
            "data" => {
                assert_eq!(last.data.escape_ascii().to_string(), unescape(value).escape_ascii().to_string(), "{title}");
                continue;
            }
            "sender" => format!("<{}>", last.envelope.sender),
            "recipients" => {
                last.envelope.recipients.iter().map(|mailbox| format!("<{mailbox}>")).collect::<Vec<_>>().join(" ")
            }
            "recipient_count" => last.envelope.recipients.len().to_string(),
            "smtputf8" => last.envelope.smtputf8.to_string(),
            "body" => if last.envelope.body == BodyType::EightBitMime { "8BITMIME" } else { "7BIT" }.to_owned(),
            "user" => last.client.user.as_deref().unwrap_or("none").to_owned(),
            "protocol" => last.client.protocol().to_owned(),
            "line_endings_changed" => last.line_endings_changed.to_string(),
            _ => panic!("no such outcome: {key}"),
        };
        assert_eq!(&actual, value, "{key} in \"{title}\"");
    }
}

fn reply(text: &str) -> Reply {
    let wire = format!("{text}\r\n");
    ReplyParser::default().parse(&unescape(&wire)).unwrap().1.expect("a whole reply")
}

fn key_and_value(line: &str) -> (String, String) {
    let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("expected \"key: value\": {line}"));
    (key.to_owned(), value.to_owned())
}

/// `*` matches any text.
fn matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == line,
        Some((head, tail)) => line
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(tail, &rest[at..]))),
    }
}

/// `{text*n}` is the text n times over; the escapes are those of the recordings.
fn unescape(text: &str) -> Vec<u8> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        expanded += before;
        let repeated = behind.split_once('}').and_then(|(inside, after)| {
            let (what, times) = inside.rsplit_once('*')?;
            Some((what.repeat(times.parse().ok()?), after))
        });
        match repeated {
            Some((repeated, after)) => {
                expanded += &repeated;
                rest = after;
            }
            None => {
                expanded.push('{');
                rest = behind;
            }
        }
    }
    transcript::unescape(&(expanded + rest))
}
