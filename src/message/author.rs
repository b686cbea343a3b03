//! Determines a message's author: the one mailbox of its one From header.
//!
//! The signing key, the senders' policy and the routes depend on it, so anything ambiguous is an error and never a
//! guess: another reader might see a different author. Readers differ on comments, on the raw contents of encoded
//! words, and on anything that violates the grammar; they agree on quoted strings. A name that only lacked its quotes
//! has been given them (`repair::display_names`). RFC 5322 §3.4, §3.6.2.

use super::addresses::{AddressMember, AddressToken, AddressTokenKind, UnclearCharacter, members};
use super::encoded_words::{self, EncodedWord};
use super::headers::FieldRef;
use super::raw::RawMessage;
use crate::smtp::address::AddressError;
use crate::smtp::{Domain, Mailbox};

/// The author's mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author(Mailbox);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    #[error("the message has no From header")]
    Missing,
    #[error("the message has more than one From header")]
    Several,
    #[error("the From header has white space before its colon")]
    Malformed,
    #[error("the From header names more than one address")]
    SeveralAddresses,
    #[error("the From header can be read in more than one way")]
    Ambiguous,
    #[error("the From header does not hold a valid address")]
    Invalid,
}

impl Author {
    pub fn of(message: &RawMessage) -> Result<Self, AuthorError> {
        let mut fields = message.fields_named("From");
        let from = fields.next().ok_or(AuthorError::Missing)?;
        if fields.next().is_some() {
            return Err(AuthorError::Several);
        }
        if !from.is_well_formed() {
            return Err(AuthorError::Malformed);
        }
        only_address(&String::from_utf8_lossy(&from.unfolded())).map(Self)
    }

    /// What is wrong with the From header that [`Author::of`] could not read, and what to do about it.
    pub fn why_unclear(message: &RawMessage, error: AuthorError) -> String {
        let detail = match error {
            AuthorError::Ambiguous => {
                let from = message.fields_named("From").next().map(|field| field.unfolded()).unwrap_or_default();
                UnclearCharacter::of(&String::from_utf8_lossy(&from)).to_string()
            }
            AuthorError::Missing if message.header().is_empty() => {
                "its first line is not a header field; a header begins with the first octet of the mail".to_owned()
            }
            AuthorError::Malformed => "write \"From: \" without a space before the colon".to_owned(),
            AuthorError::Missing | AuthorError::Several | AuthorError::SeveralAddresses | AuthorError::Invalid => {
                "write one From header with one address, or let a rule set it (`set_from`)".to_owned()
            }
        };
        format!("{error}: {detail}")
    }

    pub fn mailbox(&self) -> &Mailbox {
        &self.0
    }

    pub fn domain(&self) -> &Domain {
        self.0.domain()
    }
}

/// Every mailbox in a field such as Sender or Resent-From, read as strictly as From; an empty field has none.
pub fn mailboxes_in(field: &FieldRef<'_>) -> Result<Vec<Mailbox>, AuthorError> {
    let value = String::from_utf8_lossy(&field.unfolded()).into_owned();
    let (members, unclear) = readable(&value)?;
    let named =
        members.iter().filter(|member| !member.tokens.is_empty() || member.stop.is_some_and(|stop| stop != ','));
    named.map(|member| mailbox_of(member, unclear)).collect()
}

/// Expects one mailbox, no group, and no other text that any reader could take for an address.
fn only_address(value: &str) -> Result<Mailbox, AuthorError> {
    let (members, unclear) = readable(value)?;
    let [member] = members.as_slice() else {
        let is_list = members.iter().all(|member| member.stop.is_none_or(|stop| stop == ','));
        let has_address = |member: &&AddressMember<'_>| address_of(member).is_some_and(|address| address.contains('@'));
        let named = members.iter().filter(has_address).count();
        return Err(if is_list && named > 1 { AuthorError::SeveralAddresses } else { unclear });
    };
    mailbox_of(member, unclear)
}

