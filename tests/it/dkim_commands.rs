//! A key's life on the command line: created, published, configured, and its signatures checked.

use crate::support::clock;
use bytes::Bytes;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;
use waxseal::dkim::{self, Records, SealOptions, Selector, SigningKey};
use waxseal::message::RawMessage;
use waxseal::smtp::Domain;

const UPSTREAM: &str = "[[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";
const KEY: &str = "certs/dkim/example.com.wax1.pem";

/// A folder to run the program in, without an environment.
struct Folder(TempDir);

impl Folder {
    fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.path().join(name), content).unwrap();
        self
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waxseal"));
        command.current_dir(self.path()).env_clear().envs(clock::of_this_run()).args(arguments);
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("an exit status")
}

/// A folder with a key and a configuration that names it.
fn with_key(algorithm: &str) -> Folder {
    let folder = Folder(TempDir::new().unwrap());
    let made = folder.output(&["dkim", "generate", "Example.com", "--selector", "wax1", "--algorithm", algorithm]);
    assert_eq!(status(&made), 0, "{}", err(&made));
    let said = out(&made);
    let table = said[said.find("[[dkim]]").expect("a table")..].split("\n\n").next().expect("its end");
    folder.file("config.toml", format!("{UPSTREAM}\n{table}\n"))
}

fn sealed(folder: &Folder) -> String {
    let pem = std::fs::read(folder.path().join(KEY)).unwrap();
    let domain = Domain::parse("example.com").unwrap();
    let selector = Selector::parse("wax1").unwrap();
    let key = Arc::new(SigningKey::from_pem(domain, selector, &pem).unwrap());
    let message = Bytes::from_static(b"From: a@example.com\r\nSubject: s\r\n\r\nHello.\r\n");
    let sealed = dkim::seal(&RawMessage::from_data(message).unwrap(), &[key], &SealOptions::default()).unwrap();
    String::from_utf8([sealed.message().header(), b"\r\n", sealed.message().body()].concat()).unwrap()
}

#[test]
fn a_new_key_is_for_its_owner_alone_and_is_never_replaced() {
    let folder = with_key("ed25519");
    let path = folder.path().join(KEY);
    let before = std::fs::read(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = folder.output(&["dkim", "generate", "example.com", "--selector", "wax1"]);
    assert_eq!(status(&again), 2);
    assert!(err(&again).contains("choose another selector"), "{}", err(&again));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let literal = folder.output(&["dkim", "generate", "[127.0.0.1]", "--selector", "wax1"]);
    assert!(status(&literal) == 2 && err(&literal).contains("address literal"), "{}", err(&literal));
}

#[test]
fn the_record_is_printed_in_three_forms_that_say_the_same() {
    for algorithm in ["rsa2048", "ed25519"] {
        let folder = with_key(algorithm);
        let text = folder.output(&["dkim", "record"]);
        assert_eq!(status(&text), 0, "{}", err(&text));
        let json = folder.output(&["dkim", "record", "news.example.com", "--selector", "WAX1", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&out(&json)).unwrap();
        let name = json[0]["name"].as_str().unwrap();
        let value = json[0]["value"].as_str().unwrap();
        assert_eq!(name, "wax1._domainkey.example.com");
        assert!(out(&text).contains(&format!("Name:  {name}\nType:  TXT\nValue: {value}\n")), "{}", out(&text));
        assert!(out(&text).contains(json[0]["zone"].as_str().unwrap()));
        let from_file = folder.output(&["dkim", "record", "--key", KEY]);
        assert_eq!(out(&from_file), out(&text));
        // The printed record can be read back.
        let message = sealed(&folder);
        for printed in [out(&text), json[0]["zone"].as_str().unwrap().to_owned(), value.to_owned()] {
            let verified = dkim::verify(message.as_bytes(), &Records::from_file(&printed).expect(&printed));
            assert!(verified[0].is_pass(), "{printed}: {verified:?}");
        }
    }
}

#[test]
fn a_record_that_is_not_there_says_which_are() {
    let folder = with_key("ed25519");
    for arguments in [&["dkim", "record", "example.org"][..], &["dkim", "record", "--selector", "wax2"]] {
        let none = folder.output(arguments);
        assert_eq!((status(&none), out(&none).as_str()), (1, ""));
        assert!(err(&none).contains("`waxseal dkim record` prints all"), "{}", err(&none));
    }
    let unnamed = folder.file("mail.pem", "x").output(&["dkim", "record", "--key", "mail.pem"]);
    assert!(status(&unnamed) == 2 && err(&unnamed).contains("--selector"), "{}", err(&unnamed));
}

#[test]
fn a_key_that_others_can_read_is_warned_about() {
    let folder = with_key("ed25519");
    std::fs::set_permissions(folder.path().join(KEY), PermissionsExt::from_mode(0o644)).unwrap();
    let warned = folder.output(&["dkim", "record", "--key", KEY]);
    assert_eq!(status(&warned), 0);
    assert!(err(&warned).contains(&format!("chmod 600 {KEY}")), "{}", err(&warned));
}

#[test]
fn signatures_are_checked_offline() {
    let folder = with_key("rsa2048");
    let message = sealed(&folder);
    let record = out(&folder.output(&["dkim", "record"]));
    let folder = folder
        .file("good.eml", &message)
        .file("saved.eml", message.replace("\r\n", "\n"))
        .file("changed.eml", message.replace("Hello", "Hallo"))
        .file("topped.eml", format!("From: evil@example.org\r\n{message}"))
        .file("bare.eml", "From: a@example.com\r\n\r\nHello.\r\n")
        .file("record.txt", record)
        .file("other.txt", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n");
    for (arguments, code, said) in [
        (&["good.eml"][..], 0, "pass  wax1._domainkey.example.com (rsa-sha256)\n"),
        (&["saved.eml"], 0, "pass  "),
        (&["good.eml", "--record", "record.txt"], 0, "pass  "),
        (&["good.eml", "--record", "other.txt"], 1, "publishes another key"),
        (&["good.eml", "--json"], 0, "\"passed\": true"),
        (&["changed.eml"], 1, "FAIL  wax1._domainkey.example.com (rsa-sha256): the body was changed"),
        (&["topped.eml"], 1, "a signed header was changed or added"),
        (&["changed.eml", "--json"], 1, "\"passed\": false"),
        (&["bare.eml"], 1, "no DKIM-Signature header"),
    ] {
        let output = folder.output(&[&["dkim", "verify"], arguments].concat());
        assert_eq!(status(&output), code, "{arguments:?}: {}{}", out(&output), err(&output));
        assert!(out(&output).contains(said), "{arguments:?}: {}", out(&output));
    }
    let missing = folder.output(&["dkim", "verify", "nowhere.eml"]);
    assert!(status(&missing) == 2 && err(&missing).contains("nowhere.eml cannot be read"), "{}", err(&missing));
    let no_record = folder.output(&["dkim", "verify", "good.eml", "--record", "bare.eml"]);
    assert!(status(&no_record) == 2 && err(&no_record).contains("holds no DKIM record"), "{}", err(&no_record));
}

#[test]
fn a_message_may_come_through_a_pipe() {
    let folder = with_key("ed25519");
    let mut command = folder.command(&["dkim", "verify", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(sealed(&folder).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((status(&output), out(&output).as_str()), (0, "pass  wax1._domainkey.example.com (ed25519-sha256)\n"));
}
