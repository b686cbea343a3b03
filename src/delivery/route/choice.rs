//! The order in which a route's upstreams are tried for one message: as listed, or by weight. A message keeps its order
//! for as long as it waits, so that a retry uses another upstream only by failover.

use crate::message::MailId;
use aws_lc_rs::digest::{SHA256, digest};
use std::cmp::Reverse;

/// `U`: represents an upstream. Never empty; each upstream once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<U> {
    InOrder(Vec<U>),
    /// Each with its weight, at least 1; the heaviest first.
    ByWeight(Vec<(U, u32)>),
}

impl<U> Choice<U> {
    /// Upstreams of equal weight keep their order.
    pub fn by_weight(mut weights: Vec<(U, u32)>) -> Self {
        weights.sort_by_key(|(_, weight)| Reverse(*weight));
        Self::ByWeight(weights)
    }

    pub fn upstreams(&self) -> Vec<&U> {
        match self {
            Self::InOrder(upstreams) => upstreams.iter().collect(),
            Self::ByWeight(weights) => weights.iter().map(|(upstream, _)| upstream).collect(),
        }
    }

    /// Leaves out upstreams for which `find` returns `None`.
    pub fn filter_map<V>(&self, mut find: impl FnMut(&U) -> Option<V>) -> Choice<V> {
        match self {
            Self::InOrder(upstreams) => Choice::InOrder(upstreams.iter().filter_map(find).collect()),
            Self::ByWeight(weights) => {
                let found = weights.iter().filter_map(|(upstream, weight)| Some((find(upstream)?, *weight)));
                Choice::ByWeight(found.collect())
            }
        }
    }
}

impl<U: Clone> Choice<U> {
    /// By weight: one is drawn for the message, then the others follow, the heaviest first.
    pub fn order(&self, id: MailId) -> Vec<U> {
        match self {
            Self::InOrder(upstreams) => upstreams.clone(),
            Self::ByWeight(weights) => {
                let mut order: Vec<U> = weights.iter().map(|(upstream, _)| upstream.clone()).collect();
                let drawn = order.remove(drawn(weights, id));
                order.insert(0, drawn);
                order
            }
        }
    }
}

/// The index of the drawn upstream. The id itself is not random enough, since most of it is the time. SHA-256 (FIPS
/// 180-4) is used because a message may wait across an upgrade, and the standard library's hash may change.
fn drawn<U>(weights: &[(U, u32)], id: MailId) -> usize {
    let hash = digest(&SHA256, id.as_str().as_bytes());
    let lot = hash.as_ref().iter().take(8).fold(0, |lot, byte| lot << 8 | u64::from(*byte));
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut left = lot % total.max(1);
    for (at, (_, weight)) in weights.iter().enumerate() {
        match left.checked_sub(u64::from(*weight)) {
            Some(rest) => left = rest,
            None => return at,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids as generated within a busy second.
    fn ids(count: u32) -> impl Iterator<Item = MailId> {
        let at = |number: u32| jiff::Timestamp::from_millisecond(1_795_000_000_000 + i64::from(number / 4));
        (0..count).map(move |number| MailId::new(at(number).expect("in range"), number.wrapping_mul(2_654_435_761)))
    }

    /// The ids and counts are fixed, so this test is deterministic. Six standard deviations are about 260 here.
    #[test]
    fn messages_are_spread_by_weight() {
        let choice = Choice::by_weight(vec![("light", 1), ("heavy", 3)]);
        let drawn = |wanted| ids(10_000).filter(|id| choice.order(*id)[0] == wanted).count();
        let light = drawn("light");
        let heavy = drawn("heavy");
        assert_eq!(light + heavy, 10_000);
        assert!(heavy.abs_diff(7_500) < 260, "{heavy} of 10000 for a weight of 3 in 4");
    }

    /// The first eight octets of each id's SHA-256, computed by another program, and their remainder modulo eight.
    #[test]
    fn a_message_keeps_its_upstream_from_one_build_to_the_next() {
        let choice = Choice::by_weight(vec![("a", 5), ("b", 2), ("c", 1)]);
        for (id, first) in [
            ("01hzy3m8k2d4f6g8", "c"),
            ("01hzy3m8k2d4f6g9", "a"),
            ("01hzy3m8k2d4f6ga", "a"),
            ("01hzy3m8k2d4f6gb", "b"),
            ("01hzy3m8k2d4f6gc", "b"),
            ("01hzy3m8k2d4f6gd", "b"),
            ("01kb2w7n0000000z", "a"),
            ("7zzzzzzzzzzzzzzz", "a"),
        ] {
            assert_eq!(choice.order(id.parse().expect("an id"))[0], first, "{id}");
        }
    }

    #[test]
    fn a_message_keeps_its_order_and_the_rest_follows_by_weight() {
        let choice = Choice::by_weight(vec![("a", 1), ("b", 5), ("c", 2)]);
        for id in ids(1_000) {
            let order = choice.order(id);
            assert_eq!(order, choice.order(id));
            let rest: Vec<_> = ["b", "c", "a"].into_iter().filter(|upstream| *upstream != order[0]).collect();
            assert_eq!(order[1..], rest, "the first is {}", order[0]);
        }
        for upstream in ["a", "b", "c"] {
            assert!(ids(1_000).any(|id| choice.order(id)[0] == upstream), "{upstream} is never the first");
        }
        let order = vec!["a", "b", "c"];
        assert!(ids(100).all(|id| Choice::InOrder(order.clone()).order(id) == order));
    }
}
