//! Heads of requests from clients of a proxy.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};

use super::fields::{Fields, MAX_FIELDS, Name, Span};
use super::seen::Seen;
use super::{BodyLength, Scan, Unprintable, Version, take_head};

/// The head of one request: a single buffer with its parsed form.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    /// The method of the request.
    pub(crate) method: Method,
    /// The version that the client speaks.
    pub(crate) version: Version,
    /// All fields.
    pub(crate) fields: Fields,
    /// How the body is framed; [`BodyLength::UntilClose`] only in HTTP/2.
    pub(crate) body: BodyLength,
    /// Whether the client would send another request on this connection.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expect_continue: bool,
    /// Whether the head is an extended CONNECT (RFC 8441): a WebSocket on a stream of HTTP/2. It is
    /// written, judged and recorded as the `GET` of HTTP/1.1.
    pub(crate) extended: bool,
    target: Span,
    upgrade: Option<Span>,
}

/// The method of a request; case counts (RFC 9110 section 9.1).
///
/// `TRACE` and `TRACK` are not supported: their responses repeat the request, with its secrets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Method {
    /// `CONNECT`.
    Connect,
    /// `DELETE`.
    Delete,
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `OPTIONS`.
    Options,
    /// Another method in upper case, at most 32 bytes (of `WebDAV` and similar protocols).
    Other(Box<str>),
    /// `PATCH`.
    Patch,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
}

/// The limits of a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HeadLimits {
    /// Maximum bytes, with the empty line at the end.
    pub(crate) bytes: usize,
    /// Maximum number of fields; never more than 256.
    pub(crate) fields: usize,
}

/// Why a head is refused; the message is a sentence for the client and quotes no part of the head.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum HeadError {
    /// `Content-Length` is not one plain number.
    #[error("Content-Length must be one decimal number")]
    ContentLength,
    /// A control character.
    #[error("control characters are not allowed in a request head")]
    Control,
    /// A field name that some reader would treat as a framing, hop-by-hop or proxy field.
    #[error("a field name with `_` or `.` imitates one that matters to proxies")]
    DisguisedField,
    /// An `Expect` that is not `100-continue`.
    #[error("only `Expect: 100-continue` can be met")]
    Expectation,
    /// A field that is not `name: value`.
    #[error("a header field is malformed")]
    Field,
    /// `Host` is missing, empty or repeated.
    #[error("a request needs exactly one Host field")]
    Host,
    /// The connection preface of HTTP/2.
    #[error("HTTP/2 is not spoken here")]
    Http2,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("Content-Length and Transfer-Encoding exclude each other")]
    Lengths,
    /// A line that does not end in CR LF.
    #[error("lines must end in CR LF")]
    LineEnd,
    /// Not a method, or one that the gate never forwards.
    #[error("the method is not supported")]
    Method,
    /// A field that names another method.
    #[error("a field names another method than the request line")]
    MethodOverride,
    /// A field that names another path or host.
    #[error("a field names another URL than the request line, as a reverse proxy would")]
    UrlOverride,
    /// An extended CONNECT for another protocol, or one that the gate did not offer.
    #[error("no protocol but WebSocket is spoken here on a stream, and only where it is offered")]
    Protocol,
    /// More than one `Proxy-Authorization`.
    #[error("Proxy-Authorization must be given only once")]
    ProxyAuthorization,
    /// The first line is not `method target version`.
    #[error("the request line is malformed")]
    RequestLine,
    /// More bytes than the limit.
    #[error("the request head is too large")]
    TooLarge,
    /// More fields than the limit.
    #[error("the request has too many header fields")]
    TooManyFields,
    /// An extended CONNECT that opens no WebSocket.
    #[error("a WebSocket needs an https URL and a stream that stays open")]
    Socket,
    /// HTTP without TLS at a TLS listener.
    #[error("this is an https:// proxy: TLS is spoken here")]
    Tls,
    /// `Transfer-Encoding` is not `chunked`, or is not allowed here.
    #[error("Transfer-Encoding must be `chunked`, once, in HTTP/1.1")]
    TransferEncoding,
    /// A body for a method that has none.
    #[error("this method cannot have a body")]
    UnexpectedBody,
    /// Not HTTP/1.0 or HTTP/1.1.
    #[error("the HTTP version is not supported")]
    Version,
}

