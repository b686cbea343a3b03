//! Whether the DNS has the records of the DKIM keys, looked up again and again while the gateway runs and after each reload,
//! for metrics and `waxseal status`. Who looks up is passed in; mail does not depend on it.

use super::live::WatchedState;
use crate::dkim::DnsRecord;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The first look-up comes later than the start: by then a network that came up with the gateway works.
const FIRST: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// The keys of the running gateway.
#[derive(Debug, Clone)]
pub struct KeyRecords(pub(super) WatchedState);

impl KeyRecords {
    /// Runs until the stop. `look_up` says whether receivers find this record, by this DNS server (`None`: the system's). If it
    /// returns `None`, it could not be found out, and what was known before stays.
    pub async fn watch<F>(self, look_up: impl Fn(Option<SocketAddr>, DnsRecord) -> F, stop: CancellationToken)
    where
        F: Future<Output = Option<bool>>,
    {
        let rounds = async {
            let mut pause = FIRST;
            loop {
                let _asked_or_due = timeout(pause, self.0.asked_to_look_again()).await;
                let (server, records) = self.0.key_records();
                for record in records {
                    let name = record.name().to_owned();
                    if let Some(is_published) = look_up(server, record).await {
                        self.0.set_published(&name, is_published);
                    }
                }
                pause = INTERVAL;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = rounds => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::{Keyring, Selector, SigningKey};
    use crate::smtp::Domain;
    use parking_lot::Mutex;
    use std::sync::Arc;
    use tokio::time::sleep;

    fn key(selector: &str) -> SigningKey {
        let pem = include_str!("../dkim/testdata/ed25519.pem");
        let domain = Domain::parse("example.com").expect("a domain");
        SigningKey::from_pem(domain, Selector::parse(selector).expect("a selector"), pem.as_bytes()).expect("a key")
    }

    /// A resolver that is away for an hour must not look like a record that is gone.
    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_looked_up_changes_nothing() {
        let state = WatchedState::default();
        state.follow_keys(&Keyring::new(vec![key("one"), key("two")]));
        let published = |state: &WatchedState| {
            state.keys().into_iter().map(|key| (key.selector, key.is_published)).collect::<Vec<_>>()
        };
        let answers = Arc::new(Mutex::new(Some(true)));
        let stop = CancellationToken::new();
        let watching = tokio::spawn(KeyRecords(state.clone()).watch(
            {
                let answers = answers.clone();
                move |_, record| {
                    let answer = *answers.lock();
                    let is_one = record.name() == "one._domainkey.example.com";
                    assert!(record.text().starts_with("v=DKIM1; k=ed25519; p="), "{record}");
                    async move { answer.filter(|_| is_one) }
                }
            },
            stop.clone(),
        ));
        sleep(FIRST / 2).await;
        assert_eq!(published(&state), [("one".to_owned(), None), ("two".to_owned(), None)], "not at once");
        sleep(FIRST).await;
        let known = [("one".to_owned(), Some(true)), ("two".to_owned(), None)];
        assert_eq!(published(&state), known);
        *answers.lock() = None;
        sleep(INTERVAL).await;
        assert_eq!(published(&state), known, "no answer");
        *answers.lock() = Some(false);
        sleep(INTERVAL).await;
        assert_eq!(published(&state)[0].1, Some(false));
        state.follow_keys(&Keyring::new(vec![key("one"), key("three")]));
        assert_eq!(
            published(&state),
            [("one".to_owned(), Some(false)), ("three".to_owned(), None)],
            "a change of keys"
        );
        *answers.lock() = Some(true);
        state.look_again();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(published(&state)[0].1, Some(true), "at once when it is asked for");
        stop.cancel();
        watching.await.expect("it ends");
    }
}
