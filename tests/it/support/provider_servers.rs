//! Providers as their documentation describes them: the login they require, what they refuse, and how they change a message
//! before they pass it on.

use super::gateway::Setup;
use super::upstream::{Builder, Rules, ScriptedUpstream};

pub struct ProviderServer {
    pub provider: &'static str,
    /// Further lines of the upstream's table.
    pub lines: &'static str,
    pub rules: Rules,
    /// Offered inside TLS.
    pub keywords: &'static [&'static str],
    /// What it makes of a message. Its own signature is not among that, since ours is the one to be checked.
    pub passes_on: fn(&[u8]) -> Vec<u8>,
    /// How many signatures of ours must hold then, with an RSA and an Ed25519 key at hand.
    pub signatures: usize,
}

impl ProviderServer {
    pub fn builder(&self) -> Builder {
        ScriptedUpstream::builder().rules(self.rules, self.keywords)
    }

    /// Its table, with the address of the test's server in the place of its own.
    pub fn table(&self, name: &str, scripted: &ScriptedUpstream, ca: &str) -> String {
        let Self { provider, lines, .. } = self;
        let host = scripted.address().ip();
        let port = scripted.address().port();
        format!(
            "[[upstream]]\nname = \"{name}\"\nprovider = \"{provider}\"\nhost = \"{host}\"\nport = {port}\n\
             server_name = \"localhost\"\nca = \"{ca}\"\n{lines}\n"
        )
    }

    /// A gateway in queue mode in front of it; `tables` come first.
    pub fn behind(&self, scripted: &ScriptedUpstream, tables: &str) -> Setup {
        let config = format!("{}{tables}{}", HEAD, self.table("provider", scripted, "ca.pem"));
        Setup::new(Some(&config)).file("ca.pem", scripted.ca())
    }
}

/// What every configuration of these tests begins with.
pub const HEAD: &str = "hostname = \"gateway.example.com\"\n[log]\nformat = \"json\"\n\
    [[listener]]\naddress = \"127.0.0.1:0\"\n[queue]\nretry = { first = \"1s\", longest = \"2s\" }\n";

