//! `waxseal dkim record`: the records to publish, ready to paste. Shows only public keys, and does not check whether
//! they are published. RFC 6376 §3.6.1.

use super::{permissions_warning, print};
use crate::cli::complain;
use crate::cli::{PROBLEM_FOUND, WRONG, run::print_problems, unreadable};
use crate::config::{self, ConfigFile, DkimSettings, Environment};
use crate::dkim::{DnsRecord, Keyring, Selector, SigningKey};
use crate::smtp::Domain;
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct RecordArgs {
    /// Only the keys that sign for this domain. Default: every key of the configuration.
    #[arg(value_parser = Domain::parse)]
    domain: Option<Domain>,

    /// Only the key of this name.
    #[arg(long, value_parser = Selector::parse)]
    selector: Option<Selector>,

    /// A private key file instead of the configuration's keys; may be repeated. Domain and selector come from its name
    /// (DOMAIN.SELECTOR.pem) or are given as well.
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,

    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  waxseal dkim record
  waxseal dkim record example.com --selector wax1
  waxseal dkim record example.com --selector wax1 --key /etc/opendkim/keys/mail.private

Each record is printed twice: as the value that most DNS forms want, and as a line for a zone file, split into strings
of 255 octets. They say the same; publish one of them.";

pub fn run(command: RecordArgs, config: &ConfigFile<'_>) -> anyhow::Result<ExitCode> {
    let keys = if command.key.is_empty() {
        let settings = match config::load(config, &Environment::of_process()) {
            Ok(settings) => settings,
            Err(problems) => {
                print_problems(&problems);
                return Ok(ExitCode::from(WRONG));
            }
        };
        chosen(settings.dkim, command.domain.as_ref(), command.selector.as_ref())
    } else {
        command.key.iter().map(|path| from_file(path, &command).map(Arc::new)).collect::<Result<_, _>>()?
    };
    if keys.is_empty() {
        complain(format_args!("{}", none_chosen(&command, config.path)));
        return Ok(ExitCode::from(PROBLEM_FOUND));
    }
    print(&if command.json { as_json(&keys)? } else { text(&keys) });
    Ok(ExitCode::SUCCESS)
}

/// The keys that sign for the domain, chosen as the gateway does.
fn chosen(configured: Vec<DkimSettings>, domain: Option<&Domain>, selector: Option<&Selector>) -> Vec<Arc<SigningKey>> {
    let mut ready = Vec::new();
    for settings in configured {
        match settings.key {
            Some(key) => ready.push(key),
            None => complain(format_args!(
                "{}._domainkey.{} has no record yet: the key is made at the first `waxseal run`, which prints it",
                settings.selector, settings.domain
            )),
        }
    }
    let ring = Keyring::new(ready);
    let keys: Vec<_> = match domain {
        Some(domain) => ring.keys_for(domain).unwrap_or_default().to_vec(),
        None => ring.keys().cloned().collect(),
    };
    keys.into_iter().filter(|key| selector.is_none_or(|selector| key.selector() == selector)).collect()
}

fn from_file(path: &Path, command: &RecordArgs) -> anyhow::Result<SigningKey> {
    let named = path.file_stem().and_then(|stem| stem.to_str()?.rsplit_once('.'));
    let domain = command.domain.clone().or_else(|| Domain::parse(named?.0).ok());
    let selector = command.selector.clone().or_else(|| Selector::parse(named?.1).ok());
    let (Some(domain), Some(selector)) = (domain, selector) else {
        bail!(
            "the name of {0} does not tell its domain and selector; give them: waxseal dkim record DOMAIN --selector \
             SELECTOR --key {0}",
            path.display()
        );
    };
    let pem = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.mode());
    if let Some(warning) = permissions_warning(path, mode) {
        complain(format_args!("{warning}"));
    }
    SigningKey::from_pem(domain, selector, &pem).with_context(|| format!("{} cannot be used", path.display()))
}

fn none_chosen(command: &RecordArgs, config: &Path) -> String {
    let wanted = match (&command.domain, &command.selector) {
        (Some(domain), Some(selector)) => format!("for {domain} with the selector {selector}"),
        (Some(domain), None) => format!("for {domain}"),
        (None, Some(selector)) => format!("with the selector {selector}"),
        (None, None) => {
            return format!("{} has no [[dkim]] key; make one with `waxseal dkim generate`", config.display());
        }
    };
    format!("there is no key {wanted} in {}; `waxseal dkim record` prints all there are", config.display())
}

fn text(keys: &[Arc<SigningKey>]) -> String {
    keys.iter().map(|key| render(&DnsRecord::of(key))).collect::<Vec<_>>().join("\n")
}

/// Both forms of a record.
pub fn render(record: &DnsRecord) -> String {
    let (selector, _) = record.name().split_once("._domainkey.").unwrap_or((record.name(), ""));
    format!(
        "{record}\n\
         \n\
         (Many DNS forms add the zone's name by themselves; then type only what stands before it, as in\n\
         \"{selector}._domainkey\".)\n\
         \n\
         The same for a zone file:\n\
         \n\
         {}\n",
        record.zone_line()
    )
}

fn as_json(keys: &[Arc<SigningKey>]) -> serde_json::Result<String> {
    let one = |key: &Arc<SigningKey>| {
        let record = DnsRecord::of(key);
        json!({
            "name": record.name(),
            "type": "TXT",
            "value": record.text(),
            "zone": record.zone_line(),
            "domain": key.domain(),
            "selector": key.selector().as_str(),
            "algorithm": key.algorithm().to_string(),
        })
    };
    serde_json::to_string_pretty(&keys.iter().map(one).collect::<Vec<_>>()).map(|text| text + "\n")
}
