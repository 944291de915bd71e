//! Heads of responses, as origins write them.
//!
//! An origin is not in league with the client, so the gate is more tolerant than with a client: it
//! accepts repeated equal lengths, and drops a length beside chunks. A head that leaves the end of
//! the body in doubt is still an error.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};

use super::fields::{Fields, MAX_FIELDS, Name, Span, content_length, elements};
use super::{BodyLength, Scan, Unprintable, Version, take_head};

/// The head of one response, final or interim.
#[derive(Clone, Debug)]
pub(crate) struct ResponseHead {
    /// The status code, 100 to 599.
    pub(crate) status: u16,
    /// The version that the origin speaks.
    pub(crate) version: Version,
    /// All fields.
    pub(crate) fields: Fields,
    /// How the body is framed; [`BodyLength::None`] if this status or request has no body.
    pub(crate) body: BodyLength,
    /// The value of `Content-Length`, even if no body follows (HEAD, 304).
    pub(crate) said_length: Option<u64>,
    /// Whether the origin accepts another request on this connection after this response.
    pub(crate) keep_alive: bool,
    reason: Span,
}

/// The parts of the request that decide how its response is read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Asked {
    /// The method was `HEAD`.
    pub(crate) head: bool,
    /// The gate passed on an upgrade request.
    pub(crate) upgrade: bool,
}

/// Why a response is refused; the message quotes no part of the response.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum ResponseError {
    /// `Content-Length` values differ or are no numbers.
    #[error("the Content-Length of the response is not one number")]
    ContentLength,
    /// A field that is not `name: value`.
    #[error("a header field of the response is malformed")]
    Field,
    /// 101 to a request that asked for no upgrade.
    #[error("the response changes to a protocol that was not asked for")]
    Protocol,
    /// The first line is not that of a response.
    #[error("the status line of the response is malformed")]
    StatusLine,
    /// More bytes or fields than allowed.
    #[error("the response head is too large")]
    TooLarge,
    /// `Transfer-Encoding` is not `chunked`, or is not allowed here.
    #[error("the Transfer-Encoding of the response is not `chunked`")]
    TransferEncoding,
    /// A body after 204.
    #[error("the response announces a body that its status excludes")]
    UnexpectedBody,
    /// Bytes that are not allowed in a head.
    #[error("the response head holds control characters or bare line ends")]
    Unprintable,
}

/// Maximum bytes of a response head.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Removes one response head from the start of `buffer`; `None` until the head is complete.
pub(crate) fn parse_response(
    buffer: &mut BytesMut,
    asked: Asked,
) -> Result<Option<ResponseHead>, ResponseError> {
    scan_response(buffer, asked, &mut Scan::default())
}

/// Like [`parse_response`], for a head that arrives in pieces.
pub(crate) fn scan_response(
    buffer: &mut BytesMut,
    asked: Asked,
    scan: &mut Scan,
) -> Result<Option<ResponseHead>, ResponseError> {
    let Some(len) = scan.end(buffer)? else {
        let too_large = buffer.len() > MAX_HEAD_BYTES;
        return if too_large {
            Err(ResponseError::TooLarge)
        } else {
            Ok(None)
        };
    };
    if len > MAX_HEAD_BYTES {
        return Err(ResponseError::TooLarge);
    }
    *scan = Scan::default();
    parse(take_head(buffer, len), asked).map(Some)
}

impl ResponseHead {
    /// Returns the reason phrase; empty if it is missing or not ASCII.
    pub(crate) fn reason(&self) -> &[u8] {
        self.reason.within(self.fields.head())
    }

    /// Returns the head for a body that the gate rewrites: its length is unknown.
    pub(crate) fn unmeasured(&self) -> Self {
        Self {
            body: BodyLength::Chunked,
            said_length: None,
            ..self.clone()
        }
    }

    /// Whether another response to the same request follows (RFC 9110 section 15.2).
    pub(crate) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && !self.is_upgrade()
    }

    /// Whether the connection speaks another protocol from here on.
    pub(crate) fn is_upgrade(&self) -> bool {
        self.status == 101
    }

    /// Length of the head in bytes, with the empty line at the end.
    pub(crate) fn len(&self) -> usize {
        self.fields.head().len()
    }
}

impl ResponseError {
    /// Returns the value of `error.type` in a record.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::ContentLength => "response_content_length",
            Self::Field => "response_field",
            Self::Protocol => "response_protocol",
            Self::StatusLine => "response_status_line",
            Self::TooLarge => "response_too_large",
            Self::TransferEncoding => "response_transfer_encoding",
            Self::UnexpectedBody => "response_unexpected_body",
            Self::Unprintable => "response_unprintable",
        }
    }
}

impl From<Unprintable> for ResponseError {
    fn from(_: Unprintable) -> Self {
        Self::Unprintable
    }
}

