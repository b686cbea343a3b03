//! The configured users and their passwords.
//!
//! argon2 is slow on purpose, and Plausible logs in again for every mail. A verified login is therefore remembered, as
//! a keyed hash and only in memory. At most as many argon2 runs as there are cores run at once, in the order of
//! `verifiers`. Never prints a password.

pub(crate) use super::verifiers::{Busy, LoginSource};

use super::verifiers::Verifiers;
use crate::observe::Secret;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::hmac;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// In KiB. A hash that asks for more would let one login exhaust the machine.
const MOST_MEMORY: u32 = 1024 * 1024;

/// Named as in crypt(5) and PHC strings.
const OTHER_ALGORITHMS: [&str; 13] =
    ["1", "2a", "2b", "2x", "2y", "5", "6", "7", "y", "gy", "scrypt", "pbkdf2-sha256", "pbkdf2-sha512"];

/// A stored password: an argon2 hash in PHC form.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredHash(Arc<PasswordHash>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    #[error("it is a {found} hash; only argon2 is supported: make one with `waxseal user hash`")]
    OtherAlgorithm { found: &'static str },
    #[error(
        "it is not a whole argon2 hash ({reason}); make one with `waxseal user hash` and mind that `$` needs quoting in shells and compose files"
    )]
    Malformed { reason: String },
    #[error("it asks for more than 1 GiB of memory for each login")]
    TooExpensive,
}

impl StoredHash {
    /// Such as `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let malformed = |reason: &dyn fmt::Display| HashError::Malformed { reason: reason.to_string() };
        let algorithm = text.strip_prefix('$').and_then(|rest| rest.split('$').next()).unwrap_or_default();
        if !algorithm.starts_with("argon2") {
            // Any other text may be part of a password that begins with "$".
            let found = OTHER_ALGORITHMS.into_iter().find(|name| *name == algorithm).unwrap_or("foreign");
            return Err(HashError::OtherAlgorithm { found });
        }
        let hash = PasswordHash::new(text).map_err(|error| malformed(&error))?;
        Algorithm::try_from(hash.algorithm.as_str()).map_err(|error| malformed(&error))?;
        let params = Params::try_from(&hash).map_err(|error| malformed(&error))?;
        if hash.salt.is_none() || hash.hash.is_none() {
            return Err(malformed(&"salt or hash is missing"));
        }
        if params.m_cost() > MOST_MEMORY { Err(HashError::TooExpensive) } else { Ok(Self(Arc::new(hash))) }
    }

    /// Slow on purpose.
    fn of(password: &Secret) -> Self {
        // Invariant: the parameters are constants within bounds. The salt comes from the operating system, without
        // which TLS would not work either.
        #[expect(clippy::expect_used, reason = "see the invariant")]
        Self(Arc::new(owasp().hash_password(password.reveal().as_bytes()).expect("argon2 with constant parameters")))
    }

    /// Slow on purpose. The comparison takes the same time for every wrong password.
    fn matches(&self, password: &Secret) -> bool {
        owasp().verify_password(password.reveal().as_bytes(), &*self.0).is_ok()
    }
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// argon2id with 19 MiB, two passes, one lane: the smallest of OWASP's equivalent settings.
fn owasp() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

/// For `waxseal user hash`: the value of `password = "…"`.
pub fn hash_password(password: &Secret) -> String {
    StoredHash::of(password).0.to_string()
}

/// How a user's password was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    Hashed(StoredHash),
    Plain(Secret),
}

impl Password {
    /// Text of the form `$algorithm$…` is a hash and must be a valid one; anything else is the password itself.
    pub fn parse(text: &Secret) -> Result<Self, HashError> {
        let algorithm = text.reveal().strip_prefix('$').and_then(|rest| rest.split_once('$')).map(|(name, _)| name);
        let is_hash = algorithm
            .is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        if is_hash { StoredHash::parse(text.reveal()).map(Self::Hashed) } else { Ok(Self::Plain(text.clone())) }
    }
}

