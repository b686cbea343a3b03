//! The provider inside the process, which keeps mail and sends nothing: as an SMTP server, but no setting reaches it.

use super::{HEADERS, Host, Preset, smtp};
use crate::message::adapt::Vocabulary;

pub const PRESET: Preset = Preset {
    name: "sandbox",
    title: "the sandbox",
    host: Host::Embedded,
    // It shows what the application wrote, for whichever provider.
    vocabulary: Vocabulary { own: HEADERS, ..Vocabulary::NONE },
    ..smtp::PRESET
};
