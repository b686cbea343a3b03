//! Defines each setting once, with its documentation and its default, by [`settings!`].
//!
//! One definition gives the field that is read, the key that is known, the line of `waxseal check --defaults`, and what
//! the shipped `config.toml` is compared with.

use super::problem::Place;
use super::reader::TableReader;

/// A table of the configuration file.
#[derive(Debug)]
pub struct TableSchema {
    /// Empty for the top of the file; "a.b" for a table b within each table a.
    pub name: &'static str,
    pub many: bool,
    pub doc: &'static [&'static str],
    pub settings: &'static [SettingSchema],
}

/// One key of a table.
#[derive(Debug)]
pub struct SettingSchema {
    pub key: &'static str,
    pub doc: &'static [&'static str],
    pub presence: Presence,
    /// Its value must not be shown.
    pub secret: bool,
}

/// What it means to leave a key out. The texts are TOML values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Must be there; an example.
    Required(&'static str),
    Default(&'static str),
    /// Absent means something of its own, which the documentation says; an example.
    Optional(&'static str),
}

impl Presence {
    /// The default, or an example where there is none.
    pub fn value(&self) -> &'static str {
        let (Self::Required(value) | Self::Default(value) | Self::Optional(value)) = self;
        value
    }
}

impl TableSchema {
    /// As it is written: `[log]`, `[[listener]]`; nothing for the top.
    pub fn title(&self) -> String {
        match (self.name, self.many) {
            ("", _) => String::new(),
            (name, true) => format!("[[{name}]]"),
            (name, false) => format!("[{name}]"),
        }
    }

    /// Under which it stands in the table around it.
    pub fn key(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// Whether `other` stands in this one, under that key.
    pub fn holds(&self, other: &Self, key: &str) -> bool {
        let around = other.name.rsplit_once('.').map_or("", |(around, _)| around);
        !other.name.is_empty() && around == self.name && other.key() == key
    }

    pub fn has(&self, key: &str) -> bool {
        self.settings.iter().any(|setting| setting.key == key)
    }
}

/// What was typed for one setting.
#[derive(Debug, Clone)]
pub struct Typed<T> {
    /// `None` if the key is absent and has no default, or if its value was wrong, which has been reported.
    pub value: Option<T>,
    /// The value, or the table's head if the key is absent.
    pub place: Place,
    /// The key is there, right or wrong.
    pub given: bool,
}

impl<T> Typed<T> {
    pub fn given(value: T, place: Place) -> Self {
        Self { value: Some(value), place, given: true }
    }

    pub fn absent(default: Option<T>, table: Place) -> Self {
        Self { value: default, place: table, given: false }
    }

    pub fn wrong(place: Place) -> Self {
        Self { value: None, place, given: true }
    }
}

/// A table's typed content.
pub trait Section: Sized {
    const TABLE: &'static TableSchema;

    /// Takes every key of the schema; what is wrong has been reported when this returns.
    fn read(table: &mut TableReader<'_, '_>) -> Self;

    /// A table in which nothing was typed.
    fn empty(place: Place) -> Self;

    /// Where the table begins.
    fn place(&self) -> &Place;
}

/// Defines a table of the configuration: `/// doc`, `key: Type, required|default|optional TOML;` for each setting; then
/// `nested key: Type` for each kind of table within it.
macro_rules! settings {
    ($(#[doc = $table_doc:literal])*
     $type:ident = $name:literal $(, many: $many:literal)?
     { $($(#[doc = $doc:literal])* $key:ident: $value:ty, $presence:ident $text:literal;)* }
     $(nested $nested:ident: $nested_type:ty)*) => {
        $(#[doc = $table_doc])*
        #[allow(rustdoc::broken_intra_doc_links, reason = "[[…]] is a table of the configuration, in a help text")]
        #[derive(Debug, Clone)]
        pub struct $type {
            place: $crate::config::problem::Place,
            $($(#[doc = $doc])* pub $key: $crate::config::schema::Typed<$value>,)*
            $(pub $nested: Vec<$nested_type>,)*
        }

        impl $crate::config::schema::Section for $type {
            const TABLE: &'static $crate::config::schema::TableSchema = &$crate::config::schema::TableSchema {
                name: $name,
                many: settings!(@many $($many)?),
                doc: &[$($table_doc),*],
                settings: &[$($crate::config::schema::SettingSchema {
                    key: stringify!($key),
                    doc: &[$($doc),*],
                    presence: settings!(@$presence $text),
                    secret: <$value as $crate::config::value::Value>::SECRET,
                }),*],
            };

            fn read(table: &mut $crate::config::reader::TableReader<'_, '_>) -> Self {
                Self { place: table.place(), $($key: table.read(stringify!($key)),)* $($nested: table.nested(),)* }
            }

            fn empty(place: $crate::config::problem::Place) -> Self {
                Self {
                    $($key: $crate::config::reader::absent(settings!(@$presence $text), place.clone()),)*
                    $($nested: Vec::<$nested_type>::new(),)*
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
