//! `/v1/sessions`: starts, narrows, ends and revokes sessions.
//!
//! At the control socket, which only its owner can open, clients start sessions and revoke any
//! session. At the admin listener, which every process of this host can reach, the holder of a
//! session token starts a narrower child session, or ends its own session. Each change is recorded
//! with its asker.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::gate::{EndedSession, Gate, Ground, SessionRequest, StartError};
use crate::identity::{Grant, RevokeError, TokenError};
use crate::record::{Asker, RecordUnavailable};

use super::Door;
use super::body::{Calls, bearer_token, session_within};

/// Bytes of the body of a call, at most.
const MAX_BODY: usize = 64 * 1024;

/// The routes below `/v1/sessions`.
pub(super) fn routes(gate: &Arc<Gate>) -> Router {
    let calls = Calls::new(gate, MAX_BODY);
    Router::new()
        .route("/v1/sessions", post(start))
        .route("/v1/sessions/revoke", post(revoke))
        .route("/v1/sessions/end", post(end))
        .layer(from_fn(move |request, next| {
            calls.clone().run(request, next)
        }))
        .with_state(gate.clone())
}

/// The refusal of a call.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    error: &'static str,
    detail: String,
}

impl Refused {
    /// Creates a refusal with a word for programs and a sentence for people.
    pub(super) fn new(status: StatusCode, error: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            error,
            detail: detail.into(),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Problem {
            error: &'static str,
            detail: String,
        }
        let problem = Problem {
            error: self.error,
            detail: self.detail,
        };
        (self.status, Json(problem)).into_response()
    }
}

impl From<StartError> for Refused {
    fn from(error: StartError) -> Self {
        let (status, word) = match error {
            StartError::NoKey => (StatusCode::CONFLICT, "no_key"),
            StartError::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            StartError::Ground => (StatusCode::UNAUTHORIZED, "identity_invalid"),
            StartError::Record(error) => return error.into(),
        };
        Self::new(status, word, error.to_string())
    }
}

impl From<RecordUnavailable> for Refused {
    fn from(error: RecordUnavailable) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "record_unavailable", error.to_string())
    }
}

impl From<RevokeError> for Refused {
    fn from(error: RevokeError) -> Self {
        let (status, word) = match error {
            RevokeError::Name => (StatusCode::BAD_REQUEST, "bad_request"),
            RevokeError::File(_) => (StatusCode::INTERNAL_SERVER_ERROR, "not_kept"),
            RevokeError::Full => (StatusCode::INSUFFICIENT_STORAGE, "full"),
        };
        Self::new(status, word, error.to_string())
    }
}

/// The session of the token in `Authorization: Bearer`; `None` without a token.
pub(super) fn bearer(gate: &Gate, headers: &HeaderMap) -> Result<Option<Arc<Grant>>, Refused> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Ok(None);
    }
    let refused = |why: TokenError| {
        Refused::new(
            StatusCode::UNAUTHORIZED,
            "identity_invalid",
            why.to_string(),
        )
    };
    let token = bearer_token(headers).ok_or_else(|| refused(TokenError::Malformed))?;
    let snapshot = gate.snapshot.load();
    let grant = snapshot.identity.session(token).map_err(refused)?;
    Ok(Some(grant))
}

async fn start(
    State(gate): State<Arc<Gate>>,
    Extension(door): Extension<Door>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
    Json(request): Json<SessionRequest>,
) -> Result<Response, Refused> {
    let grant = bearer(&gate, &headers)?;
    let ground = match (&grant, door) {
        (Some(grant), _) => Ground::Grant(grant),
        (None, Door::Control) => Ground::Local,
        (None, Door::Admin | Door::Remote) => return Err(control_only("a session is started")),
    };
    if let Err(limited) = session_within(&gate, &asker, grant.as_deref()).await {
        return Ok(limited);
    }
    let started = gate.start_session(&request, ground, &asker).await?;
    Ok((StatusCode::CREATED, Json(started)).into_response())
}

pub(super) fn control_only(what: &str) -> Refused {
    Refused::new(
        StatusCode::FORBIDDEN,
        "control_only",
        format!("without a session token {what} at the control socket only"),
    )
}

