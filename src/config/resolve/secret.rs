//! Reads secrets from where the configuration says. No message about a secret quotes it.

use super::Resolver;
use crate::config::environment::Environment;
use crate::config::masking::is_variable;
use crate::config::secret::SecretSource;
use crate::config::unreadable;
use crate::config::value::Complaint;
use crate::observe::Secret;
use std::path::Path;

impl Resolver<'_> {
    pub(super) fn read_secret(&mut self, source: &SecretSource) -> Result<Secret, Complaint> {
        if let SecretSource::File(path) = source {
            let path = self.path(path);
            self.files.note(&path, std::fs::read(&path).ok().as_deref());
        }
        fetch(source, self.base, self.environment)
    }
}

/// Reads the secret. A relative path starts at `base`; one newline at the end of a file is removed.
pub(super) fn fetch(source: &SecretSource, base: &Path, environment: &Environment) -> Result<Secret, Complaint> {
    match source {
        SecretSource::Literal(secret) if secret.is_empty() => {
            Err(Complaint::new("it is empty", "write the secret, or leave the key out if there is none"))
        }
        SecretSource::Literal(secret) => Ok(secret.clone()),
        SecretSource::Variable(name) => variable(name, environment).map(Secret::new),
        SecretSource::File(path) => read_file(&base.join(path)),
    }
}

/// The value of a variable that the file names.
pub(super) fn variable<'a>(name: &str, environment: &'a Environment) -> Result<&'a str, Complaint> {
    environment.variable(name).ok_or_else(|| match is_variable(name) {
        true => Complaint::new(format!("the variable {name} is not set"), format!("export {name}=...")),
        false => Complaint::new("the variable that it names is not set", NAME_OF_A_VARIABLE),
    })
}

const NAME_OF_A_VARIABLE: &str =
    "here stands the name of the variable, such as SMTP_PASSWORD, and not the secret itself";

fn read_file(path: &Path) -> Result<Secret, Complaint> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Complaint::new(
            format!("the secret file {} {}", path.display(), unreadable::why(&error)),
            unreadable::what_to_do(path, &error).unwrap_or("relative paths start at the configuration file's folder"),
        )
    })?;
    let secret = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() {
        return Err(Complaint::new(format!("the secret file {} is empty", path.display()), "write the secret into it"));
    }
    Ok(Secret::new(secret))
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
            fetch(&source, folder.path(), &environment).map(|secret| secret.reveal().to_owned()).map_err(|c| c.message)
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
}