const EVERYTHING: &[&str] = &["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "AUTH PLAIN LOGIN"];
const MIB: usize = 1024 * 1024;

pub const POSTMARK: ProviderServer = ProviderServer {
    provider: "postmark",
    lines: "password = \"pm-canary-token\"",
    rules: Rules {
        login: Some(("pm-canary-token", "pm-canary-token")),
        connections: (10, "421 4.7.0 too many connections"),
        recipients: (50, "450 4.5.3 too many recipients"),
        size: (10 * MIB, "552 5.3.4 larger than 10 MB"),
        ..NONE
    },
    keywords: &["SIZE", "8BITMIME", "AUTH PLAIN LOGIN CRAM-MD5"],
    passes_on: reassembled,
    signatures: 0,
};

pub const MAILGUN: ProviderServer = ProviderServer {
    provider: "mailgun",
    lines: "region = \"eu\"\nusername = \"postmaster@mg.example.com\"\npassword = \"mg-canary-password\"",
    rules: Rules {
        login: Some(("postmaster@mg.example.com", "mg-canary-password")),
        recipients: (1000, "452 4.5.3 too many recipients"),
        ..NONE
    },
    keywords: &["AUTH PLAIN LOGIN", "SIZE 52428800", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8"],
    passes_on: |message| {
        let asks = has(message, "X-Mailgun-Track: no");
        let message = without_field(message, "X-Mailgun-");
        if asks { on_top("X-Mailgun-Sid: WyJ4Il0=\r\n", &message) } else { tracked(&message) }
    },
    signatures: 2,
};

pub const MANDRILL: ProviderServer = ProviderServer {
    provider: "mandrill",
    lines: "password = \"md-canary-key\"",
    rules: Rules {
        login: Some(("waxseal", "md-canary-key")),
        message: |data| (!data.is_ascii()).then_some("554 5.6.0 8-bit characters"),
        ..NONE
    },
    keywords: EVERYTHING,
    passes_on: |message| on_top("X-Mandrill-User: md_1\r\n", &without_field(message, "X-MC-")),
    signatures: 2,
};

pub const SENDGRID: ProviderServer = ProviderServer {
    provider: "sendgrid",
    lines: "password = \"SG.canary-key\"",
    rules: Rules {
        login: Some(("apikey", "SG.canary-key")),
        messages_per_connection: (5000, "421 4.7.0 too many messages"),
        recipients: (1000, "452 4.5.3 too many recipients"),
        ..NONE
    },
    keywords: &["8BITMIME", "PIPELINING", "SIZE 31457280", "AUTH PLAIN LOGIN"],
    passes_on: |message| {
        let asks = has(message, "\"clicktrack\"");
        let message = without_field(message, "X-SMTPAPI");
        if asks { on_top("X-SG-EID: x\r\n", &message) } else { tracked(&message) }
    },
    signatures: 2,
};

pub const SES: ProviderServer = ProviderServer {
    provider: "ses",
    lines: "region = \"eu-central-1\"\nusername = \"AKIAEXAMPLE\"\nsecret_key = \"some+canary+key\"",
    rules: Rules {
        sender: |mail| mail.starts_with("<>").then_some("501 Invalid MAIL FROM address provided"),
        login: Some(("AKIAEXAMPLE", "BGeyo/homsGjsfn5S1hiK3AAvMsDhHlP8ZIMcy0q3njO")),
        recipients: (50, "554 Transaction failed: Recipient count exceeds 50."),
        size: (40 * MIB, "552 Message is too long."),
        message: |data| {
            (count(data, "DKIM-Signature:") > 1).then_some("554 Transaction failed: Duplicate header 'DKIM-Signature'.")
        },
        ..NONE
    },
    keywords: &["8BITMIME", "AUTH PLAIN LOGIN", "Ok"],
    passes_on: |message| {
        let mut message = without_field(message, "X-SES-");
        for name in ["Message-ID:", "Date:", "Return-Path:", "Bounces-To:"] {
            message = without_field(&message, name);
        }
        on_top(
            "Return-Path: <01000@eu-central-1.amazonses.com>\r\nMessage-ID: <01000@eu-central-1.amazonses.com>\r\n\
             Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nBounces-To: x@amazonses.com\r\n",
            &message,
        )
    },
    signatures: 1,
};

pub const GMAIL: ProviderServer = ProviderServer {
    provider: "gmail",
    lines: "username = \"reports@example.com\"\npassword = \"app canary password\"",
    rules: Rules {
        login: Some(("reports@example.com", "app canary password")),
        recipients: (100, "452 4.5.3 Your message has too many recipients."),
        real_names_only: true,
        ..NONE
    },
    keywords: &[
        "SIZE 35882577",
        "8BITMIME",
        "AUTH LOGIN PLAIN XOAUTH2",
        "ENHANCEDSTATUSCODES",
        "PIPELINING",
        "SMTPUTF8",
    ],
    passes_on: |message| on_top("X-Google-Smtp-Source: x\r\nX-Gm-Message-State: y\r\n", message),
    signatures: 2,
};

pub const MICROSOFT365: ProviderServer = ProviderServer {
    provider: "microsoft365",
    lines: "username = \"reports@example.com\"\npassword = \"m365 canary password\"",
    rules: Rules {
        login: Some(("reports@example.com", "m365 canary password")),
        connections: (3, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending"),
        recipients: (500, "452 4.5.3 Too many recipients"),
        ..NONE
    },
    keywords: &[
        "SIZE 157286400",
        "PIPELINING",
        "DSN",
        "ENHANCEDSTATUSCODES",
        "AUTH LOGIN XOAUTH2",
        "8BITMIME",
        "BINARYMIME",
        "CHUNKING",
        "SMTPUTF8",
    ],
    passes_on: |message| on_top("X-MS-Exchange-Organization-AuthAs: Internal\r\n", message),
    signatures: 2,
};

const NONE: Rules = Rules {
    login: None,
    connections: (usize::MAX, ""),
    messages_per_connection: (usize::MAX, ""),
    sender: |_| None,
    recipients: (usize::MAX, ""),
    size: (usize::MAX, ""),
    message: |_| None,
    real_names_only: false,
};

fn on_top(fields: &str, message: &[u8]) -> Vec<u8> {
    [fields.as_bytes(), message].concat()
}

/// Every link goes through the provider, and a picture reports the reader to it.
fn tracked(message: &[u8]) -> Vec<u8> {
    [message, b"<img src=\"https://track.example/open\">\r\n"].concat()
}

fn has(message: &[u8], text: &str) -> bool {
    memchr::memmem::find(message, text.as_bytes()).is_some()
}

fn count(message: &[u8], name: &str) -> usize {
    let header = memchr::memmem::find(message, b"\r\n\r\n").map_or(message, |end| &message[..end + 2]);
    header.split(|&byte| byte == b'\n').filter(|line| line.starts_with(name.as_bytes())).count()
}

/// Fields that begin so are taken out.
pub fn without_field(message: &[u8], beginning: &str) -> Vec<u8> {
    let end = memchr::memmem::find(message, b"\r\n\r\n").map_or(message.len(), |end| end + 2);
    let mut kept = Vec::new();
    let mut dropping = false;
    for line in message[..end].split_inclusive(|&byte| byte == b'\n') {
        let is_continuation = line.starts_with(b" ") || line.starts_with(b"\t");
        let begins = line.get(..beginning.len()).is_some_and(|it| it.eq_ignore_ascii_case(beginning.as_bytes()));
        dropping = if is_continuation { dropping } else { begins };
        if !dropping {
            kept.extend_from_slice(line);
        }
    }
    [&kept, &message[end..]].concat()
}

/// Parsed and reassembled: another order, other names, another encoding.
fn reassembled(message: &[u8]) -> Vec<u8> {
    let message = without_field(&without_field(message, "X-PM-"), "Message-ID:");
    let end = memchr::memmem::find(&message, b"\r\n\r\n").expect("a body");
    let body = message[end + 4..].to_vec();
    let message = without_field(&without_field(&message[..end + 2], "Content-"), "MIME-Version:");
    let fields =
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: base64\r\n";
    let id = "Message-ID: <0000@mtasv.net>\r\n";
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &body);
    let lines: Vec<_> = text.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    [&message[..], fields.as_bytes(), id.as_bytes(), b"\r\n", lines.join("\r\n").as_bytes(), b"\r\n"].concat()
}
