//! Ensures exactly one Message-ID that others accept. RFC 5322 §3.6.4.
//!
//! Gmail refuses mail without one, and filters penalise malformed ones. A malformed or surplus one is kept in
//! X-Original-Message-ID, because the application may identify its mail by it.

use super::step::{MemoryNeed, RepairScope, RepairStep};
use crate::message::encoded_words::encode_text;
use crate::message::headers::{Field, FieldChange, FieldRef, without_spaces_around};
use crate::message::{MailId, RawMessage};

const NAME: &str = "Message-ID";
const ORIGINAL: &str = "X-Original-Message-ID";

pub(super) const STEP: RepairStep = RepairStep {
    name: "message_id",
    doc: &["A missing Message-ID is added, a malformed one replaced; X-Original-Message-ID keeps the old one."],
    scope: RepairScope::Header,
    run: |message, inputs| {
        ensure(message, inputs.id, inputs.host);
        Ok(())
    },
    memory: MemoryNeed::NONE,
};

/// `host` follows the `@` of a new one.
pub(super) fn ensure(message: &mut RawMessage, id: MailId, host: &str) {
    let Ok(new) = Field::new(NAME, &[&format!("<{id}@{host}>")]) else { return };
    let sound: Vec<_> = message.fields_named(NAME).map(|field| is_sound(&field)).collect();
    let kept = sound.iter().position(|&sound| sound);
    match sound.as_slice() {
        [] => return message.append(&new),
        [true] => return,
        _ => {}
    }
    let mut index = 0;
    let mut originals = Vec::new();
    message.edit_fields(|field| {
        if !field.is(NAME) {
            return FieldChange::Keep;
        }
        let at = index;
        index += 1;
        if kept == Some(at) {
            return FieldChange::Keep;
        }
        originals.extend(original(field));
        if kept.is_none() && at == 0 { FieldChange::Replace(new.clone()) } else { FieldChange::Remove }
    });
    originals.iter().for_each(|field| message.append(field));
}

/// `<left@right>` of visible ASCII, optionally followed by a comment: the form that filters expect.
fn is_sound(field: &FieldRef<'_>) -> bool {
    let value = field.unfolded();
    let Some(end) = memchr::memchr(b'>', &value) else { return false };
    let (id, behind) = value.split_at(end + 1);
    let behind = without_spaces_around(behind);
    let is_text = behind.iter().all(|byte| byte.is_ascii_graphic() || b" \t".contains(byte));
    let is_comment = behind.starts_with(b"(") && behind.ends_with(b")") && is_text;
    let Some(inner) = id.strip_prefix(b"<").and_then(|rest| rest.strip_suffix(b">")) else { return false };
    let Some(at) = memchr::memchr(b'@', inner) else { return false };
    let visible = inner.iter().all(|byte| byte.is_ascii_graphic() && !b"<>\\".contains(byte));
    visible
        && at > 0
        && at + 1 < inner.len()
        && inner.len() < 900
        && field.is_well_formed()
        && (behind.is_empty() || is_comment)
}

fn original(field: &FieldRef<'_>) -> Option<Field> {
    let value = String::from_utf8(field.unfolded()).ok().filter(|value| !value.is_empty())?;
    Field::folded(ORIGINAL, &encode_text(&value, ORIGINAL.len() + 2)).ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, table};
    use crate::message::MailId;

    #[test]
    fn before_and_after() {
        let id = MailId::new(NOW.parse().expect("a time"), 7);
        let new = format!("Message-ID: <{id}@gw.example.com>\r\n");
        let replaced = |before: &str, original: &str| {
            (format!("{before}From: a@b\r\n\r\nx"), format!("{new}From: a@b\r\n{original}\r\nx"))
        };
        let kept = |text: &str| (text.to_owned(), text.to_owned());
        let cases = [
            ("From: a@b\r\n\r\nx".to_owned(), format!("From: a@b\r\n{new}\r\nx")),
            // bamboo_mua 0.2.2.
            replaced("Message-Id: 33ldpkc4btcvniv3do000001\r\n", "X-Original-Message-ID: 33ldpkc4btcvniv3do000001\r\n"),
            // MAILER_EMAIL with a name in it.
            replaced("Message-Id: <2026.x@example.com>>\r\n", "X-Original-Message-ID: <2026.x@example.com>>\r\n"),
            replaced("Message-ID: <a b@c>\r\n", "X-Original-Message-ID: <a b@c>\r\n"),
            replaced("Message-ID: <@c>\r\n", "X-Original-Message-ID: <@c>\r\n"),
            replaced("Message-ID: <a@b\\c>\r\n", "X-Original-Message-ID: <a@b\\c>\r\n"),
            replaced("Message-ID: <grün@c>\r\n", "X-Original-Message-ID: =?UTF-8?Q?<gr=C3=BCn@c>?=\r\n"),
            replaced("Message-ID:\r\n \r\n", ""),
            replaced("Message-ID: a\r\nMESSAGE-ID: b\r\n", "X-Original-Message-ID: a\r\nX-Original-Message-ID: b\r\n"),
            (
                "Message-ID: a\r\nMessage-ID: <m@x>\r\nMessage-ID: <n@x>\r\n\r\n".to_owned(),
                "Message-ID: <m@x>\r\nX-Original-Message-ID: a\r\nX-Original-Message-ID: <n@x>\r\n\r\n".to_owned(),
            ),
            kept("message-id:\r\n\t<m@x>\r\n\r\n"),
            kept("Message-ID: <m@x> (comment)\r\n\r\n"),
            replaced("Message-ID: <m@x>\x0c(c)\r\n", "X-Original-Message-ID: =?UTF-8?Q?<m@x>=0C(c)?=\r\n"),
            kept("Message-ID: <m@[127.0.0.1]>\r\n\r\n"),
            kept("Message-ID: <\"a@b\"@c>\r\n\r\n"),
        ];
        let cases: Vec<_> = cases.iter().map(|(before, after)| (before.as_str(), after.as_str())).collect();
        table(|message| super::ensure(message, id, "gw.example.com"), &cases);
    }
}
