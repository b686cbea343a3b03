//! AUTH: the exchange of PLAIN and LOGIN up to a name and a password, and what their check leads to.
//!
//! Never compares a password; that is `auth::Users`. RFC 4954 (AUTH), RFC 4616 (PLAIN); LOGIN was never standardised,
//! its prompts are those that one of Plausible's clients compares byte for byte.

use super::lines::Line;
use super::session::{Greeted, Next, Step};
use super::{AuthMode, starttls};
use crate::observe::Secret;
use crate::smtp::Reply;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;

/// "Username:"
const USER_NAME_PROMPT: &str = "VXNlcm5hbWU6";
/// "Password:"
const PASSWORD_PROMPT: &str = "UGFzc3dvcmQ6";

/// A 334 was said; the next line answers it.
#[derive(Debug)]
pub struct Exchange {
    greeted: Greeted,
    expects: Expects,
}

#[derive(Debug)]
enum Expects {
    PlainMessage,
    LoginName,
    LoginPassword { name: Vec<u8> },
}

impl Exchange {
    pub(super) fn begin(greeted: Greeted, mechanism: &str, initial: Option<&str>) -> Step {
        if greeted.base.options.auth == AuthMode::Off {
            return refuse_on_listener_without_logins(greeted, mechanism, initial);
        }
        if greeted.client.user.is_some() {
            return greeted.bad(Reply::already_authenticated());
        }
        if !starttls::allows_auth(&greeted.base.options.tls, greeted.base.tls) {
            return greeted.bad(Reply::encryption_required_for_auth());
        }
        let exchange = match mechanism {
            "PLAIN" => Self { greeted, expects: Expects::PlainMessage },
            "LOGIN" => Self { greeted, expects: Expects::LoginName },
            _ => return greeted.bad(Reply::bad_mechanism()),
        };
        match initial {
            None => exchange.ask(),
            Some(text) => exchange.decode(text.as_bytes()),
        }
    }

    /// The client's answer to the 334.
    pub fn response(self, line: Line) -> Step {
        match line {
            Line::Refused(reply) => self.greeted.bad(reply),
            Line::Complete(line) => match line.trim_ascii() {
                b"*" => self.greeted.bad(Reply::authentication_cancelled()),
                text => self.decode(text),
            },
        }
    }

    fn ask(self) -> Step {
        let prompt = match self.expects {
            Expects::PlainMessage => "",
            Expects::LoginName => USER_NAME_PROMPT,
            Expects::LoginPassword { .. } => PASSWORD_PROMPT,
        };
        Step::new(Reply::plain(334, [prompt.to_owned()]), Next::Response(self))
    }

    fn decode(self, text: &[u8]) -> Step {
        match decode(text) {
            Some(bytes) => self.take(bytes),
            None => self.greeted.bad(Reply::bad_base64()),
        }
    }

    fn take(self, bytes: Vec<u8>) -> Step {
        let Self { greeted, expects } = self;
        match expects {
            Expects::LoginName => Self { greeted, expects: Expects::LoginPassword { name: bytes } }.ask(),
            Expects::LoginPassword { name } => check(greeted, Credentials::new(name, bytes)),
            Expects::PlainMessage => check(greeted, Credentials::from_plain(&bytes)),
        }
    }
}

// The current client of Plausible sends AUTH PLAIN when it has credentials, offered or not; Mastodon has sent it without
// any. Both get told what to change.
fn refuse_on_listener_without_logins(greeted: Greeted, mechanism: &str, initial: Option<&str>) -> Step {
    let plain = initial.filter(|_| mechanism == "PLAIN").and_then(|text| decode(text.as_bytes()));
    match plain.map(|message| Credentials::from_plain(&message)) {
        Some(Err(BadCredentials::Empty)) => greeted.login_failed(Reply::empty_credentials()),
        _ => greeted.bad(Reply::no_logins_here()),
    }
}

/// `=` stands for an empty response. RFC 4954 §4.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text == b"=" { Some(Vec::new()) } else { STANDARD.decode(text).ok() }
}

fn check(greeted: Greeted, credentials: Result<Credentials, BadCredentials>) -> Step {
    match credentials {
        Ok(credentials) => Step::silent(Next::Verify(Verification { greeted, credentials })),
        Err(BadCredentials::Empty) => greeted.login_failed(Reply::empty_credentials()),
        Err(BadCredentials::Malformed) => greeted.login_failed(Reply::authentication_failed()),
    }
}

#[derive(Debug)]
struct Credentials {
    name: String,
    password: Secret,
}

#[derive(Debug, Clone, Copy)]
enum BadCredentials {
    Empty,
    Malformed,
}

impl Credentials {
    fn new(name: Vec<u8>, password: Vec<u8>) -> Result<Self, BadCredentials> {
        if name.is_empty() || password.is_empty() {
            return Err(BadCredentials::Empty);
        }
        match (String::from_utf8(name), String::from_utf8(password)) {
            (Ok(name), Ok(password)) => Ok(Self { name, password: Secret::new(password) }),
            _ => Err(BadCredentials::Malformed),
        }
    }

    // RFC 4616 §2: [authzid] NUL authcid NUL passwd. Nobody may act for another.
    fn from_plain(message: &[u8]) -> Result<Self, BadCredentials> {
        if message.is_empty() {
            return Err(BadCredentials::Empty);
        }
        let parts: Vec<_> = message.split(|&byte| byte == 0).collect();
        match parts[..] {
            [on_behalf_of, name, password] if on_behalf_of.is_empty() || on_behalf_of == name => {
                Self::new(name.to_vec(), password.to_vec())
            }
            _ => Err(BadCredentials::Malformed),
        }
    }
}

/// Name and password are known, not yet whether they are right.
#[derive(Debug)]
pub struct Verification {
    greeted: Greeted,
    credentials: Credentials,
}

impl Verification {
    pub fn name(&self) -> &str {
        &self.credentials.name
    }

    pub fn password(&self) -> &Secret {
        &self.credentials.password
    }

    /// Too many others wait for the same; this was no guess.
    pub fn unchecked(self) -> Step {
        self.greeted.answer(Reply::logins_busy())
    }

    /// `user` if the password is right.
    pub fn verdict(self, user: Option<Arc<str>>) -> Step {
        let mut greeted = self.greeted;
        match user {
            Some(user) => {
                greeted.client.user = Some(user);
                greeted.answer(Reply::authenticated())
            }
            None => greeted.login_failed(Reply::authentication_failed()),
        }
    }
}
