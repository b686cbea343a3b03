//! Data about each table and key: `reader` follows it, and `masking` looks up which keys are secrets. `settings!` in
//! `reader.rs` builds it from the one definition of each key.

/// Every table, in the order of the shipped file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Schema(pub &'static [&'static TableSchema]);

impl Schema {
    pub fn settings(self) -> impl Iterator<Item = &'static SettingSchema> {
        self.0.iter().flat_map(|table| table.settings)
    }

    /// In any table.
    pub fn setting(self, key: &str) -> Option<&'static SettingSchema> {
        self.settings().find(|setting| setting.key == key)
    }

    pub fn has_table(self, key: &str) -> bool {
        self.0.iter().any(|table| table.key() == key)
    }
}

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
    /// The permitted values, in words.
    pub expected: fn() -> String,
    /// Its value must not be shown.
    pub secret: bool,
}

/// The effect of leaving a key out. The texts are TOML values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The key must be given; an example.
    Required(&'static str),
    Default(&'static str),
    /// An absent key has a meaning of its own, which the documentation explains; an example.
    Optional(&'static str),
}

impl Presence {
    /// The default, or an example if there is none.
    pub fn value(&self) -> &'static str {
        let (Self::Required(value) | Self::Default(value) | Self::Optional(value)) = self;
        value
    }
}

impl TableSchema {
    /// As written: `[log]`, `[[listener]]`; empty for the top.
    pub fn title(&self) -> String {
        match (self.name, self.many) {
            ("", _) => String::new(),
            (name, true) => format!("[[{name}]]"),
            (name, false) => format!("[{name}]"),
        }
    }

    /// The key that contains it in the enclosing table.
    pub fn key(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// Whether `other` is contained in this table under that key.
    pub fn holds(&self, other: &Self, key: &str) -> bool {
        let around = other.name.rsplit_once('.').map_or("", |(around, _)| around);
        !other.name.is_empty() && around == self.name && other.key() == key
    }

    pub fn has(&self, key: &str) -> bool {
        self.settings.iter().any(|setting| setting.key == key)
    }
}
