//! The logins of an `[[upstream]]`, its own and those of single domains: which of `username`, `password` and
//! `secret_key` its provider needs, by the preset's data. No message quotes a secret.

use super::Resolver;
use crate::config::file::{UpstreamLoginTable, UpstreamTable};
use crate::config::input::{Reported, Resolved, Typed};
use crate::config::problem::Place;
use crate::config::reader::Section;
use crate::config::secret::SecretSource;
use crate::dkim::dns_domain;
use crate::observe::Secret;
use crate::relay::Credentials;
use crate::relay::provider::{Login, Preset};
use std::collections::HashSet;

/// The keys that form one login.
struct LoginKeys<'a> {
    /// The table's, as in `[[upstream]]`.
    title: String,
    place: &'a Place,
    username: &'a Typed<String>,
    password: &'a Typed<SecretSource>,
    secret_key: Option<&'a Typed<SecretSource>>,
    region: Option<&'a Typed<String>>,
}

impl<'a> LoginKeys<'a> {
    fn of(typed: &'a UpstreamTable) -> Self {
        Self {
            title: UpstreamTable::TABLE.title(),
            place: typed.place(),
            username: &typed.username,
            password: &typed.password,
            secret_key: Some(&typed.secret_key),
            region: Some(&typed.region),
        }
    }

    fn of_login(typed: &'a UpstreamLoginTable) -> Self {
        Self {
            title: UpstreamLoginTable::TABLE.title(),
            place: typed.place(),
            username: &typed.username,
            password: &typed.password,
            secret_key: None,
            region: None,
        }
    }
}

