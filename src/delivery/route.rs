//! Routes: which upstreams serve which recipient. First match wins; without a match, the first upstream.

use crate::message::SenderPatterns;
use crate::smtp::{Mailbox, ReversePath};
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
    fn matches(&self, sender: &ReversePath, recipient: &Mailbox) -> bool {
        let sender_matches = sender.mailbox().map_or(self.senders.is_any(), |mailbox| self.senders.matches(mailbox));
        sender_matches && self.recipients.matches(recipient)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Routes {
    routes: Vec<Route>,
}

impl Routes {
    pub fn new(routes: Vec<Route>) -> Self {
        Self { routes }
    }

    /// Upstreams in order for one recipient.
    pub fn upstreams(&self, sender: &ReversePath, recipient: &Mailbox) -> &[usize] {
        let found = self.routes.iter().find(|route| route.matches(sender, recipient));
        found.map_or(&[0], |route| route.upstreams.as_slice())
    }

    /// Recipients that go the same way, by their index in the envelope; groups in order of first appearance.
    pub fn group(&self, sender: &ReversePath, recipients: &[Mailbox]) -> Vec<(Vec<usize>, Vec<usize>)> {
        let mut groups: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
        for (index, recipient) in recipients.iter().enumerate() {
            let upstreams = self.upstreams(sender, recipient);
            match groups.iter_mut().find(|(known, _)| known == upstreams) {
                Some((_, members)) => members.push(index),
                None => groups.push((upstreams.to_vec(), vec![index])),
            }
        }
        groups
    }
}
