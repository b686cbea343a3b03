//! A secret in every place of a configuration where none belongs: no problem shows it, however it is printed.

use super::*;
use crate::config::environment::variables::{Kind, VARIABLES};
use crate::config::file::SCHEMA;
use crate::tally::Tally;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A token, a UUID, hexadecimal, base64, and passwords that someone made up.
const SECRETS: [&str; 6] = [
    "SG.k3yCANARY0ngeVfQFYQ.TwL2iGABf9DHoTf",
    "c4d5e6f7-0a1b-4c2d-8e3f-a4b5c6d7e8f9",
    "302e020100300506032b657004220420d4ee72dbf913584ad5b6d8f1f769f8ad",
    "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K0=",
    "Tr0ub4dor&3-canary",
    "relay:hunter2canary@smtp.example.com",
];

/// Parts that would reveal it.
fn pieces(secret: &str) -> Vec<String> {
    let secret = secret.split_once("@smtp").map_or(secret, |(login, _)| login);
    let hex: String = secret.bytes().map(|octet| format!("{octet:02x}")).collect();
    let forms = [secret.to_ascii_lowercase(), hex, STANDARD.encode(secret).to_ascii_lowercase()];
    let windows = |form: &String| (0..form.len() - 9).map(|at| form[at..at + 9].to_owned()).collect::<Vec<_>>();
    forms.iter().flat_map(windows).collect()
}

fn printed(loaded: Result<Settings, Problems>) -> String {
    let problems = loaded.map_or_else(|problems| problems, |settings| settings.warnings);
    let json = problems.iter().map(|problem| format!("{} {} {:?}", problem.place(), problem.message(), problem.help()));
    format!("{problems} {problems:#} {problems:?} {}", json.collect::<String>()).to_ascii_lowercase()
}

/// Every key of the schema with the secret as its value and in its value, and the secret as a key and as a table.
fn texts(secret: &str) -> Vec<String> {
    let values = |key: &str| {
        [
            format!("{key} = \"{secret}\""),
            format!("{key} = '{secret}' # {secret}"),
            format!("{key} = [\"{secret}\"]"),
            format!("{key} = {{ \"{secret}\" = 1 }}"),
            format!("{key} = {{ x = \"{secret}\" }}"),
            format!("{key} = {{ env = \"{secret}\" }}"),
            format!("{key} = {{ file = \"{secret}\" }}"),
            format!("{key} = {secret}"),
            format!("{key}: {secret}"),
            format!("{key} = \"\"\"\n{secret}\n\"\"\"\nx = \"{secret}"),
        ]
    };
    let mut texts = Vec::new();
    for table in SCHEMA.0 {
        let parent = table.name.rsplit_once('.').map_or(String::new(), |(parent, _)| format!("[[{parent}]]\n"));
        let head = format!("{parent}{}\n", table.title());
        let keys = table.settings.iter().map(|setting| setting.key).chain(["nosuch", "passwort"]);
        texts.extend(keys.flat_map(values).map(|line| format!("{head}{line}\n")));
        texts.push(format!("{head}\"{secret}\" = 1\n"));
        texts.push(format!("{head}\"{secret}\" = \"{secret}\"\nnosuch = 1 # {secret}\n"));
    }
    texts.extend(
        [
            "[\"S\"]\nx = 1\n",
            "[[\"S\"]]\nx = \"S\"\n",
            "[upstream.\"S\"]\nx = 1\n",
            "S\n",
            "S = 1\n",
            "[S\n",
            "[admin]\n\"S\" = 1\n",
        ]
        .map(|text| text.replace('S', secret)),
    );
    texts
}

#[test]
fn no_secret_in_the_wrong_place_of_a_file_is_shown() {
    let mut tally = Tally::new("secrets", "misplaced in a file");
    let folder = Folder::new();
    for secret in SECRETS {
        let pieces = pieces(secret);
        for text in texts(secret) {
            let shown = printed(folder.load(&text, &nothing()));
            let found = pieces.iter().find(|piece| shown.contains(*piece));
            tally.case(found.is_none(), || format!("{text}{shown}"));
        }
    }
    tally.finish();
}

#[test]
fn no_secret_in_the_wrong_variable_is_shown() {
    let mut tally = Tally::new("secrets", "misplaced in the environment");
    let folder = Folder::new();
    let usual = [("SMTP_HOST_ADDR", "smtp.example.com"), ("DKIM_DOMAIN", "example.com"), ("DKIM_SELECTOR", "a")];
    for secret in SECRETS.into_iter().chain(["hunter2canary"]) {
        let pieces = pieces(secret);
        for name in VARIABLES.iter().map(|variable| variable.name).chain(["MAILER_EMAIL", "CONFIG_DIR"]) {
            let is_word = VARIABLES.iter().any(|variable| variable.name == name && variable.kind == Kind::Word);
            if secret == "hunter2canary" && !is_word {
                continue;
            }
            let variables = usual.iter().copied().filter(|(other, _)| *other != name).chain([(name, secret)]);
            let environment = Environment::of(variables);
            let shown = printed(folder.load_file("none.toml", false, &environment)) + &format!("{environment:?}");
            let found = pieces.iter().find(|piece| shown.contains(*piece));
            tally.case(found.is_none(), || format!("{name}={secret}: {shown}"));
        }
    }
    tally.finish();
}

/// Helpful text stays.
#[test]
fn words_are_shown_and_a_value_in_a_line_only_where_it_is_wrong() {
    let folder = Folder::new();
    let text = "adress = 1\n[log]\nlevel = \"debug\"\nformat = \"yaml\"\n[[user]]\nname = \"a\"\npassword = { file = \"hunter2...\" }\n";
    let problems = folder.load(text, &nothing()).expect_err("problems");
    let plain = problems.to_string();
    let marked = format!("{problems:#}");
    assert!(plain.contains("unknown key `adress`") && plain.contains("\"yaml\" is not a valid value"), "{plain}");
    assert!(marked.contains("format = \"yaml\"") && marked.contains("level = *******"), "{marked}");
    assert!(!marked.contains("hunter2"), "{marked}");
}
