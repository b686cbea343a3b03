//! Clients that are configured for another kind of listener: the operator gets one log line that says so, with the remedy.
//! The clients themselves report only a timeout or a parse error.

use crate::support::certificate::Authority;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use waxseal::inbound::users::hash_password;
use waxseal::observe::Secret;

/// A gateway whose one listener has these lines; mail would stay in the sandbox.
fn listening(lines: &str) -> Gateway {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let config = format!(
        "unsigned = \"send\"\n[log]\nformat = \"json\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n{lines}\n\
         [[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n"
    );
    Setup::new(Some(&config)).file("own.pem", &issued.certificate).file("own.key", &issued.private_key).start(1)
}

const CERTIFICATE: &str = "certificate = \"own.pem\"\nprivate_key = \"own.key\"";

#[tokio::test(flavor = "multi_thread")]
async fn each_gets_one_line_with_the_remedy() {
    let implicit = format!("tls = \"implicit\"\n{CERTIFICATE}");
    let starttls = format!("tls = \"starttls\"\n{CERTIFICATE}");
    let hash = hash_password(&Secret::new("right"));
    let logins = format!("{starttls}\n[[user]]\nname = \"app\"\npassword = \"{hash}\"");
    const HELLO: &[u8] = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03";
    for (listener, sent, words) in [
        ("", HELLO, &["TLS handshake", "turn TLS off in the client"][..]),
        (&*starttls, HELLO, &["TLS handshake", "set the client to STARTTLS"]),
        (&*implicit, b"EHLO client.example\r\n", &["plain text", "implicit TLS (SMTPS)"]),
        (&*implicit, b"", &["without a TLS handshake", "greeting in plain text"]),
        ("", b"EHLO client.example\r\nQUIT\r\n", &["after EHLO without a message", "insists on STARTTLS"]),
        ("", b"EHLO client.example\r\n", &["after EHLO without a message", "insists on STARTTLS"]),
        ("auth = \"off\"", b"EHLO client.example\r\nQUIT\r\n", &["insists on AUTH", "remove the login"]),
        (&*logins, b"EHLO client.example\r\nQUIT\r\n", &["insists on AUTH", "after STARTTLS only"]),
    ] {
        let gateway = listening(listener);
        let mut client = Client::connect(gateway.address()).await;
        client.send(sent).await;
        if listener.starts_with("tls = \"implicit\"") {
            drop(client);
        } else {
            while client.try_reply().await.is_some_and(|reply| !reply.starts_with("250 ")) {}
            drop(client);
        }
        let line = gateway.wait_for_line(words);
        assert!(line.contains("\"WARN\"") && line.contains("\"peer\""), "{line}");
        let (_, log, _) = gateway.stop();
        assert_eq!(log.iter().filter(|line| words.iter().all(|word| line.contains(word))).count(), 1, "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_get_on_with_the_listener_leave_no_such_line() {
    let gateway = listening("");
    let mut client = Client::connect(gateway.address()).await;
    client.greet().await;
    assert!(client.ask("MAIL FROM:<reports@example.com>").await.starts_with("250 "));
    assert!(client.ask("QUIT").await.starts_with("221 "));
    drop(Client::connect(gateway.address()).await);
    let (_, log, _) = gateway.stop();
    assert!(!log.iter().any(|line| line.contains("the client left")), "{}", log.join("\n"));
}
