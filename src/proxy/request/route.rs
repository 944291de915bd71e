//! The upstream connection of one request: an idle one, that of its tunnel, or a new one; with TLS
//! if required.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::dial::{self, Idle, PoolKey, Stream, Through, TlsKey, Upstream};
use crate::gate;
use crate::name::Target;
use crate::policy::Decision;
use crate::proxy::flow::{Flow, Known, millis};
use crate::proxy::inspect::Inside;
use crate::proxy::refusal::{Code, Refusal};
use crate::tls::{Alpn, TlsFailure};

use super::origin::OriginStream;

/// A connection to the origin, and whether it served another request before.
pub(in crate::proxy) struct Route {
    pub(in crate::proxy) stream: OriginStream,
    pub(in crate::proxy) address: SocketAddr,
    /// The parent of the connection.
    pub(in crate::proxy) through: Option<Through>,
    pub(in crate::proxy) reused: bool,
    /// Whether the origin speaks no HTTP/2 although the gate offered it.
    pub(in crate::proxy) only_http1: bool,
    /// The time of its opening, when its certificate was verified.
    pub(in crate::proxy) opened: Instant,
}

/// The conditions for the connection of a request.
pub(in crate::proxy) struct Way<'w> {
    /// The caller.
    pub(in crate::proxy) known: &'w Known,
    /// The requested target, as decided.
    pub(in crate::proxy) target: &'w Target,
    /// The decision.
    pub(in crate::proxy) decision: &'w Decision,
    /// The target to dial, and the key for sharing the connection.
    pub(in crate::proxy) key: PoolKey,
    /// The tunnel of the request.
    pub(in crate::proxy) inside: Option<&'w Arc<Inside>>,
    /// Whether the request is an upgrade from HTTP/1.1, which needs a connection of its own.
    pub(in crate::proxy) upgrade: bool,
}

/// A TLS connection with an origin.
pub(in crate::proxy) struct Secured {
    pub(in crate::proxy) stream: Stream,
    pub(in crate::proxy) address: SocketAddr,
    pub(in crate::proxy) through: Option<Through>,
    pub(in crate::proxy) http2: bool,
}

impl<'w> Way<'w> {
    pub(in crate::proxy) fn new(
        flow: &Flow,
        (known, target): (&'w Known, &'w Target),
        decision: &'w Decision,
        inside: Option<&'w Arc<Inside>>,
    ) -> Self {
        let secure = inside.is_some() || decision.upstream.is_some();
        let mut dialled = target.clone();
        if inside.is_none() && secure {
            dialled.port = tls_port(flow, decision, target.port);
        }
        Self {
            known,
            target,
            decision,
            key: PoolKey {
                caller: flow.caller_key(known),
                tier: known.caller.who.tier,
                parent: flow
                    .snapshot()
                    .dialer
                    .first_parent(&dialled, decision.category),
                target: dialled,
                tls: secure.then(|| tls_key(flow, decision)),
            },
            inside,
            upgrade: false,
        }
    }

    /// Finds a connection and writes the decision, before any byte is sent.
    pub(super) async fn obtain(
        &self,
        flow: &mut Flow,
        asked: gate::Asked,
    ) -> Result<Route, Refusal> {
        if let Some(kept) = self.kept(flow) {
            flow.facts.reused = true;
            let parent = kept.through.as_ref().map(|it| it.name().clone());
            flow.facts.set_dialled(kept.address.ip(), parent);
            flow.facts.upstream = self.key.tls.as_ref().and_then(|tls| tls.upstream.clone());
            flow.settle(self.known, self.target, asked, self.decision)
                .await?;
            let judged = dial::judged(kept.address, kept.through.as_ref());
            if let (Some(open), Some(judged)) = (&flow.open, judged) {
                open.dialled(judged);
            }
            return Ok(kept);
        }
        // Boxed: most requests reuse an idle connection.
        Box::pin(self.dial(flow, asked)).await
    }

    /// Writes the decision, and dials a new connection.
    async fn dial(&self, flow: &mut Flow, asked: gate::Asked) -> Result<Route, Refusal> {
        // The dialled port may differ from the requested one.
        let route = flow.find_route(&self.key.target, self.decision).await?;
        flow.settle(self.known, self.target, asked, self.decision)
            .await?;
        let upstream = flow.dial(route, self.decision).await?;
        self.enter(flow, upstream).await
    }

    /// Dials again after a kept connection proved closed; the name is resolved and checked again.
    pub(super) async fn redial(&self, flow: &mut Flow) -> Result<Route, Refusal> {
        flow.facts.reused = false;
        let route = flow.find_route(&self.key.target, self.decision).await?;
        let upstream = flow.dial(route, self.decision).await?;
        self.enter(flow, upstream).await
    }

    /// Keeps an HTTP/1 connection whose exchange ended cleanly.
    pub(in crate::proxy) fn keep(&self, flow: &Flow, route: Route) {
        if let OriginStream::Wire(stream) = route.stream {
            let now = flow.gate.clock.instant();
            let pool = &flow.snapshot().dialer.pool;
            let parent = route.through.as_ref().map(Through::name);
            // A connection that was dialled past the first parent is kept for its own parent.
            let other = (self.key.parent.as_ref() != parent).then(|| PoolKey {
                parent: parent.cloned(),
                ..self.key.clone()
            });
            let idle = Idle {
                stream,
                address: route.address,
                through: route.through,
                only_http1: route.only_http1,
                opened: route.opened,
            };
            pool.put(other.as_ref().unwrap_or(&self.key), idle, now);
        }
    }

