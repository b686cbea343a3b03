//! All steps together: idempotent, no change to valid content, no change of meaning to what is broken.

use super::testing::NOW;
use super::{RepairInputs, Repairs, STEPS, repair};
use crate::message::{MailId, RawMessage};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mail_parser::{Address, Message, MessageParser, PartType};
use proptest::prelude::*;

fn repaired_with(message: &RawMessage, repairs: &Repairs) -> RawMessage {
    let now = NOW.parse().expect("a time");
    repair(message, repairs, &RepairInputs { now, id: MailId::new(now, 7), host: "gw.example.com" }).message
}

fn message(data: impl Into<Vec<u8>>) -> RawMessage {
    RawMessage::from_data(data.into().into()).expect("a message")
}

fn repaired(data: impl Into<Vec<u8>>) -> Vec<u8> {
    repaired_with(&message(data), &Repairs::ALL).to_bytes()
}

#[test]
fn everything_at_once() {
    let before = "From: \"\" <reports@example.com>\r\nBcc: c@d\r\nSubject: =?UTF-8?Q?a b?=\r\n\
        Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: text/html\r\n\r\n<p>ä\r\n--m--\r\n";
    let id = MailId::new(NOW.parse().expect("a time"), 7);
    let head = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n";
    let after = format!(
        "From: reports@example.com\r\nSubject: a b\r\nMessage-ID: <{id}@gw.example.com>\r\n\
         Date: Tue, 24 Nov 2026 03:05:09 +0000\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=\"=_{id}_0\"\r\n\r\n\
         --=_{id}_0\r\n{head}\r\n=C3=A4\r\n\r\n--=_{id}_0\r\n{}\r\n<p>=C3=A4\r\n\r\n--=_{id}_0--\r\n",
        head.replace("plain", "html"),
    );
    assert_eq!(String::from_utf8_lossy(&repaired(before)), after);
    let now = NOW.parse().expect("a time");
    let steps = repair(&message(before), &Repairs::ALL, &RepairInputs { now, id, host: "gw.example.com" }).steps;
    let expected = ["bcc", "flatten", "header_text", "message_id", "date", "transfer_encoding", "charset", "text_part"];
    assert_eq!(steps, expected);
    assert_eq!(repaired_with(&message(before), &Repairs::NONE).to_bytes(), before.as_bytes());
}

#[test]
fn every_step_has_a_name_of_its_own_and_its_own_switch() {
    for (at, step) in STEPS.iter().enumerate() {
        assert!(STEPS[..at].iter().all(|other| other.name != step.name), "{} twice", step.name);
        assert!(!step.doc.is_empty(), "{} has no documentation", step.name);
        let others = Repairs::of(|other| other.name != step.name);
        assert_eq!(others.turned_off(), [step.name]);
        assert_eq!(format!("{:?}", Repairs::of(|one| one.name == step.name)), format!("{{{:?}}}", step.name));
    }
    assert_eq!(Repairs::of(|_| true), Repairs::ALL);
}

#[test]
fn bombs_are_defused() {
    let mixed = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n".repeat(50_000);
    let messages = "Content-Type: message/rfc822\r\n\r\n".repeat(100_000);
    let fields = "X: =?UTF-8?Q?\u{e4}".repeat(10_000) + &"A:\r\n".repeat(20_000);
    let names = format!("To: {}\r\n", "\"\" <a@b> (ä), ".repeat(10_000));
    let one_line = format!("From: a@b\r\n\r\n{}", "x".repeat(3_000_000));
    let html = format!("Content-Type: text/html\r\n\r\n{}", "<div>".repeat(500_000));
    for bomb in [mixed, messages, fields, names, one_line, html] {
        let once = repaired(bomb);
        assert_eq!(repaired(once.clone()), once);
    }
}

/// What a reader shows: subject, names, addresses, and the texts regardless of their line endings.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    subject: Option<String>,
    people: Vec<String>,
    texts: Vec<(bool, String)>,
    attachments: Vec<(Option<String>, Vec<u8>)>,
}

impl Shown {
    fn by(data: &[u8]) -> Self {
        let parsed = MessageParser::default().parse(data).expect("a message");
        let lists = [parsed.from(), parsed.to()].into_iter().flatten();
        Self {
            subject: parsed.subject().map(str::to_owned),
            people: lists.flat_map(people).collect(),
            texts: texts(&parsed),
            attachments: attachments(&parsed),
        }
    }
}

fn people(list: &Address<'_>) -> Vec<String> {
    list.iter()
        .map(|it| format!("{} <{}>", it.name.as_deref().unwrap_or_default(), it.address().unwrap_or_default()))
        .collect()
}

fn texts(parsed: &Message<'_>) -> Vec<(bool, String)> {
    let text = |part: &mail_parser::MessagePart<'_>| match &part.body {
        PartType::Text(text) => Some((false, text.replace("\r\n", "\n"))),
        PartType::Html(text) => Some((true, text.replace("\r\n", "\n"))),
        _ => None,
    };
    parsed.parts.iter().filter_map(text).collect()
}

