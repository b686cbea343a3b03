//! Mail waits, the configuration is changed, and the gateway is started again: the change applies to the waiting mail.

use crate::support::application::{field, further, hand_in, mail, numbered, subjects};
use crate::support::gateway::{Gateway, Setup};
use crate::support::keys::{TestKey, tables};
use crate::support::provider::Provider;
use crate::support::upstream::ScriptedUpstream;
use waxseal::dkim::KeyAlgorithm;

const YOU: [&str; 1] = ["you@example.net"];

/// Three mails that the unavailable provider has not got.
async fn waiting(setup: Setup) -> Setup {
    let gateway = setup.start(1);
    for subject in numbered(3) {
        let reply = hand_in(gateway.address(), &YOU, &mail(&subject)).await;
        assert!(reply.starts_with("250 2.0.0 Queued as "), "{reply}");
    }
    gateway.wait_for_line(&["\"deferred\""]);
    stopped(gateway).await
}

async fn stopped(gateway: Gateway) -> Setup {
    let (_, _, setup) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    setup
}

fn host(address: std::net::SocketAddr) -> String {
    format!("host = \"{}\"\nport = {}\n", address.ip(), address.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_route_takes_it_to_another_provider() {
    let provider = Provider::away();
    let other = ScriptedUpstream::start().await;
    let routes = |last: &str| {
        format!(
            "{}[[route]]\nname = \"some\"\nheader = {{ Subject = \"0001\" }}\nupstreams = [\"company\"]\n\
             [[route]]\nname = \"rest\"\nupstreams = [\"{last}\"]\n",
            further("other", &other, "")
        )
    };
    let setup = waiting(provider.queued(&routes("company"), "").file("other.pem", other.ca())).await;
    let setup = setup.config_with("name = \"some\"\nheader", "name = \"one\"\nheader");
    let setup =
        setup.config_with("name = \"rest\"\nupstreams = [\"company\"]", "name = \"rest\"\nupstreams = [\"other\"]");
    let gateway = setup.start(1);
    gateway.wait_for_line(&["routes have changed", "\"recipients\":1"]);
    other.until_messages(2).await;
    assert_eq!(subjects(&other), ["0000", "0002"]);
    let company = provider.start().await;
    company.until_messages(1).await;
    assert_eq!(subjects(&company), ["0001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_host_and_login_are_used() {
    let provider = Provider::away();
    let other = ScriptedUpstream::start().await;
    let setup = waiting(provider.queued("", "")).await.file("other.pem", other.ca());
    let setup = setup
        .config_with(&host(provider.address()), &host(other.address()))
        .config_with("ca.pem", "other.pem")
        .config_with("relay-user", "another-user")
        .config_with("relay-canary-password", "another-canary");
    let _gateway = setup.start(1);
    other.until_messages(3).await;
    assert_eq!(subjects(&other), numbered(3));
    let logins: Vec<_> = other.logins().into_iter().map(|(_, name, password)| (name, password)).collect();
    assert!(
        logins.iter().all(|login| *login == ("another-user".to_owned(), "another-canary".to_owned())),
        "{logins:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_seals_it() {
    let [old, new] = ["wax1", "wax2"].map(|selector| [TestKey::new(selector, KeyAlgorithm::Ed25519)]);
    let provider = Provider::away();
    let gateway = provider.queued(&tables(&old), "").file("wax1.pem", old[0].pem.reveal()).start(1);
    hand_in(gateway.address(), &YOU, &mail("sealed late")).await;
    gateway.wait_for_line(&["\"deferred\""]);
    let setup = stopped(gateway).await.file("wax2.pem", new[0].pem.reveal()).config_with(&tables(&old), &tables(&new));
    let _gateway = setup.start(1);
    let scripted = provider.start().await;
    scripted.until_messages(1).await;
    let signature = field(&scripted.messages()[0].data, "DKIM-Signature");
    let text = String::from_utf8_lossy(&scripted.messages()[0].data).into_owned();
    assert!(text.contains("s=wax2;") && !text.contains("s=wax1;"), "{signature}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_upstream_leaves_it_to_those_that_are_left() {
    let provider = Provider::away();
    let other = ScriptedUpstream::start().await;
    let route = "[[route]]\nname = \"all\"\nupstreams = [\"company\"]\n";
    let setup = provider.queued(&(further("other", &other, "") + route), "").file("other.pem", other.ca());
    let setup = waiting(setup).await;
    let text = std::fs::read_to_string(setup.folder().join("config.toml")).unwrap();
    let before = text.find("[[upstream]]").unwrap();
    let after = text.rfind("[[upstream]]").unwrap();
    let without = setup.config_with(&text[before..after], "").config_with("[\"company\"]", "[\"other\"]");
    let gateway = without.start(1);
    other.until_messages(3).await;
    assert_eq!(subjects(&other), numbered(3));
    gateway.wait_for_line(&["\"delivered\"", "\"upstream\":\"other\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_a_rule_chose_and_that_is_gone_keeps_it_waiting_until_it_is_back() {
    let provider = Provider::away();
    let other = ScriptedUpstream::start().await;
    let table = further("other", &other, "");
    let rule = "[[rewrite]]\nupstream = \"other\"\n";
    let gateway = provider.queued(&format!("{table}{rule}"), "").file("other.pem", other.ca()).start(1);
    assert_eq!(gateway.output(&["queue", "hold", "upstream:other"]).status.code(), Some(0));
    hand_in(gateway.address(), &YOU, &mail("chosen")).await;
    let setup = stopped(gateway).await.config_with(&format!("{table}{rule}"), "# none\n");
    let gateway = setup.start(1);
    gateway.wait_for_line(&["routes have changed", "\"recipients\":1"]);
    gateway.wait_for_line(&["\"deferred\"", "a rule chose the upstream \\\"other\\\"", "add an [[upstream]] named"]);
    let setup = stopped(gateway).await.config_with("# none\n", &table);
    let gateway = setup.start(1);
    gateway.wait_for_line(&["routes have changed", "\"recipients\":1"]);
    assert_eq!(gateway.output(&["queue", "release", "upstream:other"]).status.code(), Some(0), "the hold was kept");
    other.until_messages(1).await;
    assert_eq!(subjects(&other), ["chosen"]);
    assert!(!gateway.log().iter().any(|line| line.contains("\"message\":\"failed\"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_provider_at_the_same_place_gets_it_in_its_own_words() {
    let provider = Provider::away();
    let setup = waiting(provider.queued("[[rewrite]]\ntag = \"weekly\"\n", "")).await;
    let gateway = setup.config_with("provider = \"smtp\"", "provider = \"mailgun\"").start(1);
    let scripted = provider.start().await;
    scripted.until_messages(3).await;
    for message in scripted.messages() {
        assert_eq!(field(&message.data, "X-Mailgun-Tag"), "weekly", "{}", String::from_utf8_lossy(&message.data));
    }
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_is_new_holds_for_it() {
    let provider = Provider::away();
    let setup = waiting(provider.queued("", "")).await;
    let gateway = setup.config_with("tls = \"starttls\"", "tls = \"starttls\"\nrate = \"2/day\"").start(1);
    let scripted = provider.start().await;
    scripted.until_messages(2).await;
    gateway.wait_for_line(&["quota", "is reached", "2/day"]);
    let _log = stopped(gateway).await;
    assert_eq!(scripted.messages().len(), 2, "the third waits for tomorrow");
}
