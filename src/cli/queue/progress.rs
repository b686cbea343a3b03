//! Progress of a long operation, on a terminal only: a bar if the total is known, otherwise a running count.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::Duration;

const BAR: &str = "{msg}  {wide_bar} {human_pos}/{human_len}, {eta} left";
const COUNT: &str = "{spinner} {msg}  {human_pos}";

#[derive(Debug)]
pub struct ProgressDisplay {
    bar: ProgressBar,
}

impl ProgressDisplay {
    pub fn start(what: &'static str, end: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(end, target());
        if let Ok(style) = ProgressStyle::with_template(if end.is_some() { BAR } else { COUNT }) {
            bar.set_style(style);
        }
        bar.set_message(what);
        if std::io::stderr().is_terminal() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar }
    }

    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
    }

    /// Hides the bar while something else is printed.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

/// Clears the bar.
impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}
