//! The caller's side of the relay, as delivery does it: a stale connection is followed by a fresh one.

use super::client::HANG_GUARD;
use tokio::time::timeout;
use waxseal::dkim::Sealed;
use waxseal::message::{Envelope, Outcome, Reason};
use waxseal::relay::{Account, ConnectionRequest, Deadline, Ready, Reuse, Sent, Upstream};

/// With a cap of its own, as large as the options say.
pub fn upstream(options: waxseal::relay::UpstreamOptions) -> Upstream {
    let permits = Account::new(options.limits.max_connections);
    Upstream::new(options, permits)
}

/// Whatever it did before, it is asked: how an upstream is left alone has tests of its own.
pub async fn ready(upstream: &Upstream) -> Result<Ready, Reason> {
    upstream.cut_pause();
    timeout(HANG_GUARD, upstream.ready(ConnectionRequest::by(Deadline::NONE))).await.expect("nothing becomes ready")
}

/// The reason for which no connection becomes ready.
pub async fn not_ready(upstream: &Upstream) -> Reason {
    ready(upstream).await.expect_err("no connection becomes ready")
}

/// One outcome per recipient.
pub async fn send(upstream: &Upstream, envelope: &Envelope, sealed: &Sealed) -> Result<Vec<Outcome>, Reason> {
    for reuse in [Reuse::Allowed, Reuse::Fresh] {
        upstream.cut_pause();
        let ready =
            timeout(HANG_GUARD, upstream.ready(ConnectionRequest { reuse, ..ConnectionRequest::by(Deadline::NONE) }))
                .await
                .expect("nothing becomes ready")?;
        let sending = ready.send(envelope, &envelope.recipients, sealed, Deadline::NONE);
        if let Sent::Outcomes(outcomes) = timeout(HANG_GUARD, sending).await.expect("sending never ends") {
            assert_eq!(outcomes.len(), envelope.recipients.len());
            return Ok(outcomes);
        }
    }
    panic!("a fresh connection was called stale");
}

/// `delivered`, `deferred: <reason>` or `failed: <reason>`.
pub fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered(_) => "delivered".to_owned(),
        Outcome::Deferred(reason) => format!("deferred: {reason}"),
        Outcome::Failed(reason) => format!("failed: {reason}"),
    }
}

/// Each outcome must begin with its line.
pub fn assert_told(outcomes: &[Outcome], expected: &[&str]) {
    let told: Vec<String> = outcomes.iter().map(told).collect();
    let fits =
        told.len() == expected.len() && told.iter().zip(expected).all(|(told, expected)| told.starts_with(expected));
    assert!(fits, "told {told:#?}, expected {expected:#?}");
}
