//! How a message would leave through an upstream, without asking for a connection: the very form and seal that the door
//! gives it, for a server that offers what is said.

use super::door::{Door, Exit};
use super::profile::Profile;
use crate::dkim::{Keyring, Sealed, Unsigned};
use crate::message::accepted::Accepted;
use crate::message::{Budget, Outcome};
use crate::relay::Deadline;
use crate::smtp::Extensions;
use std::sync::Arc;

/// The error is what its recipients would get instead.
pub async fn rehearse(
    accepted: &Accepted,
    (upstream, profile): (&str, &Profile),
    keyring: Arc<Keyring>,
    unsigned: Unsigned,
    offered: &Extensions,
) -> Result<Sealed, Outcome> {
    let door = Door { keyring, unsigned, memory: Budget::new(u64::MAX) };
    let outgoing = door.seal(accepted, Exit { upstream, profile }, offered, Deadline::NONE).await?;
    Ok(outgoing.sealed)
}
