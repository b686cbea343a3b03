//! What is known of a provider against what is typed: explicit settings win, the rest is filled in.

use super::*;
use crate::dkim::Unsigned;
use crate::message::adapt::Vocabulary;
use crate::relay::provider::{self, Signing};

fn resolved(upstream: &str) -> UpstreamSettings {
    let mut settings = settings(&whole(upstream));
    assert_eq!(settings.upstreams.len(), 1);
    settings.upstreams.remove(0)
}

fn whole(upstream: &str) -> String {
    format!("hostname = \"a.example\"\nunsigned = \"send\"\n[[upstream]]\nname = \"p\"\n{upstream}\n")
}

/// `host:first,others`
fn host_and_ports(upstream: &str) -> String {
    let upstream = resolved(upstream);
    let (endpoint, _) = reached(&upstream);
    let others: String = endpoint.fallback_ports.iter().map(|port| format!(",{}", port.number)).collect();
    format!("{}:{}{others}", endpoint.host, endpoint.port)
}

#[test]
fn where_each_provider_is() {
    let ses = "provider = \"ses\"\nusername = \"A\"\npassword = \"x\"\nregion = \"eu-west-1\"";
    for (typed, expected) in [
        ("provider = \"postmark\"\npassword = \"x\"", "smtp.postmarkapp.com:587,2525"),
        (
            "provider = \"postmark\"\nhost = \"smtp-broadcasts.postmarkapp.com\"\npassword = \"x\"",
            "smtp-broadcasts.postmarkapp.com:587,2525",
        ),
        ("provider = \"mailgun\"\nusername = \"u\"\npassword = \"x\"", "smtp.mailgun.org:587,2525,465"),
        (
            "provider = \"mailgun\"\nregion = \"eu\"\nusername = \"u\"\npassword = \"x\"",
            "smtp.eu.mailgun.org:587,2525,465",
        ),
        ("provider = \"mandrill\"\npassword = \"x\"", "smtp.mandrillapp.com:587,2525,465"),
        ("provider = \"sendgrid\"\npassword = \"x\"\nport = 2525", "smtp.sendgrid.net:2525"),
        ("provider = \"sendgrid\"\npassword = \"x\"\ntls = \"implicit\"", "smtp.sendgrid.net:465"),
        (ses, "email-smtp.eu-west-1.amazonaws.com:587,2587,465,2465"),
        (&format!("{ses}\ntls = \"implicit\""), "email-smtp.eu-west-1.amazonaws.com:465,2465"),
        ("provider = \"gmail\"\nusername = \"u\"\npassword = \"x\"", "smtp.gmail.com:587,465"),
        ("provider = \"gmail\"\nhost = \"smtp-relay.gmail.com\"", "smtp-relay.gmail.com:587,465"),
        ("provider = \"microsoft365\"\nusername = \"u\"\npassword = \"x\"", "smtp.office365.com:587"),
        ("provider = \"smtp\"\nhost = \"b.example\"\ntls = \"implicit\"", "b.example:465"),
    ] {
        assert_eq!(host_and_ports(typed), expected, "{typed}");
    }
}

#[test]
fn what_each_login_is() {
    for (typed, username, password) in [
        ("provider = \"postmark\"\npassword = \"token\"", "token", "token"),
        ("provider = \"postmark\"\nusername = \"access\"\npassword = \"secret\"", "access", "secret"),
        ("provider = \"sendgrid\"\npassword = \"SG.x\"", "apikey", "SG.x"),
        ("provider = \"sendgrid\"\nusername = \"apikey\"\npassword = \"SG.x\"", "apikey", "SG.x"),
        ("provider = \"mandrill\"\npassword = \"md-x\"", "waxseal", "md-x"),
        (
            "provider = \"ses\"\nregion = \"eu-central-1\"\nusername = \"AKIA\"\nsecret_key = \"some+secret+key\"",
            "AKIA",
            "BMXhUYlu5Z3gSXVQORxlVa7XPaz91aGWdfHxvkOZdWZ2",
        ),
        (
            "provider = \"ses\"\nregion = \"eu-central-1\"\nusername = \"AKIA\"\npassword = \"as it is\"",
            "AKIA",
            "as it is",
        ),
        ("provider = \"microsoft365\"\nusername = \"a@b\"\npassword = \"x\"", "a@b", "x"),
    ] {
        let upstream = resolved(typed);
        let credentials = reached(&upstream).1.own.clone().expect("a login");
        assert_eq!((credentials.username.as_str(), credentials.password.reveal()), (username, password), "{typed}");
        let shown = format!("{credentials:?} {}", credentials.shown_username());
        assert!(!shown.contains(password), "a token that is also the name is shown: {shown}");
    }
    let relay = resolved("provider = \"gmail\"\nhost = \"smtp-relay.gmail.com\"");
    assert_eq!(reached(&relay).1.own, None, "a relay that knows its clients by their address");
}

