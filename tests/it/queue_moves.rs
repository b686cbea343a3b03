//! The whole queue as a file: written beside a running gateway, read into another queue of either backend, and never half.

use crate::support::application::{hand_in, mail, numbered, subjects};
use crate::support::gateway::{Gateway, Setup};
use crate::support::provider::Provider;
use crate::support::redis::RedisServer;
use crate::support::until;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

const YOU: [&str; 1] = ["you@example.net"];

async fn submit(gateway: &Gateway, subjects: &[String]) {
    for subject in subjects {
        let reply = hand_in(gateway.address(), &YOU, &mail(subject)).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A command that must succeed, and what it said.
fn done(setup: &Setup, arguments: &[&str]) -> String {
    let output = setup.output(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

async fn stopped(gateway: Gateway) -> Setup {
    let (status, _, setup) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    setup
}

/// From a gateway that wrote one: with so many messages, and where it is.
async fn exported(provider: &Provider, count: usize) -> (Setup, String) {
    let gateway = provider.queued("", "").start(1);
    submit(&gateway, &numbered(count)).await;
    let file = gateway.folder().join("queue.wax").display().to_string();
    let answer = gateway.output(&["queue", "export", &file]);
    assert!(answer.status.success(), "{}", said(&answer));
    (stopped(gateway).await, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_moves_into_redis_and_back_and_each_mail_arrives_once() {
    let Some(server) = RedisServer::start() else { return };
    let provider = Provider::away();
    let (_old, file) = exported(&provider, 12).await;
    let in_redis = format!("backend = \"redis\"\n[queue.redis]\nurl = \"{}\"", server.url());
    let shared = provider.queued("", &in_redis);
    let told = done(&shared, &["queue", "import", &file]);
    assert!(told.contains("12 messages"), "{told}");
    let again = done(&shared, &["queue", "import", &file]);
    assert!(again.contains("0 messages") && again.contains("12 messages were in the queue"), "{again}");
    let gateway = shared.start(1);
    submit(&gateway, &["another".to_owned()]).await;
    let back = gateway.folder().join("back.wax").display().to_string();
    let answer = gateway.output(&["queue", "export", &back]);
    assert!(answer.status.success(), "{}", said(&answer));
    let _shared = stopped(gateway).await;
    let last = provider.queued("", "");
    let told = done(&last, &["queue", "import", &back]);
    assert!(told.contains("13 messages"), "{told}");
    let scripted = provider.start().await;
    let gateway = last.start(1);
    gateway.output(&["queue", "retry", "--all"]);
    until("all has arrived", || scripted.messages().len() >= 13).await;
    let mut expected = numbered(12);
    expected.push("another".to_owned());
    expected.sort_unstable();
    let mut arrived = subjects(&scripted);
    arrived.sort_unstable();
    assert_eq!(arrived, expected);
    // An old file brings nothing back that has arrived since.
    let setup = stopped(gateway).await;
    let told = done(&setup, &["queue", "import", &back]);
    assert!(told.contains("0 messages") && told.contains("13 messages were delivered"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_lanes_stay_held_and_the_file_is_private_and_no_file_is_overwritten() {
    let provider = Provider::away();
    let gateway = provider.queued("", "").start(1);
    submit(&gateway, &numbered(2)).await;
    gateway.output(&["queue", "hold", "--all"]);
    let file = gateway.folder().join("queue.wax");
    let name = file.display().to_string();
    assert!(gateway.output(&["queue", "export", &name]).status.success());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&file).unwrap();
    let refused = gateway.output(&["queue", "export", &name]);
    assert!(!refused.status.success() && said(&refused).contains("exists already"), "{}", said(&refused));
    assert_eq!(fs::read(&file).unwrap(), before);
    let refused = gateway.output(&["queue", "import", &name]);
    assert!(!refused.status.success() && said(&refused).contains("stop the gateway first"), "{}", said(&refused));
    let setup = stopped(gateway).await;
    let piped = setup.output(&["queue", "export", "-"]);
    assert!(piped.status.success() && piped.stdout.starts_with(b"waxseal queue export 1\n"), "{}", said(&piped));
    let other = provider.queued("", "");
    let piped = other.output_with_input(&["queue", "import", "-"], &String::from_utf8(piped.stdout).unwrap());
    assert!(piped.status.success(), "{}", said(&piped));
    let listed = done(&other, &["queue", "list"]);
    assert!(listed.contains("2 messages") && listed.contains("held"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_damaged_file_is_imported() {
    let provider = Provider::away();
    let (_old, file) = exported(&provider, 3).await;
    let whole = fs::read(&file).unwrap();
    let other = provider.queued("", "");
    let spoilt = other.folder().join("spoilt.wax");
    let name = spoilt.display().to_string();
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let newer = String::from_utf8(whole.clone()).unwrap().replacen("export 1", "export 9", 1).into_bytes();
    let table: [(&[u8], &str); 5] = [
        (&changed, "damaged"),
        (&whole[..whole.len() - 1], "cut off"),
        (&whole[..middle], "cut off"),
        (&newer, "version 9"),
        (b"From: a@example.com\r\n\r\n", "not a file of"),
    ];
    for (octets, word) in table {
        fs::write(&spoilt, octets).unwrap();
        for arguments in [&["queue", "import", &name][..], &["queue", "import", "--check", &name]] {
            let refused = other.output(arguments);
            let said = said(&refused);
            assert_eq!(refused.status.code(), Some(1), "{said}");
            assert!(said.contains(word) && said.contains("Nothing was imported"), "{said}");
        }
    }
    let missing = other.output(&["queue", "import", "nowhere.wax"]);
    assert!(!missing.status.success() && said(&missing).contains("nowhere.wax"), "{}", said(&missing));
    let told = done(&other, &["queue", "import", "--check", &file]);
    assert!(told.contains("whole: 3 messages"), "{told}");
    // From a pipe, what came before the damage is there, and a whole file completes it.
    let cut = String::from_utf8(whole[..whole.len() - 200].to_vec()).unwrap();
    let refused = other.output_with_input(&["queue", "import", "-"], &cut);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("Imported 2 messages"), "{}", said(&refused));
    let told = done(&other, &["queue", "import", &file]);
    assert!(told.contains("Imported 1 message") && told.contains("2 messages were in the queue"), "{told}");
}
