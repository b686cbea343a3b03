//! Names that people write instead of the right variable: from other programs, from providers' APIs, and misspellings.
//! A variable that seems to be meant for the gateway is never ignored silently. Reads and shows only names, never values.

use super::variables::{self, PLAUSIBLE_ONLY, VARIABLES};
use crate::config::file::SCHEMA;
use crate::config::masking::is_variable;

const LOGIN: &str = "set SMTP_USER_NAME and SMTP_USER_PWD";
const SERVER: &str = "take the URL apart: SMTP_HOST_ADDR, SMTP_HOST_PORT, SMTP_USER_NAME and SMTP_USER_PWD";
const TLS: &str =
    "set SMTP_HOST_SSL_ENABLED: true for TLS from the first byte (port 465), false for STARTTLS; TLS is always used";
const VERIFY: &str = "a certificate is always verified; to trust one of your own, name it in WAXSEAL_CA";
const MECHANISM: &str = "the gateway chooses how to log in; the login itself is SMTP_USER_NAME and SMTP_USER_PWD";
const SENDER: &str = "the application decides the sender (Plausible by MAILER_EMAIL); a [[rewrite]] rule can change it";

/// Prefixes of the words in [`PROVIDER_WORDS`].
const PROVIDER_PREFIXES: &[&str] = &[
    "WAXSEAL_SMTP_",
    "WAXSEAL_UPSTREAM_",
    "WAXSEAL_RELAY_",
    "SMTP_RELAY_",
    "SMTP_SERVER_",
    "SMTP_MAIL_",
    "MAIL_SMTP_",
    "EMAIL_SMTP_",
    "MAILER_SMTP_",
    "MAIL_RELAY_",
    "SMTP_",
    "MAILER_",
    "MAIL_",
    "EMAIL_",
    "RELAYHOST_",
    "RELAY_",
    "SMARTHOST_",
    "UPSTREAM_",
];

