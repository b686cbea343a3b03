//! Any SMTP server, including the company's own: nothing is known, everything is configured.

use super::{Host, Login, Preset, ProviderLimits, ReturnPath, Signing, starttls};
use crate::message::adapt::Vocabulary;

pub const PRESET: Preset = Preset {
    name: "smtp",
    title: "an SMTP server",
    host: Host::Configured,
    ports: &[starttls(587)],
    login: Login::Optional,
    limits: ProviderLimits::NONE,
    slow_down: &[],
    signing: Signing::OURS,
    seven_bit_only: false,
    tracking_rewrites_body: false,
    vocabulary: Vocabulary::NONE,
    wants_real_ehlo_name: false,
    refuses_null_sender: false,
    return_path: ReturnPath::Unknown,
};
