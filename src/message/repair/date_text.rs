//! Dates as applications write them: RFC 5322, ISO 8601, JavaScript's, C's, RFC 850's, seconds since 1970.
//!
//! A text that is ambiguous, for example 3/4 in March or April, is not read as a date. RFC 5322 §3.3, §4.3.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::Offset;
use std::fmt;

/// A date as someone wrote it; printed in the form of RFC 5322 §3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrittenDate {
    at: DateTime,
    offset: Offset,
}

impl fmt::Display for WrittenDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.offset.seconds() / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        let hours = minutes.abs() / 60;
        let minutes = minutes.abs() % 60;
        write!(f, "{} {sign}{hours:02}{minutes:02}", self.at.strftime("%a, %d %b %Y %H:%M:%S"))
    }
}

/// True for the form of RFC 5322 §3.3, or with a zone name of §4.3, and with the correct day of the week.
pub(super) fn is_sound(value: &str) -> bool {
    let text = without_comments(value);
    let (weekday, rest) = match text.split_once(',') {
        Some((weekday, rest)) => (Some(weekday.trim()), rest),
        None => (None, text.as_str()),
    };
    let [day, month, year, time, zone] = rest.split_ascii_whitespace().collect::<Vec<_>>()[..] else { return false };
    let has_form = is_digits(day, 1..=2) && is_digits(year, 4..=4) && month.len() == 3 && is_zone(zone);
    let Some(read) = read(rest).filter(|_| has_form && is_time(time)) else { return false };
    weekday.is_none_or(|weekday| weekday.len() == 3 && weekday_of(weekday) == Some(read.at.weekday()))
}

/// `None` if it does not determine a time. Without a zone it is UTC.
pub(super) fn read(value: &str) -> Option<WrittenDate> {
    let text = without_comments(value);
    if let Some(seconds) = epoch(text.trim()) {
        return Some(WrittenDate { at: Offset::UTC.to_datetime(seconds), offset: Offset::UTC });
    }
    let mut found = DateParts::default();
    for word in text.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|word| !word.is_empty()) {
        found.take(word)?;
    }
    found.date()
}

fn is_digits(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_time(text: &str) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    matches!(parts.len(), 2 | 3) && parts.iter().all(|part| is_digits(part, 2..=2))
}

fn is_zone(text: &str) -> bool {
    const NAMES: [&str; 10] = ["UT", "GMT", "EST", "EDT", "CST", "CDT", "MST", "MDT", "PST", "PDT"];
    let is_offset = text.strip_prefix(['+', '-']).is_some_and(|digits| is_digits(digits, 4..=4));
    is_offset || NAMES.contains(&text)
}

/// They nest. An unclosed one continues to the end.
fn without_comments(value: &str) -> String {
    let mut depth = 0_usize;
    let outside = |c: &char| {
        match c {
            '(' => depth += 1,
            ')' if depth > 0 => {
                depth -= 1;
                return false;
            }
            _ => {}
        }
        depth == 0
    };
    value.chars().filter(outside).collect()
}

/// Seconds (10 digits) or milliseconds (13 digits) since 1970.
fn epoch(text: &str) -> Option<jiff::Timestamp> {
    match (is_digits(text, 10..=10), is_digits(text, 13..=13)) {
        (true, _) => jiff::Timestamp::from_second(text.parse().ok()?).ok(),
        (_, true) => jiff::Timestamp::from_millisecond(text.parse().ok()?).ok(),
        _ => None,
    }
}

#[derive(Default)]
struct DateParts {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    time: Option<Time>,
    is_afternoon: Option<bool>,
    zone: Option<Offset>,
}

impl DateParts {
    fn take(&mut self, word: &str) -> Option<()> {
        let lower = word.to_ascii_lowercase();
        let first = *word.as_bytes().first()?;
        if first.is_ascii_digit() {
            return self.take_number(&lower);
        }
        if matches!(first, b'+' | b'-') {
            return self.set_zone(offset(&lower)?);
        }
        if let Some(month) = month_of(&lower) {
            return set(&mut self.month, month);
        }
        match lower.as_str() {
            "am" | "a.m." => set(&mut self.is_afternoon, false),
            "pm" | "p.m." => set(&mut self.is_afternoon, true),
            _ => match named_offset(&lower) {
                Some(offset) => self.set_zone(offset),
                // A weekday, "at", an unknown zone.
                None => Some(()),
            },
        }
    }

