//! Decides what must not be shown of a configuration. This is the only place that decides what is a secret or could be
//! one.
//!
//! In a source line every value is masked except the one that a problem points at; that one is masked too if its key is
//! secret or unknown, or if it could be a secret. No message shows such text, whatever its source. If in doubt, text is
//! masked.

use super::schema::Schema;
use super::suggest::nearest;
use crate::observe::Redaction;
use crate::pem;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// In octets; more than the longest key.
const LONGEST_NAME: usize = 40;
/// No name has this many letters and digits in a row.
const LONGEST_WORD: usize = 24;
/// Length in octets of the shortest secret that can be told from a name by its look.
const SHORTEST: usize = 8;

/// Shown in place of a secret.
const HIDDEN: &str = "***";

/// True for what looks like a key, a token or a generated password. A password that is a word cannot be told from a name.
pub fn could_be_secret(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric();
    let has = |wanted: fn(&char) -> bool| text.chars().any(|c| wanted(&c));
    let mixes = has(char::is_ascii_digit) && has(char::is_ascii_alphabetic);
    let has_odd_signs = text.contains(['!', '#', '%', '^', '&', '~', '|', ';', '<', '>', '$', '\\']);
    pem::is_pem(text)
        || text.contains("PRIVATE KEY")
        || (mixes && text.len() >= SHORTEST && has_odd_signs)
        || text.split(|c| !is_part(c)).any(is_random_word)
        || text.split(|c: char| !is_part(c) && !"+/=_-.:".contains(c)).any(is_random_run)
}

/// Letters and digits that alternate too often for a word.
fn is_random_word(word: &str) -> bool {
    let kind = |byte: u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let changes = |differ: fn((bool, bool), (bool, bool)) -> bool| {
        word.as_bytes().array_windows().filter(|[one, other]| differ(kind(*one), kind(*other))).count()
    };
    let to_digits = changes(|one, other| one.0 != other.0);
    let to_capitals = changes(|one, other| !one.0 && !one.1 && other.1);
    // A number with a unit.
    let has_unit = word.trim_start_matches(|c: char| c.is_ascii_digit()).len() <= 3;
    let has_letters = word.bytes().any(|byte| byte.is_ascii_alphabetic());
    has_letters
        && !is_access_key_id(word)
        && (word.len() >= LONGEST_WORD
            || (word.len() >= 16 && to_digits > 0 && !has_unit)
            || (word.len() >= SHORTEST && to_digits >= 3)
            || (word.len() >= 12 && to_digits >= 2)
            || (word.len() >= 10 && to_capitals >= 3))
}

/// AWS's term for a user name.
fn is_access_key_id(word: &str) -> bool {
    word.len() == 20 && word.starts_with("AKIA") && !word.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// Base64 or hexadecimal, with any separators.
fn is_random_run(run: &str) -> bool {
    let count = |wanted: fn(&u8) -> bool| run.as_bytes().iter().filter(|byte| wanted(byte)).count();
    let digits = count(u8::is_ascii_digit);
    let capitals = count(u8::is_ascii_uppercase);
    let hex = run.bytes().filter(|byte| !b"-:".contains(byte));
    let is_hex = hex.clone().count() >= 16 && hex.clone().all(|byte| byte.is_ascii_hexdigit()) && !run.contains("::");
    let is_padded = run.len() >= SHORTEST && run.ends_with('=') && !run.starts_with('=');
    (is_hex && digits > 0 && digits < hex.count())
        || is_padded
        || (run.len() >= 20 && digits >= 2 && capitals >= 3 && !is_access_key_id(run))
}

/// True for the text of a key without its BEGIN and END lines: base64 or hexadecimal, at least as long as the shortest
/// key (Ed25519).
pub fn is_key_without_its_frame(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-:\\ \t\r\n".contains(&byte);
    text.len() >= 64 && !text.starts_with('/') && text.bytes().all(is_part) && could_be_secret(text)
}

/// True for names that people use for secrets.
pub fn is_secrets_name(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["pass", "pwd", "secret", "token", "credential", "hash", "api"].iter().any(|word| key.contains(word))
        || nearest(&key, ["password"].into_iter()).is_some()
}

/// True for names that follow the convention for variables. Any other text may be the secret itself, and is not shown.
pub fn is_variable(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
    name.len() <= 64 && begins && name.bytes().all(is_part) && !could_be_secret(name)
}

/// True for text that cannot be a password: a word or a number.
pub fn is_plain(text: &str) -> bool {
    text.len() <= 20
        && (text.chars().all(char::is_alphabetic) || text.bytes().all(|byte| b"-.0123456789".contains(&byte)))
}

/// A path as messages show it. A path that does not exist may not be a path at all.
pub fn shown_path(path: &Path) -> String {
    let text = path.display().to_string();
    let folder_exists = path.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && folder.exists());
    if could_be_secret(&text) && !folder_exists && !path.exists() { HIDDEN.to_owned() } else { text }
}

