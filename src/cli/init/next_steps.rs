//! What `waxseal init` says at its end: what was written, and what is to be done with it. Shows no secret.

use super::answers::Answers;
use super::applications::Application;
use super::dns_records;
use super::files::{NewFile, RECORDS_FILE};
use super::outcome::InitOutcome;
use super::{folder_of, placing};
use crate::config::{ConfigFile, Settings};
use crate::gateway::plausible_environment;
use std::net::SocketAddr;

pub fn text(answers: &Answers, outcome: &InitOutcome, file: &ConfigFile<'_>, settings: &Settings) -> String {
    let program = match file.explicit {
        true => format!("waxseal --config {}", file.path.display()),
        false => "waxseal".to_owned(),
    };
    let written: Vec<String> = outcome.files.iter().map(|file| file.path.display().to_string()).collect();
    let domains: Vec<String> = answers.domains.iter().map(ToString::to_string).collect();
    let kept = outcome.keys.iter().filter(|key| outcome.existing.contains(&key.path));
    let kept: String = kept.map(|key| format!("The key {} was there and is used.\n", key.path.display())).collect();
    let stays_with_root = rustix::process::geteuid().is_root() && placing::owner_of(&outcome.data_dir).is_none();
    let owner = match stays_with_root && outcome.files.iter().any(NewFile::is_private) {
        true => "Keys and secrets belong to root. Give them to the user of the gateway, if it runs as another one.\n",
        false => "",
    };
    format!(
        "Wrote {written}{place}.\n{kept}{owner}\n\
         1. Publish these records where the DNS of {domains} is kept. They are in {RECORDS_FILE} too.\n\n{records}\n\
         2. Start the gateway: {program} run\n\
         \x20  With the systemd unit: systemctl enable --now waxseal\n\n\
         3. {application}\n\
         4. See whether everything works, up to a mail that arrives:\n\
         \x20  {program} doctor --send-to you@example.net\n",
        written = written.join(", "),
        place = if file.explicit { format!(", in {}", folder_of(file.path).display()) } else { String::new() },
        domains = domains.join(" and "),
        records = indented(&dns_records::shown(&outcome.advice)),
        application = application(answers, settings),
    )
}

/// Of the address that others reach, if there is one.
fn application(answers: &Answers, settings: &Settings) -> String {
    let domain = answers.domains.first().map(ToString::to_string).unwrap_or_default();
    let addresses: Vec<SocketAddr> = settings.listeners.iter().map(|listener| listener.options.address).collect();
    let is_open = |address: &&SocketAddr| (!address.ip().to_canonical().is_loopback(), address.is_ipv4());
    let Some(address) = addresses.iter().max_by_key(is_open) else { return String::new() };
    let host = match address.ip() {
        ip if ip.is_unspecified() => settings.hostname.clone(),
        ip => ip.to_canonical().to_string(),
    };
    match answers.application.settings(&host, address.port(), &domain) {
        Some(lines) => {
            let Application { title, place, .. } = answers.application;
            format!("{title}, in {place}:\n\n{}\n   docs/applications.md explains them.\n", indented(&lines))
        }
        None => plausible_environment(settings, &domain, &addresses).unwrap_or_default(),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("   {line}\n") }).collect()
}
