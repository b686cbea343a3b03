//! Chooses the upstream's login for a message: the one of its author's domain, otherwise of its sender's, otherwise the
//! upstream's own. Each login has its own connections, and all of them together stay within one cap.

use crate::dkim::dns_domain;
use crate::message::Reason;
use crate::message::accepted::Accepted;
use crate::smtp::{Domain, EnhancedCode};
use std::collections::BTreeMap;

/// `U`: the upstream, with one of the logins.
#[derive(Debug, Clone)]
pub struct Logins<U> {
    /// The upstream's name.
    name: String,
    /// By domain in DNS spelling; each also serves its subdomains.
    by_domain: BTreeMap<String, U>,
    /// For all other mail; `None`: such mail waits.
    own: Option<U>,
}

impl<U> Logins<U> {
    /// `by_domain`: domains in DNS spelling.
    pub fn new(name: &str, by_domain: impl IntoIterator<Item = (String, U)>, own: Option<U>) -> Self {
        Self { name: name.to_owned(), by_domain: by_domain.into_iter().collect(), own }
    }

    /// The login of the closest domain.
    pub fn for_mail(&self, accepted: &Accepted) -> Result<&U, Reason> {
        let domain = domain_of(accepted);
        let found = domain.and_then(|domain| self.of_domain(domain)).or(self.own.as_ref());
        found.ok_or_else(|| {
            let from =
                domain.map_or_else(|| "mail without a sender".to_owned(), |domain| format!("mail from {domain}"));
            // RFC 3463 §3.8: X.7.0, security.
            Reason::local(
                None,
                EnhancedCode::new(4, 7, 0),
                format!("the upstream \"{}\" has no login for {from}", self.name),
            )
            .with_advice(
                "add [[upstream.credentials]] for that domain, or `username` and `password` for all other mail",
            )
        })
    }

    /// The upstream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Those of a domain with that domain; the upstream's own first.
    pub fn by_domain(&self) -> impl Iterator<Item = (Option<&str>, &U)> {
        let own = self.own.iter().map(|login| (None, login));
        own.chain(self.by_domain.iter().map(|(domain, login)| (Some(domain.as_str()), login)))
    }

    pub fn all(&self) -> impl Iterator<Item = &U> {
        self.by_domain.values().chain(&self.own)
    }

    fn of_domain(&self, domain: &Domain) -> Option<&U> {
        let name = dns_domain(domain).ok()?;
        let mut domain = name.as_str();
        loop {
            if let Some(found) = self.by_domain.get(domain) {
                return Some(found);
            }
            (_, domain) = domain.split_once('.')?;
        }
    }
}

/// The From header counts, because the provider checks it and the reader sees it.
fn domain_of(accepted: &Accepted) -> Option<&Domain> {
    let sender = || accepted.envelope.sender.mailbox().map(|sender| sender.domain());
    accepted.author.as_ref().map(|author| author.domain()).or_else(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::accepted::Origin;
    use crate::message::{Author, Envelope, MailId, Marks, RawMessage};
    use crate::smtp::{Mailbox, ReversePath};

    /// Pass "" for a missing From header or for the null path.
    fn mail(from: &str, sender: &str) -> Accepted {
        let message = RawMessage::from_data(format!("From: {from}\r\n\r\nbody\r\n").into()).expect("a message");
        let received_at = jiff::Timestamp::UNIX_EPOCH;
        Accepted {
            id: MailId::new(received_at, 1),
            received_at,
            origin: Origin::default(),
            envelope: Envelope::new(Mailbox::parse(sender).map_or(ReversePath::Null, ReversePath::Mailbox)),
            author: Author::of(&message).ok(),
            message,
            marks: Marks::default(),
        }
    }

    #[test]
    fn the_nearest_domain_decides_and_the_author_before_the_sender() {
        let domains = ["example.com", "news.example.com", "xn--exmple-cua.org"];
        let by_domain = || domains.map(|domain| (domain.to_owned(), domain));
        let open = Logins::new("p", by_domain(), Some("own"));
        let closed = Logins::new("p", by_domain(), None);
        for (from, sender, expected) in [
            ("a@Example.com", "a@example.org", "example.com"),
            ("a@shop.example.com", "", "example.com"),
            ("a@eu.news.example.com", "", "news.example.com"),
            ("a@exämple.org", "", "xn--exmple-cua.org"),
            ("", "a@example.com", "example.com"),
            ("a@example.org", "a@example.com", "own"),
            ("a@badexample.com", "", "own"),
            ("a@[127.0.0.1]", "", "own"),
            ("", "", "own"),
        ] {
            let mail = mail(from, sender);
            assert_eq!(open.for_mail(&mail), Ok(&expected), "{from} {sender}");
            assert_eq!(closed.for_mail(&mail).is_err(), expected == "own", "{from} {sender}");
        }
        let reason = closed.for_mail(&mail("a@example.org", "")).expect_err("no login").to_string();
        assert!(reason.contains("the upstream \"p\" has no login for mail from example.org; add"), "{reason}");
        assert_eq!(open.all().count(), 4);
    }
}