/// Also returns the error for a value that turns out to be unreadable.
fn readable(value: &str) -> Result<(Vec<AddressMember<'_>>, AuthorError), AuthorError> {
    let unclear = if value.contains('@') { AuthorError::Ambiguous } else { AuthorError::Invalid };
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(unclear);
    }
    Ok((members(value).ok_or(unclear)?, unclear))
}

fn mailbox_of(member: &AddressMember<'_>, unclear: AuthorError) -> Result<Mailbox, AuthorError> {
    if member.stop.is_some_and(|stop| stop != ',') {
        return Err(unclear);
    }
    let address = address_of(member).ok_or(unclear)?;
    let mailbox = Mailbox::parse(address).map_err(|error| match error {
        AddressError::HiddenRoute => AuthorError::Ambiguous,
        _ => AuthorError::Invalid,
    })?;
    // Some readers decode words in addresses too. U+FFFD replaces octets that were not UTF-8.
    let is_clear = !address.contains(['<', '>', '\\', '\u{fffd}']) && !address.contains("=?");
    if is_clear { Ok(mailbox) } else { Err(AuthorError::Ambiguous) }
}

/// The text in the brackets, or everything except comments.
pub(super) fn address_of<'a>(member: &AddressMember<'a>) -> Option<&'a str> {
    let tokens = member.tokens.as_slice();
    let angle = tokens.iter().position(|token| matches!(token.kind, AddressTokenKind::Angle(_)));
    let start =
        angle.or_else(|| tokens.iter().position(|token| !matches!(token.kind, AddressTokenKind::Comment(_))))?;
    let (before, rest) = tokens.split_at(start);
    let (address, behind) = match rest {
        [
            AddressToken { kind: AddressTokenKind::Angle(address) | AddressTokenKind::Atom(address), .. },
            behind @ ..,
        ] => (*address, behind),
        // Local parts in quotes.
        [
            AddressToken { kind: AddressTokenKind::Quoted { .. }, raw: local, .. },
            AddressToken { kind: AddressTokenKind::Atom(rest), spaced: false, .. },
            behind @ ..,
        ] if before.is_empty() => (member.raw.get(..local.len() + rest.len())?, behind),
        _ => return None,
    };
    let is_repeated = matches!(before, [AddressToken { kind: AddressTokenKind::Atom(name), .. }] if name.eq_ignore_ascii_case(address));
    let is_covered = before.iter().any(covers_an_address);
    let is_clear = is_repeated || before.iter().all(|token| is_harmless(token, is_covered));
    let only_comments =
        behind.iter().all(|token| matches!(token.kind, AddressTokenKind::Comment(_)) && is_harmless(token, false));
    (is_clear && only_comments).then_some(address)
}

/// An address may be hidden in quotes or in encoded words.
fn covers_an_address(token: &AddressToken<'_>) -> bool {
    let has_at = |text: Option<String>| text.is_none_or(|text| text.contains('@'));
    match &token.kind {
        AddressTokenKind::Quoted { text } => text.contains('@') || has_at(encoded_words::decode(text)),
        AddressTokenKind::Words(run) => has_at(run.decode()),
        _ => false,
    }
}

fn is_harmless(token: &AddressToken<'_>, is_covered: bool) -> bool {
    let hides_nothing = |text: &str| hides_nothing(text, is_covered);
    match &token.kind {
        AddressTokenKind::Quoted { .. } => true,
        AddressTokenKind::Atom(text) => hides_nothing(text),
        // A program that repairs the words in it may write them as plain text.
        AddressTokenKind::Comment(text) => {
            hides_nothing(text) && encoded_words::decode(text).is_none_or(|text| hides_nothing(&text))
        }
        // The quotes of a name may be in its first and its last word.
        AddressTokenKind::Words(run) => {
            let raw: String = run.words().iter().map(EncodedWord::raw).collect();
            run.words().iter().all(EncodedWord::is_quoted) || hides_nothing(&raw)
        }
        AddressTokenKind::Angle(_) => false,
    }
}

