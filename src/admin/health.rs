//! /healthz: the process works. /readyz: mail can come in and go out. Each as JSON with the reasons.

use super::AdminState;
use crate::control::{GatewayStatus, LiveStatus, gather};
use crate::delivery::UpstreamStatus;
use crate::observe::log::Clean;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt;

/// What one of the two says.
#[derive(Debug, Serialize)]
pub struct HealthReport {
    pub ok: bool,
    version: &'static str,
    started_at: Option<Timestamp>,
    checks: Vec<HealthCheck>,
}

#[derive(Debug, Serialize)]
struct HealthCheck {
    name: &'static str,
    ok: bool,
    /// Why not; or what there is to know although it is well.
    reason: Option<String>,
}

pub(super) async fn alive(State(state): State<AdminState>) -> Response {
    HealthReport::of_process(&state.live.look()).into_response()
}

pub(super) async fn ready(State(state): State<AdminState>) -> Response {
    match gather(state.queue.as_ref(), Some(&state.live), state.clock.now()).await {
        Ok(status) => HealthReport::ready(&status).into_response(),
        Err(error) => {
            let storage = HealthCheck { name: "storage", ok: false, reason: Some(error.to_string()) };
            HealthReport::of(Some(state.live.look().started_at), vec![storage]).into_response()
        }
    }
}

impl HealthReport {
    /// True as long as the process answers: a restart cures nothing that [`HealthReport::ready`] complains about.
    pub fn alive(status: &GatewayStatus) -> Self {
        match &status.live {
            Some(live) => Self::of_process(live),
            None => Self::not_running(),
        }
    }

    /// The storage takes mail, a listener is open, and some upstream is well.
    pub fn ready(status: &GatewayStatus) -> Self {
        match &status.live {
            Some(live) => Self::of(Some(live.started_at), checks(live)),
            None => Self::not_running(),
        }
    }

    fn of_process(live: &LiveStatus) -> Self {
        let reason =
            (live.faults > 0).then(|| format!("{} faults of the program since the start; see the log", live.faults));
        Self::of(Some(live.started_at), vec![HealthCheck { name: "process", ok: true, reason }])
    }

    fn not_running() -> Self {
        let reason = Some("the gateway is not running".to_owned());
        Self::of(None, vec![HealthCheck { name: "process", ok: false, reason }])
    }

    fn of(started_at: Option<Timestamp>, checks: Vec<HealthCheck>) -> Self {
        let ok = checks.iter().all(|check| check.ok);
        Self { ok, version: env!("CARGO_PKG_VERSION"), started_at, checks }
    }
}

impl IntoResponse for HealthReport {
    fn into_response(self) -> Response {
        let code = if self.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (code, Json(self)).into_response()
    }
}

impl fmt::Display for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.ok { "healthy" } else { "not healthy" })?;
        let reasons = self.checks.iter().filter_map(|check| Some((check.name, check.reason.as_ref()?)));
        reasons.into_iter().try_for_each(|(name, reason)| write!(f, "; {name}: {}", Clean(reason)))
    }
}

fn checks(live: &LiveStatus) -> Vec<HealthCheck> {
    let no_listener = live.listeners.is_empty().then(|| "no listener is open: the gateway starts or stops".to_owned());
    let is_well = |upstream: &UpstreamStatus| upstream.state.is_well();
    let ill =
        live.upstreams.iter().filter(|upstream| !is_well(upstream)).map(|upstream| {
            format!("{}: {}", upstream.name, upstream.reason.as_deref().unwrap_or("it cannot be used"))
        });
    let ill: Vec<String> = ill.collect();
    vec![
        HealthCheck { name: "storage", ok: live.storage.is_none(), reason: live.storage.clone() },
        HealthCheck { name: "listeners", ok: no_listener.is_none(), reason: no_listener },
        HealthCheck {
            name: "upstreams",
            ok: live.upstreams.iter().any(is_well),
            reason: (!ill.is_empty()).then(|| ill.join("; ")),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::UpstreamState;

    fn upstream(name: &str, state: UpstreamState) -> UpstreamStatus {
        UpstreamStatus {
            name: name.into(),
            state,
            reason: (!state.is_well()).then(|| "535 no".into()),
            until: None,
            connections: 0,
            connections_allowed: 4,
            quotas: Vec::new(),
            is_sandbox: false,
        }
    }

    #[test]
    fn it_is_ready_while_one_upstream_is_well_and_names_the_others() {
        let well = LiveStatus { listeners: vec!["127.0.0.1:2525".into()], ..LiveStatus::default() };
        let with = |states: &[UpstreamState]| LiveStatus {
            upstreams: states.iter().map(|state| upstream("company", *state)).collect(),
            ..well.clone()
        };
        use UpstreamState::*;
        for (live, code, words) in [
            (with(&[Available]), 200, ""),
            (with(&[Recovering]), 200, ""),
            (with(&[Unavailable, Available]), 200, "company: 535 no"),
            (with(&[Unavailable]), 503, "company: 535 no"),
            (with(&[QuotaReached]), 503, "company: 535 no"),
            (LiveStatus { listeners: Vec::new(), ..with(&[Available]) }, 503, "no listener"),
            (LiveStatus { storage: Some("the disk is full".into()), ..with(&[Available]) }, 503, "the disk is full"),
        ] {
            let report = HealthReport::of(None, checks(&live));
            let text = serde_json::to_string(&report).expect("JSON");
            assert_eq!(report.ok, code == 200, "{text}");
            assert!(text.contains(words), "{text}");
            assert_eq!(report.into_response().status(), code);
        }
    }
}
