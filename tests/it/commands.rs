//! Every command says what it does, and its exit status says how it went; and a user gets from a new key to a mail that
//! verifies with nothing but the commands' output.

use crate::support::dkim::{Records, verify_dkimpy, verify_opendkim};
use crate::support::gateway::Setup;
use crate::support::real_clients::swaks;
use std::path::{Path, PathBuf};
use std::process::Output;

const SANDBOX: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\ndelivery = \"direct\"\n[[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";

/// Each counts separately what the provider counts together.
const TWO_OF_ONE_ACCOUNT: &str = "hostname = \"gateway.example.com\"\nunsigned = \"send\"\n\
    [[upstream]]\nname = \"a\"\nprovider = \"smtp\"\nhost = \"smtp.example.com\"\nusername = \"u\"\npassword = \"canary-p\"\n\
    rate = \"50/day\"\n\
    [[upstream]]\nname = \"b\"\nprovider = \"smtp\"\nhost = \"smtp.example.com\"\nusername = \"u\"\npassword = \"canary-p\"\n\
    rate = \"50/day\"\n[[route]]\nname = \"all\"\nupstreams = [\"a\", \"b\"]\n";

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Rows of the README's table of commands: the words after `waxseal`, without their arguments.
fn commands_of_the_readme() -> Vec<Vec<String>> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `waxseal ")?.split('`').next());
    let is_command = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
    rows.map(|row| row.split(' ').take_while(is_command).map(str::to_owned).collect()).collect()
}

#[test]
fn every_command_explains_itself() {
    let setup = Setup::new(None);
    let mut commands = commands_of_the_readme();
    assert!(commands.len() >= 6, "{commands:?}");
    commands.extend([vec![], vec!["dkim".to_owned()], vec!["user".to_owned()]]);
    for command in commands {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        for help in [[&words[..], &["--help"]].concat(), [&["help"], &words[..]].concat()] {
            let output = setup.output(&help);
            assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""), "{help:?}");
            let usage = format!("Usage: {}", [&["waxseal"], &words[..]].concat().join(" "));
            assert!(out(&output).contains(&usage) && out(&output).contains("--config"), "{help:?}: {}", out(&output));
        }
        let wrong = setup.output(&[&words[..], &["--nonsense"]].concat());
        assert_eq!(wrong.status.code(), Some(2), "{command:?}");
        assert!(err(&wrong).contains("--nonsense") && out(&wrong).is_empty(), "{command:?}: {}", err(&wrong));
    }
    let version = setup.output(&["--version"]);
    assert_eq!((version.status.code(), out(&version)), (Some(0), format!("waxseal {}\n", env!("CARGO_PKG_VERSION"))));
    assert!(out(&setup.output(&["--help"])).contains("Exit status: 0 success, 1"));
}

#[test]
fn the_exit_status_says_how_it_went() {
    let good = Setup::new(Some(SANDBOX)).file("bare.eml", "From: a@example.com\r\n\r\nHello.\r\n");
    let bad = Setup::new(Some("hostnam = \"x\"\n"));
    let none = Setup::new(None);
    let shared = Setup::new(Some(TWO_OF_ONE_ACCOUNT));
    for (setup, arguments, code, said) in [
        (&good, &["check"][..], 0, "no mistakes"),
        (&shared, &["check"], 0, "\"a\" has the same host and login"),
        (&shared, &["check", "--json"], 0, "share_limits_with"),
        (&good, &["check", "--json"], 0, "\"ok\": true"),
        (&good, &["check", "--defaults"], 0, "max_memory = "),
        (&good, &["check", "--defaults", "--json"], 0, "\"max_memory\""),
        (&bad, &["check"], 2, "did you mean `hostname`?"),
        (&bad, &["check", "--json"], 2, "\"ok\": false"),
        (&bad, &["check", "--defaults"], 0, "max_memory = "),
        (&bad, &["run"], 2, "did you mean `hostname`?"),
        (&bad, &["dkim", "record"], 2, "did you mean `hostname`?"),
        (&none, &["check"], 2, "SMTP_HOST_ADDR"),
        (&none, &["run"], 2, "SMTP_HOST_ADDR"),
        (&none, &["--config", "gone.toml", "check"], 2, "gone.toml"),
        (&none, &["--config", "gone.toml", "run"], 2, "gone.toml"),
        (&good, &["dkim", "record"], 1, "dkim generate"),
        (&good, &["dkim", "verify", "bare.eml"], 1, "no DKIM-Signature header"),
        (&good, &["dkim", "verify", "gone.eml"], 2, "gone.eml"),
        (&good, &["dkim", "generate", "example.com"], 2, "--selector"),
        (&good, &["dkim", "generate", "not a domain", "--selector", "a"], 2, "not a valid host name"),
        (&good, &["user", "hash"], 2, "the password is empty"),
        (&good, &[], 2, "Usage: waxseal"),
        (&good, &["dkim"], 2, "Usage: waxseal dkim"),
        (&good, &["frobnicate"], 2, "frobnicate"),
    ] {
        let output = setup.output(arguments);
        let printed = format!("{}{}", out(&output), err(&output));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {printed}");
        assert!(printed.contains(said), "{arguments:?}: no {said:?} in {printed}");
    }
    assert!(!good.folder().join("data").exists(), "none of these starts anything");
}

