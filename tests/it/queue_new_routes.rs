//! Routes change over a large backlog: applications and new mail do not wait, and no mail uses a wrong route.

use crate::support::application::{further, hand_in, mail, subjects};
use crate::support::gateway::{Gateway, Setup};
use crate::support::provider::Provider;
use crate::support::stored;
use crate::support::upstream::ScriptedUpstream;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use waxseal::queue::{Filter, Operator, Queue};

const MESSAGES: usize = 20_000;
const CLIENTS: usize = 64;

/// Waiting on the lane of a gateway without routes, for an hour: two recipients in three at example.net.
async fn fill(setup: &Setup, messages: usize) {
    let data = setup.folder().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let queue = Arc::new(stored::open(&data));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let queue = queue.clone();
        clients.spawn(async move {
            for number in (client..messages).step_by(CLIENTS) {
                let domain = if number % 3 == 0 { "example.org" } else { "example.net" };
                let recipient = format!("r{number}@{domain}");
                stored::put(&*queue, 1, &format!("{number:05}"), &[(&recipient, stored::deferred())]).await;
            }
        });
    }
    while let Some(filled) = clients.join_next().await {
        filled.unwrap();
    }
    queue.close().await;
}

/// Recipients by domain and lane.
async fn lanes(setup: &Setup) -> BTreeMap<(String, String), usize> {
    let queue = stored::open(&setup.folder().join("data"));
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        let page = queue.list(&Filter::default(), after, 500).await.unwrap();
        for recipient in page.rows.into_iter().flat_map(|row| row.recipients) {
            let domain = recipient.address.split_once('@').unwrap().1.to_owned();
            *found.entry((domain, recipient.lane)).or_default() += 1;
        }
        after = page.next;
        if after.is_none() {
            queue.close().await;
            return found;
        }
    }
}

async fn killed(gateway: Gateway) -> Setup {
    tokio::task::spawn_blocking(|| gateway.kill().1).await.unwrap()
}

async fn stopped(gateway: Gateway) -> Setup {
    tokio::task::spawn_blocking(|| gateway.stop().2).await.unwrap()
}

/// What two promises cost at a size that is too large for daily tests; for people, who read its output: `cargo test
/// --test it two_hundred_thousand -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; measures and asserts nothing about time"]
async fn a_list_by_recipient_and_new_routes_at_two_hundred_thousand_messages() {
    const MANY: usize = 200_000;
    let provider = Provider::away();
    let _company = provider.start().await;
    let table = "[[route]]\nname = \"org\"\nrecipients = [\"*@example.org\"]\nupstreams = [\"company\"]\n\
                 [[route]]\nname = \"net\"\nupstreams = [\"company\"]\n";
    let setup = provider.queued("# none\n", "retry = { first = \"1h\", longest = \"1h\" }");
    let took = Instant::now();
    fill(&setup, MANY).await;
    println!("{MANY} messages stored in {:.1} s", took.elapsed().as_secs_f64());
    let listed = |output: std::process::Output, what: &str, took: Instant| {
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = value["messages"].as_array().unwrap().len();
        println!("list --recipient, {what}: {found} found in {:.2} s", took.elapsed().as_secs_f64());
        found
    };
    let rare = ["queue", "list", "--recipient", "r199999@", "--json"];
    let absent = ["queue", "list", "--recipient", "nobody@", "--json"];
    for (arguments, expected) in [(rare, 1), (absent, 0)] {
        let took = Instant::now();
        assert_eq!(listed(setup.output(&arguments), "without a gateway", took), expected);
    }
    let gateway = setup.start(1);
    let setup = stopped(gateway).await.config_with("# none\n", table);
    let took = Instant::now();
    let gateway = setup.start(1);
    println!("new routes: listeners open after {:.2} s", took.elapsed().as_secs_f64());
    for (arguments, expected) in [(rare, 1), (absent, 0)] {
        let took = Instant::now();
        assert_eq!(listed(gateway.output(&arguments), "beside a gateway that moves lanes", took), expected);
    }
    for _ in 0..6000 {
        if gateway.log().iter().any(|line| line.contains(ENDS[0])) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("new routes: all on their lanes after {:.1} s", took.elapsed().as_secs_f64());
}

const BEGINS: [&str; 1] = ["routes have changed: waiting mail is put on their lanes while"];
const ENDS: [&str; 1] = ["routes have changed: waiting mail was put on their lanes"];

#[tokio::test(flavor = "multi_thread")]
async fn listeners_open_at_once_new_mail_goes_out_and_a_kill_in_the_middle_leaves_nothing_astray() {
    let provider = Provider::away();
    let other = ScriptedUpstream::start().await;
    let company = provider.start().await;
    let table = further("other", &other, "");
    let routes = "[[route]]\nname = \"org\"\nrecipients = [\"*@example.org\"]\nupstreams = [\"other\"]\n\
                  [[route]]\nname = \"net\"\nupstreams = [\"company\"]\n";
    let setup = provider.queued(&table, "retry = { first = \"1h\", longest = \"1h\" }").file("other.pem", other.ca());
    fill(&setup, MESSAGES).await;
    let of_org = MESSAGES.div_ceil(3);
    let on = |net: &str, org: &str| {
        BTreeMap::from([
            (("example.net".to_owned(), net.to_owned()), MESSAGES - of_org),
            (("example.org".to_owned(), org.to_owned()), of_org),
        ])
    };
    // Yesterday's routes: the first start records to whom these lanes belong.
    let gateway = setup.start(1);
    let setup = stopped(gateway).await.config_with(&table, &format!("{table}{routes}"));
    let gateway = setup.start(1);
    gateway.wait_for_line(&BEGINS);
    hand_in(gateway.address(), &["new@example.org"], &mail("new")).await;
    other.until_messages(1).await;
    let log = gateway.log();
    let position = |words: &[&str]| log.iter().position(|line| words.iter().all(|word| line.contains(word)));
    assert!(position(&["\"listening\""]) < position(&ENDS).or(Some(usize::MAX)), "{}", log.join("\n"));
    let setup = killed(gateway).await;
    let gateway = setup.start(1);
    gateway.wait_for_line(&ENDS);
    let setup = stopped(gateway).await;
    assert_eq!(lanes(&setup).await, on("net", "org"));
    // Half-way back to the earlier routes, and forward again.
    let setup = setup.config_with(routes, "# none\n");
    let gateway = setup.start(1);
    gateway.wait_for_line(&BEGINS);
    let setup = killed(gateway).await.config_with("# none\n", routes);
    let gateway = setup.start(1);
    gateway.wait_for_line(&ENDS);
    let setup = stopped(gateway).await;
    assert_eq!(lanes(&setup).await, on("net", "org"));
    // Messages under way at the kill may arrive twice.
    assert!(subjects(&other).iter().all(|subject| subject == "new"), "{:?}", subjects(&other));
    assert_eq!(company.messages().len(), 0, "nothing went the wrong way");
}
