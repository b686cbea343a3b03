//! What rules do to the envelope: the sender set or mapped, recipients mapped. It never becomes empty.

use super::AddressMap;
use crate::message::Envelope;
use crate::message::envelope::Distinct;
use crate::smtp::{Mailbox, ReversePath};

pub(super) fn map_sender(envelope: &mut Envelope, map: &AddressMap) {
    if let Some(mapped) = envelope.sender.mailbox().and_then(|sender| map.map(sender)) {
        envelope.sender = ReversePath::Mailbox(mapped);
    }
}

/// `targets`: what became so far of each recipient that there was before the first rule.
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
            // In the spelling that the envelope has.
            Some(place) => target.clone_from(&recipients[place]),
            None => {
                distinct.add(target, recipients.len());
                recipients.push(target.clone());
            }
        }
    }
    envelope.recipients = recipients;
}

/// After all that one rule did to the envelope.
pub(super) fn update_smtputf8(envelope: &mut Envelope, before: &Envelope) {
    if envelope != before {
        envelope.smtputf8 = needs_smtputf8(envelope, before);
    }
}

/// An address that is gone was perhaps the only reason; what the client asked for with ASCII addresses stays asked for.
fn needs_smtputf8(envelope: &Envelope, before: &Envelope) -> bool {
    has_foreign_address(envelope) || (before.smtputf8 && !has_foreign_address(before))
}

fn has_foreign_address(envelope: &Envelope) -> bool {
    envelope.sender.mailbox().into_iter().chain(&envelope.recipients).any(Mailbox::is_internationalized)
}
