//! Every secret in these tests is a canary: it contains one word, so that one search finds any leak, in plain text and in
//! base64. A secret that cannot contain the word (a key, a derived password) is registered instead.
//!
//! Each gateway here logs at TRACE; its output, the output of its commands and its database are searched when it ends. So is
//! the log of the library inside a test. This covers the whole suite, and a leak fails the test.

use super::tally::Tally;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use regex::bytes::Regex;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, Once};
use tracing_subscriber::fmt::MakeWriter;

/// What every secret holds.
pub const WORD: &str = "canary";
/// So much of a longer secret is too much already.
const PIECE: usize = 24;
/// Shorter texts would be found where they mean something else.
const SHORTEST: usize = 8;
/// Keys of the configuration, at any depth.
const SECRET_KEYS: [&str; 4] = ["password", "secret_key", "private_key", "token"];

static LEARNT: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);

/// A secret that cannot hold the word; PEM line by line.
pub fn learn(secret: &str) {
    let lines = secret.lines().map(str::trim).filter(|line| line.len() >= SHORTEST && !line.starts_with("-----"));
    let pieces = lines.filter_map(|line| line.get(..line.len().min(PIECE)));
    LEARNT.lock().expect("what was learnt").extend(pieces.map(str::to_owned));
}

/// In plain text, in hexadecimal, with each octet escaped, and in base64 after any number of other octets.
fn forms(secret: &str) -> Vec<String> {
    let encoded = (0..3).map(|before| {
        let octets = [&vec![0; before][..], secret.as_bytes()].concat();
        // Only the characters whose six bits are the secret's alone.
        let from = (before * 8).div_ceil(6);
        let to = octets.len() * 8 / 6;
        STANDARD_NO_PAD.encode(&octets)[from..to].to_owned()
    });
    let each = |before: &str| secret.bytes().map(|octet| format!("{before}{octet:02x}")).collect::<String>();
    ["", "%", "=", ":", "\\x"].into_iter().map(each).chain([secret.to_owned()]).chain(encoded).collect()
}

/// Searches for the word and everything learnt so far.
pub struct Search(Regex);

impl Search {
    pub fn now() -> Arc<Self> {
        static LAST: Mutex<Option<(usize, Arc<Search>)>> = Mutex::new(None);
        let learnt = LEARNT.lock().expect("what was learnt");
        let mut last = LAST.lock().expect("the last search");
        match &*last {
            Some((count, search)) if *count == learnt.len() => Arc::clone(search),
            _ => {
                let needles = learnt.iter().map(String::as_str).chain([WORD]).flat_map(forms);
                let needles: Vec<_> = needles.map(|needle| regex::escape(&needle)).collect();
                let search = Arc::new(Self(Regex::new(&needles.join("|")).expect("a pattern of plain texts")));
                *last = Some((learnt.len(), Arc::clone(&search)));
                search
            }
        }
    }

    pub fn finds(&self, text: impl AsRef<[u8]>) -> bool {
        self.0.is_match(text.as_ref())
    }
}

/// Fails a test that gives the program a secret whose leak would not be noticed; registers secrets without the word.
pub fn expect_canaries(folder: &Path, environment: &[(String, String)]) {
    let is_secret = |name: &str| ["_PWD", "_PASSWORD", "_KEY"].iter().any(|end| name.ends_with(end));
    let variables = environment.iter().filter(|(name, _)| is_secret(name));
    let files = files(folder).into_iter().filter_map(|path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).ok()?;
        (is_secret(&name) || text.contains("PRIVATE KEY-----")).then_some((name, text))
    });
    for (name, value) in variables.cloned().chain(files).chain(configured(folder, environment)) {
        let value = value.trim();
        if value.contains("-----BEGIN") || value.starts_with("$argon2") {
            learn(value);
        } else if name != "private_key" {
            // There it is the name of a file, which is among the files.
            assert!(value.contains(WORD), "{name} of this test does not hold \"{WORD}\": nobody would see it leak");
        }
    }
}

