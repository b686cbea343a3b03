//! A reload against a restart, for every key of the configuration: what differs in the file is in force, or it is named.
//!
//! What serves is compared as `Debug` prints it. Tasks that outlive a reload read `Current`, so that they are covered too.

use super::*;
use crate::config::{ConfigFile, Environment, SCHEMA};
use crate::gateway::Gateway;
use crate::inbound::InheritedSockets;
use rcgen::CertifiedKey;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const ROWS: &str = include_str!("keys.txt");

/// With every table, so that each key has a place.
const BASE: &[(&str, &str)] = &[
    ("", "hostname = \"gateway.example.com\"\nunsigned = \"send\""),
    ("listener", "address = \"127.0.0.1:0\""),
    (
        "user",
        "name = \"app\"\npassword = \"$argon2id$v=19$m=19456,t=2,p=1$RadoPKw+mfAntxduBUMNbg$\
         44070uannZYI4QQWZWrrYgRNALymEX1EW19Vk+kEiUs\"",
    ),
    ("dkim", "domain = \"example.com\"\nselector = \"wax1\"\nprivate_key = \"key.pem\""),
    (
        "upstream",
        "name = \"company\"\nprovider = \"smtp\"\nhost = \"127.0.0.1\"\nport = 9\nusername = \"relay\"\n\
         password = \"one-of-two-secrets\"",
    ),
    ("upstream.credentials", "domain = \"example.org\"\nusername = \"domain\"\npassword = \"one-of-two-secrets\""),
    ("route", "name = \"all\"\nupstreams = [\"company\", \"third\"]"),
    ("repair", ""),
    ("rewrite", "set_headers = { X-Kind = \"report\" }"),
    ("trace", ""),
    ("storm", ""),
    ("expect", "sender = \"reports@example.com\"\nevery = \"8d\""),
    ("queue", ""),
    ("queue.redis", "url = \"redis://127.0.0.1:9\""),
    ("doctor", "at_start = false"),
    ("admin", "address = \"off\""),
    ("log", ""),
];

/// After the others, so that it is not the default upstream.
const THIRD: &str = "[[upstream]]\nname = \"third\"\nprovider = \"smtp\"\nhost = \"127.0.0.4\"\nport = 9\n";

/// Bounds the wait for two gateways that have only just started.
const MOST_LOOKS: usize = 100;

struct KeyRow {
    table: &'static str,
    key: &'static str,
    values: [&'static str; 2],
    effect: &'static str,
    others: &'static str,
}

fn rows() -> Vec<KeyRow> {
    let lines = ROWS.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &'static str| {
        let cells: Vec<&str> =
            line.split(" | ").flat_map(|cell| cell.strip_suffix(" |").map_or(vec![cell], |it| vec![it, ""])).collect();
        let [name, before, after, effect, others] = cells[..] else { panic!("{line}") };
        let (table, key) = name.rsplit_once('.').expect("TABLE.KEY");
        KeyRow { table, key, values: [before, after], effect, others }
    };
    lines.map(row).collect()
}

impl KeyRow {
    /// The whole configuration, with this value.
    fn text(&self, value: &str) -> String {
        let mut text = String::new();
        for table in SCHEMA.0 {
            let title = match table.name {
                "" => String::new(),
                _ => format!("{}\n", table.title()),
            };
            let (_, lines) = BASE.iter().find(|(name, _)| *name == table.name).expect("a table of BASE");
            let mut lines: Vec<String> = lines.lines().map(str::to_owned).collect();
            if table.name == self.table {
                let own = format!("{} = {}", self.key, value.replace("\\n", "\n"));
                for line in self.others.split("; ").filter(|line| !line.is_empty()).chain([own.as_str()]) {
                    let key = line.split(" = ").next().unwrap_or_default();
                    lines.retain(|other| other.split(" = ").next() != Some(key));
                    lines.extend((!line.ends_with(" = -")).then(|| line.to_owned()));
                }
            }
            if table.name == "queue" && self.table == "queue.redis" {
                lines.push("backend = \"redis\"".to_owned());
            }
            text.push_str(&format!("{title}{}\n", lines.join("\n")));
            if table.name == "upstream.credentials" {
                text.push_str(THIRD);
            }
        }
        // The others of the file that name it.
        if self.table == "upstream" && self.key == "name" {
            text = text.replace("upstreams = [\"company\"", &format!("upstreams = [{value}"));
        }
        // A known provider has a host and logins of its own kind.
        if ["postmark", "mailgun", "ses"].iter().any(|name| text.contains(&format!("provider = \"{name}\""))) {
            text = text.replace("host = \"127.0.0.1\"\nport = 9\n", "");
        }
        if self.key == "secret_key" {
            text = text.replace("password = \"one-of-two-secrets\"\nprovider", "provider");
        }
        text
    }
}

