//! Mail from real applications that is good except for its format: it reaches the provider, and says the same.

use crate::support::application::{NO_REPAIR, field, hand_in, hand_in_octets, in_front_of, queued_in_front_of};
use crate::support::client::Client;
use crate::support::upstream::ScriptedUpstream;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mail_parser::{MessageParser, MimeHeaders};

const YOU: &[&str] = &["you@example.net"];

/// What arrives of an accepted mail.
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

/// A name as people write it before an address in brackets, and what it says.
const NAMES: [(&str, &str); 16] = [
    ("Example, Inc.", "Example, Inc."),
    ("Example, Inc., Berlin", "Example, Inc., Berlin"),
    ("Sales: Europe", "Sales: Europe"),
    ("Sales; Europe", "Sales; Europe"),
    ("Bob @ Home", "Bob @ Home"),
    ("reports@example.com", "reports@example.com"),
    ("\"5\" Floppy\"", "5\" Floppy"),
    ("5\" Floppy", "5\" Floppy"),
    ("\"Zed \"Z\" O'Neil\"", "Zed \"Z\" O'Neil"),
    ("\"AC\\DC\\\"", "AC\\DC\\"),
    ("AC\\DC", "AC\\DC"),
    ("Hello :)", "Hello :)"),
    ("[Staging]", "[Staging]"),
    ("J\u{fc}rgen, Inc.", "J\u{fc}rgen, Inc."),
    ("=?UTF-8?Q?J=C3=BCrgen @ home?=", "J\u{fc}rgen @ home"),
    ("\"Example, Inc.\"", "Example, Inc."),
];

