//! What must not be shown of a configuration's text although no value says so: what stands behind words such as
//! "password" in comments and, where the text cannot be parsed, anywhere.
//!
//! Rather too much is masked than too little: it only makes a marked source line harder to read.

use super::problem::{Place, Source};
use super::reader::looks_secret;
use super::resolve::SecretName;

/// For a text that cannot be parsed.
pub fn mask_by_line(source: &mut Source, text: &str) {
    let mut start = 0;
    let mut inside = None;
    for line in text.split_inclusive('\n') {
        let from = match inside {
            Some(_) => Some(0),
            None => behind_a_secrets_name(line),
        };
        if let Some(from) = from {
            source.mask(start + from..start + line.len());
            inside = still_open(&line[from..], inside);
        }
        start += line.len();
    }
}

/// For a text whose values are masked one by one.
pub fn mask_comments(source: &mut Source, text: &str) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let comment = line.find('#').unwrap_or(line.len());
        if let Some(from) = behind_a_secrets_name(&line[comment..]) {
            source.mask(start + comment + from..start + line.len());
        }
        start += line.len();
    }
}

/// Wherever they stand: a route or a rule may name them, too.
pub fn mask_names(source: &mut Source, names: &[SecretName]) {
    for SecretName { place, name } in names {
        if let Place::File(at) = place {
            source.mask(at.clone());
        }
        source.mask_text(name.reveal());
    }
}

/// Where the value of the first name that looks like a secret's begins, whatever stands between the two.
fn behind_a_secrets_name(line: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut at = 0;
    for word in line.split_inclusive(|c: char| !is_part(c)) {
        let name = word.trim_end_matches(|c: char| !is_part(c));
        if looks_secret(name) {
            let behind = &line[at + name.len()..];
            return Some(line.len() - behind.trim_start_matches([' ', '\t', '=', ':']).len());
        }
        at += word.len();
    }
    None
}

/// The quotes of a text over several lines that goes on behind `part`.
fn still_open(part: &str, inside: Option<&'static str>) -> Option<&'static str> {
    match inside {
        Some(quotes) => (!part.contains(quotes)).then_some(quotes),
        None => ["\"\"\"", "'''"].into_iter().find(|quotes| part.matches(quotes).count() == 1),
    }
}
