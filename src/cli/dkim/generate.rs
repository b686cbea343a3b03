//! `waxseal dkim generate`: creates a key in a separate file, and says what to do with it. Never overwrites a key, and
//! changes no configuration. RFC 6376 §3.6, RFC 8463.

use super::print;
use super::record::render;
use crate::config::{ConfigFile, key_file};
use crate::dkim::{self, DnsRecord, KeyAlgorithm, Selector, SigningKey};
use crate::smtp::Domain;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use toml::Value;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct GenerateArgs {
    /// The domain after the @ in your From addresses. Its subdomains are signed with the same key.
    #[arg(value_parser = Domain::parse)]
    domain: Domain,

    /// The key's name within the domain, your choice: "wax1", or a date such as "2026-10". To replace a key, choose a
    /// new name, so that mail in transit can still be verified with the old one.
    #[arg(long, value_parser = Selector::parse)]
    selector: Selector,

    /// Kind of key.
    #[arg(long, value_enum, default_value_t = KeyKind::Rsa2048)]
    algorithm: KeyKind,

    /// Where to put the private key. Default: certs/dkim/DOMAIN.SELECTOR.pem beside the configuration file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KeyKind {
    /// Understood by every receiver; its record fits everywhere.
    Rsa2048,
    /// Stronger, but several times slower to sign with; some DNS forms do not accept its record.
    Rsa4096,
    /// Short and fast, but many receivers cannot check it yet: use it beside an RSA key, and both will sign.
    Ed25519,
}

const AFTER_HELP: &str = "\
Example:
  waxseal dkim generate example.com --selector wax1

An existing file is never overwritten. The private key is the file's only content: keep a backup, show it to nobody.";

pub fn run(command: GenerateArgs, config: &ConfigFile<'_>) -> anyhow::Result<ExitCode> {
    let algorithm = match command.algorithm {
        KeyKind::Rsa2048 => KeyAlgorithm::Rsa2048,
        KeyKind::Rsa4096 => KeyAlgorithm::Rsa4096,
        KeyKind::Ed25519 => KeyAlgorithm::Ed25519,
    };
    let pem = dkim::generate(algorithm)?;
    let key = SigningKey::from_pem(command.domain, command.selector, pem.reveal().as_bytes())?;
    let base = config.path.parent().unwrap_or(Path::new(""));
    let path = match command.out {
        Some(path) => path,
        None => base.join(format!("certs/dkim/{}.{}.pem", key.domain(), key.selector())),
    };
    key_file::create(&path, pem.reveal())?;
    print(&next_steps(&key, &path, &as_configured(&path, base)?, config.path));
    Ok(ExitCode::SUCCESS)
}

// The configuration's relative paths start at its own folder.
fn as_configured(path: &Path, base: &Path) -> std::io::Result<PathBuf> {
    let base = std::path::absolute(Path::new(".").join(base))?;
    let path = std::path::absolute(path)?;
    Ok(path.strip_prefix(base).unwrap_or(&path).to_owned())
}

fn next_steps(key: &SigningKey, path: &Path, configured: &Path, config: &Path) -> String {
    format!(
        "Made {path}, readable for you alone.\n\
         \n\
         1. Publish this record where the DNS of {domain} is kept:\n\
         \n\
         {record}\n\
         2. Put this table into {config}:\n\
         \n\
         [[dkim]]\n\
         domain = {domain_value}\n\
         selector = {selector}\n\
         private_key = {configured}\n\
         \n\
         In this order: mail signed with a key whose record is not there yet counts as unsigned. To see whether it is\n\
         there: dig +short TXT {name}\n",
        path = path.display(),
        domain = key.domain(),
        domain_value = Value::from(key.domain()),
        selector = Value::from(key.selector().as_str()),
        record = render(&DnsRecord::of(key)),
        config = config.display(),
        configured = Value::from(configured.display().to_string()),
        name = key.dns_name(),
    )
}
