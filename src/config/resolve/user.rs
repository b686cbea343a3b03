//! `[[user]]`: applications' logins. The file itself may contain only hashes; a password may come from the environment
//! or a file.

use super::Resolver;
use super::secret::fetch;
use crate::config::file::{DeliveryMode, File, ListenerTable, UserTable};
use crate::config::input::{Reported, Resolved, Typed};
use crate::config::problem::Place;
use crate::config::rates::Rates;
use crate::config::secret::SecretSource;
use crate::config::settings::{SubmissionRateSettings, UserSettings};
use crate::inbound::OverRate;
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
        let rate = self.submission_rate(&typed.rate, &typed.over_rate);
        Ok(UserSettings { name: name?, password: password?, senders: senders?, rate: rate? })
    }

    /// `None`: no limit.
    pub(super) fn submission_rate(
        &mut self,
        rate: &Typed<Rates>,
        over: &Typed<OverRate>,
    ) -> Resolved<Option<SubmissionRateSettings>> {
        let rates = rate.optional()?.map(|rates| rates.0).unwrap_or_default();
        let over_rate = over.get()?;
        if rates.is_empty() && over.is_given() {
            self.findings.warning(&over.place, "`over_rate` has no effect without `rate`").help("add a `rate`");
        }
        Ok((!rates.is_empty()).then_some(SubmissionRateSettings { rates, over: over_rate }))
    }

    /// Where every client waits for the provider's reply, a user's mail cannot wait.
    pub(super) fn check_waiting_users(&mut self, users: &[UserTable], listeners: &[ListenerTable]) {
        let is_direct = |listener: &ListenerTable| listener.delivery.value() == Some(&DeliveryMode::Direct);
        let waits = |user: &&UserTable| user.over_rate.value() == Some(&OverRate::Wait) && user.rate.is_given();
        for user in users.iter().filter(waits) {
            if listeners.iter().all(is_direct) {
                self.findings
                    .error(&user.over_rate.place, "mail cannot wait where its client waits for the provider's reply")
                    .help("give a listener delivery = \"queue\", or set over_rate = \"refuse\"");
            } else if listeners.iter().any(is_direct) {
                self.findings
                    .warning(
                        &user.over_rate.place,
                        "on listeners with delivery = \"direct\" mail over the rate is refused",
                    )
                    .help("set over_rate = \"refuse\" if that is meant");
            }
        }
    }

    fn password(&mut self, typed: &UserTable) -> Resolved<Password> {
        let source = typed.password.value().ok_or(Reported)?;
        let place = &typed.password.place;
        let secret = match self.read_secret(source) {
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
