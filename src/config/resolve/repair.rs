//! Which repairs are made: every step has a switch of its own.

use crate::config::file::RepairTable;
use crate::message::repair::Repairs;

pub(super) fn resolve(typed: &RepairTable) -> Option<Repairs> {
    Some(Repairs {
        bcc: typed.bcc.value?,
        flatten: typed.flatten.value?,
        header_text: typed.header_text.value?,
        message_id: typed.message_id.value?,
        date: typed.date.value?,
        base64_text: typed.base64_text.value?,
        transfer_encoding: typed.transfer_encoding.value?,
        charset: typed.charset.value?,
        long_lines: typed.long_lines.value?,
        text_part: typed.text_part.value?,
        mime_version: typed.mime_version.value?,
        header_folding: typed.header_folding.value?,
    })
}
