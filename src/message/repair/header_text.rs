//! Text in headers that violates RFC 2047 or RFC 5322: decoded as readers decode it, and rewritten.
//!
//! Handles encoded words that are adjacent, contain spaces, quotes or half a character, encode plain ASCII, or wrap a
//! Message-ID; raw UTF-8, or raw octets in another charset; and empty display names. A valid field stays as it is, and
//! so does one that cannot be decoded with certainty.

use super::parts;
use super::raw_text::RawCharset;
use super::step::{MemoryNeed, RepairScope, RepairStep};
use super::working_copy::WorkingCopy;
use crate::message::addresses;
use crate::message::encoded_words::{self, TextPiece, WordPlacement};
use crate::message::headers::{Field, FieldChange, FieldRef, changed};
use crate::message::raw::MAX_HEADER;
use crate::message::{mime, name_quoting};

pub(super) const STEP: RepairStep = RepairStep {
    name: "header_text",
    doc: &[
        "Broken encoded words, raw UTF-8 and empty display names in headers are written as RFC 2047 and 5322 want",
        "them.",
    ],
    scope: RepairScope::Header,
    run: |message, _| {
        repair(message);
        Ok(())
    },
    memory: MemoryNeed { edits_header: |_, header| may_be_odd(header), ..MemoryNeed::NONE },
};

pub(super) fn repair(message: &mut WorkingCopy) {
    let raw = RawCharset::of(message);
    let of_field = |field: &FieldRef<'_>| repaired(field, Some(&raw));
    // Encoding makes text longer; a header that would exceed the limit stays as it came.
    if let Some(header) = changed(message.header(), of_field).filter(|header| header.len() <= LARGEST) {
        message.replace_header(header);
    }
    // Names of attachments are in the headers of parts.
    let of_part = |field: &FieldRef<'_>| if mime::is_content(field) { of_field(field) } else { FieldChange::Keep };
    parts::edit_headers(message, |block| changed(block, of_part));
}

/// In octets: the limit minus what intake adds.
const LARGEST: usize = MAX_HEADER - 4096;

/// How the value of a field is to be read.
enum FieldKind {
    /// A text, for people.
    Text,
    Addresses,
    /// Message-IDs in angle brackets.
    Ids,
    /// A token with parameters.
    Parameters,
    /// None of these: an encoded word would mean nothing in it.
    Other,
}

/// The fields whose grammar allows no text. Any other unknown field is text for people (RFC 2047 §5 (1): "any extension
/// message header field").
const OTHER: [&str; 22] = [
    "Received",
    "Return-Path",
    "DKIM-Signature",
    "Authentication-Results",
    "Received-SPF",
    "Date",
    "Resent-Date",
    "MIME-Version",
    "Content-Transfer-Encoding",
    "Content-Language",
    "Content-Location",
    "Content-Base",
    "Content-MD5",
    "Auto-Submitted",
    "Precedence",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Help",
    "List-Post",
    "List-Subscribe",
    "List-Owner",
    "List-Archive",
];
const IDS: [&str; 5] = ["Message-ID", "In-Reply-To", "References", "Resent-Message-ID", "Content-ID"];

impl FieldKind {
    fn of(field: &FieldRef<'_>) -> Self {
        let is_one_of = |names: &[&str]| names.iter().any(|name| field.is(name));
        if addresses::are_in(field.name()) {
            Self::Addresses
        } else if is_one_of(&IDS) {
            Self::Ids
        } else if is_one_of(&["Content-Type", "Content-Disposition"]) {
            Self::Parameters
        } else if is_one_of(&OTHER) || field.name().get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"ARC-")) {
            Self::Other
        } else {
            Self::Text
        }
    }
}

/// Whether a field of a part's header could need repair.
fn may_be_odd(header: &[u8]) -> bool {
    !header.is_ascii() || [&b"=?"[..], b"\"\""].iter().any(|odd| memchr::memmem::find(header, odd).is_some())
}

