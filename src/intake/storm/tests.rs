//! What counts as equal, when it is held, and what is never kept, under paused time.

use super::*;
use crate::message::accepted::Origin;
use crate::message::{Envelope, MailId, Marks, RawMessage};
use crate::queue::Lane;
use crate::smtp::ReversePath;
use tokio::time::advance;

const OPTIONS: StormOptions = StormOptions { more_than: 3, within: Duration::from_secs(600) };

fn accepted(sender: &str, recipients: &[&str]) -> Accepted {
    let mailbox = |text: &str| Mailbox::parse(text).expect("an address");
    let mut envelope = Envelope::new(ReversePath::Mailbox(mailbox(sender)));
    recipients.iter().for_each(|recipient| envelope.add_recipient(mailbox(recipient)));
    let received_at = jiff::Timestamp::UNIX_EPOCH;
    let message = RawMessage::from_data("Subject: x\r\n\r\nx\r\n".into()).expect("a message");
    let (id, origin, marks) = (MailId::new(received_at, 1), Origin::default(), Marks::default());
    Accepted { id, received_at, origin, envelope, message, author: None, marks }
}

/// Which recipients are held, of a message that is accepted.
fn submit(watch: &StormWatch, sender: &str, subject: &str, recipients: &[&str]) -> Vec<bool> {
    let accepted = accepted(sender, recipients);
    let check = watch.check(&accepted, subject);
    let states = check.hold(recipients.iter().map(|_| InitialState::Waiting(Lane::new("default"))).collect());
    let held = states.iter().map(|state| matches!(state, InitialState::Held { .. })).collect();
    check.keep(&accepted, &states);
    held
}

#[tokio::test(start_paused = true)]
async fn one_too_many_is_held_and_other_mail_is_not() {
    let watch = StormWatch::new(OPTIONS, None);
    for number in 0..20 {
        assert_eq!(submit(&watch, "a@example.com", "one", &["you@example.net"]), [number >= 3], "{number}");
    }
    for (sender, subject, recipient, is_held) in [
        ("a@example.com", "one", "you@EXAMPLE.net", true),
        ("a@example.com", "two", "you@example.net", false),
        ("b@example.com", "one", "you@example.net", false),
        ("a@example.com", "one", "me@example.net", false),
        ("a@example.com", "", "you@example.net", false),
        ("a@example.com", "oneyou", "@example.net", false),
    ] {
        if Mailbox::parse(recipient).is_ok() {
            assert_eq!(submit(&watch, sender, subject, &[recipient]), [is_held], "{sender} {subject} {recipient}");
        }
    }
    let several = submit(&watch, "a@example.com", "one", &["me@example.net", "you@example.net", "they@example.net"]);
    assert_eq!(several, [false, true, false], "each recipient for itself");
}

#[tokio::test(start_paused = true)]
async fn a_storm_lasts_as_long_as_more_than_the_number_come_within_the_time() {
    let watch = StormWatch::new(OPTIONS, None);
    let next = |seconds: u64| {
        let watch = watch.clone();
        async move {
            advance(Duration::from_secs(seconds)).await;
            submit(&watch, "a@example.com", "one", &["you@example.net"])[0]
        }
    };
    // One every 200 seconds is three within the time, and never one too many.
    for _ in 0..20 {
        assert!(!next(200).await);
    }
    // One every 190 seconds is.
    assert_eq!([next(190).await, next(190).await, next(190).await], [true, true, true]);
    assert!(!next(600).await, "after as much time without any");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_accepted_after_all_does_not_count() {
    let watch = StormWatch::new(OPTIONS, None);
    for _ in 0..3 {
        assert_eq!(submit(&watch, "a@example.com", "one", &["you@example.net"]), [false]);
    }
    let message = accepted("a@example.com", &["you@example.net", "me@example.net"]);
    for _ in 0..10 {
        assert!(watch.check(&message, "one").holds(0));
    }
    assert_eq!(watch.state.lock().counted, 3);
    assert!(watch.state.lock().storms.is_empty());
    assert_eq!(submit(&watch, "a@example.com", "one", &["me@example.net"]), [false]);
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_counted_until_it_is_over() {
    let watch = StormWatch::new(OPTIONS, None);
    for _ in 0..10 {
        submit(&watch, "a@example.com", "one", &["you@example.net"]);
    }
    let held = |watch: &StormWatch| watch.state.lock().storms.values().map(|storm| storm.held).sum::<u64>();
    assert_eq!(held(&watch), 7);
    let stop = CancellationToken::new();
    let current = watch::Sender::new(Some(watch.clone()));
    let running = tokio::spawn(StormWatch::run(current.subscribe(), stop.clone()));
    advance(Duration::from_secs(590)).await;
    tokio::task::yield_now().await;
    assert_eq!(held(&watch), 7);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(held(&watch), 0);
    stop.cancel();
    running.await.expect("it ends");
}

/// A task for each changed `[storm]` ran until the stop, by the options that it had begun with, and counting began at zero.
#[tokio::test(start_paused = true)]
async fn a_reload_changes_the_options_and_keeps_what_is_counted() {
    let first = StormWatch::new(OPTIONS, None);
    for number in 0..5 {
        assert_eq!(submit(&first, "a@example.com", "one", &["you@example.net"]), [number >= 3]);
    }
    let current = watch::Sender::new(Some(first.clone()));
    let stop = CancellationToken::new();
    let running = tokio::spawn(StormWatch::run(current.subscribe(), stop.clone()));
    let is_storm = |watch: &StormWatch| !watch.state.lock().storms.is_empty();
    let second = StormWatch::new(StormOptions { more_than: 6, within: Duration::from_secs(60) }, Some(&first));
    current.send_replace(Some(second.clone()));
    assert_eq!(submit(&second, "a@example.com", "one", &["you@example.net"]), [false], "the sixth");
    assert_eq!(submit(&second, "a@example.com", "one", &["you@example.net"]), [true], "the seventh");
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(is_storm(&second));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!is_storm(&second), "it is over sooner now");
    for _ in 0..7 {
        submit(&second, "a@example.com", "one", &["you@example.net"]);
    }
    assert!(is_storm(&second));
    current.send_replace(None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!is_storm(&second), "nothing is held any more");
    current.send_replace(Some(StormWatch::new(OPTIONS, None)));
    stop.cancel();
    running.await.expect("one task, which ends");
}

/// Neither many kinds nor many mails of few kinds take more than was planned.
#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded() {
    let watch = StormWatch::new(StormOptions { more_than: 5_000, ..OPTIONS }, None);
    for kind in 0..MOST_KINDS + 100 {
        submit(&watch, "a@example.com", &kind.to_string(), &["you@example.net"]);
    }
    assert_eq!(watch.state.lock().seen.len(), MOST_KINDS);
    for kind in 0..60_u32 {
        for _ in 0..10_200 {
            watch.state.lock().count(MailKind([kind as u8; 16]), Instant::now(), watch.options);
        }
    }
    let state = watch.state.lock();
    assert!(state.counted <= MOST_COUNTED, "{}", state.counted);
    assert_eq!(state.counted, state.seen.values().map(VecDeque::len).sum::<usize>());
}

#[test]
fn an_address_with_characters_that_a_shell_takes_for_its_own_is_not_put_into_a_command() {
    for (address, shown) in
        [("a.b+c@example.net", "a.b+c@example.net"), ("\"a b\"@example.net", "ADDRESS"), ("$(x)@a.example", "ADDRESS")]
    {
        assert_eq!(for_a_shell(address), shown);
    }
}
