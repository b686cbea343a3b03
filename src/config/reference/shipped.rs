//! Writes `config.toml` and docs/configuration.md from the schema; a test compares them with the files in the repository.
//! Adds what the schema lacks: the order and headings of the file, which keys are set in it, and examples.

use super::*;
use crate::config::schema::Presence;
use crate::relay::provider;
use std::fmt::Write as _;
use std::path::Path;

/// Set by `make reference`: the files are written instead of compared.
const WRITE: &str = "WAXSEAL_WRITE_REFERENCE";

#[test]
fn the_shipped_files_say_what_the_schema_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, written) in [("config.toml", config_toml()), ("docs/configuration.md", configuration_md())] {
        let path = root.join(name);
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(&path, &written).expect("a file that can be written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        let differing = found.lines().zip(written.lines()).position(|(one, other)| one != other);
        let first = differing.unwrap_or_else(|| found.lines().count().min(written.lines().count()));
        assert!(
            found == written,
            "{name} differs from the schema in src/config, from line {} on:\n  it has: {:?}\n  schema: {:?}\n\
             Change the text in src/config, then write both files with `make reference`.",
            first + 1,
            found.lines().nth(first),
            written.lines().nth(first),
        );
    }
}

#[test]
fn every_provider_has_an_example() {
    let written = config_toml();
    for preset in provider::ALL {
        assert!(written.contains(&format!("provider = \"{}\"", preset.name)), "{} is missing in EXAMPLES", preset.name);
    }
}

/// How a table appears in the shipped file.
struct Part {
    table: &'static str,
    /// Above it. Empty for a table within the one before.
    heading: &'static str,
    /// It is set, with its required keys; otherwise the whole table is an example in comments.
    in_force: bool,
    /// A key that is set although it is not required, and its value.
    set: Option<(&'static str, &'static str)>,
    /// Text before its keys, and after them.
    before: &'static str,
    after: &'static str,
}

impl Part {
    const fn new(table: &'static str, heading: &'static str) -> Self {
        Self { table, heading, in_force: false, set: None, before: "", after: "" }
    }
}

const HEAD: &str = "\
# waxseal: the configuration.
#
# As it is, it needs no account anywhere: mail is accepted on port 2525, signed with a key that is created at the first
# start, and passed to a provider inside the program, which checks the signature and keeps the mail. Nothing is sent. To
# send, replace the [[upstream]] table below with your provider's.
#
#   waxseal check              reports all mistakes, without starting anything
#   waxseal check --defaults   prints every key with its default and what it means
#
# Lines that begin with \"# \" and a key show that key's default, or an example where there is no default. Relative paths
# start at the folder of this file. Durations: \"500ms\", \"8s\", \"5m\", \"1h\", \"5d\". Sizes: \"64 KiB\", \"25 MiB\", \"1 GiB\".
# Passwords may be written out, or kept elsewhere: { env = \"NAME\" }, { file = \"/run/secrets/NAME\" }.
";

const PARTS: &[Part] = &[
    Part::new("", "The gateway"),
    Part {
        in_force: true,
        after: "[[listener]]\naddress = \"[::1]:2525\"",
        ..Part::new("listener", "Listeners: where applications submit their mail")
    },
    Part::new("user", "Users: logins for applications, if a listener asks for them"),
    Part { in_force: true, set: Some(("generate", "true")), ..Part::new("dkim", "DKIM keys: what signs the mail") },
    Part { before: EXAMPLES, ..Part::new("upstream", "Upstreams: the providers") },
    Part::new("upstream.credentials", ""),
    Part::new("route", "Routes: which mail goes where"),
    Part { in_force: true, ..Part::new("repair", "Repair: what is fixed in each message before it is signed") },
    Part { after: include_str!("ready_rules.toml"), ..Part::new("rewrite", "Rewrite: your own rules for the mail") },
    Part { in_force: true, ..Part::new("trace", "Trace: what a message shows of its path") },
    Part::new("storm", "Storms: many equal mails to one recipient"),
    Part::new("expect", "Expected mail: a warning when mail that should come does not"),
    Part { in_force: true, ..Part::new("queue", "The queue: what was accepted and is not yet delivered") },
    Part::new("queue.redis", ""),
    Part { in_force: true, ..Part::new("doctor", "Doctor: what is looked at when mail does not arrive") },
    Part { in_force: true, ..Part::new("admin", "Admin: health and metrics") },
    Part { in_force: true, ..Part::new("log", "Log") },
];

/// The smallest table for each provider.
const EXAMPLES: &str = r#"[[upstream]]
name = "sandbox"
provider = "sandbox"

# Real ones, ready to use: put your provider's table in the place of the one above.

# [[upstream]]
# name = "postmark"
# provider = "postmark"
# password = { env = "POSTMARK_TOKEN" }

# [[upstream]]
# name = "mailgun"
# provider = "mailgun"
# region = "eu"
# username = "postmaster@mg.example.com"
# password = { env = "MAILGUN_PASSWORD" }

# [[upstream]]
# name = "mandrill"
# provider = "mandrill"
# password = { env = "MANDRILL_KEY" }

# [[upstream]]
# name = "sendgrid"
# provider = "sendgrid"
# password = { env = "SENDGRID_KEY" }