/// The words after the prefix in other programs (Rails, Django, Laravel, Nextcloud, Mastodon, Grafana, relay images), each
/// with the right variable, or with what to do.
const PROVIDER_WORDS: &[(&str, &str)] = &[
    (
        "SMTP_HOST_ADDR",
        "HOST HOSTNAME HOST_NAME HOST_ADDRESS SERVER SERVER_ADDRESS SERVER_HOST SERVER_NAME SERVER_ADDR \
         ADDRESS ADDR RELAY RELAYHOST RELAY_HOST SMARTHOST ENDPOINT IP",
    ),
    ("SMTP_HOST_PORT", "PORT PORT_NUMBER SERVER_PORT RELAY_PORT"),
    (
        "SMTP_USER_NAME",
        "USER USERNAME USER_ID USERID LOGIN LOGIN_NAME AUTH_USER AUTH_USERNAME AUTH_NAME ACCOUNT HOST_USER \
         HOST_USER_NAME HOST_USERNAME RELAY_USER CREDENTIALS_USERNAME",
    ),
    (
        "SMTP_USER_PWD",
        "PASSWORD PASS PASSWD PWD SECRET USER_PASSWORD USER_PASS USER_PASSWD AUTH_PASSWORD AUTH_PASS \
         HOST_PASSWORD HOST_PWD LOGIN_PASSWORD PASSPHRASE KEY API_KEY TOKEN CREDENTIALS_PASSWORD \
         RELAY_PASSWORD",
    ),
    (
        TLS,
        "SSL TLS USE_SSL USE_TLS ENABLE_SSL ENABLE_TLS SSL_ENABLED TLS_ENABLED SSL_ENABLE HOST_SSL SECURE \
         SECURITY ENCRYPTION STARTTLS USE_STARTTLS STARTTLS_AUTO ENABLE_STARTTLS ENABLE_STARTTLS_AUTO \
         STARTTLS_ENABLED FORCE_TLS REQUIRE_TLS IMPLICIT_TLS SCHEME PROTOCOL SMTPS TLS_MODE HOST_TLS_ENABLED \
         IGNORE_TLS",
    ),
    (
        VERIFY,
        "VERIFY SSL_VERIFY TLS_VERIFY VERIFY_SSL VERIFY_TLS VERIFY_CERTIFICATE OPENSSL_VERIFY_MODE \
         SKIP_VERIFY INSECURE ALLOW_INSECURE INSECURE_SKIP_VERIFY TLS_SKIP_VERIFY TLS_INSECURE \
         ALLOW_SELF_SIGNED REJECT_UNAUTHORIZED VERIFY_PEER",
    ),
    ("WAXSEAL_CA", "CA CA_FILE CA_PATH CA_CERT CA_CERT_FILE CAFILE ROOT_CA CA_BUNDLE TLS_CA"),
    (
        "WAXSEAL_CLIENT_CERTIFICATE",
        "CERT CERT_FILE CERTIFICATE CERTIFICATE_FILE CLIENT_CERT CLIENT_CERT_FILE CLIENT_CERTIFICATE TLS_CERT TLS_CERT_FILE \
         TLS_CLIENT_CERT SSL_CERT",
    ),
    (
        "WAXSEAL_CLIENT_PRIVATE_KEY",
        "CERT_KEY CLIENT_KEY CLIENT_KEY_FILE CLIENT_CERT_KEY CLIENT_PRIVATE_KEY TLS_KEY TLS_KEY_FILE TLS_CLIENT_KEY SSL_KEY \
         PRIVATE_KEY",
    ),
    ("WAXSEAL_SOURCE_ADDRESS", "SOURCE_ADDRESS BIND_ADDRESS SOURCE_IP LOCAL_ADDRESS OUTBOUND_IP BIND_IP"),
    ("WAXSEAL_HOSTNAME", "HELO EHLO HELO_NAME EHLO_NAME HELO_HOST HELO_DOMAIN EHLO_DOMAIN DOMAIN HELLO LOCAL_NAME"),
    ("SMTP_POOL_SIZE", "POOL POOLSIZE MAX_CONNECTIONS CONNECTIONS CONCURRENCY MAX_CONNS"),
    ("SMTP_RETRIES", "RETRY MAX_RETRIES RETRY_COUNT RETRY_LIMIT"),
    ("WAXSEAL_REGION", "REGION"),
    (MECHANISM, "AUTH AUTH_METHOD AUTH_TYPE AUTHENTICATION AUTH_MECHANISM AUTH_ENABLED AUTHTYPE"),
    (
        SENDER,
        "FROM FROM_ADDRESS FROM_EMAIL FROM_NAME SENDER SENDER_ADDRESS DEFAULT_FROM REPLY_TO ADMIN_EMAIL \
         SENDER_NAME SENDER_EMAIL",
    ),
    (SERVER, "URL URI DSN CONNECTION CONNECTION_URL"),
];

const DKIM_PREFIXES: &[&str] = &["WAXSEAL_DKIM_", "OPENDKIM_", "SMTP_DKIM_", "MAIL_DKIM_", "DKIM_"];

const DKIM_WORDS: &[(&str, &str)] = &[
    (
        "DKIM_PRIVATE_KEY",
        "KEY KEYFILE KEY_PATH PRIVATE PRIVATEKEY PRIVATE_KEY PRIVATE_KEY_PATH PRIVATE_KEY_PEM PEM PEM_FILE \
         SECRET SECRET_KEY SIGNING_KEY RSA_KEY CERT CERTIFICATE PATH PRIVKEY PRIVATE_PEM",
    ),
    ("DKIM_DOMAIN", "DOMAIN DOMAINS DOMAIN_NAME SIGNING_DOMAIN D"),
    ("DKIM_SELECTOR", "SELECTOR SELECTORS SELECTOR_NAME KEY_SELECTOR DEFAULT_SELECTOR KEY_NAME S"),
    ("DKIM_GENERATE", "GENERATE AUTOGENERATE AUTO_GENERATE GENERATE_KEY AUTOGEN CREATE_KEY"),
];

const GATEWAY_PREFIXES: &[&str] = &["WAXSEAL_GATEWAY_", "WAXSEAL_LISTENER_", "WAXSEAL_"];