    /// A date with dashes, a time, a day or a year.
    fn take_number(&mut self, word: &str) -> Option<()> {
        if let Some((date, time)) = word.split_once('t').filter(|(date, _)| date.contains('-')) {
            self.take_number(date)?;
            return self.take_number(time);
        }
        if word.contains(':') {
            return self.take_time(word);
        }
        let parts: Vec<&str> = word.split(['-', '/']).collect();
        match parts[..] {
            [year, month, day] if is_digits(year, 4..=4) => {
                set(&mut self.year, year.parse().ok()?)?;
                set(&mut self.month, month.parse().ok()?)?;
                set(&mut self.day, day.parse().ok()?)
            }
            [day, month, year] if is_digits(day, 1..=2) => {
                set(&mut self.day, day.parse().ok()?)?;
                set(&mut self.month, month_of(month)?)?;
                set(&mut self.year, year_of(year)?)
            }
            [year] if is_digits(year, 3..=4) => set(&mut self.year, year_of(year)?),
            [number] => {
                let number = number.trim_end_matches(['.', 's', 't', 'n', 'd', 'r', 'h']);
                match self.day {
                    _ if !is_digits(number, 1..=2) => None,
                    None => set(&mut self.day, number.parse().ok()?),
                    Some(_) => set(&mut self.year, year_of(number)?),
                }
            }
            _ => None,
        }
    }

    /// Optionally with a zone, a fraction, or am and pm.
    fn take_time(&mut self, word: &str) -> Option<()> {
        let end = word.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(word.len());
        let (time, behind) = word.split_at(end);
        let mut parts = time.split(':');
        let hour = parts.next()?.parse().ok()?;
        let minute = parts.next()?.parse().ok()?;
        let second: i8 = parts.next().map_or(Some(0), |second| second.split('.').next()?.parse().ok())?;
        // RFC 5322 §3.3 has leap seconds.
        let time = Time::new(hour, minute, if second == 60 { 59 } else { second }, 0).ok()?;
        set(&mut self.time, time)?;
        if parts.next().is_some() {
            None
        } else if behind.is_empty() {
            Some(())
        } else {
            self.take(behind)
        }
    }

    /// `GMT` and then `+0100`.
    fn set_zone(&mut self, offset: Offset) -> Option<()> {
        match self.zone {
            Some(known) if known != Offset::UTC => (known == offset).then_some(()),
            _ => {
                self.zone = Some(offset);
                Some(())
            }
        }
    }

    fn date(self) -> Option<WrittenDate> {
        let date = Date::new(self.year?, self.month?, self.day?).ok()?;
        let time = self.time.unwrap_or_default();
        let hour = match (self.is_afternoon, time.hour()) {
            (None, hour) => hour,
            (Some(_), 0 | 13..) => return None,
            (Some(is_afternoon), hour) => hour % 12 + if is_afternoon { 12 } else { 0 },
        };
        let time = Time::new(hour, time.minute(), time.second(), 0).ok()?;
        Some(WrittenDate { at: date.to_datetime(time), offset: self.zone.unwrap_or(Offset::UTC) })
    }
}

/// A second value makes the date ambiguous.
fn set<T: PartialEq>(place: &mut Option<T>, value: T) -> Option<()> {
    let is_new = place.is_none();
    *place = Some(value);
    is_new.then_some(())
}

/// RFC 5322 §4.3: two digits mean 1950 to 2049, three count from 1900.
fn year_of(text: &str) -> Option<i16> {
    let year: i16 = text.parse().ok()?;
    match text.len() {
        2 if year < 50 => Some(year + 2000),
        2 | 3 => Some(year + 1900),
        4 => Some(year),
        _ => None,
    }
}

fn month_of(word: &str) -> Option<i8> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let word = word.trim_end_matches('.').to_ascii_lowercase();
    let at = MONTHS
        .iter()
        .position(|month| *month == word || month[..3] == word || word == "sept" && *month == "september")?;
    i8::try_from(at + 1).ok()
}

fn weekday_of(word: &str) -> Option<Weekday> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let at = DAYS.iter().position(|day| word.eq_ignore_ascii_case(day))?;
    Weekday::from_monday_one_offset(i8::try_from(at + 1).ok()?).ok()
}

/// `+0100`, `+01:00`, `+01`; `-0000` is UTC.
fn offset(word: &str) -> Option<Offset> {
    let digits: String = word[1..].chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = match digits.len() {
        2 => (&digits[..], "0"),
        4 if digits.is_ascii() => digits.split_at(2),
        _ => return None,
    };
    let hours: i32 = hours.parse().ok()?;
    let minutes: i32 = minutes.parse().ok()?;
    let seconds = (hours * 60 + minutes) * 60;
    let is_real = hours < 24 && minutes < 60;
    Offset::from_seconds(if word.starts_with('-') { -seconds } else { seconds }).ok().filter(|_| is_real)
}

