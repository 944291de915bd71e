//! The origin on loopback that stands in for every destination, and notes what reached it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, LOCATION, USER_AGENT};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tls;

use super::package::Package;
use super::repositories;

/// The first byte of TLS (RFC 8446 section 5.1, `handshake`).
const TLS: u8 = 0x16;
/// The `User-Agent` of each client, followed by the id of its run.
pub(super) const MARK: &str = "tidegate-redteam/";
/// Bytes of a request's body, at most.
const MAX_BODY: usize = 4 << 20;
/// Noted requests, at most.
const MAX_ARRIVALS: usize = 10_000;
/// The duration of one connection, at most.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(1);
/// The time limit for a client to send its first bytes or a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);

/// A request that reached the origin.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The run whose client sent it.
    run: String,
    /// The host in its `Host` field, without a port.
    host: String,
    method: String,
    /// The path without the query.
    path: String,
}

/// The answer of the origin to the client of one run. Without one, the answer is an empty document.
#[derive(Debug)]
pub(super) enum Answer {
    /// A redirect to that URL, at the host that redirects.
    Redirect { host: String, to: String },
    /// The document and the archive of a package.
    Package(Package),
    /// Repositories of git, in that folder.
    Repositories(PathBuf),
}

/// The origin.
#[derive(Debug)]
pub(super) struct Origin {
    tls: Arc<tls::Server>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    arrivals: Vec<Arrival>,
    answers: HashMap<String, Arc<Answer>>,
}

type Answered = Response<Full<Bytes>>;

impl Origin {
    pub(super) fn new(tls: Arc<tls::Server>) -> Self {
        Self {
            tls,
            state: Mutex::default(),
        }
    }

    /// Sets the answer to the client of a run.
    pub(super) fn answer(&self, run: &str, answer: Answer) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.answers.insert(run.to_owned(), Arc::new(answer));
    }

    /// Whether a request of a run reached the host: the given request, or any if none is given.
    pub(super) fn was_reached(&self, run: &str, host: &str, request: Option<(&str, &str)>) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.arrivals.iter().any(|arrival| {
            let is_request = request
                .is_none_or(|(method, path)| arrival.method == method && arrival.path == path);
            arrival.run == run && arrival.host == host && is_request
        })
    }

    /// Serves connections until `stop`.
    pub(super) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            // The gate is the only client, and has a bound on its connections.
            let Ok((socket, _)) = accepted else { continue };
            let (origin, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                let served = timeout(CONNECTION_TIMEOUT, origin.connection(socket));
                let _ = stop.run_until_cancelled(served).await;
            });
        }
    }

    /// Serves one connection: TLS or not, by its first byte.
    async fn connection(self: Arc<Self>, socket: TcpStream) {
        let mut first = [0];
        let peeked = timeout(HEAD_TIMEOUT, socket.peek(&mut first)).await;
        if !matches!(peeked, Ok(Ok(1))) {
            return;
        }
        if first != [TLS] {
            return self.requests(socket).await;
        }
        if let Ok(entered) = self.tls.enter(Bytes::new(), socket).await {
            self.requests(entered.stream).await;
        }
    }

    async fn requests(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let service = service_fn(move |request| {
            let origin = self.clone();
            async move { Ok::<_, Infallible>(origin.request(request).await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn request(&self, request: Request<Incoming>) -> Answered {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        let Ok(body) = body else {
            return status(StatusCode::PAYLOAD_TOO_LARGE);
        };
        let run = run_of(&head.headers);
        let host = host_of(&head.headers);
        let path = head.uri.path().to_owned();
        let answer = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.arrivals.len() < MAX_ARRIVALS {
                state.arrivals.push(Arrival {
                    run: run.clone(),
                    host: host.clone(),
                    method: head.method.to_string(),
                    path: path.clone(),
                });
            }
            state.answers.get(&run).cloned()
        };
        match answer.as_deref() {
            Some(Answer::Redirect { host: at, to }) if *at == host => {
                let mut answer = status(StatusCode::FOUND);
                if let Ok(to) = to.parse() {
                    answer.headers_mut().insert(LOCATION, to);
                }
                answer
            }
            Some(Answer::Package(package)) => match package.file(&path) {
                Some((kind, bytes)) => document(kind, bytes),
                None => json(),
            },
            Some(Answer::Repositories(folder)) if repositories::is_git(&path) => {
                repositories::answer(folder, &head, body.to_bytes()).await
            }
            _ => json(),
        }
    }
}

/// The run in the `User-Agent` of a request; empty if there is none.
fn run_of(fields: &HeaderMap) -> String {
    let text = text(fields, USER_AGENT);
    let run = text.split_once(MARK).map_or("", |(_, run)| run);
    run.split([' ', ',']).next().unwrap_or_default().to_owned()
}

/// The host that a request is for, without its port.
fn host_of(fields: &HeaderMap) -> String {
    let text = text(fields, HOST);
    let host = match text.strip_prefix('[') {
        Some(address) => address.split(']').next(),
        None => text.split(':').next(),
    };
    host.unwrap_or_default().to_ascii_lowercase()
}

fn text(fields: &HeaderMap, name: HeaderName) -> String {
    let value = fields.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// An answer without a body.
pub(super) fn status(status: StatusCode) -> Answered {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// A result that clients of JSON APIs, of MCP among them, accept.
fn json() -> Answered {
    document(
        "application/json",
        Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#),
    )
}

fn document(kind: &'static str, bytes: Bytes) -> Answered {
    let mut answer = Response::new(Full::new(bytes));
    let kind = hyper::header::HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// Binds the origin to a free port of loopback.
pub(super) fn bind() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = crate::proxy::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
