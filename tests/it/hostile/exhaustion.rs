//! Endless, huge, nested or numerous input: each limit with its reply, and resident memory within `max_memory` + 64 MiB
//! whatever clients send, in the whole program and without any help from the environment.

use crate::support::application::{SENDER, hand_in, in_front_of, mail, queued_in_front_of, up_to_data};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::tally::Tally;
use crate::support::upstream::{Action, At, ScriptedUpstream};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

pub(super) const MIB: usize = 1024 * 1024;
/// `max_memory` of the gateways here.
const MEMORY: usize = 64 * MIB;
/// The memory that the program may use in addition.
pub(super) const BESIDES: usize = 64 * MIB;
const RECIPIENT: &[&str] = &["you@example.net"];
/// Clients that do the same at once.
const AT_ONCE: usize = 8;

fn gateway(scripted: &ScriptedUpstream) -> Gateway {
    with_little_memory(queued_in_front_of(scripted, "", ""))
}

fn with_little_memory(setup: Setup) -> Gateway {
    setup
        .config_with("[log]\n", "max_memory = \"64 MiB\"\n[log]\n")
        .config_with(
            "address = \"127.0.0.1:0\"\n",
            "address = \"127.0.0.1:0\"\nmax_connections = 11000\nmax_connections_per_address = 11000\n\
             max_message_size = \"12 MiB\"\n",
        )
        .start(1)
}

/// Octets of resident memory: now, and at most so far.
pub(super) fn resident(gateway: &Gateway) -> (usize, usize) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("the process");
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of it");
        line.split_whitespace().next().and_then(|number| number.parse::<usize>().ok()).expect("a number") * 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn judge_memory(tally: &mut Tally, gateway: &Gateway, what: &str) {
    let (now, most) = resident(gateway);
    println!("exhaustion: {what}: {} MiB resident now, {} MiB at most", now / MIB, most / MIB);
    tally.case(most <= MEMORY + BESIDES, || format!("{what}: {} MiB of resident memory", most / MIB));
}

