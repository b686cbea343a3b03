//! The text of the new config.toml: only what differs from the defaults, each table with a line that says what it is for.

use super::answers::{Answers, SecretAnswer};
use super::files::{DkimKeyFile, RECORDS_FILE, secret_path};
use std::fmt::Display;
use std::path::Path;
use toml::Value;

pub fn config_text(answers: &Answers, keys: &[DkimKeyFile]) -> String {
    let mut text = String::from(
        "# waxseal's configuration, begun by `waxseal init`. `waxseal check` finds mistakes, `waxseal check --defaults` lists all\n\
         # keys. Relative paths start at the folder of this file.\n\n",
    );
    text.push_str(&format!("hostname = {}   # the gateway's name, in EHLO\n", Value::from(answers.hostname.as_str())));
    if let Some(data_dir) = &answers.data_dir {
        text.push_str(&format!("data_dir = {}   # the queue\n", path(data_dir)));
    }
    text.push_str("\n# Where the application hands in its mail.\n");
    text.push_str(&listeners(answers, keys.is_empty()));
    for key in keys {
        text.push_str(&format!(
            "\n# Signs the mail of {domain}. Its DNS record is in {RECORDS_FILE}.\n\
             [[dkim]]\ndomain = {domain_value}\nselector = {selector}\nprivate_key = {key}\n",
            domain = key.domain,
            domain_value = Value::from(key.domain.as_str()),
            selector = Value::from(answers.selector.as_str()),
            key = path(&key.path),
        ));
    }
    text.push('\n');
    text.push_str(&upstream(answers));
    text
}

fn listeners(answers: &Answers, without_keys: bool) -> String {
    let one = |address| {
        let mut table = format!("[[listener]]\naddress = \"{address}\"\n");
        if !answers.allow.is_empty() {
            table.push_str(&format!("allow = {}\n", list(&answers.allow)));
        }
        // With keys, their domains are the default.
        if without_keys {
            table
                .push_str(&format!("senders = {}\n", list(answers.domains.iter().map(|domain| format!("*@{domain}")))));
        }
        table
    };
    answers.listen.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn upstream(answers: &Answers) -> String {
    let upstream = &answers.upstream;
    let name = upstream.preset.name;
    let comment = match upstream.preset.is_embedded() {
        true => "# The sandbox keeps the mail and sends NOTHING. docs/providers.md has a table for each real provider.",
        false => "# Where the mail goes, always over verified TLS.",
    };
    let mut text = format!("{comment}\n[[upstream]]\nname = \"{name}\"\nprovider = \"{name}\"\n");
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("{key} = {value}\n"));
        }
    };
    let quoted = |text: &Option<String>| text.as_deref().map(|text| Value::from(text).to_string());
    put("region", quoted(&upstream.region));
    put("host", quoted(&upstream.host));
    put("port", upstream.port.map(|port| port.to_string()));
    put("ca", upstream.ca.as_deref().map(path));
    put("username", quoted(&upstream.username));
    put("password", upstream.password.as_ref().map(|secret| reference(secret, name, "password")));
    put("secret_key", upstream.secret_key.as_ref().map(|secret| reference(secret, name, "secret_key")));
    text
}

fn reference(secret: &SecretAnswer, upstream: &str, key: &str) -> String {
    match secret {
        SecretAnswer::Variable(name) => format!("{{ env = {} }}", Value::from(name.as_str())),
        SecretAnswer::File(file) => format!("{{ file = {} }}", path(file)),
        SecretAnswer::Typed(_) => format!("{{ file = {} }}", path(&secret_path(upstream, key))),
    }
}

fn path(path: &Path) -> String {
    Value::from(path.display().to_string()).to_string()
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| Value::from(item.to_string()).to_string()).collect();
    format!("[{}]", items.join(", "))
}
