//! The environment: Plausible's own variables and the gateway's, each also as a file of a secrets folder.
//!
//! It is merged over the file's values before anything is resolved, so that both follow the same rules. The
//! process's variables are read in one place, [`Environment::of_process`]; values are never printed.

use super::input::Typed;
use super::masking::{hide_secret, hide_value, is_plain, is_secrets_name};
use super::problem::{Findings, Place};
use super::suggest::nearest;
use super::value::{Complaint, Number, Text};
use crate::observe::Redaction;
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where container engines put secrets.
const SECRETS_FOLDER: &str = "/run/secrets";
/// Names another folder, as it does for Plausible.
const SECRETS_FOLDER_VARIABLE: &str = "CONFIG_DIR";

/// Every variable that waxseal reads, for `waxseal check --defaults`.
pub const VARIABLES: &[(&str, &str)] = &[
    ("SMTP_HOST_ADDR", "the provider; makes an upstream named `environment`, which gets what no route takes"),
    ("SMTP_HOST_PORT", "its port; default 587"),
    ("SMTP_USER_NAME", "login at the provider, together with SMTP_USER_PWD"),
    ("SMTP_USER_PWD", "password at the provider"),
    ("SMTP_HOST_SSL_ENABLED", "true: TLS from the start; default: what the port is for"),
    ("SMTP_POOL_SIZE", "connections at once, `max_connections`"),
    ("SMTP_RETRIES", "quick connect retries, `connect_retries`"),
    ("WAXSEAL_LISTEN", "addresses to listen on, with commas; they replace the file's [[listener]] tables"),
    ("WAXSEAL_ALLOW", "networks that may send without a login, with commas; for listeners without `allow`"),
    ("WAXSEAL_USER", "a login for applications, together with WAXSEAL_PASSWORD"),
    ("WAXSEAL_PASSWORD", "its password, or the hash that `waxseal user hash` prints"),
    ("WAXSEAL_HOSTNAME", "`hostname`"),
    ("WAXSEAL_DATA_DIR", "`data_dir`"),
    ("DKIM_DOMAIN", "a DKIM key's domain, together with the next two"),
    ("DKIM_SELECTOR", "the key's selector"),
    ("DKIM_PRIVATE_KEY", "the key itself (PEM), or the path of its file"),
];

/// Variables and a folder of secrets, as a value.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    secrets_folder: Option<PathBuf>,
}

/// One setting of the environment.
#[derive(Clone)]
pub(super) struct Found {
    pub text: String,
    pub place: Place,
}

