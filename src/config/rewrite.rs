//! `[[rewrite]]` as typed: conditions, then actions, one key each.
//! Values are of the right form here, no more; what they mean together is looked at in `resolve/rewrite.rs`.

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
    /// Rules for what becomes of mail, in order: each sees what the ones before it made. All conditions of a rule must
    /// hold; a rule without any is for every message. Rules run after the repairs, and `waxseal check --message` shows
    /// what they do.
    RewriteTable = "rewrite", many: true {
        /// What the log and `waxseal check --message` call it. Default: "rewrite 1", "rewrite 2", in order.
        name: String, optional r#""weekly reports""#;
        /// Condition: the envelope's sender. The null path `<>` fits only "*".
        senders: Vec<PatternText>, optional r#"["*@example.com"]"#;
        /// Condition: one of the envelope's recipients.
        recipients: Vec<PatternText>, optional r#"["*@example.net"]"#;
        /// Condition: the address in the From header.
        from: Vec<PatternText>, optional r#"["*@example.com"]"#;
        /// Condition: headers, as they are read (decoded, in one line). A pattern fits the whole value, whatever the
        /// case, and "*" stands for anything; a regular expression stands between slashes.
        header: HeaderPatterns, optional r#"{ Subject = "Weekly*", X-Kind = "/^(report|alert)$/" }"#;
        /// Condition: the listener that took the message, or a list of them.
        listener: OneOrMore<SocketAddr>, optional r#""127.0.0.1:2525""#;
        /// Condition: the login that handed it in, or a list of them; "*" stands for anything.
        user: OneOrMore<TextPattern>, optional r#"["plausible", "app-*"]"#;
        /// Condition: the size of the whole message.
        larger_than: ByteSize, optional r#""1 MiB""#;
        /// Condition: the size of the whole message.
        smaller_than: ByteSize, optional r#""10 MiB""#;
        /// Condition: one of the message's texts, decoded, holds this; case counts.
        body_contains: String, optional r#""/unsubscribe""#;
        /// The envelope's sender from now on; "<>" is the null path, to which nothing bounces.
        set_sender: ReversePath, optional r#""bounces@example.com""#;
        /// Envelope senders that fit become others; "*" before the "@" keeps the local part.
        map_sender: OrderedPairs<PatternText, AddressTarget>, optional r#"{ "*@old.example" = "*@new.example" }"#;
        /// The same for envelope recipients. "*" = one address sends everything there, as for staging.
        map_recipients: OrderedPairs<PatternText, AddressTarget>, optional r#"{ "*" = "staging@example.com" }"#;
        /// The From header: an address, with or without a name before it.
        set_from: NamedAddress, optional r#""Reports <reports@example.com>""#;
        /// true: the From of before goes into Reply-To, unless the message has one.
        keep_from_as_reply_to: bool, default "false";
        /// The Reply-To header.
        set_reply_to: NamedAddress, optional r#""Support <support@example.com>""#;
        /// Headers to take out; "*" stands for anything.
        remove_headers: Vec<Removable>, optional r#"["X-Mailer", "X-Internal-*"]"#;
        /// In a header's decoded value, everything that fits the regular expression `pattern` becomes `with`, where $1
        /// or ${name} stand for its groups.
        replace_in_headers: Vec<Replacement>, optional r#"[{ header = "Subject", pattern = "^\\[(\\w+)\\]", with = "$1:" }]"#;
        /// Headers to set: the first of that name is changed where it stands, others go; without one it is added.
        set_headers: OrderedPairs<Settable, HeaderText>, optional r#"{ X-Application = "plausible" }"#;
        /// Headers to add, whatever is there; a list adds several of one name.
        add_headers: OrderedPairs<Addable, OneOrMore<HeaderText>>, optional r#"{ X-Route = ["a", "b"] }"#;
        /// Put before the subject, unless it is there.
        subject_prefix: HeaderText, optional r#""[staging] ""#;
        /// A List-Unsubscribe header with the first link of the message's texts that fits this pattern.
        list_unsubscribe: TextPattern, optional r#""https://*/unsubscribe*""#;
        /// true: that link takes a POST without asking again (RFC 8058), and List-Unsubscribe-Post says so. Gmail and
        /// Yahoo require this of bulk senders; set it only for a link that really does.
        one_click: bool, default "false";
        /// What the mail is, for the provider's statistics.
        tag: Mark, optional r#""weekly-report""#;
        /// Which of the provider's message streams or configuration sets it goes through.
        stream: Mark, optional r#""broadcast""#;
        /// Further words for the provider, each with a name.
        metadata: OrderedPairs<Mark, Mark>, optional r#"{ site = "example.com" }"#;
        /// From which of the provider's addresses it is sent.
        ip_pool: Mark, optional r#""transactional""#;
        /// The one upstream to use, whatever the routes say.
        upstream: Mark, optional r#""company""#;
        /// true: the message is discarded, and the application gets a 250.
        discard: bool, default "false";
        /// The message is refused (550 5.7.1) with this text.
        refuse: String, optional r#""no mail to that domain from here""#;
        /// true: no later rule is asked.
        last: bool, default "false";
    }
}
