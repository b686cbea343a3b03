//! Secrets as they are typed: a literal, `{ env = "NAME" }`, or `{ file = "/run/secrets/NAME" }`.
//!
//! No message about a secret quotes it.

use super::suggest::nearest;
use super::value::{Complaint, Complaints, Value};
use crate::observe::Secret;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a secret is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    Literal(Secret),
    Variable(String),
    /// Relative to the configuration file's folder.
    File(PathBuf),
}

const EXPECTED: &str = "a string, { env = \"NAME\" } or { file = \"/run/secrets/NAME\" }";

impl Value for SecretSource {
    const SECRET: bool = true;

    fn expected() -> String {
        EXPECTED.to_owned()
    }

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

/// `{ env = "NAME" }` or `{ file = "PATH" }`.
pub fn read_reference(
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
    fn debug_prints_no_secret() {
        assert_eq!(format!("{:?}", SecretSource::Literal(Secret::new("hunter2"))), "Literal(***)");
    }
}
