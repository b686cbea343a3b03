//! The seal: DKIM keys, the DNS records that publish them, signing, and verifying against given records.
//!
//! Pure: keys and records come in as bytes and DNS is never queried; the time in a signature is the system's. `Sealed`
//! is the only thing that the relay accepts, and it is made only here. RFC 6376, 8301, 8463.

pub(crate) mod key;
pub(crate) mod keyring;
pub(crate) mod record;
pub(crate) mod record_file;
pub(crate) mod seal;
pub(crate) mod sealed;
pub(crate) mod selector;
mod signature;
mod tidy;
pub(crate) mod unsigned;
pub(crate) mod verify;

pub use key::{KeyAlgorithm, SigningKey, generate};
pub(crate) use key::{KeyError, dns_domain};
pub(crate) use keyring::Keyring;
pub use record::DnsRecord;
pub(crate) use seal::{SealError, check_sealable};
pub use seal::{SealOptions, seal};
pub use sealed::Sealed;
pub(crate) use sealed::SignatureAlgorithm;
pub use selector::Selector;
pub(crate) use unsigned::Unsigned;
pub use verify::{Records, verify};
pub(crate) use verify::{SignatureCheck, VerificationResult};
