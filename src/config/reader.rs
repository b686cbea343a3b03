//! Walks a parsed document against the schema and collects every problem instead of stopping at the first.
//!
//! Reports unknown keys with a suggestion, missing keys, wrong types and bad values; knows no single setting.

use super::problem::{Findings, Place};
use super::schema::{Presence, Section, SettingSchema, TableSchema, Typed};
use super::sections::Sections;
use super::unsupported;
use super::value::{Complaint, Value};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One table while it is read. What is left unread at the end is unknown.
pub struct TableReader<'a, 'f> {
    table: &'static TableSchema,
    content: &'a DeTable<'a>,
    place: Place,
    findings: &'f mut Findings,
}

impl<'a, 'f> TableReader<'a, 'f> {
    pub fn new(
        table: &'static TableSchema,
        content: &'a DeTable<'a>,
        place: Place,
        findings: &'f mut Findings,
    ) -> Self {
        Self { table, content, place, findings }
    }

    pub fn place(&self) -> Place {
        self.place.clone()
    }

    pub fn read<T: Value>(&mut self, key: &'static str) -> Typed<T> {
        let Some(presence) = self.table.settings.iter().find(|setting| setting.key == key).map(|s| s.presence) else {
            return Typed::absent(None, self.place());
        };
        match find(self.content, key) {
            Some(value) => {
                let place = Place::File(value.span());
                match T::read(value, &mut Complaints { key, findings: self.findings }) {
                    Some(read) => Typed::given(read, place),
                    None => Typed::wrong(place),
                }
            }
            None => {
                if let Presence::Required(example) = presence {
                    self.findings
                        .error(&self.place, format!("{} needs `{key}`", self.table.title()))
                        .help(format!("add `{key} = {example}`"));
                }
                absent(presence, self.place())
            }
        }
    }

    /// The tables of a kind within this one.
    pub fn nested<S: Section>(&mut self) -> Vec<S> {
        Sections { document: self.content, findings: self.findings }.many()
    }

    /// Reports the keys that no setting has.
    pub fn finish(self, tables: &[&'static TableSchema]) {
        for (key, value) in self.content {
            let is_known_table = tables.iter().any(|table| self.table.holds(table, key.get_ref()));
            if self.table.has(key.get_ref()) || is_known_table {
                continue;
            }
            let place = Place::File(key.span());
            if unsupported::report(self.table.name, key.get_ref(), value, &place, self.findings) {
                continue;
            }
            let (message, help) = if self.table.name.is_empty() && is_table(value.get_ref()) {
                (format!("unknown table `{}`", key.get_ref()), suggest_table(key.get_ref(), tables))
            } else if self.table.name.is_empty() {
                (format!("unknown key `{}`", key.get_ref()), suggest_key(key.get_ref(), self.table, tables))
            } else {
                let message = format!("unknown key `{}` in {}", key.get_ref(), self.table.title());
                (message, suggest_key(key.get_ref(), self.table, tables))
            };
            self.findings.error(&place, message).help(help);
        }
    }
}

/// The typed default of a setting that was not typed.
pub fn absent<T: Value>(presence: Presence, table: Place) -> Typed<T> {
    let default = match presence {
        Presence::Default(text) => parse_default(text),
        Presence::Required(_) | Presence::Optional(_) => None,
    };
    Typed::absent(default, table)
}

/// Where a value reports what is wrong with it.
pub struct Complaints<'a> {
    key: &'a str,
    findings: &'a mut Findings,
}

impl Complaints<'_> {
    pub fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, expected: &str, help: Option<String>) {
        let found = kind(value.get_ref());
        let problem =
            self.findings.error(&Place::File(value.span()), format!("`{}` must be {expected}, not {found}", self.key));
        problem.help = help;
    }

    pub fn bad_value(&mut self, at: Range<usize>, complaint: Complaint) {
        let problem = self.findings.error(&Place::File(at), format!("`{}`: {}", self.key, complaint.message));
        problem.help = complaint.help;
    }
}

pub fn find<'a>(table: &'a DeTable<'a>, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
    table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
}

fn parse_default<T: Value>(text: &'static str) -> Option<T> {
    let value = DeValue::parse(text).ok()?;
    T::read(&value, &mut Complaints { key: "", findings: &mut Findings::default() })
}

fn is_table(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => items.iter().any(|item| matches!(item.get_ref(), DeValue::Table(_))),
        _ => false,
    }
}

pub fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn suggest_table(name: &str, tables: &[&'static TableSchema]) -> String {
    let named = || tables.iter().filter(|table| !table.name.is_empty());
    match nearest(name, named().map(|table| table.name)).and_then(|meant| named().find(|table| table.name == meant)) {
        Some(meant) => format!("did you mean {}?", meant.title()),
        None => format!("there is {}", named().map(|table| table.title()).collect::<Vec<_>>().join(", ")),
    }
}

/// The way out for an unknown key: the tables where it belongs, else the key that is meant, else the keys there are.
fn suggest_key(key: &str, table: &TableSchema, tables: &[&'static TableSchema]) -> String {
    let own = table.settings.iter().map(|setting: &SettingSchema| setting.key);
    if let Some(home) = home_of(key, tables) {
        return format!("`{key}` belongs {home}");
    }
    if let Some(meant) = nearest(key, own.clone()) {
        return format!("did you mean `{meant}`?");
    }
    let all = tables.iter().flat_map(|other| other.settings).map(|setting| setting.key);
    match nearest(key, all).and_then(|meant| Some((meant, home_of(meant, tables)?))) {
        Some((meant, home)) => format!("did you mean `{meant}`, which belongs {home}?"),
        None => format!("known here: {}", own.collect::<Vec<_>>().join(", ")),
    }
}

/// Where a key stands; `None` if nowhere.
fn home_of(key: &str, tables: &[&'static TableSchema]) -> Option<String> {
    let homes: Vec<_> = tables.iter().filter(|table| table.has(key)).collect();
    match homes.as_slice() {
        [] => None,
        [top, ..] if top.name.is_empty() => Some("at the top of the file, before the first [table]".to_owned()),
        homes => Some(format!("in {}", homes.iter().map(|table| table.title()).collect::<Vec<_>>().join(" or "))),
    }
}

/// The known word that `typed` was most likely meant to be.
pub fn nearest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let typed = typed.to_ascii_lowercase().replace('-', "_");
    known
        .map(|word| (strsim::damerau_levenshtein(&typed, &word.to_ascii_lowercase()), word))
        .filter(|&(distance, word)| distance <= (word.chars().count() / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}
