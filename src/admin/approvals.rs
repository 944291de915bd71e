//! `/v1/approvals`: reviewers look at requests for approval and settle them.
//!
//! A reviewer is the user of a process at a Unix socket, a client certificate, or an issuer's token as
//! `Authorization: Bearer`; `reviewers` of the request's tier has to name it. A session token settles
//! nothing: agents have them. At the control socket all requests are shown; elsewhere a reviewer sees
//! those of its tiers.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::gate::approvals::{Principal, Request, Scope, SettleError};
use crate::gate::{Gate, Snapshot};
use crate::identity::{Certificate, Evidence};
use crate::record::Asker;

use super::Door;
use super::body::{Calls, bearer_token};
use super::sessions::Refused;

/// Bytes of a call.
const BODY_SIZE: usize = 4 * 1024;
/// Characters of a reviewer's words.
const MAX_NOTE: usize = 160;

/// The certificate that the client of a connection proved to have.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown(pub(super) Option<Arc<Certificate>>);

/// The routes.
pub(super) fn routes(gate: &Arc<Gate>) -> Router {
    let calls = Calls::new(gate, BODY_SIZE);
    Router::new()
        .route("/v1/approvals", get(list))
        .route("/v1/approvals/{id}", get(show))
        .route("/v1/approvals/{id}/allow", post(allow))
        .route("/v1/approvals/{id}/deny", post(deny))
        .route("/v1/approvals/{id}/revoke", post(revoke))
        .layer(from_fn(move |request, next| {
            calls.clone().run(request, next)
        }))
        .with_state(gate.clone())
}

/// Who asks, by what its connection shows.
async fn principal(
    gate: &Gate,
    asker: &Asker,
    shown: &Shown,
    headers: &HeaderMap,
) -> Result<Principal, Refused> {
    if let Some(token) = bearer_token(headers) {
        return by_token(gate, token).await;
    }
    if let Some(certificate) = &shown.0 {
        return Ok(Principal {
            subject: certificate.subject.clone(),
            sans: certificate.sans.clone(),
            ..Principal::default()
        });
    }
    if asker.uid.is_none() {
        let why = "show who you are: connect to the control socket, or show a client certificate or \
                   an issuer's token as `Authorization: Bearer`";
        let status = StatusCode::UNAUTHORIZED;
        return Err(Refused::new(status, "identity_required", why));
    }
    Ok(Principal {
        uid: asker.uid,
        ..Principal::default()
    })
}

async fn by_token(gate: &Gate, token: &str) -> Result<Principal, Refused> {
    let invalid = |why: String| Refused::new(StatusCode::UNAUTHORIZED, "identity_invalid", why);
    let snapshot = gate.snapshot.load_full();
    let granted = snapshot.identity.granted(token).await;
    let grant = granted.map_err(|why| invalid(why.to_string()))?;
    if grant.evidence != Evidence::Oidc || !grant.verified {
        let why = "a session token settles nothing: agents have them";
        return Err(invalid(why.to_owned()));
    }
    Ok(Principal {
        uid: None,
        subject: grant.subject.clone(),
        claims: grant.claims.clone(),
        sans: Vec::new(),
        groups: grant.groups.clone(),
    })
}

/// Whether a principal may see a request.
fn may_see(snapshot: &Snapshot, door: Door, principal: &Principal, request: &Request) -> bool {
    let tier = request.facts.tier.as_deref().unwrap_or_default();
    let tier = snapshot.policy.tier(tier);
    door == Door::Control || tier.is_some_and(|it| principal.named(&snapshot.policy, it).is_some())
}

async fn list(
    State(gate): State<Arc<Gate>>,
    Extension(door): Extension<Door>,
    Extension(asker): Extension<Asker>,
    Extension(shown): Extension<Shown>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let principal = principal(&gate, &asker, &shown, &headers).await?;
    let snapshot = gate.snapshot.load_full();
    let seen = gate
        .requests
        .list(|request| may_see(&snapshot, door, &principal, request));
    let views: Vec<_> = seen.iter().map(Request::view).collect();
    Ok(Json(json!({ "requests": views })).into_response())
}

