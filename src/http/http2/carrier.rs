//! An HTTP/2 connection with an origin, and one exchange on it.
//!
//! A carrier belongs to one inspected tunnel: it is never shared with another caller or decision.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::dial::Stream;
use crate::http::http1::RequestHead;
use crate::metrics::Metrics;

use super::frames::Asked;
use super::stream::{broken, poll_body, put_trailers, trailer_fields};
use super::{
    CONNECTION_WINDOW, FLOOD, RESET_CAUSED, RESET_KEPT, SEND_BUFFER, SMALL_DATA, STREAM_WINDOW,
    frames, head, note,
};

/// The side of the gate, as a metric label.
const SIDE: &str = "upstream";
/// Maximum size of a response's header list, in bytes.
const HEADER_LIST: u32 = 64 * 1024;
/// Initial number of concurrent streams, until the origin's SETTINGS arrive: larger than any value
/// in SETTINGS, so a change shows that they have arrived.
const UNGREETED: usize = usize::MAX - 1;
/// How long a WebSocket request waits for the SETTINGS of a new connection.
const GREETING: Duration = Duration::from_secs(10);

/// An HTTP/2 connection with an origin. The connection closes when the carrier and all its
/// exchanges are dropped: a new carrier does not break off running exchanges.
pub(crate) struct Carrier {
    send: SendRequest<Bytes>,
    /// Cancelled when the origin's SETTINGS have arrived, or never will.
    greeted: CancellationToken,
    over: Arc<AtomicBool>,
    /// The number of requests sent: the number of expected responses.
    asked: Asked,
    stop: Arc<DropGuard>,
}

/// One request and its response.
pub(crate) struct Exchange {
    handle: Option<SendRequest<Bytes>>,
    greeted: CancellationToken,
    asked: Asked,
    sending: Option<SendStream<Bytes>>,
    receiving: Receiving,
    _stop: Arc<DropGuard>,
}

/// The response of the origin.
pub(crate) struct ResponseHalf<'e>(&'e mut Receiving);

/// The request to the origin.
pub(crate) struct RequestHalf<'e>(&'e mut Option<SendStream<Bytes>>);

enum Receiving {
    /// No request was sent.
    Unasked,
    /// The head has not arrived.
    Head {
        response: ResponseFuture,
        asked: Asked,
        /// Whether the request asks for a WebSocket.
        extended: bool,
    },
    /// The head as HTTP/1 writes it, then the body.
    Body {
        head: Bytes,
        rest: Bytes,
        body: RecvStream,
    },
}

impl Carrier {
    /// Starts HTTP/2 on a connection; `tasks` gets the task that moves its frames.
    pub(crate) async fn begin(
        io: Stream,
        clock: Clock,
        metrics: Metrics,
        tasks: &TaskTracker,
    ) -> io::Result<Self> {
        let asked = Asked::nothing();
        let (io, flooded) = frames::from_origin(io, clock, asked.clone());
        let handshake = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST)
            .max_concurrent_reset_streams(RESET_KEPT)
            .initial_max_send_streams(UNGREETED)
            .max_local_error_reset_streams(Some(RESET_CAUSED))
            .data_frame_budget(SMALL_DATA)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake::<_, Bytes>(io);
        let (send, connection) = handshake.await.map_err(broken)?;
        let stop = CancellationToken::new();
        let over = Arc::new(AtomicBool::new(false));
        let greeted = CancellationToken::new();
        let moving = carry(connection, send.clone(), greeted.clone().drop_guard());
        let (stopped, ended) = (stop.clone(), over.clone());
        tasks.spawn(async move {
            tokio::select! {
                ended = moving => {
                    if let Err(error) = ended {
                        note(&metrics, SIDE, &error);
                    }
                }
                () = flooded.cancelled() => metrics.http2_ended(SIDE, FLOOD),
                () = stopped.cancelled() => {}
            }
            ended.store(true, Ordering::Release);
        });
        Ok(Self {
            send,
            greeted,
            over,
            asked,
            stop: Arc::new(stop.drop_guard()),
        })
    }

    /// Whether the connection has ended and accepts no more requests.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Whether a stream may become a WebSocket (RFC 8441); waits for the origin's SETTINGS.
    pub(crate) fn takes_sockets(&self) -> impl Future<Output = bool> + use<> {
        let (send, greeted) = (self.send.clone(), self.greeted.clone());
        async move {
            greeted.cancelled().await;
            send.is_extended_connect_protocol_enabled()
        }
    }

    /// Returns an exchange that has not started.
    pub(crate) fn exchange(&self) -> Exchange {
        Exchange {
            handle: Some(self.send.clone()),
            greeted: self.greeted.clone(),
            asked: self.asked.clone(),
            sending: None,
            receiving: Receiving::Unasked,
            _stop: self.stop.clone(),
        }
    }
}

/// Moves frames until the connection ends; drops `greeting` when the origin's SETTINGS arrive.
async fn carry<S>(
    connection: Connection<S, Bytes>,
    seen: SendRequest<Bytes>,
    greeting: DropGuard,
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = pin!(connection);
    let mut waiting = Some((seen, greeting));
    poll_fn(|cx| {
        let turn = connection.as_mut().poll(cx);
        waiting.take_if(|(seen, _)| seen.current_max_send_streams() != UNGREETED);
        turn
    })
    .await
}

