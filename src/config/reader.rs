//! Walks a parsed document against the schema and collects every problem instead of stopping at the first.
//!
//! Reports unknown keys with a suggestion, missing keys, wrong types and bad values; knows no single setting.

use super::input::Typed;
use super::problem::{Findings, Place};
use super::schema::{Presence, Schema, SettingSchema, TableSchema};
use super::suggest::nearest;
use super::value::{Complaints, Value, kind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A table's typed content.
pub trait Section: Sized {
    const TABLE: &'static TableSchema;

    /// Reads every key of the schema; all problems have been reported when this returns.
    fn read(table: &mut TableReader<'_, '_>) -> Self;

    /// A table in which nothing was typed.
    fn empty(place: Place) -> Self;

    /// Where the table begins.
    fn place(&self) -> &Place;
}

/// Finds the tables of a document, or those within a table, and reads each by its schema. A table of the wrong shape is
/// reported and, if possible, read anyway.
pub struct Sections<'a, 'f> {
    pub document: &'a DeTable<'a>,
    /// For suggestions.
    pub schema: Schema,
    pub findings: &'f mut Findings,
}

impl<'a> Sections<'a, '_> {
    pub fn read<S: Section>(&mut self, content: &'a DeTable<'a>, place: Place) -> S {
        let findings = &mut *self.findings;
        let mut reader = TableReader { table: S::TABLE, schema: self.schema, content, place, findings };
        let section = S::read(&mut reader);
        reader.finish();
        section
    }

    pub fn one<S: Section>(&mut self) -> S {
        match find(self.document, S::TABLE.key()) {
            None => S::empty(Place::Nowhere),
            Some(value) => match value.get_ref() {
                DeValue::Table(content) => self.read(content, Place::File(value.span())),
                _ => {
                    self.wrong_shape::<S>(value);
                    S::empty(Place::File(value.span()))
                }
            },
        }
    }

    pub fn many<S: Section>(&mut self) -> Vec<S> {
        let Some(value) = find(self.document, S::TABLE.key()) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(items) if items.iter().all(|item| matches!(item.get_ref(), DeValue::Table(_))) => items
                .iter()
                .filter_map(|item| Some((item.get_ref().as_table()?, item.span())))
                .map(|(content, at)| self.read(content, Place::File(at)))
                .collect(),
            // Read anyway, so that this problem does not hide its other ones.
            DeValue::Table(content) => {
                self.wrong_shape::<S>(value);
                vec![self.read(content, Place::File(value.span()))]
            }
            _ => {
                self.wrong_shape::<S>(value);
                Vec::new()
            }
        }
    }

    fn wrong_shape<S: Section>(&mut self, value: &Spanned<DeValue<'_>>) {
        let name = S::TABLE.key();
        let title = S::TABLE.title();
        self.findings
            .error(
                &Place::File(value.span()),
                format!("`{name}` must be written as {title}, not as {}", kind(value.get_ref())),
            )
            .help(format!("put {title} on a line of its own and the keys below it"));
    }
}

/// A table that is being read. Keys that are left unread are unknown ones.
pub struct TableReader<'a, 'f> {
    table: &'static TableSchema,
    schema: Schema,
    content: &'a DeTable<'a>,
    place: Place,
    findings: &'f mut Findings,
}

