//! Logging: one event is one line, whatever bytes a client or a provider put into it.
//!
//! Never logs a body or a secret; that is the callers' promise, kept by types (`Secret` prints `***`).

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Pretty,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,waxseal::relay=debug`.
    pub level: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { format: Format::Pretty, level: "info".to_owned() }
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "\"{level}\" is no log level: use error, warn, info, debug, trace, or a filter such as \"info,waxseal::relay=debug\""
)]
pub struct InvalidLevel {
    level: String,
}

impl Options {
    /// Checks the level without starting anything.
    pub fn filter(&self) -> Result<EnvFilter, InvalidLevel> {
        // The verifier reports each bad certificate as an error of its own; the deferral says it in plain words.
        let level = format!("rustls_platform_verifier=off,{}", self.level);
        EnvFilter::builder().parse(level).map_err(|_| InvalidLevel { level: self.level.clone() })
    }
}

/// Sends events to standard output. A second call has no effect.
pub fn start(options: &Options) -> Result<(), InvalidLevel> {
    let filter = options.filter()?;
    let colours = options.format == Format::Pretty && io::stdout().is_terminal();
    // Never a word about a line that could not be written: it would go to standard error, and panic where that is gone
    // too (both into one full disk, or one broken pipe). The mail goes on without its log.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(OneLine { colours })
        .with_target(false)
        .log_internal_errors(false);
    let _already_started = match options.format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Pretty => builder.with_ansi(colours).try_init(),
    };
    Ok(())
}

/// Standard output, one line for each event: the last resort behind [`Clean`], also for what libraries say in several
/// lines.
#[derive(Debug, Clone, Copy)]
struct OneLine {
    /// The formatter's ESC sequences are wanted.
    colours: bool,
}

impl MakeWriter<'_> for OneLine {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl io::Write for OneLine {
    /// `event` is a whole one: the formatter writes each at once.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let unwanted = |c: char| is_deceptive(c) && !(self.colours && c == '\u{1b}');
        let line = line.replace('\n', " ").replace(unwanted, "?");
        io::stdout().write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// Prints a value with control characters and direction overrides (U+202E and its kin) replaced, for use as a log field
/// that holds somebody else's text.
#[derive(Debug, Clone, Copy)]
pub struct Clean<T>(pub T);

impl<T: fmt::Display> fmt::Display for Clean<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Cleaner(f), "{}", self.0)
    }
}

struct Cleaner<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Cleaner<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| self.0.write_char(if is_deceptive(character) { '?' } else { character }))
    }
}

fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(Clean("a\r\nb\x1b[31m\u{202e}c\u{2028}d").to_string(), "a??b?[31m?c?d");
    }

    #[test]
    fn a_wrong_level_is_named() {
        let options = Options { level: "loud=very=much".into(), ..Options::default() };
        assert!(options.filter().is_err_and(|error| error.to_string().contains("loud")));
    }
}
