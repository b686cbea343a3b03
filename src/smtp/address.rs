//! Addresses as SMTP spells them: `Mailbox`, `ReversePath`, `Domain`, `EhloName`.
//!
//! Parsed once at the edge, then carried verbatim: a quoted local part stays quoted, an address literal stays literal.
//! The exception is a local part whose dots need quotes: `a..b` becomes `"a..b"`. RFC 5321 §4.1.2 for the grammar,
//! §4.5.3.1 for the lengths, RFC 6531 §3.3 for UTF-8.

use std::fmt;

/// Octets, RFC 5321 §4.5.3.1.1.
const MAX_LOCAL_PART: usize = 64;
/// Octets, RFC 5321 §4.5.3.1.2.
const MAX_DOMAIN: usize = 255;
/// Octets including the angle brackets, RFC 5321 §4.5.3.1.3.
const MAX_PATH: usize = 256;

/// Why a path was refused. The text is meant for the person who configured the sending application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the address must stand in angle brackets, as in <user@example.com>")]
    NoBrackets,
    #[error("a display name stands before the address; set the sender to the bare address, as in <user@example.com>")]
    DisplayName,
    #[error("the local part must be 1 to 64 octets long")]
    LocalPartLength,
    #[error("the local part has a character that is not allowed there unquoted")]
    LocalPartSyntax,
    #[error(
        "the local part has a dot at its beginning or end, or two in a row, which only quotes allow, and with them it is longer than 64 octets"
    )]
    LocalPartDots,
    #[error("the quoted local part has \"@\", \"%\" or \"!\", which some servers take for a route")]
    HiddenRoute,
    #[error("the domain is missing")]
    NoDomain,
    #[error("the domain is not a valid host name or address literal")]
    DomainSyntax,
    #[error("the path is longer than 256 octets")]
    PathLength,
    #[error("the address is not valid UTF-8")]
    Utf8,
    #[error("an empty recipient is not an address")]
    Empty,
    #[error("this relay has no local mailboxes; write the address with its domain")]
    LocalPostmaster,
}

/// A domain name (ASCII labels or U-labels) or an address literal such as `[127.0.0.1]`.
///
/// Invariant: never empty, never longer than 255 octets, no white space, no control characters.
/// Compares without regard to ASCII case.
#[derive(Debug, Clone, Eq)]
pub struct Domain(String);

