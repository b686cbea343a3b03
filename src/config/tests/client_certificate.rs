//! The client certificate of an upstream: each way to give it, what the configuration says of one that servers will
//! refuse, and whose account it is.

use super::*;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

const UPSTREAM: &str = "[[upstream]]\nname = \"p\"\nprovider = \"smtp\"\nhost = \"a.example\"\n";

fn with(folder: &Folder, lines: &str, environment: &Environment) -> Settings {
    let text = format!("hostname = \"a.example.com\"\nunsigned = \"send\"\n{UPSTREAM}{lines}");
    folder.load(&text, environment).unwrap_or_else(|problems| panic!("{lines}: {problems:#}"))
}

fn fingerprint(settings: &Settings) -> Option<String> {
    Some(reached(&settings.upstreams[0]).0.client_certificate.as_ref()?.fingerprint.clone())
}

#[test]
fn the_certificate_and_its_key_come_from_files_or_variables() {
    let folder = Folder::new();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let texts = Environment::of([("CERT", read("gateway.pem")), ("KEY", read("gateway.key").replace('\n', "\\n"))]);
    let paths = Environment::of([("CERT", path("gateway.pem")), ("KEY", path("gateway.key"))]);
    let none = Environment::of::<String, String>([]);
    let expected = fingerprint(&with(&folder, "certificate = \"gateway.pem\"\nprivate_key = \"gateway.key\"", &none));
    assert!(expected.as_ref().is_some_and(|fingerprint| fingerprint.len() == 95), "{expected:?}");
    for (certificate, key, environment) in [
        ("{ env = \"CERT\" }", "{ env = \"KEY\" }", &texts),
        ("{ env = \"CERT\" }", "{ env = \"KEY\" }", &paths),
        ("\"gateway.pem\"", "{ env = \"KEY\" }", &texts),
        ("{ file = \"gateway.pem\" }", "{ file = \"gateway.key\" }", &none),
    ] {
        let lines = format!("certificate = {certificate}\nprivate_key = {key}");
        assert_eq!(fingerprint(&with(&folder, &lines, environment)), expected, "{lines}");
    }
    for [certificate, key] in [[read("gateway.pem"), read("gateway.key")], [path("gateway.pem"), path("gateway.key")]] {
        let environment = Environment::of([
            ("SMTP_HOST_ADDR", "smtp.example.com".to_owned()),
            ("WAXSEAL_CLIENT_CERTIFICATE", certificate),
            ("WAXSEAL_CLIENT_PRIVATE_KEY", key),
            ("WAXSEAL_SOURCE_ADDRESS", "192.0.2.10".to_owned()),
        ]);
        let settings = folder.load_file("none.toml", false, &environment).expect("settings");
        let endpoint = reached(&settings.upstreams[0]).0;
        assert_eq!(fingerprint(&settings), expected);
        assert_eq!(endpoint.source_address, Some([192, 0, 2, 10].into()));
    }
}

#[test]
fn variables_are_named_to_those_who_use_them() {
    let folder = Folder::new();
    let certificate = std::fs::read_to_string(folder.path().join("gateway.pem")).expect("a file");
    let key = std::fs::read_to_string(folder.path().join("rsa.pem")).expect("a file");
    let found = |variables: &[(&str, &str)]| {
        let environment = Environment::of(variables.iter().copied().chain([("SMTP_HOST_ADDR", "smtp.example.com")]));
        folder.load_file("none.toml", false, &environment).expect_err("a mistake").to_string()
    };
    let alone = found(&[("WAXSEAL_CLIENT_CERTIFICATE", &certificate)]);
    assert!(alone.contains("WAXSEAL_CLIENT_CERTIFICATE needs WAXSEAL_CLIENT_PRIVATE_KEY too"), "{alone}");
    let other = found(&[("WAXSEAL_CLIENT_CERTIFICATE", &certificate), ("WAXSEAL_CLIENT_PRIVATE_KEY", &key)]);
    assert!(other.contains("WAXSEAL_CLIENT_PRIVATE_KEY does not belong to the first certificate"), "{other}");
}

#[test]
fn a_certificate_that_servers_will_refuse_is_a_warning() {
    type Adjust = fn(&mut CertificateParams);
    let cases: [(Adjust, &str); 3] = [
        (|it| it.not_after = date_time_ymd(2020, 2, 3), "the certificate expired on 2020-02-03"),
        (|it| it.not_before = date_time_ymd(2999, 2, 3), "the certificate is not valid before 2999-02-03"),
        (|it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], "lacks clientAuth"),
    ];
    for (adjust, expected) in cases {
        let folder = Folder::new();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["a.example.com".to_owned()]).expect("a name");
        adjust(&mut params);
        folder.write("client.pem", &params.self_signed(&key).expect("a certificate").pem());
        folder.write("client.key", &key.serialize_pem());
        let none = Environment::of::<String, String>([]);
        let settings = with(&folder, "certificate = \"client.pem\"\nprivate_key = \"client.key\"", &none);
        let warnings = folder.shorten(&settings.warnings);
        assert!(warnings.iter().any(|warning| warning.contains(expected)), "{expected}: {warnings:?}");
    }
}

/// Without a login the certificate says whose account it is.
#[test]
fn two_upstreams_share_an_account_only_with_the_same_certificate() {
    let folder = Folder::new();
    let other = rcgen::generate_simple_self_signed(["b.example.com".to_owned()]).expect("a certificate");
    folder.write("other.pem", &other.cert.pem());
    folder.write("other.key", &other.signing_key.serialize_pem());
    let none = Environment::of::<String, String>([]);
    let certificate = |name: &str| format!("certificate = \"{name}.pem\"\nprivate_key = \"{name}.key\"\n");
    for (first, second, is_one) in [
        (certificate("gateway"), certificate("gateway"), true),
        (certificate("gateway"), certificate("other"), false),
        (certificate("gateway"), String::new(), false),
        (String::new(), String::new(), true),
    ] {
        let lines = format!("{first}{}{second}", UPSTREAM.replace("\"p\"", "\"q\""));
        let settings = with(&folder, &lines, &none);
        let warned = folder.shorten(&settings.warnings).iter().any(|warning| warning.contains("same host and login"));
        assert_eq!(warned, is_one, "{lines}");
    }
}