#[test]
fn a_signal_ends_it_with_0_and_a_port_in_use_with_2() {
    for signal in ["TERM", "INT"] {
        let mut gateway = Setup::new(Some(SANDBOX)).start(1);
        gateway.signal(signal);
        assert_eq!(gateway.wait().code(), Some(0), "SIG{signal}");
        assert!(gateway.log().last().is_some_and(|line| line.contains("stopped")), "{:#?}", gateway.log());
    }
    let running = Setup::new(Some(SANDBOX)).start(1);
    let taken = running.address().to_string();
    let output = Setup::new(Some(&SANDBOX.replace("127.0.0.1:0", &taken))).output(&["run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains(&taken), "{}", err(&output));
}

/// Creates a key and returns the table to paste, as printed.
fn generate(setup: &Setup, selector: &str, algorithm: &str) -> String {
    let made = setup.output(&["dkim", "generate", "example.com", "--selector", selector, "--algorithm", algorithm]);
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    let text = out(&made);
    let table = &text[text.find("[[dkim]]").expect("a table to paste")..];
    table.split("\n\n").next().unwrap_or_default().to_owned()
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

#[test]
fn from_a_new_key_to_a_mail_that_verifies() {
    let setup = Setup::new(Some(SANDBOX));
    let tables = format!("{}\n{}\n", generate(&setup, "wax1", "rsa2048"), generate(&setup, "wax2", "ed25519"));
    let setup = setup.config_with("[[upstream]]", &format!("{tables}[[upstream]]"));
    assert_eq!(setup.output(&["check"]).status.code(), Some(0), "{tables}");
    let printed = out(&setup.output(&["dkim", "record"]));
    let json: serde_json::Value = serde_json::from_str(&out(&setup.output(&["dkim", "record", "--json"]))).unwrap();
    let text = |record: &serde_json::Value, key: &str| record[key].as_str().unwrap().to_owned();
    let records: Records =
        json.as_array().unwrap().iter().map(|record| (text(record, "name"), text(record, "value"))).collect();
    assert_eq!(records.len(), 2);

    let gateway = setup.file("record.txt", printed).start(1);
    let folder = gateway.folder();
    let server = gateway.address().to_string();
    let Some(sent) = swaks(&["--server", &server, "--from", "reports@example.com", "--to", "you@example.net"]) else {
        return;
    };
    assert!(sent.success && sent.stdout.contains("DKIM pass (wax1._domainkey.example.com)"), "{sent:?}");

    let mail = only_file(&folder.join("data/sandbox"));
    let verify =
        |file: &Path, more: &[&str]| gateway.output(&[&["dkim", "verify", file.to_str().unwrap()], more].concat());
    for more in [&[][..], &["--record", "record.txt"]] {
        let verified = verify(&mail, more);
        let expected =
            "pass  wax1._domainkey.example.com (rsa-sha256)\npass  wax2._domainkey.example.com (ed25519-sha256)\n";
        assert_eq!((verified.status.code(), out(&verified).as_str()), (Some(0), expected), "{}", err(&verified));
    }
    for verdicts in [verify_dkimpy(&records, &[&mail]), verify_opendkim(&records, &[&mail])].into_iter().flatten() {
        assert!(verdicts[0].len() == 2 && verdicts[0].iter().all(|verdict| verdict.passed), "{verdicts:?}");
    }
    let changed = folder.join("changed.eml");
    std::fs::write(&changed, std::fs::read_to_string(&mail).unwrap().replace("mailing", "mauling")).unwrap();
    let verified = verify(&changed, &[]);
    assert_eq!(verified.status.code(), Some(1), "{}", out(&verified));
    assert_eq!(out(&verified).matches("FAIL  wax").count(), 2, "{}", out(&verified));
}
