//! Manual pages and completions cover every command, and the programs that read them accept them.

use crate::support::peers;
use std::path::Path;
use std::process::Command;

fn waxseal(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_waxseal")).args(arguments).output().expect("the program");
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The words of every command, from `--help`: `[]`, `["dkim"]`, `["dkim", "generate"]`.
fn commands() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(words) = open.pop() {
        let asked: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let help = waxseal(&asked);
        let listed =
            help.split_once("Commands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or_default());
        let is_name = |name: &&str| name.starts_with(|c: char| c.is_ascii_lowercase());
        let names = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(is_name);
        open.extend(names.filter(|name| *name != "help").map(|name| [&words[..], &[name.to_owned()]].concat()));
        all.push(words);
    }
    assert!(all.len() > 25, "{all:?}");
    all
}

#[test]
fn every_command_has_a_manual_page_that_the_formatters_accept() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("made/man1");
    waxseal(&["man", pages.to_str().unwrap()]);
    let commands = commands();
    for words in &commands {
        let name = [&["waxseal".to_owned()], &words[..]].concat().join("-");
        let page = pages.join(format!("{name}.1"));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{name}: {error}"));
        let title = format!(".TH {} 1 \"\" \"waxseal {}\"", name.to_uppercase(), env!("CARGO_PKG_VERSION"));
        assert!(
            text.contains(&title) && text.contains(".SH SYNOPSIS") && text.contains(".SH OPTIONS"),
            "{name}: {text}"
        );
    }
    assert_eq!(std::fs::read_dir(&pages).unwrap().count(), commands.len(), "and no others");
    assert_eq!(waxseal(&["man"]), std::fs::read_to_string(pages.join("waxseal.1")).unwrap());
    let Some(mut mandoc) = peers::command("mandoc") else { return };
    let paths: Vec<_> = std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().path()).collect();
    let linted = peers::run(mandoc.args(["-T", "lint", "-W", "warning"]).args(paths));
    // Without a date pages are reproducible; clap_mangen puts a break on both sides of an empty line.
    let is_known = |line: &&str| line.contains("missing date") || line.contains("skipping paragraph macro: br");
    let complaints: Vec<_> = linted.stdout.lines().filter(|line| !is_known(line)).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_completions_of_each_shell_are_valid_and_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, check) in [("bash", &["-n"][..]), ("zsh", &["-f", "-n"]), ("fish", &["--no-config", "--no-execute"])] {
        let script = waxseal(&["completions", shell]);
        for words in commands() {
            if let Some(last) = words.last() {
                assert!(script.contains(last.as_str()), "{shell}: {words:?}");
            }
        }
        let path = folder.path().join(shell);
        std::fs::write(&path, &script).unwrap();
        let Some(mut program) = peers::command(shell) else { continue };
        let checked = peers::run(program.args(check).arg(&path).env("HOME", folder.path()));
        assert!(checked.success && checked.stderr.is_empty(), "{shell}: {checked:?}");
    }
    for shell in ["elvish", "powershell"] {
        assert!(waxseal(&["completions", shell]).contains("salvage"), "{shell}");
    }
}

/// What a person sees who types `waxseal que<Tab>`.
#[test]
fn bash_completes_commands_providers_and_options() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("waxseal");
    std::fs::write(&path, waxseal(&["completions", "bash"])).unwrap();
    for (typed, completed) in [
        (&["waxseal", "que"][..], "queue"),
        (&["waxseal", "queue", "sal"], "salvage"),
        (&["waxseal", "init", "--provider", "post"], "postmark"),
        (&["waxseal", "init", "--forc"], "--force"),
    ] {
        assert_eq!(completions(&path, typed), [completed], "{typed:?}");
    }
}

fn completions(script: &Path, words: &[&str]) -> Vec<String> {
    let code = format!(
        "source {}; COMP_WORDS=({}); COMP_CWORD={}; _waxseal waxseal {:?} {:?}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        words.join(" "),
        words.len() - 1,
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let output = Command::new("bash").args(["--norc", "-c", &code]).output().expect("bash");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").split_whitespace().map(str::to_owned).collect()
}
