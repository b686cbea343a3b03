//! How a single value is read: text, numbers, lists; each type says what it expects and what would be valid.
//!
//! The same [`Text`] reads a string of the file and a variable of the environment.

use super::problem::{Findings, Place};
use super::suggest::{nearest, one_of};
use crate::dkim::Selector;
use crate::message::pattern::{PatternError, SenderPatterns};
use crate::observe::log::LogOptions;
use crate::pem;
use crate::smtp::Domain;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// Any type that a key can have.
pub trait Value: Sized {
    /// A literal of this type must not be shown.
    const SECRET: bool = false;

    /// Completes "must be ...".
    fn expected() -> String;

    /// `None` after the problem was reported.
    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self>;
}

/// Any type that is written as a string.
pub trait Text: Sized {
    /// Completes "must be ...".
    const EXPECTED: &'static str;

    /// The same with more detail: the permitted words.
    fn expected() -> String {
        Self::EXPECTED.to_owned()
    }

    fn parse(text: &str) -> Result<Self, Complaint>;

    /// What to write instead of a number.
    fn instead_of_number(number: &str) -> Option<String> {
        Some(format!("put it in quotes: \"{number}\""))
    }
}

/// What is wrong with a text, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub message: String,
    pub help: Option<String>,
}

impl Complaint {
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }
}

/// Where a value reports what is wrong with it.
pub struct Complaints<'a> {
    pub key: &'a str,
    pub findings: &'a mut Findings,
}

impl Complaints<'_> {
    pub fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, expected: &str, help: Option<String>) {
        let found = kind(value.get_ref());
        let problem =
            self.findings.error(&Place::File(value.span()), format!("`{}` must be {expected}, not {found}", self.key));
        problem.help = help;
    }

    pub fn bad_value(&mut self, at: Range<usize>, complaint: Complaint) {
        let problem = self.findings.error(&Place::File(at), format!("`{}`: {}", self.key, complaint.message));
        problem.help = complaint.help;
    }
}

/// The kind of a value, in words.
pub fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<T: Text> Value for T {
    fn expected() -> String {
        <T as Text>::expected()
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let text = match value.get_ref() {
            DeValue::String(text) => text,
            DeValue::Integer(number) => {
                complaints.wrong_type(value, T::EXPECTED, T::instead_of_number(&number.to_string()));
                return None;
            }
            _ => {
                complaints.wrong_type(value, T::EXPECTED, None);
                return None;
            }
        };
        match T::parse(text) {
            Ok(read) => Some(read),
            Err(complaint) => {
                complaints.bad_value(value.span(), complaint);
                None
            }
        }
    }
}

impl Value for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let read = value.get_ref().as_bool();
        if read.is_none() {
            let in_quotes = value.get_ref().as_str().filter(|text| matches!(*text, "true" | "false"));
            complaints.wrong_type(
                value,
                &Self::expected(),
                in_quotes.map(|text| format!("write {text} without quotes")),
            );
        }
        read
    }
}

/// Each wrong item is reported separately.
impl<T: Value> Value for Vec<T> {
    fn expected() -> String {
        format!("a list, each item {}", T::expected())
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let DeValue::Array(items) = value.get_ref() else {
            let help = value.get_ref().as_str().map(|text| format!("put it in brackets: [\"{text}\"]"));
            complaints.wrong_type(value, "a list", help);
            return None;
        };
        let read: Vec<Option<T>> = items.iter().map(|item| T::read(item, complaints)).collect();
        read.into_iter().collect()
    }
}

/// A whole number within `MIN..=MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<const MIN: u64, const MAX: u64>(pub u64);

/// A count of at least one.
pub type Count = Number<1, 1_000_000>;
pub type PortNumber = Number<1, 65_535>;
pub type Retries = Number<0, 100>;