impl Exchange {
    /// Sends `request`, which [`onward_request`] made from `head`; waits until the origin has room
    /// for another stream. `Unsupported` if the request asks for a WebSocket and the origin
    /// supports none.
    ///
    /// [`onward_request`]: super::onward_request
    pub(crate) async fn begin(
        &mut self,
        head: &RequestHead,
        request: http::Request<()>,
    ) -> io::Result<()> {
        let handle = self.handle.take().ok_or(io::ErrorKind::NotConnected)?;
        let mut send = handle.ready().await.map_err(broken)?;
        let extended = head.extended;
        if extended {
            let _ = tokio::time::timeout(GREETING, self.greeted.cancelled()).await;
            if !send.is_extended_connect_protocol_enabled() {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        let ended = head.body.is_empty() && !extended;
        self.asked.requests.fetch_add(1, Ordering::Relaxed);
        let (response, sending) = send.send_request(request, ended).map_err(broken)?;
        self.sending = (!ended).then_some(sending);
        self.receiving = Receiving::Head {
            response,
            asked: self.asked.clone(),
            extended,
        };
        Ok(())
    }

    /// Returns both directions separately.
    pub(crate) fn split(&mut self) -> (ResponseHalf<'_>, RequestHalf<'_>) {
        (
            ResponseHalf(&mut self.receiving),
            RequestHalf(&mut self.sending),
        )
    }
}

impl ResponseHalf<'_> {
    /// Whether no body follows the head that was read.
    pub(crate) fn is_over(&self) -> bool {
        match &*self.0 {
            Receiving::Unasked | Receiving::Head { .. } => false,
            Receiving::Body { head, rest, body } => {
                head.is_empty() && rest.is_empty() && body.is_end_stream()
            }
        }
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.0 {
                Receiving::Unasked => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Receiving::Head {
                    response,
                    asked,
                    extended,
                } => {
                    let stream = response.stream_id().as_u32();
                    let unanswered = |error| {
                        let last = asked.last.load(Ordering::Acquire);
                        unanswered(error, stream > last)
                    };
                    if let Some(interim) = poll_interim(response, cx).map_err(unanswered)? {
                        // A rest would be lost, but a head is small and the buffer is large.
                        return Poll::Ready(put_whole(&interim, into));
                    }
                    let response = ready!(Pin::new(response).poll(cx)).map_err(unanswered)?;
                    let (parts, body) = response.into_parts();
                    let opened = *extended && parts.status.is_success();
                    let head = head::written(parts.status, &parts.headers, opened);
                    *self.0 = Receiving::Body {
                        head,
                        rest: Bytes::new(),
                        body,
                    };
                }
                Receiving::Body { head, .. } if !head.is_empty() => {
                    put_some(head, into);
                    return Poll::Ready(Ok(()));
                }
                Receiving::Body { rest, body, .. } => return poll_rest(rest, body, cx, into),
            }
        }
    }

    pub(crate) fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let Receiving::Body { body, .. } = self.0 else {
            return Poll::Ready(Ok(Bytes::new()));
        };
        let trailers = ready!(body.poll_trailers(cx)).map_err(broken)?;
        Poll::Ready(Ok(trailers.map(|it| put_trailers(&it)).unwrap_or_default()))
    }
}

/// The origin reports that it has not processed the request (RFC 9113 section 8.7).
#[derive(Debug, thiserror::Error)]
#[error("the origin has not looked at the request")]
struct Unprocessed;

/// Whether the error means that the origin has not processed the request.
pub(crate) fn is_unprocessed(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner
        .and_then(|inner| inner.downcast_ref::<Unprocessed>())
        .is_some()
}

/// Returns the error of a request without a response; `passed_over`: whether the origin processes
/// no stream of that number any more.
fn unanswered(error: h2::Error, passed_over: bool) -> io::Error {
    let refused =
        error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
    if refused || passed_over {
        io::Error::new(io::ErrorKind::ConnectionReset, Unprocessed)
    } else {
        broken(error)
    }
}

/// Returns an interim response, if one has arrived.
fn poll_interim(
    response: &mut ResponseFuture,
    cx: &mut Context<'_>,
) -> Result<Option<Bytes>, h2::Error> {
    match response.poll_informational(cx) {
        Poll::Ready(Some(Ok(interim))) => {
            let (status, fields) = (interim.status(), interim.headers());
            Ok(Some(head::written(status, fields, false)))
        }
        Poll::Ready(Some(Err(error))) => Err(error),
        Poll::Ready(None) | Poll::Pending => Ok(None),
    }
}

fn poll_rest(
    rest: &mut Bytes,
    body: &mut RecvStream,
    cx: &mut Context<'_>,
    into: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    while rest.is_empty() {
        match ready!(body.poll_data(cx)) {
            Some(Ok(data)) => *rest = data,
            Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            None => return Poll::Ready(Ok(())),
        }
    }
    let taken = put_some(rest, into);
    let released = body.flow_control().release_capacity(taken);
    Poll::Ready(released.map_err(broken))
}

fn put_some(from: &mut Bytes, into: &mut ReadBuf<'_>) -> usize {
    let take = from.len().min(into.remaining());
    into.put_slice(from.get(..take).unwrap_or_default());
    from.advance(take);
    take
}

fn put_whole(text: &[u8], into: &mut ReadBuf<'_>) -> io::Result<()> {
    if text.len() > into.remaining() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    into.put_slice(text);
    Ok(())
}

impl RequestHalf<'_> {
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.0 {
            Some(body) => poll_body(body, cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Ends the request, with trailers if there are any.
    pub(crate) fn finish(&mut self, trailers: &[u8]) -> io::Result<()> {
        let Some(mut body) = self.0.take() else {
            return Ok(());
        };
        let ended = match trailer_fields(trailers) {
            Some(fields) => body.send_trailers(fields),
            None => body.send_data(Bytes::new(), true),
        };
        ended.map_err(broken)
    }
}
