//! Mandrill (Mailchimp Transactional). Sources: its pages "How to send via SMTP", "Use SMTP headers to customize your
//! messages", "Custom message metadata".
//!
//! It accepts 7-bit mail only, adds its own signature, and holds back mail above the hourly quota by itself.

use super::{Host, Login, MIB, Preset, ProviderLimits, ReturnPath, Signing, implicit, starttls};
use crate::message::adapt::{
    AllowedCharacters, AllowedText, HeaderSlot, MetadataForm, MetadataSlot, SlotForm, Vocabulary,
};

pub const PRESET: Preset = Preset {
    name: "mandrill",
    title: "Mandrill",
    host: Host::Fixed("smtp.mandrillapp.com"),
    ports: &[starttls(587), starttls(2525), implicit(465)],
    login: Login::AnyUser { default: "waxseal", password: "an API key" },
    limits: ProviderLimits { size: Some(25 * MIB), ..ProviderLimits::NONE },
    slow_down: &[],
    signing: Signing::OURS,
    seven_bit_only: true,
    tracking_rewrites_body: true,
    vocabulary: Vocabulary {
        own: &["X-MC-"],
        tag: Some(HeaderSlot {
            place: SlotForm::Field("X-MC-Tags"),
            allowed: AllowedText::new(AllowedCharacters::NoComma, 50),
        }),
        // The closest equivalent: a part of the account with its own reputation and statistics.
        stream: Some(HeaderSlot {
            place: SlotForm::Field("X-MC-Subaccount"),
            allowed: AllowedText::new(AllowedCharacters::Ascii, 255),
        }),
        ip_pool: Some(HeaderSlot {
            place: SlotForm::Field("X-MC-IPPool"),
            allowed: AllowedText::new(AllowedCharacters::Ascii, 100),
        }),
        metadata: Some(MetadataSlot {
            place: MetadataForm::Object("X-MC-Metadata"),
            names: AllowedText::new(AllowedCharacters::Any, 256),
            values: AllowedText::new(AllowedCharacters::Any, 500),
            most: usize::MAX,
            longest: 500,
        }),
        // X-MC-Track only turns tracking on.
        no_tracking: None,
    },
    wants_real_ehlo_name: false,
    refuses_null_sender: false,
    return_path: ReturnPath::Providers,
};
