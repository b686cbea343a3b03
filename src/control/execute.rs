//! Carries out requests on a queue. Never more than a page at a time, whatever a request says. No sockets here.

use super::change;
use super::protocol::{Change, ControlRequest, ControlResponse, MAX_PAGE, MessageContent, Overview};
use super::wire::ControlRefusal;
use crate::delivery::Routes;
use crate::message::rewrite::Rules;
use crate::queue::{Lane, LaneOf, Operator, QueueError};
use jiff::Timestamp;
use std::sync::Arc;

/// The rules and routes of a configuration, for mail that is stored already. By default no rules, and routes that are not known.
#[derive(Debug, Clone, Default)]
pub struct CurrentRules {
    pub rules: Rules,
    pub routes: Option<Arc<Routes>>,
}

impl CurrentRules {
    /// `None`: the routes are not known.
    pub(super) fn lane_of(&self) -> Option<LaneOf> {
        let routes = self.routes.clone()?;
        Some(Arc::new(move |addressed| routes.lane(addressed)))
    }
}

/// A request that fails is answered with a refusal that says why.
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
            Change::Remove => ControlResponse::Changed(change::remove(queue, which).await?),
        },
        ControlRequest::Hold { lane, held } => {
            queue.hold(lane.map(Lane::new).as_ref(), held).await?;
            ControlResponse::Overview(overview(queue).await?)
        }
    })
}

async fn overview(queue: &dyn Operator) -> Result<Overview, QueueError> {
    Ok(Overview { held: queue.holds().await?, counts: queue.statistics().await? })
}
