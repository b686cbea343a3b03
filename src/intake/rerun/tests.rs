//! Later rules on stored mail, with an in-memory queue.

use super::*;
use crate::message::rewrite::{AddressMap, NamedAddress, Rule, RuleActions, RuleConditions};
use crate::queue::RecipientState;
use crate::queue::testing::{MemoryQueue, row};
use crate::smtp::Mailbox;
use std::sync::Arc;

/// One failed message to these recipients, with the gateway's own field on top.
fn stored(recipients: &[&str]) -> (MemoryQueue, MailId) {
    let mut failed = row(1, RecipientState::Failed);
    let template = failed.recipients.remove(0);
    let recipient = |address: &&str| crate::queue::RecipientRow { address: (*address).into(), ..template.clone() };
    failed.recipients = recipients.iter().map(recipient).collect();
    let id: MailId = failed.id.parse().expect("an id");
    let queue = MemoryQueue::of([failed]);
    queue.inner().messages[0].1 = format!("{}{BEFORE}\r\nbody\r\n", trace(id)).into();
    (queue, id)
}

fn trace(id: MailId) -> String {
    format!("Received: from app ([127.0.0.1])\r\n\tby gw with ESMTP id {id}; Tue, 24 Nov 2026 03:05:09 +0000\r\n")
}

const BEFORE: &str = "Received: from elsewhere\r\nDKIM-Signature: v=1\r\nFrom: App <app@example.com>\r\nSubject: s\r\n";

fn rules(actions: impl IntoIterator<Item = RuleActions>) -> Rules {
    let rule = |actions| Rule { name: "today's".into(), conditions: RuleConditions::default(), actions };
    Rules(actions.into_iter().map(rule).collect())
}

fn from_rule() -> Rules {
    let address = Mailbox::parse("verified@example.org").expect("an address");
    rules([RuleActions {
        set_from: Some(NamedAddress { display_name: String::new(), address }),
        ..RuleActions::default()
    }])
}

fn map(pairs: &[(&str, &str)]) -> Rules {
    let map_recipients = AddressMap::parse(pairs.iter().copied()).expect("a map");
    rules([RuleActions { map_recipients, ..RuleActions::default() }])
}

async fn run(queue: &MemoryQueue, rules: &Rules, id: MailId) -> Ruling {
    let lane_of: LaneOf = Arc::new(|addressed| Lane::new(addressed.recipient.domain().as_str()));
    rerun(queue, rules, &lane_of, id, Timestamp::UNIX_EPOCH).await.expect("the queue works")
}

fn rewritten(recipients: u64, changed: &[&str]) -> Ruling {
    let changed = changed.iter().map(ToString::to_string).collect();
    Ruling::Rewritten { rules: vec!["today's".into()], changed, recipients }
}

/// Addresses, each with its lane.
fn recipients(queue: &MemoryQueue) -> Vec<String> {
    let inner = queue.inner();
    inner.messages[0].0.recipients.iter().map(|one| format!("{} on {}", one.address, one.lane)).collect()
}

fn content(queue: &MemoryQueue) -> String {
    String::from_utf8_lossy(&queue.inner().messages[0].1).into_owned()
}

#[tokio::test]
async fn a_rule_for_from_cures_mail_that_failed_on_it_and_can_be_taken_back() {
    let (queue, id) = stored(&["you@example.net"]);
    let as_it_was = content(&queue);
    assert_eq!(run(&queue, &from_rule(), id).await, rewritten(1, &["From", "DKIM-Signature"]));
    let trace = trace(id);
    let expected =
        format!("{trace}Received: from elsewhere\r\nFrom: verified@example.org\r\nSubject: s\r\n\r\nbody\r\n");
    assert_eq!(content(&queue), expected, "the broken signature went with the old From");
    assert_eq!(queue.inner().messages[0].0.recipients[0].state, RecipientState::Waiting);
    let original = queue.inner().originals.values().next().cloned().expect("kept");
    assert!(original.ends_with(BEFORE.as_bytes()), "without the gateway's own field");
    assert_eq!(run(&queue, &from_rule(), id).await, Ruling::Unchanged { recipients: 1 });
    assert_eq!(content(&queue), expected);
    assert_eq!(
        run(&queue, &Rules::default(), id).await,
        Ruling::Rewritten { rules: vec![], changed: vec!["DKIM-Signature".into(), "From".into()], recipients: 1 }
    );
    assert_eq!(content(&queue), as_it_was);
    assert!(queue.inner().originals.is_empty(), "nothing is changed any more");
}

