//! The variables that Plausible itself reads are enough: alone, as files of a secrets folder, in a container's shape,
//! and beside a configuration file.

use crate::support::application::{hand_in, mail};
use crate::support::gateway::Setup;
use crate::support::upstream::ScriptedUpstream;

/// What every case needs so that the test's provider can be verified and the log be read.
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
