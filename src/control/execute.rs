//! Carries out requests on a queue. Never more than a page at a time, whatever a request says. No sockets here.

use super::change::{self, CurrentRules};
use super::protocol::{
    Blame, Change, ControlRefusal, ControlRequest, ControlResponse, MAX_PAGE, MessageContent, Overview,
};
use super::status;
use crate::queue::{Lane, Operator, QueueError};
use jiff::Timestamp;

/// A failed request is answered with a refusal that says why.
pub async fn execute(
    queue: &dyn Operator,
    rules: &CurrentRules,
    request: ControlRequest,
    now: Timestamp,
) -> ControlResponse {
    answer(queue, rules, request, now).await.unwrap_or_else(ControlResponse::Refused)
}

async fn answer(
    queue: &dyn Operator,
    rules: &CurrentRules,
    request: ControlRequest,
    now: Timestamp,
) -> Result<ControlResponse, ControlRefusal> {
    Ok(match request {
        ControlRequest::Overview => ControlResponse::Overview(overview(queue).await?),
        ControlRequest::Status => ControlResponse::Status(Box::new(status::gather(queue, None, now).await?)),
        ControlRequest::List { filter, after, limit } => {
            ControlResponse::Page(queue.list(&filter, after, limit.clamp(1, MAX_PAGE)).await?)
        }
        ControlRequest::History { before, limit } => {
            ControlResponse::History(queue.history(before, limit.clamp(1, MAX_PAGE)).await?)
        }
        ControlRequest::Show { id } => ControlResponse::Shown(queue.show(id).await?.map(Box::new)),
        ControlRequest::Content { id } => {
            let data = queue.content(id).await?;
            let content = data.map(|data| MessageContent { octets: data.len() as u64, data });
            ControlResponse::Content(content)
        }
        ControlRequest::Change { what, which } => match what {
            Change::Retry { to } => ControlResponse::Changed(change::retry(queue, rules, to, which, now).await?),
            Change::RetryByRules => ControlResponse::Ruled(change::retry_by_rules(queue, rules, which, now).await?),
            Change::Release => ControlResponse::Changed(change::release(queue, which).await?),
            Change::Remove => ControlResponse::Changed(change::remove(queue, which).await?),
        },
        ControlRequest::Reload => return Err(ControlRefusal::new(Blame::Gateway, "no gateway runs here")),
        ControlRequest::Hold { lane, held } => {
            queue.hold(lane.map(Lane::new).as_ref(), held).await?;
            ControlResponse::Overview(overview(queue).await?)
        }
        ControlRequest::Instances => ControlResponse::Instances(queue.instances().await?),
        ControlRequest::Forget { instance } => ControlResponse::Forgotten(queue.forget(&instance).await?),
        // Only a running gateway has connections and listeners.
        ControlRequest::Examine { .. } => ControlResponse::Examined(None),
        ControlRequest::Submit { .. } => ControlResponse::Submitted(None),
    })
}

async fn overview(queue: &dyn Operator) -> Result<Overview, QueueError> {
    let (held, counts) = (queue.holds().await?, queue.statistics().await?);
    Ok(Overview { held, counts, lanes: None, spool: queue.spool().await? })
}
