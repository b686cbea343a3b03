//! The configuration: what is typed in `config.toml` and the environment, and what it resolves to.
//!
//! Everything wrong is reported at once, each with its place and a remedy; nothing is started partially. Never starts
//! or connects anything.

mod admin;
mod doctor;
mod environment;
mod expect;
mod file;
mod file_digests;
pub mod flags;
mod input;
pub mod key_file;
mod local_networks;
mod maps;
mod masking;
mod overlay;
mod patterns;
mod pem_source;
mod problem;
mod queue;
mod rates;
mod reader;
mod redis;
mod reference;
mod repair;
mod resolve;
mod rewrite;
mod schema;
mod secret;
pub mod self_loop;
mod settings;
mod suggest;
#[cfg(test)]
mod tests;
pub mod unreadable;
mod value;

pub use environment::Environment;
pub use environment::variables::CONFIG_VARIABLE;
pub use file::DeliveryMode;
pub use file_digests::FileDigests;
pub use masking::shown_path;
pub use problem::{Located, Problems};
pub use reference::Defaults;
pub use settings::SubmissionRateSettings;
pub use settings::{
    BackendSettings, DkimSettings, ListenerSettings, Provider, QueueLocation, QueueSettings, RouteSettings, Settings,
    UpstreamLogins, UpstreamSettings,
};

use file::File;
pub(crate) use file::SCHEMA;
use masking::Survey;
use problem::{Findings, Place, Problem, ProblemSeverity, Source};
use resolve::Resolver;
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::de::DeTable;

/// Which file to read.
#[derive(Debug, Clone, Copy)]
pub struct ConfigFile<'a> {
    pub path: &'a Path,
    /// The user named the file, so it must exist. The default file may be missing if the environment is enough.
    pub explicit: bool,
}

/// The configuration file as it was read. The files that it names are read each time it is resolved.
#[derive(Clone)]
pub struct ConfigText {
    path: PathBuf,
    /// `None`: there is no file, and the environment alone configures the gateway.
    text: Option<String>,
    is_open_to_all: bool,
}

