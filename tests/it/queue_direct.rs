//! `delivery = "direct"`, and the provider accepted the message for some of its recipients: the gateway is responsible
//! for the others.

use crate::support::application::{hand_in, in_front_of, mail, up_to_data};
use crate::support::gateway::Gateway;
use crate::support::until;
use crate::support::upstream::{Action, At, ScriptedUpstream};

fn queue(gateway: &Gateway, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_waxseal"));
    command.current_dir(gateway.folder()).args(["--config", "config.toml", "queue"]).args(arguments);
    let output = command.output().expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deferred_are_queued_and_the_failed_are_kept() {
    let scripted = ScriptedUpstream::builder()
        .recipient("gone@", "550 5.1.1 no such user")
        .once(At::Rcpt, "250 2.1.5 ok")
        .once(At::Rcpt, "450 4.2.1 greylisted")
        .start()
        .await;
    let gateway = in_front_of(&scripted, "").start(1);
    let recipients = ["gone@example.net", "you@example.net", "grey@example.net"];
    let reply = hand_in(gateway.address(), &recipients, &mail("mixed")).await;
    assert!(reply.starts_with("250 2.0.0 queued as SCRIPTED"), "the provider's own: {reply}");
    scripted.until_messages(2).await;
    let sent: Vec<_> = scripted.messages().into_iter().map(|message| message.recipients).collect();
    assert_eq!(sent, [vec!["you@example.net"], vec!["grey@example.net"]]);
    gateway.wait_for_line(&["\"delivered\"", "grey@example.net"]);
    let failed = queue(&gateway, &["list", "--json"]);
    assert!(failed.contains("gone@example.net") && failed.contains("550 5.1.1 no such user"), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_a_message_that_went_back_to_the_application() {
    for (at, action) in [(At::Rcpt, Action::Say("550 5.1.1 no such user".into())), (At::Auth, "535 5.7.8 no".into())] {
        let scripted = ScriptedUpstream::builder().always(at, action).start().await;
        let gateway = in_front_of(&scripted, "").start(1);
        let reply = hand_in(gateway.address(), &["you@example.net"], &mail("back")).await;
        assert!(!reply.starts_with('2'), "{reply}");
        let listed = queue(&gateway, &["list", "--json"]);
        assert!(!listed.contains("you@example.net"), "{listed}");
    }
}

/// The provider asks for a separate transaction for the second recipient, and does not answer its final dot.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_took_before_the_end_of_the_drain_time_is_not_sent_again() {
    let scripted = ScriptedUpstream::builder()
        .once(At::Rcpt, "250 2.1.5 ok")
        .once(At::Rcpt, "452 4.5.3 too many recipients")
        .once(At::Dot, Action::Late(std::time::Duration::from_millis(1)))
        .once(At::Dot, Action::Stall)
        .start()
        .await;
    // The rest must be stored and the client answered in an eighth of it, at most half a second, on a busy machine too.
    let mut gateway = in_front_of(&scripted, "").config_with("unsigned", "drain = \"4s\"\nunsigned").start(1);
    let mut client = up_to_data(gateway.address(), &["first@example.net", "second@example.net"]).await;
    client.send(format!("{}.\r\n", mail("in two")).as_bytes()).await;
    until("the second dot", || !scripted.not_accepted().is_empty()).await;
    gateway.signal("TERM");
    let reply = client.reply().await.expect("a reply");
    assert!(reply.starts_with("250 2.0.0 "), "one of them has it: {reply}");
    assert_eq!(gateway.wait().code(), Some(0));
    let (_, setup) = gateway.kill();
    let gateway = setup.start(1);
    gateway.wait_for_line(&["possible duplicate"]);
    gateway.wait_for_line(&["\"delivered\"", "second@example.net"]);
    let sent: Vec<_> = scripted.messages().into_iter().map(|message| message.recipients).collect();
    assert_eq!(sent, [["first@example.net"], ["second@example.net"]]);
    let listed = queue(&gateway, &["list", "--json"]);
    assert!(!listed.contains("example.net"), "{listed}");
}
