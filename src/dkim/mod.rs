//! The seal: DKIM keys, the DNS records that publish them, signing, and verifying against given records.
//!
//! Pure: keys and records come in as bytes, DNS is never asked; the time in a signature is the system's.
//! `Sealed` is the only thing the relay takes, and it is made only here. RFC 6376, 8301, 8463.

pub mod key;
pub mod keyring;
pub mod record;
pub mod record_file;
pub mod seal;
pub mod sealed;
pub mod selector;
mod signature;
mod tidy;
pub mod unsigned;
pub mod verify;

pub use key::{KeyAlgorithm, KeyError, SigningKey, dns_domain, generate};
pub use keyring::Keyring;
pub use record::DnsRecord;
pub use seal::{SealError, SealOptions, check_sealable, seal};
pub use sealed::{Seal, Sealed, SignatureAlgorithm, SignatureName};
pub use selector::{Selector, SelectorError};
pub use unsigned::Unsigned;
pub use verify::{Records, SignatureCheck, VerificationResult, verify};
