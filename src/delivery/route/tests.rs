//! Which route each message gets, and when waiting mail must be routed again.

use super::*;
use crate::message::accepted::{AskedHeader, Origin};
use crate::message::text_pattern::{HeaderPattern, TextPattern};
use crate::message::{Marks, SenderPatterns};
use crate::smtp::Mailbox;

fn route(name: &str, conditions: RouteConditions, upstreams: &[usize]) -> Route {
    let upstreams = Choice::InOrder(upstreams.to_vec());
    Route { name: name.into(), conditions, upstreams, retry_refused: false }
}

fn between(senders: &str, recipients: &str) -> RouteConditions {
    let patterns = |text: &str| SenderPatterns::parse([text]).expect("a pattern");
    RouteConditions { senders: patterns(senders), recipients: patterns(recipients), ..RouteConditions::none() }
}

fn texts(patterns: &[&str]) -> Vec<TextPattern> {
    patterns.iter().map(|text| TextPattern::parse(text).expect("a pattern")).collect()
}

fn header(name: &str, value: &str) -> HeaderPattern {
    HeaderPattern { name: name.to_owned(), value: TextPattern::parse(value).expect("a pattern") }
}

fn mark(text: &str) -> Option<Mark> {
    (!text.is_empty()).then(|| Mark::new(text).expect("a mark"))
}

/// A message from a@example.com to you@example.net; "" for each missing part.
#[derive(Default)]
struct Mail<'a> {
    user: &'a str,
    tag: &'a str,
    chosen: &'a str,
    header: &'a str,
}

impl Mail<'_> {
    fn way(&self, routes: &Routes) -> Result<RecipientRoute, NoRoute> {
        let sender = mailbox("a@example.com");
        let recipient = mailbox("you@example.net");
        let origin = Origin { user: (!self.user.is_empty()).then(|| self.user.into()), ..Origin::default() };
        let marks = Marks { tag: mark(self.tag), upstream: mark(self.chosen), ..Marks::default() };
        let sender = Some(&sender);
        let header = &AskedHeader::new(self.header.as_bytes());
        let addressed = Addressed { sender, recipient: &recipient, origin: &origin, marks: &marks, header };
        let way = routes.route_for(&addressed, MailId::new(jiff::Timestamp::UNIX_EPOCH, 1));
        let lane = way.as_ref().map_or(UNROUTED, |way| &way.name);
        assert_eq!(routes.lane(&addressed).as_str(), lane);
        assert!(routes.lanes().iter().any(|(known, _)| known.as_str() == lane), "nobody works on the lane {lane}");
        way
    }

    fn lane(&self, routes: &Routes) -> String {
        self.way(routes).map_or_else(|_| "none".to_owned(), |way| way.name.to_string())
    }
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("an address")
}

#[test]
fn the_first_match_wins_and_what_matches_none_goes_nowhere() {
    let routes = Routes::new(
        vec![
            route("a", between("*@example.com", "*@example.net"), &[1]),
            route("b", between("*@example.com", "*@*.net"), &[2, 1]),
            route("c", between("*", "vip@example.org"), &[0]),
        ],
        Vec::new(),
    );
    for (sender, recipient, expected) in [
        ("a@example.com", "you@example.net", Some(vec![1])),
        ("a@example.com", "you@other.net", Some(vec![2, 1])),
        ("a@example.org", "you@example.net", None),
        ("a@example.com", "you@example.org", None),
        ("a@example.com", "vip@example.org", Some(vec![0])),
        ("", "vip@example.org", Some(vec![0])),
        ("", "you@example.net", None),
    ] {
        let from = Mailbox::parse(sender).ok();
        let to = mailbox(recipient);
        let origin = Origin::default();
        let marks = Marks::default();
        let header = &AskedHeader::default();
        let addressed = Addressed { sender: from.as_ref(), recipient: &to, origin: &origin, marks: &marks, header };
        let way = routes.route_for(&addressed, MailId::new(jiff::Timestamp::UNIX_EPOCH, 1));
        assert_eq!(way.ok().map(|way| way.upstreams), expected, "{sender} to {recipient}");
    }
}

