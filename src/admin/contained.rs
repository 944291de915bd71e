//! `/v1/contained`: what `tidegate doctor --report` found in the place of an agent.
//!
//! The gate itself stands outside of the agent's confinement and cannot probe it. A report is what
//! somebody says who can reach this door: good for an alert, never a ground for a permission.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;

use crate::gate::Gate;

use super::sessions::Refused;

/// Bytes of a report.
const BODY_SIZE: usize = 4 * 1024;

/// The route.
pub(super) fn routes(gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/v1/contained", post(contained))
        .layer(DefaultBodyLimit::max(BODY_SIZE))
        .with_state(gate)
}

/// By probe: whether it stayed inside. What is left out was not probed.
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
    Json(report): Json<Report>,
) -> Result<StatusCode, Refused> {
    let probes = report.probes();
    if probes.iter().all(|(_, contained)| contained.is_none()) {
        let why = "name a probe: tcp, udp, dns, ipv6, metadata or unix";
        return Err(Refused::new(StatusCode::BAD_REQUEST, "bad_request", why));
    }
    gate.metrics
        .contained(&probes, gate.clock.now().as_second());
    Ok(StatusCode::NO_CONTENT)
}