impl<const MIN: u64, const MAX: u64> Number<MIN, MAX> {
    /// Reads a variable of the environment.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ if is_number => {
                Err(Complaint::new(format!("{text} is out of range"), format!("use a number from {MIN} to {MAX}")))
            }
            _ => Err(Complaint::new(
                format!("\"{text}\" is not a whole number"),
                format!("use a number from {MIN} to {MAX}"),
            )),
        }
    }

    /// Every range fits; on a machine with a smaller `usize` the result is its largest value.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Value for Number<MIN, MAX> {
    fn expected() -> String {
        format!("a number from {MIN} to {MAX}")
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let DeValue::Integer(number) = value.get_ref() else {
            let in_quotes = value.get_ref().as_str().filter(|text| text.parse::<u64>().is_ok());
            complaints.wrong_type(value, "a number", in_quotes.map(|text| format!("write {text} without quotes")));
            return None;
        };
        let parsed = match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Self::parse(&number.to_string()),
            Err(_) => Self::parse(number.as_str()),
        };
        parsed.map_err(|complaint| complaints.bad_value(value.span(), complaint)).ok()
    }
}

/// Octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl Text for ByteSize {
    const EXPECTED: &'static str = "a size such as \"25 MiB\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "b" => 1,
            "kb" => 1_000,
            "kib" => 1 << 10,
            "mb" => 1_000_000,
            "mib" => 1 << 20,
            "gb" => 1_000_000_000,
            "gib" => 1 << 30,
            _ => 0,
        };
        let octets = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        octets.filter(|&octets| octets > 0).map(Self).ok_or_else(|| {
            Complaint::new(
                format!("\"{text}\" is not a valid size"),
                "write a whole number and a unit, as in \"64 KiB\" or \"25 MiB\"",
            )
        })
    }

    fn instead_of_number(number: &str) -> Option<String> {
        Some(format!("give it a unit: \"{number} B\", or one of KiB, MiB, GiB"))
    }
}

/// Ensures that no clock overflows when it is added.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Text for Duration {
    const EXPECTED: &'static str = "a duration such as \"5m\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let days = jiff::SpanRelativeTo::days_are_24_hours();
        let parsed = text.parse::<jiff::Span>().ok().and_then(|span| span.to_duration(days).ok());
        let parsed = parsed.and_then(|duration| Duration::try_from(duration).ok());
        // A calendar span cannot be longer than the calendar.
        let beyond =
            text.parse::<jiff::SignedDuration>().is_ok_and(|duration| duration.is_positive()) && parsed.is_none();
        if beyond || parsed.is_some_and(|duration| duration > LONGEST) {
            return Err(Complaint::new(format!("\"{text}\" is too long"), "a year, \"8760h\", is the most"));
        }
        parsed.filter(|duration| !duration.is_zero()).ok_or_else(|| {
            Complaint::new(
                format!("\"{text}\" is not a valid duration"),
                "write a number and a unit, as in \"500ms\", \"30s\", \"5m\", \"1h\" or \"5d\"",
            )
        })
    }

    fn instead_of_number(number: &str) -> Option<String> {
        Some(format!("give it a unit: \"{number}s\" for seconds, \"{number}m\" for minutes"))
    }
}

impl Text for String {
    const EXPECTED: &'static str = "a string";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if text.trim().is_empty() || text.chars().any(char::is_control) {
            return Err(Complaint::new(
                "it is empty or holds control characters",
                "write a word, or leave the key out",
            ));
        }
        Ok(text.to_owned())
    }
}

impl Text for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if pem::is_pem(text) {
            return Err(Complaint::new(
                "it holds the PEM text itself",
                "put the text into a file, readable by the gateway only, and write its path",
            ));
        }
        String::parse(text).map(Self::from)
    }
}

impl Text for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:2525\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        text.parse().map_err(|_| {
            let help = match text.rsplit_once(':') {
                Some(("localhost" | "", port)) => format!("write \"127.0.0.1:{port}\", and \"[::1]:{port}\" for IPv6"),
                _ if text.parse::<u16>().is_ok() => format!("write \"127.0.0.1:{text}\""),
                _ => match text.parse::<IpAddr>() {
                    Ok(IpAddr::V6(ip)) => format!("write \"[{ip}]:2525\""),
                    Ok(IpAddr::V4(ip)) => format!("write \"{ip}:2525\""),
                    Err(_) => "write an IP address and a port, as in \"127.0.0.1:2525\" or \"[::1]:2525\"".to_owned(),
                },
            };
            Complaint::new(format!("\"{text}\" is not an address with a port"), help)
        })
    }
}

