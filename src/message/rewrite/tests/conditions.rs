//! Which messages a rule applies to.

use super::*;
use crate::message::text_pattern::HeaderPattern;

const MAIL: &str = "From: App <app@example.com>\nSubject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?= weekly\nX-Kind: report\n\n\
                    Hello\nhttps://example.com/unsubscribe?a=b\n";

fn is_for(conditions: RuleConditions, draft: &RewriteDraft, origin: &Origin) -> bool {
    let rules = rules([rule("r", conditions, RuleActions::default())]);
    let rewritten = rules.apply(draft, origin);
    assert!(!kept(rewritten.clone()).changes.any(), "a rule without actions changes nothing");
    rewritten.matched.len() == 1
}

fn header(name: &str, value: &str) -> HeaderPattern {
    HeaderPattern { name: name.into(), value: glob(value) }
}

#[test]
fn each_condition_for_itself() {
    let any = RuleConditions::default;
    let size = message(MAIL).size() as u64;
    for (expected, conditions) in [
        (true, any()),
        (true, RuleConditions { senders: Some(patterns("*@example.com")), ..any() }),
        (false, RuleConditions { senders: Some(patterns("*@example.net")), ..any() }),
        (true, RuleConditions { recipients: Some(patterns("second@example.net")), ..any() }),
        (false, RuleConditions { recipients: Some(patterns("*@example.com")), ..any() }),
        (true, RuleConditions { from: Some(patterns("a@b app@*")), ..any() }),
        (false, RuleConditions { from: Some(patterns("you@*")), ..any() }),
        (true, RuleConditions { headers: vec![header("subject", "grüße*")], ..any() }),
        (true, RuleConditions { headers: vec![header("Subject", "/week/"), header("X-Kind", "report")], ..any() }),
        (false, RuleConditions { headers: vec![header("Subject", "/week/"), header("X-Kind", "alert")], ..any() }),
        (false, RuleConditions { headers: vec![header("X-None", "*")], ..any() }),
        (true, RuleConditions { listeners: vec!["[::1]:25".into(), "127.0.0.1:2525".into()], ..any() }),
        (false, RuleConditions { listeners: vec!["127.0.0.1:25".into()], ..any() }),
        (true, RuleConditions { users: vec![glob("other"), glob("plaus*")], ..any() }),
        (false, RuleConditions { users: vec![glob("other")], ..any() }),
        (true, RuleConditions { larger_than: Some(size - 1), smaller_than: Some(size + 1), ..any() }),
        (false, RuleConditions { larger_than: Some(size), ..any() }),
        (false, RuleConditions { smaller_than: Some(size), ..any() }),
        (true, RuleConditions { body_contains: Some("/unsubscribe?".into()), ..any() }),
        (false, RuleConditions { body_contains: Some("/Unsubscribe?".into()), ..any() }),
        (false, RuleConditions { senders: Some(patterns("*")), body_contains: Some("no".into()), ..any() }),
    ] {
        let origin = Origin { listener: Some("127.0.0.1:2525".into()), user: Some("plausible".into()) };
        let envelope = envelope("app@example.com", &["first@example.net", "second@example.net"]);
        let draft = RewriteDraft { envelope, ..draft(MAIL) };
        assert_eq!(is_for(conditions.clone(), &draft, &origin), expected, "{conditions:?}");
    }
}

#[test]
fn the_null_path_and_no_login_fit_only_what_is_any() {
    let draft = RewriteDraft { envelope: envelope("", &["you@example.net"]), ..draft(MAIL) };
    for (expected, conditions) in [
        (true, RuleConditions { senders: Some(patterns("*")), ..RuleConditions::default() }),
        (false, RuleConditions { senders: Some(patterns("*@example.com")), ..RuleConditions::default() }),
        (false, RuleConditions { users: vec![glob("*")], ..RuleConditions::default() }),
        (false, RuleConditions { listeners: vec!["127.0.0.1:2525".into()], ..RuleConditions::default() }),
    ] {
        assert_eq!(is_for(conditions.clone(), &draft, &Origin::default()), expected, "{conditions:?}");
    }
}

#[test]
fn the_body_is_read_as_its_readers_do() {
    let found = RuleConditions { body_contains: Some("grün und".into()), ..RuleConditions::default() };
    for (expected, text) in [
        (
            true,
            "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\ngr=C3=BCn =\nund\n",
        ),
        (true, "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nZ3LDvG4g\ndW5k\n"),
        (
            true,
            "Content-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\ngr=FCn und\n",
        ),
        (true, "\ngrün und\n"),
        (false, "Content-Type: text/plain; name=x\n\ngrün und\n"),
        (false, "Content-Type: message/rfc822\n\nA: b\n\ngrün und\n"),
        (false, "Content-Type: multipart/signed; boundary=x\n\n--x\n\ngrün und\n--x--\n"),
        (false, "Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n%%%\n"),
    ] {
        let rules = rules([rule("r", found.clone(), RuleActions::default())]);
        let rewritten = rules.apply(&draft(text), &Origin::default());
        assert_eq!(rewritten.matched.len() == 1, expected, "{text}");
    }
}

#[test]
fn a_message_without_one_author_is_refused_only_by_rules_that_need_it() {
    let by_from = |actions| {
        let from = RuleConditions { from: Some(patterns("*@example.com")), ..RuleConditions::default() };
        rules([rule("by from", from, actions)])
    };
    let set_from = RuleActions { set_from: Some(author("", "new@example.org")), ..RuleActions::default() };
    let set_from_alone = always(set_from.clone());
    let tag = || RuleActions { tag: Some(mark("x")), ..RuleActions::default() };
    for (header, asks, sets) in [
        ("From: a@example.com\n", false, false),
        ("From: a@example.com\nFrom: b@example.com\n", true, true),
        ("From : a@example.com\n", true, true),
        ("From: a@example.com, b@example.com\n", true, true),
        ("Subject: x\n From: a@example.com\n", true, false),
        ("From: nobody\n", true, false),
        // No more than the name is lost.
        ("From: A <a@example.com> <b>\n", true, false),
    ] {
        let draft = draft(&format!("{header}\nbody"));
        let refused = |rules: &Rules| match rules.apply(&draft, &Origin::default()).verdict {
            Verdict::Refuse { text, .. } => {
                assert!(text.contains("From header") && text.contains("rule \""), "{text}");
                true
            }
            _ => false,
        };
        assert_eq!(refused(&by_from(tag())), asks, "{header}");
        assert_eq!(refused(&set_from_alone), sets, "{header}");
        assert!(!refused(&always(tag())), "nothing depends on it");
        let elsewhere = RuleConditions { users: vec![glob("nobody")], ..RuleConditions::default() };
        assert!(!refused(&rules([rule("for others", elsewhere, set_from.clone())])), "{header}");
    }
}
