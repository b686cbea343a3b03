//! `[[expect]]`: mail that should come regularly.

use super::Resolver;
use crate::config::file::ExpectTable;
use crate::config::input::{Reported, Resolved, Typed};
use crate::intake::{Expectation, NoticeOptions};
use crate::message::SenderPatterns;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Silences are looked for at most this often.
const SHORTEST: Duration = Duration::from_secs(1);

impl Resolver<'_> {
    /// `upstreams`: the names of all of them.
    pub(super) fn expected(
        &mut self,
        typed: &[ExpectTable],
        upstreams: &[Typed<String>],
    ) -> Resolved<Vec<Expectation>> {
        let mut taken = HashSet::new();
        let resolved: Vec<_> = typed.iter().map(|table| self.expectation(table, upstreams, &mut taken)).collect();
        resolved.into_iter().collect()
    }

    fn expectation(
        &mut self,
        typed: &ExpectTable,
        upstreams: &[Typed<String>],
        taken: &mut HashSet<String>,
    ) -> Resolved<Expectation> {
        let every = self.expected_interval(typed);
        let notice = self.notice(typed, upstreams);
        let patterns = typed.sender.value().ok_or(Reported)?;
        let senders = SenderPatterns::parse(patterns.0.iter().map(|pattern| &pattern.0)).map_err(|_| Reported)?;
        let name = match typed.name.optional()? {
            Some(_) => self.unique(taken, "[[expect]]", &typed.name)?,
            None => self.named_by_senders(typed, &senders, taken)?,
        };
        Ok(Expectation { name, senders, every: every?, notice: notice? })
    }

    fn notice(&mut self, typed: &ExpectTable, upstreams: &[Typed<String>]) -> Resolved<Option<NoticeOptions>> {
        self.check_upstream("notify_upstream", &typed.notify_upstream, upstreams);
        let upstream = typed.notify_upstream.optional()?;
        let Some(to) = typed.notify.optional()? else {
            if upstream.is_some() {
                self.findings
                    .warning(&typed.notify_upstream.place, "`notify_upstream` has no effect without `notify`")
                    .help("add notify = \"ops@example.net\", say");
            }
            return Ok(None);
        };
        Ok(Some(NoticeOptions { to: to.0, upstream }))
    }

    fn expected_interval(&mut self, typed: &ExpectTable) -> Resolved<Duration> {
        let every = typed.every.get()?;
        if every < SHORTEST {
            self.findings
                .error(&typed.every.place, "`every` is too short: a second is the least")
                .help("write how often the mail comes, and a margin: \"8d\" for a weekly report");
            return Err(Reported);
        }
        Ok(every)
    }

    /// The name in the log and the metrics.
    fn named_by_senders(
        &mut self,
        typed: &ExpectTable,
        senders: &SenderPatterns,
        taken: &mut HashSet<String>,
    ) -> Resolved<Arc<str>> {
        let name = senders.iter().collect::<Vec<_>>().join(", ");
        if taken.insert(name.clone()) {
            return Ok(name.into());
        }
        self.findings
            .error(&typed.sender.place, format!("there is another [[expect]] for \"{name}\""))
            .help("give each a `name`");
        Err(Reported)
    }
}
