//! `[[rewrite]]` as typed: conditions, then actions, one key each.
//! Values are only checked one by one; `resolve/rewrite.rs` checks what they mean together.

mod values;

pub use values::{Addable, AddressTarget, HeaderText, Removable, Settable};

use super::maps::OrderedPairs;
use super::patterns::{HeaderPatterns, OneOrMore};
use super::reader::settings;
use super::value::{ByteSize, PatternText};
use crate::message::Mark;
use crate::message::rewrite::{NamedAddress, Replacement};
use crate::message::text_pattern::TextPattern;
use crate::smtp::ReversePath;
use std::net::SocketAddr;

settings! {
    /// Rules are carried out in their order, after the repairs, each on what the ones before it made. All conditions of a rule
    /// must hold; a rule without any is for every message. `waxseal check --message FILE` shows, without sending anything,
    /// what the rules make of a message; `waxseal queue retry --rules` applies today's rules to mail that waits or has failed.
    RewriteTable = "rewrite", many: true {
        /// Its name in the log and in what `waxseal check --message` prints. Default: "rewrite 1", "rewrite 2", in order.
        name: String, optional r#""weekly reports""#;
        /// Condition: the envelope's sender. The null path "<>" matches only "*".
        senders: Vec<PatternText>, optional r#"["*@example.com"]"#;
        /// Condition: one of the envelope's recipients.
        recipients: Vec<PatternText>, optional r#"["*@example.net"]"#;
        /// Condition: the address in the From header.
        from: Vec<PatternText>, optional r#"["*@example.com"]"#;
        /// Condition: headers as they are read: decoded, in one line. A pattern must match the whole value, in whatever case;
        /// "*" stands for anything, and a regular expression stands between slashes.
        header: HeaderPatterns, optional r#"{ Subject = "Weekly*", X-Kind = "/^(report|alert)$/" }"#;
        /// Condition: the listener that took the message, or a list of them.
        listener: OneOrMore<SocketAddr>, optional r#""127.0.0.1:2525""#;
        /// Condition: the login that handed it in, or a list of them; "*" stands for anything.
        user: OneOrMore<TextPattern>, optional r#"["plausible", "app-*"]"#;
        /// Condition: the whole message is larger.
        larger_than: ByteSize, optional r#""1 MiB""#;
        /// Condition: the whole message is smaller.
        smaller_than: ByteSize, optional r#""10 MiB""#;
        /// Condition: one of the message's texts, decoded, has these words; case counts.
        body_contains: String, optional r#""/unsubscribe""#;
        /// Action: another envelope sender; "<>" is the null path, to which nothing bounces.
        set_sender: ReversePath, optional r#""bounces@example.com""#;
        /// Action: envelope senders that match become others; "*" before the "@" keeps the local part.
        map_sender: OrderedPairs<PatternText, AddressTarget>, optional r#"{ "*@old.example" = "*@new.example" }"#;
        /// Action: the same for envelope recipients. "*" = one address sends everything there, as for a staging system.
        map_recipients: OrderedPairs<PatternText, AddressTarget>, optional r#"{ "*" = "staging@example.com" }"#;
        /// Action: another From header: an address, with or without a name before it.
        set_from: NamedAddress, optional r#""Reports <reports@example.com>""#;
        /// true: the From header that `set_from` replaces goes into Reply-To, unless the message has one.
        keep_from_as_reply_to: bool, default "false";
        /// Action: another Reply-To header.
        set_reply_to: NamedAddress, optional r#""Support <support@example.com>""#;
        /// Action: headers to take out; "*" stands for anything.
        remove_headers: Vec<Removable>, optional r#"["X-Mailer", "X-Internal-*"]"#;
        /// Action: in a header's decoded value, what matches the regular expression `pattern` becomes `with`, where $1 or
        /// ${name} stand for its groups.
        replace_in_headers: Vec<Replacement>, optional r#"[{ header = "Subject", pattern = "^\\[(\\w+)\\]", with = "$1:" }]"#;
        /// Action: headers to set: the first of that name is changed where it stands, others go; if there is none, it is added.
        set_headers: OrderedPairs<Settable, HeaderText>, optional r#"{ X-Application = "plausible" }"#;
        /// Action: headers to add, whatever is there; a list adds several of one name.
        add_headers: OrderedPairs<Addable, OneOrMore<HeaderText>>, optional r#"{ X-Route = ["a", "b"] }"#;
        /// Action: put before the subject, unless it is there.
        subject_prefix: HeaderText, optional r#""[staging] ""#;
        /// Action: a List-Unsubscribe header with the first link of the message's texts that matches.
        list_unsubscribe: TextPattern, optional r#""https://*/unsubscribe*""#;
        /// true: that link takes a POST and asks nothing more (RFC 8058), and List-Unsubscribe-Post says so. Gmail and Yahoo
        /// require this of bulk senders. Never say it of a link that wants a GET.
        one_click: bool, default "false";
        /// Action: what the mail is, for the provider's statistics; the provider gets it in a header of its own.
        tag: Mark, optional r#""weekly-report""#;
        /// Action: the provider's message stream or configuration set to use.
        stream: Mark, optional r#""broadcast""#;
        /// Action: further words for the provider, each with a name.
        metadata: OrderedPairs<Mark, Mark>, optional r#"{ site = "example.com" }"#;
        /// Action: the pool of the provider's addresses to send from.
        ip_pool: Mark, optional r#""transactional""#;
        /// Action: the one upstream to use, whatever the routes say.
        upstream: Mark, optional r#""company""#;
        /// true: the message is dropped, and the application gets a 250.
        discard: bool, default "false";
        /// Action: the message is refused, and the application gets a 550 with this text.
        refuse: String, optional r#""no mail to that domain from here""#;
        /// true: no later rule is applied.
        last: bool, default "false";
    }
}
