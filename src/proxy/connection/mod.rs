//! One client connection: request after request, until a tunnel takes it over or the connection
//! ends.

pub(super) mod client;
pub(super) mod rates;
pub(super) mod streams;
pub(super) mod timer;

use std::io;
use std::net::Ipv4Addr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::clock::within;
use crate::config::Listener;
use crate::gate::{Gate, Snapshot};
use crate::http::http1::{
    HeadError, HeadLimits, Method, RequestHead, Scan, read_onto, scan_request,
};
use crate::identity::{Channel, IdentityError};
use crate::metrics::FlowKind;
use crate::name::Target;
use crate::proxy::Shared;
use crate::proxy::accept::admission::Seat;
use crate::proxy::flow::{Flow, Known};
use crate::proxy::inspect::Inside;
use crate::proxy::refusal::{self, Code, Refusal};
use crate::proxy::request::{self, After};
use crate::proxy::tunnel::{self, Tunnel};
use crate::record::FlowFacts;

use client::ClientStream;
use rates::ConnectionRates;
use timer::Timer;

/// The limits in time and bytes for draining a refused client's input, so that the client can read
/// the answer before the connection is reset.
pub(super) const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// One client connection.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: ClientStream,
    /// Bytes that were read and not yet used; empty, and without memory, while the connection is
    /// idle.
    pub(super) buffer: BytesMut,
    pub(super) origin: Origin,
    known: Option<Box<Remembered>>,
    /// The target of the last plain request.
    pub(super) last_target: Option<Target>,
    /// The target of a captured client.
    pub(super) captured: Option<Target>,
    /// The tunnel that contains the connection.
    pub(super) inside: Option<Arc<Inside>>,
    /// Whether a request was read before.
    asked: bool,
    /// The rate limits of its caller.
    pub(super) rates: Option<ConnectionRates>,
    /// The timer for its waits, one after the other.
    pub(super) timer: Timer,
    /// Completes when the connection has to end; set at its first wait.
    ending: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// The origin of a connection.
#[derive(Clone)]
pub(super) struct Origin {
    /// The evidence of the connection.
    pub(super) channel: Arc<Channel>,
    /// The index of its listener.
    pub(super) listener: usize,
    /// Its place among the connections.
    pub(super) seat: Arc<Seat>,
}

/// The caller of the last request, reused for a request with the same credential.
struct Remembered {
    generation: u64,
    authorization: Option<Bytes>,
    known: Arc<Known>,
}

/// A request head, or the reason why none could be read.
pub(super) type HeadRead = Result<RequestHead, HeadError>;

/// The limits of a connection's wait for a request, of the generation at its begin.
struct NextLimits {
    keep_alive: Duration,
    header_timeout: Duration,
    bounds: HeadLimits,
}

/// The next event of a connection.
enum Next {
    /// The client closed, or sent nothing.
    End,
    /// No request could be read.
    Malformed(HeadError),
    /// A whole request head.
    Request(Box<RequestHead>),
}

