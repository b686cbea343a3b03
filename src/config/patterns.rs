//! Values that are patterns or lists of them, for the conditions of routes and rules: addresses, texts, headers, upstreams.

use super::value::{Complaint, Complaints, Number, Text, Value, kind};
use crate::message::Field;
use crate::message::text_pattern::{HeaderPattern, TextPattern};
use toml::Spanned;
use toml::de::DeValue;

/// One value or a list: `"a"` means the same as `["a"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMore<T>(pub Vec<T>);

impl<T: Text> Value for OneOrMore<T> {
    fn expected() -> String {
        format!("{}, or a list of them", <T as Text>::expected())
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(items) if items.is_empty() => {
                let message = "it is an empty list, which nothing fits";
                complaints.bad_value(
                    value.span(),
                    Complaint::new(message, "list at least one; without an optional key there is no condition"),
                );
                None
            }
            DeValue::Array(_) => Vec::read(value, complaints).map(Self),
            _ => <T as Value>::read(value, complaints).map(|one| Self(vec![one])),
        }
    }
}

impl Text for TextPattern {
    const EXPECTED: &'static str = "a pattern such as \"report*\" or \"/^report/\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        Self::parse(text).map_err(|error| {
            Complaint::new(error.to_string(), "`*` stands for anything; a regular expression stands between slashes")
        })
    }
}

/// `{ X-Kind = "report*" }`: each of these headers must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderPatterns(pub Vec<HeaderPattern>);

const HEADERS: &str = "{ X-Kind = \"report*\" }";

impl Value for HeaderPatterns {
    fn expected() -> String {
        format!("a table such as {HEADERS}")
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            complaints.wrong_type(value, &Self::expected(), None);
            return None;
        };
        if table.is_empty() {
            let help = format!("write {HEADERS}, or leave the key out");
            complaints.bad_value(value.span(), Complaint::new("it names no header", help));
            return None;
        }
        let mut patterns = Vec::new();
        let mut is_sound = true;
        for (name, typed) in table {
            let pattern = <TextPattern as Value>::read(typed, complaints);
            let name_is_sound = is_header_name(name.get_ref());
            if !name_is_sound {
                let message = format!("\"{}\" is not a header name", name.get_ref().escape_debug());
                complaints.bad_value(name.span(), Complaint::new(message, format!("write {HEADERS}")));
            }
            match pattern.filter(|_| name_is_sound) {
                Some(value) => patterns.push(HeaderPattern { name: name.get_ref().to_string(), value }),
                None => is_sound = false,
            }
        }
        is_sound.then_some(Self(patterns))
    }
}

pub fn is_header_name(name: &str) -> bool {
    Field::new(name, &[]).is_ok()
}

/// `["a", "b"]` or `{ a = 3, b = 1 }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamNames {
    InOrder(Vec<String>),
    ByWeight(Vec<(String, u32)>),
}

type Weight = Number<1, 1_000_000>;

const WEIGHTS: &str = "{ company = 3, backup = 1 }";

impl UpstreamNames {
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::InOrder(names) => names.iter().map(String::as_str).collect(),
            Self::ByWeight(weights) => weights.iter().map(|(name, _)| name.as_str()).collect(),
        }
    }
}

impl Value for UpstreamNames {
    fn expected() -> String {
        format!("a list, or weights such as {WEIGHTS}")
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let names = match value.get_ref() {
            DeValue::Array(_) => Self::InOrder(Vec::read(value, complaints)?),
            DeValue::Table(table) => {
                let weights = table.iter().map(|(name, typed)| {
                    weight(name.get_ref(), typed, complaints).map(|weight| (name.get_ref().to_string(), weight))
                });
                let weights: Vec<Option<(String, u32)>> = weights.collect();
                Self::ByWeight(weights.into_iter().collect::<Option<_>>()?)
            }
            other => {
                let help = other.as_str().map(|text| format!("put it in brackets: [\"{text}\"]"));
                complaints.wrong_type(value, &Self::expected(), help);
                return None;
            }
        };
        if names.names().is_empty() {
            let what = if matches!(value.get_ref(), DeValue::Table(_)) { "table" } else { "list" };
            let message = format!("it is an empty {what}");
            complaints.bad_value(value.span(), Complaint::new(message, "name at least one [[upstream]]"));
            return None;
        }
        Some(names)
    }
}

fn weight(name: &str, typed: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<u32> {
    let DeValue::Integer(_) = typed.get_ref() else {
        let found = kind(typed.get_ref());
        let message = format!("the weight of \"{}\" must be a number, not {found}", name.escape_debug());
        complaints.bad_value(typed.span(), Complaint::new(message, format!("write {WEIGHTS}")));
        return None;
    };
    if typed.get_ref().as_integer().is_some_and(|number| number.as_str() == "0") {
        let message = format!("a weight of 0 would never choose \"{}\"", name.escape_debug());
        let help = format!(
            "take it out; for one that is used only when another is unavailable, write them in order: [..., \"{}\"]",
            name.escape_debug()
        );
        complaints.bad_value(typed.span(), Complaint::new(message, help));
        return None;
    }
    <Weight as Value>::read(typed, complaints).and_then(|weight| u32::try_from(weight.0).ok())
}
