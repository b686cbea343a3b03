//! `waxseal check`: every problem of the configuration, or what would run; with --message, what would happen to a
//! message. Starts nothing, connects nowhere. Prints places, values and remedies, never a secret.

mod diff;
mod dry_run;
mod message;

use super::WRONG;
use super::run::print_problems;
use crate::config::{
    self, ConfigFile, Defaults, DeliveryMode, Endpoint, Environment, Problems, Provider, Settings, UpstreamSettings,
};
use crate::delivery::{Bounce, Choice};
use crate::dkim::Unsigned;
use crate::inbound::{AuthMode, Tls};
use crate::message::repair::Repairs;
use crate::message::text_pattern::TextPattern;
use crate::relay::provider::Signing;
use crate::relay::{Counts, Rate, TlsMode};
use crate::text::in_words;
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Print every key with its default and its meaning, and check nothing
    #[arg(long)]
    defaults: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sample: message::SampleArgs,
}

pub fn run(file: &ConfigFile<'_>, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    if args.defaults {
        print(if args.json { pretty(&Defaults.to_json()) } else { Defaults.to_string() });
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = config::load(file, &Environment::of_process());
    if args.sample.is_given() {
        return match loaded {
            Ok(settings) => message::run(&args.sample, settings, args.json),
            Err(problems) => {
                print_problems(&problems);
                Ok(ExitCode::from(WRONG))
            }
        };
    }
    let status = if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(WRONG) };
    match &loaded {
        Err(_) if args.json => print(pretty(&report(&loaded))),
        Ok(settings) if args.json => print(settings.warnings.hide(&pretty(&report(&loaded)))),
        Ok(settings) => {
            print(settings.warnings.hide(&summary(settings)));
            if !settings.warnings.is_empty() {
                print_problems(&settings.warnings);
            }
        }
        Err(problems) => print_problems(problems),
    }
    Ok(status)
}

fn print(text: impl Display) {
    let _a_closed_pipe_changes_nothing = writeln!(std::io::stdout(), "{text}");
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

/// What would run, one line for each thing.
fn summary(settings: &Settings) -> String {
    let source = match &settings.file {
        Some(path) => path.display().to_string(),
        None => "the environment, without a file".to_owned(),
    };
    let mut lines = vec![
        line("configuration", &format!("{source}: no mistakes")),
        line("gateway", &format!("{}; data in {}", settings.hostname, settings.data_dir.display())),
    ];
    lines.extend(settings.listeners.iter().map(|listener| line("listener", &describe_listener(listener))));
    lines.extend(settings.users.iter().map(|user| line("user", &user.name)));
    lines.extend(settings.dkim.iter().map(|key| line("key", &describe_key(key))));
    lines.push(line("other domains", &describe_unsigned(&settings.unsigned)));
    lines.extend(settings.upstreams.iter().map(|upstream| line("upstream", &describe_upstream(upstream))));
    lines.extend(settings.routes.iter().map(|route| line("route", &describe_route(route))));
    lines.push(line("repair", &describe_repairs(&settings.repairs)));
    if !settings.rules.0.is_empty() {
        let names: Vec<&str> = settings.rules.0.iter().map(|rule| &*rule.name).collect();
        lines.push(line("rewrite", &names.join(", then ")));
    }
    lines.push(line("queue", &describe_queue(&settings.queue)));
    lines.push(line("warnings", &settings.warnings.len()));
    lines.join("\n")
}

fn line(what: &str, text: &dyn Display) -> String {
    format!("{what:<14} {text}")
}

fn describe_listener(listener: &config::ListenerSettings) -> String {
    let options = &listener.options;
    let tls = tls_name(&options.tls);
    let networks = options.allow.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let clients = match options.auth {
        AuthMode::Required => "with a login".to_owned(),
        AuthMode::Optional => format!("from {networks} or with a login"),
        AuthMode::Off => format!("from {networks}"),
    };
    let delivery = delivery_name(listener.delivery);
    format!("{}, delivery {delivery}, tls {tls}; clients {clients}; senders {}", options.address, listener.senders)
}

fn delivery_name(delivery: DeliveryMode) -> &'static str {
    match delivery {
        DeliveryMode::Queue => "queue",
        DeliveryMode::Direct => "direct",
    }
}

