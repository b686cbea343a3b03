//! What the application or a rule says about a message beyond its text, in the gateway's own terms: tag, stream,
//! metadata, IP pool, upstream. These become a provider's headers only just before sending, so a failover keeps them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A word or short text that is valid in a header: 1 to 500 octets, printable, without white space at its ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mark(String);

/// Why a text cannot be a [`Mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than 500 octets")]
    TooLong,
    #[error("it holds a line break or another character that cannot be printed")]
    Unprintable,
}

impl Mark {
    const LONGEST: usize = 500;

    /// Removes surrounding white space.
    pub fn new(text: &str) -> Result<Self, MarkError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(MarkError::Empty);
        }
        if text.len() > Self::LONGEST {
            return Err(MarkError::TooLong);
        }
        if text.chars().any(super::headers::is_unprintable) {
            return Err(MarkError::Unprintable);
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Mark {
    type Error = MarkError;

    fn try_from(text: String) -> Result<Self, MarkError> {
        Self::new(&text)
    }
}

impl From<Mark> for String {
    fn from(mark: Mark) -> Self {
        mark.0
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marks {
    /// The kind of mail, for the provider's statistics, for example "weekly-report".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Mark>,
    /// The provider's stream or configuration set to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Mark>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Mark, Mark>,
    /// The provider's pool of sending addresses to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_pool: Option<Mark>,
    /// Name of the upstream to use, whatever the routes say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Mark>,
}

impl Marks {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_cannot_break_out_of_a_header() {
        for (text, expected) in [
            ("weekly-report", Ok("weekly-report")),
            (" two words ", Ok("two words")),
            ("Größe", Ok("Größe")),
            ("", Err(MarkError::Empty)),
            ("  ", Err(MarkError::Empty)),
            ("a\r\nBcc: b", Err(MarkError::Unprintable)),
            ("a\0", Err(MarkError::Unprintable)),
            ("a\u{2028}b", Err(MarkError::Unprintable)),
            (&"x".repeat(501), Err(MarkError::TooLong)),
        ] {
            assert_eq!(Mark::new(text).as_ref().map(Mark::as_str).map_err(|error| *error), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_set_takes_no_room_when_stored() {
        assert_eq!(serde_json::to_string(&Marks::default()).unwrap(), "{}");
        let marks = Marks { tag: Mark::new("report").ok(), ..Marks::default() };
        assert_eq!(serde_json::to_string(&marks).unwrap(), r#"{"tag":"report"}"#);
        assert_eq!(serde_json::from_str::<Marks>(r#"{"tag":"report"}"#).unwrap(), marks);
        assert!(serde_json::from_str::<Marks>(r#"{"tag":"a\nb"}"#).is_err(), "a stored mark is checked again");
    }
}
