//! How a provider expects a tag, a stream, metadata and an address pool; presets provide this data.
//!
//! Knows forms of headers, never providers. A value that a form cannot carry is left out, not altered.

/// A provider's headers for the gateway's marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary {
    /// Prefixes of its header names, such as "X-Mailgun-". Those of other providers are removed.
    pub own: &'static [&'static str],
    pub tag: Option<HeaderSlot>,
    pub stream: Option<HeaderSlot>,
    pub ip_pool: Option<HeaderSlot>,
    pub metadata: Option<MetadataSlot>,
    /// Asks the provider to leave links and text as they are.
    pub no_tracking: Option<FixedSetting>,
}

impl Vocabulary {
    /// For a server that has no such headers.
    pub const NONE: Self = Self { own: &[], tag: None, stream: None, ip_pool: None, metadata: None, no_tracking: None };
}

/// Where one value is written, and which values it can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderSlot {
    pub place: SlotForm,
    pub allowed: AllowedText,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotForm {
    /// A separate field.
    Field(&'static str),
    /// A member of the JSON object in a field; inside a list of one if `list`.
    Member { field: &'static str, key: &'static str, list: bool },
    /// `key=value` in a field of such pairs.
    Pair { field: &'static str, key: &'static str },
}

/// Where pairs of names and values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataSlot {
    pub place: MetadataForm,
    pub names: AllowedText,
    pub values: AllowedText,
    /// Maximum number of pairs.
    pub most: usize,
    /// Maximum size of the whole field's value, in octets.
    pub longest: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataForm {
    /// One field for each pair; its name has this prefix.
    FieldForEach(&'static str),
    /// A JSON object in a separate field.
    Object(&'static str),
    /// A JSON object as a member of the object in a field.
    Member { field: &'static str, key: &'static str },
    /// `name=value, name=value`
    List(&'static str),
}

/// A setting with a fixed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FixedSetting {
    Field {
        name: &'static str,
        value: &'static str,
    },
    /// `json`: the member's value.
    Member {
        field: &'static str,
        key: &'static str,
        json: &'static str,
    },
}

/// Which texts can be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedText {
    pub characters: AllowedCharacters,
    /// In characters.
    pub longest: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedCharacters {
    /// Letters, digits, hyphen, underscore.
    Token,
    /// Printable ASCII without the comma, which is the separator.
    NoComma,
    /// Printable ASCII.
    Ascii,
    /// Everything but control characters; only JSON carries it.
    Any,
}

impl AllowedText {
    pub const fn new(characters: AllowedCharacters, longest: usize) -> Self {
        Self { characters, longest }
    }

    pub fn admits(self, text: &str) -> bool {
        let admits = |c: char| match self.characters {
            AllowedCharacters::Token => c.is_ascii_alphanumeric() || c == '-' || c == '_',
            AllowedCharacters::NoComma => (' '..='~').contains(&c) && c != ',',
            AllowedCharacters::Ascii => (' '..='~').contains(&c),
            AllowedCharacters::Any => !c.is_control(),
        };
        !text.trim().is_empty() && text.chars().count() <= self.longest && text.chars().all(admits)
    }
}
