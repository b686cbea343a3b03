//! What would become of a message if it were handed in: the same judgement, repairs and rules as for mail that is, and then
//! nothing. Stores nothing and sends nothing.

use super::prepare::{Account, Prepared, Turned, prepare};
use super::reception::Reception;
use crate::inbound::Received;
use crate::message::MailId;
use crate::message::accepted::Accepted;
use crate::observe::chance;

#[derive(Debug)]
pub struct Rehearsal {
    pub account: Account,
    /// As it would be delivered or stored, the gateway's own Received on top.
    pub fate: Result<Accepted, Turned>,
}

impl Reception {
    /// From MAIL to the final dot.
    pub fn rehearse(&self, mut received: Received) -> Rehearsal {
        let now = self.clock.now();
        let mut account = Account::default();
        let admitted = self.admit(&received.client, &received.envelope.sender).map_err(Turned::from);
        let fate = admitted
            .and_then(|()| prepare(&mut received, self, (MailId::new(now, chance()), now), &mut account))
            .map(|Prepared { accepted, .. }| accepted);
        Rehearsal { account, fate }
    }
}
