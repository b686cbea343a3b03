//! Mandrill (Mailchimp Transactional). Sources: its pages "How to send via SMTP", "Use SMTP headers to customize your
//! messages", "Custom message metadata".
//!
//! It wants 7-bit mail, signs besides us, and holds mail over the hourly quota back by itself.

use super::{Host, Limits, Login, MIB, Preset, Signing, implicit, starttls};
use crate::message::adapt::{Allowed, Characters, Pairs, PairsPlace, Place, Vocabulary, Word};

pub const PRESET: Preset = Preset {
    name: "mandrill",
    title: "Mandrill",
    host: Host::Fixed("smtp.mandrillapp.com"),
    ports: &[starttls(587), starttls(2525), implicit(465)],
    login: Login::AnyUser { default: "waxseal", password: "an API key" },
    limits: Limits { size: Some(25 * MIB), ..Limits::NONE },
    slow_down: &[],
    signing: Signing::OURS,
    seven_bit_only: true,
    tracking_rewrites_body: true,
    vocabulary: Vocabulary {
        own: &["X-MC-"],
        tag: Some(Word { place: Place::Field("X-MC-Tags"), allowed: Allowed::new(Characters::NoComma, 50) }),
        // The nearest it has: a part of the account with a reputation and statistics of its own.
        stream: Some(Word { place: Place::Field("X-MC-Subaccount"), allowed: Allowed::new(Characters::Ascii, 255) }),
        ip_pool: Some(Word { place: Place::Field("X-MC-IPPool"), allowed: Allowed::new(Characters::Ascii, 100) }),
        metadata: Some(Pairs {
            place: PairsPlace::Object("X-MC-Metadata"),
            names: Allowed::new(Characters::Any, 256),
            values: Allowed::new(Characters::Any, 500),
            most: usize::MAX,
            longest: 500,
        }),
        // X-MC-Track only turns tracking on.
        no_tracking: None,
    },
    wants_real_ehlo_name: false,
};
