//! Amazon SES. Sources: its developer guide, "SMTP credentials", "Connecting to an SMTP endpoint", "Header fields",
//! "Quotas", "Issues with SMTP throughput".
//!
//! It keeps our signature and adds its own, but rewrites four fields and refuses a second DKIM-Signature
//! (`554 Duplicate header`). Its quotas count recipients.

use super::{Counting, Host, Login, MIB, Preset, ProviderLimits, ReturnPath, Signing, implicit, starttls};
use crate::message::adapt::{
    AllowedCharacters, AllowedText, HeaderSlot, MetadataForm, MetadataSlot, SlotForm, Vocabulary,
};
use crate::message::outcome::SlowDown;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const TAGS: &str = "X-SES-MESSAGE-TAGS";

pub const PRESET: Preset = Preset {
    name: "ses",
    title: "Amazon SES",
    host: Host::RegionWithin {
        before: "email-smtp.",
        after: ".amazonaws.com",
        examples: "such as \"us-east-1\", \"us-west-2\", \"eu-west-1\", \"eu-central-1\", \"ap-southeast-2\"",
    },
    ports: &[starttls(587), starttls(2587), implicit(465), implicit(2465)],
    login: Login::Derived {
        user: "the access key id (AKIA...)",
        password: "the secret access key as `secret_key`, or the SMTP password that the SES console made",
        derive: smtp_password,
    },
    // The limits per second and day depend on the account: `rate` sets them.
    limits: ProviderLimits {
        recipients: Some(50),
        size: Some(40 * MIB),
        counting: Counting::RECIPIENTS,
        ..ProviderLimits::NONE
    },
    // For both limits: it drops the mail and wants it again later, after up to ten minutes.
    slow_down: &[SlowDown { code: 454, starts_with: "Throttling failure" }],
    signing: Signing::Ours {
        provider_rewrites: &["Message-ID", "Date", "Return-Path", "Bounces-To"],
        one_signature: true,
    },
    seven_bit_only: false,
    tracking_rewrites_body: true,
    vocabulary: Vocabulary {
        own: &["X-SES-"],
        tag: Some(HeaderSlot {
            place: SlotForm::Pair { field: TAGS, key: "tag" },
            allowed: AllowedText::new(AllowedCharacters::Token, 256),
        }),
        stream: Some(HeaderSlot {
            place: SlotForm::Field("X-SES-CONFIGURATION-SET"),
            allowed: AllowedText::new(AllowedCharacters::Token, 64),
        }),
        // The pool belongs to the configuration set.
        ip_pool: None,
        metadata: Some(MetadataSlot {
            place: MetadataForm::List(TAGS),
            names: AllowedText::new(AllowedCharacters::Token, 256),
            values: AllowedText::new(AllowedCharacters::Token, 256),
            most: 50,
            longest: usize::MAX,
        }),
        no_tracking: None,
    },
    wants_real_ehlo_name: false,
    // Every sender must be a verified identity.
    refuses_null_sender: true,
    return_path: ReturnPath::Providers,
};

/// The SMTP password that belongs to a secret access key in one region.
pub fn smtp_password(secret_key: &str, region: &str) -> String {
    const VERSION: u8 = 4;
    let mut key = format!("AWS4{secret_key}").into_bytes();
    for step in ["11111111", region, "ses", "aws4_request", "SendRawEmail"] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), step.as_bytes());
        key = tag.as_ref().to_vec();
    }
    key.insert(0, VERSION);
    STANDARD.encode(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known results.
    #[test]
    fn passwords_are_derived_for_a_region() {
        for (secret, region, password) in [
            ("some+secret+key", "eu-central-1", "BMXhUYlu5Z3gSXVQORxlVa7XPaz91aGWdfHxvkOZdWZ2"),
            ("some+secret+key", "us-west-1", "BH+jbMzper5WwlwUar9E1ySBqHa9whi0GPo+sJ0mVYJj"),
            ("another+secret+key", "eu-central-1", "BBbphbrQmrKMx42d1N6+C7VINYEBGI5v9VsZeTxwskfh"),
            ("another+secret+key", "us-west-1", "BKVmjjMDFk/qqw8EROW99bjCS65PF8WKvK5bSr4Y6EqF"),
        ] {
            assert_eq!(smtp_password(secret, region), password, "{secret} in {region}");
        }
    }
}
