//! `fallback = "sqlite"`: a database in the data folder that keeps new mail while Redis does not answer. Nothing is delivered from
//! it, since the limits of all gateways are not known meanwhile: its mail moves into Redis, under the same ids, when that is back.
//!
//! Invariant: a message is removed here after Redis has acknowledged it, or has it already, or knows that it was delivered.

use super::store::RedisStore;
use crate::message::MailId;
use crate::observe::Clock;
use crate::observe::metrics::QueueMetrics;
use crate::queue::portable::{ImportSource, Imported, PortableMail, Transfer as _};
use crate::queue::sqlite::{self, OpenError, SqliteOptions, SqliteQueue};
use crate::queue::{
    Cursor, Filter, IdempotencyKey, LaneOf, NewMail, Operator, Page, Queue, QueueError, QueueFigures, Row, SpoolFigures,
};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tracing::{error, info, warn};

const NAME: &str = "spool";
/// Messages that move at once, and the octets beyond which no further one is read.
const MOST: usize = 64;
const MOST_OCTETS: u64 = 8 << 20;
/// Between two looks whether there is anything to move.
const INTERVAL: Duration = Duration::from_millis(500);
/// After a failure that is not Redis being away, for example because it is full.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Spool {
    queue: SqliteQueue,
    /// False: the fallback was switched off, and what is left here moves.
    pub takes_mail: bool,
    /// Held while messages move or an operator changes some: no message is both here and there for anyone who changes it.
    moving: tokio::sync::Mutex<()>,
    /// Messages that cannot move; each is logged once.
    stuck: Mutex<HashSet<MailId>>,
}

/// Where the spool of this data folder is, whether there is one or not.
pub(crate) fn spool_folder(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

/// Options for opening a spool.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpoolOptions {
    pub min_free_space: u64,
    pub metrics: QueueMetrics,
}

impl Spool {
    /// `None`: there is none, and none is wanted.
    pub(super) async fn open(
        data_dir: &Path,
        takes_mail: bool,
        options: SpoolOptions,
        clock: Clock,
    ) -> Result<Option<Arc<Self>>, QueueError> {
        let folder = spool_folder(data_dir);
        let open = move || {
            let of_io = |error: std::io::Error| QueueError::Storage(format!("{}: {error}", folder.display()));
            if !takes_mail && !sqlite::exists(&folder).map_err(of_io)? {
                return Ok(None);
            }
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(of_io)?;
            let SpoolOptions { min_free_space, metrics } = options;
            let options = SqliteOptions {
                data_dir: folder,
                cache_octets: 0,
                min_free_space,
                schedule: Default::default(),
                clock,
                metrics,
            };
            let opened = SqliteQueue::open(options);
            opened.map(Some).map_err(|error: OpenError| QueueError::Storage(error.to_string()))
        };
        let queue = spawn_blocking(open).await.map_err(|_| QueueError::fault())??;
        Ok(queue
            .map(|queue| Arc::new(Self { queue, takes_mail, moving: Default::default(), stuck: Default::default() })))
    }

    /// The database, for what reads or changes it as any other. A change needs [`Spool::hold_still`] first.
    pub(super) fn queue(&self) -> &SqliteQueue {
        &self.queue
    }

    /// Nothing moves while the guard lives.
    pub(super) async fn hold_still(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.moving.lock().await
    }

    /// Which of these messages are here, and which are not.
    pub(super) async fn split(&self, ids: &[MailId]) -> Result<(Vec<MailId>, Vec<MailId>), QueueError> {
        let (mut here, mut others) = (Vec::new(), Vec::new());
        for id in ids {
            let is_here = self.queue.show(*id).await?.is_some();
            if is_here { here.push(*id) } else { others.push(*id) }
        }
        Ok((here, others))
    }

    /// Answers with another message's id if that has the mail's key.
    pub(super) async fn put(&self, mut mail: NewMail, is_once: bool) -> Result<Option<MailId>, QueueError> {
        if is_once {
            return self.queue.put_once(mail).await;
        }
        // It must be stored even if another message has its key. With the key, Redis would take it for a duplicate.
        mail.deduplication = None;
        self.queue.put(mail).await.map(|()| None)
    }

