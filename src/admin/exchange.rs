//! `POST /v1/sessions/exchange`: exchanges a token of an issuer or of a session for a session token
//! (RFC 8693). The token is its own evidence, so every listener accepts it.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::gate::{Gate, Ground, SessionRequest, StartError, Started};
use crate::identity::{Grant, NarrowClaim};
use crate::record::Asker;

use super::body::{Calls, call_within, session_within};
use super::sessions::Refused;

/// Bytes of a form, at most.
const MAX_BODY: usize = 64 * 1024;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The route.
pub(super) fn routes(gate: &Arc<Gate>) -> Router {
    let calls = Calls::new(gate, MAX_BODY).that_count();
    Router::new()
        .route("/v1/sessions/exchange", post(exchange))
        .layer(from_fn(move |request, next| {
            calls.clone().run(request, next)
        }))
        .with_state(gate.clone())
}

/// The form. An unknown field could be meant to restrict, so the form is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    grant_type: String,
    subject_token: String,
    subject_token_type: String,
    requested_token_type: Option<String>,
    /// Categories, or `category:action`: the limits of the session.
    scope: Option<String>,
    /// A tier that limits the session.
    tier: Option<String>,
    session: Option<String>,
    agent: Option<String>,
    channel: Option<String>,
    permission_mode: Option<String>,
    lifetime: Option<u64>,
}

#[derive(Serialize)]
struct Granted {
    access_token: String,
    issued_token_type: &'static str,
    token_type: &'static str,
    expires_in: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    session: String,
    tier: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    repository_trust: &'static str,
    trust: &'static str,
}

/// An error response (RFC 6749, section 5.2).
struct Problem {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl Problem {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            description: description.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "error": self.error,
            "error_description": self.description,
        });
        (
            self.status,
            [(header::CACHE_CONTROL, "no-store")],
            Json(body),
        )
            .into_response()
    }
}

async fn exchange(
    State(gate): State<Arc<Gate>>,
    Extension(by): Extension<Asker>,
    form: Result<Form<Asked>, FormRejection>,
) -> Result<Response, Problem> {
    let presented = presented(&gate, form).await;
    let valid = presented.as_ref().ok().map(|(_, grant)| &**grant);
    if let Err(limited) = call_within(&gate, &by, valid).await {
        return Ok(limited);
    }
    let (asked, grant) = presented?;
    if let Err(limited) = session_within(&gate, &by, Some(&grant)).await {
        return Ok(limited);
    }
    let session_request = session_request(&asked);
    let started = gate
        .start_session(&session_request, Ground::Grant(&grant), &by)
        .await;
    if let Err(StartError::Record(error)) = started {
        return Ok(Refused::from(error).into_response());
    }
    let started = started.map_err(|error| {
        let why = error.to_string();
        match error {
            StartError::NoKey => Problem::new("unsupported_grant_type", why),
            StartError::BadRequest(_) if asked.scope.is_some() => {
                Problem::new("invalid_scope", why)
            }
            StartError::BadRequest(_) | StartError::Ground | StartError::Record(_) => {
                Problem::new("invalid_request", why)
            }
        }
    })?;
    let now = gate.clock.now().as_second();
    Ok(granted(started, asked.scope, now))
}

/// Reads the form, and verifies its token.
async fn presented(
    gate: &Gate,
    form: Result<Form<Asked>, FormRejection>,
) -> Result<(Asked, Arc<Grant>), Problem> {
    let Form(asked) = form.map_err(|_| {
        let why = "each known parameter once: grant_type, subject_token, subject_token_type, \
                   requested_token_type, scope, tier, session, agent, channel, permission_mode, \
                   lifetime";
        Problem::new("invalid_request", why)
    })?;
    understood(&asked)?;
    let snapshot = gate.snapshot.load_full();
    let grant = snapshot.identity.granted(&asked.subject_token).await;
    let grant = grant.map_err(|why| Problem::new("invalid_request", why.to_string()))?;
    Ok((asked, grant))
}

fn understood(asked: &Asked) -> Result<(), Problem> {
    if asked.grant_type != GRANT_TYPE {
        let why = format!("the grant type is `{GRANT_TYPE}`");
        return Err(Problem::new("unsupported_grant_type", why));
    }
    if ![JWT, ID_TOKEN, ACCESS_TOKEN].contains(&&*asked.subject_token_type) {
        let why = format!("the subject token's type is `{JWT}` or `{ID_TOKEN}`");
        return Err(Problem::new("invalid_request", why));
    }
    let wanted = asked.requested_token_type.as_deref();
    if wanted.is_some_and(|wanted| ![JWT, ACCESS_TOKEN].contains(&wanted)) {
        let why = format!("only tokens of the type `{ACCESS_TOKEN}` are issued");
        return Err(Problem::new("invalid_request", why));
    }
    Ok(())
}

fn session_request(asked: &Asked) -> SessionRequest {
    let words = |text: &String| text.split_ascii_whitespace().map(str::to_owned).collect();
    SessionRequest {
        session: asked.session.clone(),
        agent: asked.agent.clone(),
        channel: asked.channel.clone(),
        permission_mode: asked.permission_mode.clone(),
        lifetime: asked.lifetime,
        narrow: NarrowClaim {
            tiers: asked.tier.iter().cloned().collect(),
            within: asked.scope.as_ref().map(words),
        },
        ..SessionRequest::default()
    }
}

fn granted(started: Started, scope: Option<String>, now: i64) -> Response {
    let granted = Granted {
        access_token: started.token,
        issued_token_type: ACCESS_TOKEN,
        token_type: "Bearer",
        expires_in: started.expires.as_second().saturating_sub(now),
        scope,
        session: started.session,
        tier: started.tier,
        repository: started.repository,
        repository_trust: started.repository_trust,
        trust: started.trust,
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(granted)).into_response()
}
