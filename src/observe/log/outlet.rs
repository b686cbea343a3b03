//! Sends log lines through a bounded queue to a thread of their own. A slow or stopped reader of the log never holds up
//! mail.
//!
//! When the queue is full, lines are dropped and counted, and the count is logged once there is room again.

use parking_lot::{Condvar, Mutex};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Octets of lines that may wait.
const CAPACITY: usize = 4 * 1024 * 1024;

/// From one write to the next. Lines that come meanwhile are written together, and the thread is not woken for each.
const PAUSE: Duration = Duration::from_millis(2);

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Outlet(Arc<OutletShared>);

#[derive(Debug, Default)]
struct OutletShared {
    state: Mutex<OutletState>,
    /// A line was added while the thread was idle, or all lines are written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OutletState {
    /// Whole lines.
    waiting: String,
    /// Lines were removed from the queue and are being written.
    writing: bool,
    /// The thread waits for a line.
    idle: bool,
    lost: u64,
}

impl Outlet {
    /// Writes to `target` from now on, on a thread that ends with the process. `on_loss` receives the number of dropped
    /// lines once those after them are written. An error of `target` changes nothing: mail continues without its log.
    pub fn open(target: impl Write + Send + 'static, on_loss: impl Fn(u64) + Send + 'static) -> std::io::Result<Self> {
        let outlet = Self::default();
        let shared = Arc::clone(&outlet.0);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || shared.drain(target, on_loss))?;
        Ok(outlet)
    }

    /// `line`: without its line end. Never waits for the log's reader.
    pub fn put(&self, line: &str) {
        let mut state = self.0.state.lock();
        if state.waiting.len() + line.len() >= CAPACITY {
            state.lost += 1;
            return;
        }
        state.waiting.push_str(line);
        state.waiting.push('\n');
        let is_idle = std::mem::take(&mut state.idle);
        drop(state);
        if is_idle {
            self.0.changed.notify_all();
        }
    }

    /// Waits until every line is written, but at most this long.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut state = self.0.state.lock();
        while state.writing || !state.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let _ = self.0.changed.wait_for(&mut state, left);
        }
    }
}

impl OutletShared {
    fn drain(&self, mut target: impl Write, on_loss: impl Fn(u64)) {
        let mut lines = String::new();
        loop {
            let lost = self.next(&mut lines);
            let _without_its_log = target.write_all(lines.as_bytes()).and_then(|()| target.flush());
            lines.clear();
            lines.shrink_to(CAPACITY / 16);
            if lost > 0 {
                on_loss(lost);
            }
            self.written();
            #[expect(clippy::disallowed_methods, reason = "the thread is the log's own")]
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits for lines and moves them into `lines`; returns how many were dropped since the last call.
    fn next(&self, lines: &mut String) -> u64 {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            state.idle = true;
            self.changed.wait(&mut state);
        }
        state.idle = false;
        state.writing = true;
        std::mem::swap(&mut state.waiting, lines);
        std::mem::take(&mut state.lost)
    }

    fn written(&self) {
        let mut state = self.state.lock();
        state.writing = false;
        if state.waiting.is_empty() {
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Completes a write only when the test allows it.
    struct Slow {
        allowed: mpsc::Receiver<()>,
        written: mpsc::Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.allowed.recv().map_err(std::io::Error::other)?;
            self.written.send(String::from_utf8_lossy(octets).into_owned()).map_err(std::io::Error::other)?;
            Ok(octets.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_no_time() {
        let (allow, allowed) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let (lose, lost) = mpsc::channel();
        let outlet = Outlet::open(Slow { allowed, written }, move |count| lose.send(count).expect("a test")).unwrap();
        let half = "x".repeat(CAPACITY / 2 - 1);
        for _ in 0..10 {
            outlet.put(&half);
        }
        outlet.flush(Duration::from_millis(1));
        (0..10).for_each(|_| allow.send(()).expect("the log's thread"));
        outlet.flush(Duration::from_secs(60));
        let kept = lines.try_iter().map(|written| written.lines().count() as u64).sum::<u64>();
        assert!((1..=3).contains(&kept), "those that fit, and the one that was being written: {kept}");
        outlet.put("more");
        assert_eq!(lines.recv().as_deref(), Ok("more\n"));
        outlet.flush(Duration::from_secs(60));
        assert_eq!(lost.try_iter().sum::<u64>() + kept, 10);
    }

    #[test]
    fn a_reader_that_is_gone_changes_nothing() {
        let (_, allowed) = mpsc::channel();
        let (written, _) = mpsc::channel();
        let outlet = Outlet::open(Slow { allowed, written }, |_| ()).unwrap();
        outlet.put("one");
        outlet.flush(Duration::from_secs(60));
        outlet.put("two");
        outlet.flush(Duration::from_secs(60));
    }
}
