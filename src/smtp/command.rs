//! Commands a client may send, parsed from one line without its CRLF.
//!
//! Says what a line means, never whether it is allowed now; that is up to `inbound::session`. RFC 5321 §4.1.1, RFC 1870
//! §3, RFC 4954 §4, RFC 6152, RFC 6531 §3.4.

use super::address::{AddressError, EhloName, Mailbox, ReversePath, split_path};
use super::reply::{EnhancedCode, Reply};

/// BODY= of MAIL. RFC 6152 §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyType {
    #[default]
    SevenBit,
    EightBitMime,
}

/// Parameters of MAIL that waxseal advertises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailParameters {
    /// Octets, RFC 1870 §6.
    pub size: Option<u64>,
    pub body: BodyType,
    pub smtputf8: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Ehlo(EhloName),
    Helo(EhloName),
    StartTls,
    /// Mechanism in upper case, and the initial response as sent (base64, or `=` for empty).
    Auth {
        mechanism: String,
        initial: Option<String>,
    },
    Mail {
        sender: ReversePath,
        parameters: MailParameters,
    },
    Rcpt {
        recipient: Mailbox,
    },
    Data,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Expn,
    Help,
}

/// Why a line is not a command, each with its reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("unknown command")]
    Unknown,
    /// A web browser was tricked into connecting to us (CVE-2021-3618).
    #[error("this is a web client")]
    Http,
    #[error("EHLO and HELO take a name")]
    MissingName,
    #[error("{verb} takes no argument")]
    UnexpectedArgument { verb: &'static str },
    #[error("{expected}")]
    Syntax { expected: &'static str },
    #[error("bad sender: {0}")]
    Sender(AddressError),
    #[error("bad recipient: {0}")]
    Recipient(AddressError),
    #[error("bad value of {name}")]
    ParameterValue { name: &'static str },
    #[error("unknown parameter {name}")]
    UnknownParameter { name: String },
    #[error("the parameter {name} stands there twice")]
    RepeatedParameter { name: String },
    #[error("the command has a control character")]
    ControlCharacter,
}

impl CommandError {
    pub fn reply(&self) -> Reply {
        let (code, enhanced) = match self {
            Self::Unknown => return Reply::unknown_command(),
            Self::Http => return Reply::not_a_mail_client(),
            Self::ControlCharacter => (500, EnhancedCode::new(5, 5, 2)),
            Self::Recipient(AddressError::LocalPostmaster) => (550, EnhancedCode::new(5, 1, 1)),
            Self::Sender(_) => (501, EnhancedCode::new(5, 1, 7)),
            Self::Recipient(_) => (501, EnhancedCode::new(5, 1, 3)),
            Self::UnknownParameter { .. } => (555, EnhancedCode::new(5, 5, 4)),
            Self::MissingName
            | Self::UnexpectedArgument { .. }
            | Self::Syntax { .. }
            | Self::ParameterValue { .. }
            | Self::RepeatedParameter { .. } => (501, EnhancedCode::new(5, 5, 4)),
        };
        Reply::new(code, enhanced, sentence(&self.to_string()))
    }
}

impl Command {
    /// Parses one line without its CRLF. Verbs in any case; trailing spaces and tabs are ignored.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        // Nothing else is white space here: a CR before the CRLF is a bare CR. RFC 5321 §2.3.8
        let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
        let line = &line[..end];
        if line.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(CommandError::ControlCharacter);
        }
        let end = line.iter().position(|&byte| byte == b' ' || byte == b'\t').unwrap_or(line.len());
        let (verb, rest) = line.split_at(end);
        let argument = rest.trim_ascii_start();
        match verb.to_ascii_uppercase().as_slice() {
            b"EHLO" => EhloName::parse(argument).map(Self::Ehlo).ok_or(CommandError::MissingName),
            b"HELO" => EhloName::parse(argument).map(Self::Helo).ok_or(CommandError::MissingName),
            b"STARTTLS" => bare(argument, "STARTTLS", Self::StartTls),
            b"AUTH" => parse_auth(argument),
            b"MAIL" => parse_mail(argument),
            b"RCPT" => parse_rcpt(argument),
            b"DATA" => bare(argument, "DATA", Self::Data),
            b"RSET" => bare(argument, "RSET", Self::Rset),
            b"QUIT" => bare(argument, "QUIT", Self::Quit),
            b"NOOP" => Ok(Self::Noop),
            b"VRFY" => Ok(Self::Vrfy),
            b"EXPN" => Ok(Self::Expn),
            b"HELP" => Ok(Self::Help),
            b"GET" | b"POST" | b"PUT" | b"HEAD" | b"OPTIONS" | b"CONNECT" | b"DELETE" | b"PATCH" | b"TRACE" => {
                Err(CommandError::Http)
            }
            // RFC 9113 §3.4: the first word of HTTP/2.
            b"PRI" => Err(CommandError::Http),
            _ => Err(CommandError::Unknown),
        }
    }
}