impl Domain {
    /// A domain name or an address literal in brackets. RFC 5321 §4.1.2, §4.1.3.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::NoDomain);
        }
        if text.len() > MAX_DOMAIN {
            return Err(AddressError::DomainSyntax);
        }
        let valid = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(literal) => is_address_literal(literal),
            None => text.split('.').all(is_label),
        };
        if valid { Ok(Self(text.to_owned())) } else { Err(AddressError::DomainSyntax) }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text for every spelling: lower case, A-labels, and the numeric value of an address literal.
    fn identity(&self) -> String {
        if let Some(literal) = self.0.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return match literal.get(5..).map(str::parse::<std::net::Ipv6Addr>) {
                Some(Ok(address)) => format!("[{address}]"),
                _ => self.0.to_ascii_lowercase(),
            };
        }
        idna::domain_to_ascii(&self.0).unwrap_or_else(|_| self.0.to_lowercase())
    }

    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }

    /// True if this domain is `parent` or a subdomain of it.
    pub fn is_within(&self, parent: &Domain) -> bool {
        let name = self.0.to_ascii_lowercase();
        let parent = parent.0.to_ascii_lowercase();
        name == parent || name.strip_suffix(&parent).is_some_and(|head| head.ends_with('.'))
    }
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl std::hash::Hash for Domain {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_ascii_lowercase().hash(state);
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name that a client gives in EHLO or HELO.
///
/// Real clients send names that are not domains (`EHLO {}`, `EHLO example.com>`). The name is only ever written into a
/// Received header, so it is kept as cleaned text: printable ASCII without parentheses, backslashes or spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EhloName(String);

impl EhloName {
    const MAX: usize = 255;

    /// `None` if nothing was given.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let name: String = text
            .iter()
            .take(Self::MAX)
            .map(|&byte| if byte.is_ascii_graphic() && !b"()\\\"".contains(&byte) { byte as char } else { '?' })
            .collect();
        (!name.is_empty()).then_some(Self(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One mailbox as it was between the angle brackets, without a source route, and with quotes if its dots need them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    local_part: String,
    domain: Domain,
}

impl Mailbox {
    /// `local@domain` without brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let at = end_of_local_part(text)?;
        let (local_part, rest) = text.split_at(at);
        let Some(domain) = rest.strip_prefix('@') else {
            return Err(if local_part.eq_ignore_ascii_case("postmaster") {
                AddressError::LocalPostmaster
            } else if rest.is_empty() {
                AddressError::NoDomain
            } else {
                AddressError::LocalPartSyntax
            });
        };
        if local_part.is_empty() || local_part.len() > MAX_LOCAL_PART {
            return Err(AddressError::LocalPartLength);
        }
        let local_part = with_quoted_dots(local_part);
        if local_part.len() > MAX_LOCAL_PART {
            return Err(AddressError::LocalPartDots);
        }
        if local_part.len() + domain.len() + 3 > MAX_PATH {
            return Err(AddressError::PathLength);
        }
        Ok(Self { local_part, domain: Domain::parse(domain)? })
    }

    /// Including quotes, if it was quoted.
    pub fn local_part(&self) -> &str {
        &self.local_part
    }

    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Its local part is in quotes, and has dots that are not allowed without them.
    pub fn needs_quotes_for_dots(&self) -> bool {
        let quoted = self.local_part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        quoted.is_some_and(|text| text.split('.').any(str::is_empty))
    }

    /// The same text for every spelling of one mailbox: RFC 5321 §2.4 (local parts are exact, domains are not), §4.1.2
    /// (unneeded quotes mean nothing), RFC 5890 §2.3.2.1 (A-labels and U-labels).
    pub fn identity(&self) -> String {
        let mut identity = String::with_capacity(self.local_part.len() + self.domain.0.len() + 1);
        match self.local_part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(quoted) => {
                let mut characters = quoted.chars();
                while let Some(character) = characters.next() {
                    identity.push(if character == '\\' { characters.next().unwrap_or(character) } else { character });
                }
            }
            None => identity.push_str(&self.local_part),
        }
        identity.push('@');
        identity.push_str(&self.domain.identity());
        identity
    }

    /// True if carrying it needs SMTPUTF8. RFC 6531 §3.2.
    pub fn is_internationalized(&self) -> bool {
        !self.local_part.is_ascii() || !self.domain.0.is_ascii()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part, self.domain)
    }
}

/// The argument of MAIL FROM. The null path `<>` is a separate value, never an empty string.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    Null,
    Mailbox(Mailbox),
}

impl ReversePath {
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

/// Without brackets; the null path is an empty string only when printed.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// Reads `<path>` at the start of `text` and returns the content (source route dropped) and what follows the `>`.
///
/// The closing bracket is searched outside quoted strings. RFC 5321 §4.1.2 (A-d-l is accepted and ignored).
pub(super) fn split_path(text: &[u8]) -> Result<(&str, &[u8]), AddressError> {
    if text.first() != Some(&b'<') {
        return Err(if text.contains(&b'<') { AddressError::DisplayName } else { AddressError::NoBrackets });
    }
    let close = end_of_path(text).ok_or(AddressError::NoBrackets)?;
    if close + 1 > MAX_PATH {
        return Err(AddressError::PathLength);
    }
    let inner = std::str::from_utf8(&text[1..close]).map_err(|_| AddressError::Utf8)?;
    Ok((drop_source_route(inner), &text[close + 1..]))
}

fn end_of_path(text: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

// RFC 5321 §3.3, appendix C: "@a,@b:user@c" is accepted, the route is ignored.
fn drop_source_route(path: &str) -> &str {
    if !path.starts_with('@') {
        return path;
    }
    match path.split_once(':') {
        Some((route, mailbox))
            // If nothing follows it, it is not the null sender.
            if !mailbox.is_empty()
                && route.split(',').all(|hop| hop.strip_prefix('@').is_some_and(|host| Domain::parse(host).is_ok())) =>
        {
            mailbox
        }
        _ => path,
    }
}

fn end_of_local_part(text: &str) -> Result<usize, AddressError> {
    if text.starts_with('"') { end_of_quoted_string(text) } else { end_of_dot_string(text) }
}

fn end_of_quoted_string(text: &str) -> Result<usize, AddressError> {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if character.is_control() => return Err(AddressError::LocalPartSyntax),
            // Some servers remove the quotes, and then see `victim@elsewhere`.
            '@' | '%' | '!' => return Err(AddressError::HiddenRoute),
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' if at == 1 => return Err(AddressError::LocalPartLength),
            '"' => return Ok(at + 1),
            _ => {}
        }
    }
    Err(AddressError::LocalPartSyntax)
}