/// The pieces that a client sends, and the codes of the expected replies.
struct Flood {
    name: &'static str,
    before: Vec<u8>,
    piece: Vec<u8>,
    times: usize,
    after: Vec<u8>,
    /// How many replies begin with which text, in order.
    replies: Vec<(usize, &'static str)>,
}

fn envelope() -> Vec<u8> {
    format!("EHLO x\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<you@example.net>\r\nDATA\r\n").into_bytes()
}

/// The greeting, and those to EHLO (the keywords are one reply), MAIL, RCPT, DATA.
const UP_TO_DATA: [(usize, &str); 3] = [(1, "220 "), (3, "250"), (1, "354 ")];

fn message(name: &'static str, head: &str, piece: &[u8], octets: usize, tail: &str, reply: &'static str) -> Flood {
    Flood {
        name,
        before: [envelope(), head.as_bytes().to_vec()].concat(),
        piece: piece.repeat((64 * 1024 / piece.len()).max(1)),
        times: octets / (64 * 1024),
        after: format!("{tail}\r\n.\r\nNOOP\r\n").into_bytes(),
        replies: [&UP_TO_DATA[..], &[(1, reply), (1, "250 2.0.0 OK")]].concat(),
    }
}

fn floods() -> Vec<Flood> {
    let from = "From: reports@example.com\r\n";
    let mixed = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n";
    let command = |name, before: &str, octets: usize, replies| Flood {
        name,
        before: before.as_bytes().to_vec(),
        piece: vec![b'x'; 64 * 1024],
        times: octets / (64 * 1024),
        after: b"\r\nNOOP\r\n".to_vec(),
        replies,
    };
    vec![
        command("an endless command", "NOOP ", 128 * MIB, vec![(1, "220 "), (1, "500 5.5.2 "), (1, "250 2.0.0 OK")]),
        command(
            "an endless answer to AUTH",
            "EHLO x\r\nAUTH LOGIN\r\n",
            128 * MIB,
            vec![(1, "220 "), (1, "250"), (1, "502 "), (1, "500 5.5.2 "), (1, "250 2.0.0 OK")],
        ),
        message("an endless line of text", &format!("{from}\r\n"), b"x", 128 * MIB, "", "552 5.3.4 "),
        message("endless headers", from, b"X-Again: and again\r\n", 32 * MIB, "\r\n", "552 5.3.4 "),
        message("an endless header line", &format!("{from}X: "), b"y", 128 * MIB, "\r\n", "552 5.3.4 "),
        message("a header of 10 MB", from, b"X-Large: 10 MB\r\n", 10 * MIB, "\r\n", "552 5.3.4 "),
        message("a header line of 10 MB", &format!("{from}X: "), b"y", 10 * MIB, "\r\n", "552 5.3.4 "),
        message("nested multiparts", &format!("{from}{mixed}"), mixed.as_bytes(), 10 * MIB, "", "250 2.0.0 Queued as "),
        message("nested messages", from, b"Content-Type: message/rfc822\r\n\r\n", 10 * MIB, "", "250 2.0.0 Queued as "),
        message(
            "parts without number",
            &format!("{from}{mixed}"),
            b"\r\n--b\r\n\r\nx",
            10 * MIB,
            "\r\n--b--",
            "250 2.0.0 Queued as ",
        ),
        message(
            "HTML of nothing but <div>",
            &format!("{from}Content-Type: text/html\r\n\r\n"),
            b"<div>",
            MIB,
            "",
            "250 2.0.0 Queued as ",
        ),
        message(
            "a line of 10 MB that is repaired",
            &format!("{from}\r\n"),
            b"\xc3\xa4",
            10 * MIB,
            "",
            "250 2.0.0 Queued as ",
        ),
        recipients(),
        size_lie(),
    ]
}

fn recipients() -> Flood {
    Flood {
        name: "100,000 recipients",
        before: format!("EHLO x\r\nMAIL FROM:<{SENDER}>\r\n").into_bytes(),
        piece: (0..100_000).map(|n| format!("RCPT TO:<somebody-{n}@example.net>\r\n")).collect::<String>().into_bytes(),
        times: 1,
        after: b"RSET\r\n".to_vec(),
        replies: vec![(1, "220 "), (2, "250"), (1000, "250 2.1.5 "), (99_000, "452 4.5.3 "), (1, "250 2.0.0 ")],
    }
}

/// Declares 200 KiB and sends 10 MiB.
fn size_lie() -> Flood {
    let mut lie = message(
        "a size 50 times what was said",
        "From: reports@example.com\r\n\r\n",
        b"x\r\n",
        10 * MIB,
        "",
        "250 2.0.0 Queued as ",
    );
    let said = String::from_utf8(lie.before)
        .expect("text")
        .replace("example.com>\r\nRCPT", "example.com> SIZE=204800\r\nRCPT");
    lie.before = said.into_bytes();
    lie
}

/// What was wrong with the replies, if anything.
async fn pour(address: SocketAddr, flood: Arc<Flood>) -> Option<String> {
    let (mut reading, mut writing) = Client::connect(address).await.split();
    let own = Arc::clone(&flood);
    let sending = tokio::spawn(async move {
        writing.send(&own.before).await;
        for _ in 0..own.times {
            writing.send(&own.piece).await;
        }
        writing.send(&own.after).await;
        writing
    });
    let mut wrong = None;
    for (times, expected) in &flood.replies {
        for _ in 0..*times {
            let reply = reading.reply().await.unwrap_or_default();
            // If the budget is used up, the last client gets a temporary refusal.
            let right = reply.starts_with(expected) || (expected.len() > 4 && reply.starts_with("452 4.3.1 "));
            if !right {
                wrong = wrong.or(Some(format!("expected {expected}, got {reply:?}")));
            }
        }
    }
    let _open_until_now = sending.await.expect("no panic");
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_endless_has_its_reply_and_takes_no_memory() {
    let mut tally = Tally::new("exhaustion", "floods");
    for flood in floods() {
        let scripted = ScriptedUpstream::start().await;
        let gateway = gateway(&scripted);
        let name = flood.name;
        let flood = Arc::new(flood);
        let mut clients = JoinSet::new();
        for _ in 0..AT_ONCE {
            clients.spawn(pour(gateway.address(), Arc::clone(&flood)));
        }
        let wrong = clients.join_all().await;
        for wrong in wrong {
            tally.case(wrong.is_none(), || format!("{name}: {}", wrong.unwrap_or_default()));
        }
        judge_memory(&mut tally, &gateway, name);
    }
    tally.finish();
}

/// Fragmentation between allocations of many sizes counts, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_of_many_sizes_leaves_no_memory_lying_about() {
    const CLIENTS: usize = 32;
    const SIZES: [usize; 6] = [4_000, 2_000_000, 30_000, 1_000_000, 300_000, 700_000];
    let mut tally = Tally::new("exhaustion", "many sizes");
    let scripted = ScriptedUpstream::start().await;
    let gateway = gateway(&scripted);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let address = gateway.address();
        clients.spawn(async move {
            let mut replies = Vec::new();
            for at in 0..2 * SIZES.len() {
                let octets = SIZES[(number + at) % SIZES.len()];
                let text = if at % 3 == 0 { "gr\u{fc}n und rot\r\n" } else { "red and green all over\r\n" };
                let message = format!("{}{}", mail("a size"), text.repeat(octets / text.len()));
                replies.push(hand_in(address, RECIPIENT, &message).await);
            }
            replies
        });
    }
    for reply in clients.join_all().await.concat() {
        let right = reply.starts_with("250 2.0.0 Queued as ") || reply.starts_with("452 4.3.1 ");
        tally.case(right, || reply);
    }
    judge_memory(&mut tally, &gateway, "a load of many sizes");
    tally.finish();
}

