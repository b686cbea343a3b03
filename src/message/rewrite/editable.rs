//! Which headers a rule may change, and how. The user must not change those that describe the message's format, its
//! path and its signatures, and some may occur only once. RFC 5322 §3.6.

/// What a rule does to a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Adds another field of that name.
    Add,
    /// Leaves one field of that name, with this value.
    Set,
    Remove,
    /// Replaces text in its value.
    Replace,
}

/// The format of the body, the path, the signatures, and what must not be visible.
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

/// False if the change would break the message. From has a separate action, which needs exactly one known address; text
/// in it may be replaced.
pub fn is_editable(name: &str, edit: HeaderEdit) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    let is_content = name.get(..8).is_some_and(|head| head.eq_ignore_ascii_case("Content-"));
    if is_content || STRUCTURE.into_iter().any(is) {
        return false;
    }
    match edit {
        HeaderEdit::Add => !is("From") && !SINGLE.into_iter().any(is),
        HeaderEdit::Set => !is("From"),
        // Mail without these is suspected of being spam.
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
