//! `[queue]`: the schedule and how long things are kept.

use super::Resolver;
use crate::config::file::QueueTable;
use crate::config::input::Typed;
use crate::config::problem::Findings;
use crate::config::queue::QueueBackend;
use crate::config::settings::{BackendSettings, QueueSettings};
use crate::config::value::ByteSize;
use crate::queue::schedule::Schedule;
use crate::queue::sqlite::SMALLEST_FLOOR;

/// Also without the rest of the configuration.
pub fn backend(typed: &Typed<QueueBackend>, findings: &mut Findings) -> Option<BackendSettings> {
    match typed.value? {
        QueueBackend::Sqlite => Some(BackendSettings::Sqlite),
        QueueBackend::Redis => {
            findings
                .error(&typed.place, "backend = \"redis\" is not in this version yet")
                .help("use \"sqlite\": the queue is a file in `data_dir`");
            None
        }
    }
}

impl Resolver<'_> {
    pub(super) fn queue(&mut self, typed: QueueTable) -> Option<QueueSettings> {
        let backend = backend(&typed.backend, self.findings);
        let (retry, expire) = (typed.retry.value?, typed.expire.value?);
        if expire < retry.first {
            self.findings
                .warning(&typed.expire.place, "`expire` is shorter than the first wait: nothing is ever tried again")
                .help("RFC 5321 asks for four to five days");
        }
        let min_free_space = self.floor(&typed.min_free_space);
        Some(QueueSettings {
            backend: backend?,
            schedule: Schedule { first: retry.first, longest: retry.longest, expire },
            keep_failed: typed.keep_failed.value?,
            keep_history: typed.keep_history.value?,
            bounce: typed.bounce.value?,
            min_free_space: min_free_space?,
        })
    }
    fn floor(&mut self, typed: &Typed<ByteSize>) -> Option<u64> {
        let ByteSize(floor) = typed.value?;
        if floor >= SMALLEST_FLOOR {
            return Some(floor);
        }
        let smallest = SMALLEST_FLOOR >> 20;
        self.findings
            .error(&typed.place, format!("`min_free_space` is too small: the smallest value is \"{smallest} MiB\""))
            .help(
                "so much the queue's write-ahead log may need, and the database when the log is written back, before mail that \
                 is delivered or removed makes room again",
            );
        None
    }
}
