//! Inspection: TLS ends at the gate and begins anew; each request inside a tunnel is a flow of its
//! own.
//!
//! The origin's handshake comes first, before the client's 200: the status tells the client whether
//! the origin was reached, and the gate offers HTTP/2 only if the origin speaks it. The name in the
//! `CONNECT`, in SNI and in each request must be the same.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::dial::{self, PoolKey, Stream, Through, TlsKey, Unasked, Upstream};
use crate::gate::Asked;
use crate::http::http1::{Method, RequestHead};
use crate::http::http2;
use crate::identity::{Certificate, Presented};
use crate::name::{Host, Path, Target, Url};
use crate::policy::Decision;
use crate::proxy::connection::client::ClientStream;
use crate::proxy::connection::streams;
use crate::proxy::connection::{Connection, LINGER};
use crate::proxy::flow::{Flow, Known};
use crate::proxy::refusal::{Code, Refusal};
use crate::proxy::request::origin::OriginStream;
use crate::proxy::request::route::{Route, Secured, secure, tls_key};
use crate::record::{Blame, End, FlowFacts, TlsMode};
use crate::tls::{Alpn, HandshakeError, MintError, Server, TlsFailure};

/// The shared state of the requests inside one tunnel.
pub(super) struct Inside {
    /// The flow of the tunnel.
    pub(super) parent: Uuid,
    /// The target of the tunnel.
    pub(super) target: Target,
    /// The identity that opened the tunnel.
    pub(super) presented: Presented,
    /// Whether its origin speaks HTTP/2.
    pub(super) http2: bool,
    /// The TLS server for the client.
    server: Arc<Server>,
    /// Cancelled when the tunnel has to end, and when shutdown begins.
    pub(super) ending: CancellationToken,
    /// The number of requests so far.
    pub(super) requests: AtomicU64,
    /// The SHA-256 of the client's certificate.
    certificate: OnceLock<Arc<str>>,
    link: Mutex<Link>,
}

/// The upstream connection that was made for the tunnel.
enum Link {
    /// No connection, or a request took it.
    Gone,
    /// HTTP/1 that no request has used yet.
    Http1(Stream, Peer),
    /// HTTP/2, shared by all requests.
    Http2(http2::OriginCarrier, Peer),
}

/// The other end of an upstream connection, and its TLS settings.
#[derive(Clone)]
struct Peer {
    address: SocketAddr,
    /// The parent of the connection.
    through: Option<Through>,
    tls: TlsKey,
    /// The generation of the dial.
    generation: u64,
    /// The time of the dial.
    opened: Instant,
}

impl Peer {
    fn new(flow: &Flow, secured: &Secured, tls: TlsKey) -> Self {
        Self {
            address: secured.address,
            through: secured.through.clone(),
            tls,
            generation: flow.snapshot().generation,
            opened: flow.gate.clock.instant(),
        }
    }

    fn route(&self, stream: OriginStream) -> Route {
        Route {
            stream,
            address: self.address,
            through: self.through.clone(),
            reused: true,
            only_http1: true,
            opened: self.opened,
        }
    }
}

impl Inside {
    /// Begins TLS with the origin of a dialled tunnel.
    pub(super) async fn begin(
        flow: &mut Flow,
        known: &Known,
        target: &Target,
        decision: &Decision,
        upstream: Upstream,
    ) -> Result<Arc<Self>, Refusal> {
        flow.facts.tls_mode = Some(TlsMode::Inspected);
        let tls = tls_key(flow, decision);
        let secured = secure(flow, target, &tls, Alpn::Http2, upstream).await?;
        let peer = Peer::new(flow, &secured, tls);
        let http2 = secured.http2;
        // Before the client's 200: after it no status could report an error.
        let server = server_for(flow, &target.host, http2).await?;
        let link = if http2 {
            Link::Http2(carrier(flow, secured.stream).await?, peer)
        } else {
            Link::Http1(secured.stream, peer)
        };
        Ok(Self::new(flow, known, target, (server, http2), link))
    }

