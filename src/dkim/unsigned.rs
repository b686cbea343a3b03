//! `unsigned`: what happens to mail from a domain without a key. Mail is sent unsigned only if the configuration says
//! so, never because a key is missing.

use crate::smtp::Domain;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsigned {
    /// Refused with 550 at once.
    Refuse,
    Send,
    /// Sent for these domains and their subdomains, refused for all others.
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