/// For example "relay:hunter2" in "smtp://relay:hunter2@smtp.example.com".
fn login_before_host(text: &str) -> Option<&str> {
    text.rsplit_once('@').map(|(login, _)| login).filter(|login| login.contains(':'))
}

/// A value where no secret belongs.
pub fn hide_value(text: &str, hidden: &mut Redaction) {
    match login_before_host(text) {
        Some(login) => hidden.add_secret(login),
        None if could_be_secret(text) => hidden.add_secret(text),
        None => {}
    }
}

/// A value where a secret belongs. Ordinary words stay in messages, because no message quotes this value itself.
pub fn hide_secret(text: &str, hidden: &mut Redaction) {
    if !is_plain(text) || text.len() > 11 {
        hidden.add_secret(text);
    }
}

/// What was found in a document.
#[derive(Debug, Default)]
pub struct Survey {
    schema: Schema,
    /// Texts that no message may contain.
    pub hidden: Redaction,
    /// Keys and values that may be shown if a problem points at them.
    pub shown: Vec<Range<usize>>,
    /// The places of literal secrets.
    pub literals: Vec<Range<usize>>,
}

/// The position of a key.
#[derive(Clone, Copy)]
struct KeyPosition {
    /// Below the key of a secret.
    secret: bool,
    /// In a table of the schema, and not in one whose keys the user chooses.
    schema: bool,
    /// Below an unknown key, which may be the misspelt key of a secret.
    unknown: bool,
}

impl Survey {
    /// For a text that cannot be parsed: only its keys can be told from its values.
    pub fn blind(schema: Schema) -> Self {
        Self { schema, ..Self::default() }
    }

    pub fn of(document: &DeTable<'_>, schema: Schema) -> Self {
        let mut survey = Self::blind(schema);
        survey.table(document, KeyPosition { secret: false, schema: true, unknown: false });
        survey.literals.sort_by_key(|literal| literal.start);
        survey
    }

    /// The text with every value masked except the one at `place`, which is masked too if it could be a secret.
    pub fn mask(&self, text: &str, place: &Range<usize>) -> String {
        let mut masked = mask_values(text, self.schema);
        let part = text.get(place.clone()).filter(|part| self.hidden.hide(part) == *part);
        if let (Some(part), true) = (part, self.shown.contains(place)) {
            masked.replace_range(place.clone(), part);
        }
        masked
    }

    fn table(&mut self, table: &DeTable<'_>, around: KeyPosition) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let can_show = if around.schema { is_plain_key(name, self.schema) } else { !could_be_secret(name) };
            if can_show {
                self.shown.push(key.span());
            } else {
                self.hidden.add_secret(name);
            }
            let is_table =
                matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_)) && self.schema.has_table(name);
            let secret = around.secret || (!is_table && is_secret(name, self.schema));
            match value.get_ref().as_str() {
                Some(reference) if around.secret && name == "env" && is_variable(reference) => {}
                Some(reference) if around.secret && name == "file" => {
                    if !is_file_name(reference) {
                        self.hidden.add_secret(reference);
                    }
                }
                _ => {
                    let is_setting = self.schema.setting(name).is_some();
                    let unknown = around.unknown || (around.schema && !is_setting && !self.schema.has_table(name));
                    self.value(value, KeyPosition { secret, schema: around.schema && !is_setting, unknown });
                }
            }
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, around: KeyPosition) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, around),
            DeValue::Array(items) => items.iter().for_each(|item| self.value(item, around)),
            leaf if around.secret => {
                self.literals.push(value.span());
                hide_secret(leaf.as_str().unwrap_or_default(), &mut self.hidden);
            }
            leaf => {
                hide_value(leaf.as_str().unwrap_or_default(), &mut self.hidden);
                if !around.unknown {
                    self.shown.push(value.span());
                }
            }
        }
    }
}

/// By the schema; an unknown key may be a misspelt one.
fn is_secret(key: &str, schema: Schema) -> bool {
    schema.setting(key).map_or_else(|| is_secrets_name(key), |setting| setting.secret)
}

/// A known key or a word; anything else may be a secret.
fn is_plain_key(key: &str, schema: Schema) -> bool {
    let is_word = key.chars().all(|c| c.is_alphabetic() || "_-.".contains(c));
    schema.setting(key).is_some() || (is_word && key.len() <= LONGEST_NAME && !could_be_secret(key))
}

/// With a folder or an extension, or a word.
fn is_file_name(text: &str) -> bool {
    let is_word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphabetic() || "_-".contains(c));
    let has_extension = text.rsplit_once('.').is_some_and(|(_, extension)| extension.len() <= 5 && is_word(extension));
    !could_be_secret(text) && (text.contains('/') || is_word(text) || has_extension)
}

