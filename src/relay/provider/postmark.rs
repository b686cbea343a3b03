//! Postmark. Sources: its pages "Send with SMTP", "Tags FAQ", "Custom metadata FAQ", "Message Streams".
//!
//! It parses a message and assembles it anew, so that a signature made here would not hold; it signs for domains that
//! are verified there.

use super::{Host, Limits, Login, MIB, Preset, Signing, starttls};
use crate::message::adapt::{Allowed, Characters, Pairs, PairsPlace, Place, Vocabulary, Word};

pub const PRESET: Preset = Preset {
    name: "postmark",
    title: "Postmark",
    // Its broadcast streams have a host of their own, smtp-broadcasts.postmarkapp.com: `host` names it.
    host: Host::Fixed("smtp.postmarkapp.com"),
    ports: &[starttls(587), starttls(2525)],
    login: Login::TokenAsBoth { token: "the server's API token" },
    limits: Limits { connections: Some(10), recipients: Some(50), size: Some(10 * MIB), ..Limits::NONE },
    slow_down: &[],
    signing: Signing::LeftToProvider,
    seven_bit_only: false,
    tracking_rewrites_body: true,
    vocabulary: Vocabulary {
        own: &["X-PM-"],
        tag: Some(Word { place: Place::Field("X-PM-Tag"), allowed: Allowed::new(Characters::Ascii, 1000) }),
        stream: Some(Word {
            place: Place::Field("X-PM-Message-Stream"),
            allowed: Allowed::new(Characters::Token, 100),
        }),
        ip_pool: None,
        metadata: Some(Pairs {
            place: PairsPlace::FieldForEach("X-PM-Metadata-"),
            names: Allowed::new(Characters::Token, 20),
            values: Allowed::new(Characters::Ascii, 80),
            most: 10,
            longest: 80,
        }),
        // What it writes anew it also signs.
        no_tracking: None,
    },
    wants_real_ehlo_name: false,
};
