//! Every route of the router. Nothing is reachable that is not in this table.

use super::{AdminState, exposition, health};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get};

/// Path and handler. A test asks each of them with a foreign Host and without a token.
pub(super) fn all() -> Vec<(&'static str, MethodRouter<AdminState>)> {
    vec![("/healthz", get(health::alive)), ("/readyz", get(health::ready)), ("/metrics", get(exposition::metrics))]
}

pub(super) fn router(state: AdminState) -> Router {
    let router = all().into_iter().fold(Router::new(), |router, (path, handler)| router.route(path, handler));
    router.fallback(async || StatusCode::NOT_FOUND).with_state(state)
}
