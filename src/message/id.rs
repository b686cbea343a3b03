//! `MailId`: the gateway's id of one accepted message, in logs and replies.
//!
//! Sortable by time, and random enough to serve as a file name in a private folder. Always 16 characters of Crockford's
//! base-32 alphabet, in lower case.

use std::fmt;
use std::str::FromStr;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MailId([u8; LENGTH]);

impl MailId {
    /// 50 bits of milliseconds since 1970, 30 random bits.
    pub fn new(now: jiff::Timestamp, random: u32) -> Self {
        let milliseconds = u128::from(now.as_millisecond().unsigned_abs());
        let mut bits = (milliseconds << 30) | u128::from(random & 0x3fff_ffff);
        let mut text = [b'0'; LENGTH];
        for slot in text.iter_mut().rev() {
            *slot = ALPHABET[(bits & 31) as usize];
            bits >>= 5;
        }
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message id is 16 characters of 0-9 and a-z without i, l, o, u")]
pub struct InvalidMailId;

impl FromStr for MailId {
    type Err = InvalidMailId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: [u8; LENGTH] = text.as_bytes().try_into().map_err(|_| InvalidMailId)?;
        if bytes.iter().all(|byte| ALPHABET.contains(byte)) { Ok(Self(bytes)) } else { Err(InvalidMailId) }
    }
}

impl From<MailId> for String {
    fn from(id: MailId) -> Self {
        id.as_str().to_owned()
    }
}

impl TryFrom<String> for MailId {
    type Error = InvalidMailId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_parse_back() {
        let at = |ms| jiff::Timestamp::from_millisecond(ms).expect("in range");
        let first = MailId::new(at(1_795_000_000_000), u32::MAX);
        let second = MailId::new(at(1_795_000_000_001), 0);
        assert!(first < second);
        assert_eq!(first.as_str().parse(), Ok(first));
        for text in ["", "../../etc/passwd", "000000000000000i", "0000000000000000x"] {
            assert_eq!(text.parse::<MailId>(), Err(InvalidMailId), "{text}");
        }
    }
}
