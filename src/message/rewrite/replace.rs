//! Replaces text in the value of a field, by a regular expression with captures. Work and result are bounded, whatever
//! the value and the captures are.

use super::Replacement;
use super::field::text_field;
use super::outcome::HeaderTrouble;
use crate::message::headers::{FieldChange, FieldRef};
use crate::message::optional::attempt;
use crate::message::raw::MAX_HEADER;
use crate::message::{addresses, encoded_words};
use mail_parser::{Address, MessageParser};
use regex::Regex;

pub(super) fn replaced(field: &FieldRef<'_>, replacement: &Replacement) -> Result<FieldChange, HeaderTrouble> {
    if !field.is(&replacement.header) {
        return Ok(FieldChange::Keep);
    }
    let name = String::from_utf8_lossy(field.name()).into_owned();
    let raw = field.unfolded();
    let is_wanted = || replacement.pattern.is_match(&String::from_utf8_lossy(&raw));
    // A decoded name may contain text that would be read as an address.
    let is_addresses = addresses::are_in(field.name());
    let value = std::str::from_utf8(&raw).ok();
    let value =
        value.and_then(|value| if is_addresses { Some(value.to_owned()) } else { encoded_words::decode(value) });
    let Some(value) = value else {
        return if is_wanted() { Err(HeaderTrouble::Undecodable) } else { Ok(FieldChange::Keep) };
    };
    let Some(new) = with_matches_replaced(&value, &replacement.pattern, &replacement.with)? else {
        return Ok(FieldChange::Keep);
    };
    let new = text_field(&name, &new)?;
    if is_addresses {
        let number = |field: &[u8]| attempt("addresses", || Ok(number_of_addresses(field))).ok();
        if number(field.raw()).is_none_or(|before| number(new.as_bytes()) != Some(before)) {
            return Err(HeaderTrouble::Addresses);
        }
    }
    Ok(FieldChange::Replace(new))
}

/// `None`: there is no match, or the result would be the same.
fn with_matches_replaced(value: &str, pattern: &Regex, with: &str) -> Result<Option<String>, HeaderTrouble> {
    let references = memchr::memchr_iter(b'$', with.as_bytes()).count();
    let mut new = String::new();
    let mut copied = 0;
    for captures in pattern.captures_iter(value) {
        let Some(found) = captures.get(0) else { continue };
        // No capture is longer than the whole value.
        let most = with.len() + references * found.len();
        if new.len() + (found.start() - copied) + most > MAX_HEADER {
            return Err(HeaderTrouble::TooLarge);
        }
        new.push_str(&value[copied..found.start()]);
        captures.expand(with, &mut new);
        copied = found.end();
    }
    new.push_str(&value[copied..]);
    Ok((new != value).then_some(new))
}

fn number_of_addresses(field: &[u8]) -> usize {
    // Parsed as an address field, whatever its name.
    let Some(colon) = memchr::memchr(b':', field) else { return 0 };
    let block = [b"To", &field[colon..], b"\r\n"].concat();
    let parsed = MessageParser::new().parse_headers(&block);
    match parsed.as_ref().and_then(|parsed| parsed.to()) {
        Some(Address::List(list)) => list.iter().filter(|one| one.address.is_some()).count(),
        Some(Address::Group(groups)) => {
            groups.iter().flat_map(|group| &group.addresses).filter(|one| one.address.is_some()).count()
        }
        None => 0,
    }
}