#[tokio::test]
async fn a_header_of_many_fields_is_compared_in_one_pass() {
    let (queue, id) = stored(&["you@example.net"]);
    let many = "a: b\r\n".repeat(30_000);
    queue.inner().messages[0].1 = format!("{}{many}{BEFORE}\r\nbody\r\n", trace(id)).into();
    assert_eq!(run(&queue, &from_rule(), id).await, rewritten(1, &["From", "DKIM-Signature"]));
}

#[tokio::test]
async fn recipients_are_mapped_from_what_the_application_said() {
    let (queue, id) = stored(&["a@example.net", "b@example.net", "c@example.com"]);
    assert_eq!(run(&queue, &map(&[("*", "all@staging.example")]), id).await, rewritten(1, &["recipients"]));
    assert_eq!(recipients(&queue), ["all@staging.example on staging.example"]);
    assert_eq!(run(&queue, &map(&[("*@example.net", "*@example.org")]), id).await, rewritten(3, &["recipients"]));
    assert_eq!(
        recipients(&queue),
        ["a@example.org on example.org", "b@example.org on example.org", "c@example.com on example.com"]
    );
    // One of them has the mail; an operator corrected another.
    queue.inner().messages[0].0.recipients.remove(0);
    queue.inner().messages[0].0.recipients[0].address = "corrected@example.net".into();
    assert_eq!(run(&queue, &map(&[("c@*", "d@example.com")]), id).await, rewritten(2, &["recipients"]));
    assert_eq!(recipients(&queue), ["d@example.com on example.com", "corrected@example.net on example.net"]);
}

#[tokio::test]
async fn a_rule_can_end_it_or_leave_it_as_it_is() {
    let refuse = rules([RuleActions { refuse: Some("no such mail".into()), ..RuleActions::default() }]);
    let discard = rules([RuleActions { discard: true, ..RuleActions::default() }]);
    let (queue, id) = stored(&["you@example.net"]);
    let before = content(&queue);
    let refused = Ruling::Refuses { rule: "today's".into(), text: "no such mail".into() };
    assert_eq!(run(&queue, &refuse, id).await, refused);
    assert_eq!(
        (content(&queue), queue.inner().messages[0].0.recipients[0].state),
        (before.clone(), RecipientState::Failed)
    );
    queue.inner().messages[0].0.recipients[0].state = RecipientState::Leased;
    assert_eq!(run(&queue, &from_rule(), id).await, Ruling::Busy);
    queue.inner().messages[0].0.recipients[0].state = RecipientState::Waiting;
    assert_eq!(run(&queue, &discard, id).await, Ruling::Discards { rule: "today's".into() });
    assert_eq!(content(&queue), before, "what was accepted is not removed by a rule of another day");
    let nobody = MailId::new(Timestamp::UNIX_EPOCH, 9);
    assert_eq!(run(&queue, &discard, nobody).await, Ruling::Missing);
}

#[tokio::test]
async fn an_original_that_cannot_be_read_changes_nothing() {
    let (queue, id) = stored(&["you@example.net"]);
    let before = content(&queue);
    for garbage in ["", "{}\n", "{\"version\":9}\nFrom: a@b\r\n"] {
        queue.inner().originals.insert(id.to_string(), garbage.into());
        assert!(matches!(run(&queue, &from_rule(), id).await, Ruling::Unreadable { .. }), "{garbage}");
        assert_eq!(content(&queue), before);
    }
}

/// Accepted by an older version, or damaged.
#[tokio::test]
async fn what_could_never_be_sent_stays_as_it_is_and_says_why() {
    let (queue, id) = stored(&["you@example.net"]);
    for (field, why) in [
        ("To: you@example.net\r\n".repeat(101), "the message has more than 100 To headers"),
        (format!("References: <{}@x>\r\n", "m".repeat(1000)), "the header field References has a line of"),
    ] {
        queue.inner().messages[0].1 = format!("{}{field}{BEFORE}\r\nbody\r\n", trace(id)).into();
        let before = content(&queue);
        let Ruling::Unreadable { why: told } = run(&queue, &from_rule(), id).await else {
            panic!("{why}: it was changed")
        };
        assert!(told.starts_with("it could never be sent: ") && told.contains(why), "{told}");
        assert_eq!(content(&queue), before);
    }
}