const GATEWAY_WORDS: &[(&str, &str)] = &[
    (
        "WAXSEAL_LISTEN",
        "LISTENER LISTENERS LISTEN_ADDRESS LISTEN_ADDR LISTEN_ON LISTEN_PORT ADDRESS ADDR ADDRESSES BIND \
         BIND_ADDRESS BIND_ADDR PORT INTERFACE",
    ),
    (
        "WAXSEAL_ALLOW",
        "ALLOWED ALLOW_FROM ALLOWED_NETWORKS ALLOW_NETWORKS ALLOWED_NETS ALLOWED_IPS NETWORK NETWORKS \
         MYNETWORKS TRUSTED_NETWORKS ALLOWLIST WHITELIST",
    ),
    ("WAXSEAL_USER", "USERNAME USER_NAME LOGIN AUTH_USER"),
    ("WAXSEAL_PASSWORD", "PASS PWD PASSWD USER_PASSWORD USER_PWD PASSWORD_HASH AUTH_PASSWORD"),
    ("WAXSEAL_SENDERS", "SENDER ALLOWED_SENDERS ALLOWED_SENDER_DOMAINS FROM"),
    ("WAXSEAL_DELIVERY", "MODE DELIVERY_MODE"),
    ("WAXSEAL_CERTIFICATE", "CERT CERT_FILE TLS_CERT TLS_CERTIFICATE SSL_CERT TLS_CRT CERTIFICATE_PATH"),
    ("WAXSEAL_PRIVATE_KEY", "KEY KEYFILE TLS_KEY SSL_KEY TLS_PRIVATE_KEY CERT_KEY PRIVATE_KEY_PATH"),
    ("WAXSEAL_CLIENT_CERTIFICATE", "CLIENT_CERT CLIENT_CERT_FILE CLIENT_CRT TLS_CLIENT_CERT UPSTREAM_CERTIFICATE"),
    ("WAXSEAL_CLIENT_PRIVATE_KEY", "CLIENT_KEY CLIENT_KEY_FILE CLIENT_CERT_KEY TLS_CLIENT_KEY UPSTREAM_PRIVATE_KEY"),
    ("WAXSEAL_SOURCE_ADDRESS", "SOURCE_IP LOCAL_ADDRESS OUTBOUND_IP OUTBOUND_ADDRESS"),
    ("WAXSEAL_HOSTNAME", "HOST HOST_NAME NAME FQDN HELO EHLO MYHOSTNAME DOMAIN"),
    ("WAXSEAL_DATA_DIR", "DATA DATADIR DIR DATA_PATH STATE_DIR QUEUE_DIR SPOOL SPOOL_DIR HOME"),
    ("WAXSEAL_LOG_LEVEL", "LOG LOGLEVEL LEVEL VERBOSITY VERBOSE DEBUG RUST_LOG LOGGING"),
    ("WAXSEAL_LOG_FORMAT", "LOGFORMAT LOG_JSON FORMAT JSON LOG_STYLE"),
    ("WAXSEAL_CONFIG", "CONF CONFIGFILE CONFIG_PATH CONFIGURATION CONFIG_TOML SETTINGS"),
    ("WAXSEAL_CA", "CA_PATH CA_CERT CA_BUNDLE ROOT_CA CAFILE"),
    ("WAXSEAL_PROVIDER", "UPSTREAM RELAY UPSTREAM_PROVIDER SMTP_PROVIDER"),
];

