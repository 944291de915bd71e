//! Plain HTTP: an absolute-form request, judged, sent on, answered.
//!
//! What goes on is written anew from what was understood: the target that was judged is the one in
//! `Host`, the path that was judged is the one that is sent. Request and response bodies move at
//! the same time, so an origin may answer before it has read everything.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::clock::Clock;
use crate::dial::{PoolKey, Upstream};
use crate::gate::{self, OpenFlow};
use crate::metrics::FlowKind;
use crate::name::{Target, TargetError, Url};
use crate::policy::Decision;
use crate::record::{Blame, End, TlsMode};

use super::client::{ClientRead, ClientWrite};
use super::connect::reach;
use super::connection::Connection;
use super::flow::{Flow, Known, millis};
use super::http1::{
    Asked, BodyError, BodyLength, Client, Method, Onward, Passage, RequestHead, ResponseHead,
    copy_body, encode_request, encode_response, is_idempotent, parse_response, via_has,
};
use super::refusal::{Code, Refusal};
use super::relay::{Early, relay, silence};

/// Interim responses to one request: more than any honest origin sends.
const MOST_INTERIM: usize = 64;

/// How long a client that closed its side is answered while nothing moves: it may be gone.
const HALF_CLOSED: Duration = Duration::from_mins(1);

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum After {
    /// Reset: the answer broke off, and must not look whole.
    Abort,
    /// Closed in order.
    Close,
    /// The next request may come.
    Keep,
}

/// A connection to the origin, and whether it served another request before.
struct Route {
    stream: TcpStream,
    address: SocketAddr,
    reused: bool,
}

/// One request on its way.
struct Exchange<'a> {
    head: &'a RequestHead,
    url: &'a Url,
    upgrade: bool,
    open: Arc<OpenFlow>,
    clock: Clock,
    began: Instant,
}

/// Why an exchange did not come to an end of its own.
enum Broken {
    /// Nothing was sent to the client yet: it can be told.
    Before(Refusal),
    /// The kept connection turned out to be closed before anything came: worth another try.
    Stale,
}

/// Answers one request; says what becomes of the connection.
pub(super) async fn forward(connection: &mut Connection, head: RequestHead) -> After {
    let Some(mut flow) = connection.begin(FlowKind::Http).await else {
        return After::Close;
    };
    match Box::pin(request(connection, &mut flow, &head)).await {
        Ok(after) => after,
        Err(refusal) => {
            // A body that nobody reads would be taken for the next request.
            let keep = head.keep_alive && head.body.is_empty();
            let head_only = head.method == Method::Head;
            let told = connection
                .refuse(&mut flow, &refusal, !keep, head_only)
                .await;
            // Behind part of an answer the next one would be read as the rest of it.
            if keep && told {
                After::Keep
            } else {
                After::Close
            }
        }
    }
}

