//! Which From domains the checks are about, and the sender that a provider is asked for. Nothing is looked up.

use crate::config::Settings;
use crate::dkim::dns_domain;
use crate::smtp::{Domain, Mailbox, ReversePath};

/// A sender to ask a provider for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialSender {
    pub path: ReversePath,
    /// The operator named it. Otherwise it is a guess, and a refusal proves nothing.
    pub is_given: bool,
}

/// In DNS spelling, each once: that of `--from`, those with a key, and those that a listener's `senders` name.
pub fn from_domains(settings: &Settings, from: Option<&Mailbox>) -> Vec<String> {
    let of_keys = settings.dkim.iter().map(|key| key.domain.clone());
    let patterns = settings.listeners.iter().flat_map(|listener| listener.senders.iter());
    let of_patterns = patterns.filter_map(|pattern| {
        let (_, domain) = pattern.rsplit_once('@')?;
        (!domain.contains(['*', '?', '[', '{'])).then(|| Domain::parse(domain).ok()).flatten()
    });
    let given = from.map(|from| from.domain().clone());
    let mut found = Vec::new();
    for domain in given.into_iter().chain(of_keys).chain(of_patterns) {
        if let Ok(name) = dns_domain(&domain)
            && !found.contains(&name)
        {
            found.push(name);
        }
    }
    found
}

pub fn trial_sender(settings: &Settings, from: Option<&Mailbox>) -> Option<TrialSender> {
    if let Some(from) = from {
        return Some(TrialSender { path: ReversePath::Mailbox(from.clone()), is_given: true });
    }
    let patterns = settings.listeners.iter().flat_map(|listener| listener.senders.iter());
    let whole =
        patterns.filter(|pattern| !pattern.contains(['*', '?', '[', '{'])).find_map(|it| Mailbox::parse(it).ok());
    let guess = || {
        let domain = from_domains(settings, None).into_iter().next()?;
        Mailbox::parse(&format!("postmaster@{domain}")).ok()
    };
    let path = ReversePath::Mailbox(whole.or_else(guess)?);
    Some(TrialSender { path, is_given: false })
}
