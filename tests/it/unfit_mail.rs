//! Mail that could never be delivered after its 250 is refused at the final dot, with the reason: fields that no signature
//! can cover, lines that a server may refuse, and senders that the client may not use.

use crate::support::application::{NO_REPAIR, hand_in, hand_in_octets, in_front_of, queued_in_front_of};
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::ScriptedUpstream;
use waxseal::dkim::{KeyAlgorithm, generate};

const YOU: &[&str] = &["you@example.net"];
/// RFC 5322 §2.1.1.
const MAX_LINE: usize = 998;
/// Fields that a signature covers as often as they occur.
const SIGNED: [&str; 14] = [
    "Subject",
    "To",
    "Cc",
    "Date",
    "Reply-To",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "In-Reply-To",
    "References",
    "Sender",
];

fn with_key(setup: Setup) -> Setup {
    let key = generate(KeyAlgorithm::Ed25519).expect("a key");
    let dkim = "[[dkim]]\ndomain = \"example.com\"\nselector = \"wax1\"\nprivate_key = \"key.pem\"\n[log]\n";
    setup.file("key.pem", key.reveal()).config_with("unsigned = \"send\"\n", "").config_with("[log]\n", dkim)
}

/// What `check --message` says of the same mail.
fn checked(gateway: &Gateway, mail: &[u8]) -> String {
    let file = gateway.folder().join("mail.eml");
    std::fs::write(&file, mail).expect("the mail is written");
    let file = file.to_str().expect("a path");
    let shown = tokio::task::block_in_place(|| gateway.output(&["check", "--message", file, "--to", YOU[0]]));
    String::from_utf8_lossy(&shown.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_signature_can_cover_is_refused_and_what_is_taken_is_signed() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = with_key(queued_in_front_of(&scripted, "", &format!("[repair]\n{}", off()))).start(1);
    let mut taken = 0;
    for name in SIGNED {
        let value = if name == "Sender" { "reports@example.com" } else { "x" };
        for count in [100, 101] {
            let mail =
                format!("From: reports@example.com\r\n{}\r\ntext\r\n", format!("{name}: {value}\r\n").repeat(count));
            let reply = hand_in(gateway.address(), YOU, &mail).await;
            let refusal = format!("550 5.6.0 Refused: the message has more than 100 {name} headers");
            let expected = if count > 100 { refusal.as_str() } else { "250 2.0.0 Queued as " };
            assert!(reply.starts_with(expected), "{count} {name}: {reply}");
            let shown = checked(&gateway, mail.as_bytes());
            assert_eq!(shown.contains(&refusal), count > 100, "{shown:.2000}");
            taken += usize::from(count <= 100);
        }
    }
    scripted.until_messages(taken).await;
    for message in scripted.messages() {
        assert!(message.data.starts_with(b"DKIM-Signature: "), "{}", String::from_utf8_lossy(&message.data));
    }
}

/// Every repair, as lines of its table.
fn off() -> String {
    NO_REPAIR.replace("[repair]\n", "")
}

/// Mail with a long line in every possible place.
fn long_lines() -> Vec<(&'static str, Vec<u8>)> {
    let long = "x".repeat(MAX_LINE + 1);
    let words = "words and ".repeat(200);
    let mixed = "Content-Type: multipart/mixed; boundary=b\r\n";
    let head = "From: reports@example.com\r\n";
    let text = |name, text: String| (name, text.into_bytes());
    let in_part = |part: &str| format!("{head}{mixed}\r\n--b\r\n{part}\r\n--b--\r\n");
    let deep = "--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".repeat(40);
    vec![
        text("a text", format!("{head}\r\n{long}\r\n")),
        text("a text without an end", format!("{head}\r\n{long}")),
        text("the last of many lines", format!("{head}\r\n{}{long}\r\n", "short\r\n".repeat(1000))),
        text("dots", format!("{head}\r\n{}\r\n", ".".repeat(MAX_LINE + 1))),
        ("8-bit octets", [head.as_bytes(), b"\r\n", &[0xe4; 2000], b"\r\n"].concat()),
        text("a subject of one word", format!("{head}Subject: {long}\r\n\r\nx\r\n")),
        text("a subject of words", format!("{head}Subject: {words}\r\n\r\nx\r\n")),
        text("a subject with a space before its colon", format!("{head}Subject : {words}\r\n\r\nx\r\n")),
        text("a message-id", format!("{head}References: <{long}@x>\r\n\r\nx\r\n")),
        text("many message-ids", format!("{head}References: {}\r\n\r\nx\r\n", "<a@b> ".repeat(300))),
        text("a name of a field", format!("{head}X-{long}: x\r\n\r\nx\r\n")),
        text("a folded field", format!("{head}X-A: x\r\n {long}\r\n\r\nx\r\n")),
        text("addresses without spaces", format!("{head}To: {}b@c\r\n\r\nx\r\n", "a@b,".repeat(400))),
        text("a signature of its own", format!("{head}DKIM-Signature: v=1; b={long}\r\n\r\nx\r\n")),
        text("a content type", format!("{head}Content-Type: text/plain; x={long}\r\n\r\nx\r\n")),
        text("base64", format!("{head}Content-Transfer-Encoding: base64\r\n\r\n{}\r\n", "QUJD".repeat(400))),
        text("broken base64", format!("{head}Content-Transfer-Encoding: base64\r\n\r\n{}\r\n", "Q!".repeat(800))),
        text("quoted-printable", format!("{head}Content-Transfer-Encoding: quoted-printable\r\n\r\n{long}\r\n")),
        text(
            "broken quoted-printable",
            format!("{head}Content-Transfer-Encoding: quoted-printable\r\n\r\n={long}\r\n"),
        ),
        text("an unknown encoding", format!("{head}Content-Transfer-Encoding: x-own\r\n\r\n{long}\r\n")),
        text("an attachment", in_part(&format!("Content-Type: application/pdf\r\n\r\n{long}"))),
        text("a part's header", in_part(&format!("Content-Disposition: attachment; filename={long}\r\n\r\nx"))),
        text("a part's header of words", in_part(&format!("X-Words: {words}\r\n\r\nx"))),
        text("a part without an empty line", in_part(&format!("X-A: b\r\n{long}"))),
        text("a preamble", format!("{head}{mixed}\r\n{long}\r\n--b\r\n\r\nx\r\n--b--\r\n")),
        text("an epilogue", format!("{head}{mixed}\r\n--b\r\n\r\nx\r\n--b--\r\n{long}\r\n")),
        text("a multipart without an end", format!("{head}{mixed}\r\n--b\r\n\r\n{long}\r\n")),
        text("parts in parts", format!("{head}{mixed}\r\n{deep}--b\r\n\r\n{long}\r\n--b--\r\n")),
        text("too many parts", format!("{head}{mixed}\r\n{}{long}\r\n--b--\r\n", "--b\r\n\r\n".repeat(2500))),
        text("a message in the mail", in_part(&format!("Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\n{long}"))),
        text("a delivery report", in_part(&format!("Content-Type: message/delivery-status\r\n\r\nX: {long}"))),
        text(
            "signed mail",
            format!("{head}Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n{long}\r\n--b--\r\n"),
        ),
        text("encrypted mail", format!("{head}Content-Type: application/pkcs7-mime\r\n\r\n{long}\r\n")),
        text(
            "two content types",
            format!("{head}Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n{long}\r\n"),
        ),
        text("HTML", format!("{head}Content-Type: text/html\r\n\r\n<p>{long}\r\n")),
        text(
            "HTML with a long link",
            format!("{head}Content-Type: text/html\r\n\r\n<a\r\nhref={}>x</a>\r\n", "y".repeat(900)),
        ),
        text("no header", format!("{long}\r\n")),
    ]
}

async fn no_long_line_leaves(setup: impl Fn(&ScriptedUpstream) -> Setup) -> (usize, usize) {
    let scripted = ScriptedUpstream::start().await;
    let gateway = setup(&scripted).start(1);
    let mut taken = 0;
    let mut refused = 0;
    for (name, mail) in long_lines() {
        let reply = hand_in_octets(gateway.address(), YOU, &mail).await;
        if reply.starts_with("250 ") {
            taken += 1;
            let arrived = scripted.messages().last().expect("a message").data.clone();
            let longest = arrived.split(|&octet| octet == b'\n').map(|line| line.trim_ascii_end().len()).max();
            assert!(longest.is_some_and(|longest| longest <= MAX_LINE), "{name}: a line of {longest:?} octets left");
        } else {
            refused += 1;
            assert!(reply.starts_with("550 5.6.0 Refused: ") && reply.contains("longer than 998"), "{name}: {reply}");
            assert!(checked(&gateway, &mail).contains("longer than 998"), "{name}");
        }
    }
    assert_eq!(taken, scripted.messages().len());
    (taken, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_over_998_octets_leaves_whatever_the_mail_is() {
    let (taken, refused) = no_long_line_leaves(|scripted| in_front_of(scripted, "")).await;
    assert!(taken >= 15 && refused >= 10, "{taken} taken, {refused} refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_over_998_octets_leaves_where_nothing_is_repaired() {
    let (taken, _) = no_long_line_leaves(|scripted| {
        in_front_of(scripted, "").config_with("[log]\n", &format!("{NO_REPAIR}[log]\n"))
    })
    .await;
    // The link is not long enough.
    assert_eq!(taken, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_over_998_octets_leaves_for_a_server_without_8bitmime() {
    let scripted = ScriptedUpstream::builder().without("8BITMIME").start().await;
    let gateway = in_front_of(&scripted, "").start(1);
    for (name, mail) in long_lines() {
        let reply = hand_in_octets(gateway.address(), YOU, &mail).await;
        assert!(reply.starts_with("250 ") || reply.starts_with("550 5.6"), "{name}: {reply}");
    }
    for message in scripted.messages() {
        let longest = message.data.split(|&octet| octet == b'\n').map(|line| line.trim_ascii_end().len()).max();
        assert!(longest.is_some_and(|longest| longest <= MAX_LINE), "{}", String::from_utf8_lossy(&message.data));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_named_as_the_sender_whom_senders_does_not_allow() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = with_key(in_front_of(&scripted, "")).start(1);
    for name in ["Sender", "Resent-From", "Resent-Sender"] {
        for (fields, allowed) in [
            (format!("{name}: reports@example.com\r\n"), true),
            (format!("{name}: Reports <Other@EXAMPLE.com>\r\n"), true),
            (format!("{name}:\r\n"), true),
            (format!("X-{name}: ceo@paypal.com\r\n"), true),
            (format!("{name}: ceo@paypal.com\r\n"), false),
            (format!("{}: CEO\r\n <ceo@paypal.com>\r\n", name.to_lowercase()), false),
            (format!("{name} : ceo@paypal.com\r\n"), false),
            (format!("{name}: a@example.com, ceo@paypal.com\r\n"), false),
            (format!("{name}: a@example.com\r\n{name}: ceo@paypal.com\r\n"), false),
            (format!("{name}: Board: ceo@paypal.com;\r\n"), false),
            (format!("{name}: ceo@paypal.com <a@example.com>\r\n"), false),
            // A name in one encoded word is a name to every reader.
            (format!("{name}: =?UTF-8?Q?ceo=40paypal.com?= <a@example.com>\r\n"), true),
            (format!("{name}: =?UTF-8?Q?ceo=40paypal.com?= [x] <a@example.com>\r\n"), false),
            (format!("{name}: <ceo@paypal.com\r\n"), false),
            (format!("{name}: \"a@example.com\"@paypal.com\r\n"), false),
        ] {
            let mail = format!("{fields}From: reports@example.com\r\n\r\ntext\r\n");
            let reply = hand_in(gateway.address(), YOU, &mail).await;
            let expected = if allowed { "250 " } else { "550 5.7.1 " };
            assert!(reply.starts_with(expected), "{fields}: {reply}");
            assert_eq!(checked(&gateway, mail.as_bytes()).contains("550 5.7.1"), !allowed, "{fields}");
        }
    }
}
