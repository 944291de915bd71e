//! `/v1/contained`: the results of `tidegate doctor --report` in the environment of an agent.
//!
//! The gate runs outside of the agent's confinement and cannot probe it. A report needs a token
//! that the operator makes at the control socket. A report from inside the agent's environment may
//! be false: it can raise an alert, but never justify a permission.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;

use crate::gate::Gate;
use crate::record::{Asker, Event};

use super::Door;
use super::body::{Calls, bearer_token};
use super::sessions::{Refused, control_only};

/// Bytes of a report, at most.
const MAX_BODY: usize = 4 * 1024;
/// The default and the maximum lifetime of a token, in seconds.
const TOKEN_LIFETIME: u32 = 15 * 60;
const MAX_TOKEN_LIFETIME: u32 = 7 * 24 * 3600;
/// Reports of one token, at most.
const MAX_REPORTS: u32 = 10_000;

/// The routes.
pub(super) fn routes(gate: &Arc<Gate>) -> Router {
    let calls = Calls::new(gate, MAX_BODY);
    Router::new()
        .route("/v1/contained", post(contained))
        .route("/v1/contained/token", post(token))
        .layer(from_fn(move |request, next| {
            calls.clone().run(request, next)
        }))
        .with_state(gate.clone())
}

/// For each probe, whether the probe stayed inside. An absent probe was not run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    tcp: Option<bool>,
    udp: Option<bool>,
    dns: Option<bool>,
    ipv6: Option<bool>,
    metadata: Option<bool>,
    unix: Option<bool>,
}

impl Report {
    fn probes(&self) -> [(&'static str, Option<bool>); 6] {
        [
            ("tcp", self.tcp),
            ("udp", self.udp),
            ("dns", self.dns),
            ("ipv6", self.ipv6),
            ("metadata", self.metadata),
            ("unix", self.unix),
        ]
    }
}

async fn contained(
    State(gate): State<Arc<Gate>>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
    Json(report): Json<Report>,
) -> Result<StatusCode, Refused> {
    let probes = report.probes();
    if probes.iter().all(|(_, contained)| contained.is_none()) {
        let why = "name a probe: tcp, udp, dns, ipv6, metadata or unix";
        return Err(Refused::new(StatusCode::BAD_REQUEST, "bad_request", why));
    }
    let now = gate.clock.now();
    let token = bearer_token(&headers);
    if !token.is_some_and(|token| gate.report_tokens.take(token, now)) {
        let why = "a report needs a token: `tidegate doctor --report-token` makes one at the \
                   control socket";
        let (status, word) = (StatusCode::UNAUTHORIZED, "identity_required");
        return Err(Refused::new(status, word, why));
    }
    let those = |wanted: bool| {
        let named = probes.iter().filter(|(_, found)| *found == Some(wanted));
        named.map(|(name, _)| *name).collect()
    };
    let event = gate.recorder.queue_event(&Event::ContainmentReported {
        inside: those(true),
        outside: those(false),
        asker,
    });
    event.written().await?;
    gate.metrics.contained(&probes, now.as_second());
    Ok(StatusCode::NO_CONTENT)
}

/// A request for a report token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    /// The lifetime in seconds.
    lifetime: Option<u32>,
    /// The number of reports; 1 by default.
    reports: Option<u32>,
}

async fn token(
    State(gate): State<Arc<Gate>>,
    Extension(door): Extension<Door>,
    Extension(asker): Extension<Asker>,
    Json(request): Json<TokenRequest>,
) -> Result<Response, Refused> {
    if door != Door::Control {
        return Err(control_only("a token for reports is made"));
    }
    let lifetime = request.lifetime.unwrap_or(TOKEN_LIFETIME);
    let reports = request.reports.unwrap_or(1);
    if !(1..=MAX_TOKEN_LIFETIME).contains(&lifetime) || !(1..=MAX_REPORTS).contains(&reports) {
        let why = "a token holds for 1 to 604800 seconds and is good for 1 to 10000 reports";
        return Err(Refused::new(StatusCode::BAD_REQUEST, "bad_request", why));
    }
    let event = gate.recorder.queue_event(&Event::ReportTokenMade {
        lifetime,
        count: reports,
        asker,
    });
    event.written().await?;
    let span = SignedDuration::from_secs(lifetime.into());
    let made = gate.report_tokens.make(span, reports, gate.clock.now());
    let token = made.ok_or_else(|| {
        let why = "the system gives no random bytes";
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "no_random", why)
    })?;
    let made = json!({ "token": token, "expires_in": lifetime, "reports": reports });
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}
