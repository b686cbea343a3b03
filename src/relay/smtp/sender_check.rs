//! Whether the server takes a sender: MAIL and then RSET, so that nothing is sent. RFC 5321 §4.1.1.2, §4.1.1.5.

use super::line::{CommandLine, NotALine};
use super::session::ClientSession;
use super::starttls::Secured;
use crate::message::outcome::{Cause, Reason, RelayStep};
use crate::relay::deadline::Deadline;
use crate::smtp::{EnhancedCode, Reply, ReversePath};

impl ClientSession<Secured> {
    /// The server's reply to MAIL. Some servers check the sender only after the data.
    pub(in crate::relay) async fn try_sender(
        &mut self,
        sender: &ReversePath,
        deadline: Deadline,
    ) -> Result<Reply, Reason> {
        let line = CommandLine::new(&format!("MAIL FROM:<{sender}>")).map_err(|NotALine| {
            let text = "the address cannot be written as a command".to_owned();
            Reason::local(Some(&self.options.name), EnhancedCode::new(5, 1, 7), text)
        })?;
        let reply = self.command(RelayStep::Mail, line, deadline).await?;
        let reply = self.expect(RelayStep::Mail, reply)?;
        let reset = self.command(RelayStep::Mail, CommandLine::fixed("RSET"), deadline).await?;
        match reset.is_positive() {
            true => Ok(reply),
            false => Err(self.reason(RelayStep::Mail, Cause::Reply(reset))),
        }
    }
}