    /// An open connection whose address still passes.
    fn kept(&self, flow: &Flow) -> Option<Route> {
        let snapshot = flow.snapshot();
        let passes = |address: SocketAddr| {
            let (ip, port) = (address.ip(), address.port());
            snapshot
                .policy
                .judge_address(self.decision, ip, port, &snapshot.guard)
                .is_ok()
        };
        if let (Some(inside), Some(tls), false) = (self.inside, &self.key.tls, self.upgrade) {
            let (target, category) = (&self.key.target, self.decision.category);
            let taken = inside.take(tls, |address, through| {
                snapshot.dialer.still_leads(target, category, through)
                    && dial::judged(address, through).is_none_or(passes)
            });
            if taken.is_some() {
                return taken;
            }
            if inside.http2 {
                return None;
            }
        }
        let now = flow.gate.clock.instant();
        let kept = snapshot.dialer.pool.take(&self.key, now, passes)?;
        Some(Route {
            stream: OriginStream::Wire(kept.stream),
            address: kept.address,
            through: kept.through,
            reused: true,
            only_http1: kept.only_http1,
            opened: kept.opened,
        })
    }

    async fn enter(&self, flow: &mut Flow, upstream: Upstream) -> Result<Route, Refusal> {
        let opened = flow.gate.clock.instant();
        let Some(tls) = &self.key.tls else {
            return Ok(Route {
                stream: OriginStream::Wire(upstream.stream),
                address: upstream.address,
                through: upstream.parent,
                reused: false,
                only_http1: false,
                opened,
            });
        };
        let carrier = self.inside.filter(|inside| inside.http2 && !self.upgrade);
        let alpn = match carrier {
            Some(_) => Alpn::Http2,
            None => Alpn::Http1,
        };
        let secured = secure(flow, &self.key.target, tls, alpn, upstream).await?;
        let (address, through) = (secured.address, secured.through.clone());
        let stream = match carrier {
            Some(inside) if secured.http2 => inside.carry_on(flow, secured, tls).await?,
            _ => OriginStream::Wire(secured.stream),
        };
        Ok(Route {
            stream,
            address,
            through,
            reused: false,
            only_http1: self.inside.is_some_and(|inside| !inside.http2),
            opened,
        })
    }
}

/// The port for TLS with an origin that was requested in plain HTTP.
pub(super) fn tls_port(flow: &Flow, decision: &Decision, asked: u16) -> u16 {
    if asked != 80 {
        return asked;
    }
    let snapshot = flow.snapshot();
    let upstream = snapshot.upstreams.of(decision.upstream.as_deref());
    upstream.map_or(443, |upstream| upstream.port())
}

/// The TLS settings for the origin of a decision.
pub(in crate::proxy) fn tls_key(flow: &Flow, decision: &Decision) -> TlsKey {
    let snapshot = flow.snapshot();
    let way = snapshot.upstreams.of(decision.upstream.as_deref());
    TlsKey {
        upstream: decision.upstream.clone(),
        identity: way.map_or(0, |way| way.identity()),
    }
}

/// Begins TLS with an origin; its certificate is always verified.
pub(in crate::proxy) async fn secure(
    flow: &mut Flow,
    target: &Target,
    tls: &TlsKey,
    alpn: Alpn,
    upstream: Upstream,
) -> Result<Secured, Refusal> {
    let snapshot = flow.snapshot().to_shared();
    flow.facts.upstream.clone_from(&tls.upstream);
    let Some(way) = snapshot.upstreams.of(tls.upstream.as_deref()) else {
        let detail = "no root certificates are installed: install the certificates of the system";
        return Err(Refusal::because(Code::TlsFailed, detail));
    };
    let Some(open) = flow.open.clone() else {
        return Err(Code::RecordUnavailable.into());
    };
    let began = flow.gate.clock.instant();
    let entering = way.enter(target, flow.caller(), alpn, upstream.stream);
    let entered = tokio::select! {
        biased;
        cut = open.cut() => return Err(Refusal::cut(cut)),
        entered = tokio::time::timeout(snapshot.limits.connect_timeout, entering) => entered,
    };
    flow.facts.timings_mut().tls = Some(millis(began.elapsed()));
    let entered = entered.unwrap_or(Err(TlsFailure::TIMEOUT));
    let result = entered
        .as_ref()
        .map_or_else(|failure| failure.word, |_| "ok");
    flow.gate.metrics.handshake("upstream", result);
    let entered = entered.map_err(tls_failed)?;
    Ok(Secured {
        stream: Stream::Over(entered.stream),
        address: upstream.address,
        through: upstream.parent,
        http2: entered.http2,
    })
}

/// The refusal of a handshake that failed.
pub(in crate::proxy) fn tls_failed(failure: TlsFailure) -> Refusal {
    let detail = format!("{}: {}", failure.word, failure.sentence);
    match failure.word {
        "timeout" => Refusal::because(Code::ConnectTimeout, detail),
        "network" => Refusal::because(Code::ConnectFailed, detail),
        word => Refusal::because(Code::TlsFailed, detail).exactly(word),
    }
}
