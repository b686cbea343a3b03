//! Counts for `make hostile`: one row for each class of hostile input, with its cases and the failed ones.
//!
//! Every test of a class counts here and writes its row below target/hostile; tests/hostile-table adds them up. A panic
//! counts as one more failed case. Uses only the standard library, because the unit tests use it too.

use std::path::Path;

pub struct Tally {
    class: &'static str,
    /// Tells the tests of one class apart.
    test: String,
    cases: usize,
    wrong: Vec<String>,
    finished: bool,
}

/// So many wrong cases are told in words.
const TOLD: usize = 10;

impl Tally {
    pub fn new(class: &'static str, test: &str) -> Self {
        Self { class, test: test.replace(' ', "-"), cases: 0, wrong: Vec::new(), finished: false }
    }

    /// One case, right or wrong.
    pub fn case(&mut self, is_right: bool, what: impl FnOnce() -> String) {
        self.cases += 1;
        if !is_right {
            self.wrong.push(what());
        }
    }

    /// Cases that would have ended the test, had they gone wrong.
    pub fn right(&mut self, cases: usize) {
        self.cases += cases;
    }

    /// Leaves the row, and fails the test if a case was wrong or there was none.
    pub fn finish(mut self) {
        self.finished = true;
        self.leave(self.wrong.len());
        assert!(self.cases > 0, "{}: no case at all", self.class);
        let told = self.wrong[..self.wrong.len().min(TOLD)].join("\n");
        assert!(self.wrong.is_empty(), "{}: {} of {} wrong:\n{told}", self.class, self.wrong.len(), self.cases);
    }

    fn leave(&self, wrong: usize) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/hostile").join(self.class);
        std::fs::create_dir_all(&folder).expect("a folder below target");
        std::fs::write(folder.join(&self.test), format!("{} {wrong}\n", self.cases)).expect("a row");
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.finished {
            self.leave(self.wrong.len() + 1);
        }
    }
}