async fn show(
    State(gate): State<Arc<Gate>>,
    Extension(door): Extension<Door>,
    Extension(asker): Extension<Asker>,
    Extension(shown): Extension<Shown>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let principal = principal(&gate, &asker, &shown, &headers).await?;
    let request = gate.requests.get(id);
    let snapshot = gate.snapshot.load_full();
    let seen = request.filter(|it| may_see(&snapshot, door, &principal, it));
    let request = seen.ok_or(SettleError::Unknown)?;
    Ok(Json(request.view()).into_response())
}

/// What a reviewer says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settling {
    /// `once`, `session`, or a time such as `1h`; only to allow.
    scope: Option<String>,
    /// The reviewer's words.
    note: Option<String>,
}

impl Settling {
    fn note(&self) -> Option<Box<str>> {
        let note = self.note.as_deref().filter(|note| !note.is_empty())?;
        Some(note.chars().take(MAX_NOTE).collect())
    }

    fn without_scope(self) -> Result<Self, Refused> {
        match self.scope {
            None => Ok(self),
            Some(_) => Err(bad("only an approval has a scope")),
        }
    }
}

fn bad(why: &str) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "bad_request", why)
}

async fn allow(
    State(gate): State<Arc<Gate>>,
    Extension(asker): Extension<Asker>,
    Extension(shown): Extension<Shown>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(settling): Json<Settling>,
) -> Result<Response, Refused> {
    let principal = principal(&gate, &asker, &shown, &headers).await?;
    let scope = settling.scope.as_deref().unwrap_or_default();
    let scope: Scope = scope.parse().map_err(bad)?;
    let note = settling.note();
    let whole = gate
        .allow_request(id, &principal, &asker, scope, note)
        .await?;
    let state = if whole { "allowed" } else { "pending" };
    let request = gate.requests.get(id).map(|request| request.view());
    Ok(Json(json!({ "state": state, "request": request })).into_response())
}

async fn deny(
    State(gate): State<Arc<Gate>>,
    Extension(asker): Extension<Asker>,
    Extension(shown): Extension<Shown>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(settling): Json<Settling>,
) -> Result<Response, Refused> {
    let principal = principal(&gate, &asker, &shown, &headers).await?;
    let note = settling.without_scope()?.note();
    gate.deny_request(id, &principal, &asker, note).await?;
    Ok(Json(json!({ "state": "denied" })).into_response())
}

async fn revoke(
    State(gate): State<Arc<Gate>>,
    Extension(asker): Extension<Asker>,
    Extension(shown): Extension<Shown>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(settling): Json<Settling>,
) -> Result<Response, Refused> {
    let principal = principal(&gate, &asker, &shown, &headers).await?;
    let note = settling.without_scope()?.note();
    gate.revoke_approval(id, &principal, &asker, note).await?;
    Ok(Json(json!({ "state": "revoked" })).into_response())
}

impl From<SettleError> for Refused {
    fn from(error: SettleError) -> Self {
        let (status, word) = match error {
            SettleError::Unknown => (StatusCode::NOT_FOUND, "unknown_request"),
            SettleError::NotReviewer { .. } => (StatusCode::FORBIDDEN, "not_reviewer"),
            SettleError::Oneself(_) => (StatusCode::FORBIDDEN, "oneself"),
            SettleError::Twice(_) => (StatusCode::CONFLICT, "second_reviewer_needed"),
            SettleError::Settled(_) => (StatusCode::CONFLICT, "settled"),
            SettleError::CallerGone => (StatusCode::CONFLICT, "caller_gone"),
            SettleError::NoLongerAsked(_) => (StatusCode::CONFLICT, "no_longer_asked"),
            SettleError::Changed => (StatusCode::CONFLICT, "changed"),
            SettleError::TooLong(_) => (StatusCode::BAD_REQUEST, "too_long"),
            SettleError::NoSession => (StatusCode::BAD_REQUEST, "no_session"),
            SettleError::Full => (StatusCode::INSUFFICIENT_STORAGE, "full"),
            SettleError::NotInForce => (StatusCode::CONFLICT, "not_in_force"),
            SettleError::Record(error) => return error.into(),
        };
        Self::new(status, word, error.to_string())
    }
}
