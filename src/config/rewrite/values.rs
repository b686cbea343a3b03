//! The values of `[[rewrite]]`: values for headers are checked here by the code that will insert them.

use crate::config::maps::known_keys;
use crate::config::patterns::is_header_name;
use crate::config::value::{Complaint, Complaints, Text, Value};
use crate::message::headers::FieldError;
use crate::message::rewrite::{AddressMap, HeaderEdit, NamedAddress, Replacement, is_editable};
use crate::message::text_pattern::{TextPattern, regex};
use crate::message::{Field, Mark};
use crate::smtp::{Mailbox, ReversePath};
use regex::Regex;
use toml::Spanned;
use toml::de::DeValue;

/// The name of a header that a rule may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settable(pub String);

/// The name of a header that a rule may add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addable(pub String);

/// The name of a header in which a rule may replace.
struct Replaceable(String);

/// What to remove: a name, or a pattern that removes all matching headers that may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removable(pub TextPattern);

const HEADER_NAME: &str = "a header's name";

impl Text for Settable {
    const EXPECTED: &'static str = HEADER_NAME;

    fn parse(text: &str) -> Result<Self, Complaint> {
        editable(text, HeaderEdit::Set).map(Self)
    }
}

impl Text for Addable {
    const EXPECTED: &'static str = HEADER_NAME;

    fn parse(text: &str) -> Result<Self, Complaint> {
        editable(text, HeaderEdit::Add).map(Self)
    }
}

impl Text for Replaceable {
    const EXPECTED: &'static str = HEADER_NAME;

    fn parse(text: &str) -> Result<Self, Complaint> {
        editable(text, HeaderEdit::Replace).map(Self)
    }
}

impl Text for Removable {
    const EXPECTED: &'static str = "a header's name, or a pattern such as \"X-Internal-*\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let pattern = <TextPattern as Text>::parse(text)?;
        let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if is_name { editable(text, HeaderEdit::Remove).map(|_| Self(pattern)) } else { Ok(Self(pattern)) }
    }
}

fn editable(text: &str, edit: HeaderEdit) -> Result<String, Complaint> {
    if !is_header_name(text) {
        let help = match text.trim().strip_suffix(':') {
            Some(name) => format!("write \"{name}\""),
            None => "write it as in \"Subject\" or \"X-Kind\"".to_owned(),
        };
        return Err(Complaint::new(format!("\"{}\" is not a header name", text.escape_debug()), help));
    }
    if is_editable(text, edit) {
        return Ok(text.to_owned());
    }
    let (message, help) = match edit {
        HeaderEdit::Add if is_editable(text, HeaderEdit::Set) => {
            (format!("a message has one {text} at most"), "use `set_headers`")
        }
        HeaderEdit::Add | HeaderEdit::Set if text.eq_ignore_ascii_case("From") => {
            (format!("no rule may write {text} in this way"), "use `set_from`")
        }
        HeaderEdit::Remove if is_editable(text, HeaderEdit::Set) => {
            (format!("no message may be without {text}"), "use `set_headers` to change it")
        }
        _ => (format!("no rule may change {text}: it says what the message is, or which way it took"), "take it out"),
    };
    Err(Complaint::new(message, help))
}

/// A valid value for a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderText(pub String);

impl Text for HeaderText {
    const EXPECTED: &'static str = "a header's value";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if text.trim().is_empty() {
            return Err(Complaint::new("it is empty", "to take a header out, name it in `remove_headers`"));
        }
        match Field::folded("X", text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(FieldError::TooLong) => {
                Err(Complaint::new("a header line must not be longer than 998 octets", "put white space into it"))
            }
            Err(error) => Err(Complaint { message: error.to_string(), help: None }),
        }
    }
}

impl Text for Mark {
    const EXPECTED: &'static str = "a word such as \"weekly-report\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        Self::new(text).map_err(|error| Complaint::new(error.to_string(), "write a word, or leave the key out"))
    }
}

impl Text for ReversePath {
    const EXPECTED: &'static str = "an address, or \"<>\" for the null path";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if text.is_empty() || text == "<>" {
            return Ok(Self::Null);
        }
        mailbox(text).map(Self::Mailbox)
    }
}

/// The target of an address: an address, or `*@` and a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressTarget(pub String);

impl Text for AddressTarget {
    const EXPECTED: &'static str = "an address, or \"*@\" and a domain";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match AddressMap::parse([("*", text)]) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(Complaint::new(
                error.to_string(),
                "write \"staging@example.com\", or \"*@example.com\" to keep the local part",
            )),
        }
    }
}

impl Text for NamedAddress {
    const EXPECTED: &'static str = "an address such as \"Reports <reports@example.com>\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let (name, address) = match text.trim().strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
            Some((name, address)) => (unquoted(name.trim()), address),
            None => (String::new(), text.trim()),
        };
        if Field::folded("From", &name).is_err() {
            return Err(Complaint::new("its name cannot stand in a header", "write it in one line of printable text"));
        }
        Ok(Self { display_name: name, address: mailbox(address)? })
    }
}

fn mailbox(text: &str) -> Result<Mailbox, Complaint> {
    Mailbox::parse(text).map_err(|error| {
        let inner = text.trim().strip_suffix('>').and_then(|text| text.rsplit_once('<')).map(|(_, inner)| inner);
        let instead = inner.filter(|inner| Mailbox::parse(inner).is_ok()).unwrap_or("reports@example.com");
        let message = format!("\"{}\" is not a valid address: {error}", text.escape_debug());
        Complaint::new(message, format!("write it as in \"{instead}\""))
    })
}

