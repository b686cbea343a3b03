//! Pages of a list, and one message in full. A page costs as much as it examines, which is bounded.

use super::answers::{list as values, octets, text, texts};
use super::layout::MessagePlace;
use super::record::{JobState, MessageRecord};
use super::store::{Loaded, RedisStore};
use super::times::Times;
use crate::message::MailId;
use crate::queue::{
    Cursor, Filter, MessageDetails, Page, QueueError, RecipientRow, RecipientState, Row, Suspension, is_message_id,
};
use jiff::Timestamp;
use redis::cmd;
use std::collections::BTreeMap;

/// Maximum number of messages that are examined for one page.
const MAX_LOOKS: usize = 1000;
/// Records that are read at once.
const STEP: usize = 200;
/// Up to so many failed messages are searched by themselves; more are searched among all.
const MAX_FAILED: usize = 50_000;

type InstanceNames = BTreeMap<String, String>;

impl RedisStore {
    pub(super) async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, QueueError> {
        let limit = limit.max(1);
        let mut at = after.map(|Cursor(at)| at);
        let mut rows = Vec::new();
        let mut looks = 0;
        let names = self.instance_names().await?;
        if let Some(state) = filter.state
            && state != RecipientState::Damaged
            && self.in_state(state).await? == 0
        {
            return Ok(Page { rows, next: None });
        }
        let mut failed = match filter.state {
            Some(RecipientState::Failed) => self.failed_in_order(at).await?,
            _ => None,
        };
        loop {
            // One more than the page needs, to know whether it is the last.
            let step = STEP.min(limit.saturating_sub(rows.len()).saturating_add(1));
            let found = match &mut failed {
                Some(all) => all.drain(..step.min(all.len())).collect(),
                None => self.page(at, step).await?,
            };
            let is_searched = found.len() < step;
            let places: Vec<MessagePlace> = found.iter().map(|(_, place)| *place).collect();
            for ((order, place), loaded) in found.into_iter().zip(self.load_all(&places).await?) {
                if rows.len() == limit || looks == MAX_LOOKS {
                    return Ok(Page { rows, next: at.map(Cursor) });
                }
                (at, looks) = (Some(order), looks + 1);
                rows.extend(loaded.and_then(|loaded| wanted_row((&self.times, &names), filter, place, loaded)));
            }
            if is_searched {
                return Ok(Page { rows, next: None });
            }
        }
    }

    /// In the order of acceptance, after a position; `None`: they are too many.
    async fn failed_in_order(&self, after: Option<i64>) -> Result<Option<Vec<(i64, MessagePlace)>>, QueueError> {
        let mut found = Vec::new();
        for shard in self.layout.all_shards() {
            let mut all = cmd("ZRANGE");
            all.arg(self.layout.failed(shard)).arg(0).arg(MAX_FAILED);
            let ids = self.link.read(shard, vec![all]).await?.pop().map(texts).unwrap_or_default();
            if found.len() + ids.len() > MAX_FAILED {
                return Ok(None);
            }
            if ids.is_empty() {
                continue;
            }
            let mut orders = cmd("ZMSCORE");
            orders.arg(self.layout.all(shard)).arg(&ids);
            let orders = self.link.read(shard, vec![orders]).await?.pop().map(values).unwrap_or_default();
            for (id, order) in ids.iter().zip(orders) {
                let order = text(order).and_then(|order| order.parse::<i64>().ok());
                found.extend(order.and_then(|order| Some((order, MessagePlace { shard, id: id.parse().ok()? }))));
            }
        }
        found.retain(|(order, _)| after.is_none_or(|after| *order > after));
        found.sort_unstable();
        Ok(Some(found))
    }

    pub(super) async fn show(&self, id: MailId) -> Result<Option<MessageDetails>, QueueError> {
        let delivered = self.history_of(id).await?;
        let loaded = match self.find(id).await? {
            Some(place) => self.load_one(place).await?.map(|loaded| (place, loaded)),
            None => None,
        };
        let Some((place, loaded)) = loaded else { return Ok(MessageDetails::of_history(delivered)) };
        let delivered = delivered.into_iter().map(|(row, _)| row).collect();
        let mut command = cmd("HGET");
        command.arg(self.layout.message(place)).arg("head");
        // Whatever can still be read of a damaged message is shown.
        let header = self.link.read(place.shard, vec![command]).await?.pop().and_then(octets).unwrap_or_default();
        let header = String::from_utf8_lossy(&header).into_owned();
        Ok(Some(match loaded.record {
            Ok(record) => MessageDetails {
                row: row_of(&self.times, &self.instance_names().await?, &record),
                header,
                attempts: record.attempts.clone(),
                delivered,
                has_original: record.has_original,
            },
            Err(_) => {
                MessageDetails { row: unreadable(id), header, attempts: Vec::new(), delivered, has_original: false }
            }
        }))
    }
}

