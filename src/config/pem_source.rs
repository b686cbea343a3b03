//! Keys and certificates as they are typed: the path of a PEM file, or `{ env = "NAME" }`. No message shows their text.

use super::masking::is_key_without_its_frame;
use super::secret::{SecretSource, read_reference};
use super::value::{Complaint, Complaints, Text, Value};
use crate::observe::Secret;
use crate::pem;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::DeValue;

/// Where a key or certificates come from. The file never holds the PEM text itself; a variable may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PemSource {
    Path(PathBuf),
    Pem(Secret),
    /// Holds the PEM text, or the path of its file.
    Variable(String),
}

impl PemSource {
    const EXPECTED: &'static str = "a path or { env = \"NAME\" }";

    /// Reads a variable's value.
    pub fn of_variable(text: &str) -> Result<Self, Complaint> {
        match pem::is_pem(text) {
            true => Ok(Self::Pem(Secret::new(text))),
            false => Self::of_path(text),
        }
    }

    fn of_path(text: &str) -> Result<Self, Complaint> {
        if is_key_without_its_frame(text) {
            return Err(Complaint::new(
                "it holds a key without its BEGIN and END lines",
                "give the path of a file, or the whole PEM text where that may stand",
            ));
        }
        <PathBuf as Text>::parse(text).map(Self::Path)
    }
}

impl Value for PemSource {
    fn expected() -> String {
        Self::EXPECTED.to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => match Self::of_path(text) {
                Ok(source) => Some(source),
                Err(complaint) => {
                    complaints.bad_value(value.span(), complaint);
                    None
                }
            },
            DeValue::Table(table) => match read_reference(value, table, complaints)? {
                SecretSource::Variable(name) => Some(Self::Variable(name)),
                SecretSource::File(path) => Some(Self::Path(path)),
                SecretSource::Literal(text) => Some(Self::Pem(text)),
            },
            _ => {
                complaints.wrong_type(value, Self::EXPECTED, None);
                None
            }
        }
    }
}
