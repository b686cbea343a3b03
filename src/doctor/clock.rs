//! This machine's clock: signatures, certificates and retries depend on it. A mail server's greeting often has the time.

use super::check::CheckResult;
use super::examination::{Examination, Results};
use crate::observe::CheckId;
use jiff::Timestamp;
use std::time::Duration;

/// The day before which this version cannot have been started, in seconds since 1970: 2026-01-01.
const EARLIEST: i64 = 1_767_225_600;

/// A signature may be older or younger than the receiver's clock by some minutes.
const TOLERANCE: i64 = 5 * 60;

pub fn probe(_exam: &Examination, out: &Results) {
    let now = Timestamp::now();
    out.put(if now.as_second() < EARLIEST {
        CheckResult::failed(CheckId::Clock, "", "this machine's clock is years behind")
            .evidence(now.to_string())
            .cause("certificates look as if they were not valid yet, and signatures as if they were years old")
            .fix("set the clock, and keep it right with chrony or systemd-timesyncd")
    } else {
        CheckResult::ok(CheckId::Clock, "", format!("it shows {now}"))
    });
}

/// Compares the clock with the time that a server's greeting has; `None` if it has none.
pub fn of_greeting(upstream: &str, greeting: &str, now: Timestamp) -> Option<CheckResult> {
    let theirs = time_in(greeting)?;
    let apart = now.as_second() - theirs.as_second();
    let length = crate::text::roughly(Duration::from_secs(apart.unsigned_abs()));
    Some(if apart.abs() <= TOLERANCE {
        CheckResult::ok(CheckId::Clock, upstream, "the server's clock and this machine's agree")
    } else {
        let direction = if apart < 0 { "behind" } else { "ahead" };
        CheckResult::warning(
            CheckId::Clock,
            upstream,
            format!("this machine's clock is {length} {direction} of the server's"),
        )
        .evidence(greeting)
        .cause("one of the two clocks is wrong; receivers refuse signatures from the future")
        .fix("keep this machine's clock right with chrony or systemd-timesyncd")
    })
}

/// RFC 5322 §3.3, anywhere in the text: `Mon, 30 Nov 2026 18:00:00 +0000`.
fn time_in(text: &str) -> Option<Timestamp> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(5).find_map(|window| {
        window[3]
            .contains(':')
            .then(|| jiff::fmt::rfc2822::parse(&window.join(" ")).ok())
            .flatten()
            .map(|it| it.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckVerdict;
    use super::*;

    #[test]
    fn a_greeting_with_a_time_shows_a_wrong_clock() {
        let greeting = "220 mx.example.com ESMTP Exim 4.98 Mon, 30 Nov 2026 18:00:00 +0000";
        for (now, verdict) in [
            ("2026-11-30T18:01:00Z", CheckVerdict::Ok),
            ("2026-11-30T18:20:00Z", CheckVerdict::Warning),
            ("2026-11-30T17:20:00Z", CheckVerdict::Warning),
        ] {
            let found = of_greeting("company", greeting, now.parse().expect("a time")).expect("a result");
            assert_eq!(found.verdict, verdict, "{found:?}");
        }
        assert_eq!(of_greeting("company", "220 smtp.example.com ESMTP ready at 12:00", Timestamp::now()), None);
    }
}
