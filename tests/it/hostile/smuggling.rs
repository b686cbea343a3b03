//! One transaction is one message or none, through the whole gateway to a provider that records everything: every word
//! over CR, LF and dot (shorter ones with NUL, too) that is not the end of data, split at every octet, in plain text
//! and inside TLS, pipelined and not, as the first line, in the body, and after the size limit, with either
//! `line_endings`. CVE-2023-51764, CVE-2023-51765, CVE-2023-51766.

use crate::support::application::queued_in_front_of;
use crate::support::certificate::Authority;
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::lookalikes::LOOKALIKES;
use crate::support::tally::Tally;
use crate::support::upstream::{Message, ScriptedUpstream};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Every word of 1 to `longest` letters that contains a dot.
fn words(letters: &[u8], longest: usize) -> Vec<Vec<u8>> {
    let mut words = vec![Vec::new()];
    let mut all = Vec::new();
    for _ in 0..longest {
        words = words.iter().flat_map(|word| letters.iter().map(|&letter| [word, &[letter][..]].concat())).collect();
        all.extend(words.iter().filter(|word: &&Vec<u8>| word.contains(&b'.')).cloned());
    }
    all
}

/// `longest`: for words without NUL. The look-alikes, some of which are longer, are always included.
fn vocabulary(longest: usize) -> Vec<Vec<u8>> {
    let lookalikes = LOOKALIKES.iter().map(|word| word.to_vec()).collect();
    let mut all = [lookalikes, words(b"\r\n.", longest), words(b"\r\n.\0", 3)].concat();
    all.sort();
    all.dedup();
    all
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    FirstLine,
    Body,
    BehindTheLimit,
}

/// One transaction, and how it is sent.
#[derive(Debug, Clone)]
struct Case {
    /// Part of the sender's and the recipient's address: distinguishes its messages from all others.
    number: usize,
    word: Vec<u8>,
    place: Place,
    /// After this many octets of the data another segment begins; `None`: each octet is a segment.
    cut: Option<usize>,
    pipelined: bool,
}

/// `max_message_size` of every listener.
const LIMIT: usize = 2048;

impl Case {
    /// Up to and including the true end.
    fn data(&self) -> Vec<u8> {
        let second =
            "MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: two\r\n\r\ntwo\r\n.\r\n";
        [&self.before(), &self.word[..], second.as_bytes()].concat()
    }

    fn before(&self) -> Vec<u8> {
        let head = b"From: reports@example.com\r\nSubject: one\r\n\r\none";
        match self.place {
            Place::FirstLine => Vec::new(),
            Place::Body => head.to_vec(),
            Place::BehindTheLimit => [&head[..], &b"\r\nfilling".repeat(LIMIT / 9 + 1)].concat(),
        }
    }

    /// The last octets are the only end: it is one transaction.
    fn is_one(&self) -> bool {
        let data = self.data();
        let end = if data.starts_with(b".\r\n") {
            Some(3)
        } else {
            memchr::memmem::find(&data, b"\r\n.\r\n").map(|at| at + 5)
        };
        end == Some(data.len())
    }

    fn commands(&self) -> String {
        format!("MAIL FROM:<s{0}@example.com>\r\nRCPT TO:<r{0}@example.net>\r\nDATA\r\n", self.number)
    }
}

/// Every word in every place, split wherever it matters: from before its first octet to after its last, and octet by
/// octet.
fn cases(words: &[Vec<u8>]) -> Vec<Case> {
    let mut cases = Vec::new();
    for word in words {
        for place in [Place::FirstLine, Place::Body, Place::BehindTheLimit] {
            let start = Case { number: 0, word: word.clone(), place, cut: None, pipelined: false };
            let before = start.before().len();
            let cuts = (before.saturating_sub(1)..=before + word.len() + 1).map(Some);
            for cut in cuts.chain([None]) {
                for pipelined in [false, true] {
                    cases.push(Case { number: cases.len(), cut, pipelined, ..start.clone() });
                }
            }
        }
    }
    cases.retain(Case::is_one);
    cases
}

/// The reply to the dot. Panics, which counts as a wrong case, if the conversation is out of step.
async fn transact(client: &mut Client, case: &Case) -> String {
    let commands = case.commands();
    let data = case.data();
    let mut wire = if case.pipelined { commands.clone().into_bytes() } else { Vec::new() };
    let cut = case.cut.map(|cut| cut + wire.len());
    wire.extend_from_slice(&data);
    if !case.pipelined {
        client.send(commands.as_bytes()).await;
        assert_eq!(expected(client, 3).await, [250, 250, 354], "{case:?}");
    }
    match cut {
        Some(cut) => {
            let (first, second) = wire.split_at(cut);
            client.send(first).await;
            tokio::task::yield_now().await;
            client.send(second).await;
        }
        None => {
            // The filling before it is irrelevant.
            let near = wire.len() - data.len() + case.before().len().saturating_sub(2);
            client.send(&wire[..near]).await;
            for octet in wire[near..].chunks(1).take(case.word.len() + 4) {
                client.send(octet).await;
            }
            client.send(&wire[(near + case.word.len() + 4).min(wire.len())..]).await;
        }
    }
    if case.pipelined {
        assert_eq!(expected(client, 3).await, [250, 250, 354], "{case:?}");
    }
    client.reply().await.unwrap_or_else(|| panic!("closed: {case:?}"))
}

