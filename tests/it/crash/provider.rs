//! A provider that is unavailable, breaks off, loses its answers, or asks for patience.

use super::campaign::{Campaign, Row};
use super::load::hand_in;
use super::{Scale, assert_kept};
use crate::support::upstream::{Action, At};

/// `mails` are submitted while the provider misbehaves; then it recovers.
///
/// A fault of the upstream pauses the lane, longer each time, so a few times are enough here.
async fn misbehaving(fault: &str, at: At, action: Action, mails: usize, bound: usize) -> Row {
    let mut campaign = Campaign::new().await;
    // If an answer is lost, the provider already has the mail.
    if bound > 0 {
        campaign = campaign.keeping_unanswered();
    }
    for _ in 0..mails {
        campaign.provider.once(at, action.clone());
    }
    // A silent provider times out, but not after five minutes.
    let setup = campaign.setup_with("command_timeout = \"2s\"\ndata_timeout = \"2s\"");
    let gateway = tokio::task::spawn_blocking(move || setup.start(1)).await.unwrap();
    hand_in(gateway.address(), mails, &campaign.acknowledged).await;
    campaign.fault(Vec::new());
    campaign.drain(gateway).await;
    campaign.audit(fault, bound)
}

pub async fn rows(scale: Scale) -> Vec<Row> {
    let mails = scale.of(10, 100);
    vec![
        misbehaving("the provider is gone at the greeting", At::Greeting, Action::Close, mails.min(4), 0).await,
        misbehaving("the provider is a black hole at the greeting", At::Greeting, Action::Stall, mails.min(3), 0).await,
        misbehaving("the provider falls silent at DATA", At::Data, Action::Stall, mails.min(3), 0).await,
        misbehaving("421 at MAIL", At::Mail, Action::say_and_close("421 4.7.0 busy"), mails.min(4), 0).await,
        misbehaving("451 after the final dot", At::Dot, "451 4.3.0 later".into(), mails, 0).await,
        misbehaving("the provider breaks off in the middle of the data", At::Midway, Action::Close, mails.min(4), 0)
            .await,
        misbehaving("the answer to the final dot is lost", At::Dot, Action::Close, mails.min(4), 2 * mails.min(4))
            .await,
        misbehaving("the login is refused for a while", At::Auth, "535 5.7.8 no".into(), mails.min(4), 0).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_by_a_provider_in_trouble() {
    for row in rows(Scale::Short).await {
        assert_kept(&row);
    }
}
