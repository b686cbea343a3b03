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
    /// Rules run in order, after the repairs, each on the result of those before it. All conditions of a rule must match; a
    /// rule without conditions applies to every message. `waxseal check --message FILE` shows the effect of the rules on a
    /// message without sending it; `waxseal queue retry --rules` applies the current rules to waiting or failed mail.
    RewriteTable = "rewrite", many: true {
        /// Its name in the log and in what `waxseal check --message` prints. Default: "rewrite 1", "rewrite 2", in order.
        name: String, optional r#""weekly reports""#;
        /// Condition: the envelope's sender. The null path "<>" matches only "*".
        senders: Vec<PatternText>, optional r#"["*@example.com"]"#;
        /// Condition: one of the envelope's recipients.
        recipients: Vec<PatternText>, optional r#"["*@example.net"]"#;
        /// Condition: the address in the From header.
        from: Vec<PatternText>, optional r#"["*@example.com"]"#;
        /// Condition: headers, decoded and on one line. A pattern must match the whole value, in any case; "*" matches
        /// anything, and a regular expression is written between slashes.
        header: HeaderPatterns, optional r#"{ Subject = "Weekly*", X-Kind = "/^(report|alert)$/" }"#;
        /// Condition: the listener that received the message, or a list of them.
        listener: OneOrMore<SocketAddr>, optional r#""127.0.0.1:2525""#;
        /// Condition: the login that submitted it, or a list of them; "*" matches anything.
        user: OneOrMore<TextPattern>, optional r#"["plausible", "app-*"]"#;
        /// Condition: the whole message is larger.
        larger_than: ByteSize, optional r#""1 MiB""#;
        /// Condition: the whole message is smaller.
        smaller_than: ByteSize, optional r#""10 MiB""#;
        /// Condition: one of the message's texts, decoded, contains these words; case-sensitive.
        body_contains: String, optional r#""/unsubscribe""#;
        /// Action: another envelope sender; "<>" is the null path, to which nothing bounces.
        set_sender: ReversePath, optional r#""bounces@example.com""#;
        /// Action: replaces envelope senders that match; "*" before the "@" keeps the local part.
        map_sender: OrderedPairs<PatternText, AddressTarget>, optional r#"{ "*@old.example" = "*@new.example" }"#;
        /// Action: the same for envelope recipients. "*" = one address sends everything there, as for a staging system.
        map_recipients: OrderedPairs<PatternText, AddressTarget>, optional r#"{ "*" = "staging@example.com" }"#;
        /// Action: another From header: an address, with or without a name before it.
        set_from: NamedAddress, optional r#""Reports <reports@example.com>""#;
        /// true: the From header that `set_from` replaces becomes Reply-To, unless the message has one.
        keep_from_as_reply_to: bool, default "false";
        /// Action: another Reply-To header.
        set_reply_to: NamedAddress, optional r#""Support <support@example.com>""#;
        /// Action: headers to remove; "*" matches anything.
        remove_headers: Vec<Removable>, optional r#"["X-Mailer", "X-Internal-*"]"#;
        /// Action: in a header's decoded value, replaces what matches the regular expression `pattern` by `with`, where $1 or
        /// ${name} refer to its groups.
        replace_in_headers: Vec<Replacement>, optional r#"[{ header = "Subject", pattern = "^\\[(\\w+)\\]", with = "$1:" }]"#;
        /// Action: headers to set: the first of that name is changed in place and others are removed; if there is none, it is
        /// added.
        set_headers: OrderedPairs<Settable, HeaderText>, optional r#"{ X-Application = "plausible" }"#;
        /// Action: headers to add, even if there are others of that name; a list adds several.
        add_headers: OrderedPairs<Addable, OneOrMore<HeaderText>>, optional r#"{ X-Route = ["a", "b"] }"#;
        /// Action: text to put before the subject, unless it is already there.
        subject_prefix: HeaderText, optional r#""[staging] ""#;
        /// Action: adds a List-Unsubscribe header with the first matching link in the message's texts.
        list_unsubscribe: TextPattern, optional r#""https://*/unsubscribe*""#;
        /// true: that link accepts a POST and asks for nothing more (RFC 8058), and List-Unsubscribe-Post says so. Gmail and
        /// Yahoo require this of bulk senders. Do not set it for a link that needs a GET.
        one_click: bool, default "false";
        /// Action: the kind of mail, for the provider's statistics; sent in the provider's own header.
        tag: Mark, optional r#""weekly-report""#;
        /// Action: the provider's message stream or configuration set to use.
        stream: Mark, optional r#""broadcast""#;
        /// Action: further named values for the provider.
        metadata: OrderedPairs<Mark, Mark>, optional r#"{ site = "example.com" }"#;
        /// Action: the pool of the provider's addresses to send from.
        ip_pool: Mark, optional r#""transactional""#;
        /// Action: the only upstream to use, regardless of the routes.
        upstream: Mark, optional r#""company""#;
        /// true: the message is dropped, and the application gets a 250.
        discard: bool, default "false";
        /// Action: the message is refused, and the application gets a 550 with this text.
        refuse: String, optional r#""no mail to that domain from here""#;
        /// true: no later rule is applied.
        last: bool, default "false";
    }
}
