//! What each action does, and in which order.

use super::*;

fn replace(header: &str, pattern: &str, with: &str) -> RuleActions {
    RuleActions { replace_in_headers: vec![replacement(header, pattern, with)], ..RuleActions::default() }
}

fn set(name: &str, value: &str) -> RuleActions {
    RuleActions { set_headers: [(name.into(), value.into())].into(), ..RuleActions::default() }
}

fn add(name: &str, value: &str) -> RuleActions {
    RuleActions { add_headers: vec![(name.into(), value.into())], ..RuleActions::default() }
}

#[test]
fn from_is_set_and_the_old_one_kept_if_asked() {
    let named =
        RuleActions { set_from: Some(author("Jürgen, Inc.", "reports@example.org")), ..RuleActions::default() };
    table(&named, &[("From: a@b\n", "From: =?UTF-8?Q?J=C3=BCrgen=2C_Inc=2E?= <reports@example.org>\n")]);
    let bare = RuleActions { set_from: Some(author("", "reports@example.org")), ..RuleActions::default() };
    table(
        &bare,
        &[
            (
                "To: x@y\nFROM: \"App\"\n <app@example.com>\nSubject: s\n",
                "To: x@y\nFrom: reports@example.org\nSubject: s\n",
            ),
            ("To: x@y\n", "To: x@y\nFrom: reports@example.org\n"),
            ("From: no address\n", "From: reports@example.org\n"),
            ("From: reports@example.org\n", "From: reports@example.org\n"),
            ("From: A <a@example.com> <b@example.com>\n", "From: reports@example.org\n"),
        ],
    );
    let kept = RuleActions { keep_from_as_reply_to: true, ..bare };
    table(
        &kept,
        &[
            (
                "From: =?UTF-8?Q?J=C3=BCrgen?= <app@example.com>\nTo: x@y\n",
                "From: reports@example.org\nTo: x@y\nReply-To: =?UTF-8?Q?J=C3=BCrgen?= <app@example.com>\n",
            ),
            (
                "Reply-To: other@x.example\nFrom: app@example.com\n",
                "Reply-To: other@x.example\nFrom: reports@example.org\n",
            ),
            ("From: Reports <reports@example.org>\n", "From: reports@example.org\n"),
            ("From: A <a@example.com> <b@example.com>\n", "From: reports@example.org\n"),
            ("To: x@y\n", "To: x@y\nFrom: reports@example.org\n"),
        ],
    );
}

#[test]
fn reply_to_is_set() {
    let actions =
        RuleActions { set_reply_to: Some(author("Help \"us\"", "help@example.org")), ..RuleActions::default() };
    table(
        &actions,
        &[
            ("From: a@b\n", "From: a@b\nReply-To: \"Help \\\"us\\\"\" <help@example.org>\n"),
            (
                "Reply-To: x@y\nreply-to: z@y\nFrom: a@b\n",
                "Reply-To: \"Help \\\"us\\\"\" <help@example.org>\nFrom: a@b\n",
            ),
        ],
    );
}

#[test]
fn headers_are_removed_by_name_and_by_glob() {
    let remove = |names: &[&str]| RuleActions {
        remove_headers: names.iter().map(|name| glob(name)).collect(),
        ..RuleActions::default()
    };
    table(
        &remove(&["x-mailer", "X-Internal-*"]),
        &[
            ("X-Mailer: a\n b\nSubject: s\nX-INTERNAL-host: h\nX-Internal: i\n", "Subject: s\nX-Internal: i\n"),
            ("Subject: s\n", "Subject: s\n"),
        ],
    );
    let everything = "From: a@b\nDate: d\nMessage-ID: <i@d>\nMIME-Version: 1.0\nContent-Type: text/plain\n\
                      Received: x\nDKIM-Signature: x\n";
    table(&remove(&["*"]), &[(&format!("Subject: s\n{everything}X: y\n"), everything)]);
}

