//! `waxseal user hash`: turns a password into the line for `config.toml`. Never shows the password. Uses the same
//! parameters as the check of logins; writes no file.

use super::WRONG;
use crate::cli::complain;
use crate::inbound::users::hash_password;
use crate::observe::Secret;
use anyhow::{Context as _, bail};
use std::io::{BufRead, IsTerminal, Write as _};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[allow(rustdoc::broken_intra_doc_links, reason = "[[…]] is a table of the configuration, in a help text")]
#[derive(Debug, clap::Subcommand)]
enum UserCommand {
    /// Hash a password for a [[user]] table. It is asked for, or read as one line from standard input
    Hash {
        /// The name for the table
        #[arg(default_value = "plausible")]
        name: String,
    },
}

pub fn run(args: &UserArgs) -> anyhow::Result<ExitCode> {
    let UserCommand::Hash { name } = &args.command;
    let stdin = std::io::stdin();
    let password = if stdin.is_terminal() { ask()? } else { read_line(stdin.lock())? };
    if password.is_empty() {
        complain(format_args!("the password is empty"));
        return Ok(ExitCode::from(WRONG));
    }
    let hash = hash_password(&password);
    // Only the hash goes to standard output, for scripts; the rest is for the person at the terminal.
    writeln!(std::io::stdout(), "{hash}").context("the hash cannot be written")?;
    eprintln!("\nFor config.toml:\n\n{}", table(name, &hash));
    Ok(ExitCode::SUCCESS)
}

fn ask() -> anyhow::Result<Secret> {
    let ask = |prompt| rpassword::prompt_password(prompt).map(Secret::new).context("no password could be read");
    let password = ask("Password: ")?;
    if password != ask("Once more: ")? {
        bail!("the two are not the same; nothing was hashed");
    }
    Ok(password)
}

/// The first line, without its line ending.
fn read_line(mut input: impl BufRead) -> anyhow::Result<Secret> {
    let mut line = String::new();
    input.read_line(&mut line).context("no password could be read from standard input")?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line)))
}

fn table(name: &str, hash: &str) -> String {
    let name = toml::Value::from(name);
    format!("[[user]]\nname = {name}\npassword = \"{hash}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::users::Password;

    #[test]
    fn the_password_is_one_line_without_its_end() {
        for (input, password) in
            [("hunter2\n", "hunter2"), ("two words \r\nrest\n", "two words "), ("x", "x"), ("", "")]
        {
            assert_eq!(read_line(input.as_bytes()).unwrap().reveal(), password);
        }
        assert!(read_line(&b"\xff\n"[..]).is_err());
    }

    #[test]
    fn the_table_can_be_pasted() {
        let hash = hash_password(&Secret::new("hunter2"));
        let text = table("a \"quoted\" name", &hash);
        let parsed: toml::Table = text.parse().unwrap();
        let user = &parsed["user"][0];
        assert_eq!(user["name"].as_str(), Some("a \"quoted\" name"));
        let stored = Secret::new(user["password"].as_str().unwrap());
        assert!(matches!(Password::parse(&stored), Ok(Password::Hashed(_))));
    }
}
