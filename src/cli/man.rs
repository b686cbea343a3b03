//! `waxseal man`: manual pages, made from the definitions that `--help` shows. Reads no configuration.

use super::Arguments;
use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page for every command to this folder, which is created if it is missing. Default: print the page of waxseal
    /// itself
    folder: Option<PathBuf>,
}

pub(super) const AFTER_HELP: &str = "\
Examples:
  waxseal man | man -l -
  waxseal man /usr/local/share/man/man1";

pub fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages)?;
    match &args.folder {
        Some(folder) => {
            let write = |(name, text): &(String, String)| std::fs::write(folder.join(name), text);
            let written = std::fs::create_dir_all(folder).and_then(|()| pages.iter().try_for_each(write));
            written.with_context(|| format!("the pages cannot be written to {}", folder.display()))?;
        }
        None => {
            let page = pages.pop().map(|(_, text)| text).unwrap_or_default();
            let _a_closed_pipe = io::stdout().write_all(page.as_bytes());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// File names and pages; a command's own comes after those below it.
fn collect(command: &Command, pages: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, pages)?;
    }
    let page = Man::new(command.clone());
    let name = page.get_filename();
    let mut roff = Vec::new();
    page.render(&mut roff)?;
    pages.push((name.clone(), with_title(&String::from_utf8(roff)?, name.trim_end_matches(".1"))));
    Ok(())
}

/// clap_mangen's title has the version in the place of the date, and calls what follows the options "extra".
fn with_title(page: &str, name: &str) -> String {
    let line = |line: &str| match line {
        ".SH EXTRA" => ".SH NOTES\n".to_owned(),
        title if title.starts_with(".TH ") => {
            format!(".TH {} 1 \"\" \"waxseal {}\"\n", name.to_uppercase(), env!("CARGO_PKG_VERSION"))
        }
        other => format!("{other}\n"),
    };
    page.lines().map(line).collect()
}