/// The users of a listener. Cheap to clone; clones share the remembered logins.
#[derive(Debug, Clone)]
pub struct Users(Arc<UserSet>);

#[derive(Debug)]
struct UserSet {
    users: HashMap<Arc<str>, Arc<KnownUser>>,
    /// Used for unknown users, so that guessing names takes as much time as guessing passwords.
    decoy: Option<StoredHash>,
    /// Random for each process.
    key: hmac::Key,
    verifiers: Verifiers,
}

#[derive(Debug)]
struct KnownUser {
    hash: StoredHash,
    /// Some providers use one token as name and password, and applications send it here as both.
    name_is_secret: bool,
    /// Tag of the last correct password.
    remembered: OnceLock<hmac::Tag>,
}

impl Users {
    /// Hashes the plain passwords: slow on purpose.
    pub fn new(users: impl IntoIterator<Item = (Arc<str>, Password)>) -> Self {
        let users: HashMap<_, _> = users
            .into_iter()
            .map(|(name, password)| {
                let (hash, name_is_secret) = match password {
                    Password::Hashed(hash) => (hash, false),
                    Password::Plain(password) => (StoredHash::of(&password), *name == *password.reveal()),
                };
                (name, Arc::new(KnownUser { hash, name_is_secret, remembered: OnceLock::new() }))
            })
            .collect();
        let decoy = users.values().next().map(|user| user.hash.clone());
        Self(Arc::new(UserSet { users, decoy, key: random_key(), verifiers: Verifiers::new(cores()) }))
    }

    pub fn none() -> Self {
        Self::new([])
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.users.contains_key(name)
    }

    pub fn is_empty(&self) -> bool {
        self.0.users.is_empty()
    }

    /// The user's name if name and password are right.
    pub async fn verify(&self, name: &str, password: &Secret, source: LoginSource) -> Result<Option<Arc<str>>, Busy> {
        let (name, user) = match self.0.users.get_key_value(name) {
            Some((name, user)) => (Arc::clone(name), Arc::clone(user)),
            None => {
                if let Some(decoy) = &self.0.decoy {
                    self.run(decoy.clone(), password.clone(), source, false).await?;
                }
                return Ok(None);
            }
        };
        let message = cache_key(&name, password, &user.hash);
        if let Some(tag) = user.remembered.get()
            && hmac::verify(&self.0.key, &message, tag.as_ref()).is_ok()
        {
            return Ok(Some(name));
        }
        if !self.run(user.hash.clone(), password.clone(), source, true).await? {
            return Ok(None);
        }
        user.remembered.get_or_init(|| hmac::sign(&self.0.key, &message));
        Ok(Some(name))
    }

    /// The name to log for a refused login, if it is a known user's. Any other text may be a secret: a provider's token
    /// that the application still has, or a password typed into the name field.
    pub fn loggable_name(&self, name: &str, password: &Secret) -> Option<&str> {
        let (name, user) = self.0.users.get_key_value(name)?;
        (!user.name_is_secret && **name != *password.reveal()).then_some(&**name)
    }

    /// `counts`: the hash is a user's, not the decoy.
    async fn run(&self, hash: StoredHash, password: Secret, source: LoginSource, counts: bool) -> Result<bool, Busy> {
        let turn = self.0.verifiers.allowance(source).await?;
        // Lasts until the run is over, whether or not its client is still there; a panic inside argon2 refuses the
        // login.
        let matching = tokio::task::spawn_blocking(move || (hash.matches(&password), turn));
        let (matches, turn) = matching.await.map_or((false, None), |(matches, turn)| (matches, Some(turn)));
        self.0.verifiers.note(source, matches && counts);
        drop(turn);
        Ok(matches && counts)
    }
}