    pub(super) async fn stored_under(&self, key: IdempotencyKey) -> Result<Option<MailId>, QueueError> {
        self.queue.stored_under(key).await
    }

    /// `away`: why Redis cannot be used.
    pub(super) async fn figures(&self, away: Option<String>) -> Result<SpoolFigures, QueueError> {
        let figures = self.queue.figures().await?;
        let all = |lane: &crate::queue::LaneCounts| lane.waiting + lane.held + lane.leased + lane.failed + lane.damaged;
        let recipients = figures.lanes.iter().map(all).sum();
        let oldest = figures.lanes.iter().filter_map(|lane| lane.oldest).min();
        Ok(SpoolFigures { recipients, octets: figures.octets, oldest, away })
    }

    pub(super) async fn add_to(&self, figures: &mut QueueFigures) -> Result<(), QueueError> {
        let own = self.queue.figures().await?;
        figures.octets += own.octets;
        for lane in own.lanes {
            match figures.lanes.iter_mut().find(|known| known.lane == lane.lane) {
                Some(known) => {
                    known.waiting += lane.waiting;
                    known.held += lane.held;
                    known.failed += lane.failed;
                    known.damaged += lane.damaged;
                    known.oldest = known.oldest.into_iter().chain(lane.oldest).min();
                }
                None => figures.lanes.push(lane),
            }
        }
        figures.lanes.sort_by(|one, other| one.lane.cmp(&other.lane));
        Ok(())
    }

    /// Before the pages of Redis: cursors below zero are those of the spool.
    pub(super) async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<SpoolPage, QueueError> {
        let after = match after {
            Some(Cursor(at)) if at >= END => return Ok(SpoolPage::Past),
            Some(Cursor(at)) => Some(Cursor(at.wrapping_sub(i64::MIN))),
            None => None,
        };
        let Page { mut rows, next } = self.queue.list(filter, after, limit).await?;
        rows.iter_mut().for_each(mark);
        Ok(match next {
            Some(Cursor(next)) => SpoolPage::Some(Page { rows, next: Some(Cursor(next.wrapping_add(i64::MIN))) }),
            None if rows.is_empty() => SpoolPage::Past,
            None => SpoolPage::Some(Page { rows, next: Some(Cursor(END)) }),
        })
    }

    async fn is_empty(&self) -> Result<bool, QueueError> {
        Ok(self.figures(None).await?.recipients == 0 && self.queue.keys(1).await?.is_empty())
    }

    /// Moves a batch into Redis. Returns how many messages.
    async fn move_some(self: &Arc<Self>, store: &Arc<RedisStore>) -> Result<u64, QueueError> {
        let _still = self.hold_still().await;
        let mut after = None;
        loop {
            let page = self.queue.list(&Filter::default(), after, MOST).await?;
            // After the list: so the keys of all that is in it are known in Redis before it is.
            self.move_keys(store).await?;
            let batch = self.batch(&page.rows).await;
            let is_any = !batch.is_empty();
            let (moved, failed) = self.import(store, batch).await;
            self.queue.remove(&moved).await?;
            if let Some(error) = failed {
                return Err(error);
            }
            // A page of nothing but stuck mail does not keep back what comes after it.
            after = page.next;
            if is_any || after.is_none() {
                return Ok(moved.len() as u64);
            }
        }
    }

    async fn batch(&self, rows: &[Row]) -> Vec<PortableMail> {
        let mut batch = Vec::new();
        let mut octets = 0;
        for id in rows.iter().filter_map(|row| row.id.parse::<MailId>().ok()) {
            if octets >= MOST_OCTETS {
                break;
            }
            match self.queue.portable(id).await {
                Ok(Some(mail)) => {
                    octets += mail.size();
                    batch.push(mail);
                }
                Ok(None) => {}
                Err(error) => self.is_stuck(id, &error),
            }
        }
        batch
    }