impl ConfigText {
    pub fn read(file: &ConfigFile<'_>) -> Result<Self, Problems> {
        let path = file.path.to_owned();
        let whole = |message: String, help: &str| {
            let mut problem = Problem::new(Place::Nowhere, message);
            problem.help(help);
            Problems::new(Arc::new(Source::named(masking::shown_path(file.path))), vec![problem])
        };
        match std::fs::read_to_string(file.path) {
            Ok(text) => {
                let is_open_to_all = std::fs::metadata(file.path).is_ok_and(|metadata| metadata.mode() & 0o007 != 0);
                Ok(Self { path, text: Some(text), is_open_to_all })
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !file.explicit => {
                Ok(Self { path, text: None, is_open_to_all: false })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(whole(
                "there is no such file".to_owned(),
                "name another with --config or WAXSEAL_CONFIG, or leave both out",
            )),
            Err(error) => Err(whole(
                format!("it {}", unreadable::why(&error)),
                unreadable::what_to_do(file.path, &error).unwrap_or("the gateway's user must be able to read it"),
            )),
        }
    }

    /// As it is now. A file that was there must be there again.
    pub fn read_again(&self) -> Result<Self, Problems> {
        Self::read(&ConfigFile { path: &self.path, explicit: self.text.is_some() })
    }

    /// Checks it and reads the files that it names.
    pub fn resolve(&self, environment: &Environment) -> Result<Settings, Problems> {
        self.resolve_relative_to(base(&self.path), environment)
    }

    fn resolve_relative_to(&self, base: &Path, environment: &Environment) -> Result<Settings, Problems> {
        let mut settings = self.draft()?.finish(base, environment)?;
        settings.file = self.text.is_some().then(|| self.path.clone());
        Ok(settings)
    }

    fn draft(&self) -> Result<UnresolvedConfig, Problems> {
        match &self.text {
            Some(text) => UnresolvedConfig::parse(&masking::shown_path(&self.path), text, self.is_open_to_all),
            None => Ok(UnresolvedConfig::without_file()),
        }
    }
}

/// It may hold secrets.
impl fmt::Debug for ConfigText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigText").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Reads, checks and resolves the configuration.
pub fn load(file: &ConfigFile<'_>, environment: &Environment) -> Result<Settings, Problems> {
    ConfigText::read(file)?.resolve(environment)
}

/// The same of a file that will be somewhere else: its relative paths start at `base`.
pub fn load_relative_to(file: &ConfigFile<'_>, base: &Path, environment: &Environment) -> Result<Settings, Problems> {
    ConfigText::read(file)?.resolve_relative_to(base, environment)
}

/// The same for a text, for `fuzzing`. Files that it names are searched for below `base`.
#[cfg(any(test, fuzzing))]
pub(crate) fn load_text(text: &str, base: &Path, environment: &Environment) -> Result<Settings, Problems> {
    UnresolvedConfig::parse("config.toml", text, true)?.finish(base, environment)
}

/// The location of the queue, whatever else is wrong or missing: a queue can be inspected from a shell that has none of
/// the gateway's secrets, and with a file that would not start.
pub fn queue_location(file: &ConfigFile<'_>, environment: &Environment) -> Result<QueueLocation, Problems> {
    let mut draft = ConfigText::read(file)?.draft()?;
    environment.survey(&mut draft.source.survey.hidden);
    overlay::apply(environment, &mut draft.file, &mut draft.findings);
    let mut resolver =
        Resolver { base: base(file.path), environment, findings: &mut draft.findings, files: FileDigests::default() };
    let backend = resolver.backend(&draft.file.queue);
    name_variables(&mut draft.findings, draft.has_file);
    match (draft.file.gateway.data_dir.value(), backend) {
        (Some(path), Ok(backend)) => Ok(QueueLocation { data_dir: base(file.path).join(path), backend }),
        _ => Err(Problems::new(Arc::new(draft.source), draft.findings.errors)),
    }
}

/// Where relative paths start.
fn base(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// The typed configuration, before it becomes [`Settings`].
struct UnresolvedConfig {
    source: Source,
    file: File,
    findings: Findings,
    /// Reporting the missing upstream would only repeat a problem that has been reported.
    upstream_was_tried: bool,
    has_file: bool,
}

impl UnresolvedConfig {
    fn parse(name: &str, text: &str, open_to_all: bool) -> Result<Self, Problems> {
        let mut source = Source::new(name, text, SCHEMA);
        let document =
            DeTable::parse(text).map_err(|error| syntax_error(Source::new(name, text, SCHEMA), text, &error))?;
        let mut findings = Findings::default();
        let file = File::read(document.get_ref(), &mut findings);
        source.survey = Survey::of(document.get_ref(), SCHEMA);
        if let (Some(secret), true) = (source.survey.literals.first(), open_to_all) {
            findings
                .warning(&Place::File(secret.clone()), "this file holds a secret and is world-readable")
                .help(format!("chmod 600 {name}, or use {{ file = \"...\" }} or {{ env = \"...\" }}"));
        }
        let upstream_was_tried = document
            .get_ref()
            .keys()
            .any(|key| suggest::nearest(key.get_ref(), [file::UPSTREAM_TABLE].into_iter()).is_some());
        Ok(Self { source, file, findings, upstream_was_tried, has_file: true })
    }

    fn without_file() -> Self {
        Self {
            source: Source::named("environment"),
            file: File::empty(),
            findings: Findings::default(),
            upstream_was_tried: false,
            has_file: false,
        }
    }

    fn finish(mut self, base: &Path, environment: &Environment) -> Result<Settings, Problems> {
        environment.survey(&mut self.source.survey.hidden);
        let suspicions = environment.suspicions(&overlay::referenced_variables(&self.file));
        overlay::apply(environment, &mut self.file, &mut self.findings);
        let no_upstream = self.file.upstreams.is_empty();
        let mut resolver = Resolver { base, environment, findings: &mut self.findings, files: FileDigests::default() };
        let secret_names = resolver.secret_names(&self.file);
        // Other problems would quote them.
        let settings = if secret_names.is_empty() { resolver.resolve(self.file).ok() } else { None };
        secret_names.iter().for_each(|name| self.source.survey.hidden.add_secret(name.reveal()));
        if no_upstream && (!self.upstream_was_tried || self.findings.errors.is_empty()) {
            let message = if self.has_file {
                "there is no [[upstream]]"
            } else {
                "there is no config.toml here, and no SMTP_HOST_ADDR"
            };
            self.findings.error(&Place::Nowhere, message).help(
                "mail needs somewhere to go: set SMTP_HOST_ADDR, SMTP_USER_NAME and SMTP_USER_PWD (or \
                 WAXSEAL_PROVIDER=sandbox, which needs no account), or add an [[upstream]] table to the file",
            );
        }
        // The wrong name for a variable is often why something is missing.
        let has_errors = !self.findings.errors.is_empty();
        if has_errors {
            self.findings.errors.extend(suspicions);
        } else {
            let warnings =
                suspicions.into_iter().map(|problem| Problem { severity: ProblemSeverity::Warning, ..problem });
            self.findings.warnings.extend(warnings);
        }
        name_variables(&mut self.findings, self.has_file);
        let source = Arc::new(self.source);
        match settings {
            Some(mut settings) if self.findings.errors.is_empty() => {
                settings.warnings = Problems::new(source, self.findings.warnings);
                Ok(settings)
            }
            _ => Err(Problems::new(source, self.findings.errors).with_warnings(self.findings.warnings)),
        }
    }
}

/// Calls keys by their variables where a problem is about a variable, or there is no file.
fn name_variables(findings: &mut Findings, has_file: bool) {
    for problem in findings.errors.iter_mut().chain(&mut findings.warnings) {
        let variable = match &problem.place {
            Place::Environment(name) => name.as_str(),
            Place::Nowhere if !has_file => "",
            Place::Nowhere | Place::File(_) => continue,
        };
        let message = environment::in_variables(&problem.message, variable);
        let help = problem.help.as_deref().map(|help| environment::in_variables(help, variable));
        (problem.message, problem.help) = (message, help);
    }
}

/// A syntax error is reported alone, because the text after it cannot be parsed.
fn syntax_error(source: Source, text: &str, error: &toml::de::Error) -> Problems {
    let at = error.span().unwrap_or(text.len()..text.len());
    let problem = Problem::new(Place::File(at), format!("this is not TOML: {}", error.message()));
    Problems::new(Arc::new(source), vec![problem])
}