fn parse(head: Bytes, asked: Asked) -> Result<ResponseHead, ResponseError> {
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS / 2];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        &head,
        &mut room,
    );
    match parsed {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(ResponseError::StatusLine),
        Err(error) => return Err(refuse_syntax(error)),
    }
    let version = if response.version == Some(1) {
        Version::Http11
    } else {
        Version::Http10
    };
    let status = response.code.filter(|code| (100..600).contains(code));
    let status = status.ok_or(ResponseError::StatusLine)?;
    let reason = Span::of(response.reason.unwrap_or_default().as_bytes(), &head);
    let mut fields = Fields::with_capacity(response.headers.len());
    for field in &*response.headers {
        fields.add(Name::of(field.name.as_bytes()), field, &head);
    }
    fields.set_head(head);
    if status == 101 && !(asked.upgrade && fields.has(Name::Upgrade)) {
        return Err(ResponseError::Protocol);
    }
    let chunked = is_chunked(&fields, version)?;
    let said_length = said_length(&fields)?;
    let body = body(status, asked, chunked, said_length)?;
    Ok(ResponseHead {
        keep_alive: keeps_alive(&fields, version)
            && body != BodyLength::UntilClose
            && !(chunked && said_length.is_some()),
        said_length: said_length.filter(|_| !chunked),
        status,
        version,
        fields,
        body,
        reason,
    })
}

/// Determines the framing of the body (RFC 9112 section 6.3, in its order).
fn body(
    status: u16,
    asked: Asked,
    chunked: bool,
    length: Option<u64>,
) -> Result<BodyLength, ResponseError> {
    match (status, chunked, length) {
        (204, true, _) | (204, _, Some(1..)) => Err(ResponseError::UnexpectedBody),
        (100..200 | 204 | 304, ..) => Ok(BodyLength::None),
        _ if asked.head => Ok(BodyLength::None),
        (_, true, _) => Ok(BodyLength::Chunked),
        (_, false, Some(length)) => Ok(BodyLength::Length(length)),
        (_, false, None) => Ok(BodyLength::UntilClose),
    }
}

/// Whether the coding is `chunked`, once: the gate offered the origin no other coding.
fn is_chunked(fields: &Fields, version: Version) -> Result<bool, ResponseError> {
    let mut codings = fields.elements(Name::TransferEncoding);
    let Some(coding) = codings.next() else {
        return if fields.has(Name::TransferEncoding) {
            Err(ResponseError::TransferEncoding)
        } else {
            Ok(false)
        };
    };
    let known = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    if known && version == Version::Http11 {
        Ok(true)
    } else {
        Err(ResponseError::TransferEncoding)
    }
}

/// Returns the length; equal repeated values count as one (RFC 9112 section 6.3, item 5).
fn said_length(fields: &Fields) -> Result<Option<u64>, ResponseError> {
    let mut length = None;
    for value in fields.values(Name::ContentLength) {
        let mut values = elements(value).peekable();
        if values.peek().is_none() {
            return Err(ResponseError::ContentLength);
        }
        for value in values {
            let value = content_length(value).ok_or(ResponseError::ContentLength)?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err(ResponseError::ContentLength);
            }
        }
    }
    Ok(length)
}

fn keeps_alive(fields: &Fields, version: Version) -> bool {
    !fields.connection_has("close")
        && (version == Version::Http11 || fields.connection_has("keep-alive"))
}

