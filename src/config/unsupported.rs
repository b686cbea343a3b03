//! Keys that the design and documentation already mention but this version does not support yet.
//!
//! A key that promises something (a limit) is refused, because mail would be sent without it. A table that only tunes a
//! missing feature causes a warning.

use super::problem::{Findings, Place};
use super::suggest::nearest;
use toml::Spanned;
use toml::de::DeValue;

/// Tables without effect, with the keys that they will have.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[("admin", &["address"])];

/// Reports a key that belongs to a later version; `false` if it does not.
pub fn report(table: &str, key: &str, value: &Spanned<DeValue<'_>>, place: &Place, findings: &mut Findings) -> bool {
    match (table, key) {
        ("queue", "redis") => {
            findings
                .error(place, "[queue.redis] is not in this version yet")
                .help("take it out, and use backend = \"sqlite\"");
        }
        ("", name) => match WITHOUT_EFFECT.iter().find(|(table, _)| *table == name) {
            Some((name, keys)) => report_table(name, keys, value, place, findings),
            None => return false,
        },
        _ => return false,
    }
    true
}

fn report_table(name: &str, keys: &[&str], value: &Spanned<DeValue<'_>>, place: &Place, findings: &mut Findings) {
    findings.warning(place, format!("[{name}] has no effect in this version yet"));
    let content = value.get_ref().as_table();
    for (key, _) in content.into_iter().flatten().filter(|(key, _)| !keys.contains(&key.get_ref().as_ref())) {
        let help = match nearest(key.get_ref(), keys.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known here: {}", keys.join(", ")),
        };
        findings.error(&Place::File(key.span()), format!("unknown key `{}` in [{name}]", key.get_ref())).help(help);
    }
}
