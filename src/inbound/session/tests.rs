//! The session driven by bytes alone: random command sequences against a reference model, and data that tries to pass
//! for two messages, cut at every byte.

mod model;

use super::*;
use crate::inbound::LineEndings;
use crate::inbound::testing::{Dialogue, budget, options};

/// What some server somewhere takes for the end of data.
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

const ENVELOPE: &[u8] = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
const SECOND: &[u8] = b"MAIL FROM:<evil@b>\r\nRCPT TO:<victim@d>\r\nDATA\r\nSubject: two\r\n\r\nb\r\n.\r\nQUIT\r\n";

fn smuggle(options: &Options, first: &[u8], cut: usize, pause: usize) {
    let input = [ENVELOPE, first, SECOND].concat();
    let cut = cut.min(input.len());
    let mut dialogue = Dialogue::new(options.clone());
    dialogue.send(&input[..cut]);
    for piece in input[cut..].chunks(pause) {
        dialogue.send(piece);
    }
    let shown = first.escape_ascii();
    assert_eq!(dialogue.codes()[..5], [220, 250, 250, 250, 354], "{shown} cut at {cut}");
    assert_eq!(dialogue.codes()[5..].len(), 2, "one message and QUIT: {shown} cut at {cut}");
    assert!((550..=552).contains(&dialogue.codes()[5]), "{shown} cut at {cut}: {:?}", dialogue.codes());
    assert_eq!(dialogue.codes()[6], 221, "in sync: {shown} cut at {cut}");
    assert_eq!(dialogue.intake.count(), 0, "{shown} cut at {cut}");
}

#[test]
fn no_look_alike_of_the_end_makes_two_messages_or_one() {
    for line_endings in [LineEndings::Normalize, LineEndings::Reject] {
        for max_message_size in [100_000, 10] {
            let options = Options { line_endings, max_message_size, ..options() };
            for lookalike in LOOKALIKES {
                let in_body = [b"Subject: one\r\n\r\na", *lookalike].concat();
                // As the very first line, with and without the line end that stands before it.
                let starts = [lookalike.to_vec(), lookalike.strip_prefix(b"\r\n").unwrap_or(lookalike).to_vec()];
                for first in starts.iter().chain([&in_body]) {
                    for cut in 0..=ENVELOPE.len() + first.len() + SECOND.len() {
                        smuggle(&options, first, cut, usize::MAX);
                    }
                    smuggle(&options, first, 0, 1);
                }
            }
        }
    }
}

#[test]
fn one_message_is_one_message_however_it_is_cut() {
    let message = b"Subject: x\r\n\r\n..a\nb\r\n.c\r\n.\r\n";
    let input = [ENVELOPE, message, b"QUIT\r\n"].concat();
    for cut in 0..input.len() {
        let mut dialogue = Dialogue::new(options());
        dialogue.send(&input[..cut]);
        dialogue.send(&input[cut..]);
        assert_eq!(dialogue.codes(), [220, 250, 250, 250, 354, 250, 221], "cut at {cut}");
        let taken = dialogue.intake.taken.lock().expect("no panic");
        assert_eq!(taken[0].data, &b"Subject: x\r\n\r\n.a\r\nb\r\n.c\r\n"[..], "cut at {cut}");
    }
}

#[test]
fn what_is_refused_anyway_is_not_kept_in_memory() {
    let options = Options { max_message_size: 1000, ..options() };
    let mut dialogue = Dialogue::new(options);
    dialogue.send(ENVELOPE);
    let untouched = budget().total();
    for _ in 0..1000 {
        dialogue.send(&[b'x'; 10_000]);
    }
    let Some(Next::Data(receiving)) = &dialogue.next else { panic!("not in DATA") };
    assert!(receiving.budget().has_room_for(untouched), "the share was given back");
    dialogue.send(b"\r\n.\r\n");
    assert_eq!(dialogue.codes().last(), Some(&552));
}

#[test]
fn memory_is_accounted_for_before_it_is_used() {
    let mut dialogue = Dialogue::new(options());
    dialogue.send(ENVELOPE);
    dialogue.send(&[b'x'; 50_000]);
    let Some(Next::Data(receiving)) = &dialogue.next else { panic!("not in DATA") };
    assert!(!receiving.budget().has_room_for(budget().total() - 50_000 + 4096));
    dialogue.send(b"\r\n.\r\n");
    assert_eq!(dialogue.codes().last(), Some(&250));
}
