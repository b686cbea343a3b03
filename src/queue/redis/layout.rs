//! The names of all keys in Redis. Everything of one message lies in one shard, and a shard is one hash slot, so a script
//! may change it in one step, in Redis Cluster too. Nothing else may build a key.

use crate::message::MailId;
use crate::observe::random::random_u32;
use crate::queue::IdempotencyKey;
use std::fmt::Write as _;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(super) struct Layout {
    prefix: Arc<str>,
    pub shards: u16,
}

/// Where a message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(super) struct MessagePlace {
    pub shard: u16,
    pub id: MailId,
}

impl Layout {
    /// `prefix` must not contain braces.
    pub(super) fn new(prefix: &str, shards: u16) -> Self {
        Self { prefix: prefix.into(), shards: shards.max(1) }
    }

    fn key(&self, shard: u16, name: &str) -> String {
        format!("{{{}:{shard}}}:{name}", self.prefix)
    }

    /// Any key of the shard has the hash slot of this one.
    pub(super) fn tag(&self, shard: u16) -> String {
        format!("{}:{shard}", self.prefix)
    }

    pub(super) fn all_shards(&self) -> impl Iterator<Item = u16> + use<> {
        0..self.shards
    }

    /// The shard of new mail. Mail with a key is stored by that key: calls that have it in common must meet in one shard.
    pub(super) fn shard_of(&self, id: MailId, key: Option<IdempotencyKey>) -> u16 {
        let hash = key.map_or_else(|| hash_of(id.as_str().as_bytes()), |IdempotencyKey(key)| hash_of(&key));
        (hash % u64::from(self.shards)) as u16
    }

    /// Hash: `v` version, `rec` record, `head`, `body`, `orig`, `seq` position in the order of acceptance, `put` and `by` the
    /// tokens of the put and of the last change.
    pub(super) fn message(&self, place: MessagePlace) -> String {
        self.key(place.shard, &format!("m:{}", place.id))
    }

    /// Hash: holds, counters, `accepted` and `accepted:<instance>` messages ever accepted, `gen` identity, `routes`, `routing` and `epoch` of the lanes, `tick` the last position given out,
    /// `turn:<lane>` the domain that had its turn last.
    pub(super) fn control(&self, shard: u16) -> String {
        self.key(shard, "ctl")
    }

    /// Sorted set: id → position in the order of acceptance.
    pub(super) fn all(&self, shard: u16) -> String {
        self.key(shard, "all")
    }

    /// Sorted set: id → due time of what waits on the lane.
    pub(super) fn due(&self, shard: u16, lane: &str) -> String {
        self.key(shard, &format!("q:{lane}"))
    }

    /// Sorted set: sender domain → its first due time on the lane.
    pub(super) fn domains(&self, shard: u16, lane: &str) -> String {
        self.key(shard, &format!("d:{lane}"))
    }

    /// Sorted set: id → due time of what waits on the lane from one sender domain.
    pub(super) fn due_of_domain(&self, shard: u16, lane: &str, domain: &str) -> String {
        self.key(shard, &format!("t:{}:{domain}:{lane}", domain.len()))
    }

    /// Sorted set: [`lease_member`] → end of the lease, in microseconds of the server's clock.
    pub(super) fn leases(&self, shard: u16, instance: &str) -> String {
        self.key(shard, &format!("k:{instance}"))
    }

    /// Sorted set: id → when its first failed recipient failed, by the queue's own clock.
    pub(super) fn failed(&self, shard: u16) -> String {
        self.key(shard, "failed")
    }

    /// Sorted set: `<position> <row>` → position.
    pub(super) fn history(&self, shard: u16) -> String {
        self.key(shard, "hist")
    }

    /// Sorted set without scores: `<id>:<position>`.
    pub(super) fn history_by_id(&self, shard: u16) -> String {
        self.key(shard, "histid")
    }

    /// Hash: key in hexadecimal → `<id> <until>`.
    pub(super) fn known_keys(&self, shard: u16) -> String {
        self.key(shard, "dedup")
    }

    /// Sorted set: key in hexadecimal → until when it is known, by the queue's own clock.
    pub(super) fn known_until(&self, shard: u16) -> String {
        self.key(shard, "dedupend")
    }

