//! Explains why a recipient's mail is still waiting: by what holds it now, not by the result of an earlier attempt.

use super::text;
use crate::control::Overview;
use crate::delivery::{HoldCause, LaneObstacle, LaneState};
use crate::observe::log::Clean;
use crate::queue::{RecipientRow, RecipientState, Row, SpoolFigures};
use crate::text::briefly;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// A due time set by an upstream's pause is a little later than the end of the pause.
const CLOSE: SignedDuration = SignedDuration::from_secs(2);

/// The gateway's state and the time, for all rows of one answer.
#[derive(Debug, Clone, Copy)]
pub struct WaitingView<'a> {
    pub overview: &'a Overview,
    pub now: Timestamp,
}

/// What a waiting recipient waits for.
#[derive(Debug, Clone, Copy)]
enum Hold<'a> {
    /// An operator holds it.
    Operator,
    /// It was stored on hold.
    Held,
    /// It waits for the rate of its user or listener, until then.
    SubmissionRate(Timestamp),
    /// No gateway is running.
    NoGateway,
    Lane(&'a LaneObstacle),
    /// The schedule: it is due then.
    Backoff(Timestamp),
    /// Nothing: it is due.
    Next,
}

impl<'a> WaitingView<'a> {
    fn hold(&self, recipient: &RecipientRow) -> Option<Hold<'a>> {
        match recipient.state {
            RecipientState::Held => return Some(Hold::Held),
            RecipientState::Waiting => {}
            RecipientState::Leased | RecipientState::Failed | RecipientState::Damaged => return None,
        }
        if text::is_held(&self.overview.held, &recipient.lane) {
            return Some(Hold::Operator);
        }
        let Some(lanes) = &self.overview.lanes else { return Some(Hold::NoGateway) };
        let state = lanes.iter().find(|state| state.lane == recipient.lane);
        let due = recipient.due.filter(|due| *due > self.now);
        if let Some(due) = due.filter(|_| recipient.delayed) {
            return Some(Hold::SubmissionRate(due));
        }
        Some(match (state.and_then(|state| state.obstacle.as_ref()), due) {
            (Some(obstacle), None) => Hold::Lane(obstacle),
            (Some(obstacle), Some(due)) if obstacle.until.is_some_and(|until| due <= until + CLOSE) => {
                Hold::Lane(obstacle)
            }
            (_, Some(due)) => Hold::Backoff(due),
            (None, None) => Hold::Next,
        })
    }

    /// A few words, for a table.
    pub fn state(&self, recipient: &RecipientRow) -> String {
        match (recipient.state, self.hold(recipient)) {
            (RecipientState::Leased, _) => match &recipient.instance {
                Some(instance) => format!("being sent by {instance}"),
                None => "being sent".to_owned(),
            },
            (RecipientState::Failed, _) => "failed".to_owned(),
            (RecipientState::Damaged, _) => "damaged".to_owned(),
            (_, Some(hold)) => self.words(hold),
            (_, None) => "waiting".to_owned(),
        }
    }

    fn words(&self, hold: Hold<'_>) -> String {
        match hold {
            Hold::Operator | Hold::Held => "held".to_owned(),
            Hold::SubmissionRate(due) => format!("submission rate, {}", self.left(due)),
            Hold::NoGateway => "gateway stopped".to_owned(),
            Hold::Backoff(due) => self.next_try(due),
            Hold::Next => "about to be sent".to_owned(),
            Hold::Lane(obstacle) => {
                let cause = match obstacle.cause {
                    HoldCause::Quota => "quota reached",
                    HoldCause::Breaker => "breaker open",
                    HoldCause::Recovery => "upstream recovering",
                    HoldCause::Rate => "rate",
                    HoldCause::Connections => "connections busy",
                    HoldCause::Ledger => "shared limits unknown",
                    HoldCause::Memory => "memory used up",
                };
                obstacle.until.map_or_else(|| cause.to_owned(), |until| format!("{cause}, {}", self.left(until)))
            }
        }
    }

    /// The reason for its state; the reason of an attempt only if the recipient still waits for that.
    pub fn reason(&self, recipient: &RecipientRow) -> Option<String> {
        let last = || recipient.reason.as_ref().map(|reason| format!("last attempt: {reason}"));
        match self.hold(recipient) {
            None if recipient.state == RecipientState::Leased => last(),
            None | Some(Hold::Backoff(_) | Hold::Held | Hold::SubmissionRate(_)) => recipient.reason.clone(),
            Some(Hold::Lane(obstacle)) => Some(explained(obstacle)),
            Some(Hold::Operator | Hold::NoGateway) => last(),
            Some(Hold::Next) => None,
        }
    }

    /// For programs: what it waits for, until when, at which upstream, in words. `null` if nothing.
    pub fn to_json(self, recipient: &RecipientRow) -> Value {
        let hold = |by: &str| json!({ "by": by, "until": null, "upstream": null, "text": null });
        match self.hold(recipient) {
            None | Some(Hold::Next) => Value::Null,
            Some(Hold::Operator) => hold("operator"),
            Some(Hold::Held) => json!({ "by": "storm", "until": null, "upstream": null, "text": recipient.reason }),
            Some(Hold::SubmissionRate(due)) => {
                json!({ "by": "submission_rate", "until": due, "upstream": null, "text": recipient.reason })
            }
            Some(Hold::NoGateway) => hold("gateway_stopped"),
            Some(Hold::Backoff(due)) => {
                json!({ "by": "backoff", "until": due, "upstream": null, "text": recipient.reason })
            }
            Some(Hold::Lane(LaneObstacle { cause, upstream, text, until })) => {
                json!({ "by": cause, "until": until, "upstream": upstream, "text": text })
            }
        }
    }

    /// For all recipients: one word if they are in the same state, otherwise the number in each state.
    pub fn message_state(&self, row: &Row) -> String {
        if row.is_spooled {
            return "in the spool".to_owned();
        }
        let mut counted: Vec<(String, u64)> = Vec::new();
        for recipient in &row.recipients {
            // Due times would only distinguish equal states.
            let word = match self.hold(recipient) {
                Some(Hold::Backoff(_)) => "waiting".to_owned(),
                _ => self.state(recipient),
            };
            match counted.iter_mut().find(|(known, _)| *known == word) {
                Some((_, number)) => *number += 1,
                None => counted.push((word, 1)),
            }
        }
        if let [(word, _)] = counted.as_slice() {
            let next = row.recipients.iter().filter_map(|recipient| recipient.due).min();
            return next.filter(|_| word == "waiting").map_or(word.clone(), |due| self.next_try(due));
        }
        counted.iter().map(|(word, number)| format!("{number} {word}")).collect::<Vec<_>>().join(", ")
    }

    /// One line for each cause, with the number of messages that wait for it.
    pub fn summary(&self) -> Vec<String> {
        let spool = self.overview.spool.iter().filter_map(of_spool);
        let waiting = self.overview.counts.waiting;
        let Some(lanes) = &self.overview.lanes else {
            let lines =
                (waiting > 0).then(|| format!("The gateway is not running: {} waiting for it.", grouped(waiting)));
            return spool.chain(lines).collect();
        };
        spool.chain(lanes.iter().flat_map(|state| self.of_lane(state))).collect()
    }

    fn of_lane(&self, state: &LaneState) -> Vec<String> {
        let LaneState { lane, obstacle, waiting, later, held, delayed } = state;
        let now = waiting.saturating_sub(*later);
        let lane = Clean(lane);
        let count =
            |number: u64| if number >= LaneState::MOST { format!("over {}", grouped(number)) } else { grouped(number) };
        let mut lines = Vec::new();
        if *held > 0 {
            let command = "waxseal queue release --all --state held";
            lines.push(format!("{} held by [storm] on lane {lane}; `{command}` releases them", count(*held)));
        }
        if text::is_held(&self.overview.held, &state.lane) {
            let all = *waiting + *delayed;
            lines.extend((all > 0).then(|| format!("{} held on lane {lane}", count(all))));
            return lines;
        }
        if *delayed > 0 {
            lines.push(format!("{} waiting for the rate of their user or listener on lane {lane}", count(*delayed)));
        }
        match obstacle {
            Some(obstacle) if now > 0 => {
                let next =
                    obstacle.until.map(|until| format!("; next try in {}", self.left(until))).unwrap_or_default();
                lines.push(format!("{} waiting for {}{next}", count(now), Clean(explained(obstacle))));
            }
            None if now > 0 => lines.push(format!("{} about to be sent on lane {lane}", count(now))),
            _ => {}
        }
        if *later > 0 {
            lines.push(format!("{} waiting for the next try on lane {lane}", count(*later)));
        }
        lines
    }

    fn next_try(&self, due: Timestamp) -> String {
        if due > self.now { format!("next try in {}", self.left(due)) } else { "about to be sent".to_owned() }
    }

    fn left(&self, until: Timestamp) -> String {
        briefly((until.as_second() - self.now.as_second()).max(1).unsigned_abs())
    }
}

/// That there is a spool says nothing by itself.
fn of_spool(SpoolFigures { recipients, away, .. }: &SpoolFigures) -> Option<String> {
    let waits = match recipients {
        0 => "No mail waits".to_owned(),
        1 => "Mail for 1 recipient waits".to_owned(),
        many => format!("Mail for {} recipients waits", grouped(*many)),
    };
    match away {
        Some(reason) => Some(format!(
            "Redis does not answer, so only what is in this gateway's spool is shown ({}). {waits} there.",
            Clean(reason)
        )),
        None if *recipients > 0 => Some(format!("{waits} in this gateway's spool, and moves into Redis.")),
        None => None,
    }
}

fn explained(obstacle: &LaneObstacle) -> String {
    match &obstacle.upstream {
        Some(upstream) => format!("{upstream}: {}", obstacle.text),
        None => obstacle.text.clone(),
    }
}

/// `10,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