/// Removes one request head from the start of `buffer`; `None` until the head is complete.
///
/// Bytes after the head stay in `buffer`. After an error the connection is unusable, because the
/// start of the next request is unknown. `scan` continues from the pieces before.
pub(crate) fn scan_request(
    buffer: &mut BytesMut,
    limits: HeadLimits,
    scan: &mut Scan,
) -> Result<Option<RequestHead>, HeadError> {
    if scan.skips(buffer) {
        return Ok(None);
    }
    let Some(len) = scan.end(buffer)? else {
        return if buffer.len() > limits.bytes {
            Err(HeadError::TooLarge)
        } else {
            Ok(None)
        };
    };
    if len > limits.bytes {
        return Err(HeadError::TooLarge);
    }
    *scan = Scan::default();
    parse(take_head(buffer, len), limits).map(Some)
}

/// Like [`scan_request`], for a complete head.
#[cfg(test)]
pub(crate) fn parse_request(
    buffer: &mut BytesMut,
    limits: HeadLimits,
) -> Result<Option<RequestHead>, HeadError> {
    scan_request(buffer, limits, &mut Scan::default())
}

impl RequestHead {
    /// Returns the number of bytes of the target and of all fields.
    pub(crate) fn size(&self) -> u64 {
        let fields = self.fields.iter();
        let fields: usize = fields.map(|it| it.name.len() + it.value.len()).sum();
        (self.target().len() + fields) as u64
    }

    /// Returns the target as written: visible ASCII, not empty.
    pub(crate) fn target(&self) -> &[u8] {
        self.target.within(self.fields.head())
    }

    /// Returns the value of `Host`; only the target decides.
    pub(crate) fn host(&self) -> Option<&[u8]> {
        self.fields.first(Name::Host)
    }

    /// Returns the value of `Proxy-Authorization`.
    pub(crate) fn proxy_authorization(&self) -> Option<&[u8]> {
        self.fields.first(Name::ProxyAuthorization)
    }

    /// Returns the value of the first `User-Agent`.
    pub(crate) fn user_agent(&self) -> Option<&[u8]> {
        self.fields.first(Name::UserAgent)
    }

    /// Returns the one protocol to which the client wants to change, as written.
    ///
    /// `None` for several protocols, beside a body, and for HTTP/2 in clear text: such requests are
    /// forwarded without an upgrade, as any recipient may ignore one.
    pub(crate) fn upgrade(&self) -> Option<&str> {
        std::str::from_utf8(self.upgrade?.within(self.fields.head())).ok()
    }

    /// Length of the head in bytes, with the empty line at the end.
    pub(crate) fn len(&self) -> usize {
        self.fields.head().len()
    }
}

impl Method {
    /// Returns the method as written.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Connect => "CONNECT",
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Other(name) => name,
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }

    /// Returns the method as written, to store; a standard method takes no memory.
    pub(crate) fn to_text(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Connect => "CONNECT",
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Other(name) => return Cow::Owned(name.to_string()),
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
        })
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "CONNECT" => Self::Connect,
            "DELETE" => Self::Delete,
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            "PATCH" => Self::Patch,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PRI" | "TRACE" | "TRACK" => return None,
            _ if is_upper_case(name) => Self::Other(name.into()),
            _ => return None,
        })
    }
}

impl HeadError {
    /// Returns the status of the response.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Expectation => 417,
            Self::Http2 | Self::Version => 505,
            Self::Method => 405,
            Self::Protocol => 501,
            Self::TooLarge | Self::TooManyFields => 431,
            _ => 400,
        }
    }
}

impl From<Unprintable> for HeadError {
    fn from(found: Unprintable) -> Self {
        match found {
            Unprintable::Control => Self::Control,
            Unprintable::LineEnd => Self::LineEnd,
        }
    }
}

/// Whether a request may be sent again after a kept connection was closed (RFC 9110 section 9.2.2),
/// provided that no byte of its body was sent.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        method,
        Method::Delete | Method::Get | Method::Head | Method::Options | Method::Put
    )
}

