//! `[[route]]`: which mail goes where, and what happens without any route. Every name must be an upstream's; mail that
//! matches no route is never sent.

use super::Resolver;
use crate::config::file::RouteTable;
use crate::config::input::{Reported, Resolved, Typed};
use crate::config::patterns::{OneOrMore, UpstreamNames};
use crate::config::problem::Place;
use crate::config::reader::Section;
use crate::config::settings::RouteSettings;
use crate::config::suggest::nearest;
use crate::delivery::{CHOSEN, Choice, RouteConditions, UNROUTED};
use crate::message::Mark;
use crate::message::text_pattern::TextPattern;
use crate::queue::Suspension;
use std::collections::HashSet;
use std::sync::Arc;

/// The names that routes may use, in the order of the configuration.
pub(super) struct RouteNames<'a> {
    /// The first is the default.
    pub upstreams: &'a [Typed<String>],
    pub users: &'a [Arc<str>],
    /// Upstreams that rules choose, whatever the routes say.
    pub chosen: &'a [Mark],
}

impl RouteNames<'_> {
    fn upstreams(&self) -> Vec<&str> {
        self.upstreams.iter().filter_map(|name| name.value().map(String::as_str)).collect()
    }
}

impl Resolver<'_> {
    pub(super) fn routes(&mut self, typed: &[RouteTable], named: &RouteNames<'_>) -> Vec<RouteSettings> {
        if typed.is_empty() {
            let routes: Vec<_> = named.upstreams().first().map(|name| takes_all(name)).into_iter().collect();
            self.warn_about_the_unused(&routes, named);
            return routes;
        }
        let mut taken = HashSet::new();
        let count = typed.len();
        let places: Vec<_> = typed.iter().map(|route| route.place().clone()).collect();
        let routes: Vec<_> = typed.iter().filter_map(|route| self.route(route, named, &mut taken).ok()).collect();
        if routes.len() == count {
            self.warn_about_the_unused(&routes, named);
            self.warn_about_the_order(&routes, &places);
        }
        routes
    }

    fn route(
        &mut self,
        typed: &RouteTable,
        named: &RouteNames<'_>,
        taken: &mut HashSet<String>,
    ) -> Resolved<RouteSettings> {
        let name = self.unique(taken, "[[route]]", &typed.name);
        if name.as_ref().is_ok_and(|name| name.starts_with(CHOSEN)) {
            self.findings
                .error(&typed.name.place, format!("`name`: no route's name may begin with \"{CHOSEN}\""))
                .help("so begin the lanes of mail for which a rule chose the upstream");
        }
        let suspended = Suspension::ALL.map(Suspension::prefix);
        if let Ok(name) = &name
            && let Some(prefix) = suspended.iter().find(|prefix| name.starts_with(**prefix))
        {
            self.findings
                .error(&typed.name.place, format!("`name`: no route's name may begin with \"{prefix}\""))
                .help("so begin the lanes of mail that is not to be sent yet");
        }
        let senders = self.patterns("senders", &typed.senders);
        let recipients = self.patterns("recipients", &typed.recipients);
        let upstreams = self.route_upstreams(&typed.upstreams, &named.upstreams());
        self.warn_about_unknown_users(&typed.user, named.users);
        let conditions = RouteConditions {
            senders: senders?,
            recipients: recipients?,
            headers: typed.header.optional()?.map(|headers| headers.0).unwrap_or_default(),
            users: texts(&typed.user)?,
            tags: texts(&typed.tag)?,
        };
        let name = name?;
        let upstreams = upstreams?;
        let retry_refused = typed.retry_refused.get()?;
        if retry_refused && upstreams.upstreams().len() == 1 {
            self.findings
                .warning(&typed.retry_refused.place, "`retry_refused` has no effect with one upstream")
                .help("name a second one in `upstreams`");
        }
        Ok(RouteSettings { name, conditions, upstreams, retry_refused })
    }

    fn route_upstreams(&mut self, typed: &Typed<UpstreamNames>, names: &[&str]) -> Resolved<Choice<Arc<str>>> {
        let wanted = typed.value().ok_or(Reported)?;
        let mut seen = HashSet::new();
        let mut are_sound = true;
        for name in wanted.names() {
            if !names.contains(&name) {
                self.unknown_upstream("upstreams", name, typed, names);
                are_sound = false;
            } else if !seen.insert(name) {
                self.findings
                    .error(&typed.place, format!("`upstreams` names \"{name}\" twice"))
                    .help("weights say how much each gets: upstreams = { company = 3, backup = 1 }");
                are_sound = false;
            }
        }
        // Weights come in alphabetical order; equal ones are tried in the order of the configuration.
        let at = |name: &str| names.iter().position(|known| *known == name);
        if !are_sound {
            return Err(Reported);
        }
        Ok(match wanted {
            UpstreamNames::InOrder(names) => Choice::InOrder(names.iter().map(|name| name.as_str().into()).collect()),
            UpstreamNames::ByWeight(weights) => {
                let mut weights: Vec<(Arc<str>, u32)> =
                    weights.iter().map(|(name, weight)| (name.as_str().into(), *weight)).collect();
                weights.sort_by_key(|(name, _)| at(name));
                Choice::by_weight(weights)
            }
        })
    }

    pub(super) fn unknown_upstream<T>(&mut self, key: &str, name: &str, typed: &Typed<T>, names: &[&str]) {
        let help = match nearest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None if names.is_empty() => "add an [[upstream]] of that name".to_owned(),
            None => format!("there is {}", names.join(", ")),
        };
        self.findings.error(&typed.place, format!("`{key}`: there is no [[upstream]] named \"{name}\"")).help(help);
    }

    /// Mail with a login that does not exist cannot come in.
    pub(super) fn warn_about_unknown_users(&mut self, typed: &Typed<OneOrMore<TextPattern>>, users: &[Arc<str>]) {
        for pattern in typed.value().into_iter().flat_map(|patterns| &patterns.0) {
            if users.iter().any(|user| pattern.matches(user)) {
                continue;
            }
            let pattern = pattern.to_string();
            let problem = self.findings.warning(&typed.place, format!("`user`: no [[user]] fits \"{pattern}\""));
            problem.help(match nearest(&pattern, users.iter().map(AsRef::as_ref)) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "it is the name of a login: see `name` in [[user]]".to_owned(),
            });
        }
    }

    fn warn_about_the_unused(&mut self, routes: &[RouteSettings], named: &RouteNames<'_>) {
        let last_used = routes.iter().position(takes_everything).map_or(routes.len(), |at| at + 1);
        let used = routes[..last_used].iter().flat_map(|route| route.upstreams.upstreams());
        let used: HashSet<&str> = used.map(|name| &**name).chain(named.chosen.iter().map(Mark::as_str)).collect();
        for name in named.upstreams {
            if let Some(unused) = name.value().filter(|value| !used.contains(value.as_str())) {
                self.findings.warning(&name.place, format!("no route uses the upstream \"{unused}\""));
            }
        }
    }

    /// After a route that matches as much, no route can match; and one route should match everything.
    fn warn_about_the_order(&mut self, routes: &[RouteSettings], places: &[Place]) {
        for (at, (route, place)) in routes.iter().zip(places).enumerate() {
            let takes_it = |before: &&RouteSettings| takes_everything(before) || before.conditions == route.conditions;
            let Some(before) = routes[..at].iter().find(takes_it) else { continue };
            let (what, help) = if takes_everything(before) {
                ("everything", format!("put it before \"{}\"", before.name))
            } else {
                ("the same mail", "give it other conditions, or take it out".to_owned())
            };
            self.findings
                .warning(
                    place,
                    format!("the route \"{}\" is never asked: \"{}\" takes {what}", route.name, before.name),
                )
                .help(help);
        }
        if let (false, Some(place)) = (routes.iter().any(takes_everything), places.last()) {
            self.findings
                .warning(place, "mail that no route takes is not sent anywhere")
                .help("end with a route that has `name` and `upstreams` only, which takes everything");
        }
    }
}

/// The route that exists if none is configured.
fn takes_all(upstream: &str) -> RouteSettings {
    RouteSettings {
        name: UNROUTED.into(),
        conditions: RouteConditions::none(),
        upstreams: Choice::InOrder(vec![upstream.into()]),
        retry_refused: false,
    }
}

fn texts(typed: &Typed<OneOrMore<TextPattern>>) -> Resolved<Vec<TextPattern>> {
    Ok(typed.optional()?.map(|patterns| patterns.0).unwrap_or_default())
}

fn takes_everything(route: &RouteSettings) -> bool {
    route.conditions.match_everything()
}
