//! Whether bounces can be delivered: which upstreams may carry them, and whether those accept their sender.

use super::Resolver;
use super::rewrite::KnownNames;
use crate::config::file::QueueTable;
use crate::config::settings::{RouteSettings, UpstreamSettings};
use crate::delivery::Bounce;
use crate::smtp::{Mailbox, ReversePath};
use std::sync::Arc;

impl Resolver<'_> {
    pub(super) fn warn_about_bounces(
        &mut self,
        typed: &QueueTable,
        upstreams: &[UpstreamSettings],
        routes: &[RouteSettings],
        known: &KnownNames<'_>,
    ) {
        let (Some(bounce), Some(sender)) = (typed.bounce.value(), typed.bounce_sender.value()) else { return };
        let to = match bounce {
            Bounce::Off if typed.bounce_sender.is_given() => {
                self.findings
                    .warning(&typed.bounce_sender.place, "`bounce_sender` has no effect while bounce = \"off\"")
                    .help("set bounce = \"sender\", or to the address that is to get the bounces");
                return;
            }
            Bounce::Off => return,
            Bounce::Sender => None,
            Bounce::Address(address) => Some(address),
        };
        if let ReversePath::Mailbox(sender) = sender {
            self.warn_about_a_missing_key(&typed.bounce_sender.place, sender.domain(), known);
            return;
        }
        let carriers = carriers(routes, to);
        let refusing = upstreams.iter().filter(|it| it.preset.refuses_null_sender && carriers.contains(&&it.name));
        for upstream in refusing {
            let title = upstream.preset.title;
            self.findings
                .warning(
                    &typed.bounce.place,
                    format!(
                        "{title} (\"{}\") refuses mail from the null path, so bounces are lost there",
                        upstream.name
                    ),
                )
                .help(
                    "set bounce_sender = \"postmaster@example.com\", an address that the provider accepts as a sender",
                );
        }
    }
}

/// The upstreams that may get a bounce, which has neither a login nor a tag. `to`: its recipient; `None` for any.
fn carriers<'a>(routes: &'a [RouteSettings], to: Option<&Mailbox>) -> Vec<&'a Arc<str>> {
    let mut carriers = Vec::new();
    for route in routes {
        let conditions = &route.conditions;
        let may_match = conditions.users.is_empty()
            && conditions.tags.is_empty()
            && conditions.senders.matches_sender(None)
            && to.is_none_or(|to| conditions.recipients.matches(to));
        if may_match {
            carriers.extend(route.upstreams.upstreams());
        }
        if may_match && conditions.headers.is_empty() && (to.is_some() || conditions.recipients.is_any()) {
            break;
        }
    }
    carriers
}
