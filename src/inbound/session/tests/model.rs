//! The state after every command, above all after errors, equals that of a model that is too simple to be wrong.

use crate::inbound::testing::{Dialogue, options, server_tls};
use crate::inbound::{AuthMode, ListenerOptions, Tls};
use crate::tally::Tally;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Say {
    Ehlo,
    EhloBare,
    Helo,
    Mail,
    MailSyntax,
    MailTooBig,
    MailTwice,
    MailRefused,
    /// By number: more of them than `max_recipients`.
    Rcpt(u8),
    /// The first of them, spelt differently.
    RcptAgain,
    RcptSyntax,
    Data,
    DataTooBig,
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
    Http,
    LoginRight,
    LoginWrong,
    LoginCancelled,
    LoginBroken,
    LoginUnknown,
    StartTls,
    Unknown,
    TooLong,
    BareLf,
    BareCr,
}

use Say::*;

/// Each command with the bytes that the client sends for it.
const ALL: &[(Say, &[u8])] = &[
    (Ehlo, b"EHLO x\r\n"),
    (EhloBare, b"EHLO\r\n"),
    (Helo, b"HELO x\r\n"),
    (Mail, b"MAIL FROM:<a@b>\r\n"),
    (MailSyntax, b"MAIL FROM:a@b\r\n"),
    (MailTooBig, b"MAIL FROM:<a@b> SIZE=100001\r\n"),
    (MailTwice, b"MAIL FROM:<a@b> SIZE=1 SIZE=2\r\n"),
    (MailRefused, b"MAIL FROM:<refused@b>\r\n"),
    (Rcpt(0), b"RCPT TO:<c@d>\r\n"),
    (Rcpt(1), b"RCPT TO:<C@d>\r\n"),
    (Rcpt(2), b"RCPT TO:<c2@d>\r\n"),
    (Rcpt(3), b"RCPT TO:<c3@d>\r\n"),
    (Rcpt(4), b"RCPT TO:<c4@d>\r\n"),
    (Rcpt(5), b"RCPT TO:<c5@d>\r\n"),
    (Rcpt(6), b"RCPT TO:<c6@d>\r\n"),
    (RcptAgain, b"RCPT TO:<@relay:\"c\"@D>\r\n"),
    (RcptSyntax, b"RCPT TO:<>\r\n"),
    (Data, b"DATA\r\n"),
    (DataTooBig, b"DATA\r\n"),
    (Rset, b"RSET\r\n"),
    (Noop, b"NOOP\r\n"),
    (Vrfy, b"VRFY x\r\n"),
    (Expn, b"EXPN x\r\n"),
    (Help, b"HELP\r\n"),
    (Quit, b"QUIT\r\n"),
    (Http, b"GET / HTTP/1.1\r\n"),
    // u and p
    (LoginRight, b"AUTH PLAIN AHUAcA==\r\n"),
    // u and q
    (LoginWrong, b"AUTH PLAIN AHUAcQ==\r\n"),
    (LoginCancelled, b"AUTH LOGIN\r\n"),
    (LoginBroken, b"AUTH PLAIN !\r\n"),
    (LoginUnknown, b"AUTH CRAM-MD5\r\n"),
    (StartTls, b"STARTTLS\r\n"),
    (Unknown, b"FOO\r\n"),
    (TooLong, &[b'x'; 3000]),
    (BareLf, b"NOOP\nRSET\r\n"),
    (BareCr, b"RSET\r\r\n"),
];

#[derive(Debug, Default)]
struct Model {
    inside_allow: bool,
    auth_off: bool,
    auth_required: bool,
    starttls: bool,

    tls: bool,
    greeted: bool,
    user: bool,
    mail: bool,
    recipients: BTreeSet<u8>,
    bad: u32,
    failed: u32,
    messages: usize,
    closed: bool,
}

