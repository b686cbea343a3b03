//! No sender waits for another one's backlog. The tests count which messages are leased, never how long that takes;
//! each backend shows for itself that nothing scans the backlog.

use super::*;

fn from(number: u32, domain: &str) -> NewMail {
    mail(number, i64::from(number), &format!("a@{domain}"), &["you@example.net"], "a")
}

fn domains(leased: &[Leased]) -> Vec<String> {
    let domain = |leased: &Leased| {
        leased.accepted.envelope.sender.mailbox().map_or(String::new(), |mailbox| mailbox.domain().to_string())
    };
    leased.iter().map(domain).collect()
}

pub(crate) async fn sender_domains_take_turns(harness: &Harness) {
    for number in 0..50 {
        harness.put(from(number, "busy.example")).await;
    }
    harness.put(from(50, "quiet.example")).await;
    harness.put(from(51, "Quiet.Example")).await;
    harness.put(mail(52, 52, "", &["you@example.net"], "a")).await;
    let mut first: Vec<String> = domains(&harness.lease("a", after(60), 3).await);
    first.sort();
    assert_eq!(first, ["", "busy.example", "quiet.example"], "the null path has its turn too");
    let mut second = domains(&harness.lease("a", after(60), 2).await);
    second.sort();
    assert_eq!(second, ["Quiet.Example", "busy.example"], "a domain in other letters is the same domain");
    let rest = harness.lease("a", after(60), 100).await;
    assert_eq!(rest.len(), 48);
    let order: Vec<_> = rest.iter().map(|leased| leased.accepted.id).collect();
    assert!(order.is_sorted(), "a domain's own mail goes in order");
}

pub(crate) async fn turns_go_on_where_they_stopped(harness: &Harness) {
    for (at, domain) in ["a.example", "b.example", "c.example"].into_iter().enumerate() {
        for number in 0..3 {
            harness.put(from(10 * at as u32 + number, domain)).await;
        }
    }
    let mut turns = Vec::new();
    for _ in 0..9 {
        turns.extend(domains(&harness.lease("a", after(60), 1).await));
    }
    for round in turns.chunks(3) {
        let mut round = round.to_vec();
        round.sort();
        assert_eq!(round, ["a.example", "b.example", "c.example"]);
    }
}

pub(crate) async fn a_crowd_of_domains_with_nothing_due_hides_nobody(harness: &Harness) {
    let later = || InitialState::Deferred { lane: Lane::new("a"), due: after(1000), attempt: attempted(0, "451") };
    for number in 0..600 {
        let sender = format!("a@d{number:04}.example");
        harness.put(mail_with(number, 0, &sender, &[("you@example.net", later())])).await;
    }
    for number in 600..603 {
        harness.put(from(number, "zz.example")).await;
    }
    harness.put(mail(700, 0, "a@d0300.example", &["you@example.net"], "a")).await;
    assert_eq!(harness.lease("a", after(603), 2).await.len(), 2);
    assert_eq!(harness.lease("a", after(603), 100).await.len(), 2);
    assert!(harness.lease("a", after(603), 100).await.is_empty());
    assert_eq!(harness.next_due("a", after(603)).await, Some(after(1000)));
    assert_eq!(harness.lease("a", after(1000), 1000).await.len(), 600);
}

pub(crate) async fn a_full_lane_does_not_delay_another(harness: &Harness) {
    for number in 0..500 {
        harness.put(from(number, "busy.example")).await;
    }
    let newest = harness.put(mail(1000, 1000, "a@example.com", &["b@example.net"], "b")).await;
    assert_eq!(harness.lease_one("b", after(1000)).await.accepted.id, newest);
    harness.lease("a", after(1000), 100).await;
    let newer = harness.put(mail(1001, 1001, "a@example.com", &["b@example.net"], "b")).await;
    assert_eq!(harness.lease_one("b", after(1001)).await.accepted.id, newer);
}
