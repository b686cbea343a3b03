//! Addresses that hide a route, a command or a second recipient are refused, and the session goes on; those that only
//! look odd reach the provider letter for letter.

use crate::support::application::{mail, queued_in_front_of};
use crate::support::client::Client;
use crate::support::tally::Tally;
use crate::support::upstream::ScriptedUpstream;

/// Invalid recipients, in an otherwise valid command.
const NO_PATHS: &[&str] = &[
    "<a%evil@us>",
    "<\"a@evil\"@us@evil>",
    "<\"a@evil\"@us>",
    "<\"a\\@evil\"@us>",
    "<\"a%evil\"@us>",
    "<\"evil!a\"@us>",
    "<@us:>",
    "<a@evil@us>",
    "<evil!a>",
    "<evil!a@us>",
    "<a@us:2025>",
    "<>",
    "<a@>",
    "<@us>",
    "<a>",
    "<a b@us>",
    "<a@us",
    "a@us",
    "<a@[300.0.0.1]>",
    "<a@us>x",
    "<a@us><b@us>",
    "<a@us>,<b@us>",
    "<\"a@us>",
    "<@evil,a@us>",
];

/// Whole commands, each with the beginning of the reply.
const NO_COMMANDS: &[(&[u8], &str)] = &[
    (b"RCPT TO:<Postmaster>", "550 5.1.1 "),
    (b"RCPT TO:<a\0@us>", "500 5.5.2 "),
    (b"RCPT TO:<a@us>\r", "500 5.5.2 "),
    (b"RCPT TO:<a@b>\rRCPT TO:<c@d>", "500 5.5.2 "),
    (b"RCPT TO:<a@b>\nRCPT TO:<c@d>", "500 5.5.2 "),
    (b"RCPT TO:<a@\xff>", "501 5."),
    (b"RCPT TO:<\xc3\x28@us>", "501 5."),
    (b"RCPT TO:<a@b> SIZE=1", "555 5.5.4 "),
    (b"RCPT TO:<a@b> NOTIFY=NEVER", "555 5.5.4 "),
    (b"RCPT TO:<a@b> ORCPT=rfc822;c@d", "555 5.5.4 "),
    (b"MAIL FROM:<a@b>SIZE=1", "501 5."),
    (b"MAIL FROM: Name <a@b>", "501 5.1.7 "),
    (b"MAIL FROM:<a@b> SIZE=abc", "501 5."),
    (b"MAIL FROM:<a@b> SIZE=18446744073709551616", "501 5."),
    (b"MAIL FROM:<a@b> SIZE=18446744073709551615", "552 5.3.4 "),
    (b"MAIL FROM:<a@b> SIZE=99999999999 SIZE=1", "501 5."),
    (b"MAIL FROM:<a@b> BODY=7BIT BODY=8BITMIME", "501 5."),
    (b"MAIL FROM:<@us:>", "501 5.1.7 "),
    (b"MAIL FROM:<a@b> RET=HDRS", "555 5.5.4 "),
    (b"MAIL FROM:<a@b> ENVID=x", "555 5.5.4 "),
    (b"MAIL FROM:<a%evil@us>", "501 5."),
    (b"MAIL FROM:<a@b>\rRCPT TO:<c@d>", "500 5.5.2 "),
];

/// Each with the beginning of the reply.
fn refused() -> Vec<(Vec<u8>, &'static str)> {
    let long = |octets: usize| format!("<{}@example.net>", "l".repeat(octets));
    let path = |octets: usize| {
        let domain = format!("{0}.{0}.{0}", "d".repeat(60));
        let local = octets - domain.len() - 3;
        format!("<{}@{domain}>", "l".repeat(local))
    };
    let paths = NO_PATHS.iter().map(ToString::to_string).chain([long(65), path(257)]);
    let paths = paths.map(|path| (format!("RCPT TO:{path}").into_bytes(), "501 5."));
    paths.chain(NO_COMMANDS.iter().map(|(octets, reply)| (octets.to_vec(), *reply))).collect()
}

/// Accepted as they are, without a source route.
const TAKEN: &[(&str, &str)] = &[
    ("\"a b\"@example.net", "\"a b\"@example.net"),
    ("\"a\\\"b\"@example.net", "\"a\\\"b\"@example.net"),
    ("\"a>b\"@example.net", "\"a>b\"@example.net"),
    ("a@[127.0.0.1]", "a@[127.0.0.1]"),
    ("a@[IPv6:::1]", "a@[IPv6:::1]"),
    ("a+b=c@example.net", "a+b=c@example.net"),
    ("@us,@x:a@example.net", "a@example.net"),
    ("j\u{fc}rgen@ex\u{e4}mple.net", "j\u{fc}rgen@ex\u{e4}mple.net"),
];

#[tokio::test(flavor = "multi_thread")]
async fn hostile_addresses_are_refused_and_odd_ones_travel_verbatim() {
    let mut tally = Tally::new("addresses", "through the gateway");
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, "", "").start(1);
    for (line, expected) in refused() {
        let mut client = Client::connect(gateway.address()).await;
        client.greet().await;
        if line.starts_with(b"RCPT") {
            assert!(client.ask("MAIL FROM:<reports@example.com>").await.starts_with("250 "));
        }
        client.send(&[&line, &b"\r\n"[..]].concat()).await;
        let reply = client.reply().await.unwrap_or_default();
        let after = client.ask("NOOP").await;
        let right = reply.starts_with(expected) && after == "250 2.0.0 OK";
        tally.case(right, || format!("{}: {reply}, then {after}", line.escape_ascii()));
    }
    for (number, (address, _)) in TAKEN.iter().enumerate() {
        let mut client = Client::connect(gateway.address()).await;
        client.greet().await;
        for line in ["MAIL FROM: <reports@example.com>", &format!("RCPT TO:<{address}>"), "DATA"] {
            let reply = client.ask(line).await;
            tally.case(reply.starts_with("250 ") || reply.starts_with("354 "), || format!("{line}: {reply}"));
        }
        let reply = client.ask(&format!("{}.", mail(&number.to_string()))).await;
        tally.case(reply.starts_with("250 "), || format!("{address}: {reply}"));
    }
    scripted.until_messages(TAKEN.len()).await;
    let mut arrived: Vec<_> = scripted.messages().into_iter().flat_map(|message| message.recipients).collect();
    // The scripted provider has to cut off the parameter after the address.
    let mut expected: Vec<_> = TAKEN.iter().map(|(_, travels)| (*travels).to_owned()).collect();
    arrived.sort_unstable();
    expected.sort_unstable();
    tally.case(arrived == expected, || format!("{arrived:?}"));
    tally.finish();
}