#[test]
fn every_condition_that_is_given_must_hold() {
    let conditions = RouteConditions {
        headers: vec![header("X-Kind", "report*"), header("Subject", "/weekly/")],
        users: texts(&["plausible", "app-*"]),
        tags: texts(&["reports"]),
        ..RouteConditions::none()
    };
    let routes = Routes::new(vec![route("reports", conditions, &[0])], Vec::new());
    let fits = "Subject: Your weekly report\r\nx-kind: Report-1\r\n";
    for (user, tag, header, expected) in [
        ("plausible", "reports", fits, "reports"),
        ("app-7", "Reports", fits, "reports"),
        ("", "reports", fits, "none"),
        ("crm", "reports", fits, "none"),
        ("plausible", "", fits, "none"),
        ("plausible", "alerts", fits, "none"),
        ("plausible", "reports", "Subject: Your weekly report\r\n", "none"),
        ("plausible", "reports", "Subject: Your daily report\r\nX-Kind: report\r\n", "none"),
        ("plausible", "reports", "", "none"),
    ] {
        let mail = Mail { user, tag, header, ..Mail::default() };
        assert_eq!(mail.lane(&routes), expected, "{user:?} {tag:?} {header:?}");
    }
}

#[test]
fn an_upstream_that_a_rule_chose_needs_no_route() {
    let upstreams = || vec!["company".into(), "backup".into()];
    let routes = Routes::new(vec![route("all", RouteConditions::none(), &[0])], upstreams());
    assert_eq!(Mail::default().lane(&routes), "all");
    let chosen = |chosen| Mail { chosen, ..Mail::default() }.way(&routes);
    let way = chosen("backup").expect("a way");
    assert_eq!((&*way.name, way.upstreams), ("upstream:backup", vec![1]));
    let reason = chosen("gone").expect_err("no way").reason().to_string();
    assert!(reason.contains("no [[upstream]] of that name; add an [[upstream]] named \"gone\""), "{reason}");
    let again = Routes::new(routes.routes.clone(), vec!["backup".into(), "company".into()]);
    let renamed = upstreams();
    assert_eq!(again.fingerprint(), routes.fingerprint(), "their order does not matter");
    assert_ne!(Routes::new(routes.routes.clone(), renamed[..1].to_vec()).fingerprint(), routes.fingerprint());
}

#[test]
fn whatever_may_change_a_lane_changes_the_fingerprint() {
    let base = RouteConditions { users: texts(&["a", "b"]), ..RouteConditions::none() };
    let mut seen = Vec::new();
    for conditions in [
        RouteConditions::none(),
        base.clone(),
        RouteConditions { users: texts(&["a, b"]), ..RouteConditions::none() },
        RouteConditions { tags: base.users.clone(), ..RouteConditions::none() },
        RouteConditions { headers: vec![header("A", "b")], ..base.clone() },
        RouteConditions { headers: vec![header("A", "c")], ..base.clone() },
        RouteConditions { headers: vec![header("B", "b")], ..base },
        between("*@example.com", "*"),
        between("*", "*@example.com"),
    ] {
        for name in ["one", "two"] {
            let fingerprint = Routes::new(vec![route(name, conditions.clone(), &[0])], Vec::new()).fingerprint();
            assert!(!seen.contains(&fingerprint), "{name}: {conditions}");
            seen.push(fingerprint);
        }
    }
    let routes = |upstreams: &[usize]| Routes::new(vec![route("one", RouteConditions::none(), upstreams)], Vec::new());
    assert_eq!(routes(&[0]).fingerprint(), routes(&[1, 0]).fingerprint(), "the lane is the same");
}
