//! Compares the parser of a provider's replies with a model that is too simple to be wrong: the model has all complete
//! lines at once.

use super::*;
use crate::tally::Tally;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

/// All readable replies, each as code and text, and whether an error ended them.
type Read = (Vec<(u16, String)>, bool);

fn model(lines: &[Vec<u8>]) -> Read {
    let mut replies = Vec::new();
    let mut open = Vec::<(u16, String)>::new();
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let digits: Option<u16> = line
            .get(..3)
            .filter(|code| code.iter().all(u8::is_ascii_digit))
            .and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
        let Some(code) = digits.filter(|code| (200..600).contains(code)) else { return (replies, true) };
        let is_last = match line.get(3) {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return (replies, true),
        };
        if line.len() > 2048 || open.len() == 100 || open.first().is_some_and(|(first, _)| *first != code) {
            return (replies, true);
        }
        let text = String::from_utf8_lossy(line.get(4..).unwrap_or_default());
        open.push((code, text.replace(|c: char| c.is_control() || "\u{202e}\u{2028}".contains(c), "?")));
        if is_last {
            let text = open.drain(..).map(|(_, text)| text).filter(|text| !text.is_empty());
            replies.push((code, text.collect::<Vec<_>>().join(" ")));
        }
    }
    (replies, false)
}

/// The same with the parser, whose input is split at these places.
fn parser(wire: &[u8], cuts: &[usize]) -> Read {
    let mut parser = ReplyParser::default();
    let mut input = Vec::new();
    let mut replies = Vec::new();
    let mut rest = wire;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(cuts.next().copied().unwrap_or(1).clamp(1, rest.len()));
        input.extend_from_slice(piece);
        rest = behind;
        loop {
            let Ok((consumed, reply)) = parser.parse(&input) else { return (replies, true) };
            input.drain(..consumed);
            let Some(reply) = reply else { break };
            replies.push((reply.code(), reply.text()));
        }
    }
    (replies, false)
}

/// Mostly valid, so that replies get longer than one line.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![6 => Just("250"), 2 => Just("550"), 1 => Just("42"), 1 => Just("199"), 1 => Just("6a0")];
    let sign = prop_oneof![5 => Just("-"), 5 => Just(" "), 1 => Just(""), 1 => Just("x")];
    let text = prop_oneof![
        6 => "[a-z ]{0,20}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>().prop_filter("a line end", |octet| *octet != b'\n'), 0..12),
        1 => Just("ü\u{202e}\u{2028}".as_bytes().to_vec()),
        1 => Just(vec![b'x'; 2100]),
    ];
    let end = prop_oneof![4 => Just("\r"), 1 => Just("")];
    (code, sign, text, end)
        .prop_map(|(code, sign, text, end)| [code.as_bytes(), sign.as_bytes(), &text, end.as_bytes()].concat())
}

fn agree(lines: &[Vec<u8>], cuts: &[usize]) -> Result<(), TestCaseError> {
    let wire: Vec<u8> = lines.iter().flat_map(|line| [line, &b"\n"[..]].concat()).collect();
    prop_assert_eq!(parser(&wire, cuts), model(lines), "{}", wire.escape_ascii());
    Ok(())
}

#[test]
fn replies_are_read_as_the_model_reads_them() {
    const CASES: u32 = 4096;
    let mut tally = Tally::new("state-models", "reply parser");
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(CASES) };
    let lines = prop_oneof![8 => proptest::collection::vec(line(), 0..12), 1 => Just(vec![b"250-x\r".to_vec(); 102])];
    let cuts = proptest::collection::vec(1..40usize, 1..6);
    let result = TestRunner::new(config).run(&(lines, cuts), |(lines, cuts)| agree(&lines, &cuts));
    tally.right(CASES as usize - 1);
    tally.case(result.is_ok(), || format!("{result:?}"));
    tally.finish();
}
