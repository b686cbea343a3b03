//! The recorded mail of Plausible's clients through the whole gateway: how two spam filters judge it before and after,
//! and that it still says the same to its readers.
//!
//! `make deliverability` prints the table of docs/deliverability.md.

use crate::support::application::{hand_in_octets, in_front_of};
use crate::support::awkward::{dated, recorded_messages};
use crate::support::bench::Bench;
use crate::support::keys;
use crate::support::spam_filters::{
    Rspamd, Verdict, rspamd_version, spamassassin, spamassassin_rules, spamassassin_version,
};
use crate::support::upstream::ScriptedUpstream;
use mail_parser::{Address, MessageParser, PartType};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use waxseal::message::RawMessage;

/// SpamAssassin's and rspamd's score of each mail once its format is correct; the rest is for its content.
const SOUND: [(&str, f64, f64); 12] = [
    ("weekly-report", 1.0, 1.6),
    ("weekly-report-no-name", 1.0, 1.6),
    ("activation-code", 0.0, -0.1),
    ("mailer-email-no-name", 0.0, -0.1),
    ("invitation", 0.0, 1.2),
    ("invitation-no-name", 0.0, 1.2),
    ("password-reset", 0.0, -0.1),
    ("password-reset-no-name", 0.0, -0.1),
    ("spike-notification", 0.0, 1.6),
    ("spike-notification-no-name", 0.0, 1.9),
    ("invitation-accepted", 0.0, -0.1),
    ("invitation-accepted-no-name", 0.0, -0.1),
];
const CLIENTS: [&str; 3] = ["mua", "oldmua", "smtpadapter"];

/// Symbols that indicate a broken format.
const SYMPTOMS: [&str; 15] = [
    "MISSING_DATE",
    "MISSING_MID",
    "INVALID_MSGID",
    "MID_MISSING_BRACKETS",
    "FROM_BLANK_NAME",
    "MPART_ALT_DIFF",
    "MIME_HTML_ONLY",
    "CTYPE_MIXED_BOGUS",
    "MIME_MA_MISSING_TEXT",
    "R_MISSING_CHARSET",
    "TO_NEEDS_ENCODING",
    "BAD_ENC_HEADER",
    "MIME_BASE64_TEXT_BOGUS",
    "MIME_BASE64_TEXT",
    "MV_CASE",
];

fn is_symptom(symbol: &str) -> bool {
    SYMPTOMS.contains(&symbol) || symbol.contains("_EXCESS_")
}

/// A recorded mail, as it was submitted and as it arrived, without our own Received and DKIM-Signature, which would
/// affect the score and hide a symptom.
struct Mail {
    name: String,
    before: Vec<u8>,
    after: Vec<u8>,
}

async fn through_the_gateway() -> Vec<Mail> {
    let bench = Bench::new();
    let scripted = ScriptedUpstream::start().await;
    let keys = bench.keys("both");
    let gateway = keys::with_files(in_front_of(&scripted, &keys::tables(keys)), keys).start(1);
    let mut mails = Vec::new();
    for (name, recorded) in recorded_messages() {
        // Filters count the days since a mail's Date.
        let before = dated(&recorded, jiff::Timestamp::now());
        let reply = hand_in_octets(gateway.address(), &["you@example.net"], &before).await;
        assert!(reply.starts_with("250 "), "{name}: {reply}");
        let arrived = scripted.messages().pop().expect("a message").data;
        mails.push(Mail { name, before, after: without_ours(arrived) });
    }
    mails
}

