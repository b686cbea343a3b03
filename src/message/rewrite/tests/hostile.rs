//! No value breaks out of its header, whichever action inserts it and wherever it comes from: the rule itself, or a
//! capture from what the application or a stranger wrote.

use super::*;
use crate::message::encoded_words;
use crate::message::headers::MAX_LINE;
use crate::tally::Tally;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;

/// Values that could break a header.
fn nasty() -> Vec<String> {
    let pieces = ["\r\n", "\n", "\r", "\0", "\u{2028}", "\u{85}", "\r\n\r\n", "\r\n ", "\u{1b}[2J", "\u{7f}"];
    let mut texts: Vec<_> = pieces.iter().map(|piece| format!("a{piece}Bcc: evil@x.example")).collect();
    texts.extend([
        "x".repeat(3000),
        "x ".repeat(3000),
        " ".repeat(2000),
        "ü".repeat(2000),
        "=?UTF-8?Q?a=0D=0ABcc:_evil@x.example?=".to_owned(),
        "=?UTF-8?B?DQpCY2M6IGV2aWxAeC5leGFtcGxl?=".to_owned(),
        "=?UTF-8?Q?=3Cevil@x.example=3E,?=".to_owned(),
        "=?UTF-8?Q?unfinished".to_owned(),
        "\" <evil@x.example>, \"".to_owned(),
        "(".repeat(100),
        "$1 ${name} $$ $".to_owned(),
        "\u{202e}evil".to_owned(),
    ]);
    texts
}

/// Each action with the maximum number of fields it may add.
fn every_action(text: &str) -> Vec<(RuleActions, usize)> {
    let any = RuleActions::default;
    let named = |name: &str| Some(NamedAddress { display_name: name.to_owned(), address: mailbox("a@example.org") });
    let mut actions = vec![
        (RuleActions { set_from: named(text), keep_from_as_reply_to: true, ..any() }, 1),
        (RuleActions { set_reply_to: named(text), ..any() }, 1),
        (RuleActions { subject_prefix: Some(text.to_owned()), ..any() }, 0),
        (RuleActions { list_unsubscribe: Some(ListUnsubscribe { link: glob("*"), one_click: true }), ..any() }, 2),
    ];
    for name in ["X-New", "Subject", "To", "Reply-To", "References", "Message-ID", text] {
        actions.push((RuleActions { set_headers: [(name.to_owned(), text.to_owned())].into(), ..any() }, 1));
        actions.push((RuleActions { add_headers: vec![(name.to_owned(), text.to_owned())], ..any() }, 1));
    }
    for name in ["Subject", "From", "To", "X-Text", "Message-ID"] {
        for (pattern, with) in [
            ("^", text),
            ("(.*)", "$1$1"),
            ("(?s)(.+)", "<$1>"),
            ("[<>\"]", ""),
            (".", text),
            ("(?P<all>.*)$", "${all}x"),
        ] {
            actions.push((RuleActions { replace_in_headers: vec![replacement(name, pattern, with)], ..any() }, 0));
        }
    }
    actions
}

/// Asserts complete fields, CRLF only, no line too long, no NUL.
fn assert_is_sound(message: &RawMessage, what: &str) {
    let header = message.header();
    assert!(header.ends_with(b"\r\n"), "{what}");
    for line in header.strip_suffix(b"\r\n").unwrap_or(header).split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(!line.is_empty() && line.len() <= MAX_LINE, "{what}: {}", line.escape_ascii());
        assert!(!line.contains(&b'\r') && !line.contains(&0), "{what}: {}", line.escape_ascii());
    }
    let again = RawMessage::from_data(message.to_bytes().into()).expect("a message");
    assert_eq!(&again, message, "{what}: the header ends where it ended");
}

/// Encodes as a stranger's program would, so that decoding yields every octet.
fn encoded(text: &str) -> String {
    let word = |octets: &[u8]| format!("=?UTF-8?B?{}?=", BASE64_STANDARD.encode(octets));
    text.as_bytes().chunks(45).map(word).collect::<Vec<_>>().join("\r\n ")
}

/// Returns how many actions were tried.
fn check(text: &str, value: &str) -> usize {
    let link = text.replace(char::is_whitespace, "");
    let header = format!(
        "From: {value} <app@example.com>\r\nTo: {value} <you@example.net>, b@example.net\r\nSubject: {value}\r\n\
         X-Text: {value}\r\nMessage-ID: <1@example.com>\r\n"
    );
    let data = format!("{header}\r\nhttps://example.com/{link} https://example.com/b");
    let Ok(message) = RawMessage::from_data(data.into()) else { return 0 };
    let before = RewriteDraft { message, ..draft("x") };
    let all = every_action(text);
    let tried = all.len();
    for (actions, more) in all {
        let what = format!("{actions:?} on {header}");
        let rewritten = always(actions).apply(&before, &Origin::default());
        let Verdict::Keep(kept) = rewritten.verdict else { continue };
        let after = kept.draft.message;
        let had = before.message.fields().count();
        let has = after.fields().count();
        assert!((had..=had + more).contains(&has), "{what}: {had} fields, now {has}");
        assert!(!after.has("Bcc"), "{what}");
        assert_is_sound(&after, &what);
    }
    tried
}

