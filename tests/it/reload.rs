//! `waxseal reload` and SIGHUP: the configuration changes while mail goes through, and a wrong one changes nothing.

use crate::support::application::{
    SENDER, configuration, field, further, hand_in, in_front_of, mail, numbered, queued_in_front_of, subjects,
};
use crate::support::certificate::Authority;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::keys::{TestKey, tables, with_files};
use crate::support::until;
use crate::support::upstream::ScriptedUpstream;
use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use waxseal::dkim::KeyAlgorithm;

const YOU: [&str; 1] = ["you@example.net"];

fn edit(gateway: &Gateway, old: &str, new: &str) {
    let path = gateway.folder().join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(old), "{old:?} is not in the configuration");
    // The gateway may be reading it.
    let whole = path.with_extension("new");
    std::fs::write(&whole, text.replacen(old, new, 1)).unwrap();
    std::fs::rename(whole, path).unwrap();
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Returns what it printed.
async fn reload(gateway: &Gateway) -> String {
    let command = gateway.command(&["reload"]);
    let output = tokio::task::spawn_blocking(move || {
        let mut command = command;
        command.output()
    })
    .await
    .unwrap()
    .unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

async fn greeting(address: SocketAddr) -> String {
    Client::connect(address).await.reply().await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_changes_nothing_and_is_explained() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted, "").start(1);
    edit(&gateway, "hostname = \"gateway.example.com\"", "hostname = \"other.example.com\"\nhostnam = \"x\"");
    let output = gateway.output(&["reload"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for words in ["config.toml:2:1", "hostnam", "did you mean", "nothing was changed"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let status = gateway.output(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(said(&status).contains("the configuration cannot be used, and the former one goes on: config.toml:2:1"));
    gateway.signal("HUP");
    gateway.wait_for_line(&["ERROR", "nothing has changed"]);
    assert!(greeting(gateway.address()).await.contains("gateway.example.com"));
    assert!(hand_in(gateway.address(), &YOU, &mail("as before")).await.starts_with("250 "));

    edit(&gateway, "\nhostnam = \"x\"", "");
    gateway.signal("HUP");
    gateway.wait_for_line(&["was read again", "hostname changed"]);
    assert_eq!(gateway.output(&["status"]).status.code(), Some(0));
    assert!(greeting(gateway.address()).await.contains("other.example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prevents_a_listener_prevents_the_whole_reload() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted, "").start(1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    edit(&gateway, "gateway.example.com", "other.example.com");
    edit(&gateway, "[[listener]]\n", &format!("[[listener]]\naddress = \"{address}\"\n[[listener]]\n"));
    let output = gateway.output(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&address.to_string()), "{}", said(&output));
    assert!(greeting(gateway.address()).await.contains("gateway.example.com"));
    drop(taken);
    assert!(reload(&gateway).await.contains(&format!("listening on {address}")));
    assert!(greeting(address).await.contains("other.example.com"));
    assert!(greeting(gateway.address()).await.contains("other.example.com"));
    edit(&gateway, &format!("[[listener]]\naddress = \"{address}\"\n"), "");
    let mut open = Client::connect(address).await;
    open.greet().await;
    assert!(reload(&gateway).await.contains(&format!("the listener {address} is closed")));
    assert!(open.reply().await.is_some_and(|reply| reply.starts_with("421 ")), "an idle client is told");
    until("the port is free", || std::net::TcpListener::bind(address).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_rules_routes_and_upstreams_count_from_the_next_message_of_an_open_connection() {
    let company = ScriptedUpstream::start().await;
    let other = ScriptedUpstream::start().await;
    let gateway = in_front_of(&company, "").file("other.pem", other.ca()).start(1);
    let mut open = Client::connect(gateway.address()).await;
    open.greet().await;
    let mut submit = async |subject: &str| {
        let reply = open.ask(&format!("MAIL FROM:<{SENDER}>")).await;
        if !reply.starts_with("250 ") {
            return reply;
        }
        open.ask("RCPT TO:<you@example.net>").await;
        open.ask("DATA").await;
        open.ask(&format!("{}.", mail(subject))).await
    };
    assert!(submit("1").await.starts_with("250 "));
    let rule = "[[rewrite]]\nheader = { Subject = \"2*\" }\nset_headers = { X-Team = \"reports\" }\n";
    let route = "[[route]]\nname = \"second\"\nheader = { X-Team = \"*\" }\nupstreams = [\"other\"]\n\
                 [[route]]\nname = \"rest\"\nupstreams = [\"company\"]\n";
    let lines = further("other", &other, "") + rule + route;
    edit(&gateway, "[queue]\n", &format!("{lines}[queue]\n"));
    let told = reload(&gateway).await;
    assert!(told.contains("rewrite rules changed") && told.contains("routes"), "{told}");
    assert!(submit("2").await.starts_with("250 "));
    assert!(submit("3").await.starts_with("250 "));
    assert_eq!((subjects(&company), subjects(&other)), (vec!["1".to_owned(), "3".to_owned()], vec!["2".to_owned()]));
    assert_eq!(field(&other.messages()[0].data, "X-Team"), "reports");
    assert_eq!(company.counts().total, 1, "an upstream that did not change keeps its connection");

    edit(&gateway, "username = \"relay-user\"", "username = \"another-user\"");
    assert!(reload(&gateway).await.contains("upstream \"company\" is connected to as it is configured now"));
    assert!(submit("4").await.starts_with("250 "));
    assert_eq!(company.logins().last().unwrap().1, "another-user");
    until("the former connection is closed", || company.counts().now == 1).await;

    edit(&gateway, "delivery = \"direct\"\n", "delivery = \"direct\"\nallow = [\"192.0.2.0/24\"]\n");
    reload(&gateway).await;
    assert!(submit("5").await.starts_with("530 "), "this client may not send any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_mail_follows_its_routes_while_the_listeners_stay_open() {
    let away = crate::support::provider::Provider::away();
    let other = ScriptedUpstream::start().await;
    let gateway = away.queued("", "").file("other.pem", other.ca()).start(1);
    for subject in numbered(30) {
        assert!(hand_in(gateway.address(), &YOU, &mail(&subject)).await.starts_with("250 "));
    }
    let route = "[[route]]\nname = \"new\"\nupstreams = [\"other\"]\n";
    edit(&gateway, "[queue]\n", &format!("{}{route}[queue]\n", further("other", &other, "")));
    assert!(reload(&gateway).await.contains("waiting mail is put on their lanes"));
    other.until_messages(30).await;
    assert_eq!(subjects(&other), numbered(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_stays_as_it_is() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted, "").start(1);
    edit(&gateway, "hostname = ", "data_dir = \"elsewhere\"\nmax_memory = \"300 MiB\"\nhostname = ");
    edit(&gateway, "gateway.example.com", "other.example.com");
    edit(&gateway, "[queue]\n", "[queue]\nexpire = \"3d\"\n");
    let folder = gateway.folder();
    // The command itself looks for the gateway where the configuration says.
    gateway.signal("HUP");
    gateway.wait_for_line(&["only after a restart", "data_dir", "max_memory", "retry and expire"]);
    assert!(greeting(gateway.address()).await.contains("other.example.com"), "the rest is in effect");
    assert!(!folder.join("elsewhere").exists());
    assert!(hand_in(gateway.address(), &YOU, &mail("goes on")).await.starts_with("250 "));
}

/// Whether a client that trusts only this authority gets TLS.
async fn is_trusted(address: SocketAddr, authority: &Authority) -> bool {
    let mut client = Client::connect(address).await;
    client.greet().await;
    client.ask("STARTTLS").await;
    client.start_tls(authority).await.is_ok()
}

async fn until_trusted(address: SocketAddr, authority: &Authority) {
    let deadline = tokio::time::Instant::now() + crate::support::client::HANG_GUARD;
    while !is_trusted(address, authority).await {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate was not noticed");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_are_noticed_however_they_are_put_there_and_half_written_ones_wait() {
    let scripted = ScriptedUpstream::start().await;
    let authorities: Vec<Authority> = (0..4).map(|_| Authority::new()).collect();
    let issued: Vec<_> = authorities.iter().map(|it| it.issue(&["localhost", "127.0.0.1"])).collect();
    let tls =
        "[[listener]]\ntls = \"starttls\"\ncertificate = \"tls/live/gw.pem\"\nprivate_key = \"tls/live/gw.key\"\n";
    let setup = in_front_of(&scripted, "").config_with("[[listener]]\n", tls);
    let folder = setup.folder().to_owned();
    let pair = |version: &str, number: usize| {
        let folder = folder.join("tls").join(version);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("gw.pem"), &issued[number].certificate).unwrap();
        std::fs::write(folder.join("gw.key"), &issued[number].private_key).unwrap();
    };
    let link_to = |version: &str| {
        let link = folder.join("tls/link");
        std::os::unix::fs::symlink(version, &link).unwrap();
        std::fs::rename(link, folder.join("tls/live")).unwrap();
    };
    pair("one", 0);
    link_to("one");
    let gateway = setup.start(1);
    let address = gateway.address();
    assert!(is_trusted(address, &authorities[0]).await);
    // As mounted secrets change.
    pair("two", 1);
    link_to("two");
    until_trusted(address, &authorities[1]).await;
    // Certificate and key one after the other, the first one half at first.
    let live = folder.join("tls/live");
    let whole = &issued[2].certificate;
    std::fs::write(live.join("gw.pem"), &whole[..whole.len() / 2]).unwrap();
    gateway.wait_for_line(&["ERROR", "certificate", "gw.pem"]);
    assert!(is_trusted(address, &authorities[1]).await, "the old pair stays");
    std::fs::write(live.join("gw.pem"), whole).unwrap();
    gateway.wait_for_line(&["ERROR", "the private key does not belong"]);
    assert!(is_trusted(address, &authorities[1]).await, "the old pair stays");
    std::fs::write(live.join("gw.key"), &issued[2].private_key).unwrap();
    until_trusted(address, &authorities[2]).await;
    // An edit of the configuration that nobody asked to be read does not count.
    edit(&gateway, "gateway.example.com", "unasked.example.com");
    for (name, content) in [("gw.pem", &issued[3].certificate), ("gw.key", &issued[3].private_key)] {
        std::fs::write(folder.join("new"), content).unwrap();
        std::fs::rename(folder.join("new"), live.join(name)).unwrap();
    }
    until_trusted(address, &authorities[3]).await;
    assert!(greeting(address).await.contains("gateway.example.com"));
}

/// Clients that submit one mail after the other until they are stopped; returns what was accepted.
async fn load(address: SocketAddr, stop: Arc<AtomicBool>) -> Vec<String> {
    let client = |number: usize| {
        let stop = stop.clone();
        tokio::spawn(async move {
            let mut accepted = Vec::new();
            let mut client = Client::connect(address).await;
            client.greet().await;
            for count in 0..100_000 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let subject = format!("{number}-{count:05}");
                for line in [format!("MAIL FROM:<{SENDER}>"), "RCPT TO:<you@example.net>".to_owned(), "DATA".to_owned()]
                {
                    let reply = client.ask(&line).await;
                    assert!(reply.starts_with("250 ") || reply.starts_with("354 "), "{line}: {reply}");
                }
                let reply = client.ask(&format!("{}.", mail(&subject))).await;
                assert!(reply.starts_with("250 "), "{reply}");
                accepted.push(subject);
            }
            accepted
        })
    };
    let clients: Vec<_> = (0..4).map(client).collect();
    let mut accepted = Vec::new();
    for client in clients {
        accepted.extend(client.await.expect("no connection is dropped"));
    }
    accepted.sort_unstable();
    accepted
}

/// What is replaced by what, one after the other; each is undone by a later one. `second`: the table of another upstream, `key`: of a
/// DKIM key.
fn changes(second: &str, key: &str) -> Vec<(String, String)> {
    let small = "[storm]\nmore_than = 10000\n[trace]\nreceived = \"off\"\n[repair]\ndate = false\n[queue]\n";
    let expect = "[[expect]]\nsender = \"*\"\nevery = \"8d\"\nnotify = \"ops@example.net\"\n[queue]\n";
    [
        ("max_connections = 4", "max_connections = 2"),
        ("max_connections = 2", "max_connections = 4\nrate = \"2000/s\""),
        ("\nrate = \"2000/s\"", ""),
        ("gateway.example.com", "renamed.example.com"),
        ("renamed.example.com", "gateway.example.com"),
        ("[[listener]]\n", "[[listener]]\naddress = \"127.0.0.2:0\"\n[[listener]]\n"),
        ("[[listener]]\naddress = \"127.0.0.2:0\"\n", ""),
        ("[queue]\n", &format!("{second}[[route]]\nname = \"both\"\nupstreams = [\"other\", \"company\"]\n[queue]\n")),
        ("upstreams = [\"other\", \"company\"]", "upstreams = [\"company\"]"),
        (&format!("{second}[[route]]\nname = \"both\"\nupstreams = [\"company\"]\n"), ""),
        // Another name would be another account, with a cap of its own.
        ("relay-canary-password", "second-canary-password"),
        ("second-canary-password", "relay-canary-password"),
        ("[queue]\n", "[[rewrite]]\nset_headers = { X-Seen = \"yes\" }\n[queue]\nkeep_history = \"1d\"\n"),
        ("[[rewrite]]\nset_headers = { X-Seen = \"yes\" }\n[queue]\nkeep_history = \"1d\"\n", "[queue]\n"),
        ("[queue]\n", "[[user]]\nname = \"app\"\npassword = { env = \"PATH\" }\n[queue]\n"),
        ("[[user]]\nname = \"app\"\npassword = { env = \"PATH\" }\n[queue]\n", "[queue]\n"),
        ("[queue]\n", key),
        (key, "[queue]\n"),
        ("[queue]\n", small),
        (small, "[queue]\n"),
        ("[queue]\n", expect),
        (expect, "[queue]\n"),
        ("delivery = \"queue\"\n", "delivery = \"queue\"\nmax_recipients = 7\nrate = \"100000/s\"\n"),
        ("\nmax_recipients = 7\nrate = \"100000/s\"\n", "\n"),
    ]
    .map(|(old, new)| (old.to_owned(), new.to_owned()))
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_under_load_lose_nothing_and_exceed_no_cap() {
    const RELOADS: usize = 100;
    const CAP: usize = 4;
    let company = ScriptedUpstream::start().await;
    let other = ScriptedUpstream::start().await;
    let keys = [TestKey::new("wax1", KeyAlgorithm::Ed25519)];
    let setup = queued_in_front_of(&company, "max_connections = 4", "").file("other.pem", other.ca());
    let gateway = with_files(setup, &keys).start(1);
    let stop = Arc::new(AtomicBool::new(false));
    let running = tokio::spawn(load(gateway.address(), stop.clone()));
    let kinds = changes(&further("other", &other, "max_connections = 2"), &format!("{}[queue]\n", tables(&keys)));
    for number in 0..RELOADS {
        let (old, new) = &kinds[number % kinds.len()];
        edit(&gateway, old, new);
        if number % 2 == 0 {
            reload(&gateway).await;
        } else {
            gateway.signal("HUP");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let accepted = running.await.unwrap();
    until("everything has arrived", || company.messages().len() + other.messages().len() >= accepted.len()).await;
    let (_, log, _) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    let mut arrived = [subjects(&company), subjects(&other)].concat();
    arrived.sort_unstable();
    assert_eq!(arrived, accepted, "each once");
    assert!(accepted.len() > RELOADS, "{} mails", accepted.len());
    assert!(company.counts().max <= CAP && other.counts().max <= 2, "{:?} {:?}", company.counts(), other.counts());
    let problems: Vec<_> = log.iter().filter(|line| line.contains("\"ERROR\"")).collect();
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(!log.iter().any(|line| line.contains("possible duplicate")));
}

/// It went on with the limit that it was started with, and refused what the listener had accepted.
#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_takes_what_a_listener_accepts_after_a_reload() {
    let config = "unsigned = \"send\"\n[log]\nformat = \"json\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                  max_message_size = \"1 MiB\"\n[[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";
    let gateway = Setup::new(Some(config)).start(1);
    let large = mail("large") + &format!("{}\r\n", "x".repeat(70)).repeat(50_000);
    assert!(hand_in(gateway.address(), &YOU, &large).await.starts_with("552 "));
    edit(&gateway, "1 MiB", "8 MiB");
    reload(&gateway).await;
    assert!(hand_in(gateway.address(), &YOU, &large).await.starts_with("250 "));
    gateway.wait_for_line(&["kept in the sandbox"]);
}

/// What was accepted would have waited for memory that there never is.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_size_that_needs_more_memory_than_the_gateway_has_is_refused() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted, "").start(1);
    edit(&gateway, "hostname = ", "max_memory = \"1 GiB\"\nhostname = ");
    edit(&gateway, "[[listener]]\n", "[[listener]]\nmax_message_size = \"300 MiB\"\n");
    let output = gateway.output(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for words in ["`max_message_size`", "`max_memory` that the gateway was started with", "restart it"] {
        assert!(said(&output).contains(words), "{words}: {}", said(&output));
    }
}

#[test]
fn without_a_gateway_the_command_says_so() {
    let setup = Setup::new(Some(&configuration(([127, 0, 0, 1], 9).into(), "direct", "", "")));
    let output = setup.file("ca.pem", Authority::new().pem()).output(&["reload"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("no gateway"), "{}", said(&output));
}

/// As systemd's `Type=notify` and `WatchdogSec=` have it.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_what_happens() {
    let scripted = ScriptedUpstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let told = async || {
        let mut buffer = [0; 200];
        let received = tokio::time::timeout(crate::support::client::HANG_GUARD, socket.recv(&mut buffer));
        let octets = received.await.expect("nothing is told").unwrap();
        String::from_utf8_lossy(&buffer[..octets]).into_owned()
    };
    let until_told = async |what: &str| {
        while !told().await.lines().any(|line| line == what) {}
    };
    let setup = in_front_of(&scripted, "").env("NOTIFY_SOCKET", path.display()).env("WATCHDOG_USEC", 200_000);
    let mut gateway = setup.start(1);
    until_told("READY=1").await;
    until_told("WATCHDOG=1").await;
    until_told("WATCHDOG=1").await;
    gateway.signal("HUP");
    until_told("RELOADING=1").await;
    until_told("READY=1").await;
    gateway.signal("TERM");
    until_told("STOPPING=1").await;
    assert_eq!(gateway.wait().code(), Some(0));
}
