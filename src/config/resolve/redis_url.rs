//! URLs of Redis: `redis://user:password@host:port/database`, `rediss://` with TLS, `unix:///path`. No message quotes one,
//! because it may contain a password.

use crate::config::value::Complaint;
use crate::observe::Secret;
use crate::queue::redis::options::{RedisLogin, ServerAddress};
use std::net::Ipv6Addr;
use std::path::PathBuf;

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RedisUrl {
    pub tls: bool,
    /// At least one.
    pub addresses: Vec<ServerAddress>,
    pub login: Option<RedisLogin>,
    pub database: u32,
}

const FORMS: &str = "write redis://HOST:PORT, rediss://HOST:PORT for TLS, or unix:///PATH for a socket on this machine";

/// The port is `default_port` if the URL has none.
pub(super) fn parse(text: &str, default_port: u16) -> Result<RedisUrl, Complaint> {
    let Some((scheme, rest)) = text.trim().split_once("://") else {
        return Err(Complaint::new("it does not begin with redis://, rediss:// or unix://", FORMS));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "redis" | "valkey" => tcp(rest, default_port, false),
        "rediss" | "valkeys" => tcp(rest, default_port, true),
        "unix" | "redis+unix" => unix(rest),
        known @ ("http" | "https" | "tcp" | "tls" | "ssl" | "file" | "redis+sentinel" | "redis-sentinel") => {
            let help =
                if known.contains("sentinel") { "write sentinel = { master = ..., addresses = [...] }" } else { FORMS };
            Err(Complaint::new(format!("{known}:// is not a way to reach Redis"), help))
        }
        _ => Err(Complaint::new("its scheme is not one of redis://, rediss:// and unix://", FORMS)),
    }
}

fn tcp(rest: &str, default_port: u16, tls: bool) -> Result<RedisUrl, Complaint> {
    if rest.contains(['?', '#']) {
        let help = "leave out `?` and `#` and what follows; a password with such a sign is written with %3F or %23";
        return Err(Complaint::new("it has parameters, which have no meaning here", help));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, hosts) = match authority.rsplit_once('@') {
        Some((userinfo, hosts)) => (Some(userinfo), hosts),
        None => (None, authority),
    };
    let login = userinfo.map(login).transpose()?;
    let addresses = hosts.split(',').map(|host| address(host, default_port)).collect::<Result<_, _>>()?;
    Ok(RedisUrl { tls, addresses, login, database: database(path)? })
}

fn unix(path: &str) -> Result<RedisUrl, Complaint> {
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return Err(Complaint::new("a socket's path begins with a slash", "write unix:///run/redis/redis.sock"));
    }
    let addresses = vec![ServerAddress::Unix(PathBuf::from(decoded(path)?))];
    Ok(RedisUrl { tls: false, addresses, login: None, database: 0 })
}

/// `user:password`, or `:password` for the default user.
fn login(userinfo: &str) -> Result<RedisLogin, Complaint> {
    let Some((user, password)) = userinfo.split_once(':') else {
        let help = "write USER:PASSWORD@ before the host, or :PASSWORD@ for the default user";
        return Err(Complaint::new("the login before the host has no password", help));
    };
    let user = decoded(user)?;
    let password = decoded(password)?;
    if password.is_empty() {
        return Err(Complaint::new("the password before the host is empty", "write it, or leave the login out"));
    }
    Ok(RedisLogin { user: Some(user).filter(|user| !user.is_empty()), password: Secret::new(password) })
}

/// `host`, `host:port` or `[IPv6]:port`.
pub(super) fn address(text: &str, default_port: u16) -> Result<ServerAddress, Complaint> {
    let unusable = || Complaint::new("it has no usable host and port", "write HOST:PORT, or [IPV6]:PORT");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(unusable)?;
            host.parse::<Ipv6Addr>().map_err(|_| unusable())?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")).ok_or_else(unusable)?)
        }
        None => match text.split_once(':') {
            Some((host, port)) if !port.is_empty() => (host, port),
            Some(_) => return Err(unusable()),
            None => (text, ""),
        },
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let port = if port.is_empty() { Some(default_port) } else { port.parse().ok().filter(|port| *port != 0) };
    match port {
        Some(port) if !host.is_empty() && host.bytes().all(is_name) => {
            Ok(ServerAddress::Tcp { host: host.to_owned(), port })
        }
        _ => Err(unusable()),
    }
}

