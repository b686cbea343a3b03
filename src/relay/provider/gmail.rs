//! Gmail and Google Workspace. Sources: Google's pages "Send email from a printer, scanner or app", "Gmail sending limits
//! in Google Workspace", "Gmail SMTP errors and codes".
//!
//! The relay service for a whole domain is `host = "smtp-relay.gmail.com"`, where the login may be the address instead.

use super::{Host, Login, MIB, Preset, ProviderLimits, ReturnPath, Signing, implicit, starttls};
use crate::message::adapt::Vocabulary;
use crate::message::outcome::SlowDown;

pub const PRESET: Preset = Preset {
    name: "gmail",
    title: "Gmail",
    host: Host::Fixed("smtp.gmail.com"),
    ports: &[starttls(587), implicit(465)],
    login: Login::UserAndPassword { user: "the whole address", password: "an app password" },
    limits: ProviderLimits {
        recipients: Some(100),
        size: Some(25 * MIB),
        rates: &["2000/day"],
        ..ProviderLimits::NONE
    },
    // There are also limits on recipients, which show as `550 5.4.5`. `450 4.2.1` alone is also the reply for a
    // recipient who gets too much mail.
    slow_down: &[
        SlowDown { code: 450, starts_with: "4.2.1 Peak SMTP relay limit exceeded" },
        SlowDown { code: 550, starts_with: "5.4.5" },
    ],
    signing: Signing::OURS,
    seven_bit_only: false,
    tracking_rewrites_body: false,
    vocabulary: Vocabulary::NONE,
    wants_real_ehlo_name: true,
    refuses_null_sender: false,
    return_path: ReturnPath::Ours { spf_include: "_spf.google.com" },
};
