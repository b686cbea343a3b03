//! The program with a wrong configuration: everything is reported at once, and nothing starts.

use crate::support::clock;
use crate::support::tally::Tally;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const TEN_MISTAKES: &str = include_str!("../../src/config/tests/ten_mistakes.toml");

/// With only these variables, in `folder`.
fn waxseal(folder: &Path, arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_waxseal"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(clock::of_this_run())
        .envs(environment.iter().copied())
        // Not the machine's own secrets.
        .env("CONFIG_DIR", folder.join("secrets"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect()
}

#[test]
fn ten_mistakes_print_ten_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), TEN_MISTAKES).unwrap();
    for command in ["check", "run"] {
        let output = waxseal(folder.path(), &[command], &[], "");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let lines = stderr(&output);
        let errors = lines.iter().filter(|line| line.starts_with("error: ")).count();
        assert!(errors == 10 && lines[10..].iter().all(|line| line.starts_with("warning: ")), "{lines:#?}");
        assert_eq!(lines[0], "error: config.toml:1:1: unknown key `hostnam` (help: did you mean `hostname`?)");
        assert!(output.stdout.is_empty() && !folder.path().join("data").exists(), "{output:?}");
    }
}

#[test]
fn each_reason_not_to_start_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let provider = ("SMTP_HOST_ADDR", "smtp.example.com");
    for (environment, said) in [
        (&[][..], "no SMTP_HOST_ADDR"),
        (&[provider, ("WAXSEAL_LISTEN", "0.0.0.0:2525")], "nothing says who may send"),
        (&[("SMTP_HOST_ADDR", "127.0.0.1"), ("SMTP_HOST_PORT", "2525")], "the gateway's own listener"),
        (
            &[provider, ("DKIM_DOMAIN", "example.com"), ("DKIM_SELECTOR", "a"), ("DKIM_PRIVATE_KEY", "missing.pem")],
            "there is no file missing.pem",
        ),
    ] {
        let output = waxseal(folder.path(), &["run"], environment, "");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let (errors, others): (Vec<_>, Vec<_>) =
            stderr(&output).into_iter().partition(|line| !line.starts_with("warning: "));
        let is_said = matches!(errors.as_slice(), [one] if one.starts_with("error: ") || one.starts_with("waxseal: "));
        assert!(is_said && errors[0].contains(said), "{said}: {output:?}");
        assert!(others.iter().all(|line| !line.contains(said)), "{output:?}");
    }
}

#[test]
fn the_shipped_configuration_is_in_order_and_a_hash_can_be_made() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), include_str!("../../config.toml")).unwrap();
    let output = waxseal(folder.path(), &["check"], &[], "");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("does NOT send it"), "{output:?}");

    let output = waxseal(folder.path(), &["user", "hash"], &[], "hunter2\n");
    let hash = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    assert!(output.status.success() && hash.starts_with("$argon2id$") && !hash.contains('\n'), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
    let user = format!("{}\n[[user]]\nname = \"a\"\npassword = \"{hash}\"\n", include_str!("../../config.toml"));
    std::fs::write(folder.path().join("config.toml"), user).unwrap();
    let output = waxseal(folder.path(), &["check"], &[], "");
    assert!(output.status.success(), "{output:?}");
}

/// However a private key was mangled on its way into the environment, it is either accepted or named without its
/// content.
#[test]
fn no_command_prints_a_private_key_that_lost_its_form() {
    let folder = tempfile::tempdir().unwrap();
    let pem = include_str!("../../src/dkim/testdata/rsa2048.pem");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(&body).unwrap();
    let hex: String = der.iter().map(|octet| format!("{octet:02x}")).collect();
    let understood = [
        pem.replace('\n', " "),
        pem.replace('\n', ""),
        pem.replace('\n', "\\n"),
        pem.replace('\n', "\r\n    "),
        format!("\u{feff}\"{pem}\""),
        format!("'{}' # key", pem.replace('\n', "\\n")),
        STANDARD.encode(pem),
    ];
    let refused = [
        body.clone(),
        format!("{body}\n"),
        body.replace('+', "-").replace('/', "_"),
        hex.clone(),
        hex.to_ascii_uppercase(),
        format!("key={body}"),
        format!("RSA:{body}"),
        pem[..pem.len() / 2].to_owned(),
        pem.replace('\n', " ").replacen("MII", "MI!", 1),
        pem.replace("-----", ""),
        pem.replace("-----", "--"),
        pem.replace('\n', " ").replace("-----END", "----- END"),
        STANDARD.encode(&pem[..500]),
    ];
    let needles: Vec<&str> = (0..body.len() - 12).map(|at| &body[at..at + 12]).collect();
    let hex_needles: Vec<&str> = (0..hex.len() - 16).map(|at| &hex[at..at + 16]).collect();
    let mut tally = Tally::new("secrets", "mangled keys");
    for (keys, status, commands) in [
        (&understood[..], 0, &[&["check"][..], &["check", "--json"], &["dkim", "record"]][..]),
        (&refused[..], 2, &[&["check"][..], &["check", "--json"], &["dkim", "record"], &["run"]][..]),
    ] {
        for key in keys {
            let environment = [
                ("SMTP_HOST_ADDR", "smtp.example.com"),
                ("DKIM_DOMAIN", "example.com"),
                ("DKIM_SELECTOR", "a"),
                ("DKIM_PRIVATE_KEY", key),
            ];
            for arguments in commands {
                let output = waxseal(folder.path(), arguments, &environment, "");
                let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
                let lower = text.to_ascii_lowercase();
                // The first half has the public numbers, which a record shows.
                let from = if status == 0 { 2 } else { usize::MAX };
                let leaks = needles[needles.len() / from..].iter().any(|part| text.contains(part))
                    || hex_needles[hex_needles.len() / from..].iter().any(|part| lower.contains(part));
                tally.case(!leaks && output.status.code() == Some(status), || {
                    format!("{arguments:?} {key:.40}: {text}")
                });
            }
        }
    }
    tally.finish();
}

