//! Messages before and after a conversion, and what no conversion may ever change.

use super::*;
use mail_parser::{MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

fn message(data: impl Into<Vec<u8>>) -> RawMessage {
    RawMessage::from_data(data.into().into()).expect("a message")
}

fn converted(data: impl Into<Vec<u8>>) -> Result<String, Inconvertible> {
    let message = message(data);
    let converted = to_seven_bit(&message)?.map_or(message.to_bytes(), |converted| converted.to_bytes());
    Ok(String::from_utf8(converted).expect("ASCII"))
}

fn parts(parts: &[&str]) -> String {
    let parts: String = parts.iter().map(|part| format!("--b\r\n{part}\r\n")).collect();
    format!("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n")
}

#[test]
fn before_and_after() {
    const QP: &str = "Content-Transfer-Encoding: quoted-printable\r\n";
    const EIGHT: &str = "Content-Transfer-Encoding: 8bit\r\n";
    let part = |head: &str, body: &str| parts(&[&format!("{head}\r\n{body}")]);
    for (before, after) in [
        (
            format!("A: b\r\n{EIGHT}\r\nGrüße, a = b\r\n"),
            format!("A: b\r\n{QP}MIME-Version: 1.0\r\n\r\nGr=C3=BC=C3=9Fe, a =3D b\r\n"),
        ),
        ("A: b\r\n\r\nä".to_owned(), format!("A: b\r\n{QP}MIME-Version: 1.0\r\n\r\n=C3=A4")),
        (
            part(&format!("Content-Type: text/html\r\n{EIGHT}"), "<p>ä"),
            part(&format!("Content-Type: text/html\r\n{QP}"), "<p>=C3=A4"),
        ),
        // Other quoted-printable text is kept.
        (part(QP, "=C3=A4 ä=\r\n b=3D"), part(QP, "=C3=A4 =C3=A4 b=3D")),
        (
            part(&format!("Content-Type: application/json\r\n{QP}"), "ä=0Ab=0D=0Ac\r\nd"),
            part(&format!("Content-Type: application/json\r\n{QP}"), "=C3=A4=0Ab\r\nc\r\nd"),
        ),
        (
            part("Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n", "äöü"),
            part("Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n", "w6TDtsO8"),
        ),
        (
            format!("MIME-Version: 1.0\r\nContent-Type: image/png\r\n{EIGHT}\r\nä\r\n"),
            "MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nw6QNCg==\r\n"
                .to_owned(),
        ),
        // Only the part that needs it; names of attachments; the label of the whole; text that only ancient readers
        // show.
        (
            format!(
                "{EIGHT}Content-Type: multipart/mixed; boundary=b\r\n\r\nprëamble\r\n--b\r\n{EIGHT}\r\nplain\r\n--b\r\nContent-Type: text/csv; name=\"ü.csv\"\r\n\r\nä\r\n--b--\r\nëpilogue"
            ),
            format!(
                "Content-Transfer-Encoding: 7bit\r\nContent-Type: multipart/mixed; boundary=b\r\nMIME-Version: 1.0\r\n\r\npr??amble\r\n--b\r\n{EIGHT}\r\nplain\r\n--b\r\nContent-Type: text/csv; name*=UTF-8''%C3%BC.csv\r\n{QP}\r\n=C3=A4\r\n--b--\r\n??pilogue"
            ),
        ),
        // The message's own header.
        (
            "Subject: Grün\r\nFrom: Jürgen <j@example.com>\r\n\r\ntext".to_owned(),
            "Subject: =?UTF-8?Q?Gr=C3=BCn?=\r\nFrom: =?UTF-8?Q?J=C3=BCrgen?= <j@example.com>\r\n\r\ntext".to_owned(),
        ),
    ] {
        assert_eq!(converted(before.as_str()).as_deref(), Ok(after.as_str()), "{before}");
        assert_eq!(converted(after.as_str()).as_deref(), Ok(after.as_str()), "once is enough");
    }
}

#[test]
fn what_is_ascii_is_not_touched() {
    for data in [
        "Subject: =?UTF-8?Q?broken?= =?x?\r\nContent-Transfer-Encoding: 8bit\r\n\r\ntext \r\n",
        "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nx\r\n--s--\r\n",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nno end",
        "",
    ] {
        assert_eq!(to_seven_bit(&message(data)), Ok(None), "{data}");
        assert_eq!(with_ascii_texts(&message(data)), None, "{data}");
    }
}

/// The whole message exists once; ASCII needs nothing.
#[test]
fn there_is_room_for_a_conversion_and_little_more() {
    const MULTIPART: &str = "Content-Type: multipart/mixed; boundary=b\r\n";
    let many = |text: &str| text.repeat((1 << 20) / text.len());
    for (name, head, body, most) in [
        ("ASCII", "", many("= a\r\n"), 0.0),
        ("umlauts", "", many("üüü\r\n"), 1.5),
        ("prose", "", many("grün ist die Farbe der Bäume und nicht die des Himmels\r\n"), 1.5),
        ("one line", "", many("ü"), 1.5),
        ("escapes", "Content-Transfer-Encoding: quoted-printable\r\n", many("ü=C3=BC=\r\n"), 2.5),
        ("a picture", "Content-Type: image/png\r\n", many("ü"), 1.5),
        ("a preamble", MULTIPART, many("ü") + "\r\n--b\r\n\r\nx\r\n--b--", 1.1),
    ] {
        let before = message(format!("{head}\r\n{body}"));
        let size = before.body().len();
        let room = seven_bit_memory(&before);
        let after = to_seven_bit(&before).expect("convertible").map_or(0, |after| after.body().len());
        assert!(after <= room && room as f64 <= most * size as f64, "{name}: {after}, room for {room} beside {size}");
    }
}

#[test]
fn large_text_gets_the_shorter_of_the_two_encodings() {
    const EIGHT: &str = "Content-Transfer-Encoding: 8bit\r\n";
    const QP: &str = "Content-Transfer-Encoding: quoted-printable\r\n";
    for (head, text, octets, encoding) in [
        (EIGHT, "Привет, мир\r\n", LARGE - 1000, "quoted-printable"),
        (EIGHT, "Привет, мир\r\n", LARGE + 1000, "base64"),
        (EIGHT, "grün ist die Farbe der Bäume und nicht die des Himmels\r\n", LARGE + 1000, "quoted-printable"),
        (QP, "ü=C3=BC=FC=\r\n", 3 * LARGE, "base64"),
        (QP, "ü und ein u\r\n", LARGE + 1000, "quoted-printable"),
    ] {
        let before = message(format!(
            "Content-Type: text/plain; charset=utf-8\r\n{head}\r\n{}",
            text.repeat(octets / text.len())
        ));
        let after = to_seven_bit(&before).expect("convertible").expect("another form");
        let size = after.body().len();
        let declared = after.fields_named(ENCODING).next().map(|field| field.unfolded()).unwrap_or_default();
        assert_eq!(String::from_utf8_lossy(&declared), encoding, "{text:?}");
        assert!(after.body().ends_with(b"\r\n") || head == QP, "{text:?}");
        assert!(encoding != "base64" || size * 2 < before.body().len() * 3, "{size}");
        assert_eq!(shown(&after.to_bytes()), shown(&before.to_bytes()), "{text:?}");
    }
}

#[test]
fn what_must_not_be_changed_is_refused_with_the_reason() {
    let part = |head: &str, body: &str| parts(&[&format!("{head}\r\n{body}")]);
    let code = |detail| EnhancedCode::new(5, 6, detail);
    for (data, enhanced, words) in [
        (
            part("Content-Type: multipart/signed; boundary=s\r\n", "--s\r\n\r\nä\r\n--s--\r\n"),
            code(2),
            "multipart/signed",
        ),
        (
            part("Content-Type: multipart/encrypted; boundary=s\r\n", "--s\r\n\r\nä\r\n--s--\r\n"),
            code(2),
            "multipart/encrypted",
        ),
        (part("Content-Type: application/pkcs7-mime\r\n", "ä"), code(2), "application/pkcs7-mime"),
        (part("Content-Type: message/rfc822\r\n", "Subject: x\r\n\r\nä"), code(2), "message/rfc822"),
        (
            "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nä\r\n--s--\r\n".to_owned(),
            code(2),
            "multipart/signed",
        ),
        (part("Content-Transfer-Encoding: base64\r\n", "w6Q=ä"), code(3), "cannot be determined"),
        (part("Content-Transfer-Encoding: x-own\r\n", "ä"), code(3), "cannot be determined"),
        (part("Content-Transfer-Encoding: quoted-printable\r\n", "1=2ä"), code(3), "cannot be determined"),
        (
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nä, and no end".to_owned(),
            code(3),
            "cannot be determined",
        ),
        ("From: jürgen@example.com\r\n\r\ntext".to_owned(), code(7), "From"),
        ("To: Jürgen <jürgen@example.com>\r\n\r\ntext".to_owned(), code(7), "To"),
        ("List-Unsubscribe: <https://x/ü>\r\n\r\nä".to_owned(), code(7), "List-Unsubscribe"),
    ] {
        let refused = converted(data.as_str()).expect_err(&data);
        assert_eq!(refused.enhanced(), enhanced, "{data}");
        assert!(refused.to_string().contains(words), "{data}: {refused}");
    }
    let latin = converted(&b"Subject: gr\xfcn\r\n\r\n"[..]).expect_err("no UTF-8");
    assert_eq!(latin, Inconvertible::Charset("Subject".to_owned()));
}

#[test]
fn texts_alone_become_words_where_addresses_cannot() {
    let before = "Subject: Grün\r\nTo: jürgen@example.net\r\nX: \u{fc}\r\n\r\nä";
    let after = "Subject: =?UTF-8?Q?Gr=C3=BCn?=\r\nTo: jürgen@example.net\r\nX: =?UTF-8?B?w7w=?=\r\n\r\nä";
    let changed = with_ascii_texts(&message(before)).expect("another header");
    assert_eq!(String::from_utf8_lossy(&changed.to_bytes()), after);
    assert_eq!(with_ascii_texts(&changed), None);
}

/// A part's type, name and octets.
type Shown = (String, Option<String>, Vec<u8>);

/// What a reader shows.
fn shown(data: &[u8]) -> (Option<String>, Vec<Shown>) {
    let parsed = MessageParser::default().parse(data).expect("a message");
    let octets = |body: &PartType<'_>| match body {
        PartType::Text(text) | PartType::Html(text) => text.replace("\r\n", "\n").into_bytes(),
        PartType::Binary(octets) | PartType::InlineBinary(octets) => octets.to_vec(),
        PartType::Message(_) | PartType::Multipart(_) => Vec::new(),
    };
    let kind = |part: &mail_parser::MessagePart<'_>| {
        part.content_type().map(|it| format!("{}/{}", it.ctype(), it.subtype().unwrap_or_default())).unwrap_or_default()
    };
    let part = |part: &mail_parser::MessagePart<'_>| {
        (kind(part), part.attachment_name().map(str::to_owned), octets(&part.body))
    };
    (parsed.subject().map(str::to_owned), parsed.parts.iter().map(part).collect())
}