impl Resolver<'_> {
    /// `None` for no login.
    pub(super) fn credentials(&mut self, typed: &UpstreamTable, preset: &Preset) -> Resolved<Option<Credentials>> {
        self.warn_if_it_looks_like_a_variable("password", &typed.password);
        self.warn_if_it_looks_like_a_variable("secret_key", &typed.secret_key);
        if typed.secret_key.is_given() && !matches!(preset.login, Login::Derived { .. }) {
            self.findings
                .error(
                    &typed.secret_key.place,
                    format!("`secret_key` means nothing with provider = \"{}\"", preset.name),
                )
                .help("its login is `username` and `password`");
            return Err(Reported);
        }
        // A host of the user's own, such as a relay that knows its clients by their address, may need no login.
        let none = ![typed.username.is_given(), typed.password.is_given(), typed.secret_key.is_given()].contains(&true);
        if none && (typed.host.is_given() || matches!(preset.login, Login::Optional) || !typed.credentials.is_empty()) {
            return Ok(None);
        }
        self.whole_login(&LoginKeys::of(typed), preset).map(Some)
    }

    /// By domain in DNS spelling.
    pub(super) fn logins(&mut self, typed: &UpstreamTable, preset: &Preset) -> Resolved<Vec<(String, Credentials)>> {
        let mut taken = HashSet::new();
        let logins = typed.credentials.iter().map(|login| {
            self.warn_if_it_looks_like_a_variable("password", &login.password);
            let domain = self.login_domain(login, &mut taken);
            let credentials = self.whole_login(&LoginKeys::of_login(login), preset);
            Ok((domain?, credentials?))
        });
        logins.collect::<Vec<_>>().into_iter().collect()
    }

    fn login_domain(&mut self, typed: &UpstreamLoginTable, taken: &mut HashSet<String>) -> Resolved<String> {
        let domain = typed.domain.value().ok_or(Reported)?;
        match dns_domain(domain) {
            Ok(domain) if taken.insert(domain.clone()) => Ok(domain),
            Ok(domain) => {
                self.findings
                    .error(&typed.domain.place, format!("this upstream has another login for {domain}"))
                    .help("give each domain one");
                Err(Reported)
            }
            Err(error) => {
                self.findings.error(&typed.domain.place, format!("`domain`: {error}"));
                Err(Reported)
            }
        }
    }

    fn whole_login(&mut self, keys: &LoginKeys<'_>, preset: &Preset) -> Resolved<Credentials> {
        let username = self.username(keys, preset);
        let password = self.login_password(keys, preset);
        let username = username?;
        let (password, secret_key) = password?;
        let username = username.unwrap_or_else(|| password.reveal().to_owned());
        Ok(Credentials { username, password, secret_key })
    }

    /// `None`: the password is also the name.
    fn username(&mut self, keys: &LoginKeys<'_>, preset: &Preset) -> Resolved<Option<String>> {
        let typed = keys.username;
        let wanted = match preset.login {
            Login::AnyUser { default, .. } if !typed.is_given() => return Ok(Some(default.to_owned())),
            Login::FixedUser { user, .. } if !typed.is_given() => return Ok(Some(user.to_owned())),
            Login::FixedUser { user, .. } if typed.value().is_none_or(|name| name != user) => {
                self.findings
                    .error(&typed.place, format!("`username`: {} always has \"{user}\" here", preset.title))
                    .help(format!("write username = \"{user}\", or leave it out; the key itself is `password`"));
                return Err(Reported);
            }
            Login::TokenAsBoth { .. } if !typed.is_given() => return Ok(None),
            Login::UserAndPassword { user, .. } | Login::Derived { user, .. } => user,
            _ => "",
        };
        if !typed.is_given() {
            self.missing_login(keys, preset, "username", wanted);
        }
        typed.get().map(Some)
    }

    /// Also returns the secret key from which it was derived.
    fn login_password(&mut self, keys: &LoginKeys<'_>, preset: &Preset) -> Resolved<(Secret, Option<Secret>)> {
        let (Login::UserAndPassword { password, .. }
        | Login::FixedUser { password, .. }
        | Login::AnyUser { password, .. }
        | Login::TokenAsBoth { token: password }
        | Login::Derived { password, .. }) = preset.login
        else {
            return self.needed_secret(keys, preset, "");
        };
        let Login::Derived { derive, .. } = preset.login else { return self.needed_secret(keys, preset, password) };
        let Some(secret_key) = keys.secret_key.filter(|secret_key| secret_key.is_given()) else {
            return self.needed_secret(keys, preset, password);
        };
        if keys.password.is_given() {
            self.findings
                .error(&secret_key.place, "`secret_key` and `password` are two ways to say the same")
                .help("leave `password` out: it is made from the secret key");
            return Err(Reported);
        }
        let secret = self.secret("secret_key", secret_key)?;
        let region = keys.region.filter(|region| region.is_given());
        if region.is_none() {
            self.findings
                .error(&secret_key.place, "`secret_key` needs `region`: the password is another in each")
                .help(format!("add region = \"...\", {}", preset.regions().unwrap_or_default()));
        }
        let region = region.ok_or(Reported)?.get()?;
        Ok((Secret::new(derive(secret.reveal(), &region)), Some(secret)))
    }

    fn needed_secret(
        &mut self,
        keys: &LoginKeys<'_>,
        preset: &Preset,
        what: &str,
    ) -> Resolved<(Secret, Option<Secret>)> {
        if !keys.password.is_given() {
            self.missing_login(keys, preset, "password", what);
        }
        Ok((self.secret("password", keys.password)?, None))
    }

    /// `what`: the provider's term for it, if it has one.
    fn missing_login(&mut self, keys: &LoginKeys<'_>, preset: &Preset, key: &str, what: &str) {
        if let Login::Optional = preset.login {
            let other = if key == "password" { &keys.username.place } else { &keys.password.place };
            self.findings.error(other, format!("a login needs `{key}` too")).help("give both, or neither");
            return;
        }
        let example = if key == "password" { "{ env = \"NAME\" }" } else { "\"...\"" };
        self.findings
            .error(keys.place, format!("{} with provider = \"{}\" needs `{key}`", keys.title, preset.name))
            .help(format!("add `{key} = {example}`: {what}"));
    }

    fn secret(&mut self, key: &str, typed: &Typed<SecretSource>) -> Resolved<Secret> {
        match self.read_secret(typed.value().ok_or(Reported)?) {
            // RFC 4616 §2 forbids these, and the relay would refuse them at every try.
            Ok(secret) if secret.reveal().contains(['\r', '\n', '\0']) => {
                self.findings
                    .error(&typed.place, format!("`{key}`: it holds a line break or NUL, which no login can carry"))
                    .help("one line break at the end of a file is not part of a secret; there are more");
                Err(Reported)
            }
            Ok(secret) => Ok(secret),
            Err(complaint) => {
                self.findings.error(&typed.place, format!("`{key}`: {}", complaint.message)).help = complaint.help;
                Err(Reported)
            }
        }
    }

    /// `password = "$RELAY_PASSWORD"` means exactly these characters here. They are not repeated, because they may be
    /// right.
    fn warn_if_it_looks_like_a_variable(&mut self, key: &str, typed: &Typed<SecretSource>) {
        let Some(SecretSource::Literal(secret)) = typed.value() else { return };
        let name = secret.reveal().strip_prefix('$').map(|rest| rest.trim_matches(['{', '}']));
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b"_0123456789".contains(&b))
        };
        if name.is_some_and(is_name) {
            self.findings
                .warning(&typed.place, format!("`{key}` looks like a variable, but is used literally"))
                .help("write { env = \"NAME\" }");
        }
    }
}
