//! Messages in the form that belongs to no backend: reads them, and stores those that come from elsewhere.

use super::answers::{list, number, scored, text, texts};
use super::bodies;
use super::commit::{COMMIT, Committed, PUT, RecordChange, StoredContent};
use super::history::{self, parse};
use super::layout::{MessagePlace, unique};
use super::node::CallError;
use super::record::{HistoryRecord, JobState, LaneJob, MessageRecord, RecipientRecord, content_digest};
use super::store::{MAX_ATTEMPTS, RedisStore, of_damage, refused};
use super::whole::WholeMessage;
use super::{RedisQueue, put::A_MOMENT};
use crate::message::{MailId, message_id};
use crate::queue::export_file::{ExportError, ExportItem};
use crate::queue::portable::{
    ImportSource, Imported, PortableContent, PortableHistory, PortableJob, PortableKey, PortableMail,
    PortableRecipient, Transfer,
};
use crate::queue::{QueueError, detached};
use async_trait::async_trait;
use redis::cmd;
use std::io;
use tokio::time::sleep;

/// Rows that are read in one step.
const STEP: usize = 200;

#[async_trait]
impl Transfer for RedisQueue {
    async fn portable(&self, id: MailId) -> Result<Option<PortableMail>, QueueError> {
        self.store.portable(id).await
    }

    async fn import(&self, mail: PortableMail, source: ImportSource) -> Result<Imported, QueueError> {
        let store = self.store.clone();
        let imported = detached(async move { store.import(mail, source).await }).await?;
        self.store.wakeups.wake_all();
        Ok(imported)
    }

    async fn import_keys(&self, keys: Vec<PortableKey>) -> Result<Vec<MailId>, QueueError> {
        self.store.import_keys(&keys).await
    }

    async fn import_history(&self, rows: Vec<PortableHistory>) -> Result<u64, QueueError> {
        self.store.import_history(&rows).await
    }
}

impl RedisStore {
    pub(super) async fn portable(&self, id: MailId) -> Result<Option<PortableMail>, QueueError> {
        let Some(WholeMessage { record, header, body, original, .. }) = self.whole(id).await? else { return Ok(None) };
        let mut mail = self.portable_of(record);
        mail.content = PortableContent { header, body, original };
        mail.check().map_err(|what| QueueError::Storage(format!("{id} is damaged: {what}")))?;
        Ok(Some(mail))
    }

    /// Without its content.
    fn portable_of(&self, record: MessageRecord) -> PortableMail {
        let lived = self.lived();
        let recipient = |recipient: RecipientRecord| PortableRecipient {
            position: recipient.position,
            address: recipient.address,
            lane: recipient.lane,
            failed: recipient.failed_at.map(|at| lived.saturating_sub(at)),
            attempts: recipient.attempts,
            upstream: recipient.upstream,
            reason: recipient.reason,
            in_doubt: recipient.in_doubt,
        };
        let job = |(lane, job): (String, LaneJob)| {
            let portable = PortableJob {
                due: self.times.to_local(job.due),
                possible_duplicate: job.possible_duplicate || job.state.is_leased(),
                set_aside: job.state == JobState::Damaged,
            };
            (lane, portable)
        };
        PortableMail {
            id: record.id,
            received_at: record.received_at,
            sender: record.sender,
            eight_bit: record.eight_bit,
            smtputf8: record.smtputf8,
            subject: record.subject,
            listener: record.listener,
            user: record.user,
            marks: record.marks,
            age: lived.saturating_sub(record.since),
            accepted: lived.saturating_sub(record.lived),
            recipients: record.recipients.into_iter().map(recipient).collect(),
            jobs: record.jobs.into_iter().map(job).collect(),
            attempts: record.attempts,
            content: PortableContent::default(),
        }
    }

