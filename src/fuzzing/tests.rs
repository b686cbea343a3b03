//! Replays every seed and crasher, and some thousand mutations of each.

use super::rewrite::{RULES, Text};
use super::{TARGETS, Target};
use std::fs;
use std::path::Path;

/// All files of a target: `fuzz/seeds/NAME` and `fuzz/crashers/NAME`.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for kind in ["seeds", "crashers"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target);
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            found.push((path.display().to_string(), fs::read(&path).expect("a seed")));
        }
    }
    found.sort();
    found
}

/// xorshift64*: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 1).expect("63 bits") % limit.max(1)
    }
}

/// Octets that are significant to some parser.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b".",
    b"\r\n.\r\n",
    b"\0",
    b":",
    b" ",
    b"\t",
    b"<",
    b">",
    b"@",
    b"\"",
    b"\\",
    b"=?",
    b"?=",
    b"--",
    b"\xff",
    b"\xc3\xa4",
    "\u{2028}".as_bytes(),
    b"250 ",
    b"250-",
    b"[",
    b"]",
    b"{",
    b"}",
    b"=",
    b",",
    b";",
    b"#",
];

fn spoil(bytes: &mut Vec<u8>, others: &[(String, Vec<u8>)], numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let end = (at + numbers.below(8)).min(bytes.len());
        match numbers.below(5) {
            0 => drop(bytes.splice(at..end, TOKENS[numbers.below(TOKENS.len())].iter().copied())),
            1 => drop(bytes.splice(at..at, TOKENS[numbers.below(TOKENS.len())].iter().copied())),
            2 => drop(bytes.drain(at..end)),
            3 => bytes[at..end].iter_mut().for_each(|byte| *byte ^= 1 << numbers.below(8)),
            _ => {
                let other = &others[numbers.below(others.len())].1;
                let from = numbers.below(other.len() + 1);
                let piece = other[from..(from + numbers.below(64)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

fn replay(target: &str, variants: usize) {
    let run = TARGETS.iter().find(|(name, _)| *name == target).expect("a target").1;
    let corpus = corpus(target);
    assert!(corpus.len() >= 3, "{target} has hardly any seeds");
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for (name, bytes) in &corpus {
        guarded(name, bytes, run);
        for _ in 0..variants / corpus.len() {
            let mut spoiled = bytes.clone();
            spoil(&mut spoiled, &corpus, &mut numbers);
            guarded(name, &spoiled, run);
        }
    }
}

/// A rule that no seed selects is hardly ever tested.
#[test]
fn every_rule_has_its_seed() {
    let seeds = corpus("rewrite");
    for (number, rule) in (0..).zip(RULES) {
        let made = seeds.iter().any(|(_, bytes)| {
            let end = memchr::memchr(0, &bytes[2..]).map_or(bytes.len(), |at| at + 2);
            let text = std::str::from_utf8(&bytes[2..end]).expect("a text");
            bytes[0] == number && rule(&Text::of(text)).is_some()
        });
        assert!(made, "no seed of rewrite makes rule {number}");
    }
}

/// Reports which input failed.
fn guarded(name: &str, bytes: &[u8], run: Target) {
    let result = std::panic::catch_unwind(|| run(bytes));
    assert!(result.is_ok(), "from {name}: b\"{}\"", bytes.escape_ascii());
}

macro_rules! replayed {
    ($($target:ident: $variants:literal),* $(,)?) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), $variants);
            }
        )*

        #[test]
        fn every_target_is_replayed_and_has_its_file() {
            let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($target)),*]);
            for name in names {
                let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs"));
                assert!(file.is_file(), "{}", file.display());
            }
        }
    };
}

replayed! {
    command: 20_000,
    configuration: 2_000,
    data: 20_000,
    header: 5_000,
    html: 20_000,
    queue: 1_000,
    reply: 20_000,
    rewrite: 20_000,
    sandbox: 2_000,
    session: 10_000,
}