#[test]
fn text_in_headers_is_replaced() {
    table(
        &replace("Subject", r"^\[(\w+)\] *(.*)", "$2 ($1)"),
        &[
            ("Subject: [shop] Weekly report\n", "Subject: Weekly report (shop)\n"),
            ("Subject: =?UTF-8?B?W3Nob3BdIEdyw7zDn2U=?=\n", "Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?= (shop)\n"),
            ("Subject: Weekly\n =?UTF-8?Q?a_?=\n", "Subject: Weekly\n =?UTF-8?Q?a_?=\n"),
            ("X-Subject: [shop] x\n", "X-Subject: [shop] x\n"),
        ],
    );
    table(
        &replace("X-Tags", "a", ""),
        &[("X-Tags: a, b\nX-Tags: ba\nX-Tags: a\n", "X-Tags: , b\nX-Tags: b\nX-Tags: \n")],
    );
    table(
        &replace("Message-ID", "@.*>$", "@example.org>"),
        &[("Message-ID: <1@host.local>\n", "Message-ID: <1@example.org>\n")],
    );
    table(&replace("X-A", "$", " end"), &[("X-A: start\n", "X-A: start end\n")]);
}

#[test]
fn lists_of_addresses_are_replaced_as_they_are_written() {
    table(
        &replace("To", "@old\\.example", "@new.example"),
        &[
            (
                "To: =?UTF-8?Q?J=C3=BCrgen?= <j@old.example>, \"B, C\" <b@old.example>\n",
                "To: =?UTF-8?Q?J=C3=BCrgen?= <j@new.example>, \"B, C\" <b@new.example>\n",
            ),
            ("To: Group: a@old.example, b@x;\n", "To: Group: a@new.example, b@x;\n"),
        ],
    );
    table(&replace("From", "^[^<]*", "Jürgen "), &[("From: App <a@b>\n", "From: =?UTF-8?Q?J=C3=BCrgen?= <a@b>\n")]);
    left_alone(
        &replace("To", "\"(.*)\"", "$1"),
        &[("To: \"a <evil@x>,\" <b@y>\n", "To: it would name more or fewer addresses")],
    );
    left_alone(&replace("Cc", "<[^>]*>", ""), &[("Cc: A <a@b>\n", "Cc: it would name more or fewer addresses")]);
    left_alone(&replace("From", "$", ", b@c"), &[("From: a@b\n", "From: it would name more or fewer addresses")]);
}

#[test]
fn headers_are_set_once_and_added_as_often_as_asked() {
    table(
        &set("X-App", "für alle"),
        &[
            ("Subject: s\n", "Subject: s\nX-App: =?UTF-8?Q?f=C3=BCr?= alle\n"),
            ("x-app: a\nSubject: s\nX-APP: b\n", "X-App: =?UTF-8?Q?f=C3=BCr?= alle\nSubject: s\n"),
        ],
    );
    table(&set("Cc", "\"Jürgen, X\" <j@x>"), &[("Cc: a@b\n", "Cc: =?UTF-8?Q?J=C3=BCrgen=2C?= X <j@x>\n")]);
    let twice = RuleActions {
        add_headers: vec![("X-A".into(), "1".into()), ("X-A".into(), "2".into())],
        ..RuleActions::default()
    };
    table(&twice, &[("X-A: 0\n", "X-A: 0\nX-A: 1\nX-A: 2\n")]);
}

#[test]
fn what_is_not_the_users_stays() {
    for name in ["Content-Type", "MIME-Version", "Received", "DKIM-Signature", "Bcc", "From"] {
        let before = format!("{name}: x@y\n");
        let note = format!("{name}: no rule may change it in this way");
        left_alone(&set(name, "z@y"), &[(&before, &note)]);
        left_alone(&add(name, "z@y"), &[(&before, &note)]);
    }
    left_alone(
        &replace("Content-Type", "x", "y"),
        &[("Content-Type: x\n", "Content-Type: no rule may change it in this way")],
    );
    left_alone(&add("Subject", "x"), &[("Subject: s\n", "Subject: no rule may change it in this way")]);
}

