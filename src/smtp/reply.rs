//! Replies: the type both sides share, the listener's constants, and the parser for what a provider sends.
//!
//! A reply is a code, an optional enhanced code and text without line breaks. What a reply means for a message is
//! decided in `message::outcome`. RFC 5321 §4.2, RFC 2034, RFC 3463.

use crate::text::cleaned;
use std::borrow::Cow;
use std::fmt;

/// Octets of one reply line with its CRLF, RFC 5321 §4.5.3.1.5.
const MAX_LINE: usize = 512;

/// Octets kept of a provider's reply for one recipient: twice the longest line of RFC 5321.
const MAX_KEPT: usize = 1024;

/// An enhanced status code such as 4.7.1. RFC 3463 §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    pub class: u8,
    pub subject: u16,
    pub detail: u16,
}

impl EnhancedCode {
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// `class.subject.detail` with class 2, 4 or 5 and up to three digits each.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let class = parts.next()?;
        let subject = parts.next()?;
        let detail = parts.next()?;
        let number = |part: &str| {
            ((1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
                .then(|| part.parse().ok())
                .flatten()
        };
        let class = match class {
            "2" => 2,
            "4" => 4,
            "5" => 5,
            _ => return None,
        };
        parts.next().is_none().then_some(())?;
        Some(Self::new(class, number(subject)?, number(detail)?))
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// The first digit of a reply code, which alone decides what a client does next. RFC 5321 §4.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// 2yz
    Completed,
    /// 3yz
    Intermediate,
    /// 4yz
    Transient,
    /// 5yz
    Permanent,
}

/// One reply, of the listener or of a provider.
///
/// Invariant: 200 ≤ code ≤ 599; the text contains neither CR, LF, NUL nor other control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<EnhancedCode>,
    lines: Vec<Cow<'static, str>>,
}

macro_rules! fixed_replies {
    ($($(#[$doc:meta])* $name:ident = $code:literal $($class:literal . $subject:literal . $detail:literal)? , $text:literal;)*) => {
        impl Reply {
            $($(#[$doc])* pub fn $name() -> Self {
                #[allow(unused_mut, unused_assignments, reason = "a row without an enhanced code leaves it as it is")]
                let mut enhanced = None;
                $(enhanced = Some(EnhancedCode::new($class, $subject, $detail));)?
                Self { code: $code, enhanced, lines: vec![Cow::Borrowed($text)] }
            })*
        }
    };
}

fixed_replies! {
    ok = 250 2 . 0 . 0, "OK";
    goodbye = 221 2 . 0 . 0, "Goodbye";
    sender_ok = 250 2 . 1 . 0, "Sender OK";
    recipient_ok = 250 2 . 1 . 5, "Recipient OK";
    flushed = 250 2 . 0 . 0, "Flushed";
    ready_for_tls = 220 2 . 0 . 0, "Ready to start TLS";
    authenticated = 235 2 . 7 . 0, "Authentication succeeded";
    start_mail_input = 354, "End data with <CR><LF>.<CR><LF>";
    cannot_verify = 252 2 . 5 . 0, "Cannot verify here; send the mail and see";
    help = 214 2 . 0 . 0, "This is waxseal, a relay. Commands: EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET NOOP QUIT VRFY HELP";
    unknown_command = 500 5 . 5 . 1, "Unknown command";
    line_too_long = 500 5 . 5 . 2, "Line too long";
    bare_line_feed = 500 5 . 5 . 2, "A command line ends with CRLF, not with a bare LF";
    not_implemented = 502 5 . 5 . 1, "Command not implemented";
    bad_sequence = 503 5 . 5 . 1, "Bad sequence of commands";
    nested_mail = 503 5 . 5 . 1, "A message is under way; send RSET first";
    already_authenticated = 503 5 . 5 . 1, "Already authenticated";
    tls_already_active = 503 5 . 5 . 1, "TLS is already active";
    need_greeting = 503 5 . 5 . 1, "Send EHLO or HELO first";
    need_mail = 503 5 . 5 . 1, "Send MAIL first";
    need_recipient = 503 5 . 5 . 1, "Send RCPT first; no recipient was accepted";
    must_start_tls = 530 5 . 7 . 0, "Must issue a STARTTLS command first";
    authentication_required = 530 5 . 7 . 0, "Authentication required: this client's address is not in the listener's `allow`, so it must log in";
    login_required = 530 5 . 7 . 0, "Authentication required: this listener's `auth` is \"required\"";
    not_allowed = 530 5 . 7 . 0, "This client's address is not in the listener's `allow`, and logins are turned off on this listener";
    no_starttls_here = 502 5 . 5 . 1, "STARTTLS is not offered on this listener; turn TLS off in the application's mail settings, or set the listener to tls = \"starttls\"";
    no_logins_here = 502 5 . 5 . 1, "Logins are turned off on this listener (`auth` is \"off\", or there is no [[user]]); take user name and password out of the application's mail settings";
    empty_credentials = 535 5 . 7 . 8, "User name or password is empty; set both in the application's mail settings, or turn its authentication off";
    authentication_failed = 535 5 . 7 . 8, "Authentication credentials invalid";
    logins_busy = 454 4 . 7 . 0, "Too many logins wait to be checked; try again in a moment";
    authentication_cancelled = 501 5 . 7 . 0, "Authentication cancelled";
    bad_base64 = 501 5 . 5 . 2, "Cannot decode this; send base64";
    bad_mechanism = 504 5 . 5 . 4, "Mechanism not supported; use PLAIN or LOGIN";
    encryption_required_for_auth = 538 5 . 7 . 11, "Encryption required for the requested authentication mechanism";
    too_many_recipients = 452 4 . 5 . 3, "Too many recipients; send the others in another transaction";
    message_too_big = 552 5 . 3 . 4, "Message is larger than the listener's `max_message_size`";
    too_many_errors = 421 4 . 7 . 0, "Too many errors; closing the connection";
    too_many_commands = 421 4 . 7 . 0, "Too many commands without a login; closing the connection";
    login_overdue = 421 4 . 4 . 2, "No login within two minutes; closing the connection";
    too_many_logins = 421 4 . 7 . 0, "Too many failed logins; closing the connection";
    shutting_down = 421 4 . 3 . 2, "The gateway is shutting down; try again soon";
    cut_off = 451 4 . 3 . 2, "The gateway stops, and the provider has not answered yet; the message may have been delivered";
    too_many_connections = 421 4 . 3 . 2, "Too many connections; try again later";
    too_many_connections_from_address = 421 4 . 7 . 0, "Too many connections from your address; try again later";
    too_many_without_login = 421 4 . 7 . 0, "Too many connections from your address without a login; try again in a minute";
    evicted = 421 4 . 7 . 0, "Too many connections from your address; this one waited longest for its login and was closed";
    timed_out = 421 4 . 4 . 2, "Timed out waiting for the client";
    not_a_mail_client = 421 4 . 7 . 0, "This is an SMTP server";
    no_memory = 452 4 . 3 . 1, "Out of memory for messages; try again later";
    never_enough_memory = 552 5 . 3 . 4, "Message and the rules for it need more memory than there is for all mail coming in (half of `max_memory`)";
    no_space = 452 4 . 3 . 1, "Out of space for messages (the gateway's disk is nearly full); try again later";
    internal_error = 451 4 . 3 . 0, "Internal error; the log says more";
    queue_moved = 451 4 . 3 . 0, "The gateway's queue was moved or deleted while it runs; its operator has to restart it; try again later";
    still_in_progress = 451 4 . 4 . 0, "This message was submitted before, and the provider has not answered yet; try again later";
    storage_trouble = 451 4 . 3 . 0, "Local storage trouble; try again later";
    mail_loop = 554 5 . 4 . 6, "Too many Received headers: the message is in a loop";
    stray_line_ending = 550 5 . 5 . 2, "A dot stands alone on a line that a bare CR or LF delimits; such a message is refused whole";
    bare_line_ending = 550 5 . 5 . 2, "The message has a bare CR or LF and the listener's `line_endings` is \"reject\"";
    nul_in_message = 550 5 . 5 . 2, "The message has a NUL byte";
    header_too_large = 552 5 . 3 . 4, "The message's header is larger than 256 KiB";
}

impl Reply {
    /// A reply of one line. Control characters and direction overrides in `text` become `?`, so that no reply can
    /// imitate a second one.
    pub fn new(code: u16, enhanced: EnhancedCode, text: impl AsRef<str>) -> Self {
        Self { code: code.clamp(200, 599), enhanced: Some(enhanced), lines: vec![Cow::Owned(cleaned(text.as_ref()))] }
    }

    /// A reply of several lines and without an enhanced code (greeting, EHLO, 334).
    pub fn plain(code: u16, lines: impl IntoIterator<Item = String>) -> Self {
        let mut lines: Vec<_> = lines.into_iter().map(|line| Cow::Owned(cleaned(&line))).collect();
        if lines.is_empty() {
            lines.push(Cow::Borrowed(""));
        }
        Self { code: code.clamp(200, 599), enhanced: None, lines }
    }

    pub fn code(&self) -> u16 {
        self.code
    }

    pub fn enhanced(&self) -> Option<EnhancedCode> {
        self.enhanced
    }

    pub fn severity(&self) -> Severity {
        match self.code {
            ..300 => Severity::Completed,
            300..400 => Severity::Intermediate,
            400..500 => Severity::Transient,
            _ => Severity::Permanent,
        }
    }

    pub fn is_positive(&self) -> bool {
        matches!(self.severity(), Severity::Completed | Severity::Intermediate)
    }

    /// The lines without the code; the enhanced code is removed from the lines of a parsed reply.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(AsRef::as_ref)
    }

    /// All lines on one line, separated by spaces.
    pub fn text(&self) -> String {
        self.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// The same reply on one line of at most 512 octets, because one of Plausible's clients treats a multi-line 250 as
    /// a failure.
    pub fn folded(&self) -> Self {
        let code_length = "250 5.123.123 \r\n".len();
        let text = truncate(&self.text(), MAX_LINE - code_length).to_owned();
        Self { code: self.code, enhanced: self.enhanced, lines: vec![Cow::Owned(text)] }
    }

    /// The same reply with different text.
    pub fn with_lines<'a>(&self, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let lines = lines.into_iter().map(|line| Cow::Owned(cleaned(line))).collect();
        Self { code: self.code, enhanced: self.enhanced, lines }
    }

    /// The same reply, cut off after `MAX_KEPT` octets of text.
    pub fn shortened(mut self) -> Self {
        let mut room = MAX_KEPT;
        for line in &mut self.lines {
            if line.len() > room {
                *line = Cow::Owned(truncate(line, room).to_owned());
            }
            room -= line.len();
        }
        let said = self.lines.iter().rposition(|line| !line.is_empty()).unwrap_or(0);
        self.lines.truncate(said + 1);
        self.lines.shrink_to_fit();
        self
    }

    /// Wire form, CRLF included. Each line is cut to 512 octets; a code is always followed by a space or hyphen and text
    /// (a bare `250` crashes both of Plausible's clients).
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let last = self.lines.len() - 1;
        for (number, line) in self.lines.iter().enumerate() {
            let start = out.len();
            out.extend_from_slice(self.code.to_string().as_bytes());
            out.push(if number == last { b' ' } else { b'-' });
            if let Some(enhanced) = self.enhanced {
                out.extend_from_slice(format!("{enhanced} ").as_bytes());
            }
            let room = MAX_LINE - 2 - (out.len() - start);
            out.extend_from_slice(truncate(line, room).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// `code enhanced text`, on one line.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        let text = self.text();
        if text.is_empty() { Ok(()) } else { write!(f, " {text}") }
    }
}

/// Why a provider's bytes are not a valid reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("the reply is not of the form \"250 text\"")]
    Syntax,
    #[error("the lines of one reply carry different codes")]
    MixedCodes,
    #[error("a reply line is longer than 2048 octets")]
    LineTooLong,
    #[error("a reply has more than 100 lines")]
    TooManyLines,
}

/// Collects one reply from bytes as they arrive. Lenient where real providers are sloppy (LF alone, no text, lines
/// longer than 512), strict where leniency would be dangerous (mixed codes, endless replies).
#[derive(Debug, Default)]
pub struct ReplyParser {
    lines: Vec<(u16, String)>,
}

impl ReplyParser {
    const MAX_LINE: usize = 2048;
    const MAX_LINES: usize = 100;

    /// Reads lines from the front of `input`; returns the bytes consumed and the reply, if its last line was among
    /// them. Never consumes bytes after the last line.
    pub fn parse(&mut self, input: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        let mut consumed = 0;
        while let Some(end) = memchr::memchr(b'\n', &input[consumed..]) {
            let line = &input[consumed..consumed + end];
            consumed += end + 1;
            if self.push_line(line.strip_suffix(b"\r").unwrap_or(line))? {
                return Ok((consumed, Some(self.finish())));
            }
        }
        if input.len() - consumed > Self::MAX_LINE { Err(ReplyError::LineTooLong) } else { Ok((consumed, None)) }
    }

    /// True if this was the last line of the reply.
    fn push_line(&mut self, line: &[u8]) -> Result<bool, ReplyError> {
        if line.len() > Self::MAX_LINE {
            return Err(ReplyError::LineTooLong);
        }
        let (digits, rest) = line.split_at_checked(3).ok_or(ReplyError::Syntax)?;
        let code: u16 =
            std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(ReplyError::Syntax)?;
        if !(200..=599).contains(&code) || !digits.iter().all(u8::is_ascii_digit) {
            return Err(ReplyError::Syntax);
        }
        let (last, text) = match rest.split_first() {
            None => (true, &b""[..]),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return Err(ReplyError::Syntax),
        };
        if self.lines.first().is_some_and(|(first, _)| *first != code) {
            return Err(ReplyError::MixedCodes);
        }
        if self.lines.len() == Self::MAX_LINES {
            return Err(ReplyError::TooManyLines);
        }
        self.lines.push((code, cleaned(&String::from_utf8_lossy(text))));
        Ok(last)
    }

    fn finish(&mut self) -> Reply {
        let lines = std::mem::take(&mut self.lines);
        let code = lines.first().map_or(500, |(code, _)| *code);
        // From the first line that contains text.
        let spoken = lines.iter().find(|(_, text)| !text.is_empty());
        let enhanced = spoken.and_then(|(_, text)| leading_enhanced_code(text, code));
        let lines = lines
            .into_iter()
            .map(|(_, text)| match enhanced {
                Some(enhanced) => Cow::Owned(without_prefix(&text, &enhanced.to_string()).to_owned()),
                None => Cow::Owned(text),
            })
            .collect();
        Reply { code, enhanced, lines }
    }
}

// RFC 2034 §4: the class must match the code's first digit; otherwise it is part of the text.
fn leading_enhanced_code(text: &str, code: u16) -> Option<EnhancedCode> {
    let word = text.split(' ').next()?;
    EnhancedCode::parse(word).filter(|enhanced| u16::from(enhanced.class) == code / 100)
}

fn without_prefix<'a>(text: &'a str, enhanced: &str) -> &'a str {
    match text.strip_prefix(enhanced) {
        Some("") => "",
        Some(rest) => rest.strip_prefix(' ').unwrap_or(text),
        None => text,
    }
}

