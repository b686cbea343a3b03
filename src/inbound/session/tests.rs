//! The session driven by bytes alone: random command sequences against a reference model, and data that tries to pass
//! for two messages, split at every byte.

mod model;

use super::*;
use crate::inbound::LineEndings;
use crate::inbound::testing::{Dialogue, budget, options};
use crate::lookalikes::LOOKALIKES;
use crate::tally::Tally;

const ENVELOPE: &[u8] = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
const SECOND: &[u8] = b"MAIL FROM:<evil@b>\r\nRCPT TO:<victim@d>\r\nDATA\r\nSubject: two\r\n\r\nb\r\n.\r\nQUIT\r\n";

fn smuggle(options: &ListenerOptions, first: &[u8], cut: usize, pause: usize) {
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
            let options = ListenerOptions { line_endings, max_message_size, ..options() };
            for lookalike in LOOKALIKES {
                let in_body = [b"Subject: one\r\n\r\na", *lookalike].concat();
                // As the very first line, with and without the line ending before it.
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

/// Words of 1 to 5 letters that contain a dot.
fn words() -> Vec<Vec<u8>> {
    let mut words = vec![Vec::new()];
    let mut all = Vec::new();
    for _ in 0..5 {
        words = words.iter().flat_map(|word| b"\r\n.\0".map(|letter| [word, &[letter][..]].concat())).collect();
        all.extend(words.iter().filter(|word| word.contains(&b'.')).cloned());
    }
    all
}

fn has_one_end(data: &[u8]) -> bool {
    !data.starts_with(b".\r\n") && memchr::memmem::find(data, b"\r\n.\r\n") == Some(data.len() - 5)
}

/// The first transaction is one message or none, and the second is its content.
fn is_one_or_none(options: &ListenerOptions, data: &[u8], cut: usize) -> bool {
    let mut dialogue = Dialogue::new(options.clone());
    dialogue.send(&[ENVELOPE, &data[..cut]].concat());
    dialogue.send(&[&data[cut..], b"QUIT\r\n"].concat());
    let codes = dialogue.codes();
    let taken = codes.get(5) == Some(&250);
    let refused = codes.get(5).is_some_and(|code| [550, 552].contains(code));
    codes.len() == 7 && codes[6] == 221 && taken != refused && dialogue.intake.count() == usize::from(taken)
}

#[test]
fn no_word_over_line_ends_dots_and_nul_is_an_end() {
    let mut tally = Tally::new("smuggling", "of any octets, cut everywhere");
    let second = &SECOND[..SECOND.len() - b"QUIT\r\n".len()];
    for line_endings in [LineEndings::Normalize, LineEndings::Reject] {
        for (max_message_size, before) in
            [(100_000, &b""[..]), (100_000, b"Subject: x\r\n\r\na"), (10, b"Subject: x\r\n\r\na")]
        {
            let options = ListenerOptions { line_endings, max_message_size, ..options() };
            for word in words() {
                let data = [before, &word, second].concat();
                if !has_one_end(&data) {
                    continue;
                }
                for cut in before.len()..=before.len() + word.len() + 1 {
                    let right = is_one_or_none(&options, &data, cut);
                    tally.case(right, || format!("{line_endings:?} {max_message_size} {} {cut}", data.escape_ascii()));
                }
            }
        }
    }
    tally.finish();
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
        let taken = dialogue.intake.taken.lock();
        assert_eq!(taken[0].data, &b"Subject: x\r\n\r\n.a\r\nb\r\n.c\r\n"[..], "cut at {cut}");
    }
}

#[test]
fn what_is_refused_anyway_is_not_kept_in_memory() {
    let options = ListenerOptions { max_message_size: 1000, ..options() };
    let mut dialogue = Dialogue::new(options);
    dialogue.send(ENVELOPE);
    let untouched = budget().total();
    for _ in 0..1000 {
        dialogue.send(&[b'x'; 10_000]);
    }
    let Some(SessionAction::Data(receiving)) = &dialogue.next else { panic!("not in DATA") };
    assert!(receiving.budget().has_room_for(untouched), "the share was given back");
    dialogue.send(b"\r\n.\r\n");
    assert_eq!(dialogue.codes().last(), Some(&552));
}

#[test]
fn memory_is_accounted_for_before_it_is_used() {
    let mut dialogue = Dialogue::new(options());
    dialogue.send(ENVELOPE);
    dialogue.send(&[b'x'; 50_000]);
    let Some(SessionAction::Data(receiving)) = &dialogue.next else { panic!("not in DATA") };
    assert!(!receiving.budget().has_room_for(budget().total() - 50_000 + 4096));
    dialogue.send(b"\r\n.\r\n");
    assert_eq!(dialogue.codes().last(), Some(&250));
}

#[test]
fn envelopes_are_in_the_budget_and_leave_it_with_the_transaction() {
    let many = |from: usize| {
        (from..from + 50).map(|n| format!("RCPT TO:<somebody-{n}@example.net>\r\n")).collect::<String>().into_bytes()
    };
    for end in [&b"RSET\r\n"[..], b"EHLO x\r\n", b"HELO x\r\n", b"QUIT\r\n", b"DATA\r\nS: x\r\n\r\n.\r\n"] {
        let mut dialogue = Dialogue::new(ListenerOptions { max_recipients: 1000, ..options() });
        let budget = dialogue.budget.clone();
        dialogue.send(b"EHLO x\r\nMAIL FROM:<a@b>\r\n");
        assert!(!budget.has_room_for(budget.total()), "MAIL counts");
        dialogue.send(&many(0));
        let half = budget.total() - budget.available();
        assert!(half >= 50 * 512, "{half}");
        dialogue.send(&many(0));
        assert_eq!(budget.total() - budget.available(), half, "what is there already costs nothing");
        dialogue.send(&many(50));
        assert!(budget.total() - budget.available() >= 2 * half - 4096);
        assert!(dialogue.codes()[2..].iter().all(|code| *code == 250));
        dialogue.send(end);
        dialogue.intake.taken.lock().clear();
        assert_eq!(budget.available(), budget.total(), "{}", end.escape_ascii());
    }
}

#[test]
fn recipients_that_do_not_fit_get_452_and_the_earlier_ones_stay() {
    let mut dialogue = Dialogue::new(ListenerOptions { max_recipients: 1000, ..options() });
    let budget = dialogue.budget.clone();
    let mut others = budget.share();
    others.grow(usize::try_from(budget.total()).expect("small") - 20 * 4096).expect("room");
    dialogue.send(b"EHLO x\r\nMAIL FROM:<a@b>\r\n");
    for number in 0..200 {
        dialogue.send(format!("RCPT TO:<n{number}@example.net>\r\n").as_bytes());
    }
    let codes = dialogue.codes();
    let taken = codes[3..].iter().take_while(|code| **code == 250).count();
    assert!((50..200).contains(&taken), "{taken}");
    assert!(codes[3 + taken..].iter().all(|code| *code == 452), "{codes:?}");
    assert_eq!(dialogue.replies.last(), Some(&Reply::no_memory()));
    dialogue.send(b"RCPT TO:<n0@example.net>\r\n");
    assert_eq!(dialogue.codes().last(), Some(&250), "it is there already");
    drop(others);
    dialogue.send(b"DATA\r\nS: x\r\n\r\n.\r\nMAIL FROM:<a@b>\r\n");
    assert_eq!(dialogue.codes()[dialogue.codes().len() - 3..], [354, 250, 250], "in sync");
    assert_eq!(dialogue.intake.taken.lock()[0].envelope.recipients.len(), taken);
}

#[test]
fn where_there_is_no_room_for_a_sender_mail_gets_452() {
    let mut dialogue = Dialogue::new(options());
    let budget = dialogue.budget.clone();
    let mut others = budget.share();
    others.grow(usize::try_from(budget.total()).expect("small")).expect("room");
    dialogue.send(b"EHLO x\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<>\r\n");
    assert_eq!(dialogue.codes()[2..], [452, 452]);
    drop(others);
    dialogue.send(b"MAIL FROM:<a@b>\r\n");
    assert_eq!(dialogue.codes().last(), Some(&250));
}
