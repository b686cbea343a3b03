//! Postmark. Sources: its pages "Send with SMTP", "Tags FAQ", "Custom metadata FAQ", "Message Streams".
//!
//! It parses a message and reassembles it, so a signature made here would break; it signs for domains that are verified
//! there.

use super::{Host, Login, MIB, Preset, ProviderLimits, ReturnPath, Signing, starttls};
use crate::message::adapt::{
    AllowedCharacters, AllowedText, HeaderSlot, MetadataForm, MetadataSlot, SlotForm, Vocabulary,
};

pub const PRESET: Preset = Preset {
    name: "postmark",
    title: "Postmark",
    // Its broadcast streams have their own host, smtp-broadcasts.postmarkapp.com, which `host` can set.
    host: Host::Fixed("smtp.postmarkapp.com"),
    ports: &[starttls(587), starttls(2525)],
    login: Login::TokenAsBoth { token: "the server's API token" },
    limits: ProviderLimits {
        connections: Some(10),
        recipients: Some(50),
        size: Some(10 * MIB),
        ..ProviderLimits::NONE
    },
    slow_down: &[],
    signing: Signing::LeftToProvider,
    seven_bit_only: false,
    tracking_rewrites_body: true,
    vocabulary: Vocabulary {
        own: &["X-PM-"],
        tag: Some(HeaderSlot {
            place: SlotForm::Field("X-PM-Tag"),
            allowed: AllowedText::new(AllowedCharacters::Ascii, 1000),
        }),
        stream: Some(HeaderSlot {
            place: SlotForm::Field("X-PM-Message-Stream"),
            allowed: AllowedText::new(AllowedCharacters::Token, 100),
        }),
        ip_pool: None,
        metadata: Some(MetadataSlot {
            place: MetadataForm::FieldForEach("X-PM-Metadata-"),
            names: AllowedText::new(AllowedCharacters::Token, 20),
            values: AllowedText::new(AllowedCharacters::Ascii, 80),
            most: 10,
            longest: 80,
        }),
        // It signs after rewriting.
        no_tracking: None,
    },
    wants_real_ehlo_name: false,
    refuses_null_sender: false,
    return_path: ReturnPath::Providers,
};
