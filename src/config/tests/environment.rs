//! The environment: alone, as files, in a container, and over a file.

use super::*;
use crate::delivery::Choice;
use crate::dkim::Unsigned;
use crate::inbound::AuthMode;
use crate::inbound::users::Password;
use crate::relay::TlsMode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const PROVIDER: &[(&str, &str)] = &[
    ("SMTP_HOST_ADDR", "smtp.example.com"),
    ("SMTP_USER_NAME", "relay"),
    ("SMTP_USER_PWD", "hunter2"),
    ("WAXSEAL_HOSTNAME", "gateway.example.com"),
];

fn environment(more: &[(&str, &str)]) -> Environment {
    Environment::of(PROVIDER.iter().chain(more).copied())
}

/// Without a file.
fn alone(more: &[(&str, &str)]) -> Settings {
    let folder = Folder::new();
    let loaded = folder.load_file("config.toml", false, &environment(more));
    loaded.unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(more: &[(&str, &str)]) -> Vec<String> {
    let folder = Folder::new();
    folder.shorten(&folder.load_file("config.toml", false, &environment(more)).expect_err("problems"))
}

fn addresses(settings: &Settings) -> Vec<String> {
    settings.listeners.iter().map(|listener| listener.options.address.to_string()).collect()
}

#[test]
fn the_block_that_plausible_reads_is_enough() {
    let settings = alone(&[("MAILER_EMAIL", "plausible@example.com"), ("SMTP_POOL_SIZE", "9"), ("SMTP_RETRIES", "2")]);
    assert_eq!(settings.file, None);
    let upstream = &settings.upstreams[0];
    assert_eq!(
        (&*upstream.name, upstream.limits.max_connections, upstream.limits.connect_retries),
        ("environment", 9, 2)
    );
    let (endpoint, logins) = reached(&settings.upstreams[0]);
    assert_eq!((endpoint.host.as_str(), endpoint.port, endpoint.tls), ("smtp.example.com", 587, TlsMode::StartTls));
    let credentials = logins.own.as_ref().expect("a login");
    assert_eq!((credentials.username.as_str(), credentials.password.reveal()), ("relay", "hunter2"));
    assert_eq!(addresses(&settings), ["127.0.0.1:2525", "[::1]:2525"]);
    assert_eq!((&*settings.routes[0].name, &**settings.routes[0].upstreams.upstreams()[0]), ("default", "environment"));
    assert_eq!(settings.unsigned, Unsigned::Send);
    assert!(settings.listeners[0].senders.is_any());
    let warnings: Vec<_> = settings.warnings.iter().map(|warning| warning.message().to_owned()).collect();
    assert_eq!(warnings, ["there is no DKIM key: mail is sent unsigned"]);
    assert!(!format!("{settings:?} {:?}", environment(&[])).contains("hunter2"));
}

#[test]
fn ports_and_tls_are_read_as_plausible_reads_them() {
    for (port, ssl, expected) in [
        ("", "", (587, TlsMode::StartTls)),
        ("465", "", (465, TlsMode::Implicit)),
        ("465", "true", (465, TlsMode::Implicit)),
        ("465", "false", (465, TlsMode::StartTls)),
        ("25", "false", (25, TlsMode::StartTls)),
        ("", "true", (587, TlsMode::Implicit)),
        ("10465", "TRUE", (10465, TlsMode::Implicit)),
    ] {
        let settings = alone(&[("SMTP_HOST_PORT", port), ("SMTP_HOST_SSL_ENABLED", ssl)]);
        let (endpoint, _) = reached(&settings.upstreams[0]);
        assert_eq!((endpoint.port, endpoint.tls), expected, "{port:?} {ssl:?}");
    }
}

#[test]
fn files_of_a_secrets_folder_win_over_variables() {
    let secrets = Folder::new();
    secrets.write("SMTP_USER_PWD", "from file\n");
    secrets.write("SMTP_HOST_PORT", "465\n");
    secrets.write("SMTP_USER_NAME", "\n");
    secrets.write("DKIM_DOMAIN", "example.com\n");
    secrets.write("DKIM_SELECTOR", "wax1");
    secrets.write("DKIM_PRIVATE_KEY", include_str!("../../dkim/testdata/rsa2048.pem"));
    let folder = secrets.path().display().to_string();
    let settings = alone(&[("CONFIG_DIR", folder.as_str())]);
    let (endpoint, logins) = reached(&settings.upstreams[0]);
    let credentials = logins.own.as_ref().expect("a login");
    assert_eq!((endpoint.port, credentials.password.reveal()), (465, "from file"));
    assert_eq!(credentials.username, "relay", "an empty file counts as missing");
    assert_eq!((&settings.unsigned, settings.dkim[0].path.as_deref()), (&Unsigned::Refuse, None));
    assert!(settings.dkim[0].key.is_some() && settings.warnings.is_empty());

    secrets.write("SMTP_HOST_PORT", "many");
    let found = problems(&[("CONFIG_DIR", folder.as_str())]);
    assert_eq!(
        found,
        [format!("{folder}/SMTP_HOST_PORT: \"many\" is not a whole number (help: use a number from 1 to 65535)")]
    );
}

#[test]
fn a_container_listens_for_its_network_or_for_a_login() {
    let listen = ("WAXSEAL_LISTEN", "0.0.0.0:2525, [::]:2525");
    let settings = alone(&[listen, ("WAXSEAL_ALLOW", "172.18.0.0/16,fd00::/8"), ("WAXSEAL_DATA_DIR", "/data")]);
    assert_eq!(addresses(&settings), ["0.0.0.0:2525", "[::]:2525"]);
    let options = &settings.listeners[1].options;
    assert_eq!((options.allow.len(), options.auth), (2, AuthMode::Off));
    assert_eq!(settings.data_dir, Path::new("/data"));

    let user = [("WAXSEAL_USER", "plausible"), ("WAXSEAL_PASSWORD", "hunter2")];
    let settings = alone(&[listen, user[0], user[1]]);
    assert_eq!(settings.listeners[0].options.auth, AuthMode::Required);
    assert_eq!((&*settings.users[0].name, settings.users.len()), ("plausible", 1));
    assert!(matches!(settings.users[0].password, Password::Plain(_)));

    let settings = alone(&[listen, user[0], user[1], ("WAXSEAL_ALLOW", "172.18.0.0/16")]);
    assert_eq!(settings.listeners[0].options.auth, AuthMode::Optional);

    let open = problems(&[("WAXSEAL_LISTEN", "0.0.0.0:2525")]);
    assert_eq!(open.len(), 1);
    assert!(open[0].starts_with("WAXSEAL_LISTEN: 0.0.0.0:2525 can be reached from other machines"), "{open:?}");
    assert!(open[0].contains("WAXSEAL_ALLOW") && open[0].contains("WAXSEAL_USER"), "{open:?}");
}

#[test]
fn a_key_may_be_pem_pem_in_one_line_or_a_path() {
    let pem = include_str!("../../dkim/testdata/rsa2048.pem");
    let folder = Folder::new();
    let path = folder.path().join("rsa.pem").display().to_string();
    for key in [pem, &pem.replace('\n', "\\n"), &pem.replace('\n', " "), &STANDARD.encode(pem), &path] {
        let settings = alone(&[("DKIM_DOMAIN", "example.com"), ("DKIM_SELECTOR", "a"), ("DKIM_PRIVATE_KEY", key)]);
        assert!(settings.dkim[0].key.is_some());
        assert_eq!(settings.listeners[0].senders.to_string(), "*@example.com, *@*.example.com");
    }
    let broken = problems(&[("DKIM_DOMAIN", "example.com"), ("DKIM_SELECTOR", "a"), ("DKIM_PRIVATE_KEY", &pem[..300])]);
    assert!(broken[0].starts_with("DKIM_PRIVATE_KEY: DKIM_PRIVATE_KEY cannot be used"), "{broken:?}");
    assert!(!broken[0].contains(&pem[40..60]));
    // Without its BEGIN and END lines it looks like a path; the message that there is no such file must not contain it.
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    for key in [&body[..], &body.replace("/", "\\n"), &STANDARD.encode(pem.replace("BEGIN", ""))] {
        let broken = problems(&[("DKIM_DOMAIN", "example.com"), ("DKIM_SELECTOR", "a"), ("DKIM_PRIVATE_KEY", key)]);
        assert!(
            broken[0].starts_with("DKIM_PRIVATE_KEY: it holds a key without its BEGIN and END lines"),
            "{broken:?}"
        );
    }
}

#[test]
fn what_is_wrong_or_half_there_is_named() {
    for (variables, expected) in [
        (&[("SMTP_USER_PWD", "")][..], "SMTP_USER_NAME: SMTP_USER_PWD must be set too (help: set both, or neither)"),
        (&[("SMTP_USER_NAME", "")], "SMTP_USER_PWD: SMTP_USER_NAME must be set too (help: set both, or neither)"),
        (&[("WAXSEAL_USER", "a")], "WAXSEAL_USER: WAXSEAL_PASSWORD must be set too (help: set both, or neither)"),
        (
            &[("DKIM_DOMAIN", "example.com")],
            "DKIM_DOMAIN: DKIM_SELECTOR and DKIM_PRIVATE_KEY must be set too (help: a key needs all three: DKIM_DOMAIN, \
             DKIM_SELECTOR, DKIM_PRIVATE_KEY (or DKIM_GENERATE=true))",
        ),
        (
            &[("SMTP_HOST_SSL_ENABLED", "maybe")],
            "SMTP_HOST_SSL_ENABLED: \"maybe\" is neither true nor false (help: use true or false)",
        ),
        (&[("SMTP_POOL_SIZE", "0")], "SMTP_POOL_SIZE: 0 is out of range (help: use a number from 1 to 1000000)"),
        (
            &[("WAXSEAL_LISTEN", "2525")],
            "WAXSEAL_LISTEN: \"2525\" is not an address with a port (help: write \"127.0.0.1:2525\")",
        ),
        (
            &[("WAXSEAL_ALLOW", "10.0.0.0/8,all")],
            "WAXSEAL_ALLOW: \"all\" is not a network (help: write an address and a prefix length, as in \"10.0.0.0/8\" or \
             \"::1/128\")",
        ),
        (
            &[("SMTP_HOST_ADDR", "localhost"), ("SMTP_HOST_PORT", "2525")],
            "SMTP_HOST_ADDR: 127.0.0.1:2525 is the gateway's own listener: mail would loop (help: name the \
             provider's host and port here; the gateway's own address is for the application)",
        ),
        (
            &[("SMTP_HOST_ADDR", "0.0.0.0"), ("SMTP_HOST_PORT", "99"), ("WAXSEAL_LISTEN", "127.0.0.1:99")],
            "SMTP_HOST_ADDR: 0.0.0.0:99 is the gateway's own listener: mail would loop (help: name the \
             provider's host and port here; the gateway's own address is for the application)",
        ),
    ] {
        assert_eq!(problems(variables), [expected], "{variables:?}");
    }
}

#[test]
fn a_variable_with_a_slip_in_its_name_is_pointed_out_and_kubernetes_is_left_alone() {
    let settings = alone(&[("WAXSEAL_LISTN", "0.0.0.0:2525"), ("WAXSEAL_PORT_2525_TCP", "tcp://10.0.0.1:2525")]);
    let warnings: Vec<_> = settings.warnings.iter().map(|warning| warning.to_string()).collect();
    assert_eq!(warnings[0], "WAXSEAL_LISTN: waxseal does not use this variable (help: did you mean WAXSEAL_LISTEN?)");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn plausible_hears_at_start_that_its_mail_would_be_refused() {
    let key = "[[dkim]]\ndomain = \"example.com\"\nselector = \"a\"\nprivate_key = \"rsa.pem\"\n";
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\nsenders = [\"alerts@example.com\"]\n";
    for (text, mailer, expected) in [
        (key.to_owned(), "plausible@example.com", ""),
        (key.to_owned(), "Plausible <a@stats.example.com>", ""),
        (
            key.to_owned(),
            "Plausible <a@example.org>",
            "MAILER_EMAIL: mail from a@example.org will be refused: example.org has no DKIM key",
        ),
        (
            format!("unsigned = [\"example.org\"]\n{listener}{key}"),
            "a@example.org",
            "MAILER_EMAIL: mail from a@example.org will be refused: no listener takes this sender",
        ),
        (listener.to_owned(), "alerts@example.com", ""),
        (key.to_owned(), "no address", ""),
    ] {
        let folder = Folder::new();
        let settings = folder.load(&text, &environment(&[("MAILER_EMAIL", mailer)])).unwrap();
        let found: Vec<_> =
            folder.shorten(&settings.warnings).into_iter().filter(|line| line.starts_with("MAILER")).collect();
        match found.as_slice() {
            [] => assert_eq!(expected, "", "{mailer}"),
            found => assert!(!expected.is_empty() && found[0].starts_with(expected), "{mailer}: {found:?}"),
        }
    }
}

#[test]
fn over_a_file_the_environment_is_the_default_and_replaces_what_it_names() {
    let folder = Folder::new();
    let text = "hostname = \"other.example.com\"\n[[upstream]]\nname = \"company\"\nprovider = \"sandbox\"\n";
    let load = |text: &str, more: &[(&str, &str)]| {
        folder.load(text, &environment(more)).unwrap_or_else(|problems| panic!("{problems}"))
    };
    let without_routes = load(text, &[]);
    assert_eq!(without_routes.hostname, "gateway.example.com");
    assert_eq!(without_routes.upstreams.len(), 2);
    assert_eq!(without_routes.routes[0].upstreams, Choice::InOrder(vec!["environment".into()]));

    let route = "[[route]]\nname = \"r\"\nsenders = [\"*@example.com\"]\nupstreams = [\"company\", \"environment\"]\n";
    let with_routes = load(&format!("{text}{route}"), &[]);
    let names: Vec<_> =
        with_routes.routes.iter().map(|route| (&*route.name, route.upstreams.upstreams().len())).collect();
    assert_eq!(names, [("r", 2), ("environment", 1)]);

    let listener = "[[listener]]\naddress = \"127.0.0.1:25\"\nmax_recipients = 5\n";
    let kept = load(&format!("{text}{listener}"), &[("WAXSEAL_ALLOW", "127.0.0.1")]);
    assert_eq!((addresses(&kept), kept.listeners[0].options.allow.len()), (vec!["127.0.0.1:25".to_owned()], 1));
    let replaced = load(&format!("{text}{listener}"), &[("WAXSEAL_LISTEN", "127.0.0.1:26")]);
    assert_eq!(addresses(&replaced), ["127.0.0.1:26"]);
    assert!(replaced.warnings.iter().any(|warning| warning.message().contains("replaces the [[listener]] tables")));
}

#[test]
fn a_login_without_a_provider_is_pointed_out() {
    let folder = Folder::new();
    let lonely = Environment::of([("SMTP_USER_NAME", "u"), ("SMTP_USER_PWD", "p")]);
    let settings = folder.load(SMALLEST, &lonely).unwrap();
    assert_eq!(
        settings.warnings.to_string(),
        "SMTP_USER_NAME: it has no effect without SMTP_HOST_ADDR (help: set SMTP_HOST_ADDR to the provider's host)"
    );
}

/// Whatever is wrong with a variable, the message names variables, and no key of a file that there is not.
#[test]
fn problems_of_variables_name_variables() {
    let key_of_file = regex::Regex::new(r"`[a-z_]+`|\b[a-z_]+ = |\[\[").expect("a pattern");
    let pem = include_str!("../../dkim/testdata/rsa2048.pem");
    for variables in [
        &[("SMTP_HOST_ADDR", "smtps://smtp.example.com:465/")][..],
        &[("SMTP_HOST_ADDR", "smtp.example.com:587")],
        &[("SMTP_HOST_PORT", "abc"), ("SMTP_RETRIES", "1.5"), ("SMTP_POOL_SIZE", "-1")],
        &[("WAXSEAL_PROVIDER", "ses"), ("SMTP_HOST_ADDR", "")],
        &[("WAXSEAL_PROVIDER", "smtp"), ("SMTP_HOST_ADDR", "")],
        &[("WAXSEAL_PROVIDER", "postmrk")],
        &[("WAXSEAL_PROVIDER", "mailgun"), ("SMTP_HOST_ADDR", ""), ("SMTP_USER_PWD", "")],
        &[("WAXSEAL_PROVIDER", "sendgrid"), ("SMTP_HOST_ADDR", "")],
        &[("WAXSEAL_REGION", "moon"), ("WAXSEAL_PROVIDER", "mailgun"), ("SMTP_HOST_ADDR", "")],
        &[("WAXSEAL_SECRET_KEY", "hunter2")],
        &[("WAXSEAL_CA", "/nonexistent/ca.pem")],
        &[("WAXSEAL_CA", pem)],
        &[("WAXSEAL_TLS", "starttls")],
        &[("WAXSEAL_TLS", "starttls"), ("WAXSEAL_CERTIFICATE", pem), ("WAXSEAL_PRIVATE_KEY", "/nonexistent")],
        &[("WAXSEAL_LISTEN", "0.0.0.0:2525")],
        &[("WAXSEAL_MAX_MESSAGE_SIZE", "1 GiB")],
        &[("WAXSEAL_LOG_LEVEL", "loud=loud=loud")],
        &[("WAXSEAL_LOG_FORMAT", "yaml"), ("WAXSEAL_DELIVERY", "fast"), ("WAXSEAL_BOUNCE", "me")],
        &[
            ("WAXSEAL_UNSIGNED", "sned"),
            ("WAXSEAL_DRAIN", "8"),
            ("WAXSEAL_EXPIRE", "long"),
            ("WAXSEAL_MAX_MEMORY", "1"),
        ],
        &[("DKIM_DOMAIN", "example.com"), ("DKIM_SELECTOR", "a"), ("DKIM_PRIVATE_KEY", "/nonexistent/key.pem")],
        &[("DKIM_DOMAIN", "example.com"), ("DKIM_SELECTOR", "a"), ("DKIM_PRIVATE_KEY", "/")],
    ] {
        for problem in problems(variables) {
            assert!(!key_of_file.is_match(&problem.replace("`waxseal ", "")), "{variables:?}: {problem}");
        }
    }
}

#[test]
fn a_number_that_is_none_is_told_from_one_out_of_range() {
    for (value, expected) in [
        ("abc", "SMTP_RETRIES: \"abc\" is not a whole number"),
        ("1.5", "SMTP_RETRIES: \"1.5\" is not a whole number"),
        ("101", "SMTP_RETRIES: 101 is out of range"),
        ("-1", "SMTP_RETRIES: -1 is out of range"),
        ("99999999999999999999", "SMTP_RETRIES: 99999999999999999999 is out of range"),
    ] {
        let found = problems(&[("SMTP_RETRIES", value)]);
        assert_eq!(found, [format!("{expected} (help: use a number from 0 to 100)")]);
    }
}

#[test]
fn quotes_and_comments_of_env_files_are_taken_off_but_for_secrets() {
    let settings = alone(&[
        ("SMTP_HOST_ADDR", "\"smtp.example.com\""),
        ("SMTP_HOST_PORT", "465 # TLS"),
        ("SMTP_USER_NAME", "'relay'"),
        ("SMTP_USER_PWD", "\"canary one\""),
        ("WAXSEAL_LISTEN", "\"127.0.0.1:26\",'127.0.0.1:27'"),
        ("WAXSEAL_USER", "a"),
        ("WAXSEAL_PASSWORD", "canary # two"),
    ]);
    let (endpoint, logins) = reached(&settings.upstreams[0]);
    assert_eq!((endpoint.host.as_str(), endpoint.port), ("smtp.example.com", 465));
    let credentials = logins.own.as_ref().expect("a login");
    assert_eq!((credentials.username.as_str(), credentials.password.reveal()), ("relay", "\"canary one\""));
    assert_eq!(addresses(&settings), ["127.0.0.1:26", "127.0.0.1:27"]);
    let warnings = settings.warnings.to_string();
    assert!(warnings.contains("SMTP_USER_PWD: the quotes are part of the value"), "{warnings}");
    assert!(warnings.contains("WAXSEAL_PASSWORD: what looks like a comment is part of the value"), "{warnings}");
    assert!(!warnings.contains("canary"), "{warnings}");
}

#[test]
fn a_wrong_name_is_named_also_beside_errors_and_as_a_file_but_not_where_the_file_refers_to_it() {
    let folder = Folder::new();
    let wrong = [("SMTP_HOST", "smtp.example.com"), ("SMTP_PASSWORD", "canary"), ("SMTP_PORT", "tcp://10.0.0.1:25")];
    let problems =
        folder.load_file("config.toml", false, &Environment::of(wrong)).expect_err("no upstream").to_string();
    for part in [
        "SMTP_HOST: waxseal does not use",
        "set SMTP_HOST_ADDR instead",
        "SMTP_PASSWORD: waxseal",
        "set SMTP_USER_PWD instead",
    ] {
        assert!(problems.contains(part), "{part}: {problems}");
    }
    assert!(!problems.contains("canary") && !problems.contains("SMTP_PORT"), "{problems}");

    let secrets = Folder::new();
    secrets.write("SMTP_PASS", "canary");
    let warnings = alone(&[("CONFIG_DIR", &secrets.path().display().to_string())]).warnings.to_string();
    assert!(warnings.contains("/SMTP_PASS: waxseal does not use"), "{warnings}");

    let text = "unsigned = \"send\"\nhostname = \"gateway.example.com\"\n[[upstream]]\nname = \"a\"\n\
        provider = \"postmark\"\npassword = { env = \"POSTMARK_API_KEY\" }\n";
    let settings = folder.load(text, &Environment::of([("POSTMARK_API_KEY", "canary")])).expect("settings");
    assert!(settings.warnings.is_empty(), "{}", settings.warnings);
}

#[test]
fn a_known_provider_needs_its_name_and_token_only() {
    let folder = Folder::new();
    let load = |variables: &[(&str, &str)]| {
        let variables = variables.iter().copied().chain([("WAXSEAL_HOSTNAME", "gateway.example.com")]);
        folder
            .load_file("none.toml", false, &Environment::of(variables))
            .unwrap_or_else(|problems| panic!("{problems}"))
    };
    for (variables, host) in [
        (&[("WAXSEAL_PROVIDER", "postmark"), ("SMTP_USER_PWD", "t")][..], "smtp.postmarkapp.com"),
        (&[("WAXSEAL_PROVIDER", "sendgrid"), ("SMTP_USER_PWD", "t")], "smtp.sendgrid.net"),
        (&[("SMTP_HOST_ADDR", "smtp.sendgrid.net"), ("SMTP_USER_PWD", "t")], "smtp.sendgrid.net"),
        (
            &[
                ("WAXSEAL_PROVIDER", "mailgun"),
                ("WAXSEAL_REGION", "eu"),
                ("SMTP_USER_NAME", "u"),
                ("SMTP_USER_PWD", "t"),
            ],
            "smtp.eu.mailgun.org",
        ),
        (
            &[
                ("WAXSEAL_PROVIDER", "ses"),
                ("WAXSEAL_REGION", "eu-central-1"),
                ("SMTP_USER_NAME", "AKIAIOSFODNN7EXAMPLE"),
                ("WAXSEAL_SECRET_KEY", "k"),
            ],
            "email-smtp.eu-central-1.amazonaws.com",
        ),
    ] {
        let settings = load(variables);
        let (endpoint, logins) = reached(&settings.upstreams[0]);
        assert_eq!(endpoint.host.as_str(), host);
        assert!(logins.own.is_some(), "{host}");
    }
    assert!(matches!(load(&[("WAXSEAL_PROVIDER", "sandbox")]).upstreams[0].provider, Provider::Sandbox));
}

#[test]
fn certificates_and_keys_may_be_text_or_paths_and_a_key_can_be_made() {
    let folder = Folder::new();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let certificate = read("gateway.pem");
    let key = read("gateway.key");
    for [certificate, key] in [[certificate.clone(), key], [path("gateway.pem"), path("gateway.key")]] {
        let settings = alone(&[
            ("WAXSEAL_CA", &certificate),
            ("WAXSEAL_TLS", "implicit"),
            ("WAXSEAL_CERTIFICATE", &certificate),
            ("WAXSEAL_PRIVATE_KEY", &key),
        ]);
        assert!(matches!(settings.listeners[0].options.tls, crate::inbound::Tls::Implicit(_)));
    }
    let settings = alone(&[
        ("DKIM_DOMAIN", "example.com"),
        ("DKIM_SELECTOR", "wax1"),
        ("DKIM_GENERATE", "true"),
        ("WAXSEAL_DATA_DIR", "/nonexistent/data"),
    ]);
    let made = Path::new("/nonexistent/data/dkim/example.com.wax1.pem");
    assert!(settings.dkim[0].key.is_none() && settings.dkim[0].path.as_deref() == Some(made));
}

#[test]
fn the_rest_of_a_configuration_is_within_reach_of_variables() {
    let settings = alone(&[
        ("WAXSEAL_LOG_LEVEL", "debug"),
        ("WAXSEAL_LOG_FORMAT", "json"),
        ("WAXSEAL_UNSIGNED", "example.com, example.org"),
        ("WAXSEAL_MAX_MEMORY", "64 MiB"),
        ("WAXSEAL_MAX_MESSAGE_SIZE", "5 MiB"),
        ("WAXSEAL_DRAIN", "3s"),
        ("WAXSEAL_SENDERS", "*@example.com"),
        ("WAXSEAL_DELIVERY", "direct"),
        ("WAXSEAL_SERVER_NAME", "mx.example.com"),
    ]);
    let listener = &settings.listeners[1];
    assert_eq!((settings.log.level.as_str(), settings.max_memory, settings.drain.as_secs()), ("debug", 64 << 20, 3));
    assert_eq!((listener.options.max_message_size, listener.senders.to_string().as_str()), (5 << 20, "*@example.com"));
    assert_eq!(listener.delivery, crate::config::DeliveryMode::Direct);
    assert!(matches!(&settings.unsigned, Unsigned::Domains(domains) if domains.len() == 2));
}

#[test]
fn a_file_that_compose_made_into_a_directory_is_explained_wherever_one_is_read() {
    let folder = Folder::new();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    let path = empty.display().to_string();
    let secrets = Folder::new();
    std::fs::create_dir(secrets.path().join("SMTP_USER_PWD")).expect("a directory");
    let secrets = secrets.path().display().to_string();
    let dkim = [("DKIM_DOMAIN", "example.com"), ("DKIM_SELECTOR", "a"), ("DKIM_PRIVATE_KEY", &path)];
    for variables in [
        &dkim[..],
        &[dkim[0], dkim[1], dkim[2], ("DKIM_GENERATE", "true")],
        &[("WAXSEAL_CA", &path)],
        &[("WAXSEAL_TLS", "starttls"), ("WAXSEAL_CERTIFICATE", &path), ("WAXSEAL_PRIVATE_KEY", &path)],
        &[("CONFIG_DIR", &secrets)],
    ] {
        let found = problems(variables);
        let is_explained = found[0].contains("is a directory, not a file") && found[0].contains("a container engine");
        assert!(is_explained, "{variables:?}: {found:?}");
    }
    let in_file = format!("{SMALLEST}[[user]]\nname = \"a\"\npassword = {{ file = \"{path}\" }}\n");
    for found in [folder.load(&in_file, &nothing()), folder.load_file("empty", true, &nothing())] {
        let found = found.expect_err("a problem").to_string();
        assert!(found.contains("is a directory, not a file") && found.contains("a container engine"), "{found}");
    }
}

/// It was called an error beside "no mistakes".
#[test]
fn a_name_that_is_not_used_is_a_warning_where_all_else_is_right() {
    let settings = alone(&[("WAXSEAL_LISTN", "127.0.0.1:2525"), ("SMTP_PASSWORD", "canary")]);
    let severities: Vec<_> = settings.warnings.iter().map(|warning| warning.severity().to_string()).collect();
    assert!(severities.len() >= 2 && severities.iter().all(|severity| severity == "warning"), "{severities:?}");
}
