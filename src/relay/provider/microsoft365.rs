//! Microsoft 365 (Exchange Online), authenticated submission. Sources: Microsoft's pages "Exchange Online limits" and
//! "Message storage and concurrent connection throttling for SMTP AUTH".
//!
//! It offers AUTH LOGIN but not PLAIN, and only if SMTP AUTH is allowed for the mailbox.

use super::{Counting, Counts, Host, Login, Preset, ProviderLimits, ReturnPath, Signing, starttls};
use crate::message::adapt::Vocabulary;
use crate::message::outcome::SlowDown;

pub const PRESET: Preset = Preset {
    name: "microsoft365",
    title: "Microsoft 365",
    host: Host::Fixed("smtp.office365.com"),
    ports: &[starttls(587)],
    login: Login::UserAndPassword { user: "the mailbox's address", password: "its password, or an app password" },
    limits: ProviderLimits {
        connections: Some(3),
        recipients: Some(500),
        rates: &["30/min", "10000/day"],
        counting: Counting { rates: Counts::Messages, quotas: Counts::Recipients },
        ..ProviderLimits::NONE
    },
    slow_down: &[
        SlowDown { code: 432, starts_with: "4.3.2" },
        SlowDown { code: 430, starts_with: "4.3.2" },
        SlowDown { code: 554, starts_with: "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceeded" },
    ],
    signing: Signing::OURS,
    seven_bit_only: false,
    tracking_rewrites_body: false,
    vocabulary: Vocabulary::NONE,
    wants_real_ehlo_name: false,
    refuses_null_sender: false,
    return_path: ReturnPath::Ours { spf_include: "spf.protection.outlook.com" },
};
