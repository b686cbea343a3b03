//! `waxseal dkim verify`: would a receiver accept the signatures of this message? Checks against given records, never
//! against DNS. RFC 6376 §6.1.

use super::print;
use crate::cli::complain;
use crate::cli::message_file::{read, with_crlf};
use crate::cli::{PROBLEM_FOUND, WRONG, run::print_problems, unreadable};
use crate::config::{self, ConfigFile, Environment};
use crate::dkim::{self, Records, SignatureCheck, VerificationResult};
use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct VerifyArgs {
    /// The message as it arrived, with all its headers (an .eml file, "show original" in a mail program). "-": standard
    /// input.
    file: PathBuf,

    /// A file with the DNS record to check against instead of the configuration's own keys: its text, a line of a zone
    /// file, or what dig prints.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  waxseal dkim verify mail.eml
  dig +noall +answer TXT wax1._domainkey.example.com > record.txt
  waxseal dkim verify mail.eml --record record.txt

One line for each signature, from the top. Line ends may be CRLF or LF.
Exit status: 0 if at least one signature holds, 1 if none does.";

pub fn run(command: VerifyArgs, config: &ConfigFile<'_>) -> anyhow::Result<ExitCode> {
    let message = read(&command.file)?;
    let records = match &command.record {
        Some(path) => from_file(path)?,
        None => match config::load(config, &Environment::of_process()) {
            Ok(settings) => Records::of_keys(settings.dkim.iter().filter_map(|key| key.key.as_ref())),
            Err(problems) => {
                print_problems(&problems);
                return Ok(ExitCode::from(WRONG));
            }
        },
    };
    let verified = dkim::verify(&with_crlf(&message), &records);
    print(&if command.json { as_json(&verified)? } else { text(&verified) });
    if verified.iter().any(SignatureCheck::is_pass) {
        return Ok(ExitCode::SUCCESS);
    }
    if let (Some(first), None) = (verified.first(), &command.record) {
        complain(format_args!("{}", how_to_use_dns(first, &command.file)));
    }
    Ok(ExitCode::from(PROBLEM_FOUND))
}

fn how_to_use_dns(signature: &SignatureCheck, file: &Path) -> String {
    format!(
        "this was checked against the configuration's own keys. To check it against what DNS publishes:\n\
         \x20 dig +noall +answer TXT {}._domainkey.{} > record.txt\n\
         \x20 waxseal dkim verify {} --record record.txt",
        signature.selector,
        signature.domain,
        file.display()
    )
}

fn from_file(path: &Path) -> anyhow::Result<Records> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Records::from_file(&text).with_context(|| format!("{} cannot be used", path.display()))
}

fn text(verified: &[SignatureCheck]) -> String {
    if verified.is_empty() {
        return "The message has no DKIM-Signature header.\n".to_owned();
    }
    let line = |one: &SignatureCheck| {
        let name = if one.domain.is_empty() {
            "a DKIM-Signature".to_owned()
        } else {
            format!("{}._domainkey.{} ({})", one.selector, one.domain, one.algorithm)
        };
        match &one.result {
            VerificationResult::Pass => format!("pass  {name}\n"),
            VerificationResult::Fail(reason) => format!("FAIL  {name}: {reason}\n"),
        }
    };
    verified.iter().map(line).collect()
}

fn as_json(verified: &[SignatureCheck]) -> serde_json::Result<String> {
    let one = |one: &SignatureCheck| {
        let reason = match &one.result {
            VerificationResult::Pass => None,
            VerificationResult::Fail(reason) => Some(reason),
        };
        json!({
            "domain": one.domain,
            "selector": one.selector,
            "algorithm": one.algorithm,
            "passed": one.is_pass(),
            "reason": reason,
        })
    };
    serde_json::to_string_pretty(&verified.iter().map(one).collect::<Vec<_>>()).map(|text| text + "\n")
}
