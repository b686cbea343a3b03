//! The embedded provider, which keeps mail and sends nothing. It is an SMTP server, but no setting affects it.

use super::{HEADERS, Host, Preset, smtp};
use crate::message::adapt::Vocabulary;

pub const PRESET: Preset = Preset {
    name: "sandbox",
    title: "the sandbox",
    host: Host::Embedded,
    // It shows the application's headers for any provider.
    vocabulary: Vocabulary { own: HEADERS, ..Vocabulary::NONE },
    ..smtp::PRESET
};