impl Environment {
    /// The process's own.
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut environment = Self::of(variables);
        environment.secrets_folder.get_or_insert_with(|| SECRETS_FOLDER.into());
        environment
    }

    /// These variables alone; files only if CONFIG_DIR is among them.
    pub fn of<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let variables: BTreeMap<_, _> =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let secrets_folder =
            variables.get(SECRETS_FOLDER_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        Self { variables, secrets_folder }
    }

    /// A variable, files left aside. Empty is unset: compose files pass `NAME=` for what is not there.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// True for files of the secrets folder.
    pub(super) fn holds_secret(&self, path: &Path) -> bool {
        self.secrets_folder.as_ref().is_some_and(|folder| path.starts_with(folder))
    }

    /// A setting: the file of that name in the secrets folder, else the variable. White space around it is not part of
    /// it, as in Plausible.
    pub(super) fn find(&self, name: &str, findings: &mut Findings) -> Option<Found> {
        self.find_in_folder(name, findings).or_else(|| {
            let text = self.variable(name)?.trim();
            (!text.is_empty()).then(|| Found { text: text.to_owned(), place: Place::Environment(name.to_owned()) })
        })
    }

    fn find_in_folder(&self, name: &str, findings: &mut Findings) -> Option<Found> {
        let path = self.secrets_folder.as_ref()?.join(name);
        let place = Place::Environment(path.display().to_string());
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(Found { text: text.trim().to_owned(), place }),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            Err(error) => {
                findings.error(&place, format!("it cannot be read: {error}"));
                None
            }
        }
    }

    /// Adds whatever of its values no message may hold.
    pub(super) fn survey(&self, hidden: &mut Redaction) {
        const WORDS: [&str; 4] = ["SMTP_HOST_PORT", "SMTP_HOST_SSL_ENABLED", "SMTP_POOL_SIZE", "SMTP_RETRIES"];
        let names = VARIABLES.iter().map(|(name, _)| *name).chain(["MAILER_EMAIL", SECRETS_FOLDER_VARIABLE]);
        for name in names {
            let Some(Found { text, .. }) = self.find(name, &mut Findings::default()) else { continue };
            match name {
                _ if is_secrets_name(name) => hide_secret(&text, hidden),
                // Shifted by one line, they hold the password.
                _ if WORDS.contains(&name) && !is_plain(&text) => hidden.add_secret(&text),
                // Of a list each item is quoted by itself.
                _ => text.split([',', ' ']).chain([&text[..]]).for_each(|text| hide_value(text, hidden)),
            }
        }
    }

    /// A setting read as `T`.
    pub(super) fn text<T: Text>(&self, name: &str, findings: &mut Findings) -> Option<Typed<T>> {
        self.read(name, findings, T::parse)
    }

    pub(super) fn number<const MIN: u64, const MAX: u64>(
        &self,
        name: &str,
        findings: &mut Findings,
    ) -> Option<Typed<Number<MIN, MAX>>> {
        self.read(name, findings, Number::parse)
    }

    pub(super) fn flag(&self, name: &str, findings: &mut Findings) -> Option<Typed<bool>> {
        self.read(name, findings, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(Complaint::new(format!("\"{text}\" is neither true nor false"), "use true or false")),
        })
    }

    /// Items between commas, each wrong one a problem of its own. `None` if there is no such setting.
    pub(super) fn list<T: Text>(&self, name: &str, findings: &mut Findings) -> Option<Typed<Vec<T>>> {
        let found = self.find(name, findings)?;
        let items = found.text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let read: Vec<Option<T>> = items.map(|item| report(T::parse(item), &found.place, findings)).collect();
        (!read.is_empty()).then(|| match read.into_iter().collect() {
            Some(items) => Typed::given(items, found.place.clone()),
            None => Typed::invalid(found.place.clone()),
        })
    }

    fn read<T>(
        &self,
        name: &str,
        findings: &mut Findings,
        parse: impl FnOnce(&str) -> Result<T, Complaint>,
    ) -> Option<Typed<T>> {
        let found = self.find(name, findings)?;
        Some(match report(parse(&found.text), &found.place, findings) {
            Some(value) => Typed::given(value, found.place),
            None => Typed::invalid(found.place),
        })
    }

    /// Warns about variables that look like a misspelling of ours. Others with our prefix may be anything: Kubernetes
    /// makes WAXSEAL_PORT for a service of that name.
    pub(super) fn warn_about_misspellings(&self, findings: &mut Findings) {
        let known = || VARIABLES.iter().map(|(name, _)| *name);
        let ours = |name: &str| ["WAXSEAL_", "DKIM_", "SMTP_"].iter().any(|prefix| name.starts_with(prefix));
        for name in self.variables.keys().filter(|name| ours(name) && !known().any(|known| known == *name)) {
            let meant = nearest(name, known()).filter(|meant| strsim::damerau_levenshtein(name, meant) <= 2);
            if let Some(meant) = meant {
                findings
                    .warning(&Place::Environment(name.clone()), "waxseal does not use this variable")
                    .help(format!("did you mean {meant}?"));
            }
        }
    }
}

fn report<T>(parsed: Result<T, Complaint>, place: &Place, findings: &mut Findings) -> Option<T> {
    parsed.map_err(|complaint| findings.error(place, complaint.message).help = complaint.help).ok()
}

/// Names only.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("variables", &self.variables.keys()).finish_non_exhaustive()
    }
}