async fn expected(client: &mut Client, replies: usize) -> Vec<u16> {
    let mut codes = Vec::new();
    for _ in 0..replies {
        codes.push(client.reply().await.expect("a reply")[..3].parse().expect("a code"));
    }
    codes
}

/// All cases over one connection; the number of each with its reply.
async fn converse(address: SocketAddr, authority: Option<Arc<Authority>>, cases: Vec<Case>) -> Vec<(Case, String)> {
    let mut client = Client::connect(address).await;
    if let Some(authority) = authority {
        client = client.start_tls(&authority).await.expect("a handshake");
    }
    client.greet().await;
    let mut replies = Vec::new();
    for case in cases {
        let reply = transact(&mut client, &case).await;
        replies.push((case, reply));
    }
    assert_eq!(client.ask("NOOP").await, "250 2.0.0 OK", "in step to the end");
    replies
}

/// Four listeners: plain text and TLS, with either `line_endings`.
fn gateway(scripted: &ScriptedUpstream, authority: &Authority) -> Gateway {
    let issued = authority.issue(&["localhost"]);
    let listener = |tls: bool, line_endings: &str| {
        let tls =
            if tls { "tls = \"implicit\"\ncertificate = \"gateway.pem\"\nprivate_key = \"gateway.key\"\n" } else { "" };
        format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\nmax_message_size = \"2 KiB\"\nline_endings = \"{line_endings}\"\n{tls}"
        )
    };
    let three = listener(false, "reject") + &listener(true, "normalize") + &listener(true, "reject");
    queued_in_front_of(scripted, &three, "")
        .config_with("delivery = \"queue\"\n", "max_message_size = \"2 KiB\"\n")
        .file("gateway.pem", &issued.certificate)
        .file("gateway.key", &issued.private_key)
        .start(4)
}

/// RFC 5321 §4.1.1.4, §4.5.2, §2.3.8, for a reader that trusts no line ending.
fn obeys_the_outbound_rules(wire: &[u8]) -> bool {
    let bare = wire.iter().enumerate().any(|(at, octet)| match octet {
        b'\r' => wire.get(at + 1) != Some(&b'\n'),
        b'\n' => at == 0 || wire[at - 1] != b'\r',
        octet => *octet == 0,
    });
    let lines: Vec<_> =
        wire.split(|&octet| octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    let lone = lines.iter().filter(|line| **line == b".").count();
    let undoubled = lines.iter().filter(|line| line.starts_with(b".") && !line.starts_with(b"..")).count();
    !bare && lone == 1 && undoubled == 1 && wire.ends_with(b"\r\n.\r\n")
}

fn judge(tally: &mut Tally, replies: Vec<(Case, String)>, arrived: &BTreeMap<String, Vec<Message>>) {
    for (case, reply) in replies {
        let messages = arrived.get(&format!("<s{}@example.com>", case.number)).map_or(&[][..], Vec::as_slice);
        let taken = reply.starts_with("250 2.0.0 Queued as ");
        let refused = ["550 5.5.2 ", "552 5.3.4 "].iter().any(|code| reply.starts_with(code));
        let recipient = [format!("r{}@example.net", case.number)];
        let sound = |message: &Message| message.recipients == recipient && obeys_the_outbound_rules(&message.wire);
        let right = taken != refused && messages.len() == usize::from(taken) && messages.iter().all(sound);
        tally.case(right, || format!("{case:?}: {reply}, {} arrived", messages.len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_is_one_message_or_none() {
    let longest = if std::env::var("HOSTILE").is_ok_and(|wanted| wanted == "full") { 5 } else { 4 };
    let all = cases(&vocabulary(longest));
    let scripted = ScriptedUpstream::start().await;
    let authority = Arc::new(Authority::new());
    let gateway = gateway(&scripted, &authority);
    let mut running = JoinSet::new();
    let mut number = 0;
    for (at, address) in gateway.addresses().to_vec().into_iter().enumerate() {
        let secured = at >= 2;
        let mut own = all.clone();
        own.iter_mut().for_each(|case| (case.number, number) = (number, number + 1));
        for part in own.chunks(own.len().div_ceil(2)) {
            running.spawn(converse(address, secured.then(|| Arc::clone(&authority)), part.to_vec()));
        }
    }
    let replies = running.join_all().await.concat();
    assert_eq!(replies.len(), 4 * all.len());
    scripted.until_messages(replies.iter().filter(|(_, reply)| reply.starts_with("250 ")).count()).await;
    let (status, log, _) = gateway.stop();
    assert_eq!(status.code(), Some(0), "{}", log.join("\n"));
    let mut arrived: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for message in scripted.messages() {
        let sender = message.mail.split(' ').next().unwrap_or_default().to_owned();
        arrived.entry(sender).or_default().push(message);
    }
    assert!(!arrived.keys().any(|sender| sender.contains("evil")), "{:?}", arrived.keys());
    let mut tally = Tally::new("smuggling", "through the gateway");
    judge(&mut tally, replies, &arrived);
    println!("smuggling: {} cases generated, {} messages arrived", 4 * all.len(), scripted.messages().len());
    tally.finish();
}