    /// Reuses an idle connection instead of a new one: of the same caller, with the same TLS, to an
    /// address that still passes, and with an origin that speaks no HTTP/2, so that the client is
    /// offered the same protocols. Writes the decision. `None` if there is no idle connection.
    pub(super) async fn resume(
        flow: &mut Flow,
        known: &Known,
        target: &Target,
        decision: &Decision,
    ) -> Result<Option<Arc<Self>>, Refusal> {
        let Some((stream, peer)) = resting(flow, known, target, decision) else {
            return Ok(None);
        };
        flow.facts.tls_mode = Some(TlsMode::Inspected);
        flow.facts.reused = true;
        let parent = peer.through.as_ref().map(|it| it.name().clone());
        flow.facts.set_dialled(peer.address.ip(), parent);
        flow.facts.upstream.clone_from(&peer.tls.upstream);
        let server = server_for(flow, &target.host, false).await?;
        flow.settle(known, target, Asked::Connect, decision).await?;
        let judged = dial::judged(peer.address, peer.through.as_ref());
        if let (Some(open), Some(judged)) = (&flow.open, judged) {
            open.dialled(judged);
        }
        let link = Link::Http1(stream, peer);
        Ok(Some(Self::new(flow, known, target, (server, false), link)))
    }

    fn new(
        flow: &Flow,
        known: &Known,
        target: &Target,
        (server, http2): (Arc<Server>, bool),
        link: Link,
    ) -> Arc<Self> {
        Arc::new(Self {
            parent: flow.facts.flow,
            target: target.clone(),
            presented: known.presented.clone(),
            http2,
            server,
            ending: flow.gate.draining.child_token(),
            requests: AtomicU64::new(0),
            certificate: OnceLock::new(),
            link: Mutex::new(link),
        })
    }

    /// Marks a request as one inside the tunnel.
    pub(super) fn note(&self, facts: &mut FlowFacts) {
        facts.parent = Some(self.parent);
        facts.tls_mode = Some(TlsMode::Inspected);
        if let Host::Name(name) = &self.target.host {
            facts.server_name = Some(name.as_str().into());
        }
        facts.client_hash = self.certificate.get().cloned();
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a stream to the origin may become a WebSocket; `false` if the origin does not
    /// announce it within `longest`.
    pub(super) async fn takes_sockets(&self, longest: Duration) -> bool {
        let said = match &*self.link.lock().unwrap_or_else(PoisonError::into_inner) {
            Link::Http2(carrier, _) => carrier.takes_sockets(),
            Link::Gone | Link::Http1(..) => return false,
        };
        tokio::time::timeout(longest, said).await.unwrap_or(false)
    }

    /// A route over the tunnel's own connection, if its TLS settings match and its address and
    /// parent still pass.
    pub(super) fn take(
        &self,
        tls: &TlsKey,
        passes: impl Fn(SocketAddr, Option<&Through>) -> bool,
    ) -> Option<Route> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |peer: &Peer| peer.tls == *tls && passes(peer.address, peer.through.as_ref());
        match &mut *link {
            Link::Http2(carrier, peer) if fits(peer) && !carrier.is_over() => {
                let exchange = carrier.exchange();
                Some(peer.route(OriginStream::Http2(Box::new(exchange))))
            }
            Link::Http1(_, peer) if fits(peer) => match std::mem::replace(&mut *link, Link::Gone) {
                Link::Http1(mut stream, peer) => {
                    is_usable(&stream.unasked()).then(|| peer.route(OriginStream::Wire(stream)))
                }
                other => {
                    *link = other;
                    None
                }
            },
            _ => None,
        }
    }

    /// Replaces an HTTP/2 connection that ended or does not fit. Open requests on the old
    /// connection continue.
    pub(super) async fn carry_on(
        &self,
        flow: &mut Flow,
        secured: Secured,
        tls: &TlsKey,
    ) -> Result<OriginStream, Refusal> {
        let peer = Peer::new(flow, &secured, tls.clone());
        let carrier = carrier(flow, secured.stream).await?;
        let exchange = carrier.exchange();
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        // A request from before a reload must not restore a connection that the reload replaced.
        let newer = matches!(&*link, Link::Http2(_, there) if there.generation > peer.generation);
        if !newer {
            *link = Link::Http2(carrier, peer);
        }
        drop(link);
        Ok(OriginStream::Http2(Box::new(exchange)))
    }

