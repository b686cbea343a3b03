//! What a message is and what may be done to it: envelope, header block, repair, and the meaning of replies.
//!
//! Pure functions over bytes; time is passed in. Nothing here opens a socket or a file. RFC 5322, RFC 2045, RFC 6854.

pub mod accepted;
pub mod adapt;
pub mod addresses;
pub mod author;
pub mod budget;
pub mod charset;
pub mod dsn;
pub mod encoded_words;
pub mod envelope;
pub mod headers;
pub mod html;
pub mod id;
pub mod lines;
pub mod marks;
pub mod mime;
pub mod optional;
pub mod outcome;
pub mod pattern;
pub mod raw;
pub mod repair;
pub mod rewrite;
mod subject;
pub mod text_pattern;
pub mod trace;

pub use author::{Author, AuthorError};
pub use budget::MemoryBudget;
pub use envelope::Envelope;
pub use headers::Field;
pub use id::MailId;
pub use marks::{Mark, Marks};
pub use outcome::{Outcome, Reason, RelayStep};
pub use pattern::SenderPatterns;
pub use raw::RawMessage;
pub use subject::subject;
