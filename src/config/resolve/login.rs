//! The login of an `[[upstream]]`: which of `username`, `password` and `secret_key` its provider wants, by the preset's data.
//! No message quotes a secret.

use super::Resolver;
use crate::config::file::Upstream;
use crate::config::problem::Place;
use crate::config::schema::{Section, Typed};
use crate::config::secret::SecretSource;
use crate::observe::Secret;
use crate::relay::Credentials;
use crate::relay::provider::{Login, Preset};

impl Resolver<'_> {
    /// The outer `None` after a problem, the inner one for no login.
    pub(super) fn credentials(&mut self, typed: &Upstream, preset: &Preset) -> Option<Option<Credentials>> {
        self.warn_about_shell_syntax(typed);
        if typed.secret_key.given && !matches!(preset.login, Login::Derived { .. }) {
            self.findings
                .error(
                    &typed.secret_key.place,
                    format!("`secret_key` means nothing with provider = \"{}\"", preset.name),
                )
                .help("its login is `username` and `password`");
            return None;
        }
        // A host of one's own, such as a relay that knows its clients by their address, may ask for none.
        let none = ![typed.username.given, typed.password.given, typed.secret_key.given].contains(&true);
        if none && (typed.host.given || matches!(preset.login, Login::Optional)) {
            return Some(None);
        }
        let username = self.username(typed, preset);
        let password = self.login_password(typed, preset);
        let (username, password) = (username?, password?);
        let username = username.unwrap_or_else(|| password.reveal().to_owned());
        Some(Some(Credentials { username, password }))
    }

    /// The inner `None`: the password serves as the name, too.
    fn username(&mut self, typed: &Upstream, preset: &Preset) -> Option<Option<String>> {
        let given = &typed.username;
        let wanted = match preset.login {
            Login::AnyUser { default, .. } if !given.given => return Some(Some(default.to_owned())),
            Login::FixedUser { user, .. } if !given.given => return Some(Some(user.to_owned())),
            Login::FixedUser { user, .. } if given.value.as_deref() != Some(user) => {
                self.findings
                    .error(&given.place, format!("`username`: {} always has \"{user}\" here", preset.title))
                    .help(format!("write username = \"{user}\", or leave it out; the key itself is `password`"));
                return None;
            }
            Login::TokenAsBoth { .. } if !given.given => return Some(None),
            Login::UserAndPassword { user, .. } | Login::Derived { user, .. } => user,
            _ => "",
        };
        if !given.given {
            self.missing_login(typed, preset, "username", wanted);
        }
        given.value.clone().map(Some)
    }

    fn login_password(&mut self, typed: &Upstream, preset: &Preset) -> Option<Secret> {
        let (Login::UserAndPassword { password, .. }
        | Login::FixedUser { password, .. }
        | Login::AnyUser { password, .. }
        | Login::TokenAsBoth { token: password }
        | Login::Derived { password, .. }) = preset.login
        else {
            return self.needed_secret(typed, preset, "");
        };
        let Login::Derived { derive, .. } = preset.login else { return self.needed_secret(typed, preset, password) };
        if !typed.secret_key.given {
            return self.needed_secret(typed, preset, password);
        }
        if typed.password.given {
            self.findings
                .error(&typed.secret_key.place, "`secret_key` and `password` are two ways to say the same")
                .help("leave `password` out: it is made from the secret key");
            return None;
        }
        let secret = self.secret("secret_key", &typed.secret_key)?;
        if !typed.region.given {
            self.findings
                .error(&typed.secret_key.place, "`secret_key` needs `region`: the password is another in each")
                .help(format!("add region = \"...\", {}", preset.regions().unwrap_or_default()));
        }
        Some(Secret::new(derive(secret.reveal(), typed.region.value.as_deref()?)))
    }

    fn needed_secret(&mut self, typed: &Upstream, preset: &Preset, what: &str) -> Option<Secret> {
        if !typed.password.given {
            self.missing_login(typed, preset, "password", what);
        }
        self.secret("password", &typed.password)
    }

    /// `what`: the provider's word for it, if it has one.
    fn missing_login(&mut self, typed: &Upstream, preset: &Preset, key: &str, what: &str) {
        if let Login::Optional = preset.login {
            let other = if key == "password" { &typed.username.place } else { &typed.password.place };
            self.findings.error(other, format!("a login needs `{key}` too")).help("give both, or neither");
            return;
        }
        let example = if key == "password" { "{ env = \"NAME\" }" } else { "\"...\"" };
        self.findings
            .error(typed.place(), format!("[[upstream]] with provider = \"{}\" needs `{key}`", preset.name))
            .help(format!("add `{key} = {example}`: {what}"));
    }

    fn secret(&mut self, key: &str, typed: &Typed<SecretSource>) -> Option<Secret> {
        match typed.value.as_ref()?.resolve(self.base, self.environment) {
            Ok(secret) => Some(secret),
            Err(complaint) => {
                self.findings.error(&typed.place, format!("`{key}`: {}", complaint.message)).help = complaint.help;
                None
            }
        }
    }

    /// `password = "$RELAY_PASSWORD"` is nothing but these characters here. They are not repeated: they may be right.
    fn warn_about_shell_syntax(&mut self, typed: &Upstream) {
        for (key, secret) in [("password", &typed.password), ("secret_key", &typed.secret_key)] {
            self.warn_if_it_looks_like_a_variable(key, secret.value.as_ref(), &secret.place);
        }
    }

    fn warn_if_it_looks_like_a_variable(&mut self, key: &str, source: Option<&SecretSource>, place: &Place) {
        let Some(SecretSource::Literal(secret)) = source else { return };
        let name = secret.reveal().strip_prefix('$').map(|rest| rest.trim_matches(['{', '}']));
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b"_0123456789".contains(&b))
        };
        if name.is_some_and(is_name) {
            self.findings
                .warning(place, format!("`{key}` looks like a variable, but is taken as it stands"))
                .help("write { env = \"NAME\" }");
        }
    }
}
