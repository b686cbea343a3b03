//! The application's side of a whole gateway: hands in one mail and keeps what it was told.

use super::client::Client;
use super::gateway::Setup;
use super::upstream::ScriptedUpstream;
use std::net::SocketAddr;

/// Where no test says otherwise.
pub const SENDER: &str = "reports@example.com";

/// A message with a From that the tests' policies allow.
pub fn mail(subject: &str) -> String {
    format!("From: {SENDER}\r\nTo: you@example.net\r\nSubject: {subject}\r\n\r\nHello.\r\n")
}

/// The configuration of a gateway whose one upstream is `scripted`; mail leaves unsigned. `lines` go into the upstream's
/// table, or open further ones.
pub fn in_front_of(scripted: &ScriptedUpstream, lines: &str) -> Setup {
    let config = format!(
        "hostname = \"gateway.example.com\"\nunsigned = \"send\"\n[log]\nformat = \"json\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\ndelivery = \"direct\"\n\
         [[upstream]]\nname = \"company\"\nprovider = \"smtp\"\nhost = \"{}\"\nport = {}\nserver_name = \"localhost\"\n\
         tls = \"starttls\"\nca = \"ca.pem\"\nusername = \"relay-user\"\npassword = \"relay-canary-password\"\n{lines}\n",
        scripted.address().ip(),
        scripted.address().port(),
    );
    Setup::new(Some(&config)).file("ca.pem", scripted.ca())
}

/// The reply to the final dot.
pub async fn hand_in(gateway: SocketAddr, recipients: &[&str], message: &str) -> String {
    hand_in_octets(gateway, recipients, message.as_bytes()).await
}

/// The same for any octets: nothing is changed but for the dots at line starts, which are doubled, and the last line,
/// which is ended.
pub async fn hand_in_octets(gateway: SocketAddr, recipients: &[&str], message: &[u8]) -> String {
    let mut client = up_to_data(gateway, recipients).await;
    client.send(&stuffed(message)).await;
    client.reply().await.expect("a reply to the final dot")
}

/// As both of Plausible's clients do: behind a bare LF, too.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(message.len() + message.len() / 32);
    for line in message.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(if wire.is_empty() || wire.ends_with(b"\r\n") { b".\r\n" } else { b"\r\n.\r\n" });
    wire
}

/// 354 was said.
pub async fn up_to_data(gateway: SocketAddr, recipients: &[&str]) -> Client {
    let mut client = Client::connect(gateway).await;
    client.greet().await;
    assert!(client.ask(&format!("MAIL FROM:<{SENDER}>")).await.starts_with("250 "));
    for recipient in recipients {
        assert!(client.ask(&format!("RCPT TO:<{recipient}>")).await.starts_with("250 "));
    }
    assert!(client.ask("DATA").await.starts_with("354 "));
    client
}