/// RFC 5322 §3.2.4: the quotes and the backslashes inside them are not part of the name.
fn unquoted(name: &str) -> String {
    let Some(inner) = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return name.to_owned() };
    let mut plain = String::with_capacity(inner.len());
    let mut escaped = false;
    for character in inner.chars() {
        escaped = character == '\\' && !escaped;
        if !escaped {
            plain.push(character);
        }
    }
    plain
}

const REPLACEMENT: &str = "{ header = \"Subject\", pattern = \"^Re: \", with = \"\" }";

impl Value for Replacement {
    fn expected() -> String {
        format!("a table such as {REPLACEMENT}")
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let [header, pattern, with] = known_keys(value, ["header", "pattern", "with"], REPLACEMENT, complaints)?;
        let place = with.span();
        let header = Replaceable::read(header, complaints);
        let pattern = RegexText::read(pattern, complaints);
        let with = ReplacementText::read(with, complaints);
        let header = header?.0;
        let pattern = pattern?.0;
        let with = with?.0;
        if let Some(complaint) = unknown_group(&pattern, &with) {
            complaints.bad_value(place, complaint);
            return None;
        }
        Some(Self { header, pattern, with })
    }
}

/// Always a regular expression; the slashes of other patterns would be searched for in the text.
struct RegexText(Regex);

impl Text for RegexText {
    const EXPECTED: &'static str = "a regular expression";

    fn parse(text: &str) -> Result<Self, Complaint> {
        regex(text).map(Self).map_err(|cause| Complaint {
            message: format!("\"{}\" is not a valid regular expression: {cause}", text.escape_debug()),
            help: None,
        })
    }
}

/// May be empty, to remove what matches.
struct ReplacementText(String);

impl Text for ReplacementText {
    const EXPECTED: &'static str = "a text";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match Field::folded("X", text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(Complaint { message: error.to_string(), help: None }),
        }
    }
}

/// The first group that `with` names but the expression does not have: it would silently be empty.
fn unknown_group(pattern: &Regex, with: &str) -> Option<Complaint> {
    let is_known = |name: &str| match name.parse::<usize>() {
        Ok(number) => number < pattern.captures_len(),
        Err(_) => pattern.capture_names().flatten().any(|known| known == name),
    };
    let unknown = references(with).into_iter().find(|name| !is_known(name))?;
    let digits = unknown.trim_end_matches(|c: char| !c.is_ascii_digit());
    let help = match pattern.captures_len() - 1 {
        _ if !digits.is_empty() && digits != unknown && unknown.starts_with(digits) && is_known(digits) => {
            format!("write ${{{digits}}}{}; a literal dollar is $$", &unknown[digits.len()..])
        }
        0 => "the pattern has no group in parentheses; a literal dollar is $$".to_owned(),
        1 => "the pattern has one group, $1; a literal dollar is $$".to_owned(),
        last => format!("the pattern has $1 to ${last}; a literal dollar is $$"),
    };
    Some(Complaint::new(format!("there is no group for ${unknown}"), help))
}

/// The names after dollar signs, as the regex crate reads them.
fn references(with: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = with;
    while let Some((_, behind)) = rest.split_once('$') {
        rest = if let Some(literal) = behind.strip_prefix('$') {
            literal
        } else if let Some((name, after)) = behind.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            found.push(name);
            after
        } else {
            let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len());
            if end > 0 {
                found.push(&behind[..end]);
            }
            &behind[end..]
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_is_a_name_and_an_address() {
        for (text, name, address) in [
            ("reports@example.com", "", "reports@example.com"),
            ("<reports@example.com>", "", "reports@example.com"),
            ("Reports <reports@example.com>", "Reports", "reports@example.com"),
            ("  Käse & Co.  <reports@example.com> ", "Käse & Co.", "reports@example.com"),
            (r#""Reports, \"weekly\"" <reports@example.com>"#, "Reports, \"weekly\"", "reports@example.com"),
            (r#""a\\b" <reports@example.com>"#, r"a\b", "reports@example.com"),
            ("a < b <reports@example.com>", "a < b", "reports@example.com"),
        ] {
            let author = <NamedAddress as Text>::parse(text).unwrap();
            assert_eq!((author.display_name.as_str(), author.address.to_string().as_str()), (name, address), "{text}");
        }
        for text in ["", "Reports", "Reports <reports>", "Reports <reports@example.com", "a\nb <a@b>"] {
            assert!(<NamedAddress as Text>::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn groups_that_are_not_there_are_found() {
        for (pattern, with, expected) in [
            ("a", "b", None),
            ("(a)", "$1 ${1}x $0 $$2 costs $", None),
            ("(?<kind>a)", "$kind: ${kind}s", None),
            ("a", "$1", Some("$1")),
            ("(a)(b)", "$1$3", Some("$3")),
            ("(a)", "$1st", Some("$1st")),
            ("(?<kind>a)", "$kinds", Some("$kinds")),
            ("a", "${}", Some("$")),
        ] {
            let found = unknown_group(&regex(pattern).unwrap(), with).map(|complaint| complaint.message);
            assert_eq!(found, expected.map(|name| format!("there is no group for {name}")), "{pattern} {with}");
        }
        let help = |with| unknown_group(&regex("(a)").unwrap(), with).and_then(|complaint| complaint.help).unwrap();
        assert!(help("$1st").starts_with("write ${1}st;") && help("$2").contains("one group, $1"));
    }
}
