//! `Keyring`: which keys sign for which author's domain.
//!
//! The domain itself first, else its nearest parent: a parent's key serves its subdomains, aligned for DMARC in relaxed
//! mode (RFC 7489 §3.1.1).

use super::key::{SigningKey, dns_domain};
use crate::smtp::Domain;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, Default)]
pub struct Keyring {
    /// By domain in DNS spelling; the keys of one domain in the given order.
    keys: BTreeMap<String, Vec<Arc<SigningKey>>>,
}

impl Keyring {
    pub fn new(keys: Vec<SigningKey>) -> Self {
        let mut ring = Self::default();
        for key in keys {
            ring.keys.entry(key.domain().to_owned()).or_default().push(Arc::new(key));
        }
        ring
    }

    /// All of them sign together. `None`: this domain has no key.
    pub fn keys_for(&self, author: &Domain) -> Option<&[Arc<SigningKey>]> {
        let name = dns_domain(author).ok()?;
        let mut domain = name.as_str();
        loop {
            if let Some(keys) = self.keys.get(domain) {
                return Some(keys);
            }
            (_, domain) = domain.split_once('.')?;
        }
    }

    pub fn keys(&self) -> impl Iterator<Item = &Arc<SigningKey>> {
        self.keys.values().flatten()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::Selector;

    const RSA: &str = include_str!("testdata/rsa2048.pem");
    const ED25519: &str = include_str!("testdata/ed25519.pem");

    fn ring(keys: &[(&str, &str, &str)]) -> Keyring {
        let key = |&(domain, selector, pem): &(&str, &str, &str)| {
            let domain = Domain::parse(domain).expect("a domain");
            let selector = Selector::parse(selector);
            SigningKey::from_pem(domain, selector.expect("a selector"), pem.as_bytes()).expect("a key")
        };
        Keyring::new(keys.iter().map(key).collect())
    }

    #[test]
    fn the_nearest_domain_signs() {
        let ring = ring(&[
            ("example.com", "a", RSA),
            ("News.example.com", "b", RSA),
            ("example.com", "c", ED25519),
            ("xn--exmple-cua.org", "d", RSA),
        ]);
        for (author, selectors) in [
            ("example.com", Some(&["a", "c"][..])),
            ("EXAMPLE.com", Some(&["a", "c"])),
            ("sub.example.com", Some(&["a", "c"])),
            ("news.example.com", Some(&["b"])),
            ("eu.NEWS.example.com", Some(&["b"])),
            ("exämple.org", Some(&["d"])),
            ("a.Exämple.org", Some(&["d"])),
            ("badexample.com", None),
            ("com", None),
            ("[127.0.0.1]", None),
        ] {
            let keys = ring.keys_for(&Domain::parse(author).expect("a domain"));
            let found = keys.map(|keys| keys.iter().map(|key| key.selector().as_str()).collect::<Vec<_>>());
            assert_eq!(found.as_deref(), selectors, "{author}");
        }
        assert_eq!(ring.keys.keys().collect::<Vec<_>>(), ["example.com", "news.example.com", "xn--exmple-cua.org"]);
    }
}
