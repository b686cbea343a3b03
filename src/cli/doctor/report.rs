//! The results in words and as JSON: a line for each, and for what is wrong its evidence, cause and remedy.

use crate::doctor::{CheckResult, CheckVerdict};
use crate::text::counted;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;

#[derive(Debug, Serialize)]
pub struct DoctorReport {
    /// No check failed or has a warning that counts.
    ok: bool,
    /// By verdict.
    counts: BTreeMap<String, usize>,
    checks: Vec<CheckResult>,
}

impl DoctorReport {
    pub fn of(checks: Vec<CheckResult>) -> Self {
        let mut counts = BTreeMap::new();
        for check in &checks {
            let verdict = serde_json::to_value(check.verdict).ok();
            let verdict = verdict.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
            *counts.entry(verdict).or_default() += 1;
        }
        Self { ok: !checks.iter().any(CheckResult::counts), counts, checks }
    }
}

pub fn print_json(report: &impl Serialize) {
    let text = serde_json::to_value(report).map_or_else(|error| error.to_string(), |value| format!("{value:#}"));
    print(&text);
}

/// One line.
pub fn line(result: &CheckResult) -> String {
    let subject = if result.subject.is_empty() { String::new() } else { format!(" ({})", result.subject) };
    let ignored = if result.ignored { " [ignored]" } else { "" };
    format!("{} {}{subject}: {}{ignored}", sign(result.verdict), result.id, result.summary)
}

fn sign(verdict: CheckVerdict) -> &'static str {
    match verdict {
        CheckVerdict::Ok => "✓",
        CheckVerdict::Warning => "!",
        CheckVerdict::Failed => "✗",
        CheckVerdict::Unknown => "?",
        CheckVerdict::NotApplicable => "-",
    }
}

/// What to do, worst first; then one line with the numbers.
pub fn print_problems(results: &[CheckResult]) {
    let mut problems: Vec<&CheckResult> = results.iter().filter(|result| result.counts()).collect();
    problems.sort_by_key(|result| std::cmp::Reverse(result.verdict));
    for problem in &problems {
        print(&format!("\n{}", explained(problem)));
    }
    print(&format!("\n{}", summary(results)));
}

fn explained(result: &CheckResult) -> String {
    let mut text = line(result);
    let parts = [("seen", &result.evidence), ("cause", &result.cause), ("remedy", &result.fix)]
        .into_iter()
        .filter_map(|(name, text)| Some((name, text.as_deref()?)));
    for (name, part) in parts.filter(|(_, part)| *part != result.summary) {
        text.push_str(&format!("\n    {name:<7} {part}"));
    }
    if let Some(record) = &result.record {
        text.push_str(&format!("\n    record  {}", record.to_string().replace('\n', "\n            ")));
    }
    text
}

fn summary(results: &[CheckResult]) -> String {
    let count = |verdict| results.iter().filter(|result| !result.ignored && result.verdict == verdict).count() as u64;
    let failed = count(CheckVerdict::Failed);
    let warnings = count(CheckVerdict::Warning);
    let unknown = count(CheckVerdict::Unknown);
    let unknown = if unknown > 0 { format!("; {unknown} could not be told") } else { String::new() };
    match (failed, warnings) {
        (0, 0) => format!("Nothing is wrong: {}{unknown}", counted(count(CheckVerdict::Ok), "check")),
        _ => format!(
            "{failed} failed, {}{unknown}; docs/troubleshooting.md explains each check",
            counted(warnings, "warning")
        ),
    }
}

/// Of --watch: what is not as it was in the last round.
pub fn print_changes(before: &[CheckResult], now: &[CheckResult], json: bool) {
    let is_same = |one: &CheckResult, other: &CheckResult| {
        (one.id, &one.subject, one.verdict) == (other.id, &other.subject, other.verdict)
    };
    let changed: Vec<&CheckResult> = now.iter().filter(|new| !before.iter().any(|old| is_same(old, new))).collect();
    if json {
        if !changed.is_empty() {
            print_json(&changed);
        }
        return;
    }
    let time = jiff::Timestamp::now().strftime("%H:%M:%S UTC").to_string();
    for result in changed {
        let text = if result.counts() { explained(result) } else { line(result) };
        print(&format!("{time} {text}"));
    }
}

pub fn print(text: &str) {
    let _a_closed_pipe_changes_nothing = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::CheckId;

    fn failed() -> CheckResult {
        CheckResult::failed(CheckId::DkimRecord, "wax1._domainkey.example.com", "the public key is not in the DNS")
            .evidence("no TXT record")
            .cause("nobody can check it")
            .fix("publish this record")
            .record("wax1._domainkey.example.com", "v=DKIM1; p=x")
    }

    #[test]
    fn what_is_wrong_is_shown_with_all_that_is_needed_to_mend_it() {
        insta::assert_snapshot!(explained(&failed()), @r"
        ✗ dkim.record (wax1._domainkey.example.com): the public key is not in the DNS
            seen    no TXT record
            cause   nobody can check it
            remedy  publish this record
            record  Name:  wax1._domainkey.example.com
                    Type:  TXT
                    Value: v=DKIM1; p=x
        ");
    }

    #[test]
    fn what_is_unknown_or_ignored_does_not_count() {
        let unknown = CheckResult::unknown(CheckId::SpfRecord, "example.com", "no answer");
        let ignored = CheckResult { ignored: true, ..failed() };
        let report = DoctorReport::of(vec![unknown.clone(), ignored.clone()]);
        assert!(report.ok);
        assert_eq!(summary(&[unknown, ignored]), "Nothing is wrong: 0 checks; 1 could not be told");
        assert!(!DoctorReport::of(vec![failed()]).ok);
    }
}