# [[upstream]]
# name = "ses"
# provider = "ses"
# region = "eu-central-1"
# username = "AKIAIOSFODNN7EXAMPLE"
# secret_key = { env = "AWS_SECRET_ACCESS_KEY" }

# [[upstream]]
# name = "gmail"
# provider = "gmail"
# username = "reports@example.com"
# password = { env = "GMAIL_APP_PASSWORD" }

# [[upstream]]
# name = "microsoft365"
# provider = "microsoft365"
# username = "reports@example.com"
# password = { env = "M365_PASSWORD" }

# Any other server, the company's own included; and all the keys that there are.
"#;

fn part(table: &TableSchema) -> &'static Part {
    let found = PARTS.iter().find(|part| part.table == table.name);
    found.unwrap_or_else(|| panic!("the table \"{}\" has no row in PARTS", table.name))
}

fn config_toml() -> String {
    let mut file = HEAD.to_owned();
    for table in SCHEMA.0 {
        let part = part(table);
        if !part.heading.is_empty() {
            let title = format!("# ---- {} ", part.heading);
            file.push_str(&format!("\n\n{title:-<WIDTH$}\n"));
        }
        file.push('\n');
        write_doc(&mut file, table.doc).expect("a string");
        if !part.before.is_empty() {
            write!(file, "\n{}", part.before).expect("a string");
        }
        file.push('\n');
        if !table.name.is_empty() {
            let mark = if part.in_force { "" } else { "# " };
            writeln!(file, "{mark}{}", table.title()).expect("a string");
        }
        let keys: Vec<String> = table.settings.iter().map(|setting| key(part, setting)).collect();
        file.push_str(&keys.join("\n"));
        if !part.after.is_empty() {
            writeln!(file, "\n{}", part.after.trim_end()).expect("a string");
        }
    }
    file
}

fn key(part: &Part, setting: &SettingSchema) -> String {
    let set = part.set.filter(|(key, _)| *key == setting.key).map(|(_, value)| value);
    let required = part.in_force && matches!(setting.presence, Presence::Required(_));
    let mark = if required || set.is_some() { "" } else { "# " };
    let mut text = String::new();
    write_doc(&mut text, setting.doc).expect("a string");
    writeln!(text, "{mark}{} = {}", setting.key, set.unwrap_or(setting.presence.value())).expect("a string");
    text
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `make reference` from the schema in src/config. Change the text there. -->

Every key of `config.toml`, in the order of the file. The file itself has the same text beside each key, and ready tables for
each provider; `waxseal check` reports every mistake with its line, and `waxseal check --defaults` prints all defaults, with
`--json` for programs.

Durations are written as `\"500ms\"`, `\"8s\"`, `\"5m\"`, `\"1h\"` or `\"5d\"`, sizes as `\"64 KiB\"`, `\"25 MiB\"` or `\"1 GiB\"`. Relative
paths start at the folder of the file. A secret may be written out, or kept elsewhere: `{ env = \"NAME\" }` or
`{ file = \"/run/secrets/NAME\" }`.
";

fn configuration_md() -> String {
    let mut page = INTRODUCTION.to_owned();
    for table in SCHEMA.0 {
        let title = match table.name {
            "" => "The top of the file".to_owned(),
            _ => format!("`{}`", table.title()),
        };
        writeln!(page, "\n## {title}\n").expect("a string");
        write_paragraphs(&mut page, table.doc, "");
        for setting in table.settings {
            let secret = if setting.secret { ", a secret" } else { "" };
            let expected = (setting.expected)();
            let presence = match setting.presence {
                Presence::Required(value) => format!("required, as in `{value}`"),
                Presence::Default(value) => format!("default `{value}`"),
                Presence::Optional(value) => format!("as in `{value}`"),
            };
            let head = format!("- **`{}`**: {}{secret}; {presence}", setting.key, plain(&expected));
            page.push('\n');
            wrapped(&head, WIDTH).iter().enumerate().for_each(|(at, line)| {
                writeln!(page, "{}{line}", if at == 0 { "" } else { "  " }).expect("a string");
            });
            page.push('\n');
            write_paragraphs(&mut page, setting.doc, "  ");
        }
    }
    page.push_str(
        "\n## The environment\n\nVariables, or files of these names in `/run/secrets` (or in `$CONFIG_DIR`).\n\n",
    );
    page.push_str("| variable | meaning |\n|---|---|\n");
    for variable in VARIABLES {
        writeln!(page, "| `{}` | {} |", variable.name, plain(variable.meaning)).expect("a string");
    }
    page
}

fn write_paragraphs(page: &mut String, doc: &[&str], indent: &str) {
    for (at, paragraph) in paragraphs(doc).iter().enumerate() {
        if at > 0 {
            page.push('\n');
        }
        let lines = wrapped(&plain(paragraph), WIDTH - indent.len());
        lines.iter().for_each(|line| writeln!(page, "{indent}{line}").expect("a string"));
    }
}

/// Escapes the text for Markdown, except between backticks.
fn plain(text: &str) -> String {
    let escaped = |(at, part): (usize, &str)| match at % 2 {
        0 => part.replace('*', "\\*").replace('<', "\\<").replace('[', "\\[").replace('|', "\\|"),
        _ => part.to_owned(),
    };
    text.split('`').enumerate().map(escaped).collect::<Vec<_>>().join("`")
}
