//! Health, metrics, the policy's state and sessions, for operators, their monitoring and agents.
//!
//! Behind two doors: the admin listener reads, and lets a session token speak for itself; the
//! control socket, which only its owner can open, starts and revokes sessions. A page in a browser cannot be made to read it: the `Host` has to be an address or
//! `localhost`, and a foreign `Origin` is refused.

mod contained;
mod exchange;
mod guard;
mod hooks;
mod listener;
mod sessions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gate::Gate;
use crate::metrics::Metrics;

pub use listener::AdminListener;

use listener::Connection;

/// Connections at once.
const CONNECTIONS: usize = 64;
/// Time for a request head.
const HEAD: Duration = Duration::from_secs(5);
/// Time a connection may last in all; a scraper opens another.
const LIFE: Duration = Duration::from_mins(5);
/// Bytes of a request head, and fields in it.
const HEAD_SIZE: usize = 16 * 1024;
const HEAD_COUNT: usize = 64;
/// Bytes of a request's body.
const BODY_SIZE: usize = 256 * 1024;
/// Time for answers under way at the end.
const END: Duration = Duration::from_secs(1);

/// What the admin listener shows.
#[derive(Clone)]
pub struct Admin {
    /// `GET /metrics`.
    pub metrics: Metrics,
    /// Asked anew for every `GET /readyz` and `GET /v1/policy`.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// Whose sessions are started and ended; `None`: it only reads.
    pub gate: Option<Arc<Gate>>,
}

/// How somebody came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// By the admin listener: anybody on this machine, perhaps.
    Admin,
    /// By the control socket: its owner.
    Control,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// How the gate is.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether new flows are welcome.
    pub ready: bool,
    /// Why they are not.
    pub why_not: Option<String>,
    /// Whether shutdown has begun.
    pub draining: bool,
    /// The digest of the policy that decides.
    pub digest: Arc<str>,
    /// Its generation.
    pub generation: u64,
    /// Whether newer files do not load.
    pub stale: bool,
    /// Why they do not.
    pub error: Option<String>,
}

/// Answers until `stop` is cancelled; then lets answers under way end, for at most a second.
pub async fn serve(mut listener: AdminListener, door: Door, admin: Admin, stop: CancellationToken) {
    let routes = routes(admin, door);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    while let Some((connection, place)) = accept(&mut listener, &room, &stop).await {
        let routes = routes.clone().layer(Extension(connection.ends()));
        let (service, stop) = (TowerToHyperService::new(routes), stop.clone());
        tasks.spawn(async move {
            converse(connection, service, stop).await;
            drop(place);
        });
    }
    tasks.close();
    let _ = timeout(END, tasks.wait()).await;
}

/// The next connection, when there is room for one.
async fn accept(
    listener: &mut AdminListener,
    room: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(Connection, OwnedSemaphorePermit)> {
    stop.run_until_cancelled(async {
        let place = room.clone().acquire_owned().await.ok()?;
        Some((listener.accept().await, place))
    })
    .await
    .flatten()
}

async fn converse(
    connection: Connection,
    service: TowerToHyperService<Router>,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEAD_COUNT)
        .max_buf_size(HEAD_SIZE);
    let served = http.serve_connection(TokioIo::new(connection), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = timeout(LIFE, served.as_mut()) => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            timeout(END, served).await
        }
    };
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "an admin connection ended");
    }
}

/// What changes something, or proves itself.
fn writes(gate: &Arc<Gate>) -> Router {
    sessions::routes(gate.clone())
        .merge(exchange::routes(gate.clone()))
        .merge(contained::routes(gate.clone()))
        .merge(hooks::routes(gate.clone()))
}

fn routes(admin: Admin, door: Door) -> Router {
    let writes = admin.gate.as_ref().map(writes);
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/readyz", get(readyz))
        .route("/v1/policy", get(policy))
        .with_state(admin)
        .merge(writes.unwrap_or_default())
        .layer(DefaultBodyLimit::max(BODY_SIZE))
        .layer(Extension(door))
        .layer(middleware::from_fn(guard::guard))
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.render()).into_response()
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let status = (admin.status)();
    if status.ready && !status.draining {
        return "ready\n".into_response();
    }
    let given = if status.draining {
        "draining"
    } else {
        "not ready"
    };
    let why = status.why_not.unwrap_or_else(|| given.to_owned());
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

