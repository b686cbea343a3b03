//! Whether Redis holds the queue that this instance knows, or an older state of it, another one, or nothing: after FLUSHALL,
//! on an empty master, from an old backup. Pure.

use super::known::{AcceptedCount, KnownQueue, QueueGeneration};

/// What one shard says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShardIdentity {
    pub generation: QueueGeneration,
    /// Messages ever accepted there.
    pub accepted: AcceptedCount,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotTheQueue {
    #[error(
        "it does not hold this queue any more; {missing} acknowledged messages are missing. If that cannot be undone, `waxseal queue adopt`"
    )]
    Gone { missing: u64 },
    #[error(
        "it holds an older state of this queue; {missing} acknowledged messages are missing. If that cannot be undone, `waxseal queue adopt`"
    )]
    Older { missing: u64 },
    #[error("it holds another queue than the one that this gateway knows. If that is right, `waxseal queue adopt`")]
    Other,
    #[error(
        "its queue has {stored} shards and {configured} are configured; the number cannot be changed: set {stored}"
    )]
    Shards { stored: u16, configured: u16 },
}

/// `Some`: the shard is empty, nothing can be missing, and it is to become this.
pub(super) fn judge(
    known: &KnownQueue,
    shard: u16,
    shards: u16,
    stored: Option<&ShardIdentity>,
) -> Result<Option<QueueGeneration>, NotTheQueue> {
    let remembered = known.accepted.get(usize::from(shard)).copied().unwrap_or_default();
    let Some(ShardIdentity { generation: stored, accepted }) = stored else {
        if remembered.all > 0 {
            return Err(NotTheQueue::Gone { missing: remembered.all });
        }
        return Ok(Some(known.generation.clone().unwrap_or_else(|| QueueGeneration::first(shards))));
    };
    if stored.shards != shards {
        return Err(NotTheQueue::Shards { stored: stored.shards, configured: shards });
    }
    let Some(generation) = &known.generation else { return Ok(None) };
    if stored.queue != generation.queue {
        // Nothing that this instance accepted can be missing, so it does not matter where the other one comes from.
        return if known.accepted.iter().all(|accepted| accepted.all == 0) {
            Ok(None)
        } else {
            Err(NotTheQueue::Other)
        };
    }
    if stored.number > generation.number {
        // It was adopted by another instance.
        return Ok(None);
    }
    let missing = remembered.missing_in(*accepted);
    if stored.number < generation.number || missing > 0 {
        return Err(NotTheQueue::Older { missing });
    }
    Ok(None)
}

/// The generation after an adoption.
pub(super) fn after(known: &KnownQueue, stored: Option<&ShardIdentity>, shards: u16) -> QueueGeneration {
    let of_stored = stored.map(|stored| &stored.generation);
    let Some(base) = of_stored.or(known.generation.as_ref()) else { return QueueGeneration::first(shards) };
    let remembered = known.generation.as_ref().filter(|generation| generation.queue == base.queue);
    let number = remembered.map_or(base.number, |generation| generation.number.max(base.number)) + 1;
    QueueGeneration { queue: base.queue.clone(), number, shards }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_lost_mail_is_told_from_a_new_one() {
        let generation = |number| QueueGeneration { queue: "q".into(), number, shards: 1 };
        let count = |all, own| AcceptedCount { all, own };
        let by = |number, all, own| Some(ShardIdentity { generation: generation(number), accepted: count(all, own) });
        let of = |number, all| by(number, all, 4);
        let known = KnownQueue {
            instance: "i".into(),
            generation: Some(generation(2)),
            accepted: vec![count(10, 4)],
            clock: None,
        };
        let fresh = KnownQueue::default();
        let other = ShardIdentity {
            generation: QueueGeneration { queue: "x".into(), ..generation(1) },
            accepted: count(99, 99),
        };
        let wide =
            ShardIdentity { generation: QueueGeneration { shards: 16, ..generation(2) }, accepted: count(10, 4) };
        for (known, stored, expected) in [
            (&known, of(2, 10), Ok(())),
            (&known, of(2, 11), Ok(())),
            (&known, of(3, 0), Ok(())),
            (&fresh, of(9, 9), Ok(())),
            (&fresh, None, Ok(())),
            (&known, None, Err(NotTheQueue::Gone { missing: 10 })),
            (&known, of(2, 9), Err(NotTheQueue::Older { missing: 1 })),
            (&known, of(1, 10), Err(NotTheQueue::Older { missing: 0 })),
            // Others have accepted more since this one's were lost.
            (&known, by(2, 99, 1), Err(NotTheQueue::Older { missing: 3 })),
            (&known, Some(other), Err(NotTheQueue::Other)),
            (&known, Some(wide), Err(NotTheQueue::Shards { stored: 16, configured: 1 })),
        ] {
            assert_eq!(judge(known, 0, 1, stored.as_ref()).map(drop), expected, "{stored:?}");
            let adopted = ShardIdentity { generation: after(known, stored.as_ref(), 1), accepted: count(0, 0) };
            let knows = KnownQueue {
                generation: Some(adopted.generation.clone()),
                accepted: vec![count(0, 0)],
                ..known.clone()
            };
            assert_eq!(judge(&knows, 0, 1, Some(&adopted)), Ok(None), "adopted: {stored:?}");
        }
    }
}
