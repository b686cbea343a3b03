//! One provider with a login for each sender domain: no mail uses another domain's login, and one cap applies to all.

use crate::support::application::{in_front_of, mail_from, queued_in_front_of};
use crate::support::client::Client;
use crate::support::upstream::{At, ScriptedUpstream};
use std::net::SocketAddr;
use tokio::task::JoinSet;

/// The login is named after the domain.
fn login(domain: &str) -> String {
    let keys = format!("username = \"{domain}\"\npassword = \"{domain}-canary-password\"");
    format!("[[upstream.credentials]]\ndomain = \"{domain}\"\n{keys}\n")
}

/// The reply to the final dot.
async fn hand_in_from(gateway: SocketAddr, domain: &str) -> String {
    let sender = format!("reports@{domain}");
    let mut client = Client::connect(gateway).await;
    client.greet().await;
    for line in [&format!("MAIL FROM:<{sender}>"), "RCPT TO:<you@example.net>", "DATA"] {
        client.ask(line).await;
    }
    client.ask(&format!("{}.", mail_from(&sender, domain))).await
}

/// Each message by the domain in its From, with the login of its connection.
fn sent_as(scripted: &ScriptedUpstream) -> Vec<(String, String)> {
    let domain_of = |mail: &str| mail.split(['@', '>']).nth(1).unwrap_or_default().to_owned();
    scripted.messages().iter().map(|message| (domain_of(&message.mail), message.login.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_another_login_is_never_reused() {
    let scripted = ScriptedUpstream::start().await;
    let lines = format!("max_connections = 2\n{}{}", login("example.com"), login("example.org"));
    let gateway = in_front_of(&scripted, &lines).start(1);
    // Each finds an idle connection of the one before it.
    let domains = ["example.com", "example.org", "example.com", "news.example.org", "example.edu", "example.com"];
    for domain in domains {
        let reply = hand_in_from(gateway.address(), domain).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    let expected = ["example.com", "example.org", "example.com", "example.org", "relay-user", "example.com"];
    let expected = domains.iter().zip(expected).map(|(domain, login)| (domain.to_string(), login.to_owned()));
    assert_eq!(sent_as(&scripted), expected.collect::<Vec<_>>());
    let first_three: Vec<_> = scripted.messages().iter().take(3).map(|message| message.connection).collect();
    assert_eq!(first_three, [0, 1, 0], "one's own idle connection is used again");
    for (_, name, password) in scripted.logins().iter().filter(|(_, name, _)| name != "relay-user") {
        assert_eq!(*password, format!("{name}-canary-password"));
    }
    assert!(scripted.counts().max <= 2, "{:?}", scripted.counts());
    assert!(!gateway.log().iter().any(|line| line.contains("canary")), "no password is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cap_holds_over_all_logins_together() {
    const DOMAINS: usize = 6;
    const MAILS: usize = 20;
    let scripted = ScriptedUpstream::start().await;
    let logins: String = (0..DOMAINS).map(|number| login(&format!("d{number}.example"))).collect();
    let gateway = queued_in_front_of(&scripted, &format!("max_connections = 2\n{logins}"), "").start(1);
    let mut clients = JoinSet::new();
    for number in 0..DOMAINS {
        let address = gateway.address();
        clients.spawn(async move {
            for _ in 0..MAILS {
                let reply = hand_in_from(address, &format!("d{number}.example")).await;
                assert!(reply.starts_with("250 "), "{reply}");
            }
        });
    }
    clients.join_all().await;
    scripted.until_messages(DOMAINS * MAILS).await;
    for (domain, login) in sent_as(&scripted) {
        assert_eq!(domain, login);
    }
    assert!(scripted.counts().max <= 2, "{:?}", scripted.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_for_which_there_is_no_login_waits_and_says_why() {
    let scripted = ScriptedUpstream::start().await;
    let setup = queued_in_front_of(&scripted, &login("example.com"), "")
        .config_with("username = \"relay-user\"\npassword = \"relay-canary-password\"\n", "");
    let gateway = setup.start(1);
    for domain in ["example.org", "example.com"] {
        hand_in_from(gateway.address(), domain).await;
    }
    scripted.until_messages(1).await;
    gateway.wait_for_line(&["\"deferred\"", "has no login for mail from example.org", "[[upstream.credentials]]"]);
    assert!(!gateway.log().iter().any(|line| line.contains("\"message\":\"failed\"")));
    let (_, _, setup) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    let gateway = setup.config_with("domain = \"example.com\"", "domain = \"example.org\"").start(1);
    scripted.until_messages(2).await;
    assert_eq!(sent_as(&scripted)[1].0, "example.org");
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_login_does_not_stop_the_others() {
    let scripted = ScriptedUpstream::start().await;
    let lines = format!("max_connections = 1\n{}{}", login("example.com"), login("example.org"));
    let gateway = in_front_of(&scripted, &lines).start(1);
    scripted.once(At::Auth, "535 5.7.8 wrong password");
    let refused = hand_in_from(gateway.address(), "example.com").await;
    assert!(refused.starts_with("451 ") && refused.contains("AUTH"), "{refused}");
    let taken = hand_in_from(gateway.address(), "example.org").await;
    assert!(taken.starts_with("250 "), "{taken}");
}
