//! The steps before a call that changes state: rate limit, body, turn.
//!
//! The whole body is read before the call takes a turn, so that a slow client does not delay other
//! clients.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::gate::{CallerRates, Gate, RATE_LIMIT_DELAY, RateKey, RateKind};
use crate::identity::{CallerKey, Grant};
use crate::record::Asker;

use super::Door;
use super::room::Seat;
use super::sessions::{Refused, bearer};

/// The time limit for a whole body.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit of one call. An exchange may have to fetch the keys of an issuer.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Calls of one route that are carried out at once.
pub(super) const MAX_CALLS: usize = 16;

/// The shared state of the calls of one route.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    gate: Arc<Gate>,
    /// Whether the calls count themselves, because their credential is in the body.
    count_themselves: bool,
    max_body: Option<usize>,
    turns: Arc<Semaphore>,
}

impl Calls {
    /// Calls with a body of at most `max_body` bytes.
    pub(super) fn new(gate: &Arc<Gate>, max_body: usize) -> Self {
        Self {
            max_body: Some(max_body),
            ..Self::that_read(gate)
        }
    }

    /// Calls that read their bodies themselves.
    pub(super) fn that_read(gate: &Arc<Gate>) -> Self {
        Self {
            gate: gate.clone(),
            count_themselves: false,
            max_body: None,
            turns: Arc::new(Semaphore::new(MAX_CALLS)),
        }
    }

    /// Calls that count themselves when they have read their credential.
    pub(super) fn that_count(self) -> Self {
        Self {
            count_themselves: true,
            ..self
        }
    }

    /// Counts the call, reads its body, and carries it out; answers at once if all turns are taken.
    pub(super) async fn run(self, mut request: Request, next: Next) -> Response {
        let grant = bearer(&self.gate, request.headers()).ok().flatten();
        let mut asker = request
            .extensions()
            .get::<Asker>()
            .cloned()
            .unwrap_or_default();
        asker.session = grant.as_ref().and_then(|grant| grant.session.clone());
        request.extensions_mut().insert(asker.clone());
        if !self.count_themselves {
            let report = bearer_token(request.headers()).and_then(|token| {
                self.gate
                    .report_tokens
                    .is_good(token, self.gate.clock.now())
            });
            let key =
                report.map_or_else(|| rate_key(&asker, grant.as_deref()), RateKey::ReportToken);
            let rates = self.gate.rates.of(key);
            if let Err(limited) = within(&self.gate, &rates, RateKind::Admin).await {
                return limited;
            }
        }
        let Some(max_body) = self.max_body else {
            return next.run(request).await;
        };
        let (head, body) = request.into_parts();
        let body = match whole(body, max_body).await {
            Ok(body) => body,
            Err(refused) => return refused.into_response(),
        };
        let request = Request::from_parts(head, body);
        self.carry_out(request, next).await
    }

    async fn carry_out(self, request: Request, next: Next) -> Response {
        let Ok(_turn) = self.turns.try_acquire() else {
            return busy();
        };
        let seat = request.extensions().get::<Arc<Seat>>();
        let _busy = seat.map(Seat::busy);
        let done = timeout(CALL_TIMEOUT, next.run(request)).await;
        done.unwrap_or_else(|_| busy())
    }
}

/// Reads a whole body.
async fn whole(body: Body, max_body: usize) -> Result<Body, Refused> {
    let Ok(read) = timeout(BODY_TIMEOUT, to_bytes(body, max_body)).await else {
        return Err(too_slow());
    };
    read.map(Body::from).map_err(|error| {
        let source = std::error::Error::source(&error);
        if source.is_some_and(<dyn std::error::Error>::is::<LengthLimitError>) {
            let detail = format!("the body has more than {max_body} bytes");
            return Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail);
        }
        Refused::new(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "the body is cut off",
        )
    })
}

/// The refusal of a body that did not arrive in time.
pub(super) fn too_slow() -> Refused {
    let detail = format!(
        "the body did not arrive within {} s",
        BODY_TIMEOUT.as_secs()
    );
    Refused::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail)
}

fn busy() -> Response {
    let detail = "too many such calls are being carried out; try again";
    let refused = Refused::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
    ([(header::RETRY_AFTER, "1")], refused).into_response()
}

/// The key by which a caller is counted: the session or subject of a valid token. Callers without a
/// token are counted separately, by their user at a Unix socket, else by their address.
pub(super) fn rate_key(asker: &Asker, grant: Option<&Grant>) -> RateKey {
    if let Some(grant) = grant {
        let session = grant.root.as_ref().or(grant.session.as_ref());
        return RateKey::Caller(match (session, &grant.subject) {
            (Some(session), _) => CallerKey::Session(session.clone()),
            (None, Some(subject)) => CallerKey::Subject(subject.clone()),
            (None, None) => CallerKey::Session(grant.id.clone()),
        });
    }
    match (asker.uid, asker.address) {
        (Some(uid), _) => RateKey::Uid(uid),
        (None, address) => {
            let address = address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
            // Callers of the admin listener are counted apart from those of proxy listeners.
            let nowhere = (std::net::Ipv4Addr::UNSPECIFIED, 0).into();
            RateKey::of_address(address, nowhere)
        }
    }
}

/// Counts one call; `Err` has the answer if the caller is over its limit, after a delay.
pub(super) async fn within(
    gate: &Gate,
    rates: &Arc<CallerRates>,
    kind: RateKind,
) -> Result<(), Response> {
    if rates.take(kind).is_ok() {
        return Ok(());
    }
    gate.metrics.rate_limited(kind.as_str());
    if let Some(_delay) = rates.delay() {
        tokio::time::sleep(RATE_LIMIT_DELAY).await;
    }
    let key = match kind {
        RateKind::Sessions => "session-rate",
        RateKind::Admin | RateKind::Connections | RateKind::Refusals => "admin-rate",
    };
    let detail =
        format!("this caller sends more calls than `limits.{key}` allows; try again later");
    let refused = Refused::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
    Err(([(header::RETRY_AFTER, "5")], refused).into_response())
}

/// Counts a call whose credential is in its body: calls with a valid credential are counted
/// separately.
pub(super) async fn call_within(
    gate: &Gate,
    asker: &Asker,
    grant: Option<&Grant>,
) -> Result<(), Response> {
    let rates = gate.rates.of(rate_key(asker, grant));
    within(gate, &rates, RateKind::Admin).await
}

/// Counts a session before its start.
pub(super) async fn session_within(
    gate: &Gate,
    asker: &Asker,
    grant: Option<&Grant>,
) -> Result<(), Response> {
    let rates = gate.rates.of(rate_key(asker, grant));
    within(gate, &rates, RateKind::Sessions).await
}

/// The token of an `Authorization: Bearer` field.
pub(super) fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Door {
    /// `tidegate.asker.door`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Control => "control",
            Self::Remote => "admin-tls",
        }
    }
}
