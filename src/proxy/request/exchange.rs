//! The exchange of one request and its answer with the origin, both at the same time.
//!
//! The gate writes the request anew from its parsed value: `Host` is the decided target, and the
//! path is the decided path. An origin may answer before it has read the whole request.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;

use crate::clock::Clock;
use crate::dial::Through;
use crate::gate::{self, OpenFlow};
use crate::http::http1::{
    BodyError, BodyLength, Onward, Passage, RequestHead, Sender, Version, copy_body,
    encode_request, is_idempotent,
};
use crate::name::Url;
use crate::proxy::connection::Connection;
use crate::proxy::connection::timer::Timer;
use crate::proxy::flow::{Flow, millis};
use crate::proxy::refusal::{Code, Refusal};
use crate::proxy::tunnel::relay::{Early, Relayed, Silence, relay_upgraded};
use crate::record::{Blame, End};
use crate::tls::TlsFailure;

use super::After;
use super::origin::{OriginStream, OriginWrite};
use super::reply::{Answer, Replied, ReplyError};
use super::route::{Route, Way, tls_failed};
use super::tools::Tools;
use super::upload::Upload;

/// How long an idle client that closed its write side is still answered: it may be gone.
const HALF_CLOSED: Duration = Duration::from_mins(1);

/// One request being exchanged.
pub(super) struct Exchange<'a> {
    pub(in crate::proxy) head: &'a RequestHead,
    pub(in crate::proxy) url: &'a Url,
    pub(in crate::proxy) upgrade: bool,
    /// Reduces the tool list of an MCP server.
    pub(in crate::proxy) tools: Option<Tools>,
    pub(in crate::proxy) open: Arc<OpenFlow>,
    pub(in crate::proxy) clock: Clock,
    pub(in crate::proxy) began: Instant,
}

/// The reason why an exchange failed before its answer.
pub(super) enum Broken {
    /// No byte was sent to the client yet: the client can be answered.
    Before(Refusal),
    /// The parent rejected the credential, and there is another credential now: try again.
    Unknown,
    /// The kept connection proved closed before any answer, and the whole request is still
    /// available: try again.
    Stale,
}

/// How much of a request was sent.
pub(super) struct Progress {
    /// Whether any part was handed to the upstream connection.
    begun: AtomicBool,
    /// Whether the whole request was.
    whole: AtomicBool,
}

impl Progress {
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }
}

