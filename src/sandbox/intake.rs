//! The sandbox's intake: verifies every DKIM signature of a message, keeps the message, and reports the result in its
//! reply. Forwards nothing. Verifies against the gateway's own keys, never against DNS.

use super::store::{SandboxMessage, SandboxStore};
use crate::dkim::{self, Records, SignatureCheck, VerificationResult};
use crate::inbound::{Client, Intake, Received};
use crate::message::MailId;
use crate::observe::Clock;
use crate::smtp::{EnhancedCode, Reply, ReversePath};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tracing::error;

#[derive(Debug)]
pub struct SandboxIntake {
    store: Arc<SandboxStore>,
    records: RwLock<Arc<Records>>,
    clock: Clock,
    /// Distinguishes messages of the same millisecond.
    counter: AtomicU32,
}

impl SandboxIntake {
    pub fn new(store: SandboxStore, records: Records, clock: Clock) -> Self {
        Self { store: Arc::new(store), records: RwLock::new(Arc::new(records)), clock, counter: AtomicU32::new(0) }
    }
}

impl SandboxIntake {
    pub fn set_records(&self, records: Records) {
        *self.records.write() = Arc::new(records);
    }
}

impl Intake for SandboxIntake {
    fn admit(&self, _client: &Client, _sender: &ReversePath, _size: Option<u64>) -> Result<(), Reply> {
        Ok(())
    }

    async fn accept(&self, received: Received) -> Reply {
        let now = self.clock.now();
        let id = MailId::new(now, self.counter.fetch_add(1, Ordering::Relaxed));
        let store = self.store.clone();
        let records = self.records.read().clone();
        // Hashing and writing take time, and the async threads have other mail to handle.
        let work = tokio::task::spawn_blocking(move || {
            let verdict = verdict(&dkim::verify(&received.data, &records));
            let kept = SandboxMessage {
                id,
                sender: received.envelope.sender,
                recipients: received.envelope.recipients,
                message: received.data,
            };
            store.keep(&kept).map(|()| verdict)
        });
        match work.await {
            Ok(Ok(verdict)) => {
                let text = format!("Kept in the sandbox as {id}, NOT sent; DKIM {verdict}");
                Reply::new(250, EnhancedCode::new(2, 0, 0), text)
            }
            Ok(Err(error)) => {
                error!(%error, "the sandbox could not keep a message");
                Reply::new(452, EnhancedCode::new(4, 3, 1), error.to_string())
            }
            Err(_) => Reply::storage_trouble(),
        }
    }
}

/// "none", or each signature with its result: "pass (wax1._domainkey.example.com)".
fn verdict(verifications: &[SignatureCheck]) -> String {
    if verifications.is_empty() {
        return "none".to_owned();
    }
    let describe = |verification: &SignatureCheck| {
        let name = format!("{}._domainkey.{}", verification.selector, verification.domain);
        match &verification.result {
            VerificationResult::Pass => format!("pass ({name})"),
            VerificationResult::Fail(reason) => format!("FAIL ({name}: {reason})"),
        }
    };
    verifications.iter().map(describe).collect::<Vec<_>>().join(", ")
}
