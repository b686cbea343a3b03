//! `[[rewrite]]`: what is typed, and the rules that result; warnings about them; the shipped set.

use super::settings::{assert_warnings, warnings};
use super::*;
use crate::message::Mark;
use crate::message::rewrite::{NamedAddress, Rule};
use crate::smtp::{Mailbox, ReversePath};
use std::sync::Arc;

fn rules(text: &str) -> Vec<Rule> {
    settings(&format!("{SMALLEST}{text}")).rules.0.to_vec()
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("an address")
}

fn mark(text: &str) -> Option<Mark> {
    Mark::new(text).ok()
}

#[test]
fn without_rules_there_are_none() {
    assert!(rules("").is_empty());
}

#[test]
fn conditions_resolve() {
    let text = "[[rewrite]]\nsenders = [\"*@example.com\"]\nrecipients = [\"*@a.example\", \"*@b.example\"]\nfrom = [\"*\"]\n\
                header = { Subject = \"Weekly*\", \"X-Kind\" = \"/^a/\" }\nlistener = \"[::1]:2525\"\nuser = \"plausible\"\n\
                larger_than = \"1 KiB\"\nsmaller_than = \"1 MiB\"\nbody_contains = \"unsubscribe\"\nlast = true\n\
                [[user]]\nname = \"plausible\"\npassword = { env = \"P\" }\n";
    let environment = Environment::of([("P", "a-long-enough-password")]);
    let settings = Folder::new().load(&format!("{SMALLEST}{text}"), &environment).unwrap_or_else(|p| panic!("{p}"));
    assert!(settings.warnings.is_empty(), "{}", settings.warnings);
    let [Rule { name, conditions, actions }] = &*settings.rules.0 else { panic!("one rule") };
    let texts = |patterns: &Option<crate::message::SenderPatterns>| patterns.as_ref().map(ToString::to_string);
    assert_eq!(&**name, "rewrite 1");
    assert_eq!(texts(&conditions.senders).as_deref(), Some("*@example.com"));
    assert_eq!(texts(&conditions.recipients).as_deref(), Some("*@a.example, *@b.example"));
    assert_eq!(texts(&conditions.from).as_deref(), Some("*"));
    let headers: Vec<_> = conditions.headers.iter().map(|it| format!("{}: {}", it.name, it.value)).collect();
    assert_eq!(headers, ["Subject: Weekly*", "X-Kind: /^a/"]);
    assert_eq!(conditions.listeners, [Arc::<str>::from("[::1]:2525")]);
    assert!(conditions.users[0].matches("plausible") && conditions.users.len() == 1);
    assert_eq!((conditions.larger_than, conditions.smaller_than), (Some(1 << 10), Some(1 << 20)));
    assert_eq!(conditions.body_contains.as_deref(), Some("unsubscribe"));
    assert!(actions.last && !actions.discard && actions.map_sender.is_empty());
}

