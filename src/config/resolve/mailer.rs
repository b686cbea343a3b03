//! Plausible's own sender address, if its environment is shared with the gateway: would the gateway accept its mail?
//!
//! A warning at start is better than the first report that does not arrive.

use super::Resolver;
use crate::config::settings::{DkimSettings, ListenerSettings};
use crate::dkim::Unsigned;
use crate::smtp::Mailbox;

const MAILER: &str = "MAILER_EMAIL";

impl Resolver<'_> {
    pub(super) fn warn_about_plausible(
        &mut self,
        listeners: &[ListenerSettings],
        dkim: &[DkimSettings],
        unsigned: Option<&Unsigned>,
    ) {
        let Some(found) = self.environment.find(MAILER, self.findings) else { return };
        let Some(mailbox) = bare_address(&found.text) else { return };
        let domain = mailbox.domain();
        let sealed = dkim.iter().any(|key| domain.is_within(&key.domain));
        let may_leave = sealed || unsigned.is_none_or(|unsigned| unsigned.permits(Some(domain)));
        let may_enter = listeners.is_empty() || listeners.iter().any(|listener| listener.senders.matches(&mailbox));
        if !may_leave {
            self.findings
                .warning(&found.place, format!("mail from {mailbox} will be refused: {domain} has no DKIM key"))
                .help(format!("add a [[dkim]] table for {domain}, or list it in `unsigned`"));
        } else if !may_enter {
            self.findings
                .warning(&found.place, format!("mail from {mailbox} will be refused: no listener takes this sender"))
                .help("add it to the listener's `senders`");
        }
    }
}

/// Plausible accepts `Name <address>` too.
fn bare_address(text: &str) -> Option<Mailbox> {
    let inner = text.rsplit_once('<').map_or(text, |(_, rest)| rest.trim_end().trim_end_matches('>'));
    Mailbox::parse(inner.trim()).ok()
}
