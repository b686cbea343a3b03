//! Behind a load balancer: whom a listener takes a connection to be from, and which PROXY headers it refuses.

use std::net::SocketAddr;

use waxseal::inbound::users::Users;
use waxseal::inbound::{ListenerOptions, Tls};

use crate::support::certificate::Authority;
use crate::support::client::Client;
use crate::support::listener::{Listening, Recorder, budget, options, server_tls};

/// The only address from which a header is accepted.
const LOAD_BALANCER: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 0, 2];

/// Clients from 192.0.2.0/24 may send.
fn behind_a_load_balancer(tls: Tls) -> ListenerOptions {
    ListenerOptions {
        tls,
        allow: vec!["192.0.2.0/24".parse().unwrap()],
        proxy_protocol: vec!["127.0.0.1/32".parse().unwrap()],
        ..options()
    }
}

fn start(options: ListenerOptions) -> Listening<Recorder> {
    Listening::start(options, Users::none(), budget(), Recorder::default())
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 10.0.0.1 40000 25\r\n").into_bytes()
}

/// With an extension (TLV), as cloud load balancers add them.
fn v2(client: [u8; 4]) -> Vec<u8> {
    let addresses = [&client[..], &[10, 0, 0, 1], &40_000_u16.to_be_bytes(), &25_u16.to_be_bytes()].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11", &addresses[..], b"\xea\0\x02vp"].concat()
}

async fn submit(client: &mut Client) -> String {
    assert!(client.ask("EHLO client.example").await.starts_with("250-"));
    for line in ["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>", "DATA"] {
        let reply = client.ask(line).await;
        if !reply.starts_with(['2', '3']) {
            return reply;
        }
    }
    client.ask("From: a@example.com\r\n\r\nHello.\r\n.").await
}

async fn greeting(client: &mut Client) -> String {
    client.reply().await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_behind_the_load_balancer_is_the_client_with_every_kind_of_tls() {
    let authority = Authority::new();
    let config = server_tls(&authority);
    for tls in [Tls::Off, Tls::StartTls(config.clone()), Tls::Implicit(config.clone())] {
        for header in [v1("192.0.2.7"), v2([192, 0, 2, 7])] {
            let listening = start(behind_a_load_balancer(tls.clone()));
            let mut client = Client::connect_from(LOAD_BALANCER, listening.address).await;
            client.send(&header).await;
            if matches!(tls, Tls::Implicit(_)) {
                client = client.start_tls(&authority).await.expect("TLS");
            }
            assert!(greeting(&mut client).await.starts_with("220 "));
            if matches!(tls, Tls::StartTls(_)) {
                assert!(client.ask("EHLO client.example").await.contains("STARTTLS"));
                assert!(client.ask("STARTTLS").await.starts_with("220 "));
                client = client.start_tls(&authority).await.expect("TLS");
            }
            let reply = submit(&mut client).await;
            assert!(reply.starts_with("250 "), "{reply}");
            let taken = listening.finish().await.take();
            assert_eq!(taken[0].client.peer, "192.0.2.7:40000".parse::<SocketAddr>().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_real_clients_inside_allow_may_send() {
    let listening = start(behind_a_load_balancer(Tls::Off));
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    for header in [v1("203.0.113.9"), v2([203, 0, 113, 9]), v2(LOAD_BALANCER), b"PROXY UNKNOWN\r\n".to_vec(), local] {
        let mut client = Client::connect_from(LOAD_BALANCER, listening.address).await;
        client.send(&header).await;
        assert!(greeting(&mut client).await.starts_with("220 "));
        let reply = submit(&mut client).await;
        assert!(reply.starts_with("5"), "{}: {reply}", header.escape_ascii());
    }
    assert!(listening.finish().await.take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_for_an_address_counts_real_clients() {
    let options = ListenerOptions { max_connections_per_address: 1, ..behind_a_load_balancer(Tls::Off) };
    let listening = start(options);
    let connect = async |header: Vec<u8>| {
        let mut client = Client::connect_from(LOAD_BALANCER, listening.address).await;
        client.send(&header).await;
        (greeting(&mut client).await, client)
    };
    let (first, _open) = connect(v1("192.0.2.1")).await;
    let (second, _also_open) = connect(v2([192, 0, 2, 2])).await;
    assert!(first.starts_with("220 ") && second.starts_with("220 "), "{first} {second}");
    let (third, _) = connect(v2([192, 0, 2, 1])).await;
    assert!(third.starts_with("421 "), "{third}");
}

/// In every split of what is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_counts_once_and_from_a_load_balancer_alone() {
    let listening = start(behind_a_load_balancer(Tls::Off));
    let smuggled = |header: Vec<u8>, second: Vec<u8>| [header, second].concat();
    for (source, sent, greeted) in [
        (OTHER, v1("192.0.2.7"), true),
        (OTHER, v2([192, 0, 2, 7]), true),
        (LOAD_BALANCER, smuggled(v1("203.0.113.9"), v1("192.0.2.7")), true),
        (LOAD_BALANCER, smuggled(v1("203.0.113.9"), v2([192, 0, 2, 7])), true),
        (LOAD_BALANCER, smuggled(v2([203, 0, 113, 9]), v1("192.0.2.7")), true),
        (LOAD_BALANCER, b"EHLO client.example\r\n".to_vec(), false),
        (LOAD_BALANCER, b"PROXY TCP4 192.0.2.7 10.0.0.1 40000\r\n".to_vec(), false),
        (LOAD_BALANCER, [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(), false),
        (LOAD_BALANCER, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec(), false),
    ] {
        for step in [1, 5, sent.len()] {
            let mut client = Client::connect_from(source, listening.address).await;
            for part in sent.chunks(step) {
                client.send(part).await;
            }
            client
                .send(b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nQUIT\r\n")
                .await;
            let mut said = Vec::new();
            while let Some(reply) = client.reply().await {
                said.push(reply);
            }
            let what = format!("{} in {step}s: {said:?}", sent.escape_ascii());
            assert!(!said.iter().any(|reply| reply.starts_with("250 ")), "{what}");
            if step == sent.len() {
                assert!(
                    said.iter().all(|reply| reply.starts_with("220 ")) && said.len() <= usize::from(greeted),
                    "{what}"
                );
            }
        }
    }
    assert!(listening.finish().await.take().is_empty());
}
