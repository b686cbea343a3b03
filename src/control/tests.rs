use super::protocol::MessageContent;
use super::*;
use crate::intake::Ruling;
use crate::message::rewrite::{NamedAddress, Rule, RuleActions, RuleConditions, Rules};
use crate::message::{MailId, SenderPatterns};
use crate::queue::testing::{MemoryQueue, row};
use crate::queue::{Cursor, Filter, HistoryRow, QueueError, RecipientState, Statistics};
use crate::smtp::Mailbox;
use bytes::Bytes;
use jiff::Timestamp;

fn now() -> Timestamp {
    "2026-11-24T03:00:00Z".parse().expect("a time")
}

fn id(number: u32) -> MailId {
    row(number, RecipientState::Waiting).id.parse().expect("an id")
}

fn named(what: Change, ids: Vec<MailId>) -> ControlRequest {
    ControlRequest::Change { what, which: Which::Named(ids) }
}

fn matching(what: Change, filter: Filter, after: Option<Cursor>, limit: usize) -> ControlRequest {
    ControlRequest::Change { what, which: Which::Matching { filter, after, limit } }
}

fn retry() -> Change {
    Change::Retry { to: None }
}

/// Refuses the second message; the others get another sender.
fn rules() -> CurrentRules {
    let second = SenderPatterns::parse(["r2@*"]).expect("a pattern");
    let refuse = Rule {
        name: "refuse".into(),
        conditions: RuleConditions { recipients: Some(second), ..RuleConditions::default() },
        actions: RuleActions { refuse: Some("no".into()), ..RuleActions::default() },
    };
    let address = Mailbox::parse("verified@example.org").expect("an address");
    let set_from = Some(NamedAddress { display_name: String::new(), address });
    let rewrite = Rule {
        name: "r".into(),
        conditions: RuleConditions::default(),
        actions: RuleActions { set_from, ..RuleActions::default() },
    };
    CurrentRules { rules: Rules([refuse, rewrite].into()), routes: None }
}

async fn ask(queue: &MemoryQueue, request: ControlRequest) -> ControlResponse {
    let request = ControlRequest::from_line(&request.to_line()).expect("what was written is read");
    let response = execute(queue, &rules(), request, now()).await;
    let read = ControlResponse::from_line(&response.to_line()).expect("what was written is read");
    assert_eq!(read.to_line(), response.to_line());
    response
}

