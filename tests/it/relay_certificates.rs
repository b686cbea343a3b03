//! Which certificates the relay trusts, and what it says about the others.

use crate::support::certificate::{Authority, Issued};
use crate::support::mail::{envelope, numbered};
use crate::support::relay::{assert_told, not_ready, ready, send, upstream};
use crate::support::upstream::ScriptedUpstream;
use rcgen::{DnType, date_time_ymd};
use rustls::pki_types::ServerName;
use waxseal::message::RelayStep;

async fn distrusted(issued: Issued, ca: &str, told: &str, advice: &str) {
    for implicit in [false, true] {
        let builder = ScriptedUpstream::builder();
        let builder = if implicit { builder.implicit_tls() } else { builder };
        let copy = Issued { certificate: issued.certificate.clone(), private_key: issued.private_key.clone() };
        let scripted = builder.identity(copy, ca).start().await;
        let reason = not_ready(&upstream(scripted.options("company"))).await;
        assert_eq!(reason.step, RelayStep::TlsHandshake, "{reason}");
        assert!(reason.to_string().contains(told), "{reason}");
        assert!(reason.advice.as_ref().is_some_and(|text| text.contains(advice)), "{reason}");
        scripted.until_alone().await;
        assert!(scripted.heard_inside_tls().is_empty() && scripted.logins().is_empty());
    }
}

async fn trusted(issued: Issued, ca: &str) {
    let scripted = ScriptedUpstream::builder().identity(issued, ca).start().await;
    let upstream = upstream(scripted.options("company"));
    assert_told(&send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap(), &["delivered"]);
}

#[tokio::test]
async fn a_wrong_name() {
    let authority = Authority::new();
    let issued = authority.issue(&["mail.example.org", "*.example.org", "192.0.2.7"]);
    let told = "is for mail.example.org, *.example.org, 192.0.2.7, not for localhost";
    distrusted(issued, &authority.pem(), told, "server_name = \"mail.example.org\"").await;
}

#[tokio::test]
async fn expired() {
    let authority = Authority::new();
    let issued = authority.issue_with(&["localhost"], |params| params.not_after = date_time_ymd(2020, 2, 3));
    distrusted(issued, &authority.pem(), "expired on 2020-02-03", "renew").await;
}

#[tokio::test]
async fn not_yet_valid() {
    let authority = Authority::new();
    let issued = authority.issue_with(&["localhost"], |params| params.not_before = date_time_ymd(2999, 1, 2));
    distrusted(issued, &authority.pem(), "is not valid before 2999-01-02", "clock").await;
}

#[tokio::test]
async fn an_unknown_authority() {
    let issued = Authority::new().issue(&["localhost"]);
    let told = "was issued by \"CN=waxseal test authority\", which is not trusted here";
    // Another authority of the same name: its key counts, not its name.
    distrusted(issued, &Authority::new().pem(), told, "name that file in `ca`").await;
}

#[tokio::test]
async fn self_signed_and_not_listed() {
    let told = "is self-signed and not listed in `ca`";
    distrusted(Issued::self_signed(&["localhost"]), &Authority::new().pem(), told, "name that file in `ca`").await;
}

/// The command can be pasted unchanged: with the port, and with STARTTLS only if the server uses it.
#[tokio::test]
async fn the_command_that_shows_the_certificate_is_complete() {
    for implicit in [false, true] {
        let builder =
            ScriptedUpstream::builder().identity(Issued::self_signed(&["localhost"]), &Authority::new().pem());
        let scripted = if implicit { builder.implicit_tls() } else { builder }.start().await;
        let reason = not_ready(&upstream(scripted.options("company"))).await;
        let starttls = if implicit { "" } else { "-starttls smtp " };
        let command = format!("`openssl s_client {starttls}-showcerts -connect {}`", scripted.address());
        assert!(reason.advice.as_ref().is_some_and(|text| text.contains(&command)), "{command}: {reason}");
    }
}

