//! A mail that the gateway's own user hands in through the control socket, as the test mail of `waxseal doctor`: accepted by the
//! first listener's intake as an application's is, without that listener's TLS and login.

use super::listeners::ListenerIntake;
use crate::control::{SubmissionReply, Submitter};
use crate::inbound::{Client, Intake as _, ListenerRole, Received};
use crate::message::envelope::room_for_address;
use crate::message::{Envelope, MemoryBudget};
use crate::smtp::{EhloName, Reply};
use bytes::Bytes;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;

/// What it calls itself in the Received header.
const NAME: &[u8] = b"doctor.waxseal.invalid";

/// The listeners' roles, in the order of the configuration.
pub(super) type CurrentRoles = watch::Receiver<Vec<Arc<ListenerRole<ListenerIntake>>>>;

pub(super) fn submitter(roles: CurrentRoles, budget: MemoryBudget) -> Submitter {
    Arc::new(move |envelope, data| {
        let role = roles.borrow().first().cloned();
        let budget = budget.clone();
        Box::pin(async move {
            let role = role?;
            let reply = submit(&role, &budget, envelope, data).await;
            Some(SubmissionReply { is_accepted: reply.is_positive(), text: reply.to_string() })
        })
    })
}

async fn submit(role: &ListenerRole<ListenerIntake>, budget: &MemoryBudget, envelope: Envelope, data: Bytes) -> Reply {
    let Some(ehlo) = EhloName::parse(NAME) else { return Reply::storage_trouble() };
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let client = Client { peer, ehlo, esmtp: true, tls: None, user: None };
    if let Err(refusal) = role.intake.admit(&client, &envelope.sender, Some(data.len() as u64)) {
        return refusal;
    }
    let mut envelope_share = budget.share();
    let mut share = envelope_share.sibling();
    let room = envelope.recipients.iter().map(room_for_address).sum();
    if envelope_share.grow(room).and_then(|()| share.grow(data.len())).is_err() {
        return Reply::no_memory();
    }
    role.intake.accept(Received { client, envelope, data, line_endings_changed: false, share, envelope_share }).await
}
