//! What is typed and what it resolves to.

use super::*;
use crate::config::{BackendSettings, DeliveryMode, QueueSettings, SubmissionRateSettings};
use crate::delivery::{Bounce, Choice};
use crate::dkim::Unsigned;
use crate::inbound::users::Password;
use crate::inbound::{AuthMode, LineEndings, OverRate, Tls};
use crate::message::SenderPatterns;
use crate::message::repair::Repairs;
use crate::observe::log::Format;
use crate::queue::schedule::Schedule;
use crate::rate::Rate;
use crate::relay::TlsMode;
use crate::smtp::{Domain, Mailbox};
use std::time::Duration;

pub(super) fn warnings(text: &str) -> Vec<String> {
    let folder = Folder::new();
    let settings = folder.load(text, &nothing()).unwrap_or_else(|problems| panic!("{problems}"));
    folder.shorten(&settings.warnings)
}

fn endpoint(upstream: &str) -> Endpoint {
    let text = format!("hostname = \"a.example\"\n[[upstream]]\nname = \"p\"\nprovider = \"smtp\"\n{upstream}");
    reached(&settings(&text).upstreams[0]).0.clone()
}

#[test]
fn the_shipped_file_starts_the_sandbox_without_an_account() {
    let folder = Folder::new();
    let settings =
        folder.load(include_str!("../../../config.toml"), &nothing()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(folder.shorten(&settings.warnings), [""; 0]);
    let addresses: Vec<_> = settings.listeners.iter().map(|l| l.options.address.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:2525", "[::1]:2525"]);
    assert!(matches!(settings.upstreams.as_slice(), [one] if matches!(one.provider, Provider::Sandbox)));
    let [key] = settings.dkim.as_slice() else { panic!("one key") };
    assert_eq!(key.path, Some(folder.path().join("certs/dkim/example.com.wax1.pem")));
    assert!(key.key.is_none(), "it is made at start");
    assert_eq!(settings.unsigned, Unsigned::Refuse);
}

#[test]
fn every_repair_is_on_and_each_has_a_switch_of_its_own() {
    let repairs = |lines: &str| settings(&format!("{SMALLEST}\n[repair]\n{lines}")).repairs;
    assert_eq!(repairs(""), Repairs::ALL);
    let names = Repairs::NONE.turned_off();
    for name in &names {
        assert_eq!(repairs(&format!("{name} = false")).turned_off(), [*name]);
    }
    let all_off: String = names.iter().map(|name| format!("{name} = false\n")).collect();
    assert_eq!(repairs(&all_off), Repairs::NONE);
}

#[test]
fn defaults_are_filled_in() {
    let folder = Folder::new();
    let settings = folder.load(SMALLEST, &nothing()).unwrap();
    assert_eq!(folder.shorten(&settings.warnings), [""; 0]);
    assert_eq!(
        (settings.hostname.as_str(), settings.ehlo_name.as_str()),
        ("gateway.example.com", "gateway.example.com")
    );
    assert_eq!(settings.data_dir, folder.path().join("data"));
    assert_eq!((settings.max_memory, settings.drain), (256 << 20, Duration::from_secs(8)));
    assert_eq!((settings.log.format, settings.log.level.as_str()), (Format::Pretty, "info"));
    assert_eq!(settings.file, Some(folder.path().join("config.toml")));
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let queue = QueueSettings {
        backend: BackendSettings::Sqlite,
        schedule: Schedule::default(),
        keep_failed: days(14),
        keep_history: days(14),
        bounce: Bounce::Off,
        bounce_sender: crate::smtp::ReversePath::Null,
        min_free_space: 256 << 20,
        deduplicate: None,
    };
    assert_eq!(settings.queue, queue);

    assert_eq!(settings.listeners.len(), 2);
    let listener = &settings.listeners[0];
    assert_eq!(listener.options.hostname, "gateway.example.com");
    assert!(matches!(listener.options.tls, Tls::Off));
    assert_eq!(listener.delivery, DeliveryMode::Queue);
    assert_eq!(listener.options.allow, ["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    assert_eq!((listener.options.auth, listener.options.line_endings), (AuthMode::Off, LineEndings::Normalize));
    assert_eq!((listener.options.max_message_size, listener.options.max_recipients), (25 << 20, 1000));
    assert_eq!((listener.options.max_connections, listener.options.max_connections_per_address), (1000, 200));
    assert_eq!(listener.options.timeout, Duration::from_secs(300));
    assert_eq!(listener.senders, SenderPatterns::any());

    let upstream = &settings.upstreams[0].limits;
    assert_eq!((upstream.max_connections, upstream.max_messages_per_connection, upstream.connect_retries), (4, 100, 1));
    let timeouts = [upstream.connect_timeout, upstream.command_timeout, upstream.data_timeout, upstream.idle_timeout];
    assert_eq!(timeouts, [10, 300, 600, 30].map(Duration::from_secs));
    assert_eq!(settings.routes.len(), 1);
    assert_eq!((&*settings.routes[0].name, &**settings.routes[0].upstreams.upstreams()[0]), ("default", "sandbox"));
}

#[test]
fn rates_of_users_and_listeners_are_lists_with_a_word_for_what_is_over_them() {
    let listener = "[[listener]]\naddress = \"127.0.0.1:2525\"\n";
    let user = "[[user]]\nname = \"app\"\npassword = \"$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI\"\n";
    let read = |of_listener: &str, of_user: &str| {
        let settings = settings(&format!("{SMALLEST}{listener}{of_listener}{user}{of_user}"));
        (settings.listeners[0].rate.clone(), settings.users[0].rate.clone())
    };
    let of = |rates: &[&str], over| {
        let rates = rates.iter().map(|rate| Rate::parse(rate).unwrap()).collect();
        Some(SubmissionRateSettings { rates, over })
    };
    assert_eq!(read("", ""), (None, None));
    assert_eq!(read("rate = []\n", "rate = \"100/min\"\n"), (None, of(&["100/min"], OverRate::Refuse)));
    let both =
        read("rate = [\"5/s\", \"5000/day\"]\nover_rate = \"wait\"\n", "rate = \"9/h\"\nover_rate = \"refuse\"\n");
    assert_eq!(both, (of(&["5/s", "5000/day"], OverRate::Wait), of(&["9/h"], OverRate::Refuse)));
    let direct = "delivery = \"direct\"\n";
    let second = "[[listener]]\naddress = \"127.0.0.1:2526\"\n";
    let waits = format!("{user}rate = \"9/h\"\nover_rate = \"wait\"\n");
    let both = warnings(&format!("{SMALLEST}{listener}{direct}{second}{waits}"));
    assert!(both[0].contains("on listeners with delivery = \"direct\" mail over the rate is refused"), "{both:?}");
    let none = mistakes(&format!("{SMALLEST}{listener}{direct}{waits}"));
    assert!(none[0].contains("mail cannot wait where its client waits for the provider's reply"), "{none:?}");
    let idle = warnings(&format!("{SMALLEST}{listener}over_rate = \"wait\"\n"));
    assert!(idle[0].contains("`over_rate` has no effect without `rate`"), "{idle:?}");
}

const WHOLE: &str = r#"hostname = "gateway.example.com"
unsigned = ["example.net"]
max_memory = "1 GiB"
[[listener]]
address = "0.0.0.0:1587"
tls = "starttls"
certificate = "gateway.pem"
private_key = "gateway.key"
allow = ["10.0.0.0/8", "192.0.2.1"]
line_endings = "reject"
timeout = "1m 30s"
[[user]]
name = "plausible"
password = { file = "rsa.pem" }
senders = ["reports@example.com"]
[[dkim]]
domain = "example.com"
selector = "a"
private_key = "rsa.pem"
[[dkim]]
domain = "example.com"
selector = "b"
private_key = "ed25519.pem"
[[upstream]]
name = "company"
provider = "smtp"
host = "smtp.example.com"
port = 465
server_name = "mail.example.com"
ca = "gateway.pem"
username = "relay"
password = "literal"
source_address = "192.0.2.10"
[[upstream]]
name = "same-account"
provider = "smtp"
host = "192.0.2.25"
share_limits_with = "company"
[[route]]
name = "reports"
senders = ["reports@example.com"]
upstreams = ["same-account", "company"]
[[route]]
name = "rest"
upstreams = ["company"]
[log]
format = "json"
level = "info,waxseal::relay=debug"
"#;

#[test]
fn a_whole_configuration_resolves() {
    let settings = settings(WHOLE);
    assert_eq!(settings.unsigned, Unsigned::Domains(vec![Domain::parse("example.net").unwrap()]));
    let listener = &settings.listeners[0];
    assert!(matches!(listener.options.tls, Tls::StartTls(_)));
    assert_eq!(listener.options.allow[1].to_string(), "192.0.2.1/32");
    assert_eq!(listener.options.timeout, Duration::from_secs(90));
    // One pair for the domain, though it has two keys; and whatever may be sent unsigned must be able to come in.
    assert_eq!(listener.senders.to_string(), "*@example.com, *@*.example.com, *@example.net, *@*.example.net");
    assert!(matches!(settings.users[0].password, Password::Plain(_)));
    assert_eq!(settings.users[0].senders, SenderPatterns::parse(["reports@example.com"]).ok());
    assert!(settings.dkim.iter().all(|key| key.key.is_some()));

    let (company, logins) = reached(&settings.upstreams[0]);
    assert_eq!((company.host.as_str(), company.port, company.tls), ("smtp.example.com", 465, TlsMode::Implicit));
    assert_eq!(company.server_name.to_str(), "mail.example.com");
    let credentials = logins.own.as_ref().expect("a login");
    assert_eq!((credentials.username.as_str(), credentials.password.reveal()), ("relay", "literal"));
    assert_eq!(settings.upstreams[1].share_limits_with.as_deref(), Some("company"));
    let options = settings.upstreams[0].options(company, logins, logins.own.as_ref(), &settings.ehlo_name);
    assert_eq!((options.ehlo_name.as_str(), options.limits.max_connections), ("gateway.example.com", 4));

    let names: Vec<_> = settings.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["reports", "rest"]);
    assert!(!settings.routes[0].conditions.senders.matches(&Mailbox::parse("a@example.com").unwrap()));
    assert_eq!(settings.routes[0].upstreams, Choice::InOrder(vec!["same-account".into(), "company".into()]));
}

#[test]
fn the_port_decides_how_tls_begins_and_the_other_way_round() {
    for (typed, port, tls) in [
        ("", 587, TlsMode::StartTls),
        ("port = 25", 25, TlsMode::StartTls),
        ("port = 465", 465, TlsMode::Implicit),
        ("port = 2465", 2465, TlsMode::Implicit),
        ("tls = \"implicit\"", 465, TlsMode::Implicit),
        ("tls = \"implicit\"\nport = 10465", 10465, TlsMode::Implicit),
        ("tls = \"starttls\"\nport = 465", 465, TlsMode::StartTls),
    ] {
        let endpoint = endpoint(&format!("host = \"a.example\"\n{typed}\n"));
        assert_eq!((endpoint.port, endpoint.tls), (port, tls), "{typed}");
        assert_eq!(endpoint.server_name.to_str(), "a.example");
    }
    assert_eq!(endpoint("host = \"[2001:db8::1]\"").server_name.to_str(), "2001:db8::1");
}

#[test]
fn limits_are_shared_with_the_last_of_a_chain() {
    let upstream = |name: &str, owner: &str| {
        format!("[[upstream]]\nname = \"{name}\"\nprovider = \"sandbox\"\nshare_limits_with = \"{owner}\"\n")
    };
    let settings = settings(&format!("{SMALLEST}{}{}", upstream("b", "a"), upstream("a", "sandbox")));
    let owners: Vec<_> = settings.upstreams.iter().map(|upstream| upstream.share_limits_with.as_deref()).collect();
    assert_eq!(owners, [None, Some("sandbox"), Some("sandbox")]);
}

/// It was reported only at the start.
#[test]
fn two_tables_of_one_account_are_a_warning_unless_they_share_its_limits() {
    const WARNS: &str = "\"a\" has the same host and login";
    let table = |name: &str, lines: &str| format!("[[upstream]]\nname = \"{name}\"\nprovider = \"smtp\"\n{lines}");
    let host = "host = \"smtp.example.com\"\n";
    let other = "host = \"mail.example.com\"\n";
    let login = |name: &str| format!("username = \"{name}\"\npassword = \"p\"\n");
    let of_domain = |name: &str| format!("[[upstream.credentials]]\ndomain = \"{name}.example\"\n{}", login(name));
    let a = format!("{host}{}{}", login("u"), of_domain("v"));
    for (a, b, expected) in [
        (&a, format!("{host}{}", login("u")), WARNS),
        (&a, format!("{host}{}port = 465\n", login("u")), WARNS),
        (&a, format!("host = \"SMTP.example.com\"\n{}", login("v")), WARNS),
        (&a, format!("{host}{}{}", login("w"), of_domain("v")), WARNS),
        (&a, format!("{host}{}", login("w")), ""),
        (&a, format!("{other}{}", login("u")), ""),
        (&a, host.to_owned(), ""),
        (&a, format!("{host}{}share_limits_with = \"a\"\n", login("u")), ""),
        (&host.to_owned(), host.to_owned(), WARNS),
        (&host.to_owned(), format!("{host}port = 2525\n"), ""),
    ] {
        let text = format!(
            "hostname = \"a.example\"\nunsigned = \"send\"\n{}{}[[route]]\nname = \"all\"\nupstreams = [\"a\", \"b\"]\n",
            table("a", a),
            table("b", &b)
        );
        match &warnings(&text)[..] {
            [] => assert_eq!(expected, "", "{text}"),
            [one] => assert!(!expected.is_empty() && one.contains(expected), "{text}: {one}"),
            several => panic!("{text}: {several:#?}"),
        }
    }
}

#[test]
fn a_route_asks_for_what_it_names_and_draws_by_weight() {
    let route = "[[route]]\nname = \"reports\"\nheader = { X-Kind = \"report*\", Subject = \"/weekly/\" }\n\
                 tag = [\"weekly-*\", \"monthly\"]\nupstreams = { c = 2, a = 2, sandbox = 7 }\nretry_refused = true\n";
    let more: String =
        ["a", "c"].iter().map(|name| format!("[[upstream]]\nname = \"{name}\"\nprovider = \"sandbox\"\n")).collect();
    let settings = settings(&format!("{SMALLEST}{more}{route}"));
    let [reports] = settings.routes.as_slice() else { panic!("one route") };
    let written = "from * to *, header Subject: /weekly/, header X-Kind: report*, tag weekly-* or monthly";
    assert_eq!(reports.conditions.to_string(), written);
    // Upstreams of equal weight keep the order of the file.
    let weights = vec![("sandbox".into(), 7), ("a".into(), 2), ("c".into(), 2)];
    assert_eq!((&reports.upstreams, reports.retry_refused), (&Choice::ByWeight(weights), true));
}

#[test]
fn domains_have_logins_of_their_own_and_the_own_one_may_be_missing() {
    let login = |domain: &str, keys: &str| format!("[[upstream.credentials]]\ndomain = \"{domain}\"\n{keys}\n");
    let logins = |provider: &str, logins: &str| {
        let text = format!("{SMALLEST}[[upstream]]\nname = \"p\"\nprovider = \"{provider}\"\n{logins}");
        reached(&settings(&text).upstreams[1]).1.clone()
    };
    let password = "password = \"canary\"";
    let both = login("Example.com", &format!("username = \"a\"\n{password}"))
        + &login("exämple.org", &format!("username = \"b\"\n{password}"));
    let mailgun = logins("mailgun", &both);
    let shown: Vec<_> =
        mailgun.by_domain.iter().map(|(domain, login)| (domain.as_str(), login.username.as_str())).collect();
    assert_eq!(shown, [("example.com", "a"), ("xn--exmple-cua.org", "b")]);
    assert!(mailgun.own.is_none());
    // A provider's own rules apply to each: one with a token as name and password needs no name.
    let postmark = logins("postmark", &(format!("{password}\n") + &login("example.com", "password = \"token\"")));
    assert_eq!((postmark.by_domain[0].1.username.as_str(), postmark.own.is_some()), ("token", true));
}

fn upstream(keys: &str) -> String {
    format!("[[upstream]]\nname = \"p\"\nprovider = \"smtp\"\nhost = \"a.example\"\n{keys}\n")
}

/// Each text has the one warning that begins so, or none.
pub(super) fn assert_warnings<const CASES: usize>(cases: [(String, &str); CASES]) {
    for (text, expected) in cases {
        let found = warnings(&text);
        match found.as_slice() {
            [] => assert_eq!(expected, "", "{text}"),
            [one] => assert!(!expected.is_empty() && one.starts_with(expected), "{text}: {one}"),
            several => panic!("{text}: {several:#?}"),
        }
    }
}

#[test]
fn what_is_odd_about_a_provider_but_works_is_a_warning() {
    let named = "hostname = \"a.example\"\nunsigned = \"send\"\n";
    assert_warnings([
        (
            format!("hostname = \"box\"\nunsigned = \"send\"\n{}", upstream("")),
            "config.toml:1:12: the host's name \"box\" is not fully qualified",
        ),
        (
            format!("hostname = \"a.example\"\n{}", upstream("")),
            "config.toml: there is no DKIM key: mail is sent unsigned",
        ),
        (
            format!("hostname = \"a.example\"\nunsigned = \"refuse\"\n{}", upstream("")),
            "config.toml:2:12: there is no DKIM key and unsigned mail is refused",
        ),
        (
            format!("{named}{}", upstream("port = 465\ntls = \"starttls\"")),
            "config.toml:8:7: port 465 is usually for TLS from the start",
        ),
        (
            format!("{named}{}", upstream("tls = \"implicit\"\nport = 587")),
            "config.toml:7:7: port 587 is usually for STARTTLS",
        ),
        (format!("{named}{}", upstream("password = \"x\"\nusername = \"u\"")), ""),
        (
            format!("{named}{}", upstream("username = \"u\"\npassword = \"${RELAY_PASSWORD}\"")),
            "config.toml:8:12: `password` looks like a variable",
        ),
        (format!("{SMALLEST}{}", upstream("")), "config.toml:7:8: no route uses the upstream \"p\""),
    ]);
}

#[test]
fn what_has_no_effect_or_too_much_is_a_warning() {
    assert_warnings([
        (
            format!("{SMALLEST}host = \"a.example\"\n"),
            "config.toml:6:8: `host` has no effect with provider = \"sandbox\"",
        ),
        (format!("{SMALLEST}[queue]\nbackend = \"sqlite\"\n"), ""),
        (format!("{SMALLEST}[queue]\nexpire = \"10s\"\n"), "config.toml:7:10: `expire` is shorter than the first wait"),
        (
            format!(
                "{SMALLEST}[[dkim]]\ndomain = \"example.com\"\nselector = \"a\"\n\
                 private_key = \"none.pem\"\ngenerate = true\n"
            ),
            "config.toml:2:12: it has no effect: the listeners take only senders of the domains that have a key",
        ),
        (format!("{SMALLEST}[admin]\naddress = \"0.0.0.0:8025\"\ntoken = \"t0ken\"\n"), ""),
        (
            format!("{SMALLEST}[[listener]]\naddress = \"127.0.0.1:0\"\ncertificate = \"x\"\n"),
            "config.toml:8:15: it has no effect while tls = \"off\"",
        ),
        (
            format!("{SMALLEST}[[listener]]\naddress = \"0.0.0.0:25\"\nallow = [\"0.0.0.0/0\"]\n"),
            "config.toml:8:9: 0.0.0.0/0 lets every machine",
        ),
    ]);
}

#[test]
fn a_route_that_misses_mail_or_never_gets_any_is_a_warning() {
    assert_warnings([
        (
            format!("{SMALLEST}[[route]]\nname = \"r\"\nsenders = [\"*@a\"]\nupstreams = [\"sandbox\"]\n"),
            "config.toml:6:1: mail that no route takes is not sent anywhere",
        ),
        (
            format!(
                "{SMALLEST}[[route]]\nname = \"all\"\nupstreams = [\"sandbox\"]\n\
                 [[route]]\nname = \"late\"\nupstreams = [\"sandbox\"]\n"
            ),
            "config.toml:9:1: the route \"late\" is never asked: \"all\" takes everything (help: put it before \"all\")",
        ),
        (
            format!(
                "{SMALLEST}[[route]]\nname = \"a\"\ntag = \"x\"\nupstreams = [\"sandbox\"]\n\
                 [[route]]\nname = \"b\"\ntag = [\"x\"]\nupstreams = [\"sandbox\"]\n\
                 [[route]]\nname = \"rest\"\nupstreams = [\"sandbox\"]\n"
            ),
            "config.toml:10:1: the route \"b\" is never asked: \"a\" takes the same mail",
        ),
        (
            format!(
                "{SMALLEST}[[user]]\nname = \"plausible\"\npassword = {{ file = \"rsa.pem\" }}\n\
                 [[route]]\nname = \"r\"\nuser = [\"plausibel\", \"p*\"]\nupstreams = [\"sandbox\"]\n\
                 [[route]]\nname = \"rest\"\nupstreams = [\"sandbox\"]\n"
            ),
            "config.toml:11:8: `user`: no [[user]] fits \"plausibel\" (help: did you mean \"plausible\"?)",
        ),
        (
            format!("{SMALLEST}[[route]]\nname = \"r\"\nupstreams = [\"sandbox\"]\nretry_refused = true\n"),
            "config.toml:9:17: `retry_refused` has no effect with one upstream",
        ),
        (
            format!("{SMALLEST}{}[[route]]\nname = \"r\"\nupstreams = [\"p\"]\n", upstream("")),
            "config.toml:4:8: no route uses the upstream \"sandbox\"",
        ),
    ]);
}

#[test]
fn ed25519_alone_is_warned_about() {
    let key = |domain: &str, selector: &str, file: &str| {
        format!(
            "[[dkim]]\ndomain = \"{domain}\"\nselector = \"{selector}\"\nprivate_key = \"{file}\"\ngenerate = true\n"
        )
    };
    let open = format!("{SMALLEST}[[listener]]\naddress = \"127.0.0.1:0\"\nsenders = [\"*\"]\n");
    let both = key("a.example", "r", "rsa.pem") + &key("a.example", "e", "ed25519.pem");
    let with_one_to_be_made = key("b.example", "e", "ed25519.pem") + &key("b.example", "r", "none.pem");
    assert_eq!(warnings(&format!("{open}{both}{with_one_to_be_made}")), [""; 0]);
    let alone = key("c.example", "a", "ed25519.pem") + &key("c.example", "b", "ed25519.pem");
    let found = warnings(&format!("{open}{alone}"));
    assert!(
        matches!(found.as_slice(), [one] if one.starts_with("config.toml:10:10: c.example has only an Ed25519 key")),
        "{found:?}"
    );
}

#[test]
fn files_that_others_can_read_are_named_with_the_way_to_close_them() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let open =
        |name| std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    open("rsa.pem");
    let text = "hostname = \"a.example\"\n[[dkim]]\ndomain = \"example.com\"\nselector = \"a\"\nprivate_key = \"rsa.pem\"\n\
                [[upstream]]\nname = \"p\"\nprovider = \"smtp\"\nhost = \"a.example\"\nusername = \"u\"\npassword = \"hunter2\"\n";
    folder.write("config.toml", text);
    open("config.toml");
    let settings = folder.load_file("config.toml", true, &nothing()).unwrap();
    assert_eq!(
        folder.shorten(&settings.warnings),
        [
            "config.toml:5:15: `private_key`: rsa.pem can be read by other users of this machine (help: chmod 600 rsa.pem)",
            "config.toml:11:12: this file holds a secret and is world-readable (help: chmod 600 config.toml, \
             or use { file = \"...\" } or { env = \"...\" })",
        ]
    );
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn the_queue_is_found_though_the_rest_is_wrong_or_missing() {
    let folder = Folder::new();
    let data_dir = |text: &str, environment: &Environment| {
        folder.write("config.toml", text);
        let path = folder.path().join("config.toml");
        let found = crate::config::queue_location(&ConfigFile { path: &path, explicit: true }, environment);
        let found = found.map(|found| {
            assert_eq!(found.backend, BackendSettings::Sqlite);
            found.data_dir
        });
        found.map(|found| found.strip_prefix(folder.path()).map_or(found.clone(), ToOwned::to_owned))
    };
    let no_secret = "[[upstream]]\nname = \"p\"\nprovider = \"smtp\"\nhost = \"a.example\"\nusername = \"u\"\n\
                     password = { env = \"NOT_IN_THIS_SHELL\" }\n";
    for (text, expected) in [
        ("", "data"),
        (no_secret, "data"),
        ("data_dir = \"/srv/waxseal\"\nhostnam = 7\n", "/srv/waxseal"),
        (&format!("data_dir = \"kept\"\n{no_secret}"), "kept"),
    ] {
        let found = data_dir(text, &nothing()).unwrap_or_else(|problems| panic!("{text}: {problems}"));
        assert_eq!(found, std::path::Path::new(expected), "{text}");
    }
    let found = data_dir("data_dir = \"kept\"\n", &Environment::of([("WAXSEAL_DATA_DIR", "/data")]));
    assert_eq!(found.unwrap_or_else(|problems| panic!("{problems}")), std::path::Path::new("/data"));
    assert!(data_dir("data_dir = 7\n", &nothing()).is_err() && data_dir("data_dir =\n", &nothing()).is_err());
    assert!(data_dir("[queue]\nbackend = \"sqlite\"\nexpire = 7\n", &nothing()).is_ok());
    let problems = data_dir("[queue]\nbackend = \"sqllite\"\n", &nothing()).expect_err("a misspelt backend");
    assert!(problems.to_string().contains("\"sqlite\""), "{problems}");
}
