//! Questions to a person, one at a time; without a terminal, what would have been asked is collected as missing flags.
//! Decides nothing about the answers. A secret is not echoed.

use crate::observe::Secret;
use anyhow::{Context as _, bail};
use std::io::{self, BufRead as _, Write as _};

/// After this many wrong answers to one question, something other than a person answers.
const MOST_TRIES: usize = 5;

/// Where questions are asked.
pub trait Asking {
    fn say(&mut self, text: &str);
    /// `None` at the end of the input.
    fn line(&mut self, prompt: &str) -> io::Result<Option<String>>;
    fn secret(&mut self, prompt: &str) -> io::Result<Secret>;
}

/// Standard input and standard error: standard output belongs to the result.
pub struct Terminal;

impl Asking for Terminal {
    fn say(&mut self, text: &str) {
        let _a_closed_terminal_ends_the_input = writeln!(io::stderr(), "{text}");
    }

    fn line(&mut self, prompt: &str) -> io::Result<Option<String>> {
        let mut output = io::stderr();
        write!(output, "{prompt}").and_then(|()| output.flush())?;
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line)?;
        Ok((read > 0).then_some(line))
    }

    fn secret(&mut self, prompt: &str) -> io::Result<Secret> {
        rpassword::prompt_password(prompt).map(Secret::new)
    }
}

pub struct AskedFor<'q> {
    /// How it is given without a terminal, as in `--domain DOMAIN`.
    pub flag: &'q str,
    /// One or two lines above the prompt; may be empty.
    pub explanation: &'q str,
    pub prompt: &'q str,
    /// For an empty answer, and without a terminal.
    pub default: Option<String>,
}

pub struct Interview<'t> {
    asking: Option<&'t mut dyn Asking>,
    missing: Vec<String>,
}

impl<'t> Interview<'t> {
    /// `None`: nobody can be asked.
    pub fn new<A: Asking>(asking: Option<&'t mut A>) -> Self {
        Self { asking: asking.map(|asking| asking as &mut dyn Asking), missing: Vec::new() }
    }

    pub fn asks(&self) -> bool {
        self.asking.is_some()
    }

    /// The answer as `parse` accepts it. `None` if it is missing, which [`Interview::end`] reports.
    pub fn ask<T>(
        &mut self,
        asked: &AskedFor<'_>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<Option<T>> {
        let Some(asking) = self.asking.as_mut() else {
            return match &asked.default {
                Some(default) => parse(default).map(Some).map_err(anyhow::Error::msg),
                None => {
                    self.missing.push(asked.flag.to_owned());
                    Ok(None)
                }
            };
        };
        asking.say("");
        if !asked.explanation.is_empty() {
            asking.say(asked.explanation);
        }
        let prompt = match asked.default.as_deref() {
            Some(default) if !default.is_empty() => format!("{} [{default}]: ", asked.prompt),
            _ => format!("{}: ", asked.prompt),
        };
        for _ in 0..MOST_TRIES {
            let Some(line) = asking.line(&prompt).context("the answer cannot be read")? else {
                bail!("the input ended before every question was answered; nothing was written");
            };
            let text = match (line.trim(), &asked.default) {
                ("", Some(default)) => default,
                ("", None) => {
                    asking.say("An answer is needed here.");
                    continue;
                }
                (text, _) => text,
            };
            match parse(text) {
                Ok(answer) => return Ok(Some(answer)),
                Err(why) => asking.say(&why),
            }
        }
        bail!("no valid answer after {MOST_TRIES} tries; nothing was written")
    }

    /// A secret, not echoed. `is_optional`: an empty answer is `None`.
    pub fn ask_secret(&mut self, asked: &AskedFor<'_>, is_optional: bool) -> anyhow::Result<Option<Secret>> {
        let Some(asking) = self.asking.as_mut() else {
            if !is_optional {
                self.missing.push(asked.flag.to_owned());
            }
            return Ok(None);
        };
        asking.say("");
        if !asked.explanation.is_empty() {
            asking.say(asked.explanation);
        }
        for _ in 0..MOST_TRIES {
            let secret =
                asking.secret(&format!("{} (not shown): ", asked.prompt)).context("no password could be read")?;
            match secret.is_empty() {
                false => return Ok(Some(secret)),
                true if is_optional => return Ok(None),
                true => asking.say("An answer is needed here."),
            }
        }
        bail!("no valid answer after {MOST_TRIES} tries; nothing was written")
    }

    /// A flag that is missing and is not asked for.
    pub fn lacks(&mut self, flag: &str) {
        self.missing.push(flag.to_owned());
    }

    /// An error that names every flag that is missing.
    pub fn end(self) -> anyhow::Result<()> {
        match self.missing.as_slice() {
            [] => Ok(()),
            missing => bail!(
                "nothing can be asked here, and what has no default is missing: {}; nothing was written",
                missing.join(", ")
            ),
        }
    }
}