/// The stages of a plain request, in order.
async fn request(
    connection: &mut Connection,
    flow: &mut Flow,
    head: &RequestHead,
) -> Result<After, Refusal> {
    flow.facts.user_agent = head.user_agent().map(super::user_agent);
    flow.facts.method = Some(head.method.as_str().into());
    flow.facts.tls_mode = Some(TlsMode::None);
    let url = match connection.captured.clone() {
        Some(target) => {
            // Whose it is and where it goes is known before a word of it was understood.
            flow.aim(target.clone());
            connection.identify(flow, head).await?;
            super::capture::url(head, &target)?
        }
        None => url(head)?,
    };
    // The target counts and Host is written anew from it (RFC 9112 section 3.2.2), but one that is
    // no host at all is not a request (section 3.2).
    if head
        .host()
        .is_some_and(|host| Target::from_authority(host, 80).is_err())
    {
        return Err(Refusal::because(
            Code::BadRequest,
            "the Host field is not a host",
        ));
    }
    flow.aim(url.target.clone());
    if via_has(&head.fields, &connection.gate().pseudonym) {
        return Err(Refusal::malformed(
            508,
            "the request has passed this proxy before",
        ));
    }
    let known = connection.identify(flow, head).await?;
    if connection.gate().draining.is_cancelled() {
        return Err(Code::Draining.into());
    }
    if super::internal::is_own(&url.target) {
        return super::internal::answer(connection, flow, head, &url, &known).await;
    }
    let asked = gate::Asked::Request {
        method: head.method.as_str().into(),
        path: url.path.clone(),
        upgrade: head.upgrade().is_some(),
        tls: false,
        deed: None,
    };
    let decision = flow.judge(&known, &url.target, &asked)?;
    if head.upgrade().is_some() && !decision.upgrade {
        let detail = "no rule lets this request become another protocol";
        return Err(Refusal::because(Code::ActionDenied, detail));
    }
    let key = PoolKey {
        target: url.target.clone(),
        tier: known.caller.who.tier,
    };
    let mut route = obtain(flow, &known, &key, asked, &decision).await?;
    let Some(open) = flow.open.clone() else {
        return Ok(After::Close);
    };
    let clock = flow.gate.clock.clone();
    let began = clock.instant();
    let exchange = Exchange {
        head,
        url: &url,
        upgrade: decision.upgrade,
        open,
        clock,
        began,
    };
    flow.close.requests = 1;
    loop {
        let reused = route.reused;
        match exchange.run(connection, flow, route, &key).await {
            Ok(after) => return Ok(after),
            Err(Broken::Stale) if reused => route = redial(flow, &key, &decision).await?,
            Err(Broken::Stale) => return Err(silent_origin()),
            Err(Broken::Before(refusal)) => return Err(refusal),
        }
    }
}

/// The target and path of an absolute-form request (RFC 9112 section 3.2.2).
fn url(head: &RequestHead) -> Result<Url, Refusal> {
    let target = head.target();
    if target.starts_with(b"/") || target == b"*" {
        let detail = "this is a proxy: the request target must be an absolute http:// URL";
        return Err(Refusal::because(Code::BadRequest, detail));
    }
    let url = Url::parse(target).map_err(|error| match error {
        TargetError::Path(error) => Refusal::because(Code::BadPath, error.to_string()),
        error => Refusal::because(Code::BadTarget, error.to_string()),
    })?;
    if url.tls {
        return Err(Refusal::because(
            Code::BadTarget,
            "https goes through CONNECT",
        ));
    }
    Ok(url)
}

/// A kept connection whose address still passes, or a new one.
async fn obtain(
    flow: &mut Flow,
    known: &Known,
    key: &PoolKey,
    asked: gate::Asked,
    decision: &Decision,
) -> Result<Route, Refusal> {
    let snapshot = flow.snapshot();
    let now = flow.gate.clock.instant();
    let kept = snapshot.dialer.pool.take(key, now, |address| {
        let (ip, port) = (address.ip(), address.port());
        snapshot
            .policy
            .judge_address(decision, ip, port, &snapshot.guard)
            .is_ok()
    });
    let Some(kept) = kept else {
        let Upstream {
            stream, address, ..
        } = reach(flow, known, &key.target, asked, decision).await?;
        let stream = stream.into_socket().ok_or_else(silent_origin)?;
        return Ok(Route {
            stream,
            address,
            reused: false,
        });
    };
    flow.facts.peer_address = Some(kept.address.ip());
    flow.settle(known, &key.target, asked, decision).await?;
    if let Some(open) = &flow.open {
        open.dialled(kept.address);
    }
    Ok(Route {
        stream: kept.stream,
        address: kept.address,
        reused: true,
    })
}

/// Another try after a kept connection turned out to be closed: resolved and judged anew.
async fn redial(flow: &mut Flow, key: &PoolKey, decision: &Decision) -> Result<Route, Refusal> {
    let Upstream {
        stream, address, ..
    } = super::connect::dial(flow, &key.target, decision).await?;
    let stream = stream.into_socket().ok_or_else(silent_origin)?;
    Ok(Route {
        stream,
        address,
        reused: false,
    })
}