fn bare(argument: &[u8], verb: &'static str, command: Command) -> Result<Command, CommandError> {
    if argument.is_empty() { Ok(command) } else { Err(CommandError::UnexpectedArgument { verb }) }
}

fn parse_auth(argument: &[u8]) -> Result<Command, CommandError> {
    const EXPECTED: CommandError = CommandError::Syntax { expected: "expected: AUTH mechanism [initial-response]" };
    let text = std::str::from_utf8(argument).map_err(|_| EXPECTED)?;
    let mut words = text.split_ascii_whitespace();
    let mechanism = words.next().ok_or(EXPECTED)?.to_ascii_uppercase();
    let initial = words.next().map(str::to_owned);
    if words.next().is_some() { Err(EXPECTED) } else { Ok(Command::Auth { mechanism, initial }) }
}

fn parse_mail(argument: &[u8]) -> Result<Command, CommandError> {
    let expected = CommandError::Syntax { expected: "expected: MAIL FROM:<address> [parameters]" };
    let path = after_keyword(argument, b"FROM:").ok_or(expected)?;
    let (address, rest) = split_path(path).map_err(CommandError::Sender)?;
    let sender = if address.is_empty() {
        ReversePath::Null
    } else {
        ReversePath::Mailbox(Mailbox::parse(address).map_err(CommandError::Sender)?)
    };
    let mut parameters = MailParameters::default();
    for (name, value) in split_parameters(rest)? {
        match (name.to_ascii_uppercase().as_str(), value) {
            // RFC 1870 §4: 1 to 20 digits.
            ("SIZE", Some(value)) if value.len() <= 20 && value.bytes().all(|b| b.is_ascii_digit()) => {
                parameters.size = Some(value.parse().map_err(|_| CommandError::ParameterValue { name: "SIZE" })?);
            }
            ("BODY", Some(value)) => {
                parameters.body = match value.to_ascii_uppercase().as_str() {
                    "7BIT" => BodyType::SevenBit,
                    "8BITMIME" => BodyType::EightBitMime,
                    _ => return Err(CommandError::ParameterValue { name: "BODY" }),
                };
            }
            ("SMTPUTF8", None) => parameters.smtputf8 = true,
            // RFC 4954 §5: a relay that does not vouch for the submitter accepts AUTH= and drops it.
            ("AUTH", Some(value)) if is_submitter(value) => {}
            ("SIZE", _) => return Err(CommandError::ParameterValue { name: "SIZE" }),
            ("BODY", _) => return Err(CommandError::ParameterValue { name: "BODY" }),
            ("SMTPUTF8", _) => return Err(CommandError::ParameterValue { name: "SMTPUTF8" }),
            ("AUTH", _) => return Err(CommandError::ParameterValue { name: "AUTH" }),
            _ => return Err(CommandError::UnknownParameter { name: name.to_owned() }),
        }
    }
    Ok(Command::Mail { sender, parameters })
}

fn parse_rcpt(argument: &[u8]) -> Result<Command, CommandError> {
    let expected = CommandError::Syntax { expected: "expected: RCPT TO:<address>" };
    let path = after_keyword(argument, b"TO:").ok_or(expected)?;
    let (address, rest) = split_path(path).map_err(CommandError::Recipient)?;
    if address.is_empty() {
        return Err(CommandError::Recipient(AddressError::Empty));
    }
    let recipient = Mailbox::parse(address).map_err(CommandError::Recipient)?;
    match split_parameters(rest)?.into_iter().next() {
        Some((name, _)) => Err(CommandError::UnknownParameter { name: name.to_owned() }),
        None => Ok(Command::Rcpt { recipient }),
    }
}

/// The text after `FROM:` or `TO:`. Plausible's current client writes a space after the colon.
fn after_keyword<'a>(argument: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = argument.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| rest.trim_ascii_start())
}

/// `<>`, or a mailbox as xtext. RFC 4954 §5.
fn is_submitter(value: &str) -> bool {
    value == "<>" || decode_xtext(value).is_some_and(|mailbox| Mailbox::parse(&mailbox).is_ok())
}

