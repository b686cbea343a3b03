//! Lists of addresses in headers: invalid display names are rewritten, addresses never change.
//!
//! A value that cannot be read with certainty is left alone as a whole, because guessing where a name ends means
//! guessing who is meant. RFC 5322 §3.4, RFC 2047 §5.

mod scan;
mod unclear;

use super::encoded_words::{TextPiece, WordPlacement, decode, encode_comment, encode_phrase, split};
pub(in crate::message) use scan::{AddressMember, AddressToken, AddressTokenKind, first_member, members};
pub use unclear::{UnclearCharacter, addresses_in};

/// The fields that contain only addresses. RFC 5322 §3.6.
const FIELDS: [&str; 14] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
    "Disposition-Notification-To",
    "Errors-To",
    "Mail-Followup-To",
];

pub fn are_in(name: &[u8]) -> bool {
    FIELDS.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// The value with its invalid names repaired; `None` if nothing needs repair, or if there is no certain way to do it.
///
/// `value` is unfolded; `column` is where it begins in its line.
pub fn repaired(value: &str, column: usize) -> Option<String> {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return None;
    }
    let members = members(value)?;
    let mut out = String::with_capacity(value.len());
    let mut differs = false;
    for member in &members {
        let text = match repaired_member(member, if out.is_empty() { column } else { 0 })? {
            Some(text) => {
                differs = true;
                text
            }
            None => member.raw.to_owned(),
        };
        join(&mut out, &text, member.stop);
    }
    differs.then(|| out.trim_end_matches([' ', ',']).to_owned())
}

fn join(out: &mut String, text: &str, stop: Option<char>) {
    out.push_str(text);
    match stop {
        // An empty entry in the list names no one.
        Some(',') if text.is_empty() => {}
        Some(';') => {
            out.truncate(out.trim_end_matches([' ', ',']).len());
            out.push_str("; ");
        }
        Some(stop) => {
            out.push(stop);
            out.push(' ');
        }
        None => {}
    }
}

/// Outer `None`: not readable. Inner `None`: valid.
fn repaired_member(member: &AddressMember<'_>, column: usize) -> Option<Option<String>> {
    let angle = member.tokens.iter().position(|token| matches!(token.kind, AddressTokenKind::Angle(_)));
    let (name, behind) = match angle {
        Some(at) => (&member.tokens[..at], &member.tokens[at + 1..]),
        None if member.stop == Some(':') => (&member.tokens[..], &[][..]),
        None => return repaired_bare(member),
    };
    if !behind.iter().all(|token| matches!(token.kind, AddressTokenKind::Comment(_))) {
        return None;
    }
    let name = DisplayName::read(name, angle.and_then(|at| member.tokens.get(at)))?;
    let comments: Vec<Option<String>> =
        name.comments.iter().chain(&comments_of(behind)).map(|c| repaired_comment(c)).collect::<Option<_>>()?;
    if name.sound && comments.iter().all(Option::is_none) {
        return Some(None);
    }
    let mut parts = vec![encode_phrase(&name.text, column)];
    if name.text.trim().is_empty() {
        parts.clear();
    }
    if let Some(AddressTokenKind::Angle(address)) = angle.and_then(|at| member.tokens.get(at)).map(|token| &token.kind)
    {
        let bare = parts.is_empty() && !address.is_empty() && !address.starts_with('@');
        parts.push(if bare { (*address).to_owned() } else { format!("<{address}>") });
    }
    let raw = name.comments.iter().copied().chain(comments_of(behind));
    parts.extend(raw.zip(comments).map(|(raw, repaired)| format!("({})", repaired.as_deref().unwrap_or(raw))));
    Some(Some(parts.join(" ")))
}

