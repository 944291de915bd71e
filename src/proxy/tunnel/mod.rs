//! `CONNECT host:port`: opens a tunnel, or refuses it with a reason.

pub(super) mod buffers;
pub(super) mod relay;
mod splice;

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use crate::clock::within;
use crate::dial::Stream;
use crate::gate::Asked;
use crate::http::http1::{RequestHead, via_before, via_has};
use crate::metrics::FlowKind;
use crate::name::{Host, Target};
use crate::policy::{Attempt, Inspect, Mode, Verdict};
use crate::proxy::connection::{Connection, LINGER};
use crate::proxy::flow::Flow;
use crate::proxy::inspect::Inside;
use crate::proxy::refusal::{Code, Refusal};
use crate::record::{Blame, End, TlsMode};
use crate::tls::hello::{ClientHello, Hello, HelloReader};

use relay::{Early, Relayed, Side, relay};

const OPENED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];
const DECODE_ERROR: &[u8] = &[21, 3, 3, 0, 2, 2, 50];
const ACCESS_DENIED: &[u8] = &[21, 3, 3, 0, 2, 2, 49];

/// An open tunnel: both sides are connected, and the 200 is sent.
pub(super) struct Tunnel {
    flow: Flow,
    connection: Connection,
    way: Way,
}

/// The treatment of the bytes in a tunnel.
pub(super) enum Way {
    /// TLS ends at the gate, and each request inside is decided.
    Inspected(Arc<Inside>),
    /// The bytes pass unchanged: TLS, or any protocol if `raw`.
    Opaque { upstream: Stream, raw: bool },
}

/// Answers 200 and returns the tunnel, or refuses.
pub(super) async fn connect(
    mut connection: Connection,
    head: Box<RequestHead>,
) -> Option<Box<Tunnel>> {
    let mut flow = connection.begin(FlowKind::Connect).await?;
    let opened = open(&mut connection, &mut flow, &head).await;
    drop(head);
    match opened {
        Ok(way) => {
            // A client that does not read must not delay the gate.
            let told = within(LINGER, connection.say(OPENED)).await;
            if !matches!(told, Ok(Ok(()))) {
                flow.ended(End::Closed, Some(Blame::Client), None);
                return None;
            }
            Some(Tunnel::untold(flow, connection, way))
        }
        Err(refusal) => {
            // Boxed, here and below: an opened tunnel must not be moved with the memory for refusals.
            Box::pin(connection.refuse(&mut flow, &refusal, true, false)).await;
            drop(flow);
            connection.linger().await;
            None
        }
    }
}

/// The stages before the tunnel, in order.
///
/// Each stage sets its facts in the flow before the next stage can fail, so that the record shows
/// how far the flow came.
async fn open(
    connection: &mut Connection,
    flow: &mut Flow,
    head: &RequestHead,
) -> Result<Way, Refusal> {
    flow.facts.user_agent = head.user_agent().map(crate::proxy::user_agent);
    flow.facts.method = Some("CONNECT".into());
    let target = Target::from_connect(head.target())
        .map_err(|error| Refusal::because(Code::BadTarget, error.to_string()))?;
    flow.aim(target.clone());
    if via_has(&head.fields, &connection.gate().pseudonym) {
        let detail = "the request has passed this proxy before";
        return Err(Refusal::malformed(508, detail));
    }
    flow.via = via_before(&head.fields);
    let known = connection.identify(flow, head).await?;
    tunnel_to(connection, flow, &known, &target).await
}

