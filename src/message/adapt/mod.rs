//! Adapts a message, just before it is signed, to the one server that will get it: the marks become that provider's
//! headers, and 8-bit content becomes ASCII if the server needs that.
//!
//! Pure functions over bytes. Anything that needs no change stays octet for octet. RFC 2045, RFC 2047, RFC 6152 §3.

mod json;
mod seven_bit;
mod translate;
mod vocabulary;

pub use seven_bit::{Inconvertible, to_seven_bit};
pub(crate) use seven_bit::{seven_bit_memory, with_ascii_texts};
pub(crate) use translate::{Translated, translate};
pub(crate) use vocabulary::{
    AllowedCharacters, AllowedText, FixedSetting, HeaderSlot, MetadataForm, MetadataSlot, SlotForm, Vocabulary,
};
