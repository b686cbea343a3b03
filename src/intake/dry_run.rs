//! A dry run of a submission: the same checks, repairs and rules as for real mail. Stores nothing and sends nothing.

use super::pipeline::IntakePipeline;
use super::prepare::{IntakeReport, PreparedMail, Rejection};
use crate::inbound::Received;
use crate::message::MailId;
use crate::message::accepted::Accepted;
use crate::observe::random_u32;

#[derive(Debug)]
pub struct IntakeDryRun {
    pub report: IntakeReport,
    /// The message as it would be delivered or stored, with the gateway's own Received on top.
    pub result: Result<Accepted, Rejection>,
}

impl IntakePipeline {
    /// From MAIL to the final dot.
    pub fn dry_run(&self, mut received: Received) -> IntakeDryRun {
        let now = self.clock.now();
        let mut report = IntakeReport::default();
        let admitted = self.admit(&received.client, &received.envelope.sender).map_err(Rejection::from);
        let result = admitted
            .and_then(|()| self.prepare(&mut received, MailId::new(now, random_u32()), now, &mut report))
            .map(|PreparedMail { accepted, .. }| accepted);
        IntakeDryRun { report, result }
    }
}
