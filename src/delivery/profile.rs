//! What finalising a message needs to know of its upstream: its words, what it cannot carry, who signs.
//! Made from a preset and what the configuration changes of it; knows no provider by name.

use crate::message::adapt::Vocabulary;
use crate::relay::provider::{Preset, Signing};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub vocabulary: Vocabulary,
    pub seven_bit_only: bool,
    pub signing: Signing,
    /// Of one transaction.
    pub max_recipients: Option<usize>,
    /// Octets.
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
