//! Finds the servers: the one that is configured, the master that Sentinel names, or the nodes of a cluster, by shard.

use super::answers::{list, number, text, texts};
use super::connect::connect;
use super::layout::Layout;
use super::options::{RedisOptions, RedisPlace, ServerAddress};
use super::server::{Unusable, unreachable};
use crate::queue::QueueError;
use redis::{Cmd, Pipeline, Value, cmd};

/// The server of each shard.
pub(super) async fn locate(options: &RedisOptions, layout: &Layout) -> Result<Vec<ServerAddress>, QueueError> {
    match &options.place {
        RedisPlace::Single(address) => Ok(vec![address.clone(); layout.shards.into()]),
        RedisPlace::Sentinel { master, addresses, login } => {
            let options = RedisOptions { login: login.clone(), database: 0, ..options.clone() };
            let mut ask = cmd("SENTINEL");
            ask.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
            let of_answer = |_: &ServerAddress, mut answers: Vec<Value>| {
                let words = answers.pop().map(texts).unwrap_or_default();
                let [host, port] = words.as_slice() else {
                    return Err(format!("no Sentinel knows a master {master:?}"));
                };
                let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
                Ok(vec![ServerAddress::Tcp { host: host.clone(), port }; layout.shards.into()])
            };
            first_answer("Sentinel", addresses, &options, &[ask], of_answer).await
        }
        RedisPlace::Cluster { addresses, .. } => {
            let slot_of = |shard| {
                let mut slot = cmd("CLUSTER");
                slot.arg("KEYSLOT").arg(layout.tag(shard));
                slot
            };
            let mut slots = cmd("CLUSTER");
            slots.arg("SLOTS");
            let commands: Vec<Cmd> = layout.all_shards().map(slot_of).chain([slots]).collect();
            first_answer("the cluster", addresses, options, &commands, nodes_of_shards).await
        }
    }
}

/// From the first of these servers that answers.
async fn first_answer<T>(
    what: &str,
    addresses: &[ServerAddress],
    options: &RedisOptions,
    commands: &[Cmd],
    read: impl Fn(&ServerAddress, Vec<Value>) -> Result<T, String>,
) -> Result<T, QueueError> {
    let mut reasons = Vec::new();
    let mut is_away = true;
    for address in addresses {
        let asked = async {
            let (mut connection, _driver) = connect(address, options).await?;
            let mut pipeline = Pipeline::new();
            for command in commands {
                pipeline.add_command(command.clone());
            }
            connection.send_packed_commands(&pipeline, 0, commands.len()).await
        };
        let read = match asked.await {
            Ok(answers) => read(address, answers).inspect_err(|_| is_away = false),
            Err(error) => {
                is_away &= matches!(unreachable(address, &error), Unusable::Away(_));
                Err(error.to_string())
            }
        };
        match read {
            Ok(found) => return Ok(found),
            Err(reason) => reasons.push(format!("{address}: {reason}")),
        }
    }
    let text = format!("Redis: {what} does not say where the queue is ({})", reasons.join("; "));
    Err(if is_away { QueueError::Away(text) } else { QueueError::Storage(text) })
}

/// The numbers of the slots, and then CLUSTER SLOTS: first, last, master, replicas.
fn nodes_of_shards(asked: &ServerAddress, mut answers: Vec<Value>) -> Result<Vec<ServerAddress>, String> {
    let ranges = answers.pop().map(list).unwrap_or_default();
    let ranges: Vec<(u32, u32, ServerAddress)> =
        ranges.into_iter().filter_map(|range| range_of(asked, range)).collect();
    let node_of = |slot: Value| {
        let slot: u32 = number(slot).ok_or("it is not a cluster")?;
        let owner = ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        owner.map(|(.., node)| node.clone()).ok_or(format!("no node serves slot {slot}"))
    };
    answers.into_iter().map(node_of).collect()
}

fn range_of(asked: &ServerAddress, range: Value) -> Option<(u32, u32, ServerAddress)> {
    let mut parts = list(range).into_iter();
    let (first, last) = (number(parts.next()?)?, number(parts.next()?)?);
    let mut master = list(parts.next()?).into_iter();
    let host = master.next().and_then(text).unwrap_or_default();
    let port = number(master.next()?)?;
    // A node that does not know its own name leaves it out.
    let host = match (host.is_empty(), asked) {
        (true, ServerAddress::Tcp { host, .. }) => host.clone(),
        _ => host,
    };
    Some((first, last, ServerAddress::Tcp { host, port }))
}