#[test]
fn nothing_breaks_out_of_its_header() {
    let mut tally = Tally::new("rewriting", "every action");
    for text in nasty() {
        tally.right(check(&text, &encoded(&text)));
        tally.right(check(&text, "plain"));
        let raw = text.replace(|c: char| c.is_control() || c == ' ', "");
        if raw.len() < 900 {
            tally.right(check(&text, &format!("\"{}\"", raw.replace('"', "\\\""))));
        }
    }
    tally.finish();
}

#[test]
fn what_no_header_can_hold_is_said_and_leaves_the_field_alone() {
    const CONTROL: &str = "a header value must not hold CR, LF, NUL or another control character";
    let hidden = format!("Subject: {}\n", encoded("a\r\nBcc: evil@x.example"));
    let take =
        RuleActions { replace_in_headers: vec![replacement("Subject", "(?s)a(.*)", "b$1")], ..RuleActions::default() };
    left_alone(&take, &[(&hidden, &format!("Subject: {CONTROL}"))]);
    let drop = RuleActions { replace_in_headers: vec![replacement("Subject", "\r\n.*", "")], ..RuleActions::default() };
    table(&drop, &[(&hidden, "Subject: a\n")]);
    for text in ["a\r\nb", "a\0", "a\u{2028}b"] {
        let note = |name: &str| format!("{name}: {CONTROL}");
        let named = Some(author(text, "a@example.org"));
        let set = RuleActions { set_headers: [("X-A".to_owned(), text.to_owned())].into(), ..RuleActions::default() };
        left_alone(&set, &[("X-A: old\n", &note("X-A"))]);
        left_alone(
            &RuleActions { set_from: named.clone(), ..RuleActions::default() },
            &[("From: a@b\n", &note("From"))],
        );
        left_alone(
            &RuleActions { set_reply_to: named, ..RuleActions::default() },
            &[("From: a@b\n", &note("Reply-To"))],
        );
        left_alone(
            &RuleActions { subject_prefix: Some(text.into()), ..RuleActions::default() },
            &[("Subject: s\n", &note("Subject"))],
        );
    }
    let words = format!("Subject: =?UTF-8?Q?=C3?= {}\n", encoded_words::encode_text("ü", 0));
    let undecodable =
        RuleActions { replace_in_headers: vec![replacement("Subject", ".", "x")], ..RuleActions::default() };
    left_alone(&undecodable, &[(&words, "Subject: its value cannot be decoded with certainty")]);
}

#[test]
fn work_and_size_are_bounded() {
    let long = format!("X-Long: {}\n", "ab ".repeat(20_000));
    let grow = |pattern: &str, with: &str| RuleActions {
        replace_in_headers: vec![replacement("X-Long", pattern, with)],
        ..RuleActions::default()
    };
    for actions in [grow("(.*)", &"$1".repeat(100)), grow("", &"x ".repeat(500)), grow(".", &"x ".repeat(500))] {
        left_alone(&actions, &[(&long, "X-Long: the header would become too large")]);
    }
    let twice = rules((0..40).map(|_| rule("twice", RuleConditions::default(), grow("(.+)", "$1 $1"))));
    let (header, notes) = header_after(&twice, "X-Long: ab ab\n");
    assert!(header.len() < crate::message::raw::MAX_HEADER && !notes.is_empty(), "{}", header.len());
    let undecodable = RuleActions { replace_in_headers: vec![replacement("X-A", ".", "x")], ..RuleActions::default() };
    left_alone(
        &undecodable,
        &[(&"X-A: =?UTF-8?Q?=C3?=\n".repeat(5000), "X-A: its value cannot be decoded with certainty")],
    );
    let many: String = "X-A: b\n".repeat(30_000);
    let actions = RuleActions { remove_headers: vec![glob("X-*"), glob("Y-*")], ..RuleActions::default() };
    assert_eq!(header_after(&always(actions), &format!("Subject: s\n{many}")).0, "Subject: s\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_it_is(text in "(?s).{0,60}", around in "[ -~\u{80}-\u{2fff}]{0,40}") {
        check(&format!("{around}{text}"), &encoded(&text));
        check(&around, &around.replace(['\u{2028}', '\u{2029}'], ""));
    }

    #[test]
    fn rules_that_are_for_nobody_change_no_octet(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        let data: Vec<u8> = data.into_iter().map(|byte| if byte == b'\r' { b'\n' } else { byte }).collect();
        let Ok(message) = RawMessage::from_data(data.into()) else { return Ok(()) };
        let before = RewriteDraft { message, ..draft("x") };
        let never = RuleConditions { body_contains: Some("never in it".into()), ..RuleConditions::default() };
        let everything = every_action("x").into_iter().map(|(actions, _)| rule("never", never.clone(), actions));
        let rewritten = rules(everything).apply(&before, &Origin::default());
        prop_assert!(rewritten.matched.is_empty());
        let kept = kept(rewritten);
        prop_assert!(kept.draft == before && !kept.changes.any());
    }
}
