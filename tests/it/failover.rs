//! The first provider of a route dies under load, in every way that is possible: mail goes through the second at once,
//! nothing is lost or sent twice, and the first gets its mail again once it recovers.

use crate::support::application::{
    SENDER, field, further, hand_in, hand_in_many, in_front_of, mail, numbered, subjects,
};
use crate::support::application::{configuration, queued_in_front_of};
use crate::support::black_hole::BlackHole;
use crate::support::client::HANG_GUARD;
use crate::support::gateway::{Gateway, Setup};
use crate::support::provider::Provider;
use crate::support::upstream::{Action, At, ScriptedUpstream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

const PATIENCE: &str = "connect_timeout = \"1s\"\ncommand_timeout = \"20s\"\nmax_connections = 4\n";

/// `backup` follows `company`.
fn both(setup: Setup, backup: &ScriptedUpstream) -> Setup {
    setup.file("backup.pem", backup.ca())
}

fn lines(backup: &ScriptedUpstream) -> String {
    let route = "[[route]]\nname = \"all\"\nupstreams = [\"company\", \"backup\"]\n";
    format!("{PATIENCE}{}{route}", further("backup", backup, PATIENCE))
}

/// An application that submits one mail after another until it is stopped; returns their subjects.
struct Load {
    stop: Arc<AtomicBool>,
    client: JoinHandle<Vec<String>>,
}

impl Load {
    fn start(gateway: &Gateway) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let address = gateway.address();
        let until = Arc::clone(&stop);
        let client = tokio::spawn(async move {
            let mut taken = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let next: Vec<String> = (0..4).map(|number| format!("{:05}", taken.len() + number)).collect();
                hand_in_many(address, SENDER, "you@example.net", &next).await;
                taken.extend(next);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            taken
        });
        Self { stop, client }
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.client.await.expect("a client that ends")
    }
}

async fn until_more(scripted: &ScriptedUpstream, messages: usize) {
    scripted.until_messages(scripted.messages().len() + messages).await;
}

async fn assert_each_arrived_once(providers: &[&ScriptedUpstream], taken: &[String]) {
    let arrived = || providers.iter().flat_map(|scripted| subjects(scripted)).collect::<Vec<_>>();
    let all_there = async {
        while arrived().len() < taken.len() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANG_GUARD, all_there).await.expect("mail is missing");
    let mut arrived = arrived();
    arrived.sort_unstable();
    assert_eq!(arrived, taken, "each once");
}

/// While the application continues, the first provider fails, and recovers once the second has served for a while.
async fn survives(strike: impl FnOnce(&ScriptedUpstream), heal: impl FnOnce(&ScriptedUpstream)) -> Vec<String> {
    let company = ScriptedUpstream::start().await;
    let backup = ScriptedUpstream::start().await;
    let gateway = both(queued_in_front_of(&company, &lines(&backup), ""), &backup).start(1);
    let load = Load::start(&gateway);
    until_more(&company, 20).await;
    assert_eq!(backup.messages().len(), 0, "the second is not asked while the first is well");
    strike(&company);
    until_more(&backup, 40).await;
    heal(&company);
    until_more(&company, 40).await;
    let taken = load.end().await;
    assert_each_arrived_once(&[&company, &backup], &taken).await;
    assert!(company.counts().max <= 4 && backup.counts().max <= 4, "{:?} {:?}", company.counts(), backup.counts());
    gateway.wait_for_line(&["upstream unavailable", "\"upstream\":\"company\""]);
    gateway.wait_for_line(&["upstream available again", "\"upstream\":\"company\""]);
    let log = gateway.log();
    assert!(!log.iter().any(|line| line.contains("\"message\":\"failed\"") || line.contains("possible duplicate")));
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_accepts_and_says_nothing() {
    survives(
        |company| {
            company.always(At::Greeting, Action::Stall);
            company.always(At::Mail, Action::Stall);
        },
        |company| {
            company.always(At::Greeting, "220 scripted.example ESMTP");
            company.always(At::Mail, "250 2.1.0 sender ok");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_asks_for_a_slower_pace() {
    let log = survives(
        |company| company.always(At::Mail, "421 4.7.0 too many messages, slow down"),
        |company| company.always(At::Mail, "250 2.1.0 sender ok"),
    )
    .await;
    assert!(log.iter().any(|line| line.contains("upstream unavailable") && line.contains("421 4.7.0 too many")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_refuses_the_login() {
    survives(
        |company| {
            company.always(At::Mail, Action::Close);
            company.always(At::Auth, "535 5.7.8 wrong password");
        },
        |company| {
            company.always(At::Mail, "250 2.1.0 sender ok");
            company.always(At::Auth, "235 2.7.0 welcome");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_killed_and_started_again() {
    let provider = Provider::away();
    let backup = ScriptedUpstream::start().await;
    let first = provider.start().await;
    let gateway = both(provider.queued(&lines(&backup), ""), &backup).start(1);
    let load = Load::start(&gateway);
    until_more(&first, 20).await;
    first.shut();
    first.always(At::Mail, Action::Close);
    until_more(&backup, 40).await;
    let second = provider.start().await;
    until_more(&second, 40).await;
    let taken = load.end().await;
    assert_each_arrived_once(&[&first, &second, &backup], &taken).await;
    gateway.wait_for_line(&["upstream available again", "\"upstream\":\"company\""]);
}

/// Connecting takes time; only the first mail pays for it.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_answers_costs_one_mail_its_time_out_and_the_others_nothing() {
    const MAILS: usize = 20;
    let hole = BlackHole::open();
    let backup = ScriptedUpstream::start().await;
    for delivery in ["direct", "queue"] {
        let config = configuration(hole.address, delivery, &lines(&backup), "");
        let setup = Setup::new(Some(&config)).file("ca.pem", backup.ca());
        let gateway =
            both(setup, &backup).config_with("format = \"json\"", "format = \"json\"\nlevel = \"debug\"").start(1);
        let before = backup.messages().len();
        for subject in numbered(MAILS) {
            let reply = hand_in(gateway.address(), &["you@example.net"], &mail(&subject)).await;
            assert!(reply.starts_with("250 "), "{reply}");
        }
        backup.until_messages(before + MAILS).await;
        assert_eq!(backup.messages().len(), before + MAILS, "each once");
        let connecting = format!("connecting to {}", hole.address);
        let connects = gateway.log().iter().filter(|line| line.contains(&connecting)).count();
        assert!((1..MAILS / 2).contains(&connects), "{connects} connects for {MAILS} mails");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_every_upstream_is_unavailable_a_waiting_client_is_refused_at_once_with_the_reason() {
    let company = ScriptedUpstream::builder().always(At::Greeting, "554 5.3.2 closed").start().await;
    let gateway = in_front_of(&company, PATIENCE).start(1);
    let first = hand_in(gateway.address(), &["you@example.net"], &mail("first")).await;
    assert!(first.starts_with("451 4.4.0 upstream \"company\", greeting: 554 5.3.2 closed"), "{first}");
    let second = hand_in(gateway.address(), &["you@example.net"], &mail("second")).await;
    assert!(second.starts_with("451 4.4.0 upstream \"company\", ") && second.contains("554 5.3.2 closed"), "{second}");
    company.always(At::Greeting, "220 scripted.example ESMTP");
    // A waiting client causes it to be tried again within seconds.
    let taken = async {
        while !hand_in(gateway.address(), &["you@example.net"], &mail("again")).await.starts_with("250 ") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(HANG_GUARD, taken).await.expect("it is never asked again");
    assert_eq!(field(&company.messages()[0].data, "Subject"), "again");
}