/// An address without brackets, which may have comments: the older way to give a name.
fn repaired_bare(member: &AddressMember<'_>) -> Option<Option<String>> {
    let is_address =
        |token: &AddressToken<'_>| matches!(token.kind, AddressTokenKind::Atom(_) | AddressTokenKind::Quoted { .. });
    let comments = comments_of(&member.tokens);
    let named = member.tokens.iter().filter(|token| is_address(token)).count();
    if named + comments.len() < member.tokens.len() {
        return None;
    }
    let has_at =
        member.tokens.iter().any(|token| matches!(token.kind, AddressTokenKind::Atom(atom) if atom.contains('@')));
    if named > 0 && !has_at {
        return None;
    }
    let repaired: Vec<_> = comments.iter().map(|comment| repaired_comment(comment)).collect::<Option<_>>()?;
    if repaired.iter().all(Option::is_none) {
        return Some(None);
    }
    let mut repaired = repaired.into_iter();
    let mut text = String::with_capacity(member.raw.len());
    for token in &member.tokens {
        if token.spaced && !text.is_empty() {
            text.push(' ');
        }
        match token.kind {
            AddressTokenKind::Comment(raw) => {
                text.push_str(&format!("({})", repaired.next().flatten().as_deref().unwrap_or(raw)))
            }
            _ => text.push_str(token.raw),
        }
    }
    Some(Some(text))
}

fn comments_of<'a>(tokens: &[AddressToken<'a>]) -> Vec<&'a str> {
    let comment = |token: &AddressToken<'a>| match token.kind {
        AddressTokenKind::Comment(text) => Some(text),
        _ => None,
    };
    tokens.iter().filter_map(comment).collect()
}

fn repaired_comment(comment: &str) -> Option<Option<String>> {
    let sound = |piece: &TextPiece<'_>| match piece {
        TextPiece::Plain(text) => text.is_ascii(),
        TextPiece::Run(run) => run.is_sound(WordPlacement::Phrase),
    };
    if split(comment).iter().all(sound) {
        return Some(None);
    }
    Some(Some(encode_comment(&scan::unescaped(&decode(comment)?))))
}

/// A display name, read.
struct DisplayName<'a> {
    text: String,
    sound: bool,
    comments: Vec<&'a str>,
}

