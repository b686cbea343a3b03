//! `[[rewrite]]`: turns keys into [`Rules`], and finds mistakes that only show when keys are combined. Every name must
//! be known: a rule for a listener that does not exist would silently do nothing.

use super::Resolver;
use crate::config::input::{Reported, Resolved, Typed};
use crate::config::maps::OrderedPairs;
use crate::config::patterns::OneOrMore;
use crate::config::problem::Place;
use crate::config::reader::Section;
use crate::config::rewrite::{Addable, AddressTarget, HeaderText, RewriteTable};
use crate::config::settings::DkimSettings;
use crate::config::value::PatternText;
use crate::dkim::Unsigned;
use crate::message::rewrite::{AddressMap, ListUnsubscribe, Rule, RuleActions, RuleConditions, Rules};
use crate::message::{Mark, SenderPatterns};
use crate::smtp::Domain;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// The names that rules can refer to.
pub(super) struct KnownNames<'a> {
    pub listeners: &'a [SocketAddr],
    pub users: &'a [Arc<str>],
    pub upstreams: &'a [Typed<String>],
    pub dkim: &'a [DkimSettings],
    /// `None` after a problem, and if every upstream's provider signs.
    pub unsigned: Option<&'a Unsigned>,
}

impl Resolver<'_> {
    pub(super) fn rules(&mut self, typed: &[RewriteTable], known: &KnownNames<'_>) -> Resolved<Rules> {
        let mut taken = HashSet::new();
        let rules: Vec<Resolved<Rule>> = typed
            .iter()
            .enumerate()
            .map(|(index, rewrite)| {
                let name = if rewrite.name.is_given() {
                    self.unique(&mut taken, "[[rewrite]]", &rewrite.name)
                } else {
                    Ok(format!("rewrite {}", index + 1).into())
                };
                let TypedActions { actions, given, has_problem } = TypedActions::of(rewrite);
                let actions = if has_problem { Err(Reported) } else { Ok(actions) };
                self.check_actions(rewrite, &given);
                let conditions = self.conditions(rewrite, known);
                self.check_upstream("upstream", &rewrite.upstream, known.upstreams);
                if let Some(author) = rewrite.set_from.value() {
                    self.warn_about_a_missing_key(&rewrite.set_from.place, author.address.domain(), known);
                }
                Ok(Rule { name: name?, conditions: conditions?, actions: actions? })
            })
            .collect();
        let rules: Vec<Rule> = rules.into_iter().collect::<Resolved<_>>()?;
        self.warn_about_the_unreachable(&rules, typed);
        Ok(Rules(rules.into()))
    }

    /// Keys that have no effect, or that cannot be combined.
    fn check_actions(&mut self, typed: &RewriteTable, given: &[(&'static str, Place)]) {
        let ends = RuleActions::ending_keys().map(|key| given.iter().find(|(name, _)| *name == key));
        if given.is_empty() {
            self.findings.error(typed.place(), "this rule does nothing").help(
                "add an action, such as `set_from`, `tag` or `last = true`; `waxseal check --defaults` has them all",
            );
        }
        for (end, place) in ends.flatten() {
            let others =
                given.iter().filter(|(name, _)| name != end && *name != "last").map(|(name, _)| format!("`{name}`"));
            let others = others.collect::<Vec<_>>().join(", ");
            if !others.is_empty() {
                self.findings
                    .error(place, format!("`{end}` leaves nothing for {others} to act on"))
                    .help("take the other actions out, or put them into a rule of their own for other mail");
                break;
            }
        }
        for (key, switch, needed, is_there) in [
            ("one_click", &typed.one_click, "list_unsubscribe", typed.list_unsubscribe.is_given()),
            ("keep_from_as_reply_to", &typed.keep_from_as_reply_to, "set_from", typed.set_from.is_given()),
        ] {
            if switch.value() == Some(&true) && !is_there {
                self.findings
                    .error(&switch.place, format!("`{key}` means nothing without `{needed}`"))
                    .help(format!("add `{needed}`, or take `{key}` out"));
            }
        }
        let larger = typed.larger_than.value();
        let smaller = typed.smaller_than.value();
        if larger.zip(smaller).is_some_and(|(larger, smaller)| larger >= smaller) {
            self.findings
                .error(&typed.smaller_than.place, "no message is smaller than this and larger than `larger_than`");
        }
    }

    fn conditions(&mut self, typed: &RewriteTable, known: &KnownNames<'_>) -> Resolved<RuleConditions> {
        let senders = self.optional_patterns("senders", &typed.senders);
        let recipients = self.optional_patterns("recipients", &typed.recipients);
        let from = self.optional_patterns("from", &typed.from);
        let listeners = self.known_listeners(&typed.listener, known.listeners);
        self.warn_about_unknown_users(&typed.user, known.users);
        Ok(RuleConditions {
            senders: senders?,
            recipients: recipients?,
            from: from?,
            headers: typed.header.optional()?.map_or_else(Vec::new, |headers| headers.0),
            listeners: listeners?,
            users: typed.user.optional()?.map_or_else(Vec::new, |users| users.0),
            larger_than: typed.larger_than.optional()?.map(|size| size.0),
            smaller_than: typed.smaller_than.optional()?.map(|size| size.0),
            body_contains: typed.body_contains.optional()?,
        })
    }

    fn known_listeners(
        &mut self,
        typed: &Typed<OneOrMore<SocketAddr>>,
        listeners: &[SocketAddr],
    ) -> Resolved<Vec<Arc<str>>> {
        let wanted = typed.optional()?.map_or_else(Vec::new, |wanted| wanted.0);
        for unknown in wanted.iter().filter(|wanted| !listeners.contains(wanted)) {
            let there: Vec<String> = listeners.iter().map(ToString::to_string).collect();
            self.findings
                .error(&typed.place, format!("`listener`: there is no [[listener]] with the address {unknown}"))
                .help(format!("there is {}", there.join(", ")));
        }
        Ok(wanted.iter().map(|address| address.to_string().into()).collect())
    }

    pub(super) fn check_upstream(&mut self, key: &str, typed: &Typed<Mark>, upstreams: &[Typed<String>]) {
        let names: Vec<&str> = upstreams.iter().filter_map(|name| name.value().map(String::as_str)).collect();
        if let Some(unknown) = typed.value().filter(|wanted| !names.contains(&wanted.as_str())) {
            self.unknown_upstream(key, unknown.as_str(), typed, &names);
        }
    }

    /// The rewritten message is checked with its new author.
    pub(super) fn warn_about_a_missing_key(&mut self, place: &Place, domain: &Domain, known: &KnownNames<'_>) {
        let Some(unsigned) = known.unsigned else { return };
        if known.dkim.iter().any(|key| domain.is_within(&key.domain)) {
            return;
        }
        let (consequence, help) = if unsigned.permits(Some(domain)) {
            ("is sent unsigned", format!("add a [[dkim]] table for {domain}"))
        } else {
            ("is refused", format!("add a [[dkim]] table for {domain}, or list it in `unsigned`"))
        };
        if known.dkim.is_empty() && unsigned.permits(Some(domain)) {
            return;
        }
        self.findings.warning(place, format!("mail with this From {consequence}: {domain} has no DKIM key")).help(help);
    }

    fn warn_about_the_unreachable(&mut self, rules: &[Rule], typed: &[RewriteTable]) {
        let Some(end) = rules.iter().position(|rule| takes_everything(&rule.conditions) && rule.actions.is_final())
        else {
            return;
        };
        let name = &rules[end].name;
        for rewrite in typed.iter().skip(end + 1) {
            self.findings
                .warning(
                    rewrite.place(),
                    format!("this rule is never reached: \"{name}\" before it ends every message's way"),
                )
                .help("move it up, or give that rule a condition");
        }
    }
}

/// The actions of a rule, according to its keys.
#[derive(Default)]
struct TypedActions {
    actions: RuleActions,
    /// The keys with an effect of their own, each with its place.
    given: Vec<(&'static str, Place)>,
    /// A problem has been reported.
    has_problem: bool,
}

impl TypedActions {
    /// One row for each action.
    fn of(typed: &RewriteTable) -> Self {
        let mut all = Self::default();
        all.take("set_sender", &typed.set_sender, |it, path| it.set_sender = Some(path));
        all.take_map("map_sender", &typed.map_sender, |it, map| it.map_sender = map);
        all.take_map("map_recipients", &typed.map_recipients, |it, map| it.map_recipients = map);
        all.take("set_from", &typed.set_from, |it, from| it.set_from = Some(from));
        all.modify(&typed.keep_from_as_reply_to, |it, keep| it.keep_from_as_reply_to = keep);
        all.take("set_reply_to", &typed.set_reply_to, |it, reply_to| it.set_reply_to = Some(reply_to));
        all.take("remove_headers", &typed.remove_headers, |it, names| {
            it.remove_headers = names.into_iter().map(|name| name.0).collect();
        });
        all.take("replace_in_headers", &typed.replace_in_headers, |it, all| it.replace_in_headers = all);
        all.take("set_headers", &typed.set_headers, |it, pairs| {
            it.set_headers = pairs.0.into_iter().map(|(name, value)| (name.0, value.0)).collect();
        });
        all.take("add_headers", &typed.add_headers, |it, pairs| {
            it.add_headers = pairs.0.into_iter().flat_map(|(name, values)| each_added(name, values)).collect();
        });
        all.take("subject_prefix", &typed.subject_prefix, |it, prefix| it.subject_prefix = Some(prefix.0));
        let one_click = typed.one_click.value().copied().unwrap_or_default();
        all.take("list_unsubscribe", &typed.list_unsubscribe, |it, link| {
            it.list_unsubscribe = Some(ListUnsubscribe { link, one_click });
        });
        all.modify(&typed.one_click, |_, _| {});
        all.take("tag", &typed.tag, |it, tag| it.tag = Some(tag));
        all.take("stream", &typed.stream, |it, stream| it.stream = Some(stream));
        all.take("metadata", &typed.metadata, |it, pairs| it.metadata = pairs.0.into_iter().collect());
        all.take("ip_pool", &typed.ip_pool, |it, pool| it.ip_pool = Some(pool));
        all.take("upstream", &typed.upstream, |it, upstream| it.upstream = Some(upstream));
        all.take("refuse", &typed.refuse, |it, text| it.refuse = Some(text));
        all.switch("discard", &typed.discard, |it, is_on| it.discard = is_on);
        all.switch("last", &typed.last, |it, is_on| it.last = is_on);
        all
    }

    fn take<T: Clone>(&mut self, key: &'static str, typed: &Typed<T>, set: impl FnOnce(&mut RuleActions, T)) {
        if typed.is_given() {
            self.given.push((key, typed.place.clone()));
            self.modify(typed, set);
        }
    }

    fn take_map(
        &mut self,
        key: &'static str,
        typed: &Typed<OrderedPairs<PatternText, AddressTarget>>,
        set: impl FnOnce(&mut RuleActions, AddressMap),
    ) {
        let parse = |pairs: OrderedPairs<PatternText, AddressTarget>| {
            AddressMap::parse(pairs.0.iter().map(|(pattern, target)| (pattern.0.as_str(), target.0.as_str()))).ok()
        };
        let map = typed.clone().map(parse);
        self.take(key, &map, |it, map| {
            if let Some(map) = map {
                set(it, map);
            }
        });
    }

    /// An action that `false` turns off.
    fn switch(&mut self, key: &'static str, typed: &Typed<bool>, set: impl FnOnce(&mut RuleActions, bool)) {
        if typed.value() != Some(&false) {
            self.take(key, typed, set);
        }
    }

    /// A key that only modifies another action.
    fn modify<T: Clone>(&mut self, typed: &Typed<T>, set: impl FnOnce(&mut RuleActions, T)) {
        match typed.get() {
            Ok(value) => set(&mut self.actions, value),
            Err(Reported) => self.has_problem = true,
        }
    }
}

fn each_added(name: Addable, values: OneOrMore<HeaderText>) -> impl Iterator<Item = (String, String)> {
    values.0.into_iter().map(move |value| (name.0.clone(), value.0))
}

fn takes_everything(conditions: &RuleConditions) -> bool {
    let RuleConditions {
        senders,
        recipients,
        from,
        headers,
        listeners,
        users,
        larger_than,
        smaller_than,
        body_contains,
    } = conditions;
    let is_any = |patterns: &Option<SenderPatterns>| patterns.as_ref().is_none_or(SenderPatterns::is_any);
    // An undetermined From matches no pattern.
    is_any(senders)
        && is_any(recipients)
        && from.is_none()
        && headers.is_empty()
        && listeners.is_empty()
        && users.is_empty()
        && larger_than.is_none()
        && smaller_than.is_none()
        && body_contains.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rewrite::RewriteTable;

    #[test]
    fn every_action_can_be_written_in_the_file() {
        for key in RuleActions::keys() {
            assert!(RewriteTable::TABLE.has(key), "`{key}` is missing in config/rewrite.rs");
        }
    }
}
