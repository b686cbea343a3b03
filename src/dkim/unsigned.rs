//! `unsigned`: what happens to a From domain without a key.
//! A decision that the configuration made by name; a key that is missing never makes it.

use crate::smtp::Domain;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsigned {
    /// 550 at once.
    Refuse,
    Send,
    /// Sent for these domains and those below them, refused for the rest.
    Domains(Vec<Domain>),
}

impl Unsigned {
    /// `None`: the author cannot be determined.
    pub fn permits(&self, domain: Option<&Domain>) -> bool {
        match self {
            Self::Refuse => false,
            Self::Send => true,
            Self::Domains(domains) => {
                domain.is_some_and(|domain| domains.iter().any(|parent| domain.is_within(parent)))
            }
        }
    }
}
