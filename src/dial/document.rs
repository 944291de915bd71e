//! A small document that the gate itself needs, over https: the keys of an issuer.
//!
//! Dialled like any flow: the floor holds, private addresses only where they are named, nothing is
//! resolved twice. Redirects are refused; what is too long or takes too long is not taken.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;

use crate::name::{Host, Url};
use crate::policy::Guard;
use crate::tls;

use super::{DialError, Dialer, NoRoute, ResolveError, Route, Stream};

/// For dialling, TLS and the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest document, in bytes.
const LONGEST: usize = 256 * 1024;

/// What is asked for, and how.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// Private addresses at which it may be.
    pub addresses: &'a [IpNet],
    /// What the proxy itself occupies.
    pub guard: &'a Guard,
    /// The roots for the server's certificate.
    pub tls: &'a tls::Client,
}

/// A document of a destination that a caller is about to ask for something else.
#[derive(Debug)]
pub struct Sought<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// The media type that is wanted.
    pub accept: &'a str,
    /// The credential of the caller, where the destination has it only for callers with one.
    pub authorization: Option<&'a [u8]>,
    /// The longest that is taken, in bytes.
    pub longest: usize,
}

/// A document.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it says.
    pub body: Bytes,
    /// For how long its server says that it holds.
    pub max_age: Option<Duration>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Its host has no address that may be dialled.
    #[error("its host is at no address that may be dialled")]
    Denied,
    /// Its name cannot be resolved.
    #[error("its name cannot be resolved: {0}")]
    Unresolved(ResolveError),
    /// The status of the server is not 200.
    #[error("its server answers {0}")]
    Status(StatusCode),
    /// It is longer than documents may be, or was broken off.
    #[error("it is longer than may be, or was broken off")]
    TooLong,
    /// It took too long.
    #[error("its server does not answer in time")]
    TimedOut,
    /// It cannot be reached.
    #[error("its server cannot be reached: {0}")]
    Unreachable(String),
}

impl DocumentError {
    /// The code of the closed list of refusals that is nearest.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied => "address_denied",
            Self::Unresolved(_) => "dns_failed",
            Self::TimedOut => "connect_timeout",
            Self::Status(_) | Self::TooLong | Self::Unreachable(_) => "connect_failed",
        }
    }
}

impl Dialer {
    /// Finds the way to a document: its host is resolved and each address judged.
    pub async fn find(&self, wanted: &Wanted<'_>) -> Result<Route, DocumentError> {
        let target = &wanted.url.target;
        if !matches!(target.host, Host::Name(_)) {
            return Err(DocumentError::Denied);
        }
        let route = self.route_own(target, wanted.addresses, wanted.guard).await;
        route.map_err(|error| match error {
            NoRoute::Denied(_) => DocumentError::Denied,
            NoRoute::Unresolved(error) => DocumentError::Unresolved(error),
        })
    }

    /// Fetches a document by a way that [`Self::find`] found.
    pub async fn document(
        &self,
        wanted: &Wanted<'_>,
        route: &Route,
    ) -> Result<Document, DocumentError> {
        let fetched = tokio::time::timeout(DEADLINE, self.fetch(wanted, route)).await;
        fetched.unwrap_or(Err(DocumentError::TimedOut))
    }

    async fn fetch(&self, wanted: &Wanted<'_>, route: &Route) -> Result<Document, DocumentError> {
        let unreachable = |error: String| DocumentError::Unreachable(error);
        let Host::Name(name) = &wanted.url.target.host else {
            return Err(DocumentError::Denied);
        };
        let upstream = self.dial(&route.addresses).await;
        let upstream = upstream.map_err(|error| match error {
            DialError::Failed(error) => unreachable(error.to_string()),
            DialError::TimedOut => DocumentError::TimedOut,
            DialError::Parent(error) => unreachable(error.to_string()),
        })?;
        let stream = wanted
            .tls
            .enter(name.as_str(), upstream.stream)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let request = request(wanted.url, "application/json", None)?;
        ask(request, LONGEST, TokioIo::new(stream)).await
    }
}

impl Sought<'_> {
    /// Fetches it on a connection that was judged and is secured already. The caller bounds the time.
    pub async fn fetch(&self, stream: Stream) -> Result<Document, DocumentError> {
        let request = request(self.url, self.accept, self.authorization)?;
        ask(request, self.longest, TokioIo::new(stream)).await
    }
}

/// One request on a connection of its own.
async fn ask<S>(
    request: Request<Empty<Bytes>>,
    longest: usize,
    stream: S,
) -> Result<Document, DocumentError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let failed = |error: hyper::Error| DocumentError::Unreachable(error.to_string());
    let (mut sender, connection) = http1::handshake(stream).await.map_err(failed)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        read(response, longest).await
    };
    let (mut exchange, connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    tokio::select! {
        biased;
        done = &mut exchange => return done,
        // What it said before it closed is still to be read.
        _ = connection => {}
    }
    exchange.await
}

fn request(
    url: &Url,
    accept: &str,
    authorization: Option<&[u8]>,
) -> Result<Request<Empty<Bytes>>, DocumentError> {
    let default = if url.tls { 443 } else { 80 };
    let host = match url.target.port {
        port if port == default => url.target.host.to_string(),
        _ => url.target.to_string(),
    };
    let mut request = Request::get(url.path.as_str());
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    request
        .header(header::HOST, host)
        .header(header::ACCEPT, accept)
        .header(
            header::USER_AGENT,
            concat!("tidegate/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::new())
        .map_err(|error| DocumentError::Unreachable(error.to_string()))
}

async fn read(
    response: Response<hyper::body::Incoming>,
    longest: usize,
) -> Result<Document, DocumentError> {
    if response.status() != StatusCode::OK {
        return Err(DocumentError::Status(response.status()));
    }
    let control = response.headers().get(header::CACHE_CONTROL);
    let max_age = control
        .and_then(|value| value.to_str().ok())
        .and_then(max_age);
    let body = Limited::new(response.into_body(), longest).collect().await;
    let body = body.map_err(|_| DocumentError::TooLong)?.to_bytes();
    Ok(Document { body, max_age })
}

/// `max-age` of `Cache-Control` (RFC 9111 section 5.2.2.1); what must not be kept is kept for no
/// time.
fn max_age(control: &str) -> Option<Duration> {
    let mut words = control.split(',').map(str::trim);
    let says = |word: &str| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => Some(Duration::ZERO),
            "max-age" => value
                .trim_matches('"')
                .parse()
                .ok()
                .map(Duration::from_secs),
            _ => None,
        }
    };
    words.find_map(says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_document_holds() {
        let seconds = |text: &str| max_age(text).map(|age| age.as_secs());
        assert_eq!(seconds("public, max-age=300, must-revalidate"), Some(300));
        assert_eq!(seconds("Max-Age=\"7\""), Some(7));
        assert_eq!(seconds("no-store"), Some(0));
        for none in ["", "public", "max-age=", "max-age=-1", "s-maxage=9"] {
            assert_eq!(seconds(none), None, "{none}");
        }
    }
}
