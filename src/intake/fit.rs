//! Checks that every accepted message can be signed and has no line that is too long, whatever the application and the
//! rules made of it. Checked at the final dot, so that no 250 is given for mail that would fail permanently.

use crate::dkim::{SealError, check_sealable};
use crate::message::RawMessage;
use crate::message::lines::{LongLine, first_long_line};
use crate::smtp::{EnhancedCode, Reply};

/// Why a message can never be sent as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("{0}")]
    LongLine(LongLine),
    #[error(transparent)]
    Unsealable(#[from] SealError),
}

impl Unfit {
    /// RFC 3463 §3.7: X.6.0, the message's content.
    pub fn reply(&self) -> Reply {
        Reply::new(550, EnhancedCode::new(5, 6, 0), format!("Refused: {self}")).folded()
    }
}

pub(super) fn check_lines(message: &RawMessage) -> Result<(), Unfit> {
    first_long_line(message).map_or(Ok(()), |line| Err(Unfit::LongLine(line)))
}

/// Also checks whether the message can be signed.
pub(super) fn check(message: &RawMessage) -> Result<(), Unfit> {
    check_lines(message)?;
    Ok(check_sealable(message)?)
}
