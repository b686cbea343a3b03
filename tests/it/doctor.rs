//! `waxseal doctor` and what is wrong between the gateway and its provider, in the data folder, at the listeners and in the
//! queue: each is named by its check, with what was seen, why, and what to do.

use crate::support::application::{hand_in, mail};
use crate::support::certificate::{Authority, Issued};
use crate::support::client::HANG_GUARD;
use crate::support::dns::DnsServer;
use crate::support::doctor::{doctor, doctor_beside, doctor_output, publish, world};
use crate::support::gateway::Setup;
use crate::support::keys::TestKey;
use crate::support::ports::ReservedPort;
use crate::support::running::Running;
use crate::support::until;
use crate::support::upstream::{Action, At, Builder, ScriptedUpstream};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use tokio::sync::mpsc;
use tokio::time::timeout;
use waxseal::dkim::KeyAlgorithm;

fn keys() -> Vec<TestKey> {
    vec![TestKey::new("wax1", KeyAlgorithm::Rsa2048)]
}

async fn well_published(keys: &[TestKey]) -> DnsServer {
    let dns = DnsServer::start().await;
    publish(&dns, keys);
    dns
}

/// The upstream's results with this script, from a world in which all else is well.
async fn with(builder: Builder, lines: &str, arguments: &[&str]) -> (ScriptedUpstream, crate::support::doctor::Report) {
    let keys = keys();
    let dns = well_published(&keys).await;
    let scripted = builder.start().await;
    let report = doctor(&world(&scripted, &dns, &keys, lines), arguments).await;
    (scripted, report)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wrong_and_not_one_mail_was_sent() {
    let (scripted, report) = with(ScriptedUpstream::builder(), "", &["--from", "reports@example.com"]).await;
    assert_eq!(report.problems(), Vec::<&str>::new(), "{:#}", report.value);
    assert_eq!(report.status, 0);
    assert_eq!(report.value["ok"], true);
    for (id, words) in [
        ("configuration", "config.toml"),
        ("upstream.connect", "127.0.0.1"),
        ("upstream.greeting", "220 "),
        ("upstream.tls", "TLSv1.3"),
        ("upstream.tls.name", "localhost"),
        ("upstream.tls.issuer", "waxseal test authority"),
        ("upstream.tls.expiry", "more days"),
        ("upstream.ehlo", "8BITMIME"),
        ("upstream.size", "50 MiB"),
        ("upstream.auth", "accepted"),
        ("upstream.sender", "reports@example.com"),
        ("dkim.record", "wax1._domainkey.example.com"),
        ("spf.record", "v=spf1"),
        ("spf.lookups", "0 of the 10"),
        ("dmarc.record", "p=reject"),
        ("dmarc.alignment", "d=example.com"),
        ("data_dir.space", "MiB"),
    ] {
        report.assert(id, "ok", &[words]);
    }
    assert_eq!((scripted.count("MAIL"), scripted.count("RSET"), scripted.count("QUIT")), (1, 1, 1));
    assert_eq!((scripted.count("RCPT"), scripted.count("DATA"), scripted.counts().total), (0, 0, 1));
}

/// Each step at which a provider can say no, by the name of its check.
#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_a_provider_is_named_with_its_own_words() {
    let told = |line: &str| Action::say_and_close(line);
    let script = |at, action| ScriptedUpstream::builder().always(at, action);
    for (at, action, id, words) in [
        (At::Greeting, told("554 5.7.1 your address is on a list"), "upstream.greeting", "your address is on a list"),
        (At::Greeting, told("421 4.7.0 too many connections"), "upstream.connections", "max_connections"),
        (At::EhloInTls, told("550 5.7.1 we do not know you"), "upstream.ehlo", "hostname"),
        (At::StartTls, told("454 4.7.0 no TLS today"), "upstream.tls.mode", "no TLS today"),
        (At::Auth, told("535 5.7.8 wrong"), "upstream.auth", "535 5.7.8 wrong"),
        (At::Auth, told("535 5.7.139 SmtpClientAuthentication is disabled"), "upstream.auth", "admin centre"),
        (At::Auth, told("534 5.7.9 Application-specific password required"), "upstream.auth", "app password"),
        (At::Auth, told("550 5.7.30 Basic authentication is not supported"), "upstream.auth", "OAuth"),
        (At::Auth, told("432 4.3.2 Concurrent connections limit exceeded"), "upstream.connections", "same login"),
        (At::Mail, told("550 5.7.1 Sender not verified"), "upstream.sender", "Sender not verified"),
        (At::Mail, told("530 5.7.0 log in first"), "upstream.auth", "username"),
    ] {
        let (scripted, report) = with(script(at, action), "", &["--from", "reports@example.com"]).await;
        report.assert(id, "failed", &[words]);
        assert_eq!(report.status, 1);
        assert_eq!((scripted.count("DATA"), scripted.count("RCPT")), (0, 0), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_is_a_guess_does_not_fail_but_warns() {
    let builder = ScriptedUpstream::builder().always(At::Mail, "550 5.7.1 not verified");
    let (_, report) = with(builder, "", &[]).await;
    report.assert("upstream.sender", "warning", &["postmaster@example.com", "--from"]);
    let builder = ScriptedUpstream::builder().always(At::Mail, "451 4.7.1 greylisted");
    let (_, report) = with(builder, "", &["--from", "reports@example.com"]).await;
    assert_eq!((report.verdict("upstream.sender"), report.status), ("unknown", 0), "it may be gone in a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_certificate_has_a_name_of_its_own() {
    let authority = Authority::new();
    let other_name = || (authority.issue(&["other.example"]), authority.pem());
    let stranger = || (Authority::new().issue(&["localhost"]), authority.pem());
    let self_signed = || (Issued::self_signed(&["localhost"]), authority.pem());
    let over = || {
        let issued = authority.issue_with(&["localhost"], |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        });
        (issued, authority.pem())
    };
    for ((issued, ca), id, words) in [
        (other_name(), "upstream.tls.name", "other.example"),
        (stranger(), "upstream.tls.issuer", "waxseal test authority"),
        (self_signed(), "upstream.tls.issuer", "self-signed"),
        (over(), "upstream.tls.expiry", "2021-01-01"),
    ] {
        let (scripted, report) = with(ScriptedUpstream::builder().identity(issued, &ca), "", &[]).await;
        report.assert(id, "failed", &[words]);
        assert_eq!(scripted.count("MAIL"), 0);
        assert_eq!(scripted.logins().len(), 0, "no password crosses an unverified connection");
    }
}

/// SSL, STARTTLS and ports mixed up: which way works is told.
#[tokio::test(flavor = "multi_thread")]
async fn the_other_way_to_begin_tls_is_tried_and_told() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let scripted = ScriptedUpstream::builder().implicit_tls().start().await;
    let setup = world(&scripted, &dns, &keys, "connect_timeout = \"2s\"");
    let report = doctor(&setup, &[]).await;
    let port = format!("set port = {} and tls = \\\"implicit\\\"", scripted.address().port());
    let all = report.checks("upstream.tls.mode");
    assert!(all.iter().any(|check| check["verdict"] == "failed"), "{all:#?}");
    assert!(all.iter().any(|check| check.to_string().contains(&port)), "{all:#?}");
    let scripted = ScriptedUpstream::start().await;
    let setup = world(&scripted, &dns, &keys, "").config_with("tls = \"starttls\"", "tls = \"implicit\"");
    let report = doctor(&setup, &[]).await;
    let all = report.checks("upstream.tls.mode");
    assert!(all.iter().any(|check| check.to_string().contains("tls = \\\"starttls\\\"")), "{all:#?}");
    let without = ScriptedUpstream::builder().keywords_in_clear(&["PIPELINING"]).start().await;
    let report = doctor(&world(&without, &dns, &keys, ""), &[]).await;
    report.assert("upstream.tls.mode", "failed", &["does not offer STARTTLS"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_at_which_nothing_listens_is_told_with_those_that_were_tried() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let scripted = ScriptedUpstream::start().await;
    let closed = ReservedPort::take();
    let setup = world(&scripted, &dns, &keys, "");
    let setup =
        setup.config_with(&format!("port = {}\n", scripted.address().port()), &format!("port = {}\n", closed.number));
    let report = doctor(&setup, &[]).await;
    report.assert("upstream.connect", "failed", &["connection refused", &closed.number.to_string()]);
    report.assert("upstream.ports", "failed", &["587, 2525, 2587, 465"]);
    assert_eq!(scripted.counts().total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_only_the_dns_server_knows_is_the_systems_fault_and_the_rest_is_looked_at_all_the_same() {
    let keys = keys();
    let dns = well_published(&keys).await;
    dns.address_of("smtp.waxseal-test.example", "127.0.0.1");
    let scripted = ScriptedUpstream::start().await;
    let setup = world(&scripted, &dns, &keys, "");
    let setup = setup.config_with("host = \"127.0.0.1\"", "host = \"smtp.waxseal-test.example\"");
    let report = doctor(&setup, &[]).await;
    report.assert("upstream.resolve", "failed", &["smtp.waxseal-test.example", "127.0.0.1", "/etc/resolv.conf"]);
    report.assert("upstream.resolve.ipv4", "ok", &["127.0.0.1"]);
    report.assert("upstream.resolve.ipv6", "not_applicable", &[]);
    report.assert("upstream.auth", "ok", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_address_of_a_proxy_is_not_an_alarm() {
    let keys = keys();
    let dns = well_published(&keys).await;
    dns.address_of("smtp.waxseal-test.example", "198.18.0.7");
    let scripted = ScriptedUpstream::start().await;
    let setup = world(&scripted, &dns, &keys, "");
    let setup = setup.config_with("host = \"127.0.0.1\"", "host = \"smtp.waxseal-test.example\"");
    let report = doctor(&setup, &[]).await;
    report.assert("upstream.resolve.ipv4", "unknown", &["198.18.0.7", "proxy"]);
    assert!(report.checks("upstream.connect").is_empty(), "nobody connects to a made-up address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_limit_below_our_own_and_a_wrong_clock_are_warnings() {
    let builder = ScriptedUpstream::builder()
        .keywords(&["SIZE 1048576", "AUTH PLAIN", "8BITMIME"])
        .always(At::Greeting, "220 mx.example ESMTP Exim Mon, 01 Jan 2024 00:00:00 +0000");
    let (_, report) = with(builder, "max_message_size = \"10 MiB\"", &[]).await;
    report.assert("upstream.size", "warning", &["1 MiB", "max_message_size"]);
    report.assert("clock", "warning", &["ahead", "chrony"]);
    assert_eq!(report.status, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ignored_is_shown_and_does_not_count() {
    let keys = keys();
    let dns = well_published(&keys).await;
    dns.forget("_dmarc.example.com");
    let scripted = ScriptedUpstream::start().await;
    let setup = world(&scripted, &dns, &keys, "");
    let report = doctor(&setup, &[]).await;
    assert_eq!((report.problems(), report.status), (vec!["dmarc.record"], 1));
    let setup = setup.config_with("[doctor]\n", "[doctor]\nignore = [\"dmarc.record\"]\n");
    let report = doctor(&setup, &[]).await;
    assert_eq!((report.check("dmarc.record")["ignored"].as_bool(), report.status), (Some(true), 0));
    let setup = setup.config_with("dmarc.record", "dmarc.recrod");
    let output = doctor_output(&setup, &[]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean \"dmarc.record\"?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_does_not_start_is_told_as_that() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let scripted = ScriptedUpstream::start().await;
    let setup = world(&scripted, &dns, &keys, "max_conections = 3");
    let report = doctor(&setup, &[]).await;
    assert_eq!(report.status, 2);
    report.assert("configuration", "failed", &["max_connections"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_upstream_is_wrong_usage_that_names_those_there_are() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let scripted = ScriptedUpstream::start().await;
    let output = doctor_output(&world(&scripted, &dns, &keys, ""), &["--upstream", "componay"]).await;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && complaint.contains("company"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_others_may_enter_is_a_warning() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let scripted = ScriptedUpstream::start().await;
    let setup = world(&scripted, &dns, &keys, "");
    let data = setup.folder().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let report = doctor(&setup, &[]).await;
    report.assert("data_dir.access", "warning", &["0755", "chmod 700"]);
    report.assert("queue.access", "not_applicable", &["no queue yet"]);
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "nothing is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn repairs_that_are_turned_off_and_open_listeners_are_named() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let scripted = ScriptedUpstream::start().await;
    let setup = world(&scripted, &dns, &keys, "");
    let setup = setup.config_with("[queue]\n", "[repair]\nmessage_id = false\ndate = false\n[queue]\n");
    let setup = setup.config_with("[[listener]]\n", "[[listener]]\nallow = [\"0.0.0.0/0\"]\n");
    let report = doctor(&setup, &[]).await;
    let repairs: Vec<_> = report.checks("intake.repair").iter().map(|check| check["subject"].clone()).collect();
    assert_eq!(repairs, ["message_id", "date"]);
    report.assert("listener.allow", "failed", &["0.0.0.0/0"]);
    let setup = setup.config_with("[\"0.0.0.0/0\"]", "[\"172.16.0.0/12\"]\nsenders = [\"*\"]");
    doctor(&setup, &[]).await.assert("listener.allow", "warning", &["172.17.0.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_running_gateway_its_cap_holds_and_its_queue_is_asked() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let scripted = ScriptedUpstream::builder().recipient("nobody", "550 5.1.1 nobody of that name").start().await;
    let setup = world(&scripted, &dns, &keys, "max_connections = 1");
    let gateway = setup.start(1);
    hand_in(gateway.address(), &["nobody@example.net"], &mail("one")).await;
    gateway.wait_for_line(&["\"failed\"", "nobody of that name"]);
    let data_before = scripted.count("DATA");
    let report = doctor_beside(&gateway, &[]).await;
    report.assert("queue.access", "ok", &["running gateway"]);
    report.assert("queue.failed", "warning", &["nobody of that name", "waxseal queue retry"]);
    report.assert("queue.waiting", "ok", &[]);
    report.assert("upstream.auth", "ok", &[]);
    scripted.until_alone().await;
    assert_eq!((scripted.counts().max, scripted.counts().total), (1, 2));
    assert_eq!(scripted.count("DATA"), data_before);
    let (_, _, setup) = gateway.stop();
    doctor(&setup, &[]).await.assert("queue.failed", "warning", &["nobody of that name"]);
    let gateway = setup.start(1);
    hand_in(gateway.address(), &["nobody@example.net"], &mail("two")).await;
    let (_, setup) = gateway.kill();
    let report = doctor(&setup, &[]).await;
    report.assert("queue.access", "unknown", &["the next start tidies up"]);
    assert_eq!(report.verdict("upstream.auth"), "ok", "the other checks do not depend on it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_mail_goes_through_everything_and_is_followed() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let scripted = ScriptedUpstream::builder()
        .recipient("nobody", "550 5.1.1 nobody of that name")
        .recipient("later", "451 4.3.0 come back later")
        .start()
        .await;
    let port = ReservedPort::take().number;
    let setup = world(&scripted, &dns, &keys, "").config_with("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let report = doctor(&setup, &["--send-to", "you@example.net"]).await;
    report.assert("send.accepted", "failed", &["waxseal run"]);
    let gateway = setup.start(1);
    let send = |to: &'static str| ["--send-to", to, "--from", "reports@example.com"];
    let report = doctor_beside(&gateway, &send("you@example.net")).await;
    assert!(
        report.checks("listener.reachable").iter().any(|check| check["summary"] == "it greets"),
        "{:#}",
        report.value
    );
    report.assert("send.accepted", "ok", &["Queued as"]);
    report.assert("send.outcome", "ok", &["company", "250 "]);
    until("the test mail", || scripted.messages().len() == 1).await;
    let sent = String::from_utf8_lossy(&scripted.messages()[0].data).into_owned();
    for part in ["DKIM-Signature: ", "Message-ID: ", "Date: ", "Subject: waxseal test mail", "To: <you@example.net>"] {
        assert!(sent.contains(part), "{part}\n{sent}");
    }
    doctor_beside(&gateway, &send("nobody@example.net")).await.assert(
        "send.outcome",
        "failed",
        &["nobody of that name"],
    );
    doctor_beside(&gateway, &send("later@example.net")).await.assert("send.outcome", "failed", &["come back later"]);
    let report = doctor_beside(&gateway, &["--send-to", "you@example.net", "--from", "me@other.example"]).await;
    report.assert("send.accepted", "failed", &["MAIL FROM"]);
    assert_eq!(scripted.messages().len(), 1);
}

/// It was not sent where every listener asks for TLS or a login: doctor has no password, and the configuration only a hash.
#[tokio::test(flavor = "multi_thread")]
async fn a_test_mail_needs_neither_tls_nor_a_login_of_a_listener() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let issued = Authority::new().issue(&["localhost"]);
    let files = "certificate = \"gw.pem\"\nprivate_key = \"gw.key\"\n";
    for listener in [
        "auth = \"required\"\n".to_owned(),
        format!("tls = \"starttls\"\n{files}"),
        format!("tls = \"implicit\"\nauth = \"required\"\n{files}"),
        "proxy_protocol = [\"127.0.0.0/8\"]\n".to_owned(),
    ] {
        let scripted = ScriptedUpstream::builder().recipient("gone", "550 5.1.1 no such user").start().await;
        let user = "[[user]]\nname = \"app\"\npassword = { env = \"APP_PASSWORD\" }";
        let gateway = world(&scripted, &dns, &keys, user)
            .config_with("[[listener]]\n", &format!("[[listener]]\n{listener}"))
            .file("gw.pem", &issued.certificate)
            .file("gw.key", &issued.private_key)
            .env("APP_PASSWORD", "app-canary-password")
            .start(1);
        let send = |to: &'static str, from: &'static str| ["--send-to", to, "--from", from];
        let report = doctor_beside(&gateway, &send("you@example.net", "reports@example.com")).await;
        report.assert("send.accepted", "ok", &["control socket", "Queued as"]);
        report.assert("send.outcome", "ok", &["company", "250 "]);
        let sent = String::from_utf8_lossy(&scripted.messages()[0].data).into_owned();
        for part in ["DKIM-Signature: ", "Message-ID: ", "Subject: waxseal test mail"] {
            assert!(sent.contains(part), "{listener}: {part}\n{sent}");
        }
        let report = doctor_beside(&gateway, &send("gone@example.net", "reports@example.com")).await;
        report.assert("send.outcome", "failed", &["no such user"]);
        let report = doctor_beside(&gateway, &send("you@example.net", "me@other.example")).await;
        report.assert("send.accepted", "failed", &["550 "]);
        assert_eq!(scripted.messages().len(), 1, "{listener}: who may send is checked there too");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_in_the_listeners_place_is_told() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let scripted = ScriptedUpstream::start().await;
    let port = scripted.address().port();
    let setup = world(&scripted, &dns, &keys, "").config_with("127.0.0.1:0", &format!("127.0.0.2:{port}"));
    let other = ScriptedUpstream::builder().address(([127, 0, 0, 2], port).into()).start().await;
    let report = doctor(&setup, &[]).await;
    report.assert("listener.reachable", "failed", &["another program", "220 "]);
    drop(other);
}

/// Plain lines in the order of the checklist, remedies below them.
#[tokio::test(flavor = "multi_thread")]
async fn people_get_a_line_for_each_check_and_what_to_do_below() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let (name, text) = keys[0].record();
    dns.forget(&name);
    let scripted = ScriptedUpstream::start().await;
    let output = doctor_output(&world(&scripted, &dns, &keys, ""), &[]).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<&str> = printed.lines().collect();
    let place = |start: &str| {
        lines.iter().position(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}\n{printed}"))
    };
    assert!(place("✓ configuration") < place("✓ upstream.connect (company)"));
    assert!(place("✓ upstream.auth (company)") < place("✗ dkim.record"));
    for part in ["    cause   receivers cannot check", &format!("            Value: {text}"), "1 failed, 0 warnings"] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
}

/// Nothing answers anywhere, and the command ends all the same.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_world_that_is_silent_every_check_ends_by_itself() {
    let keys = keys();
    let dns = well_published(&keys).await;
    for name in ["example.com", "_dmarc.example.com", &keys[0].record().0] {
        dns.stay_silent_about(name);
    }
    let scripted = ScriptedUpstream::builder().always(At::Greeting, Action::Stall).start().await;
    let setup = world(&scripted, &dns, &keys, "connect_timeout = \"1s\"");
    let report = doctor(&setup, &[]).await;
    report.assert("upstream.tls.mode", "failed", &["no answer in time", "implicit"]);
    for id in ["dkim.record", "spf.record", "dmarc.record"] {
        report.assert(id, "unknown", &["no answer"]);
    }
    assert_eq!(scripted.count("MAIL"), 0);
}

/// A started `doctor --watch`, and its lines.
fn watching(setup: &Setup) -> (Running, mpsc::Receiver<String>) {
    let mut command = setup.command(&["doctor", "--watch", "5"]);
    let mut child = Running::start(command.stdout(Stdio::piped()));
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel(100);
    // Ends with the child.
    tokio::task::spawn_blocking(move || {
        output.lines().map_while(Result::ok).all(|line| sender.blocking_send(line).is_ok());
    });
    (child, lines)
}

async fn line_with(lines: &mut mpsc::Receiver<String>, words: &str) -> String {
    loop {
        let line = timeout(HANG_GUARD, lines.recv()).await.expect("a line in time").expect("a line");
        if line.contains(words) {
            return line;
        }
    }
}

/// Its exit status after Ctrl-C.
async fn interrupted(mut child: Running) -> Option<i32> {
    child.signal("INT");
    tokio::task::spawn_blocking(move || child.ended().code()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_has_changed_and_ends_with_ctrl_c() {
    let keys = keys();
    let dns = well_published(&keys).await;
    let scripted = ScriptedUpstream::start().await;
    let setup = world(&scripted, &dns, &keys, "");
    let (child, mut lines) = watching(&setup);
    line_with(&mut lines, "Nothing is wrong").await;
    dns.forget("_dmarc.example.com");
    let line = line_with(&mut lines, "dmarc.record").await;
    assert!(line.contains("! dmarc.record (example.com)"), "{line}");
    dns.txt("_dmarc.example.com", "v=DMARC1; p=none");
    assert!(line_with(&mut lines, "dmarc.record").await.contains("\u{2713} dmarc.record"));
    assert_eq!(interrupted(child).await, Some(0), "the last round was well");
}

/// A signal was obeyed between two rounds only, and one that came within a round was lost: the watch never ended.
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_watch_within_a_round_too() {
    let keys = keys();
    let dns = well_published(&keys).await;
    for (whole_rounds, status) in [(0, 130), (1, 0)] {
        let scripted = ScriptedUpstream::start().await;
        if whole_rounds == 0 {
            scripted.always(At::Greeting, Action::Stall);
        }
        let setup = world(&scripted, &dns, &keys, "connect_timeout = \"5m\"");
        let (child, mut lines) = watching(&setup);
        if whole_rounds == 1 {
            line_with(&mut lines, "Nothing is wrong").await;
            scripted.always(At::Greeting, Action::Stall);
        }
        until("a round that has to wait", || scripted.counts().total > whole_rounds).await;
        assert_eq!(interrupted(child).await, Some(status), "after {whole_rounds} whole rounds");
    }
}

/// Every login of a provider, one after the other over one connection.
#[tokio::test(flavor = "multi_thread")]
async fn each_login_of_a_provider_has_its_own_result() {
    let other = "[[upstream.credentials]]\ndomain = \"example.org\"\nusername = \"other\"\npassword = \"other-canary-password\"\n";
    let builder = ScriptedUpstream::builder().once(At::Auth, "235 2.7.0 ok").always(At::Auth, "535 5.7.8 wrong");
    let (scripted, report) = with(builder, other, &[]).await;
    report.assert("upstream.auth", "failed", &["login of example.org", "535 5.7.8 wrong"]);
    assert!(report.checks("upstream.auth").iter().any(|check| check["verdict"] == "ok"), "{:#}", report.value);
    assert_eq!(scripted.counts().max, 1);
}
