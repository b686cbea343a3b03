//! Whole configurations: typed text against its resolved settings, and mistakes against their messages.

mod client_certificate;
mod environment;
mod mistakes;
mod providers;
mod redis;
mod rewrite;
mod secrets;
mod settings;

use super::{ConfigFile, Environment, Problems, Provider, Settings, UpstreamLogins, UpstreamSettings, load};
use crate::relay::Endpoint;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// A folder with a configuration in it and files that it can name.
struct Folder(TempDir);

static FOLDERS: AtomicU32 = AtomicU32::new(0);

impl Folder {
    fn new() -> Self {
        // Letters at random could pass for a secret, and would be masked where a message names the folder.
        let name = format!("settings-{}-{}-", std::process::id(), FOLDERS.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir().expect("a folder");
        let folder = Self(folder);
        let certified = rcgen::generate_simple_self_signed(["gateway.example.com".to_owned()]).expect("a certificate");
        folder.write("gateway.pem", &certified.cert.pem());
        folder.write("gateway.key", &certified.signing_key.serialize_pem());
        folder.write(
            "encrypted.pem",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        folder.write("rsa.pem", include_str!("../dkim/testdata/rsa2048.pem"));
        folder.write("ed25519.pem", include_str!("../dkim/testdata/ed25519.pem"));
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// For the owner only, as keys should be.
    fn write(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path().join(name);
        std::fs::write(&path, content).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    }

    fn load(&self, text: &str, environment: &Environment) -> Result<Settings, Problems> {
        self.write("config.toml", text);
        self.load_file("config.toml", true, environment)
    }

    fn load_file(&self, name: &str, explicit: bool, environment: &Environment) -> Result<Settings, Problems> {
        load(&ConfigFile { path: &self.path().join(name), explicit }, environment)
    }

    /// One line each, with the folder's own path removed.
    fn shorten(&self, problems: &Problems) -> Vec<String> {
        let prefix = format!("{}/", self.path().display());
        problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
    }
}

/// The upstream's endpoint and logins.
fn reached(upstream: &UpstreamSettings) -> (&Endpoint, &UpstreamLogins) {
    match &upstream.provider {
        Provider::Smtp { endpoint, logins } => (endpoint, logins),
        Provider::Sandbox => panic!("not the sandbox"),
    }
}

fn nothing() -> Environment {
    Environment::of::<String, String>([])
}

fn settings(text: &str) -> Settings {
    let folder = Folder::new();
    folder.load(text, &nothing()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn mistakes(text: &str) -> Vec<String> {
    let folder = Folder::new();
    folder.load(text, &nothing()).map(|_| Vec::new()).unwrap_or_else(|problems| folder.shorten(&problems))
}

/// The smallest configuration that starts without a warning.
const SMALLEST: &str = "hostname = \"gateway.example.com\"\nunsigned = \"send\"\n\
                        [[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";
