//! What a gateway with these settings would do with a message, from MAIL to the form for each upstream. Opens no socket
//! and writes no file: a missing key is created in memory.

use super::keys::{self, KeysError};
use super::{listeners, routes};
use crate::config::{ListenerSettings, Settings};
use crate::delivery::{NoRoute, RecipientRoute, dry_run};
use crate::dkim::{Keyring, Sealed};
use crate::inbound::Received;
use crate::intake;
use crate::message::Outcome;
use crate::message::accepted::Accepted;
use crate::smtp::{Extensions, Mailbox};
use std::sync::Arc;

#[derive(Debug)]
pub struct DryRun {
    pub intake: intake::IntakeDryRun,
    /// One for each recipient of the accepted message; empty if it was not accepted.
    pub onward: Vec<RecipientPreview>,
    /// In the order of the configuration, the upstreams that some recipient's route contains.
    pub exits: Vec<UpstreamPreview>,
}

/// The route of one recipient's mail.
#[derive(Debug)]
pub struct RecipientPreview {
    pub recipient: Mailbox,
    pub way: Result<RecipientRoute, NoRoute>,
}

/// The form that the message would have for one upstream.
#[derive(Debug)]
pub struct UpstreamPreview {
    /// Its index in the configuration.
    pub upstream: usize,
    /// For a server that offers 8BITMIME and SMTPUTF8.
    pub sealed: Result<Sealed, Outcome>,
    /// Which of the two the message needs.
    pub needs: Vec<ServerNeed>,
}

/// An extension that the server must offer for the message to leave in the form shown.
#[derive(Debug)]
pub enum ServerNeed {
    /// And whether the message can be sent without it.
    EightBitMime(Result<(), Outcome>),
    SmtpUtf8,
}

impl ServerNeed {
    /// Spelled as in EHLO.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::EightBitMime(_) => "8BITMIME",
            Self::SmtpUtf8 => "SMTPUTF8",
        }
    }
}

impl DryRun {
    /// `listener`: one of those in the settings.
    pub async fn of(
        received: Received,
        listener: &ListenerSettings,
        mut settings: Settings,
    ) -> Result<(Self, Settings), KeysError> {
        let keyring = Arc::new(keys::load_without_writing(std::mem::take(&mut settings.dkim))?);
        let intake = listeners::pipeline(&settings, listener, &keyring).dry_run(received);
        let mut onward = Vec::new();
        let mut exits = Vec::new();
        if let Ok(accepted) = &intake.result {
            let routes = routes(&settings);
            let header = accepted.asked_header();
            let way = |recipient: &Mailbox| routes.route_for(&accepted.addressed(recipient, &header), accepted.id);
            let recipients = accepted.envelope.recipients.iter();
            onward.extend(recipients.map(|to| RecipientPreview { recipient: to.clone(), way: way(to) }));
            exits = self::exits(accepted, &onward, &settings, &keyring).await;
        }
        Ok((Self { intake, onward, exits }, settings))
    }
}

async fn exits(
    accepted: &Accepted,
    onward: &[RecipientPreview],
    settings: &Settings,
    keyring: &Arc<Keyring>,
) -> Vec<UpstreamPreview> {
    let mut exits = Vec::new();
    for (index, upstream) in settings.upstreams.iter().enumerate() {
        let is_used = |onward: &RecipientPreview| onward.way.as_ref().is_ok_and(|way| way.upstreams.contains(&index));
        if onward.iter().any(is_used) {
            let at_door = async |eight_bit_mime| {
                let offered = Extensions { eight_bit_mime, smtputf8: true, ..Extensions::default() };
                let keyring = keyring.clone();
                let unsigned = settings.unsigned.clone();
                dry_run(accepted, &upstream.name, &upstream.profile, keyring, unsigned, &offered).await
            };
            let sealed = at_door(true).await;
            let mut needs = Vec::new();
            if sealed.as_ref().is_ok_and(|sealed| sealed.is_eight_bit() || sealed.header_is_eight_bit()) {
                needs.push(ServerNeed::EightBitMime(at_door(false).await.map(drop)));
            }
            // If only header texts are 8-bit, they are converted to ASCII.
            let mut addresses = accepted.envelope.sender.mailbox().into_iter().chain(&accepted.envelope.recipients);
            if addresses.any(Mailbox::is_internationalized) {
                needs.push(ServerNeed::SmtpUtf8);
            }
            exits.push(UpstreamPreview { upstream: index, sealed, needs });
        }
    }
    exits
}