fn end_of_dot_string(text: &str) -> Result<usize, AddressError> {
    let end = text.find('@').unwrap_or(text.len());
    let local_part = &text[..end];
    if local_part.is_empty() {
        return Err(AddressError::LocalPartLength);
    }
    let has_text = local_part.chars().any(|character| character != '.');
    if has_text && local_part.chars().all(|character| character == '.' || is_atext(character)) {
        Ok(end)
    } else {
        Err(AddressError::LocalPartSyntax)
    }
}

/// Japan's mobile carriers issued `a..b@docomo.ne.jp` and `a.@ezweb.ne.jp`, which RFC 5321 §4.1.2 allows only in
/// quotes.
fn with_quoted_dots(local_part: &str) -> String {
    let is_quoted = local_part.starts_with('"');
    if is_quoted || local_part.split('.').all(|atom| !atom.is_empty()) {
        return local_part.to_owned();
    }
    format!("\"{local_part}\"")
}

// RFC 5322 §3.2.3 atext, except "%" and "!": both are hidden routes ("user%victim@relay", "victim!user") that a
// provider might follow. RFC 6531 §3.3 adds every non-ASCII character.
fn is_atext(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || "#$&'*+-/=?^_`{|}~".contains(character)
        || (!character.is_ascii() && !character.is_control() && !character.is_whitespace())
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(|c| {
            c.is_ascii_alphanumeric()
                || c == '-'
                || c == '_'
                || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
        })
}

