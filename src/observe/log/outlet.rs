//! Sends log lines through a bounded queue to a thread of their own. A slow or stopped reader of the log never holds up
//! mail.
//!
//! When the queue is full, lines are dropped and counted, and the count is logged once there is room again.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Octets of lines that may wait.
const CAPACITY: usize = 4 * 1024 * 1024;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Outlet(Arc<OutletShared>);

#[derive(Debug, Default)]
struct OutletShared {
    state: Mutex<OutletState>,
    /// A line was added, or the last one was written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OutletState {
    waiting: VecDeque<String>,
    octets: usize,
    /// A line was removed from the queue and is being written.
    writing: bool,
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

    /// Never waits for the log's reader.
    pub fn put(&self, line: String) {
        let mut state = self.0.state.lock();
        if state.octets + line.len() > CAPACITY {
            state.lost += 1;
            return;
        }
        state.octets += line.len();
        state.waiting.push_back(line);
        drop(state);
        self.0.changed.notify_all();
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
        loop {
            let (line, lost) = self.next();
            let _without_its_log = target.write_all(line.as_bytes()).and_then(|()| target.flush());
            if lost > 0 {
                on_loss(lost);
            }
        }
    }

    /// The next line, and how many were dropped since the last call.
    fn next(&self) -> (String, u64) {
        let mut state = self.state.lock();
        loop {
            state.writing = false;
            if let Some(line) = state.waiting.pop_front() {
                state.octets -= line.len();
                state.writing = true;
                return (line, std::mem::take(&mut state.lost));
            }
            self.changed.notify_all();
            self.changed.wait(&mut state);
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
        let half = "x".repeat(CAPACITY / 2);
        for _ in 0..10 {
            outlet.put(half.clone());
        }
        outlet.flush(Duration::from_millis(1));
        (0..10).for_each(|_| allow.send(()).expect("the log's thread"));
        outlet.flush(Duration::from_secs(60));
        let kept = lines.try_iter().count() as u64;
        assert!((2..=3).contains(&kept), "those that fit, and the one that was being written: {kept}");
        outlet.put("more\n".to_owned());
        assert_eq!(lines.recv().as_deref(), Ok("more\n"));
        outlet.flush(Duration::from_secs(60));
        assert_eq!(lost.try_iter().sum::<u64>() + kept, 10);
    }

    #[test]
    fn a_reader_that_is_gone_changes_nothing() {
        let (_, allowed) = mpsc::channel();
        let (written, _) = mpsc::channel();
        let outlet = Outlet::open(Slow { allowed, written }, |_| ()).unwrap();
        outlet.put("one\n".to_owned());
        outlet.flush(Duration::from_secs(60));
        outlet.put("two\n".to_owned());
        outlet.flush(Duration::from_secs(60));
    }
}
