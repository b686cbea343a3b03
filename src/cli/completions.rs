//! `waxseal completions`: a shell's script, made from the definitions that `--help` shows. Reads no configuration.

use super::Arguments;
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::io::{self, Write as _};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell that will read it
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) const AFTER_HELP: &str = "\
Examples:
  waxseal completions bash > /usr/share/bash-completion/completions/waxseal
  waxseal completions zsh > /usr/local/share/zsh/site-functions/_waxseal
  waxseal completions fish > ~/.config/fish/completions/waxseal.fish";

pub fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "waxseal", &mut script);
    let _a_closed_pipe = io::stdout().write_all(&script);
    Ok(ExitCode::SUCCESS)
}
