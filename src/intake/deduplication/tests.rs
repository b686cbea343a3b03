use super::*;
use crate::message::MemoryBudget;
use crate::smtp::{EhloName, Mailbox, ReversePath};

const WINDOW: Duration = Duration::from_secs(600);

/// What two submissions can differ in.
#[derive(Clone)]
struct Mail<'a> {
    user: Option<&'a str>,
    peer: &'a str,
    sender: &'a str,
    recipients: &'a [&'a str],
    data: String,
}

fn text(header: &str, body: &str) -> String {
    format!("{header}From: app@example.com\r\nSubject: Report\r\n\r\n{body}\r\n")
}

fn multipart(boundary: &str, inner: &str, text: &str) -> String {
    format!(
        "Message-ID: <1@app>\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n\
         Content-Type: multipart/alternative; boundary=\"{inner}\"\r\n\r\n--{inner}\r\n\r\n{text}\r\n--{inner}\r\n\
         Content-Type: text/html\r\n\r\n<p>{text}\r\n--{inner}--\r\n--{boundary}--\r\n"
    )
}

fn mail(data: impl Into<String>) -> Mail<'static> {
    let recipients = &["a@example.net", "b@example.net"];
    Mail { user: Some("shop"), peer: "192.0.2.1:40000", sender: "app@example.com", recipients, data: data.into() }
}

fn key_of(mail: &Mail<'_>) -> Option<IdempotencyKey> {
    let mailbox = |address: &str| Mailbox::parse(address).expect("an address");
    let mut envelope = Envelope::new(ReversePath::Mailbox(mailbox(mail.sender)));
    mail.recipients.iter().for_each(|recipient| envelope.add_recipient(mailbox(recipient)));
    let budget = MemoryBudget::new(u64::MAX);
    let client = Client {
        peer: mail.peer.parse().expect("an address"),
        ehlo: EhloName::parse(b"app.example").expect("a name"),
        esmtp: true,
        tls: None,
        user: mail.user.map(Into::into),
    };
    let received = Received {
        client,
        envelope,
        data: mail.data.clone().into(),
        line_endings_changed: false,
        share: budget.share(),
        envelope_share: budget.share(),
    };
    deduplication(&received, WINDOW).map(|deduplication| deduplication.key)
}

#[test]
fn a_message_that_is_handed_in_again_is_recognised() {
    let plain = mail(text("Message-ID: <1@app>\r\nDate: Tue, 24 Nov 2026 03:05:09 +0000\r\n", "Hello."));
    let keyed = mail(text("Idempotency-Key: order 1\r\nMessage-ID: <1@app>\r\n", "Hello."));
    let nameless = Mail { user: None, ..plain.clone() };
    let parts = mail(multipart("=====first=====", "=====inner=====", "Hello."));
    for (what, first, again) in [
        ("as it was", plain.clone(), plain.clone()),
        ("another connection", plain.clone(), Mail { peer: "198.51.100.7:1", ..plain.clone() }),
        (
            "another Date",
            plain.clone(),
            mail(text("Message-ID: <1@app>\r\nDate: Tue, 24 Nov 2026 03:05:39 +0000\r\n", "Hello.")),
        ),
        (
            "recipients in another order",
            plain.clone(),
            Mail { recipients: &["b@example.net", "a@example.net"], ..plain.clone() },
        ),
        ("a client without a login", nameless.clone(), Mail { peer: "192.0.2.1:50000", ..nameless.clone() }),
        (
            "localhost by both of its addresses",
            Mail { peer: "127.0.0.1:1", ..nameless.clone() },
            Mail { peer: "[::1]:2", ..nameless.clone() },
        ),
        (
            "another Message-ID under one Idempotency-Key",
            keyed.clone(),
            mail(text("Idempotency-Key:  order 1 \r\nMessage-ID: <2@app>\r\n", "Hello.")),
        ),
        ("other boundaries", parts.clone(), mail(multipart("=====second=====", "=====INNER2====", "Hello."))),
        (
            "other boundaries, one of which begins with the other",
            parts.clone(),
            mail(multipart("=====second=====", "=====second=====x", "Hello.")),
        ),
    ] {
        assert!(key_of(&first).is_some() && key_of(&first) == key_of(&again), "{what}");
    }
}