fn database(path: &str) -> Result<u32, Complaint> {
    match path {
        "" => Ok(0),
        number => number.parse().map_err(|_| {
            Complaint::new("what follows the host is not the number of a database", "write /0, or leave it out")
        }),
    }
}

/// RFC 3986 §2.1.
fn decoded(text: &str) -> Result<String, Complaint> {
    let broken =
        || Complaint::new("it has a `%` that does not begin two hexadecimal digits", "write a percent sign as %25");
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first != b'%' {
            octets.push(first);
            rest = behind;
            continue;
        }
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(broken)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(broken());
        }
        octets.push(u8::from_str_radix(digits, 16).map_err(|_| broken())?);
        rest = &behind[2..];
    }
    let text = String::from_utf8(octets).map_err(|_| broken())?;
    if text.chars().any(char::is_control) {
        return Err(Complaint::new("it holds control characters", "leave them out"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text, 6379) {
            Ok(url) => {
                let tls = if url.tls { "tls " } else { "" };
                let login = url.login.map_or(String::new(), |login| {
                    format!(" {}/{}", login.user.as_deref().unwrap_or("-"), login.password.reveal())
                });
                let addresses: Vec<_> = url.addresses.iter().map(ToString::to_string).collect();
                format!("{tls}{}{login} {}", addresses.join("+"), url.database)
            }
            Err(complaint) => complaint.message,
        }
    }

    #[test]
    fn each_form_of_a_url_is_read() {
        for (text, expected) in [
            ("redis://127.0.0.1", "127.0.0.1:6379 0"),
            ("redis://localhost:7000/3", "localhost:7000 3"),
            ("valkeys://a.example", "tls a.example:6379 0"),
            ("REDISS://u:p@a.example:1/", "tls a.example:1 u/p 0"),
            ("rediss://:p%40%3a%2F@a.example", "tls a.example:6379 -/p@:/ 0"),
            ("redis://u:p@q@a.example", "a.example:6379 u/p@q 0"),
            ("redis://[::1]", "[::1]:6379 0"),
            ("redis://[2001:db8::1]:7000", "[2001:db8::1]:7000 0"),
            ("redis://a:1,b:2,c", "a:1+b:2+c:6379 0"),
            ("unix:///run/redis.sock", "/run/redis.sock 0"),
            ("redis+unix:///a%20b", "/a b 0"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn no_message_about_a_url_repeats_any_of_it() {
        const CANARY: &str = "hunter2canary";
        for text in [
            "C",
            "C:6379",
            "C://x",
            "C://u:C@h",
            "http://C",
            "redis://C@h",
            "redis://C:@h",
            "redis://u:C@",
            "redis://u:C@h:C",
            "redis://u:C@h/C",
            "redis://u:C%@h",
            "redis://u:C%2@h",
            "redis://u:C%zz@h",
            "redis://u:C%0a@h",
            "redis://u:C%ff@h",
            "redis://h?password=C",
            "redis://h#C",
            "redis://[C]:1",
            "redis://[::1]C",
            "redis://h:0",
            "redis://h:C",
            "redis://,",
            "unix://C",
            "unix:///C?db=1",
            "redis+sentinel://u:C@h",
            "redis://",
            "redis://a b",
            "",
        ] {
            let complaint = parse(&text.replace('C', CANARY), 6379).expect_err(text);
            let shown = format!("{complaint:?}");
            assert!(!shown.contains("hunter") && complaint.help.is_some(), "{text}: {shown}");
        }
    }
}