/// `+` and two upper-case hexadecimal digits represent an octet. RFC 3461 §4; RFC 6531 §3.3 allows non-ASCII characters
/// unchanged.
fn decode_xtext(text: &str) -> Option<String> {
    let digit = |octet: &u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    };
    let mut decoded = Vec::new();
    let mut octets = text.as_bytes().iter();
    while let Some(&octet) = octets.next() {
        decoded.push(match octet {
            b'+' => digit(octets.next()?)? * 16 + digit(octets.next()?)?,
            octet => octet,
        });
    }
    String::from_utf8(decoded).ok()
}

// RFC 5321 §4.1.2 esmtp-param: keyword ["=" value], each after a space.
fn split_parameters(rest: &[u8]) -> Result<Vec<(&str, Option<&str>)>, CommandError> {
    const EXPECTED: CommandError =
        CommandError::Syntax { expected: "expected a space and parameters after the address" };
    let rest = std::str::from_utf8(rest).map_err(|_| EXPECTED)?;
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    if !rest.starts_with(' ') {
        return Err(EXPECTED);
    }
    let mut parameters: Vec<(&str, Option<&str>)> = Vec::new();
    for word in rest.split(' ').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        if !is_keyword(name) || !value.is_none_or(is_parameter_value) {
            return Err(EXPECTED);
        }
        // The next server might use the other one of two sizes.
        if parameters.iter().any(|(before, _)| before.eq_ignore_ascii_case(name)) {
            return Err(CommandError::RepeatedParameter { name: name.to_owned() });
        }
        parameters.push((name, value));
    }
    Ok(parameters)
}

fn is_keyword(name: &str) -> bool {
    !name.starts_with('-')
        && !name.is_empty()
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
}

