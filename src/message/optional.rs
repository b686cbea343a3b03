//! Optional steps that improve a message: a repair, a text made from HTML, a search for a link, a preview.
//!
//! Such a step never costs the mail. It runs only inside [`attempt`]: if it panics or reports that it would need too
//! much, the result is a [`Skipped`], and the mail continues as it was before the step.

use super::html::HtmlError;
use crate::observe::fault;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A step that was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// As named in `[repair]`, or another short name.
    pub step: &'static str,
    pub why: Obstacle,
}

/// Why a step was not completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The panic itself was logged and counted where it happened.
    #[error("a fault of this program; please report it")]
    Fault,
    #[error(transparent)]
    Html(#[from] HtmlError),
    #[error("half of `max_memory` is too little to repair its body")]
    Memory,
}

/// `work` must not change anything outside unless it succeeds.
pub fn attempt<T>(step: &'static str, work: impl FnOnce() -> Result<T, Obstacle>) -> Result<T, Skipped> {
    let work = || {
        fault::provoke_step(step);
        work()
    };
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Obstacle::Fault));
    result.map_err(|why| Skipped { step, why })
}

/// For example "text_part: it has more than 128 KiB of HTML".
impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_panics_is_left_out() {
        let skipped = attempt("step", || -> Result<(), Obstacle> { panic!("on purpose") });
        assert_eq!(skipped, Err(Skipped { step: "step", why: Obstacle::Fault }));
        let skipped = attempt("step", || Err::<(), _>(HtmlError::TooLarge.into())).expect_err("an obstacle");
        assert_eq!(skipped.to_string(), "step: it has more than 128 KiB of HTML");
        assert_eq!(attempt("step", || Ok(7)), Ok(7));
    }
}
