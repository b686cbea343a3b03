//! Follows an SPF record through its includes and counts what that costs. Evaluates nothing for an address. RFC 7208 §4.6.4,
//! §5, §6.

use super::dns::{Dns, DnsAnswer, TxtRecord};
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::spf::{Macro, Mechanism, Qualifier, Spf};
use std::collections::HashSet;

/// RFC 7208 §4.6.4.
pub const MOST_LOOKUPS: usize = 10;

/// A record that costs more is not followed to its end.
const MOST_FOLLOWED: usize = 25;

/// Look-ups without an answer after which no further one is tried: each costs seconds.
const MOST_SILENT: usize = 2;

/// What a domain's record is made of.
#[derive(Debug, Default)]
pub struct SpfWalk {
    /// The record itself.
    pub text: String,
    /// Look-ups that an evaluation may need: the record's own is not among them.
    pub lookups: usize,
    /// Domains that are included, or redirected to, at any depth.
    pub includes: Vec<String>,
    /// Included domains without a record of their own: a permanent error for receivers.
    pub broken: Vec<String>,
    /// Parts that nobody can judge beforehand, or that no server answered for.
    pub unknown: Vec<String>,
    /// Anybody may send.
    pub permits_all: bool,
}

/// Why there is no record to follow.
#[derive(Debug)]
pub enum NoSpf {
    Missing,
    /// More than one: a permanent error. RFC 7208 §4.5.
    Several(Vec<String>),
    Malformed(String),
    Unknown(String),
}

pub async fn walk(dns: &Dns, domain: &str) -> Result<SpfWalk, NoSpf> {
    let (text, spf) = record(dns, domain).await?;
    let all_permitted = |spf: &Spf| {
        let mut directives = spf.directives.iter();
        directives.any(|it| it.qualifier == Qualifier::Pass && it.mechanism == Mechanism::All)
    };
    let mut walk = SpfWalk { text, permits_all: all_permitted(&spf), ..SpfWalk::default() };
    let mut seen = HashSet::from([domain.to_owned()]);
    let mut open = vec![spf];
    while let Some(spf) = open.pop() {
        walk.lookups += spf.directives.iter().filter(|it| costs_lookup(&it.mechanism)).count();
        let included = spf.directives.iter().filter_map(|it| match &it.mechanism {
            Mechanism::Include { macro_string } => Some(macro_string),
            _ => None,
        });
        let has_all = spf.directives.iter().any(|it| it.mechanism == Mechanism::All);
        let redirect = spf.redirect.as_ref().filter(|_| !has_all);
        walk.lookups += usize::from(redirect.is_some());
        for target in included.chain(redirect) {
            let Macro::Literal(target) = target else {
                walk.unknown.push("an include with a macro".to_owned());
                continue;
            };
            let target = String::from_utf8_lossy(target).trim_end_matches('.').to_ascii_lowercase();
            if !seen.insert(target.clone()) || seen.len() > MOST_FOLLOWED || walk.unknown.len() >= MOST_SILENT {
                continue;
            }
            match record(dns, &target).await {
                Ok((_, spf)) => open.push(spf),
                Err(NoSpf::Unknown(error)) => walk.unknown.push(error),
                Err(_) => walk.broken.push(target.clone()),
            }
            walk.includes.push(target);
        }
    }
    Ok(walk)
}

fn costs_lookup(mechanism: &Mechanism) -> bool {
    !matches!(mechanism, Mechanism::All | Mechanism::Ip4 { .. } | Mechanism::Ip6 { .. })
}

async fn record(dns: &Dns, domain: &str) -> Result<(String, Spf), NoSpf> {
    let found = match dns.txt(domain).await {
        DnsAnswer::Found(found) => found,
        DnsAnswer::Missing => return Err(NoSpf::Missing),
        DnsAnswer::Unknown(error) => return Err(NoSpf::Unknown(error)),
    };
    let texts: Vec<String> = found.iter().map(TxtRecord::text).filter(|text| is_spf(text)).collect();
    match texts.as_slice() {
        [] => Err(NoSpf::Missing),
        [text] => match Spf::parse(text.as_bytes()) {
            Ok(spf) if text.split_whitespace().skip(1).all(is_term) => Ok((text.clone(), spf)),
            _ => Err(NoSpf::Malformed(text.clone())),
        },
        _ => Err(NoSpf::Several(texts)),
    }
}

/// RFC 7208 §4.5: followed by a space or by nothing.
fn is_spf(text: &str) -> bool {
    text.split(' ').next().is_some_and(|first| first.eq_ignore_ascii_case("v=spf1"))
}

/// RFC 7208 §4.6.1: an unknown mechanism is an error, an unknown modifier is not.
fn is_term(word: &str) -> bool {
    const MECHANISMS: [&str; 8] = ["all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"];
    let word = word.trim_start_matches(['+', '-', '~', '?']);
    let name = word.split([':', '/', '=']).next().unwrap_or_default();
    word[name.len()..].starts_with('=') || MECHANISMS.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_mechanism_is_seen() {
        for word in [
            "-all",
            "include:a.example",
            "a",
            "a/24",
            "+mx:a.example/24//64",
            "ip6:2001:db8::1",
            "redirect=a",
            "x-y=z",
            "~ALL",
        ] {
            assert!(is_term(word), "{word}");
        }
        for word in ["inclde:a.example", "al", "", "192.0.2.1", "ipv4:192.0.2.1"] {
            assert!(!is_term(word), "{word}");
        }
    }
}
