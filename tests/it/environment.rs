//! The variables that Plausible itself reads are sufficient: alone, as files of a secrets folder, in a container's
//! form, and beside a configuration file.

use crate::support::application::{hand_in, mail};
use crate::support::gateway::Setup;
use crate::support::upstream::ScriptedUpstream;

/// What every case needs so that the test's provider can be verified and the log can be read.
fn from_environment(scripted: &ScriptedUpstream) -> Setup {
    // The system's roots are replaced by the provider's, as an administrator would add a company's own.
    let setup = Setup::new(None).file("roots.pem", scripted.ca());
    let roots = setup.folder().join("roots.pem").display().to_string();
    setup.env("SSL_CERT_FILE", roots).env("WAXSEAL_LISTEN", "127.0.0.1:0").env("WAXSEAL_DATA_DIR", "data")
}

async fn arrives(setup: Setup, scripted: &ScriptedUpstream, user: &str, password: &str) {
    let gateway = setup.start(1);
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("from the environment")).await;
    assert!(reply.starts_with("250 "), "{reply}\n{}", gateway.log().join("\n"));
    scripted.until_messages(1).await;
    let (_, name, secret) = scripted.logins().remove(0);
    assert_eq!((name.as_str(), secret.as_str()), (user, password));
    let log = gateway.log().join("\n");
    assert!(log.contains("environment") && !log.contains(password), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_block_moves_from_plausible_unchanged() {
    let scripted = ScriptedUpstream::start().await;
    let setup = from_environment(&scripted)
        .env("SMTP_HOST_ADDR", "localhost")
        .env("SMTP_HOST_PORT", scripted.address().port())
        .env("SMTP_USER_NAME", "plausible")
        .env("SMTP_USER_PWD", "canary: ß1")
        .env("SMTP_POOL_SIZE", 2)
        .env("SMTP_RETRIES", 1)
        .env("MAILER_EMAIL", "reports@example.com");
    arrives(setup, &scripted, "plausible", "canary: ß1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn implicit_tls_by_its_variable() {
    let scripted = ScriptedUpstream::builder().implicit_tls().start().await;
    let setup = from_environment(&scripted)
        .env("SMTP_HOST_ADDR", "localhost")
        .env("SMTP_HOST_PORT", scripted.address().port())
        .env("SMTP_HOST_SSL_ENABLED", "true")
        .env("SMTP_USER_NAME", "plausible")
        .env("SMTP_USER_PWD", "canary-2");
    arrives(setup, &scripted, "plausible", "canary-2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_secrets_folder_win_over_the_environment() {
    let scripted = ScriptedUpstream::start().await;
    let setup = from_environment(&scripted)
        .file("secrets/SMTP_HOST_ADDR", "localhost\n")
        .file("secrets/SMTP_HOST_PORT", scripted.address().port().to_string())
        .file("secrets/SMTP_USER_NAME", "plausible\n")
        .file("secrets/SMTP_USER_PWD", "canary-of-the-file\n")
        .env("SMTP_USER_PWD", "not-this-canary");
    let folder = setup.folder().join("secrets").display().to_string();
    arrives(setup.env("CONFIG_DIR", folder), &scripted, "plausible", "canary-of-the-file").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containers_shape_takes_mail_from_its_network_and_seals_it() {
    let scripted = ScriptedUpstream::start().await;
    let pem = waxseal::dkim::generate(waxseal::dkim::KeyAlgorithm::Ed25519).unwrap();
    let setup = from_environment(&scripted)
        .env("WAXSEAL_LISTEN", "0.0.0.0:0")
        .env("WAXSEAL_ALLOW", "127.0.0.0/8, 172.30.25.0/24")
        .env("WAXSEAL_HOSTNAME", "gateway.example.com")
        .env("DKIM_DOMAIN", "example.com")
        .env("DKIM_SELECTOR", "wax1")
        .env("DKIM_PRIVATE_KEY", pem.reveal())
        .env("SMTP_HOST_ADDR", "localhost")
        .env("SMTP_HOST_PORT", scripted.address().port());
    let gateway = setup.start(1);
    let port = gateway.address().port();
    let reply = hand_in(([127, 0, 0, 1], port).into(), &["you@example.net"], &mail("sealed")).await;
    assert!(reply.starts_with("250 "), "{reply}\n{}", gateway.log().join("\n"));
    scripted.until_messages(1).await;
    let message = String::from_utf8(scripted.messages().remove(0).data).unwrap();
    assert!(message.starts_with("DKIM-Signature: ") && message.contains("d=example.com"), "{message}");
    assert!(scripted.commands().iter().any(|line| line == "EHLO gateway.example.com"), "{:?}", scripted.commands());
}

#[tokio::test(flavor = "multi_thread")]
async fn file_and_environment_work_together() {
    let scripted = ScriptedUpstream::start().await;
    let config = "hostname = \"gateway.example.com\"\nunsigned = \"send\"\n[log]\nformat = \"json\"\n\
                  [[listener]]\naddress = \"127.0.0.1:0\"\n";
    let setup = Setup::new(Some(config)).file("roots.pem", scripted.ca());
    let roots = setup.folder().join("roots.pem").display().to_string();
    let setup = setup
        .env("SSL_CERT_FILE", roots)
        .env("SMTP_HOST_ADDR", "localhost")
        .env("SMTP_HOST_PORT", scripted.address().port())
        .env("SMTP_USER_NAME", "both")
        .env("SMTP_USER_PWD", "canary-of-both");
    arrives(setup, &scripted, "both", "canary-of-both").await;
}

/// Nothing is configured but what the image sets: what to set is said, with the networks that this machine is in.
#[test]
fn the_first_start_of_a_container_says_exactly_what_to_set() {
    let setup = Setup::new(None).env("WAXSEAL_LISTEN", "0.0.0.0:0").env("WAXSEAL_DATA_DIR", "data");
    let output = setup.output(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in ["SMTP_HOST_ADDR", "WAXSEAL_PROVIDER=sandbox", "WAXSEAL_ALLOW=", "WAXSEAL_USER and WAXSEAL_PASSWORD"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_any_file_makes_its_key_and_keeps_mail_in_the_sandbox() {
    let setup = Setup::new(None)
        .env("WAXSEAL_LISTEN", "0.0.0.0:0")
        .env("WAXSEAL_ALLOW", "127.0.0.0/8")
        .env("WAXSEAL_DATA_DIR", "data")
        .env("WAXSEAL_PROVIDER", "sandbox")
        .env("WAXSEAL_LOG_FORMAT", "json")
        .env("DKIM_DOMAIN", "example.com")
        .env("DKIM_SELECTOR", "wax1")
        .env("DKIM_GENERATE", "true");
    let key = setup.folder().join("data/dkim/example.com.wax1.pem");
    let gateway = setup.start(1);
    let port = gateway.address().port();
    let reply = hand_in(([127, 0, 0, 1], port).into(), &["you@example.net"], &mail("kept")).await;
    assert!(reply.starts_with("250 "), "{reply}\n{}", gateway.log().join("\n"));
    let line = gateway.wait_for_line(&["DKIM pass"]);
    assert!(line.starts_with('{') && key.is_file(), "{line}");
}

#[test]
fn the_configurations_path_is_a_variable_and_the_argument_wins() {
    let config = "hostname = \"gateway.example.com\"\nunsigned = \"send\"\n\
                  [[upstream]]\nname = \"of-the-variable\"\nprovider = \"sandbox\"\n";
    let setup = Setup::new(None)
        .file("elsewhere/waxseal.toml", config)
        .file("other.toml", config.replace("of-the-variable", "of-the-argument"))
        .env("WAXSEAL_CONFIG", "elsewhere/waxseal.toml");
    for (arguments, expected) in
        [(&["check"][..], "of-the-variable"), (&["--config", "other.toml", "check"], "of-the-argument")]
    {
        let output = setup.output(arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains(expected), "{arguments:?}: {said}");
    }
    let gone = Setup::new(None).env("WAXSEAL_CONFIG", "gone.toml").output(&["check"]);
    let said = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(gone.status.code() == Some(2) && said.contains("gone.toml: there is no such file"), "{said}");
}

/// The block as other programs have it: the start fails, and each line is named with the right one; no value is shown.
#[test]
fn names_that_other_programs_use_are_each_named_with_the_right_one() {
    let setup = Setup::new(None)
        .env("SMTP_HOST", "smtp.example.com")
        .env("SMTP_PORT", "587")
        .env("SMTP_USERNAME", "canary-user-1")
        .env("SMTP_PASSWORD", "canary-password-1")
        .env("SMTP_TLS", "true")
        .env("DKIM_KEY", "canary-key-1")
        .env("POSTMARK_API_KEY", "canary-token-1");
    for command in ["check", "run"] {
        let output = setup.output(&[command]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        for (wrong, right) in [
            ("SMTP_HOST:", "SMTP_HOST_ADDR"),
            ("SMTP_PORT:", "SMTP_HOST_PORT"),
            ("SMTP_USERNAME:", "SMTP_USER_NAME"),
            ("SMTP_PASSWORD:", "SMTP_USER_PWD"),
            ("SMTP_TLS:", "SMTP_HOST_SSL_ENABLED"),
            ("DKIM_KEY:", "DKIM_PRIVATE_KEY"),
            ("POSTMARK_API_KEY:", "WAXSEAL_PROVIDER=postmark"),
        ] {
            let mut lines = said.lines().map(|line| line.trim_start_matches("error: ").trim_start_matches("warning: "));
            let line = lines.find(|line| line.starts_with(wrong));
            assert!(line.is_some_and(|line| line.contains(right)), "{wrong} {right}: {said}");
        }
        assert!(!said.contains("canary"), "{said}");
    }
}
