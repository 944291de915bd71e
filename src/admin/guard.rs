//! Rejects cross-origin and DNS-rebinding requests of browsers.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Admin;

/// Refuses requests that a browser page could send: a `Host` that a DNS server could have pointed
/// here (DNS rebinding), a foreign `Origin`, a method besides GET, HEAD and POST, and a body type
/// that needs no CORS preflight.
pub(super) async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let names = admin
        .gate
        .as_ref()
        .map(|gate| gate.snapshot.load().admin_names.clone());
    let names = names.unwrap_or_default();
    match check(request.method(), request.headers(), &names) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => (status, why).into_response(),
    }
}

fn check(
    method: &Method,
    headers: &HeaderMap,
    names: &[Arc<str>],
) -> Result<(), (StatusCode, &'static str)> {
    let reads = method == Method::GET || method == Method::HEAD;
    if !reads && method != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and POST\n"));
    }
    if !reads && !is_for_programs(headers) {
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send JSON, or the form of a token exchange\n",
        ));
    }
    let host = only(headers, header::HOST).filter(|host| is_ours(host, names));
    let Some(host) = host else {
        return Err((
            StatusCode::MISDIRECTED_REQUEST,
            "`Host` must be an address, localhost, or a name of `listen.admin-names`\n",
        ));
    };
    if headers.contains_key(header::ORIGIN) {
        let origin = only(headers, header::ORIGIN).and_then(|origin| origin.split_once("://"));
        if origin.is_none_or(|(_, authority)| authority != host) {
            return Err((
                StatusCode::FORBIDDEN,
                "requests of pages of another origin are refused\n",
            ));
        }
    }
    Ok(())
}

/// Whether the body is JSON, which a page cannot send without a CORS preflight, or the form of RFC
/// 8693, whose route accepts only requests with evidence.
fn is_for_programs(headers: &HeaderMap) -> bool {
    let kind = only(headers, header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
        || kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The value of a field that occurs once.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether a `Host` is an address, `localhost` or one of `names`, with or without a port.
fn is_ours(host: &str, names: &[Arc<str>]) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        return address.parse::<Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = host
        .split_once(':')
        .map_or((host, None), |(name, port)| (name, Some(port)));
    let is_local = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
    let written = || {
        names
            .iter()
            .any(|written| name.eq_ignore_ascii_case(written))
    };
    (is_local || written()) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}