fn is_address_literal(literal: &str) -> bool {
    match literal.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => literal[5..].parse::<std::net::Ipv6Addr>().is_ok(),
        _ => literal.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_travel_verbatim() {
        for text in [
            "user@example.com",
            "\"a b\"@c",
            r#""a\"b"@c"#,
            "\"a>b\"@example.com",
            "a@[127.0.0.1]",
            "a@[IPv6:::1]",
            "jürgen@exämple.com",
            "user+tag@sub.example.com",
        ] {
            assert_eq!(Mailbox::parse(text).map(|mailbox| mailbox.to_string()).as_deref(), Ok(text), "{text}");
        }
    }

    #[test]
    fn addresses_that_hide_a_route_or_are_broken_are_refused() {
        use AddressError::*;
        for (text, error) in [
            ("a%evil@us", LocalPartSyntax),
            ("evil!a", LocalPartSyntax),
            ("a@evil@us", DomainSyntax),
            ("a@us:2025", DomainSyntax),
            ("", LocalPartLength),
            ("@us", LocalPartLength),
            ("a", NoDomain),
            ("a@", NoDomain),
            ("Postmaster", LocalPostmaster),
            ("\"\"@us", LocalPartLength),
            ("..@us", LocalPartSyntax),
            (".@us", LocalPartSyntax),
            ("a..b%c@us", LocalPartSyntax),
            (".a b@us", LocalPartSyntax),
            ("a b@us", LocalPartSyntax),
            ("a\u{a0}@us", LocalPartSyntax),
            ("\u{2028}a@us", LocalPartSyntax),
            ("a\u{85}@us", LocalPartSyntax),
            ("a\u{c}@us", LocalPartSyntax),
            ("a@us\u{a0}", DomainSyntax),
            ("a@us\u{2028}", DomainSyntax),
            ("a@us\u{b}", DomainSyntax),
            ("a@-us", DomainSyntax),
            ("a@us..com", DomainSyntax),
            ("a@[300.0.0.1]", DomainSyntax),
            ("\"a\u{0}b\"@us", LocalPartSyntax),
            ("\"a@evil\"@us", HiddenRoute),
            ("\"a\\@evil\"@us", HiddenRoute),
            ("\"a%evil\"@us", HiddenRoute),
            ("\"evil!a\"@us", HiddenRoute),
        ] {
            assert_eq!(Mailbox::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn dots_that_need_quotes_get_them() {
        for (text, written) in [
            ("a..b@docomo.ne.jp", "\"a..b\"@docomo.ne.jp"),
            ("a.@ezweb.ne.jp", "\"a.\"@ezweb.ne.jp"),
            (".a@example.com", "\".a\"@example.com"),
            ("-.a-...@example.com", "\"-.a-...\"@example.com"),
            ("j\u{fc}rgen..x@example.com", "\"j\u{fc}rgen..x\"@example.com"),
            ("\"a..b\"@example.com", "\"a..b\"@example.com"),
            ("a.b@example.com", "a.b@example.com"),
        ] {
            let mailbox = Mailbox::parse(text).expect(text);
            assert_eq!(mailbox.to_string(), written);
            assert_eq!(Mailbox::parse(written).as_ref(), Ok(&mailbox));
            assert_eq!(mailbox.identity(), text.replace('"', ""));
            assert_eq!(mailbox.needs_quotes_for_dots(), text != "a.b@example.com", "{text}");
        }
        let long = |octets: usize| format!("{}.@example.com", "l".repeat(octets - 1));
        assert!(Mailbox::parse(&long(62)).is_ok());
        assert_eq!(Mailbox::parse(&long(63)), Err(AddressError::LocalPartDots));
        assert_eq!(Mailbox::parse(&long(64)), Err(AddressError::LocalPartDots));
        assert_eq!(Mailbox::parse(&long(65)), Err(AddressError::LocalPartLength));
    }

    #[test]
    fn lengths_are_those_of_rfc_5321() {
        let local = "l".repeat(64);
        assert!(Mailbox::parse(&format!("{local}@example.com")).is_ok());
        assert_eq!(Mailbox::parse(&format!("{local}l@example.com")), Err(AddressError::LocalPartLength));
        let label = "d".repeat(63);
        let path = |last: usize| format!("<{local}@{label}.{label}.{}>", "e".repeat(last));
        let longest = path(256 - path(0).len());
        assert_eq!(longest.len(), 256);
        assert!(split_path(longest.as_bytes()).is_ok_and(|(inner, _)| Mailbox::parse(inner).is_ok()));
        assert_eq!(split_path(path(257 - path(0).len()).as_bytes()), Err(AddressError::PathLength));
    }

    #[test]
    fn a_source_route_is_dropped_and_quotes_hide_brackets() {
        assert_eq!(split_path(b"<@us,@x:a@evil> SIZE=1"), Ok(("a@evil", &b" SIZE=1"[..])));
        assert_eq!(split_path(b"<\"a>b\"@c>"), Ok(("\"a>b\"@c", &b""[..])));
        assert_eq!(split_path(b"<@us:>"), Ok(("@us:", &b""[..])));
        assert_eq!(split_path(b"Example <a@b>"), Err(AddressError::DisplayName));
        assert_eq!(split_path(b"a@b"), Err(AddressError::NoBrackets));
        assert_eq!(split_path(b"<a@\xff>"), Err(AddressError::Utf8));
    }

    #[test]
    fn one_mailbox_has_many_spellings_and_one_identity() {
        let identity = |text: &str| Mailbox::parse(text).expect(text).identity();
        for spellings in [
            &["a@example.com", "a@EXAMPLE.com", "\"a\"@Example.Com", "\"\\a\"@example.com"][..],
            &["a.b@example.com", "\"a.b\"@example.com"],
            &["\"a b\"@example.com", "\"a\\ b\"@example.com"],
            &["\"a\\\"b\"@example.com"],
            &["\"a\\\\b\"@example.com"],
            &["A@example.com"],
            &["a@b\u{fc}cher.example", "a@xn--bcher-kva.example", "a@B\u{dc}CHER.example", "a@XN--BCHER-KVA.example"],
            &["j\u{fc}rgen@example.com", "\"j\u{fc}rgen\"@example.com"],
            &["a@[IPv6:::1]", "a@[ipv6:0:0:0:0:0:0:0:1]"],
            &["a@[127.0.0.1]"],
            &["a+tag@example.com"],
            &["a@sub.example.com"],
            &["a@exa_mple.com", "a@Exa_mple.com"],
        ] {
            let all: Vec<_> = spellings.iter().map(|spelling| identity(spelling)).collect();
            assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
            for other in ["b@example.com", "a@example.org", "A.b@example.com", "a.b@sub.example.com"] {
                assert_ne!(all[0], identity(other));
            }
        }
    }

    #[test]
    fn a_domain_lies_within_its_parent_only() {
        let domain = |text| Domain::parse(text).expect("a domain");
        assert!(domain("news.example.com").is_within(&domain("Example.com")));
        assert!(domain("example.com").is_within(&domain("example.com")));
        assert!(!domain("badexample.com").is_within(&domain("example.com")));
        assert!(!domain("com").is_within(&domain("example.com")));
    }
}
