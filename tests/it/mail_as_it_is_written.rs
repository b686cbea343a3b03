//! Mail that real applications write, and that is good but for its form: it reaches the provider, and says what it said.

use crate::support::application::{NO_REPAIR, field, hand_in, hand_in_octets, in_front_of, queued_in_front_of};
use crate::support::client::Client;
use crate::support::upstream::ScriptedUpstream;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mail_parser::{MessageParser, MimeHeaders};

const YOU: &[&str] = &["you@example.net"];

/// What arrives of a mail that is taken.
async fn arrived(scripted: &ScriptedUpstream, gateway: std::net::SocketAddr, mail: &[u8]) -> Vec<u8> {
    let reply = hand_in_octets(gateway, YOU, mail).await;
    assert!(reply.starts_with("250 "), "{}: {reply}", mail.escape_ascii());
    scripted.messages().pop().expect("a message").data
}

#[tokio::test(flavor = "multi_thread")]
async fn japanese_and_korean_in_several_encoded_words_are_read_by_rules_and_in_from() {
    let scripted = ScriptedUpstream::start().await;
    let rule = "[[rewrite]]\nheader = { Subject = \"*ハハ*\" }\nset_headers = { X-Read = \"yes\" }\n\
                [[rewrite]]\nheader = { Subject = \"한글\" }\nset_headers = { X-Read = \"yes\" }\n";
    let setup = in_front_of(&scripted, rule).config_with("[queue]\n", "senders = [\"*@example.com\"]\n[queue]\n");
    let gateway = setup.start(1);
    for (subject, words) in [
        ("=?ISO-2022-JP?B?GyRCJU8bKEI=?= =?ISO-2022-JP?B?GyRCJU8bKEI=?=", "=?ISO-2022-JP?B?GyRCJU8bKEI=?="),
        (
            "=?ISO-2022-JP?B?GyRCJU8=?= =?ISO-2022-JP?B?JU8bKEI=?=",
            "=?ISO-2022-JP?B?GyRCJU8=?= =?ISO-2022-JP?B?JU8bKEI=?=",
        ),
        ("=?ISO-2022-KR?B?GyQpQw5HUQ8=?=\r\n =?ISO-2022-KR?B?GyQpQw4xWw8=?=", "=?iso-2022-kr?B?GyQpQw5HUQ8=?="),
    ] {
        let mail = format!("From: {words} {words} <reports@example.com>\r\nSubject: {subject}\r\n\r\nx\r\n");
        let arrived = arrived(&scripted, gateway.address(), mail.as_bytes()).await;
        assert_eq!(field(&arrived, "X-Read"), "yes", "{}", String::from_utf8_lossy(&arrived));
    }
}

/// By type and disposition, each with a file name.
const FILES: [&str; 9] = [
    "Content-Type: text/plain\r\nContent-Disposition: inline; filename=\"run.sh\"\r\n",
    "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: inline; filename*=UTF-8''run.sh\r\n",
    "Content-Type: text/plain; name=run.sh\r\n",
    "Content-Type: text/html; name=\"run.sh\"\r\nContent-Disposition: inline\r\n",
    "Content-Type: text/x-sh\r\nContent-Disposition: attachment; filename=run.sh\r\n",
    "Content-Disposition: inline; filename*0=run; filename*1=.sh\r\n",
    "Content-Type: application/x-sh\r\n",
    "Content-Type: application/octet-stream; name=run.sh\r\nContent-Disposition: attachment\r\n",
    "Content-Type: text/csv\r\nContent-Disposition: attachment; filename=run.sh\r\n",
];