#[test]
fn a_subject_gets_its_prefix_once() {
    let prefix = |prefix: &str| RuleActions { subject_prefix: Some(prefix.into()), ..RuleActions::default() };
    table(
        &prefix("[staging] "),
        &[
            ("Subject: Weekly\n", "Subject: [staging] Weekly\n"),
            ("Subject: [staging] Weekly\n", "Subject: [staging] Weekly\n"),
            ("Subject: =?UTF-8?Q?[staging]_Gr=C3=BC=C3=9Fe?=\n", "Subject: =?UTF-8?Q?[staging]_Gr=C3=BC=C3=9Fe?=\n"),
            ("Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\n", "Subject: [staging] =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\n"),
            ("From: a@b\n", "From: a@b\nSubject: [staging]\n"),
            ("Subject:\n", "Subject: [staging]\n"),
            ("Subject: =?x-unknown?Q?a?=\n", "Subject: [staging] =?x-unknown?Q?a?=\n"),
        ],
    );
    table(&prefix("[prüfung]"), &[("Subject: =?UTF-8?Q?=C3=BC?=\n", "Subject: =?UTF-8?Q?[pr=C3=BCfung]_=C3=BC?=\n")]);
}

#[test]
fn the_envelope_is_set_and_mapped() {
    let map = |pairs: &[(&str, &str)]| AddressMap::parse(pairs.iter().copied()).expect("a map");
    let sender = |path: &str| RuleActions { set_sender: Some(envelope(path, &[]).sender), ..RuleActions::default() };
    let map_sender = RuleActions { map_sender: map(&[("*@example.com", "*@example.org")]), ..RuleActions::default() };
    let staging = RuleActions { map_recipients: map(&[("*", "all@staging.example")]), ..RuleActions::default() };
    let some = RuleActions {
        map_recipients: map(&[("*@b.example", "*@c.example"), ("x@*", "y@c.example")]),
        ..RuleActions::default()
    };
    for (actions, from, to, from_after, to_after) in [
        (&sender("new@x.example"), "a@example.com", &["b@b.example"][..], "new@x.example", &["b@b.example"][..]),
        (&sender(""), "a@example.com", &["b@b.example"], "", &["b@b.example"]),
        (&map_sender, "a@example.com", &["b@b.example"], "a@example.org", &["b@b.example"]),
        (&map_sender, "a@example.net", &["b@b.example"], "a@example.net", &["b@b.example"]),
        (&map_sender, "", &["b@b.example"], "", &["b@b.example"]),
        (&staging, "", &["a@a.example", "b@b.example", "a@a.example"], "", &["all@staging.example"]),
        (&some, "", &["a@b.example", "x@d.example", "a@C.example"], "", &["a@c.example", "y@c.example"]),
        (&some, "", &["a@d.example", "a@d.example"], "", &["a@d.example", "a@d.example"]),
        (&some, "", &["\"a\"@c.example", "a@b.example", "A@b.example"], "", &["\"a\"@c.example", "A@c.example"]),
        (&some, "", &["y@C.example", "x@d.example"], "", &["y@C.example"]),
    ] {
        let before = RewriteDraft { envelope: envelope(from, to), ..draft("From: a@b\n\nx") };
        let kept = kept(always(actions.clone()).apply(&before, &Origin::default()));
        assert_eq!(kept.draft.envelope, envelope(from_after, to_after), "{from} {to:?}");
        assert_eq!(
            kept.changes,
            RewriteChanges { envelope: kept.draft.envelope != before.envelope, ..RewriteChanges::default() }
        );
        assert_eq!(kept.targets.len(), to.len());
        let named =
            |target: &Mailbox| kept.draft.envelope.recipients.iter().any(|to| to.to_string() == target.to_string());
        assert!(kept.targets.iter().all(named), "each in the spelling that the envelope has");
    }
}

