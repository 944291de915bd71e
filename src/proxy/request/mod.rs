//! One request, decided, forwarded and answered: plain HTTP in absolute form, or a request inside
//! an inspected tunnel.

pub(super) mod age;
mod credentials;
mod exchange;
mod index;
pub(super) mod internal;
mod judge;
pub(super) mod origin;
mod peek;
mod reply;
mod requests;
pub(super) mod route;
mod said;
mod tools;
mod upload;

use std::io;

use crate::http::http1::{Method, RequestHead, via_before, via_has};
use crate::http::http2::onward_request;
use crate::metrics::FlowKind;
use crate::name::{Target, TargetError, Url};
use crate::proxy::connection::Connection;
use crate::proxy::flow::Flow;
use crate::proxy::refusal::{Code, Refusal};
use crate::record::TlsMode;
use crate::tls::TlsFailure;

use exchange::{Broken, Exchange, silent_origin, unknown_to_parent};
use origin::OriginStream;
use route::{Route, Way, tls_failed};
use tools::Tools;

/// The state of the client's connection after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum After {
    /// Reset: the answer broke off, and must not look complete.
    Abort,
    /// Closed orderly.
    Close,
    /// Ready for the next request.
    Keep,
}

/// Answers one request; returns the state of the connection.
pub(super) async fn forward(connection: &mut Connection, head: &mut RequestHead) -> After {
    let Some(mut flow) = connection.begin(FlowKind::Http).await else {
        return After::Close;
    };
    match Box::pin(request(connection, &mut flow, head)).await {
        Ok(after) => {
            flow.record_end().await;
            after
        }
        Err(refusal) => {
            // An unread body would be parsed as the next request, and so would bytes sent early
            // into a tunnel that did not open (RFC 9931).
            let ahead = head.method == Method::Connect || !head.body.is_empty();
            let keep = head.keep_alive && !ahead;
            let head_only = head.method == Method::Head;
            let refusing = connection.refuse(&mut flow, &refusal, !keep, head_only);
            let told = Box::pin(refusing).await;
            // After a partial answer, the client would read the next answer as the rest of it.
            if keep && told {
                After::Keep
            } else {
                After::Close
            }
        }
    }
}

/// The stages of a request, in order.
async fn request(
    connection: &mut Connection,
    flow: &mut Flow,
    head: &mut RequestHead,
) -> Result<After, Refusal> {
    let url = aim(connection, flow, head).await?;
    let known = connection.identify(flow, head).await?;
    if connection.gate().draining.is_cancelled() {
        return Err(Code::Draining.into());
    }
    if internal::is_own(&url.target) {
        return Box::pin(internal::answer(connection, flow, head, &url, &known)).await;
    }
    let (decision, asked) = judge::request(connection, flow, &known, &url, head).await?;
    if head.upgrade().is_some() && !decision.upgrade {
        let detail = "no rule lets this request become another protocol";
        return Err(Refusal::because(Code::ActionDenied, detail));
    }
    let aged = age::Request {
        known: &known,
        url: &url,
        head,
        decision: &decision,
    };
    aged.check(flow, &asked).await?;
    let tools = Tools::of(flow, &known, &url, &asked);
    let inside = connection.inside.clone();
    let mut way = Way::new(flow, (&known, &url.target), &decision, inside.as_ref());
    way.upgrade = head.upgrade().is_some() && !head.extended;
    let route = way.obtain(flow, asked).await?;
    let Some(open) = flow.open.clone() else {
        return Ok(After::Close);
    };
    let clock = flow.gate.clock.clone();
    let began = clock.instant();
    let exchange = Exchange {
        head,
        url: &url,
        upgrade: decision.upgrade,
        tools,
        open,
        clock,
        began,
    };
    flow.close.requests = 1;
    run(connection, flow, &exchange, &way, route).await
}

/// Runs the exchange, again if the connection proved closed.
async fn run(
    connection: &mut Connection,
    flow: &mut Flow,
    exchange: &Exchange<'_>,
    way: &Way<'_>,
    mut route: Route,
) -> Result<After, Refusal> {
    let mut named_again = false;
    loop {
        let reused = route.reused;
        let ran = match begin(connection, exchange, &mut route).await {
            Ok(()) => exchange.run(connection, flow, route, way).await,
            Err(broken) => Err(broken),
        };
        match ran {
            Ok(after) => return Ok(after),
            Err(Broken::Unknown) if !named_again => {
                named_again = true;
                route = Box::pin(way.redial(flow)).await?;
            }
            Err(Broken::Unknown) => return Err(unknown_to_parent()),
            Err(Broken::Stale) if reused => route = Box::pin(way.redial(flow)).await?,
            Err(Broken::Stale) => return Err(silent_origin()),
            Err(Broken::Before(refusal)) => return Err(refusal),
        }
    }
}