    /// Those that Redis has now, and why others are not there.
    async fn import(&self, store: &Arc<RedisStore>, batch: Vec<PortableMail>) -> (Vec<MailId>, Option<QueueError>) {
        let mut imports = JoinSet::new();
        for mail in batch {
            let (store, id) = (store.clone(), mail.id);
            imports.spawn(async move { (id, store.import(mail, ImportSource::OwnSpool).await) });
        }
        let (mut moved, mut failed) = (Vec::new(), None);
        for (id, imported) in imports.join_all().await {
            match imported {
                Ok(Imported::Stored | Imported::Present | Imported::Delivered) => moved.push(id),
                Err(error @ QueueError::Storage(_)) if store.link.trouble().is_none() => self.is_stuck(id, &error),
                Err(error) => failed = Some(error),
            }
        }
        store.wakeups.wake_all();
        (moved, failed)
    }

    /// First what is known, then the mail: one whose key another message has is a duplicate, which was stored by another gateway.
    async fn move_keys(&self, store: &Arc<RedisStore>) -> Result<(), QueueError> {
        loop {
            let keys = self.queue.keys(MOST).await?;
            if keys.is_empty() {
                return Ok(());
            }
            let duplicates = store.import_keys(&keys).await?;
            for id in &duplicates {
                info!(%id, "a message in the spool was submitted to another gateway as well; it is dropped here");
            }
            self.queue.remove(&duplicates).await?;
            self.queue.forget_keys(keys).await?;
        }
    }

    /// Puts everything on the lanes of the current routes, before it moves.
    pub(super) async fn reassign_lanes(&self, fingerprint: &str, lane_of: &LaneOf) -> Result<(), QueueError> {
        let _still = self.hold_still().await;
        let mut after = None;
        loop {
            let step = self.queue.reassign_lanes(fingerprint, lane_of.clone(), after).await?;
            after = step.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn is_stuck(&self, id: MailId, error: &QueueError) {
        if self.stuck.lock().insert(id) {
            error!(%id, %error, "a message cannot move from the spool into Redis; it stays in the spool");
        }
    }

    pub(super) async fn close(&self) {
        if let Ok(SpoolFigures { recipients: left @ 1.., .. }) = self.figures(None).await {
            warn!(recipients = left, "mail is left in the spool; it moves into Redis when the gateway runs again");
        }
        self.queue.close().await;
    }
}

/// After the last cursor of the spool's own.
const END: i64 = -1;

pub(super) enum SpoolPage {
    /// With the next cursor.
    Some(Page),
    /// The cursor is one of Redis.
    Past,
}

impl SpoolPage {
    /// The cursor as Redis knows it.
    pub(super) fn cursor_behind(after: Option<Cursor>) -> Option<Cursor> {
        after.filter(|Cursor(at)| *at > END)
    }
}

pub(super) fn mark(row: &mut Row) {
    row.is_spooled = true;
}

/// Moves what is in the spool whenever Redis can be used. Ends with the queue.
pub(super) async fn empty(store: Weak<RedisStore>, spool: Weak<Spool>) {
    let mut is_told = false;
    loop {
        let (Some(store), Some(spool)) = (store.upgrade(), spool.upgrade()) else { return };
        if store.link.is_closed() {
            return;
        }
        let pause = match move_if_any(&store, &spool).await {
            Ok(0) => {
                is_told = false;
                INTERVAL
            }
            Ok(messages) => {
                info!(messages, "mail moved from the spool into Redis");
                Duration::ZERO
            }
            Err(QueueError::Away(_) | QueueError::Closed) => INTERVAL,
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    error!(%error, "the mail in the spool cannot move into Redis; it is tried again");
                }
                PAUSE
            }
        };
        drop((store, spool));
        sleep(pause).await;
    }
}

async fn move_if_any(store: &Arc<RedisStore>, spool: &Arc<Spool>) -> Result<u64, QueueError> {
    if store.link.trouble().is_some() || !store.has_begun.initialized() || spool.is_empty().await? {
        return Ok(0);
    }
    spool.move_some(store).await
}
