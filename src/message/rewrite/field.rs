//! Fields that rules insert, from a name and a value. Every value goes through [`Field`], so none can break out of its
//! line.

use super::NamedAddress;
use super::outcome::HeaderTrouble;
use crate::message::headers::{FieldError, is_unprintable};
use crate::message::{Field, addresses, encoded_words};

/// A field of this name and value.
pub(super) fn text_field(name: &str, value: &str) -> Result<Field, HeaderTrouble> {
    if value.chars().any(|c| is_unprintable(c) && c != '\t') {
        return Err(FieldError::ControlCharacter.into());
    }
    let column = name.len() + 2;
    let value = match addresses::are_in(name.as_bytes()) {
        // Non-ASCII addresses stay as they are; names become encoded words.
        true => addresses::repaired(value, column).unwrap_or_else(|| value.to_owned()),
        false => encoded_words::encode_text(value, column),
    };
    Ok(Field::folded(name, &value)?)
}

pub(super) fn author_field(name: &str, author: &NamedAddress) -> Result<Field, HeaderTrouble> {
    if author.display_name.chars().any(is_unprintable) {
        return Err(FieldError::ControlCharacter.into());
    }
    let display_name = author.display_name.trim();
    let value = match display_name.is_empty() {
        true => author.address.to_string(),
        false => format!("{} <{}>", encoded_words::encode_phrase(display_name, name.len() + 2), author.address),
    };
    Ok(Field::folded(name, &value)?)
}
