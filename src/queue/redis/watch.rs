//! What runs beside the calls: looks at the servers every second, says that this instance runs, renews and takes over leases,
//! tells Redis what it could not be told before, and listens for other instances' mail. Ends with the queue.

use super::answers::text;
use super::connect::{Task, listen};
use super::store::RedisStore;
use crate::observe::Backoff;
use crate::queue::{Lane, QueueError};
use redis::{PushKind, Value};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

const EVERY: Duration = Duration::from_secs(1);

pub(super) fn start(store: &Arc<RedisStore>) -> [Task; 2] {
    [Task::spawn(watch(Arc::downgrade(store))), Task::spawn(hear(Arc::downgrade(store)))]
}

async fn watch(store: Weak<RedisStore>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed_at: Option<Instant> = None;
    let mut last: Option<String> = None;
    loop {
        ticks.tick().await;
        let Some(store) = store.upgrade().filter(|store| !store.link.is_closed()) else { return };
        let is_renewal_due = store.is_gateway && renewed_at.is_none_or(|at| at.elapsed() >= store.lease_length / 3);
        let looked = look(&store, is_renewal_due).await;
        if looked.is_ok() && is_renewal_due {
            renewed_at = Some(Instant::now());
        }
        let trouble = looked.err().filter(|error| !matches!(error, QueueError::Closed)).map(|error| error.to_string());
        match &trouble {
            // Once, not every second.
            Some(error) if last.is_none() && store.has_spool && store.link.away().is_some() => {
                error!(
                    error,
                    "Redis does not answer; new mail is stored in the spool, and nothing is delivered until it does"
                )
            }
            Some(error) if last.is_none() => {
                error!(error, "the shared queue cannot be used; mail is refused until it can")
            }
            None if last.is_some() => info!("the shared queue can be used again"),
            _ => {}
        }
        last = trouble;
    }
}

async fn look(store: &Arc<RedisStore>, is_renewal_due: bool) -> Result<(), QueueError> {
    store.begun().await?;
    let examined = store.link.look().await?;
    store.times.measure(examined.time);
    store.memory.learn(examined.used_memory, examined.max_memory);
    store.replay().await?;
    store.say_alive().await?;
    if is_renewal_due {
        store.renew().await?;
        store.take_over().await?;
    }
    store.keep_lifetime(false).await?;
    let keeper = store.clone();
    let kept = spawn_blocking(move || keeper.link.known.keep()).await;
    kept.map_err(|_| QueueError::Closed)?.map_err(|error| QueueError::Storage(error.to_string()))
}

/// A hint only: the loops also look by themselves.
async fn hear(store: Weak<RedisStore>) {
    let mut backoff = Backoff::default();
    loop {
        let Some(queue) = store.upgrade().filter(|store| !store.link.is_closed()) else { return };
        let heard = async {
            let node = queue.link.node(0).await.ok()?;
            listen(&node.address, &queue.link.options, &queue.layout.channel()).await.ok()
        };
        let heard = heard.await;
        let instance = queue.instance.clone();
        drop(queue);
        if let Some((mut messages, _connection, _driver)) = heard {
            backoff.reset();
            while let Some(message) = messages.recv().await {
                let Some(queue) = store.upgrade() else { return };
                match message.kind {
                    PushKind::Message => wake(&queue, &instance, message.data),
                    PushKind::Disconnection => break,
                    _ => {}
                }
            }
        }
        backoff.wait().await;
    }
}

/// `<instance> <lane>`, as put.rs tells it.
fn wake(store: &RedisStore, instance: &str, data: Vec<Value>) {
    let message = data.into_iter().nth(1).and_then(text).unwrap_or_default();
    if let Some((from, lane)) = message.split_once(' ')
        && from != instance
    {
        store.wakeups.wake(&[Lane::new(lane)]);
    }
}
