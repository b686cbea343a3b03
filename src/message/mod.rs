//! Messages and the operations on them: envelope, header block, repair, and the meaning of replies.
//!
//! Pure functions over bytes; time is passed in. Nothing here opens a socket or a file. RFC 5322, RFC 2045, RFC 6854.

pub mod accepted;
pub mod adapt;
pub(crate) mod addresses;
pub(crate) mod author;
pub(crate) mod budget;
pub(crate) mod charset;
pub(crate) mod dsn;
pub(crate) mod encoded_words;
pub(crate) mod envelope;
pub(crate) mod headers;
pub mod html;
pub(crate) mod id;
pub(crate) mod lines;
pub(crate) mod marks;
mod message_id;
pub(crate) mod mime;
pub mod name_quoting;
pub(crate) mod optional;
pub mod outcome;
pub(crate) mod pattern;
pub(crate) mod raw;
pub mod repair;
pub mod rewrite;
mod subject;
pub(crate) mod text_pattern;
pub mod trace;
mod trace_id;

pub use author::Author;
pub(crate) use author::AuthorError;
pub use budget::MemoryBudget;
pub use envelope::Envelope;
pub(crate) use headers::Field;
pub use id::MailId;
pub(crate) use marks::Mark;
pub use marks::Marks;
pub(crate) use message_id::message_id;
pub use outcome::{Outcome, Reason, RelayStep};
pub(crate) use pattern::SenderPatterns;
pub use raw::RawMessage;
pub(crate) use subject::subject;
pub(crate) use trace_id::trace_id;