/// The secrets of the configuration, wherever they are.
fn configured(folder: &Path, environment: &[(String, String)]) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder.join("config.toml")).unwrap_or_default();
    let keys = text.parse::<toml::Table>().map(|table| secret_keys(&table)).unwrap_or_default();
    let value = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        _ => {
            let of = |place: &str| value.get(place).and_then(toml::Value::as_str);
            let variable = of("env").and_then(|name| environment.iter().find(|(given, _)| given == name));
            let file = of("file").and_then(|file| std::fs::read_to_string(folder.join(file)).ok());
            variable.map(|(_, text)| text.clone()).or(file)
        }
    };
    keys.into_iter().filter_map(|(key, at)| Some((key, value(&at)?))).collect()
}

fn secret_keys(table: &toml::Table) -> Vec<(String, toml::Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            _ if SECRET_KEYS.contains(&key.as_str()) => found.push((key.clone(), value.clone())),
            toml::Value::Table(inner) => found.extend(secret_keys(inner)),
            toml::Value::Array(inner) => {
                found.extend(inner.iter().filter_map(toml::Value::as_table).flat_map(secret_keys));
            }
            _ => {}
        }
    }
    found
}

/// Below a folder, one folder deep.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let inner = entries(folder).filter(|entry| entry.path().is_dir()).flat_map(|entry| entries(&entry.path()));
    entries(folder).chain(inner).map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// Searches what a gateway left behind; fails if it contains a secret. `what` names it among others of this test.
pub fn search_remains(what: &str, lines: &[String], folder: &Path) {
    // A test that has already failed has its own message.
    if std::thread::panicking() {
        return;
    }
    let mut tally = Tally::new("secrets", &format!("{what} of {}", std::process::id()));
    let search = Search::now();
    for line in lines {
        tally.case(!search.finds(line), || format!("a secret was printed: {line}"));
    }
    // But for files that are one mail and nothing else: that is the application's.
    for path in files(&folder.join("data")).into_iter().filter(|path| path.parent() == Some(&folder.join("data"))) {
        let octets = std::fs::read(&path).unwrap_or_default();
        tally.case(!search.finds(octets), || format!("a secret is in {}", path.display()));
    }
    tally.right(1);
    tally.finish();
}

/// What the library logs in this process, at TRACE, from now on; a line with a secret ends the process.
pub fn watch_this_process() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(Watch);
        // Another test's subscriber of this process sees what its test wants to see.
        let _there_is_one = tracing::subscriber::set_global_default(subscriber.with_ansi(false).finish());
    });
}

struct Watch;

impl Write for &Watch {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        if Search::now().finds(octets) {
            eprintln!("a secret was logged: {}", String::from_utf8_lossy(octets));
            std::process::abort();
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Watch {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[test]
fn a_canary_is_found_wherever_it_sits() {
    for secret in ["relay-canary-password", "acanary", "canary"] {
        for before in ["", "\0user\0", "\0users\0", "\0user-1\0"] {
            let text = format!("{before}{secret} and more");
            for said in [text.clone(), STANDARD.encode(&text), STANDARD.encode(format!("{before}{secret}"))] {
                assert!(Search::now().finds(format!("AUTH PLAIN {said}")), "{said}");
            }
        }
    }
    assert!(!Search::now().finds("535 5.7.8 wrong password, can arrive"));
}

#[test]
fn a_key_and_a_hash_are_found_by_any_line() {
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$aGFzaA";
    learn(
        "-----BEGIN PRIVATE KEY-----\nMIIEvgIBADANBgkqhkiG9w0BAQEFAASC\nBKgwggSkAgEAAoIBAQ\n-----END PRIVATE KEY-----\n",
    );
    learn(hash);
    for leaked in [hash, "key: BKgwggSkAgEAAoIBAQ", "MIIEvgIBADANBgkqhkiG9w0BAQEFAASC"] {
        assert!(Search::now().finds(leaked), "{leaked}");
    }
    assert!(!Search::now().finds("-----BEGIN PRIVATE KEY-----"));
}