impl<'a> DisplayName<'a> {
    /// `next` is the token after it.
    fn read(tokens: &[AddressToken<'a>], next: Option<&AddressToken<'a>>) -> Option<Self> {
        let mut name = Self { text: String::new(), sound: true, comments: Vec::new() };
        let mut quoted = false;
        let named = tokens.iter().filter(|token| !matches!(token.kind, AddressTokenKind::Comment(_))).count();
        for (at, token) in tokens.iter().enumerate() {
            if let AddressTokenKind::Comment(comment) = token.kind {
                name.comments.push(comment);
                continue;
            }
            if token.spaced && !name.text.is_empty() {
                name.text.push(' ');
            }
            let spaced_behind = tokens.get(at + 1).or(next).is_none_or(|next| next.spaced);
            quoted |= matches!(token.kind, AddressTokenKind::Quoted { .. });
            name.push(token, spaced_behind, named == 1)?;
        }
        // `"" <…>`, an empty name.
        name.sound &= !(quoted && name.text.trim().is_empty());
        Some(name)
    }

    fn push(&mut self, token: &AddressToken<'a>, spaced_behind: bool, alone: bool) -> Option<()> {
        match &token.kind {
            AddressTokenKind::Atom(atom) => {
                self.sound &= atom.is_ascii();
                self.text.push_str(atom);
            }
            // RFC 2047 §5 (3) forbids encoded words inside quotes; readers decode them nevertheless.
            AddressTokenKind::Quoted { text } => {
                let decoded = decode(text)?;
                self.sound &= text.is_ascii() && decoded == *text;
                self.text.push_str(&decoded);
            }
            AddressTokenKind::Words(run) => {
                let apart = (token.spaced || self.text.is_empty()) && spaced_behind;
                self.sound &= apart && run.is_sound(WordPlacement::Phrase);
                let decoded = run.decode()?;
                // The quotes of the name became part of the words.
                let inner = decoded.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|_| alone);
                self.sound &= inner.is_none();
                self.text.push_str(inner.unwrap_or(&decoded));
            }
            AddressTokenKind::Angle(_) | AddressTokenKind::Comment(_) => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_names_are_rewritten() {
        for (before, after) in [
            ("\"\" <a@b>", "a@b"),
            ("\" \"<a@b>", "a@b"),
            ("=?UTF-8?Q?\"J=C3=BCrgen Gr=C3=B6=C3=9Fer\"?= <j@x>", "=?UTF-8?Q?J=C3=BCrgen_Gr=C3=B6=C3=9Fer?= <j@x>"),
            ("\"Jürgen Größer\" <j@x>", "=?UTF-8?Q?J=C3=BCrgen_Gr=C3=B6=C3=9Fer?= <j@x>"),
            ("Jürgen <j@x>", "=?UTF-8?Q?J=C3=BCrgen?= <j@x>"),
            ("Jürgen Smith <j@x>", "=?UTF-8?Q?J=C3=BCrgen?= Smith <j@x>"),
            (
                "a@x, =?UTF-8?Q?\"Zo=C3=AB \"Zed\" O'Neil, Ltd\"?= <b@x>",
                "a@x, =?UTF-8?Q?Zo=C3=AB_=22Zed=22_O=27Neil=2C?= Ltd <b@x>",
            ),
            ("=?UTF-8?B?RXhhbXBsZSBBbmFseXRpY3M=?= <a@b>", "Example Analytics <a@b>"),
            ("=?UTF-8?B?RXhhbXBsZSwgSW5jLg==?= <a@b>", "\"Example, Inc.\" <a@b>"),
            ("\"=?UTF-8?Q?J=C3=BCrgen?=\" <j@x>", "=?UTF-8?Q?J=C3=BCrgen?= <j@x>"),
            ("=?UTF-8?Q?J=C3=BCrgen?=<j@x>", "=?UTF-8?Q?J=C3=BCrgen?= <j@x>"),
            ("=?UTF-8?Q?J=C3?==?UTF-8?Q?=BCrgen?= <j@x>", "=?UTF-8?Q?J=C3=BCrgen?= <j@x>"),
            ("=?UTF-8?Q?M=C3=BCller,_J.?= <j@x>", "=?UTF-8?Q?M=C3=BCller=2C_J=2E?= <j@x>"),
            ("Team: Jürgen <j@x>, \"\" <b@x>;", "Team: =?UTF-8?Q?J=C3=BCrgen?= <j@x>, b@x;"),
            ("Grüße: a@b;", "=?UTF-8?Q?Gr=C3=BC=C3=9Fe?=: a@b;"),
            ("\"\" <@route:a@b>, \"\" <>", "<@route:a@b>, <>"),
            ("a@b (Jürgen)", "a@b (=?UTF-8?Q?J=C3=BCrgen?=)"),
            ("Jürgen (work) <j@x> (me)", "=?UTF-8?Q?J=C3=BCrgen?= <j@x> (work) (me)"),
            ("A <a@b> (Jürgen \\(x\\))", "A <a@b> (=?UTF-8?Q?J=C3=BCrgen_=28x=29?=)"),
            ("\"\" <a@b>,, c@d", "a@b, c@d"),
            ("\"\" <\"a>b\"@c>", "\"a>b\"@c"),
            ("Jürgen <jürgen@bücher.example>", "=?UTF-8?Q?J=C3=BCrgen?= <jürgen@bücher.example>"),
        ] {
            assert_eq!(repaired(before, 6).as_deref(), Some(after), "{before}");
            assert_eq!(repaired(after, 6), None, "{after} is sound");
        }
    }

    #[test]
    fn sound_values_and_unclear_ones_are_left_alone() {
        for value in [
            "",
            "a@b",
            "<a@b>",
            "A B <a@b>",
            "\"A, B\" <a@b>",
            "\"A \\\"x\\\" B\" <a@b>",
            "Dr. A <a@b>",
            "a@b <a@b>",
            "=?UTF-8?Q?J=C3=BCrgen_G?= <a@b>, =?utf-8?B?w7Y=?= B <c@d>",
            "=?ISO-8859-1?Q?J=FCrgen?= <a@b>",
            "undisclosed-recipients:;",
            "Team: a@b, C <c@d>; e@f",
            "\"a b\"@c, a@[IPv6:::1], <a@[127.0.0.1]>",
            "a@b (comment (nested) \\) =?UTF-8?Q?=C3=BC?=)",
            "jürgen@example.net",
            // Cannot be read with certainty.
            "\"Jürgen <a@b>",
            "Jürgen",
            "Jürgen, Inc. <a@b>",
            "Jürgen <a@b",
            "Jürgen <a@b> <c@d>",
            "Jürgen <a@b> x",
            "Jürgen) <a@b>",
            "=?UTF-8?Q?=C3?= <a@b>",
            "=?x-unknown?Q?a b?= <a@b>",
            "Jürgen \u{7f} <a@b>",
        ] {
            assert_eq!(repaired(value, 6), None, "{value}");
        }
    }
}
