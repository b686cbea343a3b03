//! Gateways that are killed or frozen under load.

use super::*;

/// Any of the three, at random moments, again and again.
pub async fn killed_gateways(scale: Scale) -> Option<Row> {
    let server = redis()?;
    let mut campaign = Campaign::new().await;
    let mut gateways = Gateways::start(&campaign, &limits(), &in_redis(&server.url())).await;
    let rounds = scale.of(4, 100);
    for round in 0..rounds {
        gateways.load(&campaign);
        tokio::time::sleep(moment(round)).await;
        gateways.kill_and_start(spread(round, COUNT), &mut campaign).await;
    }
    gateways.drain(&mut campaign).await;
    let within = campaign.provider.most_within(Duration::from_secs(1));
    assert!(within <= RATE, "{within} messages in a second");
    Some(campaign.audit(&format!("SIGKILL of one of {COUNT} gateways under load"), rounds * CAP))
}

/// One at a time, for longer than its permits are renewed; it goes on afterwards.
pub async fn frozen_gateways(scale: Scale) -> Option<Row> {
    let server = redis()?;
    let mut campaign = Campaign::new().await;
    let mut gateways = Gateways::start(&campaign, &limits(), &in_redis(&server.url())).await;
    gateways.load(&campaign);
    for round in 0..scale.of(1, 6) {
        let frozen = spread(round, COUNT);
        tokio::time::sleep(moment(round)).await;
        gateways.gateway(frozen).signal("STOP");
        tokio::time::sleep(Duration::from_millis(scale.of(2_000, 13_000) as u64)).await;
        gateways.gateway(frozen).signal("CONT");
        campaign.fault(Vec::new());
    }
    gateways.drain(&mut campaign).await;
    let within = campaign.provider.most_within(Duration::from_secs(1));
    assert!(within <= RATE, "{within} messages in a second");
    Some(campaign.audit(&format!("SIGSTOP of one of {COUNT} gateways, SIGCONT"), 0))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_gateways_are_killed_under_load() {
    killed_gateways(Scale::Short).await.iter().for_each(assert_all_kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_a_gateway_is_frozen_for_a_while() {
    frozen_gateways(Scale::Short).await.iter().for_each(assert_all_kept);
}