/// What `GET /v1/policy` says.
#[derive(Serialize)]
struct Policy {
    digest: Arc<str>,
    generation: u64,
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn policy(State(admin): State<Admin>) -> Json<Policy> {
    let Status {
        digest,
        generation,
        stale,
        error,
        ..
    } = (admin.status)();
    Json(Policy {
        digest,
        generation,
        stale,
        error,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

    use super::*;

    /// An admin listener on loopback whose gate is ready or not.
    struct Running {
        address: std::net::SocketAddr,
        ready: Arc<AtomicBool>,
        stop: CancellationToken,
        served: tokio::task::JoinHandle<()>,
    }

    fn admin(ready: Arc<AtomicBool>) -> Admin {
        let metrics = Metrics::new(&["allowed"]);
        let status = move || {
            let ready = ready.load(Ordering::Relaxed);
            Status {
                ready,
                why_not: (!ready).then(|| "the log cannot be written".to_owned()),
                draining: false,
                digest: Arc::from("abc"),
                generation: 3,
                stale: false,
                error: None,
            }
        };
        Admin {
            metrics,
            status: Arc::new(status),
            gate: None,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test awaits its own task")]
    async fn running() -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let ready = Arc::new(AtomicBool::new(true));
        let stop = CancellationToken::new();
        let serve = serve(
            AdminListener::Tcp(listener),
            Door::Admin,
            admin(ready.clone()),
            stop.clone(),
        );
        Running {
            address,
            ready,
            stop,
            served: tokio::spawn(serve),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test's client is no flow")]
    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    fn request(path: &str, more: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9\r\nConnection: close\r\n{more}\r\n")
    }

    #[tokio::test]
    async fn health_readiness_metrics_and_policy_are_told() {
        let gate = running().await;
        let health = ask(gate.address, &request("/healthz", "")).await;
        assert!(health.starts_with("HTTP/1.1 200 OK"), "{health}");
        let ready = ask(gate.address, &request("/readyz", "")).await;
        assert!(ready.ends_with("\r\n\r\nready\n"), "{ready}");
        let metrics = ask(gate.address, &request("/metrics", "")).await;
        assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
        assert!(
            metrics.contains("\ntidegate_records_total 0\n"),
            "{metrics}"
        );
        let policy = ask(gate.address, &request("/v1/policy", "")).await;
        assert!(
            policy.ends_with("{\"digest\":\"abc\",\"generation\":3,\"stale\":false}"),
            "{policy}"
        );
    }

    #[tokio::test]
    async fn a_gate_that_is_not_ready_says_why() {
        let gate = running().await;
        gate.ready.store(false, Ordering::Relaxed);
        let answer = ask(gate.address, &request("/readyz", "")).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("the log cannot be written\n"), "{answer}");
        let health = ask(gate.address, &request("/healthz", "")).await;
        assert!(health.starts_with("HTTP/1.1 200 OK"), "{health}");
    }

    #[tokio::test]
    async fn a_page_of_another_origin_reads_nothing() {
        let gate = running().await;
        for (request, status) in [
            (request("/metrics", "Origin: http://evil.example\r\n"), 403),
            (request("/metrics", "Origin: null\r\n"), 403),
            (
                request("/metrics", "").replace("127.0.0.1:9", "rebound.example:9"),
                421,
            ),
            (
                request("/metrics", "").replace("127.0.0.1:9", "localhost.evil.example"),
                421,
            ),
            (
                request("/metrics", "").replace("Host: 127.0.0.1:9\r\n", ""),
                421,
            ),
            (request("/metrics", "").replacen("GET", "POST", 1), 415),
            (
                request("/metrics", "Content-Type: text/plain\r\n").replacen("GET", "POST", 1),
                415,
            ),
            (
                request("/metrics", "Content-Type: application/json\r\n")
                    .replacen("GET", "POST", 1),
                405,
            ),
            (request("/metrics", "").replacen("GET", "OPTIONS", 1), 405),
            (request("/", ""), 404),
        ] {
            let answer = ask(gate.address, &request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request} {answer}"
            );
            assert!(!answer.contains("tidegate_records_total"), "{answer}");
        }
    }

    #[tokio::test]
    async fn its_own_names_and_origin_may_read() {
        let gate = running().await;
        for host in [
            "localhost",
            "localhost:1",
            "LOCALHOST",
            "[::1]:9",
            "10.0.0.7",
        ] {
            let asked = request("/healthz", &format!("Origin: http://{host}\r\n"))
                .replace("127.0.0.1:9", host);
            let answer = ask(gate.address, &asked).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
        }
    }

    #[tokio::test]
    async fn it_ends_when_told_although_a_client_stays() {
        let gate = running().await;
        #[expect(clippy::disallowed_methods, reason = "a test's client is no flow")]
        let idle = TcpStream::connect(gate.address).await.expect("connected");
        gate.stop.cancel();
        timeout(Duration::from_secs(10), gate.served)
            .await
            .expect("in time")
            .expect("no panic");
        drop(idle);
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test awaits its own task")]
    async fn a_unix_socket_answers() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin");
        let listener = AdminListener::Unix(UnixListener::bind(&path).expect("bound"));
        let stop = CancellationToken::new();
        let ready = Arc::new(AtomicBool::new(true));
        tokio::spawn(serve(listener, Door::Control, admin(ready), stop.clone()));
        let mut stream = UnixStream::connect(&path).await.expect("connected");
        let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
