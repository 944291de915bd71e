//! Requests of the gate itself, over https: fetches small documents, for example the keys of an
//! issuer, and delivers messages to webhooks.
//!
//! Dialled like any flow: the floor applies, private addresses need to be named, no name is
//! resolved twice. Redirects are refused, and so are documents that are too long or too slow.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;

use crate::name::{Host, Url};
use crate::policy::Guard;
use crate::tls;

use super::{DialError, Dialer, NoRoute, ResolveError, Route, Stream};

/// The time limit for dialling, TLS and the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of a document, at most.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// The receiver of a request, with the settings of the connection.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The URL.
    pub url: &'a Url,
    /// Private addresses that the host may have.
    pub addresses: &'a [IpNet],
    /// The addresses of the gate itself, which it never dials.
    pub guard: &'a Guard,
    /// The roots for the server's certificate.
    pub tls: &'a tls::Client,
}

/// A document to fetch on an existing connection, for a caller's request to the same destination.
#[derive(Debug)]
pub struct Sought<'a> {
    /// The URL of the document.
    pub url: &'a Url,
    /// The accepted media type.
    pub accept: &'a str,
    /// The credential of the caller, if the destination requires one.
    pub authorization: Option<&'a [u8]>,
    /// The longest document accepted, in bytes.
    pub longest: usize,
}

/// A message for a webhook.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Header fields besides the usual ones.
    pub fields: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Bytes,
}

/// A fetched document.
#[derive(Clone, Debug)]
pub struct Document {
    /// The content.
    pub body: Bytes,
    /// The lifetime set by the server (`max-age`).
    pub max_age: Option<Duration>,
}

/// The reason why no document was fetched, or no message delivered.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The host has no address that may be dialled.
    #[error("its host has no address that may be dialled")]
    Denied,
    /// The name cannot be resolved.
    #[error("its name cannot be resolved: {0}")]
    Unresolved(ResolveError),
    /// The status of the server is not 200, or for a message not 2xx.
    #[error("its server answers {0}")]
    Status(StatusCode),
    /// The document is too long, or was cut off.
    #[error("it is longer than may be, or was broken off")]
    TooLong,
    /// The server did not answer in time.
    #[error("its server does not answer in time")]
    TimedOut,
    /// The server cannot be reached.
    #[error("its server cannot be reached: {0}")]
    Unreachable(String),
}

impl DocumentError {
    /// Whether a later attempt may succeed.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unresolved(_) | Self::TimedOut | Self::Unreachable(_) => true,
            Self::Status(status) => {
                let codes = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                status.is_server_error() || codes.contains(status)
            }
            Self::Denied | Self::TooLong => false,
        }
    }

    /// The nearest code of the closed list of refusals.
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
    /// Finds the route to a document: resolves its host and checks each address.
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

    /// Fetches a document by a route of [`Self::find`].
    pub async fn document(
        &self,
        wanted: &Wanted<'_>,
        route: &Route,
    ) -> Result<Document, DocumentError> {
        let fetched = tokio::time::timeout(DEADLINE, self.fetch(wanted, route)).await;
        fetched.unwrap_or(Err(DocumentError::TimedOut))
    }

    /// Delivers a message by a POST request, by a route of [`Self::find`]. Every status 2xx is a
    /// success.
    pub async fn deliver(
        &self,
        wanted: &Wanted<'_>,
        route: &Route,
        message: &Posted,
    ) -> Result<(), DocumentError> {
        let posted = tokio::time::timeout(DEADLINE, self.post(wanted, route, message)).await;
        posted.unwrap_or(Err(DocumentError::TimedOut))
    }

    async fn post(
        &self,
        wanted: &Wanted<'_>,
        route: &Route,
        message: &Posted,
    ) -> Result<(), DocumentError> {
        let stream = self.enter(wanted, route).await?;
        let mut request =
            request(Method::POST, wanted.url).header(header::CONTENT_TYPE, "application/json");
        for (name, value) in &message.fields {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(message.body.clone()));
        let request = request.map_err(|error| DocumentError::Unreachable(error.to_string()))?;
        let check = async |response: Response<Incoming>| match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(DocumentError::Status(status)),
        };
        ask(request, check, TokioIo::new(stream)).await
    }

    async fn fetch(&self, wanted: &Wanted<'_>, route: &Route) -> Result<Document, DocumentError> {
        let stream = self.enter(wanted, route).await?;
        let request = get(wanted.url, "application/json", None)?;
        ask(
            request,
            async |it| read(it, MAX_DOCUMENT_BYTES).await,
            TokioIo::new(stream),
        )
        .await
    }

    /// Connects by TLS.
    async fn enter(
        &self,
        wanted: &Wanted<'_>,
        route: &Route,
    ) -> Result<tls::ClientStream<Stream>, DocumentError> {
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
        let entered = wanted.tls.enter(name.as_str(), upstream.stream).await;
        entered.map_err(|error| unreachable(error.to_string()))
    }
}

impl Sought<'_> {
    /// Fetches the document on a connection that is checked and encrypted already. The caller
    /// limits the time.
    pub async fn fetch(&self, stream: Stream) -> Result<Document, DocumentError> {
        let request = get(self.url, self.accept, self.authorization)?;
        let longest = self.longest;
        ask(
            request,
            async |it| read(it, longest).await,
            TokioIo::new(stream),
        )
        .await
    }
}

/// Sends one request on a connection of its own, and reads the answer.
async fn ask<S, T>(
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, DocumentError>,
    stream: S,
) -> Result<T, DocumentError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let failed = |error: hyper::Error| DocumentError::Unreachable(error.to_string());
    let (mut sender, connection) = http1::handshake(stream).await.map_err(failed)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        read(response).await
    };
    let (mut exchange, connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    tokio::select! {
        biased;
        done = &mut exchange => return done,
        // The answer received before the close is still to be read.
        _ = connection => {}
    }
    exchange.await
}

fn get(
    url: &Url,
    accept: &str,
    authorization: Option<&[u8]>,
) -> Result<Request<Full<Bytes>>, DocumentError> {
    let mut request = request(Method::GET, url).header(header::ACCEPT, accept);
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let request = request.body(Full::default());
    request.map_err(|error| DocumentError::Unreachable(error.to_string()))
}

/// The beginning of a request.
fn request(method: Method, url: &Url) -> Builder {
    let default = if url.tls { 443 } else { 80 };
    let host = match url.target.port {
        port if port == default => url.target.host.to_string(),
        _ => url.target.to_string(),
    };
    let agent = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
    Request::builder()
        .method(method)
        .uri(url.path.as_str())
        .header(header::HOST, host)
        .header(header::USER_AGENT, agent)
}

async fn read(response: Response<Incoming>, longest: usize) -> Result<Document, DocumentError> {
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

/// `max-age` of `Cache-Control` (RFC 9111 section 5.2.2.1); zero if the answer must not be stored.
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
