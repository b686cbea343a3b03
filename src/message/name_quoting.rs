//! Display names as people write them: `Example, Inc. <a@b>`, `"5" Floppy" <a@b>`. If exactly one address in brackets
//! follows a name, the name is quoted, so that every reader finds the same address. RFC 5322 §3.2.4, §3.4.
//!
//! A value in which a name could be another person's address is not changed at all.

use super::addresses::{AddressToken, AddressTokenKind, addresses_in, first_member, members};
use super::author;
use super::encoded_words::{decode, encode_phrase};
use crate::smtp::Mailbox;

/// Maximum number of names that are rewritten in one value: finding the end of each may require reading all that follows.
const MOST_NAMES: usize = 300;

/// The value with names and dotted local parts quoted where necessary, and without empty entries; `None` if nothing needs a
/// change, or if the meaning is not certain.
///
/// `value` is unfolded; `column` is where it begins in its line.
pub fn quoted(value: &str, column: usize) -> Option<String> {
    if value.chars().any(|c| c.is_control() && c != '\t') || is_group(value) {
        return None;
    }
    let written = written(value, column)?;
    // The result must be read as it was meant.
    let is_clear = written == value || self::written(&written, column).as_deref() == Some(&written);
    (is_clear && written != value).then_some(written)
}

/// A name with a colon, and the semicolon that ends its list. RFC 5322 §3.4.
fn is_group(value: &str) -> bool {
    let Some(members) = members(value) else { return false };
    let opened = members.iter().position(|member| member.stop == Some(':'));
    opened.is_some_and(|at| members[at..].iter().any(|member| member.stop == Some(';')))
}

/// `None`: it cannot be read with certainty.
fn written(value: &str, column: usize) -> Option<String> {
    let is_between = |c: char| matches!(c, ' ' | '\t' | ',' | ';');
    let mut rest = value.trim_start_matches(is_between);
    let mut names = 0;
    let mut texts = Vec::new();
    while !rest.is_empty() {
        let (text, behind) = match sound(rest) {
            Some(found) => found,
            None => {
                names += 1;
                let column = if texts.is_empty() { column } else { 0 };
                named(rest, column).filter(|_| names <= MOST_NAMES)?
            }
        };
        texts.push(text);
        rest = behind.trim_start_matches(is_between);
    }
    Some(if is_list_of(value, &texts) { value.to_owned() } else { texts.join(", ") })
}

/// The value consists of only these, with one comma between each two.
fn is_list_of(value: &str, texts: &[String]) -> bool {
    let mut rest = value;
    for (at, text) in texts.iter().enumerate() {
        let Some(start) = rest.find(text.as_str()) else { return false };
        let between = rest[..start].trim_matches([' ', '\t']);
        if between != if at == 0 { "" } else { "," } {
            return false;
        }
        rest = &rest[start + text.len()..];
    }
    rest.trim_matches([' ', '\t']).is_empty()
}

/// The first mailbox of a list, if it can be read in only one way, and the text after it. Only dots get quotes.
fn sound(rest: &str) -> Option<(String, &str)> {
    let (member, size) = first_member(rest)?;
    let address = author::address_of(&member)?;
    let angle = member.tokens.iter().position(|token| matches!(token.kind, AddressTokenKind::Angle(_)));
    if let Some(at) = angle
        && !is_phrase(&member.tokens[..at])
    {
        return None;
    }
    if angle.is_none() && !address.contains('@') || member.stop == Some(':') {
        return None;
    }
    let dotted =
        Mailbox::parse(address).ok().filter(|mailbox| mailbox.needs_quotes_for_dots() && !address.contains('"'));
    let text = match dotted {
        // Some readers find a local part in quotes only within brackets.
        Some(mailbox) if angle.is_none() => member.raw.replacen(address, &format!("<{mailbox}>"), 1),
        Some(mailbox) => member.raw.replacen(&format!("<{address}"), &format!("<{mailbox}"), 1),
        None => member.raw.to_owned(),
    };
    Some((text, &rest[size..]))
}

/// A phrase of RFC 5322 §3.2.5 and §4.1: atoms without characters that need quotes, and quoted strings separated from them.
fn is_phrase(tokens: &[AddressToken<'_>]) -> bool {
    let is_word = |token: &AddressToken<'_>| match &token.kind {
        AddressTokenKind::Atom(atom) => !atom.contains(['(', ')', '<', '>', '[', ']', ':', ';', '@', '\\', ',', '"']),
        AddressTokenKind::Quoted { .. } | AddressTokenKind::Words(_) => true,
        AddressTokenKind::Comment(text) => !text.contains(['@', '<', '>', '"']),
        AddressTokenKind::Angle(_) => false,
    };
    tokens.iter().all(is_word) && !has_glued_quotes(tokens)
}

