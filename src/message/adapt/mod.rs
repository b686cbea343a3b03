//! What is done to a message at the door, for the one server that is to get it, before it is sealed.
//!
//! Pure functions over bytes. What needs no change stays octet for octet. RFC 2045, RFC 2047, RFC 6152 §3.

mod vocabulary;

pub use vocabulary::{Allowed, Characters, Pairs, PairsPlace, Place, Setting, Vocabulary, Word};
