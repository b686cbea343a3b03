//! The questions of `waxseal init`, answered by a script, and the files that come of it.

use super::answers::{Answers, SecretAnswer};
use super::interview::{Asking, Interview};
use super::outcome::InitOutcome;
use super::{InitArgs, placing};
use crate::cli::{Arguments, CliCommand};
use crate::config::{ConfigFile, ConfigText, Environment};
use crate::observe::Secret;
use crate::relay::provider;
use clap::Parser as _;
use std::collections::VecDeque;
use std::io;
use std::path::Path;

/// Answers in the order of the questions, and what was shown.
#[derive(Default)]
struct Script {
    answers: VecDeque<&'static str>,
    shown: String,
}

impl Script {
    fn of(answers: &[&'static str]) -> Self {
        Self { answers: answers.iter().copied().collect(), shown: String::new() }
    }
}

impl Asking for Script {
    fn say(&mut self, text: &str) {
        self.shown.push_str(text);
        self.shown.push('\n');
    }

    fn line(&mut self, prompt: &str) -> io::Result<Option<String>> {
        self.say(prompt);
        Ok(self.answers.pop_front().map(|answer| format!("{answer}\n")))
    }

    fn secret(&mut self, prompt: &str) -> io::Result<Secret> {
        self.say(prompt);
        Ok(Secret::new(self.answers.pop_front().unwrap_or_default()))
    }
}

fn arguments(words: &[&str]) -> InitArgs {
    let parsed = Arguments::try_parse_from([&["waxseal", "init"], words].concat()).expect("valid flags");
    match parsed.command {
        CliCommand::Init(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn answered(words: &[&str], script: &mut Script) -> anyhow::Result<Answers> {
    Answers::of(arguments(words), Path::new("."), Interview::new(Some(script)))
}

/// What a person types for each provider, from the first question to the last.
#[test]
fn the_questions_of_each_provider_lead_to_a_configuration_without_mistakes() {
    // After the login: domain, name, application, elsewhere.
    let rest = ["example.com", "gateway.example.com", "", ""];
    for (provider, login) in [
        ("smtp", &["smtp.example.com", "465", "relay", "canary"][..]),
        ("postmark", &["canary"]),
        ("mailgun", &["eu", "postmaster@example.com", "canary"]),
        ("mandrill", &["canary"]),
        ("sendgrid", &["canary"]),
        ("ses", &["eu-central-1", "AKIAIOSFODNN7EXAMPLE", "canary"]),
        ("gmail", &["reports@example.com", "canary"]),
        ("microsoft365", &["reports@example.com", "canary"]),
        ("sandbox", &[]),
    ] {
        let mut script = Script::of(&[&[provider], login, &rest].concat());
        let answers =
            answered(&[], &mut script).unwrap_or_else(|error| panic!("{provider}: {error}\n{}", script.shown));
        assert!(script.answers.is_empty(), "{provider}: {:?} was not asked for", script.answers);
        assert!(!script.shown.contains("canary"), "{provider}");
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("config.toml");
        let outcome = InitOutcome::of(&answers, &config).expect("files");
        let check = |path: &Path| {
            let file = ConfigFile { path, explicit: true };
            ConfigText::read(&file).and_then(|text| text.resolve(&Environment::of([("", ""); 0])))
        };
        let settings = placing::place(&outcome, folder.path(), false, check);
        let settings = settings.unwrap_or_else(|error| panic!("{provider}: {error:?}"));
        assert!(settings.warnings.is_empty(), "{provider}: {}", settings.warnings);
        assert_eq!(settings.upstreams[0].preset.name, provider);
        let text = std::fs::read_to_string(&config).expect("a configuration");
        assert!(!text.contains("canary"), "{text}");
        let settings = check(&config).unwrap_or_else(|problems| panic!("{provider}: {problems}"));
        assert!(settings.warnings.is_empty(), "{provider}: {}", settings.warnings);
    }
    assert_eq!(provider::ALL.len(), 9, "each of them is above");
}

#[test]
fn a_wrong_answer_is_explained_and_asked_for_again() {
    let mut script = Script::of(&[
        "",
        "postmrk",
        "postmark",
        "",
        "canary-token",
        "me@example.com",
        "example.com example.org,example.com",
        "box",
        "gateway.example.com",
        "plausibel",
        "grafana",
        "perhaps",
        "yes",
        "2525",
        "0.0.0.0:2525",
        "everyone",
        "172.18.0.0/16",
    ]);
    let answers = answered(&[], &mut script).unwrap_or_else(|error| panic!("{error}\n{}", script.shown));
    for said in [
        "An answer is needed here.",
        "did you mean \"postmark\"?",
        "write \"example.com\"",
        "\"box\" is not a full name",
        "\"plausibel\" is not one of: plausible, gitlab",
        "Write yes or no.",
        "write \"127.0.0.1:2525\"",
        "\"everyone\" is not a network",
    ] {
        assert!(script.shown.contains(said), "{said}\n{}", script.shown);
    }
    assert!(!script.shown.contains("canary"), "{}", script.shown);
    assert_eq!(answers.domains.iter().map(ToString::to_string).collect::<Vec<_>>(), ["example.com", "example.org"]);
    assert_eq!((answers.application.name, answers.listen.len(), answers.allow.len()), ("grafana", 1, 1));
    assert!(
        matches!(&answers.upstream.password, Some(SecretAnswer::Typed(secret)) if secret.reveal() == "canary-token")
    );
}

#[test]
fn what_a_flag_gives_is_not_asked_for() {
    let mut script = Script::of(&["AKIAIOSFODNN7EXAMPLE", "", "canary", "gateway.example.com", "", ""]);
    let flags = ["--provider", "ses", "--region", "eu-west-1", "--domain", "example.com"];
    let answers = answered(&flags, &mut script).expect("answers");
    let upstream = answers.upstream;
    assert!(upstream.secret_key.is_none() && upstream.password.is_some(), "an empty key means a password");
    assert!(script.answers.is_empty(), "{:?}", script.answers);
}

#[test]
fn an_input_that_ends_or_is_never_right_ends_the_questions() {
    let error = answered(&[], &mut Script::of(&["postmark", "canary"])).expect_err("it ended");
    assert!(error.to_string().contains("the input ended"), "{error}");
    let error = answered(&[], &mut Script::of(&["a"; 9])).expect_err("five are enough");
    assert!(error.to_string().contains("no valid answer after 5 tries"), "{error}");
}