fn attachments(parsed: &Message<'_>) -> Vec<(Option<String>, Vec<u8>)> {
    use mail_parser::MimeHeaders as _;
    let octets = |part: &mail_parser::MessagePart<'_>| match &part.body {
        PartType::Binary(octets) | PartType::InlineBinary(octets) => {
            Some((part.attachment_name().map(str::to_owned), octets.to_vec()))
        }
        _ => None,
    };
    parsed.parts.iter().filter_map(octets).collect()
}

/// A message of the kinds that applications send, before it is written down.
#[derive(Debug, Clone)]
struct Letter {
    subject: String,
    name: String,
    text: String,
    html: Option<String>,
    attachment: Option<Vec<u8>>,
}

fn letters() -> impl Strategy<Value = Letter> {
    let words = "[a-zA-Zäß☕日]{1,12}( [a-zA-Z,.=?_äß☕日]{1,12}){0,8}";
    let name = "[a-zA-Zäß☕日]{1,12}( [a-zA-Zäß☕日]{1,12}){0,3}";
    let lines = "([a-zA-Zäß☕=. ]{0,100}\n){1,6}";
    (
        words,
        name,
        lines,
        proptest::option::of(lines),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)),
    )
        .prop_map(|(subject, name, text, html, attachment)| Letter {
            subject,
            name,
            text,
            html: html.map(|html| format!("<p>x{html}</p>\n")),
            attachment,
        })
}

/// Words of whole characters, by a different encoder than the one under test.
fn in_words(text: &str) -> String {
    if text.is_ascii() && !text.contains("=?") {
        return text.to_owned();
    }
    let characters: Vec<char> = text.chars().collect();
    let word = |chunk: &[char]| format!("=?utf-8?B?{}?=", BASE64_STANDARD.encode(String::from_iter(chunk)));
    // Encoding a run that happens to be ASCII would be unnecessary.
    let words: Vec<_> = characters.chunks(10).map(word).collect();
    words.join("\r\n ")
}

impl Letter {
    fn sound(&self) -> String {
        let text = Self::part("plain", &self.text);
        let texts = match &self.html {
            None => text,
            Some(html) => format!(
                "Content-Type: multipart/alternative; boundary=\"a\"\r\n\r\n--a\r\n{text}\r\n--a\r\n{}\r\n--a--\r\n",
                Self::part("html", html)
            ),
        };
        let content = match &self.attachment {
            None => texts,
            Some(octets) => format!(
                "Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n{texts}\r\n--m\r\nContent-Type: image/png\r\n\
                 Content-Disposition: attachment; filename*=UTF-8''%C3%A4.png\r\nContent-Transfer-Encoding: base64\r\n\r\n\
                 {}\r\n--m--\r\n",
                BASE64_STANDARD.encode(octets)
            ),
        };
        format!(
            "{}MIME-Version: 1.0\r\nMessage-ID: <m@example.com>\r\nDate: Tue, 24 Nov 2026 03:05:09 +0000\r\n{content}",
            self.head(in_words)
        )
    }

    fn head(&self, words: impl Fn(&str) -> String) -> String {
        format!(
            "Subject: {}\r\nFrom: {} <reports@example.com>\r\nTo: \"A, B\" <you@example.net>, other@example.net\r\n",
            words(&self.subject),
            words(&self.name)
        )
    }

    fn part(kind: &str, text: &str) -> String {
        let text = crate::message::mime::encode_quoted_printable(text.as_bytes());
        let text = String::from_utf8(text).expect("ASCII");
        format!("Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{text}")
    }

    /// As the three generations of Plausible's clients would write it, with all their mistakes together.
    fn broken(&self) -> Vec<u8> {
        let part = |kind: &str, text: &str| format!("Content-Type: text/{kind}\r\n\r\n{}", text.replace('\n', "\r\n"));
        let base64 = |html: &str| {
            format!(
                "Content-Type: text/html;charset=UTF-8\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
                BASE64_STANDARD.encode(html)
            )
        };
        let html = self.html.as_ref().map(|html| format!("--a\r\n{}\r\n", base64(html))).unwrap_or_default();
        let texts = format!(
            "Content-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\n{}\r\n{html}--a--\r\n",
            part("plain", &self.text)
        );
        let attachment = self.attachment.as_ref().map(|octets| {
            format!(
                "--m\r\nContent-Type: image/png; name=\"ä.png\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
                BASE64_STANDARD.encode(octets)
            )
        });
        let glued = |text: &str| {
            let q = |octets: &[u8]| -> String {
                octets
                    .iter()
                    .map(|&b| {
                        if b.is_ascii_alphanumeric() || b == b' ' {
                            char::from(b).to_string()
                        } else {
                            format!("={b:02X}")
                        }
                    })
                    .collect()
            };
            text.as_bytes().chunks(13).map(|chunk| format!("=?UTF-8?Q?{}?=", q(chunk))).collect::<String>()
        };
        format!(
            "{}Message-Id: {}\r\nBcc: x@y\r\nMime-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n{texts}{}--m--\r\n",
            self.head(glued),
            glued("<m@example.com>"),
            attachment.unwrap_or_default()
        )
        .into_bytes()
    }
}