/// The names of RFC 5322 §4.3, other common ones, and `GMT+0100`.
fn named_offset(word: &str) -> Option<Offset> {
    let hours = match word {
        "z" | "ut" | "utc" | "gmt" => 0,
        "edt" => -4,
        "est" | "cdt" => -5,
        "cst" | "mdt" => -6,
        "mst" | "pdt" => -7,
        "pst" => -8,
        "cet" => 1,
        "cest" => 2,
        "jst" => 9,
        _ => {
            let behind = ["gmt", "utc"].iter().find_map(|name| word.strip_prefix(name))?;
            return if behind.starts_with(['+', '-']) { offset(behind) } else { None };
        }
    };
    Offset::from_hours(hours).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_date_says() {
        for (value, expected) in [
            ("Tue, 24 Nov 2026 03:05:09 +0100", "Tue, 24 Nov 2026 03:05:09 +0100"),
            ("24 Nov 26 3:05 GMT", "Tue, 24 Nov 2026 03:05:00 +0000"),
            ("Tue, 24 Nov 126 03:05:09 -0800", "Tue, 24 Nov 2026 03:05:09 -0800"),
            ("1 Jan 99 00:00 EST", "Fri, 01 Jan 1999 00:00:00 -0500"),
            // ISO 8601.
            ("2026-11-24T03:05:09Z", "Tue, 24 Nov 2026 03:05:09 +0000"),
            ("2026-11-24T03:05:09.123456+01:00", "Tue, 24 Nov 2026 03:05:09 +0100"),
            ("2026-11-24 03:05:09 -0330", "Tue, 24 Nov 2026 03:05:09 -0330"),
            ("2026-11-24 03:05", "Tue, 24 Nov 2026 03:05:00 +0000"),
            ("2026/11/24 03:05:09", "Tue, 24 Nov 2026 03:05:09 +0000"),
            ("2026-11-24", "Tue, 24 Nov 2026 00:00:00 +0000"),
            // JavaScript's toString, toUTCString and toLocaleString.
            ("Tue Nov 24 2026 03:05:09 GMT+0100 (Central European Standard Time)", "Tue, 24 Nov 2026 03:05:09 +0100"),
            ("Tue, 24 Nov 2026 03:05:09 GMT", "Tue, 24 Nov 2026 03:05:09 +0000"),
            ("November 24, 2026 at 3:05:09 PM", "Tue, 24 Nov 2026 15:05:09 +0000"),
            // C's, date's and RFC 850's.
            ("Tue Nov 24 03:05:09 2026", "Tue, 24 Nov 2026 03:05:09 +0000"),
            ("Tue Nov  4 03:05:09 CET 2026", "Wed, 04 Nov 2026 03:05:09 +0100"),
            ("Tuesday, 24-Nov-26 03:05:09 GMT", "Tue, 24 Nov 2026 03:05:09 +0000"),
            ("1795489509", "Tue, 24 Nov 2026 03:05:09 +0000"),
            ("1795489509000", "Tue, 24 Nov 2026 03:05:09 +0000"),
            ("Tue, 24 Nov 2026 03:05:60 UTC", "Tue, 24 Nov 2026 03:05:59 +0000"),
            // The day of the week follows from the date.
            ("Mon, 24 Nov 2026 03:05:09 +0000", "Tue, 24 Nov 2026 03:05:09 +0000"),
            ("24th November 2026, 12:30am", "Tue, 24 Nov 2026 00:30:00 +0000"),
        ] {
            let read = read(value).map(|date| date.to_string());
            assert_eq!(read.as_deref(), Some(expected), "{value}");
            assert!(is_sound(expected), "{expected}");
        }
    }

    #[test]
    fn what_says_nothing_certain_is_nobodys_date() {
        for value in [
            "",
            "today",
            "03/04/2026",
            "11/24/2026, 3:05:09 AM",
            "24 Nov",
            "2026-13-24",
            "31 Feb 2026 03:05:09 +0000",
            "24 Nov 2026 25:05:09 +0000",
            "24 Nov 2026 03:05:09 +9900",
            "24 Nov Dec 2026 03:05",
            "24 Nov 2026 03:05 13:05",
            "13:05 PM 24 Nov 2026",
            "99999999999999999999",
            "2026-11-24T\u{e9}",
            "+\u{e9}\u{e9} 24 Nov 2026",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
    }

    #[test]
    fn which_dates_are_sound() {
        for (value, expected) in [
            ("Tue, 24 Nov 2026 03:05:09 +0000", true),
            ("Tue, 24 Nov 2026 03:05:09 +0000 (UTC)", true),
            ("24 Nov 2026 03:05 -0500", true),
            ("Tue,24 Nov 2026 03:05:09 GMT", true),
            ("Wed,  4 Nov 2026 03:05:09 EST", true),
            ("tue, 24 nov 2026 03:05:09 +0000", true),
            ("Mon, 24 Nov 2026 03:05:09 +0000", false),
            ("Tue, 24 Nov 26 03:05:09 +0000", false),
            ("Tue, 24 Nov 2026 3:05:09 +0000", false),
            ("Tue, 24 Nov 2026 03:05:09", false),
            ("Tue, 24 Nov 2026 03:05:09 UTC", false),
            ("Tue, 24 November 2026 03:05:09 +0000", false),
            ("Tue, 31 Nov 2026 03:05:09 +0000", false),
            ("2026-11-24T03:05:09Z", false),
            ("today", false),
            ("", false),
        ] {
            assert_eq!(is_sound(value), expected, "{value}");
        }
    }
}