/// Whole names. API keys first: Plausible reads four of them, and the gateway uses no provider's API.
const WHOLE: &[(&str, &str)] = &[
    (
        "the gateway speaks SMTP: set WAXSEAL_PROVIDER=postmark and SMTP_USER_PWD to the server's API token",
        "POSTMARK_API_KEY POSTMARK_API_TOKEN POSTMARK_SERVER_TOKEN",
    ),
    (
        "the gateway speaks SMTP: set WAXSEAL_PROVIDER=mailgun, WAXSEAL_REGION=us or eu, and SMTP_USER_NAME and SMTP_USER_PWD to an \
         SMTP login of the domain, which is not the API key",
        "MAILGUN_API_KEY MAILGUN_DOMAIN MAILGUN_BASE_URI MAILGUN_SMTP_LOGIN MAILGUN_SMTP_PASSWORD \
         MAILGUN_SECRET",
    ),
    (
        "the gateway speaks SMTP: set WAXSEAL_PROVIDER=mandrill and SMTP_USER_PWD to the API key",
        "MANDRILL_API_KEY MANDRILL_APIKEY MANDRILL_USERNAME",
    ),
    (
        "the gateway speaks SMTP: set WAXSEAL_PROVIDER=sendgrid and SMTP_USER_PWD to the API key",
        "SENDGRID_API_KEY SENDGRID_APIKEY SENDGRID_USERNAME SENDGRID_PASSWORD",
    ),
    (
        "the gateway speaks SMTP: set WAXSEAL_PROVIDER=ses, WAXSEAL_REGION, SMTP_USER_NAME to the access key's ID, and \
         WAXSEAL_SECRET_KEY to its secret",
        "SES_ACCESS_KEY SES_ACCESS_KEY_ID SES_SECRET_KEY SES_SECRET_ACCESS_KEY SES_REGION SES_KEY SES_SECRET \
         AWS_SES_ACCESS_KEY_ID AWS_SES_SECRET_ACCESS_KEY AWS_SES_REGION SES_SMTP_USERNAME SES_SMTP_PASSWORD",
    ),
    (
        "the gateway speaks SMTP: set SMTP_HOST_ADDR, SMTP_USER_NAME and SMTP_USER_PWD to the server and the login that the provider \
         names for SMTP",
        "BREVO_API_KEY SENDINBLUE_API_KEY MAILJET_API_KEY MAILJET_SECRET_KEY MAILJET_APIKEY SPARKPOST_API_KEY \
         RESEND_API_KEY MAILERSEND_API_KEY SMTP2GO_API_KEY SMTP_API_KEY ELASTICEMAIL_API_KEY SCALEWAY_API_KEY",
    ),
    ("SMTP_HOST_ADDR", "RELAYHOST SMARTHOST SMTPHOST SMTP_HOSTADDR SMTPSERVER MAILHOST MAILSERVER SMTP"),
    ("SMTP_HOST_PORT", "SMTPPORT SMTP_HOSTPORT"),
    (LOGIN, "SMTP_CREDENTIALS SMTP_USERPASS SMTP_AUTH_CREDENTIALS"),
    ("WAXSEAL_ALLOW", "MYNETWORKS RELAY_NETWORKS ALLOWED_NETWORKS POSTFIX_MYNETWORKS RELAY_NETS ALLOWED_NETS"),
    ("WAXSEAL_SENDERS", "ALLOWED_SENDER_DOMAINS ALLOWED_SENDERS SMTP_ALLOWED_SENDERS ALLOWED_SENDER"),
    ("WAXSEAL_HOSTNAME", "MYHOSTNAME POSTFIX_MYHOSTNAME MAIL_HOSTNAME MAILNAME SERVER_HOSTNAME"),
    ("WAXSEAL_LOG_LEVEL", "RUST_LOG SMTP_LOG_LEVEL"),
];

/// Names that the documentation suggests for passwords to which the file refers.
const DOCUMENTED: &[&str] = &["POSTMARK_TOKEN", "MANDRILL_KEY", "SENDGRID_KEY", "RELAY_PASSWORD"];

const IGNORED: &str = "waxseal does not use this variable";

/// What is wrong with a name and what to do; `None` for a correct name, or one that has nothing to do with the gateway.
/// `is_set`: whether a known variable has a value.
pub fn complaint(name: &str, is_set: impl Fn(&str) -> bool) -> Option<(&'static str, String)> {
    let known = |name: &str| variables::named(name).is_some() || PLAUSIBLE_ONLY.contains(&name);
    let plain = plain(name);
    if known(name) || DOCUMENTED.contains(&name) || !is_variable(&plain) {
        return None;
    }
    if known(&plain) {
        return Some((IGNORED, format!("did you mean {plain}?")));
    }
    let whole = from_words(&plain, WHOLE).or_else(|| right_name(&plain)).map(|right| (right, false));
    let of_file = || Some((right_name(plain.strip_suffix("_FILE")?)?, true));
    if let Some((right, is_file)) = whole.or_else(of_file) {
        return Some((IGNORED, instead(right, is_file, is_set)));
    }
    nearest_variable(&plain).map(|meant| (IGNORED, format!("did you mean {meant}?"))).or_else(|| unknown(&plain))
}

