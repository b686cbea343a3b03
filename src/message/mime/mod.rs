//! MIME: finds the parts of a message, reads their headers, and edits them without changing other octets.
//!
//! The walk over the parts is our own: mail-parser accepts a boundary in the middle of a line, and nests messages
//! inside each other, so that a nesting bomb overflows the stack when it is dropped. It still reads the values of
//! headers and decodes. RFC 2045, RFC 2046.

mod coding;
mod content;
mod editor;
mod parameters;
mod quoted_printable;
mod structure;

pub use coding::Coding;
pub use content::{ContentFields, Encoding};
pub use editor::{Editor, is_content, with_field};
pub use parameters::repaired_parameters;
pub use quoted_printable::{
    decode as decode_quoted_printable, encode as encode_quoted_printable, longest as longest_quoted_printable,
    with_soft_breaks,
};
pub use structure::{Entity, Structure};
