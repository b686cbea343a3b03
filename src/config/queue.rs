//! Values of `[queue]`: the retry schedule, the backend, the recipient of bounces, the space that stays free.

use super::maps::known_keys;
use super::value::{ByteSize, Complaint, Complaints, Text, Value, words};
use crate::delivery::Bounce;
use crate::queue::sqlite::SMALLEST_FLOOR;
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
    Redis,
}

words! { QueueBackend, "\"sqlite\" or \"redis\"", { "sqlite" => Self::Sqlite, "redis" => Self::Redis } }

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

/// Octets of the data folder's disk that new mail leaves free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinFreeSpace(pub u64);

impl Text for MinFreeSpace {
    const EXPECTED: &'static str = ByteSize::EXPECTED;

    /// The queue's write-ahead log may need this much, and the database when the log is written back, before mail that
    /// is delivered or removed frees space.
    fn parse(text: &str) -> Result<Self, Complaint> {
        let ByteSize(octets) = ByteSize::parse(text)?;
        if octets >= SMALLEST_FLOOR {
            return Ok(Self(octets));
        }
        let smallest = SMALLEST_FLOOR >> 20;
        Err(Complaint::new(
            format!("\"{text}\" is too small: the smallest value is \"{smallest} MiB\""),
            "the queue's write-ahead log may need this much, and so may the database when the log is written back, before \
             mail that is delivered or removed frees space",
        ))
    }

    fn instead_of_number(number: &str) -> Option<String> {
        ByteSize::instead_of_number(number)
    }
}
