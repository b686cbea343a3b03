//! A login in every form, cut, split and escaped as servers do, and replies that contain nothing to hide.

use super::*;
use crate::tally::Tally;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

const USER: &str = "BX07Q";

fn redaction(password: &str) -> Redaction {
    login(USER, password)
}

fn login(username: &str, password: &str) -> Redaction {
    let mut redaction = Redaction::default();
    redaction.add_secret(password);
    redaction.add_secret("wJalrXUtnFEMI/K7MDENG+bPx9");
    redaction.add_encoded(username.as_bytes());
    redaction.add_encoded(format!("\0{username}\0{password}").as_bytes());
    redaction
}

/// The reply as its parser returns it: without codes and control characters.
fn heard(said: &str) -> String {
    let line =
        |line: &str| line.get(4..).unwrap_or_default().trim_start_matches("5.7.8 ").replace(char::is_control, "?");
    said.split("\r\n").map(line).collect::<Vec<_>>().join("\n")
}

fn hex(octets: &[u8], between: &str) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(between)
}

fn each(octets: &[u8], before: &str) -> String {
    octets.iter().map(|octet| format!("{before}{octet:02X}")).collect()
}

/// Forms that would reveal the secret: the octets in every encoding that this test knows.
fn forms(octets: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(octets).into_owned();
    let some_escaped = |before: &str, plain: fn(&u8) -> bool| {
        let escape =
            |octet: &u8| if plain(octet) { char::from(*octet).to_string() } else { format!("{before}{octet:02X}") };
        octets.iter().map(escape).collect::<String>()
    };
    let references: String = text.chars().map(|c| format!("&#{};", u32::from(c))).collect();
    vec![
        text.clone(),
        text.to_uppercase(),
        text.chars()
            .map(|c| {
                if matches!(c, ' '..='~' | '\t') {
                    c.escape_default().to_string()
                } else {
                    format!("\\u{:04x}", u32::from(c))
                }
            })
            .collect(),
        STANDARD.encode(octets),
        STANDARD.encode(octets).to_ascii_uppercase(),
        URL_SAFE.encode(octets),
        STANDARD.encode(octets).trim_end_matches('=').to_owned(),
        hex(octets, ""),
        hex(octets, ":"),
        hex(octets, " ").to_ascii_uppercase(),
        each(octets, "\\x"),
        each(octets, "%"),
        each(octets, "="),
        some_escaped("%", u8::is_ascii_alphanumeric),
        some_escaped("=", u8::is_ascii_alphanumeric),
        some_escaped("+", u8::is_ascii_alphanumeric),
        references,
    ]
}

/// The letters and digits of which nothing may be left.
fn leftover(shown: &str, form: &str) -> Option<String> {
    let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    let shown = letters(shown);
    let form = letters(form);
    form.as_bytes().windows(6).map(|part| String::from_utf8_lossy(part).into_owned()).find(|part| shown.contains(part))
}

#[test]
fn a_login_is_hidden_in_every_form_at_every_place() {
    let mut tally = Tally::new("secrets", "quoted forms");
    for password in [
        "relay-canary-password",
        "k3yWithDigits99",
        "p\u{e4}ssw\u{f6}rd of 2 words",
        "a\"b\\c'd<e>&f%g=h+i",
        "tab\there, bell\u{7}",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    ] {
        let redaction = redaction(password);
        let parts = [
            password.as_bytes().to_vec(),
            format!("\0{USER}\0{password}").into_bytes(),
            format!("{USER}\0{USER}\0{password}").into_bytes(),
            format!("{USER}:{password}").into_bytes(),
        ];
        let of_password = forms(password.as_bytes());
        let all = parts.iter().flat_map(|octets| forms(octets).into_iter().zip(of_password.clone()));
        for (form, alone) in all.filter(|(form, _)| form.len() > 11) {
            // A user name may stay readable, and then precedes the password.
            let secret = if form.ends_with(&alone) { alone } else { form.clone() };
            let middle = form.floor_char_boundary(form.len() / 2);
            let (one, other) = form.split_at(middle);
            for said in [
                format!("535 5.7.8 {form}"),
                format!("250-{form}\r\n250 SIZE 1"),
                format!("550 <{form}>: wrong"),
                format!("421 4.7.0 login=\"{form}\", sorry"),
                format!("535-5.7.8 {one}\r\n535 5.7.8 {other}"),
                format!("535-\"{one}\"\r\n535-\r\n535 \"{other}\""),
                format!("535 {one} {other}"),
            ] {
                let reply = heard(&said);
                let shown = redaction.hide(&reply);
                let left = leftover(&shown, &secret);
                tally.case(left.is_none(), || format!("{password}: {said}: {shown}: {left:?}"));
                assert_eq!(shown.matches('\n').count(), reply.matches('\n').count());
            }
        }
    }
    tally.finish();
}

#[test]
fn what_is_cut_off_is_hidden_and_the_rest_stays_readable() {
    let redaction = login("relay", "hunter2 again");
    for (said, shown) in [
        ("535-5.7.8 bad: AHJlbGF5AGh1bnRlcjIgYWdhaW4=\r\n535 5.7.8 no", "bad: ***\nno"),
        ("535 \"AHJlbGF5AGh1bn...\" is wrong", "\"***...\" is wrong"),
        ("535 for relay/hunter2 again", "for relay/***"),
        ("535 not \"hunter2 ag...\"", "not \"***...\""),
        ("235 2.7.0 welcome again", "2.7.0 welcome again"),
        ("334 cmVsYXk=", "***"),
        ("550 the key wJalrXUtnFEMI/K7MDENG+bPx9", "the key ***"),
        ("550 5.1.1 <you@example.net>: no such user", "5.1.1 <you@example.net>: no such user"),
        (
            "250-relay.example.com\r\n250-PIPELINING\r\n250 AUTH PLAIN LOGIN",
            "relay.example.com\nPIPELINING\nAUTH PLAIN LOGIN",
        ),
    ] {
        assert_eq!(redaction.hide(&heard(said)), shown);
    }
}

/// The rule for short secrets: they are hidden as words, and the rest of a reply stays readable.
#[test]
fn a_short_secret_is_hidden_where_it_stands_alone() {
    for (password, said, shown) in [
        ("a", "535 wrong password \"a\" at all", "wrong password \"***\" at all"),
        ("ok1", "535 not ok1, not OK1! but ok12", "not ***, not ***! but ok12"),
        ("xyz", "334 eHl6", "***"),
        ("a1", "535 u=a1;x", "u=***;x"),
        ("mail", "550 Mailbox", "***box"),
        ("", "550 nothing to hide", "nothing to hide"),
    ] {
        assert_eq!(redaction(password).hide(&heard(said)), shown, "{password}");
    }
}

/// Many passwords have a domain in common with an address.
#[test]
fn words_that_a_password_has_in_common_with_a_reply_stay() {
    let redaction = redaction("MyCompany2024!");
    let said = "5.1.1 <bob@mycompany.com>: Recipient address rejected";
    assert_eq!(redaction.hide(said), said);
}

#[test]
fn every_secret_is_hidden_and_none_is_printed() {
    let mut redaction = redaction("first canary");
    redaction.add_secret("second canary");
    assert_eq!(redaction.hide("first canary, second canary"), "***, ***");
    assert_eq!(format!("{redaction:?}"), "Redaction(***)");
}
