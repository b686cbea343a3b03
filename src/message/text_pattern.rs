//! Patterns for text: a glob as in `Weekly*`, or a regular expression between slashes as in `/^Re: (.*)/`.
//!
//! For headers, in rules and routes. A glob must match the whole text, without regard to case, and `*` matches
//! anything; an expression may match anywhere in it. Both run in time linear in the text (the regex crate).

use super::encoded_words;
use super::headers::{FieldRef, Fields};
use globset::{GlobBuilder, GlobMatcher};
use regex::{Regex, RegexBuilder};
use std::fmt;

/// Maximum size in octets of a compiled expression; a larger one would slow every message down.
const LARGEST: usize = 1 << 20;

#[derive(Debug, Clone)]
pub struct TextPattern {
    written: String,
    matcher: Matcher,
}

#[derive(Debug, Clone)]
enum Matcher {
    Glob(GlobMatcher),
    Regex(Regex),
}

/// Why a pattern was refused, as the regex or glob crate says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{pattern}\" is not a valid pattern: {cause}")]
pub struct TextPatternError {
    pub pattern: String,
    pub cause: String,
}

impl TextPattern {
    pub fn parse(written: &str) -> Result<Self, TextPatternError> {
        let refused = |cause: String| TextPatternError { pattern: written.to_owned(), cause };
        let expression = written.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let matcher = match expression {
            Some(expression) => Matcher::Regex(regex(expression).map_err(refused)?),
            None => {
                let glob = GlobBuilder::new(written).case_insensitive(true).build();
                Matcher::Glob(glob.map_err(|error| refused(error.kind().to_string()))?.compile_matcher())
            }
        };
        Ok(Self { written: written.to_owned(), matcher })
    }

    pub fn matches(&self, text: &str) -> bool {
        match &self.matcher {
            Matcher::Glob(glob) => glob.is_match(text),
            Matcher::Regex(regex) => regex.is_match(text),
        }
    }
}

/// True if one of the patterns matches, or if there are none. A missing text matches no pattern.
pub fn any_matches(patterns: &[TextPattern], text: Option<&str>) -> bool {
    patterns.is_empty() || text.is_some_and(|text| patterns.iter().any(|pattern| pattern.matches(text)))
}

/// Compiles an expression, with a bound on its size. The error is one line.
pub fn regex(expression: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(expression).size_limit(LARGEST).build();
    built.map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())
}

/// The pattern as it was written.
impl fmt::Display for TextPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl PartialEq for TextPattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for TextPattern {}

/// A header of this name whose value matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderPattern {
    pub name: String,
    pub value: TextPattern,
}

impl HeaderPattern {
    /// True if one of the fields matches.
    pub fn matches(&self, fields: Fields<'_>) -> bool {
        fields.into_iter().any(|field| field.is(&self.name) && self.value.matches(&shown(&field)))
    }
}

/// The value as people read it: on one line, with encoded words decoded.
pub fn shown(field: &FieldRef<'_>) -> String {
    let value = field.unfolded();
    let value = String::from_utf8_lossy(&value);
    encoded_words::decode(&value).unwrap_or_else(|| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_fit_the_whole_and_expressions_a_part() {
        for (pattern, text, expected) in [
            ("Weekly*", "weekly report", true),
            ("Weekly*", "The weekly report", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("{yes,no}", "no", true),
            ("*/*", "a/b", true),
            ("*", "a/b", true),
            ("/report$/", "Weekly report", true),
            ("/report$/", "Weekly Report", false),
            ("/(?i)report$/", "Weekly Report", true),
            ("/^$/", "", true),
        ] {
            assert_eq!(TextPattern::parse(pattern).unwrap().matches(text), expected, "{pattern} on {text:?}");
        }
    }

    #[test]
    fn an_invalid_pattern_is_refused_in_one_line() {
        for pattern in ["[a", "/(/", "/a{1000}{1000}{1000}/"] {
            let text = TextPattern::parse(pattern).unwrap_err().to_string();
            assert!(
                text.starts_with(&format!("\"{pattern}\" is not a valid pattern: ")) && !text.contains('\n'),
                "{text}"
            );
        }
    }

    #[test]
    fn a_header_is_compared_as_it_is_read() {
        let header = b"Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe_von?=\r\n =?UTF-8?Q?_uns?=\r\nX-Kind: a\r\nX-Kind: b\r\n";
        for (name, value, expected) in [
            ("subject", "Grüße von uns", true),
            ("Subject", "*=?UTF-8*", false),
            ("X-Kind", "b", true),
            ("X-Kind", "c", false),
            ("X-None", "*", false),
        ] {
            let pattern = HeaderPattern { name: name.into(), value: TextPattern::parse(value).unwrap() };
            assert_eq!(pattern.matches(Fields::new(header)), expected, "{name}: {value}");
        }
    }
}
