//! `[queue] min_free_space` and a full disk: new mail is refused, stored mail is delivered, and the gateway recovers
//! without help.
//!
//! Runs on a small tmpfs of its own, which only root can mount.

use crate::support::application::{hand_in, in_front_of, mail, subjects};
use crate::support::client::Client;
use crate::support::peers;
use crate::support::provider::Provider;
use crate::support::tally::Tally;
use crate::support::upstream::{Action, At, ScriptedUpstream};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tokio::sync::Semaphore;

struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None` after saying that the test is skipped.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            peers::skip("mounting a tmpfs takes root");
            return None;
        }
        Some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// To the last octet.
    fn fill(&self) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path().join("filler")).unwrap();
        for block in [1 << 16, 512] {
            while file.write_all(&vec![0; block]).is_ok() {}
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

async fn reply_to_mail(gateway: std::net::SocketAddr) -> String {
    let mut client = Client::connect(gateway).await;
    client.greet().await;
    client.ask("MAIL FROM:<reports@example.com> SIZE=1000").await
}

/// What MAIL is answered with may be a second old.
async fn until_mail_is_answered(gateway: std::net::SocketAddr, with: &str) {
    let deadline = tokio::time::Instant::now() + crate::support::client::HANG_GUARD;
    loop {
        let reply = reply_to_mail(gateway).await;
        if reply.starts_with(with) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "still {reply}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_floor_new_mail_is_refused_and_delivery_goes_on() {
    let Some(tmpfs) = Tmpfs::mount("32m") else { return };
    let provider = Provider::away();
    let setup = provider.queued("", "min_free_space = \"16 MiB\"");
    let data = format!("data_dir = \"{}\"\nunsigned", tmpfs.path().join("data").display());
    let gateway = setup.config_with("unsigned", &data).start(1);
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("before")).await;
    assert!(reply.starts_with("250 "), "{reply}");
    fs::write(tmpfs.path().join("filler"), vec![0; 20 << 20]).unwrap();
    until_mail_is_answered(gateway.address(), "452 4.3.1 ").await;
    gateway.wait_for_line(&["min_free_space"]);
    let scripted = provider.start().await;
    scripted.until_messages(1).await;
    fs::remove_file(tmpfs.path().join("filler")).unwrap();
    until_mail_is_answered(gateway.address(), "250 ").await;
    hand_in(gateway.address(), &["you@example.net"], &mail("after")).await;
    scripted.until_messages(2).await;
    assert_eq!(subjects(&scripted), ["after", "before"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_a_452_and_never_a_250_and_recovers_by_itself() {
    let Some(tmpfs) = Tmpfs::mount("32m") else { return };
    let provider = Provider::away();
    let setup = provider.queued("", "min_free_space = \"16 MiB\"");
    let data = format!("data_dir = \"{}\"\nunsigned", tmpfs.path().join("data").display());
    let gateway = setup.config_with("unsigned", &data).start(1);
    // Large enough to go into files of their own.
    let large = mail("large") + &"0123456789abcdef0123456789abcdef0123456789abcdef01234567\r\n".repeat(20_000);
    let mut taken = 0;
    let refused = loop {
        let reply = hand_in_checked(gateway.address(), &large).await;
        if !reply.starts_with("250 ") {
            break reply;
        }
        taken += 1;
        assert!(taken < 20, "what is above the floor holds no 20 of them");
    };
    assert!(refused.starts_with("452 4.3.1 "), "{refused}");
    let scripted = provider.start().await;
    scripted.until_messages(taken).await;
    until_mail_is_answered(gateway.address(), "250 ").await;
    let deadline = tokio::time::Instant::now() + crate::support::client::HANG_GUARD;
    while !hand_in_checked(gateway.address(), &large).await.starts_with("250 ") {
        assert!(tokio::time::Instant::now() < deadline, "{}", gateway.log().join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    scripted.until_messages(taken + 1).await;
    let arrived = scripted.messages().len();
    let mut tally = Tally::new("exhaustion", "a full disk");
    tally.case(arrived == taken + 1, || format!("{arrived} arrived, {} were taken", taken + 1));
    tally.finish();
}

/// The 250 was said, and what the provider had not taken was dropped with nothing but a line that counted it.
#[tokio::test(flavor = "multi_thread")]
async fn what_direct_mode_leaves_over_is_stored_once_the_disk_has_room() {
    let Some(tmpfs) = Tmpfs::mount("32m") else { return };
    let allowed = Arc::new(Semaphore::new(0));
    let scripted = ScriptedUpstream::builder()
        .once(At::Rcpt, "250 2.1.5 ok")
        .once(At::Rcpt, "450 4.2.1 greylisted")
        .once(At::Dot, Action::OnceAllowed(allowed.clone()))
        .start()
        .await;
    let data = format!("data_dir = \"{}\"\nunsigned", tmpfs.path().join("data").display());
    let gateway = in_front_of(&scripted, "")
        .config_with("unsigned", &data)
        .config_with("[queue]", "[queue]\nmin_free_space = \"16 MiB\"")
        .start(1);
    let address = gateway.address();
    let recipients = ["you@example.net", "grey@example.net"];
    let first = tokio::spawn(async move { hand_in(address, &recipients, &mail("parted")).await });
    scripted.until_heard("DATA").await;
    tmpfs.fill();
    allowed.add_permits(1);
    let reply = first.await.unwrap();
    assert!(reply.starts_with("250 "), "the provider has it: {reply}");
    let line = gateway.wait_for_line(&["the remaining recipients of a message could not be stored; retrying"]);
    assert!(line.contains("grey@example.net") && !line.contains("you@example.net"), "{line}");
    let deadline = tokio::time::Instant::now() + crate::support::client::HANG_GUARD;
    // The last look at the disk may be a second old.
    while !hand_in(address, &recipients, &mail("refused")).await.starts_with("452 4.3.1 ") {
        assert!(tokio::time::Instant::now() < deadline, "what may have to be kept is taken");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let alone = hand_in(address, &["you@example.net"], &mail("alone")).await;
    assert!(alone.starts_with("250 "), "nothing would be left over of it: {alone}");
    fs::remove_file(tmpfs.path().join("filler")).unwrap();
    gateway.wait_for_line(&["the remaining recipients of a message are stored now", "grey@example.net"]);
    gateway.wait_for_line(&["\"delivered\"", "grey@example.net"]);
}

/// A restart is the first thing people try on a full disk. Routes that have changed and a quota are written at the start, too.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_a_restart_goes_on_delivering() {
    for killed in [false, true] {
        let Some(tmpfs) = Tmpfs::mount("100m") else { return };
        let provider = Provider::away();
        let setup = provider.queued("rate = \"1000/day\"", "min_free_space = \"16 MiB\"");
        let data = format!("data_dir = \"{}\"\nunsigned", tmpfs.path().join("data").display());
        let gateway = setup.config_with("unsigned", &data).start(1);
        for subject in ["one", "two", "three"] {
            let reply = hand_in(gateway.address(), &["you@example.net"], &mail(subject)).await;
            assert!(reply.starts_with("250 "), "{reply}");
        }
        gateway.wait_for_line(&["deferred"]);
        tmpfs.fill();
        let setup = match killed {
            true => gateway.kill().1,
            false => tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap().2,
        };
        tmpfs.fill();
        let route = "rate = \"1000/day\"\n[[route]]\nname = \"new\"\nupstreams = [\"company\"]";
        let gateway = setup.config_with("rate = \"1000/day\"", route).start(1);
        let scripted = provider.start().await;
        scripted.until_messages(3).await;
        assert_eq!(subjects(&scripted), ["one", "three", "two"], "killed: {killed}");
        fs::remove_file(tmpfs.path().join("filler")).unwrap();
        until_mail_is_answered(gateway.address(), "250 ").await;
    }
}

/// The reply to the first command that is refused, or to the final dot.
async fn hand_in_checked(gateway: std::net::SocketAddr, message: &str) -> String {
    let mut client = Client::connect(gateway).await;
    client.greet().await;
    for line in ["MAIL FROM:<reports@example.com>", "RCPT TO:<you@example.net>", "DATA"] {
        let reply = client.ask(line).await;
        if !reply.starts_with("250 ") && !reply.starts_with("354 ") {
            return reply;
        }
    }
    client.ask(&format!("{message}.")).await
}