    fn record_of(&self, mail: &PortableMail) -> MessageRecord {
        let lived = self.lived();
        let recipient = |recipient: &PortableRecipient| RecipientRecord {
            position: recipient.position,
            address: recipient.address.clone(),
            lane: recipient.lane.clone(),
            failed_at: recipient.failed.map(|failed| lived.saturating_sub(failed)),
            attempts: recipient.attempts,
            upstream: recipient.upstream.clone(),
            reason: recipient.reason.clone(),
            in_doubt: recipient.in_doubt,
        };
        let job = |(lane, job): (&String, &PortableJob)| {
            let state = if job.set_aside { JobState::Damaged } else { JobState::Waiting };
            let due = self.times.to_server(job.due);
            (lane.clone(), LaneJob { due, state, possible_duplicate: job.possible_duplicate })
        };
        let PortableContent { header, body, original } = &mail.content;
        MessageRecord {
            id: mail.id,
            received_at: mail.received_at,
            sender: mail.sender.clone(),
            eight_bit: mail.eight_bit,
            smtputf8: mail.smtputf8,
            size: mail.size(),
            subject: mail.subject.clone(),
            message_id: message_id(header),
            listener: mail.listener.clone(),
            user: mail.user.clone(),
            marks: mail.marks.clone(),
            since: lived.saturating_sub(mail.age),
            lived: lived.saturating_sub(mail.accepted),
            recipients: mail.recipients.iter().map(recipient).collect(),
            jobs: mail.jobs.iter().map(job).collect(),
            attempts: mail.attempts.clone(),
            has_original: original.is_some(),
            digest: content_digest(header, body),
        }
    }

