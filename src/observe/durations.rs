//! Durations as people say them.

use std::time::Duration;

/// `5 days`, `36 hours`, `90 seconds`: in the largest unit that divides it; below a second, in milliseconds.
pub fn in_words(duration: Duration) -> String {
    let (whole, seconds) = (duration.subsec_nanos() == 0, duration.as_secs());
    let units = [(24 * 3600, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let unit = units.into_iter().find(|(length, _)| whole && seconds > 0 && seconds.is_multiple_of(*length));
    let (count, name) = match unit {
        Some((length, name)) => (u128::from(seconds / length), name),
        None => (duration.as_millis(), "millisecond"),
    };
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// `12 seconds`, `3 minutes`, `20 hours`, `6 days`: never less than it is.
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
