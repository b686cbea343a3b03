//! The configuration: what is typed in `config.toml` and the environment, and what it resolves to.
//!
//! Everything wrong is reported at once, each with its place and a way out; nothing starts half-way. Never starts or
//! connects anything.

pub mod key_file;
mod settings;

pub use settings::{
    Connections, DkimSettings, Endpoint, ListenerSettings, Provider, RouteSettings, Settings, UpstreamSettings,
    UserSettings,
};
