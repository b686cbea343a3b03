//! Finds the character that makes an address field unclear, and says what to do: for the person whose mail is refused.

use super::scan::members;
use crate::message::encoded_words::decode;
use crate::smtp::Mailbox;
use std::fmt;

/// Why a value cannot be read as one author with certainty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnclearCharacter {
    /// It is never allowed in a header.
    Control(char),
    /// It occurs more than once, or without its counterpart.
    Unpaired(char),
    /// Text follows the address.
    Behind(char),
    /// In a name, which would have to be in quotes.
    InName(char),
    /// It could separate several addresses, or name a group.
    InList(char),
    /// The address is not in brackets, and there is other text beside it.
    NoBrackets,
    /// The text in the brackets is not an address.
    Address,
}

impl UnclearCharacter {
    /// For a value that was found to be unclear, unfolded.
    pub fn of(value: &str) -> Self {
        if let Some(control) = value.chars().find(|c| c.is_control() && *c != '\t') {
            return Self::Control(control);
        }
        let opened = value.matches('<').count();
        let closed = value.matches('>').count();
        if opened == 0 && closed == 0 {
            return without_brackets(value);
        }
        let (Some(open), Some(close)) = (value.find('<'), value.rfind('>')) else {
            return Self::Unpaired(if opened == 0 { '>' } else { '<' });
        };
        if opened != 1 || closed != 1 || close < open {
            return Self::Unpaired(if closed > opened { '>' } else { '<' });
        }
        if let Some(behind) = value[close + 1..].trim_start().chars().next() {
            return Self::Behind(behind);
        }
        let name = &value[..open];
        let address = value[open + 1..close].trim();
        if Mailbox::parse(address).is_err() || address.contains(['\\', '\u{fffd}']) || address.contains("=?") {
            return Self::Address;
        }
        match name.rfind([',', ';']) {
            Some(comma) if addresses_in(&name[..comma]).next().is_some() => {
                Self::InList(name[comma..].chars().next().unwrap_or(','))
            }
            _ => in_name(name),
        }
    }
}

fn in_name(name: &str) -> UnclearCharacter {
    let specials = ['@', '"', '\\', '(', ')', ',', ':', ';', '[', ']'];
    name.chars().find(|c| specials.contains(c)).map_or(UnclearCharacter::Address, UnclearCharacter::InName)
}

fn without_brackets(value: &str) -> UnclearCharacter {
    match value.chars().find(|c| [';', ':', ','].contains(c)) {
        _ if members(value).is_none() => {
            let odd = if value.matches('"').count() % 2 == 1 {
                '"'
            } else if value.contains('(') {
                '('
            } else {
                ')'
            };
            UnclearCharacter::Unpaired(odd)
        }
        Some(stop) => UnclearCharacter::InList(stop),
        None => UnclearCharacter::NoBrackets,
    }
}

/// As in "it has a "," where more than one address could be meant; …".
impl fmt::Display for UnclearCharacter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(c) => {
                return write!(f, "it has the control character U+{:04X}; leave that out", u32::from(*c));
            }
            Self::Unpaired(c) => write!(f, "it has a \"{c}\" too many, or without the other half")?,
            Self::Behind(c) => write!(f, "it has a \"{c}\" behind the address")?,
            Self::InName(c) => write!(f, "its name has a \"{c}\" outside of quotes")?,
            Self::InList(c) => write!(f, "it has a \"{c}\" where more than one address could be meant")?,
            Self::NoBrackets => f.write_str("its address is not in angle brackets, and something stands beside it")?,
            Self::Address => f.write_str("what stands between its \"<\" and \">\" is not an address")?,
        }
        f.write_str(
            "; write the name in double quotes and the one address behind it, as in \"Example, Inc.\" <app@example.com>, \
             or let a rule replace it (`set_from`)",
        )
    }
}

/// Every address that a reader could see in a value, also in a name.
pub fn addresses_in(value: &str) -> impl Iterator<Item = Mailbox> {
    let text = decode(value).unwrap_or_else(|| value.to_owned());
    let words: Vec<_> = text.split(is_delimiter).filter_map(|word| Mailbox::parse(word).ok()).collect();
    words.into_iter()
}

fn is_delimiter(c: char) -> bool {
    c.is_whitespace() || "\"<>()[],;:\\".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_character_is_named() {
        use UnclearCharacter::*;
        for (value, expected) in [
            ("A\u{b} <a@b>", Control('\u{b}')),
            ("A <a@b> <c@d>", Unpaired('<')),
            ("A <a@b", Unpaired('<')),
            ("A a@b>", Unpaired('>')),
            ("A > <a@b>", Unpaired('>')),
            ("A <a@b> x@y", Behind('x')),
            ("A <a@b> (v@w)", Behind('(')),
            ("x@y, B <a@b>", InList(',')),
            ("Foo x@y; B <a@b>", InList(';')),
            ("bob@home <a@b>", InName('@')),
            ("Foo: x <a@b>", InName(':')),
            ("5\" Floppy <a@b>", InName('"')),
            ("a@b, c@d", InList(',')),
            ("Team: a@b;", InList(':')),
            ("\"A a@b", Unpaired('"')),
            ("a@b (x", Unpaired('(')),
            ("A a@b", NoBrackets),
            ("A <nobody>", Address),
            ("A <=?UTF-8?Q?v=40w?=@b>", Address),
        ] {
            let found = UnclearCharacter::of(value);
            assert_eq!(found, expected, "{value}");
            let text = found.to_string();
            let named = match found {
                Control(_) | NoBrackets | Address => true,
                Unpaired(c) | Behind(c) | InName(c) | InList(c) => text.contains(&format!("\"{c}\"")),
            };
            assert!(named && text.len() < 300, "{text}");
        }
    }
}
