//! HTML whose numbers ask for work: spans, widths, lists that begin far up, nesting. No caller of the text made from it
//! panics or needs memory because of them, and a step that does panic has no other effect.

use super::exhaustion::{BESIDES, MIB, resident};
use crate::support::application::{field, hand_in, queued_in_front_of};
use crate::support::gateway::{Gateway, Setup};
use crate::support::tally::Tally;
use crate::support::upstream::{Rules, ScriptedUpstream};
use serde_json::Value;
use tokio::task::JoinSet;
use waxseal::message::html::{links, to_text};

const RECIPIENT: &[&str] = &["you@example.net"];
const MAX_MEMORY: usize = 128 * MIB;
const RULES: &str =
    "[[rewrite]]\nname = \"cell\"\nbody_contains = \"cell\"\nlist_unsubscribe = \"*unsubscribe*\"\n[log]\n";

/// The same numbers in every run: a linear congruential generator.
struct Numbers(u64);

impl Numbers {
    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        choices[(self.0 >> 33) as usize % choices.len()]
    }
}

/// Elements of tables in any order, closed or not, with spans of any kind.
fn table(numbers: &mut Numbers, elements: usize) -> String {
    const SPANS: [&str; 9] = ["0", "1", "2", "3", "7", "-1", "65535", "4294967296", "x"];
    const OPEN: [&str; 12] =
        ["tr", "td", "td", "td", "th", "thead", "tbody", "tfoot", "table", "caption", "colgroup", "col"];
    let mut html = "<p>before<table>".to_owned();
    for _ in 0..elements {
        match numbers.one_of(&["open", "open", "open", "close", "text", "link"]) {
            "open" => {
                let name = numbers.one_of(&OPEN);
                let columns = numbers.one_of(&SPANS);
                let rows = numbers.one_of(&SPANS);
                html.push_str(&format!("<{name} colspan={columns} rowspan={rows}>"));
            }
            "close" => html.push_str(&format!("</{}>", numbers.one_of(&OPEN))),
            "text" => html.push_str("cell "),
            _ => html.push_str("<a href=https://example.com/unsubscribe>out</a>"),
        }
    }
    html + "</table>after"
}

fn tables() -> Vec<String> {
    let mut numbers = Numbers(1);
    let small = (0..3000).map(|number| 1 + number % 40);
    let mut tables: Vec<_> = small.chain([5000; 3]).map(|elements| table(&mut numbers, elements)).collect();
    tables.extend([
        // The first two were reported: one took 467 MiB, the other panicked.
        format!("<table>{}", "<tr><td rowspan=60000>cell".repeat(1500)),
        "<table><tr><td>Item</td><td colspan=2 rowspan=2>cell</td></tr></table>".to_owned(),
        format!("<table>{}", "<tr><td colspan=1000 rowspan=65534>cell".repeat(3000)),
        "<table><tr><td>cell".repeat(6000),
        format!("<ol start=2147483647>{}", "<li>cell".repeat(9000)),
        format!("<img width=999999999 height=999999999 alt=cell>{}", "<blockquote>".repeat(9000)),
        format!("<td {}>cell", "a=b ".repeat(30_000)),
        format!("cell{}", "&#99999999999999999999;".repeat(5000)),
    ]);
    tables
}

fn html_mail(html: &str) -> String {
    format!(
        "From: reports@example.com\r\nTo: you@example.net\r\nSubject: s\r\nContent-Type: text/html\r\n\r\n{html}\r\n"
    )
}

/// In lines, so that only the HTML is repaired.
fn in_lines(html: &str) -> String {
    html.replace('<', "\r\n<")
}

fn with_memory(setup: Setup) -> Gateway {
    setup.config_with("[log]\n", &format!("max_memory = \"128 MiB\"\n{RULES}")).start(1)
}

/// A provider that accepts nothing: refused mail stays in the queue as failed.
async fn refusing() -> ScriptedUpstream {
    let rules = Rules { message: |_| Some("554 5.6.0 not this one"), ..Rules::default() };
    ScriptedUpstream::builder().rules(rules, &["PIPELINING", "8BITMIME", "AUTH PLAIN LOGIN"]).start().await
}

