//! What must not be shown of a configuration's text although no value says so: what stands behind words such as
//! "password" in comments and, where the text cannot be parsed, anywhere.
//!
//! Rather too much is masked than too little: it only makes a marked source line harder to read.

use super::problem::{Place, Source};
use super::reader::looks_secret;
use super::resolve::SecretName;

/// For a text that cannot be parsed: of each line its key is shown, or the name of its table. What is a value there, and of
/// which key, nobody can tell: a private key that was pasted over several lines is no value at all.
pub fn mask_values(source: &mut Source, text: &str) {
    mask_behind(source, text, |line| Some(shown(line)));
}

/// Octets of the line that can be no secret: `key =` and `[table]`, in small letters as all keys are.
fn shown(line: &str) -> usize {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
    let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
    let text = &line[indent..];
    let brackets = text.len() - text.trim_start_matches('[').len();
    let name = text[brackets..].find(|c| !is_name(c)).unwrap_or(0);
    let behind = text[brackets + name..].trim_start_matches([' ', '\t']);
    let ends_as_it_began = match brackets {
        0 => behind.starts_with('=') && !behind.starts_with("=="),
        _ => behind.starts_with(']'),
    };
    match ends_as_it_began && name > 0 && name <= LONGEST_NAME {
        true => line.len() - behind.trim_start_matches(['=', ']']).len(),
        false => indent,
    }
}

/// Octets of the longest key and more.
const LONGEST_NAME: usize = 40;

/// For a text whose values are masked one by one.
pub fn mask_comments(source: &mut Source, text: &str) {
    mask_behind(source, text, |line| {
        let comment = line.find('#').unwrap_or(line.len());
        behind_a_secrets_name(&line[comment..]).map(|from| comment + from)
    });
}

/// Of each line what stands behind the octet that `from` names.
fn mask_behind(source: &mut Source, text: &str, from: impl Fn(&str) -> Option<usize>) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(from) = from(line) {
            source.mask(start + from..start + line.len());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_line_its_key_is_shown_and_nothing_else() {
        for (line, expected) in [
            ("password = \"canary\"", "password ="),
            ("  username= canary # x", "  username="),
            ("[listener]  # canary", "[listener]"),
            ("[[upstream.credentials]]", "[[upstream.credentials]]"),
            ("MC4CAQAwBQYDK2VwBCIEIA==", ""),
            ("canary==", ""),
            ("private_key = \"-----BEGIN PRIVATE KEY-----", "private_key ="),
            ("{ password = \"canary\" }", ""),
            ("canary", ""),
            ("", ""),
            ("\tgrün = 1", "\t"),
        ] {
            assert_eq!(&line[..shown(line)], expected, "{line}");
        }
    }
}