fn random_key() -> hmac::Key {
    // Invariant: the operating system's random numbers; without them no TLS would work either.
    #[expect(clippy::expect_used, reason = "see the invariant")]
    hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new()).expect("random numbers")
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Name, password and stored hash, each preceded by its length, so that no two triples give the same bytes.
fn cache_key(name: &str, password: &Secret, hash: &StoredHash) -> Vec<u8> {
    let mut message = Vec::new();
    for part in [name, password.reveal(), &hash.0.to_string()] {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part.as_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: LoginSource =
        LoginSource { address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), is_known: true };

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    fn users() -> Users {
        let hash = StoredHash::parse(&hash_password(&secret("geheim:ß1"))).expect("our own hash");
        Users::new([("plausible".into(), Password::Hashed(hash)), ("plain".into(), Password::Plain(secret("p")))])
    }

    #[tokio::test]
    async fn right_wrong_and_unknown() {
        let users = users();
        for (name, password, expected) in [
            ("plausible", "geheim:ß1", Some("plausible")),
            ("plausible", "geheim:ß1", Some("plausible")),
            ("plausible", "geheim", None),
            ("plausible", "p", None),
            ("Plausible", "geheim:ß1", None),
            ("plain", "p", Some("plain")),
            ("nobody", "p", None),
            ("", "", None),
        ] {
            let found = users.verify(name, &secret(password), HERE).await.expect("nobody else is there");
            assert_eq!(found.as_deref(), expected, "{name}");
        }
        assert_eq!(Users::none().verify("x", &secret("y"), HERE).await, Ok(None));
    }

    #[tokio::test]
    async fn a_remembered_login_runs_no_argon2() {
        let users = users();
        assert_eq!(users.verify("plain", &secret("p"), HERE).await, Ok(Some("plain".into())));
        let mut runs = Vec::new();
        for _ in 0..cores() {
            runs.push(users.0.verifiers.allowance(HERE).await.expect("a free one"));
        }
        assert_eq!(users.verify("plain", &secret("p"), HERE).await, Ok(Some("plain".into())), "remembered");
        for (name, password) in [("plain", "q"), ("plausible", "geheim:ß1")] {
            let password = secret(password);
            let waits = users.verify(name, &password, HERE);
            let free = tokio::task::yield_now();
            tokio::select! {
                biased;
                _ = waits => panic!("{name} was not remembered"),
                () = free => {}
            }
        }
    }

    #[test]
    fn a_refused_login_is_logged_with_a_users_name_and_nothing_else() {
        let both = ("token".into(), Password::Plain(secret("token")));
        let users = Users::new([("plausible".into(), Password::Plain(secret("geheim"))), both]);
        for (name, password, shown) in [
            ("plausible", "wrong", Some("plausible")),
            ("plausible", "plausible", None),
            ("token", "wrong", None),
            ("pm-token-1234", "pm-token-1234", None),
            ("Plausible", "wrong", None),
        ] {
            assert_eq!(users.loggable_name(name, &secret(password)), shown, "{name} {password}");
        }
    }

    #[test]
    fn hashes_are_checked_when_the_configuration_is_read() {
        let good = hash_password(&secret("x"));
        assert!(good.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{good}");
        assert!(matches!(Password::parse(&secret(&good)), Ok(Password::Hashed(_))));
        for (text, word) in [
            ("$2b$12$abcdefghijklmnopqrstuv", "2b"),
            ("$6$salt$hash", "a 6 hash; only argon2"),
            ("$ecret$word", "a foreign hash"),
            ("$argon2id$v=19$m=19456", "not a whole"),
            (&good[..good.len() - 50], "not a whole"),
            ("$argon2id$v=19$m=4000000,t=2,p=1$c29tZXNhbHQ$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI", "1 GiB"),
        ] {
            let error = Password::parse(&secret(text)).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        for plain in ["secret", "$ecret", "$$", "$ a$b", ""] {
            assert_eq!(Password::parse(&secret(plain)), Ok(Password::Plain(secret(plain))));
        }
    }

    #[test]
    fn nothing_prints_a_password() {
        let printed = format!("{:?} {:?}", users(), Password::Plain(secret("geheim:ß1")));
        assert!(!printed.contains("geheim") && !printed.contains("argon2id"), "{printed}");
    }
}