/// Neither `=` nor white space; RFC 6531 §3.3 allows non-ASCII characters.
fn is_parameter_value(value: &str) -> bool {
    !value.is_empty()
        && value.chars().all(|character| character != '=' && !character.is_control() && !character.is_whitespace())
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &[u8]) -> u16 {
        Command::parse(line).map_or_else(|error| error.reply().code(), |_| 250)
    }

    #[test]
    fn lines_and_their_codes() {
        for (line, expected) in [
            (&b"ehlo there"[..], 250),
            (b"EHLO", 501),
            (b"EHLO   ", 501),
            (b"EHLO {}", 250),
            (b"NOOP anything  ", 250),
            (b"noop\t", 250),
            (b"NOOP\r", 500),
            (b"NOOP\x0c", 500),
            (b" NOOP", 500),
            (b"LHLO x", 500),
            (b"", 500),
            (b"MAIL FROM:<>", 250),
            (b"MAIL FROM: <a@b>", 250),
            (b"mail from:<a@b> size=10 body=8bitmime SMTPUTF8", 250),
            (b"MAIL FROM:a@b", 501),
            (b"MAIL LALA:<>", 501),
            (b"MAIL FROM:<a@b>SIZE=1", 501),
            (b"MAIL FROM:<a@b> SIZE=abc", 501),
            (b"MAIL FROM:<a@b> SIZE=+1", 501),
            (b"MAIL FROM:<a@b> SIZE=99999999999999999999999", 501),
            (b"MAIL FROM:<a@b> BODY=foo", 501),
            (b"MAIL FROM:<a@b> FOO=bar", 555),
            (b"MAIL FROM:<a@b> SIZE=1 size=2", 501),
            (b"MAIL FROM:<a@b> BODY=7BIT BODY=8BITMIME", 501),
            (b"MAIL FROM:<a@b> SMTPUTF8 SMTPUTF8", 501),
            (b"MAIL FROM:<@c:>", 501),
            (b"MAIL FROM:<a@b> RET=HDRS", 555),
            (b"MAIL FROM:<a@\xff>", 501),
            ("MAIL FROM:<jürgen@b>".as_bytes(), 250),
            (b"RCPT TO:<>", 501),
            (b"RCPT TO:<Postmaster>", 550),
            (b"RCPT TO:<c@d> NOTIFY=NEVER", 555),
            (b"RCPT TO:<a@b>\rRCPT TO:<c@d>", 500),
            (b"RCPT TO:<a\x00@b>", 500),
            (b"DATA now", 501),
            (b"AUTH", 501),
            (b"AUTH PLAIN a b", 501),
            (b"GET / HTTP/1.1", 421),
            (b"PRI * HTTP/2.0", 421),
        ] {
            assert_eq!(code(line), expected, "{}", line.escape_ascii());
        }
    }

    /// Parameters of MAIL that are offered, and the reply code for a command with them.
    const KNOWN_PARAMETERS: &[(&str, u16)] = &[
        ("SIZE=0", 250),
        ("size=00000000000000000001", 250),
        ("SIZE=18446744073709551615", 250),
        ("SIZE=18446744073709551616", 501),
        ("SIZE=99999999999999999999", 501),
        ("SIZE=999999999999999999999", 501),
        ("SIZE", 501),
        ("SIZE=", 501),
        ("SIZE=+1", 501),
        ("SIZE=-1", 501),
        ("SIZE=1e3", 501),
        ("SIZE=0x10", 501),
        ("SIZE=1.5", 501),
        ("SIZE=1=2", 501),
        ("SIZE=\u{661}", 501),
        ("SIZE= 1", 501),
        ("BODY=7BIT", 250),
        ("body=8bitmime", 250),
        ("BODY", 501),
        ("BODY=", 501),
        ("BODY=8BIT", 501),
        ("BODY=BINARYMIME", 501),
        ("BODY=7BIT=8BITMIME", 501),
        ("SMTPUTF8", 250),
        ("SMTPUTF8=", 501),
        ("SMTPUTF8=x", 501),
        ("SMTPUTF8=YES", 501),
        ("AUTH=<>", 250),
        ("AUTH=e+3Dmc2@example.com", 250),
        ("auth=a+2Bb@example.com", 250),
        ("AUTH=+22a+20b+22@example.com", 250),
        ("AUTH=a@[127.0.0.1]", 250),
        ("AUTH=j\u{fc}rgen@example.com", 250),
        ("AUTH=j+C3+BCrgen@example.com", 250),
        ("AUTH", 501),
        ("AUTH=", 501),
        ("AUTH=<hey+A>", 501),
        ("AUTH=hey", 501),
        ("AUTH=hey+A@example.com", 501),
        ("AUTH=hey+4@example.com", 501),
        ("AUTH=hey@example.com+", 501),
        ("AUTH=hey+@example.com", 501),
        ("AUTH=e+3dmc2@example.com", 501),
        ("AUTH=e+GGmc2@example.com", 501),
        ("AUTH=e=mc2@example.com", 501),
        ("AUTH=a+FF@example.com", 501),
        ("AUTH=a+00@example.com", 501),
        ("AUTH=a+0D+0A@example.com", 501),
        ("AUTH=<a@example.com>", 501),
        ("AUTH=+3C+3E", 501),
        ("AUTH=<> AUTH=<>", 501),
    ];

    /// Parameters of extensions that are not offered, malformed ones, and several at once.
    const OTHER_PARAMETERS: &[(&str, u16)] = &[
        ("RET=FULL", 555),
        ("RET", 555),
        ("ENVID=QQ314159", 555),
        ("ENVID=+4", 555),
        ("NOTIFY=NEVER", 555),
        ("ORCPT=rfc822;a@b", 555),
        ("HOLDFOR=60", 555),
        ("BY=120;R", 555),
        ("REQUIRETLS", 555),
        ("MT-PRIORITY=4", 555),
        ("X", 555),
        ("8BIT=1", 555),
        ("X=1=2", 501),
        ("X=", 501),
        ("=", 501),
        ("=1", 501),
        ("-X=1", 501),
        ("X_Y=1", 501),
        ("X\u{fc}=1", 501),
        ("X=a\tb", 501),
        ("X=a\u{a0}b", 501),
        ("X=a\u{85}b", 501),
        ("SIZE=1\tBODY=7BIT", 501),
        ("X=a\u{1}b", 500),
        ("X=a\u{7f}b", 500),
        ("SIZE=1  BODY=7BIT", 250),
        ("SIZE=1 BODY=7BIT SMTPUTF8 AUTH=<>", 250),
        ("SIZE=1 Size=1", 501),
        ("SIZE=1 BODY=7BIT size=1", 501),
        ("X=1 x=1", 501),
    ];

    #[test]
    fn every_parameter_has_a_form_and_a_code() {
        for &(parameters, expected) in KNOWN_PARAMETERS.iter().chain(OTHER_PARAMETERS) {
            let line = format!("MAIL FROM:<a@b> {parameters}");
            assert_eq!(code(line.as_bytes()), expected, "{line}");
            // RCPT has no parameter of its own here.
            let at_rcpt = if [500, 501].contains(&expected) { &[500, 501, 555][..] } else { &[555] };
            let line = format!("RCPT TO:<a@b> {parameters}");
            assert!(at_rcpt.contains(&code(line.as_bytes())), "{line}");
        }
    }

    #[test]
    fn a_display_name_in_mail_from_is_named_in_the_reply() {
        let error = Command::parse(b"MAIL FROM: Example <reports@example.com>").expect_err("a name is not a path");
        assert!(error.reply().text().contains("display name"), "{}", error.reply());
        assert_eq!(error.reply().code(), 501);
    }
}
