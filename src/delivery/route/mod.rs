//! Routes: which upstreams serve which recipient, and on which lane of the queue its mail waits.
//!
//! The first match is used. Mail that matches no route is never sent, so no upstream gets mail that was not meant for
//! it. If a rule names the upstream of a message, the routes are not consulted. A lane is a route's name, or
//! `upstream:NAME` if a rule decided.

mod choice;
mod conditions;
#[cfg(test)]
mod tests;

pub use choice::Choice;
pub use conditions::RouteConditions;

use crate::message::accepted::{Accepted, Addressed};
use crate::message::{MailId, Mark, Reason};
use crate::queue::Lane;
use crate::smtp::EnhancedCode;
use std::sync::Arc;

/// A `[[route]]`. Upstreams are given by index.
#[derive(Debug, Clone)]
pub struct Route {
    pub name: Arc<str>,
    pub conditions: RouteConditions,
    pub upstreams: Choice<usize>,
    /// A message that one upstream refuses permanently is offered to the next.
    pub retry_refused: bool,
}

/// The lane of mail without a route; also the name of the route that exists when none is configured.
pub const UNROUTED: &str = "default";

/// Prefix of the lanes of mail whose upstream a rule chose. The configuration ensures that no route's name begins with
/// it.
pub const CHOSEN: &str = "upstream:";

#[derive(Debug, Clone, Default)]
pub struct Routes {
    routes: Vec<Route>,
    /// Names by index.
    upstreams: Vec<Arc<str>>,
}

/// The route of one recipient's mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientRoute {
    /// The lane: the route's name, or [`CHOSEN`] and the upstream's name.
    pub name: Arc<str>,
    /// Indices in the order of tries; never empty.
    pub upstreams: Vec<usize>,
    pub retry_refused: bool,
}

/// Why a recipient has no route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRoute {
    NoRoute,
    /// A rule chose it, but it is no longer in the configuration.
    NoUpstream(Mark),
}

/// Recipients of one message with the same route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouteGroup {
    pub way: Result<RecipientRoute, NoRoute>,
    /// Indices in the envelope.
    pub members: Vec<usize>,
}

/// The decision before a weighted choice is made.
enum RouteDecision<'a> {
    ByRoute(&'a Route),
    ByRule(usize),
}

impl Routes {
    /// `upstreams`: the names of all upstreams, in the order of the indices that routes use.
    pub fn new(routes: Vec<Route>, upstreams: Vec<Arc<str>>) -> Self {
        Self { routes, upstreams }
    }

    /// `id`: the message's id, which determines a weighted choice.
    pub fn route_for(&self, addressed: &Addressed<'_>, id: MailId) -> Result<RecipientRoute, NoRoute> {
        Ok(match self.decide(addressed)? {
            RouteDecision::ByRoute(route) => RecipientRoute {
                name: route.name.clone(),
                upstreams: route.upstreams.order(id),
                retry_refused: route.retry_refused,
            },
            RouteDecision::ByRule(index) => {
                RecipientRoute { name: self.chosen(index), upstreams: vec![index], retry_refused: false }
            }
        })
    }

    pub fn lane(&self, addressed: &Addressed<'_>) -> Lane {
        Lane::new(match self.decide(addressed) {
            Ok(RouteDecision::ByRoute(route)) => route.name.clone(),
            Ok(RouteDecision::ByRule(index)) => self.chosen(index),
            Err(_) => UNROUTED.into(),
        })
    }

    /// An upstream's name.
    pub fn upstream(&self, index: usize) -> &str {
        self.upstreams.get(index).map_or("", |name| name)
    }

    /// Every lane that [`Routes::lane`] can name, with its upstreams.
    pub fn lanes(&self) -> Vec<(Lane, Vec<usize>)> {
        let mut lanes = vec![(Lane::new(UNROUTED), vec![0])];
        lanes.extend((0..self.upstreams.len()).map(|index| (Lane::new(self.chosen(index)), vec![index])));
        for route in &self.routes {
            let upstreams = route.upstreams.upstreams().into_iter().copied();
            match lanes.iter_mut().find(|(known, _)| *known.as_str() == *route.name) {
                Some((_, known)) => known.extend(upstreams),
                None => lanes.push((Lane::new(route.name.clone()), upstreams.collect())),
            }
        }
        for (_, upstreams) in &mut lanes {
            upstreams.sort_unstable();
            upstreams.dedup();
        }
        lanes
    }

    /// Changes whenever a recipient may get another lane: if a route's name or conditions change, or the set of
    /// upstreams does.
    pub fn fingerprint(&self) -> String {
        let routes = self.routes.iter().map(|route| format!("{:?} {}", route.name, route.conditions.fingerprint()));
        let mut upstreams = self.upstreams.clone();
        upstreams.sort();
        routes.chain([format!("{upstreams:?}")]).collect::<Vec<_>>().join("\n")
    }

    /// In order of first appearance.
    pub(super) fn group(&self, accepted: &Accepted) -> Vec<RouteGroup> {
        let mut groups: Vec<RouteGroup> = Vec::new();
        let header = accepted.asked_header();
        for (index, recipient) in accepted.envelope.recipients.iter().enumerate() {
            let way = self.route_for(&accepted.addressed(recipient, &header), accepted.id);
            match groups.iter_mut().find(|known| is_the_same(&known.way, &way)) {
                Some(group) => group.members.push(index),
                None => groups.push(RouteGroup { way, members: vec![index] }),
            }
        }
        groups
    }

    fn decide(&self, addressed: &Addressed<'_>) -> Result<RouteDecision<'_>, NoRoute> {
        if let Some(chosen) = &addressed.marks.upstream {
            let found = self.upstreams.iter().position(|name| **name == *chosen.as_str());
            return found.map(RouteDecision::ByRule).ok_or_else(|| NoRoute::NoUpstream(chosen.clone()));
        }
        let found = self.routes.iter().find(|route| route.conditions.matches(addressed));
        found.map(RouteDecision::ByRoute).ok_or(NoRoute::NoRoute)
    }

    fn chosen(&self, index: usize) -> Arc<str> {
        lane_of_upstream(self.upstream(index)).into()
    }
}

/// The lane of mail for which a rule chose this upstream.
pub fn lane_of_upstream(name: &str) -> String {
    format!("{CHOSEN}{name}")
}

/// Two routes to the same upstreams share one transaction.
fn is_the_same(one: &Result<RecipientRoute, NoRoute>, other: &Result<RecipientRoute, NoRoute>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => one.upstreams == other.upstreams && one.retry_refused == other.retry_refused,
        (one, other) => one == other,
    }
}

impl NoRoute {
    /// Mail without a route may still be sent once the configuration is corrected.
    pub fn reason(&self) -> Reason {
        // RFC 3463 §3.5: X.4.4, unable to route.
        let enhanced = EnhancedCode::new(4, 4, 4);
        match self {
            Self::NoRoute => {
                let text = "no [[route]] matches mail from this sender to this recipient".to_owned();
                Reason::local(None, enhanced, text).with_advice("end the routes with one that matches everything")
            }
            Self::NoUpstream(name) => {
                let text = format!("a rule chose the upstream \"{name}\", and there is no [[upstream]] of that name");
                Reason::local(None, enhanced, text)
                    .with_advice(format!("add an [[upstream]] named \"{name}\" and restart"))
            }
        }
    }
}
