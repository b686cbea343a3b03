//! What is done to a message just before it is signed, for the one server that is to get it: the marks in that
//! provider's headers, and ASCII where nothing else can be carried.
//!
//! Pure functions over bytes. What needs no change stays octet for octet. RFC 2045, RFC 2047, RFC 6152 §3.

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
