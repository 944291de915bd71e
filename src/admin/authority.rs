//! `GET /v1/authority`: the certificates that callers of an inspecting gate have to trust, as PEM.
//!
//! Served at the control socket only, where the kernel identifies the user of the gate's process: a
//! client never trusts the certificate of another process.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::gate::Gate;
use crate::tls;

use super::Door;
use super::sessions::control_only;

/// The route.
pub(super) fn routes(gate: &Arc<Gate>) -> Router {
    Router::new()
        .route("/v1/authority", get(authority))
        .with_state(gate.clone())
}

/// Answers 204 if the gate inspects nothing.
async fn authority(State(gate): State<Arc<Gate>>, Extension(door): Extension<Door>) -> Response {
    if door != Door::Control {
        return control_only("the authority is shown").into_response();
    }
    match &gate.snapshot.load().authority {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(authority) => {
            let kind = [(header::CONTENT_TYPE, "application/x-pem-file")];
            (kind, tls::pem(authority.published())).into_response()
        }
    }
}
