//! `Node`: the connections to one server: one for what is read, one for changes. Changes that wait at the same time go out as
//! a group, and each gets its answer when the group is proven to be on the disk.

use super::connect::{Task, connect};
use super::options::{RedisOptions, ServerAddress};
use super::server::{Examined, Proof, Unusable, examine, is_proven, plain, proving, unreachable};
use crate::queue::QueueError;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Changes in one group.
const MOST: usize = 128;
/// Groups that are sent before the first is answered.
const IN_FLIGHT: usize = 2;

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// Nothing was done.
    NotDone(QueueError),
    /// It was done, or it was not. Why there is no answer.
    Unanswered(QueueError),
}

impl From<CallError> for QueueError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotDone(error) | CallError::Unanswered(error) => error,
        }
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub address: ServerAddress,
    pub examined: Mutex<Examined>,
    reader: MultiplexedConnection,
    changes: mpsc::Sender<Waiting>,
    is_broken: Arc<AtomicBool>,
    _tasks: [Task; 3],
}

/// A change and who waits for its answer.
#[derive(Debug)]
struct Waiting {
    command: Cmd,
    answer: oneshot::Sender<Result<Value, CallError>>,
}

/// What a group needs to be sent.
#[derive(Debug, Clone)]
struct Sending {
    connection: MultiplexedConnection,
    address: ServerAddress,
    proof: Proof,
    timeout: Duration,
    is_broken: Arc<AtomicBool>,
}

impl Node {
    pub(super) async fn connect(address: &ServerAddress, options: &RedisOptions) -> Result<Self, Unusable> {
        if !address.is_local() && (options.tls.is_none() || options.login.is_none()) {
            return Err(Unusable::Unreachable(format!(
                "{address} is beyond this machine, and is used with a password and TLS only"
            )));
        }
        let failed = |error: RedisError| unreachable(address, &error);
        let (reader, reading) = connect(address, options).await.map_err(failed)?;
        let (writer, writing) = connect(address, options).await.map_err(failed)?;
        let examined = examine(&reader, options, address).await?;
        let is_broken = Arc::new(AtomicBool::new(false));
        let sending = Sending {
            connection: writer,
            address: address.clone(),
            proof: examined.proof,
            timeout: options.timeout,
            is_broken: is_broken.clone(),
        };
        let (changes, waiting) = mpsc::channel(1024);
        let grouping = Task::spawn(send_in_groups(sending, waiting));
        let (address, examined) = (address.clone(), Mutex::new(examined));
        Ok(Self { address, examined, reader, changes, is_broken, _tasks: [reading, writing, grouping] })
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// It is not used again.
    pub(super) fn set_broken(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    /// Asks again what the server promises.
    pub(super) async fn examine(&self, options: &RedisOptions) -> Result<Examined, Unusable> {
        let examined = examine(&self.reader, options, &self.address).await;
        match &examined {
            Ok(examined) if examined.run_id == self.examined.lock().run_id => *self.examined.lock() = examined.clone(),
            _ => self.set_broken(),
        }
        examined
    }

    /// Commands that change nothing.
    pub(super) async fn read(&self, commands: &[Cmd]) -> Result<Vec<Value>, CallError> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let sent = self.reader.clone().send_packed_commands(&pipeline, 0, commands.len()).await;
        sent.map_err(|error| {
            self.set_broken();
            unanswered(&self.address, &error)
        })
    }

    /// One change. It is not repeated.
    pub(super) async fn write(&self, command: Cmd) -> Result<Value, CallError> {
        let (answer, answered) = oneshot::channel();
        let gone = || {
            CallError::Unanswered(QueueError::Away(format!("the connection to Redis at {} has ended", self.address)))
        };
        self.changes.send(Waiting { command, answer }).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn send_in_groups(sending: Sending, mut waiting: mpsc::Receiver<Waiting>) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some(first) = waiting.recv().await {
        let Ok(permit) = in_flight.clone().acquire_owned().await else { return };
        let mut group = vec![first];
        while group.len() < MOST
            && let Ok(next) = waiting.try_recv()
        {
            group.push(next);
        }
        let sending = sending.clone();
        tokio::spawn(async move {
            sending.send(group).await;
            drop(permit);
        });
    }
}

impl Sending {
    async fn send(mut self, group: Vec<Waiting>) {
        let mut pipeline = Pipeline::with_capacity(group.len() + 1);
        let mut answers = Vec::with_capacity(group.len());
        for Waiting { command, answer } in group {
            pipeline.add_command(command);
            answers.push(answer);
        }
        let proving = proving(self.proof, self.timeout);
        let count = answers.len() + usize::from(proving.is_some());
        pipeline_with(&mut pipeline, proving);
        let error = match self.connection.send_packed_commands(&pipeline, 0, count).await {
            Ok(mut values) if values.len() == count => {
                let proof = values.split_off(answers.len()).pop().unwrap_or(Value::Nil);
                match is_proven(self.proof, proof) {
                    Ok(()) => return answers.into_iter().zip(values).for_each(|(to, value)| drop(to.send(Ok(value)))),
                    Err(error) => {
                        CallError::Unanswered(QueueError::Storage(format!("Redis at {}: {error}", self.address)))
                    }
                }
            }
            Ok(_) => CallError::Unanswered(QueueError::Away(format!("Redis at {} gave too few answers", self.address))),
            Err(error) => unanswered(&self.address, &error),
        };
        self.is_broken.store(true, Ordering::Relaxed);
        answers.into_iter().for_each(|to| drop(to.send(Err(error.clone()))));
    }
}

fn pipeline_with(pipeline: &mut Pipeline, command: Option<Cmd>) {
    if let Some(command) = command {
        pipeline.add_command(command);
    }
}

fn unanswered(address: &ServerAddress, error: &RedisError) -> CallError {
    CallError::Unanswered(QueueError::Away(format!("Redis at {address} did not answer: {}", plain(error))))
}
