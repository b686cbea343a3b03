//! The application's side of a whole gateway: submits one mail and keeps the reply.

use super::client::Client;
use super::gateway::Setup;
use super::upstream::ScriptedUpstream;
use std::net::SocketAddr;

/// Where no test says otherwise.
pub const SENDER: &str = "reports@example.com";

/// Every step turned off.
pub const NO_REPAIR: &str = "[repair]\nheader_start = false\ndisplay_names = false\nduplicate_fields = false\nblank_lines = false\n\
    empty_fields = false\nencoding_name = false\nbcc = false\nflatten = false\nheader_text = false\nmessage_id = false\n\
    date = false\nbase64_text = false\ntransfer_encoding = false\ncharset = false\nlong_lines = false\n\
    text_part = false\nmime_version = false\nheader_folding = false\n";

/// A message with a From that the tests' policies allow.
pub fn mail(subject: &str) -> String {
    format!("From: {SENDER}\r\nTo: you@example.net\r\nSubject: {subject}\r\n\r\nHello.\r\n")
}

/// The configuration of a gateway in direct mode whose one upstream is `scripted`; mail is sent unsigned. `lines` go
/// into the upstream's table, or open further ones.
pub fn in_front_of(scripted: &ScriptedUpstream, lines: &str) -> Setup {
    let config = configuration(scripted.address(), "direct", lines, "");
    Setup::new(Some(&config)).file("ca.pem", scripted.ca())
}

/// The same in queue mode; `queue`: lines of [queue], which tries again after a second or two unless they say otherwise.
pub fn queued_in_front_of(scripted: &ScriptedUpstream, lines: &str, queue: &str) -> Setup {
    let config = configuration(scripted.address(), "queue", lines, queue);
    Setup::new(Some(&config)).file("ca.pem", scripted.ca())
}

/// A gateway's whole configuration; the upstream's certificate is in `ca.pem`.
pub fn configuration(upstream: SocketAddr, delivery: &str, lines: &str, queue: &str) -> String {
    let soon = if queue.contains("retry") { "" } else { "retry = { first = \"1s\", longest = \"2s\" }" };
    format!(
        "hostname = \"gateway.example.com\"\nunsigned = \"send\"\n[log]\nformat = \"json\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\ndelivery = \"{delivery}\"\n\
         [queue]\n{soon}\n{queue}\n\
         [[upstream]]\nname = \"company\"\nprovider = \"smtp\"\nhost = \"{}\"\nport = {}\nserver_name = \"localhost\"\n\
         tls = \"starttls\"\nca = \"ca.pem\"\nusername = \"relay-user\"\npassword = \"relay-canary-password\"\n{lines}\n",
        upstream.ip(),
        upstream.port(),
    )
}

/// The table of a further upstream, whose certificate is in `NAME.pem`.
pub fn further(name: &str, scripted: &ScriptedUpstream, lines: &str) -> String {
    let address = scripted.address();
    format!(
        "[[upstream]]\nname = \"{name}\"\nprovider = \"smtp\"\nhost = \"{}\"\nport = {}\ntls = \"starttls\"\n\
         server_name = \"localhost\"\nca = \"{name}.pem\"\n{lines}\n",
        address.ip(),
        address.port(),
    )
}

/// A message from this address with this subject.
pub fn mail_from(sender: &str, subject: &str) -> String {
    mail(subject).replacen(SENDER, sender, 1)
}

/// One mail after the other over one connection, each of which must be taken.
pub async fn hand_in_many(gateway: SocketAddr, sender: &str, recipient: &str, subjects: &[String]) {
    let mut client = Client::connect(gateway).await;
    client.greet().await;
    for subject in subjects {
        for line in [format!("MAIL FROM:<{sender}>"), format!("RCPT TO:<{recipient}>"), "DATA".to_owned()] {
            let reply = client.ask(&line).await;
            assert!(reply.starts_with("250 ") || reply.starts_with("354 "), "{line}: {reply}");
        }
        let reply = client.ask(&format!("{}.", mail_from(sender, subject))).await;
        assert!(reply.starts_with("250 2.0.0 Queued as "), "{reply}");
    }
}

/// The subjects of what a provider has, sorted.
pub fn subjects(scripted: &ScriptedUpstream) -> Vec<String> {
    let mut subjects: Vec<_> = scripted.messages().iter().map(|message| field(&message.data, "Subject")).collect();
    subjects.sort_unstable();
    subjects
}

/// A header field's value; empty if there is none.
pub fn field(message: &[u8], name: &str) -> String {
    let text = String::from_utf8_lossy(message);
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_default().to_owned()
}

/// `0000`, `0001`, …: as they sort.
pub fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:04}")).collect()
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

/// As both of Plausible's clients do: also after a bare LF.
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
