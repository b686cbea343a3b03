//! Whoever read the log is gone: a pipe whose reader ended, a disk that is full. The mail goes on.

use crate::support::application::{hand_in, in_front_of, mail};
use crate::support::upstream::ScriptedUpstream;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _it_may_have_ended = self.0.kill();
        let _reap = self.0.wait();
    }
}

/// The message had been taken by the provider when the log line about it killed the reply, then the listener.
#[tokio::test(flavor = "multi_thread")]
async fn mail_is_delivered_and_answered_without_a_log() {
    let scripted = ScriptedUpstream::builder().start().await;
    let setup = in_front_of(&scripted, "");
    let mut gateway = Running(setup.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    drop(gateway.0.stderr.take());
    let mut lines = BufReader::new(gateway.0.stdout.take().unwrap()).lines();
    let listening = lines.find_map(|line| line.ok().filter(|line| line.contains("\"listening\""))).unwrap();
    drop(lines);
    let (_, rest) = listening.split_once("\"address\":\"").unwrap();
    let address = rest.split('"').next().unwrap().parse().unwrap();
    for subject in ["one", "two"] {
        let reply = hand_in(address, &["you@example.net"], &mail(subject)).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    assert_eq!(scripted.messages().len(), 2);
    let killed = std::process::Command::new("kill").args(["-TERM", &gateway.0.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let status = tokio::task::spawn_blocking(move || gateway.0.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
}