#[derive(Debug, Clone)]
struct Piece {
    kind: &'static str,
    encoding: &'static str,
    name: Option<String>,
    body: String,
}

fn pieces() -> impl Strategy<Value = Piece> {
    let kinds = ["text/plain; charset=utf-8", "text/html; charset=utf-8", "image/png", "application/json"];
    let encodings = ["", "Content-Transfer-Encoding: 8bit\r\n", "Content-Transfer-Encoding: binary\r\n"];
    let name = proptest::option::of("[a-zäß日]{1,8}");
    let body = "([a-zA-Zäß☕=. ]{0,100}(\r\n|\r\n\\.|\r\nFrom ))*[a-zäß☕=]{1,90}";
    (proptest::sample::select(kinds.to_vec()), proptest::sample::select(encodings.to_vec()), name, body)
        .prop_map(|(kind, encoding, name, body)| Piece { kind, encoding, name, body })
}

proptest! {
    #[test]
    fn nothing_but_the_encoding_changes_and_all_of_it_is_ascii(
        subject in "[a-zäß☕日]{1,10}( [a-zA-Zäß☕日,]{1,12}){0,8}",
        pieces in proptest::collection::vec(pieces(), 1..4),
        preamble in "[a-zä]{0,10}",
    ) {
        let mut data = format!("From: a@example.com\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_b\"\r\n\r\n{preamble}\r\n");
        for Piece { kind, encoding, name, body } in &pieces {
            let name = name.as_ref().map(|name| format!("; name=\"{name}\"")).unwrap_or_default();
            data.push_str(&format!("--=_b\r\nContent-Type: {kind}{name}\r\n{encoding}\r\n{body}\r\n"));
        }
        data.push_str("--=_b--\r\n");
        let before = message(data.as_str());
        let after = to_seven_bit(&before).expect("nothing in it forbids that");
        let needed = after.as_ref().map_or(0, |after| after.body().len());
        prop_assert!(seven_bit_memory(&before) >= needed, "{} octets", needed);
        let after = after.map_or(before.to_bytes(), |after| after.to_bytes());
        prop_assert!(after.is_ascii());
        prop_assert!(after.split(|&byte| byte == b'\n').all(|line| line.len() <= 999));
        prop_assert_eq!(shown(&after), shown(data.as_bytes()), "{}", String::from_utf8_lossy(&after));
    }

    /// Whatever comes in, the result is ASCII or a reason.
    #[test]
    fn no_octets_get_through(head in "(Content-Type: (text/plain|multipart/mixed; boundary=b|message/rfc822|image/png)\r\n)?", octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let body: Vec<u8> = octets.into_iter().filter(|byte| !b"\r\0".contains(byte)).flat_map(|byte| if byte == b'\n' { vec![b'\r', b'\n'] } else { vec![byte] }).collect();
        let data = [head.as_bytes(), b"\r\n--b\r\n\r\n", &body, b"\r\n--b--\r\n"].concat();
        if let Ok(Some(converted)) = to_seven_bit(&message(data)) {
            prop_assert!(converted.to_bytes().is_ascii());
        }
    }
}
