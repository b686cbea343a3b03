//! Faults of the program itself: a panic is logged as one line, and counted. The line says where, never what, because
//! the text of a panic may contain someone's mail or login.

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use tokio::task::JoinError;
use tracing::error;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Replaces what the runtime would print from now on. The log must have started.
pub fn watch() {
    std::panic::set_hook(Box::new(|panic| {
        let count = PANICS.fetch_add(1, Ordering::Relaxed) + 1;
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(at, count, "a fault of this program: the work in progress is given up or retried; please report it");
    }));
}

/// How many faults there were since the start.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// The same for a command without a log: one line on standard error.
pub fn watch_without_log() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("waxseal: a fault of this program, at {at}; please report it");
    }));
}

/// Why a task ended that should not have, without the text of its panic.
#[derive(Debug)]
pub struct Fault<'a>(pub &'a JoinError);

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_panic() { "a fault of this program" } else { "it was cut off" })
    }
}

/// A panic that was contained. It has been logged.
#[derive(Debug, thiserror::Error)]
#[error("a fault of this program")]
pub struct Panicked;

/// Contains a panic in `work`, which is dropped then. What it shares with others must be usable after a panic, as if the
/// work ran in a task of its own. Boxed, so that callers and their tasks stay small.
pub async fn contained<T>(mut work: Pin<Box<impl Future<Output = T>>>) -> Result<T, Panicked> {
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(_logged) => Poll::Ready(Err(Panicked)),
    })
    .await
}

/// For tests of the built program: panics for mail from `panics-in-PLACE@…`, as often as the variable
/// WAXSEAL_TEST_FAULTS says. Only in builds with debug assertions.
#[cfg(debug_assertions)]
pub fn provoke(place: &'static str, sender: impl fmt::Display) {
    use parking_lot::Mutex;
    use std::collections::HashMap;
    use std::sync::LazyLock;

    static LEFT: LazyLock<Option<u32>> = LazyLock::new(|| std::env::var("WAXSEAL_TEST_FAULTS").ok()?.parse().ok());
    static MADE: LazyLock<Mutex<HashMap<&'static str, u32>>> = LazyLock::new(Mutex::default);
    let Some(most) = *LEFT else { return };
    let sender = sender.to_string();
    let due = sender.strip_prefix("panics-in-").is_some_and(|rest| rest.split('@').next() == Some(place)) && {
        let mut made = MADE.lock();
        let made = made.entry(place).or_default();
        *made += 1;
        *made <= most
    };
    #[expect(clippy::panic, reason = "what it is for")]
    if due {
        panic!("on purpose, for {sender}");
    }
}

#[cfg(not(debug_assertions))]
pub fn provoke(_place: &'static str, _sender: impl fmt::Display) {}

/// The same for optional steps: panics in the steps that the variable WAXSEAL_TEST_FAULTY_STEPS names, separated by
/// commas.
#[cfg(debug_assertions)]
pub fn provoke_step(step: &str) {
    use std::sync::LazyLock;

    static FAULTY: LazyLock<String> = LazyLock::new(|| std::env::var("WAXSEAL_TEST_FAULTY_STEPS").unwrap_or_default());
    #[expect(clippy::panic, reason = "what it is for")]
    if FAULTY.split(',').any(|faulty| faulty == step) {
        panic!("on purpose, in {step}");
    }
}

#[cfg(not(debug_assertions))]
pub fn provoke_step(_step: &str) {}
