//! Forwards the answer to a request from the origin to the client.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;

use crate::http::http1::{
    Asked, BodyError, BodyLength, BodySink, Client, Method, Passage, ResponseHead, Scan, Sender,
    Version, copy_body, encode_response, read_onto, scan_response,
};
use crate::http::http2::is_unprocessed;
use crate::proxy::connection::client::ClientWrite;
use crate::tls::TlsFailure;

use super::exchange::{Exchange, Progress};
use super::origin::OriginRead;

/// Interim responses to one request, at most: more than a normal origin sends.
const MAX_INTERIM: usize = 64;

/// The state of an answer while it arrives.
#[derive(Default)]
pub(in crate::proxy) struct Answer {
    /// Set when the head was forwarded, or is about to be.
    pub(in crate::proxy) status: Option<u16>,
    /// Whether a parent answers: its 407 is for the gate, not for the client.
    pub(super) by_parent: bool,
    /// Whether the client reads the body until the connection ends.
    pub(super) until_close: bool,
    pub(super) first_byte: Option<Duration>,
    /// Whether an interim response is being written: the client may have a part of it.
    pub(super) interim: bool,
}

impl Answer {
    /// Whether the client may have a part of it, so that no refusal can be sent instead.
    pub(super) fn has_begun(&self) -> bool {
        self.status.is_some() || self.interim
    }
}

/// The successful end of an answer.
pub(super) enum Replied {
    /// The connection was upgraded to another protocol.
    Upgraded,
    /// The whole answer was forwarded; whether each side accepts another request.
    Whole { client: bool, origin: bool },
}