/// The field in the form of RFC 2047 and 5322, if it can be read with certainty and that form is different. `raw`: the
/// charset of octets that are not UTF-8; without it they stay.
pub(in crate::message) fn repaired(field: &FieldRef<'_>, raw: Option<&RawCharset>) -> FieldChange {
    // Skips most fields of most mail.
    let value = field.value();
    let suspicious = !value.is_ascii() || memchr::memmem::find(value, b"=?").is_some() || has_empty_name(value);
    if !suspicious {
        return FieldChange::Keep;
    }
    let unfolded = field.unfolded();
    let decoded = match std::str::from_utf8(&unfolded) {
        Ok(value) => Some((value.to_owned(), false)),
        Err(_) => raw.and_then(|raw| raw.decode(&unfolded)),
    };
    let (Ok(name), Some((value, was_raw))) = (std::str::from_utf8(field.name()), decoded) else {
        return FieldChange::Keep;
    };
    let value = value.as_str();
    let column = name.len() + 2;
    let repaired = match FieldKind::of(field) {
        FieldKind::Text => repaired_text(value, column),
        // Without its odd parts, the value can show a name that needs quotes.
        FieldKind::Addresses => addresses::repaired(value, column)
            .map(|repaired| name_quoting::quoted(&repaired, column).unwrap_or(repaired)),
        FieldKind::Ids => repaired_ids(value),
        FieldKind::Parameters => mime::repaired_parameters(value),
        FieldKind::Other => None,
    };
    // What is left, such as an address, must not become other octets.
    let repaired = repaired.filter(|value| !was_raw || value.is_ascii());
    match repaired.and_then(|value| Field::folded(name, &value).ok()) {
        Some(field) => FieldChange::Replace(field),
        None => FieldChange::Keep,
    }
}

/// It may also be two quoted strings in a row: only parsing decides.
fn has_empty_name(value: &[u8]) -> bool {
    memchr::memchr_iter(b'"', value).any(|quote| value[quote + 1..].trim_ascii_start().starts_with(b"\""))
}

fn repaired_text(value: &str, column: usize) -> Option<String> {
    let sound = |piece: &TextPiece<'_>| match piece {
        TextPiece::Plain(text) => text.is_ascii(),
        TextPiece::Run(run) => run.is_sound(WordPlacement::Text),
    };
    if encoded_words::split(value).iter().all(sound) {
        return None;
    }
    Some(encoded_words::encode_text(&encoded_words::decode(value)?, column))
}

