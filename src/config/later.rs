//! What design and documentation already name and this version does not do yet.
//!
//! A key that promises something (a limit, a rewrite) is refused, since mail would go out without it; a table that
//! only tunes what is not there yet gets a warning.

use super::problem::{Findings, Place};
use super::reader::nearest;
use toml::Spanned;
use toml::de::DeValue;

/// Tables without effect, with the keys that they will have.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[("admin", &["address"])];

/// A provider that will have a preset. Hosts are from the providers' own documents.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    pub name: &'static str,
    pub host: &'static str,
    /// What its login is.
    pub login: &'static str,
}

const PRESETS: &[Preset] = &[
    Preset { name: "postmark", host: "smtp.postmarkapp.com", login: "the server token as username and as password" },
    Preset {
        name: "mailgun",
        host: "smtp.mailgun.org",
        login: "the domain's SMTP login (EU: host smtp.eu.mailgun.org)",
    },
    Preset { name: "mandrill", host: "smtp.mandrillapp.com", login: "any username and an API key as password" },
    Preset { name: "sendgrid", host: "smtp.sendgrid.net", login: "username \"apikey\" and an API key as password" },
    Preset {
        name: "ses",
        host: "email-smtp.REGION.amazonaws.com",
        login: "the SMTP credentials that the SES console makes, not an access key",
    },
    Preset { name: "gmail", host: "smtp.gmail.com", login: "the address and an app password" },
    Preset { name: "microsoft365", host: "smtp.office365.com", login: "the address and its password" },
];

pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// Reports a key that belongs to a later version; `false` if it does not.
pub fn report(table: &str, key: &str, value: &Spanned<DeValue<'_>>, place: &Place, findings: &mut Findings) -> bool {
    match (table, key) {
        ("", "rewrite") => {
            findings
                .error(place, "[[rewrite]] is not in this version yet: mail would go out without it")
                .help("take the rules out, or wait for the version that has them");
        }
        ("upstream", "rate") => {
            findings
                .error(place, "`rate` is not in this version yet: the limit would not be kept")
                .help("take it out; `max_connections` is kept");
        }
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
