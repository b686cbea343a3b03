//! Mailgun, in the US and in the EU. Sources: its pages "Send via SMTP", "Passing sending options", "IP pools".
//!
//! It adds its own signature (`X-Mailgun-Dkim: no` would turn that off); the login belongs to one sending domain.

use super::{Host, Login, MIB, Preset, ProviderLimits, ReturnPath, Signing, implicit, starttls};
use crate::message::adapt::{
    AllowedCharacters, AllowedText, FixedSetting, HeaderSlot, MetadataForm, MetadataSlot, SlotForm, Vocabulary,
};

pub const PRESET: Preset = Preset {
    name: "mailgun",
    title: "Mailgun",
    host: Host::Regions(&[("us", "smtp.mailgun.org"), ("eu", "smtp.eu.mailgun.org")]),
    ports: &[starttls(587), starttls(2525), implicit(465)],
    login: Login::UserAndPassword {
        user: "the domain's SMTP login, such as \"postmaster@mg.example.com\"",
        password: "that login's SMTP password",
    },
    limits: ProviderLimits { recipients: Some(1000), size: Some(25 * MIB), ..ProviderLimits::NONE },
    slow_down: &[],
    signing: Signing::OURS,
    seven_bit_only: false,
    tracking_rewrites_body: true,
    vocabulary: Vocabulary {
        own: &["X-Mailgun-"],
        tag: Some(HeaderSlot {
            place: SlotForm::Field("X-Mailgun-Tag"),
            allowed: AllowedText::new(AllowedCharacters::Ascii, 128),
        }),
        stream: None,
        ip_pool: Some(HeaderSlot {
            place: SlotForm::Field("X-Mailgun-Sending-Ip-Pool"),
            allowed: AllowedText::new(AllowedCharacters::Token, 100),
        }),
        metadata: Some(MetadataSlot {
            place: MetadataForm::Object("X-Mailgun-Variables"),
            names: AllowedText::new(AllowedCharacters::Any, 256),
            values: AllowedText::new(AllowedCharacters::Any, 4096),
            most: usize::MAX,
            longest: 4096,
        }),
        no_tracking: Some(FixedSetting::Field { name: "X-Mailgun-Track", value: "no" }),
    },
    wants_real_ehlo_name: false,
    refuses_null_sender: false,
    return_path: ReturnPath::Providers,
};