/// Each needs more than its size again while it is converted to ASCII and sent.
#[tokio::test(flavor = "multi_thread")]
async fn eight_bit_mail_for_a_server_without_8bitmime_takes_no_more_memory() {
    const CLIENTS: usize = 36;
    let mut tally = Tally::new("exhaustion", "conversions");
    let slow = Action::Late(Duration::from_secs(1));
    let scripted = ScriptedUpstream::builder().without("8BITMIME").always(At::Dot, slow).start().await;
    let gateway = with_little_memory(in_front_of(&scripted, "max_connections = 60"));
    let line = format!("{}\r\n", "\u{fc}".repeat(30));
    let head = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
    let of_size = |octets: usize| format!("{head}{}{}", mail("umlauts"), line.repeat(octets / line.len()));
    let message = Arc::new(of_size(900 * 1024));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(hand_in_at_last(gateway.address(), Arc::clone(&message)));
    }
    for reply in clients.join_all().await {
        tally.case(reply.starts_with("250 "), || reply);
    }
    // Nearly all of the memory for conversions, and more than that.
    let large = hand_in_at_last(gateway.address(), Arc::new(of_size(11 * MIB))).await;
    tally.case(large.starts_with("250 "), || large);
    let too_large = hand_in(gateway.address(), RECIPIENT, &of_size(12 * MIB - 64 * 1024)).await;
    tally.case(too_large.contains(" 5.3.4 ") && too_large.contains("a quarter of `max_memory`"), || too_large);
    let taken = scripted.messages();
    let is_ascii = taken.len() == CLIENTS + 1 && taken.iter().all(|message| message.data.is_ascii());
    tally.case(is_ascii, || format!("{} messages, or 8-bit ones", taken.len()));
    judge_memory(&mut tally, &gateway, "conversions to ASCII");
    tally.finish();
}

/// Repeats it while there is no memory for it.
async fn hand_in_at_last(gateway: SocketAddr, message: Arc<String>) -> String {
    for _ in 0..600 {
        let reply = hand_in(gateway, RECIPIENT, &message).await;
        if !reply.starts_with("452 4.3.1 ") {
            return reply;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    "452 without end".to_owned()
}

/// The number of files that the system lets a process open; says so if it is too low.
fn may_open(files: u64) -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)
        .expect("a limit may be raised to its maximum");
    let enough = limit.maximum.is_none_or(|most| most >= files);
    if !enough {
        println!("skipped: this machine lets a process open no {files} files");
    }
    enough
}

/// The benchmark measures how long the honest one waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_clients_take_no_memory_and_an_honest_one_is_served() {
    const SLOW: usize = 1000;
    const OCTETS: usize = 16;
    let mut tally = Tally::new("exhaustion", "slow clients");
    if !may_open(2000) {
        tally.right(1);
        return tally.finish();
    }
    let scripted = ScriptedUpstream::start().await;
    let gateway = gateway(&scripted);
    let mut slow = Vec::with_capacity(SLOW);
    for _ in 0..SLOW {
        let mut client = up_to_data(gateway.address(), RECIPIENT).await;
        client.send(format!("{}{}", mail("slow"), "a line that came at once\r\n".repeat(600)).as_bytes()).await;
        slow.push(client);
    }
    for _ in 0..OCTETS {
        for client in &mut slow {
            client.send(b"x").await;
        }
        let reply = hand_in(gateway.address(), RECIPIENT, &mail("honest")).await;
        tally.case(reply.starts_with("250 2.0.0 Queued as "), || format!("beside {SLOW} slow ones: {reply}"));
    }
    judge_memory(&mut tally, &gateway, "1,000 slow clients");
    for mut client in slow {
        let reply = client.ask("\r\n.").await;
        tally.case(reply.starts_with("250 2.0.0 Queued as "), || format!("a slow one: {reply}"));
    }
    judge_memory(&mut tally, &gateway, "1,000 clients that were slow");
    tally.finish();
}