impl Model {
    /// The replies to `said`.
    fn hear(&mut self, said: Say) -> Vec<u16> {
        match said {
            Ehlo | Helo => {
                (self.greeted, self.mail, self.recipients) = (true, false, BTreeSet::new());
                vec![250]
            }
            Rset => {
                (self.mail, self.recipients) = (false, BTreeSet::new());
                vec![250]
            }
            Noop => vec![250],
            Vrfy => vec![252],
            Expn => vec![502],
            Help => vec![214],
            Quit => {
                self.closed = true;
                vec![221]
            }
            Http => {
                (self.closed, self.bad) = (true, self.bad + 1);
                vec![421]
            }
            EhloBare | MailSyntax | MailTwice => self.bad(501),
            Unknown | TooLong | BareLf | BareCr => self.bad(500),
            _ if !self.greeted => self.bad(503),
            Mail | MailTooBig | MailRefused => self.mail(said),
            Rcpt(_) | RcptAgain | RcptSyntax if !self.mail => vec![503],
            RcptSyntax => vec![501],
            RcptAgain => self.rcpt(0),
            Rcpt(number) => self.rcpt(number),
            Data | DataTooBig if self.recipients.is_empty() => vec![503],
            Data | DataTooBig => self.data(said),
            _ if self.mail => self.bad(503),
            StartTls => self.starttls(),
            LoginRight | LoginWrong | LoginCancelled | LoginBroken | LoginUnknown => self.login(said),
        }
    }

    fn rcpt(&mut self, number: u8) -> Vec<u16> {
        if self.recipients.len() == 5 && !self.recipients.contains(&number) {
            return vec![452];
        }
        self.recipients.insert(number);
        vec![250]
    }

    fn bad(&mut self, code: u16) -> Vec<u16> {
        self.bad += 1;
        self.closed = self.bad == 20;
        vec![if self.closed { 421 } else { code }]
    }

    fn mail(&mut self, said: Say) -> Vec<u16> {
        if self.mail {
            return self.bad(503);
        }
        let may_send = self.user || (self.inside_allow && !self.auth_required);
        if (self.starttls && !self.tls) || !may_send {
            return self.bad(530);
        }
        match said {
            MailTooBig => vec![552],
            MailRefused => vec![550],
            _ => {
                self.mail = true;
                vec![250]
            }
        }
    }

    fn data(&mut self, said: Say) -> Vec<u16> {
        (self.mail, self.recipients) = (false, BTreeSet::new());
        if said == DataTooBig {
            return vec![354, 552];
        }
        (self.messages, self.bad) = (self.messages + 1, 0);
        vec![354, 250]
    }

    fn starttls(&mut self) -> Vec<u16> {
        if self.tls {
            return self.bad(503);
        }
        if !self.starttls {
            return self.bad(502);
        }
        (self.tls, self.greeted) = (true, false);
        vec![220]
    }

    fn login(&mut self, said: Say) -> Vec<u16> {
        if self.auth_off {
            return self.bad(502);
        }
        if self.user {
            return self.bad(503);
        }
        if self.starttls && !self.tls {
            return self.bad(538);
        }
        match said {
            LoginRight => {
                self.user = true;
                vec![235]
            }
            LoginWrong => {
                self.failed += 1;
                self.closed = self.failed == 3;
                vec![if self.closed { 421 } else { 535 }]
            }
            LoginCancelled => [vec![334], self.bad(501)].concat(),
            LoginUnknown => self.bad(504),
            _ => self.bad(501),
        }
    }
}

/// Sends the command, and what a client sends after 354 and 334.
fn say(dialogue: &mut Dialogue, said: Say, line: &[u8]) {
    dialogue.replies.clear();
    dialogue.send(line);
    match said {
        TooLong => dialogue.send(b"\r\n"),
        Data if dialogue.is_in_data() => dialogue.send(b"Subject: x\r\n\r\nMAIL FROM:<x@y>\r\n.\r\n"),
        DataTooBig if dialogue.is_in_data() => {
            dialogue.send(&[b'x'; 100_001]);
            dialogue.send(b"\r\nRSET\r\n.\r\n");
        }
        LoginCancelled if dialogue.codes().last() == Some(&334) => dialogue.send(b"*\r\n"),
        _ => {}
    }
}

fn listeners() -> impl Strategy<Value = (ListenerOptions, Model)> {
    let auth = prop_oneof![Just(AuthMode::Off), Just(AuthMode::Optional), Just(AuthMode::Required)];
    (auth, any::<bool>(), any::<bool>()).prop_map(|(auth, starttls, inside_allow)| {
        let mut options = ListenerOptions { auth, ..options() };
        if starttls {
            options.tls = Tls::StartTls(server_tls());
        }
        if !inside_allow {
            options.allow.clear();
        }
        let auth_off = auth == AuthMode::Off;
        let auth_required = auth == AuthMode::Required;
        (options, Model { inside_allow, starttls, auth_off, auth_required, ..Model::default() })
    })
}

