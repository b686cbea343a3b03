//! SendGrid. Sources: its pages "Integrating with the SMTP API", "Building an X-SMTPAPI header", "Filters".
//!
//! All its settings are members of one JSON object in one header; the application's own members are kept.

use super::{Host, Login, MIB, Preset, ProviderLimits, ReturnPath, Signing, implicit, starttls};
use crate::message::adapt::{
    AllowedCharacters, AllowedText, FixedSetting, HeaderSlot, MetadataForm, MetadataSlot, SlotForm, Vocabulary,
};

const FIELD: &str = "X-SMTPAPI";

pub const PRESET: Preset = Preset {
    name: "sendgrid",
    title: "SendGrid",
    host: Host::Fixed("smtp.sendgrid.net"),
    ports: &[starttls(587), starttls(2525), implicit(465)],
    login: Login::FixedUser { user: "apikey", password: "an API key with the right to send mail" },
    limits: ProviderLimits {
        messages_per_connection: Some(5000),
        recipients: Some(1000),
        size: Some(30 * MIB),
        ..ProviderLimits::NONE
    },
    slow_down: &[],
    signing: Signing::OURS,
    seven_bit_only: false,
    tracking_rewrites_body: true,
    vocabulary: Vocabulary {
        own: &[FIELD],
        tag: Some(HeaderSlot {
            place: SlotForm::Member { field: FIELD, key: "category", list: true },
            allowed: AllowedText::new(AllowedCharacters::Ascii, 255),
        }),
        stream: None,
        ip_pool: Some(HeaderSlot {
            place: SlotForm::Member { field: FIELD, key: "ip_pool", list: false },
            allowed: AllowedText::new(AllowedCharacters::Ascii, 64),
        }),
        metadata: Some(MetadataSlot {
            place: MetadataForm::Member { field: FIELD, key: "unique_args" },
            names: AllowedText::new(AllowedCharacters::Any, 256),
            values: AllowedText::new(AllowedCharacters::Any, 900),
            most: usize::MAX,
            longest: 10_000,
        }),
        no_tracking: Some(FixedSetting::Member {
            field: FIELD,
            key: "filters",
            json: r#"{"clicktrack": {"settings": {"enable": 0}}, "opentrack": {"settings": {"enable": 0}}}"#,
        }),
    },
    wants_real_ehlo_name: false,
    refuses_null_sender: false,
    return_path: ReturnPath::Providers,
};