impl TableReader<'_, '_> {
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
                    None => Typed::invalid(place),
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
        Sections { document: self.content, schema: self.schema, findings: self.findings }.many()
    }

    /// The table of a kind within this one; empty, with the place of this one, if there is none.
    pub fn within<S: Section>(&mut self) -> S {
        match find(self.content, S::TABLE.key()) {
            Some(_) => Sections { document: self.content, schema: self.schema, findings: self.findings }.one(),
            None => S::empty(self.place()),
        }
    }

    /// Reports unknown keys.
    fn finish(self) {
        let tables = self.schema.0;
        for (key, value) in self.content {
            let is_known_table = tables.iter().any(|table| self.table.holds(table, key.get_ref()));
            if self.table.has(key.get_ref()) || is_known_table {
                continue;
            }
            let place = Place::File(key.span());
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

fn find<'a>(table: &'a DeTable<'a>, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
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

fn suggest_table(name: &str, tables: &[&'static TableSchema]) -> String {
    let named = || tables.iter().filter(|table| !table.name.is_empty());
    match nearest(name, named().map(|table| table.name)).and_then(|meant| named().find(|table| table.name == meant)) {
        Some(meant) => format!("did you mean {}?", meant.title()),
        None => format!("there is {}", named().map(|table| table.title()).collect::<Vec<_>>().join(", ")),
    }
}

/// The remedy for an unknown key: the tables where it belongs, otherwise the key that was probably meant, otherwise the
/// existing keys.
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

/// The table that has this key; `None` if none has it.
fn home_of(key: &str, tables: &[&'static TableSchema]) -> Option<String> {
    let homes: Vec<_> = tables.iter().filter(|table| table.has(key)).collect();
    match homes.as_slice() {
        [] => None,
        [top, ..] if top.name.is_empty() => Some("at the top of the file, before the first [table]".to_owned()),
        homes => Some(format!("in {}", homes.iter().map(|table| table.title()).collect::<Vec<_>>().join(" or "))),
    }
}

/// Defines a table of the configuration: `/// doc`, `key: Type, required|default|optional TOML;` for each setting; then
/// `nested key: Type` for each kind of table within it, and `within key: Type` for each table of which there is one.
macro_rules! settings {
    ($(#[doc = $table_doc:literal])*
     $type:ident = $name:literal $(, many: $many:literal)?
     { $($(#[doc = $doc:literal])* $key:ident: $value:ty, $presence:ident $text:literal;)* }
     $(nested $nested:ident: $nested_type:ty;)*
     $(within $within:ident: $within_type:ty;)*) => {
        $(#[doc = $table_doc])*
        #[allow(rustdoc::broken_intra_doc_links, reason = "[[…]] is a table of the configuration, in a help text")]
        #[derive(Debug, Clone)]
        pub struct $type {
            place: $crate::config::problem::Place,
            $($(#[doc = $doc])* pub $key: $crate::config::input::Typed<$value>,)*
            $(pub $nested: Vec<$nested_type>,)*
            $(pub $within: $within_type,)*
        }

        impl $crate::config::reader::Section for $type {
            const TABLE: &'static $crate::config::schema::TableSchema = &$crate::config::schema::TableSchema {
                name: $name,
                many: settings!(@many $($many)?),
                doc: &[$($table_doc),*],
                settings: &[$($crate::config::schema::SettingSchema {
                    key: stringify!($key),
                    doc: &[$($doc),*],
                    presence: settings!(@$presence $text),
                    expected: <$value as $crate::config::value::Value>::expected,
                    secret: <$value as $crate::config::value::Value>::SECRET,
                }),*],
            };

            fn read(table: &mut $crate::config::reader::TableReader<'_, '_>) -> Self {
                Self { place: table.place(), $($key: table.read(stringify!($key)),)* $($nested: table.nested(),)* $($within: table.within(),)* }
            }

            fn empty(place: $crate::config::problem::Place) -> Self {
                Self {
                    $($key: $crate::config::reader::absent(settings!(@$presence $text), place.clone()),)*
                    $($nested: Vec::<$nested_type>::new(),)*
                    $($within: <$within_type as $crate::config::reader::Section>::empty(place.clone()),)*
                    place,
                }
            }

            fn place(&self) -> &$crate::config::problem::Place {
                &self.place
            }
        }
    };
    (@many) => { false };
    (@many $many:literal) => { $many };
    (@required $text:literal) => { $crate::config::schema::Presence::Required($text) };
    (@default $text:literal) => { $crate::config::schema::Presence::Default($text) };
    (@optional $text:literal) => { $crate::config::schema::Presence::Optional($text) };
}
pub(super) use settings;
