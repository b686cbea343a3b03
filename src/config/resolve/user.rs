//! `[[user]]`: applications' logins. The file itself may contain only hashes; a password may come from the environment
//! or a file.

use super::Resolver;
use super::secret::fetch;
use crate::config::file::{File, UserTable};
use crate::config::input::{Reported, Resolved, Typed};
use crate::config::problem::Place;
use crate::config::secret::SecretSource;
use crate::config::settings::UserSettings;
use crate::inbound::users::Password;
use crate::observe::Secret;
use std::collections::HashSet;

impl Resolver<'_> {
    /// Users whose name is a secret of this configuration, for example a provider's token that the application used as
    /// name and password. Names are logged.
    pub fn secret_names(&mut self, file: &File) -> Vec<Secret> {
        // Secrets are read only if needed.
        if file.users.is_empty() {
            return Vec::new();
        }
        let logins = file.upstreams.iter().flat_map(|upstream| &upstream.credentials).map(|login| &login.password);
        let upstreams = file.upstreams.iter().flat_map(|upstream| [&upstream.password, &upstream.secret_key]);
        let typed = file.users.iter().map(|user| &user.password).chain(upstreams).chain(logins);
        let fetched = |typed: &Typed<SecretSource>| fetch(typed.value()?, self.base, self.environment).ok();
        let secrets: Vec<Secret> = typed.filter_map(fetched).collect();
        let mut found = Vec::new();
        for typed in file.users.iter().map(|user| &user.name) {
            let Some(name) = typed.value().map(Secret::new).filter(|name| secrets.contains(name)) else { continue };
            self.findings
                .error(&typed.place, "`name`: it is a password or token of this configuration, and names are logged")
                .help("give the login a name of its own, and the application the same");
            found.push(name);
        }
        found
    }

    pub(super) fn users(&mut self, typed: &[UserTable]) -> Vec<UserSettings> {
        let mut taken = HashSet::new();
        typed.iter().filter_map(|user| self.user(user, &mut taken).ok()).collect()
    }

    fn user(&mut self, typed: &UserTable, taken: &mut HashSet<String>) -> Resolved<UserSettings> {
        let name = self.unique(taken, "[[user]]", &typed.name);
        let password = self.password(typed);
        let senders = self.optional_patterns("senders", &typed.senders);
        Ok(UserSettings { name: name?, password: password?, senders: senders? })
    }

    fn password(&mut self, typed: &UserTable) -> Resolved<Password> {
        let source = typed.password.value().ok_or(Reported)?;
        let place = &typed.password.place;
        let secret = match fetch(source, self.base, self.environment) {
            Ok(secret) => secret,
            Err(complaint) => {
                self.findings.error(place, format!("`password`: {}", complaint.message)).help = complaint.help;
                return Err(Reported);
            }
        };
        match Password::parse(&secret) {
            // Only a hash in the file itself, because files are copied, shown and committed.
            Ok(Password::Plain(_)) if matches!((source, place), (SecretSource::Literal(_), Place::File(_))) => {
                self.findings
                    .error(place, "`password` must be the hash of a password, not the password itself")
                    .help("make it with `waxseal user hash`");
                Err(Reported)
            }
            Ok(password) => Ok(password),
            Err(error) => {
                self.findings.error(place, format!("`password`: {error}"));
                Err(Reported)
            }
        }
    }
}