pub(super) enum ReplyError {
    Body(BodyError),
    /// An answer that cannot be forwarded: a word for the record, and a sentence.
    Malformed(&'static str, String),
    /// The origin closed the connection or the stream before its first byte.
    Silent {
        /// Whether the origin reported that it has not processed the request.
        refused: bool,
    },
    /// The parent rejected the gate's credential.
    Unknown,
    /// The origin ended TLS: it rejects the gate's certificate.
    Tls(io::Error),
}

impl Exchange<'_> {
    /// Forwards the answer.
    pub(in crate::proxy) async fn reply(
        &self,
        (from, buffer): (&mut OriginRead<'_>, &mut BytesMut),
        to: &mut ClientWrite<'_>,
        answer: &mut Answer,
        progress: &Progress,
    ) -> Result<Replied, ReplyError> {
        for _ in 0..MAX_INTERIM {
            let head = self.response(from, buffer, answer).await?;
            if head.is_interim() && self.head.version == Version::Http10 {
                continue;
            }
            // After an early answer the rest of the body is not read: the connection ends.
            let whole = self.head.body.is_empty() || progress.is_whole();
            let client = Client {
                version: self.head.version,
                keep_alive: self.head.keep_alive && whole,
            };
            let mut out = Vec::new();
            let form = self.tools.as_ref().and_then(|tools| tools.form(&head));
            let unmeasured = form.map(|_| head.unmeasured());
            let shown = unmeasured.as_ref().unwrap_or(&head);
            let told = encode_response(shown, client, "tidegate", &mut out);
            if head.is_interim() {
                answer.interim = true;
                tell(to, &out).await?;
                answer.interim = false;
                continue;
            }
            if head.status == 407 {
                return Err(not_an_origin(answer.by_parent));
            }
            answer.status = Some(head.status);
            answer.until_close = told.body == BodyLength::UntilClose;
            let passage = Passage {
                from: head.body,
                to: told.body,
                trailers: true,
                sender: Sender::Origin,
            };
            let whole = form.is_none() && self.take_whole(&head, buffer, &mut out);
            if whole && !head.is_upgrade() {
                tell_all(to, &out).await?;
            } else {
                tell(to, &out).await?;
            }
            drop(out);
            if head.is_upgrade() {
                return Ok(Replied::Upgraded);
            }
            let back = &self.open.bytes.back;
            let copied = match (&self.tools, form) {
                (Some(tools), Some(form)) => {
                    let source = (&mut *from, &mut *buffer);
                    Box::pin(tools.copy(form, source, to, passage, back)).await
                }
                _ if whole => Ok(()),
                _ => copy_body(from, buffer, to, passage, back).await,
            };
            copied.map_err(ReplyError::Body)?;
            return Ok(Replied::Whole {
                client: told.keep_alive,
                origin: head.keep_alive,
            });
        }
        let why = "the origin sent one interim response after the other";
        Err(ReplyError::Malformed("response_interim", why.into()))
    }

    /// Adds a small body that arrived with its head: one write instead of two.
    fn take_whole(&self, head: &ResponseHead, buffer: &mut BytesMut, out: &mut Vec<u8>) -> bool {
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
        from: &mut OriginRead<'_>,
        buffer: &mut BytesMut,
        answer: &mut Answer,
    ) -> Result<ResponseHead, ReplyError> {
        let asked = Asked {
            head: self.head.method == Method::Head,
            upgrade: self.upgrade && self.head.upgrade().is_some(),
        };
        let mut scan = Scan::default();
        loop {
            match scan_response(buffer, asked, &mut scan) {
                Ok(Some(head)) => return Ok(framed(from, head)),
                Ok(None) => {}
                Err(error) => return Err(ReplyError::Malformed(error.word(), error.to_string())),
            }
            match read_onto(from, buffer).await {
                Err(error) if TlsFailure::in_error(&error).is_some() => {
                    return Err(ReplyError::Tls(error));
                }
                Err(error) if buffer.is_empty() => {
                    let refused = is_unprocessed(&error) && answer.first_byte.is_none();
                    return Err(ReplyError::Silent { refused });
                }
                Ok(0) if buffer.is_empty() => return Err(ReplyError::Silent { refused: false }),
                Ok(0) => return Err(broke_off(io::ErrorKind::UnexpectedEof)),
                Ok(_) => {}
                Err(error) => return Err(broke_off(error.kind())),
            }
            if answer.first_byte.is_none() {
                answer.first_byte = Some(self.clock.instant().duration_since(self.began));
            }
        }
    }
}

/// Sets the length and the end of a body from its HTTP/2 stream.
fn framed(from: &OriginRead<'_>, mut head: ResponseHead) -> ResponseHead {
    if let OriginRead::Http2(response) = from {
        head.version = Version::Http2;
        if response.is_over() && !head.is_interim() {
            head.body = BodyLength::None;
        }
    }
    head
}

/// Writes to the client and flushes.
async fn tell(to: &mut ClientWrite<'_>, bytes: &[u8]) -> Result<(), ReplyError> {
    let written = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    written
        .await
        .map_err(|error| ReplyError::Body(BodyError::Write(error)))
}

/// Like [`tell`], for the last bytes.
async fn tell_all(to: &mut ClientWrite<'_>, bytes: &[u8]) -> Result<(), ReplyError> {
    let written = async {
        to.write_all(bytes).await?;
        to.finish(b"")?;
        to.flush().await
    };
    written
        .await
        .map_err(|error| ReplyError::Body(BodyError::Write(error)))
}

/// The error for a 407. A parent asks the gate for a credential. An origin must not send it (RFC
/// 9110 section 15.5.8): a client would answer with the credential for the gate.
fn not_an_origin(by_parent: bool) -> ReplyError {
    if by_parent {
        return ReplyError::Unknown;
    }
    let why = "the origin answered 407, which is for proxies alone";
    ReplyError::Malformed("response_proxy_authentication", why.into())
}

/// The error of an incomplete response head.
fn broke_off(kind: io::ErrorKind) -> ReplyError {
    let why = "the origin broke off in the head of its response";
    ReplyError::Malformed(crate::proxy::kind_code(kind), why.into())
}