/// Sends a head that needs a frame of its own.
async fn begin(
    connection: &Connection,
    exchange: &Exchange<'_>,
    route: &mut Route,
) -> Result<(), Broken> {
    let OriginStream::Http2(stream) = &mut route.stream else {
        if exchange.head.extended {
            return Err(Broken::Before(no_sockets()));
        }
        return Ok(());
    };
    let via = &connection.shared.gate.pseudonym;
    let request = onward_request(exchange.head, exchange.onward(via, None)).ok_or_else(|| {
        let detail = "the request cannot be written in HTTP/2";
        Broken::Before(Refusal::because(Code::BadRequest, detail))
    })?;
    let begun = tokio::select! {
        begun = stream.begin(exchange.head, request) => begun,
        cut = exchange.open.cut() => return Err(Broken::Before(Refusal::cut(cut))),
    };
    begun.map_err(|error| match TlsFailure::in_error(&error) {
        Some(failure) => Broken::Before(tls_failed(failure)),
        None if error.kind() == io::ErrorKind::Unsupported => Broken::Before(no_sockets()),
        None => Broken::Stale,
    })
}

/// The refusal if a new connection to the origin accepts no WebSocket, although the first one did.
fn no_sockets() -> Refusal {
    let detail = "the origin no longer takes WebSockets over HTTP/2";
    Refusal::because(Code::ConnectFailed, detail)
}

/// Parses the target of the request, and checks the rest of its head.
async fn aim(
    connection: &mut Connection,
    flow: &mut Flow,
    head: &RequestHead,
) -> Result<Url, Refusal> {
    flow.facts.user_agent = head.user_agent().map(crate::proxy::user_agent);
    flow.facts.method = Some(head.method.to_text());
    let url = if let Some(inside) = connection.inside.clone() {
        flow.aim(inside.target.clone());
        crate::proxy::inspect::url(head, &inside.target)?
    } else if let Some(target) = connection.captured.clone() {
        flow.facts.tls_mode = Some(TlsMode::None);
        // Target and caller are set before the rest of the request is parsed.
        flow.aim(target.clone());
        connection.identify(flow, head).await?;
        crate::proxy::accept::capture::url(head, &target)?
    } else {
        flow.facts.tls_mode = Some(TlsMode::None);
        let url = url(head, connection.last_target.as_ref())?;
        if connection.last_target.as_ref() != Some(&url.target) {
            connection.last_target = Some(url.target.clone());
        }
        url
    };
    // The target counts and `Host` is written anew from it (RFC 9112 section 3.2.2), but a request
    // with an invalid `Host` is refused (section 3.2). Inside a tunnel, `Host` was compared with
    // the target.
    let is_inside = connection.inside.is_some();
    let is_no_host = |host: &[u8]| {
        !is_inside && !repeats_authority(head, host) && Target::from_authority(host, 80).is_err()
    };
    if head.host().is_some_and(is_no_host) {
        return Err(Refusal::because(
            Code::BadRequest,
            "the Host field is not a host",
        ));
    }
    if !is_inside {
        flow.aim(url.target.clone());
    }
    flow.via = via_before(&head.fields);
    if via_has(&head.fields, &connection.gate().pseudonym) {
        return Err(Refusal::malformed(
            508,
            "the request has passed this proxy before",
        ));
    }
    Ok(url)
}

/// Whether `Host` repeats the authority of the target, which was parsed already.
fn repeats_authority(head: &RequestHead, host: &[u8]) -> bool {
    let behind = head.target().strip_prefix(b"http://");
    let end = |behind: &[u8]| behind.iter().position(|byte| matches!(byte, b'/' | b'?'));
    behind.is_some_and(|behind| behind.get(..end(behind).unwrap_or(behind.len())) == Some(host))
}

/// The target and path of an absolute-form request (RFC 9112 section 3.2.2).
fn url(head: &RequestHead, before: Option<&Target>) -> Result<Url, Refusal> {
    let target = head.target();
    if target.starts_with(b"/") || target == b"*" {
        let detail = "this is a proxy: the request target must be an absolute http:// URL";
        return Err(Refusal::because(Code::BadRequest, detail));
    }
    let url = Url::parse_after(target, before).map_err(|error| match error {
        TargetError::Path(error) => Refusal::because(Code::BadPath, error.to_string()),
        error => Refusal::because(Code::BadTarget, error.to_string()),
    })?;
    if url.tls {
        return Err(Refusal::because(
            Code::BadTarget,
            "https goes through CONNECT",
        ));
    }
    Ok(url)
}
