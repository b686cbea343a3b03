//! `[queue]`: the schedule and how long things are kept.

use super::Resolver;
use crate::config::file::QueueTable;
use crate::config::input::{Reported, Resolved, Typed};
use crate::config::problem::Findings;
use crate::config::queue::QueueBackend;
use crate::config::settings::{BackendSettings, QueueSettings};
use crate::queue::schedule::Schedule;

/// Works without the rest of the configuration.
pub fn backend(typed: &Typed<QueueBackend>, findings: &mut Findings) -> Resolved<BackendSettings> {
    match typed.get()? {
        QueueBackend::Sqlite => Ok(BackendSettings::Sqlite),
        QueueBackend::Redis => {
            findings
                .error(&typed.place, "backend = \"redis\" is not in this version yet")
                .help("use \"sqlite\": the queue is a file in `data_dir`");
            Err(Reported)
        }
    }
}

impl Resolver<'_> {
    pub(super) fn queue(&mut self, typed: &QueueTable) -> Resolved<QueueSettings> {
        let backend = backend(&typed.backend, self.findings);
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
