//! 8-bit text without a Content-Transfer-Encoding, or with one that contradicts it, becomes quoted-printable, or base64
//! if quoted-printable would make a large text much larger. RFC 2045 §6.

use super::parts::{self, EditablePart, PartChange, encoded_size};
use super::step::{MemoryNeed, RepairScope, RepairStep};
use super::working_copy::WorkingCopy;
use crate::message::mime::{ContentFields, Encoding};

pub(super) const STEP: RepairStep = RepairStep {
    name: "transfer_encoding",
    doc: &["8-bit text that does not say so becomes quoted-printable."],
    scope: RepairScope::Body,
    run: |message, _| {
        declare(message);
        Ok(())
    },
    memory: MemoryNeed {
        rewritten: |content, body| denies_eight_bit(content, body).then(|| encoded_size(body)),
        ..MemoryNeed::NONE
    },
};

pub(super) fn declare(message: &mut WorkingCopy) {
    if message.body_is_eight_bit() {
        parts::edit(message, declared);
    }
}

fn declared(part: &EditablePart<'_>) -> Option<PartChange> {
    denies_eight_bit(part.content, part.body).then(|| part.encoded(None)).flatten()
}

fn denies_eight_bit(content: &ContentFields, body: &[u8]) -> bool {
    let claims_seven_bit = matches!(content.encoding, Encoding::Absent | Encoding::SevenBit);
    content.is_text() && claims_seven_bit && !body.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parts, table};

    #[test]
    fn before_and_after() {
        let part = |head: &str, body: &str| parts(&[&format!("{head}\r\n{body}")]);
        let kept = |head: &str, body: &str| (part(head, body), part(head, body));
        let cases = [
            // gen_smtp.
            (
                part("Content-Type: text/plain;charset=UTF-8\r\n", "Grüße \r\na = b\r\n"),
                part(
                    "Content-Type: text/plain;charset=UTF-8\r\nContent-Transfer-Encoding: quoted-printable\r\n",
                    "Gr=C3=BC=C3=9Fe=20\r\na =3D b\r\n",
                ),
            ),
            (
                part("Content-transfer-encoding: 7BIT\r\nContent-Type: text/csv\r\n", "ä"),
                part("Content-Transfer-Encoding: quoted-printable\r\nContent-Type: text/csv\r\n", "=C3=A4"),
            ),
            (
                "Subject: x\r\n\r\nä\r\n".to_owned(),
                "Subject: x\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n\r\n=C3=A4\r\n"
                    .to_owned(),
            ),
            kept("Content-Transfer-Encoding: 8bit\r\n", "ä"),
            kept("Content-Transfer-Encoding: x-own\r\n", "ä"),
            kept("Content-Type: application/octet-stream\r\n", "ä"),
            kept("Content-Type: message/rfc822\r\n", "Subject: x\r\n\r\nä"),
            kept("Content-Type: application/pkcs7-mime\r\n", "ä"),
            kept("Content-Type: multipart/signed; boundary=s\r\n", "--s\r\n\r\nä\r\n--s--\r\n"),
            kept("Content-Type: text/plain\r\n", "7 bits"),
        ];
        let cases: Vec<_> = cases.iter().map(|(before, after)| (before.as_str(), after.as_str())).collect();
        table(super::declare, &cases);
    }

    #[test]
    fn octets_of_any_charset_survive() {
        use crate::message::RawMessage;
        let data = b"Content-Type: text/plain; charset=latin1\r\n\r\n\xe4\xff\r\n";
        let message = RawMessage::from_data(data[..].into()).expect("a message");
        let mut message = super::WorkingCopy::of(&message);
        super::declare(&mut message);
        assert_eq!(message.body().as_ref(), b"=E4=FF\r\n");
    }
}
