//! One command line: any line is either a command with correct addresses, or a refusal on one line.

use super::breaks_a_line;
use crate::smtp::command::Command;
use crate::smtp::{EhloName, Mailbox, Reply, ReversePath};

/// `line`: without CRLF.
pub fn command(line: &[u8]) {
    match Command::parse(line) {
        Ok(Command::Ehlo(name) | Command::Helo(name)) => check_name(&name),
        Ok(Command::Mail { sender: ReversePath::Mailbox(mailbox), parameters }) => {
            check_mailbox(&mailbox);
            let again = Command::parse(format!("MAIL FROM:<{mailbox}>").as_bytes());
            let sender = ReversePath::Mailbox(mailbox);
            assert!(matches!(again, Ok(Command::Mail { sender: ref same, .. }) if *same == sender), "{again:?}");
            assert!(parameters.size.is_none_or(|size| size.to_string().len() <= 20));
        }
        Ok(Command::Rcpt { recipient }) => {
            check_mailbox(&recipient);
            let again = Command::parse(format!("RCPT TO:<{recipient}>").as_bytes());
            assert_eq!(again, Ok(Command::Rcpt { recipient }));
        }
        Ok(_) => {}
        Err(error) => check_refusal(&error.reply()),
    }
}

/// The relay's command for it is one line, and the path ends where it should.
fn check_mailbox(mailbox: &Mailbox) {
    let text = mailbox.to_string();
    assert!(!breaks_a_line(&text), "{text:?}");
    assert!(text.len() <= 254 && mailbox.local_part().len() <= 64, "{text:?}");
    assert_eq!(Mailbox::parse(&text).as_ref(), Ok(mailbox));
    let quoted = mailbox.local_part().starts_with('"');
    assert!(quoted || !mailbox.local_part().contains([' ', '@', '%', '!', '<', '>', ',', '"']), "{text:?}");
    assert!(!mailbox.domain().as_str().contains([' ', '@', '<', '>', ',', '"']), "{text:?}");
}

fn check_name(name: &EhloName) {
    assert!(!name.as_str().is_empty() && name.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
}

fn check_refusal(reply: &Reply) {
    assert!(!reply.is_positive(), "{reply}");
    let mut wire = Vec::new();
    reply.write_to(&mut wire);
    assert!(wire.len() <= 512 && wire.ends_with(b"\r\n"), "{reply}");
    assert!(!wire[..wire.len() - 2].iter().any(|byte| byte.is_ascii_control()), "{reply}");
}
