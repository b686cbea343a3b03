//! What is done to a message at the door, for the one server that is to get it, before it is sealed: the marks in that
//! provider's headers, and ASCII where nothing else can be carried.
//!
//! Pure functions over bytes. What needs no change stays octet for octet. RFC 2045, RFC 2047, RFC 6152 §3.

mod json;
mod seven_bit;
mod translate;
mod vocabulary;

pub use seven_bit::{Inconvertible, seven_bit_room, to_seven_bit, with_ascii_texts};
pub use translate::{Translated, translate};
pub use vocabulary::{Allowed, Characters, Pairs, PairsPlace, Place, Setting, Vocabulary, Word};
