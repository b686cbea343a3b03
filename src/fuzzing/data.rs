//! Data framing in both directions: the end is where RFC 5321 puts it, however the bytes are split, and outgoing data
//! has one end.

use super::take;
use crate::smtp::dot::{DotDecoder, DotEncoder, Oddities, has_only_crlf};

/// The first octet gives the length of the pieces.
pub fn data(mut bytes: &[u8]) {
    let [piece] = take(&mut bytes);
    let whole = decode(bytes, bytes.len());
    assert_eq!(whole, decode(bytes, usize::from(piece)));
    let (consumed, message, oddities) = whole;
    match true_end(bytes) {
        Some(end) => assert_eq!(consumed, end, "the end of data is CRLF.CRLF and nothing else"),
        None => assert_eq!(consumed, bytes.len(), "there is no end"),
    }
    assert!(has_only_crlf(&message) || oddities.nul, "{}", message.escape_ascii());
    if has_only_crlf(&message) {
        check_wire(&message, usize::from(piece));
    }
}

fn decode(bytes: &[u8], piece: usize) -> (usize, Vec<u8>, Oddities) {
    let mut decoder = DotDecoder::default();
    let mut message = Vec::new();
    let mut consumed = 0;
    for chunk in bytes.chunks(piece.max(1)) {
        consumed += decoder.decode(chunk, &mut message);
        if decoder.is_done() {
            break;
        }
    }
    (consumed, message, decoder.oddities())
}

/// Follows only the text of RFC 5321 §4.1.1.4.
fn true_end(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b".\r\n") {
        return Some(3);
    }
    memchr::memmem::find(bytes, b"\r\n.\r\n").map(|at| at + 5)
}

/// What a server reads, whichever line endings it accepts.
fn check_wire(message: &[u8], piece: usize) {
    let mut encoder = DotEncoder::default();
    let mut wire = Vec::new();
    for chunk in message.chunks(piece.max(1)) {
        encoder.encode(chunk, &mut wire);
    }
    encoder.finish(&mut wire);
    assert!(has_only_crlf(&wire), "{}", wire.escape_ascii());
    assert_eq!(true_end(&wire), Some(wire.len()), "{}", wire.escape_ascii());
    let lone = wire.split(|&byte| byte == b'\n').filter(|line| line.trim_ascii_end() == b".").count();
    assert_eq!(lone, 1, "{}", wire.escape_ascii());
    let (consumed, mut back, oddities) = decode(&wire, wire.len());
    if !message.ends_with(b"\r\n") && !message.is_empty() {
        back.truncate(back.len() - 2);
    }
    assert_eq!((consumed, oddities), (wire.len(), Oddities::default()));
    assert_eq!(back, message);
}
