//! AUTH: PLAIN or LOGIN, whichever the server offers after TLS, or EXTERNAL with a client certificate. Only on a secured
//! session.
//!
//! Credentials are never logged and never appear in a reason. RFC 4954, RFC 4616, RFC 4422 Appendix A.

use super::line::{CommandLine, NotALine};
use super::session::ClientSession;
use super::starttls::Secured;
use crate::message::outcome::{Cause, Reason, RelayStep};
use crate::relay::deadline::Deadline;
use crate::relay::{Credentials, UpstreamOptions};
use crate::smtp::extension::Mechanism;
use crate::smtp::reply::Severity;
use crate::smtp::{EnhancedCode, Reply};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use tracing::debug;

/// Checked before anything is sent or connected: whether these credentials can be sent at all. RFC 4616 §2 forbids NUL;
/// a line break is usually the last one of a file, left in by mistake.
pub(in crate::relay) fn check(options: &UpstreamOptions) -> Result<(), Reason> {
    let Some(Credentials { username, password, .. }) = &options.credentials else { return Ok(()) };
    for (key, value) in [("username", username.as_str()), ("password", password.reveal())] {
        if value.contains(['\r', '\n', '\0']) {
            let text = format!("`{key}` holds a line break or NUL, so no connection was made");
            return Err(refusal(options, text));
        }
    }
    Ok(())
}

impl ClientSession<Secured> {
    /// Does nothing if there are neither credentials nor a certificate that the server takes for a login.
    pub(super) async fn log_in(&mut self, deadline: Deadline) -> Result<(), Reason> {
        let options = Arc::clone(&self.options);
        let Some(Credentials { username, password, .. }) = &options.credentials else {
            return self.log_in_by_certificate(deadline).await;
        };
        let reply = match self.extensions.preferred_mechanism() {
            Some(Mechanism::Plain) => self.plain(username, password.reveal(), deadline).await?,
            Some(Mechanism::Login) => self.login(username, password.reveal(), deadline).await?,
            None => return Err(self.no_mechanism()),
        };
        self.expect(RelayStep::Auth, reply).map(drop)
    }

    /// As whom the server knows the certificate. A server may offer EXTERNAL and recognise the certificate without it, so a
    /// refusal is not the end: what is refused then is refused at MAIL or RCPT.
    async fn log_in_by_certificate(&mut self, deadline: Deadline) -> Result<(), Reason> {
        if self.options.endpoint.client_certificate.is_none() || !self.extensions.offers_external() {
            return Ok(());
        }
        let mut reply = self.auth_line("AUTH EXTERNAL =", "AUTH EXTERNAL =", deadline).await?;
        if reply.code() == 334 {
            reply = self.auth_line("", "", deadline).await?;
        }
        if reply.severity() == Severity::Permanent {
            debug!(upstream = %self.options.name, "the client certificate is not accepted as a login");
            self.stay_sound();
            return Ok(());
        }
        self.expect(RelayStep::Auth, reply).map(drop)
    }

    async fn plain(&mut self, username: &str, password: &str, deadline: Deadline) -> Result<Reply, Reason> {
        let response = STANDARD.encode(format!("\0{username}\0{password}"));
        let reply = self.auth_line(&format!("AUTH PLAIN {response}"), "AUTH PLAIN ***", deadline).await?;
        // A server that overlooked the initial response asks for it.
        if reply.code() == 334 { self.auth_line(&response, "***", deadline).await } else { Ok(reply) }
    }

    /// The prompts are ignored, because servers word them differently.
    async fn login(&mut self, username: &str, password: &str, deadline: Deadline) -> Result<Reply, Reason> {
        let mut reply = self.auth_line("AUTH LOGIN", "AUTH LOGIN", deadline).await?;
        for answer in [username, password] {
            if reply.code() != 334 {
                return Ok(reply);
            }
            reply = self.auth_line(&STANDARD.encode(answer), "***", deadline).await?;
        }
        Ok(reply)
    }

    async fn auth_line(&mut self, text: &str, shown: &'static str, deadline: Deadline) -> Result<Reply, Reason> {
        let line = CommandLine::secret(text, shown).map_err(|NotALine| {
            refusal(&self.options, "`username` and `password` are too long for an AUTH command".to_owned())
        })?;
        self.command(RelayStep::Auth, line, deadline).await
    }

    fn no_mechanism(&self) -> Reason {
        if self.extensions.auth_offered.is_empty() {
            refusal(&self.options, "the server offers no AUTH, though `username` is set".to_owned()).with_advice(
                "remove `username` and `password` if this server knows the gateway by its address; else check the port",
            )
        } else {
            let offered = self.extensions.auth_offered.join(" ");
            refusal(&self.options, format!("the server offers AUTH {offered}; waxseal speaks PLAIN and LOGIN"))
        }
    }
}

fn refusal(options: &UpstreamOptions, text: String) -> Reason {
    let enhanced = EnhancedCode::new(4, 7, 0);
    Reason::new(Some(&options.name), RelayStep::Auth, Cause::Local { enhanced, text })
}
