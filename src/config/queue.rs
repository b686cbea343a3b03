//! Values of `[queue]` that are more than a word: the retry schedule, the backend, the recipient of bounces.

use super::maps::known_keys;
use super::value::{Complaint, Complaints, Text, Value, words};
use crate::delivery::Bounce;
use crate::smtp::Mailbox;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// `retry` as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryTimes {
    pub first: Duration,
    pub longest: Duration,
}

const EXAMPLE: &str = "{ first = \"30s\", longest = \"1h\" }";

impl Value for RetryTimes {
    fn expected() -> String {
        format!("a table such as {EXAMPLE}")
    }

    /// Both keys must be there: half a schedule would be a guess.
    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let [first, longest] = known_keys(value, ["first", "longest"], EXAMPLE, complaints)?;
        let first = Duration::read(first, complaints);
        let longest = Duration::read(longest, complaints);
        let first = first?;
        let longest = longest?;
        if first > longest {
            let message = "`first` is longer than `longest`";
            complaints.bad_value(value.span(), Complaint::new(message, "waits grow from `first` to `longest`"));
            return None;
        }
        Some(Self { first, longest })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueBackend {
    Sqlite,
    /// Recognised so that the error can say what to write instead.
    Redis,
}

words! { QueueBackend, "\"sqlite\"", { "sqlite" => Self::Sqlite, "redis" => Self::Redis } }

impl Text for Bounce {
    const EXPECTED: &'static str = "\"off\", \"sender\" or an address";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text {
            "off" => Ok(Self::Off),
            "sender" => Ok(Self::Sender),
            address => Mailbox::parse(address).map(Self::Address).map_err(|_| {
                Complaint::new(
                    format!("\"{address}\" is not a valid value"),
                    "use \"off\", \"sender\", or an address such as \"postmaster@example.com\"",
                )
            }),
        }
    }
}