impl From<HeadRead> for Next {
    fn from(read: HeadRead) -> Self {
        match read {
            Ok(head) => Self::Request(Box::new(head)),
            Err(error) => Self::Malformed(error),
        }
    }
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, stream: ClientStream, origin: Origin) -> Self {
        Self {
            shared,
            stream,
            origin,
            buffer: BytesMut::new(),
            known: None,
            last_target: None,
            captured: None,
            inside: None,
            asked: false,
            rates: None,
            timer: Timer::default(),
            ending: None,
        }
    }

    /// Answers requests until the connection ends. Returns a tunnel that the client opened, so that
    /// the memory for opening it is released while the tunnel is idle.
    ///
    /// An HTTP/2 stream passes its head as `read`.
    pub(super) async fn serve(mut self, read: Option<HeadRead>) -> Option<Box<Tunnel>> {
        let mut read = read.map(Next::from);
        loop {
            let next = match read.take() {
                Some(read) => read,
                None => self.next().await,
            };
            let mut head = match next {
                Next::End => return None,
                Next::Malformed(error) => {
                    Box::pin(self.malformed(error)).await;
                    return None;
                }
                Next::Request(head) => head,
            };
            let tunnels = self.captured.is_none() && self.inside.is_none();
            if head.method == Method::Connect && tunnels {
                return tunnel::connect(self, head).await;
            }
            match request::forward(&mut self, &mut head).await {
                After::Keep => {}
                After::Close => {
                    self.linger().await;
                    return None;
                }
                After::Abort => {
                    self.stream.break_off();
                    return None;
                }
            }
        }
    }

    /// The gate.
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.shared.gate
    }

    /// Releases the state for further requests, before the connection becomes a tunnel.
    pub(super) fn release_caller(&mut self) {
        self.known = None;
        self.last_target = None;
        self.rates = None;
        self.timer = Timer::default();
        self.ending = None;
    }

    /// Takes the bytes that were read and not used. An empty buffer is released, because it would
    /// hold the memory of the head.
    pub(super) fn early(&mut self) -> Bytes {
        let early = std::mem::take(&mut self.buffer);
        if early.is_empty() {
            Bytes::new()
        } else {
            early.freeze()
        }
    }

    /// Reads the next head, within its limits.
    async fn next(&mut self) -> Next {
        let limits = self.limits();
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            // A client without an earlier request gets less time than one that may send another
            // request.
            let timeout = if self.asked {
                limits.keep_alive
            } else {
                limits.header_timeout
            };
            if !self.read_first_bytes(timeout).await {
                return Next::End;
            }
        }
        let reading = pin!(self.head(limits.bounds));
        within(limits.header_timeout, reading)
            .await
            .unwrap_or(Next::End)
    }

    /// The limits for one head.
    fn limits(&self) -> NextLimits {
        let limits = &self.gate().snapshot.load().limits;
        NextLimits {
            keep_alive: limits.keep_alive,
            header_timeout: limits.header_timeout,
            bounds: HeadLimits {
                bytes: limits.header_size,
                fields: limits.header_count,
            },
        }
    }

    /// Waits until the client sends bytes, and reads them; `false` if it sends none. Needs no memory
    /// while it waits.
    async fn read_first_bytes(&mut self, timeout: Duration) -> bool {
        let token = match &self.inside {
            Some(inside) => &inside.ending,
            None => &self.shared.gate.draining,
        };
        if token.is_cancelled() {
            return false;
        }
        let new = || Box::pin(token.clone().cancelled_owned());
        let ending = self.ending.get_or_insert_with(new);
        let now = self.shared.gate.clock.instant();
        tokio::select! {
            biased;
            read = read_onto(&mut self.stream, &mut self.buffer) => matches!(read, Ok(1..)),
            () = ending => false,
            () = self.timer.wait(now, timeout) => false,
        }
    }

    async fn head(&mut self, bounds: HeadLimits) -> Next {
        let mut scan = Scan::default();
        loop {
            match scan_request(&mut self.buffer, bounds, &mut scan) {
                Ok(Some(head)) => {
                    self.asked = true;
                    return Next::Request(Box::new(head));
                }
                Err(error) => return Next::Malformed(error),
                Ok(None) => {}
            }
            match read_onto(&mut self.stream, &mut self.buffer).await {
                Ok(0) | Err(_) => return Next::End,
                Ok(_) => {}
            }
        }
    }

    /// Begins a flow, or answers that the flow cannot be recorded. `None` also if the connection
    /// was ended to make room for another one.
    pub(super) async fn begin(&mut self, kind: FlowKind) -> Option<Flow> {
        let busy = self.origin.seat.begin_request()?;
        let client = match self.captured {
            // In a jail every address is local, so the address of the socket has no meaning.
            Some(_) => Ipv4Addr::LOCALHOST.into(),
            None => self.origin.channel.peer.ip(),
        };
        match Flow::begin(&self.shared.gate, kind, client).await {
            Ok(mut flow) => {
                flow.busy = Some(busy);
                if self.captured.is_some() {
                    // No request was read in HTTP or CONNECT.
                    flow.facts.protocol = Some("captured");
                }
                if let Some(inside) = &self.inside {
                    inside.note(&mut flow.facts);
                }
                Some(flow)
            }
            Err(facts) => {
                let refusal = Code::RecordUnavailable.into();
                Box::pin(self.answer(&refusal, &facts, None, true, false)).await;
                drop(busy);
                self.linger().await;
                None
            }
        }
    }

    /// Identifies the caller and sets it in the flow.
    pub(super) async fn identify(
        &mut self,
        flow: &mut Flow,
        head: &RequestHead,
    ) -> Result<Arc<Known>, Refusal> {
        let known = self.identify_by(flow, head.proxy_authorization()).await?;
        // No request follows a CONNECT.
        if head.method != Method::Connect {
            self.remember(flow, head.proxy_authorization(), &known);
        }
        Ok(known)
    }

    /// Like [`Connection::identify`], with an optional credential; the caller is not remembered.
    pub(super) async fn identify_by(
        &mut self,
        flow: &mut Flow,
        authorization: Option<&[u8]>,
    ) -> Result<Arc<Known>, Refusal> {
        let snapshot = flow.snapshot();
        let known = self.known_as(&snapshot, authorization).await;
        let known = known.map_err(|error| {
            flow.not_identified(&error);
            Refusal::from(error)
        })?;
        flow.identified(&known.caller);
        self.count_connection(&known)?;
        flow.note_checkout(&known.caller).await;
        Ok(known)
    }

    /// Verifies a credential, once for a connection that presents the same credential again.
    async fn known_as(
        &mut self,
        snapshot: &Snapshot,
        authorization: Option<&[u8]>,
    ) -> Result<Arc<Known>, IdentityError> {
        if let Some(last) = &self.known
            && last.generation == snapshot.generation
            && last.authorization.as_deref() == authorization
            && snapshot
                .identity
                .still_holds(last.known.epoch, last.known.presented.until())
        {
            return Ok(last.known.clone());
        }
        // After a failed credential, no earlier caller is remembered.
        self.known = None;
        let epoch = snapshot.identity.sessions().epoch();
        let listener = self.listener(snapshot);
        let presented = if let Some(inside) = &self.inside {
            // The caller of the tunnel is the caller of all requests inside.
            inside.presented.clone()
        } else {
            let identity = &snapshot.identity;
            let presenting = identity.present(&listener, &self.origin.channel, authorization);
            presenting.await?
        };
        let caller = snapshot.caller(&presented).ok_or(IdentityError::Invalid)?;
        Ok(Arc::new(Known {
            presented,
            caller: Arc::new(caller),
            epoch,
        }))
    }

    fn remember(&mut self, flow: &Flow, authorization: Option<&[u8]>, known: &Arc<Known>) {
        let generation = flow.snapshot().generation;
        let again =
            |last: &Remembered| last.generation == generation && last.known.epoch == known.epoch;
        if self.known.as_deref().is_some_and(again) {
            return;
        }
        self.known = Some(Box::new(Remembered {
            generation,
            authorization: authorization.map(Bytes::copy_from_slice),
            known: known.clone(),
        }));
    }

    /// The configuration of the listener in a generation.
    fn listener(&self, snapshot: &Snapshot) -> Arc<Listener> {
        let bound = self.shared.listeners.get(self.origin.listener);
        snapshot.listener(bound.unwrap_or(&self.shared.unknown))
    }

    async fn malformed(&mut self, error: HeadError) {
        let Some(mut flow) = self.begin(FlowKind::Http).await else {
            return;
        };
        let refusal = Refusal::malformed(error.status(), error.to_string());
        self.refuse(&mut flow, &refusal, true, false).await;
        drop(flow);
        self.linger().await;
    }

    /// Refuses a flow and answers the client; `false` if the client did not take the whole answer.
    pub(super) async fn refuse(
        &mut self,
        flow: &mut Flow,
        refusal: &Refusal,
        close: bool,
        head_only: bool,
    ) -> bool {
        let limited = self.limit_refusal(flow, refusal).await;
        let refusal = limited.as_ref().unwrap_or(refusal);
        flow.refuse(refusal);
        let unrecorded = flow.recorded(refusal).await;
        let refusal = unrecorded.as_ref().unwrap_or(refusal);
        let target = flow.target.clone();
        self.answer(refusal, &flow.facts, target.as_ref(), close, head_only)
            .await
    }

    async fn answer(
        &mut self,
        refusal: &Refusal,
        facts: &FlowFacts,
        target: Option<&Target>,
        close: bool,
        head_only: bool,
    ) -> bool {
        let bytes = refusal::response(refusal, facts, target, close, head_only);
        let written = within(LINGER, self.say(&bytes)).await;
        matches!(written, Ok(Ok(())))
    }

    /// Writes to the client and flushes.
    pub(super) async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Closes the write side and lets the client finish reading: its further bytes are discarded
    /// (RFC 9931), within limits.
    ///
    /// The deadline covers the close as well: a TLS client that does not read takes no alert.
    pub(super) async fn linger(&mut self) {
        self.buffer = BytesMut::new();
        // Boxed: the other connections need no memory for it.
        let discarding = Box::pin(async {
            let _ = self.stream.shutdown().await;
            let mut left = LINGER_BYTES;
            let mut scratch = [0; 2048];
            while left > 0 {
                match self.stream.read(&mut scratch).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => left = left.saturating_sub(read),
                }
            }
        });
        let _ = tokio::time::timeout(LINGER, discarding).await;
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Invalid => Code::IdentityInvalid.into(),
            IdentityError::Required => Code::IdentityRequired.into(),
            IdentityError::Stranger => Self::because(
                Code::IdentityInvalid,
                "this proxy belongs to another session",
            ),
            IdentityError::Token { why, .. } => {
                Self::because(Code::IdentityInvalid, why.to_string())
            }
        }
    }
}
