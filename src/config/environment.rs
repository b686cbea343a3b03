//! The environment: Plausible's own variables and the gateway's, each also as a file of a secrets folder.
//!
//! It is merged over the file's values before anything is resolved, so that both follow the same rules. The
//! process's variables are read in one place, [`Environment::of_process`]; values are never printed.

pub mod variables;

mod misnamed;
mod value;
mod wording;

pub use wording::in_variables;

use super::file_digests::FileDigests;
use super::input::Typed;
use super::masking::{hide_secret, hide_value, is_plain};
use super::problem::{Findings, Place, Problem};
use super::unreadable;
use super::value::{Complaint, Number, Text};
use crate::observe::Redaction;
use crate::pem;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use variables::{Kind, PLAUSIBLE_ONLY, SECRETS_FOLDER_VARIABLE, VARIABLES};

/// Where container engines put secrets.
const SECRETS_FOLDER: &str = "/run/secrets";

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
    /// The process's own environment.
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut environment = Self::of(variables);
        environment.secrets_folder.get_or_insert_with(|| SECRETS_FOLDER.into());
        environment
    }

    /// Only these variables; files only if CONFIG_DIR is among them.
    pub fn of<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let variables: BTreeMap<_, _> =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let secrets_folder =
            variables.get(SECRETS_FOLDER_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        Self { variables, secrets_folder }
    }

    /// A variable, without looking at files. Empty counts as unset, because compose files pass `NAME=` for missing
    /// values.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// True for files of the secrets folder.
    pub(super) fn holds_secret(&self, path: &Path) -> bool {
        self.secrets_folder.as_ref().is_some_and(|folder| path.starts_with(folder))
    }

    /// A setting: the file of that name in the secrets folder, otherwise the variable. Surrounding white space is
    /// removed, as in Plausible. So are quotes and a comment, except from secrets, which may contain anything.
    pub(super) fn find(&self, name: &str, findings: &mut Findings) -> Option<Found> {
        let Found { text, place } = self.find_as_written(name, findings)?;
        let text = match variables::named(name).map_or(Kind::Text, |variable| variable.kind) {
            Kind::Pem if pem::is_pem(&text) => text,
            Kind::Secret => text,
            Kind::Word | Kind::Text | Kind::Pem => value::without_quotes(&text).to_owned(),
        };
        (!text.is_empty()).then_some(Found { text, place })
    }

    fn find_as_written(&self, name: &str, findings: &mut Findings) -> Option<Found> {
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
                findings.error(&place, format!("it {}", unreadable::why(&error))).help =
                    unreadable::what_to_do(&path, &error).map(str::to_owned);
                None
            }
        }
    }

    /// The files of the secrets folder that settings came from.
    pub(super) fn note_files(&self, files: &mut FileDigests) {
        let Some(folder) = &self.secrets_folder else { return };
        for variable in VARIABLES {
            let path = folder.join(variable.name);
            if let Ok(content) = std::fs::read(&path) {
                files.note(&path, Some(&content));
            }
        }
    }

    /// Adds the values that no message may contain.
    pub(super) fn survey(&self, hidden: &mut Redaction) {
        let kinds = VARIABLES.iter().map(|variable| (variable.name, variable.kind));
        for (name, kind) in kinds.chain(PLAUSIBLE_ONLY.iter().map(|name| (*name, Kind::Text))) {
            let Some(Found { text, .. }) = self.find(name, &mut Findings::default()) else { continue };
            match kind {
                Kind::Secret => hide_secret(&text, hidden),
                // If the values are shifted by one line, they contain the password.
                Kind::Word if !is_plain(&text) => hidden.add_secret(&text),
                Kind::Word => {}
                // Each item of a list is quoted separately.
                Kind::Text | Kind::Pem => {
                    text.split([',', ' ']).chain([&text[..]]).for_each(|text| hide_value(text, hidden));
                }
            }
        }
    }

    /// What looks meant for the gateway and is not what was meant: names that it does not read, and values with something in
    /// them that a shell would have taken off. `referenced`: names that the file refers to.
    pub(super) fn suspicions(&self, referenced: &BTreeSet<String>) -> Vec<Problem> {
        let in_folder = self
            .secrets_folder
            .iter()
            .flat_map(|folder| names_in(folder).into_iter().map(move |name| (name, Some(folder))));
        let variables = self.variables.iter().filter(|(_, value)| !value.trim().is_empty());
        let variables = variables.filter(|(name, value)| !misnamed::is_from_kubernetes(name, value));
        let names = variables.map(|(name, _)| (name.clone(), None)).chain(in_folder);
        let mut problems = Vec::new();
        for (name, folder) in names.filter(|(name, _)| !referenced.contains(name)) {
            let is_set = |name: &str| self.find(name, &mut Findings::default()).is_some();
            if let Some((message, help)) = misnamed::complaint(&name, is_set) {
                let place = folder.map_or(name.clone(), |folder| folder.join(&name).display().to_string());
                let mut problem = Problem::new(Place::Environment(place), message);
                problem.help(help);
                problems.push(problem);
            }
        }
        problems.extend(VARIABLES.iter().filter_map(|variable| self.suspicious_value(variable.name, variable.kind)));
        problems
    }

    fn suspicious_value(&self, name: &str, kind: Kind) -> Option<Problem> {
        let Found { text, place } = self.find_as_written(name, &mut Findings::default())?;
        let (message, help) = match value::what_a_shell_would_take_off(&text).filter(|_| kind == Kind::Secret) {
            Some(message) => {
                (message, "take out what does not belong to the secret; nothing is taken off a secret here")
            }
            None if value::is_reference(&text) => (
                "it is the name of a variable, and nothing puts that variable's value in its place here",
                "write the value itself; in a compose file without $$, which stands for a plain $",
            ),
            None => return None,
        };
        let mut problem = Problem::new(place, message);
        problem.help(help);
        Some(problem)
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

    /// Comma-separated items; each wrong one is reported separately. `None` if there is no such setting.
    pub(super) fn list<T: Text>(&self, name: &str, findings: &mut Findings) -> Option<Typed<Vec<T>>> {
        let found = self.find(name, findings)?;
        let items = found.text.split(',').map(value::without_quotes).filter(|item| !item.is_empty());
        let read: Vec<Option<T>> = items.map(|item| report(T::parse(item), &found.place, findings)).collect();
        (!read.is_empty()).then(|| match read.into_iter().collect() {
            Some(items) => Typed::given(items, found.place.clone()),
            None => Typed::invalid(found.place.clone()),
        })
    }

    /// A setting of another form.
    pub(super) fn read<T>(
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
}

/// The files of a folder; none if it cannot be read.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn report<T>(parsed: Result<T, Complaint>, place: &Place, findings: &mut Findings) -> Option<T> {
    parsed.map_err(|complaint| findings.error(place, complaint.message).help = complaint.help).ok()
}

/// Prints names only.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("variables", &self.variables.keys()).finish_non_exhaustive()
    }
}
