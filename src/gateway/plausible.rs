//! The environment with which Plausible uses this gateway, printed at the start so that it can be pasted. Shows no
//! secret: the gateway does not know the passwords of its users.

use super::listeners::BoundListener;
use crate::config::{ListenerSettings, Settings};
use crate::inbound::{AuthMode, Tls};
use std::io::Write as _;
use std::net::SocketAddr;

/// On standard error, because standard output belongs to the log.
pub(super) fn print(settings: &Settings, sender_domain: &str, listeners: &[BoundListener]) {
    let addresses: Vec<SocketAddr> = listeners.iter().map(BoundListener::address).collect();
    if let Some(block) = block(settings, sender_domain, &addresses) {
        let _a_closed_pipe_changes_nothing = writeln!(std::io::stderr(), "{block}");
    }
}

/// For the listener that suits Plausible best: one without TLS that others can reach, if there is one. Plausible verifies
/// the certificate of every server that offers STARTTLS.
pub fn block(settings: &Settings, sender_domain: &str, addresses: &[SocketAddr]) -> Option<String> {
    let suits = |(listener, address): &(&ListenerSettings, SocketAddr)| {
        (matches!(listener.options.tls, Tls::Off), !address.ip().to_canonical().is_loopback(), address.is_ipv4())
    };
    let (listener, address) = settings.listeners.iter().zip(addresses.iter().copied()).max_by_key(suits)?;
    let mut text = String::from("For Plausible, in its environment:\n\n");
    let mut put = |name: &str, value: &str| text.push_str(&format!("  {name}={value}\n"));
    let is_everywhere = address.ip().is_unspecified();
    let host = if is_everywhere { settings.hostname.clone() } else { address.ip().to_canonical().to_string() };
    put("MAILER_ADAPTER", "Bamboo.Mua");
    put("MAILER_EMAIL", &format!("plausible@{sender_domain}"));
    put("MAILER_NAME", "Plausible");
    put("SMTP_HOST_ADDR", &host);
    put("SMTP_HOST_PORT", &address.port().to_string());
    put("SMTP_HOST_SSL_ENABLED", if matches!(listener.options.tls, Tls::Implicit(_)) { "true" } else { "false" });
    let needs_login = listener.options.auth == AuthMode::Required;
    if let (true, Some(user)) = (needs_login, settings.users.first()) {
        put("SMTP_USER_NAME", &user.name);
        put("SMTP_USER_PWD", "(the password of this user)");
    }
    text.push('\n');
    if !needs_login {
        text.push_str(
            "Remove SMTP_USER_NAME and SMTP_USER_PWD there: the provider\'s login belongs to the gateway alone.\n",
        );
    }
    if address.ip().to_canonical().is_loopback() {
        text.push_str(
            "In a container, Plausible does not reach this address: let a [[listener]] listen on 0.0.0.0:2525.\n",
        );
    } else if is_everywhere {
        text.push_str("In a container, SMTP_HOST_ADDR is the name of the gateway\'s service.\n");
    }
    Some(text)
}

/// The first domain with a key.
pub(super) fn sender_domain(settings: &Settings) -> String {
    settings.dkim.first().map_or_else(|| "example.com".to_owned(), |key| key.domain.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};

    fn printed(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let upstream = "[[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";
        let text = format!("hostname = \"gateway.example.com\"\nunsigned = \"send\"\n{text}{upstream}");
        let settings = config::load_text(&text, folder.path(), &Environment::of([("", ""); 0])).expect("settings");
        let addresses: Vec<_> = settings.listeners.iter().map(|listener| listener.options.address).collect();
        block(&settings, "example.com", &addresses).expect("a block")
    }

    #[test]
    fn the_listener_that_plausible_can_use_is_the_one_that_is_named() {
        let local = printed("");
        for line in ["  SMTP_HOST_ADDR=127.0.0.1\n", "  SMTP_HOST_PORT=2525\n", "  SMTP_HOST_SSL_ENABLED=false\n"] {
            assert!(local.contains(line), "{local}");
        }
        assert!(local.contains("In a container, Plausible does not reach this address"), "{local}");
        let both = "[[listener]]\naddress = \"127.0.0.1:2525\"\n[[listener]]\naddress = \"0.0.0.0:2526\"\n\
            allow = [\"172.18.0.0/16\"]\n";
        let both = printed(both);
        assert!(both.contains("  SMTP_HOST_ADDR=gateway.example.com\n  SMTP_HOST_PORT=2526\n"), "{both}");
        assert!(both.contains("Remove SMTP_USER_NAME") && !both.contains("  SMTP_USER"), "{both}");
    }

    #[test]
    fn a_login_is_named_where_it_is_needed_and_its_password_is_not_known() {
        let text = "[[listener]]\naddress = \"0.0.0.0:2525\"\nauth = \"required\"\n\
            [[user]]\nname = \"plausible\"\npassword = { env = \"P\" }\n";
        let folder = tempfile::tempdir().expect("a folder");
        let upstream = "[[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";
        let text = format!("hostname = \"gateway.example.com\"\nunsigned = \"send\"\n{text}{upstream}");
        let environment = Environment::of([("P", "canary-password")]);
        let settings = config::load_text(&text, folder.path(), &environment).expect("settings");
        let shown = block(&settings, "example.com", &["0.0.0.0:2525".parse().expect("an address")]).expect("a block");
        assert!(shown.contains("  SMTP_USER_NAME=plausible\n  SMTP_USER_PWD=(the password"), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}