fn refuse_syntax(error: httparse::Error) -> ResponseError {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => ResponseError::Field,
        httparse::Error::TooManyHeaders => ResponseError::TooLarge,
        _ => ResponseError::StatusLine,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: Asked = Asked {
        head: false,
        upgrade: false,
    };

    fn response(text: &str) -> Result<ResponseHead, ResponseError> {
        asked(text, GET)
    }

    fn asked(text: &str, asked: Asked) -> Result<ResponseHead, ResponseError> {
        let head = format!("{}\r\n\r\n", text.replace('\n', "\r\n"));
        parse_response(&mut BytesMut::from(head.as_bytes()), asked).map(|head| head.expect("whole"))
    }

    #[test]
    fn the_body_is_as_long_as_the_response_says() {
        for (text, body) in [
            ("HTTP/1.1 200 OK\nContent-Length: 5", BodyLength::Length(5)),
            (
                "HTTP/1.1 200 OK\nContent-Length: 5, 5\nContent-Length: 5",
                BodyLength::Length(5),
            ),
            (
                "HTTP/1.1 200 OK\nTransfer-Encoding: Chunked",
                BodyLength::Chunked,
            ),
            ("HTTP/1.1 200 OK", BodyLength::UntilClose),
            (
                "HTTP/1.1 304 Not Modified\nContent-Length: 5",
                BodyLength::None,
            ),
            (
                "HTTP/1.1 204 No Content\nContent-Length: 0",
                BodyLength::None,
            ),
            ("HTTP/1.1 100 Continue", BodyLength::None),
        ] {
            assert_eq!(response(text).map(|head| head.body), Ok(body), "{text}");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body_but_keeps_what_it_said_of_it() {
        let asked_head = Asked {
            head: true,
            upgrade: false,
        };
        let head = asked("HTTP/1.1 200 OK\nContent-Length: 5", asked_head).expect("good");
        assert_eq!(
            (head.body, head.said_length, head.keep_alive),
            (BodyLength::None, Some(5), true)
        );
    }

    #[test]
    fn chunks_beside_a_length_win_and_end_the_connection() {
        let head = response("HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked");
        let head = head.expect("tolerated");
        assert_eq!(
            (head.body, head.said_length, head.keep_alive),
            (BodyLength::Chunked, None, false)
        );
    }

    #[test]
    fn what_leaves_the_end_in_doubt_is_refused() {
        for (text, error) in [
            (
                "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6",
                ResponseError::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\nContent-Length: 5, 6",
                ResponseError::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\nContent-Length: +5",
                ResponseError::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\nContent-Length:",
                ResponseError::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked",
                ResponseError::TransferEncoding,
            ),
            (
                "HTTP/1.1 200 OK\nTransfer-Encoding:",
                ResponseError::TransferEncoding,
            ),
            (
                "HTTP/1.0 200 OK\nTransfer-Encoding: chunked",
                ResponseError::TransferEncoding,
            ),
            (
                "HTTP/1.1 204 No\nContent-Length: 5",
                ResponseError::UnexpectedBody,
            ),
            (
                "HTTP/1.1 101 Switching\nUpgrade: websocket",
                ResponseError::Protocol,
            ),
            ("HTTP/1.1 200 OK\nA : b", ResponseError::Field),
            ("HTTP/1.1 200 OK\nA: b\n folded", ResponseError::Field),
            ("HTTP/1.1 2000 OK", ResponseError::StatusLine),
            ("HTTP/1.1 099 OK", ResponseError::StatusLine),
            ("HTTP/2 200 OK", ResponseError::StatusLine),
            ("ICY 200 OK", ResponseError::StatusLine),
            ("SSH-2.0-OpenSSH_9.2", ResponseError::StatusLine),
        ] {
            assert_eq!(response(text).map(|_| ()), Err(error), "{text}");
        }
    }

    #[test]
    fn bare_line_ends_and_control_characters_are_refused_at_once() {
        for bytes in [
            &b"HTTP/1.1 200 OK\n"[..],
            b"HTTP/1.1 200 OK\r\nA: \0",
            b"\x16\x03\x01",
        ] {
            let error = parse_response(&mut BytesMut::from(bytes), GET).map(|_| ());
            assert_eq!(error, Err(ResponseError::Unprintable));
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_its_bound() {
        let mut bytes = BytesMut::from(&b"HTTP/1.1 200 OK\r\nA: "[..]);
        bytes.resize(MAX_HEAD_BYTES, b'a');
        assert!(matches!(parse_response(&mut bytes, GET), Ok(None)));
        bytes.resize(MAX_HEAD_BYTES + 1, b'a');
        assert!(matches!(
            parse_response(&mut bytes, GET),
            Err(ResponseError::TooLarge)
        ));
    }

    #[test]
    fn an_upgrade_that_was_asked_for_is_taken() {
        let text = "HTTP/1.1 101 Switching\nConnection: upgrade\nUpgrade: websocket";
        let head = asked(
            text,
            Asked {
                head: false,
                upgrade: true,
            },
        )
        .expect("asked for");
        assert!(head.is_upgrade() && !head.is_interim());
    }

    #[test]
    fn interim_responses_are_told_from_final_ones() {
        assert!(
            response("HTTP/1.1 103 Early Hints\nLink: </a>")
                .expect("good")
                .is_interim()
        );
        assert!(
            !response("HTTP/1.1 200")
                .expect("no reason is no fault")
                .is_interim()
        );
    }

    #[test]
    fn a_connection_is_kept_as_its_version_says() {
        for (text, kept) in [
            ("HTTP/1.1 200 OK\nContent-Length: 0", true),
            (
                "HTTP/1.1 200 OK\nContent-Length: 0\nConnection: Close",
                false,
            ),
            ("HTTP/1.0 200 OK\nContent-Length: 0", false),
            (
                "HTTP/1.0 200 OK\nContent-Length: 0\nConnection: keep-alive",
                true,
            ),
            ("HTTP/1.1 200 OK", false),
        ] {
            assert_eq!(
                response(text).map(|head| head.keep_alive),
                Ok(kept),
                "{text}"
            );
        }
    }

    #[test]
    fn what_follows_the_head_stays() {
        let mut buffer = BytesMut::from(&b"HTTP/1.1 200 Fine\r\n\r\nbody"[..]);
        let head = parse_response(&mut buffer, GET)
            .expect("good")
            .expect("whole");
        assert_eq!(
            (head.reason(), &buffer[..], head.len()),
            (&b"Fine"[..], &b"body"[..], 21)
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text: Vec<u8>, head: bool, upgrade: bool) {
            let asked = Asked { head, upgrade };
            let _ = parse_response(&mut BytesMut::from(&text[..]), asked);
            let text = [b"HTTP/1.1 200 OK\r\n", &text[..], b"\r\n\r\n"].concat();
            let _ = parse_response(&mut BytesMut::from(&text[..]), asked);
        }
    }
}
