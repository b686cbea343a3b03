//! How many sockets and files the process may have open. Most systems start a program with 1024 and allow many more on
//! request; a thousand clients would leave none for the providers.

use crate::config::Settings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// For the log, the sandbox, files and lookups.
const OTHERS: u64 = 100;

/// Requests as many as the system allows, and warns if they may not suffice.
pub(super) fn raise_limit(settings: &Settings) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let wanted = wanted(settings);
    let limit = if raised { maximum } else { current };
    if let Some(limit) = limit.filter(|&limit| limit < wanted) {
        warn!(
            "only {limit} files and sockets may be open at once, and the configured connections may need {wanted}; raise \
             the limit (LimitNOFILE= in a systemd unit, `ulimit -n` in a shell), or lower the listeners' `max_connections`"
        );
    }
}

/// The number needed if every listener and every upstream is at its limit.
fn wanted(settings: &Settings) -> u64 {
    let clients = settings.listeners.iter().map(|listener| listener.options.max_connections);
    let caps = settings.upstreams.iter().filter(|upstream| upstream.share_limits_with.is_none());
    let connections = clients.chain(caps.map(|upstream| upstream.limits.max_connections));
    connections.fold(OTHERS, |sum, connections| sum.saturating_add(connections as u64))
}
