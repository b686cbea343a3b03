//! Two DKIM verifiers that share no code with the gateway, both against given records instead of DNS: dkimpy, and
//! opendkim in its test mode (no daemon).
//!
//! Give opendkim what crossed SMTP: it cannot read a file without a final line end, with a NUL or with a bare CR.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use tempfile::TempDir;

use super::peers;

/// "selector._domainkey.domain" to the text of its TXT record.
pub type Records = BTreeMap<String, String>;

/// What a verifier says about one signature.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Verdict {
    pub domain: String,
    pub selector: String,
    pub algorithm: String,
    pub passed: bool,
    /// The verifier's own words; empty when it passed.
    pub reason: String,
}

/// dkimpy's verdicts: for each message, one for each of its signatures from the top down.
pub fn verify_dkimpy(records: &Records, messages: &[&Path]) -> Option<Vec<Vec<Verdict>>> {
    let mut python = peers::python("dkimpy_verify.py")?;
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("records.json");
    fs::write(&file, serde_json::to_string(records).expect("JSON")).expect("a new file");
    let finished = peers::run(python.arg(&file).args(messages));
    assert!(finished.success, "dkimpy_verify.py failed: {}", finished.stderr);
    let verdicts = finished.stdout.lines().map(serde_json::from_str);
    Some(verdicts.collect::<Result<_, _>>().expect("JSON lines"))
}

/// opendkim's verdicts, in the same shape.
pub fn verify_opendkim(records: &Records, messages: &[&Path]) -> Option<Vec<Vec<Verdict>>> {
    let folder = TempDir::new().expect("a temporary folder");
    let keys = folder.path().join("keys");
    let configuration = folder.path().join("conf");
    let lines = records.iter().map(|(name, record)| format!("{name} {record}\n"));
    fs::write(&keys, lines.collect::<String>()).expect("a new file");
    // The defaults stop at three signatures and at 64 KiB of headers.
    let settings = "Mode v\nMaximumSignaturesToVerify 20\nMaximumHeaders 0\nTestPublicKeys";
    fs::write(&configuration, format!("{settings} {}\n", keys.display())).expect("a new file");
    messages
        .iter()
        .map(|message| {
            let mut opendkim = peers::command("opendkim")?;
            opendkim.arg("-x").arg(&configuration).args(["-vv", "-t"]).arg(message);
            let finished = peers::run(&mut opendkim);
            let verdicts = authentication_results(&finished.stdout);
            let spoke = !verdicts.is_empty() || finished.stdout.contains("message not signed");
            assert!(finished.success && spoke, "opendkim failed on {}: {finished:?}", message.display());
            Some(verdicts)
        })
        .collect()
}

/// The header that opendkim would have added (RFC 8601): one `dkim=` for each signature, words in brackets or quotes.
fn authentication_results(output: &str) -> Vec<Verdict> {
    let results = output.split("hname='Authentication-Results'").nth(1).unwrap_or_default();
    let results = results.split(';').map(str::trim).filter(|result| result.starts_with("dkim="));
    results.map(one_result).collect()
}

fn one_result(result: &str) -> Verdict {
    let property = |name: &str| {
        let found = result.split_whitespace().find_map(|word| word.strip_prefix(name));
        found.unwrap_or_default().trim_end_matches('\'').to_owned()
    };
    let passed = property("dkim=") == "pass";
    Verdict {
        domain: property("header.d="),
        selector: property("header.s="),
        algorithm: property("header.a="),
        passed,
        reason: if passed { String::new() } else { result.to_owned() },
    }
}
