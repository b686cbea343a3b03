//! `[admin]` of a running gateway: /metrics is what Prometheus expects and what the queue says, health has its reasons,
//! and nobody reads any of it who may not.

use crate::support::application::{hand_in, hand_in_octets, in_front_of, mail, queued_in_front_of};
use crate::support::canaries;
use crate::support::client::Client;
use crate::support::dns::DnsServer;
use crate::support::doctor::world;
use crate::support::gateway::{Gateway, Setup};
use crate::support::keys::TestKey;
use crate::support::ports::ReservedPort;
use crate::support::upstream::{Action, At, ScriptedUpstream};
use crate::support::{eventually, peers, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;
use waxseal::dkim::KeyAlgorithm;

const TOKEN: &str = "canary-admin-t0ken";

trait Admin {
    fn with_admin(self) -> Setup;
}

impl Admin for Setup {
    fn with_admin(self) -> Setup {
        self.env("WAXSEAL_ADMIN_ADDRESS", "127.0.0.1:0")
    }
}

fn admin(gateway: &Gateway) -> SocketAddr {
    let line = gateway.wait_for_line(&["serving health and metrics"]);
    let (_, rest) = line.split_once("admin\":\"").or_else(|| line.split_once("admin=")).unwrap();
    rest.split(['"', ' ']).next().unwrap().parse().unwrap()
}

/// The status code and the body. `headers`: lines.
fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(!canaries::Search::now().finds(&answer), "a secret in {path}: {answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn scrape(gateway: &Gateway) -> String {
    let (code, text) = get(admin(gateway), "/metrics", "Host: localhost\r\n");
    assert_eq!(code, 200, "{text}");
    text
}

/// Each series with its value.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_is_what_promtool_accepts_and_counts_what_happened() {
    let scripted = ScriptedUpstream::builder().recipient("gone", "550 5.1.1 no such user").start().await;
    let gateway = queued_in_front_of(&scripted, "rate = \"1000/day\"\n", "").with_admin().start(1);
    let from_the_start = series(&scrape(&gateway));
    assert!(hand_in(gateway.address(), &["you@example.net"], &mail("one")).await.starts_with("250 "));
    assert!(hand_in(gateway.address(), &["gone@example.net"], &mail("two")).await.starts_with("250 "));
    until("both are settled", || {
        let found = series(&scrape(&gateway));
        found[r#"waxseal_recipients_total{upstream="company",outcome="delivered"}"#] == 1.0
            && found[r#"waxseal_recipients_total{upstream="company",outcome="failed"}"#] == 1.0
            && found[r#"waxseal_queue_recipients{lane="default",state="failed"}"#] == 1.0
    })
    .await;
    let text = scrape(&gateway);
    let found = series(&text);
    for (name, value) in [
        (r#"waxseal_messages_accepted_total{listener="127.0.0.1:0"}"#, 2.0),
        ("waxseal_accept_seconds_count", 2.0),
        (r#"waxseal_attempts_total{upstream="company",step="end_of_data",outcome="delivered"}"#, 1.0),
        (r#"waxseal_attempts_total{upstream="company",step="rcpt",outcome="failed"}"#, 1.0),
        (r#"waxseal_attempt_seconds_count{upstream="company"}"#, 2.0),
        ("waxseal_delivery_seconds_count", 1.0),
        (r#"waxseal_upstream_state{upstream="company",state="available"}"#, 1.0),
        (r#"waxseal_quota_used_ratio{upstream="company",window="1d"}"#, 0.002),
        (r#"waxseal_upstream_connections_limit{upstream="company"}"#, 4.0),
        ("waxseal_config_last_reload_successful", 1.0),
        ("waxseal_panics_total", 0.0),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name}\n{text}");
    }
    assert!(found["waxseal_queue_bytes"] > 4096.0 && found["waxseal_disk_free_bytes"] > 0.0, "{text}");
    let names: Vec<_> = found.keys().collect();
    assert_eq!(from_the_start.keys().collect::<Vec<_>>(), names, "every series was there from the start");
    let Some(mut promtool) = peers::command("promtool") else { return };
    let mut child = promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

/// 35,000 series of another exporter came from its labels.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_senders_and_replies_make_no_series() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted, "").with_admin().start(1);
    let before: Vec<String> = series(&scrape(&gateway)).into_keys().collect();
    let replies = [
        "550 5.7.1 \"} 1\u{202e}",
        "451 4.3.0 waxseal_evil_total 5",
        "421 4.7.0 slow down",
        "599 x",
        "250 2.0.0 ok=\"1\"",
        "354 go on",
        "221 bye",
        "999 x",
        "garbage",
        "550-5.1.1 a\r\n550 5.1.1 b",
    ];
    for (number, reply) in replies.iter().enumerate() {
        for at in [At::Mail, At::Rcpt, At::Data, At::Dot] {
            scripted.once(at, *reply);
            let to = format!("r{number}@{number}.example.net");
            let _any_reply = hand_in(gateway.address(), &[&to], &mail(&format!("{number}"))).await;
        }
    }
    let mut client = Client::connect(gateway.address()).await;
    client.greet().await;
    for number in 0..40 {
        let name = ["\"", "}", "\\n", "ü", "a=b", ","][number % 6];
        client.ask(&format!("MAIL FROM:<\"{name}{number}\"@evil{number}.example>")).await;
        client.ask("RSET").await;
        client.ask(&format!("NOSUCH{number}")).await;
        if number % 10 == 9 {
            client = Client::connect(gateway.address()).await;
            client.greet().await;
        }
    }
    let _any_reply = hand_in_octets(gateway.address(), &["x@example.net"], b"From: \xff\x00\r\n\r\n").await;
    let text = scrape(&gateway);
    assert_eq!(series(&text).into_keys().collect::<Vec<_>>(), before, "{text}");
    assert!(!text.contains("evil") && !text.contains("example.net"), "{text}");
}

fn queue_list(gateway: &Gateway) -> BTreeMap<String, f64> {
    let mut counted = BTreeMap::new();
    let value: Value = serde_json::from_slice(&gateway.output(&["queue", "list", "--json"]).stdout).unwrap();
    for recipient in value["messages"].as_array().unwrap().iter().flat_map(|row| row["recipients"].as_array().unwrap())
    {
        let (lane, state) = (recipient["lane"].as_str().unwrap(), recipient["state"].as_str().unwrap());
        *counted.entry(format!("waxseal_queue_recipients{{lane=\"{lane}\",state=\"{state}\"}}")).or_insert(0.0) += 1.0;
    }
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_the_queue_are_what_queue_list_shows_after_any_operation() {
    let scripted =
        ScriptedUpstream::builder().recipient("gone", "550 5.1.1 no").recipient("later", "451 4.2.0 no").start().await;
    let lines = "[[route]]\nname = \"bulk\"\nrecipients = [\"*@bulk.example\"]\nupstreams = [\"company\"]\n\
                 [[route]]\nname = \"rest\"\nupstreams = [\"company\"]\n";
    let gateway =
        queued_in_front_of(&scripted, lines, "retry = { first = \"1h\", longest = \"2h\" }").with_admin().start(1);
    let compare = |what: &str| {
        eventually(what, || {
            let nonzero = |(name, value): (&String, &f64)| {
                (name.starts_with("waxseal_queue_recipients") && *value > 0.0).then(|| (name.clone(), *value))
            };
            let shown: BTreeMap<_, _> = series(&scrape(&gateway)).iter().filter_map(nonzero).collect();
            shown == queue_list(&gateway)
        });
    };
    let done = |arguments: &[&str]| {
        let output = gateway.output(&[&["queue"], arguments].concat());
        assert!(output.status.code().is_some_and(|code| code < 2), "{arguments:?}: {output:?}");
    };
    let operations: [&[&str]; 9] = [
        &["hold", "bulk"],
        &["retry", "--all", "--state", "failed"],
        &["release", "bulk"],
        &["flush"],
        &["remove", "--all", "--state", "failed", "--yes"],
        &["hold", "--all"],
        &["release", "--all"],
        &["retry", "--all"],
        &["remove", "--all", "--yes"],
    ];
    for (number, operation) in operations.into_iter().enumerate() {
        for to in
            ["gone@example.net", "later@bulk.example", "later@example.net", "gone@bulk.example", "you@bulk.example"]
        {
            let both = [to, "later@bulk.example"];
            let recipients = if number % 2 == 0 { &both[..1] } else { &both[..] };
            assert!(hand_in(gateway.address(), recipients, &mail(&format!("{number}"))).await.starts_with("250 "));
        }
        tokio::task::block_in_place(|| {
            compare("after the mail");
            done(operation);
            compare(&format!("after {operation:?}"));
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_names_the_reasons_and_status_says_what_is_wrong() {
    let scripted = ScriptedUpstream::builder().always(At::Auth, "535 5.7.8 authentication failed").start().await;
    let gateway = queued_in_front_of(&scripted, "", "retry = { first = \"1h\", longest = \"2h\" }")
        .env("WAXSEAL_DOCTOR_AT_START", "false")
        .with_admin()
        .start(1);
    let address = admin(&gateway);
    tokio::task::block_in_place(|| {
        assert_eq!(get(address, "/healthz", "Host: localhost\r\n").0, 200);
        let (code, body) = get(address, "/readyz", "Host: localhost\r\n");
        assert_eq!(
            (code, serde_json::from_str::<Value>(&body).unwrap()["ok"].clone()),
            (200, Value::Bool(true)),
            "{body}"
        );
        let output = gateway.output(&["status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.ends_with("Nothing is wrong.\n"), "{text}");
    });
    assert!(hand_in(gateway.address(), &["you@example.net"], &mail("one")).await.starts_with("250 "));
    until("it is not ready", || get(address, "/readyz", "Host: localhost\r\n").0 == 503).await;
    tokio::task::block_in_place(|| {
        let (_, body) = get(address, "/readyz", "Host: localhost\r\n");
        assert!(body.contains("company: AUTH: 535 5.7.8 authentication failed"), "{body}");
        assert_eq!(get(address, "/healthz", "Host: localhost\r\n").0, 200, "a restart would not help");
        let found = series(&scrape(&gateway));
        assert_eq!(found[r#"waxseal_attempts_total{upstream="company",step="auth",outcome="deferred"}"#], 1.0);
        assert_eq!(found[r#"waxseal_upstream_state{upstream="company",state="unavailable"}"#], 1.0);
        assert!(gateway.output(&["health"]).status.success());
        assert_eq!(gateway.output(&["health", "--ready"]).status.code(), Some(1));
        let output = gateway.output(&["status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        for words in [
            "Upstream company: unavailable",
            "What is wrong:\n  company: AUTH: 535 5.7.8",
            "1 waiting",
            "1 on lane default: ",
            "oldest mail",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let output = gateway.output(&["status", "--json"]);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((value["problems"][0]["id"].as_str(), output.status.code()), (Some("upstream"), Some(1)), "{value}");
        let (_, _, setup) = gateway.stop();
        for arguments in [&["health"][..], &["health", "--ready"], &["status"], &["status", "--json"]] {
            let output = setup.output(arguments);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        }
    });
}

#[test]
fn beyond_loopback_everything_needs_the_token_and_a_known_host() {
    let config = format!(
        "hostname = \"gateway.example.com\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"sandbox\"\n\
         provider = \"sandbox\"\n[admin]\naddress = \"0.0.0.0:0\"\ntoken = \"{TOKEN}\"\nhosts = [\"waxseal\"]\n"
    );
    let gateway = Setup::new(Some(&config)).env("WAXSEAL_ADMIN_ADDRESS", "").start(1);
    let address = SocketAddr::from(([127, 0, 0, 1], admin(&gateway).port()));
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["/healthz", "/readyz", "/metrics"] {
        for (headers, code) in [
            (String::new(), 421),
            ("Host: evil.example\r\n".to_owned(), 421),
            (format!("Host: evil.example\r\n{bearer}"), 421),
            ("Host: waxseal:8025\r\n".to_owned(), 401),
            ("Host: localhost\r\nAuthorization: Bearer wrong\r\n".to_owned(), 401),
            (format!("Host: waxseal\r\n{bearer}"), 200),
            (format!("Host: gateway.example.com:8025\r\n{bearer}"), 200),
            (format!("Host: {address}\r\n{bearer}"), 200),
        ] {
            assert_eq!(get(address, path, &headers).0, code, "{path}: {}", headers.len());
        }
    }
    assert!(gateway.output(&["health"]).status.success());
}

/// It was the hostname of the start for good.
#[tokio::test(flavor = "multi_thread")]
async fn the_hostname_by_which_it_may_be_addressed_follows_a_reload() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted, "").with_admin().start(1);
    let asked_as = |name: &str| get(admin(&gateway), "/healthz", &format!("Host: {name}\r\n")).0;
    tokio::task::block_in_place(|| {
        assert_eq!((asked_as("gateway.example.com"), asked_as("other.example.com")), (200, 421));
        let path = gateway.folder().join("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("gateway.example.com", "other.example.com")).unwrap();
        assert!(gateway.output(&["reload"]).status.success());
        assert_eq!((asked_as("gateway.example.com"), asked_as("other.example.com")), (421, 200));
    });
}

#[test]
fn a_taken_address_is_named_with_what_to_do() {
    let config = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";
    let taken = ReservedPort::take();
    let _holder = std::net::TcpListener::bind(("127.0.0.1", taken.number)).unwrap();
    let address = format!("127.0.0.1:{}", taken.number);
    let setup = Setup::new(Some(config)).env("WAXSEAL_ADMIN_ADDRESS", &address);
    let output = setup.output(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for words in ["[admin] cannot listen on", &address, "another program does", "set it to \"off\""] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// Idle and half-sent requests must not hold the stop.
#[test]
fn open_connections_do_not_keep_the_gateway_from_stopping() {
    let config = "drain = \"60s\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";
    let gateway = Setup::new(Some(config)).with_admin().start(1);
    let address = admin(&gateway);
    let open: Vec<TcpStream> = (0..50)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            if number % 2 == 0 {
                write!(stream, "GET /metrics HTTP/1.1\r\nHost: local").unwrap();
            }
            stream
        })
        .collect();
    let (status, log, _) = gateway.stop();
    assert!(status.success(), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("drain time is over")), "{log:?}");
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_mail_is_in_its_log_lines() {
    let scripted = ScriptedUpstream::builder().once(At::Dot, Action::Say("451 4.3.0 later".to_owned())).start().await;
    let gateway = queued_in_front_of(&scripted, "", "").start(1);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let message =
        mail("traced").replacen("Subject:", &format!("Traceparent: 00-{trace}-00f067aa0ba902b7-01\r\nSubject:"), 1);
    assert!(hand_in(gateway.address(), &["you@example.net"], &message).await.starts_with("250 "));
    let field = format!("\"trace_id\":\"{trace}\"");
    tokio::task::block_in_place(|| {
        for what in ["\"queued\"", "\"deferred\"", "\"delivered\""] {
            gateway.wait_for_line(&[what, &field]);
        }
    });
    assert!(
        scripted.messages()[0].data.windows(trace.len()).any(|part| part == trace.as_bytes()),
        "the header goes on"
    );
}

/// Each alert is tested by promtool: that it fires, and that it does not fire too early.
#[test]
fn every_alert_fires_when_it_should() {
    let root = env!("CARGO_MANIFEST_DIR");
    let rules = std::fs::read_to_string(format!("{root}/deploy/alerts.yml")).unwrap();
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 11, "{alerts:?}");
    let files: Vec<_> =
        std::fs::read_dir(format!("{root}/tests/alerts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let tests: Vec<_> = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for alert in alerts {
        let of_it = tests.iter().filter(|test| test.contains(&format!("alertname: {alert}\n"))).collect::<Vec<_>>();
        assert!(of_it.iter().any(|test| test.contains("exp_alerts: []") && test.contains("exp_labels")), "{alert}");
    }
    let Some(mut promtool) = peers::command("promtool") else { return };
    let finished = peers::run(promtool.args(["test", "rules"]).args(&files));
    assert!(finished.success, "{}{}", finished.stdout, finished.stderr);
}

/// By a DNS server of the test's own, asked again after each reload.
#[tokio::test(flavor = "multi_thread")]
async fn the_metric_of_a_keys_record_follows_the_dns_and_keeps_what_it_knew_while_there_is_no_answer() {
    let keys = [TestKey::new("wax1", KeyAlgorithm::Ed25519)];
    let other = TestKey::new("wax1", KeyAlgorithm::Ed25519);
    let (name, right) = keys[0].record();
    let (_, wrong) = other.record();
    let dns = DnsServer::start().await;
    let scripted = ScriptedUpstream::start().await;
    let gateway = world(&scripted, &dns, &keys, "").with_admin().start(1);
    let metric = || series(&scrape(&gateway))["waxseal_dkim_record_ok{domain=\"example.com\",selector=\"wax1\"}"];
    tokio::task::block_in_place(|| assert!(metric().is_nan(), "not known yet"));
    let reload = || assert!(gateway.output(&["reload"]).status.success());
    let set = |what: &str| {
        match what {
            "right" => dns.answer_again(&name).forget(&name).txt(&name, &right),
            "wrong" => dns.answer_again(&name).forget(&name).txt(&name, &wrong),
            "missing" => dns.answer_again(&name).forget(&name),
            "fails" => dns.fail(&name),
            _ => dns.stay_silent_about(&name),
        };
    };
    for (what, value) in [
        ("missing", 0.0),
        ("right", 1.0),
        ("fails", 1.0),
        ("wrong", 0.0),
        ("silent", 0.0),
        ("fails", 0.0),
        ("right", 1.0),
        ("missing", 0.0),
    ] {
        set(what);
        let asked = dns.asked(&name);
        tokio::task::block_in_place(|| {
            reload();
            eventually(&format!("{what} is looked up"), || dns.asked(&name) > asked);
            eventually(&format!("{what} is {value}"), || metric().to_bits() == f64::to_bits(value));
            let status = gateway.output(&["status"]);
            assert_eq!(status.status.code(), Some(i32::from(value < 1.0)), "{what}: {status:?}");
        });
    }
}