/// Encoded words are not allowed here, so nothing is lost by decoding them.
fn repaired_ids(value: &str) -> Option<String> {
    let decoded = encoded_words::decode(value).filter(|decoded| decoded != value)?;
    let visible = decoded.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    (visible && decoded.starts_with('<') && decoded.ends_with('>')).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;
    use super::super::working_copy::WorkingCopy;
    use crate::message::RawMessage;

    #[test]
    fn what_real_clients_send() {
        let subject =
            |before: &str, after: &str| (format!("Subject: {before}\r\n\r\n"), format!("Subject: {after}\r\n\r\n"));
        let cases = [
            // bamboo_mua: glued words, raw spaces, a character split over two, never folded.
            subject(
                "=?UTF-8?Q?Weekly figures of gr=C3=B6=C3=9Fte-b=C3=BCcherei-f=C3=BCr-k=C3?==?UTF-8?Q?=A4sekuchen.example/=E2=98=95-shop?=",
                "Weekly figures of\r\n =?UTF-8?Q?gr=C3=B6=C3=9Fte-b=C3=BCcherei-f=C3=BCr-k=C3=A4sekuchen.example?=\r\n =?UTF-8?Q?/=E2=98=95-shop?=",
            ),
            // ASCII in words, because of its length or of a character in it.
            subject(
                "=?UTF-8?Q?[Example Analytics] maximilian.mustermann-beispiel@example.org ?==?UTF-8?Q?joined you in watching shop.example.com/en-gb?=",
                "[Example Analytics] maximilian.mustermann-beispiel@example.org\r\n joined you in watching shop.example.com/en-gb",
            ),
            subject("=?UTF-8?Q?Busy hour on my=5Fshop?=", "Busy hour on my_shop"),
            subject("=?UTF-8?Q?Did it go well=3F?=", "Did it go well?"),
        ];
        let cases: Vec<_> = cases.iter().map(|(before, after)| (before.as_str(), after.as_str())).collect();
        table(super::repair, &cases);
        table(
            super::repair,
            &[
                // A display name with its quotes; a Message-ID in words.
                (
                    "To: =?UTF-8?Q?\"J=C3=BCrgen Gr=C3=B6=C3=9Fer\"?= <j@example.net>\r\n\r\n",
                    "To: =?UTF-8?Q?J=C3=BCrgen_Gr=C3=B6=C3=9Fer?= <j@example.net>\r\n\r\n",
                ),
                (
                    "Message-Id: =?UTF-8?Q?<20261124.x@statistics.department-of-very-long-name?==?UTF-8?Q?s.example.com>?=\r\n\r\n",
                    "Message-Id: <20261124.x@statistics.department-of-very-long-names.example.com>\r\n\r\n",
                ),
                ("From: \"\" <reports@example.com>\r\n\r\n", "From: reports@example.com\r\n\r\n"),
                ("Cc: \"A\" <a@b>, \"\" <c@d>\r\n\r\n", "Cc: \"A\" <a@b>, c@d\r\n\r\n"),
                // gen_smtp: one word, however long, also for ASCII.
                (
                    "From: =?UTF-8?B?RXhhbXBsZSBBbmFseXRpY3M=?= <reports@example.com>\r\n\r\n",
                    "From: Example Analytics <reports@example.com>\r\n\r\n",
                ),
                // The older bamboo_mua: raw UTF-8.
                (
                    "to: \"Jürgen Größer\"\r\n <j@example.net>\r\n\r\n",
                    "to: =?UTF-8?Q?J=C3=BCrgen_Gr=C3=B6=C3=9Fer?= <j@example.net>\r\n\r\n",
                ),
            ],
        );
    }

    #[test]
    fn odd_ones() {
        let words = format!("Subject: {}\r\n\r\n", "=?UTF-8?Q?=C3=A4?= ".repeat(30).trim_end());
        table(
            super::repair,
            &[
                (
                    "Subject: Grün\r\nX-Note: 日本\r\n\r\n",
                    "Subject: =?UTF-8?Q?Gr=C3=BCn?=\r\nX-Note: =?UTF-8?B?5pel5pys?=\r\n\r\n",
                ),
                ("Subject: =?UTF-8?Q??=\r\n\r\n", "Subject: \r\n\r\n"),
                ("Subject:=?UTF-8?Q?a=C3=A4?=b\r\n\r\n", "Subject: =?UTF-8?Q?a=C3=A4b?=\r\n\r\n"),
                // A line break inside a word must not come out of it.
                ("Subject: =?UTF-8?Q?x y=0D=0ABcc:_z?=\r\n\r\n", "Subject: x y Bcc:_z\r\n\r\n"),
                // It must not stay in an otherwise valid word either.
                ("Subject: =?UTF-8?Q?x=0D=0A=00Bcc:_=C3=A4?=\r\n\r\n", "Subject: x Bcc: =?UTF-8?B?w6Q=?=\r\n\r\n"),
                ("To: =?UTF-8?Q?=C3=A4=0ABcc?= <a@b>\r\n\r\n", "To: =?UTF-8?B?w6Q=?= Bcc <a@b>\r\n\r\n"),
                ("To: a@b (=?UTF-8?B?w6QNCg==?=)\r\n\r\n", "To: a@b (=?UTF-8?B?w6Q=?=)\r\n\r\n"),
                ("References: =?UTF-8?Q?<a@b> <c@d>?=\r\n\r\n", "References: <a@b> <c@d>\r\n\r\n"),
                // The raw name of an attachment.
                (
                    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png;\r\n\tname=\"ü.png\"\r\nX: ü\r\n\r\nü\r\n--b--\r\n",
                    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png; name*=UTF-8''%C3%BC.png\r\nX: ü\r\n\r\nü\r\n--b--\r\n",
                ),
                // Valid, or not readable with certainty, or without a place for text.
                (&words, &words),
                ("Subject: =?UTF-8?Q?=C3?=\r\n\r\n", "Subject: =?UTF-8?Q?=C3?=\r\n\r\n"),
                ("Subject: =?x?Q?a b?=\r\n\r\n", "Subject: =?x?Q?a b?=\r\n\r\n"),
                ("Message-ID: =?UTF-8?Q?a@b?=\r\n\r\n", "Message-ID: =?UTF-8?Q?a@b?=\r\n\r\n"),
                ("List-Unsubscribe: <https://x/ü>\r\n\r\n", "List-Unsubscribe: <https://x/ü>\r\n\r\n"),
                ("To: jürgen@example.net\r\n\r\n", "To: jürgen@example.net\r\n\r\n"),
                ("X: two  spaces\tand a tab \r\n\r\n", "X: two  spaces\tand a tab \r\n\r\n"),
            ],
        );
    }

    fn repaired(data: &[u8]) -> String {
        let message = RawMessage::from_data(data.to_vec().into()).expect("a message");
        let mut message = WorkingCopy::of(&message);
        super::repair(&mut message);
        let once = message.to_bytes();
        super::repair(&mut message);
        assert!(message.to_bytes() == once, "a second time: {}", once.escape_ascii());
        once.escape_ascii().to_string().replace("\\r\\n", "\n").replace("\\\"", "\"").replace("\\'", "'")
    }

    #[test]
    fn octets_that_are_no_utf_8_are_of_the_bodys_charset_or_else_of_windows_1252() {
        for (before, after) in [
            (
                &b"Subject: gr\xfcn \x80\r\nFrom: J\xfcrgen <a@b>\r\n\r\n\xfc"[..],
                "Subject: =?UTF-8?Q?gr=C3=BCn_=E2=82=AC?=\nFrom: =?UTF-8?Q?J=C3=BCrgen?= <a@b>\n\n\\xfc",
            ),
            (
                b"Subject: \xe8\xe9\r\nContent-Type: text/plain; charset=iso-8859-5\r\n\r\nx",
                "Subject: =?UTF-8?B?0YjRiQ==?=\nContent-Type: text/plain; charset=iso-8859-5\n\nx",
            ),
            (
                b"Subject: \x83n\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=Shift_JIS\r\n\r\nx\r\n--b--\r\n",
                "Subject: =?UTF-8?B?44OP?=\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain; charset=Shift_JIS\n\nx\n--b--\n",
            ),
            // What claims to be UTF-8 and is not is something else.
            (
                b"Subject: gr\xfcn\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nx",
                "Subject: =?UTF-8?Q?gr=C3=BCn?=\nContent-Type: text/plain; charset=utf-8\n\nx",
            ),
            (
                b"Content-Disposition: attachment; filename=\"\xfc.pdf\"\r\nContent-Type: text/plain; name=\xfc.pdf\r\n\r\nx",
                "Content-Disposition: attachment; filename*=UTF-8''%C3%BC.pdf\nContent-Type: text/plain; name*=UTF-8''%C3%BC.pdf\n\nx",
            ),
            (
                b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png; name=\"\xfc.png\"\r\n\r\nx\r\n--b--\r\n",
                "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: image/png; name*=UTF-8''%C3%BC.png\n\nx\n--b--\n",
            ),
            // Each field is decided separately.
            (b"Subject: gr\xc3\xbcn\r\nX: gr\xfcn\r\n\r\n", "Subject: =?UTF-8?Q?gr=C3=BCn?=\nX: =?UTF-8?Q?gr=C3=BCn?=\n\n"),
            // Inside a word they are in the charset that it names.
            (
                b"Subject: \xfc =?iso-8859-5?Q?\xe8_=E9?= =?x\r\n\r\n",
                "Subject: =?UTF-8?Q?=C3=BC_=D1=88_=D1=89_=3D=3Fx?=\n\n",
            ),
            // Octets that are not characters in that charset.
            (b"Subject: a\x81 \xfc\r\n\r\n", "Subject: a =?UTF-8?B?w7w=?=\n\n"),
            // An address has no charset.
            (b"To: \xfc@b\r\nCc: J <\xfc@b>\r\nX : a\r\n\r\n", "To: \\xfc@b\nCc: J <\\xfc@b>\nX : a\n\n"),
            (b"List-Unsubscribe: <https://x/\xfc>\r\n\r\n", "List-Unsubscribe: <https://x/\\xfc>\n\n"),
        ] {
            assert_eq!(repaired(before), after);
        }
    }
}
