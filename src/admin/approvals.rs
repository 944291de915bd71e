//! `/v1/approvals`: reviewers list and settle requests for approval.
//!
//! A reviewer is the user of a process at a Unix socket, a client certificate, or an issuer's token
//! as `Authorization: Bearer`; `reviewers` of the request's tier has to name the reviewer. A
//! session token can settle no request: agents have session tokens. The control socket shows all
//! requests; elsewhere a reviewer sees the requests of its tiers.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::gate::Gate;
use crate::gate::approvals::{Principal, Request, Scope, SettleError};
use crate::identity::{Certificate, Evidence};
use crate::ledger::{LedgerError, Refused as Reason, StoreError};
use crate::policy::Policy;
use crate::record::Asker;

use super::Door;
use super::body::{Calls, bearer_token};
use super::sessions::Refused;

/// Bytes of the body of a call, at most.
const MAX_BODY: usize = 4 * 1024;
/// Characters of a reviewer's note, at most.
const MAX_NOTE: usize = 160;

/// The verified certificate of the client of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown(pub(super) Option<Arc<Certificate>>);

/// The routes.
pub(super) fn routes(gate: &Arc<Gate>) -> Router {
    let calls = Calls::new(gate, MAX_BODY);
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

/// A call, and the principal of its connection or its token.
struct Caller {
    gate: Arc<Gate>,
    door: Door,
    asker: Asker,
    principal: Principal,
}

impl FromRequestParts<Arc<Gate>> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, gate: &Arc<Gate>) -> Result<Self, Refused> {
        let extensions = &parts.extensions;
        let asker: Asker = extensions.get().cloned().unwrap_or_default();
        let shown: Shown = extensions.get().cloned().unwrap_or_default();
        let Some(door) = extensions.get().copied() else {
            return Err(unknown_caller());
        };
        let principal = principal(gate, &asker, &shown, &parts.headers).await?;
        Ok(Self {
            gate: gate.clone(),
            door,
            asker,
            principal,
        })
    }
}

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
        return Err(unknown_caller());
    }
    Ok(Principal {
        uid: asker.uid,
        ..Principal::default()
    })
}

fn unknown_caller() -> Refused {
    let why = "show who you are: connect to the control socket, or show a client certificate or an \
               issuer's token as `Authorization: Bearer`";
    Refused::new(StatusCode::UNAUTHORIZED, "identity_required", why)
}

async fn by_token(gate: &Gate, token: &str) -> Result<Principal, Refused> {
    let invalid = |why: String| Refused::new(StatusCode::UNAUTHORIZED, "identity_invalid", why);
    let snapshot = gate.snapshot.load_full();
    let granted = snapshot.identity.granted(token).await;
    let grant = granted.map_err(|why| invalid(why.to_string()))?;
    if grant.evidence != Evidence::Oidc || !grant.verified {
        let why = "a session token cannot settle requests: agents have session tokens";
        return Err(invalid(why.to_owned()));
    }
    Ok(Principal {
        uid: None,
        subject: grant.subject.clone(),
        claims: grant.claims.clone(),
        sans: Vec::new(),
        groups: grant.groups.clone(),
        is_first_reader: false,
    })
}

impl Caller {
    /// Whether the principal may see a request.
    fn may_see(&self, policy: &Policy, request: &Request) -> bool {
        let tier = policy.tier(request.facts.tier.as_deref().unwrap_or_default());
        let is_reviewer = |tier| self.principal.named(policy, tier).is_some();
        self.door == Door::Control || tier.is_some_and(is_reviewer)
    }
}

async fn list(caller: Caller) -> Response {
    let snapshot = caller.gate.snapshot.load_full();
    let may_see = |request: &Request| caller.may_see(&snapshot.policy, request);
    let seen = caller.gate.requests.list(may_see);
    let views: Vec<_> = seen.iter().map(Request::view).collect();
    Json(json!({ "requests": views })).into_response()
}

async fn show(caller: Caller, Path(id): Path<Uuid>) -> Result<Response, Refused> {
    let request = caller.gate.requests.get(id);
    let snapshot = caller.gate.snapshot.load_full();
    let seen = request.filter(|it| caller.may_see(&snapshot.policy, it));
    let request = seen.ok_or(SettleError::Unknown)?;
    Ok(Json(request.view()).into_response())
}

/// The settlement sent by a reviewer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settling {
    /// `once`, `session`, or a time such as `1h`; only to allow.
    scope: Option<String>,
    /// The note of the reviewer.
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
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(settling): Json<Settling>,
) -> Result<Response, Refused> {
    let scope = settling.scope.as_deref().unwrap_or_default();
    let scope: Scope = scope.parse().map_err(bad)?;
    let note = settling.note();
    let gate = caller.gate.clone();
    let whole = finish(&gate, async move {
        let Caller { gate, .. } = &caller;
        gate.allow_request(id, &caller.principal, &caller.asker, scope, note)
            .await
    });
    let state = if whole.await? { "allowed" } else { "pending" };
    let request = gate.requests.get(id).map(|request| request.view());
    Ok(Json(json!({ "state": state, "request": request })).into_response())
}

async fn deny(
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(settling): Json<Settling>,
) -> Result<Response, Refused> {
    let note = settling.without_scope()?.note();
    let gate = caller.gate.clone();
    finish(&gate, async move {
        let Caller { gate, .. } = &caller;
        gate.deny_request(id, &caller.principal, &caller.asker, note)
            .await
    })
    .await?;
    Ok(Json(json!({ "state": "denied" })).into_response())
}

async fn revoke(
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(settling): Json<Settling>,
) -> Result<Response, Refused> {
    let note = settling.without_scope()?.note();
    let gate = caller.gate.clone();
    finish(&gate, async move {
        let Caller { gate, .. } = &caller;
        gate.revoke_approval(id, &caller.principal, &caller.asker, note)
            .await
    })
    .await?;
    Ok(Json(json!({ "state": "revoked" })).into_response())
}

/// Settles in a task of its own, so that a closed connection does not interrupt the settlement.
async fn finish<T: Send + 'static>(
    gate: &Gate,
    settling: impl Future<Output = Result<T, SettleError>> + Send + 'static,
) -> Result<T, Refused> {
    let settled = gate.attendants.spawn(settling).await;
    let settled = settled.map_err(|error| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Refused::new(status, "internal_error", error.to_string())
    })?;
    Ok(settled?)
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
            SettleError::Ledger(error) => return (&error).into(),
            SettleError::EndedHereOnly(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ledger_unavailable")
            }
        };
        Self::new(status, word, error.to_string())
    }
}

impl From<&LedgerError> for Refused {
    fn from(error: &LedgerError) -> Self {
        let (status, word) = match error {
            LedgerError::Refused(Reason::NoException(_)) => (StatusCode::NOT_FOUND, "not_found"),
            LedgerError::Refused(_) => (StatusCode::CONFLICT, "conflict"),
            LedgerError::Store(StoreError::Unknown(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ledger_unknown")
            }
            LedgerError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "ledger_unavailable"),
        };
        Self::new(status, word, error.to_string())
    }
}
