//! `[admin]`: beyond loopback it needs a token, or the gateway does not start.

use super::Resolver;
use super::secret::fetch;
use crate::admin::AdminOptions;
use crate::config::admin::{AdminAddress, AdminHost};
use crate::config::file::AdminTable;
use crate::config::input::{Reported, Resolved, Typed};
use crate::config::secret::SecretSource;
use crate::config::self_loop::is_loopback;
use crate::config::settings::AdminSettings;
use crate::observe::Secret;
use std::net::SocketAddr;

impl Resolver<'_> {
    /// `None`: it is off. `listeners`: the addresses that are taken.
    pub(super) fn admin(&mut self, typed: &AdminTable, listeners: &[SocketAddr]) -> Resolved<Option<AdminSettings>> {
        let token = self.admin_token(&typed.token);
        let AdminAddress::At(address) = typed.address.get()? else { return Ok(None) };
        let is_taken = |other: &&SocketAddr| **other == address && address.port() != 0;
        if let Some(other) = listeners.iter().find(is_taken) {
            self.findings
                .error(&typed.address.place, format!("{address} is taken by the listener on {other}"))
                .help("give [admin] a port of its own, or set address = \"off\"");
            return Err(Reported);
        }
        let token = token?;
        if !is_loopback(address.ip()) && token.is_none() {
            self.findings
                .error(&typed.address.place, format!("{address} can be reached from other machines, and [admin] has no `token`"))
                .help(
                    "set token = { env = \"WAXSEAL_ADMIN_TOKEN\" } (`openssl rand -hex 32` makes one), or an address such as \
                     \"127.0.0.1:8025\"",
                );
            return Err(Reported);
        }
        let hosts = typed.hosts.optional()?.unwrap_or_default().into_iter().map(|AdminHost(host)| host).collect();
        Ok(Some(AdminSettings { options: AdminOptions { address, hosts, token }, is_given: typed.address.is_given() }))
    }

    fn admin_token(&mut self, typed: &Typed<SecretSource>) -> Resolved<Option<Secret>> {
        let Some(source) = typed.optional()? else { return Ok(None) };
        let token = fetch(&source, self.base, self.environment).and_then(|token| {
            // RFC 9110 §5.5: a header field cannot hold anything else.
            let is_header = token.reveal().bytes().all(|octet| octet.is_ascii_graphic());
            is_header.then_some(token).ok_or_else(|| {
                crate::config::value::Complaint::new(
                    "it holds spaces or characters that are not ASCII",
                    "write letters and digits, as `openssl rand -hex 32` prints them",
                )
            })
        });
        token.map(Some).map_err(|complaint| {
            self.findings.error(&typed.place, format!("`token`: {}", complaint.message)).help = complaint.help;
            Reported
        })
    }
}