impl Exchange<'_> {
    /// Sends the request and passes the answer on, both at the same time.
    async fn run(
        &self,
        connection: &mut Connection,
        flow: &mut Flow,
        mut route: Route,
        key: &PoolKey,
    ) -> Result<After, Broken> {
        let snapshot = flow.snapshot();
        let idle = snapshot.limits.idle;
        let mut buffer = BytesMut::new();
        let Connection {
            stream,
            buffer: early,
            shared,
            ..
        } = connection;
        let (mut from_client, mut to_client) = stream.split();
        let (mut from_origin, mut to_origin) = route.stream.split();
        let mut answer = Answer::default();
        let ended = {
            let via = &shared.gate.pseudonym;
            let whole = AtomicBool::new(false);
            let mut send = pin!(self.send(&mut from_client, early, &mut to_origin, via, &whole));
            let mut reply =
                pin!(self.reply(&mut from_origin, &mut buffer, &mut to_client, &mut answer));
            let mut quiet = pin!(silence(&self.open.bytes, idle));
            tokio::select! {
                biased;
                cut = self.open.cut() => Ended::Cut(cut),
                replied = &mut reply => Ended::Replied(replied, whole.load(Ordering::Relaxed)),
                error = &mut send => Ended::Unsent(error),
                () = &mut quiet => Ended::Quiet,
            }
        };
        flow.facts.status = answer.status.or(flow.facts.status);
        flow.facts.ms.first_byte = answer.first_byte.map(millis);
        match ended {
            Ended::Replied(Ok(Replied::Upgraded), _) => {
                let early = connection.early();
                let buffers = connection.shared.buffers.clone();
                let relaying = relay(
                    &mut connection.stream,
                    &mut route.stream,
                    Early {
                        to_upstream: early,
                        to_client: if buffer.is_empty() {
                            Bytes::new()
                        } else {
                            buffer.freeze()
                        },
                    },
                    &buffers,
                    &self.open.bytes,
                    idle,
                );
                tokio::select! {
                    biased;
                    cut = self.open.cut() => flow.was_cut(cut),
                    relayed = relaying => flow.relayed(relayed),
                }
                Ok(After::Close)
            }
            Ended::Replied(Ok(Replied::Whole { client, origin }), sent) => {
                flow.ended(End::Closed, None, None);
                if origin && sent && buffer.is_empty() && !binds_connection(self.head) {
                    let now = flow.gate.clock.instant();
                    snapshot
                        .dialer
                        .pool
                        .put(key.clone(), route.stream, route.address, now);
                }
                Ok(if client && sent {
                    After::Keep
                } else {
                    After::Close
                })
            }
            ended => self.broken(flow, &answer, ended),
        }
    }

    /// What an exchange that broke off means to the record and the client.
    fn broken(&self, flow: &mut Flow, answer: &Answer, ended: Ended) -> Result<After, Broken> {
        let told = answer.status.is_some();
        // A length or chunks tell the client that something is missing; the end of the connection
        // would not.
        let after = if answer.until_close {
            After::Abort
        } else {
            After::Close
        };
        match ended {
            Ended::Cut(cut) => {
                flow.was_cut(cut);
                return Ok(after);
            }
            Ended::Quiet if !told => return Err(Broken::Before(Code::ConnectTimeout.into())),
            Ended::Quiet => flow.refuse(&Code::Idle.into()),
            Ended::Unsent(error) => {
                flow.ended(End::Failed, Some(Blame::Client), Some(body_code(&error)));
            }
            Ended::Replied(Err(ReplyError::Silent), _) if !told => {
                let retry = self.head.body.is_empty() && is_idempotent(&self.head.method);
                return Err(if retry {
                    Broken::Stale
                } else {
                    Broken::Before(silent_origin())
                });
            }
            Ended::Replied(Err(ReplyError::Malformed(why)), _) if !told => {
                return Err(Broken::Before(Refusal::because(Code::ConnectFailed, why)));
            }
            Ended::Replied(Err(ReplyError::Body(error)), _) => {
                let blame = match error {
                    BodyError::Write(_) => Blame::Client,
                    _ => Blame::Upstream,
                };
                flow.ended(End::Failed, Some(blame), Some(body_code(&error)));
            }
            Ended::Replied(..) => flow.ended(End::Failed, Some(Blame::Upstream), Some("io_error")),
        }
        Ok(after)
    }

    /// Sends the request, then looks after the client while the origin answers; ends only where
    /// the client is to blame.
    async fn send(
        &self,
        from: &mut ClientRead<'_>,
        early: &mut BytesMut,
        to: &mut WriteHalf<'_>,
        via: &str,
        sent: &AtomicBool,
    ) -> BodyError {
        match self.send_all(from, early, to, via).await {
            Ok(()) => sent.store(true, Ordering::Relaxed),
            // The origin stopped reading: it may still say why.
            Err(error) if blames_origin(&error) => {}
            Err(error) => return error,
        }
        BodyError::Read(self.gone(from, early).await)
    }

    /// Waits until the client is gone. One that closed its side may still read the answer (RFC 9112
    /// section 9.6), but holds its place no longer than that is likely.
    async fn gone(&self, from: &mut ClientRead<'_>, early: &mut BytesMut) -> io::Error {
        match from.watch(early).await {
            Ok(0) => {}
            // It says more already: it is there.
            Ok(_) => return std::future::pending().await,
            Err(error) => return error,
        }
        let mut moved = self.open.bytes.total();
        loop {
            tokio::time::sleep(HALF_CLOSED).await;
            let now = self.open.bytes.total();
            if now == moved {
                return io::ErrorKind::ConnectionAborted.into();
            }
            moved = now;
        }
    }

    async fn send_all(
        &self,
        from: &mut ClientRead<'_>,
        early: &mut BytesMut,
        to: &mut WriteHalf<'_>,
        via: &str,
    ) -> Result<(), BodyError> {
        let mut out = BytesMut::new();
        let onward = Onward {
            target: &self.url.target,
            path: &self.url.path,
            via,
            upgrade: self.upgrade,
        };
        encode_request(self.head, onward, &mut out);
        to.write_all(&out).await.map_err(BodyError::Write)?;
        drop(out);
        let passage = Passage {
            from: self.head.body,
            to: self.head.body.onward(),
            trailers: false,
        };
        copy_body(from, early, to, passage, &self.open.bytes.out).await
    }

    async fn reply(
        &self,
        from: &mut ReadHalf<'_>,
        buffer: &mut BytesMut,
        to: &mut ClientWrite<'_>,
        answer: &mut Answer,
    ) -> Result<Replied, ReplyError> {
        let client = Client {
            version: self.head.version,
            keep_alive: self.head.keep_alive,
        };
        for _ in 0..MOST_INTERIM {
            let head = self.response(from, buffer, answer).await?;
            if head.is_interim() && client.version == super::http1::Version::Http10 {
                continue;
            }
            let mut out = BytesMut::new();
            let told = encode_response(&head, client, "tidegate", &mut out);
            if head.is_interim() {
                tell(to, &out).await?;
                continue;
            }
            answer.status = Some(head.status);
            answer.until_close = told.body == BodyLength::UntilClose;
            let passage = Passage {
                from: head.body,
                to: told.body,
                trailers: true,
            };
            let whole = self.take_whole(&head, buffer, &mut out);
            tell(to, &out).await?;
            drop(out);
            if head.is_upgrade() {
                return Ok(Replied::Upgraded);
            }
            if !whole {
                let back = &self.open.bytes.back;
                copy_body(from, buffer, to, passage, back)
                    .await
                    .map_err(ReplyError::Body)?;
            }
            return Ok(Replied::Whole {
                client: told.keep_alive,
                origin: head.keep_alive,
            });
        }
        let why = "the origin sent one interim response after the other";
        Err(ReplyError::Malformed(why.into()))
    }

    /// A small body that came with its head goes on with it: one write instead of two.
    fn take_whole(&self, head: &ResponseHead, buffer: &mut BytesMut, out: &mut BytesMut) -> bool {
        let BodyLength::Length(length) = head.body else {
            return head.body == BodyLength::None;
        };
        let Ok(length) = usize::try_from(length) else {
            return false;
        };
        let Some(body) = buffer.get(..length) else {
            return false;
        };
        out.extend_from_slice(body);
        buffer.advance(length);
        self.open
            .bytes
            .back
            .fetch_add(length as u64, Ordering::Relaxed);
        true
    }

    async fn response(
        &self,
        from: &mut ReadHalf<'_>,
        buffer: &mut BytesMut,
        answer: &mut Answer,
    ) -> Result<ResponseHead, ReplyError> {
        let asked = Asked {
            head: self.head.method == Method::Head,
            upgrade: self.upgrade && self.head.upgrade().is_some(),
        };
        loop {
            match parse_response(buffer, asked) {
                Ok(Some(head)) => return Ok(head),
                Ok(None) => {}
                Err(error) => return Err(ReplyError::Malformed(error.to_string())),
            }
            buffer.reserve(8 * 1024);
            match from.read_buf(buffer).await {
                Ok(0) | Err(_) if buffer.is_empty() => return Err(ReplyError::Silent),
                Ok(0) => return Err(ReplyError::Malformed("the response head broke off".into())),
                Ok(_) => {}
                Err(error) => return Err(ReplyError::Malformed(super::io_code(&error).into())),
            }
            if answer.first_byte.is_none() {
                answer.first_byte = Some(self.clock.instant().duration_since(self.began));
            }
        }
    }
}

