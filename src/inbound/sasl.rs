//! AUTH: the PLAIN and LOGIN exchanges up to a name and a password, and the reply to their check.
//!
//! Never compares a password; `auth::Users` does. RFC 4954 (AUTH), RFC 4616 (PLAIN). LOGIN was never standardised; its
//! prompts are those that one of Plausible's clients compares byte for byte.

use super::lines::InputLine;
use super::session::{Greeted, SessionAction, SessionStep};
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

/// A 334 was sent; the next line answers it.
#[derive(Debug)]
pub struct SaslExchange {
    greeted: Greeted,
    expects: SaslState,
}

#[derive(Debug)]
enum SaslState {
    PlainMessage,
    LoginName,
    LoginPassword { name: Vec<u8> },
}

impl SaslExchange {
    pub(super) fn begin(greeted: Greeted, mechanism: &str, initial: Option<&str>) -> SessionStep {
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
            "PLAIN" => Self { greeted, expects: SaslState::PlainMessage },
            "LOGIN" => Self { greeted, expects: SaslState::LoginName },
            _ => return greeted.bad(Reply::bad_mechanism()),
        };
        match initial {
            None => exchange.ask(),
            Some(text) => exchange.decode(text.as_bytes()),
        }
    }

    /// The client's answer to the 334.
    pub fn response(self, line: InputLine) -> SessionStep {
        match line {
            InputLine::Refused(reply) => self.greeted.bad(reply),
            InputLine::Complete(line) => match line.trim_ascii() {
                b"*" => self.greeted.bad(Reply::authentication_cancelled()),
                text => self.decode(text),
            },
        }
    }

    fn ask(self) -> SessionStep {
        let prompt = match self.expects {
            SaslState::PlainMessage => "",
            SaslState::LoginName => USER_NAME_PROMPT,
            SaslState::LoginPassword { .. } => PASSWORD_PROMPT,
        };
        SessionStep::new(Reply::plain(334, [prompt.to_owned()]), SessionAction::Response(self))
    }

    fn decode(self, text: &[u8]) -> SessionStep {
        match decode(text) {
            Some(bytes) => self.take(bytes),
            None => self.greeted.bad(Reply::bad_base64()),
        }
    }

    fn take(self, bytes: Vec<u8>) -> SessionStep {
        let Self { greeted, expects } = self;
        match expects {
            SaslState::LoginName => Self { greeted, expects: SaslState::LoginPassword { name: bytes } }.ask(),
            SaslState::LoginPassword { name } => check(greeted, SaslCredentials::new(name, bytes)),
            SaslState::PlainMessage => check(greeted, SaslCredentials::from_plain(&bytes)),
        }
    }
}

// Plausible's current client sends AUTH PLAIN whenever it has credentials, even if it is not offered; Mastodon has sent
// it without any. Both get a reply that says what to change.
fn refuse_on_listener_without_logins(greeted: Greeted, mechanism: &str, initial: Option<&str>) -> SessionStep {
    let plain = initial.filter(|_| mechanism == "PLAIN").and_then(|text| decode(text.as_bytes()));
    match plain.map(|message| SaslCredentials::from_plain(&message)) {
        Some(Err(BadSaslCredentials::Empty)) => greeted.login_failed(Reply::empty_credentials()),
        _ => greeted.bad(Reply::no_logins_here()),
    }
}

/// `=` stands for an empty response. RFC 4954 §4.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text == b"=" { Some(Vec::new()) } else { STANDARD.decode(text).ok() }
}

fn check(greeted: Greeted, credentials: Result<SaslCredentials, BadSaslCredentials>) -> SessionStep {
    match credentials {
        Ok(credentials) => SessionStep::silent(SessionAction::Verify(PasswordCheck { greeted, credentials })),
        Err(BadSaslCredentials::Empty) => greeted.login_failed(Reply::empty_credentials()),
        Err(BadSaslCredentials::Malformed) => greeted.login_failed(Reply::authentication_failed()),
    }
}

#[derive(Debug)]
struct SaslCredentials {
    name: String,
    password: Secret,
}

#[derive(Debug, Clone, Copy)]
enum BadSaslCredentials {
    Empty,
    Malformed,
}

impl SaslCredentials {
    fn new(name: Vec<u8>, password: Vec<u8>) -> Result<Self, BadSaslCredentials> {
        if name.is_empty() || password.is_empty() {
            return Err(BadSaslCredentials::Empty);
        }
        match (String::from_utf8(name), String::from_utf8(password)) {
            (Ok(name), Ok(password)) => Ok(Self { name, password: Secret::new(password) }),
            _ => Err(BadSaslCredentials::Malformed),
        }
    }

    // RFC 4616 §2: [authzid] NUL authcid NUL passwd. Nobody may act for another.
    fn from_plain(message: &[u8]) -> Result<Self, BadSaslCredentials> {
        if message.is_empty() {
            return Err(BadSaslCredentials::Empty);
        }
        let parts: Vec<_> = message.split(|&byte| byte == 0).collect();
        match parts[..] {
            [on_behalf_of, name, password] if on_behalf_of.is_empty() || on_behalf_of == name => {
                Self::new(name.to_vec(), password.to_vec())
            }
            _ => Err(BadSaslCredentials::Malformed),
        }
    }
}

/// Name and password were received but not verified yet.
#[derive(Debug)]
pub struct PasswordCheck {
    greeted: Greeted,
    credentials: SaslCredentials,
}

impl PasswordCheck {
    pub fn name(&self) -> &str {
        &self.credentials.name
    }

    pub fn password(&self) -> &Secret {
        &self.credentials.password
    }

    /// Too many logins are waiting; this does not count as a guess.
    pub fn unchecked(self) -> SessionStep {
        self.greeted.answer(Reply::logins_busy())
    }

    /// `user` if the password is right.
    pub fn verdict(self, user: Option<Arc<str>>) -> SessionStep {
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
