//! Decides, before a byte is sent, what a message needs from the server: size, 8-bit, internationalised addresses.
//!
//! A message that the server cannot carry fails here, with the gateway's own text. RFC 1870 §6, RFC 6152 §3, RFC 6531
//! §3.

use super::Mail;
use super::line::{CommandLine, NotALine};
use super::recipients::TransactionRecipients;
use crate::message::outcome::{Outcome, Reason};
use crate::smtp::dot::has_only_crlf;
use crate::smtp::{EnhancedCode, Extensions, Mailbox};

/// The MAIL line, or why this server cannot deliver the message to anyone. Recipients that it cannot serve are settled.
pub(super) fn mail_line(
    mail: &Mail<'_>,
    offered: &Extensions,
    upstream: &str,
    recipients: &mut TransactionRecipients,
) -> Result<CommandLine, Outcome> {
    let failed = |enhanced, text: String| Outcome::Failed(Reason::local(Some(upstream), enhanced, text));
    let size = mail.sealed.message().size() as u64;
    if let Some(Some(limit)) = offered.size.filter(|limit| limit.is_some_and(|limit| limit < size)) {
        let text = format!("the message has {size} octets, but this server accepts at most {limit}");
        return Err(failed(EnhancedCode::new(5, 3, 4), text));
    }
    if !has_only_crlf(mail.sealed.message().header()) || !has_only_crlf(mail.sealed.message().body()) {
        // Unreachable as long as RawMessage is correct, but protection against smuggling must not depend on that alone.
        let text = "the message has a bare CR, LF or NUL and cannot be sent".to_owned();
        return Err(failed(EnhancedCode::new(5, 6, 0), text));
    }
    let eight_bit = mail.sealed.is_eight_bit() || mail.sealed.header_is_eight_bit();
    if eight_bit && !offered.eight_bit_mime {
        let text = "the message has 8-bit characters, but this server accepts only 7-bit mail (no 8BITMIME)".to_owned();
        return Err(failed(EnhancedCode::new(5, 6, 3), text));
    }
    let smtputf8 = needs_smtputf8(mail, offered, upstream, recipients)?;
    let mut line = format!("MAIL FROM:<{}>", mail.envelope.sender);
    if offered.size.is_some() {
        line.push_str(&format!(" SIZE={size}"));
    }
    if eight_bit {
        line.push_str(" BODY=8BITMIME");
    }
    if smtputf8 {
        line.push_str(" SMTPUTF8");
    }
    CommandLine::new(&line).map_err(|NotALine| unusable_address(upstream))
}

pub(super) fn rcpt_line(recipient: &Mailbox, upstream: &str) -> Result<CommandLine, Outcome> {
    CommandLine::new(&format!("RCPT TO:<{recipient}>")).map_err(|NotALine| unusable_address(upstream))
}

/// The addresses decide. The client's own SMTPUTF8 counts only if the server offers it and the header still needs it,
/// because declaring it makes a message undeliverable to many servers further on. Without it, a header that could not
/// be written in ASCII is sent as it is, like that of a client that declares nothing.
fn needs_smtputf8(
    mail: &Mail<'_>,
    offered: &Extensions,
    upstream: &str,
    recipients: &mut TransactionRecipients,
) -> Result<bool, Outcome> {
    let failed = |whose: &str| {
        let text = format!("{whose} not ASCII, and this server cannot carry that (no SMTPUTF8)");
        Outcome::Failed(Reason::local(Some(upstream), EnhancedCode::new(5, 6, 7), text))
    };
    let sender = mail.envelope.sender.mailbox().is_some_and(Mailbox::is_internationalized);
    if offered.smtputf8 {
        let header = mail.envelope.smtputf8 && mail.sealed.header_is_eight_bit();
        return Ok(sender || header || mail.recipients.iter().any(Mailbox::is_internationalized));
    }
    if sender {
        return Err(failed("the sender's address is"));
    }
    for (at, recipient) in mail.recipients.iter().enumerate() {
        if recipient.is_internationalized() {
            recipients.settle(at, failed("the recipient's address is"));
        }
    }
    Ok(false)
}

fn unusable_address(upstream: &str) -> Outcome {
    let text = "an address cannot be written as a command".to_owned();
    Outcome::Failed(Reason::local(Some(upstream), EnhancedCode::new(5, 1, 3), text))
}