/// A reader that does not treat `text` as one piece still finds no address in it and does not lose the address beside
/// it. With one more quote, comma or bracket, the words of a name become an address; and an unclosed quote swallows the
/// address itself.
fn hides_nothing(text: &str, is_covered: bool) -> bool {
    let quotes = text.matches('"').count();
    let is_open = !quotes.is_multiple_of(2) || quotes > 0 && text.contains('\\');
    let uncovers = is_covered && text.contains(['"', '(', ')', ',', ':', ';', '[', ']', '\\']);
    !(is_open || uncovers || text.contains(['@', '<', '>']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(header: &str) -> Result<String, AuthorError> {
        let message = RawMessage::from_data(format!("{header}\r\nbody").into()).expect("a message");
        Author::of(&message).map(|author| author.mailbox().to_string())
    }

    #[test]
    fn one_mailbox_is_the_author_however_it_is_named() {
        for (value, expected) in [
            ("a@example.com", "a@example.com"),
            ("<a@example.com>", "a@example.com"),
            ("\"\" <a@example.com>", "a@example.com"),
            ("\"x@evil.org\" <a@example.com>", "a@example.com"),
            ("\"A <x@evil.org>, B\" <a@example.com>", "a@example.com"),
            ("=?UTF-8?Q?\"J=C3=BCrgen\"?= <a@example.com>", "a@example.com"),
            ("=?UTF-8?Q?\"J=C3=BCrgen @ home\"?= <a@example.com>", "a@example.com"),
            ("\"J\" [Staging] <a@example.com>", "a@example.com"),
            ("=?UTF-8?Q?\"J=C3=BC?= =?UTF-8?Q?rgen\"?= <a@example.com>", "a@example.com"),
            ("=?UTF-8?Q?M=C3=BCller,_J._(Bonn)?= <a@example.com>", "a@example.com"),
            ("J\u{fc}rgen O'Neil [Staging] <a@example.com>", "a@example.com"),
            ("\r\n <a@example.com>", "a@example.com"),
            ("A\r\n\tB\r\n <a@example.com>", "a@example.com"),
            ("a@example.com <A@example.com>", "A@example.com"),
            ("(x) a@example.com (A \"B\" C)", "a@example.com"),
            ("A (x (y)) <a@example.com> (z)", "a@example.com"),
            ("\"a b\"@example.com", "\"a b\"@example.com"),
            ("A <\"a..b\"@example.com>", "\"a..b\"@example.com"),
            ("\"a b\"@example.com (x)", "\"a b\"@example.com"),
            ("\"A, B\" <a@example.com> (C: D)", "a@example.com"),
            ("root@[127.0.0.1]", "root@[127.0.0.1]"),
            ("<j\u{fc}rgen@b\u{fc}cher.example>", "j\u{fc}rgen@b\u{fc}cher.example"),
        ] {
            assert_eq!(author(&format!("From: {value}\r\n")).as_deref(), Ok(expected), "{value:?}");
        }
    }

    /// Other readers would see another address, or one where the gateway sees none.
    #[test]
    fn what_readers_differ_on_is_ambiguous() {
        for value in [
            "PayPal <service@paypal.com> <.example.com>",
            "<ceo@example.co> <m>",
            "a@example.com\u{c}",
            "\u{c}a@example.com",
            "<a@example.com> x@evil.org",
            "<a@example.com> \"x\"",
            "v@evil.org: a@example.com",
            "Team: a@example.com;",
            "a@example.com;",
            "a@example.com,",
            "Example, Inc. <a@example.com>",
            "x@evil.org Example, Inc. <a@example.com>",
            "v@evil.org <a@example.com>",
            "\"v\"@evil.org <a@example.com>",
            "v (x) @evil.org <a@example.com>",
            "\"A\" a@example.com",
            "A a@example.com",
            "a @example.com",
            "=?UTF-8?Q?v@evil.org?= <a@example.com>",
            "=?UTF-8?Q?<v=evil.org>?= <a@example.com>",
            "=?UTF-8?Q?\"?= \"<v@evil.org>\" <a@example.com>",
            "=?UTF-8?Q?a?= =?UTF-8?Q?,?= \"v@evil.org\" <a@example.com>",
            "[\"] \"<v@evil.org>\" <a@example.com>",
            "=?UTF-8?Q?v=40evil.org?= [x] <a@example.com>",
            "=?UTF-8?Q?\"v@evil.org\"?= [x] <a@example.com>",
            "=?UTF-8?Q?\"v\"@evil.org\"?= <a@example.com>",
            "\"v@evil.org\" [x] <a@example.com>",
            "=?UTF-8?Q?\"?= <a@example.com>",
            "[ <v@evil.org> ] <a@example.com>",
            "(<v@evil.org>) a@example.com",
            "a@example.com (v@evil.org)",
            "a@example.com (=?UTF-8?Q?v=40evil.org?=)",
            "\"v\" (x) @example.com",
            "(\") \"<v@evil.org>\" <a@example.com>",
            "<=?UTF-8?Q?v=40evil.org?=@example.com>",
            "\"v@evil.org\"@example.com",
            "<\"<v>\"@example.com>",
            "\"v@evil.org <a@example.com>",
            "<a@example.com",
            "A\u{b} <a@example.com>",
            "A\u{85} <a@example.com>",
        ] {
            assert_eq!(author(&format!("From: {value}\r\n")), Err(AuthorError::Ambiguous), "{value:?}");
        }
    }

    #[test]
    fn every_mailbox_of_a_field_is_found_or_none() {
        let mailboxes = |value: &str| {
            let block = format!("Resent-From : {value}\r\n");
            let field = crate::message::headers::Fields::new(block.as_bytes()).next().expect("a field");
            mailboxes_in(&field).map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        for (value, expected) in [
            ("", Ok("")),
            (" (nobody)", Err(AuthorError::Invalid)),
            ("a@b", Ok("a@b")),
            ("A <a@b>, \"C\" <c@d>,\r\n e@f,", Ok("a@b c@d e@f")),
            ("Team: a@b;", Err(AuthorError::Ambiguous)),
            ("a@b; c@d", Err(AuthorError::Ambiguous)),
            ("v@evil.org <a@b>", Err(AuthorError::Ambiguous)),
            ("nobody", Err(AuthorError::Invalid)),
        ] {
            assert_eq!(mailboxes(value), expected.map(str::to_owned), "{value:?}");
        }
    }

    #[test]
    fn an_unknown_author_comes_with_what_is_wrong_and_the_cure() {
        for (header, words) in [
            ("From: A <a@b> <c@d>\r\n", "it has a \"<\" too many"),
            ("From: A a@b\r\n", "not in angle brackets"),
            ("From: x@y Foo, Inc <a@b>\r\n", "it has a \",\" where more than one"),
            ("From : a@b\r\n", "without a space before the colon"),
            ("From: a@b, c@d\r\n", "`set_from`"),
            ("From: a@b\r\nFrom: c@d\r\n", "more than one From header: write one"),
            ("no header\r\n", "its first line is not a header field"),
            ("To: x@y\r\n", "no From header: write one"),
        ] {
            let message = RawMessage::from_data(format!("{header}\r\nbody").into()).expect("a message");
            let why = Author::why_unclear(&message, Author::of(&message).expect_err(header));
            assert!(why.contains(words), "{header}: {why}");
        }
    }

    #[test]
    fn whose_mail_it_is_can_be_unknown() {
        use AuthorError::*;
        for (header, expected) in [
            ("FROM: A <a@example.com>\r\nTo: b@c\r\n", Ok("a@example.com")),
            ("To: b@c\r\n", Err(Missing)),
            ("From: a@b\r\nFrom: c@d\r\n", Err(Several)),
            ("From : a@b\r\n", Err(Malformed)),
            ("To: x@y\r\n From: a@b\r\n", Err(Missing)),
            ("From: a@b, c@d\r\n", Err(SeveralAddresses)),
            ("From: a@b, Example, Inc. <c@d>\r\n", Err(SeveralAddresses)),
            ("From: nobody\r\n", Err(Invalid)),
            ("From: <>\r\n", Err(Invalid)),
            ("From: a@@b\r\n", Err(Invalid)),
            ("From: undisclosed:;\r\n", Err(Invalid)),
            ("From:\r\n", Err(Invalid)),
        ] {
            assert_eq!(author(header), expected.map(str::to_owned), "{header:?}");
        }
    }
}
