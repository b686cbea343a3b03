//! Shows the change of a text as a unified diff for people: foreign octets stay on their lines, colours appear only on
//! a terminal.

use crate::observe::log::Clean;
use similar::TextDiff;
use std::fmt::Write as _;
use std::time::Duration;

/// After this time a correct diff is produced that may not be the smallest.
const DIFF_TIMEOUT: Duration = Duration::from_secs(2);
const REMOVED: &str = "\x1b[31m";
const ADDED: &str = "\x1b[32m";
const PLACE: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

/// Compares two messages, header and body; empty if they are the same.
pub fn unified(before: &[u8], after: &[u8]) -> String {
    let before = printable(before);
    let after = printable(after);
    let diff = TextDiff::configure().timeout(DIFF_TIMEOUT).diff_lines(&before, &after);
    diff.unified_diff().header("as it was submitted", "as it would be accepted").to_string()
}

pub fn with_colours(diff: &str) -> String {
    let mut coloured = String::with_capacity(diff.len() + diff.len() / 8);
    for line in diff.lines() {
        let colour = match line.as_bytes().first() {
            Some(b'-') => REMOVED,
            Some(b'+') => ADDED,
            Some(b'@') => PLACE,
            _ => "",
        };
        let end = if colour.is_empty() { "" } else { PLAIN };
        let _memory_takes_it = writeln!(coloured, "{colour}{line}{end}");
    }
    coloured
}

/// Lines that end with LF; tabs stay, since they fold headers.
fn printable(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let mut printable = String::with_capacity(text.len());
    for line in text.lines() {
        for (at, part) in line.split('\t').enumerate() {
            let _memory_takes_it = write!(printable, "{}{}", if at == 0 { "" } else { "\t" }, Clean(part));
        }
        printable.push('\n');
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_as_they_can_be_shown() {
        let before = b"A: 1\r\nB: \x1b[31m\xff\r\n\r\nbody\r\n";
        let after = b"A: 2\r\n\tfold\r\nB: \x1b[31m\xff\r\n\r\nbody\r\n";
        let diff = unified(before, after);
        assert_eq!(
            diff,
            "--- as it was submitted\n+++ as it would be accepted\n@@ -1,4 +1,5 @@\n-A: 1\n+A: 2\n+\tfold\n B: ?[31m\u{fffd}\n \n body\n"
        );
        assert!(with_colours(&diff).contains("\x1b[31m-A: 1\x1b[0m\n\x1b[32m+A: 2\x1b[0m\n"));
        assert_eq!(unified(before, before), "");
    }
}
