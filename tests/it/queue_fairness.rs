//! No backlog delays another sender's mail: lanes do not wait for each other, and within a lane sender domains take
//! turns.

use crate::support::application::{field, hand_in, hand_in_many, mail, numbered, queued_in_front_of};
use crate::support::provider::Provider;
use crate::support::upstream::ScriptedUpstream;

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_whose_provider_is_away_does_not_delay_the_other() {
    let away = Provider::away();
    let scripted = ScriptedUpstream::start().await;
    let lines = format!(
        "[[upstream]]\nname = \"away\"\nprovider = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\nserver_name = \"localhost\"\n\
         tls = \"starttls\"\n\
         [[route]]\nname = \"one\"\nrecipients = [\"*@one.example\"]\nupstreams = [\"away\"]\n\
         [[route]]\nname = \"others\"\nupstreams = [\"company\"]\n",
        away.address().port()
    );
    let gateway = queued_in_front_of(&scripted, &lines, "").start(1);
    hand_in_many(gateway.address(), "reports@example.com", "you@one.example", &numbered(300)).await;
    let both = ["me@one.example", "you@example.net"];
    hand_in(gateway.address(), &both, &mail("the newest")).await;
    scripted.until_messages(1).await;
    assert_eq!(scripted.messages()[0].recipients, ["you@example.net"]);
    assert!(!gateway.log().iter().any(|line| line.contains("\"message\":\"failed\"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_with_a_backlog_lets_another_one_pass() {
    const MAILS: usize = 200;
    let provider = Provider::away();
    let gateway = provider.queued("max_connections = 1", "").start(1);
    hand_in_many(gateway.address(), "reports@one.example", "you@example.net", &numbered(MAILS)).await;
    hand_in_many(gateway.address(), "reports@two.example", "you@example.net", &["quick".to_owned()]).await;
    let scripted = provider.start().await;
    scripted.until_messages(MAILS + 1).await;
    let order: Vec<_> = scripted.messages().iter().map(|message| field(&message.data, "Subject")).collect();
    let place = order.iter().position(|subject| subject == "quick").expect("it arrives");
    assert!(place < 20, "behind {place} mails of the other domain");
}