fn truncate(text: &str, octets: usize) -> &str {
    &text[..text.floor_char_boundary(octets)]
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(input: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        ReplyParser::default().parse(input)
    }

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        String::from_utf8(out).expect("replies are UTF-8")
    }

    #[test]
    fn replies_of_real_servers_are_understood() {
        for (input, code, enhanced, text) in [
            (&b"250 2.1.0 Ok\r\n"[..], 250, Some("2.1.0"), "Ok"),
            (b"250\r\n", 250, None, ""),
            (b"250 \n", 250, None, ""),
            (b"250-one\r\n250-two\r\n250 three\r\n", 250, None, "one two three"),
            (b"550-5.1.1 no such\r\n550 5.1.1 user\r\n", 550, Some("5.1.1"), "no such user"),
            (b"550-\r\n550 5.1.1 no such user\r\n", 550, Some("5.1.1"), "no such user"),
            (b"451 5.7.1 class differs\r\n", 451, None, "5.7.1 class differs"),
            (b"421 a\x1b[31mb\xff\r\n", 421, None, "a?[31mb\u{fffd}"),
            ("550 a\u{202e}b\u{2028}c\u{2066}ü\r\n".as_bytes(), 550, None, "a?b?c?ü"),
        ] {
            let (consumed, reply) = parse(input).expect("a reply");
            let reply = reply.expect("a whole reply");
            assert_eq!(consumed, input.len());
            assert_eq!((reply.code(), reply.text().as_str()), (code, text));
            assert_eq!(reply.enhanced().map(|e| e.to_string()).as_deref(), enhanced);
        }
    }

    #[test]
    fn an_invalid_reply_is_an_error() {
        assert_eq!(parse(b"hello\r\n"), Err(ReplyError::Syntax));
        assert_eq!(parse(b"2500 x\r\n"), Err(ReplyError::Syntax));
        assert_eq!(parse(b"999 x\r\n"), Err(ReplyError::Syntax));
        assert_eq!(parse(b"+50 x\r\n"), Err(ReplyError::Syntax));
        assert_eq!(parse(b"250-a\r\n251 b\r\n"), Err(ReplyError::MixedCodes));
        assert_eq!(parse(&[b'2'; 3000]), Err(ReplyError::LineTooLong));
        assert_eq!(parse(&b"250-a\r\n".repeat(101)), Err(ReplyError::TooManyLines));
    }

    #[test]
    fn bytes_behind_a_reply_stay() {
        assert_eq!(parse(b"220 go\r\n250 injected\r\n").map(|(consumed, _)| consumed), Ok(8));
    }

    #[test]
    fn what_is_kept_of_a_providers_reply_is_bounded() {
        for line in ["x", "\u{fc}", "xyz", ""] {
            let long = Reply::plain(550, (0..100).map(|_| line.repeat(2000 / line.len().max(1))));
            let kept = long.clone().shortened();
            assert!(kept.lines().map(str::len).sum::<usize>() <= MAX_KEPT, "{line}");
            assert!(long.text().starts_with(&kept.text()) && kept.code() == 550);
        }
        let short = Reply::plain(550, ["one".to_owned(), String::new(), "two".to_owned()]);
        assert_eq!(short.clone().shortened(), short);
    }

    #[test]
    fn a_folded_reply_is_one_line_of_at_most_512_octets() {
        let long = Reply::plain(250, (0..20).map(|_| "ü".repeat(100)));
        let text = wire(&long.folded());
        assert_eq!(text.matches("\r\n").count(), 1);
        assert!(text.len() <= 512, "{}", text.len());
    }

    #[test]
    fn text_cannot_forge_a_second_reply() {
        assert_eq!(wire(&Reply::new(550, EnhancedCode::new(5, 0, 0), "a\r\n250 b")), "550 5.0.0 a??250 b\r\n");
    }
}
