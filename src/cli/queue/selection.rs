//! Which messages a command applies to: named, or selected by filters.

use crate::message::MailId;
use crate::queue::{Filter, RecipientState};
use crate::text::any_of;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

pub const STATES: [(&str, RecipientState); 5] = [
    ("waiting", RecipientState::Waiting),
    ("held", RecipientState::Held),
    ("leased", RecipientState::Leased),
    ("failed", RecipientState::Failed),
    ("damaged", RecipientState::Damaged),
];

#[derive(Debug, Clone, Default, clap::Args)]
pub struct Selection {
    /// Only messages with a recipient in this state: waiting, held (by `[storm]`), leased (being sent), failed, or damaged
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub state: Option<RecipientState>,

    /// Only messages with a recipient whose address contains this text
    #[arg(long, value_name = "TEXT")]
    pub recipient: Option<String>,

    /// Only messages of this lane (route), or last tried at this upstream
    #[arg(long, value_name = "NAME")]
    pub upstream: Option<String>,

    /// Only messages with this Message-ID header, whole, with or without its angle brackets
    #[arg(long, value_name = "MESSAGE-ID")]
    pub message_id: Option<String>,

    /// Only messages received longer ago than this, as in 30m, 2h, 5d or 1w
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<SignedDuration>,
}

#[derive(Debug, clap::Args)]
pub struct MessageSelection {
    /// Message IDs
    #[arg(value_name = "ID", conflicts_with = "all")]
    pub ids: Vec<MailId>,

    /// All messages, or all that match the filters
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    pub selection: Selection,
}

impl MessageSelection {
    pub fn wrong_use(&self, has_address: bool) -> Option<&'static str> {
        match (self.all, self.ids.is_empty(), self.selection.is_given()) {
            (false, true, true) => {
                return Some(
                    "the filters alone choose no message: add --all for all that match; `waxseal queue list` takes the same \
                     filters and shows them",
                );
            }
            (false, true, false) => {
                return Some("no message is named: give its ID, as `waxseal queue list` shows it, or --all");
            }
            (false, false, true) => {
                return Some("the filters choose among --all; leave them out where messages are named");
            }
            _ => {}
        }
        (has_address && self.ids.len() != 1).then_some("--to corrects the address of one message at a time")
    }
}

impl Selection {
    pub fn is_given(&self) -> bool {
        let texts = [&self.recipient, &self.upstream, &self.message_id];
        self.state.is_some() || texts.iter().any(|text| text.is_some()) || self.older_than.is_some()
    }

    /// True if there is only a state filter, and the counts tell how many match.
    pub fn is_state_only(&self) -> bool {
        self.state != Some(RecipientState::Held) && !Self { state: None, ..self.clone() }.is_given()
    }

    pub fn filter(&self, now: Timestamp) -> Filter {
        Filter {
            state: self.state,
            recipient: self.recipient.clone(),
            upstream: self.upstream.clone(),
            received_before: self.received_before(now),
            message_id: self.message_id.clone(),
        }
    }

    pub fn received_before(&self, now: Timestamp) -> Option<Timestamp> {
        self.older_than.map(|age| now.checked_sub(age).unwrap_or(Timestamp::MIN))
    }
}

fn state(text: &str) -> Result<RecipientState, String> {
    let found = STATES.iter().find(|(name, _)| *name == text);
    found.map(|(_, state)| *state).ok_or_else(|| format!("use {}", any_of(STATES.map(|(name, _)| name))))
}

/// A day has 24 hours here.
fn age(text: &str) -> Result<SignedDuration, String> {
    let wrong = || "write a number and a unit, as in 30m, 2h, 5d or 1w".to_owned();
    let span: Span = text.parse().map_err(|_| wrong())?;
    if text.trim_start().starts_with(['P', 'p', '-', '+']) || span.get_years() != 0 || span.get_months() != 0 {
        return Err(wrong());
    }
    let age = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    if age.is_positive() { Ok(age) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_numbers_with_units() {
        let hours = SignedDuration::from_hours;
        for (text, expected) in [
            ("2h", hours(2)),
            ("90m", SignedDuration::from_mins(90)),
            ("30s", SignedDuration::from_secs(30)),
            ("5d", hours(120)),
            ("1w", hours(168)),
            ("1d 12h", hours(36)),
            ("2 hours", hours(2)),
        ] {
            assert_eq!(age(text), Ok(expected), "{text}");
        }
        for text in ["", "2", "h", "0h", "-2h", "2h ago", "1 month", "1y", "P1D", "two hours", "99999999999999999d"] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn states_are_named_and_ages_are_before_now() {
        assert_eq!(state("failed"), Ok(RecipientState::Failed));
        assert_eq!(state("Failed"), Err("use waiting, held, leased, failed or damaged".to_owned()));
        let now: Timestamp = "2026-11-24T03:00:00Z".parse().unwrap();
        let selection = Selection { older_than: Some(SignedDuration::from_hours(2)), ..Selection::default() };
        assert_eq!(selection.filter(now).received_before, Some("2026-11-24T01:00:00Z".parse().unwrap()));
        assert!(selection.is_given() && !Selection::default().is_given());
    }
}
