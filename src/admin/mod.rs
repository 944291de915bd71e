//! The admin interface: health, metrics, policy state and sessions, for operators, monitoring and
//! agents.
//!
//! There are three doors. The admin listener answers reads, and accepts calls with a session token.
//! The control socket, which only its owner can open, also starts and revokes sessions. The admin
//! listener for other hosts speaks TLS and offers the fewest calls. A page in a browser cannot read
//! any of them: `Host` must be an address, `localhost` or a configured name, and a foreign `Origin`
//! is refused.
//!
//! The steps of a request: a place among the connections (`room`), the checks of `Host` and method
//! (`guard`), for a change its rate and its whole body (`body`), then the call.

mod approvals;
mod authority;
mod body;
mod contained;
mod exceptions;
mod exchange;
mod guard;
mod hooks;
mod listener;
mod remote;
mod room;
mod sessions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::gate::{Gate, LedgerStatus};
use crate::metrics::Metrics;
use crate::record::Asker;

pub use listener::AdminListener;
pub use remote::Remote;

use listener::{Connection, Peer};
use room::{Paced, Place, Room};

/// The interval between attempts to make room for a connection.
const ROOM_WAIT: Duration = Duration::from_millis(5);
/// The time limit for a request head.
const HEAD: Duration = Duration::from_secs(5);
/// The maximum duration of a connection; a scraper opens a new one.
const MAX_CONNECTION_LIFETIME: Duration = Duration::from_mins(5);
/// The longest request head in bytes, and its maximum number of fields.
const HEAD_SIZE: usize = 16 * 1024;
const HEAD_COUNT: usize = 64;
/// The time limit for unfinished answers at shutdown.
const END: Duration = Duration::from_secs(1);

/// The state served by an admin listener.
#[derive(Clone)]
pub struct Admin {
    /// `GET /metrics`.
    pub metrics: Metrics,
    /// Called for every `GET /readyz` and `GET /v1/policy`.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// The gate of the sessions; `None`: only reads are served.
    pub gate: Option<Arc<Gate>>,
    /// Set for the listener for other hosts.
    pub remote: Option<Remote>,
}

/// The kind of listener that a client connected to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// The admin listener: by default open to any process of this host.
    Admin,
    /// The control socket: open to processes of its owner, and root.
    Control,
    /// The admin listener for other hosts, over TLS.
    Remote,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// The state of the gate.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether the gate accepts new flows.
    pub ready: bool,
    /// The reason if it does not.
    pub why_not: Option<String>,
    /// Whether shutdown has begun.
    pub draining: bool,
    /// The digest of the policy in force.
    pub digest: Arc<str>,
    /// The generation of the policy.
    pub generation: u64,
    /// Whether newer files failed to load.
    pub stale: bool,
    /// The error of that failure.
    pub error: Option<String>,
    /// The ledger, if there is one.
    pub ledger: Option<LedgerStatus>,
}

/// Serves requests until `stop` is cancelled; then waits at most a second for unfinished answers.
pub async fn serve(mut listener: AdminListener, door: Door, admin: Admin, stop: CancellationToken) {
    let remote = admin.remote.clone();
    let service = TowerToHyperService::new(routes(admin, door));
    let room = Room::default();
    let tasks = TaskTracker::new();
    while let Some((connection, arrived)) = accept(&mut listener, &room, &stop).await {
        let arrived = Arrived {
            remote: remote.clone(),
            ..arrived
        };
        let (service, stop) = (service.clone(), stop.clone());
        tasks.spawn(converse(connection, (arrived, door), service, stop));
    }
    tasks.close();
    let _ = timeout(END, tasks.wait()).await;
}

/// An accepted connection.
struct Arrived {
    peer: Peer,
    place: Place,
    room: Room,
    /// The TLS handshake to perform first, for the listener for other hosts.
    remote: Option<Remote>,
}

/// Accepts the next connection, and finds its place.
async fn accept(
    listener: &mut AdminListener,
    room: &Room,
    stop: &CancellationToken,
) -> Option<(Connection, Arrived)> {
    let accepting = async {
        let (connection, peer) = listener.accept().await;
        loop {
            if let Some(place) = room.enter(peer, Clock::system().instant()) {
                let room = room.clone();
                let remote = None;
                let arrived = Arrived {
                    peer,
                    place,
                    room,
                    remote,
                };
                return (connection, arrived);
            }
            sleep(ROOM_WAIT).await;
        }
    };
    stop.run_until_cancelled(accepting).await
}

