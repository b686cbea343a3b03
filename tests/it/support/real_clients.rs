//! Real SMTP clients: swaks, Postfix's smtp-source, Python's smtplib.
//!
//! They block: in a tokio test, call them from `spawn_blocking`.

use super::peers::{self, Finished};

/// swaks with these arguments. Its transcript is on stdout; success means that the server took the mail.
pub fn swaks(arguments: &[&str]) -> Option<Finished> {
    let mut swaks = peers::command("swaks")?;
    swaks.args(["--timeout", "60", "--helo", "client.example.test"]).args(arguments);
    Some(peers::run(&mut swaks))
}

/// What smtp-source is to send: `messages` mails over `sessions` connections at a time, each of about `size` octets.
pub struct Load<'a> {
    pub sessions: usize,
    pub messages: usize,
    pub size: usize,
    pub sender: &'a str,
    pub recipient: &'a str,
}

/// smtp-source against `address` ("127.0.0.1:2525"); success means that every mail was taken.
/// It stops at the first reply that is not a 2xx or 3xx.
pub fn smtp_source(address: &str, load: &Load) -> Option<Finished> {
    let mut source = peers::command("smtp-source")?;
    for (option, number) in [("-s", load.sessions), ("-m", load.messages), ("-l", load.size)] {
        source.args([option, &number.to_string()]);
    }
    source.args(["-f", load.sender, "-t", load.recipient, "-M", "client.example.test", address]);
    Some(peers::run(&mut source))
}

/// tests/peers/smtplib_send.py with these arguments; stdout is its JSON line.
pub fn smtplib(arguments: &[&str]) -> Option<Finished> {
    let mut python = peers::python("smtplib_send.py")?;
    Some(peers::run(python.args(arguments)))
}
