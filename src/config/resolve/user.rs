//! `[[user]]`: applications' logins.
//! In the file itself only hashes are taken; a password may come from the environment or a file.

use super::Resolver;
use super::secret::fetch;
use crate::config::file::{File, UserTable};
use crate::config::input::Typed;
use crate::config::problem::Place;
use crate::config::secret::SecretSource;
use crate::config::settings::UserSettings;
use crate::inbound::users::Password;
use crate::observe::Secret;
use std::collections::HashSet;

impl Resolver<'_> {
    /// Users whose name is a secret of this configuration: a provider's token, say, that stood in the application as name
    /// and password. Names are logged.
    pub fn secret_names(&mut self, file: &File) -> Vec<Secret> {
        // No secret is fetched for nothing.
        if file.users.is_empty() {
            return Vec::new();
        }
        let logins = file.upstreams.iter().flat_map(|upstream| &upstream.credentials).map(|login| &login.password);
        let upstreams = file.upstreams.iter().flat_map(|upstream| [&upstream.password, &upstream.secret_key]);
        let typed = file.users.iter().map(|user| &user.password).chain(upstreams).chain(logins);
        let fetched = |typed: &Typed<SecretSource>| fetch(typed.value.as_ref()?, self.base, self.environment).ok();
        let secrets: Vec<Secret> = typed.filter_map(fetched).collect();
        let mut found = Vec::new();
        for Typed { value, place, .. } in file.users.iter().map(|user| &user.name) {
            let Some(name) = value.as_deref().map(Secret::new).filter(|name| secrets.contains(name)) else { continue };
            self.findings
                .error(place, "`name`: it is a password or token of this configuration, and names are logged")
                .help("give the login a name of its own, and the application the same");
            found.push(name);
        }
        found
    }

    pub(super) fn users(&mut self, typed: Vec<UserTable>) -> Vec<UserSettings> {
        let mut taken = HashSet::new();
        typed.into_iter().filter_map(|user| self.user(&user, &mut taken)).collect()
    }

    fn user(&mut self, typed: &UserTable, taken: &mut HashSet<String>) -> Option<UserSettings> {
        let name = self.unique(taken, "[[user]]", &typed.name);
        let password = self.password(typed);
        let senders = self.patterns("senders", &typed.senders);
        Some(UserSettings { name: name?, password: password?, senders })
    }

    fn password(&mut self, typed: &UserTable) -> Option<Password> {
        let (source, place) = (typed.password.value.as_ref()?, &typed.password.place);
        let secret = match fetch(source, self.base, self.environment) {
            Ok(secret) => secret,
            Err(complaint) => {
                self.findings.error(place, format!("`password`: {}", complaint.message)).help = complaint.help;
                return None;
            }
        };
        match Password::parse(&secret) {
            // In the file itself only a hash: files are copied, shown and committed.
            Ok(Password::Plain(_)) if matches!((source, place), (SecretSource::Literal(_), Place::File(_))) => {
                self.findings
                    .error(place, "`password` must be the hash of a password, not the password itself")
                    .help("make it with `waxseal user hash`");
                None
            }
            Ok(password) => Some(password),
            Err(error) => {
                self.findings.error(place, format!("`password`: {error}"));
                None
            }
        }
    }
}