    /// Sorted set: ids whose put was given up → when, by the queue's own clock.
    pub(super) fn revoked(&self, shard: u16) -> String {
        self.key(shard, "revoked")
    }

    /// Hash in shard 0: the clock by which mail ages.
    pub(super) fn lifetime(&self) -> String {
        self.key(0, "lived")
    }

    /// Hash in shard 0: instance → what it said of itself last.
    pub(super) fn instances(&self) -> String {
        self.key(0, "inst")
    }

    /// Hash in shard 0: number → `<at> <units>`. Each instance has its own.
    pub(super) fn quota(&self, instance: &str, name: &str) -> String {
        self.key(0, &format!("quota:{instance}:{name}"))
    }

    /// Hash: `<state>:<lane>` → number of recipients.
    pub(super) fn counts(&self, shard: u16) -> String {
        self.key(shard, "counts")
    }

    /// Sorted set: id → position in the order of acceptance, of what waits or is leased on the lane.
    pub(super) fn oldest(&self, shard: u16, lane: &str) -> String {
        self.key(shard, &format!("o:{lane}"))
    }

    /// Hash in shard 0: what each instance has of an account's connections (limits/permits.lua).
    pub(super) fn permits(&self, account: &str) -> String {
        self.key(0, &format!("permits:{account}"))
    }

    /// Hash in shard 0: usage of an account's rates (limits/rates.lua).
    pub(super) fn rates(&self, account: &str) -> String {
        self.key(0, &format!("rates:{account}"))
    }

    /// Hash in shard 0: pauses of an account's upstreams (limits/breaker.lua).
    pub(super) fn breakers(&self, account: &str) -> String {
        self.key(0, &format!("breakers:{account}"))
    }

    /// Set in shard 0: accounts that have permits.
    pub(super) fn limited_accounts(&self) -> String {
        self.key(0, "accounts")
    }

    /// Hash in shard 0: instance → number of its current run.
    pub(super) fn limit_runs(&self) -> String {
        self.key(0, "runs")
    }

    /// Channel on which instances wake each other.
    pub(super) fn channel(&self) -> String {
        format!("{}:wake", self.prefix)
    }
}

/// Names one lease within the leases of an instance.
pub(super) fn lease_member(id: MailId, fence: u64, lane: &str) -> String {
    format!("{id} {fence} {lane}")
}

pub(super) fn split_lease_member(member: &str) -> Option<(MailId, u64, &str)> {
    let mut parts = member.splitn(3, ' ');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?))
}

pub(super) fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// A name that nothing else has: of a queue, an instance, a change.
pub(super) fn unique() -> String {
    format!("{:08x}{:08x}{:08x}", random_u32(), random_u32(), random_u32())
}

/// FNV-1a. It decides where mail is stored, so it must never change.
fn hash_of(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_lanes_or_domains_share_a_key() {
        let layout = Layout::new("wax", 1);
        let names = ["a", "b", "a:b", "b:a", "", "1:a", "held:a", "t:1:a"];
        let mut keys = HashSet::new();
        for lane in names {
            assert!(
                keys.insert(layout.due(0, lane))
                    && keys.insert(layout.domains(0, lane))
                    && keys.insert(layout.oldest(0, lane))
            );
            assert!(names.iter().all(|domain| keys.insert(layout.due_of_domain(0, lane, domain))));
        }
        assert!(keys.iter().all(|key| key.starts_with("{wax:0}:")));
    }

    #[test]
    fn a_lease_is_named_with_its_lane_whatever_that_holds() {
        let id = MailId::new(jiff::Timestamp::UNIX_EPOCH, 7);
        for lane in ["a", "a lane of two words", ""] {
            assert_eq!(split_lease_member(&lease_member(id, 9, lane)), Some((id, 9, lane)));
        }
        assert_eq!(split_lease_member("nonsense"), None);
    }

    #[test]
    fn mail_is_spread_over_the_shards_and_stays_where_it_is() {
        let layout = Layout::new("wax", 16);
        let shard = |number| layout.shard_of(MailId::new(jiff::Timestamp::UNIX_EPOCH, number), None);
        let used: HashSet<_> = (0..500).map(shard).collect();
        assert_eq!(used.len(), 16);
        assert_eq!(hash_of(b"waxseal"), 0x0e33_4177_684b_ea76, "mail that is stored would not be found");
    }
}
