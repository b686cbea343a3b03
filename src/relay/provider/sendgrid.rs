//! SendGrid. Sources: its pages "Integrating with the SMTP API", "Building an X-SMTPAPI header", "Filters".
//!
//! All its words are members of one JSON object in one header; what the application says there itself is kept.

use super::{Host, Limits, Login, MIB, Preset, Signing, implicit, starttls};
use crate::message::adapt::{Allowed, Characters, Pairs, PairsPlace, Place, Setting, Vocabulary, Word};

const FIELD: &str = "X-SMTPAPI";

pub const PRESET: Preset = Preset {
    name: "sendgrid",
    title: "SendGrid",
    host: Host::Fixed("smtp.sendgrid.net"),
    ports: &[starttls(587), starttls(2525), implicit(465)],
    login: Login::FixedUser { user: "apikey", password: "an API key with the right to send mail" },
    limits: Limits {
        messages_per_connection: Some(5000),
        recipients: Some(1000),
        size: Some(30 * MIB),
        ..Limits::NONE
    },
    slow_down: &[],
    signing: Signing::OURS,
    seven_bit_only: false,
    tracking_rewrites_body: true,
    vocabulary: Vocabulary {
        own: &[FIELD],
        tag: Some(Word {
            place: Place::Member { field: FIELD, key: "category", list: true },
            allowed: Allowed::new(Characters::Ascii, 255),
        }),
        stream: None,
        ip_pool: Some(Word {
            place: Place::Member { field: FIELD, key: "ip_pool", list: false },
            allowed: Allowed::new(Characters::Ascii, 64),
        }),
        metadata: Some(Pairs {
            place: PairsPlace::Member { field: FIELD, key: "unique_args" },
            names: Allowed::new(Characters::Any, 256),
            values: Allowed::new(Characters::Any, 900),
            most: usize::MAX,
            longest: 10_000,
        }),
        no_tracking: Some(Setting::Member {
            field: FIELD,
            key: "filters",
            json: r#"{"clicktrack": {"settings": {"enable": 0}}, "opentrack": {"settings": {"enable": 0}}}"#,
        }),
    },
    wants_real_ehlo_name: false,
};
