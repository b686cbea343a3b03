//! Secrets as they are typed: a literal, `{ env = "NAME" }`, or `{ file = "/run/secrets/NAME" }`.
//!
//! No message about a secret quotes it.

use super::environment::Environment;
use super::masking::is_variable;
use super::reader::{Complaints, nearest};
use super::value::{Complaint, Value};
use crate::observe::Secret;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a secret is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    Literal(Secret),
    Variable(String),
    /// Relative to the configuration file's folder.
    File(PathBuf),
}

const EXPECTED: &str = "a string, { env = \"NAME\" } or { file = \"/run/secrets/NAME\" }";

impl SecretSource {
    /// Fetches the secret. A relative path starts at `base`; one newline at the end of a file is not part of it.
    pub fn resolve(&self, base: &Path, environment: &Environment) -> Result<Secret, Complaint> {
        match self {
            Self::Literal(secret) if secret.is_empty() => {
                Err(Complaint::new("it is empty", "write the secret, or leave the key out if there is none"))
            }
            Self::Literal(secret) => Ok(secret.clone()),
            Self::Variable(name) => {
                environment.variable(name).map(Secret::new).ok_or_else(|| match is_variable(name) {
                    true => Complaint::new(format!("the variable {name} is not set"), format!("export {name}=...")),
                    false => Complaint::new("the variable that it names is not set", NAME_OF_A_VARIABLE),
                })
            }
            Self::File(path) => read_file(&base.join(path)),
        }
    }
}

const NAME_OF_A_VARIABLE: &str =
    "here stands the name of the variable, such as SMTP_PASSWORD, and not the secret itself";

fn read_file(path: &Path) -> Result<Secret, Complaint> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Complaint::new(
            format!("the secret file {} cannot be read: {error}", path.display()),
            "relative paths start at the configuration file's folder",
        )
    })?;
    let secret = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() {
        return Err(Complaint::new(format!("the secret file {} is empty", path.display()), "write the secret into it"));
    }
    Ok(Secret::new(secret))
}

impl Value for SecretSource {
    const SECRET: bool = true;

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => Some(Self::Literal(Secret::new(text.to_string()))),
            DeValue::Table(table) => read_reference(value, table, complaints),
            DeValue::Integer(_) => {
                complaints.wrong_type(value, EXPECTED, Some("put it in quotes".to_owned()));
                None
            }
            _ => {
                complaints.wrong_type(value, EXPECTED, None);
                None
            }
        }
    }
}

fn read_reference(
    value: &Spanned<DeValue<'_>>,
    table: &DeTable<'_>,
    complaints: &mut Complaints<'_>,
) -> Option<SecretSource> {
    let mut entries = table.iter();
    let (Some((key, target)), None) = (entries.next(), entries.next()) else {
        complaints.bad_value(value.span(), Complaint::new("it must say one thing: where the secret is", EXPECTED));
        return None;
    };
    let make: fn(&str) -> SecretSource = match key.get_ref().as_ref() {
        "env" => |name| SecretSource::Variable(name.to_owned()),
        "file" => |path| SecretSource::File(path.into()),
        other => {
            let help = match nearest(other, ["env", "file"].into_iter()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("write {EXPECTED}"),
            };
            complaints.bad_value(key.span(), Complaint::new(format!("unknown key `{other}`"), help));
            return None;
        }
    };
    match target.get_ref().as_str() {
        Some(text) if !text.is_empty() => Some(make(text)),
        _ => {
            complaints.bad_value(
                target.span(),
                Complaint::new(format!("`{}` must be a name in quotes", key.get_ref()), EXPECTED),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_fetched_and_what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("good"), "from file \n").unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        let environment = Environment::of([("RELAY_PASSWORD", "from variable"), ("EMPTY", "")]);
        let resolve = |source: SecretSource| {
            source.resolve(folder.path(), &environment).map(|secret| secret.reveal().to_owned()).map_err(|c| c.message)
        };
        assert_eq!(resolve(SecretSource::Literal(Secret::new("literal"))).as_deref(), Ok("literal"));
        assert_eq!(resolve(SecretSource::Variable("RELAY_PASSWORD".into())).as_deref(), Ok("from variable"));
        assert_eq!(resolve(SecretSource::File("good".into())).as_deref(), Ok("from file "));
        assert!(resolve(SecretSource::Literal(Secret::new(""))).is_err());
        assert_eq!(resolve(SecretSource::Variable("EMPTY".into())).unwrap_err(), "the variable EMPTY is not set");
        assert_eq!(resolve(SecretSource::Variable("NONE".into())).unwrap_err(), "the variable NONE is not set");
        for odd in ["SG.canary", "canary", "k3yCANARY", "CANARY-1", &"A".repeat(65)] {
            let message = resolve(SecretSource::Variable(odd.into())).unwrap_err();
            assert_eq!(message, "the variable that it names is not set");
        }
        assert!(resolve(SecretSource::File("empty".into())).unwrap_err().ends_with("is empty"));
        assert!(resolve(SecretSource::File("none".into())).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn debug_prints_no_secret() {
        assert_eq!(format!("{:?}", SecretSource::Literal(Secret::new("hunter2"))), "Literal(***)");
    }
}
