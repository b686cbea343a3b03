//! `Rate`: a number per second, minute, hour or day, as written in the configuration and in presets.
//!
//! Does not know whether messages or recipients are counted.

use std::fmt;
use std::time::Duration;

/// For example "14/s". At least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    units: u32,
    per: Period,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Period {
    Second,
    Minute,
    Hour,
    Day,
}

/// The largest rate that can be configured.
const MOST: u32 = 100_000_000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    #[error("a number and a period are needed, as in \"14/s\"")]
    Incomplete,
    #[error("\"{0}\" is not a number from 1 to {MOST}")]
    InvalidNumber(String),
    #[error("\"{0}\" is not a period: use s, min, h or day")]
    UnknownPeriod(String),
}

impl Rate {
    /// The periods of all possible quotas.
    pub const QUOTA_PERIODS: [Duration; 2] = [Period::Hour.length(), Period::Day.length()];

    /// Accepts spaces, and the periods' usual names.
    pub fn parse(text: &str) -> Result<Self, RateError> {
        let (units, per) = text.split_once('/').ok_or(RateError::Incomplete)?;
        let units = units.trim();
        let per = per.trim();
        let number = units.parse().ok().filter(|number| (1..=MOST).contains(number));
        let number = number.ok_or_else(|| RateError::InvalidNumber(units.to_owned()))?;
        let per = match per.to_ascii_lowercase().as_str() {
            "s" | "sec" | "second" => Period::Second,
            "min" | "minute" => Period::Minute,
            "h" | "hour" => Period::Hour,
            "d" | "day" | "24h" => Period::Day,
            _ => return Err(RateError::UnknownPeriod(per.to_owned())),
        };
        Ok(Self { units: number, per })
    }

    pub fn units(self) -> u32 {
        self.units
    }

    pub fn period(self) -> Duration {
        self.per.length()
    }

    /// Mail waits for a short rate; a longer one is a quota, which may be used up for hours and is stored across
    /// restarts.
    pub fn is_short(self) -> bool {
        self.per <= Period::Minute
    }
}

impl Period {
    const fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 24 * 3_600,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Period::Second => "s",
            Period::Minute => "min",
            Period::Hour => "h",
            Period::Day => "day",
        };
        write!(f, "{}/{per}", self.units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_and_what_it_is() {
        for (text, printed, seconds, short) in [
            ("14/s", "14/s", 1, true),
            ("30/min", "30/min", 60, true),
            ("1000/h", "1000/h", 3_600, false),
            ("50000/day", "50000/day", 86_400, false),
            (" 5 / Minute", "5/min", 60, true),
            ("1/24h", "1/day", 86_400, false),
        ] {
            let rate = Rate::parse(text).expect(text);
            assert_eq!(
                (rate.to_string().as_str(), rate.period().as_secs(), rate.is_short()),
                (printed, seconds, short)
            );
            assert_eq!(Rate::parse(printed), Ok(rate));
        }
    }

    #[test]
    fn an_invalid_rate_is_refused() {
        for (text, error) in [
            ("", RateError::Incomplete),
            ("14", RateError::Incomplete),
            ("/s", RateError::InvalidNumber(String::new())),
            ("0/s", RateError::InvalidNumber("0".into())),
            ("-1/s", RateError::InvalidNumber("-1".into())),
            ("1.5/s", RateError::InvalidNumber("1.5".into())),
            ("100000001/s", RateError::InvalidNumber("100000001".into())),
            ("14/", RateError::UnknownPeriod(String::new())),
            ("14/week", RateError::UnknownPeriod("week".into())),
            ("14/m", RateError::UnknownPeriod("m".into())),
        ] {
            assert_eq!(Rate::parse(text), Err(error), "{text}");
        }
    }
}
