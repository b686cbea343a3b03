//! How a message would leave through an upstream, without asking for a connection: the very form and seal that the door
//! gives it, for a server that offers every extension.

use super::door::{Door, Exit};
use super::profile::Profile;
use crate::dkim::{Keyring, Sealed, Unsigned};
use crate::message::Outcome;
use crate::message::accepted::Accepted;
use crate::smtp::Extensions;
use std::sync::Arc;

/// The error is what its recipients would get instead.
pub async fn rehearse(
    accepted: &Accepted,
    (upstream, profile): (&str, &Profile),
    keyring: Arc<Keyring>,
    unsigned: Unsigned,
) -> Result<Sealed, Outcome> {
    let offered = Extensions { eight_bit_mime: true, smtputf8: true, ..Extensions::default() };
    Door { keyring, unsigned }.seal(accepted, Exit { upstream, profile }, &offered).await
}