proptest! {
    #[test]
    fn what_is_sound_stays_octet_for_octet(letter in letters()) {
        let sound = letter.sound();
        prop_assert_eq!(String::from_utf8(repaired(sound.clone())).expect("UTF-8"), sound);
    }

    #[test]
    fn broken_text_reads_the_same_after_repair(letter in letters()) {
        let meant = Shown::by(letter.sound().as_bytes());
        let fixed = repaired(letter.broken());
        prop_assert!(fixed.is_ascii());
        prop_assert_eq!(Shown::by(&fixed), meant, "{}", String::from_utf8_lossy(&fixed));
        prop_assert_eq!(repaired(fixed.clone()), fixed);
    }

    #[test]
    fn twice_is_once(data in nonsense()) {
        let once = repaired(data);
        let twice = repaired(once.clone());
        prop_assert!(once == twice, "{}\n\nbecame\n\n{}", once.escape_ascii(), twice.escape_ascii());
    }

    #[test]
    fn any_choice_of_steps_is_idempotent(data in nonsense(), choice in proptest::collection::vec(any::<bool>(), STEPS.len())) {
        let chosen: Vec<_> = STEPS.iter().zip(choice).filter(|(_, wanted)| *wanted).map(|(step, _)| step.name).collect();
        let repairs = Repairs::of(|step| chosen.contains(&step.name));
        let once = repaired_with(&message(data), &repairs);
        prop_assert!(repaired_with(&once, &repairs) == once, "{:?}", repairs);
    }
}

/// Text that looks like what the steps search for.
const LINES: &[&[u8]] = &[
    b"\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n--b\r\n",
    b"\r\n--b--\r\n",
    b"\r\n--c\r\n",
    b"\r\n--c--\r\n",
    b" ",
    b"\t",
    b"\r\n ",
];
const NAMES: &[&[u8]] =
    &[b"Subject: ", b"From: ", b"To: ", b"Message-ID: ", b"Date: ", b"Mime-Version: 1.0", b"Content-Type: ", b"X-A: "];
const LABELS: &[&[u8]] = &[
    b"Content-Type: text/html",
    b"Content-Type: text/plain",
    b"; charset=utf-8",
    b";",
    b"Content-Type: multipart/mixed; boundary=b",
    b"Content-Type: multipart/alternative; boundary=c",
    b"Content-Type: multipart/mixed; boundary=c",
    b"Content-Type: multipart/related; boundary=b",
    b"Content-Type: multipart/signed; boundary=b",
    b"Content-Type: message/rfc822",
    b"Content-Transfer-Encoding: base64",
    b"Content-Transfer-Encoding: quoted-printable",
    b"Content-Disposition: attachment",
    b"filename=\"\xc3\xa4\"",
];
const TEXTS: &[&[u8]] = &[
    b"=?UTF-8?Q?",
    b"=?utf-8?B?",
    b"?=",
    b"=C3=A4",
    b"w6Q=",
    b"QUJD",
    b"=",
    b"<p>x</p>",
    b"<a href=x>",
    b"word",
    b"\xc3\xa4",
    b"\xe4",
    b"\x01",
];
const ADDRESSES: &[&[u8]] = &[b"\"", b"\"\" <a@b>", b"<", b">", b"(", b")", b",", b":", b"a@b"];

fn nonsense() -> impl Strategy<Value = Vec<u8>> {
    let fragments = [LINES, NAMES, LABELS, TEXTS, ADDRESSES].concat();
    let fragment = prop_oneof![
        20 => proptest::sample::select(fragments).prop_map(<[u8]>::to_vec),
        1 => Just(b"long ".repeat(250)),
        1 => vec![Just(b'y'); 1100],
    ];
    let field = proptest::collection::vec(fragment.clone(), 0..5);
    (proptest::collection::vec(field, 0..6), proptest::collection::vec(fragment, 0..30)).prop_map(|(fields, body)| {
        let fields: Vec<u8> = fields.iter().flat_map(|field| [field.concat(), b"\r\n".to_vec()].concat()).collect();
        crlf(&[fields, b"\r\n".to_vec(), body.concat()].concat())
    })
}

/// No bare line endings, as after the listener.
fn crlf(octets: &[u8]) -> Vec<u8> {
    let text: Vec<u8> = octets.iter().copied().filter(|&byte| byte != b'\r').collect();
    text.split(|&byte| byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..])
}
