//! `CheckResult`: what one check found, complete enough to act on. Decides nothing about the exit status.

use crate::observe::CheckId;
use crate::text::cleaned;
use serde::Serialize;
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    NotApplicable,
    Ok,
    /// Nothing was proved, as with a DNS server that does not answer.
    Unknown,
    Warning,
    Failed,
}

impl fmt::Display for CheckVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotApplicable => "not applicable",
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

/// A DNS record, ready to paste.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProposedRecord {
    /// Without the final dot.
    pub name: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub value: String,
}

/// As in a DNS provider's form.
impl fmt::Display for ProposedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name:  {}\nType:  {}\nValue: {}", self.name, self.kind, self.value)
    }
}

/// All texts are on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    pub id: CheckId,
    /// What it is about: an upstream's name, a domain, an address. Empty if there is only one.
    pub subject: String,
    pub verdict: CheckVerdict,
    /// `[doctor] ignore` names it: it does not count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
    pub summary: String,
    /// What was seen, in the other side's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<ProposedRecord>,
}

impl CheckResult {
    pub fn new(id: CheckId, subject: &str, verdict: CheckVerdict, summary: impl Into<String>) -> Self {
        Self {
            id,
            subject: subject.to_owned(),
            verdict,
            ignored: false,
            summary: summary.into(),
            evidence: None,
            cause: None,
            fix: None,
            record: None,
        }
    }

    pub fn ok(id: CheckId, subject: &str, summary: impl Into<String>) -> Self {
        Self::new(id, subject, CheckVerdict::Ok, summary)
    }

    pub fn not_applicable(id: CheckId, subject: &str, summary: impl Into<String>) -> Self {
        Self::new(id, subject, CheckVerdict::NotApplicable, summary)
    }

    pub fn unknown(id: CheckId, subject: &str, summary: impl Into<String>) -> Self {
        Self::new(id, subject, CheckVerdict::Unknown, summary)
    }

    pub fn warning(id: CheckId, subject: &str, summary: impl Into<String>) -> Self {
        Self::new(id, subject, CheckVerdict::Warning, summary)
    }

    pub fn failed(id: CheckId, subject: &str, summary: impl Into<String>) -> Self {
        Self::new(id, subject, CheckVerdict::Failed, summary)
    }

    pub fn evidence(mut self, text: impl Into<String>) -> Self {
        self.evidence = Some(text.into());
        self
    }

    pub fn cause(mut self, text: impl Into<String>) -> Self {
        self.cause = Some(text.into());
        self
    }

    pub fn fix(mut self, text: impl Into<String>) -> Self {
        self.fix = Some(text.into());
        self
    }

    pub fn record(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.record = Some(ProposedRecord { name: name.into(), kind: "TXT", value: value.into() });
        self
    }

    /// Whether it makes the command's exit status 1.
    pub fn counts(&self) -> bool {
        !self.ignored && matches!(self.verdict, CheckVerdict::Warning | CheckVerdict::Failed)
    }

    /// Texts of servers may hold anything, a password included.
    #[must_use]
    pub fn presentable(mut self, hide: impl Fn(&str) -> String) -> Self {
        let shown = |text: &mut String| *text = cleaned(&hide(text));
        shown(&mut self.subject);
        shown(&mut self.summary);
        [&mut self.evidence, &mut self.cause, &mut self.fix].into_iter().flatten().for_each(shown);
        self
    }
}