fn describe_queue(queue: &config::QueueSettings) -> String {
    let bounce = match &queue.bounce {
        Bounce::Off => "no bounces are sent".to_owned(),
        Bounce::Sender => "bounces go to the sender".to_owned(),
        Bounce::Address(address) => format!("bounces go to {address}"),
    };
    format!(
        "retries after {}, then up to {} apart, for {}; keeps failed mail for {}; {bounce}",
        in_words(queue.schedule.first),
        in_words(queue.schedule.longest),
        in_words(queue.schedule.expire),
        in_words(queue.keep_failed),
    )
}

fn tls_name(tls: &Tls) -> &'static str {
    match tls {
        Tls::Off => "off",
        Tls::StartTls(_) => "starttls",
        Tls::Implicit(_) => "implicit",
    }
}

fn describe_key(key: &config::DkimSettings) -> String {
    let origin = key.path.as_ref().map_or("the environment".to_owned(), |path| path.display().to_string());
    let state = if key.key.is_some() { "" } else { ", to be made at start" };
    format!("{}._domainkey.{} from {origin}{state}", key.selector, key.domain)
}

fn describe_unsigned(unsigned: &Unsigned) -> String {
    match unsigned {
        Unsigned::Refuse => "mail is refused".to_owned(),
        Unsigned::Send => "mail is sent unsigned".to_owned(),
        Unsigned::Domains(domains) => {
            let names = domains.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            format!("mail is refused, except that of {names}, which is sent unsigned")
        }
    }
}

fn describe_upstream(upstream: &UpstreamSettings) -> String {
    let name = &upstream.name;
    let limit = match &upstream.share_limits_with {
        Some(owner) => format!("within the limits of {owner}"),
        None => format!("at most {} connections{}", upstream.connections.max_connections, describe_rates(upstream)),
    };
    match &upstream.provider {
        Provider::Sandbox => format!("{name}: the sandbox, which keeps mail and does NOT send it"),
        Provider::Smtp(endpoint) => {
            let tls = upstream_tls_name(endpoint.tls);
            let login = describe_logins(endpoint);
            let others = endpoint.fallback_ports.iter().map(|port| format!(" or {}", port.number)).collect::<String>();
            let title = upstream.preset.title;
            let limit = match upstream.profile.signing {
                Signing::Ours { .. } => limit,
                Signing::LeftToProvider => format!("{limit}, the provider signs, waxseal does not"),
            };
            format!("{name}: {title}, {} port {}{others}, tls {tls}, {login}, {limit}", endpoint.host, endpoint.port)
        }
    }
}

fn describe_logins(endpoint: &Endpoint) -> String {
    let mut logins: Vec<String> = endpoint
        .logins
        .iter()
        .map(|(domain, credentials)| format!("login {} for {domain}", credentials.shown_username()))
        .collect();
    match &endpoint.credentials {
        Some(credentials) => logins.push(format!("login {}", credentials.shown_username())),
        None if logins.is_empty() => return "no login".to_owned(),
        None => logins.push("other mail waits".to_owned()),
    }
    logins.join(", ")
}

/// ", 14/s, 50000/day (recipients)": with what is counted where that is not messages.
fn describe_rates(upstream: &UpstreamSettings) -> String {
    let describe = |rate: &Rate| match upstream.preset.limits.counting.of(*rate) {
        Counts::Messages => format!(", {rate}"),
        Counts::Recipients => format!(", {rate} (recipients)"),
    };
    upstream.rates.iter().map(describe).collect()
}