/// In the middle of their transactions, with addresses of maximum length.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_envelopes_of_a_thousand_recipients_are_in_the_budget() {
    const CLIENTS: usize = 1000;
    const RECIPIENTS: usize = 1000;
    let mut tally = Tally::new("exhaustion", "envelopes");
    if !may_open(2 * CLIENTS as u64) {
        tally.right(1);
        return tally.finish();
    }
    for octets in [20, 240] {
        let scripted = ScriptedUpstream::start().await;
        let gateway = gateway(&scripted);
        let domain = format!("{0}.{0}.{0}", "d".repeat(57));
        let domain = if octets < 64 { "example.net" } else { &domain };
        let mut open = Vec::with_capacity(CLIENTS);
        for _ in 0..CLIENTS / 50 {
            let mut some = JoinSet::new();
            for _ in 0..50 {
                some.spawn(fill_envelope(gateway.address(), RECIPIENTS, domain.to_owned()));
            }
            open.extend(some.join_all().await);
        }
        let mut taken = 0;
        let mut refused = 0;
        for (_, replies) in &open {
            for reply in replies {
                taken += usize::from(reply.starts_with("250 2.1.5 "));
                refused += usize::from(reply.starts_with("452 4.3.1 "));
            }
        }
        tally.case(taken > 10_000 && taken + refused == CLIENTS * RECIPIENTS, || format!("{taken} and {refused}"));
        judge_memory(&mut tally, &gateway, &format!("{taken} recipients of {octets} octets in {CLIENTS} envelopes"));
        // In sync, and with the accepted recipients.
        let (mut first, replies) = open.remove(0);
        let kept = replies.iter().filter(|reply| reply.starts_with("250 ")).count();
        for (client, _) in &mut open {
            let reply = client.ask("RSET").await;
            tally.case(reply.starts_with("250 "), || format!("RSET: {reply}"));
        }
        let reply = first.ask("DATA").await;
        tally.case(reply.starts_with("354 ") == (kept > 0), || format!("{kept} recipients, and then {reply}"));
        let reply = first.ask(&format!("{}.", mail("to those that were taken"))).await;
        tally.case(reply.starts_with("250 "), || reply);
        let reply = hand_in(gateway.address(), RECIPIENT, &mail("behind them")).await;
        tally.case(reply.starts_with("250 "), || reply);
        judge_memory(&mut tally, &gateway, "and after them");
    }
    tally.finish();
}

/// The replies to the recipients.
async fn fill_envelope(gateway: SocketAddr, recipients: usize, domain: String) -> (Client, Vec<String>) {
    let mut client = Client::connect(gateway).await;
    client.greet().await;
    let reply = client.ask(&format!("MAIL FROM:<{SENDER}>")).await;
    let mut replies = Vec::with_capacity(recipients);
    if !reply.starts_with("250 ") {
        replies.resize(recipients, reply);
        return (client, replies);
    }
    for from in (0..recipients).step_by(100) {
        let some: String =
            (from..from + 100).map(|n| format!("RCPT TO:<somebody-with-a-name-{n}@{domain}>\r\n")).collect();
        client.send(some.as_bytes()).await;
        for _ in 0..100 {
            replies.push(client.reply().await.unwrap_or_default());
        }
    }
    (client, replies)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_take_no_memory_and_one_more_is_served() {
    const IDLE: usize = 10_000;
    const FILES: u64 = 12_000;
    let mut tally = Tally::new("exhaustion", "idle connections");
    if !may_open(FILES) {
        tally.right(1);
        return tally.finish();
    }
    let scripted = ScriptedUpstream::start().await;
    let gateway = gateway(&scripted);
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE / 100 {
        let mut some = JoinSet::new();
        for _ in 0..100 {
            let address = gateway.address();
            some.spawn(async move {
                let mut client = Client::connect(address).await;
                client.greet().await;
                client
            });
        }
        idle.extend(some.join_all().await);
    }
    judge_memory(&mut tally, &gateway, "10,000 idle connections");
    let reply = hand_in(gateway.address(), RECIPIENT, &mail("beside them")).await;
    tally.case(reply.starts_with("250 "), || reply);
    assert_eq!(idle.len(), IDLE);
    tally.finish();
}
