//! Routes: which upstreams serve which recipient, and on which lane of the queue it waits for them.
//!
//! First match wins; what matches none has no way out, and is never sent through an upstream that nobody named for it. A
//! lane is a route's name and nothing more.

use crate::message::SenderPatterns;
use crate::message::accepted::{Accepted, Addressed};
use crate::queue::Lane;
use std::sync::Arc;

/// A `[[route]]`.
#[derive(Debug, Clone)]
pub struct Route {
    pub name: Arc<str>,
    pub senders: SenderPatterns,
    pub recipients: SenderPatterns,
    /// Indices of upstreams, in the order of trying; never empty.
    pub upstreams: Vec<usize>,
}

impl Route {
    /// The null path matches only a route that takes every sender.
    fn matches(&self, addressed: &Addressed<'_>) -> bool {
        let sender_matches = addressed.sender.map_or(self.senders.is_any(), |sender| self.senders.matches(sender));
        sender_matches && self.recipients.matches(addressed.recipient)
    }
}

/// The lane of what no route takes; also the configuration's name for the route that there is without any.
const UNROUTED: &str = "default";

#[derive(Debug, Clone, Default)]
pub struct Routes {
    routes: Vec<Route>,
}

impl Routes {
    pub fn new(routes: Vec<Route>) -> Self {
        Self { routes }
    }

    /// Upstreams in order for one recipient; none if no route takes it.
    pub fn upstreams(&self, addressed: &Addressed<'_>) -> &[usize] {
        let found = self.routes.iter().find(|route| route.matches(addressed));
        found.map_or(&[], |route| route.upstreams.as_slice())
    }

    pub fn lane(&self, addressed: &Addressed<'_>) -> Lane {
        let found = self.routes.iter().find(|route| route.matches(addressed));
        Lane::new(found.map_or(UNROUTED.into(), |route| route.name.clone()))
    }

    /// Every lane that [`Routes::lane`] can name, with its upstreams.
    pub fn lanes(&self) -> Vec<(Lane, Vec<usize>)> {
        let mut lanes = vec![(Lane::new(UNROUTED), vec![0])];
        for route in &self.routes {
            let (lane, upstreams) = (Lane::new(route.name.clone()), route.upstreams.clone());
            match lanes.iter_mut().find(|(known, _)| *known == lane) {
                Some((_, known)) => known.extend(upstreams),
                None => lanes.push((lane, upstreams)),
            }
        }
        for (_, upstreams) in &mut lanes {
            upstreams.sort_unstable();
            upstreams.dedup();
        }
        lanes
    }

    /// Changes whenever a recipient may get another lane.
    pub fn fingerprint(&self) -> String {
        let texts = self.routes.iter().map(|route| format!("{}|{}|{}", route.name, route.senders, route.recipients));
        texts.collect::<Vec<_>>().join("\n")
    }

    /// Recipients that go the same way, by their index in the envelope; groups in order of first appearance.
    pub fn group(&self, accepted: &Accepted) -> Vec<(Vec<usize>, Vec<usize>)> {
        let mut groups: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
        for (index, recipient) in accepted.envelope.recipients.iter().enumerate() {
            let upstreams = self.upstreams(&accepted.addressed(recipient));
            match groups.iter_mut().find(|(known, _)| known == upstreams) {
                Some((_, members)) => members.push(index),
                None => groups.push((upstreams.to_vec(), vec![index])),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Marks;
    use crate::message::accepted::Origin;
    use crate::smtp::Mailbox;

    fn route(senders: &str, recipients: &str, upstreams: &[usize]) -> Route {
        let patterns = |text: &str| SenderPatterns::parse([text]).expect("a pattern");
        let (senders, recipients) = (patterns(senders), patterns(recipients));
        Route { name: "a route".into(), senders, recipients, upstreams: upstreams.to_vec() }
    }

    #[test]
    fn the_first_match_wins_and_what_matches_none_goes_nowhere() {
        let routes = Routes::new(vec![
            route("*@example.com", "*@example.net", &[1]),
            route("*@example.com", "*@*.net", &[2, 1]),
            route("*", "vip@example.org", &[0]),
        ]);
        for (sender, recipient, expected) in [
            ("a@example.com", "you@example.net", &[1][..]),
            ("a@example.com", "you@other.net", &[2, 1]),
            ("a@example.org", "you@example.net", &[]),
            ("a@example.com", "you@example.org", &[]),
            ("a@example.com", "vip@example.org", &[0]),
            ("", "vip@example.org", &[0]),
            ("", "you@example.net", &[]),
        ] {
            let (from, to) = (Mailbox::parse(sender).ok(), Mailbox::parse(recipient).expect("an address"));
            let (origin, marks) = (Origin::default(), Marks::default());
            let addressed =
                Addressed { sender: from.as_ref(), recipient: &to, origin: &origin, marks: &marks, header: b"" };
            assert_eq!(routes.upstreams(&addressed), expected, "{sender} to {recipient}");
        }
    }
}