/// Errors repeat arguments, unless they could be a secret.
#[test]
fn no_command_repeats_a_secret_among_its_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let token = "SG.k3yCANARY0ngeVfQFYQ.TwL2iGABf9DHoTf";
    for arguments in [
        &["--config", token, "check"][..],
        &["--config", token, "run"],
        &["dkim", "record", token],
        &["dkim", "record", "example.com", "--selector", "a", "--key", token],
        &["dkim", "verify", token],
        &["check", "--message", token],
        &["queue", "show", token],
        &["queue", "hold", token],
        &[token],
        &["user", "hash", token],
        &["user", "hash", "hunter2"],
        &["user", "hash", "plausible", "hunter2"],
    ] {
        let output = waxseal(folder.path(), arguments, &[("SMTP_HOST_ADDR", "smtp.example.com")], "");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success(), "{arguments:?}: {text}");
        assert!(
            !text.contains("CANARY") && !text.contains("TwL2iGAB") && !text.contains("hunter2"),
            "{arguments:?}: {text}"
        );
    }
}

/// One error and one warning.
const BOTH: &str = "hostname = \"gateway.example.com\"\nunsigned = \"send\"\ndrain = 8\n\
    [[upstream]]\nname = \"a\"\nprovider = \"sandbox\"\n[[upstream]]\nname = \"unused\"\nprovider = \"sandbox\"\n";

#[test]
fn errors_and_warnings_are_told_apart_and_told_together() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), BOTH).unwrap();
    let output = waxseal(folder.path(), &["check"], &[], "");
    let lines = stderr(&output);
    assert!(output.status.code() == Some(2) && lines.len() == 2, "{lines:#?}");
    assert!(lines[0].starts_with("error: config.toml:3:9: "), "{lines:#?}");
    assert!(lines[1].starts_with("warning: config.toml:") && lines[1].contains("no route uses"), "{lines:#?}");
    let output = waxseal(folder.path(), &["check", "--json"], &[], "");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        [&value["problems"], &value["warnings"]].map(|found| found.as_array().unwrap().len()),
        [1, 1],
        "{value}"
    );
}

#[test]
fn strict_takes_warnings_for_errors() {
    let folder = tempfile::tempdir().unwrap();
    let without_error = BOTH.replace("drain = 8\n", "");
    let without_warning = without_error.split("[[upstream]]\nname = \"unused\"").next().unwrap();
    for (text, arguments, code) in [
        (BOTH, &["check", "--strict"][..], 2),
        (&without_error, &["check"], 0),
        (&without_error, &["check", "--strict"], 1),
        (&without_error, &["check", "--strict", "--json"], 1),
        (without_warning, &["check", "--strict"], 0),
    ] {
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        let output = waxseal(folder.path(), arguments, &[], "");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        if arguments.contains(&"--json") {
            assert!(String::from_utf8_lossy(&output.stdout).contains("\"ok\": false"), "{output:?}");
        }
    }
}

/// Ansible writes the new file elsewhere, has it checked, and moves it only then.
#[test]
fn a_file_is_checked_before_it_is_in_its_place() {
    let [home, elsewhere] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let key = waxseal::dkim::generate(waxseal::dkim::KeyAlgorithm::Ed25519).unwrap();
    std::fs::write(home.path().join("key.pem"), key.reveal()).unwrap();
    let config = "hostname = \"gateway.example.com\"\n[[dkim]]\ndomain = \"example.com\"\nselector = \"wax1\"\n\
        private_key = \"key.pem\"\n[[upstream]]\nname = \"a\"\nprovider = \"sandbox\"\n";
    let file = elsewhere.path().join("ansible-tmp-1");
    std::fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap();
    let home = home.path().to_str().unwrap();
    for (arguments, code) in [
        (&["check", "-c", file][..], 2),
        (&["check", "--relative-to", home, "-c", file], 0),
        (&["-c", file, "check", "--relative-to", home], 0),
        (&["check", "--relative-to", file, "-c", file], 2),
        (&["check", "--relative-to", "/nonexistent", "-c", file], 2),
    ] {
        let output = waxseal(elsewhere.path(), arguments, &[], "");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    }
}