#[test]
fn other_mail_is_never_taken_for_the_same() {
    let plain = mail(text("Message-ID: <1@app>\r\n", "Hello."));
    let keyed = mail(text("Idempotency-Key: 1\r\nMessage-ID: <1@app>\r\n", "Hello."));
    let parts = |text| mail(multipart("=====first=====", "=====inner=====", text));
    for (what, one, other) in [
        ("another login", plain.clone(), Mail { user: Some("blog"), ..plain.clone() }),
        (
            "a login named as an address",
            Mail { user: None, ..plain.clone() },
            Mail { user: Some("192.0.2.1"), ..plain.clone() },
        ),
        (
            "another address",
            Mail { user: None, ..plain.clone() },
            Mail { user: None, peer: "192.0.2.2:1", ..plain.clone() },
        ),
        ("another Message-ID", plain.clone(), mail(text("Message-ID: <2@app>\r\n", "Hello."))),
        (
            "another Idempotency-Key",
            keyed.clone(),
            mail(text("Idempotency-Key: 2\r\nMessage-ID: <1@app>\r\n", "Hello.")),
        ),
        (
            "a Message-ID that is the other's key",
            mail(text("Message-ID: 1\r\n", "Hello.")),
            mail(text("Idempotency-Key: 1\r\n", "Hello.")),
        ),
        ("another text", plain.clone(), mail(text("Message-ID: <1@app>\r\n", "Hello!"))),
        ("another header", plain.clone(), mail(text("Message-ID: <1@app>\r\nX-Order: 2\r\n", "Hello."))),
        ("another sender", plain.clone(), Mail { sender: "other@example.com", ..plain.clone() }),
        ("another recipient", plain.clone(), Mail { recipients: &["a@example.net"], ..plain.clone() }),
        ("another text in a part", parts("Hello."), parts("Hello!")),
        ("a boundary in a text", parts("see =====first====="), parts("see =====inner=====")),
        (
            "a boundary in a text, of a later try",
            parts("see =====first====="),
            mail(multipart("=====second=====", "=====inner=====", "see =====second=====")),
        ),
        ("a short boundary is text", mail(multipart("bbb", "ccc", "Hello.")), mail(multipart("ddd", "ccc", "Hello."))),
    ] {
        assert!(key_of(&one) != key_of(&other), "{what}");
    }
}

#[test]
fn mail_that_names_itself_nowhere_or_twice_is_always_sent() {
    for header in [
        "",
        "Message-ID:\r\n",
        "Message-ID: <1@app>\r\nMessage-ID: <2@app>\r\n",
        "Idempotency-Key: \r\nMessage-ID: <1@app>\r\n",
        "Idempotency-Key: 1\r\nIdempotency-Key: 1\r\n",
    ] {
        assert_eq!(key_of(&mail(text(header, "Hello."))), None, "{header:?}");
    }
}

/// What a client writes costs no more than reading it.
#[test]
fn a_message_full_of_boundaries_is_read_once() {
    let boundary = "=====first=====";
    let lines = format!("--{boundary}\r\n\r\n").repeat(200_000);
    let crowd = |tail: &str| {
        mail(format!(
            "Message-ID: <1@app>\r\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n{lines}--{boundary}--\r\n{tail}"
        ))
    };
    assert_eq!(key_of(&crowd("")), key_of(&crowd("")));
    assert_ne!(key_of(&crowd("")), key_of(&crowd("x")));
}

#[tokio::test(start_paused = true)]
async fn of_one_key_one_message_is_tried_at_a_time() {
    let all = InProgress::default();
    let one = IdempotencyKey([1; 32]);
    let other = IdempotencyKey([2; 32]);
    let patience = Duration::from_secs(25);
    let first = all.turn(one, patience).await.expect("the first");
    let _elsewhere = all.turn(other, patience).await.expect("another key waits for nobody");
    assert!(all.turn(one, patience).await.is_none(), "25 s later");
    let (second, ()) = tokio::join!(all.turn(one, patience), async {
        tokio::time::sleep(patience / 2).await;
        drop(first);
    });
    assert!(second.is_some());
    drop(second);
    assert_eq!(all.0.lock().len(), 1, "nothing is kept of what is over");
}