fn write_files(folder: &Path) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    // Of the same key, so that either belongs to it.
    let again = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let again = again.self_signed(&signing_key).expect("a certificate");
    let key = signing_key.serialize_pem();
    let dkim = include_str!("../../dkim/testdata/ed25519.pem");
    for (name, text) in [
        ("tls.pem", cert.pem()),
        ("tls2.pem", again.pem()),
        ("tls.key", key.clone()),
        ("tls2.key", key),
        ("key.pem", dkim.to_owned()),
        ("key2.pem", include_str!("../../dkim/testdata/rsa2048.pem").to_owned()),
        ("password.one", "one-of-two-passwords".to_owned()),
        ("password.two", "two-of-two-passwords".to_owned()),
    ] {
        fs::write(folder.join(name), text).expect("a file");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).expect("its owner");
    }
}

fn read(folder: &Path, text: &str) -> ConfigText {
    let path = folder.join("config.toml");
    fs::write(&path, text).expect("a configuration");
    ConfigText::read(&ConfigFile { path: &path, explicit: true }).expect("it can be read")
}

fn resolved(text: &ConfigText, what: &str) -> Settings {
    let resolved = text.resolve(&Environment::of_process());
    resolved.unwrap_or_else(|problems| {
        panic!("{what}: {:?}", problems.iter().map(|problem| problem.to_string()).collect::<Vec<_>>())
    })
}

async fn serving(folder: &Path, text: &str, what: &str) -> Serving {
    let text = read(folder, text);
    let gateway = Gateway::start(resolved(&text, what), text, InheritedSockets::default()).await;
    Serving::begin(gateway.unwrap_or_else(|error| panic!("{what}: {error}")).parts, CancellationToken::new())
}

/// What serves, without times and places that differ from process to process.
fn print_of(serving: &Serving, folder: &Path) -> Vec<String> {
    let Current { plan, rules, retention, expected, storms, roles: submitting, hostname, watched } = &serving.current;
    let roles: Vec<_> = serving.open.iter().map(|open| open.role.borrow().clone()).collect();
    let current = (&*plan.borrow(), &*rules.borrow(), &*retention.borrow(), &*expected.borrow());
    let further = (&*storms.borrow(), &*submitting.borrow(), &*hostname.borrow(), watched);
    let text = format!("{:?} {current:?} {further:?} {roles:?}", serving.generation);
    normal(&text, folder)
}

/// Its parts, such as `drain: 8s`.
fn normal(text: &str, folder: &Path) -> Vec<String> {
    let text = text.replace(&folder.display().to_string(), "FOLDER");
    let is_number = |word: &str| word.chars().all(|c| c.is_ascii_digit());
    let is_fixed = |part: &&str| {
        // Times, the state of wake-ups, and the name under which an earlier version stored a usage.
        let differs = ["tv_sec", "tv_nsec", "began: ", "until: ", "last: ", "state: ", "former: ", "2592000."];
        !is_number(part) && !part.contains("0x") && !differs.iter().any(|word| part.starts_with(word))
    };
    let parts = text.split([',', '{', '}', '[', ']', '(', ')']).map(str::trim);
    parts.filter(is_fixed).map(without_port).collect()
}

