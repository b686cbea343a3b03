//! A provider's reply: the same however it is split, and on one harmless line wherever it is shown or passed on.

use super::take;
use crate::message::outcome::{Meaning, RelayStep, interpret};
use crate::observe::{Redaction, Secret};
use crate::smtp::Reply;
use crate::smtp::reply::{ReplyError, ReplyParser};

const STEPS: [RelayStep; 8] = [
    RelayStep::Greeting,
    RelayStep::Ehlo,
    RelayStep::StartTls,
    RelayStep::Auth,
    RelayStep::Mail,
    RelayStep::Rcpt,
    RelayStep::Data,
    RelayStep::EndOfData,
];

/// The first octet gives the length of the pieces.
pub fn reply(mut bytes: &[u8]) {
    let [piece] = take(&mut bytes);
    let whole = replies(bytes, bytes.len());
    // A line that is too long is detected earlier if more of it is visible.
    let in_pieces = replies(bytes, usize::from(piece));
    assert_eq!(whole.0, in_pieces.0);
    assert!(whole.1 == in_pieces.1 || whole.1.is_some_and(|error| error == ReplyError::LineTooLong));
    whole.0.iter().for_each(check);
}

/// All readable replies, and the error that ended reading.
fn replies(bytes: &[u8], piece: usize) -> (Vec<Reply>, Option<ReplyError>) {
    let mut parser = ReplyParser::default();
    let mut input = Vec::new();
    let mut found = Vec::new();
    for chunk in bytes.chunks(piece.max(1)) {
        input.extend_from_slice(chunk);
        loop {
            match parser.parse(&input) {
                Ok((consumed, reply)) => {
                    assert!(consumed <= input.len());
                    input.drain(..consumed);
                    match reply {
                        Some(reply) => found.push(reply),
                        None => break,
                    }
                }
                Err(error) => return (found, Some(error)),
            }
        }
        assert!(input.len() <= 2049, "an endless line is kept");
    }
    (found, None)
}

fn check(reply: &Reply) {
    assert!((200..=599).contains(&reply.code()));
    assert!(!reply.to_string().chars().any(char::is_control), "{reply}");
    let mut wire = Vec::new();
    reply.folded().write_to(&mut wire);
    assert!(wire.len() <= 512 && wire.iter().filter(|&&byte| byte == b'\n').count() == 1, "{reply}");
    let again = ReplyParser::default().parse(&wire).expect("a reply").1.expect("a whole reply");
    assert_eq!((again.code(), again.enhanced()), (reply.code(), reply.enhanced()));
    for step in STEPS {
        let meaning = interpret(step, reply, &[]).meaning;
        assert!(meaning != Meaning::Accepted || reply.is_positive(), "{step}: {reply}");
        assert!(
            step > RelayStep::Auth || matches!(meaning, Meaning::Accepted | Meaning::UpstreamDeferred),
            "{step}: {reply}"
        );
    }
    let password = Secret::new(reply.text());
    let mut redaction = Redaction::default();
    redaction.add_secret(password.reveal());
    let hidden = redaction.hide(password.reveal());
    // Short secrets stay where they are part of a word.
    if password.reveal().bytes().filter(|octet| !b" *".contains(octet)).count() >= 4 {
        assert!(!hidden.contains(password.reveal()), "{reply}");
    }
}
