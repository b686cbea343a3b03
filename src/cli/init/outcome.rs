//! Everything that `waxseal init` is going to write, made in memory. A DKIM key that exists is read and used.

use super::answers::{Answers, SecretAnswer};
use super::config_text::config_text;
use super::dns_records::{self, DnsAdvice};
use super::files::{DkimKeyFile, FOR_ALL, FOR_THE_OWNER, NewFile, RECORDS_FILE, secret_path};
use super::folder_of;
use crate::dkim::dns_domain;
use crate::observe::Secret;
use crate::relay::provider::Signing;
use anyhow::bail;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct InitOutcome {
    /// The configuration last: once it is there, everything is.
    pub files: Vec<NewFile>,
    pub keys: Vec<DkimKeyFile>,
    pub advice: Vec<DnsAdvice>,
    /// Files that the configuration names and that are there already, by relative path.
    pub existing: Vec<PathBuf>,
    /// Absolute, or relative to the current folder.
    pub data_dir: PathBuf,
}

impl InitOutcome {
    pub fn of(answers: &Answers, config: &Path) -> anyhow::Result<Self> {
        let folder = folder_of(config);
        let Some(name) = config.file_name().filter(|_| !config.is_dir()) else {
            bail!("{} is a folder; --config names the file to write, as in config.toml", config.display());
        };
        let provider_signs = answers.upstream.preset.signing == Signing::LeftToProvider;
        let mut keys = Vec::new();
        let mut advice = Vec::new();
        for domain in &answers.domains {
            let key = if provider_signs { None } else { Some(DkimKeyFile::of(answers, domain, folder)?) };
            advice.extend(dns_records::advice(&dns_domain(domain)?, key.as_ref(), &answers.upstream));
            keys.extend(key);
        }
        let mut files = secrets(answers);
        let new_keys = keys.iter().filter_map(|key| Some((key, key.new.clone()?)));
        files.extend(new_keys.map(|(key, pem)| NewFile { path: key.path.clone(), mode: FOR_THE_OWNER, content: pem }));
        let mut public = |path: PathBuf, text: String| {
            files.push(NewFile { path, mode: FOR_ALL, content: Secret::new(text) });
        };
        public(RECORDS_FILE.into(), dns_records::zone_file(&advice));
        public(name.into(), config_text(answers, &keys));
        let existing = existing(answers, &keys);
        let data_dir = folder.join(answers.data_dir.as_deref().unwrap_or(Path::new("data")));
        Ok(Self { files, keys, advice, existing, data_dir })
    }
}

fn secrets(answers: &Answers) -> Vec<NewFile> {
    let upstream = &answers.upstream;
    let typed = |secret: &Option<SecretAnswer>, key: &str| match secret {
        Some(SecretAnswer::Typed(secret)) => Some(NewFile {
            path: secret_path(upstream.preset.name, key),
            mode: FOR_THE_OWNER,
            content: Secret::new(format!("{}\n", secret.reveal())),
        }),
        _ => None,
    };
    [typed(&upstream.password, "password"), typed(&upstream.secret_key, "secret_key")].into_iter().flatten().collect()
}

fn existing(answers: &Answers, keys: &[DkimKeyFile]) -> Vec<PathBuf> {
    let upstream = &answers.upstream;
    let mut paths: Vec<PathBuf> = keys.iter().filter(|key| key.new.is_none()).map(|key| key.path.clone()).collect();
    paths.extend(upstream.ca.clone());
    for secret in [&upstream.password, &upstream.secret_key].into_iter().flatten() {
        if let SecretAnswer::File(path) = secret {
            paths.push(path.clone());
        }
    }
    paths.retain(|path| path.is_relative());
    paths
}
