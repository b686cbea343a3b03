//! Presets: what is known of each provider, as data. One file for each, with its sources.
//!
//! Decides nothing: configuration, relay, sealing and adapting read these tables, and no code asks which
//! provider it is.

mod gmail;
mod mailgun;
mod mandrill;
mod microsoft365;
mod postmark;
mod sandbox;
mod sendgrid;
mod ses;
mod smtp;

use super::{Port, TlsMode};
use crate::message::adapt::Vocabulary;
use crate::message::outcome::SlowDown;
use crate::rate::{Counting, Counts};

/// What is known of one provider. A configuration may tighten or override each of its values.
#[derive(Debug)]
pub struct Preset {
    /// The value of `provider = "..."`.
    pub name: &'static str,
    /// The name that people use.
    pub title: &'static str,
    pub host: Host,
    /// In the order in which they are tried if the previous one does not answer. Never empty.
    pub ports: &'static [Port],
    pub login: Login,
    pub limits: ProviderLimits,
    /// Replies that ask for a slower pace, besides 421.
    pub slow_down: &'static [SlowDown],
    pub signing: Signing,
    /// It accepts only ASCII, whatever it offers in EHLO.
    pub seven_bit_only: bool,
    /// Open and click tracking, if turned on, rewrites links and text, so only the provider's own signature stays
    /// valid.
    pub tracking_rewrites_body: bool,
    pub vocabulary: Vocabulary,
    /// Drops clients that use "localhost" or an address in EHLO.
    pub wants_real_ehlo_name: bool,
    /// Refuses `MAIL FROM:<>`, from which bounces are sent unless `bounce_sender` says otherwise.
    pub refuses_null_sender: bool,
    pub return_path: ReturnPath,
}

/// Whose domain is in the envelope of the mail that the provider sends on, which is what receivers ask SPF about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReturnPath {
    /// The sender's, so its SPF record has to permit the provider.
    Ours { spf_include: &'static str },
    /// One of the provider's, or one that is set up there.
    Providers,
    /// That depends on the server.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Set by `host`.
    Configured,
    /// Inside this process.
    Embedded,
    Fixed(&'static str),
    /// By `region`, each with its host; the first is the default.
    Regions(&'static [(&'static str, &'static str)]),
    /// `region` goes between the two and must be given.
    RegionWithin {
        before: &'static str,
        after: &'static str,
        examples: &'static str,
    },
}

/// What the login consists of. The texts complete "needs `password`: ...".
#[derive(Debug, Clone, Copy)]
pub enum Login {
    /// Both or neither.
    Optional,
    /// The user's own name and password.
    UserAndPassword { user: &'static str, password: &'static str },
    /// The name is always the same.
    FixedUser { user: &'static str, password: &'static str },
    /// Any name works; this one is used if none is given.
    AnyUser { default: &'static str, password: &'static str },
    /// One token, given as either or both.
    TokenAsBoth { token: &'static str },
    /// `password`, or derived from `secret_key` for the region.
    Derived { user: &'static str, password: &'static str, derive: fn(secret_key: &str, region: &str) -> String },
}

/// `None`: the provider states no limit, or one that the gateway need not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderLimits {
    /// Simultaneous connections.
    pub connections: Option<usize>,
    pub messages_per_connection: Option<usize>,
    /// Recipients of one transaction.
    pub recipients: Option<usize>,
    /// Octets of a message.
    pub size: Option<u64>,
    /// Written as in the configuration's `rate`.
    pub rates: &'static [&'static str],
    pub counting: Counting,
}

impl ProviderLimits {
    pub const NONE: Self = Self {
        connections: None,
        messages_per_connection: None,
        recipients: None,
        size: None,
        rates: &[],
        counting: Counting::MESSAGES,
    };
}

/// Who signs, and what a signature of ours may cover there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    Ours {
        /// Fields that the provider rewrites.
        provider_rewrites: &'static [&'static str],
        /// It refuses a second DKIM-Signature.
        one_signature: bool,
    },
    /// It rewrites mail and signs the result.
    LeftToProvider,
}

impl Signing {
    pub const OURS: Self = Self::Ours { provider_rewrites: &[], one_signature: false };
}

const MIB: u64 = 1024 * 1024;

const fn starttls(number: u16) -> Port {
    Port { number, tls: TlsMode::StartTls }
}

const fn implicit(number: u16) -> Port {
    Port { number, tls: TlsMode::Implicit }
}

/// Any server.
pub use smtp::PRESET as SMTP;

/// All of them, in the order in which they are listed to users.
pub const ALL: [&Preset; 9] = [
    &smtp::PRESET,
    &postmark::PRESET,
    &mailgun::PRESET,
    &mandrill::PRESET,
    &sendgrid::PRESET,
    &ses::PRESET,
    &gmail::PRESET,
    &microsoft365::PRESET,
    &sandbox::PRESET,
];

/// Prefixes of headers that any of the providers treats as an instruction.
pub const HEADERS: &[&str] = &["X-PM-", "X-Mailgun-", "X-MC-", "X-SMTPAPI", "X-SES-"];

/// By the name in `provider = "..."`.
pub fn named(name: &str) -> Option<&'static Preset> {
    ALL.into_iter().find(|preset| preset.name == name)
}

/// The provider to which this host belongs.
pub fn at_host(host: &str) -> Option<&'static Preset> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    ALL.into_iter().find(|preset| preset.is_at(&host))
}

impl Preset {
    /// Inside this process: there is no connection to configure.
    pub fn is_embedded(&self) -> bool {
        self.host == Host::Embedded
    }

    /// The possible regions, for people: "one of ..." or "such as ..."; `None` if it has none.
    pub fn regions(&self) -> Option<String> {
        match self.host {
            Host::Regions(regions) => {
                let names = regions.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>();
                Some(format!("one of {}", names.join(", ")))
            }
            Host::RegionWithin { examples, .. } => Some(examples.to_owned()),
            _ => None,
        }
    }

    /// The host for this region, or for the default one. `None` if more information is needed.
    pub fn host_in(&self, region: Option<&str>) -> Option<String> {
        match (self.host, region) {
            (Host::Fixed(host), _) => Some(host.to_owned()),
            (Host::Regions(regions), None) => regions.first().map(|(_, host)| (*host).to_owned()),
            (Host::Regions(regions), Some(region)) => {
                regions.iter().find(|(name, _)| *name == region).map(|(_, host)| (*host).to_owned())
            }
            (Host::RegionWithin { before, after, .. }, Some(region)) => Some(format!("{before}{region}{after}")),
            _ => None,
        }
    }

    fn is_at(&self, host: &str) -> bool {
        match self.host {
            Host::Configured | Host::Embedded => false,
            Host::Fixed(own) => host == own,
            Host::Regions(regions) => regions.iter().any(|(_, own)| host == *own),
            Host::RegionWithin { before, after, .. } => {
                host.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(|it| !it.is_empty())
            }
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod words;
