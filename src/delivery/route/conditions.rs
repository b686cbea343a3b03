//! The conditions of a `[[route]]`, all of which must hold. They look only at what [`Addressed`] shows, so that they
//! can be evaluated again for waiting mail after a change.

use crate::message::SenderPatterns;
use crate::message::accepted::Addressed;
use crate::message::text_pattern::{HeaderPattern, TextPattern, any_matches};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConditions {
    /// The envelope's sender. The null path matches only the pattern that matches everything.
    pub senders: SenderPatterns,
    pub recipients: SenderPatterns,
    /// All of them must match.
    pub headers: Vec<HeaderPattern>,
    /// The login must match one of them. Empty: any login or none.
    pub users: Vec<TextPattern>,
    /// A tag must match one of them. Empty: any tag or none.
    pub tags: Vec<TextPattern>,
}

impl RouteConditions {
    /// Conditions that match everything.
    pub fn none() -> Self {
        let any = SenderPatterns::any;
        Self { senders: any(), recipients: any(), headers: Vec::new(), users: Vec::new(), tags: Vec::new() }
    }

    pub fn match_everything(&self) -> bool {
        let asks_nothing_else = self.headers.is_empty() && self.users.is_empty() && self.tags.is_empty();
        asks_nothing_else && self.senders.is_any() && self.recipients.is_any()
    }

    pub fn matches(&self, addressed: &Addressed<'_>) -> bool {
        let tag = addressed.marks.tag.as_ref().map(|tag| tag.as_str());
        self.senders.matches_sender(addressed.sender)
            && self.recipients.matches(addressed.recipient)
            && any_matches(&self.users, addressed.origin.user.as_deref())
            && any_matches(&self.tags, tag)
            && self.headers.iter().all(|pattern| addressed.header.fits(pattern))
    }

    /// Equal texts mean equal conditions.
    pub(super) fn fingerprint(&self) -> String {
        let written = |patterns: &[TextPattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        let headers = self.headers.iter().map(|header| (&header.name, header.value.to_string()));
        let senders = self.senders.iter().collect::<Vec<_>>();
        let recipients = self.recipients.iter().collect::<Vec<_>>();
        let headers = headers.collect::<Vec<_>>();
        let users = written(&self.users);
        let tags = written(&self.tags);
        format!("{:?}", (senders, recipients, headers, users, tags))
    }
}

/// For example "from *@example.com to *, header X-Kind: report*".
impl fmt::Display for RouteConditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}", self.senders, self.recipients)?;
        for header in &self.headers {
            write!(f, ", header {}: {}", header.name, header.value)?;
        }
        for (what, patterns) in [("user", &self.users), ("tag", &self.tags)] {
            let written: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            if !written.is_empty() {
                write!(f, ", {what} {}", written.join(" or "))?;
            }
        }
        Ok(())
    }
}