    fn let_go(&self) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Link::Gone;
    }
}

/// An idle connection to the origin of a tunnel, see [`Inside::resume`].
fn resting(
    flow: &Flow,
    known: &Known,
    target: &Target,
    decision: &Decision,
) -> Option<(Stream, Peer)> {
    let snapshot = flow.snapshot();
    let way = snapshot.upstreams.of(decision.upstream.as_deref())?;
    if !way.may_share() {
        return None;
    }
    let tls = tls_key(flow, decision);
    let key = PoolKey {
        caller: flow.caller_key(known),
        tier: known.caller.who.tier,
        parent: snapshot.dialer.first_parent(target, decision.category),
        target: target.clone(),
        tls: Some(tls.clone()),
    };
    let passes = |address: SocketAddr| {
        let (ip, port) = (address.ip(), address.port());
        let judged = snapshot
            .policy
            .judge_address(decision, ip, port, &snapshot.guard);
        judged.is_ok()
    };
    let now = flow.gate.clock.instant();
    let idle = snapshot.dialer.pool.take_http1(&key, now, passes)?;
    let peer = Peer {
        address: idle.address,
        through: idle.through,
        tls,
        generation: snapshot.generation,
        opened: idle.opened,
    };
    Some((idle.stream, peer))
}

/// Whether a request can use a connection without earlier requests: the origin must not have closed
/// it. A TLS error about the gate's certificate is reported as the answer.
fn is_usable(unasked: &Unasked) -> bool {
    match unasked {
        Unasked::Nothing => true,
        Unasked::Something => false,
        Unasked::Error(error) => TlsFailure::in_error(error).is_some(),
    }
}

/// Refuses an inspected tunnel if the local authority cannot make a certificate for its host,
/// before anything is resolved or dialled.
pub(super) fn require_authority(flow: &Flow, host: &Host) -> Result<(), Refusal> {
    let snapshot = flow.snapshot();
    let Some(authority) = snapshot.authority.as_ref() else {
        return Err(no_certificate(
            flow,
            "no_authority",
            "`[inspect]` names no authority",
        ));
    };
    authority
        .check(host)
        .map_err(|MintError(why)| no_certificate(flow, "not_minted", why))
}

/// The TLS server for the client of a tunnel, with a certificate for its host.
async fn server_for(flow: &Flow, host: &Host, http2: bool) -> Result<Arc<Server>, Refusal> {
    require_authority(flow, host)?;
    let snapshot = flow.snapshot();
    let Some(authority) = snapshot.authority.as_ref() else {
        return Err(Code::InspectUnavailable.into());
    };
    let preparing = authority.prepare(host, http2);
    let longest = snapshot.limits.connect_timeout;
    let prepared = tokio::time::timeout(longest, preparing).await;
    let late = MintError("no certificate was made within `limits.connect-timeout`");
    prepared
        .unwrap_or(Err(late))
        .map_err(|MintError(why)| no_certificate(flow, "not_minted", why))
}

fn no_certificate(flow: &Flow, word: &'static str, why: &'static str) -> Refusal {
    flow.gate.metrics.handshake("inside", word);
    Refusal::because(Code::InspectUnavailable, why).exactly(word)
}

async fn carrier(flow: &Flow, stream: Stream) -> Result<http2::OriginCarrier, Refusal> {
    let longest = flow.snapshot().limits.connect_timeout;
    let beginning = http2::OriginCarrier::begin(
        stream,
        flow.gate.clock.clone(),
        flow.gate.metrics.clone(),
        &flow.gate.tasks,
    );
    match tokio::time::timeout(longest, beginning).await {
        Ok(Ok(carrier)) => Ok(carrier),
        Ok(Err(error)) => Err(Refusal::because(
            Code::ConnectFailed,
            crate::proxy::io_reason(&error),
        )),
        Err(_) => Err(Code::ConnectTimeout.into()),
    }
}