/// `"A "B" C"` comes from programs that do not escape the inner quotes with a backslash.
fn has_glued_quotes(tokens: &[AddressToken<'_>]) -> bool {
    let is_quoted = |token: &AddressToken<'_>| matches!(token.kind, AddressTokenKind::Quoted { .. });
    let is_text = |token: &AddressToken<'_>| is_quoted(token) || matches!(token.kind, AddressTokenKind::Atom(_));
    tokens.windows(2).any(|pair| match pair {
        [first, second] => {
            !second.spaced && is_text(first) && is_text(second) && (is_quoted(first) || is_quoted(second))
        }
        _ => false,
    })
}

/// A name up to the next bracket, and the one address in it, as the first of a list.
fn named(rest: &str, column: usize) -> Option<(String, &str)> {
    let open = rest.find('<')?;
    let close = open + rest[open..].find('>')?;
    let name = rest[..open].trim();
    let address = rest[open + 1..close].trim();
    let behind = &rest[close + 1..];
    let mailbox =
        Mailbox::parse(address).ok().filter(|_| !address.contains(['\\', '\u{fffd}']) && !address.contains("=?"))?;
    let next = behind.trim_start_matches([' ', '\t']).chars().next();
    let ends_here = next.is_none_or(|next| next == ',' || next == ';' && !name.contains(':'));
    // The text before a comma may be another mailbox.
    let before_the_comma = name.rfind([',', ';']).map_or("", |comma| &name[..comma]);
    if !ends_here || name.contains('>') || addresses_in(before_the_comma).next().is_some() {
        return None;
    }
    let text = name_text(name)?;
    let address = if address.contains('"') { address.to_owned() } else { mailbox.to_string() };
    let text = text.trim_matches([' ', '\t']);
    let written =
        if text.is_empty() { format!("<{address}>") } else { format!("{} <{address}>", encode_phrase(text, column)) };
    Some((written, behind))
}

/// The text of a name. `None` if words in it cannot be decoded, or if readers that do not decode them would see an address.
fn name_text(name: &str) -> Option<String> {
    let inner = || name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let members = members(name).filter(|members| !members.iter().any(|member| has_glued_quotes(&member.tokens)));
    let Some(members) = members else { return decode(inner().unwrap_or(name)) };
    let mut text = String::with_capacity(name.len());
    let mut place = 0;
    for token in members.iter().flat_map(|member| &member.tokens) {
        let at = place + name[place..].find(token.raw)?;
        // White space and separators are kept.
        text.push_str(&name[place..at]);
        place = at + token.raw.len();
        match &token.kind {
            AddressTokenKind::Atom(atom) => text.push_str(atom),
            AddressTokenKind::Quoted { text: quoted } => text.push_str(&decode(quoted)?),
            AddressTokenKind::Comment(_) => text.push_str(token.raw),
            AddressTokenKind::Words(run) => {
                for word in &run.words()[1..] {
                    place += name[place..].find(word.raw())? + word.size();
                }
                text.push_str(&run.decode()?);
            }
            AddressTokenKind::Angle(_) => return None,
        }
    }
    text.push_str(&name[place..]);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_before_the_one_address_is_quoted() {
        for (before, after) in [
            ("Example, Inc. <app@example.com>", "\"Example, Inc.\" <app@example.com>"),
            ("Example, Inc., Berlin <a@b>", "\"Example, Inc., Berlin\" <a@b>"),
            ("Sales: Europe <a@b>", "\"Sales: Europe\" <a@b>"),
            ("Sales; Europe <a@b>", "\"Sales; Europe\" <a@b>"),
            ("10:30 news <a@b>", "\"10:30 news\" <a@b>"),
            ("Bob @ Home <a@b>", "\"Bob @ Home\" <a@b>"),
            ("@bob <a@b>", "\"@bob\" <a@b>"),
            ("bob@home.example <a@b>", "\"bob@home.example\" <a@b>"),
            ("Team @Work, Inc <a@b>", "\"Team @Work, Inc\" <a@b>"),
            // As Plausible writes a user's own name.
            ("\"5\" Floppy\" <a@b>", "\"5\\\" Floppy\" <a@b>"),
            ("\"Zo \"Zed\" O'Neil\" <a@b>", "\"Zo \\\"Zed\\\" O'Neil\" <a@b>"),
            ("\"AC\\DC\\\" <a@b>", "\"AC\\\\DC\\\\\" <a@b>"),
            ("5\" Floppy <a@b>", "\"5\\\" Floppy\" <a@b>"),
            ("AC\\DC <a@b>", "\"AC\\\\DC\" <a@b>"),
            ("\"Open <a@b>", "\"\\\"Open\" <a@b>"),
            ("\"Jürgen, \"J\" Inc\" <a@b>", "=?UTF-8?Q?J=C3=BCrgen=2C_=22J=22?= Inc <a@b>"),
            ("Jürgen, Inc. <a@b>", "=?UTF-8?Q?J=C3=BCrgen=2C_Inc=2E?= <a@b>"),
            ("=?UTF-8?Q?J=C3=BCrgen @ home?= <a@b>", "=?UTF-8?Q?J=C3=BCrgen_=40?= home <a@b>"),
            ("=?UTF-8?Q?v@evil.org?= <a@b>", "\"v@evil.org\" <a@b>"),
            ("Hello :) <a@b>", "\"Hello :)\" <a@b>"),
            ("Hello (you <a@b>", "\"Hello (you\" <a@b>"),
            ("Bob (bob@home) <a@b>", "\"Bob (bob@home)\" <a@b>"),
            ("[Staging] <a@b>", "\"[Staging]\" <a@b>"),
            ("\"J\" [Staging] <a@b>", "\"J [Staging]\" <a@b>"),
            ("A & B [x, y] <a@b>", "\"A & B [x, y]\" <a@b>"),
            // An extra comma.
            ("App <a@b>,", "App <a@b>"),
            ("a@b, ", "a@b"),
            (", a@b,, c@d;", "a@b, c@d"),
            ("Example, <a@b>", "\"Example,\" <a@b>"),
            // Lists: valid entries stay, whatever the others are.
            ("\"5\" Floppy\" <a@b>, \"B\" Big\" <b@c>", "\"5\\\" Floppy\" <a@b>, \"B\\\" Big\" <b@c>"),
            ("x@y, Foo, Inc <a@b>, \"C, D\" <c@d>", "x@y, \"Foo, Inc\" <a@b>, \"C, D\" <c@d>"),
            ("a@b; C <c@d>", "a@b, C <c@d>"),
            // Dots that only quotes allow.
            ("a..b@docomo.ne.jp, A <a.@ezweb.ne.jp>", "<\"a..b\"@docomo.ne.jp>, A <\"a.\"@ezweb.ne.jp>"),
            ("Foo, Inc <.a@b>", "\"Foo, Inc\" <\".a\"@b>"),
        ] {
            assert_eq!(quoted(before, 6).as_deref(), Some(after), "{before}");
            assert_eq!(quoted(after, 6), None, "{after} is sound");
        }
    }

    #[test]
    fn sound_values_and_unclear_ones_are_left_alone() {
        for value in [
            "",
            "a@b",
            "<a@b>",
            "A B <a@b>, c@d",
            "Dr. A. O'Neil & Co/KG #1 <a@b>",
            "\"A, B\" <a@b>",
            "\"A \\\"x\\\" B\" C <a@b>",
            "\"A <x@y>, B\" <a@b>",
            "\"v@evil.org\" <a@b>",
            "A (work) <a@b> (me)",
            "a@b (A B)",
            "\"a b\"@c, <\"a..b\"@c>, a@[IPv6:::1]",
            "Jürgen <a@b>",
            "=?UTF-8?Q?J=C3=BCrgen?= <a@b>",
            "=?UTF-8?Q?M=C3=BCller,_J._(Bonn)?= <a@b>",
            "undisclosed-recipients:;",
            "Team: A <a@b>, c@d;",
            "Team: Foo, Inc <a@b>;",
            "<>",
            "<@route:a@b>",
            // More than one could be meant, or none.
            "PayPal <service@paypal.com> <.example.com>",
            "<ceo@example.co> <m>",
            "<3 Fans <a@b>",
            "A <a@b> B <c@d>",
            "A <a@b> x@y",
            "A > B <a@b>",
            "x@y Foo, Inc <a@b>",
            "\"x@y, Z\" Q\" <a@b>",
            "a@b c@d",
            "A a@b",
            "nobody",
            "A <a@b",
            "A <nobody>",
            "[ <v@evil.org> ] <a@b>",
            "=?UTF-8?Q?<v=evil.org>?= <a@b>",
            "=?UTF-8?Q?\"?= \"<v@evil.org>\" <a@b>",
            "(\") \"<v@evil.org>\" <a@b>",
            "=?UTF-8?Q?=C3, x?= <a@b>",
            "A, B\u{7f} <a@b>",
        ] {
            assert_eq!(quoted(value, 6), None, "{value}");
        }
    }

    #[test]
    fn work_is_bounded() {
        let many = "( <a@b>, ".repeat(25_000);
        assert_eq!(quoted(&many, 6), None);
        let long = format!("{} <a@b>", "Foo, ".repeat(40_000));
        assert!(quoted(&long, 6).is_some_and(|quoted| quoted.ends_with("<a@b>")));
    }
}