/// The body of a revocation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    /// The id of a token or of a session; of an issuer's token, its `jti`.
    name: String,
}

async fn revoke(
    State(gate): State<Arc<Gate>>,
    Extension(door): Extension<Door>,
    Extension(asker): Extension<Asker>,
    Json(revoke): Json<Revoke>,
) -> Result<StatusCode, Refused> {
    if door != Door::Control {
        return Err(control_only("something is revoked"));
    }
    // Writing may block on the disk.
    let done = tokio::task::spawn_blocking(move || gate.revoke_by_name(&revoke.name, &asker)).await;
    ended(done.unwrap_or_else(|_| Err(RevokeError::Name).into())).await
}

/// Waits until the event of an end is written, and answers. The end holds even if it cannot be
/// recorded.
async fn ended(end: EndedSession) -> Result<StatusCode, Refused> {
    if let Some(event) = end.event {
        event.written().await?;
    }
    end.revoked?;
    Ok(StatusCode::NO_CONTENT)
}

/// The body of a call that ends a session.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    /// A session that may resume: the token's own, or one that descends from it. `None`: the
    /// token's own session, which ends for good.
    session: Option<String>,
}

async fn end(
    State(gate): State<Arc<Gate>>,
    Extension(door): Extension<Door>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
    body: Option<Json<End>>,
) -> Result<StatusCode, Refused> {
    let grant = bearer(&gate, &headers)?;
    let named = body.and_then(|Json(end)| end.session);
    match (&grant, &named) {
        (None, Some(_)) if door == Door::Control => {}
        (Some(grant), Some(named)) => descends(&gate, grant, named)?,
        (Some(_), None) => {}
        (None, _) => return Err(control_only("a session is ended")),
    }
    // Writing may block on the disk.
    let done = tokio::task::spawn_blocking(move || match (grant, named) {
        (_, Some(named)) => gate.finish_session(&named, "it ended", &asker),
        (Some(grant), None) => gate.end_session(&grant, "it ended", &asker),
        (None, None) => Ok(()).into(),
    });
    let done = done.await;
    ended(done.unwrap_or_else(|_| Err(RevokeError::Name).into())).await
}

/// Like [`descends`], for a session that begins: it may be new, or one that the agent resumes.
pub(super) fn speaks_for(gate: &Gate, grant: &Grant, session: &str) -> Result<(), Refused> {
    let snapshot = gate.snapshot.load();
    let sessions = snapshot.identity.sessions();
    let root = grant.root.as_ref().or(grant.session.as_ref());
    let taken = root.is_none_or(|root| sessions.is_taken(session, root, gate.clock.now()));
    let is_agent = grant.channel.as_deref() != Some("bash") && grant.is_root();
    if is_agent && !taken && is_id_of_agent(session) {
        return Ok(());
    }
    descends(gate, grant, session)
}

/// Whether a text has the form of an agent's session id: a UUID, or opencode's `ses_…`.
fn is_id_of_agent(text: &str) -> bool {
    let of_opencode = text.strip_prefix("ses_").is_some_and(|rest| {
        (8..=64).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    of_opencode || uuid::Uuid::try_parse(text).is_ok()
}

/// Allows a token to act for its own session and for sessions that descend from it. A token made
/// for a command acts for no agent.
pub(super) fn descends(gate: &Gate, grant: &Grant, session: &str) -> Result<(), Refused> {
    let snapshot = gate.snapshot.load();
    let sessions = snapshot.identity.sessions();
    let root = sessions.live(session).and_then(|live| live.root);
    // A child may have chosen an id that another session has now.
    let own = grant.session.as_deref() == Some(session) && (root.is_none() || root == grant.root);
    let named = (grant.root.as_deref()).is_some_and(|root| sessions.has_id(root, session));
    let child = (named || root.is_some() && root == grant.root) && grant.is_root();
    if grant.channel.as_deref() != Some("bash") && (own || child) {
        return Ok(());
    }
    Err(Refused::new(
        StatusCode::FORBIDDEN,
        "not_yours",
        "this token does not speak for that session",
    ))
}
