//! `[[route]]`: which mail goes where; and what happens without any.
//! Every name must be an upstream's; mail that no route takes is never given to one that nobody named.

use super::Resolver;
use crate::config::file::Route;
use crate::config::reader::nearest;
use crate::config::schema::{Section, Typed};
use crate::config::settings::RouteSettings;
use crate::message::SenderPatterns;
use std::collections::HashSet;
use std::sync::Arc;

/// The route that takes everything if none is configured.
const DEFAULT_ROUTE: &str = "default";

impl Resolver<'_> {
    /// `upstreams` are the names of all, the first of which is the default.
    pub(super) fn routes(&mut self, typed: Vec<Route>, upstreams: &[Typed<String>]) -> Vec<RouteSettings> {
        let names: Vec<&str> = upstreams.iter().filter_map(|name| name.value.as_deref()).collect();
        if typed.is_empty() {
            let all = |name: &str| RouteSettings {
                name: DEFAULT_ROUTE.into(),
                senders: SenderPatterns::any(),
                recipients: SenderPatterns::any(),
                upstreams: vec![name.into()],
            };
            let routes: Vec<_> = names.first().map(|name| all(name)).into_iter().collect();
            self.warn_about_the_unused(&routes, upstreams);
            return routes;
        }
        let mut taken = HashSet::new();
        let count = typed.len();
        let places: Vec<_> = typed.iter().map(|route| route.place().clone()).collect();
        let routes: Vec<_> = typed.into_iter().filter_map(|route| self.route(&route, &names, &mut taken)).collect();
        if routes.len() == count {
            self.warn_about_the_unused(&routes, upstreams);
            if let (false, Some(place)) = (routes.iter().any(takes_everything), places.last()) {
                self.findings
                    .warning(place, "mail that no route takes is not sent anywhere")
                    .help("end with a route for senders = [\"*\"] and recipients = [\"*\"]");
            }
        }
        routes
    }

    fn route(&mut self, typed: &Route, names: &[&str], taken: &mut HashSet<String>) -> Option<RouteSettings> {
        let name = self.unique(taken, "[[route]]", &typed.name);
        let senders = self.patterns("senders", &typed.senders);
        let recipients = self.patterns("recipients", &typed.recipients);
        let upstreams = self.route_upstreams(&typed.upstreams, names);
        Some(RouteSettings { name: name?, senders: senders?, recipients: recipients?, upstreams: upstreams? })
    }

    fn route_upstreams(&mut self, typed: &Typed<Vec<String>>, names: &[&str]) -> Option<Vec<Arc<str>>> {
        let wanted = typed.value.as_deref()?;
        if wanted.is_empty() {
            self.findings.error(&typed.place, "`upstreams` is an empty list").help("name at least one [[upstream]]");
            return None;
        }
        let found: Vec<Option<Arc<str>>> = wanted
            .iter()
            .map(|name| {
                let known = names.contains(&name.as_str());
                if !known {
                    self.unknown_upstream("upstreams", name, typed, names);
                }
                known.then(|| name.as_str().into())
            })
            .collect();
        found.into_iter().collect()
    }

    pub(super) fn unknown_upstream<T>(&mut self, key: &str, name: &str, typed: &Typed<T>, names: &[&str]) {
        let help = match nearest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None if names.is_empty() => "add an [[upstream]] of that name".to_owned(),
            None => format!("there is {}", names.join(", ")),
        };
        self.findings.error(&typed.place, format!("`{key}`: there is no [[upstream]] named \"{name}\"")).help(help);
    }

    fn warn_about_the_unused(&mut self, routes: &[RouteSettings], upstreams: &[Typed<String>]) {
        let last_used = routes.iter().position(takes_everything).map_or(routes.len(), |at| at + 1);
        let used = |name: &str| routes[..last_used].iter().flat_map(|route| &route.upstreams).any(|u| **u == *name);
        for name in upstreams {
            if let Some(unused) = name.value.as_deref().filter(|value| !used(value)) {
                self.findings.warning(&name.place, format!("no route leads to the upstream \"{unused}\""));
            }
        }
    }
}

fn takes_everything(route: &RouteSettings) -> bool {
    route.senders.is_any() && route.recipients.is_any()
}