    pub(super) async fn import(&self, mail: PortableMail, source: ImportSource) -> Result<Imported, QueueError> {
        let id = mail.id;
        self.memory.admit(mail.size())?;
        self.keep_lifetime(false).await?;
        let token = unique();
        for _ in 0..MAX_ATTEMPTS {
            // In this order: what is not there now, and was delivered before, is in the history.
            if self.find(id).await?.is_some() {
                return Ok(Imported::Present);
            }
            let delivered: Vec<String> =
                self.history_of(id).await?.into_iter().flat_map(|(row, _)| row.recipients).collect();
            let Some(rest) = mail.clone().without(&delivered) else { return Ok(Imported::Delivered) };
            let change = self.import_of(&rest, source, &token, delivered.is_empty()).await?;
            match self.link.commit(PUT, &change).await {
                Ok(Committed::Done(answers)) => {
                    self.learn_accepted(change.shard, &answers);
                    self.memory.add(rest.size());
                    return Ok(Imported::Stored);
                }
                // A put of the same id came late; the next look sees what has become of it.
                Ok(Committed::Stored | Committed::Taken) => {}
                Ok(other) => return Err(refused(&other)),
                Err(CallError::Unanswered(_)) if !self.link.is_closed() => sleep(A_MOMENT).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(QueueError::Storage("Redis does not answer".into()))
    }

    async fn import_of(
        &self,
        mail: &PortableMail,
        source: ImportSource,
        token: &str,
        is_undelivered: bool,
    ) -> Result<RecordChange<'_>, QueueError> {
        let record = self.record_of(mail);
        let place = MessagePlace { shard: self.layout.shard_of(mail.id, None), id: mail.id };
        let PortableContent { header, body, original } = &mail.content;
        let original = match original {
            Some(original) => Some(bodies::pack(original).await?),
            None => None,
        };
        let content = StoredContent { header: header.clone(), body: bodies::pack(body).await?, original };
        let mut change = RecordChange::new(&self.layout, place.shard);
        if is_undelivered {
            change.if_undelivered(mail.id);
        }
        change.if_absent(place, token);
        change.write(place, None, &record, (1, token, self.lease_length)).map_err(of_damage)?;
        change.write_content(place, &record, content, token);
        match (source, self.routes.lock().as_deref()) {
            (ImportSource::OwnSpool, Some(routes)) => drop(change.step("routes").arg(routes)),
            _ => change.forget_routes(),
        }
        for lane in record.waiting().keys() {
            change.tell(&format!("{} {lane}", self.instance));
        }
        change.step("accept").arg(&self.instance);
        Ok(change)
    }

    pub(super) async fn import_keys(&self, keys: &[PortableKey]) -> Result<Vec<MailId>, QueueError> {
        let mut others = Vec::new();
        for known in keys {
            let Some(key) = known.key() else { continue };
            let (shard, lived) = (self.layout.shard_of(known.id, Some(key)), self.lived());
            let mut change = RecordChange::new(&self.layout, shard);
            change.if_unknown(key, lived, known.id);
            change.remember(key, known.id, lived.saturating_add(known.left));
            match self.link.commit(PUT, &change).await? {
                Committed::Known(_) => others.push(known.id),
                Committed::Done(_) => {}
                other => return Err(refused(&other)),
            }
        }
        Ok(others)
    }

    pub(super) async fn import_history(&self, rows: &[PortableHistory]) -> Result<u64, QueueError> {
        let mut added = 0;
        let lived = self.lived();
        for row in rows {
            let known = self.history_of(row.id).await?;
            let is_it =
                |known: &crate::queue::HistoryRow| known.delivery == row.delivery && known.recipients == row.recipients;
            if known.iter().any(|(known, _)| is_it(known)) {
                continue;
            }
            let record = HistoryRecord {
                id: row.id,
                received_at: row.received_at,
                sender: row.sender.clone(),
                recipients: row.recipients.clone(),
                subject: row.subject.clone(),
                size: row.size,
                message_id: row.message_id.clone(),
                delivery: row.delivery.clone(),
                lived: lived.saturating_sub(row.ago),
            };
            let mut change = RecordChange::new(&self.layout, self.layout.shard_of(row.id, None));
            change.write_history(&[record]);
            match self.link.commit(COMMIT, &change).await? {
                Committed::Done(_) => added += 1,
                other => return Err(refused(&other)),
            }
        }
        Ok(added)
    }

    pub(super) async fn export(
        &self,
        all: impl FnOnce(u64),
        each: &mut (dyn FnMut(ExportItem) -> io::Result<()> + Send),
    ) -> Result<(), ExportError> {
        let mut count = 0;
        for shard in self.layout.all_shards() {
            let mut size = cmd("ZCARD");
            size.arg(self.layout.all(shard));
            count += self.link.read(shard, vec![size]).await?.pop().and_then(number::<u64>).unwrap_or(0);
        }
        all(count);
        let holds = self.holds().await?;
        if !holds.is_empty() {
            each(ExportItem::Holds(holds))?;
        }
        for shard in self.layout.all_shards() {
            self.export_history(shard, each).await?;
            self.export_keys(shard, each).await?;
        }
        let mut after = None;
        loop {
            let page = self.page(after, STEP).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            for (_, MessagePlace { id, .. }) in page {
                each(match self.portable(id).await {
                    Ok(Some(mail)) => ExportItem::Mail(Box::new(mail)),
                    Ok(None) => ExportItem::Ended,
                    // A server that is away is not damage.
                    Err(error) if self.link.trouble().is_some() => return Err(error.into()),
                    Err(error) => ExportItem::Damaged { id: id.to_string(), reason: error.to_string() },
                })?;
            }
        }
    }

    async fn export_history(
        &self,
        shard: u16,
        each: &mut (dyn FnMut(ExportItem) -> io::Result<()> + Send),
    ) -> Result<(), ExportError> {
        let mut after = "-inf".to_owned();
        loop {
            let mut command = cmd("ZRANGEBYSCORE");
            command.arg(self.layout.history(shard)).arg(&after).arg("+inf").arg("WITHSCORES");
            command.arg("LIMIT").arg(0).arg(STEP);
            let rows = self.link.read(shard, vec![command]).await?.pop().map(scored).unwrap_or_default();
            let Some((_, last)) = rows.last() else { return Ok(()) };
            after = format!("({last}");
            let lived = self.lived();
            for record in rows.into_iter().filter_map(|(member, _)| parse(member)) {
                each(ExportItem::History(history::portable_of(record, lived)))?;
            }
        }
    }

    async fn export_keys(
        &self,
        shard: u16,
        each: &mut (dyn FnMut(ExportItem) -> io::Result<()> + Send),
    ) -> Result<(), ExportError> {
        let mut cursor = "0".to_owned();
        loop {
            let mut command = cmd("HSCAN");
            command.arg(self.layout.known_keys(shard)).arg(&cursor).arg("COUNT").arg(STEP);
            let answer = self.link.read(shard, vec![command]).await?.pop().map(list).unwrap_or_default();
            let mut parts = answer.into_iter();
            cursor = parts.next().and_then(text).unwrap_or_else(|| "0".to_owned());
            let found = parts.next().map(texts).unwrap_or_default();
            for pair in found.chunks_exact(2) {
                let Some((id, until)) = pair[1].split_once(' ') else { continue };
                let (Ok(id), Ok(until)) = (id.parse(), until.parse::<u64>()) else { continue };
                let left = until.saturating_sub(self.lived());
                // A scan may return one twice, which changes nothing.
                if left > 0 {
                    each(ExportItem::Key(PortableKey { key: pair[0].clone(), id, left }))?;
                }
            }
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}