/// Names and addresses as two readers find them.
fn people(message: &[u8], field: &str) -> Vec<(String, String)> {
    let parsed = MessageParser::default().parse(message).expect("a message");
    let header = parsed.header(field).and_then(|value| value.as_address()).expect("addresses");
    header
        .iter()
        .map(|one| (one.name().unwrap_or_default().to_owned(), one.address().unwrap_or_default().to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_needs_quotes_gets_them_in_every_field_of_addresses() {
    let scripted = ScriptedUpstream::start().await;
    let setup = in_front_of(&scripted, "").config_with("[queue]\n", "senders = [\"*@example.com\"]\n[queue]\n");
    let gateway = setup.start(1);
    for (written, said) in NAMES {
        for name in ["From", "To", "Cc", "Reply-To", "Sender"] {
            let others = if name == "From" { "" } else { "From: reports@example.com\r\n" };
            for (list, count) in [("", 1), (", X <x@example.com>", 2)] {
                if count == 2 && ["From", "Sender"].contains(&name) {
                    continue;
                }
                let mail = format!("{others}{name}: {written} <reports@example.com>{list}\r\n\r\nx\r\n");
                let arrived = arrived(&scripted, gateway.address(), mail.as_bytes()).await;
                let people = people(&arrived, name);
                assert_eq!(people.len(), count, "{}", String::from_utf8_lossy(&arrived));
                assert_eq!(people[0], (said.to_owned(), "reports@example.com".to_owned()), "{mail}");
            }
        }
    }
    for value in ["reports@example.com,", "Reports <reports@example.com>,", "Reports <reports@example.com> ; "] {
        let arrived = arrived(&scripted, gateway.address(), format!("From: {value}\r\n\r\nx\r\n").as_bytes()).await;
        assert!(field(&arrived, "From").trim_end_matches('>').ends_with("reports@example.com"), "{value}");
    }
}

/// Each with the character that the refusal names.
const UNCLEAR: [(&str, &str); 8] = [
    ("A <reports@example.com> <b@example.com>", "it has a \"<\" too many"),
    ("A <reports@example.com> B", "it has a \"B\" behind the address"),
    ("A <reports@example.com", "it has a \"<\" too many, or without the other half"),
    ("x@example.com A, B <reports@example.com>", "it has a \",\" where more than one address could be meant"),
    ("Team: reports@example.com;", "it has a \":\" where more than one address could be meant"),
    ("A reports@example.com", "its address is not in angle brackets"),
    ("(v@evil.org) reports@example.com", "its address is not in angle brackets"),
    ("A <re ports@example.com>", "does not hold a valid address"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_unclear_is_refused_with_the_character_and_a_rule_cures_it() {
    let scripted = ScriptedUpstream::start().await;
    let setup =
        |rule: &str| in_front_of(&scripted, rule).config_with("[queue]\n", "senders = [\"*@example.com\"]\n[queue]\n");
    let gateway = setup("").start(1);
    let rule = "[[rewrite]]\nset_from = \"Reports <set@example.org>\"\nkeep_from_as_reply_to = true\n";
    let curing = setup(rule).start(1);
    let others = setup("[[rewrite]]\nsubject_prefix = \"x\"\n").start(1);
    for (value, words) in UNCLEAR {
        let mail = format!("From: {value}\r\n\r\nx\r\n");
        for gateway in [&gateway, &others] {
            let reply = hand_in(gateway.address(), YOU, &mail).await;
            assert!(
                reply.starts_with("550 5.7.1 ") && reply.contains(words) && reply.contains("`set_from`"),
                "{value}: {reply}"
            );
        }
        let arrived = arrived(&scripted, curing.address(), mail.as_bytes()).await;
        assert_eq!(field(&arrived, "From"), "Reports <set@example.org>");
        assert_eq!(field(&arrived, "Reply-To"), "");
    }
    // Several authors are several.
    let several = hand_in(gateway.address(), YOU, "From: a@example.com, b@example.com\r\n\r\nx\r\n").await;
    assert!(several.starts_with("550 5.7.1 ") && several.contains("more than one address"), "{several}");
    // Without the repair the name itself is the trouble.
    let plain = setup("[repair]\ndisplay_names = false\n").start(1);
    let reply = hand_in(plain.address(), YOU, "From: Example, Inc. <reports@example.com>\r\n\r\nx\r\n").await;
    assert!(reply.contains("its name has a \",\" outside of quotes"), "{reply}");
}

/// Mail with something wrong in its header, and lines of what arrives; none of the others arrives.
const HEADERS: [(&[u8], &[&str], &[&str]); 12] = [
    (b"Subject: a\r\nSubject: a\r\nTo: a@b\r\nTo: C <c@d>\r\n", &["Subject: a", "To: a@b, C <c@d>"], &["To: C <c@d>"]),
    (
        b"Subject: first\r\nSubject: second\r\nReply-To: a@b\r\nReply-To: c@d\r\n",
        &["Subject: first", "Reply-To: a@b"],
        &["Subject: second", "Reply-To: c@d"],
    ),
    (b"Subject: gr\xfcn\r\nX-Note: \x80\r\n", &["Subject: =?UTF-8?Q?gr=C3=BCn?=", "X-Note: =?UTF-8?B?4oKs?="], &[]),
    (b"Date: 2026-11-24T03:05:09+01:00\r\n", &["Date: Tue, 24 Nov 2026 03:05:09 +0100"], &[]),
    (b"Date: Tue Nov 24 2026 03:05:09 GMT+0100 (CET)\r\n", &["Date: Tue, 24 Nov 2026 03:05:09 +0100"], &[]),
    (b"Date: Tue, 24 Nov 26 03:05:09 +0100\r\n", &["Date: Tue, 24 Nov 2026 03:05:09 +0100"], &[]),
    (
        b"Subject: a\r\n \r\n b\r\nCc:\r\nReply-To: \r\n",
        &["Subject: a", " b"],
        &[" ", "Cc:", "Reply-To:", "Reply-To: "],
    ),
    (b"Content-Transfer-Encoding: 8-bit\r\n", &["Content-Transfer-Encoding: 8bit"], &[]),
    (
        b"Content-Transfer-Encoding: utf-8\r\nContent-Type: text/plain; charset=utf-8\r\n",
        &["Content-Transfer-Encoding: 8bit"],
        &[],
    ),
    (
        b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n",
        &["MIME-Version: 1.0"],
        &[],
    ),
    (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Type: text/html\r\n",
        &["Content-Type: text/plain; charset=utf-8"],
        &["Content-Type: text/html"],
    ),
    (b"Subject: =?UTF-8?Q?a=0D=0ABcc:_=C3=BC?=\r\n", &["Subject: a Bcc: =?UTF-8?B?w7w=?="], &["Bcc: =?UTF-8?B?w7w=?="]),
];

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_break_the_rules_arrive_as_what_they_say() {
    let scripted = ScriptedUpstream::start().await;
    let setup = in_front_of(&scripted, "").config_with("[queue]\n", "senders = [\"*@example.com\"]\n[queue]\n");
    let gateway = setup.start(1);
    for start in [&b""[..], b"From app@example.com Tue Nov 24 03:05:09 2026\r\n", b"\xef\xbb\xbf", b"\r\n \r\n"] {
        for (header, arriving, gone) in HEADERS {
            let mail = [start, b"From: reports@example.com\r\n", header, b"\r\ngr\xc3\xbcn\r\n"].concat();
            let arrived = arrived(&scripted, gateway.address(), &mail).await;
            let text = String::from_utf8_lossy(&arrived);
            let lines: Vec<_> = text.lines().collect();
            assert_eq!(lines.iter().filter(|line| **line == "From: reports@example.com").count(), 1, "{text}");
            for line in arriving {
                assert_eq!(lines.iter().filter(|found| *found == line).count(), 1, "{line}: {text}");
            }
            assert!(!lines.iter().any(|line| gone.contains(line)), "{text}");
            assert!(text.contains("gr\u{fc}n") || text.contains("gr=C3=BCn"), "{text}");
        }
    }
    gateway.wait_for_line(&["\"Subject\"", "the first one stays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_before_the_header_is_named_where_it_is_not_mended() {
    let scripted = ScriptedUpstream::start().await;
    let senders = "senders = [\"*@example.com\"]\n[queue]\n";
    let setup = in_front_of(&scripted, "[repair]\nheader_start = false\n").config_with("[queue]\n", senders);
    let gateway = setup.start(1);
    for start in ["From app@example.com Tue Nov 24 03:05:09 2026\r\n", "\u{feff}", "\r\n"] {
        let mail = format!("{start}From: reports@example.com\r\n\r\nx\r\n");
        let reply = hand_in(gateway.address(), YOU, &mail).await;
        assert!(reply.starts_with("550 5.7.1 ") && reply.contains("its first line is not a header field"), "{reply}");
    }
}
