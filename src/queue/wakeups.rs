//! Wakes a lane's delivery loop when mail may have become due there, or when an operator asks for a retry.
//!
//! Each backend owns one and triggers it after every change that it makes. A wake-up is only a hint: it can be missing
//! (another process made the change) or spurious, so the loops also check by themselves.

use super::Lane;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Wakeups {
    lanes: Mutex<HashMap<Lane, LaneWakeups>>,
}

/// Serves one waiter. A wake-up without a waiter is kept for the next wait.
#[derive(Debug, Clone, Default)]
pub struct LaneWakeups {
    /// Mail may be due.
    pub mail: Arc<Notify>,
    /// The operator wants a retry now, whatever the lane is waiting for.
    pub retry: Arc<Notify>,
}

impl Wakeups {
    /// Returns the lane's wake-ups; from now on it receives them.
    pub fn of(&self, lane: &Lane) -> LaneWakeups {
        self.lanes.lock().entry(lane.clone()).or_default().clone()
    }

    pub fn wake<'a>(&self, lanes: impl IntoIterator<Item = &'a Lane>) {
        let known = self.lanes.lock();
        lanes.into_iter().filter_map(|lane| known.get(lane)).for_each(|lane| lane.mail.notify_one());
    }

    pub fn wake_all(&self) {
        self.lanes.lock().values().for_each(|lane| lane.mail.notify_one());
    }

    /// Tells all lanes to retry.
    pub fn retry_now(&self) {
        self.lanes.lock().values().for_each(|lane| lane.retry.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    async fn is_woken(wakeup: &Notify) -> bool {
        timeout(Duration::from_secs(1), wakeup.notified()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_is_woken_for_its_own_mail_even_before_it_waits() {
        let wakeups = Wakeups::default();
        let a = wakeups.of(&Lane::new("a"));
        let b = wakeups.of(&Lane::new("b"));
        wakeups.wake(&[Lane::new("a"), Lane::new("nobody's")]);
        assert!(is_woken(&a.mail).await && !is_woken(&b.mail).await && !is_woken(&a.mail).await);
        wakeups.wake_all();
        assert!(is_woken(&a.mail).await && is_woken(&b.mail).await);
        assert!(!is_woken(&a.retry).await, "only an operator asks for a retry");
        wakeups.retry_now();
        assert!(is_woken(&a.retry).await && is_woken(&b.retry).await && !is_woken(&a.mail).await);
    }
}
