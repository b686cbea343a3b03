//! The one stack around the whole router. It runs before a path is looked at, so no spelling of a path gets around it.
//!
//! A web page can make its visitor's browser send requests to a loopback address; by DNS rebinding it can read the
//! answers, too. Such requests name the page's own host, so only known hosts are answered. The token protects from
//! everything else that can reach the address.

use super::AdminOptions;
use crate::observe::Secret;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

/// No route reads a body.
const MAX_BODY: usize = 64 * 1024;
/// For a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Who may ask.
#[derive(Debug)]
pub struct Guard {
    hosts: Vec<String>,
    /// The gateway's own.
    hostname: watch::Receiver<String>,
    token: Option<Secret>,
}

/// The address of our end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct LocalAddress(pub SocketAddr);

impl Guard {
    pub fn new(options: &AdminOptions, hostname: watch::Receiver<String>) -> Arc<Self> {
        Arc::new(Self { hosts: options.hosts.clone(), hostname, token: options.token.clone() })
    }

    /// Puts the stack around every route, the fallback included.
    pub fn around(self: Arc<Self>, router: Router) -> Router {
        router
            .layer(RequestBodyLimitLayer::new(MAX_BODY))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER_TIMEOUT))
            .layer(from_fn_with_state(self, check))
            .layer(CatchPanicLayer::custom(|_panic: Box<dyn std::any::Any + Send>| {
                // The text of a panic may contain anything; the hook has logged where it was.
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }))
    }

    /// `Some`: the refusal.
    fn refusal(&self, headers: &HeaderMap, uri: &Uri, local: IpAddr) -> Option<Response> {
        if !self.is_known_host(headers, uri, local) {
            let text = "Host is not known here: use the address of [admin], or add the name to its `hosts`\n";
            return Some((StatusCode::MISDIRECTED_REQUEST, text).into_response());
        }
        let token = self.token.as_ref().filter(|token| !carries(headers, token));
        token.map(|_missing| {
            let text = "the token of [admin] is needed: Authorization: Bearer TOKEN\n";
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], text).into_response()
        })
    }

    /// RFC 9112 §3.2: exactly one Host; a target with an authority must name the same host.
    fn is_known_host(&self, headers: &HeaderMap, uri: &Uri, local: IpAddr) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let host = host.to_str().ok().and_then(host_of);
        let target = uri.authority().map(|authority| host_of(authority.as_str()));
        match (host, target) {
            (Some(host), None) => self.allows(&host, local),
            (Some(host), Some(Some(target))) => host == target && self.allows(&host, local),
            _ => false,
        }
    }

    fn allows(&self, host: &str, local: IpAddr) -> bool {
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // An address is not a name that someone can point elsewhere.
            Ok(ip) => ip.is_loopback() || ip.to_canonical() == local.to_canonical(),
            Err(_) => {
                let is_own = || self.hostname.borrow().eq_ignore_ascii_case(host);
                host == "localhost" || self.hosts.iter().any(|known| known == host) || is_own()
            }
        }
    }
}

async fn check(
    State(guard): State<Arc<Guard>>,
    ConnectInfo(LocalAddress(local)): ConnectInfo<LocalAddress>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match guard.refusal(request.headers(), request.uri(), local.ip()) {
        None => next.run(request).await,
        Some(refusal) => refusal,
    };
    let headers = response.headers_mut();
    for (name, value) in FIXED_HEADERS {
        headers.entry(name).or_insert(axum::http::HeaderValue::from_static(value));
    }
    response
}

/// Nothing here is a page, and nothing may be kept or embedded.
const FIXED_HEADERS: [(header::HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// `name` of `name:8025`, in lower case and without a final dot. An IPv6 address keeps its brackets.
fn host_of(text: &str) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let is_port = port.bytes().all(|octet| octet.is_ascii_digit());
    let host = host.strip_suffix('.').unwrap_or(host);
    (is_port && !host.is_empty()).then(|| host.to_ascii_lowercase())
}

/// RFC 6750 §2.1.
fn carries(headers: &HeaderMap, token: &Secret) -> bool {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let Some((scheme, given)) = field.to_str().ok().and_then(|field| field.split_once(' ')) else { return false };
    scheme.eq_ignore_ascii_case("bearer") && bool::from(given.trim().as_bytes().ct_eq(token.reveal().as_bytes()))
}

#[cfg(test)]
mod tests;
