//! What a service manager is told (sd_notify(3)): when the gateway is ready, reloads and stops, and that it is alive. Without
//! one, nothing.

use sd_notify::NotifyState;
use std::time::Duration;
use tracing::debug;

pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// To be followed by [`ready`].
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// For as long as the runtime runs tasks, if the service manager watches (`WatchdogSec=`).
pub(super) async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager cannot be told");
    }
}
