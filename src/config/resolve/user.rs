//! `[[user]]`: applications' logins.
//! In the file itself only hashes are taken; a password may come from the environment or a file.

use super::Resolver;
use crate::config::file::User;
use crate::config::problem::Place;
use crate::config::secret::SecretSource;
use crate::config::settings::UserSettings;
use crate::inbound::auth::Password;
use std::collections::HashSet;

impl Resolver<'_> {
    pub(super) fn users(&mut self, typed: Vec<User>) -> Vec<UserSettings> {
        let mut taken = HashSet::new();
        typed.into_iter().filter_map(|user| self.user(&user, &mut taken)).collect()
    }

    fn user(&mut self, typed: &User, taken: &mut HashSet<String>) -> Option<UserSettings> {
        let name = self.unique(taken, "[[user]]", &typed.name);
        let password = self.password(typed);
        let senders = self.patterns("senders", &typed.senders);
        Some(UserSettings { name: name?, password: password?, senders })
    }

    fn password(&mut self, typed: &User) -> Option<Password> {
        let (source, place) = (typed.password.value.as_ref()?, &typed.password.place);
        let secret = match source.resolve(self.base, self.environment) {
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
