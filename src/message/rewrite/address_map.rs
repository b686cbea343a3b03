//! `AddressMap`: which addresses become which others, as in `"*@old.example" = "*@new.example"`.
//!
//! The first matching pattern wins; a `*` before the target's `@` stands for the original local part. Patterns are
//! those of senders.

use crate::message::SenderPatterns;
use crate::message::pattern::PatternError;
use crate::smtp::Mailbox;

#[derive(Debug, Clone, Default)]
pub struct AddressMap(Vec<MapEntry>);

#[derive(Debug, Clone)]
struct MapEntry {
    pattern: SenderPatterns,
    target: MappedAddress,
}

#[derive(Debug, Clone)]
enum MappedAddress {
    Address(Mailbox),
    /// Keeps the local part.
    Domain(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressMapError {
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("\"{0}\" is neither an address nor \"*@\" and a domain")]
    Target(String),
}

impl AddressMap {
    /// Pairs of pattern and target, in order.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, AddressMapError> {
        pairs.into_iter().map(|(pattern, target)| MapEntry::parse(pattern, target)).collect::<Result<_, _>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `None`: the address stays as it is.
    pub fn map(&self, address: &Mailbox) -> Option<Mailbox> {
        let entry = self.0.iter().find(|entry| entry.pattern.matches(address))?;
        match &entry.target {
            MappedAddress::Address(target) => Some(target.clone()),
            MappedAddress::Domain(domain) => Mailbox::parse(&format!("{}@{domain}", address.local_part())).ok(),
        }
    }
}

impl MapEntry {
    fn parse(pattern: &str, target: &str) -> Result<Self, AddressMapError> {
        let refused = || AddressMapError::Target(target.to_owned());
        let pattern = SenderPatterns::parse([pattern])?;
        let target = match target.strip_prefix("*@") {
            // Checked with a local part that needs no quotes; actual local parts are valid already.
            Some(domain) => Mailbox::parse(&format!("a@{domain}"))
                .map(|_| MappedAddress::Domain(domain.to_owned()))
                .map_err(|_| refused())?,
            None => MappedAddress::Address(Mailbox::parse(target).map_err(|_| refused())?),
        };
        Ok(Self { pattern, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_fits_wins() {
        let map = AddressMap::parse([
            ("*@old.example", "*@new.example"),
            ("boss@example.com", "Other@example.com"),
            ("*@*.example", "all@staging.example"),
        ])
        .expect("a map");
        for (address, expected) in [
            ("a@old.example", Some("a@new.example")),
            ("\"a b\"@OLD.example", Some("\"a b\"@new.example")),
            ("boss@example.com", Some("Other@example.com")),
            ("a@x.example", Some("all@staging.example")),
            ("a@example.com", None),
        ] {
            let mapped = map.map(&Mailbox::parse(address).unwrap()).map(|mailbox| mailbox.to_string());
            assert_eq!(mapped.as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn an_invalid_address_is_refused() {
        for (pattern, target) in [("*", "nobody"), ("*", "*@"), ("*", "a@b\r\nRCPT TO:<c@d>"), ("x", "a@example.com")] {
            assert!(AddressMap::parse([(pattern, target)]).is_err(), "{pattern} = {target}");
        }
    }
}