impl Exchange<'_> {
    /// Sends the request and forwards the answer, both at the same time.
    pub(in crate::proxy) async fn run(
        &self,
        connection: &mut Connection,
        flow: &mut Flow,
        mut route: Route,
        way: &Way<'_>,
    ) -> Result<After, Broken> {
        let snapshot = flow.snapshot();
        let idle = snapshot.limits.idle;
        let mut buffer = BytesMut::new();
        let Connection {
            stream,
            buffer: early,
            shared,
            timer,
            ..
        } = connection;
        let (from_client, mut to_client) = stream.split();
        // Only a request over a reused connection may have to be sent again.
        let keep = route.reused && !self.head.body.is_empty();
        let mut upload = Upload::new(from_client, early, keep);
        let progress = Progress {
            // The head of an HTTP/2 stream was sent before.
            begun: matches!(route.stream, OriginStream::Http2(_)).into(),
            whole: false.into(),
        };
        let through = route.through.as_ref();
        let (mut from_origin, mut to_origin) = route.stream.split();
        let mut answer = Answer {
            by_parent: through.is_some_and(|through| through.absolute),
            ..Answer::default()
        };
        let ended = {
            let via = (&*shared.gate.pseudonym, through);
            let mut send = pin!(self.send(&mut upload, early, &mut to_origin, via, &progress));
            let origin = (&mut from_origin, &mut buffer);
            let mut reply = pin!(self.reply(origin, &mut to_client, &mut answer, &progress));
            let mut quiet = pin!(self.silence(timer, idle));
            tokio::select! {
                biased;
                cut = self.open.cut() => Ended::Cut(cut),
                replied = &mut reply => Ended::Replied(replied),
                error = &mut send => Ended::Unsent(error),
                () = &mut quiet => Ended::Quiet,
            }
        };
        let sent = progress.is_whole();
        let waited = upload.waits() && !sent;
        let kept = upload.into_kept();
        if let Some(status) = answer.status {
            flow.facts.set_status(status);
        }
        flow.facts.timings_mut().first_byte = answer.first_byte.map(millis);
        match ended {
            Ended::Replied(Ok(Replied::Upgraded)) => {
                Ok(Box::pin(self.upgraded(connection, flow, route, buffer)).await)
            }
            Ended::Replied(Ok(Replied::Whole { client, origin })) => {
                flow.ended(End::Closed, None, None);
                if origin && sent && buffer.is_empty() && !binds_connection(self.head) {
                    way.keep(flow, route);
                }
                Ok(if client && sent {
                    After::Keep
                } else {
                    After::Close
                })
            }
            Ended::Replied(Err(ReplyError::Unknown)) => Err(self.unknown(through).await),
            Ended::Replied(Err(ReplyError::Silent { refused })) if answer.status.is_none() => {
                let untouched = refused || !progress.has_begun();
                let again = self.may_go_again(untouched, kept, early);
                Err(again.unwrap_or_else(|| Broken::Before(silent_origin())))
            }
            ended => {
                let begun = progress.has_begun();
                self.broken(flow, &answer, ended, (begun, waited))
            }
        }
    }

    /// Waits until no byte has been counted for `idle`, with a tolerance of a quarter.
    async fn silence(&self, timer: &mut Timer, idle: Duration) {
        let mut silence = Silence::since(&self.open.bytes);
        let mut now = self.began;
        while !silence.lasts(&self.open.bytes) {
            timer.wait(now, idle / 4).await;
            now = self.clock.instant();
        }
    }

    /// Whether an unanswered request can be sent again: the origin has not processed it, or may
    /// process it twice (RFC 9110 section 9.2.2), and its body is still available. Puts the read
    /// part of the body back before the rest.
    fn may_go_again(
        &self,
        untouched: bool,
        kept: Option<BytesMut>,
        early: &mut BytesMut,
    ) -> Option<Broken> {
        if !untouched && !is_idempotent(&self.head.method) {
            return None;
        }
        if !self.head.body.is_empty() {
            *early = kept?;
        }
        Some(Broken::Stale)
    }

    /// The result after a parent rejected the credential: whether the request can be sent again.
    async fn unknown(&self, through: Option<&Through>) -> Broken {
        let again = self.head.body.is_empty() && is_idempotent(&self.head.method);
        match through {
            Some(through) if through.has_other_credential().await && again => Broken::Unknown,
            _ => Broken::Before(unknown_to_parent()),
        }
    }

    /// Moves bytes both ways after an upgrade.
    async fn upgraded(
        &self,
        connection: &mut Connection,
        flow: &mut Flow,
        mut route: Route,
        buffer: BytesMut,
    ) -> After {
        let to_client = if buffer.is_empty() {
            Bytes::new()
        } else {
            buffer.freeze()
        };
        let early = Early {
            to_upstream: connection.early(),
            to_client,
        };
        let idle = flow.snapshot().limits.idle;
        flow.rest();
        let shared = connection.shared.clone();
        let (client, bytes) = (&mut connection.stream, &self.open.bytes);
        let upstream = &mut route.stream;
        let relaying = relay_upgraded(client, upstream, early, &shared.buffers, bytes, idle);
        let whole = tokio::select! {
            biased;
            cut = self.open.cut() => {
                flow.was_cut(cut);
                false
            }
            relayed = relaying => {
                flow.relayed(relayed);
                matches!(relayed, Relayed::Closed { .. })
            }
        };
        // The end of a stream would look like an orderly one.
        if self.head.extended && !whole {
            After::Abort
        } else {
            After::Close
        }
    }

    /// Sets the end of a failed exchange in the flow, and returns the consequence for the client.
    ///
    /// `begun`: whether the origin may have a part of the request. `waited`: whether the gate waited
    /// for the client.
    fn broken(
        &self,
        flow: &mut Flow,
        answer: &Answer,
        ended: Ended,
        (begun, waited): (bool, bool),
    ) -> Result<After, Broken> {
        let told = answer.has_begun();
        // A length or chunks show the client that a part is missing; the end of the connection does
        // not. An HTTP/2 stream is reset, because its end would mean that the answer is complete.
        let after = if answer.until_close || self.head.version == Version::Http2 {
            After::Abort
        } else {
            After::Close
        };
        match ended {
            Ended::Cut(cut) => {
                // A 503 asks the client to try again, which could carry the request out twice.
                let twice = cut == gate::Cut::Drain && begun && !is_idempotent(&self.head.method);
                if !told && !twice {
                    return Err(Broken::Before(cut_at_origin(cut, begun)));
                }
                flow.was_cut(cut);
            }
            Ended::Quiet if !told && waited => return Err(Broken::Before(stalled_client())),
            Ended::Quiet if !told => return Err(Broken::Before(Code::ConnectTimeout.into())),
            Ended::Quiet => flow.refuse(&Code::Idle.into()),
            Ended::Unsent(BodyError::Chunk(why)) if !told => {
                let refusal = Refusal::because(Code::BadRequest, why);
                return Err(Broken::Before(refusal.exactly("request_chunks")));
            }
            Ended::Unsent(error) => {
                let word = body_code(&error, Sender::Client);
                flow.ended(End::Failed, Some(Blame::Client), Some(word));
            }
            Ended::Replied(Err(ReplyError::Tls(error))) if !told => {
                let failure = TlsFailure::in_error(&error).unwrap_or(TlsFailure::NETWORK);
                return Err(Broken::Before(tls_failed(failure)));
            }
            Ended::Replied(Err(ReplyError::Malformed(word, why))) if !told => {
                let refusal = Refusal::because(Code::BadResponse, why).exactly(word);
                return Err(Broken::Before(refusal));
            }
            Ended::Replied(Err(ReplyError::Body(error))) => {
                let blame = match error {
                    BodyError::Write(_) => Blame::Client,
                    _ => Blame::Upstream,
                };
                let word = body_code(&error, Sender::Origin);
                flow.ended(End::Failed, Some(blame), Some(word));
            }
            Ended::Replied(..) => flow.ended(End::Failed, Some(Blame::Upstream), Some("io_error")),
        }
        Ok(after)
    }

    /// Sends the request, then watches the client while the origin answers; returns only for an
    /// error of the client.
    async fn send(
        &self,
        from: &mut Upload<'_>,
        early: &mut BytesMut,
        to: &mut OriginWrite<'_>,
        via: (&str, Option<&Through>),
        progress: &Progress,
    ) -> BodyError {
        match self.send_all(from, early, to, via, progress).await {
            Ok(()) => progress.whole.store(true, Ordering::Relaxed),
            // The origin stopped reading: it may still answer.
            Err(error) if blames_origin(&error) => {}
            Err(error) => return error,
        }
        BodyError::Read(self.gone(from, early).await)
    }

    /// Waits until the client is gone. A client that closed its write side may still read the
    /// answer (RFC 9112 section 9.6); it counts as gone after [`HALF_CLOSED`] without progress.
    async fn gone(&self, from: &mut Upload<'_>, early: &mut BytesMut) -> io::Error {
        match from.watch(early).await {
            Ok(0) => {}
            // The client sent more bytes, so it is still there.
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
        from: &mut Upload<'_>,
        early: &mut BytesMut,
        to: &mut OriginWrite<'_>,
        via: (&str, Option<&Through>),
        progress: &Progress,
    ) -> Result<(), BodyError> {
        progress.begun.store(true, Ordering::Relaxed);
        self.open.bytes.out.spend(self.head.size());
        if self.head.extended {
            // The head was sent in a frame; further bytes wait until the origin accepts.
            return Ok(());
        }
        let framed = matches!(to, OriginWrite::Http2(_));
        if !framed {
            let out = self.written(via);
            to.write_all(&out).await.map_err(BodyError::Write)?;
            to.flush().await.map_err(BodyError::Write)?;
        }
        let onward = if framed {
            BodyLength::UntilClose
        } else {
            self.head.body.onward()
        };
        let passage = Passage {
            from: self.head.body,
            to: onward,
            trailers: self.url.tls,
            sender: Sender::Client,
        };
        copy_body(from, early, to, passage, &self.open.bytes.out).await
    }

    /// Encodes the head in HTTP/1 for the origin.
    fn written(&self, (via, through): (&str, Option<&Through>)) -> Vec<u8> {
        let mut out = Vec::new();
        encode_request(self.head, self.onward(via, through), &mut out);
        out
    }

    /// The target of the request, and its `Via`.
    pub(super) fn onward<'s>(&'s self, via: &'s str, through: Option<&'s Through>) -> Onward<'s> {
        Onward {
            target: &self.url.target,
            path: &self.url.path,
            via,
            upgrade: self.upgrade,
            through,
            tls: self.url.tls,
            plain: self.tools.as_ref().is_some_and(Tools::lists),
        }
    }
}

