//! What a gateway with these settings would make of a message, from MAIL to the door of each upstream. Opens no socket and
//! writes no file: a key that is still to be made is made in memory.

use super::keys::{self, KeysError};
use super::{listeners, routes};
use crate::config::{ListenerSettings, Settings};
use crate::delivery::{NoWay, Way, rehearse};
use crate::dkim::{Keyring, Sealed};
use crate::inbound::Received;
use crate::intake;
use crate::message::Outcome;
use crate::message::accepted::Accepted;
use crate::smtp::Mailbox;
use std::sync::Arc;

#[derive(Debug)]
pub struct Rehearsal {
    pub intake: intake::Rehearsal,
    /// One for each recipient of the accepted message; empty if there is none.
    pub onward: Vec<Onward>,
    /// In the order of the configuration, those that some recipient's way leads through.
    pub exits: Vec<Exit>,
}

/// How one recipient's mail would go.
#[derive(Debug)]
pub struct Onward {
    pub recipient: Mailbox,
    pub way: Result<Way, NoWay>,
}

/// What the message would be for one upstream.
#[derive(Debug)]
pub struct Exit {
    /// In the configuration.
    pub upstream: usize,
    pub sealed: Result<Sealed, Outcome>,
}

impl Rehearsal {
    /// `listener`: one of the settings' own.
    pub async fn of(
        received: Received,
        listener: &ListenerSettings,
        mut settings: Settings,
    ) -> Result<(Self, Settings), KeysError> {
        let keyring = Arc::new(keys::load_without_writing(std::mem::take(&mut settings.dkim))?);
        let intake = listeners::reception(&settings, listener, &keyring).rehearse(received);
        let (mut onward, mut exits) = (Vec::new(), Vec::new());
        if let Ok(accepted) = &intake.fate {
            let routes = routes(&settings);
            let way = |recipient: &Mailbox| routes.way(&accepted.addressed(recipient), accepted.id);
            let recipients = accepted.envelope.recipients.iter();
            onward.extend(recipients.map(|to| Onward { recipient: to.clone(), way: way(to) }));
            exits = self::exits(accepted, &onward, &settings, &keyring).await;
        }
        Ok((Self { intake, onward, exits }, settings))
    }

    pub fn exit(&self, upstream: usize) -> Option<&Exit> {
        self.exits.iter().find(|exit| exit.upstream == upstream)
    }
}

async fn exits(accepted: &Accepted, onward: &[Onward], settings: &Settings, keyring: &Arc<Keyring>) -> Vec<Exit> {
    let mut exits = Vec::new();
    for (index, upstream) in settings.upstreams.iter().enumerate() {
        let is_used = |onward: &Onward| onward.way.as_ref().is_ok_and(|way| way.upstreams.contains(&index));
        if onward.iter().any(is_used) {
            let (keyring, unsigned) = (keyring.clone(), settings.unsigned.clone());
            let sealed = rehearse(accepted, (&upstream.name, &upstream.profile), keyring, unsigned).await;
            exits.push(Exit { upstream: index, sealed });
        }
    }
    exits
}