fn judge_memory(tally: &mut Tally, gateway: &Gateway, what: &str) {
    let (_, most) = resident(gateway);
    println!("html: {what}: {} MiB at most", most / MIB);
    tally.case(most <= MAX_MEMORY + BESIDES, || format!("{what}: {} MiB of resident memory", most / MIB));
}

#[test]
fn every_table_is_read_and_so_are_its_links() {
    let mut tally = Tally::new("html", "tables");
    for html in tables() {
        let result = std::panic::catch_unwind(|| (to_text(&html), links(&html)));
        let is_right = result.as_ref().is_ok_and(|(text, links)| {
            let says_something = text.as_ref().is_ok_and(|text| text.as_ref().is_some_and(|text| !text.is_empty()));
            let found = links.as_ref().map_or(0, Vec::len);
            text.is_err() || says_something && found == html.matches("</a>").count()
        });
        tally.case(is_right, || format!("{html:.200}: {result:?}"));
    }
    tally.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_of_nothing_but_tables_costs_no_more_than_its_size() {
    let mut tally = Tally::new("html", "memory");
    let scripted = ScriptedUpstream::start().await;
    let gateway = with_memory(queued_in_front_of(&scripted, "", ""));
    let one = format!("<table>{}", "\r\n<tr><td rowspan=60000>y".repeat(1500));
    let reply = hand_in(gateway.address(), RECIPIENT, &html_mail(&one)).await;
    tally.case(reply.starts_with("250 "), || reply);
    judge_memory(&mut tally, &gateway, "a table of 1,500 rows");
    let large = format!("<table>{}", "\r\n<tr><td rowspan=60000>y".repeat(2300));
    let mut clients = JoinSet::new();
    for _ in 0..6 {
        let address = gateway.address();
        let mail = html_mail(&large);
        clients.spawn(async move { hand_in(address, RECIPIENT, &mail).await });
    }
    for reply in clients.join_all().await {
        tally.case(reply.starts_with("250 "), || reply);
    }
    for html in tables().iter().rev().take(12) {
        let reply = hand_in(gateway.address(), RECIPIENT, &html_mail(&in_lines(html))).await;
        let is_right = reply.starts_with("250 ") || reply.starts_with("550 5.6.0 Refused: line ");
        tally.case(is_right, || format!("{html:.200}: {reply}"));
    }
    judge_memory(&mut tally, &gateway, "six tables of 2,300 rows at once, and others");
    tally.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_reads_every_table() {
    let mut tally = Tally::new("html", "callers");
    let scripted = refusing().await;
    let gateway = with_memory(queued_in_front_of(&scripted, "", ""));
    let folder = gateway.folder();
    for (number, html) in tables().iter().step_by(151).enumerate() {
        let mail = html_mail(&in_lines(html));
        let reply = hand_in(gateway.address(), RECIPIENT, &mail).await;
        tally.case(reply.starts_with("250 "), || format!("{html:.200}: {reply}"));
        let file = folder.join(format!("{number}.eml"));
        std::fs::write(&file, &mail).expect("a mail");
        let file = file.to_str().expect("a path");
        let shown = tokio::task::block_in_place(|| gateway.output(&["check", "--message", file, "--json"]));
        let value: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        let is_whole = shown.status.code() == Some(0) && value["left_out"] == serde_json::json!([]);
        tally.case(is_whole, || format!("{html:.200}: {}", String::from_utf8_lossy(&shown.stderr)));
    }
    let retried = tokio::task::block_in_place(|| gateway.output(&["queue", "retry", "--rules", "--all", "--json"]));
    let told = String::from_utf8_lossy(&retried.stderr).into_owned();
    tally.case(!told.contains("stopping") && !told.contains("fault"), || told);
    // All this runs at "trace", where the library would log the mail character by character.
    let characters = gateway.log().into_iter().find(|line| line.contains("got character"));
    tally.case(characters.is_none(), || characters.unwrap_or_default());
    let lost = gateway.log().into_iter().find(|line| line.contains("a fault of this program"));
    tally.case(lost.is_none(), || lost.unwrap_or_default());
    tally.finish();
}

/// The repairs by their names, in their order.
const STEPS: &str = "header_start,display_names,duplicate_fields,bcc,flatten,blank_lines,header_text,empty_fields,message_id,date,encoding_name,base64_text,transfer_encoding,charset,long_lines,text_part,\
                     mime_version,header_folding";

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_panics_costs_itself_and_not_the_mail() {
    let mut tally = Tally::new("html", "faulty steps");
    let scripted = ScriptedUpstream::start().await;
    let faulty = format!("{STEPS},body_contains,list_unsubscribe,subject");
    let rules = RULES
        .replace("body_contains = \"cell\"\n", "")
        .replace("[log]", "[[rewrite]]\nname = \"text\"\nbody_contains = \"cell\"\ntag = \"t\"\n[log]");
    let setup =
        queued_in_front_of(&scripted, "", "").config_with("[log]\n", &rules).env("WAXSEAL_TEST_FAULTY_STEPS", &faulty);
    let mail = html_mail("<p>cell <a href=https://example.com/unsubscribe>out</a>");
    let gateway = setup.file("mail.eml", &mail).start(1);
    let reply = hand_in(gateway.address(), RECIPIENT, &mail).await;
    tally.case(reply.starts_with("250 2.0.0 Queued as "), || reply.clone());
    let id = reply.rsplit(' ').next().unwrap_or_default().to_owned();
    scripted.until_messages(1).await;
    let arrived = scripted.messages()[0].data.clone();
    let is_whole = field(&arrived, "Subject") == "s" && field(&arrived, "Date").is_empty();
    tally.case(is_whole, || String::from_utf8_lossy(&arrived).into_owned());
    for step in faulty.split(',').filter(|step| *step != "body_contains") {
        let told = gateway
            .log()
            .iter()
            .filter(|line| line.contains("was skipped") && line.contains(&id))
            .filter(|line| line.contains(&format!("\"{step}\"")))
            .count();
        tally.case(told == 1, || format!("{step}: told {told} times\n{}", gateway.log().join("\n")));
    }
    let shown = tokio::task::block_in_place(|| gateway.output(&["check", "--message", "mail.eml", "--json"]));
    let value: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
    let left_out: Vec<_> =
        value["left_out"].as_array().into_iter().flatten().filter_map(|it| it["step"].as_str()).collect();
    let is_told = shown.status.code() == Some(0) && left_out.join(",").starts_with(STEPS);
    tally.case(is_told, || format!("{left_out:?}\n{}", String::from_utf8_lossy(&shown.stderr)));
    tally.finish();
}

/// "It may be stopping" would mislead the operator.
#[tokio::test(flavor = "multi_thread")]
async fn rules_that_panic_leave_the_stored_mail_as_it_is_and_say_so() {
    let mut tally = Tally::new("html", "faulty rules");
    let scripted = refusing().await;
    let setup = queued_in_front_of(&scripted, "", "").config_with("[log]\n", RULES);
    let gateway = setup.env("WAXSEAL_TEST_FAULTY_STEPS", "rules").start(1);
    let reply = hand_in(gateway.address(), RECIPIENT, &html_mail("<p>cell")).await;
    tally.case(reply.starts_with("250 "), || reply.clone());
    let id = reply.rsplit(' ').next().unwrap_or_default().to_owned();
    gateway.wait_for_line(&["\"failed\"", &id]);
    let retried = tokio::task::block_in_place(|| gateway.output(&["queue", "retry", "--rules", &id]));
    let told = String::from_utf8_lossy(&retried.stderr).into_owned();
    let is_right = retried.status.code() == Some(1) && told.contains("left as it is: a fault of this program");
    tally.case(is_right, || told);
    tally.finish();
}
