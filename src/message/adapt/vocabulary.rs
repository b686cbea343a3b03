//! How a provider wants to be told a tag, a stream, metadata and an address pool: data that a preset fills in.
//!
//! Knows forms of headers, never providers. What a form cannot carry is left out, not bent.

/// A provider's words for the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary {
    /// Beginnings of the names of its headers, such as "X-Mailgun-". Those of other providers are taken out.
    pub own: &'static [&'static str],
    pub tag: Option<Word>,
    pub stream: Option<Word>,
    pub ip_pool: Option<Word>,
    pub metadata: Option<Pairs>,
    /// Asks the provider to leave links and text as they are.
    pub no_tracking: Option<Setting>,
}

impl Vocabulary {
    /// Of a server that has no headers of its own.
    pub const NONE: Self = Self { own: &[], tag: None, stream: None, ip_pool: None, metadata: None, no_tracking: None };
}

/// Where one value goes, and which values it can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    pub place: Place,
    pub allowed: Allowed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A field of its own.
    Field(&'static str),
    /// A member of the JSON object in a field; in a list of one if `list`.
    Member { field: &'static str, key: &'static str, list: bool },
    /// `key=value` in a field of such pairs.
    Pair { field: &'static str, key: &'static str },
}

/// Where pairs of names and values go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pairs {
    pub place: PairsPlace,
    pub names: Allowed,
    pub values: Allowed,
    /// How many at most.
    pub most: usize,
    /// Octets of the whole field's value.
    pub longest: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairsPlace {
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
pub enum Setting {
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
pub struct Allowed {
    pub characters: Characters,
    /// Characters.
    pub longest: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Characters {
    /// Letters, digits, hyphen, underscore.
    Token,
    /// Printable ASCII without the comma, which separates.
    NoComma,
    /// Printable ASCII.
    Ascii,
    /// Everything but control characters; only JSON carries it.
    Any,
}

impl Allowed {
    pub const fn new(characters: Characters, longest: usize) -> Self {
        Self { characters, longest }
    }

    pub fn admits(self, text: &str) -> bool {
        let admits = |c: char| match self.characters {
            Characters::Token => c.is_ascii_alphanumeric() || c == '-' || c == '_',
            Characters::NoComma => (' '..='~').contains(&c) && c != ',',
            Characters::Ascii => (' '..='~').contains(&c),
            Characters::Any => !c.is_control(),
        };
        !text.trim().is_empty() && text.chars().count() <= self.longest && text.chars().all(admits)
    }
}
