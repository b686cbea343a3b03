//! The data folder under a running gateway: deleted files are created again or reported, a second gateway is still
//! refused, and a folder that cannot be written to is named.

use crate::support::application::{hand_in, mail, queued_in_front_of};
use crate::support::gateway::{Gateway, Setup};
use crate::support::mount::Mount;
use crate::support::upstream::{At, ScriptedUpstream};
use crate::support::{eventually, until};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const CONFIG: &str = "unsigned = \"send\"\n[log]\nformat = \"json\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
    [queue]\nretry = { first = \"1s\", longest = \"2s\" }\n[[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn waiting(gateway: &Gateway) -> usize {
    let output = gateway.output(&["queue", "list", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    value["messages"].as_array().unwrap().len()
}

/// Two gateways used one database.
#[test]
fn a_second_gateway_is_refused_also_when_the_lock_was_deleted() {
    let gateway = Setup::new(Some(CONFIG)).start(1);
    let lock = gateway.folder().join("data/lock");
    let holder = format!("process {}", gateway.pid());
    for _ in 0..2 {
        fs::remove_file(&lock).unwrap();
        let second = gateway.output(&["run"]);
        assert_eq!(second.status.code(), Some(2), "{}", said(&second));
        assert!(said(&second).contains("another waxseal"), "{}", said(&second));
        eventually("the file says again who it is", || {
            fs::read_to_string(&lock).is_ok_and(|text| holder.ends_with(&format!(" {}", text.trim())))
        });
        let third = gateway.output(&["run"]);
        assert!(third.status.code() == Some(2) && said(&third).contains(&holder), "{}", said(&third));
    }
    // The same by another path to the same folder.
    std::os::unix::fs::symlink("data", gateway.folder().join("link")).unwrap();
    let other = Setup::new(Some(&format!("data_dir = \"{}/link\"\n{CONFIG}", gateway.folder().display())));
    let refused = other.output(&["run"]);
    assert!(refused.status.code() == Some(2) && said(&refused).contains(&holder), "{}", said(&refused));
}

#[test]
fn a_control_socket_that_was_deleted_is_made_again() {
    let gateway = Setup::new(Some(CONFIG)).start(1);
    let socket = gateway.folder().join("data/control.sock");
    for _ in 0..2 {
        fs::remove_file(&socket).unwrap();
        eventually("a socket", || socket.exists());
        gateway.wait_for_line(&["the control socket was deleted; it is made again"]);
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        let held = gateway.output(&["queue", "hold", "default"]);
        assert!(held.status.success(), "{}", said(&held));
    }
    let (status, _, setup) = gateway.stop();
    assert!(status.success() && !setup.folder().join("data/control.sock").exists());
}

/// Mail was deferred until the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_folder_that_was_deleted_is_made_again_and_no_mail_is_lost() {
    let gateway = tokio::task::spawn_blocking(|| Setup::new(Some(CONFIG)).start(1)).await.unwrap();
    let sandbox = gateway.folder().join("data/sandbox");
    let kept = || fs::read_dir(&sandbox).map_or(0, Iterator::count);
    for subject in ["one", "two"] {
        assert!(hand_in(gateway.address(), &["you@example.net"], &mail(subject)).await.starts_with("250 "));
    }
    until("both are kept", || kept() == 2).await;
    fs::remove_dir_all(&sandbox).unwrap();
    for subject in ["three", "four", "five"] {
        assert!(hand_in(gateway.address(), &["you@example.net"], &mail(subject)).await.starts_with("250 "));
    }
    until("those from then on are kept", || kept() == 3).await;
    gateway.wait_for_line(&["the sandbox's folder was deleted; it is made again"]);
    // If something else is in its place, that is reported and the mail waits.
    fs::remove_dir_all(&sandbox).unwrap();
    fs::write(&sandbox, "a file").unwrap();
    assert!(hand_in(gateway.address(), &["you@example.net"], &mail("six")).await.starts_with("250 "));
    gateway.wait_for_line(&["the sandbox could not keep a message"]);
    assert_eq!(tokio::task::block_in_place(|| waiting(&gateway)), 1);
    fs::remove_file(&sandbox).unwrap();
    until("it is kept, too", || kept() == 1).await;
    until("nothing waits", || tokio::task::block_in_place(|| waiting(&gateway)) == 0).await;
}

/// It was set aside as damaged, and waited until an operator found it.
#[tokio::test(flavor = "multi_thread")]
async fn large_mail_waits_while_the_folder_of_its_body_is_away() {
    let scripted = ScriptedUpstream::builder().once(At::Mail, "451 4.3.0 later").start().await;
    let setup = queued_in_front_of(&scripted, "", "retry = { first = \"1h\", longest = \"1h\" }");
    let gateway = tokio::task::spawn_blocking(move || setup.start(1)).await.unwrap();
    let large = format!("{}{}", mail("large"), "Hello again.\r\n".repeat(30_000));
    let id = hand_in(gateway.address(), &["you@example.net"], &large).await;
    let id = id.strip_prefix("250 2.0.0 Queued as ").expect("queued").to_owned();
    gateway.wait_for_line(&["deferred", &id]);
    // Mail kept in its memory ends with it.
    let setup = tokio::task::spawn_blocking(move || gateway.stop().2).await.unwrap();
    let gateway = tokio::task::spawn_blocking(move || setup.start(1)).await.unwrap();
    let bodies = gateway.folder().join("data/bodies");
    let away = gateway.folder().join("away");
    fs::rename(&bodies, &away).unwrap();
    let retry = || {
        let output = tokio::task::block_in_place(|| gateway.output(&["queue", "retry", &id]));
        assert!(output.status.success(), "{}", said(&output));
    };
    retry();
    gateway.wait_for_line(&["a message cannot be read at the moment", &id, "bodies was deleted or moved away"]);
    let shown = said(&tokio::task::block_in_place(|| gateway.output(&["queue", "list", "--json"])));
    assert!(shown.contains("\"state\":\"waiting\"") && shown.contains("\"damaged\":0"), "{shown}");
    assert!(scripted.messages().is_empty());
    fs::rename(&away, &bodies).unwrap();
    retry();
    scripted.until_messages(1).await;
    assert!(scripted.messages()[0].data.ends_with(b"Hello again.\r\n"));
}

/// A new folder, and one that a gateway has used.
#[test]
fn a_data_folder_that_cannot_be_written_to_is_named_with_the_cause() {
    for is_used in [false, true] {
        let Some(mount) = Mount::tmpfs("300m") else { return };
        let mut setup = Setup::new(Some(CONFIG)).moved_to(mount.path());
        if is_used {
            setup = setup.start(1).stop().2;
        }
        mount.make_read_only();
        let data = Path::new("data");
        for arguments in [&["run"][..], &["queue", "list"], &["queue", "hold", "--all"]] {
            let output = setup.output(arguments);
            let text = said(&output);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
            assert!(!text.contains("panicked"), "{arguments:?}: {text}");
            let is_there = is_used || arguments == ["run"];
            let cause = if is_there { "Read-only file system" } else { "there is no queue in" };
            assert!(text.contains(cause) && text.contains(&data.display().to_string()), "{arguments:?}: {text}");
        }
        let told = said(&setup.output(&["run"]));
        assert!(told.contains("the data folder") && told.contains("set `data_dir`"), "{told}");
    }
}