/// Mostly commands that make progress, so that sequences reach later states.
fn commands() -> impl Strategy<Value = Vec<(Say, &'static [u8])>> {
    const USEFUL: &[Say] =
        &[Ehlo, StartTls, LoginRight, Mail, Rcpt(0), Rcpt(1), Rcpt(2), Rcpt(3), Rcpt(4), Rcpt(5), Data];
    let useful: Vec<_> = ALL.iter().copied().filter(|(say, _)| USEFUL.contains(say)).collect();
    let one = prop_oneof![2 => proptest::sample::select(useful), 1 => proptest::sample::select(ALL)];
    proptest::collection::vec(one, 0..60)
}

/// Sends each command like a client that waits for every reply.
fn one_by_one(options: ListenerOptions, mut model: Model, said: &[(Say, &'static [u8])]) -> Result<(), TestCaseError> {
    let mut dialogue = Dialogue::new(options);
    for (at, (command, line)) in said.iter().enumerate() {
        say(&mut dialogue, *command, line);
        let shown = || said[..=at].iter().map(|(say, _)| say).collect::<Vec<_>>();
        prop_assert_eq!(&dialogue.codes(), &model.hear(*command), "{:?}", shown());
        prop_assert_eq!(dialogue.is_closed(), model.closed, "{:?}", shown());
        if model.closed {
            break;
        }
    }
    prop_assert_eq!(dialogue.intake.count(), model.messages);
    Ok(())
}

/// Whether a client may send more without waiting for the reply. RFC 2920 §3.1.
fn may_be_followed(said: Say) -> bool {
    !matches!(said, Data | DataTooBig | StartTls | LoginCancelled)
}

/// Sends up to and including the next command that ends a group, in two segments split anywhere.
fn pipelined(
    options: ListenerOptions,
    mut model: Model,
    said: &[(Say, &'static [u8])],
    cuts: &[usize],
) -> Result<(), TestCaseError> {
    let mut dialogue = Dialogue::new(options);
    let mut cuts = cuts.iter().cycle();
    for group in said.split_inclusive(|(say, _)| !may_be_followed(*say)) {
        dialogue.replies.clear();
        let mut segment = Vec::new();
        let mut expected = Vec::new();
        for (command, line) in group.iter().filter(|(command, _)| may_be_followed(*command)) {
            segment.extend_from_slice(line);
            segment.extend_from_slice(if *command == TooLong { b"\r\n" } else { b"" });
            expected.extend(if model.closed { Vec::new() } else { model.hear(*command) });
        }
        let cut = cuts.next().map_or(0, |cut| cut % (segment.len() + 1));
        dialogue.send(&segment[..cut]);
        dialogue.send(&segment[cut..]);
        prop_assert_eq!(&dialogue.codes(), &expected, "{:?}", group);
        if let Some((last, line)) = group.last().filter(|(last, _)| !may_be_followed(*last) && !model.closed) {
            say(&mut dialogue, *last, line);
            prop_assert_eq!(&dialogue.codes(), &model.hear(*last), "{:?}", group);
        }
        prop_assert_eq!(dialogue.is_closed(), model.closed, "{:?}", group);
    }
    prop_assert_eq!(dialogue.intake.count(), model.messages);
    Ok(())
}

const CASES: u32 = 1024;

/// Counts the sequences for the table.
fn holds<S: Strategy>(test: &str, strategy: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let mut tally = Tally::new("state-models", test);
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(CASES) };
    let result = TestRunner::new(config).run(&strategy, property);
    tally.right(CASES as usize - 1);
    tally.case(result.is_ok(), || format!("{result:?}"));
    tally.finish();
}

#[test]
fn every_sequence_of_commands_is_answered_as_the_model_says() {
    holds("session", (listeners(), commands()), |((options, model), said)| one_by_one(options, model, &said));
}

#[test]
fn the_same_pipelined() {
    let cuts = proptest::collection::vec(any::<usize>(), 1..8);
    holds("session pipelined", (listeners(), commands(), cuts), |((options, model), said, cuts)| {
        pipelined(options, model, &said, &cuts)
    });
}
