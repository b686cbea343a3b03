//! What rules do to the envelope: set or map the sender, map recipients. The envelope never becomes empty.

use super::AddressMap;
use crate::message::Envelope;
use crate::message::envelope::Distinct;
use crate::smtp::{Mailbox, ReversePath};

pub(super) fn map_sender(envelope: &mut Envelope, map: &AddressMap) {
    if let Some(mapped) = envelope.sender.mailbox().and_then(|sender| map.map(sender)) {
        envelope.sender = ReversePath::Mailbox(mapped);
    }
}

/// `targets`: the current address of each recipient from before the first rule.
pub(super) fn map_recipients(envelope: &mut Envelope, targets: &mut [Mailbox], map: &AddressMap) {
    let mut is_mapped = false;
    for target in targets.iter_mut() {
        if let Some(mapped) = map.map(target) {
            *target = mapped;
            is_mapped = true;
        }
    }
    if !is_mapped {
        return;
    }
    let mut distinct = Distinct::default();
    let mut recipients = Vec::new();
    for target in targets {
        match distinct.find(target, &recipients) {
            // In the envelope's spelling.
            Some(place) => target.clone_from(&recipients[place]),
            None => {
                distinct.add(target, recipients.len());
                recipients.push(target.clone());
            }
        }
    }
    envelope.recipients = recipients;
}

/// Called after all of one rule's changes to the envelope.
pub(super) fn update_smtputf8(envelope: &mut Envelope, before: &Envelope) {
    if envelope != before {
        envelope.smtputf8 = needs_smtputf8(envelope, before);
    }
}

/// A removed address may have been the only reason. If the client asked for it with ASCII addresses, it stays.
fn needs_smtputf8(envelope: &Envelope, before: &Envelope) -> bool {
    has_foreign_address(envelope) || (before.smtputf8 && !has_foreign_address(before))
}

fn has_foreign_address(envelope: &Envelope) -> bool {
    envelope.sender.mailbox().into_iter().chain(&envelope.recipients).any(Mailbox::is_internationalized)
}
