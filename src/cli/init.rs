//! `waxseal init`: the first configuration. Asks on a terminal, or takes flags; writes config.toml, the DKIM keys, the
//! secret's file and the DNS records, and says what to do next. Replaces nothing without --force, never replaces a key, and
//! leaves nothing behind if it fails. Connects nowhere.

mod answers;
mod applications;
mod config_text;
mod dns_records;
mod files;
mod interview;
mod next_steps;
mod outcome;
mod placing;
#[cfg(test)]
mod tests;

use super::WRONG;
use super::run::shown_problems;
use crate::config::flags;
use crate::config::{ConfigFile, ConfigText, Environment, Problems};
use crate::dkim::Selector;
use crate::relay::provider;
use crate::smtp::Domain;
use answers::Answers;
use anyhow::bail;
use clap::builder::PossibleValuesParser;
use interview::{Interview, Terminal};
use ipnet::IpNet;
use outcome::InitOutcome;
use std::io::{self, IsTerminal, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[allow(rustdoc::broken_intra_doc_links, reason = "[::1] is an address, in a help text")]
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The provider that sends your mail; "smtp" is any other server, "sandbox" sends nothing
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(provider::ALL.map(|preset| preset.name)))]
    provider: Option<String>,

    /// The domain after the @ in your From addresses; may be repeated
    #[arg(long, value_name = "DOMAIN", value_parser = flags::mail_domain)]
    domain: Vec<Domain>,

    /// The region of the account, for mailgun ("us", "eu") and ses
    #[arg(long)]
    region: Option<String>,

    /// The server's name, for smtp
    #[arg(long)]
    host: Option<String>,

    /// The server's port, for smtp: 587 means STARTTLS, 465 TLS from the first byte
    #[arg(long)]
    port: Option<u16>,

    /// A file with the certificate to trust, for a server with a certificate of its own authority or a self-signed one
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The login at the provider
    #[arg(long, value_name = "NAME")]
    username: Option<String>,

    /// The file that holds the password or token, which config.toml will name; "-" reads it from standard input and keeps
    /// it in a file of its own
    #[arg(long, value_name = "FILE", conflicts_with = "password_env")]
    password_file: Option<PathBuf>,

    /// The variable that holds the password or token, which config.toml will name
    #[arg(long, value_name = "VARIABLE")]
    password_env: Option<String>,

    /// For ses: the file that holds the secret access key, in place of a password
    #[arg(long, value_name = "FILE", conflicts_with_all = ["password_file", "password_env", "secret_key_env"])]
    secret_key_file: Option<PathBuf>,

    /// For ses: the variable that holds the secret access key
    #[arg(long, value_name = "VARIABLE", conflicts_with_all = ["password_file", "password_env"])]
    secret_key_env: Option<String>,

    /// Explains why there is no such flag.
    #[arg(long, hide = true, num_args = 0..=1)]
    password: Option<Option<String>>,

    /// The key's name in the DNS
    #[arg(long, value_name = "NAME", default_value = "wax1", value_parser = Selector::parse)]
    selector: Selector,

    /// The gateway's full name, for EHLO and Received. Default: the host's, else gateway.DOMAIN
    #[arg(long, value_name = "NAME", value_parser = flags::full_name)]
    hostname: Option<String>,

    /// The application that will send through the gateway. Default: plausible
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(applications::names()))]
    application: Option<String>,

    /// An address to listen on; may be repeated. Default: 127.0.0.1:2525 and [::1]:2525
    #[arg(long, value_name = "ADDRESS", value_parser = flags::listen_address)]
    listen: Vec<SocketAddr>,

    /// A network that may send, which an address that others can reach needs; may be repeated
    #[arg(long, value_name = "NETWORK", value_parser = flags::network)]
    allow: Vec<IpNet>,

    /// The folder for the queue. Default: "data" beside config.toml, or /var/lib/waxseal if that is below /etc
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Ask nothing: take the default of everything that no flag gives
    #[arg(long, short)]
    yes: bool,

    /// Replace files that exist already. A DKIM key is never replaced: one that is there is used
    #[arg(long)]
    force: bool,
}

pub(super) const AFTER_HELP: &str = "\
Examples:
  waxseal init
  waxseal init --provider postmark --domain example.com --password-file /run/secrets/postmark_token
  waxseal --config /etc/waxseal/config.toml init --provider smtp --host smtp.example.com --username relay \\
    --password-env RELAY_PASSWORD --domain example.com

Everything is written beside the configuration file (--config, else ./config.toml): the keys to certs/dkim, a password that
was typed to secrets, the DNS records to dns-records.txt. If anything fails, nothing is written. Run by root, keys and
secrets belong to the owner of the data folder, if there is one: the gateway's own user.";

pub fn run(file: &ConfigFile<'_>, args: InitArgs) -> anyhow::Result<ExitCode> {
    if args.password.is_some() {
        bail!(
            "a password among the arguments is shown to every user of this machine: use --password-file FILE, \
             --password-env VARIABLE, or leave it out to be asked"
        );
    }
    let folder = folder_of(file.path);
    placing::refuse_existing(file.path, args.force)?;
    placing::check_writable(folder)?;
    let force = args.force;
    let asks = !args.yes && io::stdin().is_terminal() && io::stderr().is_terminal();
    let mut terminal = Terminal;
    let answers = Answers::of(args, folder, Interview::new(asks.then_some(&mut terminal)))?;
    let outcome = InitOutcome::of(&answers, file.path)?;
    let placed = placing::place(&outcome, folder, force, |staged| {
        let staged = ConfigFile { path: staged, explicit: true };
        ConfigText::read(&staged).and_then(|text| text.resolve(&Environment::of_process()))
    });
    let settings = match placed {
        Ok(settings) => settings,
        Err(placing::PlacingError::Configuration(problems)) => {
            print_problems(&problems);
            super::complain("nothing was written");
            return Ok(ExitCode::from(WRONG));
        }
        Err(error) => return Err(error.into()),
    };
    print_problems(&settings.warnings);
    let text = next_steps::text(&answers, &outcome, file, &settings);
    let _a_closed_pipe = io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Under the names that the files were to get.
fn print_problems(problems: &Problems) {
    eprint!("{}", shown_problems(problems).replace(&format!("{}/", placing::STAGING), ""));
}

/// Where relative paths of the configuration start.
fn folder_of(config: &Path) -> &Path {
    config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
