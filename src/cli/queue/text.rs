//! Times, sizes and holds for people.

pub(super) use crate::control::is_held;
use crate::observe::log::Clean;
use crate::queue::HeldLane;
use crate::text::briefly;
use jiff::Timestamp;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// `3 h ago`; a future time (the clock was set back) is `in 3 h`.
pub fn ago(now: Timestamp, at: Timestamp) -> String {
    match now.as_second() - at.as_second() {
        0 => "just now".to_owned(),
        seconds if seconds > 0 => format!("{} ago", briefly(seconds.unsigned_abs())),
        seconds => format!("in {}", briefly(seconds.unsigned_abs())),
    }
}

pub fn exact(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

pub fn size(octets: u64) -> String {
    let with_tenth = |unit: u64, name| format!("{}.{} {name}", octets / unit, octets % unit * 10 / unit);
    match octets {
        ..1_024 => format!("{octets} B"),
        1_024..1_048_576 => with_tenth(1_024, "KiB"),
        _ => with_tenth(1_048_576, "MiB"),
    }
}

pub fn sender(row: &str) -> &str {
    if row.is_empty() { "<>" } else { row }
}

/// One line for each hold, with the command that ends it.
pub fn holds(held: &[HeldLane]) -> Vec<String> {
    let line = |held: &HeldLane| match &held.lane {
        Some(lane) => {
            format!("Lane {} is held; resume it with: waxseal queue release {}", Clean(lane), quoted(lane))
        }
        None if held.except.is_empty() => {
            "All lanes are held; resume them with: waxseal queue release --all".to_owned()
        }
        None => format!(
            "All lanes but {} are held; resume them with: waxseal queue release --all",
            Clean(held.except.join(", "))
        ),
    };
    held.iter().map(line).collect()
}

/// Lines that are wider than the terminal continue on the next line, a little further to the right. `room`: its columns;
/// `None` is for a file or a pipe, where every line stays whole.
pub fn wrapped(text: &str, room: Option<usize>) -> String {
    let Some(room) = room else { return text.to_owned() };
    let mut all = String::with_capacity(text.len());
    for line in text.lines() {
        wrap(line, room.max(NARROWEST), &mut all);
        all.push('\n');
    }
    all
}

/// Breaks at spaces, and inside a word only if it is wider than a line.
fn wrap(line: &str, room: usize, all: &mut String) {
    let margin = line.len() - line.trim_start_matches(' ').len();
    let indent = (margin + FURTHER).min(room / 2);
    let mut width = 0;
    let mut start_of_row = margin;
    for word in line.split_inclusive(' ') {
        let does_not_fit = width + word.trim_end_matches(' ').width() > room;
        if does_not_fit && width > start_of_row {
            (width, start_of_row) = next_row(indent, all);
        }
        for character in word.chars() {
            let columns = character.width().unwrap_or(0);
            match width + columns > room {
                true if character == ' ' => continue,
                true => (width, start_of_row) = next_row(indent, all),
                false => {}
            }
            all.push(character);
            width += columns;
        }
    }
}

fn next_row(indent: usize, all: &mut String) -> (usize, usize) {
    all.truncate(all.trim_end_matches(' ').len());
    all.push('\n');
    all.extend(std::iter::repeat_n(' ', indent));
    (indent, indent)
}

/// A continuation begins this much further to the right.
const FURTHER: usize = 2;
/// Columns; a narrower terminal breaks the lines itself.
const NARROWEST: usize = 20;

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    if !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return word.to_owned();
    }
    format!("'{}'", Clean(word.replace('\'', "'\\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn times_are_shown_in_the_unit_that_says_enough() {
        let now = at("2026-11-24T03:00:00Z");
        for (time, shown) in [
            ("2026-11-24T03:00:00Z", "just now"),
            ("2026-11-24T02:59:01Z", "59 s ago"),
            ("2026-11-24T02:01:00Z", "59 min ago"),
            ("2026-11-24T00:00:00Z", "3 h ago"),
            ("2026-11-19T03:00:00Z", "5 d ago"),
            ("2026-11-24T03:12:30Z", "in 12 min"),
            ("2026-11-24T03:00:09Z", "in 9 s"),
        ] {
            assert_eq!(ago(now, at(time)), shown, "{time}");
        }
        assert_eq!(exact(now), "2026-11-24 03:00:00 UTC");
    }

    #[test]
    fn long_lines_are_wrapped_for_a_terminal_and_for_nothing_else() {
        let text =
            "Message    01\n\n  a@example.net: next try in 12 min, tried 2 times\n    upstream \"company\": no\n";
        assert_eq!(wrapped(text, None), text);
        assert_eq!(wrapped(text, Some(200)), text);
        assert_eq!(
            wrapped(text, Some(30)),
            "Message    01\n\n  a@example.net: next try in\n    12 min, tried 2 times\n    upstream \"company\": no\n"
        );
        for room in NARROWEST..60 {
            let long = format!("{text}    {} {}\n", "x".repeat(70), "日本語".repeat(20));
            let shown = wrapped(&long, Some(room));
            let is_narrow = |line: &str| line.width() <= room;
            assert!(shown.lines().all(is_narrow), "{room}: {shown}");
            let squeezed = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeezed(&shown), squeezed(&long), "{room}");
        }
    }

    #[test]
    fn sizes() {
        for (octets, text) in [(0, "0 B"), (1_023, "1023 B"), (4_608, "4.5 KiB"), (26_214_400, "25.0 MiB")] {
            assert_eq!(size(octets), text);
        }
    }

    #[test]
    fn a_hold_names_the_way_out() {
        let lane = HeldLane { lane: Some("reports".into()), except: Vec::new() };
        let all = HeldLane { lane: None, except: vec!["bulk".into()] };
        assert!(is_held(std::slice::from_ref(&lane), "reports") && !is_held(std::slice::from_ref(&lane), "default"));
        let odd = HeldLane { lane: Some("bob's mail".into()), except: Vec::new() };
        let lines = holds(&[lane, all, odd]);
        assert!(lines[2].ends_with(r"queue release 'bob'\''s mail'"), "{lines:?}");
        assert!(lines[0].ends_with("release reports") && lines[1].starts_with("All lanes but bulk"), "{lines:?}");
    }
}
