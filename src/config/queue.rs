//! Values of `[queue]` that are more than a word: the retry schedule, the backend, whom a bounce goes to.

use super::reader::{Complaints, nearest};
use super::value::{Complaint, Text, Value, words};
use crate::delivery::Bounce;
use crate::smtp::Mailbox;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// `retry` as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    pub first: Duration,
    pub longest: Duration,
}

const KEYS: [&str; 2] = ["first", "longest"];
const EXAMPLE: &str = "{ first = \"30s\", longest = \"1h\" }";

impl Value for Retry {
    /// Both keys must be there: half a schedule would be a guess.
    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            complaints.wrong_type(value, &format!("a table such as {EXAMPLE}"), None);
            return None;
        };
        let mut found = [None; KEYS.len()];
        for (key, typed) in table {
            let name = key.get_ref().as_ref();
            match KEYS.iter().position(|known| *known == name) {
                Some(at) => found[at] = Some(Duration::read(typed, complaints)?),
                None => {
                    let help = match nearest(name, KEYS.into_iter()) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => format!("write {EXAMPLE}"),
                    };
                    complaints.bad_value(key.span(), Complaint::new(format!("unknown key `{name}`"), help));
                    return None;
                }
            }
        }
        let [Some(first), Some(longest)] = found else {
            let message = "it must say both `first` and `longest`";
            complaints.bad_value(value.span(), Complaint::new(message, format!("write {EXAMPLE}")));
            return None;
        };
        if first > longest {
            let message = "`first` is longer than `longest`";
            complaints.bad_value(value.span(), Complaint::new(message, "waits grow from `first` to `longest`"));
            return None;
        }
        Some(Self { first, longest })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    /// Known by name, so that its user is told what to write for now.
    Redis,
}

words! { Backend, "\"sqlite\"", { "sqlite" => Self::Sqlite, "redis" => Self::Redis } }

impl Text for Bounce {
    const EXPECTED: &'static str = "\"off\", \"sender\" or an address";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text {
            "off" => Ok(Self::Off),
            "sender" => Ok(Self::Sender),
            address => Mailbox::parse(address).map(Self::Address).map_err(|_| {
                Complaint::new(
                    format!("\"{address}\" is none of its values"),
                    "use \"off\", \"sender\", or an address such as \"postmaster@example.com\"",
                )
            }),
        }
    }
}
