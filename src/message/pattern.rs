//! `SenderPatterns`: address patterns such as `*@example.com`, for "who may send as whom" and for routes.
//!
//! A pattern is a glob for the local part, `@`, and a glob for the domain; `*` alone matches every address. Domains are
//! compared without regard to case (RFC 5321 §2.4), local parts with it. Used for envelope addresses and header authors
//! alike.

use crate::smtp::{Domain, Mailbox};
use globset::{GlobBuilder, GlobMatcher};
use std::fmt;

/// A list of patterns; an address matches if one of them does. An empty list matches nothing.
#[derive(Debug, Clone)]
pub struct SenderPatterns(Vec<Pattern>);

/// Why a pattern was refused, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("\"{0}\" is not an address pattern: it has no \"@\"; write \"*@{0}\" for every address of that domain")]
    NoAt(String),
    #[error("\"{0}\" is not an address pattern: a part beside the \"@\" is empty; \"*\" stands for anything")]
    EmptyPart(String),
    #[error("\"{pattern}\" is not an address pattern: {cause}")]
    Glob { pattern: String, cause: String },
}

impl SenderPatterns {
    /// Matches every address.
    pub fn any() -> Self {
        Self(vec![Pattern { text: "*".to_owned(), parts: None }])
    }

    /// Matches every address of each domain and its subdomains.
    pub fn domains<'a>(domains: impl IntoIterator<Item = &'a Domain>) -> Self {
        let both = |domain: &Domain| [format!("*@{domain}"), format!("*@*.{domain}")];
        Self(domains.into_iter().flat_map(both).filter_map(|text| Pattern::parse(&text).ok()).collect())
    }

    pub fn parse<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Self, PatternError> {
        patterns.into_iter().map(|text| Pattern::parse(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    pub fn matches(&self, mailbox: &Mailbox) -> bool {
        self.0.iter().any(|pattern| pattern.matches(mailbox))
    }

    /// For an envelope's sender; the null path (`None`) matches only if every address does.
    pub fn matches_sender(&self, sender: Option<&Mailbox>) -> bool {
        sender.map_or(self.is_any(), |sender| self.matches(sender))
    }

    /// True if every address matches.
    pub fn is_any(&self) -> bool {
        self.0.iter().any(|pattern| pattern.text == "*" || pattern.text == "*@*")
    }

    /// The patterns as they were written.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|pattern| pattern.text.as_str())
    }
}

/// Comma-separated, for messages.
impl fmt::Display for SenderPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, text) in self.iter().enumerate() {
            write!(f, "{}{text}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl PartialEq for SenderPatterns {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SenderPatterns {}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    /// `None` for `*`, which is every address.
    parts: Option<(GlobMatcher, DomainPattern)>,
}

#[derive(Debug, Clone)]
enum DomainPattern {
    Glob(GlobMatcher),
    /// `[192.0.2.1]` is an address literal here, not a character class.
    Exactly(Domain),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self { text: text.to_owned(), parts: None });
        }
        let (local_part, domain) = text.rsplit_once('@').ok_or_else(|| PatternError::NoAt(text.to_owned()))?;
        if local_part.is_empty() || domain.is_empty() {
            return Err(PatternError::EmptyPart(text.to_owned()));
        }
        let glob = |part: &str, case_insensitive| {
            let built = GlobBuilder::new(part).case_insensitive(case_insensitive).build();
            built
                .map(|glob| glob.compile_matcher())
                .map_err(|error| PatternError::Glob { pattern: text.to_owned(), cause: error.kind().to_string() })
        };
        let domain = match Domain::parse(domain) {
            Ok(literal) if literal.is_literal() => DomainPattern::Exactly(literal),
            _ => DomainPattern::Glob(glob(domain, true)?),
        };
        Ok(Self { text: text.to_owned(), parts: Some((glob(local_part, false)?, domain)) })
    }

    fn matches(&self, mailbox: &Mailbox) -> bool {
        self.parts.as_ref().is_none_or(|(local_part, domain)| {
            let domain_matches = match domain {
                DomainPattern::Glob(glob) => glob.is_match(mailbox.domain().as_str()),
                DomainPattern::Exactly(domain) => domain == mailbox.domain(),
            };
            domain_matches && local_part.is_match(mailbox.local_part())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(patterns: &[&str], address: &str) -> bool {
        SenderPatterns::parse(patterns).expect("patterns").matches(&Mailbox::parse(address).expect("an address"))
    }

    #[test]
    fn a_pattern_matches_whole_addresses() {
        for (patterns, address, expected) in [
            (&["*"][..], "a@b", true),
            (&["*@example.com"], "reports@example.com", true),
            // A slash is not a separator here.
            (&["*@example.com"], "a/b@example.com", true),
            (&["*@example.com"], "reports@EXAMPLE.com", true),
            (&["*@Example.Com"], "reports@example.com", true),
            (&["*@example.com"], "reports@news.example.com", false),
            (&["*@example.com"], "reports@badexample.com", false),
            (&["*@example.com"], "a@example.com.evil", false),
            (&["*@*.example.com"], "a@news.example.com", true),
            (&["*@*.example.com"], "a@example.com", false),
            (&["reports@example.com"], "Reports@example.com", false),
            // ASCII letters have two cases; the Kelvin sign, the long s and the dotless i are different letters.
            (&["*@bank.example"], "a@ban\u{212a}.example", false),
            (&["*@sink.example"], "a@\u{17f}ink.example", false),
            (&["*@sink.example"], "a@s\u{131}nk.example", false),
            (&["{reports,alerts}@example.com"], "alerts@example.com", true),
            (&["a@[192.0.2.1]"], "a@[192.0.2.1]", true),
            (&["a@[192.0.2.1]"], "a@1", false),
            (&["x@y", "*@example.com"], "a@example.com", true),
            (&[], "a@example.com", false),
        ] {
            assert_eq!(matches(patterns, address), expected, "{patterns:?} {address}");
        }
    }

    #[test]
    fn the_domains_of_keys_cover_what_lies_below_them() {
        let patterns = SenderPatterns::domains(&[Domain::parse("example.com").expect("a domain")]);
        assert_eq!(patterns.to_string(), "*@example.com, *@*.example.com");
        assert!(patterns.matches(&Mailbox::parse("a@deep.news.example.com").expect("an address")));
        assert!(!patterns.matches(&Mailbox::parse("a@badexample.com").expect("an address")));
    }

    #[test]
    fn a_broken_pattern_says_what_to_write() {
        let error = |text| SenderPatterns::parse([text]).expect_err(text).to_string();
        assert!(error("example.com").contains("\"*@example.com\""));
        assert!(error("@example.com").contains("\"*\" stands for anything"));
        assert!(error("a[@example.com").contains("unclosed"));
    }
}
