//! `waxseal dkim`: create keys, print their DNS records, check signatures. Uses neither DNS nor the network. Private
//! keys are written to separate files and never printed. RFC 6376.

mod generate;
mod record;
mod verify;

use crate::config::ConfigFile;
use clap::Subcommand;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

#[allow(rustdoc::broken_intra_doc_links, reason = "[[…]] is a table of the configuration, in a help text")]
#[derive(Debug, Subcommand)]
pub enum DkimCommand {
    /// Create a signing key; print the DNS record to publish and the [[dkim]] table for config.toml.
    Generate(generate::GenerateArgs),
    /// Print the DNS records that publish your keys.
    Record(record::RecordArgs),
    /// Check the DKIM signatures of a message against your own keys or a given record, without asking DNS.
    Verify(verify::VerifyArgs),
}

pub fn run(command: DkimCommand, config: &ConfigFile<'_>) -> anyhow::Result<ExitCode> {
    match command {
        DkimCommand::Generate(command) => generate::run(command, config),
        DkimCommand::Record(command) => record::run(command, config),
        DkimCommand::Verify(command) => verify::run(command, config),
    }
}

/// A reader that closes the pipe has read enough.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _a_closed_pipe = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A warning about a private key file with these permissions, with the command that fixes it.
fn permissions_warning(path: &Path, mode: u32) -> Option<String> {
    (mode & 0o077 != 0).then(|| {
        format!(
            "{0} can be read by other users of this machine, who could then sign mail as you: chmod 600 {0}",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_should_read_a_key() {
        let path = Path::new("certs/key.pem");
        for mode in [0o100600, 0o100400, 0o600] {
            assert_eq!(permissions_warning(path, mode), None, "{mode:o}");
        }
        for mode in [0o100640, 0o100604, 0o644] {
            let warning = permissions_warning(path, mode).unwrap();
            assert!(warning.ends_with("chmod 600 certs/key.pem"), "{warning}");
        }
    }
}