fn upstream_tls_name(tls: TlsMode) -> &'static str {
    match tls {
        TlsMode::StartTls => "starttls",
        TlsMode::Implicit => "implicit",
    }
}

fn describe_route(route: &config::RouteSettings) -> String {
    let upstreams = match &route.upstreams {
        Choice::InOrder(names) => names.join(", then "),
        Choice::ByWeight(weights) => {
            let each = |(name, weight): &(Arc<str>, u32)| format!("{name} ({weight})");
            format!("{} by weight", weights.iter().map(each).collect::<Vec<_>>().join(", "))
        }
    };
    let refused = if route.retry_refused { "; what one refuses is offered to the next" } else { "" };
    format!("{}: {} through {upstreams}{refused}", route.name, route.conditions)
}

fn describe_repairs(repairs: &Repairs) -> String {
    match repairs.turned_off().as_slice() {
        [] => "every step".to_owned(),
        some => format!("every step but {}", some.join(", ")),
    }
}

/// The same as the text, for programs.
fn report(loaded: &Result<Settings, Problems>) -> Value {
    match loaded {
        Err(problems) => json!({ "ok": false, "problems": problems_to_json(problems) }),
        Ok(settings) => json!({
            "ok": true,
            "problems": [],
            "warnings": problems_to_json(&settings.warnings),
            "file": settings.file,
            "hostname": settings.hostname,
            "data_dir": settings.data_dir,
            "listeners": settings.listeners.iter().map(|listener| json!({
                "address": listener.options.address,
                "delivery": delivery_name(listener.delivery),
                "tls": tls_name(&listener.options.tls),
                "senders": listener.senders.iter().collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "users": settings.users.iter().map(|user| &*user.name).collect::<Vec<_>>(),
            "keys": settings.dkim.iter().map(|key| json!({
                "domain": key.domain.as_str(),
                "selector": key.selector.as_str(),
                "file": key.path,
                "exists": key.key.is_some(),
            })).collect::<Vec<_>>(),
            "upstreams": settings.upstreams.iter().map(upstream_to_json).collect::<Vec<_>>(),
            "routes": settings.routes.iter().map(route_to_json).collect::<Vec<_>>(),
            "repairs_turned_off": settings.repairs.turned_off(),
            "rules": settings.rules.0.iter().map(|rule| &*rule.name).collect::<Vec<_>>(),
        }),
    }
}

fn upstream_to_json(upstream: &UpstreamSettings) -> Value {
    let mut value = json!({
        "name": &*upstream.name,
        "provider": upstream.preset.name,
        "max_connections": upstream.connections.max_connections,
    });
    if let Provider::Smtp(endpoint) = &upstream.provider {
        value["host"] = json!(endpoint.host);
        value["port"] = json!(endpoint.port);
        value["tls"] = json!(upstream_tls_name(endpoint.tls));
        value["username"] = json!(endpoint.credentials.as_ref().map(|credentials| credentials.shown_username()));
        let logins = endpoint.logins.iter();
        value["logins"] =
            logins.map(|(domain, login)| json!({ "domain": domain, "username": login.shown_username() })).collect();
    }
    value
}

fn route_to_json(route: &config::RouteSettings) -> Value {
    let conditions = &route.conditions;
    let texts = |patterns: &[TextPattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
    let weights = match &route.upstreams {
        Choice::InOrder(_) => None,
        Choice::ByWeight(weights) => Some(weights.iter().map(|(_, weight)| *weight).collect::<Vec<_>>()),
    };
    json!({
        "name": &*route.name,
        "senders": conditions.senders.iter().collect::<Vec<_>>(),
        "recipients": conditions.recipients.iter().collect::<Vec<_>>(),
        "headers": conditions.headers.iter().map(|header| json!({
            "name": header.name,
            "value": header.value.to_string(),
        })).collect::<Vec<_>>(),
        "users": texts(&conditions.users),
        "tags": texts(&conditions.tags),
        "upstreams": route.upstreams.upstreams().iter().map(|name| &***name).collect::<Vec<_>>(),
        "weights": weights,
        "retry_refused": route.retry_refused,
    })
}

fn problems_to_json(problems: &Problems) -> Value {
    let to_json = |problem: config::Located<'_>| {
        let (line, column) = problem.position().unzip();
        json!({
            "place": problem.place(),
            "line": line,
            "column": column,
            "message": problem.message(),
            "help": problem.help(),
        })
    };
    problems.iter().map(to_json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, Problems> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).expect("a file");
        config::load(&ConfigFile { path: &path, explicit: true }, &Environment::of([("PASSWORD", "hunter2")]))
    }

    const GOOD: &str = "hostname = \"gateway.example.com\"\n[[dkim]]\ndomain = \"example.com\"\nselector = \"wax1\"\n\
        private_key = \"key.pem\"\ngenerate = true\n[[upstream]]\nname = \"company\"\nprovider = \"smtp\"\n\
        host = \"smtp.example.com\"\nusername = \"relay\"\npassword = { env = \"PASSWORD\" }\n\
        [[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n[repair]\ntext_part = false\n";

    #[test]
    fn the_summary_names_what_would_run_and_no_secret() {
        let settings = load(GOOD).unwrap_or_else(|problems| panic!("{problems}"));
        let shown = summary(&settings);
        for part in [
            "gateway        gateway.example.com; data in ",
            "listener       127.0.0.1:2525, delivery queue, tls off; clients from 127.0.0.0/8, ::1/128; senders *@example.com",
            "key            wax1._domainkey.example.com from ",
            ", to be made at start",
            "other domains  mail is refused",
            "upstream       company: an SMTP server, smtp.example.com port 587, tls starttls, login relay, at most 4 connections",
            "upstream       sandbox: the sandbox, which keeps mail and does NOT send it",
            "route          default: from * to * through company",
            "repair         every step but text_part",
            "queue          retries after 30 seconds, then up to 1 hour apart, for 5 days; keeps failed mail for 14 days; no bounces are sent",
            "warnings       1",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        let json = pretty(&report(&Ok(settings)));
        assert!(!shown.contains("hunter2") && !json.contains("hunter2"));
        assert!(json.contains("\"host\": \"smtp.example.com\"") && json.contains("no route uses"), "{json}");
    }

    #[test]
    fn routes_are_shown_with_their_conditions() {
        let routes = "[[route]]\nname = \"reports\"\nsenders = [\"*@example.com\"]\nheader = { X-Kind = \"report*\" }\n\
            tag = [\"a\", \"b\"]\nupstreams = [\"company\", \"sandbox\"]\nretry_refused = true\n\
            [[route]]\nname = \"rest\"\nupstreams = { sandbox = 1, company = 3 }\n";
        let settings = load(&format!("{GOOD}{routes}")).unwrap_or_else(|problems| panic!("{problems}"));
        let shown = summary(&settings);
        for part in [
            "route          reports: from *@example.com to *, header X-Kind: report*, tag a or b through company, then \
             sandbox; what one refuses is offered to the next",
            "route          rest: from * to * through company (3), sandbox (1) by weight",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        let value = report(&Ok(settings));
        assert_eq!(value["routes"][0]["headers"], json!([{ "name": "X-Kind", "value": "report*" }]));
        assert_eq!(value["routes"][1]["weights"], json!([3, 1]));
    }

    #[test]
    fn problems_have_line_and_column_in_json() {
        let value = report(&load("drain = 8\n[[upstream]]\nname = \"p\"\nprovider = \"sandbox\"\n"));
        assert_eq!(value["ok"], json!(false));
        let [problem] = value["problems"].as_array().expect("a list").as_slice() else { panic!("{value}") };
        assert_eq!((&problem["line"], &problem["column"]), (&json!(1), &json!(9)));
    }
}
