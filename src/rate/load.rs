//! `Load`: the cost of a transaction, and which of its two numbers an account's rates count.

use super::units::Rate;
use std::ops::{Add, Sub};

/// What a provider counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    Messages,
    /// A message to three people counts three times.
    Recipients,
}

/// What an account's rates count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counting {
    /// For rates per second and minute.
    pub rates: Counts,
    /// For rates per hour and day.
    pub quotas: Counts,
}

impl Counting {
    pub const MESSAGES: Self = Self { rates: Counts::Messages, quotas: Counts::Messages };
    pub const RECIPIENTS: Self = Self { rates: Counts::Recipients, quotas: Counts::Recipients };

    pub fn of(self, rate: Rate) -> Counts {
        if rate.is_short() { self.rates } else { self.quotas }
    }
}

/// The load of one or several transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    pub messages: u64,
    pub recipients: u64,
}

impl Load {
    pub fn of_one(recipients: usize) -> Self {
        Self { messages: 1, recipients: recipients as u64 }
    }

    pub fn units(self, counts: Counts) -> u64 {
        match counts {
            Counts::Messages => self.messages,
            Counts::Recipients => self.recipients,
        }
    }
}

impl Add for Load {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, recipients: self.recipients + other.recipients }
    }
}

impl Sub for Load {
    type Output = Self;

    /// Never below zero.
    fn sub(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            recipients: self.recipients.saturating_sub(other.recipients),
        }
    }
}
