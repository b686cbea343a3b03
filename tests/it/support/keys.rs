//! DKIM keys for `example.com`: for a signer, for a configuration, and as records for verifiers.

use super::canaries;
use super::gateway::Setup;
use std::sync::Arc;
use waxseal::dkim::{DnsRecord, KeyAlgorithm, Selector, SigningKey, generate};
use waxseal::observe::Secret;
use waxseal::smtp::Domain;

pub struct TestKey {
    pub pem: Secret,
    pub signing: Arc<SigningKey>,
}

impl TestKey {
    pub fn new(selector: &str, algorithm: KeyAlgorithm) -> Self {
        let pem = generate(algorithm).expect("a key");
        canaries::learn(pem.reveal());
        let domain = Domain::parse("example.com");
        let selector = Selector::parse(selector);
        let domain = domain.expect("a domain");
        let selector = selector.expect("a selector");
        let signing = SigningKey::from_pem(domain, selector, pem.reveal().as_bytes()).expect("a key");
        Self { pem, signing: Arc::new(signing) }
    }

    /// Name and text of the record in DNS.
    pub fn record(&self) -> (String, String) {
        let record = DnsRecord::of(&self.signing);
        (record.name().to_owned(), record.text().to_owned())
    }
}

/// The `[[dkim]]` tables that name the files of `with_files`.
pub fn tables(keys: &[TestKey]) -> String {
    let table = |key: &TestKey| {
        let selector = key.signing.selector();
        format!("[[dkim]]\ndomain = \"example.com\"\nselector = \"{selector}\"\nprivate_key = \"{selector}.pem\"\n")
    };
    keys.iter().map(table).collect()
}

pub fn with_files(setup: Setup, keys: &[TestKey]) -> Setup {
    keys.iter().fold(setup, |setup, key| setup.file(&format!("{}.pem", key.signing.selector()), key.pem.reveal()))
}
