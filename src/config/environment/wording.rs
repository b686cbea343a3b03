//! Messages for people who configure by variables: instead of a key, they name the variable that sets it. Changes only
//! words; a key without a variable keeps its name.

use super::variables::{self, Variable};
use crate::config::file::SCHEMA;
use regex::{Captures, Regex};
use std::sync::LazyLock;

/// Phrases about tables, and what to say instead if there is no file.
const PHRASES: &[(&str, &str)] = &[
    ("[[upstream]] with ", ""),
    ("add a [[user]] table with a hash from `waxseal user hash`", "set WAXSEAL_USER and WAXSEAL_PASSWORD"),
    ("any [[user]]", "WAXSEAL_USER and WAXSEAL_PASSWORD"),
    ("add a [[dkim]] table", "set DKIM_DOMAIN, DKIM_SELECTOR and DKIM_PRIVATE_KEY"),
    (" (or DKIM_DOMAIN, DKIM_SELECTOR and DKIM_PRIVATE_KEY)", ""),
    (" (or WAXSEAL_HOSTNAME)", ""),
    ("relative paths start at the configuration file's folder", "relative paths start at the working directory"),
];

/// `key = value`, between backticks or not; or `key` between backticks.
static KEYS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"(`?)\b([a-z][a-z_]*) = ("[^"]*"|\[[^\]]*\]|\{[^}]*\}|[A-Za-z0-9]+)(`?)|`([a-z][a-z_]*)`"#).ok()
});

/// `variable`: the one that the problem is about, or the path of its file; it determines the table of a key.
pub fn in_variables(text: &str, variable: &str) -> String {
    let name = variable.rsplit('/').next().unwrap_or(variable);
    let table = variables::named(name).map_or("", Variable::table);
    let text = PHRASES.iter().fold(text.to_owned(), |text, (phrase, instead)| text.replace(phrase, instead));
    let Some(keys) = KEYS.as_ref() else { return text };
    let replaced = keys.replace_all(&text, |found: &Captures<'_>| {
        let key = found.get(2).or_else(|| found.get(5)).map_or("", |key| key.as_str());
        match (variable_for(table, key), found.get(3)) {
            (Some(variable), Some(value)) => {
                format!("{}{}={}{}", &found[1], variable.name, value_of(variable, value.as_str()), &found[4])
            }
            (Some(variable), None) => variable.name.to_owned(),
            (None, _) => found[0].to_owned(),
        }
    });
    replaced.into_owned()
}

/// A key of the same table, or of another one if the table has no such key.
fn variable_for(table: &str, key: &str) -> Option<&'static Variable> {
    let own = SCHEMA.0.iter().any(|known| known.name == table && known.has(key));
    if own && !table.is_empty() {
        return variables::of_key(table, key);
    }
    let tables = SCHEMA.0.iter().filter(|known| known.has(key)).map(|known| known.name);
    tables.into_iter().find_map(|table| variables::of_key(table, key))
}

/// A value of the file, as it is written in a variable.
fn value_of(variable: &Variable, value: &str) -> String {
    match (variable.setting, value.trim_matches('"')) {
        ("upstream.tls", "implicit") => "true".to_owned(),
        ("upstream.tls", "starttls") => "false".to_owned(),
        (_, text) if text.starts_with('{') => "...".to_owned(),
        (_, text) => match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(items) => items.split(',').map(|item| item.trim().trim_matches('"')).collect::<Vec<_>>().join(","),
            None => text.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_called_by_their_variables() {
        for (variable, text, expected) in [
            ("SMTP_HOST_ADDR", "`host`: \"x\" is not a host name", "SMTP_HOST_ADDR: \"x\" is not a host name"),
            (
                "/run/secrets/SMTP_HOST_ADDR",
                "write host = \"a.example\" and port = 587",
                "write SMTP_HOST_ADDR=a.example and SMTP_HOST_PORT=587",
            ),
            (
                "WAXSEAL_PROVIDER",
                "[[upstream]] with provider = \"ses\" needs `region`",
                "WAXSEAL_PROVIDER=ses needs WAXSEAL_REGION",
            ),
            ("WAXSEAL_PROVIDER", "add `password = { env = \"NAME\" }`: it", "add `SMTP_USER_PWD=...`: it"),
            ("SMTP_HOST_PORT", "usually tls = \"implicit\"", "usually SMTP_HOST_SSL_ENABLED=true"),
            ("WAXSEAL_LISTEN", "set tls = \"off\"", "set WAXSEAL_TLS=off"),
            ("WAXSEAL_LISTEN", "`private_key`", "WAXSEAL_PRIVATE_KEY"),
            ("DKIM_PRIVATE_KEY", "`private_key`", "DKIM_PRIVATE_KEY"),
            ("MAILER_EMAIL", "add it to the listener's `senders`", "add it to the listener's WAXSEAL_SENDERS"),
            ("WAXSEAL_LISTEN", "allow = [\"10.0.0.0/8\", \"::1/128\"]", "WAXSEAL_ALLOW=10.0.0.0/8,::1/128"),
            // A listener's key without a variable is not an upstream's.
            ("WAXSEAL_LISTEN", "`max_connections`", "`max_connections`"),
            ("SMTP_POOL_SIZE", "`max_connections`", "SMTP_POOL_SIZE"),
            ("SMTP_HOST_ADDR", "`waxseal user hash` and `tracking`", "`waxseal user hash` and `tracking`"),
            ("SMTP_HOST_ADDR", "`rate`", "WAXSEAL_RATE"),
        ] {
            assert_eq!(in_variables(text, variable), expected, "{variable}");
        }
    }
}
