//! `[[rewrite]]`: from keys to [`Rules`], and the mistakes that only show when keys are seen together.
//! Every name must be known: a rule for a listener that does not exist would silently do nothing.

use super::Resolver;
use crate::config::maps::OrderedPairs;
use crate::config::patterns::OneOrMore;
use crate::config::problem::Place;
use crate::config::rewrite::{Addable, AddressTarget, HeaderText, RewriteTable};
use crate::config::schema::{Section, Typed};
use crate::config::settings::DkimSettings;
use crate::config::value::PatternText;
use crate::dkim::Unsigned;
use crate::message::rewrite::{AddressMap, ListUnsubscribe, NamedAddress, Rule, RuleActions, RuleConditions, Rules};
use crate::message::{Mark, SenderPatterns};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// What rules can refer to.
pub(super) struct KnownNames<'a> {
    pub listeners: &'a [SocketAddr],
    pub users: &'a [Arc<str>],
    pub upstreams: &'a [Typed<String>],
    pub dkim: &'a [DkimSettings],
    /// `None` after a problem, and where every upstream signs by itself.
    pub unsigned: Option<&'a Unsigned>,
}

impl Resolver<'_> {
    /// `None` after a problem.
    pub(super) fn rules(&mut self, typed: &[RewriteTable], known: &KnownNames<'_>) -> Option<Rules> {
        let mut taken = HashSet::new();
        let rules: Vec<Option<Rule>> = typed
            .iter()
            .enumerate()
            .map(|(index, rewrite)| {
                let name = if rewrite.name.given {
                    self.unique(&mut taken, "[[rewrite]]", &rewrite.name)
                } else {
                    Some(format!("rewrite {}", index + 1).into())
                };
                self.check_actions(rewrite);
                let conditions = self.conditions(rewrite, known);
                let actions = self.actions(rewrite, known);
                Some(Rule { name: name?, conditions: conditions?, actions: actions? })
            })
            .collect();
        let rules: Vec<Rule> = rules.into_iter().collect::<Option<_>>()?;
        self.warn_about_the_unreachable(&rules, typed);
        Some(Rules(rules.into()))
    }

    /// Keys that say nothing, or not together.
    fn check_actions(&mut self, typed: &RewriteTable) {
        let given = actions_given(typed);
        let ends = ["discard", "refuse"].map(|key| given.iter().find(|(name, _)| *name == key));
        if given.is_empty() {
            self.findings.error(typed.place(), "this rule does nothing").help(
                "add an action, such as `set_from`, `tag` or `last = true`; `waxseal check --defaults` has them all",
            );
        }
        for (end, place) in ends.into_iter().flatten() {
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
            ("one_click", &typed.one_click, "list_unsubscribe", typed.list_unsubscribe.given),
            ("keep_from_as_reply_to", &typed.keep_from_as_reply_to, "set_from", typed.set_from.given),
        ] {
            if switch.value == Some(true) && !is_there {
                self.findings
                    .error(&switch.place, format!("`{key}` means nothing without `{needed}`"))
                    .help(format!("add `{needed}`, or take `{key}` out"));
            }
        }
        let (larger, smaller) = (typed.larger_than.value, typed.smaller_than.value);
        if larger.zip(smaller).is_some_and(|(larger, smaller)| larger >= smaller) {
            self.findings
                .error(&typed.smaller_than.place, "no message is smaller than this and larger than `larger_than`");
        }
    }

    fn conditions(&mut self, typed: &RewriteTable, known: &KnownNames<'_>) -> Option<RuleConditions> {
        let senders = self.optional_patterns("senders", &typed.senders);
        let recipients = self.optional_patterns("recipients", &typed.recipients);
        let from = self.optional_patterns("from", &typed.from);
        let listeners = self.known_listeners(&typed.listener, known.listeners);
        self.warn_about_unknown_users(&typed.user, known.users);
        Some(RuleConditions {
            senders: senders?,
            recipients: recipients?,
            from: from?,
            headers: optional(&typed.header)?.map_or_else(Vec::new, |headers| headers.0),
            listeners: listeners?,
            users: optional(&typed.user)?.map_or_else(Vec::new, |users| users.0),
            larger_than: optional(&typed.larger_than)?.map(|size| size.0),
            smaller_than: optional(&typed.smaller_than)?.map(|size| size.0),
            body_contains: optional(&typed.body_contains)?,
        })
    }

    fn actions(&mut self, typed: &RewriteTable, known: &KnownNames<'_>) -> Option<RuleActions> {
        let upstream = self.known_upstream(&typed.upstream, known.upstreams);
        self.warn_about_a_missing_key(&typed.set_from, known);
        let one_click = typed.one_click.value;
        let link = optional(&typed.list_unsubscribe)?;
        Some(RuleActions {
            discard: typed.discard.value?,
            refuse: optional(&typed.refuse)?,
            set_sender: optional(&typed.set_sender)?,
            map_sender: address_map(&typed.map_sender)?,
            map_recipients: address_map(&typed.map_recipients)?,
            set_from: optional(&typed.set_from)?,
            keep_from_as_reply_to: typed.keep_from_as_reply_to.value?,
            set_reply_to: optional(&typed.set_reply_to)?,
            remove_headers: optional(&typed.remove_headers)?.unwrap_or_default().into_iter().map(|it| it.0).collect(),
            replace_in_headers: optional(&typed.replace_in_headers)?.unwrap_or_default(),
            set_headers: pairs(&typed.set_headers)?.into_iter().map(|(name, value)| (name.0, value.0)).collect(),
            add_headers: pairs(&typed.add_headers)?.into_iter().flat_map(each_added).collect(),
            subject_prefix: optional(&typed.subject_prefix)?.map(|prefix| prefix.0),
            list_unsubscribe: match link {
                Some(link) => Some(ListUnsubscribe { link, one_click: one_click? }),
                None => None,
            },
            tag: optional(&typed.tag)?,
            stream: optional(&typed.stream)?,
            metadata: pairs(&typed.metadata)?.into_iter().collect(),
            ip_pool: optional(&typed.ip_pool)?,
            upstream: upstream?,
            last: typed.last.value?,
        })
    }

    /// The outer `None` after a problem.
    fn optional_patterns(&mut self, key: &str, typed: &Typed<Vec<PatternText>>) -> Option<Option<SenderPatterns>> {
        if typed.given { self.patterns(key, typed).map(Some) } else { Some(None) }
    }

    fn known_listeners(
        &mut self,
        typed: &Typed<OneOrMore<SocketAddr>>,
        listeners: &[SocketAddr],
    ) -> Option<Vec<Arc<str>>> {
        let wanted = optional(typed)?.map_or_else(Vec::new, |wanted| wanted.0);
        for unknown in wanted.iter().filter(|wanted| !listeners.contains(wanted)) {
            let there: Vec<String> = listeners.iter().map(ToString::to_string).collect();
            self.findings
                .error(&typed.place, format!("`listener`: there is no [[listener]] with the address {unknown}"))
                .help(format!("there is {}", there.join(", ")));
        }
        Some(wanted.iter().map(|address| address.to_string().into()).collect())
    }

    fn known_upstream(&mut self, typed: &Typed<Mark>, upstreams: &[Typed<String>]) -> Option<Option<Mark>> {
        let names: Vec<&str> = upstreams.iter().filter_map(|name| name.value.as_deref()).collect();
        let wanted = optional(typed)?;
        if let Some(unknown) = wanted.as_ref().filter(|wanted| !names.contains(&wanted.as_str())) {
            self.unknown_upstream("upstream", unknown.as_str(), typed, &names);
        }
        Some(wanted)
    }

    /// The rewritten message is judged by its new author.
    fn warn_about_a_missing_key(&mut self, typed: &Typed<NamedAddress>, known: &KnownNames<'_>) {
        let (Some(author), Some(unsigned)) = (&typed.value, known.unsigned) else { return };
        let domain = author.address.domain();
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
        self.findings
            .warning(&typed.place, format!("mail with this From {consequence}: {domain} has no DKIM key"))
            .help(help);
    }

    fn warn_about_the_unreachable(&mut self, rules: &[Rule], typed: &[RewriteTable]) {
        let Some(end) = rules.iter().position(|rule| takes_everything(&rule.conditions) && is_the_end(&rule.actions))
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

/// The keys with an effect of their own, each with its place.
fn actions_given(typed: &RewriteTable) -> Vec<(&'static str, Place)> {
    macro_rules! given {
        ($($key:ident),* $(,)?) => {
            [$((stringify!($key), typed.$key.given, &typed.$key.place)),*]
        };
    }
    let is_on = |switch: &Typed<bool>| switch.given && switch.value != Some(false);
    let texts = given![
        set_sender,
        map_sender,
        map_recipients,
        set_from,
        set_reply_to,
        remove_headers,
        replace_in_headers,
        set_headers,
        add_headers,
        subject_prefix,
        list_unsubscribe,
        tag,
        stream,
        metadata,
        ip_pool,
        upstream,
        refuse,
    ];
    let switches = [("discard", &typed.discard), ("last", &typed.last)];
    let switches = switches.into_iter().map(|(key, switch)| (key, is_on(switch), &switch.place));
    texts
        .into_iter()
        .chain(switches)
        .filter(|(_, given, _)| *given)
        .map(|(key, _, place)| (key, place.clone()))
        .collect()
}

/// The outer `None` after a problem with the value.
fn optional<T: Clone>(typed: &Typed<T>) -> Option<Option<T>> {
    if typed.given { typed.value.clone().map(Some) } else { Some(None) }
}

fn address_map(typed: &Typed<OrderedPairs<PatternText, AddressTarget>>) -> Option<AddressMap> {
    let pairs = pairs(typed)?;
    AddressMap::parse(pairs.iter().map(|(pattern, target)| (pattern.0.as_str(), target.0.as_str()))).ok()
}

fn pairs<K: Clone, V: Clone>(typed: &Typed<OrderedPairs<K, V>>) -> Option<Vec<(K, V)>> {
    optional(typed).map(|pairs| pairs.map_or_else(Vec::new, |pairs| pairs.0))
}

fn each_added((name, values): (Addable, OneOrMore<HeaderText>)) -> impl Iterator<Item = (String, String)> {
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

fn is_the_end(actions: &RuleActions) -> bool {
    actions.last || actions.discard || actions.refuse.is_some()
}