/// Decides and dials, for a tunnel of an identified caller.
pub(super) async fn tunnel_to(
    connection: &Connection,
    flow: &mut Flow,
    known: &crate::proxy::flow::Known,
    target: &Target,
) -> Result<Way, Refusal> {
    if connection.gate().draining.is_cancelled() {
        return Err(Code::Draining.into());
    }
    if crate::proxy::request::internal::is_own(target) {
        return Err(crate::proxy::request::internal::no_tunnel());
    }
    let judged = flow.judge_attempt(known, target, Attempt::Connect);
    let held = flow.hold(connection, (known, target), Attempt::Connect, judged);
    let decision = held.await?;
    flow.facts.tls_mode = match decision.inspect {
        _ if decision.raw => None,
        Inspect::Yes => Some(TlsMode::Inspected),
        Inspect::No | Inspect::Passed(_) => Some(TlsMode::Opaque),
    };
    if let Inspect::Passed(rule) = &decision.inspect {
        flow.facts.detail = Some(format!("not inspected, by rule {rule}").into());
    }
    let looked_into = decision.inspect == Inspect::Yes && !decision.raw;
    flow.opaque = !looked_into;
    if looked_into {
        crate::proxy::inspect::require_authority(flow, &target.host)?;
        let resumed = Box::pin(Inside::resume(flow, known, target, &decision)).await?;
        if let Some(inside) = resumed {
            return Ok(Way::Inspected(inside));
        }
    }
    let route = flow.find_route(target, &decision).await?;
    flow.settle(known, target, Asked::Connect, &decision)
        .await?;
    let upstream = flow.dial(route, &decision).await?;
    if looked_into {
        let began = Inside::begin(flow, known, target, &decision, upstream);
        return Box::pin(began).await.map(Way::Inspected);
    }
    Ok(Way::Opaque {
        upstream: upstream.stream,
        raw: decision.raw,
    })
}

impl Tunnel {
    /// A tunnel whose client needs no further answer.
    pub(super) fn untold(flow: Flow, connection: Connection, way: Way) -> Box<Self> {
        Box::new(Self {
            flow,
            connection,
            way,
        })
    }

    /// Checks the first bytes of the tunnel, then moves bytes both ways, or answers the requests
    /// inside, until either side is done.
    pub(super) async fn carry(mut self: Box<Self>) {
        if !matches!(self.way, Way::Opaque { raw: true, .. })
            && let Err(code) = Box::pin(self.greet()).await
        {
            Box::pin(self.shut(code)).await;
            return;
        }
        match &self.way {
            Way::Inspected(inside) => {
                let inside = inside.clone();
                let Self {
                    flow, connection, ..
                } = *self;
                Box::pin(crate::proxy::inspect::carry(flow, connection, inside)).await;
            }
            Way::Opaque { .. } => self.pass().await,
        }
    }

    /// Moves bytes both ways until either side is done. Works in place, so that an idle tunnel
    /// keeps one copy of its state.
    async fn pass(&mut self) {
        let Self {
            flow,
            connection,
            way: Way::Opaque { upstream, .. },
        } = self
        else {
            return;
        };
        let Some(open) = flow.open.clone() else {
            return;
        };
        let early = Early {
            to_upstream: connection.early(),
            to_client: Bytes::new(),
        };
        let idle = flow.snapshot().limits.idle;
        flow.rest();
        connection.release_caller();
        let shared = connection.shared.clone();
        let moved = relay(
            &mut connection.stream,
            upstream,
            early,
            &shared.buffers,
            &open.bytes,
            idle,
        );
        // The cut first: no byte may pass after it.
        tokio::select! {
            biased;
            cut = open.cut() => flow.was_cut(cut),
            relayed = moved => {
                if let Relayed::Reset { side: Side::Upstream, .. } = relayed {
                    connection.stream.upstream_broke_off();
                }
                flow.relayed(relayed);
            }
        }
        Box::pin(flow.record_end()).await;
    }

    /// Reads the whole `ClientHello`; no byte of the origin passes before its check.
    async fn greet(&mut self) -> Result<(), Option<Code>> {
        let longest = self.flow.snapshot().limits.hello_timeout;
        let Some(open) = self.flow.open.clone() else {
            return Err(None);
        };
        let hello = tokio::select! {
            hello = tokio::time::timeout(longest, self.hello()) => hello,
            cut = open.cut() => {
                self.flow.was_cut(cut);
                return Err(None);
            }
        };
        // A client that waits for the server to speak first does not speak TLS.
        let hello = hello.unwrap_or(Err(Some(Code::NotTls)))?;
        self.flow.facts.server_name = hello.server_name.as_ref().map(|name| name.as_str().into());
        self.flow.facts.ech = hello.ech;
        names_agree(&self.flow, &hello).map_err(Some)?;
        self.judge_ech(&hello).map_err(Some)
    }

