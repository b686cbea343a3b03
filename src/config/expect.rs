//! Values of `[[expect]]`: who is notified of a silence.

use super::value::{Complaint, Text};
use crate::smtp::Mailbox;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyAddress(pub Mailbox);

impl Text for NotifyAddress {
    const EXPECTED: &'static str = "an address such as \"ops@example.net\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        Mailbox::parse(text).map(Self).map_err(|_| {
            Complaint::new(format!("\"{text}\" is not a valid address"), format!("write {}, alone", Self::EXPECTED))
        })
    }
}
