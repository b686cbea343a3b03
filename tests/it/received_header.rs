//! `[trace] received`: what the readers of a mail can see of the application that submitted it.

use crate::support::application::{hand_in, in_front_of, mail};
use crate::support::upstream::ScriptedUpstream;

/// The gateway's own field, unfolded; empty if there is none.
fn received(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let header = text.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n\t", " ");
    header.lines().find(|line| line.starts_with("Received: ")).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_is_named_only_where_that_is_wanted() {
    for (setting, begins_with) in [
        ("", "Received: from "),
        ("received = \"full\"", "Received: from "),
        ("received = \"without-client\"", "Received: by gateway.example.com with ESMTP id "),
        ("received = \"off\"", ""),
    ] {
        let scripted = ScriptedUpstream::start().await;
        let gateway = in_front_of(&scripted, &format!("[trace]\n{setting}")).start(1);
        let reply = hand_in(gateway.address(), &["you@example.net"], &mail("traced")).await;
        assert!(reply.starts_with("250 "), "{reply}");
        let field = received(&scripted.messages()[0].data);
        assert!(field.starts_with(begins_with) && field.is_empty() == begins_with.is_empty(), "{setting}: {field}");
        let names_client = field.contains("127.0.0.1");
        assert_eq!(names_client, begins_with.contains("from"), "{setting}: {field}");
    }
}