impl Text for IpAddr {
    const EXPECTED: &'static str = "an IP address";

    fn parse(text: &str) -> Result<Self, Complaint> {
        text.parse().map_err(|_| {
            Complaint::new(
                format!("\"{text}\" is not an IP address"),
                "write it as in \"192.0.2.10\" or \"2001:db8::1\"",
            )
        })
    }
}

impl Text for IpNet {
    const EXPECTED: &'static str = "a network such as \"192.0.2.0/24\"";

    /// A single address is a network of one.
    fn parse(text: &str) -> Result<Self, Complaint> {
        text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
            Complaint::new(
                format!("\"{text}\" is not a network"),
                "write an address and a prefix length, as in \"10.0.0.0/8\" or \"::1/128\"",
            )
        })
    }
}

impl Text for Domain {
    const EXPECTED: &'static str = "a domain";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match Domain::parse(text) {
            Ok(domain) if !domain.is_literal() => Ok(domain),
            _ => Err(Complaint::new(
                format!("\"{text}\" is not a valid domain"),
                match text.rsplit_once('@') {
                    Some((_, domain)) if !domain.is_empty() => format!("write \"{domain}\""),
                    _ => "write it as in \"example.com\"".to_owned(),
                },
            )),
        }
    }
}

/// The gateway's name. Domains of addresses may have other characters, but EHLO cannot carry them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(pub Domain);

impl Text for HostName {
    const EXPECTED: &'static str = Domain::EXPECTED;

    fn parse(text: &str) -> Result<Self, Complaint> {
        let domain = <Domain as Text>::parse(text)?;
        if domain.as_str().is_ascii() {
            return Ok(Self(domain));
        }
        Err(Complaint::new(
            format!("\"{domain}\" has characters that EHLO cannot carry"),
            "write the name in its xn-- form",
        ))
    }
}

/// A level or a filter of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel(pub String);

impl Text for LogLevel {
    const EXPECTED: &'static str = String::EXPECTED;

    fn parse(text: &str) -> Result<Self, Complaint> {
        let level = <String as Text>::parse(text)?;
        match (LogOptions { level: level.clone(), ..LogOptions::default() }).filter() {
            Ok(_) => Ok(Self(level)),
            Err(error) => Err(Complaint { message: error.to_string(), help: None }),
        }
    }
}

impl Text for Selector {
    const EXPECTED: &'static str = "a DKIM selector such as \"wax1\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        Selector::parse(text).map_err(|error| Complaint { message: error.to_string(), help: None })
    }
}

/// One pattern; lists of them become `SenderPatterns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternText(pub String);

impl Text for PatternText {
    const EXPECTED: &'static str = "an address pattern such as \"*@example.com\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match SenderPatterns::parse([text]) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(PatternError::NoAt(_)) => Err(Complaint::new(
                format!("\"{text}\" is not an address pattern"),
                format!("did you mean \"*@{text}\"?"),
            )),
            Err(error) => Err(Complaint { message: error.to_string(), help: None }),
        }
    }
}

/// The complaint about a word that is none of `choices`.
pub fn not_among(text: &str, choices: &[&str]) -> Complaint {
    let help = match nearest(text, choices.iter().copied()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("use {}", one_of(choices)),
    };
    Complaint::new(format!("\"{text}\" is not a valid value"), help)
}

/// Words of the configuration and their meanings.
macro_rules! words {
    ($type:ty, $expected:literal, { $($word:literal => $meaning:expr),* $(,)? }) => {
        impl $crate::config::value::Text for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<Self, $crate::config::value::Complaint> {
                match text {
                    $($word => Ok($meaning),)*
                    _ => Err($crate::config::value::not_among(text, &[$($word),*])),
                }
            }
        }
    };
}
pub(super) use words;
