//! swaks, Python's smtplib and Postfix's smtp-source submit mail to the listener, with and without TLS and logins.

use crate::support::certificate::Authority;
use crate::support::listener::{Listening, Recorder, budget, options, server_tls};
use crate::support::peers::Finished;
use crate::support::real_clients::{Load, smtp_source, smtplib, swaks};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use waxseal::inbound::users::{Password, Users};
use waxseal::inbound::{AuthMode, ListenerOptions, Received, Tls};
use waxseal::observe::Secret;

/// The client's arguments besides the server, and how the listener differs from the default.
async fn serve<F>(options: ListenerOptions, client: F) -> Option<(Finished, Vec<Received>)>
where
    F: FnOnce(String) -> Option<Finished> + Send + 'static,
{
    let users = Users::new([("plausible".into(), Password::Plain(Secret::new("canary:1")))]);
    let listening = Listening::start(options, users, budget(), Recorder::default());
    let port = listening.address.port().to_string();
    let finished = spawn_blocking(move || client(port)).await.unwrap();
    let taken = listening.finish().await.take();
    finished.map(|finished| (finished, taken))
}

fn logins_only(tls: Tls) -> ListenerOptions {
    ListenerOptions { tls, auth: AuthMode::Required, ..options() }
}

fn written(folder: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn swaks_with_every_kind_of_login_and_tls() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let ca = text(&written(&folder, "ca.pem", authority.pem().as_bytes()));
    let kinds: [(Tls, &[&str], &str); 3] = [
        (Tls::Off, &[], "ESMTPA"),
        (Tls::StartTls(server_tls(&authority)), &["--tls"], "ESMTPSA"),
        (Tls::Implicit(server_tls(&authority)), &["--tls-on-connect"], "ESMTPSA"),
    ];
    for (tls, over_tls, protocol) in kinds {
        for mechanism in ["PLAIN", "LOGIN"] {
            let over_tls = over_tls.to_vec();
            let ca = ca.clone();
            let served = serve(logins_only(tls.clone()), move |port| {
                let server = format!("127.0.0.1:{port}");
                let mut arguments = vec!["--server", &server, "--from", "a@example.com", "--to", "b@example.net"];
                arguments.extend(["--auth", mechanism, "--auth-user", "plausible", "--auth-password", "canary:1"]);
                arguments.extend(over_tls.iter().copied());
                if !over_tls.is_empty() {
                    arguments.extend(["--tls-verify", "--tls-ca-path", &ca]);
                }
                swaks(&arguments)
            });
            let Some((finished, taken)) = served.await else { return };
            assert!(finished.success, "{finished:?}");
            assert_eq!(taken.len(), 1);
            assert_eq!(taken[0].client.protocol(), protocol);
            assert_eq!(taken[0].client.user.as_deref(), Some("plausible"));
        }
    }
}

#[tokio::test]
async fn smtplib_octet_for_octet() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let content = "Subject: \u{fc}\r\n\r\n.one\r\n..two\r\n\r\nlast\r\n".as_bytes();
    let message = text(&written(&folder, "message.eml", content));
    let ca = text(&written(&folder, "ca.pem", authority.pem().as_bytes()));
    let kinds = [
        (Tls::Off, "off"),
        (Tls::StartTls(server_tls(&authority)), "starttls"),
        (Tls::Implicit(server_tls(&authority)), "implicit"),
    ];
    for (tls, how) in kinds {
        let message = message.clone();
        let ca = ca.clone();
        let served = serve(logins_only(tls), move |port| {
            let mut arguments = vec!["--host", "localhost", "--port", &port, "--tls", how];
            if how != "off" {
                arguments.extend(["--ca", &ca]);
            }
            arguments.extend(["--login", "plausible", "canary:1", "--option", "BODY=8BITMIME"]);
            arguments.extend(["--from", "a@example.com", "--to", "b@example.net", "--to", "c@example.org", &message]);
            smtplib(&arguments)
        });
        let Some((finished, taken)) = served.await else { return };
        assert!(finished.success, "{finished:?}");
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].data.escape_ascii().to_string(), content.escape_ascii().to_string());
        assert_eq!(taken[0].envelope.recipients.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn smtp_source_over_many_connections() {
    let served = serve(options(), |port| {
        let load =
            Load { sessions: 50, messages: 500, size: 4500, sender: "a@example.com", recipient: "b@example.net" };
        smtp_source(&format!("127.0.0.1:{port}"), &load)
    });
    let Some((finished, taken)) = served.await else { return };
    assert!(finished.success, "{finished:?}");
    assert_eq!(taken.len(), 500);
}