/// The decoded octets of the one part that is not the text.
fn octets_of_the_file(message: &[u8]) -> Vec<u8> {
    let parsed = MessageParser::default().parse(message).expect("a message");
    let file = parsed.parts.iter().find(|part| part.content_id() == Some("file"));
    file.map(|part| part.contents().to_vec()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_every_octet_whatever_type_and_disposition_it_says() {
    let script = "#!/bin/sh\necho Gr\u{fc}\u{df}e \r\n\n";
    let quoted = |text: &str| text.bytes().map(|octet| format!("={octet:02X}")).collect::<String>();
    let bodies = [
        ("base64", BASE64_STANDARD.encode(script)),
        ("quoted-printable", quoted(script)),
        // Over 998 octets in a line.
        ("quoted-printable", quoted(&script.repeat(50))),
        ("base64", BASE64_STANDARD.encode(script.repeat(50))),
    ];
    for without in ["nothing", "8BITMIME"] {
        let scripted = ScriptedUpstream::builder().without(without).start().await;
        let gateway = in_front_of(&scripted, "").start(1);
        for (head, (encoding, body)) in FILES.iter().flat_map(|head| bodies.iter().map(move |body| (head, body))) {
            for text in ["--m\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>gr\u{fc}n\r\n", ""] {
                let mail = format!(
                    "From: reports@example.com\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n{text}--m\r\n{head}\
                     Content-ID: <file>\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}\r\n--m--\r\n"
                );
                let arrived = arrived(&scripted, gateway.address(), mail.as_bytes()).await;
                let before = octets_of_the_file(mail.as_bytes());
                assert!(before.len() >= script.len(), "{mail}");
                assert_eq!(octets_of_the_file(&arrived), before, "{mail}\n{}", String::from_utf8_lossy(&arrived));
                // The HTML got its text, and a lone file stayed a file.
                assert_eq!(
                    String::from_utf8_lossy(&arrived).contains("multipart/alternative"),
                    !text.is_empty(),
                    "{mail}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn smtputf8_that_no_address_needs_costs_no_mail() {
    let raw = "From: J\u{fc}rgen <reports@example.com>\r\nSubject: Gr\u{fc}n\r\n\r\nx\r\n";
    let odd = "From: reports@example.com\r\nList-Unsubscribe: <https://example.com/\u{fc}>\r\n\r\nx\r\n";
    let latin = b"From: reports@example.com\r\nSubject: Gr\xfcn\r\nX-Odd : \xfc\r\n\r\nx\r\n";
    for (without, repair) in [("SMTPUTF8", ""), ("SMTPUTF8", NO_REPAIR), ("nothing", "")] {
        let scripted = ScriptedUpstream::builder().without(without).start().await;
        let gateway = in_front_of(&scripted, repair).start(1);
        for mail in [raw.as_bytes(), odd.as_bytes(), latin] {
            // As Go's net/smtp does wherever it is offered.
            let mut client = Client::connect(gateway.address()).await;
            client.greet().await;
            for line in ["MAIL FROM:<reports@example.com> BODY=8BITMIME SMTPUTF8", "RCPT TO:<you@example.net>", "DATA"]
            {
                let reply = client.ask(line).await;
                assert!(reply.starts_with("250 ") || reply.starts_with("354 "), "{line}: {reply}");
            }
            client.send(&[mail, b".\r\n"].concat()).await;
            let reply = client.reply().await.expect("a reply");
            assert!(reply.starts_with("250 "), "{}: {reply}", mail.escape_ascii());
        }
        let arrived = scripted.messages();
        assert_eq!(arrived.len(), 3);
        assert!(!arrived[0].mail.contains("SMTPUTF8"), "{}", arrived[0].mail);
        let subject = field(&arrived[0].data, "Subject");
        assert_eq!(subject, "=?UTF-8?Q?Gr=C3=BCn?=", "{without}");
        assert!(without == "nothing" || arrived.iter().all(|message| !message.mail.contains("SMTPUTF8")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_with_dots_in_odd_places_is_quoted_towards_the_provider() {
    let scripted = ScriptedUpstream::builder().recipient("refused.", "553 5.1.3 bad address").start().await;
    let gateway = queued_in_front_of(&scripted, "", "").start(1);
    let mail =
        "From: reports@example.com\r\nTo: a..b@docomo.ne.jp, A. <a.@ezweb.ne.jp>, B <b@example.net>\r\n\r\nx\r\n";
    let to = &["a..b@docomo.ne.jp", "a.@ezweb.ne.jp", "b@example.net", "refused.@example.net"];
    assert!(hand_in(gateway.address(), to, mail).await.starts_with("250 "));
    scripted.until_messages(1).await;
    let [arrived] = &scripted.messages()[..] else { panic!("one mail") };
    assert_eq!(arrived.recipients, ["\"a..b\"@docomo.ne.jp", "\"a.\"@ezweb.ne.jp", "b@example.net"]);
    gateway.wait_for_line(&["\"failed\"", "553 5.1.3 bad address", "which mail allows in quotes only"]);
}
