//! A listener's session, from each of its states: no message without a 354, no byte of data becomes a command, and the
//! result does not depend on the segments.

use super::take;
use crate::inbound::testing::{Dialogue, options, server_tls};
use crate::inbound::{AuthMode, LineEndings, ListenerOptions, Tls};
use crate::smtp::dot::has_only_crlf;

/// Input that brings a session into each state that bytes can reach. Seeds refer to them by position, so new ones go to
/// the end.
const STATES: &[&[u8]] = &[
    b"",
    b"EHLO x\r\n",
    b"EHLO x\r\nAUTH PLAIN AHUAcA==\r\n",
    b"EHLO x\r\nAUTH LOGIN\r\n",
    b"EHLO x\r\nAUTH LOGIN\r\ndQ==\r\n",
    b"EHLO x\r\nMAIL FROM:<a@b>\r\n",
    b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n",
    b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
    b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\n",
    b"HELO x\r\n",
    b"EHLO x\r\nAUTH PLAIN\r\n",
    b"EHLO x\r\nAUTH PLAIN AHUAeA==\r\nAUTH PLAIN AHUAeA==\r\n",
    b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\nx\r",
    b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.",
    b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n",
];

/// A bit of the octet that chooses the listener: if it has STARTTLS, TLS is not active yet.
const IN_CLEAR: u8 = 32;

/// Three octets choose the listener, the state and the length of the pieces. Then comes the client's input.
pub fn session(mut bytes: &[u8]) {
    let [listener, state, piece] = take(&mut bytes);
    let options = listener_of(listener);
    let state = STATES[usize::from(state) % STATES.len()];
    let begin = || {
        let mut dialogue = Dialogue::new(options.clone());
        if matches!(options.tls, Tls::StartTls(_)) && listener & IN_CLEAR == 0 {
            dialogue.send(b"EHLO x\r\n");
            dialogue.send(b"STARTTLS\r\n");
        }
        dialogue.send(state);
        dialogue
    };
    let mut whole = begin();
    whole.send(bytes);
    let mut in_pieces = begin();
    for piece in bytes.chunks(usize::from(piece).max(1)) {
        in_pieces.send(piece);
        let waits = in_pieces.is_in_data() || in_pieces.is_closed() || in_pieces.waiting() < 2048;
        assert!(waits, "an endless line is kept");
    }
    check(&in_pieces, &options);
    check(&whole, &options);
    // Whether anything followed STARTTLS depends on the segments, and that is intended.
    if !whole.injected && !in_pieces.injected {
        assert_eq!(whole.replies, in_pieces.replies);
        assert_eq!(whole.intake.count(), in_pieces.intake.count());
    }
}

fn listener_of(octet: u8) -> ListenerOptions {
    let auth = [AuthMode::Off, AuthMode::Optional, AuthMode::Required, AuthMode::Optional][usize::from(octet & 3)];
    let mut options = ListenerOptions { auth, max_message_size: 1000, ..options() };
    if octet & 4 != 0 {
        options.tls = Tls::StartTls(server_tls());
    }
    if octet & 8 != 0 {
        options.line_endings = LineEndings::Reject;
    }
    if octet & 16 != 0 {
        options.allow.clear();
    }
    options
}

fn check(dialogue: &Dialogue, options: &ListenerOptions) {
    let codes = dialogue.codes();
    let invitations = codes.iter().filter(|&&code| code == 354).count();
    assert!(dialogue.intake.count() <= invitations, "{codes:?}");
    let refused = codes.iter().filter(|&&code| code >= 400).count();
    let taken = dialogue.intake.taken.lock();
    for received in taken.iter() {
        assert!(has_only_crlf(&received.data), "{}", received.data.escape_ascii());
        assert!(received.data.len() as u64 <= options.max_message_size && refused < codes.len());
        assert!((1..=options.max_recipients).contains(&received.envelope.recipients.len()));
        assert!(options.line_endings == LineEndings::Normalize || !received.line_endings_changed);
        let known = received.client.user.is_some();
        assert!(known || (!options.allow.is_empty() && options.auth != AuthMode::Required), "an open relay");
        assert!(matches!(options.tls, Tls::Off) || received.client.tls.is_some(), "mail in clear");
    }
    for reply in &dialogue.replies {
        let mut wire = Vec::new();
        reply.write_to(&mut wire);
        for line in wire.split_inclusive(|&byte| byte == b'\n') {
            assert!(line.len() <= 512 && line.ends_with(b"\r\n"), "{reply}");
            assert!(!line[..line.len() - 2].iter().any(u8::is_ascii_control), "{reply}");
        }
    }
}
