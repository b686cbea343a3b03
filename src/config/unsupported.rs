//! Keys that the design and documentation already mention but this version does not support yet.
//!
//! Such a table causes a warning. A key that promised something, such as a limit, would have to be refused, because mail
//! would be sent without it.

use super::problem::{Findings, Place};
use super::suggest::nearest;
use toml::Spanned;
use toml::de::DeValue;

/// Tables without effect, with the keys that they will have.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[("admin", &["address"])];

/// Reports a key that belongs to a later version; `false` if it does not.
pub fn report(table: &str, key: &str, value: &Spanned<DeValue<'_>>, place: &Place, findings: &mut Findings) -> bool {
    let found = WITHOUT_EFFECT.iter().find(|(name, _)| table.is_empty() && *name == key);
    if let Some((name, keys)) = found {
        report_table(name, keys, value, place, findings);
    }
    found.is_some()
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
