//! The rules and routes of a configuration, for mail that is stored already.

use super::routes;
use crate::config::Settings;
use crate::delivery::UNROUTED;
use crate::intake::{Rerun, rerun};
use crate::message::MailId;
use crate::message::accepted::Addressed;
use crate::message::rewrite::Rules;
use crate::queue::control::{Rewriter, Ruling};
use crate::queue::{Lane, LaneOf, Operator, QueueError};
use async_trait::async_trait;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;

/// By default no rules, and routes that are not known.
#[derive(Default)]
pub struct ConfiguredRewriter {
    rules: Rules,
    lane_of: Option<LaneOf>,
}

impl fmt::Debug for ConfiguredRewriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RulesOf").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl ConfiguredRewriter {
    pub fn new(settings: &Settings) -> Self {
        let routes = routes(settings);
        Self {
            rules: settings.rules.clone(),
            lane_of: Some(Arc::new(move |addressed: &Addressed<'_>| routes.lane(addressed))),
        }
    }
}

#[async_trait]
impl Rewriter for ConfiguredRewriter {
    async fn rewrite(&self, queue: &dyn Operator, id: MailId, now: Timestamp) -> Result<Ruling, QueueError> {
        let count = |recipients| u64::try_from(recipients).unwrap_or(u64::MAX);
        let lane_of = self.lane_of().unwrap_or_else(|| Arc::new(|_| Lane::new(UNROUTED)));
        Ok(match rerun(queue, &self.rules, &lane_of, id, now).await? {
            Rerun::Rewritten { rules, changed, recipients } => Ruling::Rewritten {
                rules: rules.iter().map(ToString::to_string).collect(),
                changed,
                recipients: count(recipients),
            },
            Rerun::Unchanged { recipients } => Ruling::Unchanged { recipients: count(recipients) },
            Rerun::Discards { rule } => Ruling::Discards { rule: rule.to_string() },
            Rerun::Refused { rule, text } => Ruling::Refuses { rule: rule.to_string(), text },
            Rerun::Busy => Ruling::Busy,
            Rerun::Missing => Ruling::Missing,
            Rerun::Unreadable(why) => Ruling::Unreadable { why },
        })
    }

    fn lane_of(&self) -> Option<LaneOf> {
        self.lane_of.clone()
    }
}