fn wanted_row(
    (times, names): (&Times, &InstanceNames),
    filter: &Filter,
    place: MessagePlace,
    loaded: Loaded,
) -> Option<Row> {
    match loaded.record {
        Ok(record) => is_wanted(filter, &record).then(|| row_of(times, names, &record)),
        Err(_) => {
            let only_state = Filter { state: filter.state, ..Filter::default() };
            let is_wanted = *filter == only_state && filter.state.is_none_or(|state| state == RecipientState::Damaged);
            is_wanted.then(|| unreadable(place.id))
        }
    }
}

/// A message of which nothing but its name can be read.
fn unreadable(id: MailId) -> Row {
    Row {
        id: id.to_string(),
        received_at: Timestamp::UNIX_EPOCH,
        sender: String::new(),
        subject: String::new(),
        size: 0,
        message_id: None,
        recipients: Vec::new(),
        is_spooled: false,
    }
}

fn is_wanted(filter: &Filter, record: &MessageRecord) -> bool {
    let is_named = |wanted: &String| is_message_id(record.message_id.as_deref(), wanted);
    if filter.received_before.is_some_and(|before| record.received_at >= before)
        || !filter.message_id.as_ref().is_none_or(is_named)
    {
        return false;
    }
    if filter.state.is_none() && filter.recipient.is_none() && filter.upstream.is_none() {
        return true;
    }
    let part = filter.recipient.as_deref().map(str::to_lowercase);
    record.recipients.iter().any(|recipient| {
        let (_, lane) = Suspension::split(&recipient.lane);
        filter.state.is_none_or(|state| state_of(record, recipient) == state)
            && part.as_ref().is_none_or(|part| recipient.address.to_lowercase().contains(part))
            && filter.upstream.as_ref().is_none_or(|name| lane == name || recipient.upstream.as_ref() == Some(name))
    })
}

fn state_of(record: &MessageRecord, recipient: &super::record::RecipientRecord) -> RecipientState {
    let suspension = Suspension::split(&recipient.lane).0;
    match record.jobs.get(&recipient.lane).map(|job| &job.state) {
        _ if recipient.failed_at.is_some() => RecipientState::Failed,
        Some(JobState::Leased(_)) => RecipientState::Leased,
        Some(JobState::Waiting | JobState::TakenBack(_)) if suspension == Some(Suspension::Held) => {
            RecipientState::Held
        }
        Some(JobState::Waiting | JobState::TakenBack(_)) => RecipientState::Waiting,
        Some(JobState::Damaged) | None => RecipientState::Damaged,
    }
}

/// `names`: of the instances, by id.
fn row_of(times: &Times, names: &InstanceNames, record: &MessageRecord) -> Row {
    let recipient = |recipient: &super::record::RecipientRecord| {
        let (suspension, lane) = Suspension::split(&recipient.lane);
        let state = state_of(record, recipient);
        let due = record.jobs.get(&recipient.lane).filter(|_| state == RecipientState::Waiting);
        RecipientRow {
            address: recipient.address.clone(),
            state,
            lane: lane.to_owned(),
            attempts: recipient.attempts,
            due: due.map(|job| times.to_local(job.due)),
            reason: recipient.reason.clone(),
            delayed: suspension == Some(Suspension::Delayed),
            instance: record.holder(&recipient.lane).filter(|_| state == RecipientState::Leased).map(|id| {
                // An instance without a name is one that was forgotten.
                names.get(id).unwrap_or(&id.to_owned()).clone()
            }),
        }
    };
    Row {
        id: record.id.to_string(),
        received_at: record.received_at,
        sender: record.sender.clone().unwrap_or_default(),
        subject: record.subject.clone(),
        size: record.size,
        message_id: record.message_id.clone(),
        recipients: record.recipients.iter().map(recipient).collect(),
        is_spooled: false,
    }
}
