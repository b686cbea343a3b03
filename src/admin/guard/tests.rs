//! Every route is asked as a web page of another host would ask, and without the token, under every spelling of its path.

use super::*;
use crate::admin::{AdminState, routes};
use crate::control::{LiveStatus, LiveWatch};
use crate::observe::Clock;
use crate::observe::metrics::MetricsRegistry;
use crate::queue::testing::MemoryQueue;
use axum::body::{Body, to_bytes};
use tower::ServiceExt as _;

const TOKEN: &str = "t0ken-of-the-test";
const LOCAL: &str = "192.0.2.7:8025";

fn router(token: Option<&str>) -> Router {
    let options =
        AdminOptions { address: LOCAL.parse().expect("an address"), hosts: Vec::new(), token: token.map(Secret::new) };
    let listeners = vec!["127.0.0.1:2525".to_owned()];
    let live = LiveWatch::new(move || LiveStatus { listeners: listeners.clone(), ..LiveStatus::default() });
    let queue = Arc::new(MemoryQueue::default());
    let state = AdminState { queue, live, metrics: MetricsRegistry::new(), clock: Clock::System };
    let hostname = watch::Sender::new("Gateway.Example.com".to_owned());
    Guard::new(&options, hostname.subscribe()).around(routes::router(state))
}

/// `headers`: name and value.
async fn ask(router: &Router, target: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let request = headers.iter().fold(Request::builder().uri(target), |it, (name, value)| it.header(*name, *value));
    let mut request = request.body(Body::empty()).expect("a request");
    request.extensions_mut().insert(ConnectInfo(LocalAddress(LOCAL.parse().expect("an address"))));
    let response = router.clone().oneshot(request).await.expect("an answer");
    let code = response.status().as_u16();
    assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{target}: {code}");
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (code, String::from_utf8_lossy(&body).into_owned())
}

/// The same path in other spellings, some of which a router or a proxy may take for it.
fn spellings(path: &str) -> Vec<String> {
    let name = &path[1..];
    let first = format!("%{:02x}", name.as_bytes()[0]);
    let all_escaped: String = name.bytes().map(|octet| format!("%{octet:02X}")).collect();
    vec![
        path.to_owned(),
        format!("/{first}{}", &name[1..]),
        format!("/{all_escaped}"),
        format!("//{name}"),
        format!("/./{name}"),
        format!("/x/../{name}"),
        format!("/{name}/"),
        format!("/{name}?token={TOKEN}"),
        format!("/{name}%00"),
        format!("/{name};a=b"),
        format!("http://evil.example/{name}"),
    ]
}

fn routes_of_all() -> Vec<&'static str> {
    routes::all().into_iter().map(|(path, _)| path).collect()
}

#[tokio::test]
async fn no_route_answers_for_a_foreign_host_or_without_the_token_however_it_is_spelled() {
    let (open, closed) = (router(None), router(Some(TOKEN)));
    let bearer = format!("Bearer {TOKEN}");
    let mut asked = 0;
    for target in routes_of_all().into_iter().flat_map(spellings) {
        for host in
            ["evil.example", "localhost.evil.example", "evil.example:8025", "192.0.2.8", "", "localhost:x", "[::2]"]
        {
            for headers in [&[("host", host)][..], &[("host", host), ("authorization", &bearer)]] {
                for router in [&open, &closed] {
                    let (code, _) = ask(router, &target, headers).await;
                    assert_eq!(code, 421, "{target} for {host:?}");
                    asked += 1;
                }
            }
        }
        for headers in [&[][..], &[("host", "localhost"), ("host", "evil.example")]] {
            assert_eq!(ask(&open, &target, headers).await.0, 421, "{target}: {headers:?}");
        }
        for wrong in ["", "Bearer", "Bearer ", "Bearer wrong", "Basic dDBrZW4=", TOKEN, "Bearer t0ken-of-the-tes"] {
            let (code, body) = ask(&closed, &target, &[("host", "localhost"), ("authorization", wrong)]).await;
            assert!(code == 401 || code == 421, "{target} with {wrong:?}: {code}");
            assert!(!body.contains(TOKEN), "{body}");
        }
        assert!([401, 421].contains(&ask(&closed, &target, &[("host", "localhost")]).await.0), "{target}");
    }
    assert!(asked > 500, "{asked}");
}

#[tokio::test]
async fn known_hosts_are_answered_and_only_exact_paths_exist() {
    let (open, closed) = (router(None), router(Some(TOKEN)));
    let bearer = format!("bearer {TOKEN}");
    for host in [
        "localhost",
        "LOCALHOST:8025",
        "127.0.0.1",
        "127.0.0.1:8025",
        "[::1]:8025",
        "[::1]",
        "192.0.2.7:8025",
        "gateway.example.com",
        "Gateway.Example.com.:8025",
    ] {
        for path in routes_of_all() {
            assert_eq!(ask(&open, path, &[("host", host)]).await.0, ready_code(path), "{host} {path}");
            let headers = [("host", host), ("authorization", bearer.as_str())];
            assert_eq!(ask(&closed, path, &headers).await.0, ready_code(path), "{host} {path}");
        }
    }
    for other in routes_of_all().into_iter().flat_map(|path| spellings(path).split_off(1)) {
        let expected = if other.contains('?') { ready_code(&other[..other.find('?').unwrap()]) } else { 404 };
        let (code, _) = ask(&open, &other, &[("host", "localhost")]).await;
        assert!(code == expected || code == 421, "{other}: {code}");
    }
}

/// The test's gateway has no upstream, so it is not ready.
fn ready_code(path: &str) -> u16 {
    if path == "/readyz" { 503 } else { 200 }
}

#[tokio::test]
async fn only_get_is_allowed_and_a_body_is_bounded() {
    let router = router(None);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        for path in routes_of_all() {
            let request = Request::builder().method(method).uri(path).header("host", "localhost");
            let mut request = request.body(Body::from(vec![b'x'; MAX_BODY])).expect("a request");
            request.extensions_mut().insert(ConnectInfo(LocalAddress(LOCAL.parse().expect("an address"))));
            let code = router.clone().oneshot(request).await.expect("an answer").status().as_u16();
            assert_eq!(code, 405, "{method} {path}");
        }
    }
    let length = (MAX_BODY + 1).to_string();
    let (code, _) = ask(&router, "/metrics", &[("host", "localhost"), ("content-length", &length)]).await;
    assert_eq!(code, 413);
}