fn without_ours(arrived: Vec<u8>) -> Vec<u8> {
    let mut message = RawMessage::from_data(arrived.into()).expect("a message");
    assert_eq!(message.remove_fields(|field| field.is("DKIM-Signature") || field.is("Received")), 3);
    message.to_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_filter_finds_a_fault_in_the_form_of_repaired_mail() {
    let mails = through_the_gateway().await;
    let folder = tempfile::tempdir().expect("a folder");
    let Some(rspamd) = Rspamd::start() else { return };
    let mut files = Vec::new();
    for mail in &mails {
        for (which, message) in [("before", &mail.before), ("after", &mail.after)] {
            let file = folder.path().join(format!("{}.{which}.eml", mail.name));
            std::fs::write(&file, message).expect("a file");
            files.push(file);
        }
    }
    let Some(assassin) = spamassassin(&files) else { return };
    let judged: BTreeMap<String, [Verdict; 4]> = mails
        .iter()
        .zip(assassin.chunks(2))
        .map(|(mail, pair)| {
            let [before, after] = [&mail.before, &mail.after].map(|message| rspamd.check(message));
            (mail.name.clone(), [pair[0].clone(), before, pair[1].clone(), after])
        })
        .collect();
    let table = table(&judged);
    println!("{table}");
    for (name, [_, _, assassin, rspamd]) in &judged {
        let left: Vec<_> = assassin.symbols.iter().chain(&rspamd.symbols).filter(|symbol| is_symptom(symbol)).collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
    if versions_are_known() {
        assert_scores(&judged);
        let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deliverability.md"));
        assert!(page.expect("the page").contains(&table), "docs/deliverability.md has another table than\n{table}");
    }
}

/// The versions of SpamAssassin, its rules, and rspamd with which docs/deliverability.md was measured.
const MEASURED: [&str; 3] = ["SpamAssassin version 4.0.1", "7540744d", "Rspamd daemon version 3.4"];

/// Other versions and rules give other scores, but any of them can show whether a symptom is left.
fn versions_are_known() -> bool {
    let found = [spamassassin_version(), spamassassin_rules(), rspamd_version()].map(Option::unwrap_or_default);
    let known = found.iter().zip(MEASURED).all(|(found, measured)| found == measured);
    if !known {
        println!("the scores are not compared: they are for {MEASURED:?}, not for {found:?}");
    }
    known
}

fn assert_scores(judged: &BTreeMap<String, [Verdict; 4]>) {
    for (name, [_, _, assassin, rspamd]) in judged {
        let (_, mail) = name.split_once('-').expect("a client and a mail");
        let (_, highest_assassin, highest_rspamd) =
            SOUND.iter().find(|(known, ..)| *known == mail).expect("known mail");
        assert!(assassin.score <= *highest_assassin, "{name}: {assassin:?}");
        assert!(rspamd.score <= *highest_rspamd, "{name}: {rspamd:?}");
    }
}

fn table(judged: &BTreeMap<String, [Verdict; 4]>) -> String {
    let mut table = "| mail | mua | oldmua | smtpadapter | after, all three |\n|---|---|---|---|---|\n".to_owned();
    for (mail, ..) in SOUND {
        let of_clients = CLIENTS.map(|client| judged.get(&format!("{client}-{mail}")).expect("judged"));
        // -0.0 would be confusing.
        let pair = |a: &Verdict, b: &Verdict| format!("{:.1} / {:.1}", a.score + 0.0, b.score + 0.0);
        let before = of_clients.map(|[assassin, rspamd, ..]| pair(assassin, rspamd)).join(" | ");
        let after: BTreeSet<_> = of_clients.iter().map(|[.., assassin, rspamd]| pair(assassin, rspamd)).collect();
        let after = after.into_iter().collect::<Vec<_>>().join(", ");
        table.push_str(&format!("| {mail} | {before} | {after} |\n"));
    }
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn repaired_mail_says_what_it_said() {
    let mails = through_the_gateway().await;
    for mail in &mails {
        let before = Shown::by(&mail.before);
        let after = Shown::by(&mail.after);
        // If the newer clients split a character, the oldest one's words still show what was meant.
        let twin = format!("smtpadapter-{}", mail.name.split_once('-').expect("a client and a mail").1);
        let twin = mails.iter().find(|mail| mail.name == twin).expect("a mail of all three");
        assert_eq!(after.subject, Shown::by(&twin.before).subject, "{}", mail.name);
        assert_eq!(after.people, before.people, "{}", mail.name);
        assert_eq!(after.html, before.html, "{}", mail.name);
        match &before.text {
            Some(text) => assert_eq!(after.text.as_ref(), Some(text), "{}", mail.name),
            // It was made from the HTML, and contains each of its links once.
            None => {
                let html = before.html.as_deref().unwrap_or_default();
                assert_eq!(links(after.text.as_deref().unwrap_or_default()), links(html), "{}", mail.name);
            }
        }
    }
}

/// What a reader shows. Quotes around a name are not part of it, and line ends have one form.
struct Shown {
    subject: Option<String>,
    people: Vec<(String, String)>,
    text: Option<String>,
    html: Option<String>,
}

impl Shown {
    fn by(message: &[u8]) -> Self {
        let parsed = MessageParser::default().parse(message).expect("a message");
        let lists = [parsed.from(), parsed.to(), parsed.cc()].into_iter().flatten();
        let part =
            |wanted: fn(&PartType<'_>) -> Option<String>| parsed.parts.iter().find_map(|part| wanted(&part.body));
        Self {
            subject: parsed.subject().map(str::to_owned),
            people: lists.flat_map(people).collect(),
            text: part(|body| match body {
                PartType::Text(text) => Some(text.replace("\r\n", "\n")),
                _ => None,
            }),
            html: part(|body| match body {
                PartType::Html(html) => Some(html.replace("\r\n", "\n")),
                _ => None,
            }),
        }
    }
}

fn people(list: &Address<'_>) -> Vec<(String, String)> {
    let person = |it: &mail_parser::Addr<'_>| {
        let name = it.name.as_deref().unwrap_or_default();
        let name = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(name);
        (name.to_owned(), it.address().unwrap_or_default().to_owned())
    };
    list.iter().map(person).collect()
}

fn links(text: &str) -> Vec<String> {
    let text = text.replace("&amp;", "&");
    let ends = |c: char| c.is_whitespace() || "\"<>)".contains(c);
    let mut links: Vec<String> = text
        .match_indices("https://")
        .map(|(at, _)| text[at..].split(ends).next().unwrap_or_default().to_owned())
        .collect();
    links.sort();
    links
}

#[test]
fn the_list_of_mails_is_whole() {
    let recorded: BTreeSet<_> = recorded_messages().into_iter().map(|(name, _)| name).collect();
    let listed = CLIENTS.iter().flat_map(|client| SOUND.iter().map(move |(mail, ..)| format!("{client}-{mail}")));
    assert_eq!(recorded, listed.collect());
}