/// Parses a complete head.
fn parse(head: Bytes, limits: HeadLimits) -> Result<RequestHead, HeadError> {
    if head.starts_with(b"PRI * HTTP/2.0\r\n") {
        return Err(HeadError::Http2);
    }
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let room = room
        .get_mut(..limits.fields.min(MAX_FIELDS))
        .unwrap_or_default();
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(&head, room) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(HeadError::RequestLine),
        Err(error) => return Err(refuse_syntax(error, &head)),
    }
    let version = if request.version == Some(1) {
        Version::Http11
    } else {
        Version::Http10
    };
    let (method, target) = (request.method, request.path);
    let line = (method.unwrap_or_default(), target.unwrap_or_default());
    let mut understood = understand(&head, line, request.headers, version)?;
    understood.fields.set_head(head);
    Ok(understood)
}

/// Builds a head from its method, target and fields, which are parts of `head`. The caller sets the
/// head of the fields.
fn understand(
    head: &[u8],
    (method, target): (&str, &str),
    fields: &[httparse::Header<'_>],
    version: Version,
) -> Result<RequestHead, HeadError> {
    let method = Method::parse(method).ok_or(HeadError::Method)?;
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HeadError::RequestLine);
    }
    let target = Span::of(target.as_bytes(), head);
    let mut seen = Seen::default();
    let mut named = Fields::with_capacity(fields.len());
    for field in fields {
        let name = Name::of(field.name.as_bytes());
        seen.field(name, field, version)?;
        named.add(name, field, head);
    }
    seen.check_host(&method, version)?;
    seen.check_method(&method)?;
    let body = seen.body(&method, version)?;
    let upgrade = seen.upgrade(body).map(|protocol| Span::of(protocol, head));
    Ok(RequestHead {
        keep_alive: seen.keeps_alive(version),
        expect_continue: seen.expect_continue && !body.is_empty(),
        extended: false,
        method,
        version,
        fields: named,
        body,
        target,
        upgrade,
    })
}

/// A head in parts, as in HTTP/2: read as strictly as a head in text form.
#[derive(Debug, Default)]
pub(crate) struct HeadParts {
    text: BytesMut,
    /// The ends of the parts in `text`: method, target, then the name and the value of each field.
    ends: Vec<usize>,
}

impl HeadParts {
    /// Returns a head without fields; the target comes in pieces.
    pub(crate) fn new(method: &str, target: &[&[u8]]) -> Self {
        let mut parts = Self::default();
        parts.add(&[method.as_bytes()]);
        parts.add(target);
        parts
    }

    /// Adds a field, whose value comes in pieces.
    pub(crate) fn field(&mut self, name: &str, value: &[&[u8]]) {
        self.add(&[name.as_bytes()]);
        self.add(value);
    }

    fn add(&mut self, pieces: &[&[u8]]) {
        for piece in pieces {
            self.text.extend_from_slice(piece);
        }
        self.ends.push(self.text.len());
    }

    /// Returns the length of the head as text: request line, fields with `: ` and line end, empty
    /// line.
    fn size(&self) -> usize {
        let fields = (self.ends.len() / 2).saturating_sub(1);
        self.text.len() + "  HTTP/1.1\r\n\r\n".len() + fields * ": \r\n".len()
    }

    /// Reads the head; names and values are those of HTTP, without control characters.
    pub(crate) fn read(self, limits: HeadLimits) -> Result<RequestHead, HeadError> {
        if self.size() > limits.bytes {
            return Err(HeadError::TooLarge);
        }
        let head = self.text.freeze();
        let mut start = 0;
        let mut parts = self.ends.iter().map(|end| {
            let part = head.get(start..*end).unwrap_or_default();
            start = *end;
            part
        });
        let mut next = || parts.next();
        let (method, target) = (text(next()), text(next()));
        let mut fields = Vec::with_capacity(self.ends.len() / 2);
        while let (Some(name), Some(value)) = (next(), next()) {
            if value.iter().any(|byte| is_control(*byte)) {
                return Err(HeadError::Control);
            }
            fields.push(httparse::Header {
                name: text(Some(name)),
                value: value.trim_ascii(),
            });
        }
        if fields.len() > limits.fields.min(MAX_FIELDS) {
            return Err(HeadError::TooManyFields);
        }
        let mut understood = understand(&head, (method, target), &fields, Version::Http11)?;
        understood.fields.set_head(head);
        Ok(understood)
    }
}