#[test]
fn smtputf8_is_asked_for_only_as_long_as_an_address_needs_it() {
    let to_ascii = AddressMap::parse([("*", "a@example.net")]).expect("a map");
    let to_utf8 = AddressMap::parse([("*", "jürgen@example.net")]).expect("a map");
    let asked = Envelope { smtputf8: true, ..envelope("a@example.com", &["b@example.net"]) };
    for (before, map, expected) in [
        (envelope("a@example.com", &["jürgen@example.net"]), &to_ascii, false),
        (envelope("a@example.com", &["b@example.net"]), &to_utf8, true),
        (envelope("jürgen@example.com", &["b@example.net"]), &to_ascii, true),
        (asked, &to_ascii, true),
    ] {
        let actions = RuleActions { map_recipients: map.clone(), ..RuleActions::default() };
        let draft = RewriteDraft { envelope: before, ..draft("From: a@b\n\nx") };
        assert_eq!(kept(always(actions).apply(&draft, &Origin::default())).draft.envelope.smtputf8, expected);
    }
}

#[test]
fn marks_are_set_and_the_last_word_counts() {
    let first = RuleActions {
        tag: Some(mark("one")),
        stream: Some(mark("bulk")),
        metadata: [(mark("a"), mark("1")), (mark("b"), mark("1"))].into(),
        ..RuleActions::default()
    };
    let second = RuleActions {
        tag: Some(mark("two")),
        metadata: [(mark("b"), mark("2"))].into(),
        ip_pool: Some(mark("pool")),
        upstream: Some(mark("company")),
        ..RuleActions::default()
    };
    let both = rules([first, second].map(|actions| rule("r", RuleConditions::default(), actions)));
    let kept = kept(both.apply(&draft("From: a@b\n\nx"), &Origin::default()));
    let expected = Marks {
        tag: Some(mark("two")),
        stream: Some(mark("bulk")),
        metadata: [(mark("a"), mark("1")), (mark("b"), mark("2"))].into(),
        ip_pool: Some(mark("pool")),
        upstream: Some(mark("company")),
    };
    assert_eq!(
        (kept.draft.marks, kept.changes),
        (expected, RewriteChanges { marks: true, ..RewriteChanges::default() })
    );
}

#[test]
fn each_rule_sees_what_those_before_it_made_until_one_is_the_last() {
    let is = |value: &str| RuleConditions {
        headers: vec![text_pattern::HeaderPattern { name: "X-Step".into(), value: glob(value) }],
        ..RuleConditions::default()
    };
    let steps = rules([
        rule("second", is("2"), set("X-Step", "3")),
        rule("first", is("1"), set("X-Step", "2")),
        rule(
            "moved",
            RuleConditions { recipients: Some(patterns("*@staging.example")), ..RuleConditions::default() },
            set("X-No", "x"),
        ),
        rule(
            "move",
            is("2"),
            RuleActions {
                map_recipients: AddressMap::parse([("*", "a@staging.example")]).expect("a map"),
                ..RuleActions::default()
            },
        ),
        rule(
            "was moved",
            RuleConditions { recipients: Some(patterns("*@staging.example")), ..RuleConditions::default() },
            RuleActions { last: true, ..set("X-Step", "4") },
        ),
        rule("never", RuleConditions::default(), RuleActions { discard: true, ..RuleActions::default() }),
    ]);
    let rewritten = steps.apply(&draft("X-Step: 1\n\nx"), &Origin::default());
    let names: Vec<_> = rewritten.matched.iter().map(|name| &**name).collect();
    assert_eq!(names, ["first", "move", "was moved"]);
    assert_eq!(kept(rewritten).draft.message.header(), b"X-Step: 4\r\n");
}

#[test]
fn discard_and_refuse_end_it_before_anything_is_changed() {
    let refuse = RuleActions { refuse: Some("no such mail".into()), discard: false, ..set("X", "y") };
    let discard = RuleActions { discard: true, ..refuse.clone() };
    for (actions, expected) in [(discard, "Discard"), (refuse, "Refuse")] {
        let rewritten = always(actions).apply(&draft("From: a@b\n\nx"), &Origin::default());
        let found = match rewritten.verdict {
            Verdict::Discard { rule } => ("Discard", rule.to_string()),
            Verdict::Refuse { rule, text } => ("Refuse", format!("{rule}: {text}").replace(": no such mail", "")),
            Verdict::Keep(_) => ("Keep", String::new()),
        };
        assert_eq!(found, (expected, "always".to_owned()));
    }
}
