//! `[queue]`: the schedule and how long things are kept.

use super::Resolver;
use crate::config::file::Queue;
use crate::config::queue::Backend;
use crate::config::settings::QueueSettings;
use crate::queue::schedule::Schedule;

impl Resolver<'_> {
    pub(super) fn queue(&mut self, typed: Queue) -> Option<QueueSettings> {
        if typed.backend.value == Some(Backend::Redis) {
            self.findings
                .error(&typed.backend.place, "backend = \"redis\" is not in this version yet")
                .help("use \"sqlite\": the queue is a file in `data_dir`");
        }
        let (retry, expire) = (typed.retry.value?, typed.expire.value?);
        if expire < retry.first {
            self.findings
                .warning(&typed.expire.place, "`expire` is shorter than the first wait: nothing is ever tried again")
                .help("RFC 5321 asks for four to five days");
        }
        Some(QueueSettings {
            schedule: Schedule { first: retry.first, longest: retry.longest, expire },
            keep_failed: typed.keep_failed.value?,
            keep_history: typed.keep_history.value?,
            bounce: typed.bounce.value?,
            min_free_space: typed.min_free_space.value?.0,
        })
    }
}