#[test]
fn actions_resolve_and_keep_their_order() {
    let rules = rules(
        "[[rewrite]]\nname = \"all\"\nset_sender = \"<>\"\nmap_sender = { \"z@a.example\" = \"z@b.example\", \"*@a.example\" = \
         \"*@c.example\" }\nmap_recipients = { \"*\" = \"staging@example.com\" }\nset_from = \"R <r@example.com>\"\n\
         keep_from_as_reply_to = true\nset_reply_to = \"s@example.com\"\nremove_headers = [\"X-*\"]\n\
         replace_in_headers = [{ pattern = \"^(a)\", with = \"${1}b\", header = \"Subject\" }, { header = \"To\", pattern = \"x\", \
         with = \"\" }]\nset_headers = { X-Z = \"1\", X-A = \"2\" }\nadd_headers = { X-Z = [\"2\", \"1\"], X-A = \"3\" }\n\
         subject_prefix = \"[s] \"\nlist_unsubscribe = \"https://*\"\none_click = true\ntag = \"t\"\nstream = \"s\"\n\
         metadata = { site = \"x\" }\nip_pool = \"p\"\nupstream = \"sandbox\"\n[[rewrite]]\nset_sender = \"\"\n\
         [[rewrite]]\nrefuse = \"no\"\n",
    );
    let names: Vec<_> = rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["all", "rewrite 2", "rewrite 3"]);
    let actions = &rules[0].actions;
    assert_eq!(
        (&actions.set_sender, &rules[1].actions.set_sender),
        (&Some(ReversePath::Null), &Some(ReversePath::Null))
    );
    assert_eq!(actions.map_sender.map(&mailbox("z@a.example")), Some(mailbox("z@b.example")), "the first that fits");
    assert_eq!(actions.map_recipients.map(&mailbox("x@y")), Some(mailbox("staging@example.com")));
    let from = NamedAddress { display_name: "R".into(), address: mailbox("r@example.com") };
    assert_eq!((&actions.set_from, actions.keep_from_as_reply_to), (&Some(from), true));
    let replaced: Vec<_> = actions
        .replace_in_headers
        .iter()
        .map(|it| (it.header.as_str(), it.pattern.as_str(), it.with.as_str()))
        .collect();
    assert_eq!(replaced, [("Subject", "^(a)", "${1}b"), ("To", "x", "")]);
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    assert_eq!(actions.add_headers, [("X-Z", "2"), ("X-Z", "1"), ("X-A", "3")].map(pair));
    assert_eq!(actions.set_headers, [("X-A", "2"), ("X-Z", "1")].map(pair).into_iter().collect());
    assert_eq!(actions.subject_prefix.as_deref(), Some("[s] "), "its space is part of it");
    assert!(actions.list_unsubscribe.as_ref().is_some_and(|wanted| wanted.one_click));
    assert_eq!(
        [&actions.tag, &actions.stream, &actions.ip_pool, &actions.upstream],
        [&mark("t"), &mark("s"), &mark("p"), &mark("sandbox")]
    );
    assert_eq!(actions.metadata.get(&mark("site").expect("a mark")), mark("x").as_ref());
    assert_eq!(rules[2].actions.refuse.as_deref(), Some("no"));
}

#[test]
fn a_rule_that_cannot_do_what_it_says_is_a_warning() {
    let key = |domain: &str| format!("[[dkim]]\ndomain = \"{domain}\"\nselector = \"a\"\nprivate_key = \"rsa.pem\"\n");
    let refuses = SMALLEST.replace("\"send\"", "\"refuse\"") + &key("example.com");
    assert_warnings([
        (format!("{SMALLEST}[[rewrite]]\nset_from = \"a@example.org\"\n"), ""),
        (format!("{refuses}[[rewrite]]\nset_from = \"a@news.example.com\"\n"), ""),
        (
            refuses.replace("\"sandbox\"\n[[dkim]]", "\"postmark\"\npassword = \"x\"\n[[dkim]]")
                + "[[rewrite]]\nset_from = \"a@example.org\"\n",
            "",
        ),
        (
            format!("{refuses}[[rewrite]]\nset_from = \"a@example.org\"\n"),
            "config.toml:11:12: mail with this From is refused: example.org has no DKIM key",
        ),
        (
            format!(
                "{SMALLEST}[[listener]]\naddress = \"127.0.0.1:0\"\nsenders = [\"*\"]\n{}[[rewrite]]\nset_from = \"a@example.org\"\n",
                key("example.com")
            ),
            "config.toml:14:12: mail with this From is sent unsigned: example.org has no DKIM key",
        ),
        (
            format!("{SMALLEST}[[rewrite]]\nuser = \"plausible\"\ntag = \"x\"\n"),
            "config.toml:7:8: `user`: no [[user]] fits \"plausible\"",
        ),
        (
            format!("{SMALLEST}[[rewrite]]\nsenders = [\"*\"]\nlast = true\n[[rewrite]]\ntag = \"x\"\n"),
            "config.toml:9:1: this rule is never reached: \"rewrite 1\" before it ends every message's way",
        ),
        (format!("{SMALLEST}[[rewrite]]\nheader = {{ X-A = \"*\" }}\ndiscard = true\n[[rewrite]]\ntag = \"x\"\n"), ""),
    ]);
}

/// Uncommented as a user would do it.
#[test]
fn the_shipped_set_for_plausible_resolves() {
    let shipped = include_str!("../../../config.toml");
    let uncommented: String =
        shipped.lines().map(|line| line.strip_prefix("#~").unwrap_or(line).to_owned() + "\n").collect();
    let folder = Folder::new();
    let settings = folder.load(&uncommented, &nothing()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(folder.shorten(&settings.warnings), [""; 0]);
    assert_eq!(settings.rules.0.len(), 6);
    assert_eq!(warnings(&uncommented), [""; 0]);
}
