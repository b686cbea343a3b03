//! What the finaliser needs to know of an upstream: its header names, what it cannot carry, who signs. Built from a
//! preset and the configuration's changes to it; knows no provider by name.

use crate::message::adapt::Vocabulary;
use crate::relay::provider::{Preset, Signing};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub vocabulary: Vocabulary,
    pub seven_bit_only: bool,
    pub signing: Signing,
    /// Per transaction.
    pub max_recipients: Option<usize>,
    /// In octets.
    pub max_size: Option<u64>,
}

impl Profile {
    pub fn of(preset: &Preset) -> Self {
        Self {
            vocabulary: preset.vocabulary,
            seven_bit_only: preset.seven_bit_only,
            signing: preset.signing,
            max_recipients: preset.limits.recipients,
            max_size: preset.limits.size,
        }
    }
}
