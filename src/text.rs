//! Text for people, and text from others: which characters are deceptive, and durations, counts and lists in words.

use std::fmt::Display;
use std::time::Duration;

/// A character that could make part of someone else's text look like something different in a log or a terminal: it
/// controls the output, begins a line, or changes the direction of writing (such as U+202E). No text from others is
/// shown with such characters.
pub fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with a question mark in place of each deceptive character.
pub fn cleaned(text: &str) -> String {
    text.replace(is_deceptive, "?")
}

/// `1 message`, `3 messages`.
pub fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `a`, `a or b`, `a, b or c`.
pub fn any_of(words: impl IntoIterator<Item = impl Display>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    match words.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => words.concat(),
    }
}

/// `smtp.example.com:587`, `[2001:db8::1]:587`. RFC 3986 §3.2.2.
pub fn host_and_port(host: &str, port: u16) -> String {
    let is_ipv6 = host.contains(':') && !host.starts_with('[');
    if is_ipv6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `5 days`, `36 hours`, `90 seconds`: in the largest unit that divides it; below a second, in milliseconds.
pub fn in_words(duration: Duration) -> String {
    let whole = duration.subsec_nanos() == 0;
    let seconds = duration.as_secs();
    let units = [(24 * 3600, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let unit = units.into_iter().find(|(length, _)| whole && seconds > 0 && seconds.is_multiple_of(*length));
    let (count, name) = match unit {
        Some((length, name)) => (u128::from(seconds / length), name),
        None => (duration.as_millis(), "millisecond"),
    };
    counted(u64::try_from(count).unwrap_or(u64::MAX), name)
}

/// For tables: `59 s`, `3 h`, `5 d`, in the largest unit that gives at least two, or the largest unit that fits.
pub fn briefly(seconds: u64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `12 seconds`, `3 minutes`, `20 hours`, `6 days`: never rounded down.
pub fn roughly(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let unit = match seconds {
        0..120 => 1,
        120..7200 => 60,
        7200..172_800 => 3600,
        _ => 86_400,
    };
    in_words(Duration::from_secs(seconds.div_ceil(unit) * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_ipv6_stand_in_brackets() {
        for (host, shown) in [
            ("smtp.example.com", "smtp.example.com:587"),
            ("192.0.2.1", "192.0.2.1:587"),
            ("2001:db8::1", "[2001:db8::1]:587"),
            ("[2001:db8::1]", "[2001:db8::1]:587"),
        ] {
            assert_eq!(host_and_port(host, 587), shown);
        }
    }

    #[test]
    fn no_character_that_deceives_is_shown() {
        assert_eq!(cleaned("a\r\nb\x1b[31m\u{202e}c\u{2028}d\u{2066}"), "a??b?[31m?c?d?");
        for harmless in ["", "plain", "gr\u{fc}n \u{2615} \u{65e5}", "a\u{200d}b"] {
            assert_eq!(cleaned(harmless), harmless);
        }
    }

    #[test]
    fn lists_and_counts() {
        assert_eq!(
            [any_of([""; 0]), any_of(["a"]), any_of(["a", "b"]), any_of(["a", "b", "c"])],
            ["", "a", "a or b", "a, b or c"]
        );
        assert_eq!(
            [counted(0, "message"), counted(1, "message"), counted(2, "message")],
            ["0 messages", "1 message", "2 messages"]
        );
    }

    #[test]
    fn table() {
        for (milliseconds, words) in [
            (432_000_000, "5 days"),
            (86_400_000, "1 day"),
            (129_600_000, "36 hours"),
            (60_000, "1 minute"),
            (90_000, "90 seconds"),
            (1_500, "1500 milliseconds"),
            (0, "0 milliseconds"),
        ] {
            assert_eq!(in_words(Duration::from_millis(milliseconds)), words);
        }
    }

    #[test]
    fn rounded_up() {
        for (milliseconds, words) in [
            (0, "0 milliseconds"),
            (1, "1 second"),
            (118_001, "119 seconds"),
            (121_000, "3 minutes"),
            (7_140_000, "119 minutes"),
            (7_201_000, "3 hours"),
            (86_400_000, "1 day"),
            (172_801_000, "3 days"),
        ] {
            assert_eq!(roughly(Duration::from_millis(milliseconds)), words);
        }
    }
}