/// Returns a part as text; empty if it is not UTF-8, which no method, target or name may be.
fn text(part: Option<&[u8]>) -> &str {
    let part = part.unwrap_or_default();
    std::str::from_utf8(part).unwrap_or_default()
}

/// Whether a byte is not allowed in the value of a field.
fn is_control(byte: u8) -> bool {
    byte != b'\t' && (byte < b' ' || byte == 0x7f)
}

fn refuse_syntax(error: httparse::Error, head: &[u8]) -> HeadError {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => HeadError::Field,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version if has_three_parts(head) => HeadError::Version,
        _ => HeadError::RequestLine,
    }
}

/// Whether the first line is `method target HTTP/…`, so that only the version is wrong.
fn has_three_parts(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut parts = line.split(|&byte| byte == b' ').skip(2);
    parts
        .next()
        .is_some_and(|version| version.starts_with(b"HTTP/"))
        && parts.next().is_none()
}

fn is_upper_case(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|first: char| first.is_ascii_uppercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 1024,
        fields: 8,
    };

    fn raw(text: &[u8]) -> Result<Option<RequestHead>, HeadError> {
        parse_request(&mut BytesMut::from(text), LIMITS)
    }

    /// Parses a head from lines; `\n` stands for the correct line end.
    fn head(text: &str) -> Result<RequestHead, HeadError> {
        let text = format!("{}\r\n\r\n", text.replace('\n', "\r\n"));
        raw(text.as_bytes()).map(|head| head.expect("whole"))
    }

    /// Parses a POST with these fields.
    fn post(fields: &str) -> Result<RequestHead, HeadError> {
        head(&format!(
            "POST http://a.example/ HTTP/1.1\nHost: a.example\n{fields}"
        ))
    }

    #[test]
    fn a_connect_is_read_without_touching_what_follows() {
        let mut buffer = BytesMut::from(
            &b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\
               Proxy-Authorization: Basic eDp5\r\nUser-Agent: curl/8\r\n\r\n\x16\x03\x01"[..],
        );
        let head = parse_request(&mut buffer, LIMITS)
            .expect("good")
            .expect("whole");
        assert_eq!(
            (&head.method, head.target()),
            (&Method::Connect, &b"a.example:443"[..])
        );
        assert_eq!(head.host(), Some(&b"a.example:443"[..]));
        assert_eq!(head.proxy_authorization(), Some(&b"Basic eDp5"[..]));
        assert_eq!(head.user_agent(), Some(&b"curl/8"[..]));
        assert_eq!(
            (head.body, head.keep_alive, head.len()),
            (BodyLength::None, true, 108)
        );
        assert_eq!(buffer, b"\x16\x03\x01"[..]);
    }

    #[test]
    fn pipelined_requests_come_one_by_one() {
        let mut buffer = BytesMut::from(
            &b"GET http://a.example/1 HTTP/1.1\r\nHost: a.example\r\n\r\n\
               GET http://a.example/2 HTTP/1.1\r\nHost: a.example\r\n\r\nGET"[..],
        );
        for target in [&b"http://a.example/1"[..], b"http://a.example/2"] {
            let head = parse_request(&mut buffer, LIMITS)
                .expect("good")
                .expect("whole");
            assert_eq!(head.target(), target);
        }
        assert!(matches!(parse_request(&mut buffer, LIMITS), Ok(None)));
        assert_eq!(buffer, b"GET"[..]);
    }

    #[test]
    fn every_beginning_of_a_head_is_incomplete() {
        let text = b"\r\nGET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nA:\t b \r\n\r\n";
        for len in 0..text.len() {
            assert!(matches!(raw(&text[..len]), Ok(None)), "{len}");
        }
        let head = raw(text).expect("good").expect("whole");
        let field = head.fields.iter().last().expect("one");
        assert_eq!((field.name, field.value), (&b"A"[..], &b"b"[..]));
    }

    #[test]
    fn lines_end_in_cr_lf_and_hold_no_controls() {
        for (text, error) in [
            (&b"GET / HTTP/1.1\nHost: a\n\n"[..], HeadError::LineEnd),
            (b"GET / HTTP/1.1\r\nHost: a\n", HeadError::LineEnd),
            (
                b"GET / HTTP/1.1\r\nA: b\rHost: a\r\n\r\n",
                HeadError::LineEnd,
            ),
            (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", HeadError::LineEnd),
            (b"GET / HTTP/1.1\r\nA: b\0", HeadError::Control),
            (b"GET / HTTP/1.1\r\nA: b\x1b", HeadError::Control),
            (b"GET / HTTP/1.1\r\nA: b\x7f\r\n\r\n", HeadError::Field),
            (b"\x16\x03\x01\x02", HeadError::Control),
            (b"\x05\x01\x00", HeadError::Control),
            (b"\r\n\r\nGET / HTTP/1.1\r\n", HeadError::RequestLine),
        ] {
            assert_eq!(raw(text).map(|_| ()), Err(error), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn fields_are_tokens_with_values_on_one_line() {
        for fields in [
            "A : b",
            " A: b",
            "A: b\n folded",
            "A: b\n\tfolded",
            ": b",
            "A b",
            "A\u{e4}: b",
            "A(: b",
        ] {
            assert_eq!(
                post(fields).map(|_| ()),
                Err(HeadError::Field),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn the_request_line_has_exactly_three_parts() {
        for (line, error) in [
            ("GET  http://a.example/ HTTP/1.1", HeadError::RequestLine),
            ("GET http://a.example/  HTTP/1.1", HeadError::RequestLine),
            ("GET http://a.example/ HTTP/1.1 ", HeadError::RequestLine),
            ("GET http://a.example/", HeadError::RequestLine),
            ("GET http://a.example/ x HTTP/1.1", HeadError::RequestLine),
            (" GET http://a.example/ HTTP/1.1", HeadError::RequestLine),
            (
                "GET http://\u{e4}.example/ HTTP/1.1",
                HeadError::RequestLine,
            ),
            ("GET http://a.example/ HTTP/1.2", HeadError::Version),
            ("GET http://a.example/ HTTP/9.9", HeadError::Version),
            ("GET http://a.example/ HTTP/2.0", HeadError::Version),
            ("GET http://a.example/ HTTP/01.1", HeadError::Version),
            ("GET http://a.example/ http/1.1", HeadError::RequestLine),
            ("get http://a.example/ HTTP/1.1", HeadError::Method),
            ("Get http://a.example/ HTTP/1.1", HeadError::Method),
            ("TRACE http://a.example/ HTTP/1.1", HeadError::Method),
            ("TRACK http://a.example/ HTTP/1.1", HeadError::Method),
            ("connect a.example:443 HTTP/1.1", HeadError::Method),
            ("PRI * HTTP/2.0", HeadError::Http2),
        ] {
            let found = head(&format!("{line}\nHost: a.example")).map(|_| ());
            assert_eq!(found, Err(error), "{line:?}");
        }
        assert_eq!(head("PRI * HTTP/2.0").map(|_| ()), Err(HeadError::Http2));
    }

    #[test]
    fn methods_of_other_standards_pass_under_their_own_name() {
        let head = head("VERSION-CONTROL http://a.example/ HTTP/1.1\nHost: a.example");
        assert_eq!(head.expect("good").method.as_str(), "VERSION-CONTROL");
    }

    #[test]
    fn host_is_there_once() {
        for (text, error) in [
            ("GET http://a.example/ HTTP/1.1", Some(HeadError::Host)),
            (
                "GET http://a.example/ HTTP/1.1\nHost:",
                Some(HeadError::Host),
            ),
            (
                "GET http://a.example/ HTTP/1.1\nHost: a\nhost: a",
                Some(HeadError::Host),
            ),
            (
                "CONNECT a.example:443 HTTP/1.1\nHost: a\nHost: b",
                Some(HeadError::Host),
            ),
            ("GET http://a.example/ HTTP/1.0", None),
            ("CONNECT a.example:443 HTTP/1.0", None),
            ("CONNECT a.example:443 HTTP/1.1", None),
        ] {
            assert_eq!(head(text).err(), error, "{text}");
        }
    }

    #[test]
    fn lengths_are_one_plain_number() {
        for value in [
            "5, 5",
            "+5",
            "-5",
            "0x5",
            "5 5",
            "",
            "05",
            "9223372036854775808",
            "5;a",
            "1e3",
        ] {
            let found = post(&format!("Content-Length: {value}")).map(|_| ());
            assert_eq!(found, Err(HeadError::ContentLength), "{value:?}");
        }
        let twice = post("Content-Length: 5\nContent-Length: 5");
        assert_eq!(twice.map(|_| ()), Err(HeadError::ContentLength));
        for (value, length) in [
            ("0", 0),
            ("5", 5),
            ("9223372036854775807", i64::MAX.unsigned_abs()),
        ] {
            let head = post(&format!("content-length:{value}")).expect("good");
            assert_eq!(head.body, BodyLength::Length(length));
        }
    }

    #[test]
    fn the_only_coding_is_chunked() {
        for value in [
            "chunkedx",
            "xchunked",
            "chunked, identity",
            "identity, chunked",
            "identity",
            "gzip",
            "",
            "chunked;a",
            "\u{b}chunked",
        ] {
            let found = post(&format!("Transfer-Encoding: {value}")).err();
            let control = value.starts_with('\u{b}');
            let error = if control {
                HeadError::Control
            } else {
                HeadError::TransferEncoding
            };
            assert_eq!(found, Some(error), "{value:?}");
        }
        let twice = post("Transfer-Encoding: chunked\nTransfer-Encoding: chunked");
        assert_eq!(twice.err(), Some(HeadError::TransferEncoding));
        let old = head("POST http://a.example/ HTTP/1.0\nTransfer-Encoding: chunked");
        assert_eq!(old.err(), Some(HeadError::TransferEncoding));
        let chunked = post("transfer-encoding: Chunked").expect("case does not count");
        assert_eq!(chunked.body, BodyLength::Chunked);
    }

    #[test]
    fn a_length_beside_chunks_is_refused_in_either_order() {
        for fields in [
            "Content-Length: 5\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\nContent-Length: 5",
        ] {
            assert_eq!(post(fields).err(), Some(HeadError::Lengths));
        }
    }

    #[test]
    fn methods_without_a_body_have_none() {
        for method in ["GET", "HEAD", "OPTIONS", "CONNECT"] {
            for field in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
                let found = head(&format!("{method} a.example:1 HTTP/1.1\nHost: a\n{field}"));
                assert_eq!(
                    found.err(),
                    Some(HeadError::UnexpectedBody),
                    "{method} {field}"
                );
            }
            let empty = head(&format!(
                "{method} a.example:1 HTTP/1.1\nHost: a\nContent-Length: 0"
            ));
            assert_eq!(
                empty.map(|head| head.body),
                Ok(BodyLength::Length(0)),
                "{method}"
            );
        }
        let delete = head("DELETE http://a.example/ HTTP/1.1\nHost: a\nContent-Length: 5");
        assert_eq!(delete.map(|head| head.body), Ok(BodyLength::Length(5)));
    }

    #[test]
    fn imitations_of_fields_that_matter_are_refused() {
        for name in [
            "content_length",
            "Content.Length",
            "transfer.encoding",
            "proxy_authorization",
            "x-Proxy_Authorization",
            "proxy_anything",
            "x_tidegate_flow",
            "keep_alive",
            "Http2_Settings",
            "X_Forwarded_For",
        ] {
            assert_eq!(
                post(&format!("{name}: 5")).err(),
                Some(HeadError::DisguisedField),
                "{name}"
            );
        }
        for name in ["a.b", "content_type", "user_agent", "_"] {
            assert!(post(&format!("{name}: 5")).is_ok(), "{name}");
        }
    }

    #[test]
    fn credentials_for_the_proxy_come_once() {
        let twice = post("Proxy-Authorization: Basic eDp5\nProxy-Authorization: Basic eDp5");
        assert_eq!(twice.err(), Some(HeadError::ProxyAuthorization));
    }

    #[test]
    fn heads_are_bounded_in_bytes_and_fields() {
        let long = format!("A: {}", "a".repeat(1024));
        assert_eq!(post(&long).err(), Some(HeadError::TooLarge));
        assert_eq!(raw(&[b'A'; 1025]).err(), Some(HeadError::TooLarge));
        assert!(matches!(raw(&[b'A'; 1024]), Ok(None)));
        assert!(post(&["A: b"; 7].join("\n")).is_ok());
        assert_eq!(
            post(&["A: b"; 8].join("\n")).err(),
            Some(HeadError::TooManyFields)
        );
    }

    #[test]
    fn expectations_are_met_or_refused() {
        let waits = |head: Result<RequestHead, HeadError>| head.map(|head| head.expect_continue);
        assert_eq!(
            waits(post("Expect: 100-Continue\nContent-Length: 5")),
            Ok(true)
        );
        assert_eq!(waits(post("Expect: 100-continue")), Ok(false));
        assert_eq!(waits(post("Expect: 200-ok")), Err(HeadError::Expectation));
        let old = head("POST http://a/ HTTP/1.0\nExpect: 100-continue\nContent-Length: 5");
        assert_eq!(waits(old), Ok(false));
    }

    #[test]
    fn an_upgrade_is_one_protocol_that_connection_names() {
        let get = |fields: &str| {
            let head = head(&format!("GET http://a/ HTTP/1.1\nHost: a\n{fields}")).expect("good");
            head.upgrade().map(str::to_owned)
        };
        assert_eq!(
            get("Connection: keep-alive, Upgrade\nUpgrade: websocket").as_deref(),
            Some("websocket")
        );
        for fields in [
            "Upgrade: websocket",
            "Connection: upgrade",
            "Connection: upgrade\nUpgrade: h2c",
            "Connection: upgrade\nUpgrade: HTTP/2.0",
            "Connection: upgrade\nUpgrade: websocket, h2c",
            "Connection: upgrade\nUpgrade: websocket\nUpgrade: h2c",
        ] {
            assert_eq!(get(fields), None, "{fields:?}");
        }
        let with_body = post("Connection: upgrade\nUpgrade: websocket\nContent-Length: 5");
        assert_eq!(with_body.expect("good").upgrade(), None);
    }

    #[test]
    fn a_connection_is_kept_as_its_version_and_fields_say() {
        for (text, kept) in [
            ("HTTP/1.1", true),
            ("HTTP/1.1\nConnection: foo, Close", false),
            ("HTTP/1.1\nProxy-Connection: close", false),
            ("HTTP/1.0", false),
            ("HTTP/1.0\nConnection: Keep-Alive", true),
            ("HTTP/1.0\nProxy-Connection: Keep-Alive", true),
        ] {
            let head = head(&format!("CONNECT a.example:443 {text}")).expect("good");
            assert_eq!(head.keep_alive, kept, "{text:?}");
        }
    }

    #[test]
    fn statuses_tell_faults_of_size_method_and_version_apart() {
        assert_eq!(HeadError::TooLarge.status(), 431);
        assert_eq!(HeadError::Method.status(), 405);
        assert_eq!(HeadError::Version.status(), 505);
        assert_eq!(HeadError::Expectation.status(), 417);
        assert_eq!(HeadError::Field.status(), 400);
    }

    #[test]
    fn no_field_names_another_method_than_the_request_line() {
        for (field, error) in [
            ("X-HTTP-Method-Override: DELETE", HeadError::MethodOverride),
            ("x-http-method: GET", HeadError::MethodOverride),
            ("X-Method-Override: put", HeadError::MethodOverride),
            ("HTTP-Method-Override: PUT", HeadError::MethodOverride),
            ("X_HTTP_Method_Override: PUT", HeadError::DisguisedField),
            (
                "X-Method-Override: POST\nX-Method-Override: PUT",
                HeadError::MethodOverride,
            ),
        ] {
            assert_eq!(post(field).map(|_| ()), Err(error), "{field}");
        }
        assert!(post("X-HTTP-Method-Override: POST").is_ok());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text: Vec<u8>) {
            let _ = raw(&text);
            let _ = raw(&[b"GET / HTTP/1.1\r\n", &text[..], b"\r\n\r\n"].concat());
        }

        #[test]
        fn one_changed_byte_never_makes_two_requests_of_one(at in 0usize..87, to: u8) {
            let mut text = b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\
                Content-Length: 3\r\nA: b\r\n\r\nabc".to_vec();
            let at = at % text.len();
            text[at] = to;
            let mut buffer = BytesMut::from(&text[..]);
            if let Ok(Some(head)) = parse_request(&mut buffer, LIMITS) {
                prop_assert_eq!(head.len() + buffer.len(), text.len());
            }
        }
    }
}
