//! `[queue]`: the schedule and how long things are kept.

use super::Resolver;
use crate::config::file::QueueTable;
use crate::config::input::Resolved;
use crate::config::queue::QueueBackend;
use crate::config::reader::Section;
use crate::config::settings::{BackendSettings, QueueSettings};
use crate::queue::schedule::Schedule;

impl Resolver<'_> {
    /// Works without the rest of the configuration.
    pub fn backend(&mut self, typed: &QueueTable) -> Resolved<BackendSettings> {
        match typed.backend.get()? {
            QueueBackend::Sqlite => {
                self.warn_about_unused_redis(&typed.redis, typed.place());
                Ok(BackendSettings::Sqlite)
            }
            QueueBackend::Redis => self.redis(&typed.redis).map(Box::new).map(BackendSettings::Redis),
        }
    }

    pub(super) fn queue(&mut self, typed: &QueueTable) -> Resolved<QueueSettings> {
        let backend = self.backend(typed);
        let retry = typed.retry.get()?;
        let expire = typed.expire.get()?;
        if expire < retry.first {
            self.findings
                .warning(&typed.expire.place, "`expire` is shorter than the first wait: nothing is ever tried again")
                .help("RFC 5321 asks for four to five days");
        }
        Ok(QueueSettings {
            backend: backend?,
            schedule: Schedule { first: retry.first, longest: retry.longest, expire },
            keep_failed: typed.keep_failed.get()?,
            keep_history: typed.keep_history.get()?,
            bounce: typed.bounce.get()?,
            bounce_sender: typed.bounce_sender.get()?,
            min_free_space: typed.min_free_space.get()?.0,
            deduplicate: typed.deduplicate.optional()?,
        })
    }
}