/// In upper case, without `export`, and with underscores for hyphens and dots.
fn plain(name: &str) -> String {
    let name = name.trim();
    name.strip_prefix("export ").unwrap_or(name).trim().to_ascii_uppercase().replace(['-', '.'], "_")
}

/// The right variable, or what to do.
fn right_name(name: &str) -> Option<&'static str> {
    if let Some(variable) = variables::named(name) {
        return Some(variable.name);
    }
    [(DKIM_PREFIXES, DKIM_WORDS), (PROVIDER_PREFIXES, PROVIDER_WORDS), (GATEWAY_PREFIXES, GATEWAY_WORDS)]
        .into_iter()
        .find_map(|(prefixes, words)| {
            let rests = prefixes.iter().filter_map(|prefix| name.strip_prefix(prefix));
            rests.into_iter().find_map(|rest| from_words(rest, words))
        })
        .or_else(|| of_setting(name))
}

fn from_words(word: &str, words: &[(&'static str, &str)]) -> Option<&'static str> {
    words.iter().find(|(_, written)| written.split_whitespace().any(|written| written == word)).map(|(right, _)| *right)
}

/// `WAXSEAL_` followed by a key that a variable of another name sets.
fn of_setting(name: &str) -> Option<&'static str> {
    let key = name.strip_prefix("WAXSEAL_")?.to_ascii_lowercase();
    VARIABLES.iter().find(|variable| variable.key() == key).map(|variable| variable.name)
}

fn instead(right: &'static str, is_file: bool, is_set: impl Fn(&str) -> bool) -> String {
    let Some(variable) = variables::named(right) else { return right.to_owned() };
    match variable.kind {
        _ if is_set(right) => format!("{right} is the right one, and it is set: leave this one out"),
        variables::Kind::Pem if is_file => format!("set {right}: it takes the path as well as the text"),
        _ if is_file => format!("give the container that file as /run/secrets/{right}, or set {right}"),
        _ if right == "SMTP_HOST_SSL_ENABLED" => TLS.to_owned(),
        _ => format!("set {right} instead"),
    }
}

fn nearest_variable(name: &str) -> Option<&'static str> {
    const SHORTEST: usize = 8;
    let distance = |known: &str| strsim::damerau_levenshtein(name, known);
    let near = VARIABLES.iter().map(|variable| (distance(variable.name), variable.name));
    near.filter(|(distance, _)| *distance <= 2 && name.len() >= SHORTEST).min().map(|(_, name)| name)
}

/// All other names that begin like ours.
fn unknown(name: &str) -> Option<(&'static str, String)> {
    let rest = ["WAXSEAL_", "DKIM_", "SMTP_"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let key = rest.to_ascii_lowercase();
    let table = SCHEMA.0.iter().find(|table| table.has(&key));
    let help = match table {
        Some(table) if name.starts_with("WAXSEAL_") && table.name.is_empty() => {
            format!("`{key}` has no variable: write it at the top of config.toml")
        }
        Some(table) if name.starts_with("WAXSEAL_") => {
            format!("`{key}` has no variable: write it into config.toml, in {}", table.title())
        }
        _ => "`waxseal check --defaults` lists those that it uses".to_owned(),
    };
    Some((IGNORED, help))
}

/// Kubernetes creates variables for each service: WAXSEAL_PORT for one of that name, SMTP_SERVICE_HOST for another.
pub fn is_from_kubernetes(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_port = name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    (name.ends_with("_PORT") && is_address)
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || of_port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(name: &str) -> Option<String> {
        complaint(name, |_| false).map(|(_, help)| help)
    }

    /// Names that people write, and what the help must mention.
    const WRITTEN: &[(&[&str], &str)] = &[
        (
            &["SMTP_HOST", "SMTP_SERVER", "MAIL_HOST", "EMAIL_HOST", "SMTP_ADDRESS", "RELAYHOST", "smtp_host_addr"],
            "SMTP_HOST_ADDR",
        ),
        (&["SMTP_PORT", "MAIL_PORT", "EMAIL_PORT", "RELAYHOST_PORT"], "SMTP_HOST_PORT"),
        (
            &["SMTP_USER", "SMTP_USERNAME", "SMTP_LOGIN", "MAIL_USERNAME", "EMAIL_HOST_USER", "RELAYHOST_USERNAME"],
            "SMTP_USER_NAME",
        ),
        (
            &[
                "SMTP_PASSWORD",
                "SMTP_PASS",
                "SMTP_PWD",
                "MAIL_PASSWORD",
                "EMAIL_HOST_PASSWORD",
                "SMTP_USER_PWD_FILE",
                "SMTP_PASSWORD_FILE",
            ],
            "SMTP_USER_PWD",
        ),
        (&["SMTP_SSL", "SMTP_TLS", "MAIL_ENCRYPTION", "EMAIL_USE_TLS", "SMTP_SECURE"], "SMTP_HOST_SSL_ENABLED"),
        (&["SMTP_OPENSSL_VERIFY_MODE", "SMTP_INSECURE", "MAIL_VERIFY_PEER", "SMTP_CA_FILE"], "WAXSEAL_CA"),
        (
            &[
                "DKIM_KEY",
                "DKIM_PRIVATE_KEY_FILE",
                "DKIM_KEY_FILE",
                "DKIM_KEY_PATH",
                "DKIM_PRIVATEKEY",
                "OPENDKIM_KEY",
                "DKIM_PEM",
            ],
            "DKIM_PRIVATE_KEY",
        ),
        (&["DKIM_DOMAINS", "OPENDKIM_DOMAIN"], "DKIM_DOMAIN"),
        (&["POSTMARK_API_KEY"], "WAXSEAL_PROVIDER=postmark"),
        (&["MAILGUN_API_KEY", "MAILGUN_DOMAIN", "MAILGUN_BASE_URI"], "WAXSEAL_PROVIDER=mailgun"),
        (&["MANDRILL_API_KEY"], "WAXSEAL_PROVIDER=mandrill"),
        (&["SENDGRID_API_KEY"], "WAXSEAL_PROVIDER=sendgrid"),
        (&["BREVO_API_KEY", "SMTP_URL", "MAILER_DSN", "EMAIL_URL"], "SMTP_HOST_ADDR"),
        (
            &["WAXSEAL_PORT", "WAXSEAL_BIND", "WAXSEAL_LISTN", "WAXSEL_LISTEN", "export WAXSEAL_LISTEN"],
            "WAXSEAL_LISTEN",
        ),
        (&["WAXSEAL_MAX_CONNECTIONS", "SMTP_POOL"], "SMTP_POOL_SIZE"),
        (&["STMP_HOST_ADDR", "SMTP-HOST-ADDR", "SMTP_HOST_ADRR"], "SMTP_HOST_ADDR"),
        (&["MYNETWORKS", "WAXSEAL_NETWORKS", "WAXSEAL_ALOW"], "WAXSEAL_ALLOW"),
        (&["RUST_LOG", "WAXSEAL_LOG"], "WAXSEAL_LOG_LEVEL"),
        (&["WAXSEAL_CONFIG_FILE", "WAXSEAL_CONF"], "WAXSEAL_CONFIG"),
        (&["WAXSEAL_TLS_CERT", "WAXSEAL_CERT_FILE"], "WAXSEAL_CERTIFICATE"),
        (&["WAXSEAL_CLIENT_CERT", "SMTP_TLS_CERT", "SMTP_CLIENT_CERT_FILE"], "WAXSEAL_CLIENT_CERTIFICATE"),
        (&["WAXSEAL_CLIENT_KEY", "SMTP_TLS_KEY", "SMTP_CLIENT_KEY"], "WAXSEAL_CLIENT_PRIVATE_KEY"),
        (&["SMTP_SOURCE_IP", "WAXSEAL_SOURCE_IP"], "WAXSEAL_SOURCE_ADDRESS"),
        (&["MAIL_FROM", "SMTP_FROM"], "MAILER_EMAIL"),
        (&["WAXSEAL_IDLE_TIMEOUT"], "[[upstream]]"),
        (&["WAXSEAL_NOSUCH", "SMTP_NOSUCH", "DKIM_NOSUCH"], "waxseal check --defaults"),
    ];

    #[test]
    fn each_name_that_people_write_leads_to_the_right_one() {
        for (names, right) in WRITTEN {
            for name in *names {
                let help = help(name);
                assert!(help.as_ref().is_some_and(|help| help.contains(right)), "{name}: {help:?}, not {right}");
            }
        }
    }

    /// Every entry of the tables can be reached, and names only variables that exist.
    #[test]
    fn every_entry_of_the_tables_can_be_reached_and_leads_somewhere() {
        let ours = ["SMTP_", "WAXSEAL_", "DKIM_"];
        let is_name = |word: &str| ours.iter().any(|prefix| word.starts_with(prefix)) && word.len() > 8;
        for (prefixes, words) in [
            (&[""][..], WHOLE),
            (PROVIDER_PREFIXES, PROVIDER_WORDS),
            (DKIM_PREFIXES, DKIM_WORDS),
            (GATEWAY_PREFIXES, GATEWAY_WORDS),
        ] {
            for (right, written) in words {
                let named = right.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| is_name(word));
                named.for_each(|name| {
                    assert!(variables::named(name).is_some(), "{name} of {right:?} is not a variable")
                });
                for name in prefixes
                    .iter()
                    .flat_map(|prefix| written.split_whitespace().map(move |word| format!("{prefix}{word}")))
                {
                    let others = [PLAUSIBLE_ONLY, DOCUMENTED].concat();
                    let is_right = variables::named(&name).is_some() || others.contains(&&*name);
                    assert!(is_right || help(&name).is_some(), "{name} is ignored");
                }
            }
        }
    }

    #[test]
    fn every_slip_in_a_name_is_seen() {
        for variable in VARIABLES {
            let name = variable.name;
            for at in 1..name.len() {
                let mut missing = name.to_owned();
                missing.remove(at);
                let mut doubled = name.to_owned();
                doubled.insert(at, 'Q');
                for slip in [missing, doubled, name.to_ascii_lowercase(), format!("{name}_FILE")] {
                    assert!(variables::named(&slip).is_some() || help(&slip).is_some(), "{slip}");
                }
            }
        }
    }

    #[test]
    fn what_belongs_to_others_is_left_alone() {
        let own = VARIABLES.iter().map(|variable| variable.name).chain(PLAUSIBLE_ONLY.iter().copied());
        let others = [
            "PATH",
            "HOME",
            "HOSTNAME",
            "MAIL",
            "USER",
            "LANG",
            "TERM",
            "BASE_URL",
            "SECRET_KEY_BASE",
            "DATABASE_URL",
            "HTTP_PORT",
            "NO_COLOR",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "TZ",
            "LISTEN_FDS",
            "LISTEN_PID",
            "INVOCATION_ID",
            "DATA_DIR",
            "LOG_LEVEL",
            "GOOGLE_CLIENT_SECRET",
            "TOTP_VAULT_KEY",
            "KUBERNETES_SERVICE_HOST",
            "POSTGRES_PASSWORD",
            "AWS_REGION",
        ];
        for name in own.chain(others) {
            assert_eq!(help(name), None, "{name}");
        }
        for (name, value) in [
            ("WAXSEAL_PORT", "tcp://10.0.0.1:2525"),
            ("WAXSEAL_SERVICE_HOST", "10.0.0.1"),
            ("SMTP_SERVICE_PORT", "25"),
            ("SMTP_SERVICE_PORT_SMTP", "25"),
            ("SMTP_PORT_25_TCP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_from_kubernetes(name, value), "{name}");
        }
        assert!(!is_from_kubernetes("SMTP_PORT", "587"));
    }

    #[test]
    fn one_beside_the_right_one_is_to_be_left_out() {
        let found = complaint("SMTP_HOST", |name| name == "SMTP_HOST_ADDR");
        assert_eq!(
            found.map(|(_, help)| help).as_deref(),
            Some("SMTP_HOST_ADDR is the right one, and it is set: leave this one out")
        );
    }
}
