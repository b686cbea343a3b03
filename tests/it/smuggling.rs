//! One transaction is one message or none, never two: what other servers have taken for the end of data, in clear and
//! inside TLS, in one segment and octet by octet. CVE-2023-51764, CVE-2023-51765, CVE-2023-51766.

use crate::support::certificate::Authority;
use crate::support::client::Client;
use crate::support::listener::{Listening, Recorder, budget, options, server_tls};
use waxseal::inbound::auth::Users;
use waxseal::inbound::{Options, Tls};

const LOOKALIKES: &[&[u8]] = &[
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\n",
    b"\r.\r\n",
    b"\n.\r",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
];

const SECOND: &[u8] =
    b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: two\r\n\r\ntwo\r\n.\r\n";

async fn smuggle(client: &mut Client, lookalike: &[u8], octets: usize) {
    for line in ["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>"] {
        assert!(client.ask(line).await.starts_with("250 "));
    }
    assert!(client.ask("DATA").await.starts_with("354 "));
    let data = [b"Subject: one\r\n\r\none", lookalike, SECOND].concat();
    for segment in data.chunks(octets) {
        client.send(segment).await;
    }
    let reply = client.reply().await.expect("a reply");
    assert!(reply.starts_with("550 5.5.2 "), "{}: {reply}", lookalike.escape_ascii());
    assert_eq!(client.ask("NOOP").await, "250 2.0.0 OK", "in sync after {}", lookalike.escape_ascii());
}

#[tokio::test]
async fn look_alikes_of_the_end_of_data() {
    let authority = Authority::new();
    for tls in [Tls::Off, Tls::Implicit(server_tls(&authority))] {
        let secured = matches!(tls, Tls::Implicit(_));
        let listening = Listening::start(Options { tls, ..options() }, Users::none(), budget(), Recorder::default());
        let mut client = Client::connect(listening.address).await;
        if secured {
            client = client.start_tls(&authority).await.unwrap();
        }
        client.greet().await;
        for lookalike in LOOKALIKES {
            for octets in [usize::MAX, 1] {
                smuggle(&mut client, lookalike, octets).await;
            }
        }
        drop(client);
        assert!(listening.finish().await.take().is_empty());
    }
}
