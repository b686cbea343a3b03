//! Values that contain others: tables whose keys the user chooses, and tables with known keys.
//!
//! The order is that of the file. Each wrong part is reported separately, at its own place.

use super::suggest::nearest;
use super::value::{Complaint, Complaints, Text, Value};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// `{ Subject = "Weekly*", "*@a.example" = "*@b.example" }`: names and values, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedPairs<K, V>(pub Vec<(K, V)>);

impl<K: Text, V: Value> Value for OrderedPairs<K, V> {
    fn expected() -> String {
        "a table such as { name = \"value\" }".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            complaints.wrong_type(value, &Self::expected(), None);
            return None;
        };
        if table.is_empty() {
            complaints.bad_value(value.span(), Complaint::new("it is an empty table", "leave the key out"));
            return None;
        }
        let read: Vec<Option<(K, V)>> = in_order(table)
            .into_iter()
            .map(|(name, value)| {
                let key = K::parse(name.get_ref()).map_err(|complaint| complaints.bad_value(name.span(), complaint));
                Some((key.ok(), V::read(value, complaints))).and_then(|(key, value)| Some((key?, value?)))
            })
            .collect();
        read.into_iter().collect::<Option<_>>().map(Self)
    }
}

/// The parser sorts by name.
fn in_order<'a>(table: &'a DeTable<'a>) -> Vec<(&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// The values of a table that must hold exactly these keys, in their order; an unknown one gets a suggestion.
pub fn known_keys<'a, const N: usize>(
    value: &'a Spanned<DeValue<'a>>,
    known: [&str; N],
    example: &str,
    complaints: &mut Complaints<'_>,
) -> Option<[&'a Spanned<DeValue<'a>>; N]> {
    let DeValue::Table(table) = value.get_ref() else {
        complaints.wrong_type(value, &format!("a table such as {example}"), None);
        return None;
    };
    let mut found = [None; N];
    let mut well = true;
    for (name, typed) in in_order(table) {
        match known.iter().position(|known| *known == name.get_ref()) {
            Some(at) => found[at] = Some(typed),
            None => {
                let help = match nearest(name.get_ref(), known.into_iter()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("write {example}"),
                };
                complaints.bad_value(name.span(), Complaint::new(format!("unknown key `{}`", name.get_ref()), help));
                well = false;
            }
        }
    }
    let missing: Vec<String> =
        known.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(name, _)| format!("`{name}`")).collect();
    // A misspelt key is missing too, and has been reported.
    if well && !missing.is_empty() {
        let message = format!("it lacks {}", missing.join(" and "));
        complaints.bad_value(value.span(), Complaint::new(message, format!("write {example}")));
    }
    let found: Vec<_> = found.into_iter().collect::<Option<_>>()?;
    found.try_into().ok().filter(|_| well)
}