#[test]
fn limits_are_the_providers_unless_others_are_typed() {
    let known = |typed: &str| {
        let UpstreamSettings { limits, profile, .. } = resolved(typed);
        let each = limits.max_messages_per_connection;
        (limits.max_connections, each, profile.max_recipients, profile.max_size)
    };
    let mib = |size: u64| Some(size * 1024 * 1024);
    let microsoft = "provider = \"microsoft365\"\nusername = \"u\"\npassword = \"x\"\n";
    let postmark = "provider = \"postmark\"\npassword = \"x\"\n";
    for (typed, expected) in [
        ("provider = \"smtp\"\nhost = \"b.example\"\n".to_owned(), (4, 100, None, None)),
        (microsoft.to_owned(), (3, 100, Some(500), None)),
        (format!("{microsoft}max_connections = 1\nmax_recipients = 20\n"), (1, 100, Some(20), None)),
        (postmark.to_owned(), (10, 100, Some(50), mib(10))),
        (format!("{postmark}max_message_size = \"5 MiB\"\nmax_messages_per_connection = 7"), (10, 7, Some(50), mib(5))),
    ] {
        assert_eq!(known(&typed), expected, "{typed}");
    }
    let folder = Folder::new();
    let generous = whole(&format!("{microsoft}max_connections = 8"));
    let settings = folder.load(&generous, &nothing()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(settings.upstreams[0].limits.max_connections, 8, "what is typed wins");
    assert_eq!(folder.shorten(&settings.warnings), ["config.toml:8:19: Microsoft 365 allows 3 connections at once"]);
}

#[test]
fn who_signs_and_whether_tracking_is_asked_to_stay_off() {
    let postmark = "provider = \"postmark\"\npassword = \"x\"\n";
    let mailgun = "provider = \"mailgun\"\nusername = \"u\"\npassword = \"x\"\n";
    for (typed, ours, asks) in [
        (postmark.to_owned(), false, false),
        (format!("{postmark}sign = true"), true, false),
        (mailgun.to_owned(), true, true),
        (format!("{mailgun}sign = false"), false, false),
        (format!("{mailgun}tracking = true"), true, false),
    ] {
        let profile = resolved(&typed).profile;
        assert_eq!(profile.signing != Signing::LeftToProvider, ours, "{typed}");
        assert_eq!(profile.vocabulary.no_tracking.is_some(), asks, "{typed}");
    }
    let own = resolved("provider = \"smtp\"\nhost = \"b.example\"").profile;
    assert_eq!((own.signing, own.vocabulary), (Signing::OURS, Vocabulary::NONE));
}

#[test]
fn no_key_is_missed_where_the_provider_signs() {
    let folder = Folder::new();
    let postmark = "[[upstream]]\nname = \"p\"\nprovider = \"postmark\"\npassword = \"x\"\n";
    let smtp = "[[upstream]]\nname = \"s\"\nprovider = \"smtp\"\nhost = \"b.example\"\n\
                [[route]]\nname = \"r\"\nupstreams = [\"p\", \"s\"]\n";
    for (upstreams, unsigned, at_intake, warnings) in [
        (postmark.to_owned(), "", Unsigned::Send, 0),
        (postmark.to_owned(), "unsigned = \"refuse\"\n", Unsigned::Send, 1),
        (format!("{postmark}{smtp}"), "", Unsigned::Send, 1),
        (format!("{postmark}{smtp}"), "unsigned = \"refuse\"\n", Unsigned::Refuse, 1),
    ] {
        let text = format!("hostname = \"a.example\"\n{unsigned}{upstreams}");
        let settings = folder.load(&text, &nothing()).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(settings.unsigned_at_intake(), at_intake, "{text}");
        assert_eq!(settings.warnings.len(), warnings, "{text}{}", settings.warnings);
    }
}

#[test]
fn a_host_that_is_known_is_pointed_out_and_known_from_the_environment() {
    let folder = Folder::new();
    let typed = whole("provider = \"smtp\"\nhost = \"smtp.sendgrid.net\"");
    let settings = folder.load(&typed, &nothing()).unwrap_or_else(|problems| panic!("{problems}"));
    let [warning] = &folder.shorten(&settings.warnings)[..] else { panic!("one warning") };
    assert!(warning.contains("provider = \"sendgrid\""), "{warning}");
    let environment = Environment::of([
        ("WAXSEAL_HOSTNAME", "a.example"),
        ("SMTP_HOST_ADDR", "smtp.postmarkapp.com"),
        ("SMTP_HOST_PORT", "2525"),
        ("SMTP_USER_NAME", "token"),
        ("SMTP_USER_PWD", "token"),
    ]);
    let settings = folder.load_file("none.toml", false, &environment).unwrap_or_else(|problems| panic!("{problems}"));
    let upstream = &settings.upstreams[0];
    assert_eq!((upstream.preset.name, upstream.profile.signing), ("postmark", Signing::LeftToProvider));
    assert_eq!((reached(upstream).0.port, reached(upstream).0.fallback_ports.len()), (2525, 0));
}

#[test]
fn a_provider_that_wants_a_name_gets_one_or_an_error() {
    let gmail = "[[upstream]]\nname = \"p\"\nprovider = \"gmail\"\nusername = \"u\"\npassword = \"x\"\n";
    let found = mistakes(&format!("hostname = \"box\"\nunsigned = \"send\"\n{gmail}"));
    assert!(matches!(found.as_slice(), [one] if one.contains("fully qualified name in EHLO")), "{found:?}");
}

#[test]
fn none_of_the_ports_leads_back() {
    let text = whole("provider = \"postmark\"\nhost = \"127.0.0.1\"\npassword = \"x\"");
    let found = mistakes(&text);
    assert!(
        matches!(found.as_slice(), [one] if one.contains("127.0.0.1:2525 is the gateway's own listener")),
        "{found:?}"
    );
}

/// The tables to paste, of the shipped file and of docs/providers.md.
#[test]
fn every_table_to_paste_works_as_it_stands() {
    let names = ["POSTMARK_TOKEN", "MAILGUN_PASSWORD", "MANDRILL_KEY", "SENDGRID_KEY", "AWS_SECRET_ACCESS_KEY"];
    let names = names.iter().chain(&["GMAIL_APP_PASSWORD", "M365_PASSWORD", "RELAY_PASSWORD"]);
    let environment = Environment::of(names.map(|name| (*name, "x")));
    let shipped =
        include_str!("../../../config.toml").lines().filter_map(|line| line.strip_prefix("# ")).collect::<Vec<_>>();
    let documented = include_str!("../../../docs/providers.md").lines().collect::<Vec<_>>();
    for (source, lines) in [("config.toml", shipped), ("docs/providers.md", documented)] {
        for preset in provider::ALL.iter().filter(|preset| !preset.is_embedded() && preset.name != provider::SMTP.name)
        {
            let named = format!("provider = \"{}\"", preset.name);
            let at = lines.iter().position(|line| *line == named).unwrap_or_else(|| panic!("{source} lacks {named}"));
            let is_key = |line: &&&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
            let table: Vec<_> = lines[at..].iter().take_while(is_key).copied().collect();
            let folder = Folder::new();
            let loaded = folder.load(&whole(&table.join("\n")), &environment);
            let settings = loaded.unwrap_or_else(|problems| panic!("{source}: {named}: {problems}"));
            assert_eq!(folder.shorten(&settings.warnings), [""; 0], "{source}: {named}");
        }
    }
}

/// The limits and ports in docs/providers.md are those of the presets.
#[test]
fn the_page_says_what_the_tables_have() {
    let page = include_str!("../../../docs/providers.md");
    for preset in provider::ALL.iter().filter(|preset| !preset.is_embedded() && preset.name != provider::SMTP.name) {
        let named = format!("provider = \"{}\"", preset.name);
        let section = page.split("\n## ").find(|section| section.contains(&named)).expect("a section");
        let section = section.split_whitespace().collect::<Vec<_>>().join(" ").replace(',', "");
        let limits = &preset.limits;
        let numbers = [limits.connections, limits.messages_per_connection, limits.recipients].into_iter().flatten();
        let ports = preset.ports.iter().map(|port| usize::from(port.number));
        let sizes = limits.size.map(|size| format!("{} MB", size / (1024 * 1024)));
        for word in numbers.chain(ports).map(|number| number.to_string()).chain(sizes) {
            assert!(section.contains(&word), "{}: {word} is not in: {section}", preset.name);
        }
    }
}

/// A bounce that Amazon SES would carry, from the null path, is lost.
#[test]
fn bounces_through_a_provider_that_refuses_their_sender_are_warned_about() {
    let folder = Folder::new();
    let environment = Environment::of([("KEY", "x")]);
    let upstreams = "[[upstream]]\nname = \"ses\"\nprovider = \"ses\"\nregion = \"eu-west-1\"\nusername = \"u\"\n\
                     password = { env = \"KEY\" }\n[[upstream]]\nname = \"own\"\nprovider = \"smtp\"\nhost = \"a.example\"\n";
    let route = |conditions: &str, upstreams: &str| {
        format!("[[route]]\nname = \"{}\"\n{conditions}\nupstreams = {upstreams}\n", conditions.len())
    };
    let any = |upstreams: &str| route("", upstreams);
    let sender = "bounce = \"sender\"";
    let postmaster = "bounce = \"postmaster@example.com\"";
    for (queue, routes, warned) in [
        (sender, String::new(), true),
        (sender, any("[\"own\"]"), false),
        (sender, any("[\"own\", \"ses\"]"), true),
        (sender, any("{ own = 3, ses = 1 }"), true),
        ("bounce = \"off\"", any("[\"ses\"]"), false),
        ("", any("[\"ses\"]"), false),
        ("bounce = \"sender\"\nbounce_sender = \"postmaster@example.com\"", any("[\"ses\"]"), false),
        ("bounce = \"sender\"\nbounce_sender = \"<>\"", any("[\"ses\"]"), true),
        (sender, route("senders = [\"*@example.com\"]", "[\"ses\"]") + &any("[\"own\"]"), false),
        (sender, route("user = \"*\"", "[\"ses\"]") + &any("[\"own\"]"), false),
        (sender, route("tag = \"*\"", "[\"ses\"]") + &any("[\"own\"]"), false),
        (sender, route("recipients = [\"*@example.net\"]", "[\"ses\"]") + &any("[\"own\"]"), true),
        (postmaster, route("recipients = [\"*@example.net\"]", "[\"ses\"]") + &any("[\"own\"]"), false),
        (postmaster, route("recipients = [\"*@example.com\"]", "[\"own\"]") + &any("[\"ses\"]"), false),
        (postmaster, route("header = { Subject = \"*\" }", "[\"own\"]") + &any("[\"ses\"]"), true),
    ] {
        let text = format!("hostname = \"a.example.com\"\nunsigned = \"send\"\n[queue]\n{queue}\n{upstreams}{routes}");
        let settings =
            folder.load(&text, &environment).unwrap_or_else(|problems| panic!("{queue} {routes}: {problems}"));
        let warnings = folder.shorten(&settings.warnings);
        let found = warnings.iter().any(|it| it.contains("Amazon SES (\"ses\") refuses mail from the null path"));
        assert_eq!(found, warned, "{queue}\n{routes}: {warnings:?}");
    }
    let text = format!(
        "hostname = \"a.example.com\"\nunsigned = \"send\"\n[queue]\nbounce_sender = \"a@example.com\"\n{upstreams}"
    );
    let settings = folder.load(&text, &environment).expect("settings");
    assert!(folder.shorten(&settings.warnings).iter().any(|it| it.contains("`bounce_sender` has no effect")));
}