enum Ended {
    Cut(gate::Cut),
    Quiet,
    Replied(Result<Replied, ReplyError>),
    Unsent(BodyError),
}

/// Whether the credentials authenticate the connection instead of the request (RFC 4559 section 6):
/// the origin would treat later requests on it as the same caller's.
fn binds_connection(head: &RequestHead) -> bool {
    head.fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case(b"authorization"))
        .any(|field| {
            let mut words = field.value.split(|byte| matches!(byte, b' ' | b'\t'));
            let scheme = words.next();
            scheme.is_some_and(|scheme| {
                scheme.eq_ignore_ascii_case(b"negotiate") || scheme.eq_ignore_ascii_case(b"ntlm")
            })
        })
}

fn blames_origin(error: &BodyError) -> bool {
    matches!(error, BodyError::Write(_))
}

fn body_code(error: &BodyError, sender: Sender) -> &'static str {
    match error {
        BodyError::Chunk(_) if sender == Sender::Origin => "response_chunks",
        BodyError::Chunk(_) => "request_chunks",
        BodyError::Read(error) | BodyError::Write(error) => crate::proxy::io_code(error),
        BodyError::Truncated => crate::proxy::kind_code(io::ErrorKind::UnexpectedEof),
    }
}

pub(super) fn unknown_to_parent() -> Refusal {
    Refusal::because(Code::ParentFailed, "the parent refused: 407")
}

pub(super) fn silent_origin() -> Refusal {
    let detail = "the origin closed before it answered";
    Refusal::because(Code::BadResponse, detail).exactly("response_missing")
}

/// The refusal of a request that was cut while its origin was to answer.
fn cut_at_origin(cut: gate::Cut, begun: bool) -> Refusal {
    let refusal = Refusal::cut(cut);
    if begun {
        refusal.with_detail("the origin has the request, and may have carried it out")
    } else {
        refusal
    }
}

/// The refusal of a client that does not send the announced body.
fn stalled_client() -> Refusal {
    Refusal::malformed(408, "the body does not come in time").exactly("request_timeout")
}
