//! Puts whose answers are lost on the way.

use super::*;
use crate::support::redis_proxy::RedisProxy;

/// Longer than a gateway repeats a put before it refuses the message.
const TOO_LONG: Duration = Duration::from_secs(33);

/// Of every third group of puts: each put is repeated until its result is known.
pub async fn swallowed_answers(scale: Scale) -> Option<Row> {
    let server = redis()?;
    let proxy = RedisProxy::before(server.socket());
    let mut campaign = Campaign::new().await;
    let mut gateways = Gateways::start(&campaign, &limits(), &behind(&proxy)).await;
    gateways.load(&campaign);
    proxy.swallow_every(3);
    let wanted = scale.of(30, 1000);
    for _ in 0..6000 {
        if proxy.swallowed() >= wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    proxy.swallow_every(0);
    (0..proxy.swallowed()).for_each(|_| campaign.fault(Vec::new()));
    assert!(proxy.swallowed() >= wanted, "{} answers were swallowed", proxy.swallowed());
    gateways.drain(&mut campaign).await;
    Some(campaign.audit(&format!("the answer to a put is lost, {COUNT} gateways"), 0))
}

/// Of all puts, for so long that clients are refused; what Redis has stored of those messages is never sent.
pub async fn refused_after_lost_answers(scale: Scale) -> Option<Row> {
    let server = redis()?;
    let proxy = RedisProxy::before(server.socket());
    let mut campaign = Campaign::new().await;
    let gateway = started(campaign.setup_in(&limits(), &behind(&proxy))).await;
    for _ in 0..scale.of(1, 3) {
        let load = Load::start(gateway.address(), 4 * CLIENTS, &campaign.acknowledged);
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.swallow_all(true);
        tokio::time::sleep(TOO_LONG).await;
        proxy.swallow_all(false);
        tokio::time::sleep(Duration::from_secs(1)).await;
        load.stop().await;
        campaign.fault(Vec::new());
    }
    campaign.drain(gateway).await;
    let refused = campaign.acknowledged.refused().len();
    assert!(refused > 0, "no client was refused, so nothing was shown");
    Some(campaign.audit(&format!("all answers to puts are lost for 33 s, one gateway; {refused} refused"), 0))
}

fn behind(proxy: &RedisProxy) -> String {
    in_redis(&format!("unix://{}", proxy.socket().display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_answers_to_puts_are_lost() {
    swallowed_answers(Scale::Short).await.iter().for_each(assert_all_kept);
}
