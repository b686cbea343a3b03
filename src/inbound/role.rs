//! `ListenerRole`: what a listener does for its clients. It is replaced as a whole when the configuration changes.
//!
//! A connection that is open keeps the options under which it began (TLS, time-outs, sizes); who may send, and what happens to a
//! message, is decided by the role of that moment.

use super::users::Users;
use super::{Client, Intake, ListenerOptions, Received};
use crate::smtp::{Reply, ReversePath};
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Debug)]
pub struct ListenerRole<I> {
    pub options: Arc<ListenerOptions>,
    pub users: Users,
    pub intake: Arc<I>,
}

/// Follows the changes of one listener's role.
pub type CurrentRole<I> = watch::Receiver<Arc<ListenerRole<I>>>;

impl<I: Intake> Intake for ListenerRole<I> {
    fn admit(&self, client: &Client, sender: &ReversePath, size: Option<u64>) -> Result<(), Reply> {
        self.options.may_send(client)?;
        if client.user.as_deref().is_some_and(|user| !self.users.has(user)) {
            return Err(Reply::login_required());
        }
        self.intake.admit(client, sender, size)
    }

    fn accept(&self, received: Received) -> impl Future<Output = Reply> + Send {
        self.intake.accept(received)
    }
}
