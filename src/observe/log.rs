//! Logging: one event is one line, whatever bytes a client or a provider put into it.
//!
//! Never logs a body or a secret. The callers ensure that, with the help of types (`Secret` prints `***`).

mod fields;
mod outlet;

use crate::text::is_deceptive;
use fields::QuotedFields;
use outlet::Outlet;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::Duration;
use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Pretty,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,waxseal::relay=debug`.
    pub level: String,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { format: Format::Pretty, level: "info".to_owned() }
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "\"{level}\" is not a log level: use error, warn, info, debug, trace, or a filter such as \"info,waxseal::relay=debug\""
)]
pub struct InvalidLevel {
    level: String,
}

impl LogOptions {
    /// Checks the level without starting anything.
    pub fn filter(&self) -> Result<EnvFilter, InvalidLevel> {
        // The verifier logs each bad certificate as an error, and rustls warns about unusual handshakes, which any
        // client can send. Our own lines report both in plain words and at a bounded rate.
        let is_for_details = ["debug", "trace"].iter().any(|level| self.level.eq_ignore_ascii_case(level));
        let quiet = if is_for_details { "rustls_platform_verifier" } else { "rustls" };
        // At "trace", html5ever logs each character of the mail that it reads. This comes last, so that no filter can
        // enable it.
        let level = format!("{quiet}=off,{},html5ever=off", self.level);
        EnvFilter::builder().parse(level).map_err(|_| InvalidLevel { level: self.level.clone() })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LogStartError {
    #[error(transparent)]
    Level(#[from] InvalidLevel),
    #[error("its thread cannot start: {0}")]
    Thread(io::Error),
}

/// The process has one log.
static OUTLET: OnceLock<Outlet> = OnceLock::new();

/// Sends events to standard output. A second call has no effect.
pub fn start(options: &LogOptions) -> Result<(), LogStartError> {
    let filter = options.filter()?;
    let colours = options.format == Format::Pretty && wants_colours();
    let on_loss = |lost| warn!(lost, "log lines were dropped here: the log's reader was too slow");
    let outlet = Outlet::open(io::stdout(), on_loss).map_err(LogStartError::Thread)?;
    let outlet = OUTLET.get_or_init(|| outlet).clone();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(OneLine { colours, outlet }).with_target(false);
    let _already_started = match options.format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Pretty => builder.with_ansi(colours).fmt_fields(QuotedFields).try_init(),
    };
    Ok(())
}

/// Standard output is a terminal, and the user does not object: <https://no-color.org>.
pub fn wants_colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Called at the end of the process: waits until the log is written, unless no one reads it.
pub fn flush() {
    const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
    if let Some(outlet) = OUTLET.get() {
        outlet.flush(FLUSH_TIMEOUT);
    }
}

/// Writes each event as one line. This is the last safeguard after [`Clean`], and also covers multi-line texts from
/// libraries.
#[derive(Debug, Clone)]
struct OneLine {
    /// Whether the formatter's ESC sequences are wanted.
    colours: bool,
    outlet: Outlet,
}

impl MakeWriter<'_> for OneLine {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl io::Write for OneLine {
    /// `event` is a complete one: the formatter writes each at once.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
            self.outlet.put(line);
        } else {
            let unwanted = |c: char| is_deceptive(c) && !(self.colours && c == '\u{1b}');
            self.outlet.put(&line.replace('\n', " ").replace(unwanted, "?"));
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints a value with control characters and direction overrides (such as U+202E) replaced, for log fields that
/// contain text from others.
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

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;
    use tracing::info;

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(Clean("a\r\nb\x1b[31m\u{202e}c\u{2028}d").to_string(), "a??b?[31m?c?d");
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A script splits such a line at its spaces.
    #[test]
    fn what_a_provider_says_cannot_be_taken_for_fields() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_target(false).without_time();
        let subscriber = subscriber.fmt_fields(QuotedFields).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let reply = Clean("250 2.0.0 Ok ms=1 said \"thanks\"");
            info!(to = %Clean("a@example.net"), %reply, upstream = "company", ms = 5_u64, "delivered");
        });
        let line = String::from_utf8(lines.0.lock().clone()).expect("text");
        let quoted = r#"reply="250 2.0.0 Ok ms=1 said \"thanks\"""#;
        assert_eq!(line, format!(" INFO delivered to=a@example.net {quoted} upstream=company ms=5\n"));
    }

    #[test]
    fn a_wrong_level_is_named() {
        let options = LogOptions { level: "loud=very=much".into(), ..LogOptions::default() };
        assert!(options.filter().is_err_and(|error| error.to_string().contains("loud")));
    }

    #[test]
    fn no_level_has_the_reader_of_html_tell_the_mail() {
        for level in ["info", "trace", "html5ever=trace", "trace,html5ever=trace"] {
            let filter =
                LogOptions { level: level.into(), ..LogOptions::default() }.filter().expect("a filter").to_string();
            assert!(filter.contains("html5ever=off") && !filter.contains("html5ever=trace"), "{level}: {filter}");
        }
    }
}
