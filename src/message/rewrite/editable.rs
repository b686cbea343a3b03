//! Which headers a rule may touch, and how: those that say what the message is, which way it took and who signed it are
//! not the user's, and of some there may be only one. RFC 5322 §3.6.

/// What is to be done to a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderEdit {
    /// One more of the name.
    Add,
    /// One of the name, with this value.
    Set,
    Remove,
    /// Text in its value.
    Replace,
}

/// The form of the body, the way it took, the signatures, and what must not be seen.
const STRUCTURE: [&str; 10] = [
    "MIME-Version",
    "Received",
    "Return-Path",
    "DKIM-Signature",
    "Authentication-Results",
    "ARC-Seal",
    "ARC-Message-Signature",
    "ARC-Authentication-Results",
    "Bcc",
    "Resent-Bcc",
];

/// A message has at most one of each. RFC 5322 §3.6, RFC 2369 §3, RFC 8058 §3.1.
const SINGLE: [&str; 11] = [
    "Date",
    "Message-ID",
    "Subject",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "In-Reply-To",
    "References",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
];

/// False where it would break the message. From has an action of its own, for which exactly one address must be known;
/// text in it may be replaced.
pub fn is_editable(name: &str, edit: HeaderEdit) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    let is_content = name.get(..8).is_some_and(|head| head.eq_ignore_ascii_case("Content-"));
    if is_content || STRUCTURE.into_iter().any(is) {
        return false;
    }
    match edit {
        HeaderEdit::Add => !is("From") && !SINGLE.into_iter().any(is),
        HeaderEdit::Set => !is("From"),
        // Whatever carries mail without these is suspected of spam.
        HeaderEdit::Remove => !["From", "Date", "Message-ID"].into_iter().any(is),
        HeaderEdit::Replace => true,
    }
}

#[cfg(test)]
mod tests {
    use super::HeaderEdit::*;
    use super::*;

    #[test]
    fn table() {
        for (name, allowed) in [
            ("X-Anything", &[Add, Set, Remove, Replace][..]),
            ("Precedence", &[Add, Set, Remove, Replace]),
            ("subject", &[Set, Remove, Replace]),
            ("Reply-To", &[Set, Remove, Replace]),
            ("List-Unsubscribe", &[Set, Remove, Replace]),
            ("Message-Id", &[Set, Replace]),
            ("date", &[Set, Replace]),
            ("FROM", &[Replace]),
            ("Content-Type", &[]),
            ("content-whatever", &[]),
            ("Mime-Version", &[]),
            ("Received", &[]),
            ("DKIM-Signature", &[]),
            ("Bcc", &[]),
        ] {
            let found: Vec<_> =
                [Add, Set, Remove, Replace].into_iter().filter(|edit| is_editable(name, *edit)).collect();
            assert_eq!(found, allowed, "{name}");
        }
    }
}
