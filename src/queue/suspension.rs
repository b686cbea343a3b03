//! `Suspension`: why a recipient is accepted and not yet to be leased. It is written in front of the name of its lane, so
//! that nothing else of the queue has to know of it.

use super::Lane;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suspension {
    /// Until an operator releases it.
    Held,
    /// Until it is due.
    Delayed,
}

impl Suspension {
    pub const ALL: [Self; 2] = [Self::Held, Self::Delayed];

    /// No other lane's name may begin with it.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Held => "held:",
            Self::Delayed => "delayed:",
        }
    }

    /// Where mail for this lane waits meanwhile.
    pub fn of(self, lane: &str) -> Lane {
        Lane::new(format!("{}{lane}", self.prefix()))
    }

    /// Whether mail on the lane of this name is suspended, and the lane that it is for.
    pub fn split(name: &str) -> (Option<Self>, &str) {
        let found = Self::ALL.into_iter().find_map(|it| Some((Some(it), name.strip_prefix(it.prefix())?)));
        found.unwrap_or((None, name))
    }
}
