//! The log's reader is gone (a pipe whose reader ended, a full disk) or stalls: mail continues.

use crate::support::application::{hand_in, in_front_of, mail};
use crate::support::gateway::Setup;
use crate::support::running::Running;
use crate::support::upstream::ScriptedUpstream;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{ChildStdout, Stdio};

/// The started program, and its address; the log is not read any further.
fn started(setup: &Setup) -> (Running, BufReader<ChildStdout>, SocketAddr) {
    let mut gateway = Running::start(setup.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()));
    drop(gateway.stderr.take());
    let mut log = BufReader::new(gateway.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"listening\"") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
    }
    let (_, rest) = line.split_once("\"address\":\"").unwrap();
    (gateway, log, rest.split('"').next().unwrap().parse().unwrap())
}

/// The provider had accepted the message when the log line about it killed the reply, then the listener.
#[tokio::test(flavor = "multi_thread")]
async fn mail_is_delivered_and_answered_without_a_log() {
    let scripted = ScriptedUpstream::builder().start().await;
    let setup = in_front_of(&scripted, "");
    let (mut gateway, log, address) = started(&setup);
    drop(log);
    for subject in ["one", "two"] {
        let reply = hand_in(address, &["you@example.net"], &mail(subject)).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    assert_eq!(scripted.messages().len(), 2);
    gateway.signal("TERM");
    let status = tokio::task::spawn_blocking(move || gateway.ended()).await.unwrap();
    assert!(status.success(), "{status}");
}

/// Every thread was stuck writing a log line, and no mail was accepted or answered any more.
#[tokio::test(flavor = "multi_thread")]
async fn mail_is_delivered_and_answered_while_nobody_reads_the_log() {
    let scripted = ScriptedUpstream::builder().start().await;
    let setup = in_front_of(&scripted, "").config_with("format = \"json\"", "format = \"json\"\nlevel = \"trace\"");
    let (_gateway, mut log, address) = started(&setup);
    const MAILS: usize = 150;
    for number in 0..MAILS {
        let reply = hand_in(address, &["you@example.net"], &mail(&format!("{number}"))).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    // More than a pipe holds, and all of it is there once reading resumes.
    let mut delivered = 0;
    let mut octets = 0;
    let mut line = String::new();
    while delivered < MAILS {
        line.clear();
        let read = log.read_line(&mut line).unwrap();
        assert!(read > 0, "the log ends after {delivered} of {MAILS}");
        octets += read;
        delivered += usize::from(line.contains("\"delivered\""));
    }
    assert!(octets > 2 * 64 * 1024, "{octets}");
}