#[tokio::test]
async fn a_common_name_only() {
    let authority = Authority::new();
    let issued = authority.issue_with(&[], |params| params.distinguished_name.push(DnType::CommonName, "localhost"));
    let told = "only the common name \"CN=localhost\" and no subjectAltName";
    distrusted(issued, &authority.pem(), told, "subjectAltName=DNS:localhost").await;
}

#[tokio::test]
async fn self_signed_and_listed_is_trusted_although_it_is_marked_as_an_authority() {
    let issued = Issued::self_signed(&["localhost"]);
    let ca = issued.certificate.clone();
    trusted(issued, &ca).await;
}

#[tokio::test]
async fn a_listed_certificate_of_a_server_is_trusted_without_its_authority() {
    let issued = Authority::new().issue(&["localhost"]);
    let ca = issued.certificate.clone();
    trusted(issued, &ca).await;
}

#[tokio::test]
async fn a_listed_certificate_is_held_to_its_name_and_dates() {
    let wrong_name = Issued::self_signed(&["mail.example.org"]);
    let ca = wrong_name.certificate.clone();
    distrusted(wrong_name, &ca, "is for mail.example.org, not for localhost", "server_name").await;
    let authority = Authority::new();
    let expired = authority.issue_with(&["localhost"], |params| params.not_after = date_time_ymd(2020, 2, 3));
    let ca = expired.certificate.clone();
    distrusted(expired, &ca, "expired on 2020-02-03", "renew").await;
}

#[tokio::test]
async fn another_certificate_than_the_listed_one_is_not_trusted() {
    let listed = Issued::self_signed(&["localhost"]);
    distrusted(Issued::self_signed(&["localhost"]), &listed.certificate, "self-signed", "`ca`").await;
}

#[tokio::test]
async fn server_name_says_whom_the_certificate_must_name() {
    let authority = Authority::new();
    let issued = authority.issue(&["mail.example.org"]);
    let scripted = ScriptedUpstream::builder().identity(issued, &authority.pem()).start().await;
    let mut options = scripted.options("company");
    options.endpoint.server_name = ServerName::try_from("mail.example.org").unwrap();
    let upstream = upstream(options);
    assert_eq!(ready(&upstream).await.unwrap().tls_version(), "TLSv1.3");
}

/// A container from scratch has no roots: what `ca` lists must do.
#[tokio::test]
async fn a_system_without_roots() {
    const INSIDE: &str = "WAXSEAL_TEST_WITHOUT_ROOTS";
    if std::env::var_os(INSIDE).is_some() {
        let error = waxseal::tls::client(&[]).expect_err("nobody is trusted");
        assert!(error.to_string().contains("ca-certificates"), "{error}");
        let issued = Issued::self_signed(&["localhost"]);
        let ca = issued.certificate.clone();
        trusted(issued, &ca).await;
        let authority = Authority::new();
        let stranger = Authority::new();
        trusted(authority.issue(&["localhost"]), &authority.pem()).await;
        distrusted(stranger.issue(&["localhost"]), &authority.pem(), "is not trusted here", "`ca`").await;
        // A server's own certificate only: no root at all.
        let listed = authority.issue(&["localhost"]);
        let ca = listed.certificate.clone();
        trusted(listed, &ca).await;
        distrusted(authority.issue(&["localhost"]), &ca, "is not trusted here", "`ca`").await;
        return;
    }
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "relay_certificates::a_system_without_roots", "--nocapture"])
        .env(INSIDE, "1")
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", "/dev/null")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout).into_owned() + &String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn a_listed_server_certificate_is_not_an_authority() {
    use rcgen::{CertificateParams, Issuer, KeyPair};
    let listed = Authority::new().issue(&["localhost"]);
    // Somebody with the server's key signs a certificate, under the name that the server's own has.
    let params = || CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let issuer = Issuer::new(params(), KeyPair::from_pem(&listed.private_key).unwrap());
    let mut params = params();
    let key = KeyPair::generate().unwrap();
    params.distinguished_name.push(DnType::CommonName, "stranger");
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    let signed = Issued { certificate, private_key: key.serialize_pem() };
    distrusted(signed, &listed.certificate, "is not trusted here", "`ca`").await;
}
