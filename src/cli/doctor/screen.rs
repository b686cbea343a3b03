//! The checklist: on a terminal every line is there from the beginning and fills as its probe ends; elsewhere the lines of a
//! probe are printed once it and all before it have ended, so that the order is always the same.

use super::report::{line, print};
use crate::doctor::{CheckResult, CheckVerdict, ExaminationPart};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::Duration;

const WAITING: &str = "{spinner} {msg}";
const DONE: &str = "{msg}";

pub struct Screen {
    titles: Vec<String>,
    /// By the part's index.
    results: Vec<Option<Vec<CheckResult>>>,
    /// Empty unless a person looks at a terminal.
    bars: Vec<ProgressBar>,
    _all_bars: MultiProgress,
    prints: bool,
    /// Parts that have been printed.
    printed: usize,
}

impl Screen {
    /// `prints`: not only collects.
    pub fn new(titles: Vec<String>, prints: bool) -> Self {
        let all_bars = MultiProgress::new();
        let is_watched = prints && std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let bars = if is_watched { titles.iter().map(|title| waiting(&all_bars, title)).collect() } else { Vec::new() };
        let results = titles.iter().map(|_| None).collect();
        Self { titles, results, bars, _all_bars: all_bars, prints, printed: 0 }
    }

    pub fn put(&mut self, part: ExaminationPart) {
        if let Some(bar) = self.bars.get(part.index) {
            if let Ok(style) = ProgressStyle::with_template(DONE) {
                bar.set_style(style);
            }
            bar.finish_with_message(headline(&self.titles[part.index], &part.results));
        }
        if let Some(place) = self.results.get_mut(part.index) {
            *place = Some(part.results);
        }
        while self.prints && self.bars.is_empty() {
            let Some(Some(results)) = self.results.get(self.printed) else { break };
            results.iter().for_each(|result| print(&line(result)));
            self.printed += 1;
        }
    }

    /// In the order of the checklist.
    pub fn finish(self) -> Vec<CheckResult> {
        self.results.into_iter().flatten().flatten().collect()
    }
}

fn waiting(all: &MultiProgress, title: &str) -> ProgressBar {
    let bar = all.add(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template(WAITING) {
        bar.set_style(style);
    }
    bar.set_message(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// The title with the worst of its results.
fn headline(title: &str, results: &[CheckResult]) -> String {
    let counted = results.iter().filter(|result| !result.ignored);
    let Some(worst) = counted.max_by_key(|result| result.verdict) else { return format!("- {title}") };
    match worst.verdict {
        CheckVerdict::Ok => format!("✓ {title}"),
        _ => {
            let sign = line(worst).chars().next().unwrap_or('-');
            format!("{sign} {title}: {}", worst.summary)
        }
    }
}