    /// Refuses an encrypted client hello if the caller's tier has `ech = "deny"`. If TLS ends at
    /// the gate, ECH hides nothing: the gate has no ECH key, so only the outer name counts.
    fn judge_ech(&mut self, hello: &ClientHello) -> Result<(), Code> {
        let Some((tier, _)) = self.flow.judged else {
            return Ok(());
        };
        let opaque = matches!(self.way, Way::Opaque { .. });
        if !hello.ech || !opaque || self.flow.snapshot().policy.allows_ech(tier) {
            return Ok(());
        }
        let tier = self.flow.facts.tier.as_deref().unwrap_or_default();
        let detail =
            format!("tier {tier} says `ech = \"deny\"`; browsers send the extension always");
        self.flow.facts.detail = Some(detail.into());
        if self.flow.facts.mode == Some(Mode::Observe) {
            self.flow.facts.would = Some(Verdict::Deny);
            self.flow.facts.reason = Code::EchDenied.as_str();
            return Ok(());
        }
        Err(Code::EchDenied)
    }

    async fn hello(&mut self) -> Result<ClientHello, Option<Code>> {
        let Connection { stream, buffer, .. } = &mut self.connection;
        let mut reader = HelloReader::default();
        loop {
            match reader.read(buffer) {
                Hello::Tls(hello) => return Ok(hello),
                Hello::NotTls => return Err(Some(Code::NotTls)),
                Hello::Malformed(detail) => {
                    self.flow.facts.detail = Some(detail.into());
                    return Err(Some(Code::BadClientHello));
                }
                Hello::BadName(detail) => {
                    self.flow.facts.detail = Some(detail.into());
                    return Err(Some(Code::SniMismatch));
                }
                Hello::TooLarge => return Err(Some(Code::Limit)),
                Hello::Incomplete => {}
            }
            buffer.reserve(2048);
            match stream.read_buf(buffer).await {
                Ok(0) if buffer.is_empty() => {
                    self.flow.ended(End::Closed, Some(Blame::Client), None);
                    return Err(None);
                }
                Ok(0) => return Err(Some(Code::NotTls)),
                Ok(_) => {}
                Err(error) => {
                    self.flow.ended(
                        End::Failed,
                        Some(Blame::Client),
                        Some(crate::proxy::io_code(&error)),
                    );
                    return Err(None);
                }
            }
        }
    }

    /// Closes the tunnel, with a TLS alert if a client shows one for this code.
    async fn shut(mut self: Box<Self>, code: Option<Code>) {
        let Some(code) = code else {
            self.flow.record_end().await;
            return;
        };
        let detail = self.flow.facts.detail.take().unwrap_or_default();
        let refusal = Refusal::because(code, detail);
        self.flow.refuse(&refusal);
        // An unavailable log has no TLS alert: the tunnel only ends.
        let _ = self.flow.recorded(&refusal).await;
        if let Some(alert) = alert(code) {
            let saying = self.connection.say(alert);
            let _ = tokio::time::timeout(LINGER, saying).await;
        }
        let Self {
            flow,
            mut connection,
            way,
        } = *self;
        drop(way);
        drop(flow);
        connection.linger().await;
    }
}

/// The fatal alert (RFC 8446 section 6) for a refusal, if a TLS client would show it.
fn alert(code: Code) -> Option<&'static [u8]> {
    match code {
        Code::SniMismatch | Code::SniMissing => Some(UNRECOGNIZED_NAME),
        Code::BadClientHello => Some(DECODE_ERROR),
        Code::EchDenied => Some(ACCESS_DENIED),
        _ => None,
    }
}

impl Flow {
    /// Sets the end of the flow after its relay.
    pub(super) fn relayed(&mut self, relayed: Relayed) {
        self.close.requests = 1;
        match relayed {
            Relayed::Closed { .. } => self.ended(End::Closed, None, None),
            Relayed::Idle => self.refuse(&Code::Idle.into()),
            Relayed::Reset { side, error } => {
                let blame = match side {
                    Side::Client => Blame::Client,
                    Side::Upstream => Blame::Upstream,
                };
                self.ended(
                    End::Failed,
                    Some(blame),
                    Some(crate::proxy::kind_code(error)),
                );
            }
        }
    }
}

/// The server name must be the host of the CONNECT; the outer name of ECH counts like any other.
/// For an IP address there must be no server name.
fn names_agree(flow: &Flow, hello: &ClientHello) -> Result<(), Code> {
    match (
        flow.target.as_ref().map(|target| &target.host),
        &hello.server_name,
    ) {
        (Some(Host::Name(asked)), Some(inside)) if asked == inside => Ok(()),
        (Some(Host::Address(_)), None) => Ok(()),
        (_, Some(_)) => Err(Code::SniMismatch),
        (_, None) => Err(Code::SniMissing),
    }
}