async fn converse(
    connection: Connection,
    (arrived, door): (Arrived, Door),
    service: TowerToHyperService<Router>,
    stop: CancellationToken,
) {
    let Arrived {
        peer,
        place,
        room,
        remote,
    } = arrived;
    let seat = place.seat.clone();
    let mut asker = Asker {
        door: door.as_str(),
        uid: peer.uid,
        pid: peer.pid,
        address: peer.address,
        ..Asker::default()
    };
    let ended = seat.ended.clone();
    let mut shown = approvals::Shown::default();
    let connection = match (remote, connection) {
        (Some(remote), Connection::Tcp(socket)) => {
            // From here on the connection may be closed to make room for others.
            seat.reads();
            let shaking = remote.shake(socket, (&mut asker, &mut shown));
            let Some(Some(stream)) = ended.run_until_cancelled(shaking).await else {
                return;
            };
            Connection::Tls(stream)
        }
        (_, connection) => connection,
    };
    let ends = connection.ends();
    let connection = Paced::new(connection, seat.clone());
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        room.asked(&seat);
        request.extensions_mut().insert(asker.clone());
        request.extensions_mut().insert(ends);
        request.extensions_mut().insert(shown.clone());
        request.extensions_mut().insert(seat.clone());
        service.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEAD_COUNT)
        .max_buf_size(HEAD_SIZE);
    let served = http.serve_connection(TokioIo::new(connection), service);
    let mut served = std::pin::pin!(served);
    let done = tokio::select! {
        done = timeout(MAX_CONNECTION_LIFETIME, served.as_mut()) => done,
        () = ended.cancelled() => return,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            timeout(END, served).await
        }
    };
    if let Ok(Err(error)) = done {
        tracing::debug!(%error, "an admin connection ended");
    }
}

/// The routes that change state or verify evidence.
fn writes(gate: &Arc<Gate>) -> Router {
    sessions::routes(gate)
        .merge(exchange::routes(gate))
        .merge(exceptions::routes(gate))
        .merge(contained::routes(gate))
        .merge(hooks::routes(gate))
        .merge(authority::routes(gate))
        .merge(approvals::routes(gate))
}

fn routes(admin: Admin, door: Door) -> Router {
    let seen = Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/policy", get(policy));
    let (seen, writes) = match (&admin.remote, &admin.gate) {
        (Some(remote), _) => (
            seen.layer(middleware::from_fn_with_state(
                remote.clone(),
                remote::may_read,
            )),
            exchange::routes(&remote.gate).merge(approvals::routes(&remote.gate)),
        ),
        (None, Some(gate)) => (seen, writes(gate)),
        (None, None) => (seen, Router::new()),
    };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .merge(seen)
        .with_state(admin.clone())
        .merge(writes)
        .layer(Extension(door))
        .layer(middleware::from_fn_with_state(admin, guard::guard))
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn metrics(State(admin): State<Admin>) -> Response {
    // Sets the metrics of the ledger.
    let _ = (admin.status)();
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

/// The answer to `GET /v1/policy`.
#[derive(Serialize)]
struct Policy {
    digest: Arc<str>,
    generation: u64,
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<LedgerState>,
}

/// The state of the ledger in the answer to `GET /v1/policy`. Any process of the host may read the
/// answer, so it names no file and no server.
#[derive(Serialize)]
struct LedgerState {
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<Timestamp>,
    answers: bool,
    stale: bool,
    failures: u64,
}

async fn policy(State(admin): State<Admin>) -> Json<Policy> {
    let Status {
        digest,
        generation,
        stale,
        error,
        ledger,
        ..
    } = (admin.status)();
    let ledger = ledger.map(|it| LedgerState {
        revision: it.revision,
        answered: it.answered,
        answers: it.failure.is_none(),
        stale: it.is_stale,
        failures: it.failures,
    });
    Json(Policy {
        digest,
        generation,
        stale,
        error,
        ledger,
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
                ledger: None,
            }
        };
        Admin {
            metrics,
            status: Arc::new(status),
            gate: None,
            remote: None,
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
