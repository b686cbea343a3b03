//! How a provider expects a tag, a stream, metadata and an address pool: data that a preset fills in.
//!
//! Knows forms of headers, never providers. What a form cannot carry is left out, not bent.

/// A provider's headers for the gateway's marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary {
    /// Beginnings of the names of its headers, such as "X-Mailgun-". Those of other providers are taken out.
    pub own: &'static [&'static str],
    pub tag: Option<HeaderSlot>,
    pub stream: Option<HeaderSlot>,
    pub ip_pool: Option<HeaderSlot>,
    pub metadata: Option<MetadataSlot>,
    /// Asks the provider to leave links and text as they are.
    pub no_tracking: Option<FixedSetting>,
}

impl Vocabulary {
    /// Of a server that has no headers of its own.
    pub const NONE: Self = Self { own: &[], tag: None, stream: None, ip_pool: None, metadata: None, no_tracking: None };
}

/// Where one value goes, and which values it can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderSlot {
    pub place: SlotForm,
    pub allowed: AllowedText,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotForm {
    /// A field of its own.
    Field(&'static str),
    /// A member of the JSON object in a field; in a list of one if `list`.
    Member { field: &'static str, key: &'static str, list: bool },
    /// `key=value` in a field of such pairs.
    Pair { field: &'static str, key: &'static str },
}

/// Where pairs of names and values go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataSlot {
    pub place: MetadataForm,
    pub names: AllowedText,
    pub values: AllowedText,
    /// How many at most.
    pub most: usize,
    /// Octets of the whole field's value.
    pub longest: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataForm {
    /// One field for each; its name begins so.
    FieldForEach(&'static str),
    /// A JSON object in a field of its own.
    Object(&'static str),
    /// A JSON object as a member of the one in a field.
    Member { field: &'static str, key: &'static str },
    /// `name=value, name=value`
    List(&'static str),
}

/// A fixed one.
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

/// Which texts a place can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedText {
    pub characters: AllowedCharacters,
    /// Characters.
    pub longest: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedCharacters {
    /// Letters, digits, hyphen, underscore.
    Token,
    /// Printable ASCII without the comma, which separates.
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