async fn changed(queue: &MemoryQueue, request: ControlRequest) -> Changed {
    match ask(queue, request).await {
        ControlResponse::Changed(changed) => changed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_lines_are_what_other_versions_read() {
    let request = ControlRequest::List { filter: Filter::default(), after: None, limit: 50 };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        String::from_utf8(request.to_line()).unwrap(),
        format!(
            "{{\"protocol\":4,\"program\":\"{version}\",\"request\":{{\"list\":{{\"filter\":{{\"state\":null,\
             \"recipient\":null,\"upstream\":null,\"received_before\":null,\"message_id\":null}},\"after\":null,\"limit\":50}}}}}}\n"
        )
    );
    let response = ControlResponse::Content(Some(MessageContent { octets: 3, data: Bytes::from_static(b"abc") }));
    assert_eq!(
        String::from_utf8(response.to_line()).unwrap(),
        format!("{{\"protocol\":4,\"program\":\"{version}\",\"response\":{{\"content\":{{\"octets\":3}}}}}}\n")
    );
    assert_eq!(response.trailer(), b"abc");
}

#[test]
fn another_version_is_named_whatever_it_says() {
    for line in [
        &br#"{"protocol":5,"program":"9.8.7","request":{"frobnicate":{"ids":"all"}}}"#[..],
        br#"{"protocol":5,"program":"9.8.7","request":"overview"}"#,
        br#"{"program":"9.8.7","protocol":5}"#,
    ] {
        let refusal = ControlRequest::from_line(line).unwrap_err();
        assert_eq!(refusal.blame, Blame::Protocol);
        assert!(refusal.text.contains("waxseal 9.8.7 and speaks protocol 5"), "{refusal}");
        assert!(refusal.text.contains("restart the gateway"), "{refusal}");
        assert_eq!(ControlResponse::from_line(line).unwrap_err().blame, Blame::Protocol);
    }
}

/// Requests and answers of a program with the first protocol.
#[test]
fn a_line_of_the_first_protocol_is_refused_with_what_to_do() {
    for line in [
        &br#"{"protocol":1,"program":"0.1.0","request":{"retry":{"ids":[],"to":null}}}"#[..],
        br#"{"protocol":1,"program":"0.1.0","request":"overview"}"#,
        br#"{"protocol":1,"program":"0.1.0","response":{"changed":{"messages":1,"recipients":1}}}"#,
    ] {
        for refusal in [ControlRequest::from_line(line).unwrap_err(), ControlResponse::from_line(line).unwrap_err()] {
            assert_eq!(refusal.blame, Blame::Protocol);
            for words in [
                "speaks protocol 1",
                "use the program that the running gateway was started from",
                "restart the gateway",
            ] {
                assert!(refusal.text.contains(words), "{refusal}");
            }
        }
    }
}

#[test]
fn an_invalid_request_is_refused_with_the_place() {
    for line in [
        &b""[..],
        b"\n",
        b"GET / HTTP/1.1\r\n",
        b"{\"protocol\":4}",
        b"{\"protocol\":\"2\",\"request\":\"overview\"}",
        b"{\"protocol\":-1,\"request\":\"overview\"}",
        b"{\"protocol\":4,\"request\":{\"change\":{\"what\":\"remove\",\"which\":{\"named\":[\"../../etc/passwd\"]}}}}",
        b"{\"protocol\":4,\"request\":{\"change\":{}}}",
        b"{\"protocol\":4,\"request\":{\"change\":{\"what\":\"remove\",\"which\":{\"named\":[]},\"force\":true}}}",
        b"{\"protocol\":4,\"request\":\"overview\"} trailing",
        b"\xff\xfe",
    ] {
        let refusal = ControlRequest::from_line(line).unwrap_err();
        assert_eq!(refusal.blame, Blame::Request, "{}", line.escape_ascii());
        assert!(!refusal.text.is_empty());
    }
    let deep = [b"{\"protocol\":4,\"request\":".to_vec(), b"[".repeat(10_000)].concat();
    assert_eq!(ControlRequest::from_line(&deep).unwrap_err().blame, Blame::Request);
}

#[tokio::test]
async fn pages_follow_each_other_and_are_bounded() {
    let queue = MemoryQueue::of((0..600).map(|number| row(number, RecipientState::Waiting)));
    let mut after = None;
    let mut sizes = Vec::new();
    loop {
        let request = ControlRequest::List { filter: Filter::default(), after, limit: usize::MAX };
        let ControlResponse::Page(page) = ask(&queue, request).await else { panic!("a page") };
        sizes.push(page.rows.len());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [200, 200, 200]);
    let ControlResponse::Page(page) =
        ask(&queue, ControlRequest::List { filter: Filter::default(), after: None, limit: 0 }).await
    else {
        panic!("a page")
    };
    assert_eq!(page.rows.len(), 1, "a page goes forward");
}

#[tokio::test]
async fn every_named_message_is_accounted_for() {
    let queue = MemoryQueue::of([
        row(1, RecipientState::Failed),
        row(2, RecipientState::Waiting),
        row(3, RecipientState::Leased),
    ]);
    let ids = vec![id(1), id(2), id(3), id(9)];
    let retried = changed(&queue, named(retry(), ids.clone())).await;
    let expected =
        Changed { messages: 2, recipients: 2, missing: vec![id(9)], unchanged: vec![id(3).to_string()], next: None };
    assert_eq!(retried, expected);
    assert_eq!(queue.inner().messages[0].0.recipients[0].due, Some(now()));
    assert_eq!(changed(&queue, named(Change::Remove, ids)).await, expected, "what is being sent stays");
    assert_eq!(queue.inner().messages.len(), 1);
}

#[tokio::test]
async fn an_address_is_corrected_only_where_it_is_clear_whose() {
    let mut two = row(2, RecipientState::Waiting);
    two.recipients.push(row(7, RecipientState::Failed).recipients.remove(0));
    let queue = MemoryQueue::of([row(1, RecipientState::Failed), two]);
    let retry =
        |ids: &[u32], to: &str| named(Change::Retry { to: Some(to.into()) }, ids.iter().copied().map(id).collect());
    let of_all = matching(Change::Retry { to: Some("new@example.net".into()) }, Filter::default(), None, 1);
    for (request, blame, words) in [
        (retry(&[1, 2], "new@example.net"), Blame::Request, "one message at a time"),
        (of_all, Blame::Request, "one message at a time"),
        (retry(&[1], "new\u{202e}@"), Blame::Request, "is not a valid address"),
        (retry(&[2], "new@example.net"), Blame::Message, "2 recipients that are not settled"),
    ] {
        let ControlResponse::Refused(refusal) = ask(&queue, request).await else { panic!("{words}") };
        assert_eq!(refusal.blame, blame);
        assert!(refusal.text.contains(words) && !refusal.text.contains('\u{202e}'), "{refusal}");
    }
    assert_eq!(changed(&queue, retry(&[1], "new@example.net")).await.recipients, 1);
    assert_eq!(queue.inner().messages[0].0.recipients[0].address, "new@example.net");
}

#[tokio::test]
async fn a_corrected_address_that_has_the_mail_already_does_not_get_it_twice() {
    let queue = MemoryQueue::of([row(1, RecipientState::Failed)]);
    queue.inner().history.push(HistoryRow {
        cursor: Cursor(1),
        id: id(1).to_string(),
        received_at: now(),
        sender: "reports@example.com".into(),
        recipients: vec!["other@example.net".into(), "right@b\u{fc}cher.example".into()],
        subject: "Report 1".into(),
        message_id: None,
        delivery: crate::queue::Delivered {
            at: now(),
            upstream: "company".into(),
            reply: "250 ok".into(),
            milliseconds: 1,
        },
    });
    let retry = |to: &str| named(Change::Retry { to: Some(to.into()) }, vec![id(1)]);
    for to in ["right@b\u{fc}cher.example", "\"right\"@XN--BCHER-KVA.example"] {
        let ControlResponse::Refused(refusal) = ask(&queue, retry(to)).await else { panic!("{to}") };
        assert_eq!(refusal.blame, Blame::Message);
        assert!(refusal.text.contains("arrive twice") && refusal.text.contains("queue remove"), "{refusal}");
    }
    assert_eq!(queue.inner().messages[0].0.recipients[0].state, RecipientState::Failed, "and it stays as it is");
    assert_eq!(changed(&queue, retry("Right@b\u{fc}cher.example")).await.recipients, 1, "another mailbox");
}

#[tokio::test]
async fn a_change_of_all_goes_page_by_page_and_ends() {
    let states = [RecipientState::Waiting, RecipientState::Failed, RecipientState::Leased];
    let queue = MemoryQueue::of((0..900).map(|number| row(number, states[number as usize % 3])));
    let filter = Filter { recipient: Some("@example.net".into()), ..Filter::default() };
    let mut after = None;
    let mut pages = 0;
    let mut messages = 0;
    loop {
        let request = matching(Change::Remove, filter.clone(), after, MAX_PAGE);
        let changed = changed(&queue, request).await;
        (pages, messages) = (pages + 1, messages + changed.messages);
        after = changed.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((pages, messages, queue.inner().messages.len()), (5, 600, 300));
    let none = Filter { state: Some(RecipientState::Failed), ..Filter::default() };
    let left = changed(&queue, matching(retry(), none, None, 10)).await;
    assert_eq!(left, Changed::default());
}

#[tokio::test]
async fn hold_and_release_answer_with_what_is_held() {
    let queue = MemoryQueue::of([row(1, RecipientState::Waiting), row(2, RecipientState::Damaged)]);
    let hold = |lane: Option<&str>, held| ControlRequest::Hold { lane: lane.map(str::to_owned), held };
    for (request, held) in [
        (hold(Some("reports"), true), vec![Some("reports")]),
        (hold(None, true), vec![None]),
        (hold(Some("reports"), true), vec![None, Some("reports")]),
        (hold(None, false), vec![]),
        (ControlRequest::Overview, vec![]),
    ] {
        let ControlResponse::Overview(overview) = ask(&queue, request.clone()).await else { panic!("{request:?}") };
        let names: Vec<_> = overview.held.iter().map(|held| held.lane.as_deref()).collect();
        assert_eq!(names, held, "{request:?}");
        assert_eq!(overview.counts, Statistics { waiting: 1, damaged: 1, ..Statistics::default() });
    }
    assert!(hold(None, false).wants_delivery());
    assert!(!hold(None, true).wants_delivery() && !ControlRequest::Overview.wants_delivery());
}

#[tokio::test]
async fn a_queue_that_fails_is_quoted() {
    let queue = MemoryQueue::default();
    queue.inner().broken = Some(QueueError::Storage("disk I/O error".into()));
    for request in [ControlRequest::Overview, ControlRequest::Show { id: id(1) }, named(Change::Remove, vec![id(1)])] {
        let ControlResponse::Refused(refusal) = ask(&queue, request).await else { panic!("a refusal") };
        assert_eq!(refusal.blame, Blame::Queue);
        assert!(refusal.text.contains("disk I/O error"));
    }
}

proptest::proptest! {
    #[test]
    fn no_line_is_fatal(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..200), cut in 0usize..120) {
        let _whatever = (ControlRequest::from_line(&octets), ControlResponse::from_line(&octets));
        let mut line = ControlRequest::List { filter: Filter::default(), after: Some(Cursor(7)), limit: 50 }.to_line();
        let at = cut.min(line.len() - 1);
        line.splice(at..at + 1, octets);
        let _whatever = ControlRequest::from_line(&line);
    }
}

#[tokio::test]
async fn the_rules_are_asked_about_each_message_and_one_that_cannot_be_read_stops_nobody() {
    let queue = MemoryQueue::of([1, 2, 3, 4].map(|number| {
        let mut row = row(number, RecipientState::Failed);
        let other = crate::queue::RecipientRow { address: "other@example.net".into(), ..row.recipients[0].clone() };
        row.recipients.push(other);
        row
    }));
    queue
        .inner()
        .messages
        .iter_mut()
        .for_each(|(_, content)| *content = Bytes::from_static(b"From: a@b\r\n\r\nbody\r\n"));
    queue.inner().unreadable = Some(id(3));
    let ids: Vec<MailId> = [1, 2, 3, 4].map(id).to_vec();
    let all = matching(Change::RetryByRules, Filter::default(), None, 1000);
    for request in [named(Change::RetryByRules, ids.clone()), all] {
        assert!(request.wants_delivery());
        let ControlResponse::Ruled(page) = ask(&queue, request).await else { panic!("no rulings") };
        let due: Vec<_> = page.messages.iter().map(|message| message.ruling.due()).collect();
        assert_eq!(due, [Some(2), None, None, Some(2)]);
        assert!(matches!(&page.messages[1].ruling, Ruling::Refuses { text, .. } if text == "no"));
        assert_eq!(page.messages[2].ruling, Ruling::Unreadable { why: "damaged".into() });
    }
    let too_many = named(Change::RetryByRules, vec![ids[0]; MAX_RULED + 1]);
    assert!(
        matches!(ask(&queue, too_many).await, ControlResponse::Refused(refusal) if refusal.blame == Blame::Request)
    );
}