/// Shows only the key of each line, or the name of its table, whether the text can be parsed or not: a private key that
/// was pasted over several lines is not even a value. Places stay the same, in octets and in characters.
fn mask_values(text: &str, schema: Schema) -> String {
    let star = |c: char| match c.len_utf8() {
        1 if matches!(c, '\r' | '\n') => c,
        1 => '*',
        2 => '·',
        3 => '•',
        _ => '🞄',
    };
    let mask = |line: &str| {
        let (shown, masked) = line.split_at(shown(line, schema));
        shown.chars().chain(masked.chars().map(star)).collect::<String>()
    };
    text.split_inclusive('\n').map(mask).collect()
}

/// The part of the line that cannot be a secret, in octets: `key =` and `[table]`, in lower case like all keys.
fn shown(line: &str, schema: Schema) -> usize {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
    let text = &line[indent..];
    let brackets = text.len() - text.trim_start_matches('[').len();
    let length = text[brackets..].find(|c| !is_name(c)).unwrap_or(0);
    let (name, behind) = text[brackets..].split_at(length);
    let behind = behind.trim_start_matches([' ', '\t']);
    let ends_as_it_began = match brackets {
        0 => behind.starts_with('=') && !behind.starts_with("=="),
        _ => behind.starts_with(']'),
    };
    match ends_as_it_began && !name.is_empty() && is_plain_key(name, schema) {
        true if brackets == 0 => line.len() - behind.len() + 1 + usize::from(behind[1..].starts_with(' ')),
        true => line.len() - behind.trim_start_matches(']').len(),
        false => indent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_line_its_key_is_shown_and_nothing_else() {
        for (line, expected) in [
            ("password = \"canary\"", "password = "),
            ("  username= canary # x", "  username= "),
            ("[listener]  # canary", "[listener]"),
            ("[[upstream.credentials]]", "[[upstream.credentials]]"),
            ("MC4CAQAwBQYDK2VwBCIEIA==", ""),
            ("canary==", ""),
            ("private_key = \"-----BEGIN PRIVATE KEY-----", "private_key = "),
            ("{ password = \"canary\" }", ""),
            ("canary", ""),
            ("", ""),
            ("\tgrün = 1", "\t"),
        ] {
            assert_eq!(&line[..shown(line, Schema::default())], expected, "{line}");
        }
    }

    #[test]
    fn a_value_is_shown_only_under_a_known_key_that_holds_no_secret() {
        use crate::config::file::SCHEMA;
        for (text, expected) in [
            ("unsigned = \"canary\"", true),
            ("nosuch = \"canary\"", false),
            ("[log]\nlevl = [\"canary\"]", false),
            ("[nosuch]\nx = \"canary\"", false),
            ("[queue]\nretry = { fist = \"canary\" }", true),
            ("[[user]]\npassword = \"canary\"", false),
            ("[[upstream]]\n[[upstream.credentials]]\nusername = \"canary\"", true),
        ] {
            let document = DeTable::parse(text).unwrap();
            let survey = Survey::of(document.get_ref(), SCHEMA);
            let start = text.find("\"canary\"").unwrap();
            let shown = survey.mask(text, &(start..start + "\"canary\"".len()));
            assert_eq!(shown.contains("canary"), expected, "{text}: {shown}");
        }
    }

    #[test]
    fn what_looks_like_a_secret_is_told_from_names_and_values() {
        for secret in [
            "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",
            "key-3ax6xnjp29jd6fds4gc373sgvjxteol0",
            "c4d5e6f7-0a1b-4c2d-8e3f-a4b5c6d7e8f9",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "BM2Pq9dEaMPLE+Xk2Yt7/9f8zKq3",
            "re_9XyZ12ab_8kLmNoPq",
            "302e020100300506032b657004220420",
            "30:2e:02:01:00:30:05:06:03:2b:65:70",
            "MC4CAQAwBQYDK2VwBCIEIA",
            "cGFzc3dvcmQ=",
            "Tr0ub4dor&3",
            "s3cr3tpassw0rd",
            "$argon2id$v=19$m=19456$c29t",
            "-----BEGIN PRIVATE KEY-----",
        ] {
            assert!(could_be_secret(secret), "{secret}");
        }
        for name in [
            "adress",
            "AKIAIOSFODNN7EXAMPLE",
            "wax2026a",
            "max_connections_per_address",
            "gateway.example.com",
            "smtp2go.com",
            "email-smtp.eu-central-1.amazonaws.com",
            "certs/dkim/example.com.wax1.pem",
            "/var/lib/waxseal/data",
            "172.18.0.0/16",
            "2001:db8::1",
            "[2001:db8:1:2:3:4:5:6]:2525",
            "127.0.0.1:2525",
            "99999999999999999999",
            "info,waxseal::relay=debug",
            "loud=very=much",
            "25 MiB",
            "50000/day",
            "postmaster@mg.example.com",
            "*@example.com",
            "[IPv6:2001:db8::1]",
            "MessageTooLarge",
            "ed25519.pem",
            "smtp.exämple.com",
            "a secret, or { env = NAME }",
        ] {
            assert!(!could_be_secret(name), "{name}");
        }
    }
}
