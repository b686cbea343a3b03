//! Shows how a message would leave through an upstream, without a connection: with the same form and signature as in a
//! real delivery, for a server with the given extensions.

use super::finalize::{Finalizer, TargetServer};
use super::profile::Profile;
use crate::dkim::{Keyring, Sealed, Unsigned};
use crate::message::accepted::Accepted;
use crate::message::{MemoryBudget, Outcome};
use crate::relay::Deadline;
use crate::smtp::Extensions;
use std::sync::Arc;

/// The error is the outcome that its recipients would get.
pub async fn dry_run(
    accepted: &Accepted,
    upstream: &str,
    profile: &Profile,
    keyring: Arc<Keyring>,
    unsigned: Unsigned,
    offered: &Extensions,
) -> Result<Sealed, Outcome> {
    let finalizer = Finalizer { keyring, unsigned, memory: MemoryBudget::new(u64::MAX) };
    let outgoing = finalizer.seal(accepted, TargetServer { upstream, profile }, offered, Deadline::NONE).await?;
    Ok(outgoing.sealed)
}
