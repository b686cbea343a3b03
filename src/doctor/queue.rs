//! The queue's health: what waits and why, what has failed, what is held, what is damaged. Changes nothing.

use super::check::CheckResult;
use super::examination::{Examination, QueueAccess, Results};
use crate::control::{ControlRequest, ControlResponse, Overview};
use crate::observe::CheckId;
use crate::queue::{Filter, RecipientState, Row};
use crate::text::{counted, roughly};
use jiff::Timestamp;
use std::time::Duration;

/// Mail that waits longer is worth a word.
const LONG: Duration = Duration::from_secs(15 * 60);

/// A page can be empty and still have a next one.
const MOST_PAGES: usize = 50;

pub async fn probe(exam: &Examination, out: &Results) {
    let opened: anyhow::Result<Option<Box<dyn QueueAccess>>> = match exam.gateway_runs {
        true => Ok(Some(Box::new(exam.gateway_queue()))),
        false => exam.opener.open().await,
    };
    match opened {
        Ok(Some(access)) => {
            look(exam, access.as_ref(), out).await;
            access.close().await;
        }
        Ok(None) => {
            let text = "there is no queue yet: no gateway has run with this configuration";
            out.put(CheckResult::not_applicable(CheckId::QueueAccess, "", text));
        }
        Err(error) => unreadable(out, &format!("{error:#}")),
    }
}

async fn look(exam: &Examination, access: &dyn QueueAccess, out: &Results) {
    let overview = match access.ask(ControlRequest::Overview).await {
        Ok(ControlResponse::Overview(overview)) => overview,
        Ok(_) => return unreadable(out, "the answer is not one to the question"),
        Err(error) => return unreadable(out, &format!("{error:#}")),
    };
    let by = if exam.gateway_runs { "the running gateway answers" } else { "no gateway runs; its database was asked" };
    out.put(CheckResult::ok(CheckId::QueueAccess, "", by));
    out.put(waiting(access, &overview).await);
    out.put(failed(access, overview.counts.failed).await);
    out.put(match overview.counts.damaged {
        0 => CheckResult::ok(CheckId::QueueDamaged, "", "every message can be read"),
        damaged => {
            CheckResult::failed(CheckId::QueueDamaged, "", format!("{} cannot be read", counted(damaged, "recipient")))
                .cause("the disk or the file system has damaged the database")
                .fix("`waxseal queue check` says what is damaged; docs/queue.md, what can be saved")
        }
    });
    out.put(held(&overview));
}

fn unreadable(out: &Results, error: &str) {
    let result = CheckResult::unknown(CheckId::QueueAccess, "", "the queue cannot be asked").evidence(error);
    out.put(result.fix("run this as the user that the gateway runs as"));
}

/// The oldest message in this state.
async fn oldest(access: &dyn QueueAccess, state: RecipientState) -> Option<Row> {
    let filter = Filter { state: Some(state), ..Filter::default() };
    let mut after = None;
    for _ in 0..MOST_PAGES {
        let request = ControlRequest::List { filter: filter.clone(), after, limit: 1 };
        let Ok(ControlResponse::Page(page)) = access.ask(request).await else { return None };
        if let Some(row) = page.rows.into_iter().next() {
            return Some(row);
        }
        after = Some(page.next?);
    }
    None
}

fn reason(row: &Row, state: RecipientState) -> Option<&str> {
    row.recipients.iter().filter(|recipient| recipient.state == state).find_map(|recipient| recipient.reason.as_deref())
}

async fn waiting(access: &dyn QueueAccess, overview: &Overview) -> CheckResult {
    let id = CheckId::QueueWaiting;
    let count = overview.counts.waiting;
    if count == 0 {
        return CheckResult::ok(id, "", "no mail waits");
    }
    let oldest = oldest(access, RecipientState::Waiting).await;
    let age = oldest.as_ref().map(|row| Timestamp::now().duration_since(row.received_at));
    let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
    let text = format!("{} of waiting mail, the oldest for {}", counted(count, "recipient"), roughly(age));
    let obstacle = overview.lanes.iter().flatten().find_map(|lane| lane.obstacle.as_ref());
    let why = oldest.as_ref().and_then(|row| reason(row, RecipientState::Waiting)).map(str::to_owned);
    let why = why.or_else(|| obstacle.map(|obstacle| obstacle.text.clone()));
    if age < LONG {
        return CheckResult::ok(id, "", text);
    }
    let result = CheckResult::warning(id, "", text).cause("the provider does not take it, or is not reached");
    let result = result.fix("see the upstream's checks above; `waxseal queue list` shows each message with its reason");
    match why {
        Some(why) => result.evidence(why),
        None => result,
    }
}

async fn failed(access: &dyn QueueAccess, count: u64) -> CheckResult {
    let id = CheckId::QueueFailed;
    if count == 0 {
        return CheckResult::ok(id, "", "no mail has failed");
    }
    let oldest = oldest(access, RecipientState::Failed).await;
    let result = CheckResult::warning(id, "", format!("{} did not get their mail, which is kept", counted(count, "recipient")))
        .cause("the provider refused it for good, or it waited too long")
        .fix(
            "`waxseal queue list --state failed` shows it, `waxseal queue retry ID` sends it again, `waxseal queue remove ID` \
             forgets it",
        );
    match oldest.as_ref().and_then(|row| reason(row, RecipientState::Failed)) {
        Some(why) => result.evidence(why),
        None => result,
    }
}

fn held(overview: &Overview) -> CheckResult {
    let id = CheckId::QueueHeld;
    let lanes = overview.lanes.iter().flatten();
    let messages: u64 = lanes.map(|lane| lane.held).sum();
    match overview.held.as_slice() {
        [] if messages == 0 => CheckResult::ok(id, "", "no mail is held"),
        [] => CheckResult::warning(id, "", format!("{} held", counted(messages, "message")))
            .cause("a storm of equal mails (`[storm]`) was stopped")
            .fix("`waxseal queue list --state held` shows them; `waxseal queue release` sends them"),
        held => {
            let named = |lane: &Option<String>| lane.clone().unwrap_or_else(|| "all".to_owned());
            let lanes = held.iter().map(|held| named(&held.lane)).collect::<Vec<_>>().join(", ");
            CheckResult::warning(id, "", format!("the delivery of these lanes is stopped: {lanes}"))
                .cause("an operator held them; their mail is accepted and waits")
                .fix("`waxseal queue release --all` resumes it")
        }
    }
}