/// The system chose it.
fn without_port(line: &str) -> String {
    let parts = line.split_once("127.0.0.").and_then(|(head, tail)| Some((head, tail.split_once(':')?)));
    match parts {
        Some((head, (ip, rest))) => {
            format!("{head}127.0.0.{ip}:{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => line.to_owned(),
    }
}

/// Lines that one of them has more often than the other: how often each has it, and the line.
fn differences(one: &[String], other: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (at, lines) in [one, other].into_iter().enumerate() {
        lines.iter().for_each(|line| counts.entry(line).or_default()[at] += 1);
    }
    let differing = counts.into_iter().filter(|(_, [one, other])| one != other);
    differing.map(|(line, [one, other])| format!("{one}x/{other}x {}", line.trim())).take(25).collect()
}

#[test]
fn every_key_has_a_row() {
    let known: BTreeSet<String> = SCHEMA
        .0
        .iter()
        .flat_map(|table| table.settings.iter().map(|it| format!("{}.{}", table.name, it.key)))
        .collect();
    let rows: Vec<String> = rows().iter().map(|row| format!("{}.{}", row.table, row.key)).collect();
    assert_eq!(rows.iter().cloned().collect::<BTreeSet<_>>(), known);
    assert_eq!(rows.len(), known.len(), "each once");
}

/// A changed key was neither in force nor named: a sandbox's size, the DNS server, the hostname of `[admin]`.
#[test]
fn what_a_reload_does_not_apply_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path());
    for row in rows() {
        let name = format!("{}.{}", row.table, row.key);
        let [before, after] = row.values.map(|value| resolved(&read(folder.path(), &row.text(value)), &name));
        let mut kept = after;
        let told = kept.keep_until_next_start(&before);
        match row.effect.strip_prefix("restart: ") {
            Some(expected) => {
                assert_eq!(told, [expected], "{name}");
                assert_eq!(kept.keep_until_next_start(&before), Vec::<&str>::new(), "{name} is as it was");
            }
            None => assert_eq!(told, Vec::<&str>::new(), "{name}"),
        }
    }
}

macro_rules! in_force {
    ($($name:ident: $tables:expr,)*) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            is_in_force(&$tables).await;
        }
    )* };
}

in_force! {
    a_changed_gateway_or_listener_is_in_force_as_after_a_restart: ["", "listener", "user", "dkim"],
    a_changed_upstream_is_in_force_as_after_a_restart: ["upstream", "upstream.credentials"],
    changed_repairs_and_routes_are_in_force_as_after_a_restart: ["route", "repair", "trace", "storm", "expect"],
    changed_rules_are_in_force_as_after_a_restart: ["rewrite"],
    a_changed_queue_is_in_force_as_after_a_restart: ["queue", "queue.redis", "doctor", "admin", "log"],
}

/// One gateway is started with the former value and reloads, another is started with the new one.
async fn is_in_force(tables: &[&str]) {
    let mut wrong = Vec::new();
    for row in rows()
        .iter()
        .filter(|row| !row.effect.starts_with("restart") && row.effect != "fixed" && tables.contains(&row.table))
    {
        let name = format!("{}.{}", row.table, row.key);
        let [first, second] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        for folder in [&first, &second] {
            write_files(folder.path());
            for file in ["tls.pem", "tls2.pem", "tls.key", "tls2.key"] {
                let _the_same_ones = fs::copy(first.path().join(file), second.path().join(file));
            }
        }
        let [before, after] = row.values.map(|value| row.text(value));
        let mut reloaded = serving(first.path(), &before, &name).await;
        let former = print_of(&reloaded, first.path());
        let answer = reloaded.reload(read(first.path(), &after)).await;
        assert!(answer.problems.is_empty() && answer.at_next_start.is_empty(), "{name}: {answer:?}");
        let started = serving(second.path(), &after, &name).await;
        let mut now = print_of(&reloaded, first.path());
        let mut left = differences(&now, &print_of(&started, second.path()));
        // Tasks of either may still be doing what they do first, such as loading when expected mail last came.
        for _ in 0..MOST_LOOKS {
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            now = print_of(&reloaded, first.path());
            left = differences(&now, &print_of(&started, second.path()));
        }
        if !left.is_empty() {
            wrong.push(format!("{name} is not in force as after a restart: {left:#?}"));
        }
        let is_seen = if row.effect == "secret" { !answer.changes.is_empty() } else { former != now };
        if !is_seen {
            wrong.push(format!("{name} has changed nothing"));
        }
        for serving in [reloaded, started] {
            serving.finish().await;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