/// Accepts TLS from a client whose `ClientHello` was read, and serves its requests until the client
/// leaves or the tunnel is ended.
pub(super) async fn carry(mut flow: Flow, connection: Connection, inside: Arc<Inside>) {
    let Some(open) = flow.open.clone() else {
        return;
    };
    let entered = tokio::select! {
        biased;
        cut = open.cut() => return flow.was_cut(cut),
        entered = enter(&flow, connection, &inside) => entered,
    };
    let (connection, http2) = match entered {
        Ok(entered) => entered,
        Err(HandshakeError(why)) => {
            flow.gate.metrics.handshake("inside", why);
            flow.facts.detail = detail_of(why);
            flow.ended(End::Failed, Some(Blame::Client), Some(why));
            return;
        }
    };
    flow.gate.metrics.handshake("inside", "ok");
    flow.facts.client_hash = inside.certificate.get().cloned();
    flow.rest();
    let mut serving = std::pin::pin!(serve(connection, http2));
    let cut = tokio::select! {
        () = &mut serving => None,
        cut = open.cut() => Some(cut),
    };
    if cut.is_some() {
        inside.ending.cancel();
        // Open requests are ended separately, each with its own reason.
        let _ = tokio::time::timeout(LINGER, serving).await;
    }
    inside.let_go();
    flow.close.requests = inside.requests.load(Ordering::Relaxed);
    match cut {
        Some(cut) => flow.was_cut(cut),
        None => flow.ended(End::Closed, None, None),
    }
}

async fn serve(connection: Connection, http2: bool) {
    if http2 {
        streams::serve_inside(connection).await;
    } else {
        // No request inside a tunnel opens another tunnel.
        let _none = connection.serve(None).await;
    }
}

/// Performs the TLS handshake with the client, with the certificate of the destination.
async fn enter(
    flow: &Flow,
    mut connection: Connection,
    inside: &Arc<Inside>,
) -> Result<(Connection, bool), HandshakeError> {
    let longest = flow.snapshot().limits.header_timeout;
    let early = connection.early();
    let Connection {
        shared,
        stream,
        origin,
        captured,
        ..
    } = connection;
    let entering = inside.server.enter(early, stream);
    let entered = tokio::time::timeout(longest, entering).await;
    let entered = entered.unwrap_or(Err(HandshakeError("timeout")))?;
    if let Some(certificate) = &entered.certificate {
        let _ = inside
            .certificate
            .set(Certificate::fingerprint_of(certificate));
    }
    let stream = ClientStream::Inside(entered.stream);
    let mut connection = Connection::new(shared, stream, origin);
    connection.inside = Some(inside.clone());
    connection.captured = captured;
    Ok((connection, entered.http2))
}

fn detail_of(why: &'static str) -> Option<Box<str>> {
    let said = match why {
        "authority_not_trusted" => {
            "the client does not trust the local authority: `tidegate ca install`, or a rule with `inspect = false`"
        }
        "no_certificate" => "`[inspect] client-cert` wants a certificate from the client",
        _ => return None,
    };
    Some(said.into())
}

/// The target and path of a request inside: the target is that of the tunnel, and the request must
/// name the same host (RFC 9110 section 7.4).
pub(super) fn url(head: &RequestHead, target: &Target) -> Result<Url, Refusal> {
    if head.method == Method::Connect {
        let detail = "no tunnel is opened inside a tunnel";
        return Err(Refusal::because(Code::ActionDenied, detail));
    }
    let named = head.host().filter(|host| !target.is_written_as(host, 443));
    match named.map(|host| Target::from_authority(host, 443)) {
        Some(Ok(named)) if named == *target => {}
        None if head.host().is_some() => {}
        Some(Ok(_)) | None => return Err(Code::HostMismatch.into()),
        Some(Err(error)) => return Err(Refusal::because(Code::BadTarget, error.to_string())),
    }
    let path = if head.target().starts_with(b"/") {
        Path::parse(head.target())
    } else {
        let url = Url::parse(head.target())
            .map_err(|error| Refusal::because(Code::BadTarget, error.to_string()))?;
        if !url.tls || url.target != *target {
            return Err(Code::HostMismatch.into());
        }
        Ok(url.path)
    };
    let path = path.map_err(|error| Refusal::because(Code::BadPath, error.to_string()))?;
    Ok(Url {
        tls: true,
        target: target.clone(),
        path,
    })
}