/// Writes to the client, as far as its socket.
async fn tell(to: &mut ClientWrite<'_>, bytes: &[u8]) -> Result<(), ReplyError> {
    let written = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    written
        .await
        .map_err(|error| ReplyError::Body(BodyError::Write(error)))
}

/// What is known of an answer while it comes.
#[derive(Default)]
struct Answer {
    /// Set when the head was passed on, or is just about to be.
    status: Option<u16>,
    /// Whether the client was told that the body lasts until the connection ends.
    until_close: bool,
    first_byte: Option<Duration>,
}

/// How an answer ended well.
enum Replied {
    /// The connection speaks another protocol now.
    Upgraded,
    /// All of it was passed on; whether each side takes another request.
    Whole { client: bool, origin: bool },
}

enum ReplyError {
    Body(BodyError),
    Malformed(String),
    /// The origin closed before its first byte.
    Silent,
}

enum Ended {
    Cut(gate::Cut),
    Quiet,
    /// And whether the whole request had been sent.
    Replied(Result<Replied, ReplyError>, bool),
    Unsent(BodyError),
}

/// Whether the origin takes the credentials for those of the connection (RFC 4559 section 6): what
/// follows on it would be taken for the same caller's.
fn binds_connection(head: &RequestHead) -> bool {
    head.fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case(b"authorization"))
        .any(|field| {
            let scheme = field.value.split(|byte| *byte == b' ').next();
            scheme.is_some_and(|scheme| {
                scheme.eq_ignore_ascii_case(b"negotiate") || scheme.eq_ignore_ascii_case(b"ntlm")
            })
        })
}

fn blames_origin(error: &BodyError) -> bool {
    matches!(error, BodyError::Write(_))
}

fn body_code(error: &BodyError) -> &'static str {
    match error {
        BodyError::Chunk(_) => Code::BadRequest.as_str(),
        BodyError::Read(error) | BodyError::Write(error) => super::io_code(error),
        BodyError::Truncated => super::kind_code(io::ErrorKind::UnexpectedEof),
    }
}

fn silent_origin() -> Refusal {
    Refusal::because(Code::ConnectFailed, "the origin closed before it answered")
}
